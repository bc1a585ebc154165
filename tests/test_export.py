"""Exports: what a small folder holds, that its report is of the file in it, and whole weights in plain PyTorch."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from alexnet import AlexNet, calibration, card, data, doodles, export, model, runs, weights
from alexnet.__main__ import main
from alexnet.augment import EvalTransform
from alexnet.evaluate import Evaluation, evaluate
from alexnet.predict import Classifier, load_classifier
from alexnet.recipes import Recipe
from alexnet.runs import RunError, Status
from alexnet.worker import work

RECIPE = Recipe(name="small", image_size=67, resize=70, val_fraction=0.2, test_fraction=0.2)


@pytest.fixture
def finished_run(tmp_path):
    """A finished run on doodles whose network was never trained, and its dataset."""
    doodles.write(tmp_path / "pets", per_class=10)
    dataset = data.load(str(tmp_path / "pets"))
    run = runs.create(RECIPE, str(tmp_path / "pets"), dataset, path=tmp_path / "run")
    torch.manual_seed(0)
    weights.save(run.weights, model.from_recipe(RECIPE, num_classes=2).state_dict())
    (run.path / "metrics.jsonl").touch()
    runs.write_status(run.path, Status(state="finished"))
    runs.write_json(run.path / "report.json", {"split": "test", "best_epoch": 3, "accuracy": 0.5})
    return run, dataset


def test_what_ships(finished_run, tmp_path, photo_folder):
    run, dataset = finished_run
    metrics = export.ship(run, tmp_path / "shipped", neither=photo_folder({f"{n}.png": n for n in range(3)}))
    shipped = runs.find(tmp_path / "shipped")
    assert shipped.status().state == "finished"
    assert shipped.weights.stat().st_size < run.weights.stat().st_size / 15
    assert shipped.config["data"] == "pets"  # not the place where the photos lay
    # The report is of the compressed file, on the very photos that the run kept for its test.
    test = data.split_of(dataset, RECIPE, "test")
    expected = evaluate(load_classifier(shipped), dataset, test).metrics
    # Its temperature is its own too, of the photos that validated.
    plain = replace(load_classifier(shipped), temperature=1.0)
    val = evaluate(plain, dataset, data.split_of(dataset, RECIPE, "val"))
    assert calibration.read(shipped.path).temperature == calibration.fit_temperature(val.logits, val.labels)
    report = shipped.report()
    assert {name: report[name] for name in expected} == expected == metrics
    assert report["neither"] == {"count": 3, "skipped": 0} and 0 <= report["auroc_neither"] <= 1
    assert report["splits"] == data.split_counts(dataset, RECIPE)
    # The run itself has no temperature, so both are compared at that of what ships.
    before = evaluate(replace(load_classifier(run), temperature=load_classifier(shipped).temperature), dataset, test)
    cats = [e.logits.softmax(1)[:, 0] for e in (before, evaluate(load_classifier(shipped), dataset, test))]
    assert report["mean_probability_change"] == pytest.approx((cats[0] - cats[1]).abs().mean().item(), abs=1e-6)
    assert report["mean_probability_change"] <= 0.01 and report["rank"] in export.RANKS
    uncompressed = evaluate(load_classifier(run), dataset, test).metrics
    assert report["uncompressed"] == {**uncompressed, "bytes": run.weights.stat().st_size}
    assert (shipped.path / "card.md").read_text(encoding="utf-8") == card.markdown(shipped)
    assert not list(shipped.path.glob(".*"))
    assert (report["split"], report["best_epoch"]) == ("test", 3)
    with pytest.raises(RunError, match="holds a run already; choose another folder or delete that one."):
        export.ship(run, tmp_path / "shipped")


def test_a_run_that_has_not_finished_does_not_ship(finished_run, tmp_path):
    run, _ = finished_run
    (run.path / "report.json").unlink()
    with pytest.raises(RunError, match="has no report yet; let it finish first."):
        export.ship(run, tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()


def test_an_export_whose_run_is_deleted_meanwhile_says_so(finished_run, tmp_path):
    run, _ = finished_run
    with pytest.raises(RunError, match="run has gone: its folder was deleted or moved."):
        export.ship(run, tmp_path / "shipped", lambda *_: shutil.rmtree(run.path, ignore_errors=True))
    assert not (tmp_path / "shipped" / "run.json").exists()


def test_moments_by_hand_and_no_hook_left():
    network = nn.Sequential(nn.Linear(2048, 2000), nn.Linear(2000, 2))  # only the first is large
    first, second = torch.zeros(1, 2048), torch.zeros(3, 2048)
    first[0, 0], second[:, 1] = 2.0, 4.0
    with export.activation_moments(network) as moments:
        network(first)
        network(second)
    assert moments.keys() == {"0.weight"}
    expected = torch.zeros(2048, 2048)
    expected[0, 0], expected[1, 1] = 2.0**2 / 4, 3 * 4.0**2 / 4
    assert torch.equal(moments["0.weight"], expected)
    network(first)
    assert torch.equal(moments["0.weight"], expected)


def test_no_moments_of_a_matrix_with_too_many_inputs_for_the_memory(monkeypatch):
    monkeypatch.setattr(export, "MOST_INPUTS", 2047)
    network = nn.Sequential(nn.Linear(2048, 2047), nn.Linear(2047, 2000))
    with export.activation_moments(network) as moments:
        network(torch.ones(1, 2048))
    assert moments.keys() == {"1.weight"}


def test_a_fully_connected_run_trains_ships_and_goes_into_plain_pytorch(tmp_path):
    doodles.write(tmp_path / "pets", per_class=12)
    settings = {"network": "mlp", "normalization": "none", "hidden": "16 8", "activation": "tanh", "dropout": 0.2}
    hardware = {"compile": "off", "device": "cpu", "precision": "float32"}
    recipe = RECIPE.replace(epochs=1, batch_size=4, **settings, **hardware)
    dataset = data.load(str(tmp_path / "pets"))
    run = runs.create(recipe, str(tmp_path / "pets"), dataset, path=tmp_path / "run")
    assert work(run) == 0
    export.ship(run, tmp_path / "shipped")
    shipped = runs.find(tmp_path / "shipped")
    report, size = shipped.report(), shipped.weights.stat().st_size
    assert report["rank"] is None and 0.5 < size / run.weights.stat().st_size < 0.55  # nothing but 16 bits
    assert "The weights are kept in 16 bits." in (shipped.path / "card.md").read_text(encoding="utf-8")
    file, photo = export.write_whole(run, tmp_path / "whole", "pth"), doodles.draw("cat", 1)
    network = model.MLP(2, image_size=67, hidden=(16, 8), activation="tanh").eval()
    network.load_state_dict(read_pth(file))
    classifier = load_classifier(run)
    with torch.inference_mode():
        x = classifier.prepare([photo])
        assert torch.equal(network(x), classifier.model(x))
    assert classifier.familiarity is None and classifier([photo])[0].label in ("cat", "dog")


def evaluation(logits: torch.Tensor, labels: torch.Tensor) -> Evaluation:
    return Evaluation(("cat", "dog"), ("",) * len(labels), labels, logits)


def test_the_change_of_probabilities_by_hand():
    labels = torch.zeros(2, dtype=torch.int64)
    before, after = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]]), torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.1, 0.3]])
    moved = export.probability_change(evaluation(before.log(), labels), evaluation(after.log(), labels))
    assert moved == pytest.approx((0.1 + 0.3) / 2)


class Product(nn.Module):
    """Logits of two classes through one large matrix, whose rank decides how far it can be compressed."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.large = nn.Linear(2048, 2000, bias=False)
        self.large.weight.data = torch.randn(2000, rank) @ torch.randn(rank, 2048) / (2048 * rank) ** 0.5
        self.last = nn.Linear(2000, 2, bias=False)
        self.last.weight.data = torch.randn(2, 2000) / 10

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.large(x))


