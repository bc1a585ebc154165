"""Shipping a run: what the small folder holds, and that its report is of the file in it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alexnet import data, doodles, export, model, runs, weights
from alexnet.evaluate import evaluate
from alexnet.predict import load_classifier
from alexnet.recipes import Recipe
from alexnet.runs import RunError, Status

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


def test_what_ships(finished_run, tmp_path):
    run, dataset = finished_run
    metrics = export.ship(run, tmp_path / "shipped")
    shipped = runs.find(tmp_path / "shipped")
    assert shipped.status().state == "finished"
    assert shipped.weights.stat().st_size < run.weights.stat().st_size / 15
    assert shipped.config["data"] == "pets"  # not the place where the photos lay
    # The report is of the compressed file, on the very photos that the run kept for its test.
    test = data.split_of(dataset, RECIPE, "test")
    expected = evaluate(load_classifier(shipped), dataset, test).metrics
    report = shipped.report()
    assert {name: report[name] for name in expected} == expected == metrics
    assert (report["split"], report["best_epoch"], report["uncompressed"]["accuracy"]) == ("test", 3, 0.5)
    with pytest.raises(RunError, match="holds a run already; choose another folder or delete that one."):
        export.ship(run, tmp_path / "shipped")


def test_a_run_that_has_not_finished_does_not_ship(finished_run, tmp_path):
    run, _ = finished_run
    (run.path / "report.json").unlink()
    with pytest.raises(RunError, match="has no report yet; let it finish first."):
        export.ship(run, tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()


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
