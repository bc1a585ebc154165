"""The Augment page: the recipe in its address, the widgets of the operations, and the pictures that come of them."""

from __future__ import annotations

import base64
import html
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import streamlit as st
from PIL import Image

from alexnet import public
from alexnet.figures import class_color
from alexnet.recipes import RECIPES, Recipe, parse_setting
from ui.architecture import go
from ui.augment_photos import OWN, Source, code, opened, photos_at
from ui.page import following, label_of, numbers, plain, plain_errors
from ui.settings import VALUE_LABELS, enter_form, form_of

if TYPE_CHECKING:
    import numpy as np

    from alexnet.preview import Operation, Photos, Series

SAMPLES = 8  # of one photo, and photos of a batch
SETTINGS = {f.name: f for f in fields(Recipe) if f.metadata["group"] != "about"}
STEPS = {"rotation": 1.0, "shear": 0.1, "blur": 0.1, "mixup": 0.05, "cutmix": 0.05}  # of the sliders; others 0.01
ENDS = {"blur": 5.0, "mixup": 2.0, "cutmix": 2.0}  # of the sliders; what is beyond them is rarely wanted
FORMATS = {"rotation": "%g°", "shear": "%g°", "blur": "%g px", "pca_colour": "%g", "mixup": "%g", "cutmix": "%g"}
STYLE = """<style>
.augment { display: grid; grid-template-columns: 4fr 3fr; gap: .8rem; }
.augment.whole { grid-template-columns: 2fr 5fr; }
.augment.batch { grid-template-columns: 1fr; }
.augment > div { display: grid; gap: .4rem; align-content: start; }
.augment .ends { grid-template-columns: repeat(3, 1fr); }
.augment .samples { grid-template-columns: repeat(4, 1fr); }
.augment figure { margin: 0; min-width: 0; }
.augment img { display: block; width: 100%; border-radius: .4rem; }
.augment figcaption { font-size: .75rem; line-height: 1.3; margin-top: .15rem; opacity: .8; overflow-wrap: anywhere; }
@media (max-width: 640px) { .augment, .augment.whole { grid-template-columns: 1fr; } }
</style>"""


# -------------------------------------------------------------------------------------------------------- the address


def restore() -> None:
    """After a visit to another page, bring back what was looked at here."""
    if not st.query_params:
        st.query_params.from_dict(st.session_state.get("augment", {}))


def remember() -> None:
    """Have `restore` find what is looked at now."""
    st.session_state["augment"] = st.query_params.to_dict()


def link_to_augment(recipe: Recipe) -> None:
    """A link to the Augment page, on which `recipe` is then seen with all that is changed in it."""
    base = RECIPES[recipe.name]
    changed = {name: str(getattr(recipe, name)) for name in SETTINGS if getattr(recipe, name) != getattr(base, name)}
    st.page_link(
        "pages/augment.py", label="See it on photos", icon="🎨", query_params={"recipe": recipe.name} | changed
    )


def choose_recipe() -> Recipe:
    """The recipe in the address, with the settings that are changed there."""
    wanted = st.query_params.get("recipe", st.session_state.get("kept", {}).get("recipe", "first-run"))
    if wanted not in RECIPES:
        st.warning(f"There is no recipe called {plain(wanted)}.")
        wanted = "first-run"

    def change() -> None:
        chosen, changes = st.session_state["augment-recipe"], st.session_state.setdefault("augment-changes", {})
        changes[wanted] = _changed()
        go(**dict.fromkeys(_changed()) | changes.get(chosen, {}) | {"recipe": chosen})

    following(
        st.selectbox, "Recipe", key="augment-recipe", value=wanted, options=list(RECIPES), on_change=change,
        format_func=lambda name: RECIPES[name].title,
    )  # fmt: skip
    base = RECIPES[wanted]
    with plain_errors():
        return base.replace(**{name: parse_setting(name, text) for name, text in _changed().items()})
    go(**dict.fromkeys(_changed()))  # the widgets show the recipe as it is
    return base


def _changed() -> dict[str, str]:
    """The settings in the address."""
    return {name: text for name, text in st.query_params.items() if name in SETTINGS}


def choose_seed(recipe: Recipe) -> None:
    """The recipe's seed."""
    _setting(recipe, "seed", st.number_input, "Seed", min_value=0, max_value=2**31, step=1)


