"""One unit of a network: its map, the part of the photo that it sees, what excites it most, and its arithmetic."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw

from alexnet import data, runs
from ui.architecture import go, has_own_photos
from ui.architecture_maps import Passage, address, levels, picture_of
from ui.datasets import dataset
from ui.networks import Edition
from ui.page import plain, plain_errors
from ui.progress import progress_on_demand

if TYPE_CHECKING:
    from alexnet.anatomy import Arithmetic, Row, Strongest
    from alexnet.data import Progress
    from alexnet.predict import Classifier

Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are outside
Place = tuple[int, int]  # row and column of a map, from 0

SAMPLE = 500  # training photos that are looked through for those that excite a unit
PICTURE = 108  # px at least, the side of one of those; nine fit into a row
COLOURS = ("Red", "Green", "Blue")
MOST_SUMS = 10  # inputs whose share in a number is listed
ROUNDING = 1e-4  # by which, in proportion, sums of 32-bit numbers may differ from those of 64 bits
POSITIVE, NEGATIVE = "#0d9488", "#c0568f"


def show_unit(row: Row, unit: int, journey: Passage, classes: Sequence[str]) -> Place:
    """One unit's map, the part of the photo that drives it at one place, and its number there.

    Returns:
        That place: the clicked one, kept in the address, or that of the largest number.
    """
    maps = journey.outputs[row.name]
    if maps.ndim == 1:
        name = f" ({plain(classes[unit])})" if row.shape == (len(classes),) else ""
        rank = int((maps > maps[unit]).sum()) + 1
        st.markdown(f"##### {row.name}, unit {unit}{name}: {maps[unit]:.4f}")
        st.caption(f"Number {rank:,} of {len(maps):,}. A fully connected unit sees all of the photo.")
        return 0, 0
    down, across = place = _place(maps[unit])
    st.markdown(f"##### {row.name}, map {unit}, row {down}, column {across}: {maps[unit][place]:.4f}")
    left, middle, right = st.columns(3)
    with left:
        _point(maps[unit], place, signed=bool(maps.min() < 0))
        st.caption("Its map. Click a place in it, or move with the arrow keys.")
    box, crop = seen_by(row, place), journey.crop
    if box is None:
        middle.caption("This place sees nothing of the photo, only the zeros around it.")
        return place
    middle.image(framed(crop, box), width="stretch")
    middle.caption(f"What the network was given, {crop.width} × {crop.height} px, and what this place sees of it.")
    right.image(enlarged(crop.crop(box), 2 * crop.width), width="stretch")
    width, height = box[2] - box[0], box[3] - box[1]
    cut = (
        f" The photo's border cuts it off: it would be {row.field.size} px."
        if min(width, height) < row.field.size
        else ""
    )
    right.caption(f"{width} × {height} px: columns {box[0]} to {box[2] - 1}, rows {box[1]} to {box[3] - 1}.{cut}")
    return place


def _place(own: np.ndarray) -> Place:
    """The place in the address, where the map has it, or that of its largest number."""
    words = st.query_params.get("place", "").split("-")
    if len(words) == 2 and all(word.isdecimal() for word in words):
        down, across = map(int, words)
        if down < own.shape[0] and across < own.shape[1]:
            return down, across
    down, across = np.unravel_index(own.argmax(), own.shape)
    return int(down), int(across)


def _point(own: np.ndarray, place: Place, signed: bool) -> None:
    """A map `(H, W)`, enlarged on a scale of its own, with its `place` marked, and others to click."""
    picture = address(picture_of(levels(own[None], float(np.abs(own).max()), signed), signed))
    _places(
        data={"picture": picture, "size": own.shape, "place": place},
        key="places",
        on_picked_change=lambda: go(place=st.session_state["places"].picked),
    )


def seen_by(row: Row, place: Place) -> Box | None:
    """The pixels that a unit of a layer sees from this place of its map, or None where it sees padding only."""
    (top, bottom), (left, right) = (row.field.spans[index] for index in place)
    return (left, top, right + 1, bottom + 1) if left <= right and top <= bottom else None


def framed(crop: Image.Image, box: Box) -> Image.Image:
    """The crop at twice its size, all but the `box` fainter, and a line around that."""
    large = crop.resize((2 * crop.width, 2 * crop.height), Image.Resampling.BICUBIC)
    left, top, right, bottom = inside = tuple(2 * edge for edge in box)
    result = Image.blend(large, Image.new("RGB", large.size, "grey"), 0.55)
    result.paste(large.crop(inside), (left, top))
    pen = ImageDraw.Draw(result)
    for out in range(3):
        pen.rectangle((left - out, top - out, right - 1 + out, bottom - 1 + out), outline=POSITIVE if out else "black")
    return result


def enlarged(patch: Image.Image, side: int) -> Image.Image:
    """`patch` in the middle of a square of `side` px, which it fills along its longer side; the rest is transparent.

    Where its pixels are few, each is a sharp square.
    """
    factor = side / max(patch.size)
    size = max(1, round(patch.width * factor)), max(1, round(patch.height * factor))
    large = patch.resize(size, Image.Resampling.NEAREST if factor > 4 else Image.Resampling.BICUBIC)
    square = Image.new("RGBA", (side, side))
    square.paste(large, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def show_strongest(run: runs.Run, row: Row, unit: int, classifier: Classifier, edition: Edition) -> None:
    """The training photos that excite a unit most, once they are asked for."""
    st.markdown("##### Training photos that excite it most")
    if not has_own_photos(run):
        st.caption(f"They would be shown here if the photos that {plain(run.id)} was trained on were on this computer.")
        return
    if st.session_state.get("strongest") != run.id:
        ask = {"on_click": st.session_state.update, "kwargs": {"strongest": run.id}}
        st.button(f"Look through {SAMPLE} of them", icon=":material/image_search:", **ask)
        return
    forget = partial(st.session_state.pop, "strongest", None)
    with plain_errors():
        found = dataset(run.config["data"], cancel=forget)
        fingerprint = found.fingerprint
        photos = _sample(run.id, fingerprint, found)
        with progress_on_demand(st.container(), cancel=forget) as progress:
            best = _strongest(edition, fingerprint, photos, found, classifier, progress)[row.name]
        figures = []
        for value, index, place in zip(best.values[unit], best.photos[unit], best.places[unit].tolist(), strict=True):
            pictures = _excited(photos[index].digest, edition, _box(row, place), photos[index], found, classifier)
            figures.append(_figure(pictures, f"{found.classes[photos[index].label]} {value:.3g}"))
        st.html(
            f"<div style='display:grid;grid-template-columns:repeat(auto-fill,minmax({PICTURE}px,1fr));gap:.8rem'>"
            f"{''.join(figures)}</div>"
        )
        changed = " The folder has changed since then." if fingerprint != run.config["dataset"]["fingerprint"] else ""
        st.caption(f"Of {len(photos):,} photos from all over those it was trained on, one view of each.{changed}")


def _box(row: Row, place: int) -> Box | None:
    """What a unit sees from a place of its flattened map; None for all or nothing of the photo."""
    return seen_by(row, divmod(place, row.shape[2])) if len(row.shape) > 1 else None


@st.cache_data(show_spinner=False, max_entries=8)
def _sample(run_id: str, fingerprint: str, _dataset: data.Dataset) -> list[data.Photo]:
    """Training photos of a run from all over their order."""
    photos = data.split_of(_dataset, runs.find(run_id).recipe, "train")
    return photos[:: math.ceil(len(photos) / SAMPLE)]


@st.cache_resource(show_spinner=False, max_entries=3)
def _strongest(
    edition: Edition,
    fingerprint: str,
    _photos: Sequence[data.Photo],
    _dataset: data.Dataset,
    _classifier: Classifier,
    _progress: Progress,
) -> dict[str, Strongest]:
    """What excites every unit of a network most among the photos of `_sample`: 3 MB, shared by all sessions."""
    from alexnet import anatomy

    return anatomy.strongest(_classifier, _dataset, _photos, _progress)


@st.cache_data(show_spinner=False, max_entries=500)
def _excited(
    digest: str, edition: Edition, box: Box | None, _photo: data.Photo, _dataset: data.Dataset, _classifier: Classifier
) -> list[str]:
    """The addresses of pictures: the patch `box` of a photo, and where that lies; without one, all that the network sees."""
    crop = _classifier.transform.view(_dataset.open(_photo, at_least=_classifier.transform.resize))
    side = 2 * PICTURE
    return [address(crop)] if box is None else [address(enlarged(crop.crop(box), side)), address(framed(crop, box))]


def _figure(pictures: Sequence[str], caption: str) -> str:
    look = "width:100%;display:block;border-radius:.4rem;margin-bottom:.3rem"
    images = "".join(
        f"<img src='{picture}' style='{look}' alt='{html.escape(caption, quote=True)}'>" for picture in pictures
    )
    return f"<figure style='margin:0;font-size:.875rem;text-align:center'>{images}{html.escape(caption)}</figure>"


def show_arithmetic(
    classifier: Classifier,
    rows: Sequence[Row],
    row: Row,
    unit: int,
    place: Place,
    journey: Passage,
    on_choice: Callable[[str, int, str | None], object],
) -> None:
    """How a unit comes to its number at a place, for a person to check.

    Of a layer that adds nothing up it offers the arithmetic of the one that it reads: `on_choice` is told that layer,
    the unit, and the place where it has the same.
    """
    from alexnet import anatomy

    st.markdown("##### How it comes to this number")
    source = anatomy.source_of(row.name, rows)
    own, below = journey.outputs[row.name], journey.outputs[source]
    sums = anatomy.arithmetic(dict(classifier.model.layers())[row.name], below, unit, *place)
    if sums is None:
        st.caption(f"{row.name} adds nothing up: it takes the numbers of {source}.")
        there = [source, unit, "{}-{}".format(*place) if own.shape == below.shape else None]
        st.button(f"The arithmetic of {source}", on_click=on_choice, args=there)
    elif own.ndim > 1:
        maps, side = len(sums.inputs), sums.kernel.shape[1]
        st.markdown(
            f"Each number of the patch times the weight at the same place of the kernel: {maps:,} maps of {source}, "
            f"{side} × {side} numbers each, so {sums.kernel.size:,} products. All of them and the bias add up to the number."
        )
        _show_products(sums, source)
        _show_sums(sums, float(own[unit][place]), source, ())
    else:
        st.markdown(
            f"Each of the {below.size:,} numbers that {source} puts out times the weight that the unit has for it. All the "
            "products and the bias add up to the number."
        )
        _show_sums(sums, float(own[unit]), source, below.shape)


def _show_products(sums: Arithmetic, source: str) -> None:
    """Patch, kernel and products of one map that the unit reads, as tables."""
    by_size = np.argsort(-np.abs(sums.sums), kind="stable").tolist()
    options = list(range(len(COLOURS))) if source == "photo" else by_size
    title = lambda index: _input_name(sums.inputs[index], source, ())  # noqa: E731
    if len(options) == len(COLOURS):
        index = st.segmented_control(
            "Map", options, format_func=title, default=0, required=True, label_visibility="collapsed"
        )
    else:
        index = st.selectbox("The map of the patch, the largest sum first", options, format_func=title, width=260)
    tables = [("Patch", sums.patch[index]), ("× kernel", sums.kernel[index]), ("= products", sums.products[index])]
    st.html(
        "<div style='display:flex;flex-wrap:wrap;gap:1rem 1.8rem'>"
        f"{''.join(_number_table(name, table) for name, table in tables)}</div>"
    )
    st.caption(
        f"The products of this map add up to {sums.sums[index]:.4f}. All digits are used, two are shown."
        + (
            " The patch is the photo as the network has it: colours less their mean, in deviations."
            if source == "photo"
            else ""
        )
    )


def _number_table(name: str, table: np.ndarray) -> str:
    """Numbers in a table, each on a ground of the colour of its sign, as strong as it is large."""
    largest = max(float(np.abs(table).max()), 1e-12)
    cells = "".join(f"<tr>{''.join(_cell(number, largest) for number in line)}</tr>" for line in table.tolist())
    return (
        f"<div style='overflow-x:auto;max-width:100%'><div style='font-weight:650;margin-bottom:.3rem'>{html.escape(name)}</div>"
        "<table style='border-collapse:separate;border-spacing:1px;font-size:11.5px;font-variant-numeric:tabular-nums;"
        f"text-align:right;line-height:1.7'>{cells}</table></div>"
    )


def _cell(number: float, largest: float) -> str:
    ink = POSITIVE if number > 0 else NEGATIVE
    shade = f"color-mix(in srgb,{ink} {60 * abs(number) / largest:.0f}%,transparent)"
    return f"<td style='background:{shade};padding:0 3px;border-radius:2px;min-width:24px' title='{number:.6f}'>{_two(number)}</td>"


def _two(number: float) -> str:
    return f"{number:z.2f}".replace("-", "−")


def _show_sums(sums: Arithmetic, value: float, source: str, shape: tuple[int, ...]) -> None:
    """The sum of each input's products, the bias, their total, and whether the network says the same."""
    order = range(len(sums.sums)) if len(sums.sums) <= MOST_SUMS else np.argsort(-np.abs(sums.sums), kind="stable")
    listed, rest = list(order[:MOST_SUMS]), list(order[MOST_SUMS:])
    lines = [(_input_name(sums.inputs[index], source, shape), float(sums.sums[index])) for index in listed]
    largest = max(abs(number) for _, number in [*lines, ("bias", sums.bias)]) or 1.0
    bars = "".join(_bar(*line, largest) for line in lines)
    if rest:
        bars += f"<span>the other {len(rest):,}</span><span></span>{_result(float(sums.sums[rest].sum()))}"
    bars += _bar("bias", sums.bias, largest)
    st.html(
        "<div style='display:grid;grid-template-columns:fit-content(45%) minmax(6rem,22rem) max-content;gap:.25rem .8rem;"
        f"align-items:center;font-variant-numeric:tabular-nums'>{bars}<hr style='grid-column:1/-1;width:100%;margin:.2rem 0'>"
        f"<b>total</b><span></span><b>{_result(sums.total)}</b></div>"
    )
    if abs(sums.total - value) <= ROUNDING * max(1.0, abs(value)):
        st.caption(f":material/check: The network itself put out {_four(value)}.")
    else:
        st.warning(f"The network itself put out {_four(value)}, which is not the same.")


