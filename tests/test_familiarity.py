"""Familiarity: the head on known activations, conformal shares by hand, outliers, and what a run carries of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet import calibration, data, doodles, familiarity, model, weights
from alexnet.__main__ import main
from alexnet.evaluate import auroc, calibrate, measure_neither
from alexnet.familiarity import Familiarity, from_tensors, neither
from alexnet.predict import load_classifier
from alexnet.recipes import Recipe
from alexnet.runs import Run, RunError, write_json

RECIPE = Recipe(name="small", image_size=67, resize=70, val_fraction=0.2)


def head(scores: list[float]) -> Familiarity:
    """Of two activations (a, b) the score is relu(a - b) + 3 relu(b)."""
    hidden = torch.tensor([[1.0, -1.0], [0.0, 1.0]]).half()
    return Familiarity(hidden, torch.zeros(2), torch.tensor([1.0, 3.0]), torch.zeros(1)).referring_to(
        torch.tensor(scores)
    )


def test_a_score_by_hand():
    descriptors = torch.tensor([[5.0, 2.0], [1.0, 4.0], [0.0, 0.0]])
    assert head([0.0]).score(descriptors).tolist() == [5 - 2 + 3 * 2, 3 * 4, 0]


def test_a_share_counts_the_validation_photos_that_look_less_familiar():
    shares = head([4.0, 1.0, 3.0, 2.0]).share(torch.tensor([0.5, 1.5, 3.0, 9.0]))
    assert shares.tolist() == pytest.approx([1 / 5, 2 / 5, 3 / 5, 5 / 5])


@pytest.mark.parametrize("count", [1, 18, 19, 20, 50, 100, 2500, 30_000])
def test_the_threshold_keeps_95_percent_of_validation_photos_and_hardly_more(count):
    scores = torch.randn(count, generator=torch.Generator().manual_seed(count))
    found = head(scores.tolist())
    kept = found.share(scores) >= familiarity.ABSTAIN
    assert kept[scores >= found.threshold].all()
    assert count - int(kept.sum()) <= count * 0.05 + 1e-9
    assert count - int(kept.sum()) >= count * 0.05 - max(1, count / familiarity.QUANTILES)
    assert len(found.reference) == min(count, familiarity.QUANTILES)


def test_what_a_photo_of_something_else_is_called():
    assert neither(["cat", "dog"]) == "neither a cat nor a dog"
    assert neither(["Owl", "emu"]) == "neither an Owl nor an emu"
    assert neither(["a", "b", "c"]) == "none of the 3 classes"


def test_evidence_is_activation_times_gradient():
    class Linear(model.AlexNet):
        """Logits 2 m[0, 0] and -m[0, 1], of the two channels of the first cell."""

    network = Linear(2).eval()
    for layer in (network.classifier.fc6, network.classifier.fc7, network.classifier.fc8):
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    with torch.no_grad():
        network.classifier.fc6.weight[0, 0] = 2.0  # the first channel in the first of 36 cells
        network.classifier.fc6.weight[1, 36 + 5] = 1.0  # the second channel in the sixth
        network.classifier.fc7.weight[:2, :2] = torch.eye(2)
        network.classifier.fc8.weight[:, :2] = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    maps = torch.full((1, 256, 6, 6), 3.0)
    expected = torch.zeros(1, 36)
    expected[0, 0], expected[0, 5] = 2 * 3.0, 1 * 3.0
    assert torch.equal(familiarity.evidence(network, maps), expected)


def test_outliers_hold_background_cells_only_each_whole():
    photos, channels, side = 7, 3, 4
    number = torch.arange(photos * side * side, dtype=torch.float32).view(photos, 1, side, side)
    maps = number * torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1)
    found = torch.rand(photos, side * side, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    outliers = familiarity.recombine_backgrounds(maps, found, generator)
    assert outliers.shape == maps.shape == (photos, channels, side, side)
    background = {
        photo * 16 + cell for photo in range(photos) for cell in found[photo].argsort()[: round(0.4 * 16)].tolist()
    }
    cells = outliers[:, 0]
    assert set(cells.flatten().int().tolist()) <= background
    assert torch.equal(outliers[:, 1], 10 * cells) and torch.equal(outliers[:, 2], 100 * cells)
    for row, own in enumerate((cells.int() // 16).flatten(1)):
        assert row in own or len(own.unique()) <= familiarity.SOURCES
        assert len(own.unique()) <= familiarity.SOURCES
    again = familiarity.recombine_backgrounds(maps, found, torch.Generator().manual_seed(0))
    assert torch.equal(again, outliers)


def test_a_head_tells_two_clouds_apart_that_no_line_does_and_always_in_the_same_way():
    draw = torch.Generator().manual_seed(0)
    side = torch.randint(0, 2, (400, 1), generator=draw) * 2.0 - 1
    inside = torch.randn(400, 200, generator=draw) + side
    outside = torch.randn(400, 200, generator=draw)  # between the two halves of the other
    before = torch.get_rng_state()
    found = familiarity.fit_head(inside[:300], outside[:300])
    assert torch.equal(torch.get_rng_state(), before)
    assert auroc(found.score(inside[300:]), found.score(outside[300:])) > 0.95
    again = familiarity.fit_head(inside[:300], outside[:300])
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in found.tensors().items())


def test_a_unit_that_never_fires_does_no_harm():
    inside, outside = torch.zeros(60, 3), torch.ones(60, 3)
    outside[:, 1:] = 0
    found = familiarity.fit_head(inside, outside)
    assert all(tensor.isfinite().all() for tensor in found.tensors().values())


def test_describe_is_the_network_itself(untrained_run):
    _, network = untrained_run
    x = torch.randn(2, 3, 67, 67, generator=torch.Generator().manual_seed(0))
    descriptors, output = familiarity.describe(network, familiarity.pooled(network, x))
    assert torch.equal(output, network(x))
    assert descriptors.shape == (2, familiarity.width(network)) and (descriptors >= 0).all()


def test_describe_knows_any_number_of_hidden_layers():
    torch.manual_seed(0)
    small = model.Geometry(maps=(8, 8, 8, 8, 8), avgpool=2, hidden=(6, 5, 4))
    network = model.AlexNet(3, geometry=small).eval()
    x = torch.randn(2, 3, 67, 67)
    descriptors, output = familiarity.describe(network, familiarity.pooled(network, x))
    assert torch.equal(output, network(x))
    assert descriptors.shape == (2, 6 + 5 + 4) and familiarity.width(network) == 15
    last = network.classifier.fc9(descriptors[:, 11:])  # what the third hidden layer says is what the last one reads
    torch.testing.assert_close(last, output)


@pytest.mark.parametrize(
    "network",
    [
        model.MLP(2, image_size=5),
        model.AlexNet(2, geometry=model.Geometry((4, 4, 4, 4, 4), avgpool=1, hidden=(4,))),
    ],
)
def test_without_several_cells_to_recombine_nothing_is_learnt(network):
    assert familiarity.fit(network, [torch.zeros(familiarity.FEWEST, 3, 67, 67)]) is None


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A run on doodles that was never trained but calibrated; its classifier, dataset and evaluation."""
    folder = tmp_path_factory.mktemp("taught")
    doodles.write(folder / "pets", per_class=45)
    dataset = data.scan(folder / "pets", "pets")
    about = {"name": "pets", "fingerprint": "", "photos": 90}
    config = {"recipe": RECIPE.to_dict(), "classes": ["cat", "dog"], "mean": [0.5] * 3, "std": [0.2] * 3}
    (folder / "run").mkdir()
    run = Run(folder / "run")
    write_json(run.path / "run.json", {**config, "data": "pets", "dataset": about})
    torch.manual_seed(0)
    weights.save(run.weights, model.from_recipe(RECIPE, 2).state_dict())
    parts = data.split(dataset, RECIPE)
    evaluation = calibrate(load_classifier(run), dataset, parts["val"], None, parts["train"])
    return load_classifier(run), dataset, evaluation


