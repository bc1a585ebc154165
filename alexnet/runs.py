"""The run folder: everything that a run is, on disk, readable without torch.

A run is a folder with `run.json`; `weights/` holds finished runs that were chosen to ship, in the same shape. A folder
with `folds.json` or `sweep.json` is a series, whose runs are the folders in it. The trainer is a process of its own, so a
run outlives the page that started it. Readers take missing files and a torn last line of `metrics.jsonl` in their stride.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeGuard, get_type_hints

from filelock import FileLock, Timeout

from alexnet import public
from alexnet.errors import LabError
from alexnet.recipes import Recipe, RecipeError

PROJECT = Path(__file__).resolve().parent.parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]; the field's customary constants
START_SECONDS = 30.0  # a child that holds no lock after this long has died on its way up
NICE = 5  # how far a trainer started from a page stands back; about a third of the weight of other programs
SMI_SECONDS = 5.0  # that the GPU's driver may take to answer
STATUS_SECONDS = 0.5  # between two writes of a trainer's status
FOLDS_FILE = "folds.json"  # makes a folder a cross-validation, see alexnet.folds
SWEEP_FILE = "sweep.json"  # makes a folder a sweep, see alexnet.sweep
# What a folder with this file is, and what each of its runs is called: fold-1 and so on.
SERIES = {FOLDS_FILE: ("cross-validation", "fold"), SWEEP_FILE: ("sweep", "trial")}
UNFINISHED = ("queued", "starting", "running")
STATES = (*UNFINISHED, "finished", "stopped", "failed", "lost")


class RunError(LabError, RuntimeError):
    """A run that cannot be found, read or started; its text is one sentence."""


def home() -> Path:
    """Where `runs/` and `data/` live: the project's folder, or `ALEXNET_HOME` where that is set."""
    return Path(os.environ.get("ALEXNET_HOME") or PROJECT).expanduser().resolve()


def runs_dir() -> Path:
    """The folder of runs made here."""
    return home() / "runs"


def data_dir() -> Path:
    """The folder of downloaded, drawn and cached photos."""
    return home() / "data"


def weights_dir() -> Path:
    """The folder of shipped runs."""
    return PROJECT / "weights"


@dataclass(frozen=True)
class Status:
    """What a run is doing, as its trainer last said; `live` is whether that trainer is alive now."""

    state: str = "lost"  # queued, starting, running, finished, stopped, failed; lost is said of a trainer that vanished
    message: str = ""
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    eta_seconds: float | None = None
    images_per_s: float | None = None
    device: str = ""
    memory_bytes: int | None = None
    best: dict | None = None  # type: ignore[type-arg]  # {"epoch", "accuracy", "loss"} on validation; read as `STATUS`
    updated: float = 0.0  # seconds since 1970
    live: bool = False


# What the files have to hold for a reader to rely on them: name -> type.
CONFIG = {"recipe": dict, "classes": list, "data": str, "dataset": dict, "mean": list, "std": list}
DATASET = {"name": str, "fingerprint": str, "photos": int}
BEST = {"epoch": int, "accuracy": float, "loss": float}
RECORD = {"step": int, "split": str, **BEST}
STATUS = {name: kind for name, kind in get_type_hints(Status).items() if name != "live"}


