"""What the pages share: navigation, cached loaders and the few widgets that more than one page draws."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import gc
import gzip
import html
import io
import math
import re
import runpy
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st
from PIL import Image, ImageDraw, ImageOps
from streamlit.runtime.scriptrunner import StopException

from alexnet import data, figures, runs
from alexnet.errors import LabError
from alexnet.images import PhotoError
from alexnet.recipes import RECIPES, Recipe, RecipeError

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from streamlit.delta_generator import DeltaGenerator

    from alexnet.predict import Classifier, Prediction
    from alexnet.saliency import Colormap

ROOT = Path(__file__).parent
ROUTED = "routed"  # true in the session's state while app.py runs a page
FOLDER = "folder"  # the choice of photos that are no known dataset
MOST_STRIPS = 20  # classes of which photos are shown
MOST_BARS = 5  # classes whose probability is shown
SETTING_LABELS = {
    "lr": "Learning rate", "accumulation": "Gradient accumulation", "schedule": "Learning-rate schedule",
    "warmup": "Warm-up", "clip_norm": "Gradient clipping", "patience": "Early stopping", "ema": "Weight average (EMA)",
    "pca_colour": "PCA colour", "erasing": "Random erasing", "cutmix": "CutMix", "normalization": "Normalisation",
    "norm_place": "Place of normalisation", "groups": "Groups (towers)", "towers_apart": "Towers on two devices",
    "val_fraction": "Validation fraction", "val_pattern": "Validation pattern", "cache": "Keep decoded photos",
    "processes": "GPUs", "wandb": "Weights & Biases",
}  # fmt: skip
VALUE_LABELS = {
    "": "Random weights", "sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "local_response": "local response",
    "after_relu": "after ReLU", "before_relu": "before ReLU", "cpu": "CPU", "cuda": "NVIDIA GPU", "mps": "Apple GPU",
}  # fmt: skip


def guard() -> None:
    """The first call of each page: go through app.py where Streamlit ran the page by itself.

    Until `st.navigation` has been called once, Streamlit takes the folder `pages/` for its older kind of
    multipage app and answers a deep link such as `/train` without running app.py.
    """
    if not st.session_state.pop(ROUTED, False):
        runpy.run_path(str(ROOT / "app.py"))
        raise StopException  # st.stop() would also drop a click that came in meanwhile


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Show what a person can cause and mend as the one sentence that it is; nothing they entered is lost."""
    try:
        yield
    except RecipeError as error:
        st.error(plain(str(error).replace(error.field, label_of(error.field), 1)))
    except LabError as error:
        st.error(plain(str(error)))


def plain(text: str) -> str:
    """`text` for a place that reads Markdown: paths and names of classes come from anybody."""
    return re.sub(r"([\\`*_$~\[\]<>#|:])", r"\\\1", text)


