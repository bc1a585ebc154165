"""The Architecture page: the photo that is led through a network, and the network's layers, filters and ancestry."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import streamlit as st
from PIL import Image, ImageOps

from alexnet import data, images
from alexnet.recipes import Recipe
from alexnet.runs import Run
from ui.datasets import dataset
from ui.networks import Edition
from ui.page import label_of, numbers, plain, plain_errors
from ui.photos import EXAMPLES, MAX_MB, Photo, drawing, encoded, thumbnails
from ui.visitors import admitted

if TYPE_CHECKING:
    from alexnet.anatomy import Row
    from alexnet.predict import Classifier

FIRST = next(iter(EXAMPLES))
OFFERED = 10  # photos of a run's dataset
THUMBNAIL = 96  # px
# Settings that are compared beside the layers, which show those of the model themselves.
COMPARED = (
    "norm_place",
    "initialization",
    *(f.name for f in fields(Recipe) if f.metadata["group"] in ("optimisation", "augmentation")),
)
BESIDE_THE_POINT = ("seed", "start_from", "accumulation")


def go(**choice: Any) -> None:
    """Keep what was chosen in the address, where a link or a reload finds it; None forgets."""
    for name, value in choice.items():
        if value is None:
            st.query_params.pop(name, None)
        else:
            st.query_params[name] = str(value)


def choose_photo(run: Run) -> Photo:
    """The photo to follow: an upload, one of the run's own photos, or a drawing. The last two are kept in the address."""
    wanted, number = st.query_params.get("photo"), st.session_state.setdefault("photo-number", 0)

    def choose(name: str) -> None:
        st.session_state["photo-number"] = number + 1  # empties the uploader
        go(photo=name, place=None)

    upload = st.session_state.get(f"photo-{number}")
    own = None if upload or wanted in (None, *EXAMPLES) else _own_photo(run, wanted)
    chosen = None if upload or own else wanted if wanted in EXAMPLES else FIRST
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.container(width="content"):
            pictures = {name: (f"Drawing of a {label}", drawing(name, 160)) for name, (label, _) in EXAMPLES.items()}
            thumbnails(pictures, chosen, "drawings", choose, side=3)
        with st.popover("Another photo", icon=":material/add_photo_alternate:"):
            st.file_uploader(
                "Yours",
                type="image",
                max_upload_size=MAX_MB,
                key=f"photo-{number}",
                on_change=go,
                kwargs={"photo": None, "place": None},
            )
            st.caption("Yours stays in this tab: a link to this page cannot bring it back.")
            with plain_errors():
                _offer_own(run, wanted, choose)
    if upload and admitted([upload], "architecture"):
        return upload.name, upload.getvalue()
    return own or a_drawing(chosen)


def a_drawing(name: str = FIRST) -> Photo:
    """One of the drawings, which are always at hand."""
    return f"Drawing of a {EXAMPLES[name][0]}", drawing(name, 400)


def has_own_photos(run: Run) -> bool:
    """Whether the photos that `run` was trained on are on this computer."""
    name = run.config["data"]
    return data.available(name) and (data.has_name(name) or data.folder_of(name).is_dir())


def _own_photo(run: Run, path: str) -> Photo | None:
    """The photo at `path` in the dataset of `run`; None, with the reason on the page, where there is none."""
    with plain_errors():
        found = dataset(run.config["data"], cancel=lambda: go(photo=None)) if has_own_photos(run) else None
        # Only what the dataset lists is opened: the path comes from the address.
        if found and any(photo.path == path for photo in found.photos):
            with contextlib.suppress(OSError):
                return path, (found.root / path).read_bytes()
        st.warning(f"The photos of {plain(run.id)} here do not include {plain(path)}; a drawing stands in for it.")
    return None


def _offer_own(run: Run, chosen: str | None, choose: Any) -> None:
    """Some of the run's validation photos to choose from, once they are asked for."""
    if not has_own_photos(run):
        st.caption(f"The photos that {plain(run.id)} was trained on are not on this computer.")
    elif st.session_state.get("own-photos") == run.id:
        found = dataset(run.config["data"], cancel=lambda: st.session_state.pop("own-photos"))
        photos = _validation(run.id, found)
        st.caption("Its validation photos, from which it did not learn")
        pictures = {path: (plain(path), _thumbnail(str(found.root / path))) for path in photos}
        thumbnails(pictures, chosen, "own", choose, side=3)
    else:
        st.button("The run's own photos", on_click=lambda: st.session_state.update({"own-photos": run.id}))


