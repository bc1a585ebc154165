"""Metrics: every figure on a page, in a report or in the README comes from here."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from alexnet import runs
from alexnet.data import DataError, Dataset, Photo
from alexnet.images import PhotoError
from alexnet.predict import Classifier

BATCH = 64


@dataclass(frozen=True)
class Evaluation:
    """Predictions for photos whose labels are known."""

    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: Tensor  # (N,) int64
    logits: Tensor  # (N, classes) float32

    @property
    def metrics(self) -> dict[str, Any]:
        """As `score` gives them."""
        return score(self.logits, self.labels, self.classes)


def score(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """The metrics of predictions.

    Args:
        logits: `(N, classes)` float.
        labels: `(N,)` int64, indices into `classes`.
        classes: their names.

    Returns:
        `accuracy` (0 to 1), `loss` (mean cross-entropy in nats), `count`, `classes`, `confusion` (counts; rows are true
        classes, columns predicted ones) and `per_class` (name -> `count` and `accuracy`, None where there is no photo).
    """
    n = len(classes)
    confusion = torch.bincount(labels * n + logits.argmax(dim=1), minlength=n * n).view(n, n)
    return {
        "accuracy": confusion.trace().item() / len(labels),
        "loss": F.cross_entropy(logits.double(), labels).item(),
        "count": len(labels),
        "classes": list(classes),
        "confusion": confusion.tolist(),
        "per_class": by_class(confusion.tolist(), classes),
    }


def by_class(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The `per_class` of `score`, from its `confusion`."""
    counts = {name: (row[index], sum(row)) for index, (name, row) in enumerate(zip(classes, confusion, strict=True))}
    return {
        name: {"count": total, "accuracy": right / total if total else None} for name, (right, total) in counts.items()
    }


def evaluate(
    classifier: Classifier,
    dataset: Dataset,
    photos: Sequence[Photo],
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Classify `photos` of `dataset` from their files, exactly as an uploaded photo is.

    Raises:
        DataError: the dataset has a class that the classifier does not know, or a photo can no longer be read.
    """
    index = match_classes(dataset.classes, classifier.classes)

    def crop(photo: Photo) -> Image.Image:
        return classifier.transform.crop_photo(dataset.open(photo))

    logits = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(photos), BATCH):
            try:
                crops = list(pool.map(crop, photos[start : start + BATCH]))
            except PhotoError as error:
                raise DataError(f"A photo of {dataset.name} changed while it was read: {error}") from None
            logits.append(classifier.answer(classifier.transform.stack(crops)))
            if progress:
                progress("Evaluating", min(start + BATCH, len(photos)), len(photos))
    labels = torch.tensor([index[photo.label] for photo in photos])
    return Evaluation(classifier.classes, tuple(photo.path for photo in photos), labels, torch.cat(logits))


def match_classes(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """For each of `names` the index in `known` of the class it means: `Cats`, `cat` and `CAT` are one.

    Raises:
        DataError: a name means none of them.
    """
    meanings = {_meaning(name): index for index, name in enumerate(known)}
    exact = {name: index for index, name in enumerate(known)}
    for name in names:
        if _meaning(name) not in meanings:
            raise DataError(f"The photos have a class {name}, and this run knows only {', '.join(known)}.")
    return [exact.get(name, meanings[_meaning(name)]) for name in names]


def _meaning(name: str) -> str:
    return name.strip().casefold().removesuffix("s")


def write_report(folder: Path, evaluation: Evaluation, **more: Any) -> None:
    """Write `report.json` and `predictions.csv` (file, true label, predicted label, a probability for each class)."""
    runs.write_json(folder / "report.json", {**more, **evaluation.metrics})
    classes = evaluation.classes
    rows = zip(evaluation.files, evaluation.labels.tolist(), evaluation.logits.softmax(1).tolist(), strict=True)
    temporary = folder / ".predictions.csv"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "predicted", *classes])
        for name, label, row in rows:
            writer.writerow([name, classes[label], classes[row.index(max(row))], *(f"{p:.6f}" for p in row)])
    os.replace(temporary, folder / "predictions.csv")
