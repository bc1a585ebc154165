"""Known answers for each method on networks small enough to work out by hand."""

from __future__ import annotations

import contextlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from alexnet import maps, saliency
from alexnet.model import AlexNet

# Captum says so at each call; pytest undoes the filter that saliency sets.
pytestmark = pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks")

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
    mirror = False

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)
        self.lock = threading.RLock()

    def prepare(self, photos: list[Image.Image]) -> Tensor:
        arrays = np.stack([np.asarray(photo.resize((SIZE, SIZE)).convert("RGB")) for photo in photos])
        return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1

    def logits(self, x: Tensor) -> Tensor:
        return self.model(x)


class AlexNetClassifier(TinyClassifier):
    """AlexNet on the smallest photos that it takes, with weights under which the photo reaches the logits."""

    def __init__(self, **settings: object) -> None:
        torch.manual_seed(3)
        super().__init__(AlexNet(2, **settings))
        for module in self.model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(6**0.5)  # from PyTorch's spread to that of He et al. 2015
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)

    def prepare(self, photos: list[Image.Image]) -> Tensor:
        return nn.functional.interpolate(super().prepare(photos), (67, 67))


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
def test_gradcam_can_look_at_each_rectified_convolution(norm_place):
    with torch.device("meta"):
        model = AlexNet(2, norm_place=norm_place)
    places = saliency.convolutions(model)
    assert places == {f"conv{n}": getattr(model.features, f"relu{n}") for n in range(1, 6)}
    model.features = model.features[:1]
    assert saliency.convolutions(model) == {"conv1": model.features.conv1}


@pytest.mark.parametrize("layer", ["0", "3"])
@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_gradcam_and_hirescam_of_each_layer_agree_with_autograd(convolutional, layer, method):
    """Each map weighed by its gradient, or the mean of that, and the sum of them rectified and stretched."""
    features, rest = convolutional.model.features[: int(layer) + 2], convolutional.model.features[int(layer) + 2 :]
    maps = features(convolutional.prepare([noise(1)])).requires_grad_()
    (gradient,) = torch.autograd.grad(convolutional.model.head(rest(maps).flatten(1))[0, 1], maps)
    weight = gradient.mean(dim=(2, 3), keepdim=True) if method == "gradcam" else gradient
    cam = (weight * maps).sum(dim=1, keepdim=True).relu()
    expected = nn.functional.interpolate(cam, (SIZE, SIZE), mode="bilinear")[0, 0].detach().numpy()
    found = saliency.attribute(convolutional, noise(1), method, "dog", layer=layer)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.any()


def test_signed_gradcam_of_several_photos_is_that_of_each_before_it_is_rectified(convolutional):
    photos, targets = [noise(1), noise(2), noise(3)], [0, 1, 1]
    found = saliency.signed_gradcam(convolutional, convolutional.prepare(photos), targets)
    assert found.dtype == np.float32 and found.min() < 0 < found.max()
    for photo, target, coarse in zip(photos, targets, found, strict=True):
        rectified = torch.from_numpy(coarse).relu()[None, None]
        stretched = nn.functional.interpolate(rectified, (SIZE, SIZE), mode="bilinear")[0, 0].numpy()
        expected = saliency.attribute(convolutional, photo, "gradcam", convolutional.classes[target])
        np.testing.assert_allclose(stretched, expected, atol=1e-6)
        np.testing.assert_allclose(maps.stretch(np.maximum(coarse, 0), SIZE), expected, atol=1e-6)


