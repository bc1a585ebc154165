"""What runs side by side say, with answers known beforehand."""

from __future__ import annotations

import pytest

from alexnet import compare, runs
from alexnet.compare import CompareError
from alexnet.recipes import RECIPES
from alexnet.runs import Run
from alexnet.significance import Paired

BASE = RECIPES["first-run"]
HEADER = "file,label,predicted,cat,dog\n"


@pytest.fixture
def make(tmp_path):
    """Makes a run of that name whose predictions are these lines."""

    def make(name: str, rows: str | None, fingerprint: str = "same") -> Run:
        dataset = {"name": "pets", "fingerprint": fingerprint, "photos": 9}
        folder = tmp_path / name
        folder.mkdir()
        runs.write_json(folder / "run.json", runs.configuration(BASE, ["cat", "dog"], "pets", dataset))
        if rows is not None:
            (folder / "predictions.csv").write_text(rows, encoding="utf-8")
        return Run(folder)

    return make


def test_only_settings_that_differ_are_told_and_names_are_no_settings():
    recipes = [BASE, BASE.replace(lr=0.3, title="Other"), BASE.replace(optimizer="adam")]
    assert compare.differing(recipes) == {"optimizer": ["sgd", "sgd", "adam"], "lr": [BASE.lr, 0.3, BASE.lr]}
    assert compare.differing([BASE, BASE.replace(name="custom", source="Mine.")]) == {}


def test_smoothing_by_hand():
    assert compare.smooth([1.0, 0.0, 0.0], 0.5) == pytest.approx([1.0, 0.25 / 0.75, 0.125 / 0.875])
    assert compare.smooth([3.0, 5.0], 0.0) == [3.0, 5.0]
    assert compare.smooth([2.0] * 9, 0.95) == pytest.approx([2.0] * 9)
    assert compare.smooth([], 0.5) == []


def test_curves_by_epoch_and_by_minutes():
    records = [
        {"epoch": 1, "split": "train", "loss": 9.0, "accuracy": 0.1, "seconds": 30, "partial": True},
        {"epoch": 1, "split": "train", "loss": 2.0, "accuracy": 0.5, "seconds": 60},
        {"epoch": 1, "split": "val", "loss": 1.0, "accuracy": 0.6, "seconds": 90},
        {"epoch": 2, "split": "val", "loss": 0.5, "accuracy": 0.7},
        {"epoch": 3, "split": "val", "loss": 0.4, "accuracy": 0.8, "seconds": "long"},
    ]
    assert compare.curve(records, "val", "accuracy", "epoch") == [(1, 0.6), (2, 0.7), (3, 0.8)]
    assert compare.curve(records, "val", "loss", "minutes") == [(1.5, 1.0)]
    assert compare.curve(records, "train", "loss", "epoch") == [(1, 2.0)]


def test_photos_are_matched_by_file_whatever_their_order(make):
    first = make("first", HEADER + "a.jpg,cat,cat,1,0\nb.jpg,cat,dog,0,1\nc.jpg,dog,dog,0,1\nonly.jpg,dog,cat,1,0\n")
    second = make(
        "second", HEADER + '"x, y.jpg",cat,cat,1,0\nc.jpg,dog,cat,1,0\nb.jpg,cat,cat,1,0\na.jpg,cat,cat,1,0\n'
    )
    assert compare.same_photos(first, second) == Paired(both=1, only_first=1, only_second=1, neither=0)


def test_other_photos_are_no_comparison(make):
    rows = HEADER + "a.jpg,cat,cat,1,0\n"
    first = make("first", rows)
    with pytest.raises(CompareError, match="made for different photos"):
        compare.same_photos(first, make("other", rows, fingerprint="another"))
    with pytest.raises(CompareError, match="tested on different photos"):
        compare.same_photos(first, make("disjoint", HEADER + "b.jpg,cat,cat,1,0\n"))


@pytest.mark.parametrize("rows", ["", "\x00", "file\n", HEADER + "a.jpg,cat\n", "name,label,predicted\na,b,c\n"])
def test_damaged_predictions_are_one_sentence(make, rows):
    with pytest.raises(CompareError, match=r"The predictions.csv of damaged cannot be read; evaluate the run again."):
        compare.outcomes(make("damaged", rows))


def test_predictions_that_are_missing_or_in_another_encoding_are_one_sentence(make):
    with pytest.raises(CompareError, match="has no predictions yet"):
        compare.outcomes(make("none", None))
    run = make("latin", "")
    (run.path / "predictions.csv").write_bytes(HEADER.encode() + b"\xe9.jpg,cat,cat,1,0\n")
    with pytest.raises(CompareError, match="cannot be read"):
        compare.outcomes(run)
