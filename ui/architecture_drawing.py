"""The picture of a network: a block for each stage, in the manner of the figure of 2012, and its layers to click."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import streamlit as st
from PIL import Image

from ui.photos import encoded

if TYPE_CHECKING:
    from alexnet.anatomy import Row

PHOTO_SIDE = 166  # px in the drawing; maps have the root of their share of it
DEPTH, UNITS = 2.7, 2.6  # px for the root of the number of maps, and of units
WIDEST, TALLEST = 120, 216  # px
SLANT = 0.3  # how far the side of a block leans back, as a share of its height
COLUMN, GAP = 84, 34  # px at least from block to block, and between two of them
MIDDLE, GROUND, LINE = 149, 262, 16  # px: about what the blocks float, where text begins, from line to line of it
FACE = 160  # px of the photo that leans on the first block
BLOCKS = {"Conv2d": "conv", "MaxPool2d": "pool", "AvgPool2d": "pool", "AdaptiveAvgPool2d": "pool", "Linear": "full"}


@dataclass
class Block:
    """A stage of the network: the layer whose output is drawn, and those after it that keep that shape."""

    name: str
    kind: str
    shape: tuple[int, ...]
    image_size: int
    groups: int = 1
    kernel: float = 0.0  # side of the next layer's kernel as a share of this block's side
    notes: list[tuple[str, str, bool]] = field(default_factory=list)  # layer, what it is, whether it can be chosen

    @property
    def height(self) -> float:
        if len(self.shape) > 1:
            return PHOTO_SIDE * math.sqrt(self.shape[1] / self.image_size)
        return min(TALLEST, max(6.0, UNITS * math.sqrt(self.shape[0])))

    @property
    def width(self) -> float:
        return min(WIDEST, max(4.0, DEPTH * math.sqrt(self.shape[0]))) if len(self.shape) > 1 else 11.0

    @property
    def lean(self) -> float:
        return SLANT * self.height if len(self.shape) > 1 else 5.0


def blocks(rows: Sequence[Row], image_size: int, kinds: Callable[[str], str]) -> list[Block]:
    """The stages of a network, the photo first; `kinds` says what the field calls a layer's class."""
    found = [Block("photo", "photo", (3, image_size, image_size), image_size)]
    for row in rows:
        if row.kind in BLOCKS and not row.idle:
            if row.window:
                found[-1].kernel = min(1.0, row.window[0] / row.reads[1])
            found.append(Block(row.name, BLOCKS[row.kind], row.shape, image_size, row.groups))
        elif row.kind not in ("Flatten", "AdaptiveAvgPool2d", "Identity"):
            found[-1].notes.append((row.name, kinds(row.kind), not row.idle))
    return found


def svg(stages: Sequence[Block], chosen: str, photo: str) -> str:
    """The stages side by side. Whatever carries `data-layer` can be chosen; `chosen` is marked.

    `photo` is the address of the picture on the side of the first block.
    """
    places, x = [], 12.0
    for block in stages:
        places.append(x)
        x += max(COLUMN, block.width + block.lean + GAP)
    lines = max(len(block.notes) for block in stages)
    height = GROUND + LINE * (lines + 1) + 8
    flows = "".join(_flow(*pair) for pair in pairwise(zip(stages, places, strict=True)))
    drawn = "".join(_block(block, place, chosen) for block, place in zip(stages, places, strict=True))
    face = _face(stages[0], places[0], photo)
    return f"<svg viewBox='0 0 {x:.0f} {height}' style='min-width:{0.82 * x:.0f}px' role='group'>{drawn}{face}{flows}</svg>"


def _face(block: Block, x: float, photo: str) -> str:
    """The photo itself, leaning back on the right side of its block."""
    plane = f"matrix({block.lean:.1f},{-block.lean:.1f},0,{block.height:.1f},{x + block.width:.1f},{_top(block):.1f})"
    return f"<image href='{photo}' width='1' height='1' preserveAspectRatio='none' transform='{plane}'/>"


def _block(block: Block, x: float, chosen: str) -> str:
    """A box whose height is the maps' side and whose width is their number, with its names."""
    w, h, lean, y = block.width, block.height, block.lean, _top(block)
    front = f"<rect class='front' x='{x:.1f}' y='{y:.1f}' width='{w:.1f}' height='{h:.1f}'/>"
    top = _polygon("top", (x, y), (x + w, y), (x + w + lean, y - lean), (x + lean, y - lean))
    right = _polygon("right", (x + w, y), (x + w + lean, y - lean), (x + w + lean, y + h - lean), (x + w, y + h))
    towers = ""
    if block.groups > 1:
        cut = x + w / 2
        towers = f"<path class='cut' d='M{cut:.1f} {y + h:.1f}V{y:.1f}l{lean:.1f} {-lean:.1f}'/>"
    shape = " × ".join(f"{length:,}" for length in block.shape)
    name = f"<text class='name' x='{x:.1f}' y='{y - lean - 8:.1f}'>{html.escape(block.name)}</text>"
    size = f"<text class='shape' x='{x:.1f}' y='{GROUND + LINE}'>{shape}</text>"
    notes = "".join(_note(*note, x, GROUND + LINE * (i + 2), chosen) for i, note in enumerate(block.notes))
    reach = max(w + lean, COLUMN - 12)  # the space between the block and its names is clicked, too
    hit = f"<rect class='hit' x='{x:.1f}' y='{y - lean - 20:.1f}' width='{reach:.1f}' height='{GROUND + LINE - y + lean + 22:.1f}'/>"
    body = f"{hit}{top}{right}{front}{towers}{name}{size}"
    if block.kind == "photo":
        return f"<g class='photo'>{body}</g>{notes}"
    says = f"{block.name}, puts out {shape}"
    return f"<g class='{block.kind}' {_choice(block.name, says, chosen)}>{body}</g>{notes}"


