"""Cross-validation: the photos in K folds, a run for each that is tested on it, and one summary of all tests.

A cross-validation is a folder with `folds.json` and in it the run folders `fold-1` to `fold-K`, made one after the other.
When all of them have finished, `report.json` tells mean and deviation, and what became of each photo: as a test photo
it counts exactly once.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet import data, runs
from alexnet.recipes import Recipe
from alexnet.runs import FOLDS_FILE, Run, RunError

METRICS = {"accuracy", "loss", "count", "classes", "confusion"}  # what the report of each fold has to hold


@dataclass(frozen=True)
class CrossValidation:
    """What `folds.json` says."""

    path: Path
    recipe: Recipe  # of the first fold; the others differ in `fold`
    data: str  # the name of a dataset, or a folder
    fingerprint: str  # of that dataset

    def run(self, fold: int) -> Run:
        """The run that is tested on this fold, from 1; its folder need not exist yet."""
        return Run(self.path / f"fold-{fold}")


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
    config = {
        "format": 1,
        "recipe": recipe.to_dict(),
        "data": name,
        "fingerprint": dataset.fingerprint,
        "created": time.time(),
    }
    folder = runs.make_folder(path, f"{recipe.name}-{recipe.folds}-folds", FOLDS_FILE, config)
    return CrossValidation(folder, recipe, name, dataset.fingerprint)


def find(name: Path) -> CrossValidation | None:
    """The cross-validation in this folder, or in the one of this name under `runs/`; None where there is none.

    Raises:
        RunError: its `folds.json` cannot be read.
    """
    for folder in (runs.runs_dir() / name, Path(os.path.expanduser(name))):
        if os.path.isfile(folder / FOLDS_FILE):
            return _read(folder.resolve())
    return None


def _read(folder: Path) -> CrossValidation:
    try:
        config = json.loads((folder / FOLDS_FILE).read_text(encoding="utf-8"))
        recipe, name, fingerprint = Recipe.from_dict(config["recipe"]), config["data"], config["fingerprint"]
        if not recipe.folds or not isinstance(name, str):
            raise ValueError("neither folds nor photos")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise RunError(
            f"The {FOLDS_FILE} of {folder.name} cannot be read; restore the file or start a new cross-validation."
        ) from None
    return CrossValidation(folder, recipe, name, fingerprint)


def train(
    validation: CrossValidation, work: Callable[[Run], int], progress: data.Progress | None = None
) -> dict[str, Any] | None:
    """Train the folds that have not finished, each from its last checkpoint, and write the report.

    Args:
        validation: which one.
        work: trains a run and returns 0 if it finished or was stopped, as `alexnet.worker.work` does.
        progress: as for `alexnet.data.load`.

    Returns:
        The report, see `summarize`; None if somebody stopped a fold, or all of them by a file `stop` beside them.

    Raises:
        RunError: a fold failed, or the report cannot be written.
        DataError: the photos cannot be read, or are not those that the folds were made of.
    """
    dataset = data.load(validation.data, progress)
    if dataset.fingerprint != validation.fingerprint:
        raise data.DataError(f"{dataset.name} has changed since its folds were made; start a new cross-validation.")
    numbers = range(1, validation.recipe.folds + 1)
    stop = validation.path / "stop"
    stop.unlink(missing_ok=True)
    try:
        for fold in numbers:
            if stop.exists() or not _train_fold(validation, fold, dataset, work):
                return None
    finally:
        stop.unlink(missing_ok=True)
    report = summarize([_report(validation.run(fold)) for fold in numbers])
    try:
        runs.write_json(validation.path / "report.json", report)
    except OSError as error:
        raise RunError(f"The report cannot be written ({error.strerror}); free some space and resume.") from None
    return report


def _train_fold(validation: CrossValidation, fold: int, dataset: data.Dataset, work: Callable[[Run], int]) -> bool:
    """Whether the fold is finished in the end."""
    run = validation.run(fold)
    if run.status().state == "finished":
        return True
    if not (run.path / "run.json").exists():
        runs.create(validation.recipe.replace(fold=fold), validation.data, dataset, path=run.path)
    (run.path / "stop").unlink(missing_ok=True)
    print(f"Fold {fold} of {validation.recipe.folds}: {run.path}", flush=True)
    if work(run) != 0:
        raise RunError(
            f"Fold {fold} did not finish; see to that and go on with: python -m alexnet train --resume --run {validation.path}."
        )
    return run.status().state == "finished"


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
    from alexnet.evaluate import by_class  # imports torch

    classes = reports[0]["classes"]
    confusion = np.sum([report["confusion"] for report in reports], axis=0).tolist()
    return {
        **{name: _mean_and_deviation([report[name] for report in reports]) for name in ("accuracy", "loss")},
        "folds": [{name: report[name] for name in ("accuracy", "loss", "count")} for report in reports],
        "count": sum(report["count"] for report in reports),
        "classes": classes,
        "confusion": confusion,
        "per_class": by_class(confusion, classes),
    }


def _mean_and_deviation(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "deviation": statistics.stdev(values)}