def choose_step() -> int:
    """The step of training whose choices are shown, counted from 0."""
    wanted = st.query_params.get("step", "")
    return following(
        st.number_input, "Step of training", key="augment-step", min_value=0, max_value=10**9, step=1,
        value=int(wanted) if re.fullmatch("[0-9]{1,9}", wanted) else 0,
        on_change=lambda: go(step=st.session_state["augment-step"] or None),
        help="Each step draws anew. The same seed and step draw the same, here and in training.",
    )  # fmt: skip


def show_actions(recipe: Recipe, photos: str | None) -> None:
    """Take the settings to the Train page, or drop the changes."""
    if not public.is_on() and st.button("Train with this", type="primary", icon=":material/play_arrow:"):
        enter_form(None if photos == OWN else photos, form_of(recipe), recipe.to_dict())
        st.switch_page("pages/train.py", query_params={"run": "new"})
    if changed := _changed():
        st.button(
            "Back to the recipe", icon=":material/undo:", on_click=go, kwargs=dict.fromkeys(changed),
            help=f"Changed: {', '.join(map(label_of, changed))}.",
        )  # fmt: skip


# --------------------------------------------------------------------------------------------------------- the widgets


def _setting(recipe: Recipe, name: str, widget: Callable[..., Any], label: str, **options: Any) -> None:
    """The widget of a setting; what differs from the recipe as published goes into the address."""

    def change() -> None:
        value = st.session_state[f"augment-{name}"]
        value = round(value, 6) if isinstance(value, float) else value
        go(**{name: None if value == getattr(RECIPES[recipe.name], name) else value})

    options |= {"help": SETTINGS[name].metadata["help"], "on_change": change}
    following(widget, label, key=f"augment-{name}", value=getattr(recipe, name), **options)


def _choose_range(recipe: Recipe, name: str, label: str) -> None:
    """The widgets of an operation."""
    if name == "flip":
        _setting(recipe, "flip", st.toggle, label)
    elif name == "crop":
        kinds = {kind: VALUE_LABELS.get(kind, kind) for kind in SETTINGS["crop"].metadata["choices"]}
        _setting(recipe, "crop", st.selectbox, label, options=list(kinds), format_func=kinds.get)
        if recipe.crop == "resized":
            _slider(recipe, "crop_scale", label_of("crop_scale"))
    else:
        _slider(recipe, name, label)


