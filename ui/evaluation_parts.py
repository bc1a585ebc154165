"""An evaluation, looked at from five sides; a part is computed when it is opened."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import streamlit as st

from alexnet import figures, images, measures
from alexnet.predictions import Predictions
from ui.charts import live_chart
from ui.confusion import Cell, choose_cell
from ui.datasets import dataset
from ui.gallery import Examined, first_page, show_gallery
from ui.page import numbers, plain

COVERAGE = 0.9  # of the photos, at which the risk is told
HEIGHT = 340  # px of a figure
MOST_ROWS = 40  # classes whose accuracy is drawn
MOST_PILLS = 8  # classes that can be clicked; more of them are in a list
WHICH = ("Mistakes", "All")


def show_parts(examined: Examined) -> None:
    """The figures of all photos, and the part that was chosen."""
    found = examined.predictions
    accuracy = float(found.right.mean())
    low, high = measures.interval(accuracy, len(found.right))
    bins = measures.reliability(found.confidence, found.right)
    risk = measures.risk(found.confidence, found.right, COVERAGE)
    numbers({
        "Accuracy": f"{accuracy:.1%}",
        "95% interval": f"{low:.1%} to {high:.1%}",
        "Right": f"{found.right.sum():,} of {len(found.right):,}",
        "Calibration error": f"{measures.expected_calibration_error(bins):.1%}",
        f"Wrong of the surest {COVERAGE:.0%}": f"{risk:.1%}",
    })  # fmt: skip
    parts = {
        "Confusion": _show_confusion,
        "Curves": _show_curves,
        "Confidence": _show_confidence,
        "Classes and sizes": _show_groups,
        "Photos": _show_photos,
    }
    part = st.segmented_control(
        "Part", list(parts), default="Confusion", required=True, key="part", bind="query-params",
        label_visibility="collapsed", on_change=first_page,
    )  # fmt: skip
    parts[part](examined)


def _show_confusion(examined: Examined) -> None:
    """The matrix; the photos of the cell that was clicked."""
    found, chosen = examined.predictions, _cell(len(examined.predictions.classes))
    left, right = st.columns([2, 3], gap="medium") if len(found.classes) < 5 else (st.container(), st.container())
    with left:
        choose_cell(found.confusion, found.classes, chosen, _choose_cell)
    with right:
        if chosen is None:
            st.caption("Click a cell to see its photos.")
            return
        inside = found.cell(*chosen)
        label, answer = (plain(found.classes[index]) for index in chosen)
        st.markdown(f"Of class **{label}**, taken for **{answer}**: **{len(inside):,}**, most confident first")
        show_gallery(examined, inside)


def _choose_cell(cell: Cell) -> None:
    first_page()
    st.query_params["cell"] = "-".join(map(str, cell))


def _cell(classes: int) -> Cell | None:
    """The cell in the address."""
    with contextlib.suppress(ValueError):
        true, predicted = map(int, st.query_params.get("cell", "").split("-"))
        if 0 <= true < classes and 0 <= predicted < classes:
            return true, predicted
    return None


def _show_curves(examined: Examined) -> None:
    """ROC and precision-recall of one class against the rest."""
    found = examined.predictions
    if found.probabilities is None:
        st.info("Of so many classes only the probability of the answer is kept, so there are no curves.")
        return
    name = _choose_positive(found.classes)
    index = found.classes.index(name)
    scores, positive, color = found.probabilities[:, index], found.labels == index, figures.class_color(name, index)
    curve, steps = measures.roc(scores, positive), measures.precision_recall(scores, positive)
    if curve is None or steps is None:
        st.info(f"These curves need photos of {plain(name)} and of something else.")
        return
    left, right = st.columns(2, gap="medium")
    with left:
        live_chart(figures.roc(_points(curve), name, color), key="roc", height=HEIGHT)
        st.caption(
            f"**ROC**, area **{curve.area:.4f}**: so often a photo of {plain(name)} gets a higher probability of it than one "
            "of something else; 0.5 is chance."
        )
    with right:
        figure = figures.precision_recall(_points(steps), name, color, float(positive.mean()))
        live_chart(figure, key="precision-recall", height=HEIGHT)
        st.caption(f"**Precision-recall**, average precision **{steps.area:.4f}**; chance is {positive.mean():.4f}.")
    if len(found.classes) > 2:
        st.dataframe(_areas(found), hide_index=True)


def _choose_positive(classes: tuple[str, ...]) -> str:
    label = "Positive class" if len(classes) == 2 else "Class, against the rest"
    if len(classes) <= MOST_PILLS:
        return st.segmented_control(
            label, classes, default=classes[0], required=True, key="positive", bind="query-params", format_func=plain
        )
    return st.selectbox(label, classes, key="positive", bind="query-params")


def _points(curve: measures.Curve) -> list[figures.Point]:
    return list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))


def _areas(found: Predictions) -> list[dict[str, Any]]:
    """A row for each class, against the rest."""
    rows = []
    for index, name in enumerate(found.classes):
        scores, positive = found.probabilities[:, index], found.labels == index
        curve, steps = measures.roc(scores, positive), measures.precision_recall(scores, positive)
        areas = {"ROC area": curve and round(curve.area, 4), "Average precision": steps and round(steps.area, 4)}
        rows.append({"Class": name, "Photos": int(positive.sum()), **areas})
    return rows


def _show_confidence(examined: Examined) -> None:
    """Whether its probabilities can be believed, and what declining the least sure answers would gain."""
    found = examined.predictions
    bins, curve = (
        measures.reliability(found.confidence, found.right),
        measures.risk_coverage(found.confidence, found.right),
    )
    left, right = st.columns(2, gap="medium")
    with left:
        live_chart(figures.reliability(bins), key="reliability", height=HEIGHT)
        error = measures.expected_calibration_error(bins)
        st.caption(
            f"**Reliability**: of the photos answered with 80%, 80% should be right. Calibration error **{error:.2%}** "
            f"({measures.BINS} bins); the bars are 95% intervals."
        )
    with right:
        overall = 1 - float(found.right.mean())
        live_chart(figures.risk_coverage(_points(curve), overall), key="risk-coverage", height=HEIGHT)
        st.caption(
            f"**Risk against coverage**: how many answers are wrong if only the surest are given. Area **{curve.area:.4f}**; "
            f"in random order {overall:.4f}."
        )


def _show_groups(examined: Examined) -> None:
    """How good it is for each class, and for each size of photos."""
    found, overall = examined.predictions, float(examined.predictions.right.mean())
    groups = measures.by_class(found.confusion.tolist(), found.classes)
    rows = [
        {
            "name": f"{name} ({group['count']:,})",
            **group,
            "interval": measures.interval(group["accuracy"], group["count"]),
            "color": figures.class_color(name, index),
        }
        for index, (name, group) in enumerate(groups.items())
        if group["count"]
    ]
    left, right = st.columns(2, gap="medium")
    with left:
        st.markdown("**By class**")
        if len(rows) > MOST_ROWS:
            rows = sorted(rows, key=lambda row: row["accuracy"])[:MOST_ROWS]
            st.caption(f"The {MOST_ROWS} worst of {len(groups):,}.")
        _draw_accuracies(rows, overall, "by-class")
    with right:
        st.markdown("**By size**, the photo's shorter side in pixels")
        sizes = _sizes(examined)
        if sizes:
            rows = [
                {**each, "name": f"{_span(each)} ({each['count']:,})", "color": figures.VALIDATION} for each in sizes
            ]
            _draw_accuracies(rows, overall, "by-size")
    st.caption(
        "In brackets the number of photos. Each accuracy with its 95% interval; the dotted line is the accuracy of all photos."
    )


def _draw_accuracies(rows: list[dict[str, Any]], overall: float, key: str) -> None:
    live_chart(figures.accuracies(rows, overall), key=key, height=70 + 44 * len(rows))


def _span(size: dict[str, Any]) -> str:
    if size["low"] is None:
        return f"up to {size['high']}"
    return f"{size['low']} or more" if size["high"] is None else f"{size['low']} to {size['high']}"


def _sizes(examined: Examined) -> list[dict[str, Any]]:
    """Accuracy by size of those photos whose size is known; says how many are not."""
    found = examined.predictions
    sides = _sides(examined)
    known = np.array([side is not None for side in sides])
    if not known.all():
        st.caption(f"The size of {(~known).sum():,} photos is not known: they are not on this computer.")
    return measures.by_size([side for side in sides if side], found.right[known]) if known.any() else []


def _sides(examined: Examined) -> list[int | None]:
    """The shorter side of each photo in pixels, where it is here."""
    if examined.data is None:
        return [_side(key, examined.source(index)) for index, key in enumerate(examined.keys)]
    if not examined.here:
        return [None] * len(examined.keys)
    photos = dataset(examined.data, cancel=lambda: st.session_state.update(part="Confusion")).photos
    sides = {photo.path: min(photo.width, photo.height) for photo in photos}
    return [sides.get(file) for file in examined.predictions.files]


@st.cache_data(show_spinner=False, max_entries=2000)
def _side(key: str, _source: bytes) -> int:
    return min(images.check_photo(_source))


def _show_photos(examined: Examined) -> None:
    """The mistakes, or all photos, greatest loss first; searched by name."""
    found = examined.predictions
    with st.container(horizontal=True, vertical_alignment="bottom"):
        which = st.segmented_control(
            "Photos", WHICH, default=WHICH[0], required=True, key="which", bind="query-params", on_change=first_page
        )
        text = st.text_input(
            "File name", key="file", bind="query-params", placeholder="Part of a name", type="search", width=260,
            on_change=first_page,
        )  # fmt: skip
    indices = found.by_loss(mistakes=which == WHICH[0])
    if text and text.strip():
        wanted = text.strip().casefold()
        indices = indices[[wanted in found.files[index].casefold() for index in indices]]
    if not len(indices):
        st.info("No photo here has such a name." if text else "Not a single mistake.")
        return
    st.caption(f"{len(indices):,} photos, greatest loss first.")
    show_gallery(examined, indices)
