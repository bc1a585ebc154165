"""What a run is: in a line, and on demand its model card."""

from __future__ import annotations

import re

import streamlit as st

from alexnet import figures
from alexnet.runs import Run
from ui.charts import live_chart
from ui.page import plain, plain_errors

PLOTTED = "## Calibration"  # the section of the card beneath which its plot is drawn


def about(run: Run) -> None:
    """What `run` is in a line, and a button that opens its model card."""
    classes = run.config["classes"]
    known = " or ".join(classes) if len(classes) < 4 else f"{len(classes)} classes"
    st.caption(plain(f"{run.recipe.title}: {known}"))
    if st.button("About this network", type="tertiary", icon=":material/info:"):
        _show_card(run)


@st.dialog("About this network", width="medium")
def _show_card(run: Run) -> None:
    with plain_errors(), st.container(key="card"):
        # A table may be wider than a phone.
        st.html("<style>.st-key-card table { display: block; overflow-x: auto; }</style>")
        with st.spinner("Reading the run"):
            from alexnet import card

            text = card.markdown(run)
        bins = [found for found in (run.report() or {}).get("reliability", ()) if found.get("interval")]
        for section in re.split(r"^(?=## )", text, flags=re.MULTILINE):
            st.markdown(section)
            if bins and section.startswith(PLOTTED):
                live_chart(figures.reliability(bins), key=f"reliability-{run.id}", height=340)
