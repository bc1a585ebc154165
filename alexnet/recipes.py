"""Every setting of a training run, and the published systems as data.

Nothing here imports torch: the Train page and `python -m alexnet --help` cost nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, fields
from typing import Any

from alexnet.errors import LabError
from alexnet.published import SYSTEMS

CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5")
POOLED = (1, 2, 5)  # the convolutions that pooling follows
FIRST_STRIDE = 4  # of conv1; the others look at each place


class RecipeError(LabError, ValueError):
    """A setting that cannot work. Its text is one sentence; `field` names the setting."""

    def __init__(self, field_name: str, text: str) -> None:
        super().__init__(f"{field_name}: {text}")
        self.field = field_name


def setting(
    default: Any,
    group: str,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    min: float | None = None,
    max: float | None = None,
) -> Any:
    """A dataclass field with what a form or a command line needs to offer it."""
    return field(default=default, metadata={"group": group, "help": help, "choices": choices, "min": min, "max": max})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides how a run trains. Immutable, checked when it is made, and stored whole in `run.json`.

    Raises:
        RecipeError: a value has the wrong type or is out of its range; the text names the field.
    """

    name: str = setting("custom", "about", "The name by which the recipe is chosen.")
    title: str = setting("Custom", "about", "The name that people read.")
    source: str = setting("", "about", "Where the recipe comes from.")
    published: str = setting("", "about", "What its author reports.")
    deviations: str = setting("", "about", "Where this differs from the source, and why; one a line.")

    network: str = setting(
        "alexnet",
        "model",
        "AlexNet, or as its baseline a plain network of fully connected layers on the pixels (a multilayer perceptron).",
        choices=("alexnet", "mlp"),
    )
    normalization: str = setting(
        "batch",
        "model",
        "Rescales activations between layers: batch norm trains far faster than the local response "
        "norm of 2012; none is the plainest network.",
        choices=("batch", "local_response", "none"),
    )
    norm_place: str = setting(
        "after_relu",
        "model",
        "Whether the normalisation comes after the ReLU, as in 2012, before it, or after the pooling where there is one.",
        choices=("after_relu", "before_relu", "after_pool"),
    )
    maps: str = setting("96 256 384 384 256", "model", "Feature maps that each of the five convolutions puts out.")
    kernels: str = setting("11 5 3 3 3", "model", "Side of the kernel of each convolution, in pixels of its input.")
    paddings: str = setting(
        "0 2 1 1 1", "model", "Zeros around the input of each convolution; 0 makes the maps smaller by the kernel."
    )
    pool: int = setting(
        3, "model", "Side of the pooling windows, which lie 2 apart; those of 3 overlap, as in 2012.", min=2, max=3
    )
    avgpool: int = setting(
        6, "model", "Side to which the last maps are averaged before the first fully connected layer.", min=1, max=64
    )
    hidden: str = setting(
        "4096 4096", "model", "Units of each fully connected layer before the last, which has one for each class."
    )
    activation: str = setting(
        "relu",
        "model",
        "What bends the sums of the fully connected baseline; AlexNet has rectified linear units (ReLU).",
        choices=("relu", "sigmoid", "tanh"),
    )
    initialization: str = setting(
        "pytorch",
        "model",
        "Random start: PyTorch's, scaled to each layer's size, or the paper's, the same small numbers everywhere.",
        choices=("pytorch", "paper"),
    )
    groups: int = setting(
        1, "model", "2 splits the convolutions into the two GPU towers of 2012; 1 leaves them whole.", min=1, max=2
    )
    dropout: float = setting(
        0.4,
        "model",
        "Share of the fully connected units silenced at each step; more of it resists overfitting and slows learning.",
        min=0.0,
        max=0.95,
    )
    dropout_by_layer: str = setting(
        "",
        "model",
        "Dropout of single layers where it differs, such as conv5=0.1 fc7=0.5; the others keep the share above.",
    )
    towers_apart: bool = setting(
        False, "model", "Lay the two towers over two devices, as the paper did; they meet at conv3 and the full layers."
    )
    single_logit: bool = setting(
        False, "model", "One output and binary cross-entropy instead of one output per class; for two classes only."
    )

    image_size: int = setting(
        227,
        "data",
        "Side of the square that the network sees, in pixels; smaller is faster and less accurate.",
        min=67,
        max=512,
    )
    resize: int = setting(
        256,
        "data",
        "Shorter side, in pixels, to which a photo is scaled before its centre is cut out for evaluation; "
        "more zooms in.",
        min=67,
        max=1024,
    )
    squash: bool = setting(
        False, "data", "Squash photos into a square instead of cutting one out, in training and evaluation alike."
    )
    mirror: bool = setting(
        True, "data", "Average the answer over the photo and its mirror image: a little more accurate, twice the time."
    )
    five_crops: bool = setting(
        False,
        "data",
        "Average the answer over the four corners and the centre; with the mirror images, the ten crops of 2012.",
    )
    val_fraction: float = setting(
        0.1, "data", "Share of the photos kept for validation, which chooses the best epoch.", min=0.0, max=0.9
    )
    test_fraction: float = setting(
        0.1, "data", "Share of the photos kept for one test at the very end.", min=0.0, max=0.9
    )
    val_pattern: str = setting(
        "",
        "data",
        "Photos whose file name matches this pattern, such as *3.jpg, make the validation split instead of "
        "a random share.",
    )
    given_splits: bool = setting(
        False, "data", "Insist on the splits that train, val and test folders give; other datasets are refused."
    )
    max_classes: int = setting(
        0, "data", "Use only the first so many classes, in the order of their names; 0 uses all.", min=0, max=1_000_000
    )
    max_per_class: int = setting(
        0,
        "data",
        "Use at most so many photos of each class, drawn by the seed; photos that a test or val folder holds do not count; "
        "0 uses all.",
        min=0,
        max=1_000_000_000,
    )
    test_on_rest: int = setting(
        0,
        "data",
        "Also test on so many of the photos that the limit of each class leaves out; 0 does not.",
        min=0,
        max=1_000_000_000,
    )

    cache: str = setting(
        "auto",
        "data",
        "Decode each photo once and keep it on disk, or decode anew in each epoch; auto keeps them where there is room.",
        choices=("auto", "on", "off"),
    )
    folds: int = setting(
        0, "about", "Into how many parts cross-validation divides the photos; 0 without.", min=0, max=100
    )
    fold: int = setting(0, "about", "The part, from 1, that this run of a cross-validation tests on.", min=0, max=100)

    crop: str = setting(
        "resized",
        "augmentation",
        "What is cut out in training: a part of random size and shape (resized), one of the size that evaluation sees at a "
        "random place (patch), as in 2012, or no part (none).",
        choices=("resized", "patch", "none"),
    )
    crop_scale: float = setting(
        0.35,
        "augmentation",
        "Smallest share of a photo's area that a crop of random size may show; 1 shows as much as fits.",
        min=0.05,
        max=1.0,
    )
    flip: bool = setting(True, "augmentation", "Mirror half of the training photos left to right.")
    rotation: float = setting(
        0.0, "augmentation", "Largest turn of a training photo, to either side, in degrees.", min=0.0, max=180.0
    )
    shear: float = setting(
        0.0, "augmentation", "Largest slant of a training photo, to either side, in degrees.", min=0.0, max=45.0
    )
    zoom: float = setting(
        0.0,
        "augmentation",
        "Largest relative change of a training photo's width and, apart from it, its height; edges fill what gets free.",
        min=0.0,
        max=0.9,
    )
    shift: float = setting(
        0.0,
        "augmentation",
        "Largest move of a training photo, as a share of its side, each way; edges fill what gets free.",
        min=0.0,
        max=0.5,
    )
    blur: float = setting(
        0.0,
        "augmentation",
        "Largest standard deviation, in pixels, of the blur of a training photo.",
        min=0.0,
        max=10.0,
    )
    brightness: float = setting(
        0.3, "augmentation", "Largest relative change of brightness of a training photo.", min=0.0, max=1.0
    )
    contrast: float = setting(
        0.3, "augmentation", "Largest relative change of contrast of a training photo.", min=0.0, max=1.0
    )
    saturation: float = setting(
        0.3, "augmentation", "Largest relative change of colourfulness of a training photo.", min=0.0, max=1.0
    )

    pca_colour: float = setting(
        0.0,
        "augmentation",
        "Standard deviation of random shifts along the principal colours of photos; the paper used 0.1.",
        min=0.0,
        max=1.0,
    )
    erasing: float = setting(
        0.0, "augmentation", "Share of the training photos in which a random rectangle is erased.", min=0.0, max=1.0
    )
    mixup: float = setting(
        0.0,
        "augmentation",
        "Blends training photos, and their labels, in pairs; larger blends more evenly, 0.2 is customary, 0 is off.",
        min=0.0,
        max=10.0,
    )
    cutmix: float = setting(
        0.0,
        "augmentation",
        "Pastes a rectangle of one training photo into another, and mixes their labels; 1 is customary, 0 is off.",
        min=0.0,
        max=10.0,
    )

    epochs: int = setting(14, "optimisation", "How many times the run sees every training photo.", min=1, max=10_000)
    batch_size: int = setting(
        128, "optimisation", "Photos per step; larger is steadier and needs more memory.", min=1, max=65_536
    )
    accumulation: int = setting(
        1,
        "optimisation",
        "Parts in which a batch goes through the network; more parts need less memory and take longer.",
        min=1,
        max=65_536,
    )
    optimizer: str = setting(
        "sgd",
        "optimisation",
        "How gradients become steps: SGD with momentum, Adam, or AdamW with decoupled weight decay.",
        choices=("sgd", "adam", "adamw"),
    )
    lr: float = setting(
        0.02,
        "optimisation",
        "Highest learning rate of the schedule; too high diverges, too low learns slowly; "
        "Adam and AdamW want about 0.0005.",
        min=1e-8,
        max=10.0,
    )
    momentum: float = setting(
        0.9, "optimisation", "How much of the previous step SGD keeps; for Adam and AdamW, beta 1.", min=0.0, max=0.999
    )
    nesterov: bool = setting(
        True, "optimisation", "SGD looks ahead along its momentum (Nesterov); the momentum of 2012 did not."
    )
    weight_decay: float = setting(
        5e-4,
        "optimisation",
        "Pulls weights towards zero at each step, which resists overfitting; biases and normalisation are spared.",
        min=0.0,
        max=1.0,
    )
    schedule: str = setting(
        "one-cycle",
        "optimisation",
        "How the learning rate moves: up and down once, down along a cosine, in three steps of ten, "
        "by ten whenever validation stalls, or not at all.",
        choices=("one-cycle", "cosine", "step", "plateau", "constant"),
    )
    plateau_patience: int = setting(
        5, "optimisation", "Epochs without a lower validation loss that the plateau schedule bears.", min=0, max=1000
    )
    warmup: float = setting(
        0.2,
        "optimisation",
        "Share of the run over which the learning rate rises from a 25th of its peak.",
        min=0.0,
        max=0.9,
    )
    clip_norm: float = setting(
        0.0,
        "optimisation",
        "Longest gradient that counts in full; longer ones are cut to it; 0 is off.",
        min=0.0,
        max=1e6,
    )
    patience: int = setting(
        0,
        "optimisation",
        "Epochs without a better validation accuracy after which the run ends early; 0 never does.",
        min=0,
        max=10_000,
    )
    freeze_features: bool = setting(
        False, "optimisation", "Train the fully connected layers only; the convolutions stay as they start."
    )
    start_from: str = setting(
        "", "optimisation", "Name or folder of a run whose weights this one starts from; empty starts from random ones."
    )
    label_smoothing: float = setting(
        0.1,
        "optimisation",
        "Asks for a little less than certainty, which keeps the network from overconfidence.",
        min=0.0,
        max=0.9,
    )
    ema: float = setting(
        0.998,
        "optimisation",
        "Decay of the running average of the weights, which is what is evaluated and kept; 0 "
        "keeps the last weights as they are.",
        min=0.0,
        max=0.99999,
    )
    seed: int = setting(
        0, "optimisation", "Starting point of every random draw; the same seed repeats the run.", min=0, max=2**31
    )

    device: str = setting(
        "auto",
        "hardware",
        "Where the run trains: auto takes a GPU where there is one.",
        choices=("auto", "cpu", "cuda", "mps"),
    )
    precision: str = setting(
        "auto",
        "hardware",
        "bfloat16 halves the arithmetic on hardware that has it; auto uses it where it is faster.",
        choices=("auto", "bfloat16", "float32"),
    )
    compile: str = setting(
        "auto",
        "hardware",
        "Compiling the network costs about a minute and then doubles the speed; auto does it for "
        "runs long enough to gain.",
        choices=("auto", "on", "off"),
    )
    processes: int = setting(
        1,
        "hardware",
        "GPUs that share each batch, one process each; on a CPU more than one only costs time.",
        min=1,
        max=1024,
    )
    wandb: str = setting(
        "off",
        "hardware",
        "Also record the run with Weights & Biases: offline needs no account, online uses yours.",
        choices=("off", "offline", "online"),
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _checked(f, getattr(self, f.name)))
        _check_network(self)
        _check_data(self)
        if self.towers_apart and self.groups != 2:
            raise RecipeError(
                "towers_apart", "a network without towers cannot be laid over two devices; set groups to 2."
            )
        if self.towers_apart and self.processes > 1:
            raise RecipeError("towers_apart", "the towers are one process; set processes to 1.")
        if self.mixup and self.cutmix:
            raise RecipeError("cutmix", "photos are either blended or cut; set mixup or cutmix to 0.")

    def replace(self, /, **changes: Any) -> Recipe:
        """A copy with some settings changed.

        Raises:
            RecipeError: a setting does not exist, or its value cannot work.
        """
        known = {f.name for f in fields(self)}
        for name in changes:
            if name not in known:
                raise RecipeError(name, "there is no such setting; `python -m alexnet train --help` lists them all.")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """The inverse of `to_dict`; settings that `values` lacks take their defaults.

        Raises:
            RecipeError: as for `replace`.
        """
        if not isinstance(values, dict):
            raise RecipeError("recipe", "it is not a set of named values; choose one of the recipes again.")
        return cls().replace(**values)


