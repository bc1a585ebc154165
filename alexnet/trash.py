"""Deleted runs, which can be brought back until the app ends.

Each app moves what is deleted in it to a folder of its own under `trash/`, locked as long as the app lives. That goes for
good when the app ends; where it was killed, when the next one starts.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from collections import Counter
from pathlib import Path

from filelock import FileLock

from alexnet import bundle, public, runs
from alexnet.runs import Job, Run, RunError

LOCK = ".lock"  # no run is called so: folders with a dot are none


def trash_dir() -> Path:
    """The folder of what was deleted; beside that of runs, so that moving there is one step however large a run is."""
    return runs.home() / "trash"


class Trash:
    """What this app has deleted. Making it deletes for good what apps that have ended left behind."""

    def __init__(self) -> None:
        for folder in trash_dir().glob("*"):
            if not runs.is_locked(folder / LOCK):
                shutil.rmtree(folder, ignore_errors=True)
        self._folder: Path | None = None
        self._held: list[Path] = []
        self._making = threading.Lock()

    def put(self, job: Job) -> None:
        """Take a run, or a series with all its runs, out of the list; bundles that pages made of them go for good.

        Raises:
            RunError: as `check_deletable`, or it cannot be moved.
        """
        check_deletable(job)
        bundles = _bundles(job)
        try:
            place = Path(tempfile.mkdtemp(dir=self._own_folder())) / job.id  # an id may be deleted twice
            os.rename(job.path, place)
        except FileNotFoundError:
            raise RunError(f"{job.id} has gone already.") from None
        except OSError as error:
            raise RunError(f"{job.id} cannot be deleted ({error.strerror}); look after its folder.") from None
        for file in bundles:  # of a run that is brought back it can be made again
            file.unlink(missing_ok=True)
        self._held.append(place)

    def held(self) -> list[Path]:
        """The folders of what can be brought back, named as they were; the last deleted first."""
        return self._held[::-1]

    def restore(self, folder: Path) -> None:
        """Bring back one of those `held`.

        Raises:
            RunError: something else has its place by now, or it cannot be moved.
        """
        public.refuse("way to bring runs back")
        place = runs.runs_dir() / folder.name
        if place.exists():
            raise RunError(f"There is another {folder.name} by now; delete that one first.")
        try:
            os.rename(folder, place)
        except OSError as error:
            raise RunError(f"{folder.name} cannot be brought back ({error.strerror}).") from None
        self._held.remove(folder)

    def empty(self) -> None:
        """Delete all of it for good."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder, self._held = None, []

    def _own_folder(self) -> Path:
        with self._making:
            if self._folder is None:
                trash_dir().mkdir(parents=True, exist_ok=True)
                folder = Path(tempfile.mkdtemp(dir=trash_dir()))
                self._lock = FileLock(folder / LOCK, thread_local=False)  # held as long as this process lives
                self._lock.acquire()
                atexit.register(self.empty)
                self._folder = folder
            return self._folder


def check_deletable(job: Job) -> None:
    """Whether a job may be deleted.

    Raises:
        RunError: it came with the project, belongs to a series, or it or one of its runs is training.
    """
    public.refuse("way to delete runs")
    if job.path.is_relative_to(runs.weights_dir()):
        raise RunError(f"{job.id} came with the project and stays.")
    if job.path.parent != runs.runs_dir():
        raise RunError(f"{job.id} is a part of {job.path.parent.name}; delete that as a whole.")
    if live := next((run for run in (job, *_members(job)) if run.status().live), None):
        raise RunError(f"{live.id} is training; stop it first.")


def _members(job: Job) -> list[Run]:
    return [Run(path) for path in job.path.glob("*-*") if path.is_dir()]


def _bundles(job: Job) -> list[Path]:
    return [bundle.kept(run) for run in (Run(job.path), *_members(job))]


def sizes(job: Job) -> Counter[str]:
    """The bytes of each file that goes with a job, by its name; of a series the sum over its runs."""
    found: Counter[str] = Counter()
    for folder, _, names in os.walk(job.path):
        for name in names:
            try:
                found[name] += os.lstat(os.path.join(folder, name)).st_size
            except OSError:  # it has gone meanwhile
                continue
    for file in filter(Path.exists, _bundles(job)):
        found[file.name] += file.stat().st_size
    return found
