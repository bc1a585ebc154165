"""Metrics: every figure on a page, in a report or in the README comes from here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def class_logits(output: Tensor) -> Tensor:
    """One logit per class, `(N, classes)`: a network's single logit z becomes (-z/2, z/2), whose softmax is sigmoid(z)."""
    return torch.cat([-output / 2, output / 2], dim=1) if output.shape[1] == 1 else output


def averaged_logits(model: nn.Module, x: Tensor, mirror: bool) -> Tensor:
    """Logits `(N, classes)` of normalised photos, averaged with those of the mirror images if `mirror`."""
    logits = class_logits(model(x))
    return (logits + class_logits(model(x.flip(3)))) / 2 if mirror else logits


def batches(images: np.ndarray, size: int) -> Iterator[Tensor]:
    """`(N, 3, H, W)` uint8 photos in batches of `size`, the last one filled up with black to keep one shape."""
    for start in range(0, len(images), size):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + size]))
        missing = size - len(batch)
        yield batch if not missing else torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])])


def score(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """The metrics of predictions.

    Args:
        logits: `(N, classes)` float.
        labels: `(N,)` int64, indices into `classes`.
        classes: their names.

    Returns:
        `accuracy` (0 to 1), `loss` (mean cross-entropy in nats), `count`, `classes`, `confusion` (rows are true classes,
        columns predicted ones, counts) and `per_class` (name -> `count` and `accuracy`, None where there is no photo).
    """
    n = len(classes)
    predicted = logits.argmax(dim=1)
    confusion = torch.bincount(labels * n + predicted, minlength=n * n).view(n, n)
    totals, right = confusion.sum(dim=1).tolist(), confusion.diagonal().tolist()
    return {
        "accuracy": sum(right) / len(labels),
        "loss": F.cross_entropy(logits.double(), labels).item(),
        "count": len(labels),
        "classes": list(classes),
        "confusion": confusion.tolist(),
        "per_class": {
            name: {"count": total, "accuracy": hits / total if total else None}
            for name, total, hits in zip(classes, totals, right, strict=True)
        },
    }
