"""Runs side by side: curves, deltas to a baseline, test metrics, and the settings in which they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from alexnet import compare, figures, sweep
from alexnet.catalog import Entry
from alexnet.measures import interval
from alexnet.runs import Run, RunError
from alexnet.significance import Paired
from ui.charts import live_chart
from ui.dataset_splits import WORDS
from ui.page import PERCENT, duration, label_of, percent, plain

CURVES = {
    "Validation accuracy": ("val", "accuracy"), "Validation loss": ("val", "loss"),
    "Training accuracy": ("train", "accuracy"), "Training loss": ("train", "loss"),
}  # fmt: skip
BY = {"Epochs": "epoch", "Minutes": "minutes"}
WRONG = "Wrong of the surest 90%"  # as in the evaluation of one run
SURE = 0.05  # the p below which a difference counts as more than chance


def show_comparison(chosen: Sequence[Entry]) -> None:
    """All that several runs say side by side."""
    names = _names(chosen)
    _show_curves(chosen, names)
    baseline = _choose_baseline(chosen, names)
    _show_results(chosen, names, baseline)
    _show_tests(chosen, names, baseline)
    _show_settings(chosen, names)


def _names(chosen: Sequence[Entry]) -> dict[str, str]:
    """What each is called here, by its id: its title, with the id where two have the same."""
    titles = Counter(entry.title for entry in chosen)
    return {e.id: e.title if titles[e.title] == 1 else f"{e.title} ({e.id})" for e in chosen}


# ---------------------------------------------------------------------------------------------------------- the curves


def _show_curves(chosen: Sequence[Entry], names: dict[str, str]) -> None:
    with st.container(horizontal=True, gap="medium"):
        bound = {"bind": "query-params"}
        what = st.selectbox("Curve", list(CURVES), key="curve", width=220, **bound)
        by = st.segmented_control("Over", list(BY), default="Epochs", required=True, key="over", **bound)
        scale = st.segmented_control("Scale", ["Linear", "Log"], default="Linear", required=True, key="scale", **bound)
        weight = st.slider(
            "Smoothing", 0.0, 0.95, 0.0, 0.05, key="smoothing", width=200, **bound,
            help="The exponential moving average of the points, which stay to be seen; 0 is none.",
        )  # fmt: skip
    split, metric = CURVES[what]
    curves = []
    for entry in chosen:
        points = compare.curve(_records(entry.job), split, metric, BY[by])
        smoothed = compare.smooth([y for _, y in points], weight) if weight else None
        curves.append({"name": names[entry.id], "number": entry.number, "points": points, "smoothed": smoothed})
    figure = figures.compared_curves(curves, what, by, percent=metric == "accuracy", logarithmic=scale == "Log")
    live_chart(figure, key="compared", height=420)
    if missing := [names[entry.id] for entry, curve in zip(chosen, curves, strict=True) if not curve["points"]]:
        st.caption(plain(f"Without such a curve: {', '.join(missing)}."))


def _records(run: Run) -> list[dict[str, Any]]:
    return _read_records(str(run.path), _changed(run.path / "metrics.jsonl"))


@st.cache_data(show_spinner=False, max_entries=200)
def _read_records(folder: str, changed: tuple) -> list[dict[str, Any]]:
    return Run(Path(folder)).metrics(within_epochs=False)


def _changed(file: Path) -> tuple:
    """Changes whenever the file does."""
    try:
        about = file.stat()
    except OSError:
        return ()
    return about.st_mtime_ns, about.st_size


# --------------------------------------------------------------------------------------------------------- the results


def _choose_baseline(chosen: Sequence[Entry], names: dict[str, str]) -> Entry:
    """The run that the others are measured against; the first that was chosen unless another is."""
    ids = [entry.id for entry in chosen]
    if st.session_state.get("baseline", ids[0]) not in ids:  # it is chosen no longer
        del st.session_state["baseline"]
    picked = st.selectbox("Baseline", ids, format_func=names.get, key="baseline", width=420, bind="query-params")
    return next(entry for entry in chosen if entry.id == picked)


def _show_results(chosen: Sequence[Entry], names: dict[str, str], baseline: Entry) -> None:
    st.subheader("Results")
    points = st.column_config.NumberColumn(format="%+.1f", help="Percentage points above the baseline.")
    shares = st.column_config.NumberColumn(format=PERCENT)
    st.dataframe(
        [_result(entry, names[entry.id], baseline) for entry in chosen],
        hide_index=True,
        placeholder="",
        column_config={
            "Run": st.column_config.TextColumn(pinned=True),
            "Best validation": shares,
            "Δ validation": points,
            "Measured": shares,
            "Δ measured": points,
            "Calibration error": shares,
            WRONG: st.column_config.NumberColumn(
                format=PERCENT, help="Share of wrong answers among the 90 % of photos that it is surest of."
            ),
        },
        alt="Results of the chosen runs",
    )
    if measured := [_measured(entry, names[entry.id]) for entry in chosen if entry.test]:
        live_chart(figures.accuracies(measured), key="intervals", height=70 + 44 * len(measured))


def _measured(entry: Entry, name: str) -> dict[str, Any]:
    style, test = figures.run_style(entry.number), entry.test
    about = {"name": name, "accuracy": test.accuracy, "interval": _interval(entry), "count": test.count}
    return {**about, "color": style["color"], "symbol": style["symbol"]}


def _result(entry: Entry, name: str, baseline: Entry) -> dict[str, Any]:
    report, test = entry.job.report() or {}, entry.test
    found = {key: report[key] for key in ("loss", "ece", "risk_at_90") if isinstance(report.get(key), float)}
    low, high = _interval(entry) if test else (0, 0)
    return {
        "Run": name,
        "Best validation": percent(entry.best),
        "Δ validation": _points(entry.best, baseline.best) if entry != baseline else None,
        "Measured": percent(test and test.accuracy),
        "95 % interval": f"{low:.1%} to {high:.1%}" if test else "",
        "Δ measured": _delta(entry, baseline),
        "Photos": f"{test.count:,} {WORDS.get(test.split, 'photos')}" if test else "",
        "Loss": found.get("loss"),
        "Calibration error": percent(found.get("ece")),
        WRONG: percent(found.get("risk_at_90")),
        "Epochs": entry.status.epoch,
        "Time": "" if entry.seconds is None else duration(entry.seconds),
        "Δ time": _slower(entry, baseline),
    }


def _interval(entry: Entry) -> list[float]:
    return interval(entry.test.accuracy, entry.test.count)


def _delta(entry: Entry, baseline: Entry) -> float | None:
    """In what was measured; None for different splits."""
    if entry == baseline or not entry.test or not baseline.test or entry.test.split != baseline.test.split:
        return None
    return _points(entry.test.accuracy, baseline.test.accuracy)


def _points(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else 100 * (value - other)


def _slower(entry: Entry, baseline: Entry) -> str:
    if entry == baseline or not entry.seconds or not baseline.seconds:
        return ""
    return f"{entry.seconds / baseline.seconds:.2f} times"


# ----------------------------------------------------------------------------------------------- on the very same photos


def _show_tests(chosen: Sequence[Entry], names: dict[str, str], baseline: Entry) -> None:
    """McNemar's test of each run against the baseline."""
    st.subheader(f"On the same photos as {plain(names[baseline.id])}")
    rows = []
    for entry in chosen:
        if entry == baseline:
            continue
        try:
            rows.append(_row(names[entry.id], _paired(baseline.job, entry.job)))
        except (compare.CompareError, RunError) as error:
            st.caption(plain(str(error)))
    if rows:
        st.dataframe(rows, hide_index=True, alt="McNemar's test of each run against the baseline")
        st.caption(
            "McNemar's test, exact: only the photos that one of two runs got right and the other wrong tell which is better. "
            "A p below 0.05 is rare where both are equally good; among many comparisons one such is to be expected."
        )


