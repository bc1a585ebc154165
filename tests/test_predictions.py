"""What a run's predictions.csv says, against what was written into it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from alexnet import predictions, runs
from alexnet.data import Dataset, Photo, Report
from alexnet.evaluate import Evaluation, write_report
from alexnet.runs import Run, RunError

TABLE = """file,label,predicted,cat,dog
a/1.jpg,cat,cat,0.900000,0.100000
a/2.jpg,cat,dog,0.200000,0.800000
b/3.jpg,dog,cat,0.999999,0.000001
b/4.jpg,dog,dog,0.300000,0.700000
"b/5, five.jpg",dog,cat,1.000000,0.000000
a/6.jpg,cat,cat,0.950000,0.050000
"""


@pytest.fixture
def read(tmp_path):
    def read(table: str | bytes, classes=("cat", "dog")) -> predictions.Predictions:
        (tmp_path / predictions.FILE).write_bytes(table if isinstance(table, bytes) else table.encode())
        return predictions.read(tmp_path, classes)

    return read


def test_a_table_is_read_as_it_stands(read):
    found = read(TABLE)
    assert found.files[4] == "b/5, five.jpg" and found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1, 1, 1, 0] and found.predicted.tolist() == [0, 1, 0, 1, 0, 0]
    assert found.right.tolist() == [True, False, False, True, False, True]
    assert found.confidence.tolist() == [0.9, 0.8, 0.999999, 0.7, 1, 0.95]
    assert found.confusion.tolist() == [[2, 1], [2, 1]]


def test_a_cell_lists_its_photos_most_confident_first(read):
    found = read(TABLE)
    assert found.cell(0, 0).tolist() == [5, 0]
    assert found.cell(1, 0).tolist() == [4, 2]
    assert found.cell(0, 1).tolist() == [1]


def test_losses_order_the_mistakes_and_are_finite(read):
    found = read(TABLE)
    assert found.losses[[0, 1]] == pytest.approx([-math.log(0.9), -math.log(0.2)])
    assert math.isfinite(found.losses[4]) and found.losses[4] > found.losses[2]
    assert found.by_loss(mistakes=True).tolist() == [4, 2, 1]
    assert found.by_loss(mistakes=False).tolist() == [4, 2, 1, 3, 0, 5]


def test_of_many_classes_the_loss_is_the_least_that_it_can_be(read):
    found = read("file,label,predicted,probability\nx,ant,ant,0.8\ny,bee,ant,0.9\n", ("ant", "bee", "cow"))
    assert found.probabilities is None and found.confidence.tolist() == [0.8, 0.9]
    assert found.losses == pytest.approx([-math.log(0.8), -math.log(0.1)])


@pytest.mark.parametrize("count", [3, 101])
def test_what_an_evaluation_writes_is_read_again(tmp_path, count):
    classes = tuple(f"class {n}" for n in range(count))
    logits = torch.randn(50, count, generator=torch.Generator().manual_seed(count))
    labels = torch.arange(50) % count
    evaluation = Evaluation(classes, tuple(f"{n}.jpg" for n in range(50)), labels, logits)
    write_report(tmp_path, evaluation, split="test")
    found, report = predictions.read(tmp_path, classes), Run(tmp_path).report()
    assert found.files == evaluation.files and found.confusion.tolist() == report["confusion"]
    assert found.confidence == pytest.approx(logits.softmax(1).amax(1).numpy(), abs=1e-6)
    if count == 3:
        assert found.losses.mean() == pytest.approx(report["loss"], abs=1e-5)


@pytest.mark.parametrize(
    "table",
    [
        "",
        "file,label,predicted,cat,dog\n",
        TABLE.replace("cat,dog\n", "ant,bee\n", 1),  # of another run
        TABLE.replace("a/2.jpg,cat,dog,0.200000", "a/2.jpg,cat,dog"),  # torn
        TABLE.replace("0.900000", "high"),
        TABLE.replace("0.900000", "nan"),
        TABLE.replace("a/1.jpg,cat", "a/1.jpg,cow"),
        TABLE.encode() + b"\xff",
        TABLE.replace("a/1.jpg", "a" * 200_000),  # more than a field may hold
    ],
)
def test_a_damaged_table_is_one_sentence(read, table):
    with pytest.raises(RunError, match="cannot be read; delete the file and evaluate"):
        read(table)


def test_no_table_is_one_sentence(tmp_path):
    with pytest.raises(RunError, match="has no predictions.csv"):
        predictions.read(tmp_path, ("cat", "dog"))


def dataset(digest: str = "1") -> Dataset:
    photos = (Photo("cat/1.jpg", 0, None, digest, 20, 10), Photo("dog/2.jpg", 1, None, "2", 20, 10))
    return Dataset("pets", Path("pets"), ("cat", "dog"), photos, Report(2, 2, (), {"cat": 1, "dog": 1}))


def test_the_place_of_an_evaluation_follows_from_photos_split_and_network(tmp_path):
    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.weights.write_bytes(b"one")
    place = predictions.place(run, dataset(), "val")
    assert place.parent == run.path / "evaluations" and place.name.startswith("val-")
    assert place == predictions.place(run, dataset(), "val")
    others = [predictions.place(run, dataset("changed"), "val"), predictions.place(run, dataset(), "train")]
    (run.path / "calibration.json").write_text("{}")
    others.append(predictions.place(run, dataset(), "val"))
    run.weights.write_bytes(b"two")
    others.append(predictions.place(run, dataset(), "val"))
    assert len({place, *others}) == 5


def test_stored_evaluations_are_those_of_the_network_as_it_is_now(tmp_path):
    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.weights.write_bytes(b"one")
    assert list(predictions.stored(run, predictions.network(run))) == []
    about = {"split": "val", "data": "pets", "network": predictions.network(run)}
    for name, report in {"val-1": about, "val-2": {**about, "network": "other"}, "val-3": {"split": "val"}}.items():
        folder = run.path / "evaluations" / name
        folder.mkdir(parents=True)
        runs.write_json(folder / "report.json", report)
        (folder / predictions.FILE).write_text(TABLE)
    (run.path / "evaluations" / "val-4").mkdir()  # left by somebody
    found = predictions.stored(run, about["network"])
    assert [(folder.name, report) for folder, report in found] == [("val-1", about)]
