"""What a network says of a photo."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import streamlit as st

from alexnet import figures
from ui.page import plain

if TYPE_CHECKING:
    from alexnet.predict import Prediction

ShowMap = Callable[..., object]  # `st.image` in its place

IN_ROW = 150  # px, the width of the two pictures in a row; both fit on a phone
MOST_BARS = 5  # classes whose probability is shown


def show_photo(name: str, thumbnail: bytes, prediction: Prediction, many: bool, maps: int) -> list[ShowMap]:
    """Photo, crop and verdict, large for one photo, in a row for many; returns the places of its saliency maps.

    A place shows the crop until its map is drawn. Beside a large photo there is one place at most.
    """
    crop = prediction.input
    if many:
        left, right = st.container(border=True).columns([3, 5] if maps < 2 else [5, 3], vertical_alignment="center")
        with left.container(horizontal=True, vertical_alignment="center" if maps < 2 else "top"):
            st.image(thumbnail, width=IN_ROW)
            places = [functools.partial(st.empty().image, width=IN_ROW) for _ in range(maps)]
        with right:
            st.caption(plain(name))
            verdict(prediction)
    else:
        left, right = st.columns([2, 3], gap="medium")
        left.image(thumbnail, caption=plain(name))
        with right:
            verdict(prediction)
            left, right = st.columns(2)
        left.image(crop, caption=f"Given to the network: {crop.width} × {crop.height} px", width="stretch")
        places = [functools.partial(right.empty().image, width="stretch")][:maps]
    for show in places:
        show(crop)
    return places


def verdict(prediction: Prediction) -> None:
    """The label or that it is none, a bar for the probability of each class, and how much that is worth.

    Of many classes the likeliest ones are shown. Where the network abstains they are muted, and it says why.
    """
    from alexnet.familiarity import neither

    headline, fade, doubt = prediction.label, "", ""
    if headline is None:
        says = neither(list(prediction.probabilities))
        headline = says[0].upper() + says[1:]
        fade = ";opacity:.65;filter:grayscale(.7)"
        doubt = f"<div style='margin-top:.6rem'>{_doubt(prediction.familiarity)}</div>"
    st.html(
        f"<div style='font-size:1.5rem;font-weight:650;margin-bottom:.4rem'>{html.escape(headline)}</div>"
        "<div style='display:grid;grid-template-columns:fit-content(40%) 1fr 3.5rem;gap:.4rem .8rem;"
        f"align-items:center{fade}'>{_bars(prediction.probabilities)}</div>{doubt}"
        f"<div style='opacity:.7;font-size:.875rem;margin-top:.6rem'>{_footnote(prediction)}</div>"
    )


def _bars(probabilities: Mapping[str, float]) -> str:
    colors = {name: figures.class_color(name, i) for i, name in enumerate(probabilities)}
    rows = list(probabilities.items())
    if len(rows) > MOST_BARS:
        rows = sorted(rows, key=lambda row: -row[1])[:MOST_BARS]
    return "".join(
        f"<span style='overflow-wrap:anywhere'>{html.escape(name)}</span>"
        "<span style='background:color-mix(in srgb,currentColor 12%,transparent);border-radius:.4rem;height:.75rem'>"
        f"<span style='display:block;height:100%;border-radius:.4rem;width:{p:.2%};background:{colors[name]}'></span>"
        f"</span><span style='text-align:right;font-variant-numeric:tabular-nums'>{p:.1%}</span>"
        for name, p in rows
    )


def _doubt(familiarity: float) -> str:
    return (
        f"This photo looks less familiar than {1 - familiarity:.1%} of the photos that the network was "
        "validated on, so the probabilities mean little."
    )


def _footnote(prediction: Prediction) -> str:
    familiarity, time = prediction.familiarity, f"in {1000 * prediction.seconds:.0f} ms"
    if familiarity is None or prediction.label is None:
        return time
    return f"{time}, more familiar than {familiarity:.0%} of the validation photos"
