"""The transforms against Pillow, torchvision and SciPy, and against pixels worked out by hand."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from alexnet.augment import (
    CACHE_SIDE,
    COLOUR_VARIANCES,
    PRINCIPAL_COLOURS,
    Draw,
    EvalTransform,
    augment,
    draw,
    mix,
    to_square,
)
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


def unchanged(n: int, **extra: torch.Tensor) -> Draw:
    """Choices that leave `n` photos as they are, but for `extra`."""
    return Draw(
        torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(n, 1), torch.zeros(n, dtype=torch.bool), *torch.ones(3, n), **extra
    )


def drawn(n: int, seed: int = 0, **settings: float) -> Draw:
    return draw(Recipe(**settings), torch.full((n, 2), 64.0), torch.Generator().manual_seed(seed))


def noise(n: int, side: int = 16, seed: int = 0) -> torch.Tensor:
    """Photos as `augment` returns them."""
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


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


def test_squashed_photos_lose_their_proportions():
    photo = picture(128, 64)
    whole = EvalTransform(resize=32, crop=32, squash=True).crop_photo(photo)
    assert np.array_equal(np.asarray(whole), np.asarray(photo.resize((32, 32), Image.Resampling.BILINEAR)))
    centre = EvalTransform(resize=64, crop=32, squash=True).crop_photo(photo)
    expected = photo.resize((32, 32), Image.Resampling.BILINEAR, box=(32, 16, 96, 48))
    assert np.array_equal(np.asarray(centre), np.asarray(expected))


def test_five_crops_are_those_of_torchvision():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    photo = picture(300, 256)
    transform = EvalTransform(resize=256, crop=227, five_crops=True)
    square = transform.crop_photo(photo)
    assert np.array_equal(np.asarray(square), np.asarray(photo.crop((22, 0, 278, 256))))
    centre, *corners = transform.views(as_tensor(square))
    for ours, expected in zip([*corners, centre], functional.five_crop(as_tensor(square), 227), strict=True):
        assert torch.equal(ours, expected)
    assert torch.equal(as_tensor(transform.centre(square)), centre)
    assert torch.equal(transform.batch([photo]), centre)


@pytest.mark.parametrize("squash", [False, True])
def test_one_view_is_the_centre_of_five(squash):
    photo = picture(200, 120)
    one = EvalTransform(resize=96, crop=64, squash=squash)
    five = EvalTransform(resize=96, crop=64, squash=squash, five_crops=True)
    square = as_tensor(one.crop_photo(photo))
    assert len(one.views(square)) == 1 and torch.equal(one.views(square)[0], square)
    difference = five.batch([photo]).int() - one.batch([photo]).int()
    assert difference.abs().max() <= 1  # Pillow's rounding


def test_the_transform_of_a_recipe():
    recipe = Recipe(image_size=99, resize=104, squash=True, five_crops=True)
    assert EvalTransform.from_recipe(recipe) == EvalTransform(104, 99, MEAN, STD, squash=True, five_crops=True)
    assert EvalTransform.from_recipe(Recipe()) == EvalTransform(256, 227)


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
    assert fast.dtype == torch.bfloat16
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


def test_colour_changes_follow_one_another():
    photo = as_tensor(picture(16, 16)) // 4 + 96  # far enough from black and white that nothing is cut off
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    brighter = photo * 1.2
    mean = (brighter * luma).sum(dim=1).mean()
    flatter = mean + (brighter - mean) * 0.8
    grey = (flatter * luma).sum(dim=1, keepdim=True)
    expected = grey + (flatter - grey) * 1.3
    ours = denormalized(augment(photo, choices(brightness=1.2, contrast=0.8, saturation=1.3), 16))
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=0)


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


def test_draws_stay_what_they_were():
    # Written down before the settings below existed: who resumes a run from then gets the photos that it would have got.
    sizes = torch.tensor([(400.0, 200.0), (300.0, 300.0)])
    choices = draw(Recipe(), sizes, torch.Generator().manual_seed(0))
    expected = [[0.1490525, 0.0, 0.5151546, 1.0], [0.1084109, 0.0, 0.8290261, 1.0]]
    torch.testing.assert_close(choices.boxes, torch.tensor(expected))
    assert choices.flip.tolist() == [True, False]
    torch.testing.assert_close(choices.brightness, torch.tensor([0.9093361, 0.9410304]))
    torch.testing.assert_close(choices.contrast, torch.tensor([0.7133955, 0.8013154]))
    torch.testing.assert_close(choices.saturation, torch.tensor([0.8763331, 1.0111130]))
    assert choices.tint is choices.erased is choices.share is choices.cut is choices.affine is choices.blur is None
    assert not choices.mixes


GEOMETRY = {"rotation": 30.0, "shear": 20.0, "zoom": 0.4, "shift": 0.2}
EXTRA = [{"pca_colour": 0.1, "erasing": 0.5, "mixup": 0.2}, {"cutmix": 1.0}, {"blur": 2.0}, GEOMETRY]


@pytest.mark.parametrize("extra", EXTRA)
def test_more_settings_leave_the_other_draws_as_they_are(extra):
    plain, more = drawn(7), drawn(7, **extra)
    for name in ("boxes", "flip", "brightness", "contrast", "saturation"):
        assert torch.equal(getattr(plain, name), getattr(more, name))


@pytest.mark.parametrize("extra", EXTRA)
def test_every_draw_follows_from_the_generator(extra):
    def values(seed: int) -> list[torch.Tensor]:
        return [value for value in vars(drawn(9, seed, **extra)).values() if value is not None]

    torch.manual_seed(1)
    once = values(7)
    torch.manual_seed(2)
    assert all(map(torch.equal, once, values(7)))
    assert not any(map(torch.equal, once, values(8)))


def test_principal_colours_are_an_eigendecomposition():
    values, vectors = (torch.tensor(v) for v in (COLOUR_VARIANCES, PRINCIPAL_COLOURS))
    covariance = vectors @ torch.diag(values) @ vectors.T
    # Published with four digits.
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(3), atol=3e-4, rtol=0)
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance).flip(0), values, atol=1e-4, rtol=0)
    # Red, green and blue vary by 0.28 each over the pixels of ImageNet, and together.
    assert covariance.diag().sqrt().tolist() == pytest.approx([0.28, 0.28, 0.28], abs=0.02)
    assert covariance.min() > 0


def test_tints_vary_along_the_principal_colours():
    tint = drawn(100_000, pca_colour=0.1).tint
    along = tint @ torch.tensor(PRINCIPAL_COLOURS)
    assert along.mean(dim=0).abs().max() < 2e-4
    assert along.std(dim=0).tolist() == pytest.approx([0.1 * value for value in COLOUR_VARIANCES], rel=0.02)
    assert torch.corrcoef(along.T).fill_diagonal_(0).abs().max() < 0.02


def test_a_tint_is_added_to_every_pixel():
    photo = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    tinted = denormalized(augment(photo, unchanged(1, tint=torch.tensor([[0.1, -0.2, 0.9]])), 8))
    # 229.5 levels more are brighter than white.
    assert tinted.amin(dim=(2, 3)).tolist()[0] == pytest.approx([125.5, 49, 255], abs=1e-3)
    assert tinted.amax(dim=(2, 3)).tolist()[0] == pytest.approx([125.5, 49, 255], abs=1e-3)


def test_no_tint_changes_nothing():
    photo = as_tensor(picture(32, 32))
    assert torch.equal(augment(photo, unchanged(1, tint=torch.zeros(1, 3)), 24), augment(photo, unchanged(1), 24))


def boxes_of(recipe: Recipe, width: float, height: float, n: int = 3000) -> torch.Tensor:
    return draw(recipe, torch.tensor([(width, height)]).repeat(n, 1), torch.Generator().manual_seed(0)).boxes


def test_a_patch_has_the_very_pixels_of_the_resized_photo():
    recipe = Recipe(image_size=67, resize=80, crop="patch", crop_scale=0.05, flip=False)
    places = boxes_of(recipe, 80, 80)[:, :2] * 80
    torch.testing.assert_close(places, places.round(), atol=1e-4, rtol=0)
    # 80 - 67 = 13, and so there are 14 places in each direction, all alike.
    for direction in places.round().long().T:
        assert torch.bincount(direction).tolist() == pytest.approx([3000 / 14] * 14, rel=0.25)
    photo = picture(80, 80)
    for box in boxes_of(recipe, 80, 80, 3):
        left, top = (round(80 * value) for value in box[:2].tolist())
        expected = as_tensor(photo.crop((left, top, left + 67, top + 67))).float()
        ours = denormalized(augment(as_tensor(photo), choices(box.tolist()), 67))
        torch.testing.assert_close(ours, expected, atol=0.02, rtol=0)


def test_patches_of_a_wide_photo_are_squares_in_its_middle():
    recipe = Recipe(image_size=67, resize=134, crop="patch")
    left, top, width, height = boxes_of(recipe, 400, 200).T
    # The central square goes from 0.25 to 0.75 of the width; a patch is half of it.
    assert (width == 0.25).all() and (height == 0.5).all()
    assert (left.min(), left.max()) == (0.25, 0.5) and (top.min(), top.max()) == (0.0, 0.5)
    squashed = boxes_of(recipe.replace(squash=True), 400, 200)
    assert (squashed[:, 2:] == 0.5).all()
    assert squashed[:, :2].amin(0).tolist() == [0, 0] and squashed[:, :2].amax(0).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("size", "squash", "box"),
    [
        ((400, 200), False, [0.25, 0, 0.5, 1]),
        ((100, 400), False, [0, 0.375, 1, 0.25]),
        ((400, 200), True, [0, 0, 1, 1]),
    ],
)
def test_without_a_crop_the_same_part_is_always_seen(size, squash, box):
    assert boxes_of(Recipe(crop="none", squash=squash), *size, n=5).tolist() == [box] * 5


def test_a_squashed_photo_is_cropped_as_if_it_were_square():
    assert torch.equal(boxes_of(Recipe(squash=True), 400, 200), boxes_of(Recipe(), 300, 300))


def placed(turn=0.0, shift=(0.0, 0.0), slant=0.0, zoom=(1.0, 1.0)) -> torch.Tensor:
    """An affine map (2, 3), from Keras' matrices (keras_preprocessing, `apply_affine_transform`) and a shift in shares."""
    turn, slant = math.radians(turn), math.radians(slant)
    matrix = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    matrix = matrix @ [[1, 0, 2 * shift[0]], [0, 1, 2 * shift[1]], [0, 0, 1]]
    matrix = matrix @ [[1, -math.sin(slant), 0], [0, math.cos(slant), 0], [0, 0, 1]] @ np.diag([*zoom, 1])
    return torch.from_numpy(matrix[:2]).float()


