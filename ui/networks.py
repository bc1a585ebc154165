"""Networks, and what they say of photos, loaded and computed once for all sessions."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import streamlit as st

from alexnet import images, runs
from ui.photos import encoded

if TYPE_CHECKING:
    from alexnet.fairlock import Told
    from alexnet.predict import Classifier, Prediction

Edition = tuple[str, float]  # a run and when its network last changed: with a photo, all that an answer depends on

MEASURED = ("calibration.json", "familiarity.safetensors")  # what a run's folder may hold beside its weights
THUMBNAIL = 640  # px, the longer side of a photo as the page shows it


def edition(run: runs.Run) -> Edition:
    """The run and the time at which its weights, or what its answers are measured against, were last written.

    Raises:
        OSError: it has no weights.
    """
    files = [run.weights, *(file for name in MEASURED if (file := run.path / name).exists())]
    return run.id, max(file.stat().st_mtime for file in files)


def network_of(run: runs.Run) -> tuple[Classifier, Edition]:
    """The classifier of a run and its edition, with a spinner while it is loaded.

    Raises:
        alexnet.runs.RunError: it has no weights, or cannot be read.
        alexnet.weights.WeightsError: its weights cannot be used.
    """
    try:
        with st.spinner("Loading the network"):
            now = edition(run)
            return classifier(*now), now
    except OSError:
        raise runs.RunError(f"The weights of {run.id} have gone; choose another run.") from None


@st.cache_resource(show_spinner="Loading the network", max_entries=3)
def classifier(run_id: str, changed: float) -> Classifier:
    """The classifier of an `edition` of a run, shared by all sessions.

    Raises:
        alexnet.runs.RunError: there is no such run.
        alexnet.weights.WeightsError: its weights cannot be used.
    """
    from alexnet.predict import load_classifier

    loaded = load_classifier(runs.find(run_id))
    spare_from_collection()
    return loaded


def spare_from_collection() -> None:
    """Take what has been loaded, torch above all, out of garbage collection.

    Streamlit collects garbage after each script run, and walking torch's objects took a quarter of a second a click. What
    was taken out before and has been dropped since goes now: otherwise it would stay for good.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@st.cache_data(show_spinner=False, max_entries=500)
def answer(
    data: bytes, edition: Edition, _classifier: Classifier, _queue: Told = lambda ahead: None
) -> tuple[bytes, Prediction]:
    """A small JPEG of the photo, and the prediction; `_queue` is told how many are ahead at the network.

    Raises:
        alexnet.images.PhotoError: it cannot be used.
    """
    photo = images.open_photo(data)
    with _classifier.lock.turn(_queue):
        prediction = _classifier([photo])[0]
    return encoded(photo, THUMBNAIL, "JPEG"), prediction
