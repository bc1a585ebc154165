"""The weights that ship: a real photo, and the figures of their report."""

from __future__ import annotations

import pytest
from PIL import Image

from alexnet import runs
from alexnet.predict import load_classifier

LARGEST = 24_000_000  # bytes; binary history never shrinks


@pytest.fixture(scope="module")
def shipped():
    return runs.find("cats-dogs")


def test_a_real_cat_is_called_a_cat(shipped):
    chelsea = pytest.importorskip("skimage.data").chelsea()
    prediction = load_classifier(shipped)([Image.fromarray(chelsea)])[0]
    assert prediction.label == "cat"
    assert prediction.probabilities["cat"] > 0.5


def test_the_file_is_small_and_the_report_is_its_own(shipped):
    report = shipped.report()
    assert shipped.weights.stat().st_size <= LARGEST
    assert report["accuracy"] >= 0.95
    assert report["ece"] <= 0.015 and report["risk_at_90"] <= 0.02
    assert sum(map(sum, report["confusion"])) == report["count"] == 2500
    rows = (shipped.path / "predictions.csv").read_text().splitlines()[1:]
    right = sum(row.split(",")[1] == row.split(",")[2] for row in rows)
    assert right / len(rows) == report["accuracy"]


def test_no_place_on_the_machine_that_trained_is_told(shipped):
    assert shipped.config["data"] == "dogs-vs-cats"
