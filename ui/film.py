"""The film of a run: how what its network makes of a dozen photos changed from epoch to epoch."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image

from alexnet import figures, film, maps
from alexnet.film import Film, Frame, Subject
from alexnet.runs import Run
from ui.architecture import go
from ui.architecture_maps import address, levels, mosaic
from ui.map_settings import color_scale
from ui.photos import encoded

OPACITY = 0.8
INK = figures.TRAINING  # can be seen on a white and on a black page
FILTERS_WIDTH = 400  # px, about; each pixel of a filter covers as many as any other


def show_film(run: Run) -> None:
    """The film of a run in an expander, if there is one. While that is closed it costs a look into the folder.

    The epoch to be seen is in the address; without one there, it is the newest that there is.
    """
    if not film.epochs(run):
        return
    with st.expander("Watch it learn", key="film", bind="query-params") as box:
        if not box.open:
            return
        path, changed = str(run.path), film.changed(run)
        seen = _read(path, changed)
        if seen is None or not seen.frames:
            st.info("The film of this run cannot be read; training goes on without it.")
            return
        epoch, classes = _choose_epoch(list(seen.frames)), run.config["classes"]
        st.caption(_summary(seen, epoch, classes, (run.status().best or {}).get("epoch")))
        st.html(_strip(path, changed, epoch, seen, classes))
        if len(seen.frames) > 1:
            st.caption("The line below a photo is the probability of its class over the epochs, from 0 to 100%.")
        if seen.frames[epoch].maps is not None:
            st.caption(
                "The maps are Grad-CAM for the class of each photo, also where it speaks against it, with one scale for all "
                "photos and epochs."
            )
            color_scale(_colormap(classes, classes[0]), classes)
            st.html(_filters(path, changed, epoch, seen))


@st.cache_resource(show_spinner=False, max_entries=3)
def _read(path: str, changed: int) -> Film | None:
    return film.read(Run(Path(path)))


def _choose_epoch(epochs: Sequence[int]) -> int:
    """A slider over the epochs of which there are frames; at its end it follows a run that is training."""
    wanted = st.query_params.get("epoch", "")
    chosen = int(wanted) if wanted.isdecimal() and int(wanted) in epochs else epochs[-1]
    if len(epochs) > 1:
        st.session_state["film-epoch"] = chosen
        st.select_slider("Epoch", epochs, key="film-epoch", on_change=_turn_to, args=[epochs[-1]])
    return chosen


def _turn_to(newest: int) -> None:
    chosen = st.session_state["film-epoch"]
    go(epoch=None if chosen == newest else chosen)


def _summary(seen: Film, epoch: int, classes: Sequence[str], best: int | None) -> str:
    """What an epoch comes to, in words."""
    right = sum(_taken_for(s, row, classes) is None for s, row in _rows(seen, epoch))
    kept = ", whose weights are kept," if epoch == best else ""
    return f"After epoch {epoch}{kept} it answers {right} of these {len(seen.subjects)} validation photos right."


def _rows(seen: Film, epoch: int) -> list[tuple[Subject, np.ndarray]]:
    return list(zip(seen.subjects, seen.frames[epoch].probabilities, strict=True))


def _taken_for(subject: Subject, row: np.ndarray, classes: Sequence[str]) -> str | None:
    """The class that a photo is taken for; None where that is its own."""
    best = classes[int(row.argmax())]
    return None if best == subject.label else best


@st.cache_data(show_spinner=False, max_entries=200)
def _strip(path: str, changed: int, epoch: int, _seen: Film, classes: Sequence[str]) -> str:
    """All photos after an epoch, as HTML."""
    scale = _scale([frame.maps for frame in _seen.frames.values() if frame.maps is not None])
    cards = "".join(_card(_seen, number, epoch, classes, scale) for number in range(len(_seen.subjects)))
    return (
        "<div style='display:grid;gap:1rem .7rem;grid-template-columns:repeat(auto-fill,minmax(max(6rem,15%),1fr))'>"
        f"{cards}</div>"
    )


def _scale(found: Sequence[np.ndarray]) -> float:
    return maps.strength(np.concatenate(found)) if found else 0.0


def _card(seen: Film, number: int, epoch: int, classes: Sequence[str], scale: float) -> str:
    """A photo with its map, whether the network is right about it, and its probability over the epochs."""
    subject, frame = seen.subjects[number], seen.frames[epoch]
    own = classes.index(subject.label)
    picture = _overlay(subject, frame, number, classes, scale)
    source = "data:image/jpeg;base64," + base64.b64encode(encoded(picture, max(picture.size), "JPEG")).decode()
    taken_for, name = _taken_for(subject, frame.probabilities[number], classes), html.escape(subject.label)
    mark, said = ("✓", "right") if taken_for is None else ("✗", "wrong")
    more = f", taken for {html.escape(taken_for)}" if taken_for else ""
    likely = {at: float(each.probabilities[number, own]) for at, each in seen.frames.items()}
    return (
        f"<figure style='margin:0;min-width:0;display:flex;flex-direction:column'><img src='{source}' style='width:100%;border-radius:.4rem;display:block' "
        f"alt='{html.escape(subject.path, quote=True)} after epoch {epoch}'>"
        "<figcaption style='font-size:.875rem;line-height:1.35;margin:.3rem 0;overflow-wrap:anywhere'>"
        f"<span role='img' aria-label='{said}' style='font-weight:700'>{mark}</span> {name} "
        f"<span style='font-variant-numeric:tabular-nums'>{likely[epoch]:.0%}</span>"
        f"<span style='opacity:.7'>{more}</span></figcaption>"
        f"{_line(likely, epoch, figures.class_color(subject.label, own))}</figure>"
    )


def _overlay(subject: Subject, frame: Frame, number: int, classes: Sequence[str], scale: float) -> Image.Image:
    if frame.maps is None:
        return subject.picture
    evidence = maps.stretch(frame.maps[number], subject.picture.height)
    return maps.render(evidence, subject.picture, OPACITY, _colormap(classes, subject.label), scale)


def _colormap(classes: Sequence[str], target: str) -> maps.Colormap:
    return maps.default_colormap(True, classes, target)


def _line(likely: dict[int, float], epoch: int, color: str) -> str:
    """A small curve of probabilities, 0 to 1, by epoch, with a mark at one of them."""
    if len(likely) < 2:
        return ""
    first, last = min(likely), max(likely)
    x = {at: 100 * (at - first) / (last - first) for at in likely}
    points = " ".join(f"{x[at]:.1f},{23 - 22 * p:.1f}" for at, p in likely.items())
    thin = "vector-effect='non-scaling-stroke' fill='none'"
    picture = (
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 100 24' preserveAspectRatio='none'>"
        f"<path d='M0 12H100' stroke='{INK}' stroke-dasharray='2 3' {thin}/>"
        f"<path d='M{x[epoch]:.1f} 0V24' stroke='{INK}' stroke-width='2' {thin}/>"
        f"<polyline points='{points}' stroke='{color}' stroke-width='2' stroke-linejoin='round' {thin}/></svg>"
    )
    source = (
        "data:image/svg+xml;base64," + base64.b64encode(picture.encode()).decode()
    )  # as itself it is not let through
    return f"<img src='{source}' alt='' style='width:100%;height:1.6rem;margin-top:auto'>"


@st.cache_data(show_spinner=False, max_entries=200)
def _filters(path: str, changed: int, epoch: int, _seen: Film) -> str:
    """The kernels of the first convolution after an epoch as colours, with one scale for all epochs, as HTML."""
    found = {at: frame.filters for at, frame in _seen.frames.items() if frame.filters is not None}
    largest = max(float(np.abs(filters).max()) for filters in found.values())
    tiles = levels(found[epoch].astype(np.float32), largest, signed=True).transpose(0, 2, 3, 1)
    opaque = np.full((*tiles.shape[:3], 1), 255, np.uint8)
    apart = np.pad(np.concatenate([tiles, opaque], axis=3), ((0, 0), (0, 1), (0, 1), (0, 0)))
    picture = Image.fromarray(mosaic(apart))
    width = picture.width * max(1, round(FILTERS_WIDTH / picture.width))
    return (
        f"<figure style='margin:.6rem 0 0'><figcaption style='font-size:.875rem;opacity:.7;margin-bottom:.4rem'>The "
        f"{len(tiles)} filters of the first convolution after epoch {epoch}, with one scale for all epochs. Grey is a "
        f"weight of zero.</figcaption><img src='{address(picture)}' alt='{len(tiles)} filters as colours' "
        f"style='width:{width}px;max-width:100%;image-rendering:pixelated;display:block'></figure>"
    )
