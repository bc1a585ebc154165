"""A network's answers to photos whose labels are known, and their report; every figure in it is one of `measures`."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from alexnet import calibration, data, familiarity, measures, predictions, public, runs
from alexnet.data import DataError, Dataset, Photo
from alexnet.images import PhotoError, open_photo
from alexnet.predict import Classifier

BATCH = 64
COVERAGE = 0.9  # of the photos, at which the risk is reported
TOP = 5  # of more classes the share of photos is told whose class is among so many likeliest ones, as for ImageNet
MOST_COLUMNS = 100  # classes up to which the probability of each is written


@dataclass(frozen=True)
class Evaluation:
    """Predictions for photos whose labels are known."""

    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: Tensor  # (N,) int64
    logits: Tensor  # (N, classes) float32
    familiarity: Tensor | None = None  # (N,) float32, scores of `Familiarity.score`

    @property
    def metrics(self) -> dict[str, Any]:
        """As `score` gives them."""
        return score(self.logits, self.labels, self.classes)


def score(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """The metrics of predictions.

    Args:
        logits: `(N, classes)` float, already divided by the temperature.
        labels: `(N,)` int64, indices into `classes`.
        classes: their names.

    Returns:
        `accuracy` (0 to 1), `loss` (mean cross-entropy in nats), `count`, `classes`, `confusion` (counts; rows are true
        classes, columns predicted ones), `per_class` (name -> `count` and `accuracy`, None where there is no photo), `ece`
        (0 to 1), `risk_at_90` (the error rate, 0 to 1, of the 90 % of photos with the highest top probability) and
        `reliability` (as `measures.reliability` has it). Of more than five classes also `top5` (0 to 1), the share of
        photos whose class is among the five likeliest.
    """
    n, predicted = len(classes), logits.argmax(dim=1)
    confidence, right = logits.double().softmax(1).amax(1), predicted == labels
    bins = measures.reliability(confidence, right)
    confusion = torch.bincount(labels * n + predicted, minlength=n * n).view(n, n)
    top = {f"top{TOP}": top_accuracy(logits, labels, TOP)} if n > TOP else {}
    return {
        "accuracy": confusion.trace().item() / len(labels),
        **top,
        "loss": F.cross_entropy(logits.double(), labels).item(),
        "count": len(labels),
        "classes": list(classes),
        "confusion": confusion.tolist(),
        "per_class": measures.by_class(confusion.tolist(), classes),
        "ece": measures.expected_calibration_error(bins),
        "risk_at_90": measures.risk(confidence, right, COVERAGE),
        "reliability": bins,
    }


def top_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """The share of photos whose class is among the `k` likeliest; of classes that tie the first counts as the likelier.

    With `k` 1 it is the accuracy, which goes by the first maximum, too.
    """
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1]) < labels[:, None]
    ahead = (logits > own) | ((logits == own) & earlier)
    return (ahead.sum(1) < k).double().mean().item()


def auroc(inside: Tensor, outside: Tensor) -> float:
    """The probability that a score of `inside` `(N,)` is higher than one of `outside` `(M,)`; equal ones count half."""
    ordered = outside.double().sort().values
    below, up_to = (torch.searchsorted(ordered, inside.double(), right=right).double() for right in (False, True))
    return ((below + up_to).mean() / (2 * len(ordered))).item()


def evaluate(
    classifier: Classifier,
    dataset: Dataset,
    photos: Sequence[Photo],
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Classify `photos` of `dataset` from their files, exactly as an uploaded photo is.

    Raises:
        DataError: a photo is of a class that the classifier does not know, or can no longer be read.
    """
    found = sorted({photo.label for photo in photos})
    index = dict(zip(found, match_classes([dataset.classes[n] for n in found], classifier.classes), strict=True))
    tell = partial(progress, "Evaluating") if progress else None
    crop = _cropper(classifier, dataset)
    logits, scores = _examine(classifier, _stacks(classifier, photos, crop, tell))
    labels = torch.tensor([index[photo.label] for photo in photos])
    return Evaluation(classifier.classes, tuple(photo.path for photo in photos), labels, logits, scores)


