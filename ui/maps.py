"""Saliency maps: computed once for all sessions, and drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from alexnet import images
from ui.map_settings import MapSettings, choose_no_map, chosen_colormap
from ui.networks import Edition, answer
from ui.page import plain
from ui.progress import in_line, part_of, progress_on_demand

if TYPE_CHECKING:
    import numpy as np
    from streamlit.delta_generator import DeltaGenerator

    from alexnet import data
    from alexnet.fairlock import Told
    from alexnet.predict import Classifier, Prediction
    from alexnet.saliency import Completeness, Method

Network = tuple["Classifier", Edition]
Show = Callable[..., object]  # `st.image` in its place
Progress = Callable[[float], None]  # told the share done, 0 to 1


@dataclass(frozen=True)
class Case:
    """A photo, what a network says of it, and the places of its maps, one for each method."""

    data: bytes
    prediction: Prediction
    classifier: Classifier
    edition: Edition
    places: Sequence[Show]


def map_grid(data: bytes, networks: Sequence[Network], methods: Sequence[Method]) -> list[Case]:
    """The maps of one photo: a row for each network, under its name and answer if there are several."""
    from alexnet.familiarity import neither

    cases = []
    share = 100 / min(max(len(methods), 3), 5) - 2  # of the width, for a map; two fit on a phone
    st.html(
        "<style>[class*='st-key-map-grid-'] { display: grid; gap: 1rem; "
        f"grid-template-columns: repeat(auto-fill, minmax(max(10rem, {share:.0f}%), 1fr)); }}</style>"
    )
    for row, (classifier, edition) in enumerate(networks):
        _, prediction = answer(data, edition, classifier)
        if len(networks) > 1:
            sure = f" {prediction.probabilities[prediction.best]:.1%}" if prediction.label else ""
            st.markdown(f"**{plain(edition[0])}**: {plain(prediction.label or neither(classifier.classes))}{sure}")
        with st.container(key=f"map-grid-{row}"):
            places = [functools.partial(st.empty().image, width="stretch") for _ in methods]
        for show in places:
            show(prediction.input)
        cases.append(Case(data, prediction, classifier, edition, places))
    return cases


def draw_maps(cases: Sequence[Case], settings: MapSettings, place: DeltaGenerator) -> None:
    """The maps of all `cases`, with progress in `place`; those that share a scale wait for the last of them."""
    from alexnet import maps, saliency

    wanted = [
        (case, method, show) for case in cases for method, show in zip(settings.methods, case.places, strict=True)
    ]
    drawings: list[tuple[Method, float, Callable[..., None]]] = []
    with progress_on_demand(place, cancel=choose_no_map) as progress:
        for number, (case, method, show) in enumerate(wanted):
            tell = part_of(progress, f"{method.title}, map {number + 1} of {len(wanted)}", number, len(wanted))
            told = tell if method.slow or len(wanted) > 1 else None
            queue = functools.partial(_tell_of_line, progress, number, len(wanted))
            target, layer = settings.target or case.prediction.best, settings.layer if method.layered else None
            try:
                what = (case.data, case.edition, method.name, target, layer)
                found, sums = explanation(*what, case.classifier, told, queue)
            except saliency.AttributionError as error:
                show(case.prediction.input, caption=plain(str(error)))
                continue
            evidence = maps.seen(found, settings.view) if method.signed else found
            draw = functools.partial(_draw, show, evidence, sums, case, method, target, settings)
            drawings.append((method, maps.strength(evidence), draw))
            if not settings.shared:
                draw(scale=None)
    if settings.shared:
        for method, _, draw in drawings:
            draw(scale=max(strength for other, strength, _ in drawings if other is method))


@st.cache_data(show_spinner=False, max_entries=500)
def explanation(
    data: bytes,
    edition: Edition,
    method: str,
    target: str,
    layer: str | None,
    _classifier: Classifier,
    _progress: Progress | None,
    _queue: Told = lambda ahead: None,
) -> tuple[np.ndarray, Completeness | None]:
    """The attribution (S, S) of a photo, and what it adds up to where that means anything.

    `_progress` is told the share done, `_queue` before that how many are ahead at the network.

    Raises:
        AttributionError: as `alexnet.saliency.attribute`.
    """
    from alexnet import saliency

    photo = images.open_photo(data)
    with _classifier.lock.turn(_queue):
        found = saliency.attribute(_classifier, photo, method, target, _progress, layer)
    complete = saliency.METHODS[method].complete
    return found, saliency.completeness(_classifier, photo, method, target, found) if complete else None


def _tell_of_line(progress: data.Progress, number: int, total: int, ahead: int) -> None:
    progress(f"{in_line(ahead)}, map {number + 1} of {total}", number, total)


def _draw(
    show: Show,
    evidence: np.ndarray,
    sums: Completeness | None,
    case: Case,
    method: Method,
    target: str,
    settings: MapSettings,
    scale: float | None,
) -> None:
    """A saliency map in its place, with what it shows beneath; the photo where it shows nothing."""
    from alexnet import maps

    crop, classes = case.prediction.input, case.classifier.classes
    title = f"**{method.title}**: " if len(settings.methods) > 1 else ""
    if not evidence.any():
        show(crop, caption=f"{title}Nothing found that speaks for {plain(target)}")
        return
    diverging = method.signed and settings.view == "signed"
    colormap = chosen_colormap(settings.colors.get(diverging, "inferno"), classes, target)
    said = _evidence_for(target, classes, settings.view if method.signed else "positive")
    if sums:
        said += f"; sums to {sums.total:.3f} of {sums.difference:.3f} logits ({sums.relative:.1%} off)"
    show(maps.render(evidence, crop, settings.opacity, colormap, scale, settings.layout), caption=title + said)


def _evidence_for(target: str, classes: Sequence[str], view: str) -> str:
    """What a map shows, in words."""
    if view == "signed" and len(classes) == 2:
        return f"Evidence for {plain(target)} and for {plain(classes[1 - classes.index(target)])}"
    also = {"signed": " and against", "absolute": " or against", "positive": ""}[view]
    return f"Evidence for{also} {plain(target)}"
