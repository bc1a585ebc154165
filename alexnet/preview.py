"""What augmentation does to photos before they are trained on, whole and one operation at a time.

Nothing here changes a pixel: the choices are those that `draws` makes for a step of training, and `augment` and `mix`
carry them out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alexnet import draws
from alexnet.augment import (
    ASPECT,
    ERASED_AREA,
    GEOMETRY,
    Draw,
    EvalTransform,
    affine_maps,
    augment,
    cut_boxes,
    draw,
    erased_boxes,
    mix,
    patch_boxes,
    resized_boxes,
    tints,
    to_square,
)
from alexnet.data import digest, planes
from alexnet.recipes import Recipe

# The settings of a recipe that leaves photos as they are: the square in their middle, or all of them squashed.
STILL = {"crop": "none", "flip": False} | dict.fromkeys(
    (*GEOMETRY, "blur", "brightness", "contrast", "saturation", "pca_colour", "erasing", "mixup", "cutmix"), 0.0
)
TAIL = 2.0  # standard deviations at which what has no limits is shown


@dataclass(frozen=True)
class Operation:
    """One of the steps that a photo goes through."""

    name: str  # of the setting that turns it on
    choice: str  # the field of `Draw` that has what is done
    odds: str  # to which photos it is done, for the setting's value
    says: Callable[[Tensor], str]  # one row of that field in words

    @property
    def mixes(self) -> bool:
        """Whether it takes two photos."""
        return self.choice in ("share", "cut")

    def is_on(self, recipe: Recipe) -> bool:
        """Whether `recipe` has it."""
        return getattr(recipe, self.name) != STILL[self.name]


def _percent(change: float) -> str:
    return f"{change:+.0%}".replace("-", "−")


def _turn(affine: Tensor) -> str:
    angle = math.degrees(math.atan2(affine[1, 0], affine[0, 0]))
    return f"{abs(angle):.1f}° {'left' if angle > 0 else 'right'}"


def _slant(affine: Tensor) -> str:
    angle = math.degrees(math.atan2(-affine[0, 1], affine[1, 1]))
    return f"{round(angle, 1) + 0:+}°".replace("-", "−")  # + 0 takes the sign from a zero


def _zoom(affine: Tensor) -> str:
    width, height = (1 / affine[:, :2].norm(dim=0)).tolist()  # what shows more of a photo makes it smaller
    return f"{width:.0%} × {height:.0%}"


def _shift(affine: Tensor) -> str:
    across, down = (affine[:, 2] / 2).tolist()
    return f"{'←' if across > 0 else '→'} {abs(across):.0%} {'↑' if down > 0 else '↓'} {abs(down):.0%}"


def _area(box: Tensor) -> str:
    return f"{(box[2] * box[3]).item():.0%}"


EACH = "Each photo, evenly over the range"
OPERATIONS = (  # in the order in which they are carried out
    Operation("crop", "boxes", "Each photo", lambda box: f"{_area(box)} of it"),
    Operation("flip", "flip", "50% of the photos", lambda flip: "mirrored" if flip else "as it is"),
    Operation("blur", "blur", EACH, lambda std: f"{std.item():.1f} px"),
    Operation("rotation", "affine", EACH, _turn),
    Operation("shear", "affine", EACH, _slant),
    Operation("zoom", "affine", EACH, _zoom),
    Operation("shift", "affine", EACH, _shift),
    Operation("brightness", "brightness", EACH, lambda factor: _percent(factor.item() - 1)),
    Operation("contrast", "contrast", EACH, lambda factor: _percent(factor.item() - 1)),
    Operation("saturation", "saturation", EACH, lambda factor: _percent(factor.item() - 1)),
    Operation(
        "pca_colour", "tint", "Each photo, normally distributed, here to two deviations",
        lambda tint: " ".join(f"{255 * value:+.0f}".replace("-", "−") for value in tint.tolist()),
    ),
    Operation(
        "erasing", "erased", "{:.0%} of the photos", lambda box: f"{_area(box)} erased" if box[2] else "as it is"
    ),
    Operation("mixup", "share", "Each pair in the batch, after Beta({0:g}, {0:g})", lambda share: f"{share.item():.0%} its own"),
    Operation("cutmix", "cut", "Each pair in the batch, after Beta({0:g}, {0:g})", lambda box: f"{_area(box)} the other's"),
)  # fmt: skip


@dataclass(frozen=True)
class Photos:
    """Photos as training keeps them: `squares` `(N, 3, S, S)` uint8, squashed, and `sizes` `(N, 2)` before that, in pixels."""

    squares: Tensor
    sizes: Tensor

    @property
    def key(self) -> str:
        """Changes with the pixels."""
        return digest(self.squares.numpy().tobytes())

    def __len__(self) -> int:
        return len(self.squares)

    def __getitem__(self, rows: slice | Sequence[int]) -> Photos:
        return Photos(self.squares[rows], self.sizes[rows])

    @classmethod
    def of(cls, squares: Sequence[np.ndarray], sizes: np.ndarray) -> Photos:
        """From what `square` returned of each photo, and their widths and heights, `(N, 2)` float32."""
        return cls(torch.from_numpy(np.stack(squares)), torch.from_numpy(sizes))


def square(photo: Image.Image) -> np.ndarray:
    """An upright RGB photo as training keeps it, `(3, S, S)` uint8."""
    return planes(to_square(photo))


@dataclass(frozen=True)
class Pictures:
    """What the network is given: `x` `(N, 3, size, size)` float32, and for each photo in it what it is a mixture of.

    `shares` is `(N, N)` float32: in row i how much of each of the N photos is in picture i, by which its label is mixed.
    """

    x: Tensor
    shares: Tensor


@torch.inference_mode()
def carry_out(recipe: Recipe, photos: Photos, choices: Draw) -> Pictures:
    """Photos as the network gets them, in float32; computing in bfloat16 gives the same to about one grey level."""
    x, count = augment(photos.squares, choices, recipe.image_size), len(photos)
    if not choices.mixes:
        return Pictures(x, torch.eye(count))
    return Pictures(*mix(x, torch.arange(count), count, choices))


def plan_of_step(recipe: Recipe, sizes: np.ndarray, step: int) -> tuple[Tensor, Draw]:
    """What training on photos of `sizes`, (N, 2) float32, takes at a step, counted from 0: the indices of its batch, and the choices."""
    steps = len(sizes) // min(recipe.batch_size, len(sizes))
    chosen = draws.batches(recipe, len(sizes), step // steps)[step % steps]
    return chosen, draws.choices(recipe, torch.from_numpy(sizes[chosen]), step)


def as_is(recipe: Recipe, photos: Photos) -> Pictures:
    """Photos with no augmentation at all."""
    return carry_out(recipe, photos, _still(recipe, photos.sizes))


def whole(recipe: Recipe, photos: Photos, step: int) -> tuple[Tensor, Tensor]:
    """All operations on the photos at even places; those between are what these are mixed with.

    Returns:
        The pictures, as they are in a batch of all these photos at the step, `(M, 3, size, size)` float32; and how much of
        each is its own photo, `(M,)` from 0 to 1.
    """
    choices = draws.choices(recipe, photos.sizes, step)
    if not choices.mixes:
        photos, choices = photos[::2], choices[::2]
    made = carry_out(recipe, photos, choices)
    every = 2 if choices.mixes else 1
    return made.x[::every], made.shares.diagonal()[::every]


@dataclass(frozen=True)
class Series:
    """An operation alone: for each row of `choices` the photo, by its number in `rows`, and for each picture what is `said`.

    The first two pictures are the ends of its range, the others what it contributes to those of `whole`. Of an operation
    that mixes photos, each second row is the other of a pair.
    """

    rows: list[int]
    choices: Draw
    said: tuple[str, ...]

    @property
    def key(self) -> str:
        """Changes with the choices."""
        values = (value.numpy().tobytes() for value in vars(self.choices).values() if value is not None)
        return digest(b"".join(values))


def alone(operation: Operation, recipe: Recipe, sizes: Tensor, step: int) -> Series:
    """What an operation that `recipe` has does at a step to the photos at even places, with all others left out.

    `sizes` (N, 2) are those of all photos, as for `whole`.
    """
    if operation.choice == "affine":
        recipe = recipe.replace(**dict.fromkeys(set(GEOMETRY) - {operation.name}, 0.0))
    ends = _ends(operation.name, recipe, _flatness(recipe, sizes[:1]).expand(2))
    values = torch.cat(
        [ends.repeat_interleave(2, dim=0), getattr(draws.choices(recipe, sizes, step), operation.choice)]
    )
    said = tuple(operation.says(value) for value in values[::2])
    rows = [0, 1, 0, 1, *range(len(sizes))]
    if not operation.mixes:
        rows, values = rows[::2], values[::2]
    return Series(rows, replace(_still(recipe, sizes[rows]), **{operation.choice: values}), said)


def pictures_alone(operation: Operation, recipe: Recipe, photos: Photos, series: Series) -> Tensor:
    """The pictures of a series, one for each of `said`: `(M, 3, size, size)` float32."""
    x = carry_out(recipe, photos[series.rows], series.choices).x
    return x[::2] if operation.mixes else x


def pixels(pictures: Tensor) -> np.ndarray:
    """What the network is given, `(N, 3, H, W)`, without the normalisation: `(N, H, W, 3)` uint8."""
    return EvalTransform().denormalize(pictures).permute(0, 2, 3, 1).numpy()


def _flatness(recipe: Recipe, sizes: Tensor) -> Tensor:
    return torch.ones(len(sizes)) if recipe.squash else sizes[:, 1] / sizes[:, 0]


def _still(recipe: Recipe, sizes: Tensor) -> Draw:
    """Choices that leave photos as they are."""
    return draw(recipe.replace(**STILL), sizes, torch.Generator())


def _ends(name: str, recipe: Recipe, flatness: Tensor) -> Tensor:
    """What the operation chooses for one photo at either end of its range: (2, ...), as `Draw` has it.

    Args:
        name: of the operation.
        recipe: has it, and no other that moves pixels if it does.
        flatness: `(2,)`, twice the photo's height to its width.
    """
    value, ends, middle = getattr(recipe, name), torch.tensor([-1.0, 1.0]), torch.full((2,), 0.5)
    if name == "crop" and value == "patch":
        corners = torch.tensor([[0, 0], [1, 1]]) * (recipe.resize - recipe.image_size)
        return patch_boxes(recipe, flatness, corners)
    if name == "crop":
        aspect = (1 / flatness).clamp(*ASPECT)  # the photo's own, if it is among those drawn
        return resized_boxes(flatness, torch.tensor([recipe.crop_scale, 1.0]), aspect, middle, middle)
    if name in GEOMETRY:
        shares = torch.zeros(6, 2)
        shares[{"rotation": [0], "shear": [1], "shift": [2, 3], "zoom": [4, 5]}[name]] = ends
        return affine_maps(recipe, shares)
    others: dict[str, Callable[[], Tensor]] = {
        "flip": lambda: ends > 0,
        "blur": lambda: torch.tensor([0.0, value]),
        "pca_colour": lambda: tints(TAIL * value * torch.outer(-ends, torch.tensor([1.0, 0.0, 0.0]))),
        "erasing": lambda: erased_boxes(torch.tensor(ERASED_AREA), torch.ones(2), middle, middle),
        # Beyond a half the two photos only change their roles.
        "mixup": lambda: torch.tensor([1.0, 0.5]),
        "cutmix": lambda: cut_boxes(torch.tensor([1.0, 0.5]), torch.full((2, 2), 0.5)),
    }
    return others[name]() if name in others else 1 + value * ends
