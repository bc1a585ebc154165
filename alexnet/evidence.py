"""How far a saliency map can be trusted, and what becomes of an answer when a part of the photo is erased.

A map is tested in two ways. Pixels are exchanged in its order: if it marks what the network goes by, the answer changes
faster than in a random order. And it is made again with random weights: if it hardly changes, it shows the photo and not
what the network learned.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from scipy.stats import spearmanr
from torch import Tensor, nn

from alexnet import saliency
from alexnet.fairlock import FairLock
from alexnet.predict import Classifier

Progress = Callable[[float], None]

STEPS = 20  # in which all pixels are exchanged
RANDOM_ORDERS = 3
BLUR = 5 / 224  # deviation as a share of the side, as in the code of Petsiuk et al. 2018
ERASING_BLUR = 1 / 12  # likewise, of what a person erases: nothing but patches of colour is left
CLEAR = 0.02  # a smaller difference of areas is within what random orders differ by
# Of the mean rank correlation over all stages. On the shipped network Grad-CAM has about 0.1, gradients 0.5, Guided
# Backprop 0.85.
PARTLY, SAME = 0.3, 0.7
FILLS = {"grey": "Grey", "blur": "Blur", "mean": "Mean colour of the photo"}


@dataclass(frozen=True)
class Curves:
    """The probability of a class at each step while pixels are exchanged in some order, from none to all of them.

    In `deletion` the pixels of the photo turn grey; in `insertion` they come into its blurred copy. Petsiuk, Das and
    Saenko 2018 (RISE, arXiv 1806.07421), section 4.1.
    """

    deletion: tuple[float, ...]
    insertion: tuple[float, ...]

    @property
    def deletion_area(self) -> float:
        """0 to 1; low where the order begins with what the answer hangs on."""
        return area(self.deletion)

    @property
    def insertion_area(self) -> float:
        """0 to 1; high where the order begins with what is enough for the answer."""
        return area(self.insertion)


def area(curve: Sequence[float]) -> float:
    """The area under equally spaced points over 0 to 1, by trapezoids."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def ranking(attribution: np.ndarray, seed: int = 0) -> np.ndarray:
    """The place of each pixel in the order of `attribution` (S, S), the strongest first: int64 (S, S) from 0.

    Equal pixels come in a random order, so that a map that says nothing gives a random order of all.
    """
    values = attribution.ravel()
    order = np.lexsort((np.random.default_rng(seed).permutation(values.size), -values))
    places = np.empty(values.size, np.int64)
    places[order] = np.arange(values.size)
    return places.reshape(attribution.shape)


def measure_curves(
    classifier: Classifier,
    photo: Image.Image,
    target: str,
    rankings: Sequence[np.ndarray],
    progress: Progress | None = None,
) -> list[Curves]:
    """What each of `rankings` does to the probability of `target` that `classifier` gives.

    Args:
        classifier: asked with its mirror images and its temperature, of several views only for that of the centre.
        photo: any size; what the network is given of it is changed.
        target: one of `classifier.classes`.
        rankings: (S, S) each, as `ranking` makes them.
        progress: told the share done, 0 to 1. What it raises ends the work and is raised here.
    """
    crop, classifier = classifier.transform.view(photo), classifier.looking_once()
    given, blurred = classifier.transform.stack([crop, blur(crop)])
    grey = torch.tensor(_grey(classifier.transform.mean), dtype=torch.uint8)[:, None, None].expand_as(given)
    index, tell = classifier.classes.index(target), progress or (lambda share: None)

    def probabilities(pictures: Tensor) -> list[float]:
        return classifier.answer(pictures).softmax(1)[:, index].tolist()

    def between(before: Tensor, after: Tensor, ranks: Tensor) -> list[float]:
        bounds = [ranks.numel() * step / STEPS for step in range(1, STEPS)]
        return probabilities(torch.stack([torch.where(ranks < bound, after, before) for bound in bounds]))

    whole, nothing, start = probabilities(torch.stack([given, grey, blurred]))
    found = []
    for number, ranks in enumerate(map(torch.from_numpy, rankings)):
        deletion = (whole, *between(given, grey, ranks), nothing)
        tell((number + 0.5) / len(rankings))
        found.append(Curves(deletion, (start, *between(blurred, given, ranks), whole)))
        tell((number + 1) / len(rankings))
    return found


