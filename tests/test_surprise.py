"""The ranking by loss, with losses known from the probabilities."""

from __future__ import annotations

import math

import pytest

from alexnet import data, surprise
from alexnet.predict import load_classifier


def test_photos_come_by_the_loss_of_their_label(untrained_run, photo_folder):
    classifier = load_classifier(untrained_run[0])
    dataset = data.load(str(photo_folder([f"{label}/{number}.png" for label in ("cat", "dog") for number in range(4)])))
    ranked = surprise.most_surprising(classifier, dataset, dataset.photos)
    assert sorted(each.photo.path for each in ranked) == [photo.path for photo in dataset.photos]
    assert [each.loss for each in ranked] == sorted((each.loss for each in ranked), reverse=True)
    for each in ranked:
        prediction = classifier([dataset.open(each.photo)])[0]
        label = dataset.classes[each.photo.label]
        assert each.loss == pytest.approx(-math.log(prediction.probabilities[label]), abs=1e-4)
        assert (each.predicted, each.confidence) == (
            prediction.best,
            pytest.approx(max(prediction.probabilities.values()), abs=1e-4),
        )
