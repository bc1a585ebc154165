"""How far a saliency map can be trusted: tested on request, once for all sessions, and shown with its verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from alexnet import data as datasets
from alexnet import figures, images
from ui.charts import live_chart
from ui.map_settings import MapSettings
from ui.maps import Case, explanation
from ui.networks import Edition
from ui.page import plain
from ui.progress import part_of, progress_on_demand

if TYPE_CHECKING:
    import numpy as np

    from alexnet.evidence import Evidence
    from alexnet.predict import Classifier
    from alexnet.saliency import Method

Question = tuple[str, Edition, str, str, str | None]  # photo, network, method, target and layer: one map

TESTED = "tested"  # the questions of this session that were asked
HEIGHT = 270  # px of a chart


def show_trust(case: Case, settings: MapSettings) -> None:
    """An expander with the tests of the photo's map; of several maps one is chosen."""
    with st.expander("How far to trust this map", key="trust", bind="query-params") as box:
        if not box.open:
            return
        method, target = _choose(settings.methods), settings.target or case.prediction.best
        layer = settings.layer if method.layered else None
        question = (datasets.digest(case.data), case.edition, method.name, target, layer)
        asked: set[Question] = st.session_state.setdefault(TESTED, set())
        st.caption(
            "Two tests of the map. Its pixels are removed, and brought into a blurred copy, the strongest first: does the "
            "answer change sooner than in a random order? And the map is made again with ever more random weights: does "
            "it show what the network learned, or only the photo?"
        )
        if question not in asked:
            st.button("Test it", on_click=asked.add, args=[question], type="primary")
            return
        _show(case, method, target, layer, cancel=lambda: asked.discard(question))


def _choose(methods: tuple[Method, ...]) -> Method:
    if len(methods) == 1:
        return methods[0]
    titles = {method.title: method for method in methods}
    return titles[st.segmented_control("Map", list(titles), default=next(iter(titles)), required=True, key="trusted")]


def _show(case: Case, method: Method, target: str, layer: str | None, cancel: Callable[[], None]) -> None:
    """The verdict, and what it rests on."""
    from alexnet import saliency
    from alexnet.evidence import SAME

    try:
        attribution, _ = explanation(case.data, case.edition, method.name, target, layer, case.classifier, None)
    except saliency.AttributionError as error:
        st.info(plain(str(error)))
        return
    if not attribution.any():
        st.info("Nothing was found, so there is nothing to test.")
        return
    with progress_on_demand(st.container(), cancel) as progress:
        tell = part_of(progress, f"Testing {method.title}", 0, 1)
        found = tested(case.data, case.edition, method.name, target, layer, attribution, case.classifier, tell)
    (st.success if found.trusted else st.warning)(found.verdict)
    own, chance, name = found.curves, found.chance, plain(target)
    panels = (
        (
            "removal",
            figures.exchange_curve(own.deletion, chance.deletion, "removed", target),
            f"**Removed**, strongest first: area {own.deletion_area:.2f}, at random {chance.deletion_area:.2f}. "
            f"Lower is better. All grey, {name} still has {own.deletion[-1]:.0%}.",
        ),
        (
            "arrival",
            figures.exchange_curve(own.insertion, chance.insertion, "brought in", target),
            f"**Brought in**, strongest first: area {own.insertion_area:.2f}, at random {chance.insertion_area:.2f}. "
            f"Higher is better. Blurred, {name} starts at {own.insertion[0]:.0%}.",
        ),
        (
            "weights",
            figures.rank_correlations([s.layer for s in found.stages], [s.correlation for s in found.stages], SAME),
            f"**Random weights**, from the last layer down: how alike the maps are, in the mean {found.correlation:.2f}. Lower "
            "is better. Above the dotted line a map hardly changes.",
        ),
    )
    for column, (key, figure, caption) in zip(st.columns(3, gap="medium"), panels, strict=True):
        with column:
            live_chart(figure, key=f"trust-{key}", height=HEIGHT)
            st.caption(caption)


@st.cache_data(show_spinner=False, max_entries=200)
def tested(
    data: bytes,
    edition: Edition,
    method: str,
    target: str,
    layer: str | None,
    _attribution: np.ndarray,
    _classifier: Classifier,
    _progress: Callable[[float], None],
) -> Evidence:
    """The tests of the map of a photo, as `alexnet.evidence.examine` makes them."""
    from alexnet import evidence

    photo = images.open_photo(data)
    return evidence.examine(_classifier, photo, _attribution, method, target, _progress, layer)