def test_a_calibrated_run_carries_its_familiarity(taught, tmp_path):
    classifier, dataset, evaluation = taught
    found = calibration.read(classifier.run.path).familiarity
    assert found == {"method": familiarity.METHOD, "threshold": classifier.familiarity.threshold}
    assert (classifier.run.path / familiarity.FILE).stat().st_size < 1_500_000
    assert torch.equal(classifier.familiarity.reference, evaluation.familiarity.sort().values)
    photo = data.split(dataset, RECIPE)["val"][3]
    prediction = classifier([dataset.open(photo)])[0]
    own = classifier.familiarity.share(evaluation.familiarity)[evaluation.files.index(photo.path)].item()
    assert prediction.familiarity == pytest.approx(own, abs=2 / len(evaluation.files))
    (tmp_path / "none").mkdir()
    Image.new("RGB", (80, 80), "red").save(tmp_path / "none" / "red.png")
    outside = classifier.examine(classifier.transform.batch([Image.new("RGB", (80, 80), "red")]))[1]
    told = measure_neither(classifier, tmp_path / "none", evaluation)
    assert told["auroc_neither"] == pytest.approx(auroc(evaluation.familiarity, outside))


def test_fitted_twice_it_is_the_same(taught):
    classifier, dataset, _ = taught
    before = classifier.familiarity.tensors()
    calibrate(classifier, dataset, data.split(dataset, RECIPE)["val"], None, data.split(dataset, RECIPE)["train"])
    after = load_classifier(classifier.run).familiarity.tensors()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def asked(classifier, share: float):
    """One prediction of a classifier to which every photo looks familiar to `share`."""
    scores = torch.tensor([-1e9] * round(share * 1000) + [1e9] * (1000 - round(share * 1000)))
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    fixed = replace(classifier, familiarity=classifier.familiarity.referring_to(scores))
    return fixed([Image.fromarray(pixels)])[0]