def test_hirescam_tells_apart_places_that_gradcam_weighs_alike():
    """A feature that counts above and not below: the mean of its weights would mark both."""
    conv, head = nn.Conv2d(3, 1, 1, bias=False), nn.Linear(SIZE * SIZE, 2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1))  # copies red
        head.weight.zero_()
        head.weight[0, : SIZE * SIZE // 2] = 0.5
    classifier, red = (
        TinyClassifier(Network(nn.Sequential(conv, nn.ReLU()), head)),
        Image.new("RGB", (SIZE, SIZE), "red"),
    )
    above = np.zeros((SIZE, SIZE))
    above[: SIZE // 2] = 0.5
    np.testing.assert_allclose(saliency.attribute(classifier, red, "hirescam", "cat"), above)
    np.testing.assert_allclose(saliency.attribute(classifier, red, "gradcam", "cat"), 0.25)


def test_without_a_choice_gradcam_looks_at_the_last_layer(convolutional):
    first, last, default = (
        saliency.attribute(convolutional, noise(2), "gradcam", "cat", layer=layer) for layer in ("0", "3", None)
    )
    np.testing.assert_array_equal(default, last)
    assert not np.allclose(first, last)


def noise_of_smoothgrad(x: Tensor) -> Tensor:
    """(SAMPLES, 3, S, S), as the method draws it: some at once, from a generator of its own."""
    generator, at_once = torch.Generator().manual_seed(0), saliency.SAMPLES_AT_ONCE
    draws = [torch.randn((at_once, *x.shape[1:]), generator=generator) for _ in range(saliency.SAMPLES // at_once)]
    return torch.cat(draws) * 0.15 * (x.max() - x.min())


def test_smoothgrad_is_the_mean_gradient_at_the_same_noise(convolutional):
    x = convolutional.prepare([noise(1)])
    noisy = (x + noise_of_smoothgrad(x)).requires_grad_()
    (gradients,) = torch.autograd.grad(convolutional.logits(noisy)[:, 1].sum(), noisy)
    found = saliency.attribute(convolutional, noise(1), "smoothgrad", "dog")
    np.testing.assert_allclose(found, gradients.mean(dim=0).abs().amax(dim=0).numpy(), rtol=1e-5, atol=1e-7)


def test_smoothgrad_is_the_same_each_time_and_draws_nothing_from_the_shared_generator(convolutional):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = saliency.attribute(convolutional, noise(1), "smoothgrad", "dog")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.testing.assert_array_equal(saliency.attribute(convolutional, noise(1), "smoothgrad", "dog"), first)


def test_input_x_gradient_agrees_with_autograd(convolutional):
    x = convolutional.prepare([noise(1)]).requires_grad_()
    (gradient,) = torch.autograd.grad(convolutional.logits(x)[0, 0], x)
    found = saliency.attribute(convolutional, noise(1), "input-x-gradient", "cat")
    np.testing.assert_allclose(found, (x * gradient)[0].sum(dim=0).detach().numpy(), atol=1e-6)


def test_guided_backprop_through_two_relus_by_hand():
    """Only evidence that adds up all the way counts: blue holds a unit back, the other unit speaks against the cat."""
    first, second = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 2, 1, bias=False)
    head = nn.Linear(2 * SIZE * SIZE, 2, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]).reshape(2, 3, 1, 1))  # red, blue
        second.weight.copy_(torch.tensor([[1.0, -1.0], [1.0, 1.0]]).reshape(2, 2, 1, 1))  # red - blue, red + blue
        head.weight[0].copy_(torch.cat([torch.full((SIZE * SIZE,), 0.5), torch.full((SIZE * SIZE,), -0.25)]))
        head.weight[1].zero_()
    classifier = TinyClassifier(Network(nn.Sequential(first, nn.ReLU(), second, nn.ReLU()), head))
    red, _, blue = classifier.prepare([noise(1)])[0].numpy()
    expected = 0.5 * ((red > 0) & (red > blue))
    np.testing.assert_allclose(saliency.attribute(classifier, noise(1), "guided-backprop", "cat"), expected)
    plain = saliency.attribute(classifier, noise(1), "saliency", "cat")
    assert not np.allclose(plain, expected)


@pytest.mark.parametrize("layer", ["0", "3", None])
def test_guided_gradcam_is_the_product_of_both(convolutional, layer):
    guided = saliency.attribute(convolutional, noise(1), "guided-backprop", "cat")
    cam = saliency.attribute(convolutional, noise(1), "gradcam", "cat", layer=layer)
    found = saliency.attribute(convolutional, noise(1), "guided-gradcam", "cat", layer=layer)
    np.testing.assert_allclose(found, guided * cam, atol=1e-9)
    assert found.any()


def test_deeplift_rescales_a_relu_by_hand():
    """A unit relu(w x + b) gives its inputs all that it gained over relu(b), its value on the grey picture."""
    conv, head = nn.Conv2d(3, 1, 1), nn.Linear(SIZE * SIZE, 2)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([0.5, -1.0, 2.0]).reshape(1, 3, 1, 1))
        conv.bias.fill_(0.3)
    classifier = TinyClassifier(Network(nn.Sequential(conv, nn.ReLU()), head))
    red, green, blue = classifier.prepare([noise(1)])[0].numpy()
    gained = np.maximum(0.5 * red - green + 2 * blue + 0.3, 0) - 0.3
    expected = head.weight[1].detach().numpy().reshape(SIZE, SIZE) * gained
    np.testing.assert_allclose(saliency.attribute(classifier, noise(1), "deeplift", "dog"), expected, atol=1e-6)


