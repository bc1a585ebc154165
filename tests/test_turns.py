"""The queue: who trains, who waits behind whom, and who is next when somebody leaves or is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from filelock import FileLock

from alexnet import runs, turns
from alexnet.runs import Run

# A trainer without a network: waits for its turn, tells what it got, and leaves when its input ends.
TRAINER = """
import contextlib, sys
from pathlib import Path
from filelock import FileLock
from alexnet import turns
from alexnet.runs import Reporter, Run, Status, Stopped

turns.POLL_SECONDS = 0.02
run = Run(Path(sys.argv[1]))
kind, count, of = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with FileLock(run.path / "lock"), contextlib.suppress(Stopped):
    with turns.take_turn(run, Reporter(run, Status(state="starting")), kind, count=count, of=of) as indices:
        Reporter(run, Status(state="running", message=f"has {indices}"))
        sys.stdin.read()
"""


def wait_for(condition: Callable[[], bool], instead: Callable[[], str] = str) -> None:
    """Come back once `condition` holds; what happens `instead` is told where it does not."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, instead()
        time.sleep(0.01)


@dataclass
class Trainer:
    run: Run
    process: subprocess.Popen

    @property
    def word(self) -> str:
        return self.run.status().message

    @property
    def served(self) -> bool:
        return self.word.startswith("has")

    def says(self, message: str) -> None:
        """Wait until the run's status says this."""
        wait_for(lambda: self.word == message, lambda: f"{self.run.id} says: {self.word}")

    def leave(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start():
    """Starts a trainer by its run's name."""
    trainers: list[Trainer] = []

    def start_one(name: str, kind: str = "cpu", count: int = 1, of: int = 1) -> Trainer:
        run = Run(runs.runs_dir() / name)
        run.path.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", TRAINER, str(run.path), kind, str(count), str(of)]
        trainers.append(Trainer(run, subprocess.Popen(command, cwd=runs.PROJECT, stdin=subprocess.PIPE)))
        return trainers[-1]

    yield start_one
    for trainer in trainers:
        trainer.process.kill()
        trainer.process.communicate()


Start = Callable[..., Trainer]


def queue_of_four(start: Start) -> list[Trainer]:
    first = start("first")
    first.says("has (0,)")
    second = start("second")
    second.says("Waiting for first to leave the cpu.")
    third = start("third")
    third.says("Waiting behind second; 2 runs are ahead.")
    fourth = start("fourth")
    fourth.says("Waiting behind third; 3 runs are ahead.")
    return [first, second, third, fourth]


def ids_ahead(trainer: Trainer) -> list[str]:
    return [run.id for run in turns.ahead(trainer.run)]


def tickets() -> int:
    return len(list((runs.runs_dir() / ".queue").rglob("*.json")))


def test_first_come_first_served(start):
    first, second, third, fourth = queue_of_four(start)
    assert [ids_ahead(trainer) for trainer in (first, second, third, fourth)] == [
        [],
        ["first"],
        ["first", "second"],
        ["first", "second", "third"],
    ]
    first.leave()
    second.says("has (0,)")
    third.says("Waiting for second to leave the cpu.")
    fourth.says("Waiting behind third; 2 runs are ahead.")
    second.leave()
    third.says("has (0,)")
    third.leave()
    fourth.says("has (0,)")
    fourth.leave()
    assert tickets() == 0


def test_who_is_cancelled_or_killed_while_waiting_holds_nobody_up(start):
    first, second, third, fourth = queue_of_four(start)
    second.run.request_stop()
    assert second.process.wait() == 0
    third.says("Waiting for first to leave the cpu.")
    third.kill()
    fourth.says("Waiting for first to leave the cpu.")
    assert ids_ahead(fourth) == ["first"]
    first.leave()
    fourth.says("has (0,)")


def test_a_killed_trainer_leaves_its_device_to_the_next(start):
    first = start("first")
    first.says("has (0,)")
    second = start("second")
    second.says("Waiting for first to leave the cpu.")
    first.kill()
    second.says("has (0,)")


def test_who_was_killed_and_comes_again_is_last(start):
    _, second, third, _ = queue_of_four(start)
    second.kill()
    third.says("Waiting for first to leave the cpu.")
    start("second").says("Waiting behind fourth; 3 runs are ahead.")


def test_a_run_of_one_process_takes_the_first_free_gpu(start):
    three = [start(name, "cuda", of=2) for name in ("one", "two", "three")]
    expected = ["Waiting for one of 2 runs to leave the GPU.", "has (0,)", "has (1,)"]
    wait_for(lambda: sorted(trainer.word for trainer in three) == expected)
    start("other", "cpu", of=2).says("has (0,)")
    start("apple", "mps", of=2).says("has (0,)")


def test_several_processes_get_the_first_gpus_and_nobody_overtakes_them(start):
    single = start("single", "cuda", of=3)
    single.says("has (0,)")
    pair = start("pair", "cuda", count=2, of=3)
    pair.says("Waiting for single to leave the GPU.")
    start("later", "cuda", of=3).says("has (2,)")  # GPU 1 is free, and kept for the pair
    last = start("last", "cuda", of=3)
    last.says("Waiting behind pair; 3 runs are ahead.")
    single.leave()
    pair.says("has (0, 1)")
    last.says("Waiting for one of 2 runs to leave the GPU.")
    pair.leave()  # its GPUs, one after the other
    wait_for(lambda: last.served)
    assert last.word in ("has (0,)", "has (1,)")


def test_two_that_want_several_gpus_never_wait_for_each_other(start):
    pair, four = start("pair", "cuda", count=2, of=4), start("four", "cuda", count=4, of=4)
    wait_for(lambda: pair.served or four.served)
    first, other = (pair, four) if pair.served else (four, pair)
    first.leave()
    other.says("has (0, 1)" if other is pair else "has (0, 1, 2, 3)")


def test_processes_on_a_cpu_share_it(start):
    start("one", "cpu", count=4).says("has (0,)")


def test_a_device_held_by_nobody_known_and_a_damaged_ticket(start):
    one = start("one")
    one.says("has (0,)")
    one.leave()
    (folder,) = (runs.runs_dir() / ".queue").iterdir()
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"no": 1}'), ("d", '"text"')):
        (folder / f"{name}.json").write_text(content)
    with FileLock(folder / "cpu.lock"):
        two = start("two")
        two.says("Waiting for another run to leave the cpu.")
    two.says("has (0,)")


def test_who_is_in_no_queue_waits_for_nobody(tmp_path):
    assert turns.ahead(Run(tmp_path / "run")) == []
