"""Train: choose photos and a recipe, start a run, and watch it learn. The run is a process of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import streamlit as st

import ui
from alexnet import data, figures, notes, runs, turns
from alexnet.recipes import RECIPES, Recipe
from alexnet.runs import Run, Status
from alexnet.schedules import learning_rate
from alexnet.series import Series

NEW = "new"
MAIN_SETTINGS = ("epochs", "batch_size", "lr", "image_size")
GROUPS = ("optimisation", "augmentation", "model", "data", "hardware")
GROUP_OF = {f.name: f.metadata["group"] for f in fields(Recipe) if f.metadata["group"] in GROUPS}
FEW_STEPS = 5  # an epoch: with fewer a network hardly learns anything


def choose_job() -> Run | Series | None:
    """The run, or the series of them, in the address, or looked at before, or training; None for a new one."""
    made = ui.list_jobs()
    states = {name: run.status() for name, run in made.items()}
    live = [name for name, status in states.items() if status.live]
    busiest = max(live, key=lambda name: runs.UNFINISHED.index(states[name].state), default=NEW)
    wanted = st.query_params.get("run") or st.session_state.get("shown", busiest)
    if wanted not in (NEW, *made) and (member := ui.find_member(wanted)):
        made[wanted], states[wanted] = member, member.status()
    if wanted not in (NEW, *made):
        st.warning(f"There is no run called {ui.plain(wanted)} here.")
        wanted = NEW
    titles = {NEW: "New run", **{n: f"{notes.title(made[n])} ({status.state})" for n, status in states.items()}}
    st.session_state["picked"] = wanted
    pick = {"key": "picked", "on_change": lambda: show(st.session_state["picked"])}
    st.selectbox("Run", list(titles), format_func=titles.get, label_visibility="collapsed", **pick)
    show(wanted)
    return made.get(wanted)


def show(run_id: str) -> None:
    """Have a run, or the form for a new one, shown: in this tab and, by its address, after a reload or from a link."""
    st.session_state["shown"] = run_id
    if run_id == NEW:
        st.query_params.clear()
    elif st.query_params.get("run") != run_id:  # what else is in the address is of the run that it names
        st.query_params.from_dict({"run": run_id})


def new_run() -> None:
    """The form: to the left what to learn from; to the right how, what that comes to, and Start."""
    left, right = st.columns(2, gap="large")
    with right:
        st.subheader("Recipe")
        recipe = choose_recipe()
        action = st.container()
    with left:
        st.subheader("Photos")
        photos = ui.choose_photos()
    with action, ui.plain_errors():
        if recipe and photos:
            name, dataset = photos
            if (how := ui.choose_how(recipe)) is None:
                return
            recipe, make = how
            parts = data.split(dataset, recipe)
            train, val, test = (f"{len(parts[split]):,}" for split in ("train", "val", "test"))
            st.caption(f"{train} photos to train on, {val} to validate after each epoch, {test} for the final test.")
            if len(parts["train"]) < FEW_STEPS * recipe.batch_size:
                st.caption(
                    f"That is less than {FEW_STEPS} batches an epoch, which teaches little; make the batch size smaller."
                )
            if st.button("Start", type="primary", icon=":material/play_arrow:", width="stretch"):
                ui.forget_dataset(name)  # what counts are the photos as they are now
                job = make(name, ui.dataset(name))
                job.resume()
                show(job.id)
                st.rerun()


def choose_recipe() -> Recipe | None:
    """The recipe with its settings as changed here; None, with the reason on the page, while they cannot work."""
    name = ui.kept(
        st.selectbox, "Recipe", key="recipe", default="first-run", options=list(RECIPES),
        format_func=lambda name: RECIPES[name].title, label_visibility="collapsed",
    )  # fmt: skip
    base = RECIPES[name]
    show_source(base)
    values = ui.entered_settings(base, GROUP_OF)
    names = [name for name in GROUP_OF if ui.applies(base, name)]
    values |= draw_settings(base, MAIN_SETTINGS)
    found = st.container()  # what is wrong is said, and what was changed, before a tab that may be long
    more = st.expander("More settings", key="more", on_change="rerun")
    if more.open:  # drawing forty widgets that nobody sees would make each click twice as slow
        tabs = more.tabs([group.capitalize() for group in GROUPS], key="group", on_change="rerun")
        group, tab = next((group, tab) for group, tab in zip(GROUPS, tabs, strict=True) if tab.open)
        with tab:
            values |= draw_settings(base, [n for n in names if GROUP_OF[n] == group and n not in MAIN_SETTINGS])
    recipe = None
    with found, ui.plain_errors():
        recipe = base.replace(**values)
        if changed := [ui.label_of(name) for name, value in values.items() if value != getattr(base, name)]:
            st.caption(f"Changed: {', '.join(changed)}.")
    if recipe is None:
        return None
    if more.open and group == "augmentation":
        with tab:
            ui.link_to_augment(recipe)
    points = [(recipe.epochs * i / 200, learning_rate(recipe, i / 200)) for i in range(201)]
    ui.live_chart(figures.learning_rate_curve(points), key="schedule", height=220)
    if recipe.schedule == "plateau":
        st.caption("So it stays while the validation loss falls; each time that stalls, it is divided by ten.")
    return recipe


def show_source(recipe: Recipe) -> None:
    """Whose recipe it is, what its author reports, and where it differs from that."""
    st.caption(ui.plain(recipe.source))
    if recipe.published:
        st.caption(ui.plain(f"Published: {recipe.published}"))
    if recipe.deviations:
        with st.expander("Where this differs from the source"):
            st.markdown("\n".join(f"- {ui.plain(line)}" for line in recipe.deviations.splitlines()))


def draw_settings(base: Recipe, names: Sequence[str]) -> dict[str, Any]:
    """The widgets of these settings, two in a row, and their values."""
    columns = [column for _ in names[::2] for column in st.columns(2, vertical_alignment="bottom")]
    values = {}
    for column, name in zip(columns, names, strict=False):
        with column:
            values[name] = ui.setting(base, name)
    return values


def watch(run: Run, state: str) -> None:
    """The view of a run; comes round every second while it is live. When its state changes, all of the page does."""
    with ui.plain_errors():
        status, records, recipe, dataset = run.status(), run.metrics(), run.recipe, run.config["dataset"]
        if status.state != state:
            st.rerun()
        whole, back = run.path.parent.name, ":material/arrow_back:"
        if run.is_member and st.button(f"All of {ui.plain(whole)}", type="tertiary", icon=back):
            show(whole)
            st.rerun()
        photos = f" on {dataset['name']}, {dataset['photos']:,} photos" if dataset["photos"] else ""
        st.caption(ui.plain(recipe.title + photos))
        (show_progress if status.live else show_outcome)(run, status)
        show_numbers(status, records)
        if records:
            curves = figures.training_curves(records, recipe.epochs, status.steps, (status.best or {}).get("epoch"))
            ui.live_chart(curves, key=f"curves-{run.id}", height=480)
        ui.show_film(run)
        with st.expander("Log", expanded=status.state in ("failed", "lost")):
            st.code(run.log_tail() or "Nothing yet.", language=None, wrap_lines=True)


def show_progress(run: Run, status: Status) -> None:
    """How far the run is, and Stop; of a run that waits, what is ahead of it."""
    queued = status.state == "queued"
    place = f"Epoch {status.epoch} of {status.epochs}, step {status.step:,}. " if status.steps else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(status.state.capitalize(), color="green" if status.state == "running" else "blue")
        st.markdown(place + ui.plain(status.message), width="stretch")
        words = ("Cancel", "Cancelling", ":material/close:") if queued else ("Stop", "Stopping", ":material/stop:")
        ui.stop_button(run, *words)
    ahead = turns.ahead(run) if queued else []
    if len(ahead) > 1:
        st.markdown("\n".join(f"1. {ui.plain(other.id)} ({other.status().state})" for other in ahead))
    if not queued:
        st.progress(min(status.step / max(status.steps, 1), 1.0))
    if (silence := time.time() - status.updated) > 30:
        st.caption(f"No sign of life for {ui.duration(silence)}.")


def show_outcome(run: Run, status: Status) -> None:
    """How the run ended, and what to do next."""
    message = {"finished": st.success, "stopped": st.info}.get(status.state, st.error)
    message(ui.plain(status.message or f"{status.state.capitalize()}."))
    finished = status.state == "finished"
    with st.container(horizontal=True):
        if not finished and st.button("Resume", type="primary", icon=":material/play_arrow:"):
            run.resume()
            st.rerun()
        kind = "primary" if finished else "secondary"
        if run.has_weights and st.button("Classify photos with it", type=kind, icon=":material/search:"):
            st.switch_page("pages/classify.py", query_params={"run": run.id})
        new = st.button("New run like this", icon=":material/tune:")
        train_on = finished and run.has_weights and st.button("Train on from it", icon=":material/fast_forward:")
        if new or train_on:
            ui.fill_form(run, start_from=run.id if train_on else run.recipe.start_from)
            show(NEW)
            st.rerun()


def show_numbers(status: Status, records: list[dict]) -> None:
    """The figures of the run in one row, which wraps on a phone."""
    test = next((r for r in reversed(records) if r["split"] == "test"), None)
    ui.numbers({
        "Test accuracy": test and f"{test['accuracy']:.1%}",
        "Best validation accuracy": status.best and f"{status.best['accuracy']:.1%}",
        "Time left": status.eta_seconds and ui.duration(status.eta_seconds),  # none while the last photos are judged
        "Images per second": status.images_per_s and f"{status.images_per_s:,.0f}",
        "Memory": status.memory_bytes and f"{status.memory_bytes / 1e9:.1f} GB",
        "Device": status.device,
    })  # fmt: skip


ui.guard()
ui.close_to_public("Train", "training")
heading, picker = st.columns([3, 2], vertical_alignment="bottom")
heading.title("Train")
with picker:
    job = choose_job()
if job is None:
    new_run()
else:
    status = job.status()
    watching, more = (watch, ()) if isinstance(job, Run) else (ui.watch_series, (show,))
    st.fragment(watching, run_every=1.0 if status.live else None)(job, status.state, *more)
