"""Answers for Kaggle's photos without labels, from a page: the folder, the progress, and the file."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from alexnet import public
from alexnet.runs import Run
from ui.networks import classifier, edition
from ui.page import kept, plain, plain_errors
from ui.progress import progress_bar

ANSWERS = "answers"  # of this session: those made last, and for what
KINDS = {False: "1 for a dog, 0 for a cat (2013)", True: "How likely a dog is (Redux)"}
MOST_PROBLEMS = 20  # told on the page


def show_submit(run: Run) -> None:
    """The form, and the file once there is one.

    Raises:
        alexnet.public.PublicError: strangers have no folder here.
    """
    public.refuse("folders of the computer that it runs on")
    if not run.has_weights:
        st.info("It has no weights yet; let it finish an epoch first.")
        return
    st.markdown("Answer the photos of Kaggle's Dogs vs. Cats that have no labels, such as those of `test1`.")
    folder = kept(
        st.text_input, "Folder of photos", key="submit-folder", default="", placeholder="/home/me/Downloads/test1",
        help="Photos whose names are numbers, such as 1.jpg; subfolders are searched, too.",
    ).strip()  # fmt: skip
    asked = (run.id, folder)
    if st.button("Answer", type="primary", icon=":material/rule:", disabled=not folder):
        st.session_state.pop(ANSWERS, None)
        with plain_errors():
            st.session_state[ANSWERS] = asked, _answer(run, Path(folder).expanduser())
    made_for, submission = st.session_state.get(ANSWERS, (None, None))
    if made_for == asked:
        _offer(submission)


def _answer(run: Run, folder: Path):
    with progress_bar() as progress:
        progress("Loading the network", 0, 1)
        from alexnet import submission, weights

        try:
            return submission.predict(classifier(*edition(run)), folder, progress)
        except OSError as error:
            raise weights.WeightsError(f"The weights of {run.id} cannot be read ({error.strerror}).") from None


def _offer(submission) -> None:
    dogs = sum(p > 0.5 for p in submission.dogs.values())
    st.success(f"{len(submission.dogs):,} rows, {dogs:,} of dogs.")
    for problem in submission.problems[:MOST_PROBLEMS]:
        st.warning(plain(problem))
    if (more := len(submission.problems) - MOST_PROBLEMS) > 0:
        st.caption(f"and {more:,} more like these.")
    probabilities = st.radio("Write", list(KINDS), format_func=KINDS.get, horizontal=True)
    st.download_button(
        "Download answers.csv", submission.csv(probabilities), "answers.csv", "text/csv", icon=":material/download:",
        on_click="ignore",
    )  # fmt: skip