def moved(photo: Image.Image, affine: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    changed = augment(as_tensor(photo), unchanged(1, affine=affine[None]), photo.width, dtype)
    return denormalized(changed.float())


def around_centre(side: int) -> torch.Tensor:
    """Pixels that a turn or a small change never takes from beyond the edges."""
    places = torch.arange(side) - (side - 1) / 2
    return places[:, None].square() + places.square() < (0.35 * side) ** 2


@pytest.mark.parametrize("turn", [-75.0, 15.0, 130.0])
def test_turns_as_torchvision_does(turn):
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    photo, inside = picture(48, 48), around_centre(48)
    how = functional.InterpolationMode.BILINEAR
    expected = functional.rotate(as_tensor(photo).float(), turn, interpolation=how)
    torch.testing.assert_close(moved(photo, placed(turn))[..., inside], expected[..., inside], atol=0.05, rtol=0)


def test_moves_as_torchvision_does():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    photo, inside = picture(40, 40), around_centre(40)
    ours = moved(photo, placed(30, zoom=(0.8, 0.8)) + torch.tensor([[0, 0, -2 * 4 / 40], [0, 0, 2 * 2 / 40]]))
    # Its shift is that of the photo's content, after the turn.
    turned = math.radians(-30)
    back = np.array([[math.cos(turned), -math.sin(turned)], [math.sin(turned), math.cos(turned)]]) @ [4, -2] / 0.8
    expected = functional.affine(
        as_tensor(photo).float(), angle=-30, translate=back.tolist(), scale=1 / 0.8, shear=[0.0, 0.0],
        interpolation=functional.InterpolationMode.BILINEAR,
    )  # fmt: skip
    torch.testing.assert_close(ours[..., inside], expected[..., inside], atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"turn": 20.0},
        {"slant": 25.0},
        {"zoom": (1.5, 0.6)},
        {"shift": (0.3, -0.1)},
        {"turn": -40.0, "shift": (-0.2, 0.25), "slant": -15.0, "zoom": (0.7, 1.3)},
    ],
)
def test_moves_as_keras_does_up_to_the_edges(change):
    ndimage = pytest.importorskip("scipy.ndimage")
    photo = picture(33, 33)
    affine = placed(**change).double().numpy()
    # SciPy counts rows first, in pixels from the middle of the first one.
    linear, offset = affine[::-1, 1::-1], affine[::-1, 2] * 33 / 2
    middle = np.array([16, 16])
    planes = [
        ndimage.affine_transform(plane, linear, middle - linear @ middle + offset, order=1, mode="nearest")
        for plane in as_tensor(photo)[0].double().numpy()
    ]
    torch.testing.assert_close(
        moved(photo, placed(**change))[0], torch.from_numpy(np.stack(planes)).float(), atol=0.05, rtol=0
    )


