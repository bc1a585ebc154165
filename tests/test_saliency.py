"""Known answers for each method on networks small enough to work out by hand."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from alexnet import saliency

SIZE = 16
GREY = Image.new("RGB", (SIZE, SIZE), (128, 128, 128))


class Network(nn.Module):
    """`features` and a linear `head`, in the shape that a classifier's model has."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class TinyClassifier:
    """What `saliency` needs of a classifier, around any network; photos become RGB in [-1, 1]."""

    classes = ("cat", "dog")

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)
        self.lock = threading.RLock()

    def prepare(self, photos: list[Image.Image]) -> Tensor:
        arrays = np.stack([np.asarray(photo.resize((SIZE, SIZE)).convert("RGB")) for photo in photos])
        return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1

    def logits(self, x: Tensor) -> Tensor:
        return self.model(x)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))


@pytest.fixture
def linear() -> TinyClassifier:
    torch.manual_seed(0)
    return TinyClassifier(Network(nn.Identity(), nn.Linear(3 * SIZE * SIZE, 2)))


@pytest.fixture
def convolutional() -> TinyClassifier:
    torch.manual_seed(1)
    features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3), nn.ReLU())
    return TinyClassifier(Network(features, nn.Linear(2 * 6 * 6, 2)))


def weights_of(classifier: TinyClassifier, target: int) -> np.ndarray:
    """(3, S, S): the weights with which a linear network sees each pixel."""
    return classifier.model.head.weight[target].detach().numpy().reshape(3, SIZE, SIZE)


@pytest.mark.parametrize("target", [0, 1])
def test_the_saliency_of_a_linear_network_is_its_largest_weight_per_pixel(linear, target):
    attribution = saliency.attribute(linear, noise(0), "saliency", linear.classes[target])
    np.testing.assert_allclose(attribution, np.abs(weights_of(linear, target)).max(axis=0), rtol=1e-6)


def test_saliency_agrees_with_autograd(convolutional):
    x = convolutional.prepare([noise(1)]).requires_grad_()
    (gradient,) = torch.autograd.grad(convolutional.logits(x)[0, 1], x)
    attribution = saliency.attribute(convolutional, noise(1), "saliency", "dog")
    np.testing.assert_allclose(attribution, gradient[0].abs().amax(dim=0).numpy(), rtol=1e-6)


def test_integrated_gradients_of_a_linear_network_are_weight_times_input(linear):
    x = linear.prepare([noise(2)])[0].numpy()
    attribution = saliency.attribute(linear, noise(2), "integrated-gradients", "cat")
    np.testing.assert_allclose(attribution, (weights_of(linear, 0) * x).sum(axis=0), atol=1e-6)


def test_integrated_gradients_are_complete(convolutional):
    """Completeness (Sundararajan et al. 2017, proposition 1): they sum to f(photo) - f(baseline)."""
    x = convolutional.prepare([noise(3)])
    with torch.no_grad():
        difference = (convolutional.logits(x) - convolutional.logits(torch.zeros_like(x)))[0, 0].item()
    attribution = saliency.attribute(convolutional, noise(3), "integrated-gradients", "cat")
    assert attribution.sum() == pytest.approx(difference, abs=0.02 * abs(difference) + 1e-3)
    assert attribution.min() < 0 < attribution.max()


def test_occlusion_of_a_linear_network_by_hand(linear):
    """Hiding a window takes its weights times its pixels from the logit; each pixel gets the mean of its windows."""
    contribution = (weights_of(linear, 1) * linear.prepare([noise(4)])[0].numpy()).sum(axis=0)
    total, count = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    for top in range(SIZE - 1):  # windows of 2 x 2 px, one apart
        for left in range(SIZE - 1):
            window = np.s_[top : top + 2, left : left + 2]
            total[window] += contribution[window].sum()
            count[window] += 1
    attribution = saliency.attribute(linear, noise(4), "occlusion", "dog")
    np.testing.assert_allclose(attribution, total / count, atol=saliency.ROUNDING)


