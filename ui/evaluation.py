"""The evaluation of a run: the choice of photos, what is stored of it, and the way to more.

All is computed from the table of predictions; the network is loaded only to look at photos that are not in one, and for
saliency maps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from alexnet import data, predictions, public
from alexnet.predictions import Predictions
from alexnet.runs import Run
from ui.dataset_splits import WORDS
from ui.datasets import FOLDER, dataset, forget_dataset
from ui.evaluation_parts import show_parts
from ui.gallery import Examined, first_page, in_folder
from ui.networks import Edition, edition, network_of
from ui.own_photos import label_uploads
from ui.page import kept, plain_errors
from ui.progress import progress_bar

CHOSEN = "evaluation"  # in the address: the one that is shown
TRAINING, OTHERS, OWN = "training", "others", "own"  # beside the names of what is stored


def show_evaluation(run: Run) -> None:
    """How good `run` is, on photos that can be chosen; what is shown is kept in the address.

    Not within a fragment: there, Cancel beside a progress bar would wait for its end.
    """
    with plain_errors():
        if not run.has_weights and not (run.path / predictions.FILE).exists():
            st.info("Nothing to evaluate yet: once the run has finished an epoch, its network can be looked at here.")
            return
        chosen, report = _choose(run)
        if chosen == OTHERS:
            _evaluate_others(run)
        elif chosen != OWN:
            show_parts(_stored(run, chosen, report))
        elif examined := label_uploads(run, cancel=lambda: st.query_params.pop(CHOSEN)):
            show_parts(examined)


def _choose(run: Run) -> tuple[str, dict[str, Any]]:
    """Which evaluation is to be shown, and its report."""
    reports = {TRAINING: run.report() or {}} if (run.path / predictions.FILE).exists() else {}
    titles = {TRAINING: f"{_split(reports[TRAINING]).capitalize()}, at the end of training"} if reports else {}
    if run.has_weights:
        for folder, report in predictions.stored(run, _fingerprint(edition(run), run)):
            reports[folder.name] = report
            titles[folder.name] = f"{Path(report['data']).name}: {_split(report)}"
        titles |= {OWN: "Your own photos"} if public.is_on() else {OTHERS: "Other photos", OWN: "Your own photos"}
    wanted = st.query_params.get(CHOSEN, next(iter(titles)))
    if wanted not in titles:
        st.warning("The evaluation in the address is not here: the photos or the network changed since it was made.")
        wanted = next(iter(titles))
    st.session_state["evaluation-chosen"] = wanted
    st.selectbox(
        "Evaluated on", list(titles), format_func=titles.get, key="evaluation-chosen",
        on_change=lambda: _open(st.session_state["evaluation-chosen"]),
    )  # fmt: skip
    return wanted, reports.get(wanted, {})


@st.cache_data(show_spinner=False, max_entries=20)
def _fingerprint(edition: Edition, _run: Run) -> str:
    return predictions.network(_run)


def _split(report: dict[str, Any]) -> str:
    return WORDS.get(str(report.get("split")), "photos")


def _open(name: str) -> None:
    """Show another evaluation, and forget which of its photos were shown before."""
    first_page()
    st.query_params.pop("cell", None)
    st.query_params[CHOSEN] = name


def _stored(run: Run, name: str, report: dict[str, Any]) -> Examined:
    """What is stored under this name, with a sentence on what it is worth."""
    folder = run.path if name == TRAINING else run.path / predictions.FOLDER / name
    table = folder / predictions.FILE
    changed = table.stat().st_mtime_ns if table.exists() else 0
    found = _read(str(folder), changed, tuple(run.config["classes"]))
    st.caption(_worth(report.get("split"), at_end=name == TRAINING))
    return in_folder(run, found, run.config["data"] if name == TRAINING else report["data"])


@st.cache_resource(show_spinner=False, max_entries=20)
def _read(folder: str, changed: int, classes: tuple[str, ...]) -> Predictions:
    return predictions.read(Path(folder), classes)


def _worth(split: str | None, at_end: bool) -> str:
    if split == "test":
        return "It neither learned from these photos nor chose its best epoch by them."
    if split == "val":
        these = "The run kept no test photos. These are its" if at_end else "These are its"
        return f"{these} validation photos, by which its best epoch was chosen, so expect a little less on others."
    if split == "train":
        return "It learned from these photos, so they say nothing about others."
    return "If it learned from some of these photos, expect less on others."


def _evaluate_others(run: Run) -> None:
    """The choice of other photos, and the button that evaluates the run on them."""
    own = run.config["data"]
    here = {name: known.title for name, known in data.named().items() if data.available(name)}
    titles = {own: "", **here, FOLDER: "A folder on this computer"}
    titles[own] = f"{here.get(own, Path(own).name)}, with which it was trained"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = kept(
            st.selectbox, "Photos", key=f"evaluation-data-{own}", default=own, options=list(titles), width=300,
            format_func=titles.get,
        )  # fmt: skip
        if name == FOLDER:
            folder = kept(
                st.text_input, "Folder", key="evaluation-folder", default="", placeholder="/home/me/Pictures/pets",
                width=300, help="A folder per class, or names like cat.0.jpg.",
            )  # fmt: skip
            name = str(data.folder_of(folder.strip())) if folder.strip() else None
        split = "all"
        if name == own:
            options = [split for split in WORDS if split != "all"]
            split = kept(
                st.segmented_control, "Split", key="evaluation-split", default=options[0], options=options,
                format_func=lambda split: WORDS[split].split()[0].capitalize(), required=True,
            )  # fmt: skip
    if st.button("Evaluate", type="primary", icon=":material/play_arrow:", disabled=name is None):
        _evaluate(run, name, split)


def _evaluate(run: Run, name: str, split: str) -> None:
    forget_dataset(name)  # what counts are the photos as they are now
    chosen = dataset(name)
    network, _ = network_of(run)
    from alexnet.evaluate import evaluate_and_keep  # imports torch

    with progress_bar(key="cancel-evaluation") as progress:
        folder = evaluate_and_keep(network, name, chosen, split, progress)
    _open(folder.name)
    st.rerun()
