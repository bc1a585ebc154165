"""What a photo goes through before the network: the evaluation transform and the random training transform.

Both end in the same normalisation. The training transform works on whole batches on the device that trains, and the
preview of augmentations runs this very code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from alexnet.recipes import Recipe
from alexnet.runs import MEAN, STD

CACHE_SIDE = 256  # of the square in which training photos are kept; random crops are cut from it
ASPECT = (3 / 4, 4 / 3)  # of a random crop's width to its height, Szegedy et al. 2014 (arXiv 1409.4842), section 6
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the weights of red, green and blue in grey
GEOMETRY = ("rotation", "shear", "zoom", "shift")  # settings of a recipe that move pixels
ERASED_AREA = (0.02, 0.33)  # of an erased rectangle as a share of the crop; this and ...
ERASED_ASPECT = (0.3, 3.3)  # ... its height to its width are the defaults of torchvision's RandomErasing

# Eigenvalues and eigenvectors (columns) of the covariance of red, green and blue, each from 0 to 1, over the pixels of
# ImageNet, as published with fb.resnet.torch (datasets/imagenet.lua); the paper does not print its own.
COLOUR_VARIANCES = (0.2175, 0.0188, 0.0045)
PRINCIPAL_COLOURS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


@dataclass(frozen=True)
class EvalTransform:
    """Shorter side to `resize`, centre cut out at `crop` x `crop`: one resampling of the original photo.

    With `squash` both sides are scaled to `resize`. With `five_crops` the network looks five times, at the centre and at
    the corners of the square of `resize` x `resize`.
    """

    resize: int = 256
    crop: int = 227
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    squash: bool = False
    five_crops: bool = False

    @property
    def side(self) -> int:
        """Of the square that all views are cut from."""
        return self.resize if self.five_crops else self.crop

    @property
    def places(self) -> list[tuple[int, int]]:
        """Left and top of each view in that square, in pixels; the first is the centre's."""
        far = self.side - self.crop
        corners = [(0, 0), (far, 0), (0, far), (far, far)] if self.five_crops else []
        return [(far // 2, far // 2), *corners]

    def crop_photo(self, photo: Image.Image, resampling: Image.Resampling = Image.Resampling.BILINEAR) -> Image.Image:
        """What the network is shown of an upright RGB photo, in one view or several, as a `side` x `side` picture.

        A mask takes the resampling `NEAREST`.
        """
        whole = photo.size if self.squash else (min(photo.size), min(photo.size))
        width, height = (length * self.side / self.resize for length in whole)
        left, top = (photo.width - width) / 2, (photo.height - height) / 2
        box = (left, top, left + width, top + height)
        return photo.resize((self.side, self.side), resampling, box=box)

    def centre(self, square: Image.Image) -> Image.Image:
        """The view of the centre, `crop` x `crop`, in what `crop_photo` returned."""
        left, top = self.places[0]
        return square.crop((left, top, left + self.crop, top + self.crop))

    def view(self, photo: Image.Image, resampling: Image.Resampling = Image.Resampling.BILINEAR) -> Image.Image:
        """The centre of an upright photo, `crop` x `crop`: what attributions and activations are made of."""
        return self.centre(self.crop_photo(photo, resampling))

    def views(self, squares: Tensor) -> list[Tensor]:
        """All views of photos, each `(N, 3, crop, crop)`, cut from `(N, 3, side, side)`; the centre comes first."""
        return [squares[..., top : top + self.crop, left : left + self.crop] for left, top in self.places]

    def batch(self, photos: Sequence[Image.Image]) -> Tensor:
        """The centres of upright RGB photos as `(N, 3, crop, crop)` uint8."""
        return self.stack([self.view(photo) for photo in photos])

    @staticmethod
    def stack(crops: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of one size as `(N, 3, H, W)` uint8."""
        return torch.from_numpy(np.stack([np.asarray(crop) for crop in crops])).permute(0, 3, 1, 2).contiguous()

    def denormalize(self, images: Tensor) -> Tensor:
        """The inverse of `normalize`: `(N, 3, H, W)` uint8, what lies beyond black and white cut off."""
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (self.mean, self.std))
        return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def normalize(self, images: Tensor) -> Tensor:
        """`(N, 3, H, W)` uint8 to float32 with the mean and deviation of the run: what the network computes with."""
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (self.mean, self.std))
        return (images.float() / 255 - mean) / std

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> EvalTransform:
        """The evaluation transform of a recipe."""
        squash, five_crops = recipe.squash, recipe.five_crops
        return cls(resize=recipe.resize, crop=recipe.image_size, squash=squash, five_crops=five_crops)


def to_square(photo: Image.Image) -> Image.Image:
    """A photo squashed to `CACHE_SIDE` x `CACHE_SIDE`, from which crops of true proportions can still be cut."""
    return photo.resize((CACHE_SIDE, CACHE_SIDE), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Draw:
    """The random choices for a batch of N photos; `choices[start:stop]` are those of some of them.

    `boxes` (N, 4): left, top, width and height of the crop as shares of the photo; `flip` (N,) bool;
    `brightness`, `contrast`, `saturation` (N,): factors around 1.

    What a recipe leaves out is None: `tint` (N, 3), added to red, green and blue from 0 to 1; `erased` (N, 4), the
    rectangle to erase, as shares of the crop; `share` (N,), what stays of a photo when it is blended with its neighbour;
    `cut` (N, 4), the rectangle to take from the neighbour; `affine` (N, 2, 3), which maps a place (x, y, 1) of the result
    to the place (x, y) of the crop that is seen there, both from -1 to 1 between the edges; `blur` (N,), the standard
    deviation in pixels of the result. Rectangles without area change nothing.
    """

    boxes: Tensor
    flip: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    tint: Tensor | None = None
    erased: Tensor | None = None
    share: Tensor | None = None
    cut: Tensor | None = None
    affine: Tensor | None = None
    blur: Tensor | None = None

    @property
    def mixes(self) -> bool:
        """Whether `mix` has anything to do."""
        return self.share is not None or self.cut is not None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, part: slice) -> Draw:
        """The choices of some photos.

        Raises:
            ValueError: the part would separate the photos of a pair that is to be mixed.
        """
        start, stop, step = part.indices(len(self))
        if self.mixes and (step != 1 or start % 2 or (stop % 2 and stop < len(self))):
            raise ValueError(f"Photos {start} to {stop} would separate a pair that is mixed; cut at even numbers.")
        return self._each(lambda tensor: tensor[part])

    def to(self, device: torch.device) -> Draw:
        """The choices on `device`; a GPU does not wait for them."""
        # So little is copied at once even from memory that is not pinned; other devices may read it too late.
        return self._each(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Draw:
        changed: dict[str, Any] = {n: None if value is None else change(value) for n, value in vars(self).items()}
        return Draw(**changed)


def draw(recipe: Recipe, sizes: Tensor, generator: torch.Generator) -> Draw:
    """Everything that is left to chance for photos of `sizes` (N, 2): width and height in pixels, before squashing.

    All of it comes from `generator`, on the CPU. A setting that is 0 draws nothing, so that it leaves the other draws
    as they were without it.
    """
    n = len(sizes)
    uniform = partial(_uniform, n, generator)
    flatness = torch.ones(n) if recipe.squash else sizes[:, 1] / sizes[:, 0]
    moves = any(getattr(recipe, name) for name in GEOMETRY)
    return Draw(
        boxes=_draw_boxes(recipe, flatness, generator),
        flip=(uniform(0, 1) < 0.5) & recipe.flip,
        brightness=1 + recipe.brightness * uniform(-1, 1),
        contrast=1 + recipe.contrast * uniform(-1, 1),
        saturation=1 + recipe.saturation * uniform(-1, 1),
        tint=tints(torch.empty(n, 3).normal_(0, recipe.pca_colour, generator=generator)) if recipe.pca_colour else None,
        erased=_draw_erased(recipe.erasing, n, generator) if recipe.erasing else None,
        share=_for_pairs(_draw_share(recipe.mixup, n // 2, generator), n, 1.0) if recipe.mixup else None,
        cut=_for_pairs(_draw_cut(recipe.cutmix, n // 2, generator), n, 0.0) if recipe.cutmix else None,
        affine=affine_maps(recipe, torch.empty(6, n).uniform_(-1, 1, generator=generator)) if moves else None,
        blur=uniform(0, recipe.blur) if recipe.blur else None,
    )


def _uniform(n: int, generator: torch.Generator, low: float, high: float) -> Tensor:
    return torch.empty(n).uniform_(low, high, generator=generator)


def _draw_boxes(recipe: Recipe, flatness: Tensor, generator: torch.Generator) -> Tensor:
    """Crops (n, 4) of photos whose height is `flatness` (n,) times their width, as shares of their sides."""
    uniform = partial(_uniform, len(flatness), generator)
    if recipe.crop == "resized":  # Szegedy et al. 2014, section 6
        area = uniform(recipe.crop_scale, 1.0)
        aspect = uniform(math.log(ASPECT[0]), math.log(ASPECT[1])).exp()
        return resized_boxes(flatness, area, aspect, uniform(0, 1), uniform(0, 1))
    if recipe.crop == "patch":  # Krizhevsky et al. 2012, section 4.1
        places = recipe.resize - recipe.image_size + 1
        return patch_boxes(recipe, flatness, torch.randint(places, (len(flatness), 2), generator=generator))
    return _central_boxes(flatness)


def resized_boxes(flatness: Tensor, area: Tensor, aspect: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Crops (n, 4) as shares of a photo's sides; all arguments are (n,).

    Args:
        flatness: a photo's height to its width.
        area: the crop's, as a share of the photo's.
        aspect: the crop's width to its height, in pixels.
        x, y: where it lies, from 0, at the left or at the top, to 1.
    """
    aspect = aspect * flatness
    # A crop that would stick out of the photo is cut down to it rather than drawn again.
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    return torch.stack([(1 - width) * x, (1 - height) * y, width, height], dim=1)


def patch_boxes(recipe: Recipe, flatness: Tensor, places: Tensor) -> Tensor:
    """Crops (n, 4) of `image_size` whose corners are at `places` (n, 2) of the central square of `resize` pixels."""
    start, square = _central_boxes(flatness).split(2, dim=1)
    return torch.cat([start + square * places / recipe.resize, square * (recipe.image_size / recipe.resize)], dim=1)


def _central_boxes(flatness: Tensor) -> Tensor:
    """The largest squares (n, 4) in the middle of photos."""
    square = torch.stack([flatness, 1 / flatness], dim=1).clamp(max=1)
    return torch.cat([(1 - square) / 2, square], dim=1)


def affine_maps(recipe: Recipe, shares: Tensor) -> Tensor:
    """Turns, slants, shifts and zooms about the centre (n, 2, 3), put together as by Keras' ImageDataGenerator.

    As there a zoom above 1 shows more of the photo, and width and height have one each.

    Args:
        recipe: has the largest of each.
        shares: `(6, n)` from -1 to 1, of that: turn, slant, shift across and down, zoom of width and of height.
    """
    turn, slant, across, down, wide, high = shares
    turn, slant = torch.deg2rad(recipe.rotation * turn), torch.deg2rad(recipe.shear * slant)
    right = torch.stack([turn.cos(), turn.sin()], dim=1)  # where the result's x axis points in the crop
    upright = torch.stack([-turn.sin(), turn.cos()], dim=1)
    slanted = torch.stack([-(turn + slant).sin(), (turn + slant).cos()], dim=1)
    offset = 2 * recipe.shift * (across[:, None] * right + down[:, None] * upright)  # a side is 2 long
    zooms = 1 + recipe.zoom * torch.stack([wide, high])[:, :, None]
    return torch.stack([zooms[0] * right, zooms[1] * slanted, offset], dim=2)


def tints(multiples: Tensor) -> Tensor:
    """Steps along the three principal colours (n, 3), as red, green and blue; Krizhevsky et al. 2012, section 4.1."""
    return (multiples * torch.tensor(COLOUR_VARIANCES)) @ torch.tensor(PRINCIPAL_COLOURS).T


def _draw_erased(probability: float, n: int, generator: torch.Generator) -> Tensor:
    """Rectangles to erase (n, 4), without area where nothing is, Zhong et al. 2017 (arXiv 1708.04896), Algorithm 1."""
    chosen, area, shape, x, y = torch.rand(5, n, generator=generator)
    area = ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * area
    # Only shapes that fit into the photo are drawn, where the paper draws until one does.
    low = area.clamp(min=ERASED_ASPECT[0]).log()
    high = (1 / area).clamp(max=ERASED_ASPECT[1]).log()
    boxes = erased_boxes(area, (low + (high - low) * shape).exp(), x, y)
    return boxes * (chosen < probability)[:, None]


def erased_boxes(area: Tensor, aspect: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Rectangles (n, 4) of this area, height to width, and place; all are (n,), the place from 0 to 1."""
    width, height = (area / aspect).sqrt(), (area * aspect).sqrt()
    return torch.stack([(1 - width) * x, (1 - height) * y, width, height], dim=1)


def _draw_share(alpha: float, n: int, generator: torch.Generator) -> Tensor:
    """Numbers (n,) from 0 to 1 after Beta(alpha, alpha)."""
    # Numpy's: torch's takes no generator, and as a ratio of gammas it is 0 / 0 for a small alpha.
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, n)).float()


def _draw_cut(alpha: float, n: int, generator: torch.Generator) -> Tensor:
    """Rectangles to exchange (n, 4), Yun et al. 2019 (arXiv 1905.04899), section 3.1."""
    return cut_boxes(_draw_share(alpha, n, generator), torch.rand(n, 2, generator=generator))


def cut_boxes(share: Tensor, centre: Tensor) -> Tensor:
    """Rectangles (n, 4) that leave `share` (n,) of a photo, cut off at its edges; their centres are (n, 2)."""
    side = (1 - share).sqrt()[:, None]
    start, stop = (centre - side / 2).clamp(min=0), (centre + side / 2).clamp(max=1)
    return torch.cat([start, stop - start], dim=1)


def _for_pairs(values: Tensor, n: int, alone: float) -> Tensor:
    """One value of `values` for both photos of a pair, and `alone` for an odd last one: (n, ...)."""
    return torch.cat([values.repeat_interleave(2, dim=0), values.new_full((n % 2, *values.shape[1:]), alone)])


def augment(images: Tensor, choices: Draw, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Apply `choices` to each photo of a batch: crop, mirroring, blur, geometry, colours, erasing; `mix` does the rest.

    Geometry, the affine maps, repeats the pixels at the crop's edges where it would show what lies beyond them. No shape
    and no branch depends on the choices' values, so that `torch.compile(augment, dynamic=False)` compiles it once for a
    shape.

    Args:
        images: `(N, 3, S, S)` uint8, squashed photos, on the device that trains.
        choices: one for each photo.
        size: side of the result in pixels.
        dtype: of the resampling and the result; bfloat16 is faster where the hardware has it and exact to about one
            grey level.

    Returns:
        `(N, 3, size, size)` of `dtype`, normalised like the evaluation transform's.
    """
    choices, side = choices.to(images.device), images.shape[-1]
    left, top, width, height = (choices.boxes * side).unbind(1)
    columns = _resampling(left, width, side, size, choices.flip)
    rows = _resampling(top, height, side, size, torch.zeros_like(choices.flip))
    if choices.blur is not None:
        smoothing = _smoothing(choices.blur, size)
        columns, rows = torch.bmm(smoothing, columns), torch.bmm(smoothing, rows)
    columns, rows = columns.to(dtype).transpose(1, 2), rows.to(dtype)
    # Scaling is separable: one matrix product over the columns and one over the rows crop, scale, filter and mirror.
    # A colour at a time, the matrices need not be repeated, and what lies between stays small enough to be reused.
    planes: Sequence[Tensor] = [torch.bmm(rows, torch.bmm(images[:, k].to(dtype), columns)) for k in range(3)]
    if choices.affine is not None:
        planes = _warp(planes, choices.affine)
    result = _recolour(planes, choices, dtype)
    if choices.erased is not None:
        result = result.masked_fill(_inside(choices.erased, size), 0)  # the mean colour
    return result


def _resampling(start: Tensor, length: Tensor, source: int, target: int, mirrored: Tensor) -> Tensor:
    """Matrices (N, target, source) that resample `length` pixels from `start` on with an antialiasing triangle filter.

    The same weights as Pillow's `resize(..., BILINEAR, box=...)`, in reverse order where `mirrored`.
    """
    scale = (length / target)[:, None]
    places = torch.arange(target, device=start.device) + 0.5
    centres = start[:, None] + torch.where(mirrored[:, None], target - places, places) * scale
    distance = torch.arange(source, device=start.device) + 0.5 - centres[:, :, None]
    weights = (1 - distance.abs() / scale.clamp(min=1)[:, :, None]).clamp(min=0)
    return weights / weights.sum(dim=2, keepdim=True)


def _smoothing(std: Tensor, size: int) -> Tensor:
    """Matrices (N, size, size) that blur `size` pixels with a Gaussian, cut off and weighted anew at the edges."""
    places = torch.arange(size, device=std.device)
    # Below a twentieth of a pixel neighbours have no weight, and at 0 there would be nothing to divide by.
    distance = (places[:, None] - places) / std.clamp(min=0.05)[:, None, None]
    return (-0.5 * distance.square()).softmax(dim=2)


def _warp(planes: Sequence[Tensor], affine: Tensor) -> Sequence[Tensor]:
    """Red, green and blue, each (N, H, H), as `affine` (N, 2, 3) shows them; float32, in which places are exact enough."""
    pixels = torch.stack(list(planes), dim=1).float()
    grid = F.affine_grid(affine, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False).unbind(1)


def _recolour(planes: Sequence[Tensor], choices: Draw, dtype: torch.dtype) -> Tensor:
    """Brightness, contrast, saturation and tint in this order, then normalisation.

    Red, green and blue, each (N, H, W) from 0 to 255, become (N, 3, H, W) of `dtype`; in between it is float32.
    """
    brightness, contrast, saturation = (
        v[:, None, None] for v in (choices.brightness, choices.contrast, choices.saturation)
    )
    grey = sum(weight * plane.float() for weight, plane in zip(LUMA, planes, strict=True)) * (brightness / 255)
    # Contrast pulls towards the photo's own mean grey, saturation away from each pixel's grey.
    shared = (1 - contrast) * grey.mean(dim=(1, 2), keepdim=True) + contrast * (1 - saturation) * grey
    factor = brightness * contrast * saturation / 255
    colours = []
    for k, plane in enumerate(planes):
        colour = torch.addcmul(shared, factor, plane.float())
        if choices.tint is not None:
            colour += choices.tint[:, k, None, None]
        colours.append(colour.clamp_(0, 1).sub_(MEAN[k]).div_(STD[k]).to(dtype))
    return torch.stack(colours, dim=1)


def _inside(boxes: Tensor, size: int) -> Tensor:
    """Which pixels' centres lie within `boxes` (N, 4), shares of a side of `size` pixels: (N, 1, size, size) bool."""
    centres = (torch.arange(size, device=boxes.device) + 0.5) / size
    left, top, width, height = boxes[:, :, None].unbind(1)
    across, down = (centres >= left) & (centres < left + width), (centres >= top) & (centres < top + height)
    return (down[:, :, None] & across[:, None, :])[:, None]


def mix(images: Tensor, labels: Tensor, classes: int, choices: Draw) -> tuple[Tensor, Tensor]:
    """Mix each photo with its neighbour in the batch, (0, 1), (2, 3) and so on; an odd last one stays as it is.

    mixup (Zhang et al. 2017, arXiv 1710.09412) blends the two photos, CutMix (Yun et al. 2019, arXiv 1905.04899)
    exchanges a rectangle. Both photos of a pair keep the same share of themselves, so that no photo counts for more
    than another. For CutMix it is the share of the pixels that were really kept.

    Args:
        images: `(N, 3, size, size)`, as `augment` returns them.
        labels: `(N,)` int64 on the same device.
        classes: how many there are.
        choices: those that `augment` was given.

    Returns:
        The photos, and `(N, classes)` float32 with the probability of each class, as `cross_entropy` takes them.
    """
    choices, n = choices.to(images.device), len(images)
    neighbour = torch.arange(n, device=images.device).bitwise_xor(1).clamp(max=n - 1)
    targets = F.one_hot(labels, classes).float()
    share = torch.ones(n, device=images.device)
    if choices.share is not None:
        share = choices.share
        weight = share[:, None, None, None]
        images = (weight * images + (1 - weight) * images[neighbour]).to(images.dtype)
    if choices.cut is not None:
        taken = _inside(choices.cut, images.shape[-1])
        images = torch.where(taken, images[neighbour], images)
        share = 1 - taken.float().mean(dim=(1, 2, 3))
    share = share[:, None]
    return images, share * targets + (1 - share) * targets[neighbour]