@dataclass(frozen=True)
class Job:
    """A folder in which a process works: a run, or a series of them. Reads the disk at each call."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name, by which the job is known."""
        return self.path.name

    def status(self) -> Status:
        """What the job is doing now; a process that vanished is told by its lock, not by its last words.

        Never raises: what cannot be used of `status.json` takes its default.
        """
        status = _status(read_json(self.path / "status.json") or {})
        if status.state not in UNFINISHED:
            return status
        locked = self.locked()  # before reading: what a trainer wrote ahead of letting go is then its last word
        status = _status(read_json(self.path / "status.json") or {})
        if status.state not in UNFINISHED:
            return status
        starting = status.state == "starting" and 0 <= time.time() - status.updated < START_SECONDS
        if locked or starting:
            return replace(status, live=True)
        message = "The trainer ended without a word; the log may say why, and the run can be resumed."
        return replace(status, state="lost", message=message)

    def locked(self) -> bool:
        """Whether a living process holds this job; true to the facts also after a SIGKILL."""
        return is_locked(self.path / "lock")

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the process printed."""
        try:
            with (self.path / "log.txt").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * lines))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def request_stop(self) -> None:
        """Ask the process to stop after its current step, keeping all that it has.

        Raises:
            RunError: the folder is gone or cannot be written.
        """
        public.refuse("way to stop runs")
        try:
            (self.path / "stop").touch()
        except OSError as error:
            raise RunError(f"{self.id} cannot be told to stop ({error.strerror}); end its process instead.") from None


@dataclass(frozen=True)
class Run(Job):
    """A run folder; holds nothing but its path."""

    @property
    def id(self) -> str:
        """The folder's name, by which the run is known; in a series after that of the series: `pets/fold-1`."""
        return f"{self.path.parent.name}/{self.path.name}" if self.is_member else self.path.name

    @property
    def is_member(self) -> bool:
        """Whether the run belongs to a series."""
        return series_file(self.path.parent) is not None

    @property
    def shipped(self) -> bool:
        """Whether the run came with the project."""
        return self.path.is_relative_to(weights_dir())

    @property
    def config(self) -> dict[str, Any]:
        """The content of `run.json`.

        Raises:
            RunError: it is missing or damaged.
        """
        path = self.path / "run.json"
        config = read_json(path)
        if _has(config, CONFIG) and _has(config["dataset"], DATASET) and _are_names(config["classes"]):
            return config
        if not os.path.exists(self.path):  # Path.exists raises where a folder may not be entered
            raise RunError(f"{self.id} has gone: its folder was deleted or moved.")
        if not os.path.exists(path):
            raise RunError(f"{self.id} is not a run: its folder has no run.json.")
        raise RunError(f"The run.json of {self.id} cannot be read; restore the file or delete the folder.")

    @property
    def created(self) -> float:
        """When the run was made, in seconds since 1970, or 0 where `run.json` does not say; raises as `config`."""
        created: Any = self.config.get("created")
        return float(created) if fits(created, float) else 0.0

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe.

        Raises:
            RunError: `run.json` is missing or damaged, or holds a setting that cannot work.
        """
        try:
            return Recipe.from_dict(self.config["recipe"])
        except RecipeError as error:
            raise RunError(f"The recipe of {self.id} cannot be used: {error}") from None

    @property
    def weights(self) -> Path:
        """The file with the weights of the best validation epoch."""
        return self.path / "weights.safetensors"

    @property
    def has_weights(self) -> bool:
        """Whether there are weights to classify with."""
        return self.weights.is_file()

    def metrics(self, within_epochs: bool = True) -> list[dict[str, Any]]:
        """The records of `metrics.jsonl`, oldest first; lines that are torn or damaged are left out.

        Without those `within_epochs`, which are most of them, it takes a fraction of the time.
        """
        try:
            lines = (self.path / "metrics.jsonl").read_bytes().splitlines()
        except OSError:
            return []
        wanted = lines if within_epochs else (line for line in lines if b'"partial": true' not in line)
        return [record for line in wanted if (record := _record(line)) is not None]

    def report(self) -> dict[str, Any] | None:
        """The content of `report.json` without what cannot be used; None where there is none that can be read."""
        values = read_json(self.path / "report.json")
        return values and {name: value for name, value in values.items() if name not in REPORT or REPORT[name](value)}

    def resume(self) -> None:
        """Go on from the last checkpoint in a new process."""
        launch(self)


def series_file(folder: Path) -> str | None:
    """The file that makes `folder` a series of runs; None where it is none."""
    # Path.exists raises where a folder may not be entered.
    return next((file for file in SERIES if os.path.exists(folder / file)), None)


def create(recipe: Recipe, data: str, dataset: Any, *, path: Path | None = None) -> Run:
    """Make a run folder with its `run.json`; nothing trains yet.

    Args:
        recipe: the settings.
        data: the name of a dataset, or a folder, as a person gave it.
        dataset: the `alexnet.data.Dataset` that `data` led to.
        path: the folder to make; by default a new one under `runs/`.

    Raises:
        RunError: the recipe does not fit the dataset, the run to start from is gone or has no weights, or the folder
            cannot be made or holds a run already.
        DataError: the dataset lacks the splits, classes or photos that the recipe asks for.
    """
    used = dataset.subset(recipe)
    recipe = fitted(recipe, used)
    about = {"name": dataset.name, "fingerprint": dataset.fingerprint, "photos": len(dataset.photos)}
    config = configuration(recipe, used.classes, data, about)
    return Run(make_folder(path, recipe.name, "run.json", config))


def configuration(recipe: Recipe, classes: Sequence[str], data: str, dataset: dict[str, Any]) -> dict[str, Any]:
    """The content of a new `run.json`; `dataset` has the members of `DATASET`."""
    return {
        "format": 1,
        "recipe": recipe.to_dict(),
        "data": data,
        "dataset": dataset,
        "classes": list(classes),
        "image_size": recipe.image_size,
        "mean": MEAN,
        "std": STD,
        "seed": recipe.seed,
        "versions": {name: metadata.version(name) for name in ("torch", "numpy", "pillow")},
        "python": sys.version.split()[0],
        "parent": recipe.start_from or None,
        "created": time.time(),
    }


def fitted(recipe: Recipe, dataset: Any) -> Recipe:
    """`recipe` with the run that it starts from by the name under which that is found from anywhere.

    Raises:
        RunError: it does not fit the `alexnet.data.Dataset`, or the run to start from is gone or has no weights.
        DataError: as `create`.
    """
    classes = dataset.subset(recipe).classes
    if recipe.single_logit and len(classes) != 2:
        raise RunError(
            f"{dataset.name} has {len(classes)} classes and one logit tells only two apart; turn single_logit off."
        )
    return recipe.replace(start_from=_parent(recipe.start_from)) if recipe.start_from else recipe


def _parent(name: str) -> str:
    """The run of this name or in this folder, which has weights, by the name under which it is found from anywhere."""
    run = find(name)
    if not run.has_weights:
        raise RunError(f"{run.id} has no weights to start from; let it finish an epoch first.")
    return run.id if run.path.is_relative_to(runs_dir()) or run.shipped else str(run.path)


def make_folder(path: Path | None, name: str, file: str, config: dict[str, Any]) -> Path:
    """Make the folder `path`, or a new one under `runs/` named by the time and `name`, with `config` in its `file`.

    Raises:
        RunError: it cannot be made, or holds a run already.
    """
    public.refuse("new runs")
    try:
        folder = _claim(path, name)
        try:
            write_json(folder / file, config)
        except (OSError, UnicodeEncodeError):
            with contextlib.suppress(OSError):  # it holds something else
                folder.rmdir()
            raise
    except UnicodeEncodeError:  # the path of the photos, as the recipe has been checked
        raise RunError("The folder of the photos has a name in bytes that are no text; rename it.") from None
    except OSError as error:
        raise RunError(
            f"The run folder cannot be written: {error.strerror}; free some space or choose another place."
        ) from None
    return folder


def _claim(path: Path | None, name: str) -> Path:
    """A folder that is nobody else's: `path`, or a new one named by the time; two tabs never get the same."""
    if path is not None:
        if any((path / file).exists() for file in ("run.json", *SERIES)):
            raise RunError(f"{path.name} holds a run already; resume it or choose another folder.")
        path.mkdir(parents=True, exist_ok=True)
        return path.resolve()
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{re.sub('[^a-z0-9-]+', '-', name.lower())}"
    runs_dir().mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        folder = runs_dir() / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise RunError("Too many runs were started within one second; wait a moment and start again.")


