"""The widgets for saliency maps."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from ui.page import plain

if TYPE_CHECKING:
    from alexnet.maps import Colormap
    from alexnet.predict import Classifier
    from alexnet.saliency import Method

MOST_PILLS = 8  # classes that can be clicked; more of them are in a list
MOST_RIVALS = 2  # networks beside the chosen one; as many as are kept in memory
CLASS_COLORS = "classes"


@dataclass(frozen=True)
class MapSettings:
    """How saliency maps are made and drawn."""

    methods: tuple[Method, ...]
    target: str | None  # a class; None for the likeliest one of each photo
    layer: str | None  # a convolution for the methods that look at one; None for the last
    rivals: tuple[str, ...]  # ids of other runs, whose maps are to be seen too
    view: str  # of signed maps, a name in `alexnet.maps.VIEWS`
    layout: str  # a name in `alexnet.maps.LAYOUTS`
    colors: Mapping[bool, str]  # by whether it diverges, a name in `alexnet.maps.COLORMAPS` or CLASS_COLORS
    opacity: float
    shared: bool  # whether all maps of a method have one scale


def choose_maps(classifier: Classifier, many: bool, others: Sequence[str]) -> MapSettings | None:
    """The widgets for the saliency maps of one or of `many` photos; None where no map is wanted.

    Of one photo, the maps can be compared with those of `others`, the ids of runs.
    """
    from alexnet import maps, saliency

    titles = {name: method.title for name, method in saliency.METHODS.items()}
    chosen = st.pills(
        "Saliency maps",
        list(titles),
        selection_mode="multi",
        format_func=titles.get,
        default=next(name for name in titles if not saliency.unsupported(classifier.model, name)),
        key="method",
        bind="query-params",
        help="What in the photo the answer goes by. Click several to see them side by side, a chosen one again for none.",
    )
    if not chosen:
        return None
    methods = tuple(method for name, method in saliency.METHODS.items() if name in chosen)
    _about(methods)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        target = _choose_target(classifier.classes)
        layer = _choose_layer(classifier, methods)
        rivals = () if many else _choose_rivals(others)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        layout = _choose_one("Show", maps.LAYOUTS, key="layout")
        signed = any(method.signed for method in methods)
        view = _choose_one("Evidence", maps.VIEWS, key="view") if signed else "signed"
        kinds = {method.signed and view == "signed" for method in methods} if layout != "mask" else ()
        colors = {diverging: _choose_colors(diverging, classifier.classes) for diverging in kinds}
        opacity = layout == "alone" or st.slider("Opacity", 0, 100, 80, format="%d%%", key="opacity", width=165) / 100
        shared = (many or bool(rivals)) and st.toggle(
            "One scale for all", key="shared", help="Shows which maps hold more evidence."
        )
    for name in colors.values():
        color_scale(chosen_colormap(name, classifier.classes, classifier.classes[0]), classifier.classes)
    return MapSettings(methods, target, layer, rivals, view, layout, colors, float(opacity), shared)


def choose_no_map() -> None:
    """Turn the saliency maps off."""
    st.session_state["method"] = []


def _about(methods: Sequence[Method]) -> None:
    """What each method shows, whose it is, what it costs, and why it may mislead."""
    said = [f"{method.sentence} {method.paper}; {method.cost}." for method in methods]
    if len(methods) == 1:
        st.caption(said[0])
    else:
        with st.expander("What these maps show"):
            st.markdown("\n".join(f"- **{m.title}.** {text}" for m, text in zip(methods, said, strict=True)))
    for warning in dict.fromkeys(method.warning for method in methods if method.warning):
        titles = " and ".join(method.title for method in methods if method.warning == warning)
        st.caption(f"⚠️ {titles}: {warning}")


def _choose_target(classes: Sequence[str]) -> str | None:
    choice = {
        "key": "target",
        "format_func": plain,
        "help": "The class that the map explains; without a choice the likeliest of each photo.",
        "bind": "query-params",
    }
    if len(classes) <= MOST_PILLS:
        return st.pills("Target class", list(classes), **choice)
    return st.selectbox("Target class", list(classes), index=None, placeholder="Likeliest class", width=225, **choice)


def _choose_layer(classifier: Classifier, methods: Sequence[Method]) -> str | None:
    """One of the network's convolutions, where a method of `methods` looks at one."""
    from alexnet import saliency

    layers = list(saliency.convolutions(classifier.model))
    if len(layers) < 2 or not any(method.layered for method in methods):
        return None
    about = "Where HiResCAM and Grad-CAM look: early layers know edges and colours, the last ones parts of animals."
    keep = {"key": "gradcam-layer", "bind": "query-params", "help": about}
    chosen = st.segmented_control("Layer", layers, default=layers[-1], required=True, **keep)
    return None if chosen == layers[-1] else chosen


def _choose_rivals(others: Sequence[str]) -> tuple[str, ...]:
    """Of `others`, the runs whose maps are to be seen below those of the chosen one."""
    keep = {"key": "compare", "bind": "query-params", "max_selections": MOST_RIVALS, "placeholder": "Other runs"}
    return tuple(st.multiselect("Compare with", others, width=300, **keep)) if others else ()


def _choose_one(label: str, titles: Mapping[str, str], key: str) -> str:
    names = list(titles)
    return st.segmented_control(label, names, default=names[0], format_func=titles.get, required=True, key=key)


def _choose_colors(diverging: bool, classes: Sequence[str]) -> str:
    from alexnet import maps

    tables = {name: table.title for name, table in maps.COLORMAPS.items() if table.diverging == diverging}
    if diverging and len(classes) == 2:
        tables = {CLASS_COLORS: "Those of the classes", **tables}
    label = "Colours for and against" if diverging else "Colours of strength"
    return st.selectbox(label, list(tables), format_func=tables.get, key=f"colors-{diverging}", width=175)


def chosen_colormap(name: str, classes: Sequence[str], target: str) -> Colormap:
    """The colour table of this name; one run may have two classes where another, that it is compared with, has more."""
    from alexnet import maps

    return maps.default_colormap(True, classes, target) if name == CLASS_COLORS else maps.COLORMAPS[name]


def color_scale(colormap: Colormap, classes: Sequence[str]) -> None:
    """The colours of a saliency map, which cover the page as they cover a photo, and what their ends mean."""
    from alexnet import maps

    low, high = ("speaks against", "speaks for") if colormap.diverging else ("none", "most")
    if colormap.name == CLASS_COLORS:
        high, low = (f"speaks for {html.escape(name)}" for name in classes)
    stops = []
    for at in (i / 16 for i in range(17)):
        cover = math.sqrt(abs(2 * at - 1) if colormap.diverging else at)
        red, green, blue = maps.colours(colormap, at).round().astype(int)
        stops.append(f"rgb({red} {green} {blue} / {cover:.2f})")
    st.html(
        "<div style='display:flex;align-items:center;gap:.6rem;font-size:.875rem;white-space:nowrap'>"
        f"<span style='opacity:.7'>{low}</span><span style='flex:0 1 14rem;height:.6rem;border-radius:.3rem;"
        f"background:linear-gradient(to right,{','.join(stops)})'></span><span style='opacity:.7'>{high}</span></div>"
    )