def test_gradcam_of_two_channels_by_hand():
    """Channel 0 copies red and counts for the cat, channel 1 copies blue and counts against it."""
    conv = nn.Conv2d(3, 2, 1, bias=False)
    head = nn.Linear(2 * SIZE * SIZE, 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]).reshape(2, 3, 1, 1))
        head.weight[0].copy_(torch.cat([torch.full((SIZE * SIZE,), 0.5), torch.full((SIZE * SIZE,), -0.25)]))
        head.weight[1].zero_()
    classifier = TinyClassifier(Network(nn.Sequential(conv, nn.ReLU()), head))
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[:8, :, 0], pixels[:, :8, 2] = 255, 255  # red above, blue on the left; 0 is -1 after `prepare`
    red, blue = (np.maximum(pixels[..., c] / 127.5 - 1, 0) for c in (0, 2))
    attribution = saliency.attribute(classifier, Image.fromarray(pixels), "gradcam", "cat")
    np.testing.assert_allclose(attribution, np.maximum(0.5 * red - 0.25 * blue, 0), atol=1e-6)
    assert not saliency.attribute(classifier, Image.fromarray(pixels), "gradcam", "dog").any()


@pytest.mark.parametrize("norm_place", ["after_relu", "before_relu"])
def test_gradcam_looks_at_the_last_rectified_convolution(norm_place):
    from alexnet.model import AlexNet

    features = AlexNet(2, norm_place=norm_place).features
    assert saliency.last_convolution(features) is features.relu5
    assert saliency.last_convolution(features[:1]) is features.conv1


@pytest.mark.parametrize("method", saliency.METHODS)
def test_every_method_returns_float32_of_the_input_size_and_leaves_no_trace(convolutional, method):
    model = convolutional.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attribution = saliency.attribute(convolutional, noise(5), method, "dog")
    assert attribution.shape == (SIZE, SIZE) and attribution.dtype == np.float32
    assert attribution.any() and (saliency.METHODS[method].signed or attribution.min() >= 0)
    assert not model.training
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert all(not m._forward_hooks and not m._backward_hooks for m in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", saliency.METHODS)
def test_a_constant_network_gives_an_all_zero_map(method):
    features = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU())
    head = nn.Linear(2 * SIZE * SIZE, 2)
    nn.init.zeros_(head.weight)
    classifier = TinyClassifier(Network(features, head))
    assert not saliency.attribute(classifier, noise(6), method, "cat").any()


def test_two_threads_get_what_one_would(convolutional):
    """One waits inside its forward pass, where Captum's hooks are in place, for as long as the other would need."""
    jobs = [(method, target) for method in saliency.METHODS for target in ("cat", "dog")]

    def work(job: tuple[str, str], wait: threading.Barrier | None = None) -> np.ndarray:
        def meet(_: float) -> None:
            if wait is not None:
                with contextlib.suppress(threading.BrokenBarrierError):
                    wait.wait(timeout=0.05)  # under the lock nobody comes

        return saliency.attribute(convolutional, noise(6), *job, meet)

    for job in jobs:
        pair = (("gradcam", "cat"), job)  # Grad-CAM hooks the model itself
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(work, pair, [threading.Barrier(2)] * 2))
        for one, attribution in zip(pair, together, strict=True):
            np.testing.assert_allclose(attribution, work(one), atol=1e-6)


def test_the_lock_is_held_during_every_forward_pass(convolutional):
    free = []

    def try_lock(_: float) -> None:
        with ThreadPoolExecutor(1) as pool:
            free.append(pool.submit(convolutional.lock.acquire, blocking=False).result())

    for method in saliency.METHODS:
        saliency.attribute(convolutional, noise(7), method, "cat", try_lock)
    assert free and not any(free)


@pytest.mark.parametrize("method", saliency.METHODS)
def test_progress_rises_to_one(linear, convolutional, method):
    shares: list[float] = []
    saliency.attribute(convolutional, noise(8), method, "cat", shares.append)
    assert shares[-1] == 1.0
    assert shares == pytest.approx([(i + 1) / len(shares) for i in range(len(shares))])
    assert len(shares) > 5 or not saliency.METHODS[method].slow


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("method", saliency.METHODS)
def test_raising_in_progress_cancels_and_leaves_the_classifier_usable(convolutional, method):
    calls = []

    def cancel(share: float) -> None:
        calls.append(share)
        raise Cancelled

    with pytest.raises(Cancelled):
        saliency.attribute(convolutional, noise(9), method, "cat", cancel)
    assert len(calls) == 1
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in convolutional.model.modules())
    assert saliency.attribute(convolutional, noise(9), method, "cat").any()