_children: list[subprocess.Popen[bytes]] = []  # held so that a finished trainer is reaped, never left a zombie


def launch(run: Run) -> None:
    """Start or go on with `run` in a process of its own, which needs neither this process nor any page.

    Raises:
        RunError: as `start`.
    """
    start(run, trainer(run))


def start(job: Job, command: list[str]) -> None:
    """Start `command`, which works on `job` and holds its lock, in a process of its own.

    Raises:
        RunError: a living trainer has the job already, it has finished, or the process cannot be started.
    """
    public.refuse("training")
    status = job.status()
    if status.live:
        raise RunError(f"{job.id} is training already.")
    if status.state == "finished":  # it has no checkpoint any more and would start from nothing
        raise RunError(f"{job.id} has finished; make a new run to train again.")
    _children[:] = [child for child in _children if child.poll() is None]
    try:
        (job.path / "stop").unlink(missing_ok=True)
        write_status(job.path, Status(state="starting", message="Starting the trainer."))
        with (job.path / "log.txt").open("ab") as log:
            _children.append(
                subprocess.Popen(
                    command,
                    cwd=PROJECT,
                    env={**os.environ, "ALEXNET_HOME": str(home())},  # may be relative to this process's folder
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
    except OSError as error:
        raise RunError(f"The trainer cannot be started: {error.strerror}.") from None
    _give_way(_children[-1])


def trainer(run: Run) -> list[str]:
    """The command that trains `run`: where it wants several processes, by way of `torchrun`."""
    command = ["-m", "alexnet", "train", "--run-dir", str(run.path), "--resume"]
    if (processes := run.recipe.processes) > 1:
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *command]
    return [sys.executable, "-u", *command]


def _give_way(trainer: subprocess.Popen[bytes]) -> None:
    """Let the pages and other programs have the processor first; an otherwise idle one trains as fast as ever."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, trainer.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
        with contextlib.suppress(OSError):  # Linux, where it weighs sessions against each other
            Path(f"/proc/{trainer.pid}/autogroup").write_text(str(NICE))


@functools.cache
def gpus() -> list[str]:
    """The names of the NVIDIA GPUs here, as their driver tells without torch; none where it does not answer."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.splitlines() if answer.returncode == 0 else []


def find(name: str | Path) -> Run:
    """The run with this id, or in this folder.

    Raises:
        RunError: there is none, or its `run.json` cannot be read.
    """
    places = [runs_dir() / name, weights_dir() / name, Path(os.path.expanduser(name))]
    for place in places:
        if os.path.isfile(place / "run.json"):  # Path.is_file raises where a name is too long
            run = Run(place.resolve())
            run.recipe  # noqa: B018 - reading it is the check
            return run
    if file := next(filter(None, map(series_file, places)), None):
        series, member = SERIES[file]
        raise RunError(f"{name} is a {series}; give one of its runs, such as {name}/{member}-1.")
    raise RunError(f"There is no run {str(name)!r}; give the name of a folder under runs/ or weights/.")


def default_run() -> Run | None:
    """The run to classify with if nobody chose one: the shipped cats and dogs, else the newest that has weights."""
    with_weights = [run for run in list_runs() if run.has_weights]
    shipped = [run for run in with_weights if run.shipped]
    return next(iter(shipped + with_weights), None)


def job_folders(root: Path) -> list[Path]:
    """The folders in `root` that may be runs or series, by name; none where there is no `root`."""
    return sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != ".") if root.is_dir() else []