def duration(seconds: float) -> str:
    """A time span in its two leading units, such as 1 h 5 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def numbers(values: Mapping[str, str | None]) -> None:
    """Figures with their names in one row, which wraps on a phone; those that are not known are left out."""
    with st.container(horizontal=True, gap="medium"):
        for name, value in values.items():
            if value:
                st.metric(name, value, width="content")


@st.cache_resource(show_spinner="Loading the network", max_entries=3)
def classifier(run_id: str, weights_mtime: float) -> Classifier:
    """The classifier of a run, shared by all sessions; loaded anew when its weights file has changed.

    Raises:
        alexnet.runs.RunError: there is no such run.
        alexnet.weights.WeightsError: its weights cannot be used.
    """
    from alexnet.predict import load_classifier

    loaded = load_classifier(runs.find(run_id))
    _spare_from_collection()
    return loaded


@st.cache_resource
def _datasets() -> dict[str, data.Dataset]:
    return {}


def dataset(name: str, cancel: Callable[[], None] | None = None) -> data.Dataset:
    """A dataset, shared by all sessions until `forget_dataset`; a progress bar and a way out while it is read.

    Args:
        name: as for `alexnet.data.load`.
        cancel: called when a person does not want to wait; has to choose something else.

    Raises:
        alexnet.data.DataError: it cannot be used.
    """
    datasets = _datasets()
    if name not in datasets:
        with progress_bar(cancel) as progress:
            datasets[name] = data.load(name, progress)
        _spare_from_collection()
    return datasets[name]


def forget_dataset(name: str) -> None:
    """Have `dataset` look into the folder again the next time."""
    _datasets().pop(name, None)
    _strip.clear()


def choose_photos() -> tuple[str, data.Dataset] | None:
    """The chosen dataset, ready to train on, and the name or folder it was asked for by; None while there is none.

    Draws the choice, then the photos by class with what was left out, or the reason why they cannot be used.
    """
    titles = {**{name: known.title for name, known in data.KNOWN.items()}, FOLDER: "A folder on this computer"}
    name = kept(
        st.selectbox, "Photos", key="dataset", default="doodles", options=list(titles), index=None,
        format_func=titles.get, placeholder="Choose photos to learn from", label_visibility="collapsed",
    )  # fmt: skip
    if name == FOLDER:
        folder = kept(
            st.text_input, "Folder", key="folder", default="", placeholder="/home/me/Pictures/pets",
            help="A folder per class, or names like cat.0.jpg, or train and val folders of either. Links are followed.",
        )  # fmt: skip
        name = str(data.folder_of(folder.strip())) if folder.strip() else None
    elif name is not None:
        st.caption(data.KNOWN[name].description)
    if name is None:
        return None
    if not data.available(name):
        _offer_download(name)
        return None
    with plain_errors():
        chosen = dataset(name, cancel=lambda: st.session_state.update(dataset=None))
        _show_photos(name, chosen)
        data.check_trainable(chosen)
        return name, chosen
    return None


def _offer_download(name: str) -> None:
    if st.button("Download", icon=":material/download:", help="Can be cancelled, and then goes on where it stopped."):
        with plain_errors(), progress_bar() as progress:
            data.download(name, progress)
            st.rerun()


def _show_photos(name: str, chosen: data.Dataset) -> None:
    """A strip of photos and the count for each class, and what was left out and why."""
    report = chosen.report
    columns = st.columns(1 if len(chosen.classes) < 4 else 2)
    for label, (title, count) in enumerate(list(report.per_class.items())[:MOST_STRIPS]):
        with columns[label % len(columns)].container(gap="xsmall"):
            st.markdown(f"**{plain(title)}** &ensp;{count:,}")
            st.image(_strip(name, chosen, label), width="stretch")
    if (more := len(chosen.classes) - MOST_STRIPS) > 0:
        st.caption(f"and {more:,} more classes")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(f"{report.found:,} files found, {report.used:,} used, {len(report.skipped):,} left out.")
        st.button(
            "Look again", type="tertiary", icon=":material/refresh:", on_click=forget_dataset, args=(name,),
            help="Read the folder again, if something in it has changed.",
        )  # fmt: skip
    if report.skipped:
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in report.reasons.most_common())
        with st.expander(f"Left out: {plain(reasons)}"):
            st.dataframe([dataclasses.asdict(skip) for skip in report.skipped], hide_index=True, height=200)


@st.cache_data(show_spinner=False, max_entries=64)
def _strip(name: str, _dataset: data.Dataset, label: int, count: int = 6, side: int = 120, gap: int = 12) -> bytes:
    """Photos of one class, spread over all of them, as rounded squares side by side; `name` stands for the dataset.

    A PNG file, because Streamlit would write a picture as one at each run of the page, in a quarter of its time.
    """
    photos = [photo for photo in _dataset.photos if photo.label == label]
    strip = Image.new("RGBA", (count * (side + gap) - gap, side))
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, side - 1, side - 1), radius=gap, fill=255)
    for place, photo in enumerate(photos[:: max(1, len(photos) // count)][:count]):
        with contextlib.suppress(PhotoError):  # the file went away since the dataset was read
            square = ImageOps.fit(_dataset.open(photo, at_least=side), (side, side))
            strip.paste(square, (place * (side + gap), 0), mask)
    file = io.BytesIO()
    strip.save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def progress_bar(cancel: Callable[[], None] | None = None) -> Iterator[data.Progress]:
    """A progress bar while the block lasts. Cancel, like a click on anything else, ends the block and the script run."""
    place = st.empty()
    with place.container():
        bar = st.progress(0.0, "One moment")
        st.button("Cancel", on_click=cancel)

    def show(what: str, done: int, total: int) -> None:
        share = min(done / max(total, 1), 1.0)
        bar.progress(share, f"{what} ({share:.0%})")

    try:
        yield show
    finally:
        place.empty()


def kept(widget: Callable[..., Any], label: str, *, key: str, default: Any, **options: Any) -> Any:
    """Draw a widget that still has its value after a visit to another page, where Streamlit would have forgotten it."""
    values = st.session_state.setdefault("kept", {})
    st.session_state.setdefault(key, values.get(key, default))
    values[key] = widget(label, key=key, **options)
    return values[key]


def label_of(setting_name: str) -> str:
    """A setting's name as people read it."""
    return SETTING_LABELS.get(setting_name, setting_name.replace("_", " ").capitalize())