def _slider(recipe: Recipe, name: str, label: str) -> None:
    about, rival = SETTINGS[name].metadata, {"mixup": "cutmix", "cutmix": "mixup"}.get(name)
    most = max(min(about["max"], ENDS.get(name, about["max"])), getattr(recipe, name))
    _setting(
        recipe, name, st.slider, label, min_value=about["min"], max_value=most, step=STEPS.get(name, 0.01),
        format=FORMATS.get(name, "percent"), disabled=bool(rival and getattr(recipe, rival)),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- the pictures


def show_whole(recipe: Recipe, source: Source, chosen: int, photos: Photos, step: int) -> None:
    """The photo, and samples of what the whole pipeline makes of it."""
    (x, own), title = code().whole(recipe, photos, step), source.title(chosen)
    file = base64.b64encode(opened(*source.file(chosen))[1]).decode()
    said = [f"{share:.0%} its own" if recipe.mixup or recipe.cutmix else "" for share in own.tolist()]
    samples = [
        _figure(uri, words, f"Sample {number} {words}".strip())
        for number, (uri, words) in enumerate(zip(_uris(code().pixels(x)), said, strict=True), 1)
    ]
    original = _figure(f"data:image/jpeg;base64,{file}", html.escape(title), f"{title}, as it is")
    st.html(f"<div class='augment whole'><div>{original}</div><div class='samples'>{''.join(samples)}</div></div>")


def show_operations(recipe: Recipe, photos: Photos, step: int) -> None:
    """Each operation in its order: what it is set to, how often it is done, and what it does to the photo."""
    [original], key = _uris(code().pixels(code().as_is(recipe, photos[:1]).x)), f"{recipe.image_size} {photos.key}"
    for number, operation in enumerate(code().OPERATIONS, 1):
        left, right = st.columns([2, 7], gap="medium")
        with left:
            _choose_range(recipe, operation.name, f"**{number}. {label_of(operation.name)}**")
        with right:
            if operation.is_on(recipe):
                st.caption(operation.odds.format(getattr(recipe, operation.name)))
                series = code().alone(operation, recipe, photos.sizes, step)
                pictures = _alone(f"{operation.name} {key} {series.key}", operation, recipe, photos, series)
                _show_operation(label_of(operation.name), original, pictures, series.said)
            else:
                st.caption("Off")


def _show_operation(title: str, original: str, pictures: Sequence[str], said: Sequence[str]) -> None:
    """An operation alone: the photo without it, the ends of its range, and samples."""
    figures = [_figure(uri, words, f"{title}: {words}") for uri, words in zip(pictures, said, strict=True)]
    ends = _figure(original, "original", f"{title}: original") + "".join(figures[:2])
    samples = "".join(figures[2:])
    st.html(f"<div class='augment'><div class='ends'>{ends}</div><div class='samples'>{samples}</div></div>")


@st.cache_data(show_spinner=False, max_entries=100)
def _alone(key: str, _operation: Operation, _recipe: Recipe, _photos: Photos, _series: Series) -> list[str]:
    """The pictures of an operation, made anew only when what was drawn for it changes."""
    return _uris(code().pixels(code().pictures_alone(_operation, _recipe, _photos, _series)))


def show_batch(recipe: Recipe, source: Source, step: int) -> None:
    """The first photos of the batch at the step, as the network gets them, with their labels; and the tensor's numbers."""
    chosen, choices = code().plan_of_step(recipe, source.sizes, step)
    shown = chosen[:SAMPLES].tolist()
    made = code().carry_out(recipe, photos_at(source, shown), choices[: len(shown)])
    labels, x, steps = [source.labels[index] for index in shown], made.x, len(source) // len(chosen)
    of_what = "" if source.trained else ", if these were the photos to train on"
    st.caption(
        f"The first {len(shown)} of the {len(chosen)} photos that training takes in epoch {step // steps + 1:,}, "
        f"step {step % steps + 1:,} of {steps:,}{of_what}: the pictures without the normalisation, the numbers with it. "
        "Where bfloat16 is faster, training computes them in that, to about one grey level."
    )
    numbers({
        "Shape": " × ".join(map(str, x.shape)),
        "Type": str(x.dtype).removeprefix("torch."),
        "Mean": f"{x.mean():.3f}".replace("-", "−"),
        "Deviation": f"{x.std():.3f}",
        "Range": f"{x.min():.2f} to {x.max():.2f}".replace("-", "−"),
    })  # fmt: skip
    figures = [
        _figure(uri, *_mixture(source.classes, labels, shares))
        for uri, shares in zip(_uris(code().pixels(x)), made.shares.tolist(), strict=True)
    ]
    st.html(f"<div class='augment batch'><div class='samples'>{''.join(figures)}</div></div>")


def _mixture(classes: Sequence[str], labels: Sequence[int], shares: Sequence[float]) -> tuple[str, str]:
    """The label of a picture that is made of several photos, from their shares: as HTML and as plain text."""
    parts: Counter[int] = Counter()
    for label, share in zip(labels, shares, strict=True):
        parts[label] += share
    likely = [(label, share) for label, share in parts.most_common() if share >= 0.005]
    words = [f"{share:.0%} {classes[label]}" if len(likely) > 1 else classes[label] for label, share in likely]
    dots = [f"<span style='color:{class_color(classes[label], label)}'>●</span>" for label, _ in likely]
    marked = (f"{dot} {html.escape(word)}" for dot, word in zip(dots, words, strict=True))
    return "<br>".join(marked), ", ".join(words)


def _uris(pictures: np.ndarray) -> list[str]:
    """Addresses that hold a JPEG of each picture, `(N, H, W, 3)` uint8."""
    return [_uri(Image.fromarray(picture)) for picture in pictures]


def _uri(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _figure(uri: str, caption: str, alt: str) -> str:
    """A picture with what is written under it, which is HTML."""
    return f"<figure><img src='{uri}' alt='{html.escape(alt)}'><figcaption>{caption}</figcaption></figure>"