def _run_folders(members: bool = True) -> Iterator[Path]:
    for folder in (*job_folders(runs_dir()), *job_folders(weights_dir())):
        if (file := series_file(folder)) is None:
            yield folder
        elif members:
            yield from sorted(p for p in folder.glob(f"{SERIES[file][1]}-*") if p.is_dir())


def series_folders() -> list[tuple[str, Path]]:
    """The folders under `runs/` that are series, each after the file that makes it one: `sweep.json` or `folds.json`."""
    return [(file, folder) for folder in job_folders(runs_dir()) if (file := series_file(folder))]


def list_runs(members: bool = True) -> list[Run]:
    """All runs whose `run.json` can be read, with the `members` of series or without: newest first, the shipped ones last
    and by name."""
    usable = [run for run in map(Run, _run_folders(members)) if _problem(run) is None]
    made = sorted((run for run in usable if not run.shipped), key=lambda run: run.created, reverse=True)
    return made + [run for run in usable if run.shipped]


def damaged_runs() -> list[str]:
    """One sentence for each folder among the runs that cannot be read as one."""
    return [problem for run in map(Run, _run_folders()) if (problem := _problem(run)) is not None]


def _problem(run: Run) -> str | None:
    try:
        run.recipe  # noqa: B018 - reading it is the check
    except RunError as error:
        return str(error)
    return None


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock file `path`."""
    if not os.path.exists(path):
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def write_status(folder: Path, status: Status) -> None:
    """Replace `status.json` in one step, stamped with the time."""
    values = asdict(status)
    del values["live"]
    write_json(folder / "status.json", {**values, "updated": time.time()})


def write_json(path: Path, value: Any) -> None:
    """Replace the file `path` in one step, so that a reader sees the old or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in the file `path`; None where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if _has(record, RECORD) and record["epoch"] > 0 else None


def _status(values: dict[str, Any]) -> Status:
    usable = {name: value for name, value in values.items() if name in STATUS and fits(value, STATUS[name])}
    if usable.get("state") not in STATES:
        usable.pop("state", None)
    if not _has(usable.get("best"), BEST):
        usable.pop("best", None)
    return Status(**usable)


def _are_names(values: list[Any]) -> bool:
    return len(values) > 0 and all(isinstance(value, str) for value in values)


def _has(value: Any, kinds: dict[str, Any]) -> TypeGuard[dict[str, Any]]:
    """Whether `value` is an object that has all these members, each of its kind."""
    return isinstance(value, dict) and all(fits(value.get(name), kind) for name, kind in kinds.items())


