"""Weights & Biases: offline it needs no account, and it reads the run folder only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet import runs
from alexnet.data import Dataset, Report
from alexnet.recipes import Recipe
from alexnet.runs import Reporter, Run, Status
from alexnet.tracking import _flat, _summary


def finished_run(folder) -> Run:
    recipe = Recipe(wandb="offline", epochs=1)
    pets = Dataset("pets", Path("pets"), ("cat", "dog"), (), Report(0, 0, (), {}))
    runs.create(recipe, "pets", pets, path=folder)
    best = {"epoch": 1, "accuracy": 0.75, "loss": 0.5}
    reporter = Reporter(Run(folder), Status(state="finished", epochs=1, best=best))
    reporter.record(epoch=1, step=4, split="train", loss=0.6, accuracy=0.7, lr=0.01, images_per_s=80.0, seconds=1.0)
    reporter.record(epoch=1, step=4, split="val", loss=0.5, accuracy=0.75, seconds=2.0)
    return Run(folder)


def test_records_and_summary(tmp_path):
    run = finished_run(tmp_path / "run")
    train, val = map(_flat, run.metrics())
    assert train["train/loss"] == 0.6 and train["train/lr"] == 0.01 and train["step"] == 4
    assert val == {"epoch": 1, "step": 4, "val/loss": 0.5, "val/accuracy": 0.75}
    assert _summary(run)["best/accuracy"] == 0.75


@pytest.mark.parametrize("folder", ["run", "folds/fold-1"])  # W&B refuses the slash of a fold's name
def test_offline_writes_a_local_copy_without_an_account(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    if folder != "run":
        (tmp_path / "folds" / "folds.json").touch()
    run = finished_run(tmp_path / folder)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-m", "alexnet.tracking", str(run.path)],
        cwd=runs.PROJECT,
        env={**clean, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list((run.path / "wandb").glob("offline-run-*/*.wandb"))
