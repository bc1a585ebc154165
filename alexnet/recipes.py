"""Every setting of a training run, and the published systems as data.

Nothing here imports torch: the Train page and `python -m alexnet --help` cost nothing.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field, fields
from typing import Any

from alexnet.errors import LabError


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

    epochs: int = setting(14, "optimisation", "How many times the run sees every training photo.", min=1, max=10_000)
    batch_size: int = setting(
        128, "optimisation", "Photos per step; larger is steadier and needs more memory.", min=1, max=65_536
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
        "How the learning rate moves: up and down once, down along a cosine, in three steps of ten, or not at all.",
        choices=("one-cycle", "cosine", "step", "constant"),
    )
    warmup: float = setting(
        0.2,
        "optimisation",
        "Share of the run over which the learning rate rises from a 25th of its peak.",
        min=0.0,
        max=0.9,
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


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The learning rate when a share `progress` (0 to 1) of all steps is done.

    `one-cycle` follows Smith and Topin 2018 (arXiv 1708.07120) in the cosine form of
    `torch.optim.lr_scheduler.OneCycleLR`, ending at zero; the others warm up along a straight line (Goyal et al. 2017,
    arXiv 1706.02677, section 2.2). `step` divides by ten after each third.
    """
    if progress < recipe.warmup:
        share = progress / recipe.warmup
        return _cosine(recipe.lr / 25, recipe.lr, share) if recipe.schedule == "one-cycle" else _line(recipe.lr, share)
    if recipe.schedule == "constant":
        return recipe.lr
    after = (progress - recipe.warmup) / (1 - recipe.warmup)
    if recipe.schedule == "step":
        return recipe.lr * 0.1 ** min(int(after * 3), 2)
    return _cosine(recipe.lr, 0.0, after)


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