def fits(value: Any, kind: Any) -> bool:
    """Whether `value` is of this type; a whole number also counts as a float, one that is not finite as nothing."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return abs(value) < 2**63 and (isinstance(value, kind) or isinstance(float(value), kind))
    return isinstance(value, kind)


def _is_share(value: Any) -> bool:
    return fits(value, float) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return fits(value, int) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_square(value: Any) -> bool:
    """Whether it is a table of counts with as many columns as rows."""
    rows = value if isinstance(value, list) else []
    return bool(rows) and all(isinstance(r, list) and len(r) == len(rows) and all(map(_is_count, r)) for r in rows)


def _are_bins(value: Any) -> bool:
    """Whether it is a list as `alexnet.measures.reliability` makes it."""
    kinds = {"confidence": float, "accuracy": float, "count": int}
    return isinstance(value, list) and all(_has(each, kinds) and _is_interval(each.get("interval")) for each in value)


def _is_interval(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(_is_share, value)))


def _are_counts(value: Any) -> bool:
    """Whether it is a count for each class of each split."""
    splits = value.values() if isinstance(value, dict) else [None]
    return all(isinstance(classes, dict) and all(map(_is_count, classes.values())) for classes in splits)


# What the members of a report have to be: name -> check.
REPORT: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("accuracy", "top5", "ece", "risk_at_90", "auroc_neither", "mean_probability_change"), _is_share),
    **dict.fromkeys(("split", "data", "network"), _is_text),
    **dict.fromkeys(("count", "best_epoch"), _is_count),
    "rank": lambda value: value is None or _is_count(value),
    "loss": lambda value: fits(value, float),
    "classes": lambda value: isinstance(value, list) and _are_names(value),
    "confusion": _is_square,
    "reliability": _are_bins,
    "splits": _are_counts,
    "neither": lambda value: _has(value, {"count": int}),
    "uncompressed": lambda value: _has(value, {"bytes": int, "accuracy": float}),
}


class Stopped(Exception):
    """Somebody asked the run to stop."""


class Reporter:
    """The trainer's pen: the status, replaced now and then, and the metrics, one appended line a record.

    New messages and records are printed too, for the log and for whoever trains from a terminal.
    """

    def __init__(self, run: Run, status: Status) -> None:
        self.folder, self.status, self._written = run.path, status, 0.0
        self.interrupted = False  # by a signal
        self._stoppable = [run.path, run.path.parent] if run.is_member else [run.path]
        self._write()

    def say(self, **changes: Any) -> None:
        """Change the status and write it now."""
        if (message := changes.get("message")) and message != self.status.message:
            print(message, flush=True)
        self.status = replace(self.status, **changes)
        self._write()

    def now_and_then(self, **changes: Any) -> None:
        """Change the status; write it if the last time was a while ago."""
        self.status = replace(self.status, **changes)
        if time.monotonic() - self._written >= STATUS_SECONDS:
            self._write()

    def _write(self) -> None:
        write_status(self.folder, self.status)
        self._written = time.monotonic()

    def preparing(self, stage: str, done: int, total: int) -> None:
        """Progress of what comes before training."""
        self.check_stop()
        self.now_and_then(message=f"{stage}: {done:,} of {total:,}.")

    def stop_asked(self) -> bool:
        """Whether a signal came, or somebody has put the file `stop` into the run folder, or that of its series."""
        return self.interrupted or any((folder / "stop").exists() for folder in self._stoppable)

    def check_stop(self) -> None:
        """Raises `Stopped` where it was asked for."""
        if self.stop_asked():
            raise Stopped

    def record(self, **values: Any) -> None:
        """Append one line to `metrics.jsonl`."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        place = f"epoch {values['epoch']} of {self.status.epochs}, step {values['step']:,}, {values['split']}"
        print(f"{place}: accuracy {values['accuracy']:.2%}, loss {values['loss']:.4f}", flush=True)

    def forget_after(self, epoch: int, step: int) -> None:
        """Drop the records of what a run resumed at `step`, with `epoch` finished epochs, is about to do again."""
        # A run that is resumed has not finished, so its test, the last thing of all, is still to come.
        records = (r for r in Run(self.folder).metrics() if r["step"] <= step and r["split"] != "test")
        kept = [r for r in records if r.get("partial") or r["epoch"] <= epoch]
        temporary = self.folder / ".metrics.jsonl"
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        os.replace(temporary, self.folder / "metrics.jsonl")


class SilentReporter(Reporter):
    """For a process that trains beside the first one, which alone writes."""

    def say(self, **changes: Any) -> None:
        """Nothing."""

    def record(self, **values: Any) -> None:
        """Nothing."""

    def forget_after(self, epoch: int, step: int) -> None:
        """Nothing."""

    def _write(self) -> None:
        self._written = time.monotonic()