def test_a_quarter_turn_and_a_shift_by_hand():
    photo = picture(20, 20)
    pixels = as_tensor(photo).float()
    torch.testing.assert_close(moved(photo, placed(90)), pixels.rot90(dims=(2, 3)), atol=0.01, rtol=0)
    right = moved(photo, placed(shift=(3 / 20, 0)))
    torch.testing.assert_close(right[..., :17], pixels[..., 3:], atol=0.01, rtol=0)
    torch.testing.assert_close(right[..., 17:], pixels[..., 19:].expand(-1, -1, -1, 3), atol=0.01, rtol=0)
    up = moved(photo, placed(shift=(0, -2 / 20)))
    torch.testing.assert_close(up[..., 2:, :], pixels[..., :18, :], atol=0.01, rtol=0)


def test_a_zoom_above_one_shows_more():
    row = torch.tensor([0, 40, 100, 200], dtype=torch.uint8)
    photo = Image.fromarray(row.expand(4, 4).contiguous().numpy()).convert("RGB")
    wide = moved(photo, placed(zoom=(2.0, 1.0)))
    # The four columns' centres look at -0.5, 0.5, 2.5 and 3.5, the first and the last held at the edges.
    torch.testing.assert_close(wide[0, 0, 1], torch.tensor([0.0, 20.0, 150.0, 200.0]), atol=0.01, rtol=0)
    torch.testing.assert_close(moved(photo, placed(zoom=(1.0, 2.0))), as_tensor(photo).float(), atol=0.01, rtol=0)


