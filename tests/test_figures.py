"""Figures from plain data: nothing that matters is lost on the way to the screen."""

from __future__ import annotations

import json
import math
import random
import tomllib
from pathlib import Path

import pytest

from alexnet import figures

CONFIG = Path(__file__).parent.parent / ".streamlit" / "config.toml"


def record(epoch, step, split, accuracy, loss=0.5, **more):
    return {"epoch": epoch, "step": step, "split": split, "accuracy": accuracy, "loss": loss, **more}


RECORDS = [
    record(1, 5, "train", 0.5, partial=True),
    record(1, 10, "train", 0.55),
    record(1, 10, "val", 0.6),
    record(2, 15, "train", 0.65, partial=True),
    record(2, 20, "train", 0.7),
    record(2, 20, "val", 0.75),
    record(3, 30, "train", 0.8),
    record(3, 30, "val", 0.7),
    record(2, 30, "test", 0.74),
]


def trace(figure, uid):
    return next(t for t in figure.data if t.uid == uid)


def test_curves_lie_where_the_records_say():
    figure = figures.training_curves(RECORDS, epochs=4, steps=40, best_epoch=2)
    assert list(trace(figure, "accuracy-Training").x) == [1, 2, 3]
    assert list(trace(figure, "accuracy-Training").y) == [0.55, 0.7, 0.8]
    assert list(trace(figure, "accuracy-Validation").y) == [0.6, 0.75, 0.7]
    assert list(trace(figure, "accuracy-within").x) == [0.5, 1.5]
    assert list(trace(figure, "loss-Validation").y) == [0.5, 0.5, 0.5]


def test_the_best_epoch_is_marked_with_its_accuracy():
    figure = figures.training_curves(RECORDS, epochs=4, steps=40, best_epoch=2)
    assert [note.text for note in figure.layout.annotations] == ["best 75.0%, epoch 2"]
    assert {(line.x0, line.x1) for line in figure.layout.shapes} == {(2, 2)}


@pytest.mark.parametrize("best_epoch", [None, 9])
def test_no_best_epoch_yet_is_no_mark(best_epoch):
    assert not figures.training_curves(RECORDS, epochs=4, steps=40, best_epoch=best_epoch).layout.annotations


def test_a_run_without_records_has_its_axes():
    figure = figures.training_curves([], epochs=4, steps=0)
    assert figure.layout.xaxis.range[0] == 0 and 4 < figure.layout.xaxis.range[1] < 4.1
    assert all(len(t.x) == 0 for t in figure.data)


def test_partial_records_stay_within_their_epoch_while_the_number_of_steps_is_unknown():
    figure = figures.training_curves(RECORDS, epochs=4, steps=0)
    assert list(trace(figure, "accuracy-within").x) == [1, 2]


