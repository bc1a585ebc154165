"""Measures against numbers worked out by hand, published ones, and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn import metrics

from alexnet.measures import (
    by_class,
    by_size,
    expected_calibration_error,
    frequent_confusions,
    interval,
    precision_recall,
    reliability,
    risk,
    risk_coverage,
    roc,
)


def test_accuracy_by_class_by_hand():
    found = by_class([[9, 1, 2], [0, 0, 0], [3, 0, 1]], ("ant", "bee", "cow"))
    assert found == {
        "ant": {"count": 12, "accuracy": 0.75},
        "bee": {"count": 0, "accuracy": None},
        "cow": {"count": 4, "accuracy": 0.25},
    }


def test_frequent_confusions_by_hand():
    confusion = [[9, 0, 2], [3, 5, 2], [0, 1, 4]]
    mistakes = [("bee", "ant", 3), ("ant", "cow", 2), ("bee", "cow", 2), ("cow", "bee", 1)]
    assert frequent_confusions(confusion, ("ant", "bee", "cow"), 10) == mistakes
    assert frequent_confusions(confusion, ("ant", "bee", "cow"), 2) == mistakes[:2]
    assert frequent_confusions([[3, 0], [0, 4]], ("ant", "bee"), 10) == []


@pytest.mark.parametrize(
    ("tops", "rights", "error"),
    [
        ([0.8] * 10 + [0.6] * 5, [1] * 8 + [0] * 2 + [1] * 3 + [0] * 2, 0),  # right as often as it says
        ([0.95] * 8, [1, 0] * 4, 0.45),  # always too sure
        ([0.55] * 8, [1] * 8, 0.45),  # never sure enough
        ([1.0] * 4, [1] * 4, 0),
        ([0.7, 0.72], [1, 0], 0.21),  # one bin
        ([0.7, 0.75], [1, 0], (0.3 + 0.75) / 2),  # two of them
    ],
)
def test_calibration_error_by_hand(tops, rights, error):
    bins = reliability(tops, rights)
    assert expected_calibration_error(bins) == pytest.approx(error)


def test_reliability_against_one_photo_after_the_other():
    """Confidences in sixtieths, as low as many classes make them, many alike, and some on the edges between fifteen bins."""
    random = np.random.default_rng(2)
    tops, rights = random.integers(1, 61, 300) / 60, random.integers(0, 2, 300)
    expected = []
    for number in range(15):
        inside = [(t, r) for t, r in zip(tops, rights, strict=True) if number / 15 < t <= (number + 1) / 15]
        if inside:
            expected.append((len(inside), *np.mean(inside, axis=0)))
    bins = reliability(tops, rights)
    found = [(b["count"], b["confidence"], b["accuracy"]) for b in bins]
    assert np.allclose(found, expected) and len(found) == 15
    gaps = [count * abs(confidence - accuracy) for count, confidence, accuracy in expected]
    assert expected_calibration_error(bins) == pytest.approx(sum(gaps) / 300)
    assert [b["interval"] for b in bins] == [interval(b["accuracy"], b["count"]) for b in bins]


@pytest.mark.parametrize(
    ("tops", "rights", "coverage", "error"),
    [
        ([0.99, 0.9, 0.8, 0.7, 0.6, 0.95, 0.85, 0.75, 0.65, 0.55], [1, 1, 0, 1, 1, 1, 1, 1, 1, 0], 0.9, 1 / 9),
        ([0.6, 0.7, 0.8, 0.9], [0, 1, 1, 1], 0.5, 0),
        ([0.6, 0.7, 0.8, 0.9], [0, 1, 1, 0], 1.0, 0.5),
        ([0.7], [0], 0.9, 1),
        ([0.9, 0.9, 0.9, 0.9], [0, 1, 1, 1], 0.5, 1 / 4),  # whatever their order
    ],
)
def test_risk_by_hand(tops, rights, coverage, error):
    assert risk(tops, rights, coverage) == pytest.approx(error)


def test_risk_is_the_mean_over_all_orders_of_photos_that_tie():
    tops, rights = [0.9, 0.6, 0.8, 0.8, 0.8, 0.6], [1, 0, 0, 1, 1, 1]
    orders = [sorted(order, key=lambda i: -tops[i])[:3] for order in itertools.permutations(range(6))]
    mean = np.mean([[1 - rights[i] for i in kept] for kept in orders])
    assert risk(tops, rights, 0.5) == pytest.approx(mean)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0000),
    ],
)
def test_interval_against_published_values(right, count, low, high):
    assert interval(right / count, count) == pytest.approx([low, high], abs=5e-5)


def test_no_rounding_takes_an_interval_beyond_its_limits():
    for count in range(1, 100):
        assert interval(0, count)[0] == pytest.approx(0) and interval(0, count)[0] >= 0
        assert interval(1, count)[1] == pytest.approx(1) and interval(1, count)[1] <= 1


SCORES = [0.9, 0.8, 0.8, 0.6, 0.4]
POSITIVE = [1, 1, 0, 0, 1]


def test_roc_by_hand():
    """A positive and a negative photo tie at 0.8: the threshold passes both, and their pair counts half."""
    curve = roc(SCORES, POSITIVE)
    assert curve.x.tolist() == [0, 0, 1 / 2, 1, 1]
    assert curve.y.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert curve.area == pytest.approx((2 + 1 + 0.5) / 6)  # of 6 pairs, 0.9 wins 2, 0.8 wins 1 and ties 1, 0.4 none


def test_precision_recall_by_hand():
    curve = precision_recall(SCORES, POSITIVE)
    assert curve.x.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert curve.y.tolist() == pytest.approx([1, 1, 2 / 3, 2 / 4, 3 / 5])
    assert curve.area == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


@pytest.mark.parametrize(("curve", "best", "worst"), [(roc, 1, 0), (precision_recall, 1, (1 / 3 + 2 / 4) / 2)])
def test_areas_of_a_perfect_a_reversed_and_an_empty_answer(curve, best, worst):
    positive = [True, True, False, False]
    assert curve([4, 3, 2, 1], positive).area == best
    assert curve([1, 2, 3, 4], positive).area == pytest.approx(worst)
    assert curve([1, 1, 1, 1], positive).area == 0.5  # a single threshold: no better than chance, half of them positive
    assert curve([1, 2], [False, False]) is None


def test_roc_needs_negatives_and_precision_does_not():
    assert roc([1, 2], [True, True]) is None
    assert precision_recall([1, 2], [True, True]).area == 1


@pytest.mark.parametrize("levels", [3, 40, 10**6])  # from many ties to none
def test_areas_and_points_against_scikit_learn(levels):
    random = np.random.default_rng(levels)
    positive = random.random(400) < 0.3
    scores = np.round((random.random(400) + 0.3 * positive) * levels) / levels
    curve, steps = roc(scores, positive), precision_recall(scores, positive)
    x, y, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
    assert np.allclose([curve.x, curve.y], [x, y])
    assert curve.area == pytest.approx(metrics.roc_auc_score(positive, scores), rel=1e-12)
    precision, recall, _ = metrics.precision_recall_curve(positive, scores)
    assert np.allclose([steps.x[1:], steps.y[1:]], [recall[-2::-1], precision[-2::-1]])
    assert steps.area == pytest.approx(metrics.average_precision_score(positive, scores), rel=1e-12)


def test_risk_coverage_by_hand():
    """Right, then one of two that tie wrong, then wrong: 0, half a mistake of 2, 1 of 3, 2 of 4."""
    curve = risk_coverage([0.6, 0.9, 0.8, 0.8], [0, 1, 0, 1])
    assert curve.x.tolist() == [1 / 4, 2 / 4, 3 / 4, 1]
    assert curve.y.tolist() == pytest.approx([0, 1 / 4, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((0 + 1 / 4 + 1 / 3 + 1 / 2) / 4)


def test_the_order_of_photos_changes_no_measure():
    random = np.random.default_rng(5)
    scores, marked = random.integers(0, 5, 60) / 4, random.integers(0, 2, 60)
    other = random.permutation(60)
    for measure in (roc, precision_recall, risk_coverage):
        one, two = measure(scores, marked), measure(scores[other], marked[other])
        assert np.allclose(one.y, two.y) and one.area == pytest.approx(two.area, rel=1e-12)


def test_accuracy_by_size_by_hand():
    found = by_size([63, 64, 95, 200, 255, 5000], [1, 1, 0, 0, 1, 1])
    assert [(b["low"], b["high"], b["count"], b["accuracy"]) for b in found] == [
        (None, 63, 1, 1), (64, 95, 2, 0.5), (192, 255, 2, 0.5), (2048, None, 1, 1)
    ]  # fmt: skip
    assert found[1]["interval"] == interval(0.5, 2)
