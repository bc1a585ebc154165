"""Every setting of a training run, and the published systems as data.

Nothing here imports torch: the Train page and `python -m alexnet --help` cost nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from alexnet.errors import LabError

DROPOUT_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")


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
        "Whether the normalisation comes after the ReLU, as in 2012, or before it.",
        choices=("after_relu", "before_relu"),
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
    mirror: bool = setting(
        True, "data", "Average the answer over the photo and its mirror image: a little more accurate, twice the time."
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

    crop_scale: float = setting(
        0.35,
        "augmentation",
        "Smallest share of a photo's area that a random training crop may show; 1 shows it whole.",
        min=0.05,
        max=1.0,
    )
    flip: bool = setting(True, "augmentation", "Mirror half of the training photos left to right.")
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
        "How gradients become steps: SGD with Nesterov momentum, Adam, or AdamW with decoupled weight decay.",
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
        if self.resize < self.image_size:
            raise RecipeError("resize", f"{self.resize} is smaller than image_size; use at least {self.image_size}.")
        if self.val_fraction + self.test_fraction >= 1:
            raise RecipeError("val_fraction", "with test_fraction it leaves nothing to train on; lower one of them.")
        if self.fold > self.folds or (self.folds and not self.fold):
            raise RecipeError("fold", f"{self.fold} is not one of the {self.folds} folds.")
        if self.folds == 1:
            raise RecipeError("folds", "one part leaves nothing to train on; use at least 2.")
        if self.towers_apart and self.groups != 2:
            raise RecipeError(
                "towers_apart", "a network without towers cannot be laid over two devices; set groups to 2."
            )
        if self.towers_apart and self.processes > 1:
            raise RecipeError("towers_apart", "the towers are one process; set processes to 1.")
        if self.mixup and self.cutmix:
            raise RecipeError("cutmix", "photos are either blended or cut; set mixup or cutmix to 0.")
        dropout_of_layers(self.dropout, self.dropout_by_layer)
        if self.normalization == "none" and self.norm_place != "after_relu":
            raise RecipeError("norm_place", "there is no normalisation to place; leave it at after_relu.")

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


def _checked(f: dataclasses.Field, value: Any) -> Any:
    """`value` as the type of field `f`, within the field's choices and range; otherwise a RecipeError."""
    kind = {"int": int, "float": float, "bool": bool, "str": str}[str(f.type)]
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
        raise RecipeError(f.name, f"{value!r} is not {_KIND_WORDS[kind]}.")
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


def dropout_of_layers(dropout: float, by_layer: str) -> dict[str, float]:
    """The dropout after each layer that has one: `dropout` for fc6 and fc7, and what `by_layer` names.

    Args:
        dropout: share of the units silenced, 0 to below 1.
        by_layer: such as `conv5=0.1 fc7=0.5`; commas may separate, too.

    Raises:
        RecipeError: a layer does not exist, or a share is out of its range.
    """
    shares = {"fc6": dropout, "fc7": dropout}
    for item in by_layer.replace(",", " ").split():
        layer, _, share = item.partition("=")
        if layer not in DROPOUT_LAYERS:
            raise RecipeError(
                "dropout_by_layer", f"{item!r} names no layer; use {', '.join(DROPOUT_LAYERS)}, as in fc7=0.5."
            )
        try:
            shares[layer] = float(share)
        except ValueError:
            raise RecipeError("dropout_by_layer", f"{item!r} gives no number; write it as in fc7=0.5.") from None
        if not 0 <= shares[layer] <= 0.95:
            raise RecipeError("dropout_by_layer", f"{share} is out of range; use a value from 0 to 0.95.")
    return shares


def learning_rate(recipe: Recipe, progress: float, reductions: int = 0) -> float:
    """The learning rate when a share `progress` (0 to 1) of all steps is done.

    `plateau` has been divided by ten `reductions` times so far, see `reductions_on_plateau`.

    `one-cycle` follows Smith and Topin 2018 (arXiv 1708.07120) in the cosine form of
    `torch.optim.lr_scheduler.OneCycleLR`, ending at zero; the others warm up along a straight line (Goyal et al. 2017,
    arXiv 1706.02677, section 2.2). `step` divides by ten after each third.
    """
    if progress < recipe.warmup:
        share = progress / recipe.warmup
        return _cosine(recipe.lr / 25, recipe.lr, share) if recipe.schedule == "one-cycle" else _line(recipe.lr, share)
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "plateau":
        return recipe.lr * 0.1**reductions
    after = (progress - recipe.warmup) / (1 - recipe.warmup)
    if recipe.schedule == "step":
        return recipe.lr * 0.1 ** min(int(after * 3), 2)
    return _cosine(recipe.lr, 0.0, after)


def reductions_on_plateau(losses: Sequence[float], patience: int) -> int:
    """How often the validation losses of the epochs so far have stalled for more than `patience` epochs.

    The same as `torch.optim.lr_scheduler.ReduceLROnPlateau` with its defaults: only a loss lower by a relative 1e-4 is
    progress, and after each reduction the patience starts anew.
    """
    best, stalled, reductions = math.inf, 0, 0
    for loss in losses:
        stalled = stalled + 1
        if loss < best * (1 - 1e-4):
            best, stalled = loss, 0
        if stalled > patience:
            stalled, reductions = 0, reductions + 1
    return reductions


def _line(peak: float, share: float) -> float:
    return peak / 25 + peak * (1 - 1 / 25) * share


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="cats-dogs",
            title="Cats and dogs",
            source="Ours: the 2012 layout with batch norm after each ReLU and what training practice has learnt since.",
            epochs=12,
        ),
        Recipe(
            name="first-run",
            title="First run (about two minutes)",
            source="Ours: the same network on smaller pictures, for a first look on any laptop.",
            image_size=99,
            resize=104,
            dropout=0.2,
            epochs=10,
            batch_size=32,
            lr=0.01,
            crop_scale=0.7,
            ema=0.98,
        ),
    )
}