def test_geometry_follows_the_crop_and_mirroring():
    photo = as_tensor(picture(48, 48))
    box, affine = (0.25, 0.0, 0.5, 0.5), placed(10, (0.1, 0.0), 5, (1.2, 0.9))[None]
    cut = denormalized(augment(photo, choices(box, flip=True), 24))
    crop = Image.fromarray(cut[0].permute(1, 2, 0).round().byte().numpy())
    both = replace(choices(box, flip=True), affine=affine)
    assert (denormalized(augment(photo, both, 24)) - moved(crop, affine[0])).abs().max() < 0.6  # of rounding the crop


def test_moves_in_bfloat16_are_as_exact_as_crops():
    photo = picture(227, 227)
    affine = placed(15, (0.1, -0.1), 0.1, (1.2, 0.8))
    difference = (moved(photo, affine) - moved(photo, affine, torch.bfloat16)).abs()
    assert difference.mean() < 0.5 and difference.max() < 2


def test_moves_stay_within_the_recipe():
    affine = drawn(20_000, **GEOMETRY).affine
    across, down, offset = affine.unbind(2)
    turn = torch.atan2(across[:, 1], across[:, 0])
    slant = torch.atan2(-down[:, 0], down[:, 1]) - turn
    zooms = torch.stack([across.norm(dim=1), down.norm(dim=1)])
    back = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()], dim=1).view(-1, 2, 2)
    shift = (back @ offset[:, :, None])[:, :, 0] / 2
    for values, low, high in (
        (turn.rad2deg(), -30, 30), (slant.rad2deg(), -20, 20), (zooms[0], 0.6, 1.4), (zooms[1], 0.6, 1.4),
        (shift[:, 0], -0.2, 0.2), (shift[:, 1], -0.2, 0.2),
    ):  # fmt: skip
        span = high - low
        assert low - 1e-3 * span <= values.min() < low + 0.01 * span
        assert high - 0.01 * span < values.max() <= high + 1e-3 * span
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.01 * span)
        assert values.std() == pytest.approx(span / 12**0.5, rel=0.02)
    together = torch.stack([turn, slant, *zooms, *shift.T])
    assert torch.corrcoef(together).fill_diagonal_(0).abs().max() < 0.03


