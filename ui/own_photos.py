"""Your own photos: uploaded, labelled by clicking, answered only then, and counted. None reaches the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from alexnet import data, images
from alexnet.predictions import Predictions
from alexnet.runs import Run
from ui.gallery import SIDE, Examined, thumbnail
from ui.networks import Edition, network_of
from ui.page import plain
from ui.photos import MAX_MB
from ui.progress import part_of, progress_on_demand
from ui.visitors import admitted

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from alexnet.predict import Classifier, Prediction

MOST_BUTTONS = 4  # classes that are buttons; more of them are in a list
PER_PAGE = 24


@dataclass(frozen=True)
class _Upload:
    """A photo by the digest of its content, since what was uploaded twice counts once."""

    name: str
    digest: str
    content: bytes


def label_uploads(run: Run, cancel: Callable[[], None]) -> Examined | None:
    """The uploader and a card to label each photo; what the network says of those that are labelled, None without any.

    Args:
        run: which has weights.
        cancel: called when a person does not want to wait for the answers; has to show something else.

    Raises:
        alexnet.errors.LabError: as `network_of`.
    """
    files = st.file_uploader(
        "Photos: drop or browse",
        type="image",
        accept_multiple_files=True,
        max_upload_size=MAX_MB,
        key="own-photos-upload",
    )
    uploads = _read(admitted(files, "own-photos"))
    if not uploads:
        st.caption(
            "Photos that the network has never seen say most. Say what each shows; its answer appears only then, so that it "
            "cannot sway you. They stay in this tab's memory and are gone with it."
        )
        return None
    network, now = network_of(run)
    labels, places = _label(uploads, network.classes)
    labelled = [upload for upload in uploads if labels[upload.digest]]
    if not labelled:
        st.caption("Say what each photo shows; leave out those that show none of the classes.")
        return None
    answers = _answers(labelled, now, network, cancel)
    for upload, answer in zip(labelled, answers, strict=True):
        if place := places.get(upload.digest):
            right = answer.best == labels[upload.digest]
            place.markdown(f"{'✅' if right else '❌'} {plain(answer.best)} {answer.probabilities[answer.best]:.1%}")
    if declined := sum(answer.label is None for answer in answers):
        st.caption(f"It would rather not answer {declined} of them; what it takes for likeliest is counted.")
    return _examined(run, labelled, [labels[upload.digest] for upload in labelled], answers)


def _read(files: Sequence) -> list[_Upload]:
    """The uploads that are photos, each once; the reason on the page why others are not."""
    found: dict[str, _Upload] = {}
    for file in files:
        try:
            digest = _checked(file.file_id, file)
            found.setdefault(digest, _Upload(file.name, digest, file.getvalue()))
        except images.PhotoError as error:
            st.error(f"{plain(file.name)}: {error}")
    return list(found.values())


@st.cache_data(show_spinner=False, max_entries=2000)
def _checked(file_id: str, _file) -> str:
    """The digest of an uploaded photo; raises PhotoError where it is none."""
    content = _file.getvalue()
    images.check_photo(content)
    return data.digest(content)


def _label(
    uploads: Sequence[_Upload], classes: Sequence[str]
) -> tuple[dict[str, str | None], dict[str, DeltaGenerator]]:
    """A card for each photo with the classes to click; by digest, the class that each has, and the place of the answer."""
    known = data.digest("\n".join(classes).encode())  # labels are those of runs that tell the same classes apart
    keys = {upload.digest: f"label-{known}-{upload.digest}" for upload in uploads}
    pages, places = -(-len(uploads) // PER_PAGE), {}
    page = st.pagination(pages, key="own-photos-page") if pages > 1 else 1
    grid = st.grid("auto", min_column_width=SIDE, key="own-photos")
    for upload in uploads[(page - 1) * PER_PAGE : page * PER_PAGE]:
        with grid.cell(), st.container(gap="xsmall"):
            st.image(thumbnail(upload.digest, upload.content), width=SIDE, alt=upload.name)
            _choose_class(f"What {plain(upload.name)} shows", classes, keys[upload.digest])
            places[upload.digest] = st.empty()
    return {digest: st.session_state.get(key) for digest, key in keys.items()}, places


def _choose_class(label: str, classes: Sequence[str], key: str) -> None:
    common = {"key": key, "label_visibility": "collapsed", "persist_state": "session"}
    if len(classes) <= MOST_BUTTONS:
        st.segmented_control(label, classes, format_func=plain, **common)
    else:
        st.selectbox(label, classes, index=None, placeholder="What it shows", **common)


def _answers(
    uploads: Sequence[_Upload], now: Edition, network: Classifier, cancel: Callable[[], None]
) -> list[Prediction]:
    with progress_on_demand(st.container(), cancel) as progress:
        told = (part_of(progress, "Looking at your photos", n, len(uploads)) for n in range(len(uploads)))
        return [
            _answer(upload.digest, now, upload.content, network, tell)
            for upload, tell in zip(uploads, told, strict=True)
        ]


@st.cache_data(show_spinner=False, max_entries=2000)
def _answer(
    digest: str, now: Edition, _content: bytes, _classifier: Classifier, _tell: Callable[[float], None]
) -> Prediction:
    _tell(0.0)
    return _classifier([images.open_photo(_content)])[0]


def _examined(run: Run, uploads: Sequence[_Upload], labels: Sequence[str], answers: Sequence[Prediction]) -> Examined:
    """The answers beside the labels, as if they had been read from a run."""
    classes = tuple(answers[0].probabilities)
    probabilities = np.array([list(answer.probabilities.values()) for answer in answers])
    found = Predictions(
        classes,
        tuple(upload.name for upload in uploads),
        np.array([classes.index(label) for label in labels]),
        probabilities.argmax(axis=1),
        probabilities.max(axis=1),
        probabilities,
    )
    return Examined(run, found, [upload.digest for upload in uploads], lambda index: uploads[index].content)
