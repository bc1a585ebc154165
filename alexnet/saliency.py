"""Attributions: which parts of a photo speak for a class, by Captum. `maps` draws them.

The sole importer of captum. An attribution is a float32 array (S, S) in the pixels of what the network was given. It
explains the class's logit, before the softmax: that of the answer, which averages a photo and its mirror image where
the classifier does; of the slow methods that of the photo alone. Captum's hooks sit on the model itself, and hooks of two threads at
once corrupt each other's results without an error; so every attribution holds the classifier's lock.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from captum.attr import (
    DeepLift,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    LayerGradientXActivation,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from PIL import Image
from torch import Tensor, nn

from alexnet.errors import LabError
from alexnet.predict import averaged_logits, class_logits

if TYPE_CHECKING:
    from alexnet.predict import Classifier

Progress = Callable[[float], None]

BASELINE = 0.0  # in normalised space: the mean colour of photos, a flat grey
STEPS = 50  # points on the path of Integrated Gradients; the paper finds 20 to 300 enough
STEPS_AT_ONCE = 25  # half of them: a fifth faster than five at a time, and still stopped within a second or two
SAMPLES = 50  # noisy copies for SmoothGrad; the paper sees little gain beyond
SAMPLES_AT_ONCE = 5
NOISE = 0.15  # of the photo's range; the paper finds 10 to 20 % best
WINDOWS_AT_ONCE = 8
ROUNDING = 1e-4  # a logit that moves by less when a patch is hidden has moved by the rounding of float32

# Captum says at each call that it sets hooks and will remove them.
warnings.filterwarnings("ignore", r"Setting (forward, )?backward hooks", module=r"captum\.")


class AttributionError(LabError, ValueError):
    """An attribution that cannot be made; its text is one sentence."""


@dataclass(frozen=True)
class Method:
    """A way to attribute a logit to pixels.

    `sentence` says what a person sees in the map, `warning` why it may mislead. A `signed` attribution is positive
    where the photo speaks for the class and negative where it speaks against it; the others are 0 or more. A `complete`
    one adds up to the logit of the photo less that of a flat grey. A `layered` one looks at a convolution that can be
    chosen. A `slow` one takes seconds on a CPU. A `one_view` one explains the photo without its mirror image, even where
    the answer is the mean of both: twice its passes would take too long.
    """

    name: str
    title: str
    sentence: str
    paper: str
    cost: str
    signed: bool = False
    complete: bool = False
    layered: bool = False
    slow: bool = False
    one_view: bool = False
    warning: str = ""


ONE_PASS = "one forward and one backward pass a view"
FAILS_RANDOMISATION = (
    "Shows the edges of the photo more than what the network learned: with random weights the map hardly changes "
    "(Adebayo et al. 2018, arXiv 1810.03292)."
)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "hirescam",
            "HiResCAM",
            "Regions whose features in a convolution, by default the last, speak for the class, each place weighed by itself.",
            "Draelos and Carin 2020, arXiv 2011.08891",
            ONE_PASS,
            layered=True,
        ),
        Method(
            "gradcam",
            "Grad-CAM",
            "Regions whose features in a convolution, by default the last, speak for the class, a feature weighed alike everywhere.",
            "Selvaraju et al. 2017, arXiv 1610.02391, section 3",
            ONE_PASS,
            layered=True,
        ),
        Method(
            "saliency",
            "Saliency",
            "Pixels whose smallest change would move the answer most, in either direction.",
            "Simonyan, Vedaldi and Zisserman 2014, arXiv 1312.6034, section 3",
            ONE_PASS,
        ),
        Method(
            "smoothgrad",
            "SmoothGrad",
            "Saliency averaged over noisy copies of the photo, which leaves what does not hang on single pixels.",
            "Smilkov et al. 2017, arXiv 1706.03825, section 2.2",
            f"{SAMPLES} forward and backward passes",
            slow=True,
            one_view=True,
        ),
        Method(
            "input-x-gradient",
            "Input x Gradient",
            "What each pixel would add to the answer or take from it if the network were as linear as it is at this photo.",
            "Shrikumar et al. 2016, arXiv 1605.01713; Ancona et al. 2018, arXiv 1711.06104, section 2.2",
            ONE_PASS,
            signed=True,
        ),
        Method(
            "integrated-gradients",
            "Integrated Gradients",
            "What each pixel adds to the answer or takes from it, on the way from a flat grey picture to this photo.",
            "Sundararajan, Taly and Yan 2017, arXiv 1703.01365, section 3",
            f"{STEPS} forward and backward passes",
            signed=True,
            complete=True,
            slow=True,
            one_view=True,
        ),
        Method(
            "deeplift",
            "DeepLIFT",
            "What each pixel adds to the answer or takes from it, by how far each unit is from its value on a flat grey picture.",
            "Shrikumar, Greenside and Kundaje 2017, arXiv 1704.02685, section 3.5.2, the rescale rule",
            "one forward and one backward pass of photo and grey picture together a view",
            signed=True,
            complete=True,
        ),
        Method(
            "guided-backprop",
            "Guided Backprop",
            "Pixels that excite units which excite the class; what holds a unit back is left out on the way.",
            "Springenberg et al. 2015, arXiv 1412.6806, section 3.4",
            ONE_PASS,
            warning=FAILS_RANDOMISATION,
        ),
        Method(
            "guided-gradcam",
            "Guided Grad-CAM",
            "Guided Backprop where Grad-CAM finds evidence: fine detail within the coarse regions.",
            "Selvaraju et al. 2017, arXiv 1610.02391, section 3.2",
            "two forward and two backward passes",
            layered=True,
            one_view=True,
            warning=FAILS_RANDOMISATION,
        ),
        Method(
            "occlusion",
            "Occlusion",
            "What the answer loses or gains when a grey patch hides a part of the photo.",
            "Zeiler and Fergus 2014, arXiv 1311.2901, section 4.2",
            "one forward pass for each place of the patch, about 200",
            signed=True,
            slow=True,
            one_view=True,
        ),
    )
}


def attribute(
    classifier: Classifier,
    photo: Image.Image,
    method: str,
    target: str,
    progress: Progress | None = None,
    layer: str | None = None,
) -> np.ndarray:
    """What in `photo` speaks for the class `target`, as the network of `classifier` sees it.

    Args:
        classifier: explained as it is; its model keeps its mode and gets no gradients.
        photo: any size; it goes through the classifier's own transform.
        method: a name in `METHODS`.
        target: one of `classifier.classes`.
        progress: told the share done, 0 to 1, after each forward pass. What it raises ends the work and is raised here.
        layer: for a `layered` method, one of `convolutions(classifier.model)`; the last by default.

    Returns:
        float32 (S, S), the same for the same photo.
        `saliency`: the largest magnitude among the three colours of the logit's gradient; `smoothgrad`: that of the
        mean gradient; `guided-backprop`: that of the gradient which is cut where it is negative at a ReLU.
        `input-x-gradient`, `integrated-gradients`, `deeplift`: the sum over the colours.
        `gradcam`, `hirescam`: the rectified map, stretched to the photo; `guided-gradcam`: the first times
        `guided-backprop`.
        `occlusion`: how far the logit falls when a patch over the pixel turns grey, averaged over the patches that
        cover it.
        All zero: nothing was found, or no more than the rounding of the logit.

    Raises:
        AttributionError: there is no such method, class or layer, the network does not support the method, or the
            result is not finite.
    """
    if method not in METHODS:
        raise AttributionError(f"There is no saliency method {method!r}; choose one of {', '.join(METHODS)}.")
    if target not in classifier.classes:
        raise AttributionError(f"This run knows no class {target!r}; choose one of {', '.join(classifier.classes)}.")
    if reason := unsupported(classifier.model, method):
        raise AttributionError(reason)
    place = _place(classifier.model, METHODS[method], layer)
    index, mirror = classifier.classes.index(target), _explains_mirror(classifier, method)
    with classifier.lock:
        x = classifier.prepare([photo])
        passes = _forward_passes(method, x.shape[-1]) * (2 if mirror else 1)
        network = _Network(classifier.model, passes, progress)
        attribution = _COMPUTE[method](network, x.requires_grad_(), index, place)
        if mirror:
            mirrored = x.detach().flip(3).requires_grad_()
            attribution = (attribution + _COMPUTE[method](network, mirrored, index, place).flip(1)) / 2
    numbers = _finite(attribution)
    return np.zeros_like(numbers) if _is_rounding(numbers, method) else numbers


def _explains_mirror(classifier: Classifier, method: str) -> bool:
    """Whether the attribution is the mean over a photo and its mirror image."""
    return classifier.mirror and not METHODS[method].one_view


def signed_gradcam(classifier: Classifier, x: Tensor, targets: Sequence[int]) -> np.ndarray:
    """Grad-CAM of several photos at once, neither rectified nor stretched: where features speak for a class or against it.

    Negative numbers are what the counterfactual explanations of Selvaraju et al. 2017 (arXiv 1610.02391, section 3.3) show;
    without them, and stretched by `maps.stretch`, it is what `attribute` returns of a classifier that sees no mirror image.

    Args:
        classifier: as for `attribute`; its network has a convolution.
        x: prepared photos, `(N, 3, S, S)` float32.
        targets: the class of each, by its index.

    Returns:
        float32 (N, h, w), in the places of the last convolution.

    Raises:
        AttributionError: the result is not finite.
    """
    place = list(convolutions(classifier.model).values())[-1]
    with classifier.lock:
        network = _Network(classifier.model, 1, None)
        maps = LayerGradCam(network, place).attribute(x.clone().requires_grad_(), target=list(targets))[:, 0]
    return _finite(maps)


def _finite(attribution: Tensor) -> np.ndarray:
    """An attribution as float32.

    Raises:
        AttributionError: it holds numbers that are not finite.
    """
    array = attribution.detach().float().cpu().numpy()
    if not np.isfinite(array).all():
        raise AttributionError("Nothing found: the map holds numbers that are not finite; try another run's weights.")
    return array


def _is_rounding(attribution: np.ndarray, method: str) -> bool:
    """Whether all of it together moves the logit by no more than rounding does."""
    logits = np.abs(attribution)
    if method == "guided-gradcam":
        logits = np.sqrt(logits)  # of a product of two maps
    return logits.sum() < ROUNDING


def unsupported(model: nn.Module, method: str) -> str | None:
    """Why `method` has nothing true to say about `model`, in a sentence; None where it has."""
    title = METHODS[method].title
    if METHODS[method].layered and not convolutions(model):
        return f"{title} needs a convolution, and this network has none; choose another method."
    if "guided" in method and not any(isinstance(module, nn.ReLU) for module in model.modules()):
        return f"{title} cuts gradients at ReLUs, and this network has none; choose Saliency, which it would equal."
    if method == "deeplift":
        inexact = [type(module).__name__ for module in model.modules() if not _deeplift_is_exact(module)]
        if inexact:
            return f"{title} has no rule for {inexact[0]}, so its map would not add up; choose Integrated Gradients."
    return None


def convolutions(model: nn.Module) -> dict[str, nn.Module]:
    """Where a `layered` method can look, by the convolutions' names, first to last: the ReLU of each, or itself without one.

    These methods weigh activations as the network passes them on; before the ReLU a negative one under a negative
    weight would count as evidence.
    """
    places: dict[str, nn.Module] = {}
    name = ""
    for path, module in model.get_submodule("features").named_modules():
        if isinstance(module, nn.Conv2d):
            name = path.rpartition(".")[2]
            places[name] = module
        elif isinstance(module, nn.ReLU) and isinstance(places.get(name), nn.Conv2d):
            places[name] = module
    return places


def _place(model: nn.Module, method: Method, layer: str | None) -> nn.Module | None:
    """The module that a `layered` method looks at; None for the others."""
    if not method.layered:
        if layer is not None:
            raise AttributionError(f"{method.title} looks at no single layer; leave the layer out.")
        return None
    places = convolutions(model)
    if layer is None:
        return list(places.values())[-1]
    if layer not in places:
        raise AttributionError(f"This network has no convolution {layer!r}; choose one of {', '.join(places)}.")
    return places[layer]


@dataclass(frozen=True)
class Completeness:
    """What a `complete` attribution adds up to, and what it should: both in logits."""

    total: float
    difference: float  # the logit of the photo less that of a flat grey

    @property
    def error(self) -> float:
        """By how many logits the attribution misses its mark."""
        return self.total - self.difference

    @property
    def relative(self) -> float:
        """The magnitude of the error as a share of the difference; infinite where that is zero and the error is not."""
        if self.difference:
            return abs(self.error / self.difference)
        return math.inf if self.error else 0.0


def completeness(
    classifier: Classifier, photo: Image.Image, method: str, target: str, attribution: np.ndarray
) -> Completeness:
    """How well the attribution by a `complete` method adds up (Sundararajan et al. 2017, proposition 1)."""
    with classifier.lock, torch.inference_mode():
        x = classifier.prepare([photo])
        pair, mirror = torch.cat([x, torch.full_like(x, BASELINE)]), _explains_mirror(classifier, method)
        logits = averaged_logits(classifier.model, [pair], mirror)
    of_photo, of_grey = logits[:, classifier.classes.index(target)].tolist()
    return Completeness(float(attribution.sum(dtype=np.float64)), of_photo - of_grey)


class _Network(nn.Module):
    """A network as Captum needs it: a module with a logit for each class. After each pass it reports the share done."""

    def __init__(self, model: nn.Module, passes: int, progress: Progress | None) -> None:
        super().__init__()
        self.model, self.passes, self.progress = model, passes, progress
        self.done = 0

    def forward(self, x: Tensor) -> Tensor:
        logits = class_logits(self.model(x))
        self.done += 1
        if self.progress is not None:
            self.progress(min(1.0, self.done / self.passes))
        return logits


def _saliency(network: _Network, x: Tensor, target: int, place: nn.Module | None) -> Tensor:
    return Saliency(network).attribute(x, target=target)[0].amax(dim=0)


def _smoothgrad(network: _Network, x: Tensor, target: int, place: nn.Module | None) -> Tensor:
    samples = {"nt_samples": SAMPLES, "nt_samples_batch_size": SAMPLES_AT_ONCE}
    spread = NOISE * (x.max() - x.min()).item()
    tunnel = _SeededNoise(Saliency(network))
    return tunnel.attribute(x, stdevs=spread, target=target, abs=False, **samples)[0].abs().amax(dim=0)


class _SeededNoise(NoiseTunnel):  # type: ignore[misc]  # Captum is untyped
    """A noise tunnel that is the same each time; Captum's own draws from the generator that all threads share."""

    def __init__(self, method: Saliency) -> None:
        super().__init__(method)
        self.generator = torch.Generator().manual_seed(0)

    def _add_noise_to_input(self, x: Tensor, spread: float, copies: int) -> Tensor:
        noise = torch.randn((copies, *x.shape[1:]), generator=self.generator)
        return x + spread * noise.to(x.device)