def _check_network(recipe: Recipe) -> None:
    """Whether there is such a network; otherwise a RecipeError."""
    hidden = whole_numbers(recipe, "hidden")
    if recipe.network == "mlp":
        for name in ("groups", "single_logit", "dropout_by_layer", "freeze_features", "initialization"):
            if getattr(recipe, name) != Recipe.__dataclass_fields__[name].default:
                raise RecipeError(name, "the fully connected baseline has no such thing; leave it as it is.")
        if recipe.normalization != "none":
            raise RecipeError("normalization", "the fully connected baseline has none; set it to none.")
        return
    if recipe.activation != "relu":
        raise RecipeError("activation", "AlexNet has rectified linear units; leave it at relu.")
    dropout_of_layers(recipe.dropout, recipe.dropout_by_layer, len(hidden))
    if recipe.normalization == "none" and recipe.norm_place != "after_relu":
        raise RecipeError("norm_place", "there is no normalisation to place; leave it at after_relu.")
    for name in ("maps", "hidden"):
        if recipe.groups == 2 and any(number % 2 for number in whole_numbers(recipe, name)):
            raise RecipeError(name, "two towers share the maps and units evenly; use even numbers.")
    if min(map_sides(recipe)) < 1:
        raise RecipeError("image_size", f"{recipe.image_size} px leave nothing for the last convolutions; use more.")


