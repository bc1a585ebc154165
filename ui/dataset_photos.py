"""The photos of a dataset: thumbnails by class, the report of what was found, and how large the photos are."""

from __future__ import annotations

import base64
import dataclasses
import html
import math
from collections.abc import Callable, Sequence

import numpy as np
import streamlit as st
from PIL import Image, ImageOps

from alexnet import data, figures
from alexnet.data import Dataset, Photo
from alexnet.images import PhotoError
from ui.charts import live_chart
from ui.datasets import forget_dataset
from ui.page import linked, one_of, plain
from ui.photos import encoded

PER_PAGE = 48
THUMBNAIL = 144  # px
MOST_PILLS = 12  # classes to choose from by a click
ALL = "all"
BINS = 30
GRID = (
    "<style>.photos{display:grid;grid-template-columns:repeat(auto-fill,minmax(6.5rem,1fr));gap:.75rem}"
    ".photos figure{margin:0;min-width:0;font-size:.75rem}.photos img{width:100%;aspect-ratio:1;display:block;"
    "border-radius:.45rem .45rem 0 0;border-bottom:4px solid}.photos figcaption{overflow:hidden;text-overflow:ellipsis;"
    "white-space:nowrap;opacity:.8;padding-top:.15rem}</style>"
)


def show_photos(dataset: Dataset) -> None:
    """A page of thumbnails of a class, or of all."""
    label = _choose_class(dataset)
    photos = [photo for photo in dataset.photos if label is None or photo.label == label]
    shown = page_of(photos, PER_PAGE, f"photos-{label}")
    figures_ = (_figure(dataset, photo) for photo in shown)
    st.html(f"{GRID}<div class='photos'>{''.join(figures_)}</div>")


def page_of(items: Sequence, per_page: int, key: str) -> Sequence:
    """The part of `items` that the page number beside them says."""
    pages = max(1, math.ceil(len(items) / per_page))
    if pages == 1:
        return items
    if st.session_state.get(key, 1) > pages:  # there were more when it was chosen
        st.session_state[key] = pages
    number = st.pagination(pages, key=key)
    start = per_page * (number - 1)
    st.caption(f"{start + 1:,} to {min(start + per_page, len(items)):,} of {len(items):,}")
    return items[start : start + per_page]


def class_color(dataset: Dataset, label: int) -> str:
    """The colour that the class has on every page."""
    return figures.class_color(dataset.classes[label], label)


@st.cache_data(show_spinner=False, max_entries=2000)
def thumbnail(digest: str, side: int, _dataset: Dataset, _photo: Photo) -> bytes | None:
    """A square JPEG of the middle of a photo; None where the photo can no longer be read."""
    try:
        square = ImageOps.fit(_dataset.open(_photo, at_least=side), (side, side))
    except PhotoError:
        return None
    return encoded(square, side, "JPEG")


def picture(dataset: Dataset, photo: Photo, side: int = THUMBNAIL) -> bytes:
    """`thumbnail`, or a grey square, as a file."""
    return thumbnail(photo.digest, side, dataset, photo) or encoded(Image.new("RGB", (8, 8), "grey"), 8, "JPEG")


def _choose_class(dataset: Dataset) -> int | None:
    """The class to show, kept in the address; None for all."""
    counts = {ALL: len(dataset.photos), **{name: dataset.report.per_class[name] for name in dataset.classes}}
    options = [ALL, *dataset.classes]
    titles = {name: f"{plain(name)} ({count:,})" for name, count in counts.items()} | {ALL: f"All ({counts[ALL]:,})"}
    how = (st.pills, {"required": True}) if len(options) <= MOST_PILLS else (st.selectbox, {})
    chosen = linked(
        how[0], "Class", key="class", default=ALL, read=one_of(options), options=options, format_func=titles.get,
        label_visibility="collapsed", **how[1],
    )  # fmt: skip
    return None if chosen == ALL else dataset.classes.index(chosen)


def _figure(dataset: Dataset, photo: Photo) -> str:
    title = dataset.classes[photo.label]
    file = thumbnail(photo.digest, THUMBNAIL, dataset, photo)
    name = html.escape(photo.path.rsplit("/", 1)[-1])
    about = html.escape(f"{title}: {photo.path}, {photo.width} × {photo.height} px", quote=True)
    if file is None:
        return f"<figure title='{about}'><figcaption>{name} has gone or changed</figcaption></figure>"
    source = "data:image/jpeg;base64," + base64.b64encode(file).decode()
    look = f"border-color:{class_color(dataset, photo.label)}"
    return f"<figure title='{about}'><img src='{source}' alt='{about}' style='{look}'><figcaption>{name}</figcaption></figure>"


def show_report(name: str, dataset: Dataset) -> None:
    """What was found, used and left out and why, and the sizes and shapes of what is used."""
    report = dataset.report
    st.markdown(
        f"**{report.found:,}** files found = **{report.used:,}** used + **{len(report.skipped):,}** left out"
        + (f"; {report.relabelled:,} of those used were relabelled in review." if report.relabelled else ".")
    )
    if report.skipped:
        st.dataframe(
            [{"Left out because": reason, "Files": count} for reason, count in report.reasons.most_common()],
            hide_index=True, width="content",
        )  # fmt: skip
        with st.expander("Files that are left out"):
            st.dataframe([dataclasses.asdict(skip) for skip in report.skipped], hide_index=True, height=300)
    st.button(
        "Look again", icon=":material/refresh:", on_click=forget_dataset, args=(name,),
        help="Read the folder again, if something in it has changed.",
    )  # fmt: skip
    left, right = st.columns(2)
    with left:
        _histogram(dataset, "Shorter side, px", lambda photo: min(photo.width, photo.height), "sizes")
    with right:
        _histogram(dataset, "Width divided by height", lambda photo: photo.width / photo.height, "shapes")


def _histogram(dataset: Dataset, title: str, value: Callable[[Photo], float], key: str) -> None:
    values = np.array([value(photo) for photo in dataset.photos])
    labels = np.array([photo.label for photo in dataset.photos])
    edges = np.histogram_bin_edges(values, BINS)
    counts = {name: np.histogram(values[labels == label], edges)[0] for label, name in enumerate(dataset.classes)}
    low, middle, high = np.percentile(values, (0, 50, 100))
    st.caption(f"{title}: {low:,.4g} to {high:,.4g}, median {middle:,.4g}")
    live_chart(
        figures.histogram(title, edges, counts), key=f"{key}-{data.digest(str(dataset.root).encode())}", height=280
    )