def evaluate_and_keep(
    classifier: Classifier,
    name: str,
    dataset: Dataset,
    split: str,
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Evaluate a split of `dataset`, known as `name`, unless that was done before; where `predictions.place` says.

    Raises:
        DataError: as `evaluate` and `data.split_of`.
        RunError: the result cannot be written into the run's folder.
    """
    public.refuse("new evaluations on datasets")
    run = classifier.run
    photos = data.split_of(dataset, run.recipe, split)
    folder = predictions.place(run, dataset, split)
    if (folder / predictions.FILE).exists():
        return folder
    try:
        folder.parent.mkdir(exist_ok=True)  # what could not be kept is not computed
        evaluation = evaluate(classifier, dataset, photos, progress)
        folder.mkdir(exist_ok=True)
        write_report(folder, evaluation, split=split, data=name, network=predictions.network(run))
    except OSError as error:
        raise runs.RunError(
            f"The evaluation cannot be kept in the folder of {run.id} ({error.strerror}); free some space or give "
            "yourself permission to write there."
        ) from None
    return folder


def _cropper(classifier: Classifier, dataset: Dataset) -> Callable[[Photo], Image.Image]:
    def crop(photo: Photo) -> Image.Image:
        try:
            return classifier.transform.crop_photo(dataset.open(photo))
        except PhotoError as error:
            raise DataError(f"A photo of {dataset.name} changed while it was read: {error}") from None

    return crop


def _examine(classifier: Classifier, stacks: Iterable[Tensor]) -> tuple[Tensor, Tensor | None]:
    """As `Classifier.examine` has it, of several stacks; no rows where there is none."""
    parts = [classifier.examine(images) for images in stacks]
    if not parts:
        return torch.zeros(0, len(classifier.classes)), None
    logits, scores = zip(*parts, strict=True)
    return torch.cat(logits), None if scores[0] is None else torch.cat(scores)


def calibrate(
    classifier: Classifier,
    dataset: Dataset,
    photos: Sequence[Photo],
    progress: Callable[[str, int, int], None] | None = None,
    training: Sequence[Photo] = (),
) -> Evaluation:
    """Fit what makes a classifier's answers honest to validation `photos`, and write the `calibration.json` of its run.

    Of `training` photos some teach it what is familiar; where there are too few, it says nothing about that.

    Returns:
        The evaluation of `photos` as the calibrated classifier would give it.

    Raises:
        DataError: as `evaluate`.
        OSError: the file cannot be written.
    """
    head = _fit_familiarity(classifier, dataset, training, progress)
    uncalibrated = evaluate(replace(classifier, temperature=1.0, familiarity=head), dataset, photos, progress)
    temperature = calibration.fit_temperature(uncalibrated.logits, uncalibrated.labels)
    folder, found = classifier.run.path, None
    if head is None:
        (folder / familiarity.FILE).unlink(missing_ok=True)
    else:
        assert uncalibrated.familiarity is not None
        head = head.referring_to(uncalibrated.familiarity)
        familiarity.save(folder, head)
        found = {"method": familiarity.METHOD, "threshold": head.threshold}
    calibration.write(folder, temperature, found)
    return replace(uncalibrated, logits=uncalibrated.logits / temperature)


def _fit_familiarity(
    classifier: Classifier,
    dataset: Dataset,
    training: Sequence[Photo],
    progress: Callable[[str, int, int], None] | None,
) -> familiarity.Familiarity | None:
    """`familiarity.fit` to some of the photos, from all over their order."""
    if len(training) < familiarity.FEWEST:
        return None
    photos = training[:: math.ceil(len(training) / familiarity.MOST)]
    tell = partial(progress, "Learning what is familiar") if progress else None
    stacks = _stacks(classifier, photos, _cropper(classifier, dataset), tell)
    transform = classifier.transform
    with classifier.lock:
        head = familiarity.fit(
            classifier.model,  # type: ignore[arg-type]  # a whole network
            (transform.normalize(transform.views(s.to(classifier.device))[0]) for s in stacks),
        )
    return head and head.to(classifier.device)


def measure_neither(
    classifier: Classifier,
    folder: Path,
    known: Evaluation,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """How well the photos of `known` can be told from all photos in `folder`, which show something else.

    Its subfolders are searched, whatever their names: who gives the folder says that none of its photos is of a class.

    Returns:
        `auroc_neither`, and `neither`: how many photos counted (`count`) and could not be read (`skipped`).

    Raises:
        DataError: there is no such folder, or no photo in it that can be read.
    """
    files = data.photo_files(folder)

    def crop(file: str) -> Image.Image | None:
        try:
            return classifier.transform.crop_photo(open_photo(folder / file))
        except PhotoError:
            return None

    tell = partial(progress, "Looking at photos of neither") if progress else None
    logits, scores = _examine(classifier, _stacks(classifier, files, crop, tell))
    if not len(logits):
        raise DataError(f"No photo in {folder} can be read; give a folder of photos that show something else.")
    return {
        "auroc_neither": auroc(_certainty(known.logits, known.familiarity), _certainty(logits, scores)),
        "neither": {"count": len(logits), "skipped": len(files) - len(logits)},
    }


def _certainty(logits: Tensor, scores: Tensor | None) -> Tensor:
    """The scores of familiarity, or where the run was not taught that, the highest probabilities."""
    return logits.double().softmax(1).amax(1) if scores is None else scores


def _stacks(
    classifier: Classifier,
    items: Sequence[Any],
    crop: Callable[[Any], Image.Image | None],
    tell: Callable[[int, int], None] | None,
) -> Iterator[Tensor]:
    """What `crop` makes of the items as `(n, 3, S, S)` uint8, some at a time; those that it makes None of are left out."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(items), BATCH):
            crops = [made for made in pool.map(crop, items[start : start + BATCH]) if made is not None]
            if crops:
                yield classifier.transform.stack(crops)
            if tell:
                tell(min(start + BATCH, len(items)), len(items))


def match_classes(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """For each of `names` the index in `known` of the class it means: `Cats`, `cat` and `CAT` are one.

    Raises:
        DataError: a name means none of them.
    """
    meanings = {data.meaning(name): index for index, name in enumerate(known)}
    exact = {name: index for index, name in enumerate(known)}
    for name in names:
        if data.meaning(name) not in meanings:
            knows = ", ".join(known) if len(known) <= measures.MOST_SHOWN else f"{len(known):,} others"
            raise DataError(f"The photos have a class {name}, and this run knows only {knows}.")
    return [exact.get(name, meanings[data.meaning(name)]) for name in names]


def write_report(folder: Path, evaluation: Evaluation, **more: Any) -> None:
    """Write `report.json` and `predictions.csv`: file, true label, predicted label, and a probability for each class.

    Of more than `MOST_COLUMNS` classes only the probability of the predicted one is written.
    """
    runs.write_json(folder / "report.json", {**more, **evaluation.metrics})
    classes = evaluation.classes
    rows = zip(evaluation.files, evaluation.labels.tolist(), evaluation.logits.softmax(1).tolist(), strict=True)
    temporary = folder / ".predictions.csv"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "predicted", *(classes if len(classes) <= MOST_COLUMNS else ["probability"])])
        for name, label, row in rows:
            top = max(row)
            told = row if len(classes) <= MOST_COLUMNS else [top]
            writer.writerow([name, classes[label], classes[row.index(top)], *(f"{p:.6f}" for p in told)])
    os.replace(temporary, folder / "predictions.csv")