def _check_data(recipe: Recipe) -> None:
    """Whether photos can be divided and cut out so; otherwise a RecipeError."""
    if recipe.resize < recipe.image_size:
        raise RecipeError("resize", f"{recipe.resize} is smaller than image_size; use at least {recipe.image_size}.")
    if recipe.val_fraction + recipe.test_fraction >= 1:
        raise RecipeError("val_fraction", "with test_fraction it leaves nothing to train on; lower one of them.")
    if recipe.fold > recipe.folds or (recipe.folds and not recipe.fold):
        raise RecipeError("fold", f"{recipe.fold} is not one of the {recipe.folds} folds.")
    if recipe.folds == 1:
        raise RecipeError("folds", "one part leaves nothing to train on; use at least 2.")
    if recipe.max_classes == 1:
        raise RecipeError("max_classes", "one class leaves nothing to tell apart; use at least 2, or 0 for all.")
    if recipe.test_on_rest and not recipe.max_per_class:
        raise RecipeError("test_on_rest", "no photos are left out; set max_per_class, too.")
    if recipe.folds and (recipe.given_splits or recipe.test_on_rest):
        name = "given_splits" if recipe.given_splits else "test_on_rest"
        raise RecipeError(name, "folds divide the photos anew; turn this off.")


def whole_numbers(recipe: Recipe, name: str) -> tuple[int, ...]:
    """The numbers in a setting such as `maps`: one for each convolution, or of `hidden`, for each hidden layer.

    Raises:
        RecipeError: it holds something else, too few or too many, or one that is out of range.
    """
    words = getattr(recipe, name).replace(",", " ").split()
    low, high = (0, 16) if name == "paddings" else (1, 32) if name == "kernels" else (1, 65_536)
    # The length first: Python refuses to read a number of thousands of digits.
    if not all(word.isascii() and word.isdecimal() and len(word) < 10 and low <= int(word) <= high for word in words):
        raise RecipeError(
            name, f"write whole numbers from {low} to {high:,}, as in {Recipe.__dataclass_fields__[name].default}."
        )
    if name == "hidden":
        if not 1 <= len(words) <= 8:
            raise RecipeError(name, "there are from 1 to 8 hidden layers; write a number for each.")
    elif len(words) != 5:
        raise RecipeError(name, f"there are five convolutions and {len(words)} numbers; write one for each.")
    return tuple(int(word) for word in words)


