"""Saliency maps pixel by pixel: overlay, map alone and mask, their colours, and their scale."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from alexnet import figures, maps

SIZE = 16
GREY = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))
BLUE_RED, VIRIDIS = maps.COLORMAPS["blue-red"], maps.COLORMAPS["viridis"]


@pytest.fixture
def evidence() -> np.ndarray:
    """Strongest for, strongest against and a quarter of it in the first three pixels, none elsewhere."""
    attribution = np.zeros((SIZE, SIZE), np.float32)
    attribution[0, :3] = 1, -1, 0.25
    return attribution


def rgb(anchor: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(anchor[1:]))


def halfway(colour: tuple[int, ...], other: tuple[int, ...] = (128, 128, 128)) -> tuple[int, ...]:
    return tuple(round((a + b) / 2) for a, b in zip(colour, other, strict=True))


def test_strength_is_robust_to_one_outlier_and_zero_for_nothing():
    attribution = np.ones((100, 100), np.float32)
    attribution[0, 0] = -1000
    assert maps.strength(attribution) == 1
    assert maps.strength(np.zeros((100, 100), np.float32)) == 0
    sparse = np.zeros((100, 100), np.float32)
    sparse[3, 4] = -2
    assert maps.strength(sparse) == 2


@pytest.mark.parametrize(
    ("view", "expected"), [("signed", [-2, 0, 3]), ("positive", [0, 0, 3]), ("absolute", [2, 0, 3])]
)
def test_views_of_a_signed_map(view, expected):
    assert set(maps.VIEWS) == {"signed", "positive", "absolute"}
    np.testing.assert_array_equal(maps.seen(np.array([-2.0, 0, 3]), view), expected)


def test_an_overlay_covers_the_photo_by_opacity_and_magnitude(evidence):
    whole = maps.render(evidence, GREY, 1, BLUE_RED, scale=1)
    assert whole.size == (SIZE, SIZE) and whole.mode == "RGB"
    assert whole.getpixel((0, 0)) == rgb(BLUE_RED.anchors[-1])
    assert whole.getpixel((1, 0)) == rgb(BLUE_RED.anchors[0])
    assert whole.getpixel((5, 5)) == (128, 128, 128)
    assert whole.getpixel((2, 0)) == halfway(rgb(BLUE_RED.anchors[5]))  # covers by the root of 1/4
    half = maps.render(evidence, GREY, 0.5, BLUE_RED, scale=1).getpixel((0, 0))
    assert half == halfway(rgb(BLUE_RED.anchors[-1]))


def test_the_photo_fades_to_grey_under_the_map():
    red = Image.new("RGB", (SIZE, SIZE), (200, 0, 0))
    attribution = np.zeros((SIZE, SIZE), np.float32)
    attribution[0, 0] = 1
    assert maps.render(attribution, red, 0, VIRIDIS).tobytes() == red.tobytes()
    assert maps.render(attribution, red, 1, VIRIDIS).getpixel((5, 5)) == (60, 60, 60)  # 0.299 * 200


def test_a_map_alone_shows_nothing_of_the_photo(evidence):
    alone = maps.render(evidence, Image.new("RGB", (SIZE, SIZE), "red"), 0.3, BLUE_RED, scale=1, layout="alone")
    expected = [BLUE_RED.anchors[i] for i in (-1, 0, 5, 4)]
    assert [alone.getpixel((x, 0)) for x in range(4)] == [rgb(anchor) for anchor in expected]


def test_a_mask_leaves_the_photo_where_the_evidence_is(evidence):
    red = Image.new("RGB", (SIZE, SIZE), (200, 0, 0))
    hidden = maps.render(evidence, red, 1, BLUE_RED, scale=1, layout="mask")
    seen = [hidden.getpixel((x, 0)) for x in range(4)]
    assert seen == [(200, 0, 0), (200, 0, 0), (50 + 96, 96, 96), (128, 128, 128)]
    half = maps.render(evidence, red, 0.5, BLUE_RED, scale=1, layout="mask")
    assert half.getpixel((0, 0)) == (200, 0, 0) and half.getpixel((5, 5)) == halfway((200, 0, 0))


def test_a_shared_scale_is_kept_and_clipped_to():
    attribution = np.full((SIZE, SIZE), 0.25, np.float32)
    assert maps.render(attribution, GREY, 1, VIRIDIS, scale=1).getpixel((0, 0)) == halfway(rgb(VIRIDIS.anchors[2]))
    assert maps.render(attribution, GREY, 1, VIRIDIS, scale=0.1).getpixel((0, 0)) == rgb(VIRIDIS.anchors[-1])
    assert maps.render(attribution, GREY, 1, VIRIDIS).getpixel((0, 0)) == rgb(VIRIDIS.anchors[-1])


@pytest.mark.parametrize("layout", maps.LAYOUTS)
def test_a_map_of_nothing_is_the_photo_and_no_noise(layout):
    zero = np.zeros((SIZE, SIZE), np.float32)
    for colormap in maps.COLORMAPS.values():
        assert maps.render(zero, GREY, 0.8, colormap, layout=layout).tobytes() == GREY.tobytes()


@pytest.mark.parametrize(("target", "ends"), [("cat", (figures.DOG, figures.CAT)), ("dog", (figures.CAT, figures.DOG))])
def test_of_two_classes_evidence_has_their_colours(target, ends):
    colormap = maps.class_colormap(("cat", "dog"), target)
    assert colormap.diverging and (colormap.anchors[0], colormap.anchors[-1]) == ends
    assert colormap.anchors[4] == BLUE_RED.anchors[4] and len(colormap.anchors) == 9
    mixed = tuple(maps.colours(colormap, 5 / 8).round())  # a quarter of the evidence: half way to the colour
    assert mixed == halfway(rgb(ends[1]), rgb(BLUE_RED.anchors[4]))


def test_colours_that_nobody_chose():
    assert maps.default_colormap(False, ("cat", "dog"), "dog") is maps.COLORMAPS["inferno"]
    assert maps.default_colormap(True, ("cat", "dog"), "dog") == maps.class_colormap(("cat", "dog"), "dog")
    assert maps.default_colormap(True, ("a", "b", "c"), "c") is BLUE_RED
