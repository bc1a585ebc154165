"""Classify: what a run says about photos, and what in them it goes by. Uploads stay in memory."""

from __future__ import annotations

import base64
import functools
import io
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st
from PIL import Image, ImageOps

import ui
from alexnet import doodles, images, runs
from alexnet.errors import LabError

if TYPE_CHECKING:
    import numpy as np

    from alexnet.predict import Classifier, Prediction

Photo = tuple[str, bytes]  # name and content of a file
Weights = tuple[str, float]  # a run and the time of its weights file: with a photo, all that an answer depends on
ShowMap = Callable[..., object]  # `st.image` in its place
Progress = Callable[[float], None]  # told the share done, 0 to 1

EXAMPLES = {f"{label}-{n}": (label, n) for n, label in ((5, "cat"), (12, "dog"), (7, "cat"), (13, "dog"), (12, "cat"))}
PREDICTED = "Predicted class"
THUMBNAIL = 640  # px, the longer side of a photo as the page shows it
IN_ROW = 150  # px, the width of the two pictures in a row; both fit on a phone


def choose_run(usable: list[runs.Run]) -> runs.Run:
    """The run to classify with, kept in the address; the shipped one unless another was chosen."""
    wanted = st.query_params.get("run")
    if wanted and "run" not in st.session_state:
        found = next((run for run in usable if run.id == wanted), None)
        if found:
            st.session_state["run"] = found
        else:
            st.warning(f"There is no run called {ui.plain(wanted)} with weights here.")
    keep = {"key": "run", "on_change": lambda: st.query_params.update(run=st.session_state["run"].id)}
    return st.selectbox("Run", usable, format_func=lambda run: run.id, **keep)


def choose_photos(camera: bool) -> list[Photo]:
    """The photos that were dropped, pasted, browsed for or taken; without any, the example that was clicked."""
    with st.container(gap=None):
        uploads = st.file_uploader(
            "Photos: drop, paste or browse", type="image", accept_multiple_files=True, key="photos"
        )
        ui.paste_into("photos")
    photos = [(file.name, file.getvalue()) for file in uploads]
    if camera and (taken := st.camera_input("Camera", width=480)):
        photos.append(("Camera", taken.getvalue()))
    place = st.empty()  # emptied by name, or the drawings would linger until the slowest map is done
    if photos:
        place.empty()
        return photos
    with place.container():
        return choose_example()


def choose_example() -> list[Photo]:
    """The clicked one of a row of drawings, kept in the address."""
    st.caption("No photo at hand? Click a drawing.")
    st.html(
        "<style>.st-key-examples button { padding: 2px; } .st-key-examples button img "
        "{ width: 5rem; height: 5rem; max-height: none; border-radius: .45rem; display: block; }</style>"
    )
    chosen = st.query_params.get("example")
    with st.container(horizontal=True, gap="xsmall", key="examples"):
        for name, (label, _) in EXAMPLES.items():
            picture = base64.b64encode(drawing(name, 160)).decode()
            st.button(
                f"![Drawing of a {label}](data:image/png;base64,{picture})",
                key=name,
                type="primary" if name == chosen else "secondary",
                on_click=st.query_params.update,
                kwargs={"example": name},
            )
    return [(f"Drawing of a {EXAMPLES[chosen][0]}", drawing(chosen, 400))] if chosen in EXAMPLES else []


@st.cache_data(show_spinner=False)
def drawing(name: str, size: int) -> bytes:
    """The PNG of an example, `size` px wide."""
    return encoded(doodles.draw(*EXAMPLES[name], size=400), size, "PNG")


def encoded(picture: Image.Image, size: int, form: str) -> bytes:
    """A file in the format `form` of `picture`, scaled to `size` px on its longer side."""
    file = io.BytesIO()
    ImageOps.contain(picture, (size, size)).save(file, form)
    return file.getvalue()


@st.cache_data(show_spinner=False, max_entries=500)
def look(data: bytes, weights: Weights, _classifier: Classifier) -> tuple[bytes, Prediction]:
    """A small JPEG of the photo, and the prediction.

    Raises:
        alexnet.images.PhotoError: it cannot be used.
    """
    photo = images.open_photo(data)
    prediction = _classifier([photo])[0]
    return encoded(photo, THUMBNAIL, "JPEG"), prediction


@st.cache_data(show_spinner=False, max_entries=500)
def attribution(
    data: bytes, weights: Weights, method: str, target: str, _classifier: Classifier, _progress: Progress | None
) -> np.ndarray:
    """The attribution (S, S) of a photo, as `alexnet.saliency.attribute` has it, with its errors."""
    from alexnet import saliency

    return saliency.attribute(_classifier, images.open_photo(data), method, target, _progress)


