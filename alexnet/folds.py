"""Cross-validation: the photos in K folds, a run for each that is tested on it, and one summary of all tests.

A cross-validation is a series, see `alexnet.series`, of `folds.json` and the runs `fold-1` to `fold-K`. Its report tells
mean and deviation, and what became of each photo: as a test photo it counts exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from alexnet import data, runs, series
from alexnet.measures import by_class
from alexnet.recipes import Recipe
from alexnet.runs import FOLDS_FILE, Run, RunError
from alexnet.series import Series, mean_and_deviation

METRICS = {"accuracy", "loss", "count", "classes", "confusion"}  # what the report of each fold has to hold


@dataclass(frozen=True)
class CrossValidation(Series):
    """What `folds.json` says; `recipe` is that of the first fold, and the others differ in `fold`."""

    FILE: ClassVar[str] = FOLDS_FILE
    COMMAND: ClassVar[str] = "train"
    BEARS_FAILURES: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.recipe.folds:
            raise ValueError("a recipe without folds")

    @property
    def count(self) -> int:
        """How many folds there are."""
        return self.recipe.folds

    def recipe_of(self, number: int) -> Recipe:
        """The recipe of the run that is tested on this fold, from 1."""
        return self.recipe.replace(fold=number)

    def report(self) -> dict[str, Any]:
        """What the folds say together, see `summarize`.

        Raises:
            RunError: the report of one is lost.
        """
        return summarize([_report(self.run(fold)) for fold in range(1, self.count + 1)])


def create(recipe: Recipe, name: str, dataset: data.Dataset, path: Path | None = None) -> CrossValidation:
    """Make the folder of a cross-validation; nothing trains yet.

    Args:
        recipe: the settings, with `folds` as wanted and any `fold`.
        name: that of the dataset, or its folder, as a person gave it.
        dataset: what it led to.
        path: the folder to make; by default a new one under `runs/`.

    Raises:
        DataError: a class has fewer photos than there are folds, or nothing is left to train on or to validate with.
        RunError: as `alexnet.runs.create`.
    """
    recipe = runs.fitted(recipe.replace(fold=1), dataset)
    for fold in range(1, recipe.folds + 1):
        data.split(dataset, recipe.replace(fold=fold))
    return series.create(CrossValidation, path, f"{recipe.name}-{recipe.folds}-folds", recipe, name, dataset)


def _report(run: Run) -> dict[str, Any]:
    report = run.report()
    if report is None or METRICS - report.keys():
        raise RunError(f"The report.json of {run.id} cannot be read; delete that folder and resume to train it again.")
    return report


def summarize(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the folds say together.

    Args:
        reports: one a fold, with the metrics of `alexnet.evaluate.score` on its test photos.

    Returns:
        `accuracy` and `loss`: their `mean` over the folds and their `deviation`, that of a sample (n - 1); `folds`: the
        accuracy, loss and count of each; and over all photos, each of which was tested once, `count`, `classes`,
        `confusion` and `per_class` as `score` has them.
    """
    classes = reports[0]["classes"]
    confusion = np.sum([report["confusion"] for report in reports], axis=0).tolist()
    return {
        **{name: mean_and_deviation([report[name] for report in reports]) for name in ("accuracy", "loss")},
        "folds": [{name: report[name] for name in ("accuracy", "loss", "count")} for report in reports],
        "count": sum(report["count"] for report in reports),
        "classes": classes,
        "confusion": confusion,
        "per_class": by_class(confusion, classes),
    }
