"""Prediction: the widened single logit, mirrored views, and the transform of the run."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from alexnet.augment import EvalTransform
from alexnet.predict import Classifier, averaged_logits, class_logits, load_classifier
from alexnet.runs import Run


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
    assert averaged_logits(LeftMinusRight(), x, mirror=True).abs().max() < 1e-6
    torch.testing.assert_close(averaged_logits(LeftMinusRight(), x, mirror=False), class_logits(LeftMinusRight()(x)))


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
