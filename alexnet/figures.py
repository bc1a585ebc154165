"""Plotly figures from plain data. Backgrounds are transparent; text and grid take the colours of the page."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

# Orange and blue stay apart for every common kind of colour blindness, and at this lightness both stand out from a
# white and from a black page (contrast 3.2 or more).
CAT = "#d97706"
DOG = "#1f7fc4"
OTHER_CLASSES = ("#0d9488", "#c0568f", "#8a7a16", "#7c6bd6", "#8b5e3c", "#5f8f2f", "#6b7f8c", "#b8504a")
TRAINING = "#8592a3"
VALIDATION = "#0d9488"
RUN_MARKERS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "triangle-down", "hexagon")
RUN_DASHES = ("solid", "dot", "dash", "dashdot")

MAX_PARTIAL_POINTS = 700  # in each of two panels; with the epochs a figure stays at about 1,500

Point = tuple[float, float]
Record = Mapping[str, Any]


def class_color(name: str, index: int = 0) -> str:
    """The colour of a class on every page: cats orange, dogs blue, any other by its place `index`."""
    known = {"cat": CAT, "cats": CAT, "dog": DOG, "dogs": DOG}
    return known.get(name.lower(), OTHER_CLASSES[index % len(OTHER_CLASSES)])


def training_curves(records: Sequence[Record], epochs: int, steps: int, best_epoch: int | None = None) -> go.Figure:
    """Accuracy above loss over the epochs of a run, for training and validation.

    Args:
        records: the lines of `metrics.jsonl`, of which `epoch` (from 1), `step` (from the start of the run), `split`,
            `loss`, `accuracy` (0 to 1) and `partial` (true within an epoch) are read.
        epochs: length of the run; the x axis shows all of it from the start.
        steps: length of the run in steps, which places the partial records; 0 while it is not known.
        best_epoch: the epoch to mark, once there is one.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.07)
    train = [r for r in records if r["split"] == "train"]
    val = [(r["epoch"], r) for r in records if r["split"] == "val"]
    within = [(r["step"] * epochs / steps if steps else r["epoch"], r) for r in train if r.get("partial")]
    whole = [(r["epoch"], r) for r in train if not r.get("partial")]
    for row, metric in enumerate(("accuracy", "loss"), start=1):
        form = "%{y:.1%}" if metric == "accuracy" else "%{y:.3f}"
        for trace in (
            _line("within", thin(_points(within, metric), MAX_PARTIAL_POINTS), color=TRAINING, width=1),
            _line("Training", _points(whole, metric), color=TRAINING, width=2, hover=form),
            _line("Validation", _points(val, metric), color=VALIDATION, width=2.5, hover=form),
        ):
            trace.uid = f"{metric}-{trace.name}"
            trace.showlegend = row == 1 and trace.name != "within"
            figure.add_trace(trace, row, 1)
    _mark_best(figure, dict(val).get(best_epoch), epochs)
    end = epochs * 1.01  # room for the last marker
    figure.update_xaxes(range=[0, end], tickformat="~g", minallowed=0, maxallowed=end)
    figure.update_xaxes(title_text="Epoch", row=2)
    figure.update_yaxes(title_text="Accuracy", tickformat=".0%", row=1)
    figure.update_yaxes(title_text="Loss", row=2)
    return _styled(figure)


def learning_rate_curve(points: Sequence[Point]) -> go.Figure:
    """The learning rate over the epochs of a run, from (epoch, rate) pairs."""
    figure = go.Figure(_line("Learning rate", points, color=VALIDATION, width=2.5, hover="%{y:.2~g}"))
    figure.update_traces(mode="lines", fill="tozeroy", fillcolor="rgba(13, 148, 136, 0.12)", showlegend=False)
    figure.update_xaxes(title_text="Epoch", range=[0, points[-1][0]], fixedrange=True)
    figure.update_yaxes(title_text="Learning rate", rangemode="tozero", tickformat="~g", nticks=5, fixedrange=True)
    figure.update_layout(modebar_remove=["toImage"])
    return _styled(figure)


