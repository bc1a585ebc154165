"""The form of a recipe: a widget for each setting."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

from alexnet import data, runs
from alexnet.recipes import RECIPES, Recipe
from ui.datasets import FOLDER
from ui.page import kept, label_of

VALUE_LABELS = {
    "": "Random weights", "sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "local_response": "local response",
    "after_relu": "after ReLU", "before_relu": "before ReLU", "after_pool": "after pooling", "cpu": "CPU",
    "cuda": "NVIDIA GPU", "mps": "Apple GPU", "alexnet": "AlexNet", "mlp": "fully connected (MLP)", "relu": "ReLU",
    "pytorch": "PyTorch's", "paper": "the paper's", "resized": "random size and shape", "patch": "patch of one size",
}  # fmt: skip

Value = Callable[[str], Any]  # what is entered for the setting of this name


def _of_alexnet(value: Value) -> bool:
    return value("network") == "alexnet"


# Settings that mean something only beside certain values of others, or where there are several GPUs.
APPLIES: dict[str, Callable[[Value], bool]] = {
    **dict.fromkeys(("normalization", "maps", "kernels", "paddings", "pool", "avgpool", "initialization"), _of_alexnet),
    **dict.fromkeys(("groups", "dropout_by_layer", "single_logit", "freeze_features"), _of_alexnet),
    "activation": lambda value: value("network") == "mlp",
    "norm_place": lambda value: _of_alexnet(value) and value("normalization") != "none",
    "towers_apart": lambda value: _of_alexnet(value) and value("groups") == 2,
    "five_crops": lambda value: value("resize") > value("image_size"),
    "test_on_rest": lambda value: value("max_per_class") > 0,
    "crop_scale": lambda value: value("crop") == "resized",
    "nesterov": lambda value: value("optimizer") == "sgd",
    "plateau_patience": lambda value: value("schedule") == "plateau",
    "processes": lambda value: value("processes") > 1 or len(runs.gpus()) > 1,
}
MEANS_NOTHING = {**{name: getattr(Recipe(), name) for name in APPLIES}, "normalization": "none"}


def setting(recipe: Recipe, name: str) -> Any:
    """The widget for one setting of a recipe, which starts at its value; what is entered is for `Recipe` to check."""
    field = next(f for f in dataclasses.fields(recipe) if f.name == name)
    value, label = getattr(recipe, name), label_of(name)
    common = {"key": f"{recipe.name}-{name}", "default": value, "help": field.metadata["help"]}
    if options := field.metadata["choices"] or _found_here(name, entered(recipe, name)):
        return kept(st.selectbox, label, options=options, format_func=lambda o: VALUE_LABELS.get(o, str(o)), **common)
    if isinstance(value, bool):
        return kept(st.toggle, label, **common)
    if isinstance(value, str):
        return kept(st.text_input, label, **common)
    if isinstance(value, int):
        return kept(st.number_input, label, step=1, **common)
    step = 10.0 ** (math.floor(math.log10(value)) - 1) if value else 0.01  # one in the second digit
    return kept(st.number_input, label, step=step, format="%g", **common)


def entered(recipe: Recipe, name: str) -> Any:
    """The value that the widget of `setting` has, or would have if it were drawn."""
    key = f"{recipe.name}-{name}"
    return st.session_state.get(key, st.session_state.get("kept", {}).get(key, getattr(recipe, name)))


def applies(recipe: Recipe, name: str) -> bool:
    """Whether a setting means anything beside what is entered for the others."""
    return name not in APPLIES or APPLIES[name](functools.partial(entered, recipe))


def entered_settings(recipe: Recipe, names: Iterable[str]) -> dict[str, Any]:
    """What is entered for these settings; those that mean nothing are as if they were not there."""
    return {name: entered(recipe, name) if applies(recipe, name) else MEANS_NOTHING[name] for name in names}


def _found_here(name: str, value: Any) -> Sequence[Any] | None:
    """What a setting may be on this computer, and what it is already; None where that is for a person to type."""
    if name == "processes":
        return range(1, max(len(runs.gpus()), value) + 1)
    if name == "start_from":
        return list(dict.fromkeys(["", *(run.id for run in runs.list_runs() if run.has_weights), value]))
    return None


def fill_form(run: runs.Run, **changes: Any) -> None:
    """Enter the photos and the settings of a run, with some changed, into `choose_photos` and the widgets of `setting`.

    Raises:
        alexnet.runs.RunError: the run cannot be read.
    """
    recipe = run.recipe.replace(**changes)
    enter_form(run.config["data"], form_of(recipe), recipe.to_dict())


def form_of(recipe: Recipe) -> str:
    """The recipe whose form can hold the settings of `recipe`."""
    return recipe.name if recipe.name in RECIPES else next(iter(RECIPES))


def enter_form(photos: str | None, form: str, settings: Mapping[str, Any]) -> None:
    """Enter settings into the widgets of the recipe called `form`, and photos, by name or folder, into `choose_photos`."""
    entries = {"recipe": form, **{f"{form}-{name}": value for name, value in settings.items()}}
    if photos:
        entries |= {"dataset": photos} if data.has_name(photos) else {"dataset": FOLDER, "folder": photos}
    st.session_state.setdefault("kept", {}).update(entries)
    for key in entries:  # a widget reads what is kept as soon as it is drawn; what is set earlier the browser misses
        st.session_state.pop(key, None)
