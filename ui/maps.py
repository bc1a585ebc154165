"""Saliency maps: how they are chosen, computed once for all sessions, and drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from alexnet import images
from ui.networks import Edition
from ui.page import plain

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from alexnet.predict import Classifier
    from alexnet.saliency import Colormap, Method

Show = Callable[..., object]  # `st.image` in its place
Progress = Callable[[float], None]  # told the share done, 0 to 1

LIKELIEST = "Likeliest class"


@dataclass(frozen=True)
class MapSettings:
    """How saliency maps are made and drawn."""

    method: Method
    target: str | None  # a class; None for the likeliest one of each photo
    colors: str  # a name in `alexnet.saliency.COLORMAPS`
    opacity: float
    shared: bool  # whether all maps have one scale


def choose_map(classes: Sequence[str], many: bool) -> MapSettings | None:
    """The widgets for the saliency maps of one or of `many` photos; None where no map is wanted."""
    from alexnet import saliency

    titles = {name: method.title for name, method in saliency.METHODS.items()}
    chosen = st.pills(
        "Saliency map",
        list(titles),
        format_func=titles.get,
        default="gradcam",
        key="method",
        bind="query-params",
        help="What in the photo the answer goes by. Click the chosen one again for none.",
    )
    if chosen is None:
        return None
    method = saliency.METHODS[chosen]
    st.caption(f"{method.sentence} {method.paper}.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        target = st.selectbox("Target class", [LIKELIEST, *classes], key="target", width=165)
        tables = {name: t.title for name, t in saliency.COLORMAPS.items() if t.diverging == method.signed}
        colors = st.selectbox("Colours", list(tables), format_func=tables.get, key=f"colors-{method.signed}", width=165)
        opacity = st.slider("Opacity", 0, 100, 80, format="%d%%", key="opacity", width=165) / 100
        shared = many and st.toggle("One scale for all", key="shared", help="Shows which photos hold more evidence.")
    _color_scale(saliency.COLORMAPS[colors])
    return MapSettings(method, None if target == LIKELIEST else target, colors, opacity, shared)


def choose_no_map() -> None:
    """Turn the saliency maps off."""
    st.session_state["method"] = None


@st.cache_data(show_spinner=False, max_entries=500)
def attribution(
    data: bytes, edition: Edition, method: str, target: str, _classifier: Classifier, _progress: Progress | None
) -> np.ndarray:
    """The attribution (S, S) of a photo, as `alexnet.saliency.attribute` has it, with its errors."""
    from alexnet import saliency

    return saliency.attribute(_classifier, images.open_photo(data), method, target, _progress)


def show_map(
    show: Show, evidence: np.ndarray, crop: Image.Image, target: str, settings: MapSettings, scale: float | None
) -> None:
    """The saliency map for the class `target`, drawn as `alexnet.saliency.render` does."""
    from alexnet import saliency

    if evidence.any():
        picture = saliency.render(evidence, crop, settings.opacity, settings.colors, scale)
        show(picture, caption=f"Evidence for {plain(target)}")
    else:
        show(crop, caption=f"Nothing found that speaks for {plain(target)}")


def _color_scale(colormap: Colormap) -> None:
    """The colours of a saliency map, which cover the page as they cover a photo, and what their ends mean."""
    low, high = ("speaks against", "speaks for") if colormap.diverging else ("none", "most")
    at = [i / (len(colormap.anchors) - 1) for i in range(len(colormap.anchors))]
    cover = [math.sqrt(abs(2 * x - 1) if colormap.diverging else x) for x in at]
    colors = ",".join(f"{anchor}{round(255 * c):02x}" for anchor, c in zip(colormap.anchors, cover, strict=True))
    st.html(
        "<div style='display:flex;align-items:center;gap:.6rem;font-size:.875rem;white-space:nowrap'>"
        f"<span style='opacity:.7'>{low}</span><span style='flex:0 1 14rem;height:.6rem;border-radius:.3rem;"
        f"background:linear-gradient(to right,{colors})'></span><span style='opacity:.7'>{high}</span></div>"
    )
