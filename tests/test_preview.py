"""The preview against what training feeds the network, and each operation against what is known of it by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet import data, doodles, draws, preview, runs, train
from alexnet.augment import CACHE_SIDE
from alexnet.distributed import ALONE
from alexnet.hardware import choose_hardware
from alexnet.preview import OPERATIONS, STILL, Photos
from alexnet.recipes import Recipe
from alexnet.runs import Reporter, Status

SMALL = Recipe(
    name="small", image_size=67, resize=80, epochs=2, batch_size=6, val_fraction=0.2, test_fraction=0.2, compile="off",
    device="cpu", precision="float32", seed=3,
)  # fmt: skip
EVERYTHING = {
    "rotation": 20.0, "shear": 10.0, "zoom": 0.2, "shift": 0.1, "blur": 1.0, "pca_colour": 0.3, "erasing": 0.5,
    "mixup": 0.8,
}  # fmt: skip
ON = {
    "crop": "resized",
    "crop_scale": 0.2,
    "flip": True,
    "cutmix": 1.0,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
}
ON = {operation.name: (ON | EVERYTHING)[operation.name] for operation in OPERATIONS}
BY_NAME = {operation.name: operation for operation in OPERATIONS}


def noise(count: int, side: int = 32, sizes: tuple[int, int] = (40, 30)) -> Photos:
    squares = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return Photos.of(list(squares), np.full((count, 2), sizes, np.float32))


def only(name: str, **more) -> Recipe:
    """A recipe with one operation."""
    return Recipe(**{**STILL, "image_size": 67, "resize": 80, name: ON[name], **more})


def fed_in_training(recipe: Recipe, dataset: data.Dataset, folder) -> list[torch.Tensor]:
    """What the network is given at each step of two epochs."""
    run = runs.create(recipe, str(dataset.root), dataset, path=folder)
    reporter = Reporter(run, Status(state="running"))
    photos = train.load_photos(run, reporter)
    session = train.open_session(run, photos, choose_hardware(recipe, "cpu", photos=20), reporter, ALONE)
    progress, fed = session.state.progress, []

    def forward(x: torch.Tensor) -> torch.Tensor:
        fed.append(x.detach().clone())
        return session.state.model(x)

    session = dataclasses.replace(session, forward=forward)
    for progress.epoch in range(2):
        train.train_one_epoch(session)
    return [torch.cat(fed[start : start + progress.parts]) for start in range(0, len(fed), progress.parts)]


@pytest.mark.parametrize(
    "settings",
    [{}, EVERYTHING, {"cutmix": 1.0, "accumulation": 3}, {"crop": "patch", "squash": True}],
    ids=["default", "everything", "cutmix", "patch"],
)
def test_the_network_is_fed_what_the_preview_shows(tmp_path, settings):
    recipe = SMALL.replace(**settings)
    doodles.write(tmp_path / "photos", per_class=16)
    dataset = data.load(str(tmp_path / "photos"))
    members = data.split(dataset, recipe)["train"]
    sizes = np.array([(photo.width, photo.height) for photo in members], np.float32)
    fed = fed_in_training(recipe, dataset, tmp_path / "run")
    assert len(fed) == 2 * (len(members) // 6) >= 4
    for step, x in enumerate(fed):
        chosen, choices = preview.plan_of_step(recipe, sizes, step)
        squares = [preview.square(dataset.open(members[index])) for index in chosen]
        assert torch.equal(preview.carry_out(recipe, Photos.of(squares, sizes[chosen]), choices).x, x)
        first = preview.carry_out(recipe, Photos.of(squares[:2], sizes[chosen[:2]]), choices[:2])
        assert torch.allclose(first.x, x[:2], atol=1e-5)  # the shape decides in which order sums are made


def test_without_augmentation_a_photo_is_what_it_is():
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (CACHE_SIDE, CACHE_SIDE, 3), dtype=np.uint8))
    photos = Photos.of([preview.square(photo)], np.full((1, 2), CACHE_SIDE, np.float32))
    recipe = SMALL.replace(image_size=CACHE_SIDE, resize=CACHE_SIDE, **EVERYTHING)
    assert np.array_equal(preview.pixels(preview.as_is(recipe, photos).x)[0], np.asarray(photo))


@pytest.mark.parametrize("name", ON)
def test_an_operation_alone_is_the_pipeline_that_has_no_other(name):
    recipe, photos = only(name), noise(8)
    series = preview.alone(BY_NAME[name], recipe, photos.sizes, step=5)
    pictures = preview.pictures_alone(BY_NAME[name], recipe, photos, series)
    assert len(pictures) == len(series.said) == 6
    assert torch.equal(pictures[2:], preview.whole(recipe, photos, step=5)[0])
    assert not torch.equal(pictures[2:], preview.whole(recipe, photos, step=6)[0])


def parts(affine: torch.Tensor) -> dict[str, torch.Tensor]:
    """What maps (n, 2, 3) are made of, by the operation."""
    turn = torch.atan2(affine[:, 1, 0], affine[:, 0, 0])
    upright = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()], dim=1).view(-1, 2, 2)
    return {
        "rotation": turn,
        "shear": torch.atan2(-affine[:, 0, 1], affine[:, 1, 1]) - turn,
        "zoom": affine[:, :, :2].norm(dim=1),
        "shift": (upright @ affine[:, :, 2:])[:, :, 0],
    }


@pytest.mark.parametrize("name", ON)
def test_an_operation_draws_the_same_beside_all_others(name):
    operation, photos = BY_NAME[name], noise(8)
    beside = Recipe(**only("crop").to_dict() | ON | {"mixup": 0.0, "cutmix": 0.0} | {name: ON[name]})
    alone = getattr(preview.alone(operation, beside, photos.sizes, step=5).choices, operation.choice)
    together = getattr(draws.choices(beside, photos.sizes, 5), operation.choice)
    if operation.choice == "affine":  # one map for four operations
        alone, together = parts(alone)[name], parts(together)[name]
        assert torch.allclose(alone[2:], together[::2], atol=1e-6) and alone[2:].abs().max() > 0
    else:
        assert torch.equal(alone[4:], together) if operation.mixes else torch.equal(alone[2:], together[::2])


MEASURES = {
    "crop": lambda box: box[:, 2] * box[:, 3], "rotation": lambda a: torch.atan2(a[:, 1, 0], a[:, 0, 0]),
    "shear": lambda a: torch.atan2(-a[:, 0, 1], a[:, 1, 1]), "zoom": lambda a: a[:, 0, 0], "shift": lambda a: a[:, 0, 2],
    "flip": lambda flip: flip.float(), "blur": lambda std: std,
    **dict.fromkeys(("brightness", "contrast", "saturation"), lambda factor: factor),
}  # fmt: skip


@pytest.mark.parametrize("name", MEASURES)
def test_samples_lie_between_the_ends_and_come_close_to_them(name):
    series = preview.alone(BY_NAME[name], only(name), noise(400, side=2).sizes, step=1)
    low, high, *samples = MEASURES[name](getattr(series.choices, BY_NAME[name].choice)).tolist()
    low, high, margin = min(low, high), max(low, high), 0.08 * abs(high - low)
    assert low - 1e-6 <= min(samples) <= low + margin and high - margin <= max(samples) <= high + 1e-6


def said(name: str, **settings) -> tuple[str, ...]:
    return preview.alone(BY_NAME[name], only(name, **settings), noise(4).sizes, step=0).said[:2]


def test_the_ends_are_said_in_words():
    assert said("crop", crop_scale=0.2) == ("20% of it", "100% of it")
    assert said("flip") == ("as it is", "mirrored")
    assert said("blur", blur=1.5) == ("0.0 px", "1.5 px")
    assert said("rotation", rotation=15.0) == ("15.0° right", "15.0° left")
    assert said("shear", shear=5.0) == ("−5.0°", "+5.0°")
    assert said("zoom", zoom=0.2) == ("125% × 125%", "83% × 83%")
    assert said("shift", shift=0.1) == ("→ 10% ↓ 10%", "← 10% ↑ 10%")
    assert said("contrast", contrast=0.3) == ("−30%", "+30%")
    assert said("erasing") == ("2% erased", "33% erased")
    assert said("mixup") == ("100% its own", "50% its own")
    assert said("cutmix") == ("0% the other's", "50% the other's")
    dark, bright = said("pca_colour", pca_colour=0.1)  # 2 x 0.1 x 0.2175 x 0.57 of 255 is 6
    assert (dark, bright) == ("−6 −6 −6", "+6 +6 +6")


@pytest.mark.parametrize(("name", "moved"), [("rotation", ((-1, 0), (1, 0))), ("shift", ((-1, -1), (1, 1)))])
def test_directions_are_those_of_the_picture(name, moved):
    """A dot to the right of the centre, after a turn of 90° to the right and to the left; and one shifted."""
    side = 67
    square = np.zeros((3, side, side), np.uint8)
    square[:, 32:35, 49:52] = 255
    photos = Photos.of([square] * 2, np.full((2, 2), side, np.float32))
    recipe = only(name, **{name: {"rotation": 90.0, "shift": 0.25}[name]})
    series = preview.alone(BY_NAME[name], recipe, photos.sizes, step=0)
    for picture, words in zip(
        preview.pictures_alone(BY_NAME[name], recipe, photos, series)[:2], series.said, strict=False
    ):
        row, column = divmod(int(picture.sum(dim=0).argmax()), side)
        if name == "rotation":
            assert abs(column - 33) <= 2 and (row > 40) == ("right" in words) and (row < 27) == ("left" in words)
        else:
            assert (row > 40) == ("↓" in words) and (column > 60) == ("→" in words)


def test_patches_reach_from_corner_to_corner():
    recipe = only("crop", crop="patch")
    low, high, *samples = preview.alone(
        BY_NAME["crop"], recipe, noise(400, side=2, sizes=(40, 40)).sizes, step=0
    ).choices.boxes
    assert low.tolist() == pytest.approx([0, 0, 67 / 80, 67 / 80])
    assert high.tolist() == pytest.approx([13 / 80, 13 / 80, 67 / 80, 67 / 80])
    places = torch.stack(samples)[:, :2]
    assert places.min() == 0 and places.max() == pytest.approx(13 / 80)


def test_shares_are_what_is_seen():
    photos, recipe = noise(4, side=8), only("mixup")
    plain, (x, own) = preview.as_is(recipe, photos), preview.whole(recipe, photos, step=2)
    made = preview.carry_out(recipe, photos, draws.choices(recipe, photos.sizes, 2))
    assert torch.equal(plain.shares, torch.eye(4))
    assert (
        made.shares.sum(dim=1).tolist() == pytest.approx([1.0] * 4)
        and own.tolist() == made.shares.diagonal()[::2].tolist()
    )
    assert all(0 < share < 1 for share in own)
    for row, share in enumerate(own):
        expected = share * plain.x[2 * row] + (1 - share) * plain.x[2 * row + 1]
        assert torch.allclose(x[row], expected, atol=1e-5)


def test_a_key_changes_with_what_it_stands_for():
    operation, photos = BY_NAME["brightness"], noise(4)
    key = preview.alone(operation, only("brightness"), photos.sizes, step=0).key
    assert key == preview.alone(operation, only("brightness", contrast=0.9), photos.sizes, step=0).key
    assert key != preview.alone(operation, only("brightness", brightness=0.5), photos.sizes, step=0).key
    assert key != preview.alone(operation, only("brightness"), photos.sizes, step=1).key
    assert photos.key == noise(4).key != noise(3).key