def _bar(name: str, number: float, largest: float) -> str:
    length = 50 * abs(number) / largest
    side = f"left:50%;background:{POSITIVE}" if number > 0 else f"right:50%;background:{NEGATIVE}"
    return (
        f"<span>{html.escape(name)}</span><span style='position:relative;height:.75rem;border-radius:.3rem;"
        "background:color-mix(in srgb,currentColor 10%,transparent)'>"
        f"<span style='position:absolute;top:0;bottom:0;{side};width:{length:.1f}%;border-radius:.2rem'></span></span>"
        f"{_result(number)}"
    )


def _result(number: float) -> str:
    return f"<span style='display:block;text-align:right'>{_four(number)}</span>"


def _four(number: float) -> str:
    return f"{number:z.4f}".replace("-", "−")


def _input_name(index: int, source: str, shape: tuple[int, ...]) -> str:
    """What a person calls the input `index` of a unit that reads `source`, whose maps had `shape` before they were flattened."""
    if len(shape) == 3:
        number, down, across = (int(place) for place in np.unravel_index(index, shape))
        return f"{_input_name(number, source, ())}, row {down}, column {across}"
    return COLOURS[index] if source == "photo" else f"{source} {index}"


_places = st.components.v2.component(
    "places",
    html="<div class='map' role='application' tabindex='0' aria-label='The map; move with the arrow keys'><div class='mark'></div></div>",
    css="""
    .map { position: relative; width: 100%; aspect-ratio: 1; background-size: 100% 100%; image-rendering: pixelated;
           border-radius: 6px; cursor: crosshair; outline: none; touch-action: manipulation; }
    .map:focus-visible { box-shadow: 0 0 0 2px var(--st-background-color), 0 0 0 4px var(--st-primary-color); }
    .mark { position: absolute; box-sizing: border-box; border: 2px solid #fff; border-radius: 2px; pointer-events: none;
            box-shadow: 0 0 0 1.5px #000; min-width: 8px; min-height: 8px; transform: translate(-50%, -50%); }
    """,
    js="""
    export default function ({ data, parentElement, setTriggerValue }) {
      const map = parentElement.querySelector(".map"), mark = parentElement.querySelector(".mark");
      const [rows, columns] = data.size;
      let [row, column] = data.place;
      map.style.backgroundImage = `url(${data.picture})`;
      map.style.aspectRatio = `${columns} / ${rows}`;
      function show() {
        mark.style.left = `${100 * (column + .5) / columns}%`;
        mark.style.top = `${100 * (row + .5) / rows}%`;
        mark.style.width = `${100 / columns}%`;
        mark.style.height = `${100 / rows}%`;
      }
      function pick(y, x) {
        row = Math.max(0, Math.min(rows - 1, y));
        column = Math.max(0, Math.min(columns - 1, x));
        show();
        setTriggerValue("picked", `${row}-${column}`);
      }
      map.onclick = event => {
        const box = map.getBoundingClientRect();
        pick(Math.floor(rows * (event.clientY - box.top) / box.height), Math.floor(columns * (event.clientX - box.left) / box.width));
      };
      map.onkeydown = event => {
        const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        if (!by) return;
        event.preventDefault();
        pick(row + by[0], column + by[1]);
      };
      show();
    }
    """,
)
