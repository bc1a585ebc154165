"""A photo inside a network: the maps that each layer makes of it; and the first filters as colours."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from PIL import Image

from alexnet import images
from alexnet.maps import COLORMAPS
from ui.architecture import go
from ui.networks import Edition
from ui.page import kept

if TYPE_CHECKING:
    from alexnet.anatomy import Row
    from alexnet.predict import Classifier

MAPS_AT_ONCE, UNITS_AT_ONCE = 48, 240
BRIGHTEST = 0.995  # of a layer's numbers reach the end of the colours; a single outlier would leave the rest dark
SORTINGS = {"mean": "Mean", "maximum": "Maximum", "number": "Number"}

# Black is zero in both; the second, after matplotlib's berlin, is for layers that also put out negative numbers.
INFERNO = COLORMAPS["inferno"].anchors
BERLIN = ("#9eb0ff", "#5ba2d9", "#2a6b8e", "#163748", "#110d0c", "#42150c", "#823323", "#c46e63", "#ffadad")


@dataclass(frozen=True)
class Passage:
    """A photo on its way through a network: the crop that the network was given, and what each layer made of it."""

    crop: Image.Image
    outputs: Mapping[str, np.ndarray]  # as `alexnet.anatomy.activations` has them


@st.cache_resource(show_spinner=False, max_entries=4)
def passage(photo: bytes, edition: Edition, _classifier: Classifier) -> Passage:
    """A photo's way through a network, 10 MB at 227 px, shared by all sessions and not to be written to.

    Raises:
        alexnet.images.PhotoError: the photo cannot be used.
    """
    from alexnet import anatomy

    opened = images.open_photo(photo)
    return Passage(_classifier.transform.view(opened), anatomy.activations(_classifier, opened))


def chosen_layer(rows: Sequence[Row]) -> Row:
    """The layer in the address, or the first one."""
    names = {row.name: row for row in rows if not row.idle}
    return names.get(st.query_params.get("layer"), next(iter(names.values())))


def choose_layer(rows: Sequence[Row]) -> Row:
    """The layer whose numbers are looked at, kept in the address."""
    from alexnet import anatomy

    kinds = {row.name: anatomy.kind_of(row.kind) for row in rows if not row.idle}
    chosen = chosen_layer(rows)
    st.session_state["layer"] = chosen.name
    st.selectbox(
        "Layer",
        list(kinds),
        format_func=lambda name: f"{name} ({kinds[name]})",
        key="layer",
        on_change=lambda: go(layer=st.session_state["layer"], unit=None, place=None),
        width=240,
    )
    return chosen


def choose_unit(rows: Sequence[Row], journey: Passage, classes: Sequence[str]) -> tuple[Row, int]:
    """The maps of a layer, strongest first; the layer, and its map that was clicked, kept in the address, or the strongest.

    The units of a last layer with one for each of the `classes` bear their names.
    """
    from alexnet import anatomy

    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        row = choose_layer(rows)
        maps = journey.outputs[row.name]
        sortings = SORTINGS if maps.ndim > 1 else {"maximum": "Value", "number": "Number"}
        by = kept(
            st.segmented_control, "Sorted by", key=f"sorting-{maps.ndim}", default=next(iter(sortings)),
            options=list(sortings), format_func=sortings.get, required=True,
            help="The largest first: the mean of a map, or its maximum. Maps and units are counted from 0.",
        )  # fmt: skip
        shared = maps.ndim == 1 or kept(
            st.toggle, "One scale for all", key="shared-scale", default=True,
            help="Otherwise each map uses the whole range of colours, and weak ones look strong.",
        )  # fmt: skip
    order, at_once = anatomy.order(maps, by), MAPS_AT_ONCE if maps.ndim > 1 else UNITS_AT_ONCE
    wanted = st.query_params.get("unit", "")
    unit = int(wanted) if wanted.isdecimal() and int(wanted) < len(maps) else order[0]
    sheet_place, page = st.container(), 1
    if len(order) > at_once:
        pages, here = math.ceil(len(order) / at_once), order.index(unit) // at_once + 1
        page = st.pagination(pages, default=here, key=f"page-{row.name}-{by}")
    shown = order[(page - 1) * at_once : page * at_once]
    with sheet_place:
        _sheet_of_maps(maps, shown, unit, shared, classes if row.shape == (len(classes),) else ())
    return row, unit


def _sheet_of_maps(maps: np.ndarray, shown: list[int], unit: int, shared: bool, names: Sequence[str]) -> None:
    """One picture of the maps `shown`, to be clicked, and what its colours mean."""
    planes, signed = maps if maps.ndim > 1 else maps[:, None, None], bool(maps.min() < 0)
    limit = float(np.quantile(np.abs(maps), BRIGHTEST)) if shared else None
    scale = np.abs(planes[shown]).max(axis=(1, 2), keepdims=True) if limit is None else limit
    labels = [(i, names[i] if names else str(i), f"{i}: at most {planes[i].max():.3g}") for i in shown]
    side = 76 if maps.ndim > 1 else 96 if names else 34
    picture = picture_of(levels(planes[shown], scale, signed), signed)
    sheet(picture, labels, unit, "maps", lambda number: go(unit=number, place=None), side)
    _legend(limit, signed)


def levels(maps: np.ndarray, scale: np.ndarray | float, signed: bool) -> np.ndarray:
    """Places in the table of colours, uint8: from 0, or where `signed` from minus `scale`, to `scale`."""
    share = maps / np.maximum(scale, 1e-12)
    return np.clip(np.rint(127.5 + 127.5 * share if signed else 255 * share), 0, 255).astype(np.uint8)


def _palette(signed: bool) -> bytes:
    anchors = np.array([tuple(bytes.fromhex(anchor[1:])) for anchor in (BERLIN if signed else INFERNO)])
    at = np.linspace(0, len(anchors) - 1, 256)
    return (
        np.stack([np.interp(at, range(len(anchors)), channel) for channel in anchors.T], axis=1)
        .astype(np.uint8)
        .tobytes()
    )


def picture_of(tiles: np.ndarray, signed: bool) -> Image.Image:
    """Tiles `(N, H, W)` of levels side by side in a square, as a picture with a table of colours."""
    picture = Image.fromarray(mosaic(tiles))
    picture.putpalette(_palette(signed))
    return picture


def mosaic(tiles: np.ndarray) -> np.ndarray:
    """Tiles `(N, H, W, ...)` in rows of `_across(N)`; what stays free is 0."""
    across = _across(len(tiles))
    down = -(-len(tiles) // across)
    whole = np.zeros((across * down, *tiles.shape[1:]), tiles.dtype)
    whole[: len(tiles)] = tiles
    grid = whole.reshape(down, across, *tiles.shape[1:]).swapaxes(1, 2)
    return grid.reshape(down * tiles.shape[1], across * tiles.shape[2], *tiles.shape[3:])


def _across(count: int) -> int:
    return math.ceil(math.sqrt(count))


def address(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def sheet(
    picture: Image.Image,
    labels: Sequence[tuple[int, str, str]],
    chosen: int | None,
    key: str,
    on_choice: Callable[[int], object],
    side: int,
) -> None:
    """Tiles to click, all from one picture.

    Args:
        picture: as `mosaic` lays tiles out.
        labels: for each tile its number, what is written under it, and what is said of it.
        chosen: the number of the one that is marked.
        key: names the sheet.
        on_choice: called with the number of a tile that was clicked.
        side: px, of a tile at least.
    """
    across = _across(len(labels))
    tiles = [{"number": number, "label": label, "says": says} for number, label, says in labels]
    _sheet(
        data={
            "picture": address(picture), "across": across, "down": -(-len(labels) // across),
            "tiles": tiles, "chosen": chosen, "side": side,
        },
        key=f"sheet-{key}",
        on_picked_change=lambda: on_choice(st.session_state[f"sheet-{key}"].picked),
    )  # fmt: skip


def _legend(limit: float | None, signed: bool) -> None:
    """The colours of the maps, and the numbers at their ends: those of the layer, or where there is no limit each map's own."""
    anchors = ",".join(BERLIN if signed else INFERNO)
    high = "the map's largest" if limit is None else f"{limit:.3g} and more"
    low = "as far below zero" if limit is None else f"−{limit:.3g} and less"
    st.html(
        "<div style='display:flex;align-items:center;gap:.6rem;font-size:.875rem;white-space:nowrap'>"
        f"<span style='opacity:.7'>{low if signed else 0}</span><span style='flex:0 1 14rem;height:.6rem;border-radius:.3rem;"
        f"background:linear-gradient(to right,{anchors})'></span><span style='opacity:.7'>{high}</span></div>"
    )


