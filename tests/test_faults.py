"""What goes wrong around a run: after each fault all epochs that were recorded are there, and it ends as if nothing had been.

The README's table of faults says what a person sees of each. The faults are real ones, brought about in the trainer's own
process when it touches a file of the run for the n-th time.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from alexnet import data, doodles, runs, turns
from alexnet.recipes import Recipe
from alexnet.runs import Run
from alexnet.worker import work

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the faults are those of Linux")

SMALL = Recipe(
    name="small", image_size=67, resize=67, epochs=2, batch_size=8, lr=0.005, dropout=0.2, ema=0.9, compile="off",
    val_fraction=0.2, test_fraction=0.2, device="cpu", precision="float32", maps="8 8 8 8 8", hidden="16 16",
)  # fmt: skip
RECORDS = 4  # an epoch: two of its three steps, the epoch, its validation

# Trains the run in argv[1]; the n-th time that a file whose name begins so is opened for writing, renamed or removed,
# what argv[5] names happens first.
TRAINER = """
import os, resource, signal, sys
from pathlib import Path
from alexnet import runs, worker

folder, event, name, times, fault = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]

def limit(kind, most):
    resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))

def happen():
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "disk full":
        limit(resource.RLIMIT_FSIZE, 0)
    if fault == "disk nearly full":  # with room for a part of a record
        limit(resource.RLIMIT_FSIZE, (folder / "metrics.jsonl").stat().st_size + 40)
    if fault == "out of memory":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit(resource.RLIMIT_AS, pages * resource.getpagesize())
    if fault == "GPU lost":
        import torch
        raise torch.AcceleratorError("CUDA error: unspecified launch failure\\nCUDA kernel errors might be reported later")

def look(seen, about):
    global times
    if seen == event and os.path.basename(str(about[0])).startswith(name) and (seen != "open" or "a" in (about[1] or "")):
        times -= 1
        if times == 0:
            happen()

sys.addaudithook(look)
sys.exit(worker.work(runs.find(folder)))
"""


def train_until(run: Run, event: str, name: str, times: int, fault: str) -> int:
    """Train in a process of its own into the `fault`; returns the exit status."""
    command = [sys.executable, "-u", "-c", TRAINER, str(run.path), event, name, str(times), fault]
    with (run.path / "log.txt").open("ab") as log:
        return subprocess.run(command, cwd=runs.PROJECT, stdout=log, stderr=log).returncode


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "pets"
    doodles.write(folder, per_class=24)
    return folder


def create(photos: Path, **settings) -> Run:
    return runs.create(SMALL.replace(**settings), str(photos), data.load(str(photos)))


@pytest.fixture
def run(photos) -> Run:
    return create(photos)


@dataclasses.dataclass(frozen=True)
class Results:
    """All that a run has to show in the end."""

    records: list[tuple]
    weights: dict[str, torch.Tensor]
    accuracy: float
    films: set[str]


def results(run: Run) -> Results:
    report = run.report()
    assert run.status().state == "finished" and report is not None
    return Results(
        records(run), load_file(run.weights), report["accuracy"], {p.name for p in (run.path / "film").iterdir()}
    )


def records(run: Run) -> list[tuple]:
    keys = ("epoch", "step", "split", "loss", "accuracy", "lr")
    return [tuple(record.get(key) for key in keys) for record in run.metrics()]


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory) -> Results:
    """The results of a run that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_HOME", str(tmp_path_factory.mktemp("home")))
        run = create(photos)
        assert work(run) == 0, run.status().message
        return results(run)


def goes_on(run: Run, undisturbed: Results) -> None:
    """What the run has recorded are the first records of the undisturbed one; resumed, it ends as that did."""
    before = records(run)
    assert before == undisturbed.records[: len(before)]
    assert work(run) == 0, run.status().message
    now = results(run)
    assert now.records == undisturbed.records
    assert now.weights.keys() == undisturbed.weights.keys()
    assert all(torch.equal(tensor, undisturbed.weights[name]) for name, tensor in now.weights.items())
    assert (now.accuracy, now.films) == (undisturbed.accuracy, undisturbed.films)


# ---------------------------------------------------------------------------------------------------- trainer and app


