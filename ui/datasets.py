"""The choice of photos to train on: a known dataset or a folder, read with progress, shown by class."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Container

import streamlit as st
from PIL import Image, ImageDraw, ImageOps

from alexnet import data, downloads, review, runs
from alexnet.images import PhotoError
from ui.networks import spare_from_collection
from ui.page import kept, plain, plain_errors
from ui.progress import progress_bar

FOLDER = "/"  # the choice of photos that have no name; no dataset can be called so
MOST_STRIPS = 20  # classes of which photos are shown


@st.cache_resource
def _datasets() -> dict[str, data.Dataset]:
    return {}


@st.cache_resource
def _corrected() -> dict[str, tuple[data.Dataset, dict[str, review.Correction], data.Dataset]]:
    return {}


def dataset(name: str, cancel: Callable[[], None] | None = None) -> data.Dataset:
    """`uncorrected` with the corrections that its review has led to; raises and takes the same, and what the list may."""
    files = uncorrected(name, cancel)
    corrections = review.corrections(files.root)
    before = _corrected().get(name)
    if not (before and before[0] is files and before[1] == corrections):
        _strip.clear()
        _corrected()[name] = before = (files, corrections, data.corrected(files, corrections))
    return before[2]


def uncorrected(name: str, cancel: Callable[[], None] | None = None) -> data.Dataset:
    """A dataset, shared by all sessions until `forget_dataset`; a progress bar and a way out while it is read.

    Args:
        name: as for `alexnet.data.load`.
        cancel: called when a person does not want to wait; has to choose something else.

    Raises:
        alexnet.data.DataError: it cannot be used.
    """
    datasets = _datasets()
    if name not in datasets:
        with progress_bar(cancel) as progress:
            datasets[name] = data.load_uncorrected(name, progress)
        spare_from_collection()
    return datasets[name]


def is_read(name: str) -> bool:
    """Whether `dataset` has it at hand."""
    return name in _datasets()


def forget_dataset(name: str) -> None:
    """Have `dataset` look into the folder again the next time."""
    _datasets().pop(name, None)
    _corrected().pop(name, None)
    _strip.clear()


def choose_photos() -> tuple[str, data.Dataset] | None:
    """The chosen dataset, ready to train on, and the name or folder it was asked for by; None while there is none.

    Draws the choice, then the photos by class with what was left out, or the reason why they cannot be used.
    """
    titles = {**{name: known.title for name, known in data.named().items()}, FOLDER: "A folder on this computer"}
    _forget_removed(titles)
    name = kept(
        st.selectbox, "Photos", key="dataset", default="doodles", options=list(titles), index=None,
        format_func=titles.get, placeholder="Choose photos to learn from", label_visibility="collapsed",
    )  # fmt: skip
    if name == FOLDER:
        folder = kept(
            st.text_input, "Folder", key="folder", default="", placeholder="/home/me/Pictures/pets",
            help="A folder per class, or names like cat.0.jpg, or train and val folders of either. Links are followed.",
        )  # fmt: skip
        name = str(data.folder_of(folder.strip())) if folder.strip() else None
    elif name is not None:
        known = data.named()[name]
        st.caption(known.description if name in data.KNOWN else plain(known.description))
    if name is None:
        return None
    if not data.available(name):
        offer_download(name)
        return None
    with plain_errors():
        chosen = dataset(name, cancel=lambda: st.session_state.update(dataset=None))
        _show_photos(name, chosen)
        data.check_trainable(chosen)
        return name, chosen
    return None


def _forget_removed(titles: Container[str]) -> None:
    """Choose no photos where those that were chosen have been removed since."""
    for values in (st.session_state, st.session_state.get("kept", {})):
        if (name := values.get("dataset")) is not None and name not in titles:
            values["dataset"] = None
            st.warning(f"The dataset {plain(name)} is no longer here; choose another.")


def offer_download(name: str) -> None:
    """A button that fetches the dataset `name`, or the rest of it."""
    label = "Resume" if downloads.received(name, runs.data_dir()) else "Download"
    how = {"icon": ":material/download:", "help": "Can be cancelled, and then goes on where it stopped."}
    if st.button(label, key=f"download-{name}", **how):
        with plain_errors(), progress_bar() as progress:
            data.download(name, progress)
            st.rerun()


def _show_photos(name: str, chosen: data.Dataset) -> None:
    """A strip of photos and the count for each class, and what was left out and why."""
    report = chosen.report
    columns = st.columns(1 if len(chosen.classes) < 4 else 2)
    for label, (title, count) in enumerate(list(report.per_class.items())[:MOST_STRIPS]):
        with columns[label % len(columns)].container(gap="xsmall"):
            st.markdown(f"**{plain(title)}** &ensp;{count:,}")
            st.image(_strip(name, chosen, label), width="stretch")
    if (more := len(chosen.classes) - MOST_STRIPS) > 0:
        st.caption(f"and {more:,} more classes")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(f"{report.found:,} files found, {report.used:,} used, {len(report.skipped):,} left out.")
        st.button(
            "Look again", type="tertiary", icon=":material/refresh:", on_click=forget_dataset, args=(name,),
            help="Read the folder again, if something in it has changed.",
        )  # fmt: skip
    if report.skipped:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in report.reasons.most_common())
        with st.expander(f"Left out: {plain(reasons)}"):
            st.dataframe([dataclasses.asdict(skip) for skip in report.skipped], hide_index=True, height=200)


@st.cache_data(show_spinner=False, max_entries=64)
def _strip(name: str, _dataset: data.Dataset, label: int, count: int = 6, side: int = 120, gap: int = 12) -> bytes:
    """Photos of one class, spread over all of them, as rounded squares side by side; `name` stands for the dataset.

    A PNG file, because Streamlit would write a picture as one at each run of the page, in a quarter of its time.
    """
    photos = [photo for photo in _dataset.photos if photo.label == label]
    strip = Image.new("RGBA", (count * (side + gap) - gap, side))
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, side - 1, side - 1), radius=gap, fill=255)
    for place, photo in enumerate(photos[:: max(1, len(photos) // count)][:count]):
        with contextlib.suppress(PhotoError):  # the file went away since the dataset was read
            square = ImageOps.fit(_dataset.open(photo, at_least=side), (side, side))
            strip.paste(square, (place * (side + gap), 0), mask)
    file = io.BytesIO()
    strip.save(file, "PNG")
    return file.getvalue()
