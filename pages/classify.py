"""Classify: what a run says about photos, and what in them it goes by. Uploads stay in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

import ui
from alexnet import images, runs

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from alexnet.predict import Classifier, Prediction

    Answered = tuple[bytes, Prediction, Callable[..., object]]  # a photo, what is said of it, and the place of its map


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
    return st.selectbox("Run", usable, format_func=lambda run: run.id, **keep)


def load(run: runs.Run) -> tuple[Classifier, ui.Edition]:
    """The classifier of `run`; the reason on the page, and nothing more, where there is none."""
    with ui.plain_errors():
        try:
            edition = ui.edition(run)
            return ui.classifier(*edition), edition
        except OSError:
            st.error(f"The weights of {ui.plain(run.id)} have gone; choose another run.")
    st.stop()


def show_answers(photos: list[ui.Photo], classifier: Classifier, edition: ui.Edition) -> list[Answered]:
    """What the network says of each photo, or why that photo cannot be used; of many also the count for each label."""
    summary, answered = st.empty(), []
    for name, data in photos:
        try:
            thumbnail, prediction = ui.answer(data, edition, classifier)
            answered.append((data, prediction, ui.show_photo(name, thumbnail, prediction, len(photos) > 1)))
        except images.PhotoError as error:
            st.error(f"{ui.plain(name)}: {error}")
    if len(photos) > 1:
        labels = Counter(prediction.label or familiarity.neither(classifier.classes) for _, prediction, _ in answered)
        summary.markdown(", ".join(f"{ui.plain(label)}: **{count}**" for label, count in labels.most_common()))
    return answered


def draw_maps(
    answered: list[Answered],
    settings: ui.MapSettings,
    classifier: Classifier,
    edition: ui.Edition,
    place: DeltaGenerator,
) -> None:
    """The saliency map of each photo, with progress in `place`; those that share a scale wait for the last of them."""
    method, total, waiting = settings.method, len(answered), []
    with ui.progress_on_demand(place, cancel=ui.choose_no_map) as progress:
        for number, (data, prediction, show) in enumerate(answered):
            target = settings.target or prediction.best
            tell = ui.part_of(progress, f"{method.title}, photo {number + 1} of {total}", number, total)
            told = tell if method.slow or total > 1 else None
            try:
                evidence = ui.attribution(data, edition, method.name, target, classifier, told)
            except saliency.AttributionError as error:
                show(prediction.input, caption=ui.plain(str(error)))
                continue
            draw = partial(ui.show_map, show, evidence, prediction.input, target, settings)
            if settings.shared:
                waiting.append((draw, saliency.strength(evidence)))
            else:
                draw(scale=None)
    for draw, _ in waiting:
        draw(scale=max(strength for _, strength in waiting))


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
if not photos:
    st.stop()
with st.spinner("Loading the network"):
    from alexnet import familiarity, saliency

    classifier, edition = load(run)

above, settings_place, below = st.container(), st.container(), st.container()
with settings_place:
    settings = ui.choose_map(classifier.classes, many=len(photos) > 1)
    progress_place = st.container()
with below if len(photos) > 1 else above:  # one photo is seen before the settings, a list of them after
    answered = show_answers(photos, classifier, edition)
if settings:
    draw_maps(answered, settings, classifier, edition, progress_place)