@pytest.mark.parametrize("name", ["rotation", "shear", "zoom", "shift"])
def test_a_single_setting_moves_nothing_else(name):
    across, down, offset = drawn(50, **{name: 0.2}).affine.unbind(2)
    still = {
        "rotation": (across.norm(dim=1) - 1, down.norm(dim=1) - 1, (across * down).sum(1), offset),
        "shear": (across - torch.tensor([1.0, 0.0]), down.norm(dim=1) - 1, offset),
        "zoom": (across[:, 1], down[:, 0], offset),
        "shift": (across - torch.tensor([1.0, 0.0]), down - torch.tensor([0.0, 1.0])),
    }
    assert all(values.abs().max() < 1e-6 for values in still[name])


def test_blurs_as_torchvision_does():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    photos = torch.cat([as_tensor(picture(64, 64, seed)) for seed in range(4)])
    deviations = [0.0, 0.4, 1.0, 2.5]  # pixels of the result, whatever the crop
    plain = drawn(4, crop_scale=0.1, brightness=0, contrast=0, saturation=0)
    ours = denormalized(augment(photos, replace(plain, blur=torch.tensor(deviations)), 64))
    crops = denormalized(augment(photos, plain, 64))
    assert torch.equal(ours[0], crops[0])
    for blurred, crop, deviation in zip(ours[1:], crops[1:], deviations[1:], strict=True):
        expected = functional.gaussian_blur(crop, [31, 31], [deviation, deviation])
        torch.testing.assert_close(blurred[:, 15:-15, 15:-15], expected[:, 15:-15, 15:-15], atol=0.05, rtol=0)


def test_a_blur_leaves_an_even_colour_and_softens_a_step():
    photo = Image.fromarray(np.full((128, 128, 3), (200, 100, 50), dtype=np.uint8))
    blurred = denormalized(augment(as_tensor(photo), unchanged(1, blur=torch.tensor([9.0])), 32))
    torch.testing.assert_close(blurred[0].mean(dim=(1, 2)), torch.tensor([200.0, 100, 50]), atol=0.01, rtol=0)
    assert blurred.amax(dim=(2, 3)).sub(blurred.amin(dim=(2, 3))).max() < 0.01
    row = torch.zeros(8, dtype=torch.uint8)
    row[4:] = 240
    step = Image.fromarray(row.expand(8, 8).contiguous().numpy()).convert("RGB")
    blurred = denormalized(augment(as_tensor(step), unchanged(1, blur=torch.tensor([1.0])), 8))[0, 0, 3]
    weights = [math.exp(-k * k / 2) for k in range(-7, 8)]  # of neighbours -7 to 7
    expected = [240 * sum(weights[11 - k : 15 - k]) / sum(weights[7 - k : 15 - k]) for k in range(8)]
    assert blurred.tolist() == pytest.approx(expected, abs=0.01)


def test_blurs_are_drawn_evenly():
    blur = drawn(20_000, blur=3.0).blur
    assert 0 <= blur.min() < 0.01 and 2.99 < blur.max() <= 3
    assert blur.mean() == pytest.approx(1.5, abs=0.02) and blur.std() == pytest.approx(3 / 12**0.5, rel=0.02)


def test_erased_rectangles_stay_within_their_ranges():
    left, top, width, height = drawn(20_000, erasing=1.0).erased.T
    area, aspect = width * height, height / width
    assert area.min() >= 0.02 - 1e-6 and area.max() <= 0.33 + 1e-6
    assert area.mean() == pytest.approx((0.02 + 0.33) / 2, abs=0.002)
    assert aspect.min() >= 0.3 - 1e-6 and aspect.max() <= 3.3 + 1e-5
    assert aspect.log().mean() == pytest.approx(0, abs=0.03)  # as often upright as lying
    assert left.min() >= 0 and top.min() >= 0
    assert (left + width).max() <= 1 + 1e-6 and (top + height).max() <= 1 + 1e-6
    assert (left + width / 2).mean() == pytest.approx(0.5, abs=0.005)


def test_share_of_the_photos_erased():
    erased = drawn(20_000, erasing=0.3).erased
    assert (erased[:, 2] > 0).float().mean() == pytest.approx(0.3, abs=0.01)


