"""Runs: all of them in one table, several side by side, or one by itself."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

import ui
from alexnet import catalog
from alexnet.catalog import Entry
from alexnet.runs import Run
from alexnet.series import Series

FOR_OWNERS = ("Submit", "Export")  # the tabs that write to this computer or read its folders
PAUSE = 2.0  # seconds between two looks at runs that train
TABS = {
    "Overview": ui.show_overview,
    "Evaluation": lambda entry: ui.show_evaluation(entry.job),
    "Submit": lambda entry: ui.show_submit(entry.job),
    "Export": lambda entry: ui.show_bundle(entry.job),
}


def show_one(entry: Entry, listed: Sequence[Entry]) -> None:
    """A run, a series or a damaged folder by itself."""
    with st.container(horizontal=True):
        back = {"type": "tertiary", "icon": ":material/arrow_back:"}
        st.button("All runs", on_click=st.query_params.pop, args=["run", None], **back)
        if isinstance(entry.job, Run) and entry.job.is_member:
            whole = entry.job.path.parent.name
            st.button(f"All of {ui.plain(whole)}", on_click=open_run, args=[whole], **back)
    left, right = st.columns([3, 2])
    with left:
        ui.show_heading(entry)
    with right, st.container(horizontal=True, horizontal_alignment="right"):
        ui.name_button(entry)
        ui.delete_button([entry], listed)
    if isinstance(entry.job, Series):
        watch = st.fragment(ui.watch_series, run_every=PAUSE if entry.status.live else None)
        watch(entry.job, entry.status.state, open_run)
    elif entry.is_run:
        names = [name for name in TABS if not (ui.is_public() and name in FOR_OWNERS)]
        for name, tab in zip(names, st.tabs(names, key="tab", bind="query-params"), strict=True):
            if tab.open:  # what nobody sees costs nothing
                with tab, ui.plain_errors():
                    TABS[name](entry)


def open_run(name: str) -> None:
    """Have a run shown by itself: in this tab and, by its address, after a reload or from a link."""
    st.query_params["run"] = name


def show_all(listed: Sequence[Entry]) -> None:
    """The table, what can be done with what is chosen in it, and the comparison of that."""
    chosen = ui.choose_runs(listed)
    if not chosen:
        st.caption("Choose a run to open, name or delete it; choose several to compare them.")
        if not ui.is_public():
            import_run()
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        if len(chosen) == 1:
            st.button("Open", type="primary", icon=":material/open_in_full:", on_click=open_run, args=[chosen[0].id])
            ui.name_button(chosen[0])
        ui.delete_button(chosen, listed)
    comparable = [entry for entry in chosen if entry.is_run]
    if any(isinstance(entry.job, Series) for entry in chosen) and len(chosen) > 1:
        st.caption("Of a sweep or a cross-validation choose single runs to compare: unfold it by the arrow in its row.")
    if len(comparable) > 1:
        ui.show_comparison(comparable)


def import_run() -> None:
    """A run from a bundle, in an expander; once made it is shown."""
    with st.expander("Import a run", key="import", on_change="rerun") as box:
        if box.open and (made := ui.import_bundle()):
            open_run(made.id)
            st.rerun()


def look(listed: Sequence[Entry]) -> None:
    """Comes round while a run is live; draws the page anew when one has come further."""
    if catalog.progress(catalog.entries()) != catalog.progress(listed):
        st.rerun()


ui.guard()
st.title("Runs")
place = st.empty()
with place, st.spinner("Reading the runs"):
    listed = catalog.entries()
place.empty()
ui.show_trash()
wanted = st.query_params.get("run")
entry = catalog.find(wanted, listed) if wanted else None
if wanted and entry is None:
    st.warning(f"There is no run called {ui.plain(wanted)} here.")
with ui.plain_errors():
    if entry:
        show_one(entry, listed)
    else:
        show_all(listed)
if any(other.status.live for other in listed):
    st.fragment(look, run_every=PAUSE)(listed)