def validation_curves(curves: Mapping[str, Sequence[Point]], epochs: int, best: str | None = None) -> go.Figure:
    """The validation accuracy of several runs over their epochs, one above the other, with the best in colour.

    Args:
        curves: the (epoch, accuracy) pairs of each run, by its name.
        epochs: length of the longest run; the x axis shows all of it from the start.
        best: the name of the run to stand out, once there is one.
    """
    figure = go.Figure()
    for name in sorted(curves, key=lambda name: name == best):  # the best lies on top
        color, width = (VALIDATION, 2.5) if name == best else (TRAINING, 1)
        line = _line(name, curves[name], color=color, width=width, hover="%{y:.1%} after epoch %{x}")
        line.update(uid=name, showlegend=False, opacity=1 if name == best else 0.6)
        figure.add_trace(line)
    end = epochs * 1.01  # room for the last marker
    figure.update_xaxes(title_text="Epoch", range=[0, end], tickformat="~g", minallowed=0, maxallowed=end)
    figure.update_yaxes(title_text="Validation accuracy", tickformat=".0%")
    return _styled(figure).update_layout(hovermode="closest")


def accuracy_by_value(
    title: str, points: Sequence[tuple[str, float | str, float]], best: str | None = None
) -> go.Figure:
    """The best validation accuracy of several runs by the value that each has for one setting.

    Args:
        title: the setting, as people read it.
        points: the name of a run, its value and its accuracy (0 to 1). Words stand in the order of the points, numbers on an
            axis, which is logarithmic where they span a factor of ten or more.
        best: the name of the run to stand out, once there is one.
    """
    values: list[Any] = [value for _, value, _ in points]
    words = any(isinstance(value, str) for value in values)
    logarithmic = not words and bool(values) and 0 < 10 * min(values) <= max(values)
    figure = go.Figure(
        go.Scatter(
            x=values,
            y=[round(accuracy, 5) for *_, accuracy in points],
            text=[name for name, *_ in points],
            mode="markers",
            marker={
                "size": [12 if name == best else 8 for name, *_ in points],
                "color": [VALIDATION if name == best else TRAINING for name, *_ in points],
            },
            hovertemplate="%{text}: %{y:.1%} with %{x}<extra></extra>",
        )
    )
    kind = "category" if words else "log" if logarithmic else "linear"
    figure.update_xaxes(title_text=title, type=kind, fixedrange=True)
    if not words:
        figure.update_xaxes(tickformat="~g", nticks=6)
    figure.update_yaxes(title_text="Validation accuracy", tickformat=".0%", fixedrange=True)
    return _styled(figure).update_layout(hovermode="closest", modebar_remove=["toImage"])


def reliability(bins: Sequence[Record]) -> go.Figure:
    """How often the network is right where it is so sure, beside the diagonal on which both would be the same.

    Args:
        bins: as `alexnet.measures.reliability` has them: `confidence`, `accuracy`, the `interval` of that, `count`.
    """
    start = math.floor(10 * min([0.5, *(end for b in bins for end in (b["confidence"], *b["interval"]))])) / 10
    diagonal = _line("Perfectly calibrated", [(start, start), (1, 1)], color=TRAINING, width=1)
    found = _line(
        "Measured",
        [(b["confidence"], b["accuracy"]) for b in bins],
        color=VALIDATION,
        width=2.5,
        hover="%{y:.1%} right where it says %{x:.1%}, %{customdata:,} photos",
    )
    reach = [(b["interval"][1] - b["accuracy"], b["accuracy"] - b["interval"][0]) for b in bins]
    found.error_y = {
        "type": "data",
        "symmetric": False,
        "array": [round(up, 4) for up, _ in reach],
        "arrayminus": [round(down, 4) for _, down in reach],
        "thickness": 1,
        "width": 3,
    }
    found.customdata = [b["count"] for b in bins]
    diagonal.line.dash = "dot"
    figure = go.Figure([diagonal, found])
    span = {"range": [start, 1.01], "tickformat": ".0%", "fixedrange": True}
    figure.update_xaxes(title_text="Highest probability", **span)
    figure.update_yaxes(title_text="Accuracy", **span)
    return _styled(figure).update_layout(hovermode="closest", modebar_remove=["toImage"])


