"""The photos whose labels a network would least have expected: wrong labels are among the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F

from alexnet import data
from alexnet.data import Dataset, Photo
from alexnet.evaluate import evaluate
from alexnet.predict import Classifier


@dataclass(frozen=True)
class Surprise:
    """A photo, how far its label is from what the network says, and what that is."""

    photo: Photo
    loss: float  # cross-entropy of the photo's label, in nats
    predicted: str  # the likeliest class
    confidence: float  # its probability, 0 to 1


def most_surprising(
    classifier: Classifier, dataset: Dataset, photos: Sequence[Photo], progress: data.Progress | None = None
) -> list[Surprise]:
    """`photos` by their loss, the highest first (as Northcutt et al. 2021, arXiv 1911.00068, find wrong labels by).

    Raises:
        DataError: as `alexnet.evaluate.evaluate`.
    """
    found = evaluate(classifier, dataset, photos, progress)
    losses = F.cross_entropy(found.logits.double(), found.labels, reduction="none").tolist()
    confidences, predicted = found.logits.double().softmax(1).max(1)
    rows = zip(photos, losses, predicted.tolist(), confidences.tolist(), strict=True)
    ranked = [Surprise(photo, loss, found.classes[best], sure) for photo, loss, best, sure in rows]
    return sorted(ranked, key=lambda each: -each.loss)
