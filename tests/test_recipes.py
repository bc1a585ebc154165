"""Settings: what a form needs of each, what is refused and how, and learning rates known from elsewhere."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from alexnet.recipes import (
    RECIPES,
    Recipe,
    RecipeError,
    dropout_of_layers,
    learning_rate,
    parse_setting,
    reductions_on_plateau,
)

FIELDS = {f.name: f for f in dataclasses.fields(Recipe)}


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_can_be_offered_in_a_form(name):
    meta = FIELDS[name].metadata
    assert meta["group"] in ("about", "model", "augmentation", "optimisation", "data", "hardware")
    assert meta["help"].endswith(".") and ". " not in meta["help"] and "\n" not in meta["help"]


FOLDS = ("folds", "fold")  # each is checked against the other
NUMBERS = [name for name, f in FIELDS.items() if f.type in ("int", "float") and name not in FOLDS]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_a_range_whose_ends_are_within_it(name):
    low, high = FIELDS[name].metadata["min"], FIELDS[name].metadata["max"]
    room = {"image_size": 67, "resize": 1024, "val_fraction": 0.0, "test_fraction": 0.0, "max_per_class": 10}
    for value in (low, high):
        assert getattr(Recipe(**{**room, name: value}), name) == value
    for value in (low - 1, high + 1):
        with pytest.raises(RecipeError, match=f"^{name}: .*out of range"):
            Recipe(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 2.5),
        ("epochs", "10"),
        ("epochs", True),
        ("epochs", None),
        ("epochs", 10**400),
        ("lr", "0.1"),
        ("lr", True),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", 10**400),
        ("flip", 1),
        ("flip", "true"),
        ("val_pattern", 3),
        ("optimizer", "lion"),
        ("schedule", ["cosine"]),
        ("device", "CPU"),
        ("resize", 200),  # smaller than what is cut out of it
    ],
)
def test_an_impossible_value_is_refused_in_a_sentence_that_names_the_setting(name, value):
    with pytest.raises(RecipeError) as caught:
        Recipe(**{name: value})
    text = str(caught.value)
    assert caught.value.field == name and text.startswith(f"{name}: ")
    assert text.endswith(".") and ". " not in text and "\n" not in text


def test_settings_that_only_together_cannot_work():
    with pytest.raises(RecipeError, match="nothing to train on"):
        Recipe(val_fraction=0.5, test_fraction=0.5)
    with pytest.raises(RecipeError) as caught:
        Recipe(normalization="none", norm_place="before_relu")
    assert caught.value.field == "norm_place"


def test_a_whole_number_serves_as_a_float_and_becomes_one():
    value = Recipe(dropout=0).dropout
    assert value == 0.0 and type(value) is float


def test_a_recipe_is_immutable_and_replace_leaves_the_original_alone():
    recipe = Recipe()
    assert recipe.replace(epochs=3, lr=0.5) == Recipe(epochs=3, lr=0.5)
    assert recipe == Recipe()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 3


@pytest.mark.parametrize("name", ["colour", "self", "", "__class__"])
def test_an_unknown_setting_is_named(name):
    with pytest.raises(RecipeError, match="no such setting") as caught:
        Recipe.from_dict({name: 1})
    assert caught.value.field == name


@pytest.mark.parametrize("recipe", [*RECIPES.values(), Recipe(lr=0.3, flip=False, val_pattern="*ß3.jpg", groups=2)])
def test_a_recipe_survives_json(recipe):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_settings_that_a_file_lacks_take_their_defaults():
    assert Recipe.from_dict({"epochs": 2}) == Recipe(epochs=2)


@pytest.mark.parametrize("values", [None, [], "cats-dogs", 3])
def test_what_is_not_a_set_of_settings_is_refused(values):
    with pytest.raises(RecipeError, match="not a set of named values"):
        Recipe.from_dict(values)


def test_the_recipes_are_found_under_their_names():
    assert {recipe.name for recipe in RECIPES.values()} == set(RECIPES)
    assert all(recipe.title and recipe.source.endswith(".") for recipe in RECIPES.values())


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epochs", "12", 12),
        ("lr", "1e-3", 0.001),
        ("lr", "1", 1.0),
        ("flip", "No", False),
        ("flip", "TRUE", True),
        ("mirror", "0", False),
        ("optimizer", "adamw", "adamw"),
        ("val_pattern", "*3.jpg", "*3.jpg"),
    ],
)
def test_text_of_a_command_line_becomes_a_value_of_its_type(name, text, value):
    parsed = parse_setting(name, text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("epochs", "12.5"), ("epochs", "many"), ("lr", "fast"), ("lr", ""), ("flip", "maybe"), ("x", "1")],
)
def test_text_that_is_no_value_is_refused_with_the_setting_named(name, text):
    with pytest.raises(RecipeError, match=r"\.$") as caught:
        parse_setting(name, text)
    assert caught.value.field == name


def test_one_cycle_is_that_of_torch():
    import torch  # here, as nothing else in this file needs it

    steps, warmup, peak = 501, 0.2, 0.02
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    # torch's first phase ends one step early; this share of its steps ends where a fifth of ours does.
    share = (warmup * (steps - 1) + 1) / steps
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=steps, pct_start=share, final_div_factor=1e12, anneal_strategy="cos"
    )
    recipe = Recipe(schedule="one-cycle", lr=peak, warmup=warmup)
    ours, theirs = [], []
    for step in range(steps):
        ours.append(learning_rate(recipe, step / (steps - 1)))
        theirs.append(cycle.get_last_lr()[0])
        optimizer.step()
        if step < steps - 1:
            cycle.step()
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    assert max(ours) == pytest.approx(peak) and ours[0] == pytest.approx(peak / 25) and ours[-1] == 0


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        ("cosine", {0: 1, 1 / 3: 0.75, 1 / 2: 0.5, 2 / 3: 0.25, 1: 0}),
        ("step", {0: 1, 0.33: 1, 0.34: 0.1, 0.66: 0.1, 0.67: 0.01, 1: 0.01}),
        ("constant", {0: 1, 0.5: 1, 1: 1}),
    ],
)
def test_schedules_without_warm_up(schedule, points):
    recipe = Recipe(schedule=schedule, lr=1.0, warmup=0.0)
    assert {at: learning_rate(recipe, at) for at in points} == pytest.approx(points)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "step", "constant"])
def test_the_warm_up_rises_from_a_25th_to_the_peak(schedule):
    recipe = Recipe(schedule=schedule, lr=1.0, warmup=0.4)
    quarter = 0.04 + 0.96 * ((1 - math.cos(math.pi / 4)) / 2 if schedule == "one-cycle" else 0.25)
    rates = [learning_rate(recipe, progress) for progress in (0, 0.1, 0.2, 0.4)]
    assert rates == pytest.approx([0.04, quarter, 0.52, 1])


def test_after_the_warm_up_the_schedule_fills_the_rest():
    assert learning_rate(Recipe(schedule="cosine", lr=1.0, warmup=0.4), 0.7) == pytest.approx(0.5)
    assert learning_rate(Recipe(schedule="step", lr=1.0, warmup=0.4), 0.75) == pytest.approx(0.1)
    assert learning_rate(Recipe(schedule="constant", lr=1.0, warmup=0.4), 0.7) == 1.0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"folds": 3}, "fold"),
        ({"folds": 3, "fold": 4}, "fold"),
        ({"fold": 1}, "fold"),
        ({"folds": 1, "fold": 1}, "folds"),
        ({"towers_apart": True}, "towers_apart"),
        ({"towers_apart": True, "groups": 2, "processes": 2}, "towers_apart"),
        ({"mixup": 0.2, "cutmix": 1.0}, "cutmix"),
        ({"dropout_by_layer": "fc9=0.5"}, "dropout_by_layer"),
    ],
)
def test_settings_that_do_not_go_together(settings, field):
    with pytest.raises(RecipeError) as caught:
        Recipe(**settings)
    assert caught.value.field == field


def test_a_fold_of_a_cross_validation():
    assert Recipe(folds=3, fold=3).fold == 3


def test_dropout_by_layer():
    assert dropout_of_layers(0.4, "") == {"fc6": 0.4, "fc7": 0.4}
    assert dropout_of_layers(0.4, "conv5=0.1, fc7=0") == {"conv5": 0.1, "fc6": 0.4, "fc7": 0.0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("conv6=0.1", "names no layer; use conv1, conv2, conv3, conv4, conv5, fc6, fc7"),
        ("fc7", "gives no number; write it as in fc7=0.5"),
        ("fc7=half", "gives no number"),
        ("fc7=1", "1 is out of range; use a value from 0 to 0.95"),
        ("fc7=nan", "out of range"),
    ],
)
def test_dropout_of_a_layer_that_cannot_be(text, said):
    with pytest.raises(RecipeError, match=said):
        dropout_of_layers(0.4, text)


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateaus_are_those_of_pytorch(patience):
    torch = pytest.importorskip("torch")
    losses = [1.0, 0.9, 0.91, 0.89995, 0.9, 0.7, 0.8, 0.8, 0.8, 0.8, 0.69, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=patience, eps=0)
    recipe = Recipe(schedule="plateau", plateau_patience=patience, lr=1.0, warmup=0.0)
    for epoch, loss in enumerate(losses, 1):
        reference.step(loss)
        rate = learning_rate(recipe, epoch / 100, reductions_on_plateau(losses[:epoch], patience))
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
    assert rate < 1.0
