"""All runs at a glance: what a list says of each, from the small files of its folder, read again only when they change."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from alexnet import folds, notes, runs, series, sweep
from alexnet.notes import Note
from alexnet.recipes import Recipe
from alexnet.runs import Job, Run, RunError, Status
from alexnet.series import Series

KINDS: dict[str, type[Series]] = {kind.FILE: kind for kind in (folds.CrossValidation, sweep.Sweep)}
READ = ("run.json", *KINDS, "status.json", "metrics.jsonl", "report.json", notes.FILE)
MOST_KEPT = 4096  # entries in memory, of 2 kB or so
ENDED = ("finished", "stopped", "failed")
LATEST = 2.0**33  # seconds since 1970: the year 2242, after which a time is none
DAMAGED = "damaged"  # the state of a folder that cannot be read as a run

Stamps = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class Measured:
    """The accuracy in a report, and what it was measured on."""

    accuracy: float  # 0 to 1; of a cross-validation the mean over its folds
    count: int  # photos
    split: str  # test or val


@dataclass(frozen=True)
class Entry:
    """What a list says of a run, of a series, or of a folder that is damaged; None or empty what is not known."""

    job: Job
    status: Status
    note: Note
    recipe: Recipe | None = None  # of a series that of its first run, or what its runs share
    dataset: str = ""
    created: float = 0.0  # seconds since 1970
    seconds: float | None = None  # of training
    test: Measured | None = None
    curve: tuple[float, ...] = ()  # validation accuracy, 0 to 1, after each epoch that was finished
    number: int = (
        0  # from 1 in the order in which runs were made, by which it keeps its colour; 0 and down of what ships
    )

    @property
    def id(self) -> str:
        """That of the job."""
        return self.job.id

    @property
    def title(self) -> str:
        """What people call it: the title that they gave it, or its id."""
        return self.note.title or self.id

    @property
    def state(self) -> str:
        """That of the job, or shipped, or damaged."""
        return "shipped" if self.job.path.is_relative_to(runs.weights_dir()) else self.status.state

    @property
    def is_run(self) -> bool:
        """Whether it is one run, and not damaged."""
        return isinstance(self.job, Run) and self.status.state != DAMAGED

    @property
    def made(self) -> datetime | None:
        """When it was made, in local time; None where that is not known or makes no sense."""
        return datetime.fromtimestamp(self.created) if 0 < self.created < LATEST else None

    @property
    def best(self) -> float | None:
        """The best validation accuracy, 0 to 1; of a series that of its best run."""
        return self.status.best["accuracy"] if self.status.best else None


def entries() -> list[Entry]:
    """Everything under `runs/`, newest first, then what ships; the runs of series are left out.

    Never raises for what is in the folders.
    """
    made = sorted(map(_entry, runs.job_folders(runs.runs_dir())), key=lambda entry: (entry.created, entry.id))
    shipped = [replace(_entry(path), number=-place) for place, path in enumerate(runs.job_folders(runs.weights_dir()))]
    return [*reversed(_numbered(made)), *shipped]


def members(entry: Entry) -> list[Entry]:
    """The runs of a series, in order; none of anything else."""
    if not isinstance(entry.job, Series):
        return []
    found = [_entry(run.path) for run in entry.job.made()]
    return [replace(member, number=entry.number + int(member.job.path.name.rpartition("-")[2])) for member in found]


def find(name: str, listed: Sequence[Entry]) -> Entry | None:
    """What has this id among `listed` and the members of their series; None where there is no such thing."""
    if (found := next((entry for entry in listed if entry.id == name), None)) is not None:
        return found
    whole = next((entry for entry in listed if name.startswith(f"{entry.id}/")), None)
    return next((entry for entry in members(whole) if entry.id == name), None) if whole else None


def progress(listed: Sequence[Entry]) -> list[tuple[str, str, int]]:
    """How far each is: its id, its state and the number of the epoch that it is in, or was last."""
    return [(entry.id, entry.status.state, entry.status.epoch) for entry in listed]


def _numbered(made: Sequence[Entry]) -> list[Entry]:
    """Entries, oldest first, with their numbers; a series has one for each run that it will have, too."""
    numbered, number = [], 1
    for entry in made:
        numbered.append(replace(entry, number=number))
        number += 1 + (entry.job.count if isinstance(entry.job, Series) else 0)
    return numbered


def _entry(folder: Path) -> Entry:
    entry = _read(folder, _stamps(folder))
    if entry.status.state in (*ENDED, DAMAGED):
        return entry
    return replace(entry, status=entry.job.status())  # whether the trainer is alive its files do not tell


def _stamps(folder: Path) -> Stamps:
    """Changes whenever a file that `_read` reads does."""
    return tuple(map(_stamp, (folder / name for name in READ)))


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size


@functools.lru_cache(MOST_KEPT)
def _read(folder: Path, stamps: Stamps) -> Entry:
    """What the files of a folder say; `stamps` are theirs."""
    try:
        if (file := runs.series_file(folder)) is not None:
            return _read_series(KINDS[file], folder)
        return _read_run(Run(folder))
    except RunError as error:
        job = Run(folder)
        return Entry(job, Status(state=DAMAGED, message=str(error)), notes.read(job))


def _read_run(run: Run) -> Entry:
    config, records, report = run.config, run.metrics(within_epochs=False), run.report() or {}
    return Entry(
        run,
        run.status(),
        notes.read(run),
        run.recipe,
        config["dataset"]["name"],
        config["created"] if runs.fits(config.get("created"), float) else 0.0,
        next((r["seconds"] for r in reversed(records) if runs.fits(r.get("seconds"), float)), None),
        _test(report.get("accuracy"), report),
        tuple(record["accuracy"] for record in records if record["split"] == "val"),
    )


def _read_series(kind: type[Series], folder: Path) -> Entry:
    """Of a series, without a look into its runs."""
    job = series.read(kind, folder)
    report = runs.read_json(folder / "report.json") or {}
    accuracy, trials = report.get("accuracy"), report.get("trials")
    test = _test(accuracy.get("mean"), {"split": "test", **report}) if isinstance(accuracy, dict) else None
    status = job.status()
    best = trials[0] if isinstance(trials, list) and trials and isinstance(trials[0], dict) else {}
    if runs.fits(best.get("accuracy"), float):
        status = replace(status, best={"epoch": best.get("epoch"), "accuracy": best["accuracy"]})
    return Entry(job, status, notes.read(job), job.recipe, Path(job.data).name, job.created, test=test)


def _test(accuracy: Any, report: dict[str, Any]) -> Measured | None:
    split: Any = report.get("split")
    count: Any = report.get("count")
    usable = runs.fits(accuracy, float) and 0 <= accuracy <= 1 and runs.fits(count, int) and count > 0
    return Measured(accuracy, count, split) if usable and isinstance(split, str) else None
