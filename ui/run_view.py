"""One run: what it is called, what it is, how it trained, and where to go with it."""

from __future__ import annotations

import streamlit as st

from alexnet import figures, public
from alexnet.catalog import Entry
from alexnet.measures import interval
from alexnet.series import Series
from ui.card import about
from ui.charts import live_chart
from ui.dataset_splits import WORDS
from ui.film import show_film
from ui.page import duration, numbers, plain

COLORS = {
    "finished": "green",
    "running": "green",
    "failed": "red",
    "lost": "red",
    "damaged": "red",
    "stopped": "orange",
}


def show_heading(entry: Entry) -> None:
    """Title, state and note; of a run that can be read also what it is, in a line."""
    st.subheader(plain(entry.title))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(entry.state.capitalize(), color=COLORS.get(entry.state, "blue"))
        if entry.note.title:
            st.caption(plain(entry.id), width="content")
    if entry.status.message and not isinstance(entry.job, Series):  # a series says it in its own view
        st.caption(plain(entry.status.message))
    if entry.note.note:
        st.markdown(plain(entry.note.note).replace("\n", "  \n"))
    if entry.is_run:
        about(entry.job)


def show_overview(entry: Entry) -> None:
    """The figures of a run, its curves and its film, and the ways to the other pages."""
    run, status, test = entry.job, entry.status, entry.test
    low, high = interval(test.accuracy, test.count) if test else (0, 0)
    numbers({
        f"Accuracy on {test.count:,} {WORDS.get(test.split, 'photos')}" if test else "Test accuracy":
            test and f"{test.accuracy:.1%} ({low:.1%} to {high:.1%})",
        "Best validation accuracy": status.best and f"{entry.best:.1%}, epoch {status.best['epoch']}",
        "Epochs": f"{len(entry.curve)} of {status.epochs}" if status.epochs else None,
        "Time": entry.seconds and duration(entry.seconds),
        "Dataset": plain(entry.dataset),
        "Device": status.device,
    })  # fmt: skip
    with st.container(horizontal=True):
        if run.has_weights and st.button("Classify photos with it", type="primary", icon=":material/search:"):
            st.switch_page("pages/classify.py", query_params={"run": run.id})
        if run.has_weights and st.button("Look inside", icon=":material/neurology:"):
            st.switch_page("pages/architecture.py", query_params={"run": run.id})
        if (
            not run.shipped
            and not public.is_on()
            and st.button("Open on the Train page", icon=":material/trending_up:")
        ):
            st.switch_page("pages/train.py", query_params={"run": run.id})
    if records := run.metrics():
        curves = figures.training_curves(
            records, entry.recipe.epochs, status.steps, status.best["epoch"] if status.best else None
        )
        live_chart(curves, key=f"curves-{run.id}", height=480)
    else:
        st.caption("No epoch has been recorded yet.")
    show_film(run)
