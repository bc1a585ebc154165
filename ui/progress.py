"""Progress bars with a way out."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import streamlit as st

from alexnet import data, public
from ui.page import plain_errors

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from alexnet.fairlock import Told
    from alexnet.runs import Job


@contextlib.contextmanager
def progress_bar(cancel: Callable[[], None] | None = None, key: str | None = None) -> Iterator[data.Progress]:
    """A progress bar while the block lasts. Cancel, like a click on anything else, ends the block and the script run.

    Two in one script run need a `key` to tell their buttons apart.
    """
    place = st.empty()
    with place.container():
        bar = st.progress(0.0, "One moment")
        st.button("Cancel", key=key, on_click=cancel)

    def show(what: str, done: int, total: int) -> None:
        share = min(done / max(total, 1), 1.0)
        bar.progress(share, f"{what} ({share:.0%})")

    try:
        yield show
    finally:
        place.empty()


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
                return stack.enter_context(progress_bar(cancel, key="cancel"))

        yield lambda what, done, total: outside.run(lambda: bar()(what, done, total))


@contextlib.contextmanager
def queue_on_demand(place: DeltaGenerator) -> Iterator[Told]:
    """Says in `place` how many are ahead at a network that others use, too, while there are any.

    Cached functions may report to it, as to `progress_on_demand`.
    """
    outside = contextvars.copy_context()
    said = False

    def show(ahead: int) -> None:
        nonlocal said
        said = True
        outside.run(place.caption, in_line(ahead))

    try:
        yield show
    finally:
        if said:
            place.empty()


def in_line(ahead: int) -> str:
    """How many are ahead, in words."""
    return f"In line for the network: {ahead} ahead of you"


def stop_button(job: Job, label: str, stopping: str, icon: str) -> None:
    """A button that asks the process of a run, or of several, to stop; `stopping` is its label from then on."""
    if public.is_on():
        return
    asked = (job.path / "stop").exists()
    st.button(stopping if asked else label, icon=icon, disabled=asked, on_click=_stop, args=[job])


def _stop(job: Job) -> None:
    with plain_errors():
        job.request_stop()


def part_of(progress: Callable[[str, float, int], None], what: str, number: int, total: int) -> Callable[[float], None]:
    """Tells `progress` how far it is on the way from `number` to the next of `total`, by the share done, 0 to 1."""
    return lambda share: progress(what, number + share, total)