def test_a_long_run_is_sent_in_little_and_keeps_every_epoch():
    steps = 200 * 400
    records = [
        record(s // 400 + 1, s, "train", random.Random(s).random(), partial=True) for s in range(0, steps, 4)
    ] + [record(e, e * 400, split, 0.123456789) for e in range(1, 201) for split in ("train", "val")]
    figure = figures.training_curves(records, epochs=200, steps=steps, best_epoch=150)
    assert list(trace(figure, "loss-Validation").x) == list(range(1, 201))
    assert len(trace(figure, "accuracy-within").x) <= figures.MAX_PARTIAL_POINTS
    assert len(json.dumps(figure.to_plotly_json())) < 60_000


def test_hiding_training_hides_it_in_both_panels():
    figure = figures.training_curves(RECORDS, epochs=4, steps=40)
    grey = [t for t in figure.data if "Validation" not in t.uid]
    assert len(grey) == 4 and {t.legendgroup for t in grey} == {"Training"}
    assert sorted(t.name for t in figure.data if t.showlegend) == ["Training", "Validation"]


def test_thin_keeps_each_spike_in_its_place():
    points = [(float(i), math.sin(i / 500)) for i in range(10_000)]
    points[1234], points[8765] = (1234.0, 9.0), (8765.0, -9.0)
    kept = figures.thin(points, 100)
    assert len(kept) <= 100
    assert (1234.0, 9.0) in kept and (8765.0, -9.0) in kept
    assert kept == sorted(kept) and set(kept) <= set(points)


def test_thin_by_hand():
    points = [(0, 5), (1, 1), (2, 3), (3, 2), (4, 4), (5, 4), (6, 0), (7, 9)]
    assert figures.thin(points, 4) == [(0, 5), (1, 1), (6, 0), (7, 9)]
    assert figures.thin(points, 8) == points
    assert figures.thin([], 4) == []


def test_learning_rate_curve_shows_the_points_as_they_are():
    figure = figures.learning_rate_curve([(0.0, 0.001), (1.0, 0.02), (2.0, 0.0)])
    assert list(figure.data[0].x) == [0, 1, 2] and list(figure.data[0].y) == [0.001, 0.02, 0]
    assert list(figure.layout.xaxis.range) == [0, 2]


def test_validation_curves_have_the_best_on_top_and_in_colour():
    curves = {"trial-1": [(1, 0.5), (2, 0.75)], "trial-2": [(1, 0.25)], "trial-3": []}
    figure = figures.validation_curves(curves, epochs=5, best="trial-1")
    assert [t.name for t in figure.data] == ["trial-2", "trial-3", "trial-1"]
    assert [t.line.color for t in figure.data] == [figures.TRAINING, figures.TRAINING, figures.VALIDATION]
    assert list(figure.data[2].x) == [1, 2] and list(figure.data[2].y) == [0.5, 0.75]
    assert 5 < figure.layout.xaxis.range[1] < 5.1


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((0.001, 0.01), "log"),
        ((0.001, 0.009), "linear"),
        ((0, 5), "linear"),
        (("sgd", "adam"), "category"),
        ((), "linear"),
    ],
)
def test_accuracies_lie_at_their_values_on_an_axis_that_suits_them(values, kind):
    points = [(f"trial-{n}", value, 0.5 + n / 10) for n, value in enumerate(values)]
    figure = figures.accuracy_by_value("Setting", points, best="trial-1")
    assert figure.layout.xaxis.type == kind and figure.layout.xaxis.title.text == "Setting"
    assert list(figure.data[0].x) == list(values) and list(figure.data[0].y) == [0.5, 0.6][: len(values)]
    assert list(figure.data[0].marker.color) == [figures.TRAINING, figures.VALIDATION][: len(values)]


BINS = [
    {"count": 40, "confidence": 0.6, "accuracy": 0.5, "interval": [0.35, 0.65]},
    {"count": 1060, "confidence": 0.95, "accuracy": 0.96, "interval": [0.947, 0.97]},
]


def test_reliability_shows_the_points_with_their_intervals_and_counts():
    figure = figures.reliability(BINS)
    diagonal, measured = figure.data
    assert list(measured.x) == [0.6, 0.95] and list(measured.y) == [0.5, 0.96]
    assert list(measured.error_y.array) == [0.15, 0.01] and list(measured.error_y.arrayminus) == [0.15, 0.013]
    assert list(measured.customdata) == [40, 1060]
    assert list(diagonal.x) == list(diagonal.y) == [0.3, 1]
    assert list(figure.layout.xaxis.range) == list(figure.layout.yaxis.range) == [0.3, 1.01]


def test_reliability_of_no_photo_has_its_axes():
    assert list(figures.reliability([]).layout.xaxis.range) == [0.5, 1.01]