def test_erases_as_torchvision_does():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    photos = torch.cat([as_tensor(picture(48, 48, seed)) for seed in range(2)])
    whole = augment(photos, unchanged(2), 48)
    erased = torch.tensor([[0.25, 0.5, 0.375, 0.125], [0.0, 0.0, 0.0, 0.0]])
    ours = augment(photos, unchanged(2, erased=erased), 48)
    assert torch.equal(ours[0], functional.erase(whole[0], i=24, j=12, h=6, w=18, v=torch.zeros(3, 1, 1)))
    assert torch.equal(ours[1], whole[1])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 10.0])
def test_shares_follow_the_beta_distribution(alpha):
    share = drawn(40_000, mixup=alpha).share
    assert share[0::2].equal(share[1::2])
    assert share.mean() == pytest.approx(0.5, abs=0.01)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_a_tiny_alpha_mixes_hardly_anything():
    share = drawn(20_000, mixup=1e-4).share
    assert share.isfinite().all()
    assert ((share < 1e-3) | (share > 1 - 1e-3)).float().mean() > 0.99
    assert share.mean() == pytest.approx(0.5, abs=0.02)  # as often the neighbour whole as the photo itself


def test_mixup_by_hand():
    photos = torch.tensor([0.0, 4.0, 10.0, 20.0, 7.0]).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    share = torch.tensor([0.25, 0.25, 0.9, 0.9, 1.0])
    mixed, targets = mix(photos, torch.tensor([0, 2, 1, 1, 0]), 3, unchanged(5, share=share))
    assert mixed[:, 0, 0, 0].tolist() == pytest.approx([3, 1, 11, 19, 7])
    expected = [[0.25, 0, 0.75], [0.75, 0, 0.25], [0, 1, 0], [0, 1, 0], [1, 0, 0]]
    torch.testing.assert_close(targets, torch.tensor(expected))


def test_cutmix_by_hand():
    photos = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 5, 5)
    cut = torch.tensor([[0.5, 0.0, 0.5, 0.6], [0.5, 0.0, 0.5, 0.6], [0.0, 0.0, 0.0, 0.0]])
    mixed, targets = mix(photos, torch.tensor([0, 1, 1]), 2, unchanged(3, cut=cut))
    # The right half of five columns are those whose centres lie at 0.5, 0.7 and 0.9; three rows are 0.6 of five.
    pasted = torch.zeros(5, 5)
    pasted[:3, 2:] = 1
    assert mixed[0].equal(pasted.expand(3, 5, 5))
    assert mixed[1].equal(1 - pasted.expand(3, 5, 5))
    assert mixed[2].equal(photos[2])
    torch.testing.assert_close(targets, torch.tensor([[16 / 25, 9 / 25], [9 / 25, 16 / 25], [0, 1]]))


def test_cuts_are_squares_within_the_photo():
    share, cut = drawn(20_000, mixup=1.0).share, drawn(20_000, cutmix=1.0).cut
    left, top, width, height = cut.T
    assert cut[0::2].equal(cut[1::2])
    assert cut[:, :2].min() >= 0 and (left + width).max() <= 1 + 1e-6 and (top + height).max() <= 1 + 1e-6
    # The same numbers as mixup's: a square of the share that is given away, smaller only where it left the photo.
    side = (1 - share).sqrt()
    assert (width <= side + 1e-6).all() and (height <= side + 1e-6).all()
    whole = (left > 1e-6) & (left + width < 1 - 1e-6) & (top > 1e-6) & (top + height < 1 - 1e-6)
    assert whole.any()
    torch.testing.assert_close((width * height)[whole], (1 - share)[whole], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["MixUp", "CutMix"])
def test_mixes_as_torchvision_does(name):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    photos, labels = noise(2), torch.tensor([0, 2])
    torch.manual_seed(3)
    expected_photos, expected_targets = getattr(v2, name)(alpha=1.0, num_classes=3)(photos, labels)
    share = expected_targets[0, 0]
    assert 0.1 < share < 0.9
    if name == "MixUp":
        choices = unchanged(2, share=share.repeat(2))
    else:
        rows, columns = (expected_photos[0] != photos[0]).any(dim=0).nonzero().T
        edges = [columns.min(), rows.min(), columns.max() + 1 - columns.min(), rows.max() + 1 - rows.min()]
        choices = unchanged(2, cut=torch.tensor([edges, edges]) / 16)
    mixed, targets = mix(photos, labels, 3, choices)
    torch.testing.assert_close(mixed, expected_photos)
    torch.testing.assert_close(targets, expected_targets)