def _input_x_gradient(network: _Network, x: Tensor, target: int, place: nn.Module | None) -> Tensor:
    return InputXGradient(network).attribute(x, target=target)[0].sum(dim=0)


def _integrated_gradients(network: _Network, x: Tensor, target: int, place: nn.Module | None) -> Tensor:
    path = {"baselines": BASELINE, "n_steps": STEPS, "internal_batch_size": STEPS_AT_ONCE}
    return IntegratedGradients(network).attribute(x, target=target, **path)[0].sum(dim=0)


def _deeplift(network: _Network, x: Tensor, target: int, place: nn.Module | None) -> Tensor:
    model, network.model = network.model, _with_windows_apart(network.model)
    found = DeepLift(network).attribute(x, target=target, baselines=BASELINE)[0].sum(dim=0)
    network.model = model
    return found


def _guided_backprop(network: _Network, x: Tensor, target: int, place: nn.Module | None) -> Tensor:
    return GuidedBackprop(network).attribute(x, target=target)[0].abs().amax(dim=0)


def _hirescam(network: _Network, x: Tensor, target: int, place: nn.Module | None) -> Tensor:
    maps = LayerGradientXActivation(network, place).attribute(x, target=target).sum(dim=1, keepdim=True).relu()
    return LayerAttribution.interpolate(maps, x.shape[-2:], interpolate_mode="bilinear")[0, 0]


