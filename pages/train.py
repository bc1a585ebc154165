"""Train: choose photos and a recipe, start a run, and watch it learn. The run is a process of its own."""

from __future__ import annotations

import time
from dataclasses import fields

import streamlit as st

import ui
from alexnet import data, figures, runs
from alexnet.recipes import RECIPES, Recipe, learning_rate
from alexnet.runs import Run, Status

NEW = "new"
MAIN_SETTINGS = ("epochs", "batch_size", "lr", "image_size")
GROUPS = ("optimisation", "augmentation", "model", "data", "hardware")


def choose_run() -> Run | None:
    """The run in the address, or looked at before, or one that is training; None for a new one."""
    made = {run.id: run for run in runs.list_runs() if not run.shipped}
    states = {name: run.status() for name, run in made.items()}
    live = next((name for name, status in states.items() if status.live), NEW)
    wanted = st.query_params.get("run") or st.session_state.get("shown", live)
    if wanted not in (NEW, *made):
        st.warning(f"There is no run called {ui.plain(wanted)} here.")
        wanted = NEW
    titles = {NEW: "New run", **{name: f"{name} ({status.state})" for name, status in states.items()}}
    st.session_state["picked"] = wanted
    pick = {"key": "picked", "on_change": lambda: show(st.session_state["picked"])}
    st.selectbox("Run", list(titles), format_func=titles.get, label_visibility="collapsed", **pick)
    show(wanted)
    return made.get(wanted)


def show(run_id: str) -> None:
    """Have a run, or the form for a new one, shown: in this tab and, by its address, after a reload or from a link."""
    st.session_state["shown"] = run_id
    st.query_params.from_dict({} if run_id == NEW else {"run": run_id})


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
            parts = data.split(dataset, recipe.val_fraction, recipe.test_fraction, recipe.val_pattern, recipe.seed)
            train, val, test = (f"{len(parts[split]):,}" for split in ("train", "val", "test"))
            st.caption(f"{train} photos to train on, {val} to validate after each epoch, {test} for the final test.")
            if st.button("Start", type="primary", icon=":material/play_arrow:", width="stretch"):
                ui.forget_dataset(name)  # what counts are the photos as they are now
                run = runs.create(recipe, name, ui.dataset(name))
                runs.launch(run)
                show(run.id)
                st.rerun()


def choose_recipe() -> Recipe | None:
    """The recipe with its settings as changed here; None, with the reason on the page, while they cannot work."""
    name = ui.kept(
        st.selectbox, "Recipe", key="recipe", default="first-run", options=list(RECIPES),
        format_func=lambda name: RECIPES[name].title, label_visibility="collapsed",
    )  # fmt: skip
    base = RECIPES[name]
    st.caption(base.source)
    values = {}
    for column, setting in zip(st.columns(2) + st.columns(2), MAIN_SETTINGS, strict=True):
        with column:
            values[setting] = ui.setting(base, setting)
    with st.expander("More settings"):
        for tab, group in zip(st.tabs([group.capitalize() for group in GROUPS]), GROUPS, strict=True):
            with tab:
                rest = (f.name for f in fields(Recipe) if f.metadata["group"] == group and f.name not in MAIN_SETTINGS)
                values |= {setting: ui.setting(base, setting) for setting in rest}
    with ui.plain_errors():
        recipe = base.replace(**values)
        points = [(recipe.epochs * i / 200, learning_rate(recipe, i / 200)) for i in range(201)]
        ui.live_chart(figures.learning_rate_curve(points), key="schedule", height=220)
        return recipe
    return None


def watch(run: Run, live: bool) -> None:
    """The view of a run; comes round every second while it is live. At its end the page starts again, without that."""
    with ui.plain_errors():
        status, records, recipe, dataset = run.status(), run.metrics(), run.recipe, run.config["dataset"]
        if live and not status.live:
            st.rerun()
        st.caption(ui.plain(f"{recipe.title} on {dataset['name']}, {dataset['photos']:,} photos"))
        (show_progress if status.live else show_outcome)(run, status)
        show_numbers(status, records)
        curves = figures.training_curves(records, recipe.epochs, status.steps, (status.best or {}).get("epoch"))
        ui.live_chart(curves, key=f"curves-{run.id}", height=480)
        with st.expander("Log", expanded=status.state in ("failed", "lost")):
            st.code(run.log_tail() or "Nothing yet.", language=None, wrap_lines=True)


def show_progress(run: Run, status: Status) -> None:
    """How far the run is, and Stop."""
    place = f"Epoch {status.epoch} of {status.epochs}, step {status.step:,}. " if status.steps else ""
    stopping = (run.path / "stop").exists()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(status.state.capitalize(), color="green" if status.state == "running" else "blue")
        st.markdown(place + ui.plain(status.message), width="stretch")
        label = "Stopping" if stopping else "Stop"
        st.button(label, icon=":material/stop:", disabled=stopping, on_click=stop, args=[run])
    st.progress(min(status.step / max(status.steps, 1), 1.0))
    if (silence := time.time() - status.updated) > 30:
        st.caption(f"No sign of life for {ui.duration(silence)}.")


def stop(run: Run) -> None:
    """Ask the run to stop; says so where that cannot be."""
    with ui.plain_errors():
        run.request_stop()


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
        if st.button("New run like this", icon=":material/tune:"):
            ui.fill_form(run)
            show(NEW)
            st.rerun()


def show_numbers(status: Status, records: list[dict]) -> None:
    """The figures of the run in one row, which wraps on a phone."""
    test = next((r for r in reversed(records) if r["split"] == "test"), None)
    ui.numbers({
        "Test accuracy": test and f"{test['accuracy']:.1%}",
        "Best validation accuracy": status.best and f"{status.best['accuracy']:.1%}",
        "Time left": ui.duration(status.eta_seconds) if status.eta_seconds is not None else None,
        "Images per second": status.images_per_s and f"{status.images_per_s:,.0f}",
        "Memory": status.memory_bytes and f"{status.memory_bytes / 1e9:.1f} GB",
        "Device": status.device,
    })  # fmt: skip


ui.guard()
heading, picker = st.columns([3, 2], vertical_alignment="bottom")
heading.title("Train")
with picker:
    run = choose_run()
if run is None:
    new_run()
else:
    live = run.status().live
    st.fragment(watch, run_every=1.0 if live else None)(run, live)
