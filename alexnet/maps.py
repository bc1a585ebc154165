"""Saliency maps: the pictures of attributions. Needs neither torch nor captum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from alexnet import figures


@dataclass(frozen=True)
class Colormap:
    """A colour table: evenly spaced anchors as `#rrggbb`, from no evidence, or from against where it is `diverging`."""

    name: str
    title: str
    diverging: bool
    anchors: tuple[str, ...]


# Told apart with any kind of colour vision. The first three are matplotlib's, the diverging ones ColorBrewer's.
COLORMAPS: dict[str, Colormap] = {
    name: Colormap(name, title, diverging, tuple(f"#{anchor}" for anchor in anchors.split()))
    for name, title, diverging, anchors in (
        ("inferno", "Inferno", False, "000004 210c4a 57106e 8a226a bc3754 e45a31 f98e09 f9cb35 fcffa4"),
        ("viridis", "Viridis", False, "440154 472d7b 3b528b 2c728e 21918c 28ae80 5ec962 addc30 fde725"),
        ("cividis", "Cividis", False, "00224e 1a386f 434e6c 61656f 7d7c78 9b9476 bcae6c dec958 fee838"),
        ("blue-red", "Blue to red", True, "2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b"),
        ("purple-orange", "Purple to orange", True, "542788 8073ac b2abd2 d8daeb f7f7f7 fee0b6 fdb863 e08214 b35806"),
    )
}


def class_colormap(classes: Sequence[str], target: str) -> Colormap:
    """From evidence for the other of two `classes` to evidence for `target`, in the colours that they have everywhere.

    The colours pale with the root of the evidence, as they cover the photo.
    """
    at = classes.index(target)
    against, speaks_for = (figures.class_color(classes[i], i) for i in (1 - at, at))
    shares = [i / 4 for i in range(-4, 5)]
    tints = (_tint(against if share < 0 else speaks_for, abs(share) ** 0.5) for share in shares)
    return Colormap("classes", "Those of the classes", True, tuple(tints))


def _tint(color: str, strength: float) -> str:
    """`color` mixed with the off-white in the middle of the diverging tables."""
    pairs = zip(bytes.fromhex(color[1:]), bytes.fromhex("f7f7f7"), strict=True)
    return "#" + bytes(round(own * strength + white * (1 - strength)) for own, white in pairs).hex()


def default_colormap(diverging: bool, classes: Sequence[str], target: str) -> Colormap:
    """Where nobody chose a colour table: that of the classes for two of them, or the first of its kind."""
    if diverging and len(classes) == 2:
        return class_colormap(classes, target)
    return next(table for table in COLORMAPS.values() if table.diverging == diverging)


VIEWS = {"signed": "For and against", "positive": "Only for", "absolute": "Strength"}
LAYOUTS = {"overlay": "Overlay", "alone": "Side by side", "mask": "Mask"}

MASKED = (128, 128, 128)


def seen(attribution: np.ndarray, view: str) -> np.ndarray:
    """What the `view`, a name in `VIEWS`, shows of a signed attribution: all, what is positive, or magnitudes."""
    if view == "positive":
        return np.maximum(attribution, 0)
    return np.abs(attribution) if view == "absolute" else attribution


def strength(attribution: np.ndarray) -> float:
    """The magnitude that the strongest half per cent of the pixels reach; 0 where nothing was found.

    A single outlying pixel would leave the rest of the map pale. Where fewer pixels than that speak at all, the
    largest magnitude stands in.
    """
    magnitudes = np.abs(attribution)
    return float(np.quantile(magnitudes, 0.995)) or float(magnitudes.max())


def stretch(attribution: np.ndarray, side: int) -> np.ndarray:
    """A coarse attribution, float (h, w), over `side` x `side` pixels, bilinearly, as Captum stretches those of layers."""
    coarse = Image.fromarray(attribution.astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BILINEAR))


def render(
    attribution: np.ndarray,
    crop: Image.Image,
    opacity: float,
    colormap: Colormap,
    scale: float | None = None,
    layout: str = "overlay",
) -> Image.Image:
    """The saliency map, on the photo or beside it.

    In an `overlay` evidence covers the photo in proportion to the root of its magnitude, so that weak evidence can be
    seen, and the photo fades to grey beneath it, so that its colours are not taken for those of the map. `alone` it is
    the map itself. A `mask` leaves the photo where the evidence is, in proportion to it, and turns the rest grey.

    Args:
        attribution: float (S, S), as `attribute` returns it or `seen` leaves it.
        crop: what the network was given, S x S px.
        opacity: 0 shows the photo alone; at 1 the strongest evidence hides it, or the mask hides all that is none.
        colormap: a diverging one has its middle at zero.
        scale: the magnitude that gets the strongest colour, to compare several maps; by default the `strength` of
            this one.
        layout: a name in `LAYOUTS`.

    Returns:
        RGB, S x S px; the photo itself where nothing was found, since the noise of a zero map means nothing.
    """
    scale = strength(attribution) if scale is None else scale
    photo = crop.convert("RGB")
    if not scale:
        return photo
    share = np.clip(attribution / scale, -1, 1)
    weight = np.abs(share)[..., None]
    if layout == "mask":
        return _mixed(np.asarray(photo), MASKED, opacity * (1 - weight))
    evidence = colours(colormap, (share + 1) / 2 if colormap.diverging else share)
    if layout == "alone":
        return Image.fromarray(evidence.round().astype(np.uint8))
    beneath = np.asarray(Image.blend(photo, photo.convert("L").convert("RGB"), opacity))
    return _mixed(beneath, evidence, opacity * np.sqrt(weight))


def _mixed(below: np.ndarray, above: ArrayLike, cover: np.ndarray) -> Image.Image:
    """`above` over `below`, both RGB (S, S, 3), as far as `cover` (S, S, 1), 0 to 1, says."""
    return Image.fromarray((below * (1 - cover) + np.asarray(above) * cover).round().astype(np.uint8))


def colours(table: Colormap, position: ArrayLike) -> np.ndarray:
    """RGB (..., 3), 0 to 255, at `position` (...) in `table`, from 0, its first anchor, to 1, its last."""
    anchors = np.array([tuple(bytes.fromhex(anchor[1:])) for anchor in table.anchors])
    at = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(np.asarray(position), at, channel) for channel in anchors.T], axis=-1)
