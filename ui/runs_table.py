"""The table of all runs: what there is, how well each did, and which are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import streamlit as st

from alexnet import catalog
from alexnet.catalog import Entry
from alexnet.series import Series
from ui.page import PERCENT, percent, plain

TABLE = "runs-table"
SHOWN = "runs-shown"  # the ids in the table's rows as the browser has them
INDENT = "\u2003"  # of the runs of a series
OPEN, CLOSE = ":material/expand_more:", ":material/expand_less:"


def choose_runs(listed: Sequence[Entry]) -> list[Entry]:
    """The filter, the table, and the entries that are chosen in it, also those that the filter hides; kept in the address."""
    chosen = {name: entry for name in ids_in("runs") if (entry := catalog.find(name, listed))}
    for name in ids_in("runs"):
        if name not in chosen:
            st.warning(f"There is no run called {plain(name)} here.")
    words = st.text_input(
        "Filter", key="filter", bind="query-params", placeholder="Filter: words such as doodles, finished or a title",
        label_visibility="collapsed",
    )  # fmt: skip
    visible = [entry for entry in _unfolded(listed) if _matches(entry, words)]
    if visible:
        _draw(visible, chosen)
    else:
        st.caption("No run has all these words.")
    return list(chosen.values())


def ids_in(parameter: str) -> list[str]:
    """The ids that a parameter of the address lists."""
    return [unquote(name) for name in dict.fromkeys(st.query_params.get(parameter, "").split(",")) if name]


def keep_ids(parameter: str, ids: Sequence[str]) -> None:
    """Have a parameter of the address list these ids."""
    if ids:
        st.query_params[parameter] = ",".join(name.replace("%", "%25").replace(",", "%2C") for name in ids)
    else:
        st.query_params.pop(parameter, None)


def _unfolded(listed: Sequence[Entry]) -> list[Entry]:
    """All entries, with the runs of a series that is unfolded below it."""
    unfolded = ids_in("open")
    return [row for entry in listed for row in (entry, *(catalog.members(entry) if entry.id in unfolded else ()))]


def _matches(entry: Entry, words: str) -> bool:
    """Whether all words are somewhere in what is known of an entry."""
    recipe = (entry.recipe.title, entry.recipe.name) if entry.recipe else ()
    known = " ".join((entry.id, *vars(entry.note).values(), entry.state, entry.dataset, *recipe)).casefold()
    return all(word in known for word in words.casefold().split())


def _draw(visible: Sequence[Entry], chosen: dict[str, Entry]) -> None:
    ids = [entry.id for entry in visible]
    st.session_state[SHOWN] = ids
    st.session_state[TABLE] = {"selection": {"rows": [row for row, name in enumerate(ids) if name in chosen]}}
    shares = st.column_config.NumberColumn(format=PERCENT)
    unfold = st.column_config.ButtonColumn("Runs", type="tertiary", on_click=_unfold, key="unfold", width="small")
    has_series = any(isinstance(entry.job, Series) for entry in visible)
    st.dataframe(
        [_row(entry) for entry in visible],
        key=TABLE,
        hide_index=True,
        on_select=_choose,
        selection_mode="multi-row",
        placeholder="",
        column_order=None if has_series else [name for name in _row(visible[0]) if name != "Runs"],
        column_config={
            "Run": st.column_config.TextColumn(pinned=True, width="medium"),
            "Runs": unfold,
            "Best validation": shares,
            "Test": shares,
            "Curve": st.column_config.LineChartColumn(
                help="Validation accuracy after each epoch, from 0 to 100 %.", y_min=0, y_max=1, width="small"
            ),
            "Minutes": st.column_config.NumberColumn(format="%.1f", help="Of training."),
            "Made": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        },
        alt="All runs and shipped weights",
    )


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "Run": f"{INDENT}{entry.title}" if "/" in entry.id else entry.title,
        "Runs": _fold_label(entry),
        "State": entry.state,
        "Best validation": percent(entry.best),
        "Test": percent(entry.test.accuracy) if entry.test and entry.test.split == "test" else None,
        "Curve": list(entry.curve),
        "Recipe": entry.recipe.title if entry.recipe else "",
        "Dataset": entry.dataset,
        "Epochs": len(entry.curve) or None,  # the status counts the one that a stopped run has begun, too
        "Minutes": entry.seconds and entry.seconds / 60,
        "Note": entry.note.note or (entry.status.message if entry.state == catalog.DAMAGED else ""),
        "Made": entry.made,
    }


def _fold_label(entry: Entry) -> str | None:
    if not isinstance(entry.job, Series):
        return None
    return f"{CLOSE if entry.id in ids_in('open') else OPEN} {entry.job.count}"


def _choose() -> None:
    """Take the choice in the table over into the address, together with what the filter hides."""
    shown = st.session_state[SHOWN]
    picked = [shown[row] for row in st.session_state[TABLE]["selection"]["rows"]]
    hidden = [name for name in ids_in("runs") if name not in shown]
    kept = [name for name in ids_in("runs") if name in picked]  # in the order in which they were chosen
    keep_ids("runs", [*hidden, *kept, *(name for name in picked if name not in kept)])


def _unfold() -> None:
    name = st.session_state[SHOWN][st.session_state["unfold"]["row"]]
    unfolded = ids_in("open")
    keep_ids("open", [other for other in unfolded if other != name] if name in unfolded else [*unfolded, name])