def shrunk(tmp_path, rank: int) -> tuple[int, float, float]:
    """What `shrink` makes of a matrix of this rank: rank kept, change of probabilities as told, and as it is."""
    run, draft = runs.Run(tmp_path), runs.Run(tmp_path / "draft")
    draft.path.mkdir()
    network, small = Product(rank).eval(), Product(1).eval()
    x = torch.randn(500, 2048, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        x = x[network(x).diff(dim=1).abs()[:, 0] > 1]  # rounding to 8 bits turns no label round
    classifier = Classifier(run, ("cat", "dog"), EvalTransform(), False, network, torch.device("cpu"))
    with torch.inference_mode():
        before = evaluation(network(x), network(x).argmax(1))

        def measure() -> Evaluation:
            weights.load_into(small, draft.weights)
            return evaluation(small(x), before.labels)

        kept, told, after = export.shrink(classifier, draft, {}, before, measure)
    return kept, told, (before.logits.softmax(1) - after.logits.softmax(1))[:, 0].abs().mean().item()


@pytest.mark.parametrize(("rank", "kept"), [(100, 192), (250, 384), (500, 736)])
def test_the_rank_grows_until_probabilities_hold(tmp_path, rank, kept):
    found, told, change = shrunk(tmp_path, rank)
    assert found == kept
    assert told == pytest.approx(change, abs=1e-6) and change <= 0.01


def test_what_cannot_be_compressed_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"^Compressed, .* gives other answers: .*; export it whole, with --format"):
        shrunk(tmp_path, 2000)


