"""Photos to look at twice: near-duplicates and surprising labels, each with what to do about it, and how to undo that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from alexnet import data, review, runs
from alexnet.data import Dataset, Photo
from alexnet.review import Correction
from ui.dataset_photos import page_of, picture
from ui.dataset_splits import TITLES, chosen_recipe
from ui.networks import Edition, classifier, edition
from ui.page import linked, one_of, plain, plain_errors
from ui.progress import progress_on_demand

if TYPE_CHECKING:
    from alexnet.duplicates import Group
    from alexnet.surprise import Surprise

MOST_BUTTONS = 3  # other classes to move a photo to by one click
PER_PAGE, GROUPS = 24, 12  # cards, or groups of them, on a page
CARD = 150  # px, the least width of a card: two fit on a phone


def show_duplicates(dataset: Dataset, splits: Mapping[str, str], back: Callable[[], None]) -> None:
    """Photos that look the same, side by side.

    Args:
        dataset: without corrections, so that what was left out can be seen and put back.
        splits: of each photo, by its path.
        back: called when a person does not want to wait.
    """
    with progress_on_demand(st.container(), back) as progress:
        groups = _groups(dataset.fingerprint, dataset, progress)
    if not groups:
        st.success("No two photos look the same.")
        return
    corrections = review.corrections(dataset.root)
    across = [group for group in groups if len({splits.get(photo.path) for photo in group.photos}) > 1]
    mixed = [group for group in groups if len({photo.label for photo in group.photos}) > 1]
    kinds = {"All": groups, "Across splits": across, "Of several classes": mixed}
    kind = linked(
        st.segmented_control, "Near-duplicates", key="near", default="All", read=one_of(kinds), options=list(kinds),
        required=True, format_func=lambda kind: f"{kind} ({len(kinds[kind]):,})", label_visibility="collapsed",
    )  # fmt: skip
    _offer_to_mend(dataset, across, splits, corrections)
    st.caption("Photos whose perceptual hashes hardly differ, as they are or mirrored; the most alike come first.")
    for group in page_of(kinds[kind], GROUPS, f"near-{kind}"):
        with st.container(border=True):
            st.caption(f"{group.distance} of 64 bits apart" if group.distance else "No bit apart")
            grid = st.grid("auto", min_column_width=CARD, dense=True)
            for photo in group.photos:
                with grid.container():
                    place = TITLES.get(splits.get(photo.path), "")
                    _card(dataset, photo, corrections, " · ".join(filter(None, [_label(dataset, photo), place])))


def _offer_to_mend(
    dataset: Dataset, across: Sequence[Group], splits: Mapping[str, str], corrections: Mapping[str, Correction]
) -> None:
    """One click that leaves out the copies of held-out photos that would be learned from, or validated with."""
    left_out = {digest for digest, correction in corrections.items() if correction.label is None}
    used = [[p for p in group.photos if p.path in splits and p.digest not in left_out] for group in across]
    places = [{splits[photo.path] for photo in photos} for photos in used]
    if not (straddling := sum(len(where) > 1 for where in places)):
        return
    held_out = [next((split for split in ("test", "val", "train") if split in where), None) for where in places]
    copies = [p for photos, keep in zip(used, held_out, strict=True) for p in photos if splits[p.path] != keep]
    st.warning(
        f"Groups that straddle the splits: {straddling:,}. The network would be tested on photos as good as seen before."
    )
    changes = {photo.digest: Correction(photo.path, _label(dataset, photo), None) for photo in copies}
    st.button(
        f"Leave out copies of held-out photos: {len(copies):,}", icon=":material/block:",
        on_click=_correct, args=[dataset, changes],
    )  # fmt: skip


@st.cache_data(show_spinner=False, max_entries=8)
def _groups(fingerprint: str, _dataset: Dataset, _progress: data.Progress) -> list[Group]:
    from alexnet import duplicates

    return duplicates.groups(_dataset, progress=_progress)


def show_labels(name: str, dataset: Dataset) -> None:
    """The photos whose labels surprise a run most, to relabel or leave out; and all that has been corrected so far.

    Args:
        name: of the dataset, or its folder.
        dataset: without corrections, so that they can be seen and undone.
    """
    corrections = review.corrections(dataset.root)
    kinds = {"surprising": "Most surprising", "corrected": f"Corrected ({len(corrections):,})"}
    kind = linked(
        st.segmented_control, "Photos", key="review", default="surprising", read=one_of(kinds), options=list(kinds), required=True,
        format_func=kinds.get, label_visibility="collapsed",
    )  # fmt: skip
    if kind == "corrected":
        _show_corrected(dataset, corrections)
    else:
        _show_surprising(name, dataset, corrections)


def _show_corrected(dataset: Dataset, corrections: Mapping[str, Correction]) -> None:
    by_digest = {photo.digest: photo for photo in dataset.photos}
    photos = [by_digest[digest] for digest in reversed(corrections) if digest in by_digest]
    if not photos:
        st.info("Nothing has been corrected yet. What you relabel or leave out is listed here, to be undone as easily.")
        return
    if gone := len(corrections) - len(photos):
        st.caption(f"{gone:,} more are of photos that are not here now.")
    grid = None
    for photo in page_of(photos, PER_PAGE, "corrected-page"):
        grid = grid or st.grid("auto", min_column_width=CARD)
        with grid.container():
            _card(dataset, photo, corrections, _label(dataset, photo))


def _show_surprising(name: str, dataset: Dataset, corrections: Mapping[str, Correction]) -> None:
    usable = {run.id: run for run in _usable(dataset)}
    if not usable:
        st.info(
            "No network for these classes is trained yet. Train one, and it will point out labels that surprise it."
        )
        return
    left, right = st.columns(2, vertical_alignment="bottom")
    run_ids, splits = list(usable), [*TITLES, "all"]
    run = usable[linked(left.selectbox, "Run", key="run", default=run_ids[0], read=one_of(run_ids), options=run_ids)]
    split = linked(
        right.selectbox, "Photos of", key="of", default="val", read=one_of(splits), options=splits,
        format_func=lambda split: TITLES.get(split, "All splits"),
    )  # fmt: skip
    own = run.config["data"] == name
    photos = data.split_of(dataset, run.recipe if own else chosen_recipe(), split)
    asked = (run.id, split, dataset.root)
    if st.session_state.get("surprised") != asked:
        learned = own and split in ("train", "all")
        worth = (
            "It has learned from these, wrong labels included." if learned else "Wrong labels are usually among these."
        )
        st.caption(f"The photos whose labels it finds least likely come first. {worth}")
        st.button(f"Rank {len(photos):,} photos", type="primary", icon=":material/sort:",
                  on_click=st.session_state.update, args=[{"surprised": asked}])  # fmt: skip
        return
    ranked = _rank(run, dataset, photos)
    grid = None
    for each in page_of(ranked, PER_PAGE, f"surprise-{run.id}-{split}"):
        grid = grid or st.grid("auto", min_column_width=CARD)
        with grid.container():
            label, predicted = plain(_label(dataset, each.photo)), plain(each.predicted)
            _card(
                dataset,
                each.photo,
                corrections,
                f"labelled **{label}**, looks like {predicted} ({each.confidence:.1%})",
            )


def _usable(dataset: Dataset) -> list[runs.Run]:
    """The runs that know all classes of `dataset`, by whatever case or number, the newest first and the shipped ones last."""
    wanted = {data.meaning(name) for name in dataset.classes}
    found = [run for run in runs.list_runs() if run.has_weights]
    known = [run for run in found if wanted <= {data.meaning(str(name)) for name in run.config["classes"]}]
    return sorted(known, key=lambda run: run.shipped)


def _rank(run: runs.Run, dataset: Dataset, photos: list[Photo]) -> list[Surprise]:
    """`photos` by how surprising they are; computed once for a run's weights."""
    with st.spinner("Loading the network"):
        made = edition(run)
        network = classifier(*made)
    with progress_on_demand(st.container(), lambda: st.session_state.pop("surprised", None)) as progress:
        return _surprises(made, tuple(photo.digest for photo in photos), network, dataset, photos, progress)