@st.cache_data(show_spinner=False, max_entries=20)
def _validation(run_id: str, _dataset: data.Dataset) -> list[str]:
    """Some validation photos from all over their order; a run always has the same ones."""
    from alexnet import runs

    photos = data.split_of(_dataset, runs.find(run_id).recipe, "val")
    return [photo.path for photo in photos[:: max(1, len(photos) // OFFERED)][:OFFERED]]


@st.cache_data(show_spinner=False, max_entries=200)
def _thumbnail(path: str) -> bytes:
    with contextlib.suppress(images.PhotoError):  # it went away since the dataset was read
        return encoded(
            ImageOps.fit(images.open_photo(path, at_least=THUMBNAIL), (THUMBNAIL, THUMBNAIL)), THUMBNAIL, "PNG"
        )
    return encoded(Image.new("RGB", (THUMBNAIL, THUMBNAIL), "grey"), THUMBNAIL, "PNG")


@st.cache_data(show_spinner=False, max_entries=20)
def network_rows(edition: Edition, _classifier: Classifier) -> list[Row]:
    """The layers of a run's network, as `alexnet.anatomy.rows` has them."""
    from alexnet import anatomy

    with _classifier.lock:
        return anatomy.rows(_classifier.model, _classifier.transform.crop)


def show_layers(rows: Sequence[Row]) -> None:
    """What the layers come to, and a table of them."""
    from alexnet import anatomy

    parameters, work = (sum(getattr(row, what) for row in rows) for what in ("parameters", "multiply_adds"))
    numbers({
        "Parameters": f"{parameters:,}",
        "Multiply-adds for a photo": f"{work:,}",
        "In 32 bits": f"{4 * parameters / 1e6:,.0f} MB",
    })  # fmt: skip
    convolutions = [row for row in rows if row.kind == "Conv2d"]
    if convolutions:
        held, done = (sum(getattr(row, what) for row in convolutions) for what in ("parameters", "multiply_adds"))
        st.markdown(
            f"The convolutions hold {held / parameters:.0%} of the parameters and do {done / work:.0%} of the arithmetic."
        )
    table = [
        {
            "Layer": row.name,
            "Kind": anatomy.kind_of(row.kind),
            "Settings": row.settings,
            "Output": " × ".join(f"{length:,}" for length in row.shape),
            "Parameters": row.parameters,
            "Multiply-adds": row.multiply_adds,
            "A unit sees": _sees(row),
        }
        for row in rows
    ]
    counts = {name: st.column_config.NumberColumn(format="localized") for name in ("Parameters", "Multiply-adds")}
    st.dataframe(table, hide_index=True, column_config=counts, height=35 * (len(table) + 1) + 2)
    st.caption(
        "Parameters count weights and biases. Multiply-adds are those of convolutions and fully connected layers for one "
        "view of a photo. What a unit sees is the square of pixels that its number can depend on, and how far "
        "its neighbour's lies from it; the photo's border cuts it off."
    )


def _sees(row: Row) -> str:
    if len(row.shape) < 2:
        return "all"
    return f"{row.field.size} px, {row.field.stride} apart"


def show_differences(run: Run, rows: Sequence[Row]) -> None:
    """What differs between the network of 2012 and that of `run`, and between how they were trained."""
    from alexnet import anatomy

    st.markdown(
        "What changed between the network of [Krizhevsky, Sutskever and Hinton 2012]"
        f"(https://papers.nips.cc/paper/4824) and {plain(run.id)}. What is not listed is the same."
    )
    found = anatomy.layer_differences(anatomy.paper_rows(), rows)
    _table("Network", [(_title(each.what), each.before or "none", each.after or "none") for each in found])
    recipe = run.recipe
    names = (name for name in COMPARED if name not in BESIDE_THE_POINT)
    settings = [
        (label_of(n), _value(old), _value(new))
        for n, old, new in anatomy.recipe_differences(anatomy.PAPER, recipe, names)
    ]
    if recipe.image_size != anatomy.PAPER.image_size:
        settings.append(("Image size", f"{anatomy.PAPER.image_size} px", f"{recipe.image_size} px"))
    _table("Recipe", settings)
    st.caption(
        "The paper writes 224 px; its own layers fit 227. Its recipe is that of its sections 3 to 5, where it learnt "
        "1,000 classes from 1.2 million photos."
    )


def _table(what: str, found: Sequence[tuple[str, str, str]]) -> None:
    if found:
        st.table(
            [{what: plain(name), "2012": plain(before), "This run": plain(after)} for name, before, after in found],
            border="horizontal",
            hide_index=True,
        )
    else:
        st.caption(f"{what}: no difference.")


def _title(what: str) -> str:
    return {"parameters": "All parameters", "multiply_adds": "All multiply-adds"}.get(what, what)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")) or "none"
