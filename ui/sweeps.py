"""Several runs as one: the choice to try several values or to cross-validate, and the view of what came of it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from alexnet import catalog, figures, folds, public, runs, series, sweep
from alexnet.data import Dataset
from alexnet.recipes import Recipe, RecipeError
from alexnet.runs import Job, Run, RunError, Status
from alexnet.series import Series
from alexnet.sweep import Plan, Sweep
from ui.charts import live_chart
from ui.page import PERCENT, duration, kept, label_of, numbers, percent, plain, plain_errors
from ui.progress import stop_button

Make = Callable[[str, Dataset], Job]  # from the photos that were asked for by this name

HOWS = {"one": "One run", "values": "Try several values", "folds": "Cross-validate"}
SEARCHES = {"grid": "All combinations", "random": "Some of them at random", "optuna": "Those with promise (Optuna)"}
MOST_VARIED = 3  # settings in the form; the command line takes any number
MOST_CURVES = 30
IN_ROW = 3  # figures
VALUES_HELP = (
    "A list such as 0.2, 0.5. For whole numbers also a range, 0..9, each of which is tried. Where combinations are not all "
    "tried, a range of any numbers, 1e-4..1e-1, to draw from."
)


# ----------------------------------------------------------------------------------------------------------- the form


def choose_how(recipe: Recipe) -> tuple[Recipe, Make] | None:
    """Whether to make one run or several; the recipe of the first, and what makes them; None while something is missing.

    Raises:
        alexnet.recipes.RecipeError: what is entered cannot work.
    """
    how = kept(
        st.radio, "Runs", key="how", default="one", options=list(HOWS), format_func=HOWS.get, horizontal=True,
        label_visibility="collapsed",
    )  # fmt: skip
    if how == "values":
        plan = _choose_plan(recipe)
        return plan and (recipe, functools.partial(sweep.create, recipe, plan))
    if how == "folds":
        count = kept(st.number_input, "Folds", key="fold-count", default=5, step=1, help="Runs, each of which is tested on "
                     "another part of the photos, so that each photo is tested once.")  # fmt: skip
        recipe = recipe.replace(folds=count, fold=1)
        return recipe, functools.partial(folds.create, recipe)
    return recipe, functools.partial(runs.create, recipe)


def _choose_plan(recipe: Recipe) -> Plan | None:
    """The settings that vary and their values, one row after the other, and how to search."""
    vary: dict[str, str] = {}
    names = sorted((name for name, f in sweep.FIELDS.items() if f.metadata["group"] != "about"), key=label_of)
    for row in range(MOST_VARIED):
        left, right = st.columns([2, 3], vertical_alignment="bottom")
        with left:
            name = kept(
                st.selectbox, "Setting", key=f"vary-{row}", default=None, options=names, index=None, format_func=label_of,
                placeholder="Choose one",
            )  # fmt: skip
        with right:
            text = kept(
                st.text_input, "Values", key=f"values-{row}", default="", help=VALUES_HELP, placeholder=_example(name)
            )
        if not name or not text.strip():
            break
        if name in vary:
            raise RecipeError(name, "it is chosen twice; give all its values at once.")
        vary[name] = text
    if not vary:
        st.caption("Choose a setting and write the values to try.")
        return None
    search, trials = _choose_search()
    pruning = kept(
        st.toggle, "End hopeless trials early", key="pruning", default=True,
        help="A trial whose best validation accuracy falls below the median of the trials before it ends there.",
    )  # fmt: skip
    plan = sweep.make_plan(recipe, vary, search, trials, pruning)
    st.caption(f"{plan.trials:,} runs, one after the other.")
    return plan


def _example(name: str | None) -> str:
    if name is None:
        return "such as 0.2, 0.5"
    if choices := sweep.FIELDS[name].metadata["choices"]:
        return ", ".join(choices)
    return "true, false" if sweep.FIELDS[name].type == "bool" else "such as 1, 2 or 1..9"


def _choose_search() -> tuple[str, int | None]:
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    offered = [name for name in SEARCHES if name != "optuna" or sweep.has_optuna()]
    with left:
        search = kept(
            st.selectbox, "Combinations", key="search", default="grid", options=offered, format_func=SEARCHES.get
        )
    if search == "grid":
        return search, None
    with right:
        return search, kept(st.number_input, "Trials", key="trials", default=sweep.TRIALS, step=1)


# ---------------------------------------------------------------------------------------------------------- what there is


def list_jobs() -> dict[str, Run | Series]:
    """The series, and the runs that belong to none, by their id; newest first, without those that ship."""
    found: list[Any] = [run for run in runs.list_runs(members=False) if not run.shipped]
    for file, folder in runs.series_folders():
        with contextlib.suppress(RunError):
            found.append(series.find(catalog.KINDS[file], folder))
    return {job.id: job for job in sorted(found, key=lambda job: job.created, reverse=True)}


def find_member(name: str) -> Run | None:
    """The run of a series that has this id; None where there is none."""
    with contextlib.suppress(RunError):
        run = runs.find(name)
        return run if run.is_member and run.id == name else None
    return None


# ----------------------------------------------------------------------------------------------------------- the view


def watch_series(job: Series, state: str, show: Callable[[str], None]) -> None:
    """The view of a series; when its state is no longer `state`, the page is drawn anew.

    Args:
        job: the series.
        state: of its status, when the page was drawn.
        show: has the run of an id shown.
    """
    with plain_errors():
        status = job.status()
        if status.state != state:
            st.rerun()
        st.caption(plain(f"{job.recipe.title} on {Path(job.data).name}: {_about(job)}"))
        (_show_progress if status.live else _show_outcome)(job, status)
        looks = [_look(str(run.path), _stamps(run)) for run in job.made()]
        trials = sweep.ranked([outcome for outcome, _, _ in looks])
        if trials:
            _show_trials(job, trials, show)
            curves = {outcome["run"]: curve for outcome, curve, _ in looks}
            _show_figures(job, trials, curves, max(epochs for *_, epochs in looks))
        else:
            st.caption(f"No {job.member} has begun yet.")
        with st.expander("Log", expanded=status.state in ("failed", "lost")):
            st.code(job.log_tail() or "Nothing yet.", language=None, wrap_lines=True)


def _about(job: Series) -> str:
    if not isinstance(job, Sweep):
        return f"{job.count} {job.member}s"
    values = (f"{label_of(name)} {sweep.in_words(values)}" for name, values in job.plan.vary.items())
    return f"{job.count} {job.member}s of {'; '.join(values)}"


def _show_progress(job: Series, status: Status) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(status.state.capitalize(), color="green" if status.state == "running" else "blue")
        st.markdown(plain(status.message), width="stretch")
        stop_button(job, "Stop", "Stopping", ":material/stop:")
    st.progress(min(status.step / max(status.steps, 1), 1.0))


def _show_outcome(job: Series, status: Status) -> None:
    message = {"finished": st.success, "stopped": st.info}.get(status.state, st.error)
    message(plain(status.message or f"{status.state.capitalize()}."))
    if (
        status.state != "finished"
        and not public.is_on()
        and st.button("Resume", type="primary", icon=":material/play_arrow:")
    ):
        job.resume()
        st.rerun()


def _stamps(run: Run) -> tuple:
    """Changes whenever what `_look` sees does."""
    files = (run.path / name for name in ("run.json", "status.json", "metrics.jsonl", "report.json"))
    return run.locked(), *(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


@st.cache_data(show_spinner=False, max_entries=2 * sweep.MOST_TRIALS)
def _look(path: str, stamps: tuple) -> tuple[dict[str, Any], list[figures.Point], int]:
    """What became of a run, with all its settings as `values`; its validation accuracies by epoch; its epochs."""
    run = Run(Path(path))
    recipe = run.recipe
    curve = [(record["epoch"], record["accuracy"]) for record in run.metrics() if record["split"] == "val"]
    return {**series.outcome(run), "values": recipe.to_dict()}, curve, recipe.epochs


def _show_trials(job: Series, trials: list[dict[str, Any]], show: Callable[[str], None]) -> None:
    """The figures of all, a table with the best first, and the way to each."""
    best = trials[0] if trials[0]["accuracy"] is not None else None
    spreads = {}
    if job.status().state == "finished":
        report = runs.read_json(job.path / "report.json") or {}
        found = report.get("seeds") or {"test_accuracy": report.get("accuracy")}
        titles = {
            "accuracy": "Validation accuracy, mean ± deviation",
            "test_accuracy": "Test accuracy, mean ± deviation",
        }
        spreads = {
            titles[name]: f"{spread['mean']:.1%} ± {spread['deviation']:.1%}"
            for name, spread in found.items()
            if spread
        }
    numbers({
        "Best validation accuracy": best and f"{best['accuracy']:.1%}",
        f"Best {job.member}": best and best["run"],
        **spreads,
    })  # fmt: skip
    varied = list(job.plan.vary) if isinstance(job, Sweep) else []
    shares = st.column_config.NumberColumn(format=PERCENT)
    st.dataframe(
        [_row(job, trial, varied) for trial in trials],
        hide_index=True,
        column_config={"Best validation accuracy": shares, "Test accuracy": shares},
    )
    options = [trial["run"] for trial in trials]
    opened = st.selectbox(
        f"Open a {job.member}", options, index=None, key=f"open-{job.id}", placeholder=f"Open a {job.member}",
        label_visibility="collapsed",
    )  # fmt: skip
    if opened:
        show(f"{job.id}/{opened}")
        st.rerun()


def _row(job: Series, trial: dict[str, Any], varied: list[str]) -> dict[str, Any]:
    return {
        job.member.capitalize(): trial["run"],
        "Best validation accuracy": percent(trial["accuracy"]),  # as far to the left as a phone shows
        **{label_of(name): sweep.in_words(trial["values"][name]) for name in varied},
        "Epoch": trial["epoch"],
        "Test accuracy": percent(trial["test_accuracy"]),
        "Time": None if trial["seconds"] is None else duration(trial["seconds"]),
        "State": trial["message"] or trial["state"],
    }


def _show_figures(
    job: Series, trials: list[dict[str, Any]], curves: dict[str, list[figures.Point]], epochs: int
) -> None:
    """The validation curves of the best trials, and what each setting that varies has to do with the accuracy."""
    known = [trial for trial in trials if trial["accuracy"] is not None]
    if not known:
        return
    best, names = known[0]["run"], [trial["run"] for trial in known[:MOST_CURVES]]
    figure = figures.validation_curves({name: curves[name] for name in names}, epochs, best)
    live_chart(figure, key=f"curves-{job.id}", height=340)
    if len(known) > MOST_CURVES:
        st.caption(f"The {MOST_CURVES} best of {len(known):,}.")
    varied = list(job.plan.vary) if isinstance(job, Sweep) else []
    for row in range(0, len(varied), IN_ROW):
        for name, column in zip(varied[row:], st.columns(min(IN_ROW, len(varied))), strict=False):
            points = [(trial["run"], _place(trial["values"][name]), trial["accuracy"]) for trial in known]
            with column:
                live_chart(figures.accuracy_by_value(label_of(name), points, best), f"{name}-{job.id}", height=280)


def _place(value: Any) -> float | str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else sweep.in_words(value)