def thin(points: Sequence[Point], limit: int) -> list[Point]:
    """At most `limit` of the points, in order: the lowest and the highest y of each of `limit` / 2 stretches.

    Every spike stays, which an average or every n-th point would lose.
    """
    if len(points) <= limit:
        return list(points)
    edges = [len(points) * i // (limit // 2) for i in range(limit // 2 + 1)]
    kept: list[Point] = []
    for start, end in zip(edges, edges[1:], strict=False):
        order = sorted(range(start, end), key=lambda i: points[i][1])
        kept.extend(points[i] for i in sorted({order[0], order[-1]}))
    return kept


def _points(records: Sequence[tuple[float, Record]], metric: str) -> list[Point]:
    return [(x, record[metric]) for x, record in records]


def _line(name: str, points: Sequence[Point], *, color: str, width: float, hover: str | None = None) -> go.Scatter:
    """A line, with a marker at each point if people may ask for its value. Numbers are cut to what a screen shows."""
    return go.Scatter(
        x=[round(x, 3) for x, _ in points],
        y=[float(f"{y:.5g}") for _, y in points],
        name=name,
        legendgroup=name if hover else "Training",
        mode="lines+markers" if hover else "lines",
        opacity=1 if hover else 0.6,
        line={"color": color, "width": width},
        marker={"size": 5},
        hoverinfo=None if hover else "skip",
        hovertemplate=hover,
    )


def _mark_best(figure: go.Figure, best: Record | None, epochs: int) -> None:
    """A line through both panels at the best epoch, with its accuracy beside it."""
    if best is None:
        return
    epoch = best["epoch"]
    figure.add_vline(epoch, line={"color": VALIDATION, "width": 1, "dash": "dot"})
    figure.add_annotation(
        text=f"best {best['accuracy']:.1%}, epoch {epoch}",
        x=epoch,
        y=0.02,
        yref="y domain",
        xanchor="right" if epoch > epochs / 2 else "left",
        yanchor="bottom",
        showarrow=False,
        font={"color": VALIDATION},
    )


def _styled(figure: go.Figure) -> go.Figure:
    return figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 56, "r": 12, "t": 30, "b": 44},
        hovermode="x unified",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    )


def exchange_curve(own: Sequence[float], chance: Sequence[float], what: str, target: str) -> go.Figure:
    """The probability of a class while pixels are exchanged in a map's order, beside the same in a random order.

    Args:
        own: the probability, 0 to 1, after equal steps from no pixel to all of them.
        chance: the same in a random order.
        what: becomes of the pixels, such as `removed`.
        target: the class.
    """
    figure = go.Figure()
    for name, curve, color, width in (
        ("In the map's order", own, VALIDATION, 2.5),
        ("In random order", chance, TRAINING, 2),
    ):
        steps = [(step / (len(curve) - 1), probability) for step, probability in enumerate(curve)]
        figure.add_trace(_line(name, steps, color=color, width=width, hover="%{y:.1%}"))
    figure.data[1].line.dash = "dot"
    figure.update_xaxes(title_text=f"Pixels {what}", range=[0, 1.01], dtick=0.25, tickformat=".0%", fixedrange=True)
    figure.update_yaxes(title_text=f"Probability of {target}", range=[-0.02, 1.02], tickformat=".0%", fixedrange=True)
    return _styled(figure).update_layout(modebar_remove=["toImage"], margin_r=24)  # room for the last label


def rank_correlations(layers: Sequence[str], correlations: Sequence[float], limit: float) -> go.Figure:
    """How alike a map and those of networks with ever more random layers are, as bars from the top layer down.

    Args:
        layers: the layer that became random at each stage.
        correlations: Spearman's rank correlation of the maps, -1 to 1.
        limit: from which on a map counts as hardly changed; it gets a line.
    """
    bars = go.Bar(
        x=list(layers),
        y=[round(value, 3) for value in correlations],
        marker={"color": VALIDATION, "line": {"width": 0}},
        width=0.6,
        hovertemplate="%{y:.2f}",
        name="Rank correlation",
    )
    figure = go.Figure(bars)
    figure.add_hline(limit, line={"color": TRAINING, "width": 1, "dash": "dot"})
    figure.add_hline(0, line={"color": TRAINING, "width": 1})
    figure.update_xaxes(title_text="Random from the last layer down to", type="category", fixedrange=True)
    low = min(-0.05, *(value - 0.05 for value in correlations))
    figure.update_yaxes(title_text="Rank correlation", range=[low, 1.02], tickformat="~g", fixedrange=True)
    return _styled(figure).update_layout(modebar_remove=["toImage"], showlegend=False)


