"""Runs side by side: the settings in which they differ, their curves, and what each made of the same test photos."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from alexnet import runs
from alexnet.errors import LabError
from alexnet.recipes import Recipe
from alexnet.runs import Run
from alexnet.significance import Paired, pair

SETTINGS = [field.name for field in fields(Recipe) if field.metadata["group"] != "about"]


class CompareError(LabError, ValueError):
    """Two runs that cannot be compared; the text is one sentence."""


def differing(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """The settings in which recipes differ, in the order of `Recipe`, each with its value in every one of them."""
    values = {name: [getattr(recipe, name) for recipe in recipes] for name in SETTINGS}
    return {name: row for name, row in values.items() if any(value != row[0] for value in row)}


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """The exponential moving average of a curve: each point counts `weight` times as much as the one after it.

    Divided by the weights so far, so that the first points do not lean to zero (Kingma and Ba 2015, section 3).

    Args:
        values: in order.
        weight: from 0, which leaves them as they are, to below 1.
    """
    smoothed, mean, total = [], 0.0, 0.0
    for value in values:
        mean, total = weight * mean + (1 - weight) * value, weight * total + (1 - weight)
        smoothed.append(mean / total)
    return smoothed


def curve(records: Sequence[Mapping[str, Any]], split: str, metric: str, by: str) -> list[tuple[float, float]]:
    """One point an epoch of a curve of a run.

    Args:
        records: as `Run.metrics` gives them.
        split: train or val.
        metric: accuracy (0 to 1) or loss (nats).
        by: epoch, or minutes of training; a record that does not tell its time has no point then.
    """
    found = [record for record in records if record["split"] == split and not record.get("partial")]
    if by == "epoch":
        return [(record["epoch"], record[metric]) for record in found]
    return [(record["seconds"] / 60, record[metric]) for record in found if runs.fits(record.get("seconds"), float)]


def outcomes(run: Run) -> dict[str, bool]:
    """Whether a run was right about each photo that it was tested on, by the photo's file.

    Raises:
        CompareError: it has no `predictions.csv`, or one that cannot be read.
    """
    try:
        with (run.path / "predictions.csv").open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if header[:3] != ["file", "label", "predicted"] or any(len(row) != len(header) for row in rows):
            raise ValueError
    except FileNotFoundError:
        raise CompareError(f"{run.id} has no predictions yet; let it finish, or evaluate it.") from None
    except (OSError, ValueError, csv.Error):
        raise CompareError(f"The predictions.csv of {run.id} cannot be read; evaluate the run again.") from None
    return {file: label == predicted for file, label, predicted, *_ in rows}


def same_photos(first: Run, second: Run) -> Paired:
    """What two runs made of the photos that both were tested on, matched by their files.

    Raises:
        CompareError: they were made for different photos, none was shown to both, or as `outcomes`.
        RunError: a run cannot be read.
    """
    if first.config["dataset"]["fingerprint"] != second.config["dataset"]["fingerprint"]:
        raise CompareError(
            f"{first.id} and {second.id} were made for different photos; choose runs on the same dataset. How each "
            "does on other photos, its Evaluation tells."
        )
    one, other = outcomes(first), outcomes(second)
    shared = [file for file in one if file in other]
    if not shared:
        raise CompareError(
            f"{first.id} and {second.id} were tested on different photos of their dataset; give runs the same seed "
            "and fractions to compare them."
        )
    return pair([one[file] for file in shared], [other[file] for file in shared])