def setting(recipe: Recipe, name: str) -> Any:
    """The widget for one setting of a recipe, which starts at its value; what is entered is for `Recipe` to check."""
    field = next(f for f in dataclasses.fields(recipe) if f.name == name)
    value, label = getattr(recipe, name), label_of(name)
    common = {"key": f"{recipe.name}-{name}", "default": value, "help": field.metadata["help"]}
    if options := field.metadata["choices"] or _found_here(name, entered(recipe, name)):
        return kept(st.selectbox, label, options=options, format_func=lambda o: VALUE_LABELS.get(o, str(o)), **common)
    if isinstance(value, bool):
        return kept(st.toggle, label, **common)
    if isinstance(value, str):
        return kept(st.text_input, label, **common)
    if isinstance(value, int):
        return kept(st.number_input, label, step=1, **common)
    step = 10.0 ** (math.floor(math.log10(value)) - 1) if value else 0.01  # one in the second digit
    return kept(st.number_input, label, step=step, format="%g", **common)


def entered(recipe: Recipe, name: str) -> Any:
    """The value that the widget of `setting` has, or would have if it were drawn."""
    key = f"{recipe.name}-{name}"
    return st.session_state.get(key, st.session_state.get("kept", {}).get(key, getattr(recipe, name)))


def _found_here(name: str, value: Any) -> Sequence[Any] | None:
    """What a setting may be on this computer, and what it is already; None where that is for a person to type."""
    if name == "processes":
        return range(1, max(len(runs.gpus()), value) + 1)
    if name == "start_from":
        return list(dict.fromkeys(["", *(run.id for run in runs.list_runs() if run.has_weights), value]))
    return None


def fill_form(run: runs.Run, **changes: Any) -> None:
    """Enter the photos and the settings of a run, with some changed, into `choose_photos` and the widgets of `setting`.

    Raises:
        alexnet.runs.RunError: the run cannot be read.
    """
    chosen, recipe = run.config["data"], run.recipe
    entries = {"dataset": chosen} if chosen in data.KNOWN else {"dataset": FOLDER, "folder": chosen}
    form = recipe.name if recipe.name in RECIPES else next(iter(RECIPES))
    entries |= {"recipe": form, **{f"{form}-{name}": value for name, value in (recipe.to_dict() | changes).items()}}
    st.session_state.setdefault("kept", {}).update(entries)
    for key in entries:  # a widget reads what is kept as soon as it is drawn; what is set earlier the browser misses
        st.session_state.pop(key, None)


def _spare_from_collection() -> None:
    """Take what has been loaded, torch above all, out of garbage collection.

    Streamlit collects garbage after each script run, and walking torch's objects took a quarter of a second a click.
    """
    gc.collect()
    gc.freeze()


def live_chart(figure: go.Figure, key: str, height: int) -> None:
    """Draw a Plotly figure that is updated in place: zoom and hidden curves survive, and nothing blinks.

    `st.plotly_chart` builds its chart anew at each change of the figure. Here the browser keeps the chart and is sent
    the new numbers only; text and grid follow the page's theme.

    Args:
        figure: its layout's colours of text and grid are replaced.
        key: names the chart; a change of key is another chart, which starts unzoomed.
        height: in pixels.
    """
    figure.update_layout(uirevision=key, height=height)
    with st.container(gap=None):
        _chart(data=figure.to_plotly_json(), key=key, height=height)
        _plotly(data=_plotly_bundle(), key=f"{key}-plotly", height=1)


@st.cache_resource(show_spinner=False)
def _plotly_bundle() -> bytes:
    """Plotly's own JavaScript, gzipped: 1.5 MB, which Streamlit sends to a tab once and then refers to."""
    return gzip.compress(files("plotly").joinpath("package_data/plotly.min.js").read_bytes(), compresslevel=6)


_plotly = st.components.v2.component(
    "plotly",
    js="""
    export default async function ({ data }) {
      if (globalThis.Plotly) return;
      const text = new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(text).text();
      document.head.append(script);
      document.dispatchEvent(new Event("plotly"));
    }
    """,
)