def run_style(number: int) -> dict[str, Any]:
    """The colour, the marker and the dash of the run of this number on every chart; they repeat after 32 runs.

    Markers tell runs apart where colours cannot. Cats and dogs keep their colours for themselves.
    """
    turn, place = divmod(number - 1, len(OTHER_CLASSES))
    return {"color": OTHER_CLASSES[place], "symbol": RUN_MARKERS[place], "dash": RUN_DASHES[turn % len(RUN_DASHES)]}


def compared_curves(
    curves: Sequence[Mapping[str, Any]], title: str, by: str, *, percent: bool = False, logarithmic: bool = False
) -> go.Figure:
    """The same curve of several runs, one above the other; where they are smoothed, every point stays to be seen.

    Args:
        curves: of each run its `name`, its `number` for `run_style`, its `points`, and of as many `smoothed` values y, or
            None.
        title: what is on the y axis.
        by: what is on the x axis.
        percent: whether that is written in percent.
        logarithmic: whether the y axis is.
    """
    figure = go.Figure()
    form = "%{y:.1%}" if percent else "%{y:.4g}"
    for curve in curves:
        style, points, smoothed = run_style(curve["number"]), curve["points"], curve["smoothed"]
        raw = _line(curve["name"], points, color=style["color"], width=2.5, hover=form)
        raw.update(marker_symbol=style["symbol"], marker_size=7, line_dash=style["dash"], uid=curve["name"])
        if smoothed is not None:
            raw.update(mode="markers", opacity=0.55)
            mean = list(zip((x for x, _ in points), smoothed, strict=True))
            line = _line(curve["name"], mean, color=style["color"], width=2.5, hover=form)
            line.update(mode="lines", line_dash=style["dash"], uid=f"{curve['name']}-smoothed", hoverinfo="skip")
            line.update(hovertemplate=None, showlegend=False)
            figure.add_trace(line)
        figure.add_trace(raw)
    figure.update_xaxes(title_text=by, rangemode="tozero", tickformat="~g")
    kind = {"type": "log", "dtick": "D2" if percent else None} if logarithmic else {}
    figure.update_yaxes(title_text=title, tickformat=".0%" if percent else "~g", **kind)
    return _styled(figure)


def roc(points: Sequence[Point], name: str, color: str) -> go.Figure:
    """The true over the false positive rate of answers for the class `name`, from (false, true) pairs, 0 to 1."""
    hover = f"{name}: %{{y:.1%}} found, %{{x:.1%}} of the others taken for it"
    curve = _line(name, thin(points, MAX_PARTIAL_POINTS), color=color, width=2.5, hover=hover)
    curve.mode = "lines"
    figure = go.Figure([_reference("Chance", (0, 0), (1, 1)), curve])
    return _of_shares(figure, "False positive rate", "True positive rate")


def precision_recall(points: Sequence[Point], name: str, color: str, share: float) -> go.Figure:
    """Precision over recall of answers for the class `name`, from (recall, precision) pairs, 0 to 1, as steps.

    `share` of the photos are of that class: the precision of chance.
    """
    hover = "Precision %{y:.1%} at recall %{x:.1%}"
    curve = _line(name, thin(points, MAX_PARTIAL_POINTS), color=color, width=2.5, hover=hover)
    curve.mode, curve.line.shape = "lines", "vh"
    figure = go.Figure([_reference("Chance", (0, share), (1, share)), curve])
    return _of_shares(figure, "Recall", "Precision")


def risk_coverage(points: Sequence[Point], overall: float) -> go.Figure:
    """The error rate of the share of photos that the network is surest of, from (coverage, risk) pairs, 0 to 1.

    `overall` is that of all photos, which a random choice of the same share has, too.
    """
    hover = "%{y:.1%} wrong among the surest %{x:.1%}"
    curve = _line("Surest first", thin(points, MAX_PARTIAL_POINTS), color=VALIDATION, width=2.5, hover=hover)
    curve.mode = "lines"
    figure = _of_shares(
        go.Figure([_reference("Random order", (0, overall), (1, overall)), curve]), "Coverage: share of photos", "Risk"
    )
    highest = max([overall, *(risk for _, risk in points)])
    return figure.update_yaxes(range=[-0.02 * highest, 1.05 * highest or 1], title_text="Risk: share that is wrong")


