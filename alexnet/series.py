"""A series: runs made one after the other in one folder. What cross-validations and sweeps have in common.

Its folder holds a file that says what it is, the run folders `fold-1` or `trial-1` and so on, at the end the `report.json`
of all, and the `lock`, `status.json`, `log.txt` and `stop` of the process that trains them, as a run folder does.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from filelock import FileLock, Timeout

from alexnet import data, public, runs, worker
from alexnet.errors import LabError
from alexnet.recipes import Recipe
from alexnet.runs import Job, Reporter, Run, RunError, Status, Stopped


@dataclass(frozen=True)
class Series(Job):
    """What the file of a series says; its kinds are `CrossValidation` and `Sweep`."""

    FILE: ClassVar[str]  # its name, one of `alexnet.runs.SERIES`
    COMMAND: ClassVar[str]  # of the command line, that which trains it
    BEARS_FAILURES: ClassVar[bool]  # whether the runs after one that failed are trained all the same

    recipe: Recipe
    data: str  # the name of a dataset, or a folder
    fingerprint: str  # of that dataset
    created: float  # seconds since 1970

    @classmethod
    def read_more(cls, config: dict[str, Any]) -> dict[str, Any]:
        """The fields of a kind, from the content of its file; may raise what damaged content raises."""
        return {}

    @property
    def count(self) -> int:
        """How many runs there will be."""
        raise NotImplementedError

    def recipe_of(self, number: int) -> Recipe:
        """The recipe of the run of this number, from 1; those before it have ended."""
        raise NotImplementedError

    def report(self) -> dict[str, Any]:
        """What the runs, which have ended, say together.

        Raises:
            RunError: they say nothing.
        """
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return runs.SERIES[self.FILE][0]

    @property
    def member(self) -> str:
        """What each of its runs is called."""
        return runs.SERIES[self.FILE][1]

    @property
    def resume_command(self) -> str:
        """What to type to go on with it."""
        return f"python -m alexnet {self.COMMAND} --resume --run {self.path}"

    def run(self, number: int) -> Run:
        """The run of this number, from 1; its folder need not exist yet."""
        return Run(self.path / f"{self.member}-{number}")

    def made(self) -> list[Run]:
        """The runs that have been made so far, in order."""
        candidates = map(self.run, range(1, self.count + 1))
        return [run for run in candidates if (run.path / "run.json").exists()]

    def resume(self) -> None:
        """Start, or go on, in a process of its own.

        Raises:
            RunError: as `alexnet.runs.start`.
        """
        words = ["-u", "-m", "alexnet", self.COMMAND, "--resume", "--run", str(self.path)]
        runs.start(self, [sys.executable, *words])


Kind = TypeVar("Kind", bound=Series)


def create(
    kind: type[Kind], path: Path | None, title: str, recipe: Recipe, name: str, dataset: data.Dataset, **more: Any
) -> Kind:
    """Make the folder of a series; nothing trains yet.

    Args:
        kind: of series.
        path: the folder to make; by default a new one under `runs/`, named by the time and `title`.
        title: see `path`.
        recipe: that of the first run, or that which all vary.
        name: that of the dataset, or its folder, as a person gave it.
        dataset: what it led to.
        more: what else its file has to hold, as JSON values.

    Raises:
        RunError: the folder cannot be made, or holds a run already.
    """
    facts = {"recipe": recipe.to_dict(), "data": name, "fingerprint": dataset.fingerprint, "created": time.time()}
    return read(kind, runs.make_folder(path, title, kind.FILE, {"format": 1, **facts, **more}))


def find(kind: type[Kind], name: Path) -> Kind | None:
    """The series of this kind in this folder, or in the one of this name under `runs/`; None where there is none.

    Raises:
        RunError: its file cannot be read.
    """
    for folder in (runs.runs_dir() / name, Path(os.path.expanduser(name))):
        if os.path.isfile(folder / kind.FILE):
            return read(kind, folder.resolve())
    return None


def read(kind: type[Kind], folder: Path) -> Kind:
    """The series of this kind in `folder`, which has its file.

    Raises:
        RunError: the file cannot be read.
    """
    try:
        config = json.loads((folder / kind.FILE).read_text(encoding="utf-8"))
        facts = {name: config[name] for name in ("data", "fingerprint", "created")}
        if [type(value) for value in facts.values()] != [str, str, float]:
            raise TypeError
        return kind(folder, Recipe.from_dict(config["recipe"]), **facts, **kind.read_more(config))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        what = runs.SERIES[kind.FILE][0]
        raise RunError(
            f"The {kind.FILE} of {folder.name} cannot be read; restore the file or start a new {what}."
        ) from None


def train(series: Series, work: Callable[[Run], int], progress: data.Progress | None = None) -> dict[str, Any] | None:
    """Train the runs that have not finished, each from its last checkpoint, and write the report.

    Args:
        series: which one.
        work: trains a run and returns 0 if it finished or was stopped, as `alexnet.worker.work` does.
        progress: as for `alexnet.data.load`.

    Returns:
        `series.report()`; None if somebody stopped a run, or all of them by a file `stop` beside them.

    Raises:
        RunError: a run failed that the others cannot do without, another process trains the series, or the report cannot
            be written.
        DataError: the photos cannot be read, or are not those that the series was made for.
    """
    public.refuse("training")
    with _held(series) as reporter:
        dataset = data.load(series.data, _both(reporter.preparing, progress))
        if dataset.fingerprint != series.fingerprint:
            raise data.DataError(
                f"{dataset.name} has changed since this {series.kind} was made; start a new {series.kind}."
            )
        for number in range(1, series.count + 1):
            reporter.check_stop()
            title = f"{series.member.capitalize()} {number} of {series.count}"
            reporter.say(message=f"{title}.", step=number - 1, steps=series.count)
            _train_run(series, number, dataset, work)
        report = series.report()
        try:
            runs.write_json(series.path / "report.json", report)
        except OSError as error:
            raise RunError(f"The report cannot be written ({error.strerror}); free some space and resume.") from None
        reporter.say(state="finished", message="", step=series.count)
        return report
    return None


@contextlib.contextmanager
def _held(series: Series) -> Iterator[Reporter]:
    """Within, the series is this process's, and its status says how far that is; a wish to stop ends the block."""
    own, stop = FileLock(series.path / "lock"), series.path / "stop"
    try:
        held = own.acquire(timeout=worker.LOCK_SECONDS)
    except Timeout:
        raise RunError(f"{series.id} is training already, in another process.") from None
    with held:
        stop.unlink(missing_ok=True)
        reporter = Reporter(Run(series.path), Status(state="running", message="Reading the photos."))
        try:
            yield reporter
        except (Stopped, KeyboardInterrupt) as wish:
            reporter.say(state="stopped", message="Stopped; it can be resumed.")
            if not isinstance(wish, Stopped):
                raise
        except LabError as error:
            reporter.say(state="failed", message=str(error))
            raise
        finally:
            stop.unlink(missing_ok=True)