def _paired(first: Run, second: Run) -> Paired:
    files = ("run.json", "predictions.csv")
    stamps = [_changed(run.path / file) for run in (first, second) for file in files]
    return _read_paired(str(first.path), str(second.path), stamps)


@st.cache_data(show_spinner="Comparing the answers", max_entries=200)
def _read_paired(first: str, second: str, stamps: list[tuple]) -> Paired:
    return compare.same_photos(Run(Path(first)), Run(Path(second)))


def _row(name: str, paired: Paired) -> dict[str, Any]:
    verdict = "no difference beyond chance"
    if paired.p < SURE:
        verdict = "better than the baseline" if paired.only_second > paired.only_first else "worse than the baseline"
    return {
        "Run": name,
        "Photos of both": paired.count,
        "Only this one right": paired.only_second,
        "Only the baseline right": paired.only_first,
        "Both right": paired.both,
        "Neither right": paired.neither,
        "p": f"{paired.p:.2g}",
        "Verdict": verdict,
    }


# -------------------------------------------------------------------------------------------------------- the settings


def _show_settings(chosen: Sequence[Entry], names: dict[str, str]) -> None:
    st.subheader("Settings that differ")
    differing = compare.differing([entry.recipe for entry in chosen])
    rows = {"Dataset": [entry.dataset for entry in chosen]} if len({entry.dataset for entry in chosen}) > 1 else {}
    rows |= {label_of(name): list(map(sweep.in_words, values)) for name, values in differing.items()}
    if not rows:
        st.caption("None: the same recipe on the same dataset.")
        return
    st.dataframe(
        [{"Setting": name, **dict(zip(names.values(), values, strict=True))} for name, values in rows.items()],
        hide_index=True,
        column_config={"Setting": st.column_config.TextColumn(pinned=True)},
        alt="Settings in which the chosen runs differ",
    )