@st.cache_data(show_spinner=False, max_entries=8)
def _surprises(
    made: Edition, digests: tuple[str, ...], _network, _dataset: Dataset, _photos: list[Photo], _progress: data.Progress
) -> list[Surprise]:
    from alexnet.surprise import most_surprising

    return most_surprising(_network, _dataset, _photos, _progress)


def _label(dataset: Dataset, photo: Photo) -> str:
    return dataset.classes[photo.label]


def _card(dataset: Dataset, photo: Photo, corrections: Mapping[str, Correction], says: str) -> None:
    """A photo, what is said of it, and what can be done about it, or undone."""
    label, correction = _label(dataset, photo), corrections.get(photo.digest)
    st.image(picture(dataset, photo, 2 * CARD), width="stretch", alt=f"{label}: {photo.path}")
    st.caption(f"{says}  \n{plain(photo.path)}")
    act = {"args": [dataset], "width": "stretch"}
    if correction is not None:
        st.badge("Left out" if correction.label is None else f"Now {plain(correction.label)}", color="orange")
        undo = {"changes": {photo.digest: None}}
        st.button("Undo", key=f"undo-{photo.digest}", on_click=_correct, kwargs=undo, icon=":material/undo:", **act)
        return
    others = [name for name in dataset.classes if name != label]
    if len(others) <= MOST_BUTTONS:
        for name in others:
            change = {"changes": {photo.digest: Correction(photo.path, label, name)}}
            st.button(f"It is {plain(name)}", key=f"{name}-{photo.digest}", on_click=_correct, kwargs=change, **act)
    else:
        key = f"to-{photo.digest}"
        st.selectbox(
            "It is", others, index=None, key=key, placeholder="It is…", label_visibility="collapsed",
            on_change=_relabel, args=[dataset, photo, key],
        )  # fmt: skip
    out = {"changes": {photo.digest: Correction(photo.path, label, None)}}
    st.button("Leave out", key=f"out-{photo.digest}", on_click=_correct, kwargs=out, icon=":material/block:", **act)


def _relabel(dataset: Dataset, photo: Photo, key: str) -> None:
    if (name := st.session_state.pop(key)) is not None:
        _correct(dataset, {photo.digest: Correction(photo.path, _label(dataset, photo), name)})


def _correct(dataset: Dataset, changes: Mapping[str, Correction | None]) -> None:
    with plain_errors():
        review.correct(dataset.root, changes)
