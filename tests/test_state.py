"""What changes while training: optimizer, average, start from another run, checkpoints."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alexnet import runs, weights
from alexnet.hardware import Hardware
from alexnet.recipes import Recipe
from alexnet.runs import RunError
from alexnet.state import CheckpointError, Progress, initial_state, load_checkpoint, make_optimizer, save_checkpoint
from alexnet.weights import WeightsError

CPU = Hardware(torch.device("cpu"), bfloat16=False, compile=False)
SMALL = Recipe(image_size=67, resize=67, ema=0.9, hidden="64 64")


@pytest.fixture
def parent(untrained_run, monkeypatch):
    """A run with weights that others find by its name; its network."""
    run, network = untrained_run
    monkeypatch.setattr(runs, "runs_dir", lambda: run.path.parent)
    return run, network


def test_weight_decay_spares_biases_and_normalisation():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    decayed, spared = make_optimizer(network, Recipe(weight_decay=0.01)).param_groups
    assert decayed["weight_decay"] == 0.01
    assert spared["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} == {id(network[0].weight), id(network[2].weight)}
    assert {id(p) for p in spared["params"]} == {id(p) for n, p in network.named_parameters() if p.ndim == 1}


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimizers(name, kind):
    optimizer = make_optimizer(nn.Linear(2, 2), Recipe(optimizer=name, momentum=0.8))
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert group["momentum"] == 0.8 and group["nesterov"] if name == "sgd" else group["betas"] == (0.8, 0.999)


def test_the_average_has_a_short_memory_at_first():
    made = initial_state(SMALL, ["cat", "dog"], CPU)
    start = made.model.classifier.fc8.bias.detach().clone()
    decays = []
    for step in (0, 8, 10_000):
        made.progress.step = step
        with torch.no_grad():
            made.ema.module.classifier.fc8.bias.copy_(start)
            made.ema.n_averaged.fill_(1)
            made.model.classifier.fc8.bias.copy_(start + 1)
        made.average(0.9)
        decays.append((1 - (made.ema.module.classifier.fc8.bias - start)).mean().item())
    assert decays == pytest.approx([1 / 10, 9 / 18, 0.9], abs=1e-4)


def test_averaged_weights_come_and_go():
    made = initial_state(SMALL, ["cat", "dog"], CPU)
    own = made.model.classifier.fc8.bias.clone()
    with torch.no_grad():
        made.ema.module.classifier.fc8.bias.fill_(7.0)
    with made.averaged():
        assert bool((made.model.classifier.fc8.bias == 7).all())
    assert torch.equal(made.model.classifier.fc8.bias, own)


def test_frozen_features_stay_as_they_are():
    made = initial_state(SMALL.replace(freeze_features=True), ["cat", "dog"], CPU)
    before = {name: tensor.clone() for name, tensor in made.model.features.state_dict().items()}
    fc8 = made.model.classifier.fc8.weight.clone()
    made.train_mode(SMALL.replace(freeze_features=True))
    made.model(torch.randn(4, 3, 67, 67)).square().sum().backward()
    made.optimizer.step()
    after = made.model.features.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not torch.equal(made.model.classifier.fc8.weight, fc8)
    assert made.model.classifier.drop6.training


def test_start_from_a_run_with_the_same_classes_takes_all(parent):
    run, network = parent
    made = initial_state(SMALL.replace(start_from=run.id), ["cat", "dog"], CPU)
    for name, tensor in network.state_dict().items():
        assert torch.equal(made.model.state_dict()[name], tensor), name
        assert torch.equal(made.ema.module.state_dict()[name], tensor), name


@pytest.mark.parametrize("classes", [["cat", "dog", "food"], ["dog", "cat"]])
def test_start_from_a_run_with_other_classes_leaves_the_last_layer(parent, classes):
    run, network = parent
    made = initial_state(SMALL.replace(start_from=run.id), classes, CPU)
    fresh = initial_state(SMALL, classes, CPU)
    for name, tensor in made.model.state_dict().items():
        expected = fresh.model if name.startswith("classifier.fc8") else network
        assert torch.equal(tensor, expected.state_dict()[name]), name


@pytest.mark.parametrize(
    ("settings", "output"),
    [
        ({"network": "mlp", "normalization": "none", "hidden": "8 8"}, "classifier.fc3."),
        ({"maps": "8 8 8 8 8", "hidden": "8 8 8"}, "classifier.fc9."),
    ],
)
def test_the_last_layer_is_left_whatever_its_number(settings, output, untrained_run, tmp_path):
    recipe = SMALL.replace(ema=0.0, **settings)
    run = runs.Run(tmp_path / "parent")
    run.path.mkdir()
    runs.write_json(run.path / "run.json", {**untrained_run[0].config, "recipe": recipe.to_dict()})
    parent = initial_state(recipe.replace(seed=1), ["cat", "dog"], CPU).model.state_dict()
    weights.save(run.weights, parent)
    made = initial_state(recipe.replace(start_from=str(run.path)), ["ant", "bee", "cow"], CPU).model.state_dict()
    taken = {name for name in parent if torch.equal(made[name], parent[name])}
    assert {name for name in made if name.startswith(output)} == made.keys() - taken != set()


def test_start_from_another_network_or_without_weights_is_refused(parent, tmp_path):
    run, _ = parent
    with pytest.raises(WeightsError, match="are of another network"):
        initial_state(SMALL.replace(start_from=run.id, normalization="none"), ["cat", "dog"], CPU)
    with pytest.raises(RunError, match="There is no run 'gone'"):
        initial_state(SMALL.replace(start_from="gone"), ["cat", "dog"], CPU)


def test_a_checkpoint_brings_everything_back(tmp_path):
    made = initial_state(SMALL, ["cat", "dog"], CPU)
    made.model(torch.randn(4, 3, 67, 67)).sum().backward()
    made.optimizer.step()
    made.average(0.9)
    progress = made.progress
    progress.epoch, progress.step, progress.best, progress.parts = 1, 9, {"epoch": 1, "accuracy": 0.5, "loss": 0.7}, 4
    progress.val_losses.append(0.7)
    progress.epoch_sums += torch.tensor([1.0, 2.0, 3.0])
    save_checkpoint(tmp_path, SMALL, made)

    other = initial_state(SMALL.replace(seed=5), ["cat", "dog"], CPU)
    load_checkpoint(tmp_path, SMALL, other)
    for ours, theirs in ((other.model, made.model), (other.ema, made.ema)):
        expected = theirs.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())
    momentum = [s["momentum_buffer"] for s in made.optimizer.state_dict()["state"].values()]
    restored = [s["momentum_buffer"] for s in other.optimizer.state_dict()["state"].values()]
    assert all(torch.equal(a, b) for a, b in zip(momentum, restored, strict=True))
    assert torch.equal(other.progress.epoch_sums, progress.epoch_sums)
    assert {**vars(other.progress), "epoch_sums": 0, "record_sums": 0} == {
        **vars(progress), "epoch_sums": 0, "record_sums": 0,
    }  # fmt: skip


def test_a_checkpoint_from_before_a_setting_existed_is_read(tmp_path):
    made = initial_state(SMALL, ["cat", "dog"], CPU)
    save_checkpoint(tmp_path, SMALL, made)
    saved = torch.load(tmp_path / "checkpoint.pt")
    del saved["recipe"]["mixup"], saved["progress"]["parts"], saved["progress"]["val_losses"]
    saved["progress"]["step"] = 3
    torch.save(saved, tmp_path / "checkpoint.pt")
    load_checkpoint(tmp_path, SMALL, made)
    assert (made.progress.step, made.progress.parts, made.progress.val_losses) == (3, 1, [])
    with pytest.raises(CheckpointError, match="of another recipe"):
        load_checkpoint(tmp_path, SMALL.replace(mixup=0.2), made)


def test_without_a_checkpoint_nothing_changes(tmp_path):
    made = initial_state(SMALL, ["cat", "dog"], CPU)
    load_checkpoint(tmp_path, SMALL, made)
    assert isinstance(made.progress, Progress)
    assert made.progress.step == 0
