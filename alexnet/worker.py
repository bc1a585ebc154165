"""The process that trains a run folder: one at a time on a device, telling its state to whoever looks."""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from alexnet import runs
from alexnet.errors import LabError
from alexnet.runs import Reporter, Run, Status, Stopped


def work(run: Run) -> int:
    """Train `run` to its end, its stop or its failure, which its status tells; returns the exit status."""
    own = FileLock(run.path / "lock")
    try:
        own.acquire(timeout=10)  # a page that only looks holds the lock for an instant
    except Timeout:
        print(f"{run.id} is training already, in another process.", file=sys.stderr)
        return 1
    with own:
        try:
            _train_when_free(run)
        except Stopped:
            _end(run.path, "stopped", "Stopped; it can be resumed.")
        except LabError as error:
            return _fail(run.path, str(error))
        except OSError as error:
            traceback.print_exc()
            return _fail(
                run.path, f"A file of the run cannot be written ({error.strerror}); free some space and resume."
            )
        except Exception as error:
            traceback.print_exc()
            return _fail(run.path, f"The trainer met an error it does not know ({error}); the log has the details.")
    return 0


def _end(folder: Path, state: str, message: str) -> None:
    last = Run(folder).status()
    runs.write_status(folder, replace(last, state=state, message=message, eta_seconds=None))


def _fail(folder: Path, message: str) -> int:
    print(message, file=sys.stderr)
    try:
        _end(folder, "failed", message)
    except OSError:  # nothing can be written any more; the lock, let go of, tells that the run has ended
        traceback.print_exc()
    return 1


def _train_when_free(run: Run) -> None:
    """One run trains at a time on a device; the others wait here."""
    recipe = run.recipe
    reporter = Reporter(run, Status(state="starting", epochs=recipe.epochs, message="Starting."))
    from alexnet import train  # imports torch, which takes seconds: the run is locked and has said so by now

    device = train.choose_device(recipe)
    runs.runs_dir().mkdir(parents=True, exist_ok=True)
    turn = FileLock(runs.runs_dir() / f".device-{device.type}.lock")
    while True:
        try:
            turn.acquire(timeout=0)
            break
        except Timeout:
            reporter.check_stop()
            reporter.say(state="queued", message=f"Waiting for {_busy_run(run)} to leave the {device.type}.")
            time.sleep(1)
    with turn:
        reporter.say(state="starting", message="Reading the photos.")
        _start_tracker(run)
        photos = train.load_photos(run, reporter)
        train.fit(run, photos, train.choose_hardware(recipe, device, photos), reporter)


def _busy_run(waiting: Run) -> str:
    others = (run for run in runs.list_runs() if run.path != waiting.path)
    return next((run.id for run in others if run.status().state in ("starting", "running")), "another run")


def _start_tracker(run: Run) -> None:
    """Weights & Biases reads the run folder from a process of its own, so it can neither delay nor stop training."""
    if run.recipe.wandb == "off":
        return
    with (run.path / "wandb.txt").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "alexnet.tracking", str(run.path)],
            cwd=runs.PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