def map_sides(recipe: Recipe) -> tuple[int, ...]:
    """The side of the maps of each convolution, in pixels, after its pooling where it has one; below 1 where none is left."""
    side, sides = recipe.image_size, []
    for number, (kernel, padding) in enumerate(
        zip(whole_numbers(recipe, "kernels"), whole_numbers(recipe, "paddings"), strict=True), 1
    ):
        side = (side + 2 * padding - kernel) // (FIRST_STRIDE if number == 1 else 1) + 1
        if number in POOLED:
            side = (side - recipe.pool) // 2 + 1
        sides.append(side)
    return tuple(sides)


def _checked(f: dataclasses.Field[Any], value: Any) -> Any:
    """`value` as the type of field `f`, within the field's choices and range; otherwise a RecipeError."""
    kind = {"int": int, "float": float, "bool": bool, "str": str}[str(f.type)]
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
        raise RecipeError(f.name, f"{value!r} is not {_KIND_WORDS[kind]}.")
    if (
        isinstance(value, str) and value.encode("utf-8", "replace").decode() != value
    ):  # from a command line in another encoding
        raise RecipeError(f.name, "it holds bytes that are no text; write it anew, in UTF-8.")
    choices, low, high = f.metadata["choices"], f.metadata["min"], f.metadata["max"]
    if choices and value not in choices:
        raise RecipeError(f.name, f"{value!r} is not one of {', '.join(choices)}.")
    if low is not None and not low <= value <= high:  # nor is a NaN
        raise RecipeError(f.name, f"{value} is out of range; use a value from {low} to {high}.")
    return kind(value)


