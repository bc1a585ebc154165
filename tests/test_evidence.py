"""How far maps can be trusted, on networks small enough to work the answers out by hand."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from alexnet import evidence, saliency
from alexnet.augment import EvalTransform
from alexnet.evidence import Curves, Evidence, Stage
from alexnet.model import AlexNet
from alexnet.predict import Classifier

SIZE = 16
PIXELS = SIZE * SIZE
RED = Image.new("RGB", (SIZE, SIZE), (255, 0, 0))
TOP = np.zeros((SIZE, SIZE), np.float32)
TOP[: SIZE // 2] = 1


def around(model: nn.Module) -> Classifier:
    """A classifier of cats and dogs around `model`, which sees red, green and blue from 0 to 1; its grey is black."""
    transform = EvalTransform(resize=SIZE, crop=SIZE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    network = model.eval().requires_grad_(False)
    return Classifier(None, ("cat", "dog"), transform, False, network, torch.device("cpu"))


def linear(weights: np.ndarray) -> Classifier:
    """The logit of the cat is the sum of `weights` (S, S) times red, that of the dog is 0."""
    layer = nn.Linear(3 * PIXELS, 2, bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.data[0, :PIXELS] = torch.from_numpy(weights).flatten()
    return around(nn.Sequential(nn.Flatten(), layer))


def convolutional() -> Classifier:
    torch.manual_seed(0)
    network = nn.Sequential()
    network.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4))
    network.classifier = nn.Sequential(nn.Flatten(), nn.Linear(4 * PIXELS, 2))
    return around(network)


def noise(seed: int, low: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(low, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_the_area_is_that_of_the_trapezoids():
    assert evidence.area([1, 0]) == 0.5
    assert evidence.area([1, 1, 0]) == 0.75
    assert evidence.area([0.3] * 21) == pytest.approx(0.3)


def test_the_ranking_begins_with_the_strongest_and_leaves_equal_pixels_to_chance():
    attribution = np.array([[-3.0, 0.0, 5.0], [0.0, 2.0, 0.0]])
    places = evidence.ranking(attribution)
    assert places[0, 2] == 0 and places[1, 1] == 1 and places[0, 0] == 5
    assert sorted(places.ravel()) == list(range(6))
    flat = np.zeros((SIZE, SIZE))
    assert (evidence.ranking(flat, 0) == evidence.ranking(flat, 0)).all()
    assert (evidence.ranking(flat, 0) != evidence.ranking(flat, 1)).any()
    halves = evidence.ranking(flat)
    assert abs((halves[:8] < PIXELS / 2).mean() - 0.5) < 0.1  # not row by row


def test_deletion_of_a_linear_network_by_hand():
    """Each of the 128 pixels of the upper half adds 1/16 to the logit, those of the lower half nothing."""
    classifier = linear(TOP / 16)
    good, bad = evidence.measure_curves(classifier, RED, "cat", [evidence.ranking(TOP), evidence.ranking(-TOP)])
    gone = [math.ceil(PIXELS * step / evidence.STEPS) for step in range(evidence.STEPS + 1)]
    assert good.deletion == pytest.approx([sigmoid(max(0, 128 - n) / 16) for n in gone], abs=1e-6)
    assert bad.deletion == pytest.approx([sigmoid((128 - max(0, n - 128)) / 16) for n in gone], abs=1e-6)
    assert good.deletion_area < bad.deletion_area
    (other,) = evidence.measure_curves(classifier, RED, "dog", [evidence.ranking(TOP)])
    assert other.deletion == pytest.approx([1 - p for p in good.deletion], abs=1e-6)


def test_insertion_starts_from_the_blurred_photo_and_ends_with_the_photo():
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, (SIZE, SIZE)).astype(np.float32)
    classifier, photo, attribution = linear(weights), noise(1), rng.normal(size=(SIZE, SIZE))
    (found,) = evidence.measure_curves(classifier, photo, "cat", [evidence.ranking(attribution)])
    red, blurred = (np.asarray(p, dtype=float)[..., 0] / 255 for p in (photo, evidence.blur(photo)))
    order = np.argsort(-attribution, axis=None)
    for step, probability in enumerate(found.insertion):
        shown = np.zeros(PIXELS, bool)
        shown[order[: math.ceil(PIXELS * step / evidence.STEPS)]] = True
        picture = np.where(shown.reshape(SIZE, SIZE), red, blurred)
        assert probability == pytest.approx(sigmoid((weights * picture).sum()), abs=1e-5)
    assert (red != blurred).any()


def test_curves_are_those_of_the_answer_with_its_mirror_image():
    from dataclasses import replace

    left = np.zeros((SIZE, SIZE), np.float32)
    left[:, :8] = 1 / 32
    both = replace(linear(left), mirror=True)
    (found,) = evidence.measure_curves(both, RED, "cat", [evidence.ranking(left)])
    assert found.deletion[0] == pytest.approx(both([RED])[0].probabilities["cat"])
    assert found.deletion[10] == pytest.approx(sigmoid(2), abs=1e-6)  # the right half, seen mirrored: half of 128 / 32


def test_layers_become_random_from_the_top_and_the_model_stays_as_it_is():
    with torch.device("meta"):
        names = [name for name, _ in evidence._layers(AlexNet(2))]
    assert names == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    model = convolutional().model
    model.features[2].weight.data.uniform_(0.5, 1.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = []
    for _, network in evidence.randomized(model):
        now = network.state_dict()
        changed.append({name for name, value in before.items() if not torch.equal(value, now[name])})
    last = {"classifier.1.weight", "classifier.1.bias"}
    first = {"features.0.weight", "features.0.bias", "features.2.weight"}  # the norm's bias is 0 in all channels
    assert changed == [last, last | first]
    assert network.classifier[1].weight.std().item() == pytest.approx(
        before["classifier.1.weight"].std().item(), rel=0.1
    )
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    *_, (_, again) = evidence.randomized(model)
    *_, (_, other) = evidence.randomized(model, seed=1)
    assert torch.equal(again.features[0].weight, network.features[0].weight)
    assert not torch.equal(other.features[0].weight, network.features[0].weight)


def test_rank_correlation_is_of_magnitudes_and_blind_to_scale():
    a = np.random.default_rng(0).normal(size=(SIZE, SIZE))
    assert evidence.rank_correlation(a, -(np.abs(a) ** 3)) == pytest.approx(1)
    assert evidence.rank_correlation(np.array([[1, 2], [3, 4]]), np.array([[1, 2], [4, 3]])) == pytest.approx(0.8)
    assert evidence.rank_correlation(np.array([[1, 2], [3, 4]]), np.array([[4, 3], [2, 1]])) == pytest.approx(-1)
    assert evidence.rank_correlation(a, np.ones_like(a)) == 0
    assert evidence.rank_correlation(np.zeros_like(a), a) == 0


def test_a_map_of_what_was_learned_is_told_from_a_map_of_the_photo():
    rng = np.random.default_rng(3)
    weights = np.abs(rng.normal(0, 0.2, (SIZE, SIZE))).astype(np.float32)
    classifier, photo = linear(weights), noise(2, low=200)
    attribution = saliency.attribute(classifier, photo, "saliency", "cat")
    found = evidence.examine(classifier, photo, attribution, "saliency", "cat")
    assert [stage.layer for stage in found.stages] == ["1"] and abs(found.stages[0].correlation) < 0.2
    assert found.curves.deletion_area < found.chance.deletion_area - evidence.CLEAR
    assert found.verdict.endswith("To this extent it can be trusted.")

    # Red alone, multiplied by one weight: whatever that is, the map is the photo.
    colour = around(nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    photo = Image.merge("RGB", [noise(2).getchannel(0), *[Image.new("L", (SIZE, SIZE))] * 2])
    attribution = saliency.attribute(colour, photo, "input-x-gradient", "cat")
    found = evidence.examine(colour, photo, attribution, "input-x-gradient", "cat")
    assert found.stages[0].correlation == pytest.approx(1)
    assert "rather than what the network learned" in found.verdict and not found.trusted


def test_each_stage_compares_with_its_own_network():
    classifier, photo = convolutional(), noise(4)
    attribution = saliency.attribute(classifier, photo, "gradcam", "cat")
    found = evidence.examine(classifier, photo, attribution, "gradcam", "cat")
    expected = []
    for name, network in evidence.randomized(classifier.model):
        changed = saliency.attribute(evidence.with_network(classifier, network), photo, "gradcam", "cat")
        expected.append(Stage(name, evidence.rank_correlation(attribution, changed)))
    assert list(found.stages) == expected and expected[0].correlation != expected[1].correlation
    assert found.correlation == pytest.approx((expected[0].correlation + expected[1].correlation) / 2)


def test_progress_rises_to_one():
    classifier, shares = convolutional(), []
    attribution = saliency.attribute(classifier, RED, "smoothgrad", "cat")
    evidence.examine(classifier, RED, attribution, "smoothgrad", "cat", shares.append)
    assert shares == sorted(shares) and shares[-1] == 1 and len(shares) > 20


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("after", [1, 10])  # among the curves, and among the random networks
def test_cancelling_leaves_the_shared_network_alone(after):
    classifier, shares = convolutional(), []
    before = {name: value.clone() for name, value in classifier.model.state_dict().items()}

    def cancel(share: float) -> None:
        shares.append(share)
        if len(shares) == after:
            raise Cancelled

    attribution = saliency.attribute(classifier, RED, "saliency", "cat")
    with pytest.raises(Cancelled):
        evidence.examine(classifier, RED, attribution, "saliency", "cat", cancel)
    assert all(torch.equal(value, classifier.model.state_dict()[name]) for name, value in before.items())
    free = threading.Thread(target=classifier.lock.__enter__, daemon=True)
    free.start()
    free.join(timeout=5)
    assert not free.is_alive()


CURVES = {"low": Curves((1.0, 0.0, 0.0), (0.5, 1.0, 1.0)), "chance": Curves((1.0, 1.0, 0.0), (0.5, 0.5, 1.0))}


@pytest.mark.parametrize(
    ("own", "last", "trusted", "parts"),
    [
        ("low", -0.4, True, ["sooner than in a random order (areas 0.25 and 0.88 against 0.75 and 0.62), and", "(mean rank correlation 0.20"]),
        ("low", 0.0, True, ["though a part of it is the photo and its edges (mean rank correlation 0.40"]),
        ("low", 0.9, False, ["sooner than", "but it hardly changes with the weights (mean rank correlation 0.85"]),
        ("chance", -0.4, False, ["no sooner than in a random order", "but the map changes with the weights"]),
        ("chance", 0.9, False, ["no sooner than in a random order", "and it hardly changes"]),
    ],
)  # fmt: skip
def test_the_verdict_says_what_both_tests_found(own, last, trusted, parts):
    found = Evidence(CURVES[own], CURVES["chance"], (Stage("fc8", 0.8), Stage("conv1", last)))
    assert all(part in found.verdict for part in parts)
    assert found.trusted == found.verdict.endswith("can be trusted.") == trusted


def test_painted_strokes_become_a_mask_of_the_shown_size():
    dot = {"radius": 0.1, "points": [[0.5, 0.25]]}
    line = {"radius": 0.05, "points": [[0.1, 0.45], [0.9, 0.45]]}
    mask = evidence.painted([dot], (200, 100))
    assert mask.shape == (100, 200) and mask.dtype == bool
    assert mask.sum() == pytest.approx(math.pi * 20**2, rel=0.05)
    assert mask[50, 100] and mask[50, 119] and not mask[50, 122] and not mask[75, 100]
    both = evidence.painted([dot, line], (200, 100))
    assert both[90, 20:180].all() and both[82:98, 100].all() and not both[76, 40] and both[50, 100]
    assert not evidence.painted([], (200, 100)).any()


def test_erasing_replaces_what_is_under_the_mask_and_nothing_else():
    photo = noise(5).resize((64, 32))
    mask = np.zeros((16, 32), bool)  # the photo was shown half as large
    mask[:, :16] = True
    pixels = np.asarray(photo)
    for fill, expected in (
        ("grey", np.full((32, 32, 3), (124, 116, 104))),
        ("mean", np.broadcast_to(pixels.mean((0, 1)).round(), (32, 32, 3))),
        ("blur", np.asarray(evidence.blur(photo, evidence.ERASING_BLUR))[:, :32]),
    ):
        erased = np.asarray(evidence.erase(photo, mask, fill, mean=(0.485, 0.456, 0.406)))
        assert (erased[:, 32:] == pixels[:, 32:]).all()
        assert (erased[:, :32] == expected).all()
    assert set(evidence.FILLS) == {"grey", "mean", "blur"}
    assert photo.tobytes() == noise(5).resize((64, 32)).tobytes()
