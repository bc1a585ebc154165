"""Layers to try out: where a convolution's kernel lies, and what normalisation, pooling and dropout do to numbers."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from ui.page import kept

if TYPE_CHECKING:
    from alexnet.anatomy import Row

MOST_NUMBERS = 16
LARGEST = 1e6  # of the numbers that are typed
ACTIVATIONS = "10 40 20 200 60 0 30 90"
MAP_SIDE = 7  # of the map that is pooled
SILENCED = (0.9, 2.1, 0.4, 3.0, 1.2, 0.7, 1.8, 2.6)  # the activations that dropout is tried on
DRAWS = 1000
INK = "#0d9488"


@st.fragment
def try_convolution(rows: Sequence[Row]) -> None:
    """Sliders for the geometry of a convolution, the size of what it puts out, and its kernel on the move."""
    from alexnet import anatomy

    left, right = st.columns([2, 3], gap="large")
    with left:
        size = kept(st.slider, "Input n", key="try-input", default=9, min_value=1, max_value=24)
        kernel = kept(st.slider, "Kernel k", key="try-kernel", default=3, min_value=1, max_value=11)
        stride = kept(st.slider, "Stride s", key="try-stride", default=2, min_value=1, max_value=6)
        padding = kept(st.slider, "Padding p", key="try-padding", default=1, min_value=0, max_value=5)
    out = anatomy.output_size(size, kernel, stride, padding)
    left.latex(formula(size, kernel, stride, padding, out))
    with right:
        if out < 1:
            st.warning(
                "The kernel is larger than the input with its padding, so nothing comes out; make one of them fit."
            )
        else:
            numbers = {"size": size, "kernel": kernel, "stride": stride, "padding": padding, "out": out}
            _geometry(data=numbers, key="geometry")
    if windows := _windows(rows):
        st.caption("The same rule along a side of the maps in this run")
        st.dataframe(windows, hide_index=True, width="content")


def formula(size: int, kernel: int, stride: int, padding: int, out: int) -> str:
    """The rule for the size of a convolution's output, in letters and with these numbers, for LaTeX."""
    return (
        r"\begin{aligned} o &= \left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1 \\ "
        rf"&= \left\lfloor \frac{{{size} + 2 \cdot {padding} - {kernel}}}{{{stride}}} \right\rfloor + 1 = {out} \end{{aligned}}"
    )


def _windows(rows: Sequence[Row]) -> list[dict[str, str | int]]:
    """Input, kernel, stride, padding and output of each convolution and pooling, along a side."""
    return [
        {"Layer": row.name, "n": row.reads[1], **dict(zip("ksp", row.window, strict=True)), "o": row.shape[1]}
        for row in rows
        if row.window
    ]