def _gradcam(network: _Network, x: Tensor, target: int, place: nn.Module | None) -> Tensor:
    maps = LayerGradCam(network, place).attribute(x, target=target, relu_attributions=True)
    return LayerAttribution.interpolate(maps, x.shape[-2:], interpolate_mode="bilinear")[0, 0]


def _guided_gradcam(network: _Network, x: Tensor, target: int, place: nn.Module | None) -> Tensor:
    guided = GuidedGradCam(network, place).attribute(x, target=target, interpolate_mode="bilinear")
    return guided[0].abs().amax(dim=0)


def _occlusion(network: _Network, x: Tensor, target: int, place: nn.Module | None) -> Tensor:
    window, stride = _window(x.shape[-1])
    patches = {"sliding_window_shapes": (x.shape[1], window, window), "strides": (x.shape[1], stride, stride)}
    fall = Occlusion(network).attribute(
        x, target=target, baselines=BASELINE, perturbations_per_eval=WINDOWS_AT_ONCE, **patches
    )[0, 0]  # a patch hides all three colours at once, so each has the same share
    return fall.where(fall.abs() >= ROUNDING, 0.0)


_COMPUTE: dict[str, Callable[[_Network, Tensor, int, nn.Module | None], Tensor]] = {
    "hirescam": _hirescam,
    "gradcam": _gradcam,
    "saliency": _saliency,
    "smoothgrad": _smoothgrad,
    "input-x-gradient": _input_x_gradient,
    "integrated-gradients": _integrated_gradients,
    "deeplift": _deeplift,
    "guided-backprop": _guided_backprop,
    "guided-gradcam": _guided_gradcam,
    "occlusion": _occlusion,
}


