"""Saliency maps: which parts of a photo speak for a class, by Captum, and how such an attribution is drawn.

The sole importer of captum. An attribution is a float32 array (S, S) in the pixels of what the network was given. Its
unit is that of the class's logit, before the softmax. Captum's hooks sit on the model itself, and hooks of two
threads at once corrupt each other's results without an error; so every attribution holds the classifier's lock.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion, Saliency
from PIL import Image
from torch import Tensor, nn

from alexnet.errors import LabError

if TYPE_CHECKING:
    from alexnet.predict import Classifier

Forward = Callable[[Tensor], Tensor]
Progress = Callable[[float], None]

BASELINE = 0.0  # in normalised space: the mean colour of photos, a flat grey
STEPS = 50  # points on the path of Integrated Gradients; the paper finds 20 to 300 enough
STEPS_AT_ONCE = 5
WINDOWS_AT_ONCE = 8
ROUNDING = 1e-4  # a logit that moves by less when a patch is hidden has moved by the rounding of float32


class AttributionError(LabError, ValueError):
    """An attribution that cannot be made; its text is one sentence."""


@dataclass(frozen=True)
class Method:
    """A way to attribute a logit to pixels.

    `sentence` says what a person sees in the map. A `signed` attribution is positive where the photo speaks for the
    class and negative where it speaks against it; the others are 0 or more. A `slow` one takes seconds on a CPU.
    """

    name: str
    title: str
    sentence: str
    paper: str
    signed: bool
    slow: bool


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "gradcam",
            "Grad-CAM",
            "Regions whose features in the last convolution speak for the class: coarse, and the easiest to read.",
            "Selvaraju et al. 2017, arXiv 1610.02391, section 3",
            signed=False,
            slow=False,
        ),
        Method(
            "saliency",
            "Saliency",
            "Pixels whose smallest change would move the answer most, in either direction.",
            "Simonyan, Vedaldi and Zisserman 2014, arXiv 1312.6034, section 3",
            signed=False,
            slow=False,
        ),
        Method(
            "integrated-gradients",
            "Integrated Gradients",
            "What each pixel adds to the answer or takes from it, on the way from a flat grey picture to this photo.",
            "Sundararajan, Taly and Yan 2017, arXiv 1703.01365, section 3",
            signed=True,
            slow=True,
        ),
        Method(
            "occlusion",
            "Occlusion",
            "What the answer loses or gains when a grey patch hides a part of the photo.",
            "Zeiler and Fergus 2014, arXiv 1311.2901, section 4.2",
            signed=True,
            slow=True,
        ),
    )
}


def attribute(
    classifier: Classifier, photo: Image.Image, method: str, target: str, progress: Progress | None = None
) -> np.ndarray:
    """What in `photo` speaks for the class `target`, as the network of `classifier` sees it.

    Args:
        classifier: explained as it is; its model keeps its mode and gets no gradients.
        photo: any size; it goes through the classifier's own transform.
        method: a name in `METHODS`.
        target: one of `classifier.classes`.
        progress: told the share done, 0 to 1, after each forward pass. What it raises ends the work and is raised here.

    Returns:
        float32 (S, S). `saliency`: the largest magnitude among the three colours of the logit's gradient.
        `integrated-gradients`: the sum over the colours; all of it adds up to the logit of the photo less that of a
        flat grey. `gradcam`: the rectified map, stretched to the photo. `occlusion`: how far the logit falls when a
        patch over the pixel turns grey, averaged over the patches that cover it. All zero: nothing was found.

    Raises:
        AttributionError: there is no such method or class, the method cannot explain this network, or the result is not
            finite.
    """
    if method not in METHODS:
        raise AttributionError(f"There is no saliency method {method!r}; choose one of {', '.join(METHODS)}.")
    if target not in classifier.classes:
        raise AttributionError(f"This run knows no class {target!r}; choose one of {', '.join(classifier.classes)}.")
    with classifier.lock:
        x = classifier.prepare([photo])
        forward = _reporting(classifier.logits, _forward_passes(method, x.shape[-1]), progress)
        attribution = _COMPUTE[method](forward, classifier.model, x, classifier.classes.index(target))
    attribution = attribution.detach().float().cpu().numpy()
    if not np.isfinite(attribution).all():
        raise AttributionError("Nothing found: the map holds numbers that are not finite; try another run's weights.")
    return attribution


def _saliency(forward: Forward, model: nn.Module, x: Tensor, target: int) -> Tensor:
    return Saliency(forward).attribute(x.requires_grad_(), target=target)[0].amax(dim=0)


def _integrated_gradients(forward: Forward, model: nn.Module, x: Tensor, target: int) -> Tensor:
    explain = IntegratedGradients(forward)
    path = {"baselines": BASELINE, "n_steps": STEPS, "internal_batch_size": STEPS_AT_ONCE}
    return explain.attribute(x, target=target, **path)[0].sum(dim=0)


def _gradcam(forward: Forward, model: nn.Module, x: Tensor, target: int) -> Tensor:
    maps = LayerGradCam(forward, last_convolution(model.features)).attribute(x, target=target, relu_attributions=True)
    return LayerAttribution.interpolate(maps, x.shape[-2:], interpolate_mode="bilinear")[0, 0]


def _occlusion(forward: Forward, model: nn.Module, x: Tensor, target: int) -> Tensor:
    window, stride = _window(x.shape[-1])
    patches = {"sliding_window_shapes": (x.shape[1], window, window), "strides": (x.shape[1], stride, stride)}
    fall = Occlusion(forward).attribute(
        x, target=target, baselines=BASELINE, perturbations_per_eval=WINDOWS_AT_ONCE, **patches
    )[0, 0]  # a patch hides all three colours at once, so each has the same share
    return fall.where(fall.abs() >= ROUNDING, 0.0)


_COMPUTE: dict[str, Callable[[Forward, nn.Module, Tensor, int], Tensor]] = {
    "gradcam": _gradcam,
    "saliency": _saliency,
    "integrated-gradients": _integrated_gradients,
    "occlusion": _occlusion,
}


def last_convolution(features: nn.Module) -> nn.Module:
    """The ReLU after the last convolution, or that convolution where none follows.

    Grad-CAM weighs activations as the network passes them on; before the ReLU a negative one under a negative weight
    would count as evidence.

    Raises:
        AttributionError: there is no convolution.
    """
    layers = list(features.modules())
    convolutions = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    if not convolutions:
        raise AttributionError("Grad-CAM looks at convolutions, and this network has none; choose another method.")
    last = convolutions[-1]
    return next((layer for layer in layers[last:] if isinstance(layer, nn.ReLU)), layers[last])


def _window(size: int) -> tuple[int, int]:
    """Side and stride in pixels of the occluding square: 32 and 16 at 227 px."""
    window = max(1, size // 7)
    return window, max(1, window // 2)


def _forward_passes(method: str, size: int) -> int:
    """How often `method` calls the network for a photo of `size` px."""
    if method == "integrated-gradients":
        return math.ceil(STEPS / STEPS_AT_ONCE)
    if method == "occlusion":
        window, stride = _window(size)
        across = math.ceil((size - window) / stride) + 1
        return 1 + math.ceil(across**2 / WINDOWS_AT_ONCE)
    return 1


def _reporting(forward: Forward, passes: int, progress: Progress | None) -> Forward:
    """`forward`, which tells `progress` after each call how many of `passes` are done."""
    if progress is None:
        return forward
    done = itertools.count(1)

    def reported(x: Tensor) -> Tensor:
        logits = forward(x)
        progress(min(1.0, next(done) / passes))
        return logits

    return reported


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


def strength(attribution: np.ndarray) -> float:
    """The magnitude that the strongest half per cent of the pixels reach; 0 where nothing was found.

    A single outlying pixel would leave the rest of the map pale. Where fewer pixels than that speak at all, the
    largest magnitude stands in.
    """
    magnitudes = np.abs(attribution)
    return float(np.quantile(magnitudes, 0.995)) or float(magnitudes.max())


def render(
    attribution: np.ndarray, crop: Image.Image, opacity: float, colormap: str, scale: float | None = None
) -> Image.Image:
    """The saliency map over the photo.

    Evidence covers the photo in proportion to the root of its magnitude, so that weak evidence can be seen, and the
    photo fades to grey beneath it, so that its colours are not taken for those of the map.

    Args:
        attribution: float (S, S), as `attribute` returns it.
        crop: what the network was given, S x S px.
        opacity: 0 shows the photo alone; at 1 the strongest evidence hides it.
        colormap: a name in `COLORMAPS`. A diverging one has its middle at zero.
        scale: the magnitude that gets the strongest colour, to compare several maps; by default the `strength` of
            this one.

    Returns:
        RGB, S x S px; the photo itself where nothing was found, since the noise of a zero map means nothing.
    """
    scale = strength(attribution) if scale is None else scale
    photo = crop.convert("RGB")
    if not scale:
        return photo
    share = np.clip(attribution / scale, -1, 1)
    table = COLORMAPS[colormap]
    colours = _colours(table, (share + 1) / 2 if table.diverging else share)
    cover = opacity * np.sqrt(np.abs(share))[..., None]
    beneath = np.asarray(Image.blend(photo, photo.convert("L").convert("RGB"), opacity))
    return Image.fromarray((beneath * (1 - cover) + colours * cover).round().astype(np.uint8))


def _colours(table: Colormap, position: np.ndarray) -> np.ndarray:
    """RGB (S, S, 3), 0 to 255, at `position` (S, S) in `table`, from 0, its first anchor, to 1, its last."""
    anchors = np.array([tuple(bytes.fromhex(anchor[1:])) for anchor in table.anchors])
    at = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(position, at, channel) for channel in anchors.T], axis=-1)
