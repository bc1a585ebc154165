"""The Augment page's photos: those that a run on a dataset would learn from, or a person's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from alexnet import data, images, public
from alexnet.recipes import Recipe
from ui.architecture import a_drawing, go
from ui.datasets import FOLDER, dataset, is_read
from ui.networks import spare_from_collection
from ui.page import following, plain
from ui.photos import EXAMPLES, drawing, encoded, thumbnails, upload_photos

if TYPE_CHECKING:
    from alexnet.preview import Photos

OWN = "own"
OFFERED = 10  # photos of a dataset to choose from
SHOWN = 480  # px, the longer side of a photo as the page shows it
THUMBNAIL = 96  # px


@dataclass(frozen=True)
class Source:
    """Photos in the order in which training counts them."""

    names: Sequence[str]  # in the address
    labels: Sequence[int]
    classes: Sequence[str]
    sizes: np.ndarray  # (N, 2) float32: width and height in pixels
    file: Callable[[int], tuple[bytes | str, str]]  # its content; or its path, and what changes with its content
    trained: bool = False  # whether they are what training would use

    def __len__(self) -> int:
        return len(self.names)

    def title(self, index: int) -> str:
        """What people read of a photo."""
        label, path = self.classes[self.labels[index]], self.file(index)[1]
        return f"{label}, {self.names[index]}" if path else label


@st.cache_resource(show_spinner="Loading the transforms")
def code() -> ModuleType:
    """`alexnet.preview`, which imports torch."""
    from alexnet import preview

    spare_from_collection()
    return preview


def choose_source() -> str | None:
    """The name or the folder of the dataset in the address, or OWN; None while there is none."""
    here = {name: known.title for name, known in data.named().items() if data.available(name)}
    wanted = st.query_params.get("data") or _chosen_to_train_on()
    if wanted in data.KNOWN and wanted not in here and not public.is_on():
        st.warning(f"{data.KNOWN[wanted].title} is not on this computer; the Train page downloads it.")
        wanted = "doodles"
    titles = {**here, FOLDER: "A folder on this computer", OWN: "Your own photos"}
    if public.is_on():  # what the owner has imported is the owner's
        titles = {name: title for name, title in titles.items() if name in data.KNOWN or name == OWN}
        wanted = wanted if wanted in titles else "doodles"
    chosen = wanted if wanted in titles else FOLDER
    following(
        st.selectbox, "Photos", key="augment-data", value=chosen, options=list(titles), format_func=titles.get,
        on_change=lambda: go(data=st.session_state["augment-data"], photo=None),
    )  # fmt: skip
    return _choose_folder("" if wanted == FOLDER else wanted) if chosen == FOLDER else chosen


def _chosen_to_train_on() -> str:
    entered = st.session_state.get("kept", {})
    chosen, folder = entered.get("dataset") or "doodles", entered.get("folder", "").strip()
    return str(data.folder_of(folder)) if chosen == FOLDER and folder else chosen


def _choose_folder(wanted: str) -> str | None:
    """The folder in the address. One that only a link names is read on request: links come from anybody."""

    def choose() -> None:
        folder = st.session_state["augment-folder"].strip()
        name = str(data.folder_of(folder)) if folder else FOLDER
        st.session_state.setdefault("augment-asked", set()).add(name)
        go(data=name, photo=None)

    following(
        st.text_input,
        "Folder",
        key="augment-folder",
        value=wanted,
        placeholder="/home/me/Pictures/pets",
        on_change=choose,
    )
    if not wanted or is_read(wanted) or wanted in st.session_state.get("augment-asked", ()):
        return wanted or None
    st.button("Read the photos in this folder", on_click=choose)
    return None


def photos_of(name: str, recipe: Recipe) -> Source:
    """The photos of a dataset that a run with `recipe` would learn from, or all where it could not; or a person's own.

    Raises:
        alexnet.data.DataError: the dataset cannot be used.
    """
    if name == OWN:
        return _own_photos()
    found = dataset(name, cancel=lambda: go(data=FOLDER, photo=None))
    try:
        return _training_photos(found, recipe.replace(**code().STILL))
    except data.DataError as error:
        st.caption(f"{plain(str(error))} All of the photos are shown.")
        return _source(found, found.photos, trained=False)


@st.cache_resource(show_spinner=False, max_entries=3, hash_funcs={data.Dataset: id, Recipe: repr})
def _training_photos(found: data.Dataset, recipe: Recipe) -> Source:
    """Dividing many photos takes a while; the source holds the dataset, so that no other gets its id."""
    return _source(found, data.split(found, recipe)["train"], trained=True)


def _source(found: data.Dataset, photos: Sequence[data.Photo], trained: bool) -> Source:
    return Source(
        [photo.path for photo in photos],
        [photo.label for photo in photos],
        found.classes,
        np.array([(photo.width, photo.height) for photo in photos], np.float32),
        lambda index: (str(found.root / photos[index].path), photos[index].digest),
        trained,
    )


def _own_photos() -> Source:
    """Uploads, or the drawing that was clicked, each a class of its own; a single one has drawings for neighbours."""
    photos = []
    for name, content in upload_photos(camera=False) or [a_drawing()]:
        try:
            photos.append((name, content, images.check_photo(content)))
        except images.PhotoError as error:
            st.error(f"{plain(name)}: {error}")
    if len(photos) < 2:
        photos += [(f"drawing of a {EXAMPLES[name][0]}", drawing(name, 400), (400, 400)) for name in EXAMPLES]
    st.caption("Photos of yours stay in this tab; a link to this page cannot bring them back.")
    titles, contents, sizes = zip(*photos, strict=True)
    names = [f"own-{number}" for number in range(len(photos))]
    return Source(names, range(len(names)), titles, np.array(sizes, np.float32), lambda index: (contents[index], ""))


def choose_photo(source: Source) -> int:
    """The photo, by its number, that is seen with each operation; kept in the address."""
    wanted = st.query_params.get("photo")
    offered = range(0, len(source), max(1, len(source) // OFFERED))[:OFFERED]
    chosen = source.names.index(wanted) if wanted in source.names else offered[0]
    pictures = {source.names[i]: (plain(source.title(i)), opened(*source.file(i))[2]) for i in offered}
    thumbnails(pictures, source.names[chosen], "offered", lambda name: go(photo=name), side=3)
    return chosen


@st.cache_resource(show_spinner=False, max_entries=400)
def opened(file: bytes | str, digest: str) -> tuple[np.ndarray, bytes, bytes]:
    """A photo as training keeps it, `(3, S, S)` uint8 and not to be written to; a JPEG of it, and a square thumbnail (PNG).

    Raises:
        alexnet.images.PhotoError: it cannot be used.
    """
    from alexnet.augment import CACHE_SIDE

    try:
        photo = images.open_photo(file, at_least=CACHE_SIDE)
    except images.PhotoError as error:
        raise images.PhotoError(f"{os.path.basename(file)}: {error}" if isinstance(file, str) else str(error)) from None
    side = min(photo.size)
    left, top = (photo.width - side) / 2, (photo.height - side) / 2
    small = photo.resize((THUMBNAIL, THUMBNAIL), box=(left, top, left + side, top + side))
    return code().square(photo), encoded(photo, SHOWN, "JPEG"), encoded(small, THUMBNAIL, "PNG")


def photos_at(source: Source, chosen: Sequence[int]) -> Photos:
    """Photos by their numbers."""
    return code().Photos.of([opened(*source.file(i))[0] for i in chosen], source.sizes[list(chosen)])


def with_neighbours(source: Source, chosen: int, count: int) -> Photos:
    """A photo `count` times, each followed by another one from all over the source, to be mixed with."""
    rest = [index for index in range(len(source)) if index != chosen] or [chosen]
    others = [rest[number * max(1, len(rest) // count) % len(rest)] for number in range(count)]
    return photos_at(source, [i for other in others for i in (chosen, other)])
