"""Architecture: a run's network opened up, and a photo followed through every layer of it. Uploads stay in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

import ui
from alexnet import images, notes, runs
from ui import architecture, architecture_demos, architecture_drawing, architecture_maps, architecture_unit
from ui.architecture import go

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alexnet.anatomy import Row
    from alexnet.predict import Classifier

INSIDE = "A photo inside"
DEMOS = {
    "Convolution": architecture_demos.try_convolution,
    "Local response norm": architecture_demos.try_local_response,
    "Pooling": architecture_demos.try_pooling,
    "Dropout": architecture_demos.try_dropout,
}


def choose_run(usable: list[runs.Run]) -> runs.Run:
    """The run whose network is shown, kept in the address; the shipped one unless another was chosen."""
    wanted = st.query_params.get("run")
    found = next((run for run in usable if run.id == wanted), None)
    if wanted and not found:
        st.warning(f"There is no run called {ui.plain(wanted)} with weights here.")
    st.session_state["opened"] = found or usable[0]
    keep = {"key": "opened", "on_change": lambda: go(run=st.session_state["opened"].id, unit=None, place=None)}
    return st.selectbox("Run", usable, format_func=notes.title, **keep)


def pick_layer(name: str, unit: int | None = None, place: str | None = None) -> None:
    """Show a layer, or a unit of it, or that at one place, with the photo inside."""
    go(layer=name, unit=unit, place=place)
    st.session_state["part"] = INSIDE


def open_up(run: runs.Run, photo: ui.Photo) -> None:
    """The network of `run`: the drawing of it, and its parts, of which one is seen."""
    # Not among the page's own names: callbacks keep those, and with them the network, long after they are needed.
    with st.spinner("Loading the network"):
        try:
            edition = ui.edition(run)
            classifier = ui.classifier(*edition)
        except OSError:
            st.error(f"The weights of {ui.plain(run.id)} have gone; choose another run.")
            return
        rows = architecture.network_rows(edition, classifier)
        journey = lead(photo, classifier, edition)
    architecture_drawing.draw(rows, journey.crop, architecture_maps.chosen_layer(rows).name, pick_layer)
    parts = {
        INSIDE: lambda: follow(journey, rows, run, classifier, edition),
        "Layers": lambda: architecture.show_layers(rows),
        "Filters": lambda: architecture_maps.show_filters(classifier, rows, pick_layer),
        "Try a layer": lambda: try_layers(rows),
        "Since 2012": lambda: architecture.show_differences(run, rows),
    }
    for show, tab in zip(parts.values(), st.tabs(list(parts), key="part", bind="query-params"), strict=True):
        if tab.open:  # what nobody sees costs nothing
            with tab:
                show()


def lead(photo: ui.Photo, classifier: Classifier, edition: ui.Edition) -> architecture_maps.Passage:
    """The photo's way through the network; of one that cannot be used the reason on the page, and a drawing's way."""
    name, data = photo
    try:
        return architecture_maps.passage(data, edition, classifier)
    except images.PhotoError as error:
        st.error(f"{ui.plain(name)}: {error}")
    return architecture_maps.passage(architecture.a_drawing()[1], edition, classifier)


def follow(
    journey: architecture_maps.Passage, rows: Sequence[Row], run: runs.Run, classifier: Classifier, edition: ui.Edition
) -> None:
    """The photo in one layer: its maps, a unit of them, what that sees, how it comes to its number, and what it likes."""
    row, unit = architecture_maps.choose_unit(rows, journey, classifier.classes)
    place = architecture_unit.show_unit(row, unit, journey, classifier.classes)
    architecture_unit.show_arithmetic(classifier, rows, row, unit, place, journey, pick_layer)
    architecture_unit.show_strongest(run, row, unit, classifier, edition)


def try_layers(rows: Sequence[Row]) -> None:
    """One of the demonstrations."""
    choice = {"default": next(iter(DEMOS)), "required": True, "key": "demo", "label_visibility": "collapsed"}
    DEMOS[st.segmented_control("Layer to try", list(DEMOS), **choice)](rows)


ui.guard()
st.title("Architecture")
usable = sorted((run for run in runs.list_runs() if run.has_weights), key=lambda run: not run.shipped)
if not usable:
    st.info("No network is trained yet. Train one, and from its first epoch on it can be looked into here.")
    st.page_link("pages/train.py", label="Train a network", icon="📈")
    st.stop()

left, right = st.columns([2, 3], vertical_alignment="bottom")
with left:
    run = choose_run(usable)
with right:
    photo = architecture.choose_photo(run)
with ui.plain_errors():
    open_up(run, photo)