def accuracies(rows: Sequence[Record], overall: float | None = None) -> go.Figure:
    """Accuracies with their intervals, one below the other.

    Args:
        rows: `name`, `accuracy` and its `interval` (0 to 1), `count`, `color`, and maybe `symbol`.
        overall: where a line is drawn, 0 to 1.
    """
    figure = go.Figure([_accuracy(row) for row in rows])
    ends = [end for row in rows for end in row["interval"]]
    if overall is not None:
        figure.add_vline(overall, line={"color": TRAINING, "width": 1.5, "dash": "dot"})
        ends.append(overall)
    span = [max(-0.01, min(ends) - 0.03), min(1.01, max(ends) + 0.03)]
    figure.update_xaxes(title_text="Accuracy", range=span, tickformat=".0%", nticks=6, fixedrange=True)
    names = [row["name"] for row in rows]
    figure.update_yaxes(type="category", categoryarray=names, range=[len(rows) - 0.5, -0.5], fixedrange=True)
    return _styled(figure).update_layout(
        hovermode="closest", modebar_remove=["toImage"], showlegend=False, margin_t=10, margin_r=24
    )


def _accuracy(row: Record) -> go.Scatter:
    """A point with its interval; a trace of its own, since those of one trace share a colour."""
    (low, high), value = row["interval"], row["accuracy"]
    return go.Scatter(
        x=[round(value, 5)],
        y=[row["name"]],
        mode="markers",
        marker={"size": 12, "color": row["color"], "symbol": row.get("symbol", "circle")},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [round(high - value, 5)],
            "arrayminus": [round(value - low, 5)],
            "thickness": 2.5,
            "width": 6,
            "color": row["color"],
        },
        name=row["name"],
        hovertemplate=f"%{{y}}: {value:.1%} of {row['count']:,} photos,<br>95% interval {low:.1%} to {high:.1%}<extra></extra>",
    )


def _reference(name: str, start: Point, end: Point) -> go.Scatter:
    line = _line(name, [start, end], color=TRAINING, width=1)
    line.line.dash = "dot"
    return line


def _of_shares(figure: go.Figure, x: str, y: str) -> go.Figure:
    """`figure` with both axes from 0 to 1."""
    span = {"range": [-0.01, 1.01], "tickformat": ".0%", "fixedrange": True}
    figure.update_xaxes(title_text=x, **span)
    figure.update_yaxes(title_text=y, **span)
    # Room for the last label.
    return _styled(figure).update_layout(hovermode="closest", modebar_remove=["toImage"], margin_r=24)


def histogram(title: str, edges: Sequence[float], counts: Mapping[str, Sequence[int]]) -> go.Figure:
    """How many photos of each class lie between each two of the `edges`, one class on top of the other.

    Args:
        title: what is measured.
        edges: `B + 1` of them, ascending.
        counts: `B` of each class, by its name.
    """
    figure = go.Figure()
    centres = [round((low + high) / 2, 4) for low, high in pairwise(edges)]
    ranges = [f"{low:,.4g} to {high:,.4g}" for low, high in pairwise(edges)]
    for place, (name, values) in enumerate(counts.items()):
        bars = go.Bar(
            x=centres,
            y=[int(value) for value in values],
            width=float(edges[1] - edges[0]),
            name=name,
            text=ranges,
            textposition="none",
            marker={"color": class_color(name, place), "line": {"width": 0}},
            hovertemplate="%{text}: %{y:,} of " + html.escape(name) + "<extra></extra>",
        )
        figure.add_trace(bars)
    figure.update_xaxes(title_text=title, fixedrange=True)
    figure.update_yaxes(title_text="Photos", tickformat="~s", fixedrange=True)
    shown = len(counts) <= len(OTHER_CLASSES)
    return _styled(figure).update_layout(
        barmode="stack", bargap=0, hovermode="closest", showlegend=shown, modebar_remove=["toImage"]
    )
