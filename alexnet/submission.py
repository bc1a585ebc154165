"""Answers to Kaggle's Dogs vs. Cats: a row for each photo of a folder that has no labels.

The competition of 2013 asked for labels, 1 for a dog and 0 for a cat; its second edition, Redux, for probabilities of a dog.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO

from PIL import Image

from alexnet import data, public
from alexnet.errors import LabError
from alexnet.evaluate import match_classes
from alexnet.images import PhotoError, open_photo
from alexnet.predict import Classifier

BATCH = 32
UNSEEN = 0.5  # the answer for a photo that cannot be opened; as a label, 0


class SubmissionError(LabError, ValueError):
    """There is nothing to submit, or no place to write it; the text is one sentence."""


@dataclass(frozen=True)
class Submission:
    """The answers for a folder of photos, and one sentence for each file that could not be answered as it should."""

    dogs: dict[int, float]  # the probability of a dog, 0 to 1, by the number of the photo; in ascending order
    problems: tuple[str, ...]

    def csv(self, probabilities: bool = False) -> str:
        """The rows in Kaggle's format: `id` is the photo's number, `label` 1 for a dog and 0 for a cat, or a probability."""
        rows = (f"{number},{f'{p:.6f}' if probabilities else int(p > 0.5)}\n" for number, p in self.dogs.items())
        return "".join(["id,label\n", *rows])


def predict(classifier: Classifier, folder: Path, progress: data.Progress | None = None) -> Submission:
    """Classify the photos in `folder` and its subfolders whose names are numbers, such as `1.jpg`.

    Args:
        classifier: that of a run of cats and dogs.
        folder: where the photos are.
        progress: told what is being done, how much of it, of how much; may raise to cancel.

    Raises:
        SubmissionError: the run is of other classes, or no photo has a number for a name.
        DataError: there is no such folder, it cannot be read, or it holds no photo.
    """
    public.refuse("folders of the computer that it runs on")
    dog = _dog(classifier)
    numbered, problems = _numbered(data.photo_files(folder))
    if not numbered:
        raise SubmissionError(
            f"No photo in {folder} has a number for a name, as in 1.jpg; give the folder of Kaggle's."
        )
    dogs, files = dict.fromkeys(sorted(numbered), UNSEEN), sorted(numbered.items())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            seen: dict[int, Image.Image] = {}
            for (number, file), photo in zip(batch, pool.map(lambda item: _open(folder / item[1]), batch), strict=True):
                if isinstance(photo, str):
                    problems.append(f"{file} is answered by a guess, label 0 or probability 0.5: {photo}")
                else:
                    seen[number] = photo
            for number, prediction in zip(seen, classifier(list(seen.values())), strict=True):
                dogs[number] = prediction.probabilities[dog]
            if progress:
                progress("Classifying", start + len(batch), len(files))
    return Submission(dogs, tuple(problems))


def _dog(classifier: Classifier) -> str:
    """What the classifier calls a dog."""
    with suppress(data.DataError):
        _, dog = match_classes(("cat", "dog"), classifier.classes)
        if len(classifier.classes) == 2:
            return classifier.classes[dog]
    raise SubmissionError(
        f"{classifier.run.id} does not tell cats from dogs, which Kaggle asks for; choose another run."
    )


def _numbered(files: Sequence[str]) -> tuple[dict[int, str], list[str]]:
    """The files by the numbers that are their names, and a sentence for each that is left out."""
    numbered: dict[int, str] = {}
    problems = []
    for file in files:
        name = PurePosixPath(file).stem
        if not (name.isascii() and name.isdecimal()):
            problems.append(f"{file} gets no row: its name is not a number.")
        elif (first := numbered.setdefault(int(name), file)) != file:
            problems.append(f"{file} gets no row: {first} has the same number.")
    return numbered, problems


def _open(path: Path) -> Image.Image | str:
    """The photo, or why it cannot be opened."""
    try:
        return open_photo(path)
    except PhotoError as error:
        text = str(error)
        return text[0].lower() + text[1:]


@contextmanager
def replacing(out: Path) -> Iterator[TextIO]:
    """A file to write that takes the place of `out`, in one step, when the block has ended well.

    Raises:
        SubmissionError: it cannot be written; where its place is at fault, before the block begins.
    """
    draft = out.with_name(f".{out.name}")
    try:
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        out.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(draft, out)
    except OSError as error:
        raise SubmissionError(f"{out} cannot be written ({error.strerror}); choose another place.") from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
