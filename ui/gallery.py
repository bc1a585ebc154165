"""Photos whose answers are known, a page at a time, with what the network went by if asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from alexnet import data, images
from alexnet.predictions import Predictions
from alexnet.runs import Run
from ui.maps import explanation
from ui.networks import answer, network_of
from ui.page import plain
from ui.photos import encoded
from ui.progress import part_of, progress_on_demand

if TYPE_CHECKING:
    from PIL import Image

    from alexnet.predict import Classifier

PAGE, PAGE_WITH_MAPS = 24, 12  # photos
SIDE = 150  # px of a picture; two in a row fit on a phone
PAGE_KEY, MAPS_KEY = "page", "gradcam"  # in the address
METHOD = "gradcam"
OPACITY = 0.8  # as on Classify


@dataclass(frozen=True)
class Examined:
    """What a run answered to some photos, and the photos."""

    run: Run
    predictions: Predictions
    keys: Sequence[str]  # a name for the content of each photo, which its small picture is kept by
    source: Callable[[int], bytes | Path]  # the content or the file of a photo by its index; raises PhotoError
    data: str | None = None  # the dataset or folder that they are in; None for uploads

    @property
    def here(self) -> bool:
        """Whether the photos can be shown."""
        return self.data is None or (data.available(self.data) and data.folder_of(self.data).is_dir())


def in_folder(run: Run, predictions: Predictions, name: str) -> Examined:
    """The photos of a dataset or folder known as `name`."""
    root = data.folder_of(name)

    def source(index: int) -> Path:
        path = Path(os.path.normpath(predictions.files[index]))
        if path.is_absolute() or path.parts[:1] == ("..",):  # the table may come from anybody
            raise images.PhotoError("The file lies outside its dataset: evaluate the run again.")
        return root / path

    return Examined(run, predictions, [f"{root}/{file}" for file in predictions.files], source, name)


def first_page() -> None:
    """Have the gallery begin anew, because it is about to show other photos."""
    if PAGE_KEY in st.session_state:  # before there are pages Streamlit would warn that it was set
        st.session_state[PAGE_KEY] = 1


def show_gallery(examined: Examined, indices: np.ndarray) -> None:
    """The photos at these `indices` in their order, each with its label, the answer and its name."""
    with_maps = examined.here and examined.run.has_weights and st.toggle(
        "Grad-CAM", key=MAPS_KEY, bind="query-params", help="What in each photo speaks for the answer that it got."
    )  # fmt: skip
    size = PAGE_WITH_MAPS if with_maps else PAGE
    pages = max(1, -(-len(indices) // size))
    place = st.container()
    page = min(_choose_page(pages), pages)
    shown = indices[(page - 1) * size : page * size].tolist()
    with place:
        if examined.here:
            _draw(examined, shown, with_maps)
        else:
            st.info(f"The photos of {plain(Path(examined.data).name)} are not on this computer; here are their names.")
            _table(examined.predictions, shown)


def _choose_page(pages: int) -> int:
    if pages == 1:
        return 1
    if st.session_state.get(PAGE_KEY, 1) > pages:
        first_page()
    return st.pagination(pages, key=PAGE_KEY, bind="query-params")


def _draw(examined: Examined, shown: Sequence[int], with_maps: bool) -> None:
    progress_place, missing = st.container(), 0
    grid = st.grid("auto", min_column_width=2 * SIDE + 24 if with_maps else SIDE, key="gallery")
    places = {}
    for index in shown:
        name = examined.predictions.files[index]
        try:
            picture = thumbnail(examined.keys[index], examined.source(index))
        except images.PhotoError:
            missing += 1
            grid.caption(f"{_said(examined.predictions, index)}  \n{plain(name)}: can no longer be read")
            continue
        with grid.cell(), st.container(gap="xsmall"):
            with st.container(horizontal=True, gap="xsmall"):
                st.image(picture, width=SIDE, alt=f"Photo {name}")
                places[index] = st.empty() if with_maps else None
            st.caption(f"{_said(examined.predictions, index)}  \n{plain(name)}")
    if missing:
        progress_place.caption(f"{missing} of these photos changed or went away since the evaluation.")
    if with_maps:
        with progress_place:
            _draw_maps(examined, places)


def _said(predictions: Predictions, index: int) -> str:
    """Label and answer of a photo in Markdown."""
    label, said = (plain(predictions.classes[i[index]]) for i in (predictions.labels, predictions.predicted))
    sure = f"{predictions.confidence[index]:.1%}"
    return f"**{label}** {sure}" if label == said else f"{label}, taken for **{said}** {sure}"


def _table(predictions: Predictions, shown: Sequence[int]) -> None:
    classes = predictions.classes
    rows = [
        {
            "Photo": predictions.files[index],
            "Label": classes[predictions.labels[index]],
            "Answer": classes[predictions.predicted[index]],
            "Probability": predictions.confidence[index],
        }
        for index in shown
    ]
    st.dataframe(rows, hide_index=True, column_config={"Probability": st.column_config.NumberColumn(format="percent")})


def _draw_maps(examined: Examined, places: dict[int, st.delta_generator.DeltaGenerator]) -> None:
    """The Grad-CAM of each photo for the answer that it got, in its place."""
    network, now = network_of(examined.run)
    from alexnet import saliency  # imports torch

    if reason := saliency.unsupported(network.model, METHOD):
        st.info(plain(reason))
        return
    with progress_on_demand(st.container(), cancel=lambda: st.session_state.update({MAPS_KEY: False})) as progress:
        for number, (index, place) in enumerate(places.items()):
            part_of(progress, f"Grad-CAM, photo {number + 1} of {len(places)}", number, len(places))(0.0)
            target = examined.predictions.classes[examined.predictions.predicted[index]]
            with contextlib.suppress(OSError, images.PhotoError):  # it went away since its small picture was made
                source = examined.source(index)
                content = source if isinstance(source, bytes) else source.read_bytes()
                overlay = _overlay(content, now, target, network)
                place.image(overlay, width=SIDE, alt=f"Grad-CAM for {target} in {examined.predictions.files[index]}")


def _overlay(content: bytes, now: tuple[str, float], target: str, network: Classifier) -> Image.Image:
    from alexnet import maps

    found, _ = explanation(content, now, METHOD, target, None, network, None)
    crop = answer(content, now, network)[1].input
    return maps.render(found, crop, OPACITY, maps.default_colormap(False, network.classes, target))


@st.cache_data(show_spinner=False, max_entries=2000)
def thumbnail(key: str, _source: bytes | Path) -> bytes:
    """A small JPEG of the photo that `key` stands for.

    Raises:
        alexnet.images.PhotoError: it cannot be read, or is no photo any more.
    """
    return encoded(images.open_photo(_source, at_least=SIDE), 2 * SIDE, "JPEG")
