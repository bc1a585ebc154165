"""Augment: what a recipe does to photos before a network sees them, by the code that training runs. Uploads stay in memory."""

from __future__ import annotations

import streamlit as st

import ui
from alexnet.recipes import Recipe
from ui import augment, augment_photos


def show(name: str, recipe: Recipe, step: int) -> None:
    """The pipeline of a recipe on photos of a dataset, or on a person's own."""
    source = augment_photos.photos_of(name, recipe)
    chosen = augment_photos.choose_photo(source)
    photos = augment_photos.with_neighbours(source, chosen, augment.SAMPLES)
    st.subheader("The whole pipeline")
    augment.show_whole(recipe, source, chosen, photos, step)
    st.subheader("Operation by operation")
    st.caption(
        "In their order. After the colours the numbers are normalised; only then comes erasing, which fills with the mean colour. "
        "Of each: the photo, the ends of its range, and what it alone does to the samples above."
    )
    augment.show_operations(recipe, photos, step)
    st.subheader("What the network gets")
    augment.show_batch(recipe, source, step)


ui.guard()
augment.restore()
st.html(augment.STYLE)
heading, actions = st.columns([3, 2], vertical_alignment="bottom")
heading.title("Augment")
columns = st.columns([4, 3, 2, 2])
with columns[0]:
    recipe = augment.choose_recipe()
with columns[1]:
    name = augment_photos.choose_source()
with columns[2]:
    augment.choose_seed(recipe)
with columns[3]:
    step = augment.choose_step()
with actions.container(horizontal=True, horizontal_alignment="right"):
    augment.show_actions(recipe, name)
if name:
    with ui.plain_errors():
        show(name, recipe, step)
augment.remember()
