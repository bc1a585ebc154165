"""The eraser: paint over what the network was given, and see its answer move."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import streamlit as st

from alexnet import data, images
from ui.networks import Edition, classifier
from ui.page import plain, plain_errors
from ui.photos import encoded

if TYPE_CHECKING:
    from PIL import Image

    from alexnet.predict import Classifier
    from ui.maps import Case

SHOWN = 454  # px, the side of the picture that is painted on
MOST_CLASSES = 5


def show_eraser(case: Case) -> None:
    """An expander in which parts of the photo can be erased."""
    with st.expander("Erase a part of the photo", key="erase", bind="query-params") as box:
        if box.open:
            _erase(case.data, case.edition, case.prediction.probabilities)


@st.fragment
def _erase(photo: bytes, edition: Edition, before: dict[str, float]) -> None:
    """What is painted over, the picture that is left, and the probabilities beside those of the whole photo."""
    from alexnet import evidence

    fill = st.segmented_control(
        "Fill with", list(evidence.FILLS), format_func=evidence.FILLS.get, default="grey", required=True, key="fill"
    )
    with plain_errors():
        network = classifier(*edition)  # not an argument: a session keeps those of its fragments
        square = network.transform.crop_photo(images.open_photo(photo))
        left, middle, right = st.columns(3, gap="medium")
        with left:
            strokes = _paint(square)
        mask = evidence.painted(strokes, (SHOWN, SHOWN))
        erased = evidence.erase(square, mask, fill, network.transform.mean)
        middle.image(erased, caption=f"Given to the network: {mask.mean():.0%} erased", width="stretch")
        with right:
            _compare(before, _probabilities(erased, network))


def _paint(square: Image.Image) -> list[dict]:
    """The strokes that were painted over `square` so far, as `alexnet.evidence.painted` reads them."""
    file = encoded(square, SHOWN, "PNG")
    key = f"eraser-{data.digest(file)}"  # another photo is another canvas
    picture = f"data:image/png;base64,{base64.b64encode(file).decode()}"
    painted = _canvas(data={"picture": picture}, key=key, default={"strokes": []}, on_strokes_change=lambda: None)
    return painted.strokes


def _probabilities(picture: Image.Image, classifier: Classifier) -> dict[str, float]:
    """By class, of a picture as `transform.crop_photo` makes it."""
    (row,) = classifier.answer(classifier.transform.stack([picture])).softmax(1).tolist()
    return dict(zip(classifier.classes, row, strict=True))


def _compare(before: dict[str, float], after: dict[str, float]) -> None:
    """The probability of each class, and by how much it differs from that of the whole photo; of many the likeliest."""
    st.caption("Its answer now, and the change from the whole photo.")
    names = sorted(before, key=before.get, reverse=True)[:MOST_CLASSES] if len(before) > MOST_CLASSES else before
    for name in names:
        points = 100 * (after[name] - before[name])
        change = f"{points:+.1f} points" if abs(points) >= 0.05 else None
        st.metric(plain(name), f"{after[name]:.1%}", change, delta_color="off")


_canvas = st.components.v2.component(
    "eraser",
    html="""
    <div class="eraser">
      <canvas tabindex="0" role="application" aria-label="Photo to paint over. Arrow keys move the brush, with Shift
        further; Space paints, Backspace takes the last stroke back, Delete clears."></canvas>
      <div class="tools">
        <label>Brush <input type="range" min="2" max="25" value="8" aria-label="Size of the brush"></label>
        <button type="button" name="undo">Undo</button>
        <button type="button" name="clear">Clear</button>
      </div>
      <p>Paint with a finger or the mouse; or with the arrow keys and Space.</p>
    </div>
    """,
    css="""
    .eraser { font-family: var(--st-font); color: var(--st-text-color); font-size: .875rem; }
    canvas { width: 100%; display: block; cursor: crosshair; touch-action: none; border-radius: var(--st-base-radius); }
    canvas:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
    .tools { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin-top: .6rem; }
    label { display: flex; align-items: center; gap: .5rem; flex: 1 1 8rem; }
    input { flex: 1; min-width: 5rem; height: 2.5rem; margin: 0; appearance: none; background: transparent; }
    input::-webkit-slider-runnable-track { height: .25rem; border-radius: 1rem; background: var(--st-border-color); }
    input::-moz-range-track { height: .25rem; border-radius: 1rem; background: var(--st-border-color); }
    input::-webkit-slider-thumb { appearance: none; width: 1.1rem; height: 1.1rem; margin-top: -.425rem;
      border-radius: 50%; background: var(--st-primary-color); }
    input::-moz-range-thumb { width: 1.1rem; height: 1.1rem; border: 0; border-radius: 50%;
      background: var(--st-primary-color); }
    input:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: -6px; border-radius: 1rem; }
    button { font: inherit; color: inherit; background: transparent; border: 1px solid var(--st-border-color);
      border-radius: var(--st-button-radius); min-height: 2.5rem; padding: 0 .75rem; cursor: pointer; }
    button:hover:enabled { border-color: var(--st-primary-color); color: var(--st-primary-color); }
    button:disabled { opacity: .4; cursor: default; }
    p { opacity: .7; margin: .4rem 0 0; }
    """,
    js="""
    const WIDTH = 640;  // of the canvas in its own pixels
    const share = value => Math.round(value * 1e4) / 1e4;
    const clamp = value => Math.min(1, Math.max(0, value));

    function setUp(root) {
      const canvas = root.querySelector("canvas"), context = canvas.getContext("2d");
      const brush = root.querySelector("input"), undo = root.querySelector("[name=undo]");
      const clear = root.querySelector("[name=clear]");
      const picture = new Image(), paint = document.createElement("canvas");
      const strokes = [];
      let stroke = null, cursor = null;  // being painted; where the keys have led the brush

      const radius = () => brush.value / 100;
      const ring = ([x, y], r) => {
        context.beginPath();
        context.arc(x * WIDTH, y * WIDTH, r * WIDTH, 0, 7);
        for (const [color, width] of [["#fff", 4], ["#000", 2]]) {
          context.strokeStyle = color;
          context.lineWidth = width;
          context.stroke();
        }
      };

      function draw() {
        if (!picture.naturalWidth) return;
        const ink = paint.getContext("2d");
        ink.clearRect(0, 0, paint.width, paint.height);
        ink.lineCap = ink.lineJoin = "round";
        ink.strokeStyle = getComputedStyle(root).getPropertyValue("--st-primary-color");
        for (const { points, radius } of stroke ? [...strokes, stroke] : strokes) {
          ink.lineWidth = 2 * radius * WIDTH;
          ink.beginPath();
          ink.moveTo(points[0][0] * WIDTH, points[0][1] * WIDTH);
          for (const [x, y] of points) ink.lineTo(x * WIDTH, y * WIDTH);
          ink.stroke();
        }
        context.globalAlpha = 1;
        context.drawImage(picture, 0, 0, canvas.width, canvas.height);
        context.globalAlpha = 0.7;
        context.drawImage(paint, 0, 0);
        context.globalAlpha = 1;
        if (cursor) ring(cursor, radius());
        undo.disabled = clear.disabled = !strokes.length;
      }

      function change() {
        draw();
        root.send([...strokes]);
      }

      const place = event => {
        const box = canvas.getBoundingClientRect();
        return [share((event.clientX - box.left) / box.width), share((event.clientY - box.top) / box.width)];
      };
      const extend = event => {
        const [x, y] = place(event), [lastX, lastY] = stroke.points.at(-1);
        if (Math.hypot(x - lastX, y - lastY) > 0.004) stroke.points.push([x, y]);
      };
      const finish = () => {
        if (!stroke) return;
        strokes.push(stroke);
        stroke = null;
        change();
      };
      canvas.addEventListener("pointerdown", event => {
        if (event.button) return;
        canvas.setPointerCapture(event.pointerId);
        cursor = null;
        stroke = { radius: radius(), points: [place(event)] };
        draw();
      });
      canvas.addEventListener("pointermove", event => {
        if (!stroke) return;
        extend(event);
        draw();
      });
      canvas.addEventListener("pointerup", finish);
      canvas.addEventListener("pointercancel", finish);

      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const height = () => canvas.height / WIDTH;
      const takeBack = () => { if (strokes.pop()) change(); };
      const start = () => { if (strokes.splice(0).length) change(); };
      canvas.addEventListener("keydown", event => {
        const move = moves[event.key];
        if (!move && ![" ", "Enter", "Backspace", "Delete"].includes(event.key)) return;
        event.preventDefault();
        event.stopPropagation();
        const [x, y] = cursor ??= [0.5, height() / 2];
        if (move) {
          const step = event.shiftKey ? 0.1 : 0.02;
          cursor = [share(clamp(x + step * move[0])), share(Math.min(height(), Math.max(0, y + step * move[1])))];
          draw();
        } else if (event.key === "Backspace") takeBack();
        else if (event.key === "Delete") start();
        else {
          strokes.push({ radius: radius(), points: [cursor] });
          change();
        }
      });
      canvas.addEventListener("focus", () => {
        if (!canvas.matches(":focus-visible")) return;
        cursor ??= [0.5, height() / 2];
        draw();
      });
      canvas.addEventListener("blur", () => { cursor = null; draw(); });
      undo.addEventListener("click", takeBack);
      clear.addEventListener("click", start);
      brush.addEventListener("input", draw);
      picture.addEventListener("load", () => {
        canvas.width = paint.width = WIDTH;
        canvas.height = paint.height = WIDTH * picture.naturalHeight / picture.naturalWidth;
        draw();
      });
      root.show = source => { if (picture.src !== source) picture.src = source; };
    }

    export default function ({ data, parentElement, setStateValue }) {
      const root = parentElement.querySelector(".eraser");
      root.send = strokes => setStateValue("strokes", strokes);
      if (!root.show) setUp(root);
      root.show(data.picture);
    }
    """,
)