@pytest.mark.parametrize("settings", [{"mixup": 0.001}, {"mixup": 10.0}, {"cutmix": 0.001}, {"cutmix": 10.0}])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_targets_are_probabilities(settings, n):
    choices = drawn(n, erasing=1.0, **settings)
    labels = torch.arange(n) % 3
    mixed, targets = mix(noise(n), labels, 3, choices)
    assert targets.dtype == torch.float32
    assert targets.min() >= 0
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(n))
    assert mixed.isfinite().all()
    # Nothing is lost and nothing comes twice: each pair has the labels that it had before, and so has an odd last one.
    torch.testing.assert_close(targets.sum(dim=0), torch.bincount(labels, minlength=3).float())
    if n % 2:
        assert mixed[-1].equal(noise(n)[-1])


def test_mixing_keeps_bfloat16():
    photos = noise(2).bfloat16()
    for settings in ({"mixup": 1.0}, {"cutmix": 1.0}):
        assert mix(photos, torch.tensor([0, 1]), 2, drawn(2, **settings))[0].dtype == torch.bfloat16


@pytest.mark.parametrize("extra", [{"mixup": 0.5}, {"cutmix": 1.0}])
def test_parts_of_a_batch_are_what_the_whole_is(extra):
    photos = torch.cat([as_tensor(picture(32, 32, seed)) for seed in range(7)])
    labels = torch.arange(7) % 2
    choices = drawn(7, pca_colour=0.1, erasing=0.5, blur=1.0, **GEOMETRY, **extra)
    whole, targets = mix(augment(photos, choices, 24), labels, 2, choices)
    for part in (slice(0, 4), slice(4, 6), slice(6, None), slice(2, 7)):
        some, their = mix(augment(photos[part], choices[part], 24), labels[part], 2, choices[part])
        torch.testing.assert_close(some, whole[part])
        assert their.equal(targets[part])


def test_a_pair_cannot_be_separated():
    choices = drawn(7, mixup=0.2)
    for part in (slice(1, 4), slice(0, 3), slice(5, 7)):
        with pytest.raises(ValueError, match="separate a pair"):
            choices[part]
    assert len(drawn(7)[1:4]) == 3  # nothing is mixed


needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")


@needs_compiler
@pytest.mark.parametrize(
    ("dtype", "settings"),
    [
        (torch.float32, {"pca_colour": 0.1, "erasing": 0.5, "blur": 2.0, **GEOMETRY}),
        (torch.bfloat16, {"pca_colour": 0.1, "erasing": 0.5, "blur": 2.0, **GEOMETRY}),
        (torch.bfloat16, {}),
    ],
)
def test_compiled_once_it_does_the_same(dtype, settings):
    photos = torch.cat([as_tensor(picture(32, 32, seed)) for seed in range(4)])
    torch.compiler.reset()  # what other tests compiled would count as a recompilation
    compiled = torch.compile(augment, dynamic=False, fullgraph=True)
    compiled(photos, drawn(4, **settings), 24, dtype)
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(1, 4):
            choices = drawn(8, seed, **settings)[4:]
            fast, exact = compiled(photos, choices, 24, dtype), augment(photos, choices, 24)
            assert fast.dtype == dtype
            difference = (denormalized(fast) - denormalized(exact)).abs()
            assert difference.max() < (2.5 if dtype == torch.bfloat16 else 1e-3)


@needs_compiler
@pytest.mark.parametrize("settings", [{"mixup": 0.5}, {"cutmix": 1.0}])
def test_compiled_once_it_mixes_the_same(settings):
    torch.compiler.reset()
    compiled = torch.compile(mix, dynamic=False, fullgraph=True)
    labels = torch.tensor([0, 1, 2, 0])
    compiled(noise(4), labels, 3, drawn(4, **settings))
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(1, 4):
            choices = drawn(8, seed, **settings)[4:]
            torch.testing.assert_close(compiled(noise(4), labels, 3, choices), mix(noise(4), labels, 3, choices))


def test_cached_square():
    assert to_square(picture(300, 100)).size == (CACHE_SIDE, CACHE_SIDE)