def show_filters(classifier: Classifier, rows: Sequence[Row], on_choice: Callable[[str, int], object]) -> None:
    """The kernels of the first convolution as colours; `on_choice` is told its name and the number of a clicked one."""
    from alexnet import anatomy

    kernels = anatomy.filters(classifier.model)
    if kernels is None:
        st.info("This network has no convolution, and so no filters that could be seen as colours.")
        return
    name = next(row.name for row in rows if row.kind == "Conv2d")
    st.markdown(
        f"The {len(kernels)} filters of {name}, {kernels.shape[2]} × {kernels.shape[3]} pixels of red, green and blue. "
        "A filter answers most where the photo looks like it. Grey is a weight of zero. Click one to see its map."
    )
    shared = kept(
        st.toggle, "One scale for all", key="filter-scale", default=True,
        help="Otherwise the largest weight of each filter has full strength, and those that learnt little look like much.",
    )  # fmt: skip
    towers = next((row.groups for row in rows if row.kind == "Conv2d" and row.groups > 1), 1)
    parts = np.array_split(np.arange(len(kernels)), towers)
    for tower, part in enumerate(parts):
        if towers > 1:
            st.caption(f"Tower {tower + 1} of {towers}")
        labels = [(int(i), str(i), f"{i}: largest weight {np.abs(kernels[i]).max():.3g}") for i in part]
        colours = filter_colours(kernels, shared)[part]
        sheet(Image.fromarray(mosaic(colours)), labels, None, f"filters-{tower}", partial(on_choice, name), side=66)