@st.fragment
def try_local_response(rows: Sequence[Row]) -> None:
    """Numbers through local response normalisation."""
    from alexnet import anatomy

    st.markdown(
        "At each place, a map's number is divided by what the maps beside it have there: the loud ones quieten their "
        "neighbours. " + _has(rows, "local response norm")
    )
    left, right = st.columns([2, 3], gap="large")
    with left:
        typed = kept(
            st.text_input, "Activations of neighbouring maps at one place", key="try-activations", default=ACTIVATIONS
        )
        size = kept(st.slider, "Neighbourhood n", key="try-n", default=5, min_value=1, max_value=9, step=2)
        alpha = kept(
            st.select_slider, "α", key="try-alpha", default=1e-4, options=[0.0, 1e-5, 1e-4, 1e-3, 1e-2],
            format_func=lambda value: f"{value:g}",
        )  # fmt: skip
        st.caption("k 2 and β 0.75, as in section 3.3 of the paper; its n is 5 and its α 0.0001.")
    values = numbers_in(typed)
    if values is None:
        left.error(f"Write up to {MOST_NUMBERS} numbers with spaces between them, none beyond {LARGEST:,.0f}.")
        return
    results = anatomy.local_response(values, size, k=2.0, alpha=alpha, beta=0.75)
    loudest = max(range(len(values)), key=lambda index: abs(values[index]))
    near = values[max(0, loudest - size // 2) : loudest + size // 2 + 1]
    with right:
        st.html(_grid([("in", values), ("out", results)], marked={loudest}))
        squares = " + ".join(f"{value:g}^2" for value in near)
        divisor = rf"\left(2 + {alpha:g} \cdot ({squares})\right)^{{0.75}}"
        st.latex(
            rf"\begin{{aligned}} \frac{{{values[loudest]:g}}}{{{divisor}}} = {results[loudest]:.4g} \end{{aligned}}"
        )


def numbers_in(text: str) -> list[float] | None:
    """The numbers in a line of text, or None where it holds anything else, none, too many or too large ones."""
    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        return None
    return values if 0 < len(values) <= MOST_NUMBERS and all(abs(value) <= LARGEST for value in values) else None


@st.fragment
def try_pooling(rows: Sequence[Row]) -> None:
    """A map of numbers through max pooling."""
    from alexnet import anatomy

    st.markdown(
        "Of each window only the largest number goes on (marked), so that a small shift of the photo changes little. Windows that "
        "lie closer together than they are wide overlap, as in 2012. " + _has(rows, "max pooling")
    )
    left, right = st.columns([2, 3], gap="large")
    with left:
        window = kept(st.slider, "Window", key="try-window", default=3, min_value=1, max_value=5)
        stride = kept(st.slider, "Stride", key="try-pool-stride", default=2, min_value=1, max_value=4)
        draw = st.session_state.setdefault("pool-draw", 0)
        st.button("Other numbers", icon=":material/casino:", on_click=_next, args=["pool-draw"])
    values = np.random.default_rng(draw).integers(0, 100, (MAP_SIDE, MAP_SIDE))
    out, winners = anatomy.pool(values, window, stride)
    with right.container(horizontal=True, gap="large", vertical_alignment="center"):
        st.html(_map(values, winners), width="content")
        st.html(_map(out, ()), width="content")
    right.caption(f"{MAP_SIDE} × {MAP_SIDE} numbers in, {len(out)} × {len(out)} out.")


@st.fragment
def try_dropout(rows: Sequence[Row]) -> None:
    """Activations through dropout, in training and after it."""
    from alexnet import anatomy

    st.markdown(
        "In training each number is silenced by chance and the others grow to make up for it, so that no unit can rely on "
        "another. Answers are given with all of them. " + _has(rows, "dropout")
    )
    left, right = st.columns([2, 3], gap="large")
    with left:
        share = kept(
            st.slider, "Share silenced", key="try-dropout", default=0.5, min_value=0.0, max_value=0.9, step=0.1
        )
        draw = st.session_state.setdefault("dropout-draw", 0)
        st.button("Draw again", icon=":material/casino:", on_click=_next, args=["dropout-draw"])
        st.caption(
            "The paper leaves the numbers alone in training and halves them in its answers instead, which comes to the same."
        )
    many = anatomy.dropout(SILENCED, share, draw, DRAWS)
    lines = [
        ("in", SILENCED),
        ("in training", many[0]),
        (f"mean of {DRAWS:,} draws", many.mean(axis=0)),
        ("in an answer", SILENCED),
    ]
    with right:
        st.html(_grid(lines, faint=0.0))


def _next(key: str) -> None:
    st.session_state[key] += 1


def _has(rows: Sequence[Row], kind: str) -> str:
    """Where this run has such a layer, in a sentence."""
    from alexnet import anatomy

    names = [row.name for row in rows if anatomy.kind_of(row.kind) == kind]
    return f"In this run: {', '.join(names)}." if names else "This run has none."


def _grid(lines: Sequence[tuple[str, Sequence[float]]], marked: Container[int] = (), faint: float | None = None) -> str:
    """Lines of numbers one below the other, each with its name and a bar behind each number; `faint` is one that fades."""
    largest = max((abs(float(value)) for _, values in lines for value in values), default=0) or 1
    rows = "".join(
        f"<tr><th style='text-align:left;font-weight:400;opacity:.7;padding-right:.8rem'>{name}</th>"
        + "".join(_number(float(value), largest, index in marked, value == faint) for index, value in enumerate(values))
        + "</tr>"
        for name, values in lines
    )
    return f"<div style='overflow-x:auto'><table style='border-spacing:4px;font-variant-numeric:tabular-nums'>{rows}</table></div>"


def _number(value: float, largest: float, marked: bool, faint: bool) -> str:
    length = 100 * min(1.0, abs(value) / largest)
    look = f"outline:2px solid {INK};" if marked else "opacity:.4;" if faint else ""
    return (
        f"<td style='{look}background:color-mix(in srgb,currentColor 6%,transparent);min-width:3.1rem;padding:.45rem .3rem;"
        f"text-align:center;border-radius:.35rem'>{value:.3g}<span style='display:block;height:.3rem;margin-top:.25rem;"
        f"border-radius:.15rem;width:{length:.0f}%;background:{INK}'></span></td>"
    )


def _map(values: np.ndarray, marked: Container[tuple[int, int]]) -> str:
    """A map of numbers as squares, the `marked` ones in colour."""
    cells = "".join(
        "<tr>" + "".join(_square(number, (row, column) in marked) for column, number in enumerate(line)) + "</tr>"
        for row, line in enumerate(values.tolist())
    )
    return f"<table style='border-spacing:3px;font-variant-numeric:tabular-nums'>{cells}</table>"


def _square(number: float, marked: bool) -> str:
    ground = (
        f"color-mix(in srgb,{INK} 50%,transparent);font-weight:650"
        if marked
        else "color-mix(in srgb,currentColor 7%,transparent)"
    )
    return f"<td style='width:2.1rem;height:2.1rem;text-align:center;border-radius:.3rem;background:{ground}'>{number:g}</td>"


_geometry = st.components.v2.component(
    "geometry",
    html="""
    <div class='grids'><svg class='in' role='img'></svg><svg class='out' role='img'></svg></div>
    <div class='bar'><button class='back' aria-label='One step back'>&#9664;</button><button class='play'></button>
    <button class='on' aria-label='One step on'>&#9654;</button><span class='where'></span></div>
    """,
    css="""
    .grids { display: flex; gap: 2rem; align-items: center; flex-wrap: wrap; font-family: var(--st-font); }
    svg { display: block; max-width: 100%; }
    .cell { fill: color-mix(in srgb, var(--st-text-color) 9%, transparent); }
    .padding { fill: none; stroke: var(--st-border-color); stroke-width: 1; stroke-dasharray: 2 2; }
    .unseen { fill: color-mix(in srgb, #d97706 45%, transparent); }
    .done { fill: color-mix(in srgb, #0d9488 35%, transparent); }
    .now { fill: #0d9488; }
    .kernel { fill: color-mix(in srgb, #0d9488 30%, transparent); stroke: #0d9488; stroke-width: 2; }
    .bar { display: flex; gap: .4rem; align-items: center; margin-top: .8rem; font-family: var(--st-font); font-size: .875rem; color: var(--st-text-color); }
    button { font: inherit; color: inherit; background: var(--st-secondary-background-color); border: 1px solid var(--st-border-color);
             border-radius: .45rem; padding: .25rem .7rem; cursor: pointer; }
    button:hover, button:focus-visible { border-color: var(--st-primary-color); outline: none; }
    .where { opacity: .75; margin-left: .4rem; font-variant-numeric: tabular-nums; }
    """,
    js="""
    export default function ({ data, parentElement }) {
      const { size, kernel, stride, padding, out } = data, whole = size + 2 * padding;
      const find = name => parentElement.querySelector("." + name);
      const side = Math.min(24, Math.floor(360 / whole)), gap = side > 8 ? 2 : 1;
      const rect = (kind, x, y, n = 1) =>
        `<rect class="${kind}" x="${x * side + gap / 2}" y="${y * side + gap / 2}" width="${n * side - gap}" height="${n * side - gap}" rx="2"/>`;
      const grid = (count, kind) => Array.from({ length: count * count }, (_, i) => rect(kind(i % count, Math.floor(i / count)), i % count, Math.floor(i / count))).join("");
      const inside = v => v >= padding && v < padding + size;
      const reached = v => v < (out - 1) * stride + kernel && (v % stride < kernel);
      const cells = grid(whole, (x, y) => !inside(x) || !inside(y) ? "padding" : reached(x) && reached(y) ? "cell" : "unseen");
      const unseen = cells.includes('class="unseen"');
      let step = 0;
      function draw() {
        const x = step % out, y = Math.floor(step / out);
        const sized = (name, n, label, content) => {
          const svg = find(name), px = n * side + 2;
          svg.setAttribute("viewBox", `-1 -1 ${px} ${px}`); svg.setAttribute("width", px);
          svg.setAttribute("aria-label", label); svg.innerHTML = content;
        };
        sized("in", whole, `The kernel at row ${y}, column ${x}`, cells + rect("kernel", x * stride, y * stride, kernel));
        sized("out", out, "What comes out", grid(out, (a, b) => b * out + a === step ? "now" : b * out + a < step ? "done" : "cell"));
        find("where").textContent = `${size} × ${size} in, ${out} × ${out} out: row ${y}, column ${x}` + (unseen ? ". No place sees the orange pixels." : "");
      }
      const move = by => { step = (step + by + out * out) % (out * out); draw(); };
      let timer = null;
      const show = () => { find("play").textContent = timer ? "Pause" : "Play"; };
      const stop = () => { clearInterval(timer); timer = null; show(); };
      const play = () => { timer = setInterval(() => move(1), 450); show(); };
      find("play").onclick = () => timer ? stop() : play();
      find("on").onclick = () => { stop(); move(1); };
      find("back").onclick = () => { stop(); move(-1); };
      draw();
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) show(); else play();
      return stop;
    }
    """,
)