def test_errors_are_one_sentence(linear):
    with pytest.raises(saliency.AttributionError, match="no saliency method 'guess'; choose one of gradcam"):
        saliency.attribute(linear, GREY, "guess", "cat")
    with pytest.raises(saliency.AttributionError, match="no class 'cow'; choose one of cat, dog"):
        saliency.attribute(linear, GREY, "saliency", "cow")
    nn.init.constant_(linear.model.head.weight, float("nan"))
    with pytest.raises(saliency.AttributionError, match="not finite"):
        saliency.attribute(linear, GREY, "saliency", "cat")


def test_a_network_without_convolutions_has_no_gradcam(linear):
    with pytest.raises(saliency.AttributionError, match="^Grad-CAM looks at convolutions, and this network has none;"):
        saliency.attribute(linear, noise(1), "gradcam", "cat")


def test_strength_is_robust_to_one_outlier_and_zero_for_nothing():
    attribution = np.ones((100, 100), np.float32)
    attribution[0, 0] = -1000
    assert saliency.strength(attribution) == 1
    assert saliency.strength(np.zeros((100, 100), np.float32)) == 0
    sparse = np.zeros((100, 100), np.float32)
    sparse[3, 4] = -2
    assert saliency.strength(sparse) == 2


def test_render_covers_the_photo_by_opacity_and_magnitude():
    attribution = np.zeros((SIZE, SIZE), np.float32)
    attribution[0, :3] = 1, -1, 0.25
    table = saliency.COLORMAPS["blue-red"].anchors
    whole = saliency.render(attribution, GREY, 1, "blue-red", scale=1)
    assert whole.size == (SIZE, SIZE) and whole.mode == "RGB"
    assert whole.getpixel((0, 0)) == rgb(table[-1])  # strongest for
    assert whole.getpixel((1, 0)) == rgb(table[0])  # strongest against
    assert whole.getpixel((5, 5)) == (128, 128, 128)  # no evidence
    assert whole.getpixel((2, 0)) == tuple(round((128 + c) / 2) for c in rgb(table[5]))  # covers by the root of 1/4
    half = saliency.render(attribution, GREY, 0.5, "blue-red", scale=1).getpixel((0, 0))
    assert half == tuple(round((128 + c) / 2) for c in rgb(table[-1]))


def test_the_photo_fades_to_grey_under_the_map():
    red = Image.new("RGB", (SIZE, SIZE), (200, 0, 0))
    attribution = np.zeros((SIZE, SIZE), np.float32)
    attribution[0, 0] = 1
    assert saliency.render(attribution, red, 0, "viridis").tobytes() == red.tobytes()
    assert saliency.render(attribution, red, 1, "viridis").getpixel((5, 5)) == (60, 60, 60)  # 0.299 * 200


def test_render_takes_a_shared_scale_and_clips_to_it():
    attribution = np.full((SIZE, SIZE), 0.25, np.float32)
    anchors = saliency.COLORMAPS["viridis"].anchors
    weak = tuple(round((128 + c) / 2) for c in rgb(anchors[2]))
    assert saliency.render(attribution, GREY, 1, "viridis", scale=1).getpixel((0, 0)) == weak
    assert saliency.render(attribution, GREY, 1, "viridis", scale=0.1).getpixel((0, 0)) == rgb(anchors[-1])
    assert saliency.render(attribution, GREY, 1, "viridis").getpixel((0, 0)) == rgb(anchors[-1])


def test_render_of_nothing_is_the_photo_and_no_noise():
    zero = np.zeros((SIZE, SIZE), np.float32)
    for colormap in saliency.COLORMAPS:
        assert saliency.render(zero, GREY, 0.8, colormap).tobytes() == GREY.tobytes()


def rgb(anchor: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(anchor[1:]))
