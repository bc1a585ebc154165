"""What any page does: find its way through app.py, say things plainly, and remember what was entered."""

from __future__ import annotations

import contextlib
import re
import runpy
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import StopException

from alexnet.errors import LabError
from alexnet.public import PublicError
from alexnet.recipes import RecipeError

ROOT = Path(__file__).parent.parent
ROUTED = "routed"  # true in the session's state while app.py runs a page
SETTING_LABELS = {
    "lr": "Learning rate", "accumulation": "Gradient accumulation", "schedule": "Learning-rate schedule",
    "warmup": "Warm-up", "clip_norm": "Gradient clipping", "patience": "Early stopping", "ema": "Weight average (EMA)",
    "pca_colour": "PCA colour", "erasing": "Random erasing", "cutmix": "CutMix", "normalization": "Normalisation",
    "norm_place": "Place of normalisation", "groups": "Groups (towers)", "towers_apart": "Towers on two devices",
    "val_fraction": "Validation fraction", "val_pattern": "Validation pattern", "cache": "Keep decoded photos",
    "processes": "GPUs", "wandb": "Weights & Biases", "maps": "Feature maps", "kernels": "Kernel sides",
    "paddings": "Padding", "pool": "Pooling window", "avgpool": "Side of the averaged maps", "hidden": "Hidden units",
    "initialization": "Random start", "nesterov": "Nesterov momentum", "given_splits": "Insist on given splits",
    "max_classes": "Classes at most", "max_per_class": "Photos per class", "test_on_rest": "Test on the rest",
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
    except PublicError as error:
        st.info(plain(str(error)))
    except LabError as error:
        st.error(plain(str(error)))


def plain(text: str) -> str:
    """`text` for a place that reads Markdown: paths and names of classes come from anybody."""
    return re.sub(r"([\\`*_$~\[\]<>#|:])", r"\\\1", text)


def label_of(setting_name: str) -> str:
    """A setting's name as people read it."""
    return SETTING_LABELS.get(setting_name, setting_name.replace("_", " ").capitalize())


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


PERCENT = "%.1f%%"  # of a column of `percent`; Streamlit's own format shows a varying number of decimals


def percent(share: float | None) -> float | None:
    """A share in per cent."""
    return None if share is None else 100 * share


def kept(widget: Callable[..., Any], label: str, *, key: str, default: Any, **options: Any) -> Any:
    """Draw a widget that still has its value after a visit to another page, where Streamlit would have forgotten it."""
    values = st.session_state.setdefault("kept", {})
    st.session_state.setdefault(key, values.get(key, default))
    values[key] = widget(label, key=key, **options)
    return values[key]


def following(widget: Callable[..., Any], label: str, *, key: str, value: Any, **options: Any) -> Any:
    """Draw a widget for what is kept elsewhere, in the address: it has `value`, and its `on_change` writes it there."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value
    return widget(label, key=key, **options)


def linked(
    widget: Callable[..., Any], label: str, *, key: str, default: Any, read: Callable[[str], Any], **options: Any
) -> Any:
    """Draw a widget whose value, unless it is the default, is kept in the address under `key`.

    Where the widget's words are the address's own, `bind` does the same; here they may hold counts.

    Args:
        widget: draws it, given `label`, `key`, `on_change` and `options`.
        label: of the widget.
        key: of the widget.
        default: its value where the address has none that can be used.
        read: the value that a word in the address stands for, or None.
        options: of the widget.
    """
    wanted = read(st.query_params.get(key, ""))

    def keep() -> None:
        if (value := st.session_state[key]) == default:
            st.query_params.pop(key, None)
        else:
            st.query_params[key] = str(value)

    return following(widget, label, key=key, value=default if wanted is None else wanted, on_change=keep, **options)


def one_of(values: Iterable[str]) -> Callable[[str], str | None]:
    """The `read` of `linked` for a choice among `values`."""
    return {value: value for value in values}.get
