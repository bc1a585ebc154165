"""The transforms against Pillow, and against pixels worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from alexnet.augment import CACHE_SIDE, Draw, EvalTransform, augment, draw, to_square
from alexnet.recipes import Recipe
from alexnet.runs import MEAN, STD


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def as_tensor(photo: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None]


def choices(box=(0, 0, 1, 1), flip=False, brightness=1.0, contrast=1.0, saturation=1.0) -> Draw:
    numbers = (torch.tensor([value]) for value in (flip, brightness, contrast, saturation))
    return Draw(torch.tensor([box], dtype=torch.float32), *numbers)


def denormalized(x: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (x * std + mean) * 255


def test_evaluation_crop_of_a_photo_at_its_size_is_its_centre():
    photo = picture(300, 256)
    crop = EvalTransform(resize=256, crop=226).crop_photo(photo)
    assert np.array_equal(np.asarray(crop), np.asarray(photo.crop((37, 15, 263, 241))))


def test_evaluation_crop_keeps_proportions():
    # A circle stays a circle: its two diameters in the crop are the same.
    rows, columns = np.mgrid[0:400, 0:800]
    disc = ((rows - 200) ** 2 + (columns - 400) ** 2 < 100**2).astype(np.uint8) * 255
    crop = np.asarray(EvalTransform().crop_photo(Image.fromarray(np.dstack([disc] * 3))))[:, :, 0] > 127
    assert crop.any(axis=0).sum() == crop.any(axis=1).sum() == pytest.approx(200 * 256 / 400, abs=1)


def test_normalisation_by_hand():
    black = EvalTransform().normalize(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))
    white = EvalTransform().normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8))
    assert black.flatten().tolist() == pytest.approx([-m / s for m, s in zip(MEAN, STD, strict=True)])
    assert white.flatten().tolist() == pytest.approx([(1 - m) / s for m, s in zip(MEAN, STD, strict=True)])


def test_batch_is_uint8_and_planar():
    batch = EvalTransform(resize=40, crop=32).batch([picture(50, 40), picture(60, 90)])
    assert batch.shape == (2, 3, 32, 32)
    assert batch.dtype == torch.uint8


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.25, 0.125, 0.5, 0.75), (0.1, 0.2, 0.3, 0.35)])
@pytest.mark.parametrize("size", [20, 48, 100])
def test_random_crop_resamples_as_pillow_does(box, size):
    photo = picture(64, 64)
    corners = (box[0] * 64, box[1] * 64, (box[0] + box[2]) * 64, (box[1] + box[3]) * 64)
    expected = as_tensor(photo.resize((size, size), Image.Resampling.BILINEAR, box=corners)).float()
    ours = denormalized(augment(as_tensor(photo), choices(box), size))
    # Pillow rounds after each of its two passes.
    assert (ours - expected).abs().max() <= 1.01


def test_flip_mirrors():
    photo = as_tensor(picture(32, 32))
    plain, mirrored = (augment(photo, choices((0.2, 0, 0.7, 1), flip), 24) for flip in (False, True))
    torch.testing.assert_close(mirrored, plain.flip(3))


def test_bfloat16_stays_within_two_grey_levels():
    photo = as_tensor(picture(64, 64))
    exact = augment(photo, choices((0.1, 0.1, 0.8, 0.8)), 48)
    fast = augment(photo, choices((0.1, 0.1, 0.8, 0.8)), 48, torch.bfloat16)
    assert (denormalized(fast) - denormalized(exact)).abs().mean() < 0.5
    assert (denormalized(fast) - denormalized(exact)).abs().max() < 2


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [("brightness", ImageEnhance.Brightness), ("saturation", ImageEnhance.Color), ("contrast", ImageEnhance.Contrast)],
)
@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_colour_changes_as_pillow_does(name, enhancer, factor):
    photo = picture(32, 32)
    expected = as_tensor(enhancer(photo).enhance(factor)).float()
    ours = denormalized(augment(as_tensor(photo), choices(**{name: factor}), 32))
    # Pillow drops the fraction of the result, up to 1, and works with a grey rounded by up to 0.5, of which 0.3 counts.
    assert (ours - expected).abs().max() <= 1 + 0.15 + 1e-3


def test_draw_stays_within_the_recipe():
    recipe = Recipe(crop_scale=0.5, brightness=0.2, contrast=0.0, flip=False)
    sizes = torch.tensor([(400.0, 200.0)]).repeat(2000, 1)
    drawn = draw(recipe, sizes, torch.Generator().manual_seed(0))
    left, top, width, height = drawn.boxes.T
    assert bool(((left >= 0) & (top >= 0) & (left + width <= 1 + 1e-6) & (top + height <= 1 + 1e-6)).all())
    inside = (width < 1) & (height < 1)
    area, aspect = (width * height)[inside], (width * 400 / (height * 200))[inside]
    assert area.min() >= 0.5 and area.max() <= 1
    assert aspect.min() >= 0.75 - 1e-4 and aspect.max() <= 4 / 3 + 1e-4
    assert drawn.brightness.min() >= 0.8 and drawn.brightness.max() <= 1.2
    assert bool((drawn.contrast == 1).all())
    assert not drawn.flip.any()


def test_same_seed_same_pictures():
    photos = torch.cat([as_tensor(picture(64, 64, seed)) for seed in range(4)])
    sizes = torch.full((4, 2), 64.0)

    def once(seed: int) -> torch.Tensor:
        return augment(photos, draw(Recipe(), sizes, torch.Generator().manual_seed(seed)), 48)

    assert torch.equal(once(7), once(7))
    assert not torch.equal(once(7), once(8))


def test_cached_square():
    assert to_square(picture(300, 100)).size == (CACHE_SIDE, CACHE_SIDE)
