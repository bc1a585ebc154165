"""Measures of answers, from plain numbers and without torch: what `evaluate` reports and what a page draws are the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

BINS = 15  # of the top probability, as in Guo et al. 2017 (arXiv 1706.04599)
MOST_SHOWN = 12  # classes up to which people are told all of them, and all their confusions
SIDES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)  # px, where the bins of `by_size` meet


class Curve(NamedTuple):
    """The points of a curve, x ascending, as float64 (K,), and its `area` as the function that makes it says."""

    x: np.ndarray
    y: np.ndarray
    area: float


def interval(accuracy: float, count: int) -> list[float]:
    """Lower and upper end of the 95 % confidence interval of an accuracy on `count` photos (Wilson 1927)."""
    z = 1.959963984540054
    middle = accuracy + z * z / (2 * count)
    reach = z * math.sqrt(accuracy * (1 - accuracy) / count + z * z / (4 * count * count))
    low, high = ((middle + sign * reach) / (1 + z * z / count) for sign in (-1, 1))
    return [max(0.0, low), min(1.0, high)]


def by_class(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each class, a row of `confusion`, `count` and `accuracy` (0 to 1, None where there is no photo)."""
    counts = {name: (row[index], sum(row)) for index, (name, row) in enumerate(zip(classes, confusion, strict=True))}
    return {
        name: {"count": total, "accuracy": right / total if total else None} for name, (right, total) in counts.items()
    }


def by_size(sides: ArrayLike, right: ArrayLike) -> list[dict[str, Any]]:
    """How often photos of each size are answered rightly.

    Args:
        sides: `(N,)`, the shorter side of each photo in pixels.
        right: `(N,)` bool.

    Returns:
        For each bin between `SIDES` that holds a photo, small ones first: `low` and `high` (px, the first and the last
        side in it; None where it has no such end), `count`, `accuracy` (0 to 1) and its `interval` (95 %).
    """
    place, right = np.digitize(np.asarray(sides), SIDES), np.asarray(right, bool)
    found = []
    for index in np.unique(place).tolist():
        low, high = (SIDES[index - 1] if index else None), (SIDES[index] - 1 if index < len(SIDES) else None)
        found.append({"low": low, "high": high, **_accuracy(right[place == index])})
    return found


def _accuracy(right: np.ndarray) -> dict[str, Any]:
    count, accuracy = len(right), float(right.mean())
    return {"count": count, "accuracy": accuracy, "interval": interval(accuracy, count)}


def frequent_confusions(
    confusion: Sequence[Sequence[int]], classes: Sequence[str], most: int
) -> list[tuple[str, str, int]]:
    """True class, predicted class and count of the `most` frequent mistakes in a confusion matrix."""
    wrong = (
        (count, true, predicted)
        for true, row in enumerate(confusion)
        for predicted, count in enumerate(row)
        if count and true != predicted
    )
    chosen = sorted(wrong, key=lambda mistake: -mistake[0])[:most]
    return [(classes[true], classes[predicted], count) for count, true, predicted in chosen]


def reliability(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> list[dict[str, Any]]:
    """How often the network is right where it is so sure: photos in equal-width bins of their top probability.

    Args:
        confidence: `(N,)` float, the top probabilities, 0 to 1.
        right: `(N,)` bool.
        bins: how many divide 0 to 1; each holds its upper edge.

    Returns:
        For each bin that holds a photo `count`, `confidence` (mean top probability), `accuracy` and `interval` (95 %).
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    place = np.searchsorted(np.arange(1, bins) / bins, confidence)
    inside = (place == index for index in np.unique(place))
    return [{"confidence": float(confidence[mask].mean()), **_accuracy(right[mask])} for mask in inside]


def expected_calibration_error(bins: Sequence[dict[str, Any]]) -> float:
    """The mean distance of confidence from accuracy, weighted by the photos in each of the bins of `reliability`.

    Naeini et al. 2015, as Guo et al. 2017 (arXiv 1706.04599, section 2) have it.
    """
    total = sum(b["count"] for b in bins)
    return sum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / total


def risk_coverage(confidence: ArrayLike, right: ArrayLike) -> Curve:
    """The error rate (y) of each share of photos (x) with the highest confidence (El-Yaniv and Wiener 2010).

    Photos that tie count alike, so that their order does not matter. The area is the mean over the N shares, AURC in
    Geifman et al. 2019 (arXiv 1805.08206, section 2).

    Args:
        confidence: `(N,)` float, higher where the network is surer; N is 1 or more.
        right: `(N,)` bool.
    """
    wrong, correct, seen = _totals(confidence, ~np.asarray(right, bool))
    counts = np.arange(1, seen[-1] + 1)
    risks = np.interp(counts, [0, *seen], [0, *wrong]) / counts
    return Curve(counts / seen[-1], risks, float(risks.mean()))


def risk(confidence: ArrayLike, right: ArrayLike, coverage: float) -> float:
    """The point of `risk_coverage` at the share `coverage` of photos."""
    risks = risk_coverage(confidence, right).y
    return float(risks[max(1, round(coverage * len(risks))) - 1])


def roc(scores: ArrayLike, positive: ArrayLike) -> Curve | None:
    """The true positive rate (y) over the false positive rate (x), a point for each score as the threshold.

    Photos that tie pass the threshold together, so that the area counts their pairs half (Fawcett 2006, section 5).

    Args:
        scores: `(N,)` float, higher where the network takes a photo for a positive one.
        positive: `(N,)` bool.

    Returns:
        The curve from (0, 0) to (1, 1) and the area under it; None where all photos are positive, or none is.
    """
    found, alarms, _ = _totals(scores, positive)
    if not found[-1] or not alarms[-1]:
        return None
    x, y = (np.concatenate([[0.0], counts / counts[-1]]) for counts in (alarms, found))
    return Curve(x, y, float(np.trapezoid(y, x)))


def precision_recall(scores: ArrayLike, positive: ArrayLike) -> Curve | None:
    """Precision (y) over recall (x), a point for each score as the threshold; arguments as for `roc`.

    Between two points precision is that of the right one. The area is that of these steps, known as average precision: a
    straight line between points would promise what no threshold gives (Davis and Goadrich 2006, section 3).

    Returns:
        The curve from recall 0 on; None where no photo is positive.
    """
    found, _, seen = _totals(scores, positive)
    if not found[-1]:
        return None
    recall, precision = found / found[-1], found / seen
    area = float(np.sum(np.diff(recall, prepend=0.0) * precision))
    return Curve(np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision]), area)


def _totals(scores: ArrayLike, marked: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the photos down to each score that occurs, highest first: how many are marked, are not, and are there."""
    scores, marked = np.asarray(scores, float), np.asarray(marked, bool)
    order = np.argsort(-scores)
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    found = np.cumsum(marked[order])[last]
    return found, last + 1 - found, last + 1
