"""Settings: what a form needs of each, and what is refused and how."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from alexnet.__main__ import main
from alexnet.recipes import (
    RECIPES,
    Recipe,
    RecipeError,
    changed_settings,
    dropout_of_layers,
    map_sides,
    parse_setting,
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
        ("val_pattern", "\udcff"),
        ("hidden", "9" * 5_000),
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


# The settings that each author publishes, as their papers and pages have them.
PUBLISHED = {
    "batchnorm-cats-dogs": {
        "image_size": 227,
        "maps": "96 256 384 384 256",
        "kernels": "11 5 3 3 3",
        "paddings": "2 2 1 1 1",
        "normalization": "batch",
        "norm_place": "after_relu",
        "hidden": "4096 4096",
        "dropout": 0.5,
        "single_logit": True,
        "optimizer": "adam",
        "weight_decay": 0.008,
        "schedule": "one-cycle",
        "lr": 1e-3,
        "batch_size": 128,
        "epochs": 30,
        "flip": True,
    },
    "paper-2012": {
        "image_size": 227,
        "resize": 256,
        "crop": "patch",
        "maps": "96 256 384 384 256",
        "kernels": "11 5 3 3 3",
        "normalization": "local_response",
        "norm_place": "after_relu",
        "pool": 3,
        "groups": 2,
        "hidden": "4096 4096",
        "dropout": 0.5,
        "initialization": "paper",
        "optimizer": "sgd",
        "nesterov": False,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "batch_size": 128,
        "lr": 0.01,
        "schedule": "plateau",
        "epochs": 90,
        "flip": True,
        "pca_colour": 0.1,
        "five_crops": True,
        "mirror": True,
    },
    "tiny-100": {
        "normalization": "local_response",
        "groups": 2,
        "hidden": "4096 4096",
        "max_per_class": 50,
        "val_fraction": 0.1,
        "test_fraction": 0.1,
        "test_on_rest": 2000,
        "epochs": 10,
    },
    "keras-dogs-vs-cats": {
        "paddings": "0 0 0 0 0",
        "normalization": "batch",
        "norm_place": "after_pool",
        "hidden": "4096 4096 1000",
        "dropout": 0.4,
        "single_logit": False,
        "val_fraction": 0.2,
        "test_fraction": 0.0,
        "batch_size": 15,
        "epochs": 20,
        "rotation": 15.0,
        "shear": 0.1,
        "zoom": 0.2,
        "shift": 0.1,
        "flip": True,
    },
    "three-class": {
        "image_size": 227,
        "val_fraction": 0.2,
        "test_fraction": 0.1,
        "batch_size": 32,
        "epochs": 10,
        "single_logit": False,
    },
    "svhn": {
        "image_size": 224,
        "rotation": 15.0,
        "flip": False,
        "normalization": "batch",
        "hidden": "128 64",
        "optimizer": "sgd",
        "lr": 0.005,
        "momentum": 0.9,
        "weight_decay": 0.005,
        "batch_size": 64,
        "epochs": 15,
        "patience": 2,
        "schedule": "plateau",
    },
    "mlp-baseline": {
        "network": "mlp",
        "hidden": "128 128 128",
        "activation": "relu",
        "optimizer": "adam",
        "lr": 1e-4,
    },
    "imagenet": {
        "image_size": 227,
        "crop": "resized",
        "flip": True,
        "given_splits": True,
        "optimizer": "sgd",
        "schedule": "step",
    },
}
FIGURES = {
    "batchnorm-cats-dogs": ("82.52 %", "83.14 %", "0.3608"),
    "paper-2012": ("37.5 %", "17.0 %"),
    "tiny-100": ("69.12 %", "71.88 %"),
    "keras-dogs-vs-cats": ("89.95 %",),
    "three-class": ("90.18 %", "0.3100"),
    "svhn": ("93.14 %",),
    "mlp-baseline": ("None",),
    "imagenet": ("None",),
}
OURS = {"cats-dogs", "first-run"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_system_has_the_settings_that_its_author_publishes(name):
    settings = RECIPES[name].to_dict()
    assert {key: settings[key] for key in PUBLISHED[name]} == PUBLISHED[name]


def test_each_system_has_a_source_what_its_author_reports_and_where_it_differs():
    assert RECIPES.keys() == PUBLISHED.keys() | OURS
    for name, figures in FIGURES.items():
        recipe = RECIPES[name]
        assert all(figure in recipe.published for figure in figures) and recipe.published.endswith(".")
        deviations = recipe.deviations.splitlines()
        assert len(deviations) == len(set(deviations)) > 3
        assert all(line == line.strip() and line.endswith(".") for line in deviations)
    assert not any(RECIPES[name].published or RECIPES[name].deviations for name in OURS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_system_has_what_its_author_did_not(name):
    recipe = RECIPES[name]
    ours = {"ema": 0, "label_smoothing": 0, "mixup": 0, "cutmix": 0, "erasing": 0, "contrast": 0, "saturation": 0}
    settings = recipe.to_dict()
    assert {key: settings[key] for key in ours} == ours
    assert recipe.warmup == (0.3 if recipe.schedule == "one-cycle" else 0)
    assert recipe.mirror == recipe.five_crops == (name == "paper-2012")
    assert recipe.brightness == recipe.blur / 10 == (0.2 if name == "batchnorm-cats-dogs" else 0)


def test_one_step_of_the_paper_by_hand():
    """Its update rule, section 5: v <- 0.9 v - 0.0005 lr w - lr gradient; w <- w + v."""
    torch = pytest.importorskip("torch")
    from alexnet.state import make_optimizer

    layer = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(layer.weight, 2.0)
    optimizer = make_optimizer(layer, RECIPES["paper-2012"])
    weight, velocity = 2.0, 0.0
    for gradient in (3.0, -1.0, 0.5):
        layer.weight.grad, layer.bias.grad = torch.full((1, 1), gradient), torch.zeros(1)
        optimizer.step()
        velocity = 0.9 * velocity - 0.0005 * 0.01 * weight - 0.01 * gradient
        weight += velocity
        assert layer.weight.item() == pytest.approx(weight, abs=1e-6)


# The maps and their sides of each convolution, before and after its pooling; units; all parameters.
MAPS_2012 = [(96, 55, 27), (256, 27, 13), (384, 13, 13), (384, 13, 13), (256, 13, 6)]
NETWORKS = {
    "batchnorm-cats-dogs": (2, [(96, 56, 27), *MAPS_2012[1:]], [4096, 4096, 1], 58_288_193),
    "paper-2012": (1000, MAPS_2012, [4096, 4096, 1000], 60_965_224),
    "tiny-100": (2, MAPS_2012, [4096, 4096, 2], 56_876_418),
    "keras-dogs-vs-cats": (
        2,
        [(96, 54, 27), (256, 17, 8), (384, 6, 6), (384, 4, 4), (256, 2, 1)],
        [4096, 4096, 1000, 2],
        28_042_234,
    ),
    "three-class": (3, MAPS_2012, [4096, 4096, 3], 58_293_635),
    "svhn": (10, MAPS_2012, [128, 64, 10], 4_938_634),
    "mlp-baseline": (2, [], [128, 128, 128, 2], 1_757_186),
    "imagenet": (1000, MAPS_2012, [4096, 4096, 1000], 62_378_344),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_system_has_the_layers_and_the_parameters_of_its_source(name):
    torch = pytest.importorskip("torch")
    from alexnet import model

    classes, maps, units, parameters = NETWORKS[name]
    recipe, found = RECIPES[name], []
    with torch.device("meta"):
        network = model.from_recipe(recipe, classes).eval()
        x = torch.zeros(1, 3, recipe.image_size, recipe.image_size)
        for layer_name, layer in network.layers():
            if layer_name.startswith("norm"):  # it keeps the shape
                continue
            x = layer(x)
            if layer_name.startswith("conv"):
                found.append((x.shape[1], x.shape[2], x.shape[2]))
            elif layer_name.startswith("pool"):
                found[-1] = (*found[-1][:2], x.shape[2])
            elif layer_name.startswith("fc"):
                found.append(x.shape[1])
    assert found == maps + units
    assert sum(p.numel() for p in network.parameters()) == parameters
    if maps:  # the average changes nothing
        assert recipe.avgpool == maps[-1][2] == map_sides(recipe)[-1]


def test_changed_settings_are_those_that_training_depends_on():
    recipe = Recipe(name="mine", source="Mine.", epochs=3, flip=False, lr=0.02)
    assert changed_settings(recipe) == {"flip": False, "epochs": 3}
    assert Recipe(**changed_settings(RECIPES["svhn"])) == RECIPES["svhn"].replace(
        name="custom", title="Custom", source="", published="", deviations=""
    )


def test_the_command_lists_the_recipes(capsys):
    assert main(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["recipes"]
    assert [recipe["name"] for recipe in listed] == list(RECIPES)
    assert all(set(recipe) == {"name", "title", "source", "published"} for recipe in listed)
    assert main(["recipes"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{name}: " in f"\n{printed}" for name in RECIPES)
    assert f"Published: {RECIPES['svhn'].published}" in printed


def test_the_command_tells_all_of_one_recipe(capsys):
    recipe = RECIPES["svhn"]
    assert main(["recipes", "svhn", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"] == changed_settings(recipe) and told["deviations"] == recipe.deviations.splitlines()
    assert main(["recipes", "svhn"]) == 0
    printed = capsys.readouterr().out
    assert "    lr = 0.005 (0.02)\n" in printed
    assert all(f"    - {deviation}\n" in printed for deviation in told["deviations"])
    assert main(["recipes", "alexnet-2013"]) == 2
    assert "There is no recipe 'alexnet-2013'; there are cats-dogs, " in capsys.readouterr().err