_chart = st.components.v2.component(
    "chart",
    html="<div class='live-chart'></div>",
    css=".live-chart .modebar-btn .icon path { fill: var(--st-text-color) !important; }",
    js="""
    const touch = matchMedia("(pointer: coarse)").matches;
    const loaded = () => globalThis.Plotly ? Promise.resolve()
      : new Promise(done => document.addEventListener("plotly", done, { once: true }));

    function themed(layout, element) {
      const color = name => getComputedStyle(element).getPropertyValue("--st-" + name);
      const result = {
        ...layout,
        font: { color: color("text-color"), family: color("font"), size: 13 },
        hoverlabel: { bgcolor: color("secondary-background-color"), bordercolor: color("border-color") },
        modebar: { ...layout.modebar, bgcolor: "transparent" },
        annotations: (layout.annotations ?? []).map(note => ({ ...note, bgcolor: color("background-color") })),
      };
      for (const axis of Object.keys(layout).filter(name => /^[xy]axis/.test(name)))
        result[axis] = { ...layout[axis], gridcolor: color("border-color"), zeroline: false, automargin: true };
      if (touch) result.dragmode = false;  // a finger scrolls the page
      return result;
    }

    export default async function ({ data, parentElement }) {
      const element = parentElement.querySelector(".live-chart");
      element.style.height = data.layout.height + "px";
      await loaded();
      await Plotly.react(element, data.data, themed(data.layout, element), {
        displaylogo: false,
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"].concat(
          touch ? ["toImage", "zoom2d", "pan2d"] : []),
      });
      element.resizes ??= new ResizeObserver(() => element.offsetWidth && Plotly.Plots.resize(element));
      element.resizes.observe(parentElement);
      return () => { element.resizes.disconnect(); Plotly.purge(element); };
    }
    """,
    isolate_styles=False,
)


def verdict(prediction: Prediction) -> None:
    """The label, a bar for the probability of each class, of many the likeliest ones, and the time taken."""
    colors = {name: figures.class_color(name, i) for i, name in enumerate(prediction.probabilities)}
    rows = list(prediction.probabilities.items())
    if len(rows) > MOST_BARS:
        rows = sorted(rows, key=lambda row: -row[1])[:MOST_BARS]
    bars = "".join(
        f"<span style='overflow-wrap:anywhere'>{html.escape(name)}</span>"
        "<span style='background:color-mix(in srgb,currentColor 12%,transparent);border-radius:.4rem;height:.75rem'>"
        f"<span style='display:block;height:100%;border-radius:.4rem;width:{p:.2%};background:{colors[name]}'></span>"
        f"</span><span style='text-align:right;font-variant-numeric:tabular-nums'>{p:.1%}</span>"
        for name, p in rows
    )
    st.html(
        f"<div style='font-size:1.5rem;font-weight:650;margin-bottom:.4rem'>{html.escape(prediction.label)}</div>"
        "<div style='display:grid;grid-template-columns:fit-content(40%) 1fr 3.5rem;gap:.4rem .8rem;"
        f"align-items:center'>{bars}</div>"
        f"<div style='opacity:.7;font-size:.875rem;margin-top:.6rem'>in {1000 * prediction.seconds:.0f} ms</div>"
    )


def color_scale(colormap: Colormap) -> None:
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


@contextlib.contextmanager
def progress_on_demand(place: DeltaGenerator, cancel: Callable[[], None]) -> Iterator[data.Progress]:
    """`progress_bar` in `place`, drawn at the first report, so that what a cache already holds shows none.

    Cached functions may report to it: Streamlit would store what they draw themselves and draw it again each time.
    """
    outside = contextvars.copy_context()
    with contextlib.ExitStack() as stack:

        @functools.cache
        def bar() -> data.Progress:
            with place:
                return stack.enter_context(progress_bar(cancel))

        yield lambda what, done, total: outside.run(lambda: bar()(what, done, total))


def paste_into(uploader: str) -> None:
    """Let pictures pasted anywhere on the page arrive in the file uploader with the key `uploader`."""
    _paste(data=f".st-key-{uploader} input[type=file]", key=f"{uploader}-paste", height=1)


_paste = st.components.v2.component(
    "paste",
    js="""
    export default function ({ data }) {
      const paste = event => {
        const pictures = [...(event.clipboardData?.files ?? [])].filter(file => file.type.startsWith("image/"));
        const input = document.querySelector(data);
        if (!pictures.length || !input || event.defaultPrevented) return;
        event.preventDefault();
        const files = new DataTransfer();
        pictures.forEach(picture => files.items.add(picture));
        input.files = files.files;
        input.dispatchEvent(new Event("change", { bubbles: true }));
      };
      document.addEventListener("paste", paste);
      return () => document.removeEventListener("paste", paste);
    }
    """,
)
