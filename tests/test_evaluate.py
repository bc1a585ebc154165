"""Metrics against numbers worked out by hand and against NumPy, on a classifier that tells red from blue."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from alexnet import data
from alexnet.augment import EvalTransform
from alexnet.data import DataError
from alexnet.evaluate import Evaluation, evaluate, match_classes, score, write_report
from alexnet.predict import Classifier
from alexnet.runs import Run


def logits_of(*rows: tuple[float, ...]) -> torch.Tensor:
    """Logits whose softmax is these probabilities."""
    return torch.tensor(rows).log()


def test_metrics_by_hand():
    logits = logits_of((0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.25, 0.5, 0.25), (0.1, 0.2, 0.7), (0.8, 0.1, 0.1))
    metrics = score(logits, torch.tensor([0, 0, 1, 1, 0]), ("ant", "bee", "cow"))
    assert metrics.pop("loss") == pytest.approx(-math.log(0.5 * 0.25 * 0.5 * 0.2 * 0.8) / 5, rel=1e-6)
    assert metrics == {
        "accuracy": 3 / 5,
        "count": 5,
        "classes": ["ant", "bee", "cow"],
        "confusion": [[2, 1, 0], [0, 1, 1], [0, 0, 0]],
        "per_class": {
            "ant": {"count": 3, "accuracy": 2 / 3},
            "bee": {"count": 2, "accuracy": 1 / 2},
            "cow": {"count": 0, "accuracy": None},
        },
    }
    assert json.loads(json.dumps(metrics)) == metrics


def test_metrics_against_numpy():
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 20, (500, 4)).astype(np.float32), random.integers(0, 4, 500)
    metrics = score(torch.from_numpy(logits), torch.from_numpy(labels), "wxyz")
    wide = logits.astype(np.float64)
    losses = np.log(np.exp(wide - wide.max(1, keepdims=True)).sum(1)) + wide.max(1) - wide[np.arange(500), labels]
    confusion = np.zeros((4, 4), int)
    np.add.at(confusion, (labels, logits.argmax(1)), 1)
    assert metrics["loss"] == pytest.approx(losses.mean(), rel=1e-12)
    assert metrics["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert metrics["confusion"] == confusion.tolist()
    accuracies = [found["accuracy"] for found in metrics["per_class"].values()]
    assert accuracies == pytest.approx(confusion.diagonal() / confusion.sum(axis=1))


def test_a_loss_beyond_float32_is_still_a_number():
    metrics = score(torch.tensor([[300.0, -300.0]]), torch.tensor([1]), ("cat", "dog"))
    assert metrics["loss"] == pytest.approx(600) and metrics["accuracy"] == 0


@pytest.mark.parametrize(
    ("names", "known", "indices"),
    [
        (["Cats", "dogs"], ["cat", "dog"], [0, 1]),
        (["DOG", "CAT"], ["cat", "dog"], [1, 0]),
        (["dog"], ["Cats", "Dogs"], [1]),
        ([" cat ", "cat"], ["cat", "dog"], [0, 0]),
        (["Straßen"], ["STRASSEN"], [0]),
        # Of several the exact one counts, else the last.
        (["Cat", "cat", "cats", "CAT"], ["cat", "Cat", "cats"], [1, 0, 2, 2]),
    ],
)
def test_classes_are_matched_by_what_they_mean(names, known, indices):
    assert match_classes(names, known) == indices


def test_a_class_that_the_run_does_not_know_is_named():
    with pytest.raises(DataError) as caught:
        match_classes(["cat", "teapot"], ["Cat", "Dog"])
    assert str(caught.value) == "The photos have a class teapot, and this run knows only Cat, Dog."


class Redness(nn.Module):
    """Logits (red, blue) of normalised photos: five times the mean of that channel, as a share of full colour."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 5 * x.mean(dim=(2, 3))[:, [0, 2]]


@pytest.fixture
def classifier(tmp_path) -> Classifier:
    transform = EvalTransform(resize=16, crop=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Classifier(Run(tmp_path / "run"), ("red", "blue"), transform, True, Redness(), torch.device("cpu"))


def paint(path, color: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), color).save(path)