def test_what_looks_unfamiliar_gets_no_label_but_all_else(taught):
    classifier = taught[0]
    strange, usual = asked(classifier, 0.03), asked(classifier, 0.3)
    assert strange.label is None and usual.label == usual.best == strange.best
    assert strange.probabilities == usual.probabilities
    assert strange.familiarity == pytest.approx(0.03, abs=1e-3)
    assert usual.familiarity == pytest.approx(0.3, abs=1e-3)
    plain = replace(classifier, familiarity=None)([usual.input])[0]
    assert plain.familiarity is None and plain.label == plain.best


def test_the_command_says_neither(taught, tmp_path, capsys):
    classifier = taught[0]
    never = replace(classifier.familiarity, reference=torch.full((99,), 1e9))
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "weights.safetensors", calibration.FILE):
        (run / name).symlink_to(classifier.run.path / name)
    familiarity.save(run, never)
    doodles.draw("cat", 3).save(tmp_path / "cat.png")
    arguments = ["classify", str(tmp_path / "cat.png"), "--run", str(run)]
    assert main([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)["photos"][0]
    assert answer["label"] is None and answer["familiarity"] == pytest.approx(0.01)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert main(arguments) == 0
    assert "neither a cat nor a dog (looks familiar to 1%); " in capsys.readouterr().out
    assert main([*arguments, "--saliency", "gradcam", "--out", str(tmp_path / "maps")]) == 0


def test_with_few_photos_nothing_is_claimed_and_what_was_is_gone(taught, tmp_path):
    classifier, dataset, _ = taught
    few = replace(classifier, run=Run(tmp_path))
    familiarity.save(tmp_path, classifier.familiarity)
    evaluation = calibrate(few, dataset, dataset.photos[:6], None, dataset.photos[: familiarity.FEWEST - 1])
    assert evaluation.familiarity is None
    assert calibration.read(tmp_path).familiarity is None
    assert not (tmp_path / familiarity.FILE).exists()
    assert familiarity.load(tmp_path, 8192) is None


@pytest.mark.parametrize("damage", ["torn", "renamed", "another network", "not a number", "too short"])
def test_a_damaged_file_is_told_in_one_sentence(damage, tmp_path):
    tensors = head([1.0, 2.0]).tensors()
    changed = {
        "torn": tensors,
        "renamed": {**tensors, "more": torch.zeros(1)},
        "another network": {**tensors, "hidden": torch.ones(2, 3)},
        "not a number": {**tensors, "reference": torch.tensor([float("nan")])},
        "too short": {**tensors, "output": torch.ones(1)},
    }[damage]
    weights.save(tmp_path / familiarity.FILE, changed)
    if damage == "torn":
        (tmp_path / familiarity.FILE).write_bytes((tmp_path / familiarity.FILE).read_bytes()[:40])
    with pytest.raises(
        RunError, match=r"The familiarity.safetensors of .* cannot be read; restore the file or delete it."
    ):
        familiarity.load(tmp_path, width=2)


def test_tensors_come_back():
    found = head([3.0, 1.0])
    again = from_tensors(found.tensors())
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in found.tensors().items())