def blur(picture: Image.Image, share: float = BLUR) -> Image.Image:
    """A Gaussian blur whose deviation is `share` of the shorter side."""
    return picture.filter(ImageFilter.GaussianBlur(share * min(picture.size)))


def _grey(mean: Sequence[float]) -> tuple[int, ...]:
    """The colour that the network computes with as zero: the mean of the training photos, 0 to 255."""
    return tuple(round(255 * value) for value in mean)


def randomized(model: nn.Module, seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """A copy of `model` in which one more layer is random each time, from the last to the first, with that layer's name.

    Cascading randomisation, Adebayo et al. 2018 (arXiv 1810.03292), section 3.1. Weights are drawn from a normal
    distribution around zero that is as wide as they were large, so that activations neither vanish nor explode.
    It is one copy that changes; `model` stays as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    twin = copy.deepcopy(model)
    for name, modules in reversed(_layers(twin)):
        for parameter in (p for module in modules for p in module.parameters(recurse=False)):
            size = parameter.square().mean().sqrt().item()
            drawn = torch.empty(parameter.shape).normal_(0.0, size, generator=generator)
            parameter.data.copy_(drawn)
        yield name, twin


def _layers(model: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """The layers that have weights, first to last, each with the normalisation that comes after it."""
    layers: list[tuple[str, list[nn.Module]]] = []
    for path, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own and (not layers or any(parameter.dim() > 1 for parameter in own)):
            layers.append((path.rpartition(".")[2], [module]))
        elif own:
            layers[-1][1].append(module)
    return layers


def with_network(classifier: Classifier, model: nn.Module) -> Classifier:
    """`classifier` around another network, which nobody shares."""
    return replace(classifier, model=model, lock=FairLock())


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation, -1 to 1, of the magnitudes of two attributions; 0 where one of them is constant."""
    a, b = np.abs(a).ravel(), np.abs(b).ravel()
    return float(spearmanr(a, b).statistic) if np.ptp(a) and np.ptp(b) else 0.0


@dataclass(frozen=True)
class Stage:
    """How far a map is still that of the trained network once all layers from the last down to `layer` are random."""

    layer: str
    correlation: float  # as `rank_correlation`


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against a map; `chance` is the mean over random orders, `stages` go from the top down."""

    curves: Curves
    chance: Curves
    stages: tuple[Stage, ...]

    @property
    def faithful(self) -> bool:
        """Whether both curves together are clearly better than those of random orders."""
        own, chance = self.curves, self.chance
        return chance.deletion_area - own.deletion_area + own.insertion_area - chance.insertion_area > CLEAR

    @property
    def correlation(self) -> float:
        """The mean over the stages, -1 to 1: how much of the map does not need what the network learned."""
        return float(np.mean([stage.correlation for stage in self.stages]))

    @property
    def learned(self) -> bool:
        """Whether the map becomes another one as layers become random."""
        return self.correlation < SAME

    @property
    def trusted(self) -> bool:
        """Whether both tests speak for the map."""
        return self.faithful and self.learned

    @property
    def verdict(self) -> str:
        """What it comes to, in two sentences."""
        own, chance = self.curves, self.chance
        areas = (
            f"areas {own.deletion_area:.2f} and {own.insertion_area:.2f} "
            f"against {chance.deletion_area:.2f} and {chance.insertion_area:.2f}"
        )
        if self.faithful:
            removal = (
                "Removing what this map marks and showing it, taken together, change the answer sooner than in a random "
                f"order ({areas})"
            )
        else:
            removal = (
                "Removing what this map marks and showing it, taken together, change the answer no sooner than in a random "
                f"order ({areas})"
            )
        random = f"mean rank correlation {self.correlation:.2f} with random ones"
        if self.correlation < PARTLY:
            weights = f"the map changes with the weights ({random})"
        elif self.learned:
            weights = f"the map changes with the weights, though a part of it is the photo and its edges ({random})"
        else:
            weights = (
                f"it hardly changes with the weights ({random}), so it shows the photo and its edges rather than what "
                "the network learned"
            )
        link = "and" if self.faithful == self.learned else "but"
        worth = "To this extent it can be trusted." if self.trusted else "It does not show what the answer hangs on."
        return f"{removal}, {link} {weights}. {worth}"


def examine(
    classifier: Classifier,
    photo: Image.Image,
    attribution: np.ndarray,
    method: str,
    target: str,
    progress: Progress | None = None,
    layer: str | None = None,
) -> Evidence:
    """Test the `attribution` that `saliency.attribute` made of `photo` with the same arguments.

    Raises:
        AttributionError: as `saliency.attribute`.
    """
    with classifier.lock:  # its hooks would be copied
        networks = randomized(classifier.model)
        first = next(networks)
    count = len(_layers(classifier.model))
    tell = progress or (lambda share: None)
    orders = [ranking(attribution), *(ranking(np.zeros_like(attribution), seed) for seed in range(RANDOM_ORDERS))]
    total = 2 * len(orders) + count  # a curve takes about as long as a quick map
    own, *random = measure_curves(
        classifier, photo, target, orders, lambda share: tell(share * 2 * len(orders) / total)
    )
    stages: list[Stage] = []
    for name, network in itertools.chain([first], networks):  # one at a time: it is one copy that changes

        def part(share: float, before: int = 2 * len(orders) + len(stages)) -> None:
            tell((before + share) / total)

        changed = saliency.attribute(with_network(classifier, network), photo, method, target, part, layer)
        stages.append(Stage(name, rank_correlation(attribution, changed)))
    tell(1.0)
    return Evidence(own, _mean(random), tuple(stages))


def _mean(curves: Sequence[Curves]) -> Curves:
    deletion = np.mean([c.deletion for c in curves], axis=0)
    insertion = np.mean([c.insertion for c in curves], axis=0)
    return Curves(tuple(deletion.tolist()), tuple(insertion.tolist()))


def painted(strokes: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """Where a person painted over a picture that is shown `size` (width, height) px large: bool (H, W).

    Each stroke has its `points`, pairs of x and y, and the `radius` of its brush, all as shares of the width.
    """
    width, height = size
    mask = Image.new("1", size)
    ink = ImageDraw.Draw(mask)
    for stroke in strokes:
        points, radius = [(x * width, y * width) for x, y in stroke["points"]], stroke["radius"] * width
        ink.line(points, fill=1, width=math.ceil(2 * radius))
        for x, y in points:
            ink.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    return np.asarray(mask)


def erase(photo: Image.Image, mask: np.ndarray, fill: str, mean: Sequence[float]) -> Image.Image:
    """`photo` without what is under `mask`: another photo to classify.

    Args:
        photo: RGB.
        mask: bool (H, W), of the size in which the photo was shown; it is stretched to the photo.
        fill: of `FILLS`: `grey` is the colour that the network computes with as zero, `blur` shows only large patches
            of colour, `mean` is the mean colour of this photo.
        mean: of the training photos, 0 to 1, as the classifier's transform has it.
    """
    fills: dict[str, Callable[[], Image.Image]] = {
        "grey": lambda: Image.new("RGB", photo.size, _grey(mean)),
        "blur": lambda: blur(photo, ERASING_BLUR),
        "mean": lambda: Image.new(
            "RGB", photo.size, tuple(np.asarray(photo).mean((0, 1)).round().astype(int).tolist())
        ),
    }
    stretched = Image.fromarray(mask).resize(photo.size, Image.Resampling.NEAREST)
    return Image.composite(fills[fill](), photo, stretched)