def _note(name: str, kind: str, choosable: bool, x: float, y: float, chosen: str) -> str:
    choice = _choice(name, name, chosen) if choosable else ""
    return f"<text class='note' x='{x:.1f}' y='{y}' {choice}>{html.escape(kind)}</text>"


def _choice(name: str, says: str, chosen: str) -> str:
    pressed = str(name == chosen).lower()
    label, layer = html.escape(says, quote=True), html.escape(name, quote=True)
    return f"data-layer='{layer}' role='button' tabindex='0' aria-label='{label}' aria-pressed='{pressed}'"


def _flow(here: tuple[Block, float], there: tuple[Block, float]) -> str:
    """What the next layer sees at a time: its kernel on the side of a block, drawn together to one place of the next."""
    (block, x), (following, beyond) = here, there
    target = f"{beyond:.1f} {_top(following) + following.height / 2:.1f}"
    middle = _top(block) + block.height / 2
    if not block.kernel:
        return f"<path class='flow' d='M{x + block.width + block.lean:.1f} {middle - block.lean / 2:.1f}L{target}'/>"
    side, lean = block.kernel * block.height, block.kernel * block.lean
    left, low = x + block.width + (block.lean - lean) / 2, middle + (side - block.lean + lean) / 2
    corners = (left, low), (left + lean, low - lean), (left + lean, low - lean - side), (left, low - side)
    rays = "".join(f"M{across:.1f} {down:.1f}L{target}" for across, down in corners[1:3])
    return f"<path class='flow' d='{rays}'/>{_polygon('kernel', *corners)}"


def _top(block: Block) -> float:
    """The y of the upper edge of a block's front: all blocks float about one line."""
    return MIDDLE + block.lean / 2 - block.height / 2


def _polygon(kind: str, *corners: tuple[float, float]) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f"<polygon class='{kind}' points='{points}'/>"


def draw(rows: Sequence[Row], photo: Image.Image, chosen: str, on_choice: Callable[[str], object]) -> None:
    """The picture of a network that looks at `photo`; `on_choice` is told the layer that a person clicks."""
    from alexnet import anatomy

    face = "data:image/jpeg;base64," + base64.b64encode(encoded(photo, FACE, "JPEG")).decode()
    picture = svg(blocks(rows, photo.width, anatomy.kind_of), chosen, face)
    _drawing(
        data=picture,
        key="network-drawing",
        on_picked_change=lambda: on_choice(st.session_state["network-drawing"].picked),
    )


_drawing = st.components.v2.component(
    "network_drawing",
    html="<div class='scroll'></div>",
    css="""
    .scroll { overflow-x: auto; padding-bottom: .4rem; }
    svg { width: 100%; display: block; font-family: var(--st-font); }
    text { fill: var(--st-text-color); font-size: 12px; }
    .name { font-weight: 650; }
    .shape { opacity: .75; font-variant-numeric: tabular-nums; }
    .note { opacity: .75; font-size: 11.5px; }
    .conv { --ink: #0d9488; } .pool { --ink: #8592a3; } .full { --ink: #7c6bd6; } .photo { --ink: #d97706; }
    .hit { fill: transparent; }
    .front, .top, .right { stroke: var(--ink); stroke-width: 1; stroke-linejoin: round; }
    .front { fill: color-mix(in srgb, var(--ink) 38%, var(--st-background-color)); }
    .top { fill: color-mix(in srgb, var(--ink) 16%, var(--st-background-color)); }
    .right { fill: color-mix(in srgb, var(--ink) 25%, var(--st-background-color)); }
    .cut { stroke: var(--st-background-color); stroke-width: 2.5; fill: none; }
    .flow { pointer-events: none; stroke: var(--st-text-color); stroke-width: .8; opacity: .45; fill: none; }
    .kernel { fill: color-mix(in srgb, var(--st-text-color) 14%, transparent); stroke: var(--st-text-color);
              stroke-width: .8; opacity: .7; pointer-events: none; }
    [data-layer] { cursor: pointer; outline: none; }
    [data-layer]:hover .front, [data-layer]:focus-visible .front { fill: color-mix(in srgb, var(--ink) 65%, var(--st-background-color)); }
    [aria-pressed=true] .front { fill: var(--ink); }
    [aria-pressed=true] .name, .note[aria-pressed=true] { fill: var(--st-link-color); font-weight: 650; opacity: 1; }
    .note[data-layer]:hover, .note:focus-visible, [data-layer]:hover .name, [data-layer]:focus-visible .name { text-decoration: underline; opacity: 1; }
    """,
    js="""
    export default function ({ data, parentElement, setTriggerValue }) {
      const place = parentElement.querySelector(".scroll");
      if (place.drawn !== data) {
        const held = parentElement.activeElement?.dataset?.layer;
        place.innerHTML = place.drawn = data;
        if (held) place.querySelector(`[data-layer="${held}"]`)?.focus();
      }
      for (const layer of place.querySelectorAll("[data-layer]")) {
        layer.onclick = () => setTriggerValue("picked", layer.dataset.layer);
        layer.onkeydown = event => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          layer.onclick();
        };
      }
    }
    """,
)
