"""Prediction: the widened single logit, mirrored views and ten crops, and the transform of the run."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from alexnet.augment import EvalTransform
from alexnet.predict import Classifier, averaged_logits, class_logits, load_classifier
from alexnet.runs import Run, write_json


def photo(seed: int, width: int = 300, height: int = 240) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


class LeftMinusRight(nn.Module):
    """One logit: the mean of the left half minus the mean of the right half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[3] // 2
        return (x[..., :half].mean(dim=(1, 2, 3)) - x[..., half:].mean(dim=(1, 2, 3)))[:, None]


def classifier(mirror: bool) -> Classifier:
    transform = EvalTransform(resize=64, crop=64)
    return Classifier(Run(None), ("cat", "dog"), transform, mirror, LeftMinusRight(), torch.device("cpu"))


def test_a_single_logit_becomes_two_with_the_same_probability():
    z = torch.tensor([[-3.0], [0.0], [1.7]])
    torch.testing.assert_close(class_logits(z).softmax(1)[:, 1], z.sigmoid()[:, 0])
    several = torch.randn(2, 5)
    assert class_logits(several) is several


def test_mirrored_views_cancel_a_left_right_difference():
    x = torch.randn(4, 3, 8, 8)
    assert averaged_logits(LeftMinusRight(), [x], mirror=True).abs().max() < 1e-6
    torch.testing.assert_close(averaged_logits(LeftMinusRight(), [x], mirror=False), class_logits(LeftMinusRight()(x)))


def ten_crops(mirror: bool) -> Classifier:
    """Of 20 x 20 pixels in 26 x 26, by a network of random weights that takes no other size."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 5, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 6 * 6, 3)).eval()
    transform = EvalTransform(resize=26, crop=20, five_crops=True)
    return Classifier(Run(None), ("ant", "bee", "cow"), transform, mirror, network, torch.device("cpu"), 0.7)


def test_ten_crops_are_the_mean_of_ten_single_crops():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    ten, photos = ten_crops(mirror=True), [photo(seed) for seed in range(3)]
    squares = [ten.transform.crop_photo(p) for p in photos]
    single = replace(ten, transform=EvalTransform(resize=20, crop=20), mirror=False)
    alone = [[single.answer(single.transform.batch([crop])) for crop in functional.ten_crop(s, 20)] for s in squares]
    assert [len(crops) for crops in alone] == [10, 10, 10]
    expected = torch.cat([torch.stack(crops).mean(dim=0) for crops in alone])
    assert torch.stack(alone[0]).std(dim=0).min() > 1e-3  # the ten differ
    torch.testing.assert_close(ten.answer(ten.transform.stack(squares)), expected)
    for prediction, row in zip(ten(photos), expected.softmax(dim=1).tolist(), strict=True):
        assert list(prediction.probabilities.values()) == pytest.approx(row, abs=1e-6)


def test_five_crops_without_mirror_images():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    five = ten_crops(mirror=False)
    square = five.transform.crop_photo(photo(0))
    single = replace(five, transform=EvalTransform(resize=20, crop=20))
    expected = single.answer(single.transform.batch(functional.five_crop(square, 20))).mean(dim=0, keepdim=True)
    torch.testing.assert_close(five.answer(five.transform.stack([square])), expected)


def test_the_centre_of_ten_crops_is_shown_and_explained():
    ten = ten_crops(mirror=True)
    prediction = ten([photo(0)])[0]
    square = ten.transform.crop_photo(photo(0))
    assert square.size == (26, 26) and prediction.input.size == (20, 20)
    assert prediction.input.tobytes() == square.crop((3, 3, 23, 23)).tobytes()
    x = ten.prepare([photo(0)])
    assert torch.equal(x, ten.transform.normalize(ten.transform.stack([prediction.input])))
    single = replace(ten, transform=EvalTransform(resize=20, crop=20), mirror=False, temperature=1.0)
    torch.testing.assert_close(ten.logits(x), single.answer(single.transform.batch([prediction.input])))


def test_prediction_by_hand():
    half_white = np.zeros((64, 64, 3), dtype=np.uint8)
    half_white[:, :32] = 255
    prediction = classifier(mirror=False)([Image.fromarray(half_white)])[0]
    # Normalised, white and black are 1 / std apart in each channel; the logit is the mean of that.
    z = np.mean([1 / s for s in EvalTransform().std])
    assert prediction.label == "dog"
    assert prediction.probabilities["dog"] == pytest.approx(1 / (1 + np.exp(-z)), rel=1e-5)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.input.size == (64, 64)


def test_no_photos_no_predictions():
    assert classifier(mirror=True)([]) == []


def test_a_loaded_run_answers_as_the_network_that_was_saved(untrained_run):
    run, network = untrained_run
    loaded = load_classifier(run)
    photos = [photo(seed) for seed in range(3)]
    transform = EvalTransform(run.recipe.resize, run.recipe.image_size)
    with torch.inference_mode():
        x = transform.normalize(transform.batch(photos))
        expected = ((network(x) + network(x.flip(3))) / 2).softmax(1)
    for prediction, row in zip(loaded(photos), expected.tolist(), strict=True):
        assert list(prediction.probabilities.values()) == pytest.approx(row, abs=1e-5)
    assert not loaded.model.training


def test_a_loaded_run_has_the_transform_of_its_recipe(untrained_run, tmp_path):
    config = untrained_run[0].config
    config["recipe"] |= {"squash": True, "five_crops": True}
    write_json(tmp_path / "run.json", config | {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]})
    (tmp_path / "weights.safetensors").symlink_to(untrained_run[0].weights)
    transform = load_classifier(Run(tmp_path)).transform
    assert transform == EvalTransform(70, 67, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), squash=True, five_crops=True)


def test_threads_get_the_answers_that_they_would_get_alone(untrained_run):
    loaded = load_classifier(untrained_run[0])
    photos = [photo(seed) for seed in range(6)]
    alone = [loaded([p])[0].probabilities for p in photos]
    together: list[dict[str, float] | None] = [None] * len(photos)

    def ask(index: int) -> None:
        together[index] = loaded([photos[index]])[0].probabilities

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(photos))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone
