"""Classify: what a run says about photos, and what in them it goes by. Uploads stay in memory."""

from __future__ import annotations

from collections import Counter

import streamlit as st

import ui
from alexnet import images, notes, runs


def choose_run(usable: list[runs.Run]) -> runs.Run:
    """The run to classify with, kept in the address; the shipped one unless another was chosen."""
    wanted = st.query_params.get("run")
    if wanted and "run" not in st.session_state:
        found = next((run for run in usable if run.id == wanted), None)
        if found:
            st.session_state["run"] = found
        else:
            st.warning(f"There is no run called {ui.plain(wanted)} with weights here.")
    keep = {"key": "run", "on_change": lambda: st.query_params.update(run=st.session_state["run"].id)}
    return st.selectbox("Run", usable, format_func=notes.title, **keep)


def explain(photos: list[ui.Photo], run: runs.Run, usable: list[runs.Run]) -> None:
    """What the network of `run` says of the photos, its saliency maps, and of one photo what these are worth."""
    # Not among the page's own names: callbacks keep those, and with them the network, long after they are needed.
    with st.spinner("Loading the network"):
        network = load(run)
    if network is None:
        return
    many = len(photos) > 1
    above, settings_place, below = st.container(), st.container(), st.container()
    with settings_place:
        settings = ui.choose_maps(network[0], many, [other.id for other in usable if other != run])
        progress_place = st.container()
    maps = len(settings.methods) if settings else 0
    in_grid = settings and not many and (maps > 1 or settings.rivals)
    with below if many else above:  # one photo is seen before the settings, a list of them after
        cases = show_answers(photos, network, maps=0 if in_grid else maps)
    if settings and cases:
        if in_grid:
            with below:
                rivals = (load(other) for other in usable if other.id in settings.rivals)
                networks = [network, *filter(None, rivals)]
                cases = ui.map_grid(cases[0].data, networks, settings.methods)
        ui.draw_maps(cases, settings, progress_place)
    if cases and not many:
        if settings:
            ui.show_trust(cases[0], settings)
        ui.show_eraser(cases[0])


def load(run: runs.Run) -> ui.Network | None:
    """The classifier of `run` and its edition; the reason on the page where there is none."""
    with ui.plain_errors():
        try:
            edition = ui.edition(run)
            return ui.classifier(*edition), edition
        except OSError:
            st.error(f"The weights of {ui.plain(run.id)} have gone; choose another run.")
    return None


def show_answers(photos: list[ui.Photo], network: ui.Network, maps: int) -> list[ui.Case]:
    """What the network says of each photo, or why that photo cannot be used; of many also the count for each label."""
    from alexnet import familiarity

    summary, line, cases = st.empty(), st.empty(), []
    for name, data in photos:
        try:
            with ui.queue_on_demand(line) as queue:
                thumbnail, prediction = ui.answer(data, network[1], network[0], queue)
            places = ui.show_photo(name, thumbnail, prediction, len(photos) > 1, maps)
            cases.append(ui.Case(data, prediction, *network, places))
        except images.PhotoError as error:
            st.error(f"{ui.plain(name)}: {error}")
    if len(photos) > 1:
        labels = Counter(case.prediction.label or familiarity.neither(network[0].classes) for case in cases)
        summary.markdown(", ".join(f"{ui.plain(label)}: **{count}**" for label, count in labels.most_common()))
    return cases


ui.guard()
st.title("Classify")
usable = sorted((run for run in runs.list_runs() if run.has_weights), key=lambda run: not run.shipped)
if not usable:
    st.info("No network is trained yet. Train one, and from its first epoch on it can look at your photos here.")
    st.page_link("pages/train.py", label="Train a network", icon="📈")
    st.stop()

left, right = st.columns([3, 1], gap="medium")
with right:
    run = choose_run(usable)
    ui.about(run)
    camera = st.toggle("Camera")
with left:
    photos = ui.upload_photos(camera)
if photos:
    explain(photos, run, usable)
