"""The process of a run: its lock, its turn in the queue, and its end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from alexnet import data, doodles, runs, worker
from alexnet.recipes import Recipe
from alexnet.runs import Run

SMALL = Recipe(
    name="small", image_size=67, resize=67, epochs=50, batch_size=8, lr=0.005, compile="off", val_fraction=0.2,
    test_fraction=0.2, device="cpu", precision="float32",
)  # fmt: skip


@pytest.fixture
def new_run(tmp_path) -> Callable[[], Run]:
    """Makes runs on a few doodles."""
    folder = tmp_path / "pets"
    doodles.write(folder, per_class=12)
    return lambda: runs.create(SMALL, str(folder), data.load(str(folder)))


@pytest.fixture
def start():
    """Starts the trainer of a run."""
    trainers: list[subprocess.Popen] = []

    def start_one(run: Run) -> subprocess.Popen:
        command = [sys.executable, "-m", "alexnet", "train", "--run", str(run.path), "--resume"]
        with (run.path / "log.txt").open("ab") as log:
            trainers.append(subprocess.Popen(command, cwd=runs.PROJECT, stdout=log, stderr=log))
        return trainers[-1]

    yield start_one
    for trainer in trainers:
        trainer.kill()
        trainer.wait()


def wait_for(condition: Callable[[], object], trainer: subprocess.Popen) -> None:
    while not condition():
        assert trainer.poll() is None, "the trainer ended too early"
        time.sleep(0.01)


def test_the_next_run_waits_says_for_which_and_starts_by_itself(new_run, start, monkeypatch, capsys):
    first, second = new_run(), new_run()
    training = start(first)
    wait_for(first.metrics, training)
    waiting = start(second)
    wait_for(lambda: second.status().state == "queued", waiting)
    assert second.status().message == f"Waiting for {first.id} to leave the cpu." and second.status().live

    monkeypatch.setattr(worker, "LOCK_SECONDS", 0.1)
    assert worker.work(second) == 1  # a run has one trainer
    assert capsys.readouterr().err == f"{second.id} is training already, in another process.\n"
    assert second.status().state == "queued"

    first.request_stop()
    assert training.wait() == 0 and first.status().state == "stopped"
    wait_for(second.metrics, waiting)
    assert second.status().state == "running" and second.status().live
    second.request_stop()
    assert waiting.wait() == 0 and second.status().state == "stopped"


def test_a_queued_run_that_is_cancelled_has_stopped_without_training(new_run, start):
    first, second = new_run(), new_run()
    training = start(first)
    wait_for(lambda: first.status().state == "running", training)
    waiting = start(second)
    wait_for(lambda: second.status().state == "queued", waiting)
    second.request_stop()
    assert waiting.wait() == 0
    assert second.status().state == "stopped" and second.metrics() == []
    assert first.status().live