def test_deeplift_credits_a_pixel_with_all_windows_of_which_it_is_the_maximum():
    """Pixel (4, 4) is the brightest of four overlapping windows; Captum alone would count one of them."""
    head = nn.Linear(3 * 7 * 7, 2, bias=False)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[0].view(3, 7, 7)[0, 1:3, 1:3] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    classifier = TinyClassifier(Network(nn.MaxPool2d(3, stride=2), head))
    photo = Image.new("RGB", (SIZE, SIZE))
    photo.putpixel((4, 4), (255, 255, 255))  # 1 in a field of -1; the grey picture is 0
    expected = np.zeros((SIZE, SIZE))
    expected[4, 4] = 1 + 2 + 3 + 4
    np.testing.assert_allclose(saliency.attribute(classifier, photo, "deeplift", "cat"), expected, atol=1e-6)


@pytest.mark.parametrize("norm_place", ["after_relu", "before_relu"])
def test_deeplift_is_complete_on_alexnet_with_batch_norm(norm_place):
    classifier = AlexNetClassifier(norm_place=norm_place)
    attribution = saliency.attribute(classifier, noise(1), "deeplift", "dog")
    sums = saliency.completeness(classifier, noise(1), "deeplift", "dog", attribution)
    assert abs(sums.difference) > 0.01 and sums.relative < 1e-3


@pytest.mark.parametrize("bend", [nn.Sigmoid, nn.Tanh])
def test_deeplift_is_complete_on_a_perceptron(bend):
    torch.manual_seed(4)
    head = nn.Sequential(nn.Linear(3 * SIZE * SIZE, 8), bend(), nn.Linear(8, 8), bend(), nn.Linear(8, 2))
    head[0].weight.data.mul_(5)  # so that units bend
    classifier = TinyClassifier(Network(nn.Identity(), head))
    attribution = saliency.attribute(classifier, noise(1), "deeplift", "dog")
    sums = saliency.completeness(classifier, noise(1), "deeplift", "dog", attribution)
    assert abs(sums.difference) > 0.005 and sums.relative < 1e-3


def test_deeplift_is_left_out_where_it_would_not_add_up():
    classifier = AlexNetClassifier(normalization="local_response")
    with pytest.raises(saliency.AttributionError, match="DeepLIFT has no rule for LocalResponseNorm"):
        saliency.attribute(classifier, noise(1), "deeplift", "dog")
    padded = Network(nn.MaxPool2d(3, stride=2, padding=1), nn.Linear(3 * 8 * 8, 2))
    assert "no rule for MaxPool2d" in saliency.unsupported(padded, "deeplift")


def test_completeness_by_hand(linear):
    x = linear.prepare([noise(2)])[0].numpy()
    attribution = saliency.attribute(linear, noise(2), "integrated-gradients", "cat")
    sums = saliency.completeness(linear, noise(2), "integrated-gradients", "cat", attribution)
    assert sums.difference == pytest.approx((weights_of(linear, 0) * x).sum(), abs=1e-5)
    assert sums.error == pytest.approx(0, abs=1e-5)
    half = saliency.completeness(linear, noise(2), "integrated-gradients", "cat", attribution / 2)
    assert half.relative == pytest.approx(0.5, abs=1e-3) and half.error == pytest.approx(-sums.difference / 2, abs=1e-4)
    assert saliency.Completeness(0.0, 0.0).relative == 0 and saliency.Completeness(1.0, 0.0).relative == np.inf


def test_what_speaks_for_one_of_two_classes_of_a_single_logit_speaks_against_the_other(convolutional):
    convolutional.model.head = nn.Linear(2 * 6 * 6, 1)
    cat, dog = (saliency.attribute(convolutional, noise(1), "input-x-gradient", name) for name in ("cat", "dog"))
    assert cat.any()
    np.testing.assert_allclose(cat, -dog, atol=1e-7)


@pytest.mark.parametrize("method", saliency.METHODS)
def test_where_the_answer_averages_the_mirror_image_a_method_of_one_pass_explains_both(convolutional, method):
    alone, other = (
        saliency.attribute(convolutional, photo, method, "dog") for photo in (noise(1), ImageOps.mirror(noise(1)))
    )
    convolutional.mirror = True
    found = saliency.attribute(convolutional, noise(1), method, "dog")
    expected = alone if saliency.METHODS[method].one_view else (alone + other[:, ::-1]) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if saliency.METHODS[method].complete:
        assert saliency.completeness(convolutional, noise(1), method, "dog", found).relative < 0.03


