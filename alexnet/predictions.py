"""What a run answered to photos whose labels are known: read from its `predictions.csv`, asked without its network.

The run's own folder holds the evaluation that ended its training, each folder in its `evaluations/` another one in the
same shape: `report.json` and `predictions.csv`. The name of such a folder says split and fingerprint, which changes with
the photos and with the network.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.data import Dataset, digest
from alexnet.runs import Run, RunError

FILE = "predictions.csv"
FOLDER = "evaluations"
ABOUT = (
    "file",
    "label",
    "predicted",
)  # its first columns; the probability of each class, or of the predicted one, follows
LEAST = 5e-7  # what a probability may have been that is written as 0.000000


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers to N photos whose labels are known."""

    classes: tuple[str, ...]
    files: tuple[str, ...]  # relative to the dataset's root
    labels: np.ndarray  # (N,) int64, indices of classes
    predicted: np.ndarray  # (N,) int64
    confidence: np.ndarray  # (N,) float64, the probability of the predicted class
    probabilities: np.ndarray | None = None  # (N, classes) float64; None where there are too many classes to tell

    @functools.cached_property
    def right(self) -> np.ndarray:
        """(N,) bool, where the answer is the label."""
        return self.labels == self.predicted

    @functools.cached_property
    def losses(self) -> np.ndarray:
        """(N,) float64, the cross-entropy of each answer in nats; where only the top probability is known, the least it can be."""
        if self.probabilities is None:
            own = np.where(self.right, self.confidence, 1 - self.confidence)
        else:
            own = self.probabilities[np.arange(len(self.labels)), self.labels]
        return -np.log(np.maximum(own, LEAST))

    @functools.cached_property
    def confusion(self) -> np.ndarray:
        """(classes, classes) int64: how many photos of a class, the row, were taken for another, the column."""
        n = len(self.classes)
        return np.bincount(self.labels * n + self.predicted, minlength=n * n).reshape(n, n)

    def cell(self, label: int, predicted: int) -> np.ndarray:
        """The indices of the photos of one class that were taken for another, or the same, most confident first."""
        inside = np.flatnonzero((self.labels == label) & (self.predicted == predicted))
        return inside[np.argsort(-self.confidence[inside], kind="stable")]

    def by_loss(self, mistakes: bool) -> np.ndarray:
        """The indices of the photos, or of those with a wrong answer only, greatest loss first."""
        order = np.argsort(-self.losses, kind="stable")
        return order[~self.right[order]] if mistakes else order


def read(folder: Path, classes: Sequence[str]) -> Predictions:
    """The `predictions.csv` in `folder`, of a run that knows `classes`.

    Raises:
        RunError: there is none, or it cannot be read.
    """
    try:
        with (folder / FILE).open(newline="", encoding="utf-8") as file:
            return parse(csv.reader(file), classes)
    except FileNotFoundError:
        raise RunError(f"{folder.name} has no {FILE}; evaluate the run again.") from None
    except (OSError, ValueError, csv.Error):
        raise RunError(
            f"The {FILE} of {folder.name} cannot be read; delete the file and evaluate the run again."
        ) from None


def parse(rows: Iterable[Sequence[str]], classes: Sequence[str]) -> Predictions:
    """The predictions in the `rows` of a table, its heading first; raises ValueError where it is none of these classes."""
    index = {name: number for number, name in enumerate(classes)}
    heading, *rows = rows
    whole = tuple(heading) == (*ABOUT, *classes)
    if not rows or not (whole or len(heading) == len(ABOUT) + 1) or any(len(row) != len(heading) for row in rows):
        raise ValueError("not a table of these classes")
    files, names, answers, *columns = zip(*rows, strict=True)
    if not set(names).union(answers) <= index.keys():
        raise ValueError("classes that the run does not know")
    labels, predicted = (np.array([index[name] for name in column]) for column in (names, answers))
    numbers = np.array(columns, float).T
    if not ((numbers >= 0) & (numbers <= 1)).all():
        raise ValueError("not probabilities")
    confidence = numbers[np.arange(len(rows)), predicted] if whole else numbers[:, 0]
    return Predictions(tuple(classes), files, labels, predicted, confidence, numbers if whole else None)


def place(run: Run, dataset: Dataset, split: str) -> Path:
    """The folder for the evaluation of `run`, as its network is now, on a split of `dataset`; it need not exist.

    Raises:
        OSError: the run has no weights.
    """
    return run.path / FOLDER / f"{split}-{digest(f'{dataset.fingerprint} {network(run)}'.encode())[:12]}"


def stored(run: Run, now: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder and the report of each evaluation that was made with the network as it is `now`, by its fingerprint."""
    for folder in sorted(folder for folder in (run.path / FOLDER).glob("*") if (folder / FILE).is_file()):
        report = Run(folder).report()
        if report and report.get("network") == now and all(isinstance(report.get(n), str) for n in ("data", "split")):
            yield folder, report


def network(run: Run) -> str:
    """A fingerprint of all that the probabilities of a run come from: its weights and its temperature.

    Raises:
        OSError: it has no weights.
    """
    calibration = run.path / "calibration.json"
    with run.weights.open("rb") as file:
        content = hashlib.file_digest(file, "blake2b").hexdigest()
    return digest(content.encode() + (calibration.read_bytes() if calibration.exists() else b""))