def test_cats_and_dogs_keep_their_colours_and_other_classes_get_their_own():
    assert figures.class_color("Cat") == figures.class_color("cats", 5) == figures.CAT
    assert figures.class_color("dog") == figures.DOG
    others = {figures.class_color(name, i) for i, name in enumerate("abcdefgh")}
    assert len(others) == 8 and not others & {figures.CAT, figures.DOG}
    assert figures.class_color("i", 8) == figures.class_color("a", 0)


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_stands_out_from_the_page(theme):
    """WCAG 2.1, 1.4.11: graphics need a contrast of 3 with what is next to them."""
    page = luminance(tomllib.loads(CONFIG.read_text())["theme"][theme]["backgroundColor"])
    for color in (figures.CAT, figures.DOG, figures.TRAINING, figures.VALIDATION, *figures.OTHER_CLASSES):
        low, high = sorted((page, luminance(color)))
        assert (high + 0.05) / (low + 0.05) >= 3, color


def test_an_exchange_curve_spans_all_pixels_and_lies_beside_chance():
    figure = figures.exchange_curve([0.9, 0.4, 0.1], [0.9, 0.8, 0.1], "removed", "cat")
    own, chance = figure.data
    assert list(own.x) == list(chance.x) == [0, 0.5, 1]
    assert list(own.y) == [0.9, 0.4, 0.1] and list(chance.y) == [0.9, 0.8, 0.1]
    assert chance.line.dash == "dot" and own.line.dash is None
    assert figure.layout.xaxis.title.text == "Pixels removed"
    assert figure.layout.yaxis.title.text == "Probability of cat"


def test_rank_correlations_keep_the_order_of_the_stages_and_show_negative_ones():
    figure = figures.rank_correlations(["fc8", "conv1"], [0.9, -0.4], limit=0.5)
    (bars,) = figure.data
    assert list(bars.x) == ["fc8", "conv1"] and list(bars.y) == [0.9, -0.4]
    assert figure.layout.yaxis.range[0] < -0.4 and figure.layout.yaxis.range[1] > 1
    assert {shape.y0 for shape in figure.layout.shapes} == {0, 0.5}


def test_curves_keep_their_points_and_the_colour_of_the_class():
    points = [(0, 0), (0, 0.5), (0.25, 0.75), (1, 1)]
    chance, roc = figures.roc(points, "dog", figures.DOG).data
    assert list(zip(roc.x, roc.y, strict=True)) == points and roc.line.color == figures.DOG
    assert [list(chance.x), list(chance.y)] == [[0, 1], [0, 1]]
    chance, steps = figures.precision_recall(points, "cat", figures.CAT, share=0.3).data
    assert steps.line.shape == "vh" and steps.line.color == figures.CAT and list(chance.y) == [0.3, 0.3]


def test_a_curve_of_many_points_is_sent_in_little_with_both_ends():
    points = [(i / 49_999, (i / 49_999) ** 0.2) for i in range(50_000)]
    curve = figures.roc(points, "cat", figures.CAT).data[1]
    assert len(curve.x) <= figures.MAX_PARTIAL_POINTS
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("points", [[(0.5, 0), (1, 0.2)], [(0.5, 0), (1, 0)]])
def test_risk_has_room_for_its_highest_point(points):
    figure = figures.risk_coverage(points, overall=points[-1][1])
    low, high = figure.layout.yaxis.range
    assert low <= 0 and high > points[-1][1]


def test_accuracies_have_their_intervals_and_colours_from_top_to_bottom():
    rows = [
        {"name": name, "accuracy": 0.8, "interval": [0.7, 0.85], "count": 10, "color": figures.class_color(name)}
        for name in ("cat", "dog")
    ]
    figure = figures.accuracies(rows, overall=0.6)
    assert [(t.marker.color, t.error_x.color) for t in figure.data] == [(c, c) for c in (figures.CAT, figures.DOG)]
    assert figure.data[0].error_x.array == (0.05,) and figure.data[0].error_x.arrayminus == (0.1,)
    top, bottom = figure.layout.yaxis.range
    assert list(figure.layout.yaxis.categoryarray) == ["cat", "dog"] and top > bottom
    low, high = figure.layout.xaxis.range
    assert low < 0.6 and high > 0.85