def _both(first: data.Progress, second: data.Progress | None) -> data.Progress:
    def tell(stage: str, done: int, total: int) -> None:
        first(stage, done, total)
        if second:
            second(stage, done, total)

    return tell


def _train_run(series: Series, number: int, dataset: data.Dataset, work: Callable[[Run], int]) -> None:
    """Train the run of this number unless it has finished.

    Raises:
        Stopped: it was stopped.
    """
    run = series.run(number)
    if run.status().state == "finished":
        return
    if not (run.path / "run.json").exists():
        runs.create(series.recipe_of(number), series.data, dataset, path=run.path)
    (run.path / "stop").unlink(missing_ok=True)
    ended_well, state = work(run) == 0, run.status().state
    if ended_well and state != "finished":
        raise Stopped
    if not ended_well and not (series.BEARS_FAILURES and state == "failed"):
        what = series.member.capitalize()
        raise RunError(f"{what} {number} did not finish; see to that and go on with: {series.resume_command}.")


def outcome(run: Run) -> dict[str, Any]:
    """What became of a run so far: `run`, its folder's name; `state` and `message` of its status; `accuracy`, the best in
    validation, and its `epoch`; `test_accuracy`; and the `seconds` that it trained. None for what is not known."""
    status, report = run.status(), run.report() or {}
    best = status.best or {}
    return {
        "run": run.path.name,
        "state": status.state,
        "message": status.message,
        "accuracy": best.get("accuracy"),
        "epoch": best.get("epoch"),
        "test_accuracy": report.get("accuracy") if report.get("split") == "test" else None,
        "seconds": next((r["seconds"] for r in reversed(run.metrics()) if "seconds" in r), None),
    }


def mean_and_deviation(values: Sequence[float]) -> dict[str, float]:
    """Their `mean` and their `deviation`, that of a sample (n - 1); there are two values at least."""
    return {"mean": statistics.fmean(values), "deviation": statistics.stdev(values)}