@pytest.fixture
def colours(tmp_path) -> data.Dataset:
    """Its classes come in another order than the classifier's, and one of its red photos is blue."""
    for name, color in (("a", (255, 0, 0)), ("b", (204, 51, 0)), ("c", (51, 0, 204))):
        paint(tmp_path / f"photos/reds/{name}.png", color)
    paint(tmp_path / "photos/Blue/d.png", (0, 0, 255))
    return data.load(str(tmp_path / "photos"))


def test_a_classifier_is_measured_on_files(classifier, colours):
    assert colours.classes == ("Blue", "reds")
    told = []
    evaluation = evaluate(classifier, colours, colours.photos[::-1], lambda *step: told.append(step))
    assert evaluation.files == ("reds/c.png", "reds/b.png", "reds/a.png", "Blue/d.png")
    assert evaluation.labels.tolist() == [0, 0, 0, 1] and evaluation.classes == ("red", "blue")
    expected = torch.tensor([[1.0, 4.0], [4.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    assert torch.allclose(evaluation.logits, expected, atol=1e-5)
    metrics = evaluation.metrics
    assert metrics["confusion"] == [[2, 1], [0, 1]] and metrics["accuracy"] == 3 / 4
    losses = [math.log1p(math.exp(margin)) for margin in (3, -4, -5, -5)]
    assert metrics["loss"] == pytest.approx(sum(losses) / 4, rel=1e-5)
    assert told == [("Evaluating", 4, 4)]


def test_it_says_of_each_photo_what_the_classifier_says_of_it_alone(classifier, tmp_path):
    random = np.random.default_rng(1)
    for n in range(70):  # more than one batch
        paint(tmp_path / f"many/{('red', 'blue')[n % 2]}/{n}.png", tuple(random.integers(0, 256, 3).tolist()))
    dataset, told = data.load(str(tmp_path / "many")), []
    evaluation = evaluate(classifier, dataset, dataset.photos, lambda *step: told.append(step))
    alone = [classifier([dataset.open(photo)])[0].probabilities for photo in dataset.photos]
    together = evaluation.logits.softmax(dim=1)
    assert torch.allclose(together, torch.tensor([[p["red"], p["blue"]] for p in alone]), atol=1e-6)
    assert [step[1:] for step in told] == [(64, 70), (70, 70)]


def test_what_progress_raises_cancels(classifier, colours):
    def cancel(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(classifier, colours, colours.photos, cancel)


def test_photos_of_an_unknown_class_and_photos_that_vanished_are_told(classifier, colours, tmp_path):
    paint(tmp_path / "photos/green/e.png", (0, 255, 0))
    dataset = data.load(str(tmp_path / "photos"))
    with pytest.raises(DataError, match="a class green, and this run knows only red, blue"):
        evaluate(classifier, dataset, dataset.photos)
    (tmp_path / "photos/Blue/d.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="A photo of photos changed while it was read: .*picture"):
        evaluate(classifier, colours, colours.photos)


def test_a_report_can_be_read_back(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    logits = logits_of((0.75, 0.25), (0.125, 0.875), (0.625, 0.375))
    files = ("cat/1.jpg", 'dog/a, "b".jpg', "dog/Ünï\ncode.jpg")
    evaluation = Evaluation(("cat", "dog"), files, torch.tensor([0, 1, 1]), logits)
    write_report(folder, evaluation, split="test", best_epoch=3)
    assert Run(folder).report() == {"split": "test", "best_epoch": 3, **evaluation.metrics}
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {"file": files[0], "label": "cat", "predicted": "cat", "cat": "0.750000", "dog": "0.250000"},
            {"file": files[1], "label": "dog", "predicted": "dog", "cat": "0.125000", "dog": "0.875000"},
            {"file": files[2], "label": "dog", "predicted": "cat", "cat": "0.625000", "dog": "0.375000"},
        ]
    write_report(folder, evaluation)
    assert {path.name for path in folder.iterdir()} == {"report.json", "predictions.csv"}
    assert Run(folder).report() == evaluation.metrics
