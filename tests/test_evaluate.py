"""Metrics against numbers worked out by hand and against NumPy, on a classifier that tells red from blue."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from alexnet import calibration, card, data, familiarity, model, runs
from alexnet.augment import EvalTransform
from alexnet.commands import print_confusion
from alexnet.data import DataError
from alexnet.evaluate import (
    Evaluation,
    auroc,
    calibrate,
    evaluate,
    match_classes,
    measure_neither,
    score,
    top_accuracy,
    write_report,
)
from alexnet.measures import interval
from alexnet.predict import Classifier
from alexnet.recipes import Recipe
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
        # Sure by 0.5 three times, 0.7 and 0.8: right in 2 of 3, not, and right.
        "ece": pytest.approx((3 * (2 / 3 - 0.5) + 0.7 + 0.2) / 5),
        "risk_at_90": pytest.approx((1 + 2 / 3) / 4),  # four of five, two of them from the three that are alike
        "reliability": [
            {"count": 3, "confidence": pytest.approx(0.5), "accuracy": 2 / 3, "interval": interval(2 / 3, 3)},
            {"count": 1, "confidence": pytest.approx(0.7), "accuracy": 0.0, "interval": interval(0, 1)},
            {"count": 1, "confidence": pytest.approx(0.8), "accuracy": 1.0, "interval": interval(1, 1)},
        ],
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


def test_the_five_likeliest_by_hand():
    likely = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]  # class 6 first, class 2 fifth
    flat = [1.0] * 7  # of those that tie the first counts first: classes 0 to 4
    steps = [9.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.0]  # class 0, then 1 to 5, of which 5 comes sixth
    rows = [(likely, 6, 1), (likely, 2, 1), (likely, 1, 0), (flat, 4, 1), (flat, 5, 0), (steps, 4, 1), (steps, 5, 0)]
    logits, labels = torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
    assert score(logits, labels, "abcdefg")["top5"] == sum(row[2] for row in rows) / len(rows) == 4 / 7
    assert "top5" not in score(logits[:, :5], labels % 5, "abcde") and "top5" in score(
        logits[:, :6], labels % 6, "abcdef"
    )


@pytest.mark.parametrize("levels", [3, 1000])  # with many ties, and with few
def test_the_share_among_the_likeliest_grows_from_accuracy_to_all(levels):
    random = torch.Generator().manual_seed(0)
    logits = torch.randint(levels, (400, 9), generator=random).float()
    labels = torch.randint(9, (400,), generator=random)
    shares = [top_accuracy(logits, labels, k) for k in range(1, 10)]
    assert shares[0] == score(logits, labels, "abcdefghi")["accuracy"]
    assert shares == sorted(shares) and shares[-1] == 1
    assert shares[4] == pytest.approx(5 / 9, abs=0.06)  # a guess, with ties as without


def test_a_thousand_classes_stay_readable(tmp_path, capsys):
    random = torch.Generator().manual_seed(0)
    classes = tuple(f"class {number:03}" for number in range(1000))
    labels = torch.arange(3000) % 1000
    logits = torch.randn(3000, 1000, generator=random)
    logits[torch.arange(3000), labels] += 20
    wrong = labels % 100 == 7  # each class whose name ends in 07 is taken for the next
    logits[wrong, labels[wrong] + 1] += 40
    evaluation = Evaluation(classes, tuple(f"{n}.jpg" for n in range(3000)), labels, logits)
    recipe, counts = Recipe(name="many"), dict.fromkeys(classes, 3)
    config = {"recipe": recipe.to_dict(), "data": "many", "classes": classes, "mean": runs.MEAN, "std": runs.STD}
    runs.write_json(tmp_path / "run.json", config | {"dataset": {"name": "many", "fingerprint": "", "photos": 3000}})
    write_report(tmp_path, evaluation, split="test", splits={"test": counts})
    report = Run(tmp_path).report()
    assert report["accuracy"] == 0.99 and report["top5"] == 1 and len(report["confusion"]) == 1000
    assert (tmp_path / "report.json").stat().st_size < 10e6
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "label", "predicted", "probability"] and len(rows) == 3001
    assert rows[1][:3] == ["0.jpg", "class 000", "class 000"] and float(rows[1][3]) > 0.99
    text = card.markdown(Run(tmp_path))
    assert len(text) < 10_000 and max(map(len, text.splitlines())) < 1000
    assert "1,000 classes, such as class 000, class 001 and class 002" in text
    assert "| class 007 | class 008 | 3 |" in text and "| test | 3,000 |" in text
    assert "**99.0 %** of 3,000 test photos" in text and "**100.0 %** the class is among the five likeliest" in text
    assert "| `1007.jpg` | class 007 | class 008 | 100.0 % |" in text
    print_confusion(report)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11 and "  class 107: 3 as class 108" in lines


def test_a_loss_beyond_float32_is_still_a_number():
    metrics = score(torch.tensor([[300.0, -300.0]]), torch.tensor([1]), ("cat", "dog"))
    assert metrics["loss"] == pytest.approx(600) and metrics["accuracy"] == 0


def test_auroc_counts_pairs():
    random = np.random.default_rng(3)
    inside, outside = random.integers(0, 9, 60) / 7, random.integers(-3, 6, 41) / 7  # many ties
    pairs = [(a > b) + (a == b) / 2 for a in inside for b in outside]
    assert auroc(torch.from_numpy(inside), torch.from_numpy(outside)) == pytest.approx(np.mean(pairs), rel=1e-12)


@pytest.mark.parametrize(
    ("inside", "outside", "expected"),
    [([3.0, 2.0], [1.0, 0.0, -1.0], 1), ([0.0], [1.0], 0), ([1.0, 1.0], [1.0], 0.5), ([2.0, 0.0], [1.0], 0.5)],
)
def test_auroc_by_hand(inside, outside, expected):
    assert auroc(torch.tensor(inside), torch.tensor(outside)) == expected


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
    with pytest.raises(DataError, match="class teapot, and this run knows only 1,000 others."):
        match_classes(["teapot"], [str(number) for number in range(1000)])


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


def test_ten_crops_are_measured_as_they_are_answered(classifier, tmp_path):
    random = np.random.default_rng(5)
    for n in range(6):
        (folder := tmp_path / f"noise/{('red', 'blue')[n % 2]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / f"{n}.png")
    ten = replace(classifier, transform=replace(classifier.transform, resize=24, five_crops=True))
    dataset = data.load(str(tmp_path / "noise"))
    logits = evaluate(ten, dataset, dataset.photos).logits
    squares = [ten.transform.crop_photo(dataset.open(photo)) for photo in dataset.photos]
    places = [(0, 0), (8, 0), (0, 8), (8, 8), (4, 4)]
    crops = [[square.crop((x, y, x + 16, y + 16)) for x, y in places] for square in squares]
    expected = torch.stack([classifier.answer(classifier.transform.stack(views)).mean(dim=0) for views in crops])
    assert torch.allclose(logits, expected, atol=1e-6)


def test_what_is_familiar_is_learnt_from_the_centre(tmp_path):
    torch.manual_seed(0)
    recipe = Recipe(image_size=67, resize=71, maps="8 8 8 8 8", hidden="16 16")
    network = model.from_recipe(recipe, 2).eval().requires_grad_(False)
    random = np.random.default_rng(6)
    for n in range(56):
        (folder := tmp_path / f"noise/{('cat', 'dog')[n % 2]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (71, 71, 3), np.uint8)).save(folder / f"{n}.png")
    dataset = data.load(str(tmp_path / "noise"))
    heads = []
    for crops in (False, True):
        (folder := tmp_path / str(crops)).mkdir()
        transform = EvalTransform.from_recipe(recipe.replace(five_crops=crops))
        classifier = Classifier(Run(folder), dataset.classes, transform, True, network, torch.device("cpu"))
        calibrate(classifier, dataset, dataset.photos[:3], training=dataset.photos[3:])
        heads.append(familiarity.load(folder, familiarity.width(network)))
    assert torch.equal(heads[0].hidden, heads[1].hidden)
    assert not torch.equal(heads[0].reference, heads[1].reference)  # scores are of all views


@pytest.mark.parametrize(("red", "blue"), [("reds", "blues"), ("Red", "BLUE"), ("RED", "Blues"), ("red", "blue")])
def test_full_size_photos_in_folders_of_any_such_name(classifier, tmp_path, red, blue):
    random = np.random.default_rng(4)
    for name, channel in ((red, 0), (blue, 2)):
        pixels = random.integers(0, 90, (2448, 3264, 3), np.uint8)
        pixels[..., channel] += 160
        (tmp_path / f"pets/{name}").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / f"pets/{name}/IMG_0001.JPG", quality=40)
    dataset = data.load(str(tmp_path / "pets"))
    metrics = evaluate(classifier, dataset, dataset.photos).metrics
    assert (metrics["count"], metrics["accuracy"], metrics["confusion"]) == (2, 1, [[1, 0], [0, 1]])


def test_calibrating_fits_writes_and_answers_as_the_loaded_run_would(classifier, colours):
    (folder := classifier.run.path).mkdir()
    plain = evaluate(classifier, colours, colours.photos)
    calibrated = calibrate(replace(classifier, temperature=7.0), colours, colours.photos)
    temperature = calibration.read(folder).temperature
    assert temperature == calibration.fit_temperature(plain.logits, plain.labels) != 1
    warm = evaluate(replace(classifier, temperature=temperature), colours, colours.photos)
    assert torch.equal(calibrated.logits, warm.logits) and calibrated.metrics == warm.metrics
    assert warm.metrics["confusion"] == plain.metrics["confusion"]


@pytest.fixture
def greys(tmp_path):
    """Photos of neither: in any layout, under any name, some damaged."""
    folder = tmp_path / "something else"
    for name, shade in (("a.png", 120), ("n02102040/b.JPEG", 60), ("train/red/c.png", 0), ("blue.1.jpg", 250)):
        paint(folder / name, (shade, shade, shade))
    (folder / "train/damaged.png").write_bytes(b"no picture")
    (folder / "readme.txt").write_text("words")
    return folder


def test_photos_of_neither_are_all_taken(classifier, colours, greys):
    told = []
    known = evaluate(classifier, colours, colours.photos)
    found = measure_neither(classifier, greys, known, lambda *step: told.append(step))
    assert found == {"auroc_neither": 1.0, "neither": {"count": 4, "skipped": 1}}
    assert told == [("Looking at photos of neither", 5, 5)]
    paint(greys / "blue.png", (0, 0, 255))  # as sure of this as of two of the four, and surer than of the others
    found = measure_neither(classifier, greys, known)
    assert found["auroc_neither"] == pytest.approx((4 + 0.5 * 2 / 4 + 0) / 5, abs=1e-6)


def test_a_folder_without_photos_of_neither_is_told(classifier, colours, greys, tmp_path):
    known = evaluate(classifier, colours, colours.photos)
    with pytest.raises(DataError, match="There is no folder .*nowhere"):
        measure_neither(classifier, tmp_path / "nowhere", known)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="There is no photo in the folder .*empty; give one that holds photos."):
        measure_neither(classifier, tmp_path / "empty", known)
    (tmp_path / "empty/a.jpg").write_text("words")
    with pytest.raises(DataError, match="No photo in .*empty can be read; give a folder of photos that show"):
        measure_neither(classifier, tmp_path / "empty", known)


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
