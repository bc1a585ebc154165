"""Street View House Numbers (Netzer et al. 2011): from the published matrices of 32 x 32 pixels to a folder for each digit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from alexnet.errors import LabError

if TYPE_CHECKING:
    from torchvision.datasets import SVHN

SPLITS = ("train", "test")  # of the published files, in this order
STEP = 500  # photos between two calls of progress


class SvhnError(LabError, ValueError):
    """A file that holds no house numbers; the text is one sentence that says which."""


def write(files: Sequence[Path], folder: Path, progress: Callable[[str, int, int], None]) -> None:
    """Write the digits of the two published files to `folder/train/<digit>/` and `folder/test/<digit>/` as PNG.

    Args:
        files: that for training and that for testing, in the format of MATLAB 5.
        folder: where to; it is there, and empty.
        progress: told what is being done, how much of it, of how much; may raise to cancel.

    Raises:
        SvhnError: a file is cut short, or holds something else.
    """
    for split, file in zip(SPLITS, files, strict=True):
        progress(f"Reading {file.name}", 0, 1)
        digits = _read(file, split)
        for digit in range(10):
            (folder / split / str(digit)).mkdir(parents=True)
        for number, (pixels, digit) in enumerate(zip(digits.data, digits.labels, strict=True)):
            picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            picture.save(folder / split / str(digit) / f"{number:05}.png")
            if number % STEP == 0 or number == len(digits) - 1:
                progress(f"Writing the digits of {file.name}", number + 1, len(digits))


def _read(file: Path, split: str) -> SVHN:
    """The digits of one file: `data` (N, 3, 32, 32) uint8 and `labels` (N,) int64, the digits themselves."""
    from torchvision import datasets  # here, because it takes seconds to import

    class Digits(datasets.SVHN):  # type: ignore[misc]  # torchvision is untyped
        split_list = {split: ["", file.name, None]}  # the file's digest was checked where it came from

    try:
        digits = Digits(file.parent, split)
        fits = digits.data.shape[1:] == (3, 32, 32) and digits.data.dtype == np.uint8
        fits = fits and digits.labels.shape == digits.data.shape[:1] and set(digits.labels.tolist()) <= set(range(10))
    except Exception as error:  # damaged bytes raise whatever the parser that met them happens to raise
        raise _no_digits(file) from error
    if not fits:
        raise _no_digits(file)
    return digits


def _no_digits(file: Path) -> SvhnError:
    return SvhnError(f"{file} is cut short or holds something else than house numbers: delete it, and try again.")
