"""Your own photos: uploaded, labelled by clicking, answered only then, and counted. None reaches the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from alexnet import data, images
from alexnet.predictions import Predictions
from alexnet.runs import Run
from ui.gallery import SIDE, Examined, thumbnail
from ui.networks import Edition, classifier, edition
from ui.page import kept, plain
from ui.progress import progress_bar

if TYPE_CHECKING:
    from alexnet.predict import Classifier, Prediction

MOST_BUTTONS = 4  # classes that are buttons; more of them are in a list
PER_PAGE = 24


@dataclass(frozen=True)
class _Upload:
    """A photo, by the digest of its content: what was uploaded twice counts once."""

    name: str
    digest: str
    content: bytes


def label_uploads(run: Run) -> Examined | None:
    """The uploader and a card to label each photo; what the network says of those that are labelled, None without any."""
    files = st.file_uploader(
        "Photos: drop or browse", type="image", accept_multiple_files=True, key="own-photos-upload"
    )
    uploads = list({upload.digest: upload for upload in _read(files)}.values())
    if not uploads:
        st.caption(
            "Photos that the network has never seen say most. Say what each shows; its answer appears only then, so that it "
            "cannot sway you. They stay in this tab's memory and are gone with it."
        )
        return None
    with st.spinner("Loading the network"):
        now = edition(run)
        network = classifier(*now)
    labels = _label(uploads, network.classes)
    labelled = [upload for upload in uploads if labels.get(upload.digest)]
    if not labelled:
        st.caption("Leave out those that show none of the classes.")
        return None
    answers = _answers(labelled, now, network)
    neither = sum(answer.label is None for answer in answers)
    if neither:
        st.caption(f"{neither} of them it would rather not answer; its likelier answer is counted.")
    return _examined(run, labelled, [labels[upload.digest] for upload in labelled], answers)


def _read(files: Sequence) -> list[_Upload]:
    """The uploads that are photos; the reason on the page why others are not."""
    found = []
    for file in files:
        try:
            digest = _checked(file.file_id, file)
            found.append(_Upload(file.name, digest, file.getvalue()))
        except images.PhotoError as error:
            st.error(f"{plain(file.name)}: {error}")
    return found


@st.cache_data(show_spinner=False, max_entries=2000)
def _checked(file_id: str, _file) -> str:
    """The digest of an uploaded photo; raises PhotoError where it is none."""
    content = _file.getvalue()
    images.check_photo(content)
    return data.digest(content)


def _label(uploads: Sequence[_Upload], classes: Sequence[str]) -> dict[str, str | None]:
    """A card for each photo with its classes to click; the class of each, by its digest, that has one."""
    pages = -(-len(uploads) // PER_PAGE)
    page = st.pagination(pages, key="own-photos-page") if pages > 1 else 1
    grid = st.grid("auto", min_column_width=SIDE, key="own-photos")
    for upload in uploads[(page - 1) * PER_PAGE : page * PER_PAGE]:
        with grid.cell(), st.container(gap="xsmall"):
            st.image(thumbnail(upload.digest, lambda upload=upload: upload.content), width=SIDE, alt=upload.name)
            widget = st.segmented_control if len(classes) <= MOST_BUTTONS else st.selectbox
            more = {} if widget is st.segmented_control else {"index": None, "placeholder": "What it shows"}
            kept(
                widget,
                f"What {plain(upload.name)} shows",
                key=f"label-{upload.digest}",
                default=None,
                options=list(classes),
                format_func=plain,
                label_visibility="collapsed",
                **more,
            )
    entered = st.session_state["kept"]
    return {upload.digest: entered.get(f"label-{upload.digest}") for upload in uploads}


def _answers(uploads: Sequence[_Upload], now: Edition, network: Classifier) -> list[Prediction]:
    answers = []
    with progress_bar(key="cancel-answers") as progress:
        for number, upload in enumerate(uploads):
            progress("Looking at your photos", number, len(uploads))
            answers.append(_answer(upload.digest, now, upload.content, network))
    return answers


@st.cache_data(show_spinner=False, max_entries=2000)
def _answer(digest: str, now: Edition, _content: bytes, _classifier: Classifier) -> Prediction:
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
