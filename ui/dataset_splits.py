"""How photos are divided for training, validation and the final test, and near-duplicates that straddle the splits."""

from __future__ import annotations

import streamlit as st

from alexnet import data
from alexnet.data import Dataset
from alexnet.recipes import Recipe
from ui.page import plain, plain_errors
from ui.settings import enter_form

TITLES = {"train": "Training", "val": "Validation", "test": "Test"}


def divide(dataset: Dataset) -> dict[str, str]:
    """The split of each photo by its path, as the address asks; empty where it cannot be."""
    with plain_errors():
        parts = data.split(dataset, chosen_recipe())
        return {photo.path: split for split, photos in parts.items() for photo in photos}
    return {}


def chosen_recipe() -> Recipe:
    """A recipe that divides as the address asks, by default as recipes do.

    Raises:
        RecipeError: that leaves nothing to train on.
    """
    values = {}
    for name in ("val", "test"):
        percent = st.query_params.get(name, "")
        if percent.isdecimal():
            values[f"{name}_fraction"] = int(percent) / 100
    return Recipe().replace(**values)


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


def _choose(place, name: str, label: str, help_: str) -> None:
    default = round(100 * getattr(Recipe(), f"{name}_fraction"))
    with place:
        st.number_input(label, 0, 90, default, step=5, key=name, bind="query-params", help=plain(help_))