@pytest.mark.parametrize(
    ("wrong", "count", "accepted"), [(1, 100, True), (2, 100, False), (2, 1000, True), (3, 1000, False)]
)
def test_accuracy_may_fall_by_two_in_a_thousand_or_one_photo(tmp_path, wrong, count, accepted):
    labels = torch.zeros(count, dtype=torch.int64)
    logits = torch.tensor([[0.001, 0.0]]).repeat(count, 1)
    after = logits.clone()
    after[:wrong] *= -1
    draft = runs.Run(tmp_path)
    classifier = Classifier(draft, ("cat", "dog"), EvalTransform(), False, nn.Linear(2, 2), torch.device("cpu"))
    arguments = (classifier, draft, {}, evaluation(logits, labels), lambda: evaluation(after, labels))
    if accepted:
        assert export.shrink(*arguments)[0] is None  # there is no large matrix
    else:
        with pytest.raises(RunError, match="gives other answers"):
            export.shrink(*arguments)


def read_pth(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(("form", "read"), [("pth", read_pth), ("safetensors", load_file)])
def test_whole_weights_open_in_plain_pytorch(untrained_run, tmp_path, capsys, form, read):
    """Those of a compressed run are expanded; the network that they are loaded into answers as the run does."""
    run, network = untrained_run[0], AlexNet(num_classes=2)
    made = runs.Run(tmp_path / "small-run")
    made.path.mkdir()
    parent = str(tmp_path / "parent")
    recipe = {**run.config["recipe"], "hidden": "4096 4096", "start_from": parent}
    runs.write_json(made.path / "run.json", {**run.config, "recipe": recipe, "parent": parent, "data": "/a/b"})
    weights.save(made.weights, weights.compress(network.state_dict(), 4))
    calibration.write(made.path, 0.5)
    assert main(["export", "--run", str(made.path), "--out", str(tmp_path / "out"), "--format", form]) == 0
    file = tmp_path / "out" / f"small-run.{form}"
    assert capsys.readouterr().out == f"{file}: 233 MB, answers as small-run does\n"
    assert {path.name for path in file.parent.iterdir()} == {file.name, "small-run.json"}
    state, plain = read(file), AlexNet(num_classes=2).eval()
    assert {tensor.dtype for name, tensor in state.items() if "num_batches" not in name} == {torch.float32}
    plain.load_state_dict(state)
    config, photo = json.loads(file.with_suffix(".json").read_text()), doodles.draw("cat", 1)
    transform = EvalTransform.from_recipe(Recipe.from_dict(config["recipe"]))
    with torch.inference_mode():
        x = transform.normalize(transform.batch([photo]))
        logits = (plain(x) + plain(x.flip(3))) / 2 / config["temperature"]
    expected = load_classifier(made)([photo])[0].probabilities
    assert dict(zip(config["classes"], logits.softmax(1)[0].tolist(), strict=True)) == pytest.approx(expected, abs=1e-6)
    assert (config["data"], config["parent"], config["recipe"]["start_from"]) == ("nothing", "parent", "parent")


def test_photos_of_neither_are_for_the_small_format(untrained_run, tmp_path, capsys):
    command = ["export", "--run", str(untrained_run[0].path), "--out", str(tmp_path / "out"), "--format", "pth"]
    assert main([*command, "--neither", str(tmp_path)]) == 2 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err == "--neither is for the small format; leave it out, or --format.\n"


def test_an_export_that_answers_otherwise_is_refused(untrained_run):
    run, network = untrained_run
    classifier = load_classifier(run)
    export.check_answers(classifier, network.state_dict())
    with pytest.raises(RunError, match="does not answer as the run does; check the disk and export again."):
        export.check_answers(classifier, {**network.state_dict(), "classifier.fc8.bias": torch.ones(2)})


def test_whole_weights_that_cannot_be_written_are_told(untrained_run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written .*; choose another folder."):
        export.write_whole(untrained_run[0], tmp_path / "file", "pth")
