"""How photos are divided for training, validation and the final test, and near-duplicates that straddle the splits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import streamlit as st

from alexnet import data
from alexnet.data import Dataset
from alexnet.recipes import Recipe
from ui.page import linked, plain_errors
from ui.settings import enter_form

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

MOST = 90  # %
TITLES = {"train": "Training", "val": "Validation", "test": "Test"}
WORDS = {"test": "test photos", "val": "validation photos", "train": "training photos", "all": "all photos"}


def divide(dataset: Dataset) -> dict[str, str]:
    """The split of each photo by its path, as the address asks; empty where it cannot be."""
    with plain_errors():
        recipe = chosen_recipe()
        return _split_of(dataset.fingerprint, recipe.val_fraction, recipe.test_fraction, dataset)
    return {}


@st.cache_data(show_spinner=False, max_entries=8)
def _split_of(fingerprint: str, val_fraction: float, test_fraction: float, _dataset: Dataset) -> dict[str, str]:
    parts = data.split(_dataset, Recipe(val_fraction=val_fraction, test_fraction=test_fraction))
    return {photo.path: split for split, photos in parts.items() for photo in photos}


def chosen_recipe() -> Recipe:
    """A recipe that divides as the address asks, by default as recipes do.

    Raises:
        RecipeError: that leaves nothing to train on.
    """
    percents = {name: _percent(st.query_params.get(name, "")) for name in ("val", "test")}
    return Recipe().replace(**{f"{name}_fraction": n / 100 for name, n in percents.items() if n is not None})


def show_splits(name: str, dataset: Dataset) -> None:
    """The sizes to choose, what they come to, and the way to training with them."""
    left, right = st.columns(2)
    _choose(left, "val", "Validation, %", "Chooses the best epoch. Not learned from.")
    _choose(right, "test", "Test, %", "Looked at once, at the very end.")
    given = sorted({photo.split for photo in dataset.photos if photo.split in ("val", "test")})
    if given:
        st.caption(f"Folders of this dataset hold out photos ({', '.join(map(TITLES.get, given))}); these stand.")
    with plain_errors():
        recipe = chosen_recipe()
        counts = data.split_counts(dataset, recipe)
        rows = [{"Split": TITLES[split], "Photos": sum(by.values()), **by} for split, by in counts.items()]
        st.dataframe(rows, hide_index=True, width="content")
        if not sum(counts["test"].values()):
            st.warning("Without test photos no figure is honest at the end: validation has chosen the best epoch.")
        st.caption(
            "A photo's split follows from a seed and its content: it stays when others are added. Copies that straddle "
            "splits are under Duplicates."
        )
        if st.button("Train with these", type="primary", icon=":material/model_training:"):
            form = st.session_state.get("kept", {}).get("recipe", "first-run")
            enter_form(name, form, {"val_fraction": recipe.val_fraction, "test_fraction": recipe.test_fraction})
            st.session_state["shown"] = "new"
            st.switch_page("pages/train.py", query_params={})  # without them it minds those that widgets are bound to


def _choose(place: DeltaGenerator, name: str, label: str, about: str) -> None:
    default = round(100 * getattr(Recipe(), f"{name}_fraction"))
    linked(
        place.number_input,
        label,
        key=name,
        default=default,
        read=_percent,
        min_value=0,
        max_value=MOST,
        step=5,
        help=about,
    )


def _percent(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,2}", text) and int(text) <= MOST else None
