"""The process of a run: its lock, its turn in the queue, and its end."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from filelock import FileLock

from alexnet import data, doodles, runs, worker
from alexnet.recipes import Recipe
from alexnet.runs import Reporter, Run, Status
from alexnet.turns import take_turn

SMALL = Recipe(
    name="small", image_size=67, resize=67, epochs=50, batch_size=8, lr=0.005, compile="off", val_fraction=0.2,
    test_fraction=0.2, device="cpu", precision="float32", hidden="64 64",
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


@contextlib.contextmanager
def at_work(run: Run) -> Iterator[None]:
    """Have `run` hold the CPU, from this process."""
    with FileLock(run.path / "lock"):
        reporter = Reporter(run, Status(state="starting"))
        with take_turn(run, reporter, "cpu"):
            reporter.say(state="running")
            yield


def test_the_next_run_waits_says_for_which_and_starts_by_itself(new_run, start, monkeypatch, capsys):
    first, second = new_run(), new_run()
    with at_work(first):
        waiting = start(second)
        wait_for(lambda: second.status().state == "queued", waiting)
        assert second.status().message == f"Waiting for {first.id} to leave the cpu." and second.status().live

        monkeypatch.setattr(worker, "LOCK_SECONDS", 0.1)
        assert worker.work(second) == 1  # a run has one trainer
        assert capsys.readouterr().err == f"{second.id} is training already, in another process.\n"

        last_in_line(new_run(), second, start)
        assert second.status().state == "queued"
    wait_for(second.metrics, waiting)
    assert second.status().state == "running" and second.status().live
    second.request_stop()
    assert waiting.wait() == 0 and second.status().state == "stopped"


def last_in_line(run: Run, before: Run, start: Callable[[Run], subprocess.Popen]) -> None:
    """A run that is cancelled before its turn has come has stopped without training."""
    waiting = start(run)
    wait_for(lambda: run.status().state == "queued", waiting)
    assert run.status().message == f"Waiting behind {before.id}; 2 runs are ahead."
    run.request_stop()
    assert waiting.wait() == 0
    assert run.status().state == "stopped" and run.metrics() == []
