"""What a photo goes through before the network: the evaluation transform and the random training transform.

Both end in the same normalisation. The training transform works on whole batches on the device that trains, and the
preview of augmentations runs this very code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alexnet.recipes import Recipe
from alexnet.runs import MEAN, STD

CACHE_SIDE = 256  # of the square in which training photos are kept; random crops are cut from it
ASPECT = (3 / 4, 4 / 3)  # of a random crop's width to its height, Szegedy et al. 2014 (arXiv 1409.4842), section 6
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights of red, green and blue in grey


@dataclass(frozen=True)
class EvalTransform:
    """Shorter side to `resize`, centre cut out at `crop` x `crop`: one resampling of the original photo."""

    resize: int = 256
    crop: int = 227
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD

    def crop_photo(self, photo: Image.Image) -> Image.Image:
        """What the network is given of an upright RGB photo, as a `crop` x `crop` picture."""
        side = min(photo.size) * self.crop / self.resize
        left, top = ((length - side) / 2 for length in photo.size)
        box = (left, top, left + side, top + side)
        return photo.resize((self.crop, self.crop), Image.Resampling.BILINEAR, box=box)

    def batch(self, photos: Sequence[Image.Image]) -> Tensor:
        """The crops of upright RGB photos as `(N, 3, crop, crop)` uint8."""
        return self.stack([self.crop_photo(photo) for photo in photos])

    @staticmethod
    def stack(crops: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of one size as `(N, 3, H, W)` uint8."""
        return torch.from_numpy(np.stack([np.asarray(crop) for crop in crops])).permute(0, 3, 1, 2).contiguous()

    def normalize(self, images: Tensor) -> Tensor:
        """`(N, 3, H, W)` uint8 to float32 with the mean and deviation of the run: what the network computes with."""
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (self.mean, self.std))
        return (images.float() / 255 - mean) / std

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> EvalTransform:
        """The evaluation transform of a recipe."""
        return cls(resize=recipe.resize, crop=recipe.image_size)


def to_square(photo: Image.Image) -> Image.Image:
    """A photo squashed to `CACHE_SIDE` x `CACHE_SIDE`, from which crops of true proportions can still be cut."""
    return photo.resize((CACHE_SIDE, CACHE_SIDE), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Draw:
    """The random choices for a batch of N photos, on the CPU.

    `boxes` (N, 4): left, top, width and height of the crop as shares of the photo; `flip` (N,) bool;
    `brightness`, `contrast`, `saturation` (N,): factors around 1.
    """

    boxes: Tensor
    flip: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor


def draw(recipe: Recipe, sizes: Tensor, generator: torch.Generator) -> Draw:
    """Choose crop, mirroring and colours for photos of `sizes` (N, 2): width and height in pixels, before squashing."""
    n = len(sizes)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(n).uniform_(low, high, generator=generator)

    area = uniform(recipe.crop_scale, 1.0)
    aspect = uniform(math.log(ASPECT[0]), math.log(ASPECT[1])).exp() * (sizes[:, 1] / sizes[:, 0])
    # A crop that would stick out of the photo is cut down to it rather than drawn again.
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    left, top = (1 - width) * uniform(0, 1), (1 - height) * uniform(0, 1)
    return Draw(
        boxes=torch.stack([left, top, width, height], dim=1),
        flip=(uniform(0, 1) < 0.5) & recipe.flip,
        brightness=1 + recipe.brightness * uniform(-1, 1),
        contrast=1 + recipe.contrast * uniform(-1, 1),
        saturation=1 + recipe.saturation * uniform(-1, 1),
    )


def augment(images: Tensor, choices: Draw, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Apply `choices` to a batch.

    Args:
        images: `(N, 3, S, S)` uint8, squashed photos, on the device that trains.
        choices: one for each photo.
        size: side of the result in pixels.
        dtype: of the resampling; bfloat16 is faster where the hardware has it and exact to about one grey level.

    Returns:
        `(N, 3, size, size)` float32, normalised like the evaluation transform's.
    """
    device, side = images.device, images.shape[-1]
    boxes = choices.boxes.to(device) * side
    columns = _resampling(boxes[:, 0], boxes[:, 2], side, size)
    columns = torch.where(choices.flip.to(device)[:, None, None], columns.flip(1), columns)
    rows = _resampling(boxes[:, 1], boxes[:, 3], side, size)
    # Scaling is separable: one matrix product over the columns and one over the rows crop, scale, filter and mirror.
    narrow = torch.bmm(images.to(dtype).flatten(1, 2), columns.to(dtype).transpose(1, 2))
    crops = torch.matmul(rows.to(dtype)[:, None], narrow.unflatten(1, (3, side)))
    return _recolour(crops.float() / 255, choices)


def _resampling(start: Tensor, length: Tensor, source: int, target: int) -> Tensor:
    """Matrices (N, target, source) that resample `length` pixels from `start` on with an antialiasing triangle filter.

    The same weights as Pillow's `resize(..., BILINEAR, box=...)`.
    """
    scale = (length / target)[:, None]
    centres = start[:, None] + (torch.arange(target, device=start.device) + 0.5) * scale
    distance = torch.arange(source, device=start.device) + 0.5 - centres[:, :, None]
    weights = (1 - distance.abs() / scale.clamp(min=1)[:, :, None]).clamp(min=0)
    return weights / weights.sum(dim=2, keepdim=True)


def _recolour(images: Tensor, choices: Draw) -> Tensor:
    """Brightness, contrast and saturation in this order, then normalisation: one 3 x 4 matrix for each photo."""
    device = images.device
    luma, mean, std = (torch.tensor(v, device=device) for v in (LUMA, MEAN, STD))
    brightness, contrast, saturation = (
        v.to(device) for v in (choices.brightness, choices.contrast, choices.saturation)
    )
    grey = brightness * (images.mean(dim=(2, 3)) @ luma)  # contrast pulls towards the photo's own mean grey
    towards_grey = (1 - saturation)[:, None, None] * luma.expand(3, 3)
    matrix = (brightness * contrast)[:, None, None] * (
        saturation[:, None, None] * torch.eye(3, device=device) + towards_grey
    )
    offset = ((1 - contrast) * grey)[:, None]
    pixels = torch.baddbmm(((offset - mean) / std)[:, :, None], matrix / std[:, None], images.flatten(2))
    low, high = ((value - mean) / std for value in (0.0, 1.0))
    return pixels.clamp_(low[:, None], high[:, None]).view_as(images)