_KIND_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def parse_setting(name: str, text: str) -> Any:
    """The value that `text`, typed on a command line, gives to the setting `name`.

    Raises:
        RecipeError: the setting does not exist, or the text is not of its type.
    """
    kinds = {f.name: str(f.type) for f in fields(Recipe)}
    if name not in kinds:
        raise RecipeError(name, "there is no such setting; `python -m alexnet train --help` lists them all.")
    if kinds[name] == "bool":
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise RecipeError(name, f"{text!r} is neither true nor false.")
        return words[text.lower()]
    kind = {"int": int, "float": float, "str": str}[kinds[name]]
    try:
        return kind(text)
    except ValueError:
        raise RecipeError(name, f"{text!r} is not {_KIND_WORDS[kind]}.") from None


def changed_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings in which `recipe` differs from the defaults; what is said about it is none."""
    values, defaults = recipe.to_dict(), Recipe().to_dict()
    settings = (f.name for f in fields(Recipe) if f.metadata["group"] != "about")
    return {name: values[name] for name in settings if values[name] != defaults[name]}


def hidden_names(count: int) -> tuple[str, ...]:
    """The names of AlexNet's fully connected layers before the last: fc6, fc7 and so on."""
    return tuple(f"fc{number}" for number in range(6, 6 + count))


def dropout_of_layers(dropout: float, by_layer: str, hidden: int = 2) -> dict[str, float]:
    """The dropout after each layer that has one: `dropout` for the hidden fully connected ones, and what `by_layer` names.

    Args:
        dropout: share of the units silenced, 0 to below 1.
        by_layer: such as `conv5=0.1 fc7=0.5`; commas may separate, too.
        hidden: how many fully connected layers there are before the last.

    Raises:
        RecipeError: a layer does not exist, or a share is out of its range.
    """
    shares = dict.fromkeys(hidden_names(hidden), dropout)
    layers = (*CONVOLUTIONS, *shares)
    for item in by_layer.replace(",", " ").split():
        layer, _, share = item.partition("=")
        if layer not in layers:
            raise RecipeError("dropout_by_layer", f"{item!r} names no layer; use {', '.join(layers)}, as in fc7=0.5.")
        try:
            shares[layer] = float(share)
        except ValueError:
            raise RecipeError("dropout_by_layer", f"{item!r} gives no number; write it as in fc7=0.5.") from None
        if not 0 <= shares[layer] <= 0.95:
            raise RecipeError("dropout_by_layer", f"{share} is out of range; use a value from 0 to 0.95.")
    return shares


RECIPES: dict[str, Recipe] = {settings["name"]: Recipe(**settings) for settings in SYSTEMS}