def show_photo(name: str, thumbnail: bytes, prediction: Prediction, many: bool) -> ShowMap:
    """Photo, crop and verdict, large for one photo, in a row for many; the saliency map's place shows the crop so far."""
    crop = prediction.input
    if many:
        left, right = st.container(border=True).columns([3, 5], vertical_alignment="center")
        with left.container(horizontal=True, vertical_alignment="center"):
            st.image(thumbnail, width=IN_ROW)
            show = functools.partial(st.empty().image, width=IN_ROW)
        with right:
            st.caption(ui.plain(name))
            ui.verdict(prediction)
    else:
        left, right = st.columns([2, 3], gap="medium")
        left.image(thumbnail, caption=ui.plain(name))
        with right:
            ui.verdict(prediction)
            left, right = st.columns(2)
        left.image(crop, caption=f"Given to the network: {crop.width} × {crop.height} px", width="stretch")
        show = functools.partial(right.empty().image, width="stretch")
    show(crop)
    return show


def show_map(
    show: ShowMap, evidence: np.ndarray, crop: Image.Image, label: str, opacity: float, colors: str, scale: float | None
) -> None:
    """The saliency map for the class `label`, drawn as `alexnet.saliency.render` does."""
    from alexnet import saliency

    if evidence.any():
        show(saliency.render(evidence, crop, opacity, colors, scale), caption=f"Evidence for {ui.plain(label)}")
    else:
        show(crop, caption=f"Nothing found that speaks for {ui.plain(label)}")


def report(progress: Callable[[str, float, int], None], what: str, number: int, total: int, share: float) -> None:
    """Tell `progress` that of number `number` of `total` a `share` is done."""
    progress(what, number + share, total)


def choose_no_map() -> None:
    """Turn the saliency maps off."""
    st.session_state["method"] = None


ui.guard()
st.title("Classify")
usable = sorted((run for run in runs.list_runs() if run.has_weights), key=lambda run: not run.shipped)
if not usable:
    st.info("No network is trained yet. Train one, and from its first epoch on it can look at your photos here.")
    st.page_link("pages/train.py", label="Train a network", icon="📈")
    st.stop()

left, right = st.columns([3, 1], gap="medium")
with right:
    run = choose_run(usable)
    classes = run.config["classes"]
    named = " or ".join(classes) if len(classes) < 4 else f"{len(classes)} classes"
    st.caption(ui.plain(f"{run.recipe.title}: {named}"))
    camera = st.toggle("Camera")
with left:
    photos = choose_photos(camera)
if not photos:
    st.stop()

with st.spinner("Loading the network"):
    from alexnet import saliency

    try:
        weights = (run.id, run.weights.stat().st_mtime)
        classifier = ui.classifier(*weights)
    except LabError as error:
        st.error(ui.plain(str(error)))
        st.stop()
    except OSError:
        st.error(f"The weights of {ui.plain(run.id)} have gone; choose another run.")
        st.stop()

many = len(photos) > 1
above, settings, below = st.container(), st.container(), st.container()
results = below if many else above  # one photo is seen before the settings, a list of them after
with settings:
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
    method = saliency.METHODS.get(chosen)
    if method:
        st.caption(f"{method.sentence} {method.paper}.")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            target = st.selectbox("Target class", [PREDICTED, *classifier.classes], key="target", width=165)
            tables = {name: t.title for name, t in saliency.COLORMAPS.items() if t.diverging == method.signed}
            colors = st.selectbox(
                "Colours", list(tables), format_func=tables.get, key=f"colors-{method.signed}", width=165
            )
            opacity = st.slider("Opacity", 0, 100, 80, format="%d%%", key="opacity", width=165) / 100
            shared = many and st.toggle(
                "One scale for all", key="shared", help="Shows which photos hold more evidence."
            )
        ui.color_scale(saliency.COLORMAPS[colors])
    progress_place = st.container()

shown = []
with results:
    summary = st.empty()
    for name, data in photos:
        try:
            thumbnail, prediction = look(data, weights, classifier)
            shown.append((data, prediction, show_photo(name, thumbnail, prediction, many)))
        except images.PhotoError as error:
            st.error(f"{ui.plain(name)}: {error}")
if many:
    counts = Counter(prediction.label for _, prediction, _ in shown).most_common()
    summary.markdown(", ".join(f"{ui.plain(label)}: **{count}**" for label, count in counts))
if not method:
    st.stop()

together = []  # the maps that wait for the scale that they share
with ui.progress_on_demand(progress_place, cancel=choose_no_map) as progress:
    for number, (data, prediction, show) in enumerate(shown):
        label = prediction.label if target == PREDICTED else target
        step = functools.partial(
            report, progress, f"{method.title}, photo {number + 1} of {len(shown)}", number, len(shown)
        )
        try:
            evidence = attribution(data, weights, method.name, label, classifier, step if method.slow or many else None)
        except saliency.AttributionError as error:
            show(prediction.input, caption=ui.plain(str(error)))
            continue
        draw = functools.partial(show_map, show, evidence, prediction.input, label, opacity, colors)
        if shared:
            together.append((draw, saliency.strength(evidence)))
        else:
            draw(scale=None)
for draw, _ in together:
    draw(scale=max(strength for _, strength in together))
