"""The process that trains a run folder, when its turn has come, and tells its state to whoever looks."""

from __future__ import annotations

import contextlib
import platform
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from alexnet import public, runs
from alexnet.errors import LabError
from alexnet.runs import Reporter, Run, SilentReporter, Status, Stopped
from alexnet.turns import take_turn

LOCK_SECONDS = 10.0  # a page that only looks holds the lock for an instant

if TYPE_CHECKING:
    from alexnet.distributed import Group


def work(run: Run, group: Group | None = None) -> int:
    """Train `run` to its end, its stop or its failure, which its status tells; returns the exit status.

    Args:
        run: the run folder.
        group: the processes that train it, where there are several; the first one holds the run and says how it ends.
    """
    public.refuse("training")
    if group is not None and not group.leads:
        return _assist(run, group)
    own = FileLock(run.path / "lock")
    try:
        held = own.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        print(f"{run.id} is training already, in another process.", file=sys.stderr)
        return 1
    with held:
        try:
            _train_when_free(run, group)
        except Stopped:
            _end(run.path, "stopped", "Stopped; it can be resumed.")
        except LabError as error:
            return _fail(run.path, str(error))
        except OSError as error:
            _log_error()
            return _fail(
                run.path, f"A file of the run cannot be written ({error.strerror}); free some space and resume."
            )
        except Exception as error:
            _log_error()
            if group is not None:  # those that are left see no more than that a connection broke
                return _fail(
                    run.path, "One of the processes of this run ended; resume, and it goes on from its checkpoint."
                )
            return _fail(run.path, f"The trainer met an error it does not know ({error}); the log has the details.")
    return 0


def _assist(run: Run, group: Group) -> int:
    """Train beside the first process, which tells everything; returns the exit status."""
    try:
        _train_when_free(run, group)
    except Stopped:
        return 0
    except LabError:
        return 1
    return 0


def _end(folder: Path, state: str, message: str) -> None:
    last = Run(folder).status()
    runs.write_status(folder, replace(last, state=state, message=message, eta_seconds=None))


def _fail(folder: Path, message: str) -> int:
    try:
        _end(folder, "failed", message)
        print(message, file=sys.stderr)
    except OSError:  # nothing can be written any more; the lock, let go of, tells that the run has ended
        _log_error()
    return 1


def _log_error() -> None:
    with contextlib.suppress(OSError):  # the log may lie on the very disk that is full
        traceback.print_exc()


def _train_when_free(run: Run, group: Group | None) -> None:
    recipe = run.recipe
    make_reporter = Reporter if group is None or group.leads else SilentReporter
    reporter = make_reporter(run, Status(state="starting", epochs=recipe.epochs, message="Starting."))
    from alexnet import hardware, train  # imports torch, which takes seconds: the run is locked and has said so by now
    from alexnet.distributed import ALONE

    group = group or ALONE
    with _stopping_on_signals(reporter), contextlib.ExitStack() as turn:
        machines = group.gather(platform.node())
        here = machines.count(machines[group.rank])  # processes on this machine; the first of them takes their turn

        def wait() -> tuple[str, tuple[int, ...]]:
            kind, gpus = hardware.choose_device(recipe)
            if machines.index(machines[group.rank]) < group.rank:
                return kind, (group.local_rank,)
            count = 2 if recipe.towers_apart else here
            indices = turn.enter_context(take_turn(run, reporter, kind, count=count, of=gpus))
            return kind, indices if group.size == 1 else (group.local_rank,)

        kind, indices = group.together(wait)
        reporter.say(state="starting", message="Reading the photos.")
        if group.leads:
            _start_tracker(run)
        photos = group.together(lambda: train.load_photos(run, reporter))
        hardware.keep_freed_memory()
        chosen = hardware.choose_hardware(recipe, kind, indices=indices, photos=len(photos.train_images))
        train.fit(run, photos, chosen, reporter, group)


@contextlib.contextmanager
def _stopping_on_signals(reporter: Reporter) -> Iterator[None]:
    """Within, Ctrl-C and a request to terminate let the run end after its step, with a checkpoint; twice, at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        print("Stopping after this step.", flush=True)
        reporter.interrupted = True
        signal.signal(number, before[number])

    before: dict[int, Any] = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