@pytest.mark.parametrize(
    ("event", "name", "times", "kept"),
    [
        ("os.rename", ".checkpoint.pt", 1, RECORDS),
        ("os.rename", ".checkpoint.pt", 2, 2 * RECORDS),
        ("open", "metrics.jsonl", 2 * RECORDS, 2 * RECORDS - 1),  # the weights of the epoch are written by then
        ("os.rename", ".report.json", 1, 2 * RECORDS),
    ],
)
def test_killed_while_it_writes(run, undisturbed, event, name, times, kept):
    assert train_until(run, event, name, times, "killed") == -signal.SIGKILL
    status = run.status()
    assert status.state == "lost" and "the run can be resumed" in status.message
    if name == ".checkpoint.pt":  # as if it had happened in the middle of writing
        os.truncate(run.path / name, (run.path / name).stat().st_size // 2)
    if name == "metrics.jsonl":
        with (run.path / name).open("a") as file:
            file.write('{"epoch": 2, "st')
    assert len(records(run)) == kept
    goes_on(run, undisturbed)


def test_killed_again_while_it_resumes(run, undisturbed):
    assert train_until(run, "open", "metrics.jsonl", RECORDS + 2, "killed") == -signal.SIGKILL
    assert train_until(run, "os.rename", ".metrics.jsonl", 1, "killed") == -signal.SIGKILL
    assert len(records(run)) == RECORDS + 1
    goes_on(run, undisturbed)


def test_killed_when_it_had_finished(run, undisturbed):
    assert train_until(run, "os.remove", "checkpoint.pt", 1, "killed") == -signal.SIGKILL
    assert results(run).records == undisturbed.records


APP = """
import sys, time
from alexnet import runs

runs.find(sys.argv[1]).resume()
print("started", flush=True)
time.sleep(600)
"""


def test_the_app_is_killed_with_all_that_its_terminal_started(run, undisturbed):
    app = subprocess.Popen(
        [sys.executable, "-c", APP, run.id], cwd=runs.PROJECT, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert app.stdout.readline() == b"started\n"
        os.killpg(app.pid, signal.SIGKILL)
        app.wait()
        deadline = time.monotonic() + 600
        while run.status().state not in ("finished", "failed") and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        app.kill()
        app.communicate()
        run.request_stop()
    assert results(run).records == undisturbed.records


# ------------------------------------------------------------------------------------------------ the machine, its clock


@pytest.mark.parametrize("ahead", [-86_400.0, 10 * 365 * 86_400.0], ids=["restarted", "clock set back"])
def test_the_machine_restarts_maybe_with_its_clock_set_back(run, photos, undisturbed, ahead):
    """All files are there, the lock's among them, as old or as far in the future as the clock says; who held the locks is gone."""
    assert train_until(run, "os.rename", ".checkpoint.pt", 2, "killed") == -signal.SIGKILL
    other = create(photos)
    then = time.time() + ahead
    for each in (run, other):
        runs.write_json(each.path / "run.json", {**each.config, "created": then})
        runs.write_json(each.path / "status.json", {"state": "running", "updated": then, "epoch": 1, "epochs": 2})
        FileLock(each.path / "lock").acquire().lock.release()
        ticket = turns.Ticket(str(each.path), then, ("cpu",), 1, ("cpu",))
        runs.write_json(turns._file(each.path), dataclasses.asdict(ticket))
    for path in runs.home().rglob("*"):
        os.utime(path, (then, then))
    assert {each.status().state for each in (run, other)} == {"lost"}
    goes_on(run, undisturbed)


def test_who_waits_with_a_time_in_the_future_is_served_all_the_same(run, photos, undisturbed):
    """The clock is set back while a run waits: it stays in the queue, and whoever comes later may be served before it."""
    waiting = create(photos)
    with FileLock(waiting.path / "lock"):
        ticket = turns.Ticket(str(waiting.path), time.time() + 86_400, ("cpu",))
        turns._file(waiting.path).parent.mkdir(parents=True)
        runs.write_json(turns._file(waiting.path), dataclasses.asdict(ticket))
        goes_on(run, undisturbed)
        assert turns.ahead(waiting) == []


# ------------------------------------------------------------------------------------------------ what a trainer needs


@pytest.mark.parametrize(
    ("fault", "state", "says"),
    [
        ("disk full", "lost", "the run can be resumed"),  # not even that it failed can be written
        ("disk nearly full", "failed", "free some space and resume"),
        ("out of memory", "failed", "The device ran out of memory; resume"),
        ("GPU lost", "failed", "The GPU stopped working (CUDA error: unspecified launch failure); resume"),
    ],
)
def test_something_runs_out_or_fails_in_the_second_epoch(run, undisturbed, fault, state, says):
    assert train_until(run, "open", "metrics.jsonl", RECORDS + 2, fault) == 1
    status = run.status()
    assert status.state == state and says in status.message and "\n" not in status.message, run.log_tail()
    assert len(records(run)) >= RECORDS
    goes_on(run, undisturbed)


def test_the_photos_are_unmounted_while_it_trains(photos, undisturbed, tmp_path):
    place, elsewhere = tmp_path / "mounted" / "pets", tmp_path / "pets"
    shutil.copytree(photos, place, copy_function=shutil.copy2)
    run = create(place, cache="off")
    trainer = subprocess.Popen(
        [sys.executable, "-m", "alexnet", "train", "--run", str(run.path), "--resume"],
        cwd=runs.PROJECT,
        stdout=(run.path / "log.txt").open("ab"),
        stderr=subprocess.STDOUT,
    )
    try:
        while len(run.metrics()) < RECORDS - 1:
            assert trainer.poll() is None, run.log_tail()
            time.sleep(0.005)
        place.rename(elsewhere)
        assert trainer.wait() == 1
    finally:
        trainer.kill()
        trainer.wait()
    assert run.status().state == "failed"
    assert "A photo of pets changed while it was" in run.status().message
    assert work(run) == 1 and "There is no folder" in run.status().message
    place.mkdir()  # where nothing is mounted
    assert work(run) == 1 and run.status().state == "failed"
    kept = records(run)
    place.rmdir()
    elsewhere.rename(place)
    assert len(kept) >= RECORDS - 1
    goes_on(run, undisturbed)


def test_weights_and_biases_cannot_be_reached(photos, undisturbed, monkeypatch):
    """Training takes no notice; what was to be sent is kept, to be sent later."""
    unreachable = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "5"}
    for name, value in unreachable.items():
        monkeypatch.setenv(name, value)
    run = create(photos, wandb="online")
    goes_on(run, undisturbed)
    deadline = time.monotonic() + 120
    while not list((run.path / "wandb").glob("offline-run-*/*.wandb")):
        assert time.monotonic() < deadline, (run.path / "wandb.txt").read_text()
        time.sleep(0.2)