def filter_colours(kernels: np.ndarray, shared: bool) -> np.ndarray:
    """Kernels `(N, 3, k, k)` as pictures `(N, k, k, 3)` uint8: zero is 128, the largest magnitude of each, or of all, 1 or 255."""
    largest = np.abs(kernels).max(axis=None if shared else (1, 2, 3), keepdims=True)
    levels = np.rint(128 + 127 * kernels / np.maximum(largest, 1e-12))
    return levels.astype(np.uint8).transpose(0, 2, 3, 1)


_sheet = st.components.v2.component(
    "sheet",
    html="<div class='sheet'></div>",
    css="""
    .sheet { display: grid; gap: 6px; padding: 3px; font-family: var(--st-font); }
    button { all: unset; box-sizing: border-box; cursor: pointer; border-radius: 5px; min-width: 0; }
    .tile { display: block; width: 100%; aspect-ratio: 1; border-radius: 4px; image-rendering: pixelated; }
    .label { display: block; margin-top: 3px; overflow: hidden; text-overflow: ellipsis; text-align: center; font-size: 11px; line-height: 1.35;
             color: var(--st-text-color); opacity: .7; font-variant-numeric: tabular-nums; }
    button:hover .tile, button:focus-visible .tile { box-shadow: 0 0 0 2px var(--st-border-color), 0 0 0 3px var(--st-text-color); }
    button[aria-pressed=true] .tile { box-shadow: 0 0 0 2px var(--st-background-color), 0 0 0 4.5px var(--st-primary-color); }
    button[aria-pressed=true] .label { color: var(--st-link-color); font-weight: 650; opacity: 1; }
    """,
    js="""
    export default function ({ data, parentElement, setTriggerValue }) {
      const place = parentElement.querySelector(".sheet");
      const { picture, across, down, tiles, chosen, side } = data;
      place.style.gridTemplateColumns = `repeat(auto-fill, minmax(${side}px, 1fr))`;
      while (place.children.length > tiles.length) place.lastChild.remove();
      while (place.children.length < tiles.length) {
        const button = document.createElement("button");
        button.innerHTML = "<span class='tile'></span><span class='label'></span>";
        place.append(button);
      }
      const share = (index, count) => count > 1 ? `${100 * index / (count - 1)}%` : "0";
      tiles.forEach(({ number, label, says }, index) => {
        const button = place.children[index], [tile, name] = button.children;
        tile.style.backgroundImage = `url(${picture})`;
        tile.style.backgroundSize = `${100 * across}% ${100 * down}%`;
        tile.style.backgroundPosition = `${share(index % across, across)} ${share(Math.floor(index / across), down)}`;
        name.textContent = label;
        button.title = says;
        button.setAttribute("aria-label", says);
        button.setAttribute("aria-pressed", number === chosen);
        button.onclick = () => setTriggerValue("picked", number);
      });
    }
    """,
)
