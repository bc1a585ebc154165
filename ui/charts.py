"""Plotly figures that live in the browser."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    import plotly.graph_objects as go


def live_chart(figure: go.Figure, key: str, height: int) -> None:
    """Draw a Plotly figure that is updated in place: zoom and hidden curves survive, and nothing blinks.

    `st.plotly_chart` builds its chart anew at each change of the figure. Here the browser keeps the chart and is sent
    the new numbers only; text and grid follow the page's theme.

    Args:
        figure: its layout's colours of text and grid are replaced.
        key: names the chart; a change of key is another chart, which starts unzoomed.
        height: in pixels.
    """
    figure.update_layout(uirevision=key, height=height)
    with st.container(gap=None):
        _chart(data=figure.to_plotly_json(), key=key, height=height)
        _plotly(data=_plotly_bundle(), key=f"{key}-plotly", height=1)


@st.cache_resource(show_spinner=False)
def _plotly_bundle() -> bytes:
    """Plotly's own JavaScript, gzipped: 1.5 MB, which Streamlit sends to a tab once and then refers to."""
    return gzip.compress(files("plotly").joinpath("package_data/plotly.min.js").read_bytes(), compresslevel=6)


_plotly = st.components.v2.component(
    "plotly",
    js="""
    export default async function ({ data }) {
      if (globalThis.Plotly) return;
      const text = new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(text).text();
      document.head.append(script);
      document.dispatchEvent(new Event("plotly"));
    }
    """,
)


_chart = st.components.v2.component(
    "chart",
    html="<div class='live-chart'></div>",
    css=".live-chart .modebar-btn .icon path { fill: var(--st-text-color) !important; }",
    js="""
    const touch = matchMedia("(pointer: coarse)").matches;
    const loaded = () => globalThis.Plotly ? Promise.resolve()
      : new Promise(done => document.addEventListener("plotly", done, { once: true }));

    function themed(layout, element) {
      const color = name => getComputedStyle(element).getPropertyValue("--st-" + name);
      const result = {
        ...layout,
        font: { color: color("text-color"), family: color("font"), size: 13 },
        hoverlabel: { bgcolor: color("secondary-background-color"), bordercolor: color("border-color") },
        modebar: { ...layout.modebar, bgcolor: "transparent" },
        annotations: (layout.annotations ?? []).map(note => ({ ...note, bgcolor: color("background-color") })),
      };
      for (const axis of Object.keys(layout).filter(name => /^[xy]axis/.test(name)))
        result[axis] = { ...layout[axis], gridcolor: color("border-color"), zeroline: false, automargin: true };
      if (touch) result.dragmode = false;  // a finger scrolls the page
      return result;
    }

    export default async function ({ data, parentElement }) {
      const element = parentElement.querySelector(".live-chart");
      element.style.height = data.layout.height + "px";
      await loaded();
      await Plotly.react(element, data.data, themed(data.layout, element), {
        displaylogo: false,
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"].concat(
          touch ? ["toImage", "zoom2d", "pan2d"] : []),
      });
      element.resizes ??= new ResizeObserver(() => element.offsetWidth && Plotly.Plots.resize(element));
      element.resizes.observe(parentElement);
      return () => { element.resizes.disconnect(); Plotly.purge(element); };
    }
    """,
    isolate_styles=False,
)