def no_hooks(model: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return not any(getattr(module, kind) for module in model.modules() for kind in kinds)


@pytest.mark.parametrize("method", saliency.METHODS)
def test_every_method_returns_float32_of_the_input_size_and_leaves_no_trace(convolutional, method):
    model = convolutional.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attribution = saliency.attribute(convolutional, noise(5), method, "dog")
    assert attribution.shape == (SIZE, SIZE) and attribution.dtype == np.float32
    assert attribution.any() and (saliency.METHODS[method].signed or attribution.min() >= 0)
    assert not model.training
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert no_hooks(model)
    assert all(not isinstance(value, Tensor) for m in model.modules() for value in vars(m).values())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("weight", [0.0, 1e-12])
@pytest.mark.parametrize("method", saliency.METHODS)
def test_a_network_that_is_constant_but_for_rounding_gives_an_all_zero_map(method, weight):
    features = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU())
    head = nn.Linear(2 * SIZE * SIZE, 2)
    nn.init.constant_(head.weight, weight)
    classifier = TinyClassifier(Network(features, head))
    assert not saliency.attribute(classifier, noise(6), method, "cat").any()


@pytest.mark.parametrize("hooking", ["gradcam", "hirescam", "guided-backprop", "guided-gradcam", "deeplift"])
def test_two_threads_get_what_one_would(convolutional, hooking):
    """One waits inside its forward pass, where Captum's hooks are in place, for as long as the other would need."""

    def work(job: tuple[str, str], wait: threading.Barrier | None = None) -> np.ndarray:
        def meet(_: float) -> None:
            if wait is not None:
                with contextlib.suppress(threading.BrokenBarrierError):
                    wait.wait(timeout=0.05)  # under the lock nobody comes

        return saliency.attribute(convolutional, noise(6), *job, meet)

    for method in saliency.METHODS:
        pair = ((hooking, "cat"), (method, "dog"))
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
    assert len(shares) >= 2 or not saliency.METHODS[method].slow


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
    assert no_hooks(convolutional.model)
    assert saliency.attribute(convolutional, noise(9), method, "cat").any()


def test_methods_say_what_they_cost_and_whether_they_can_be_trusted():
    for method in saliency.METHODS.values():
        assert method.sentence.endswith(".") and "pass" in method.cost
        assert re.search(r"arXiv \d{4}\.\d{5}|arXiv \d{4}\.\d{4}", method.paper)
    assert [name for name, method in saliency.METHODS.items() if "1810.03292" in method.warning] == [
        "guided-backprop",
        "guided-gradcam",
    ]


@pytest.mark.parametrize("method", saliency.METHODS)
def test_without_convolutions_and_relus_methods_that_need_them_say_so(linear, method):
    missing = "needs a convolution, and this network has none; choose" if saliency.METHODS[method].layered else None
    if method == "guided-backprop":
        missing = "cuts gradients at ReLUs, and this network has none; choose Saliency"
    if missing is None:
        assert saliency.attribute(linear, noise(1), method, "cat").any()
        return
    with pytest.raises(saliency.AttributionError, match=missing):
        saliency.attribute(linear, noise(1), method, "cat")


def test_errors_are_one_sentence(linear, convolutional):
    with pytest.raises(saliency.AttributionError, match="no convolution 'conv9'; choose one of 0, 3"):
        saliency.attribute(convolutional, GREY, "gradcam", "cat", layer="conv9")
    with pytest.raises(saliency.AttributionError, match="Saliency looks at no single layer"):
        saliency.attribute(convolutional, GREY, "saliency", "cat", layer="3")
    with pytest.raises(saliency.AttributionError, match="no saliency method 'guess'; choose one of hirescam"):
        saliency.attribute(linear, GREY, "guess", "cat")
    with pytest.raises(saliency.AttributionError, match="no class 'cow'; choose one of cat, dog"):
        saliency.attribute(linear, GREY, "saliency", "cow")
    nn.init.constant_(linear.model.head.weight, float("nan"))
    with pytest.raises(saliency.AttributionError, match="not finite"):
        saliency.attribute(linear, GREY, "saliency", "cat")