def _deeplift_is_exact(module: nn.Module) -> bool:
    """Whether the rescale rule, as Captum has it, adds up over this module: in evaluation linear, bent unit by unit, or a maximum."""
    if isinstance(module, nn.MaxPool2d):
        return (module.padding, module.dilation, module.ceil_mode) == (0, 1, False)
    linear = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Flatten, nn.Identity)
    return any(module.children()) or isinstance(module, (nn.ReLU, nn.Sigmoid, nn.Tanh, nn.Sequential, *linear))


def _with_windows_apart(model: nn.Module) -> nn.Module:
    """A copy of `model`, with its weights and answers, in which no two windows of a max-pooling overlap.

    Captum's rule for max-pooling keeps one window's share of a pixel that is the maximum of several, so that the
    attributions do not add up. Here each window first gets a copy of its pixels, which is linear and thus exact.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    for parent in list(twin.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d):
                apart = _WindowsApart(child.kernel_size, child.stride)
                setattr(parent, name, nn.Sequential(apart, nn.MaxPool2d(child.kernel_size)))
    return twin


class _WindowsApart(nn.Module):
    """Lays the windows of a pooling side by side: (N, C, H, W) to (N, C, rows * size, columns * size)."""

    def __init__(self, size: Any, stride: Any) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unfold(2, self.size, self.stride).unfold(3, self.size, self.stride)
        return windows.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _window(size: int) -> tuple[int, int]:
    """Side and stride in pixels of the occluding square: 32 and 16 at 227 px."""
    window = max(1, size // 7)
    return window, max(1, window // 2)


def _forward_passes(method: str, size: int) -> int:
    """How often `method` calls the network for a photo of `size` px."""
    if method == "integrated-gradients":
        return math.ceil(STEPS / STEPS_AT_ONCE)
    if method == "smoothgrad":
        return math.ceil(SAMPLES / SAMPLES_AT_ONCE)
    if method == "occlusion":
        window, stride = _window(size)
        across = math.ceil((size - window) / stride) + 1
        return 1 + math.ceil(across**2 / WINDOWS_AT_ONCE)
    return 2 if method == "guided-gradcam" else 1
