"""Twenty fixed photos, and whether something that was exported answers on them as the app does.

Run as `python -m alexnet.proof FOLDER` it opens an unpacked bundle in a process of its own and prints what its weights say.
"""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image

from alexnet import doodles, images
from alexnet.predict import Classifier, load_classifier
from alexnet.runs import Run

SAME = 1e-4  # how far probabilities may lie apart
WEIGHTS = "weights.pth"
PHOTOS = "photos"  # the folder of the fixed photos in an unpacked bundle
SIZES = (  # width and height in pixels: square, wide and tall; smaller and larger than the network's own; extreme
    *((200, 200), (227, 227), (256, 256), (640, 480), (480, 640), (1600, 1200), (1200, 1600), (1920, 1080), (333, 500)),
    *((500, 333), (64, 48), (8, 8), (40, 700), (900, 30)),
)

Answer = dict[str, Any]  # label and probabilities by class, as `Prediction.to_dict` has them


@functools.cache
def fixed_photos() -> dict[str, bytes]:
    """Twenty picture files by name, always the same: drawings of many sizes and shapes, and of all kinds of pixels."""
    photos = {}
    for number, size in enumerate(SIZES):
        form = ("PNG", "JPEG")[number % 2]
        photos[f"{number:02}-{size[0]}x{size[1]}.{form.lower()}"] = _file(_drawing(number, size), form)
    drawing = _drawing(20, (300, 220))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    see_through = drawing.copy()
    see_through.putalpha(Image.linear_gradient("L").resize(drawing.size))
    deep = Image.fromarray(np.asarray(drawing.convert("L")).astype(np.uint16) * 257)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 800, 3), dtype=np.uint8))
    return photos | {
        "14-lying-on-its-side.jpeg": _file(drawing, "JPEG", exif=turned),
        "15-transparent.png": _file(see_through, "PNG"),
        "16-grey.jpeg": _file(drawing.convert("L"), "JPEG"),
        "17-palette.gif": _file(drawing.quantize(64), "GIF"),
        "18-grey-of-16-bits.png": _file(deep, "PNG"),
        "19-noise.png": _file(noise, "PNG"),
    }


def _drawing(number: int, size: tuple[int, int]) -> Image.Image:
    return doodles.draw(doodles.CLASSES[number % 2], number).resize(size)


def _file(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def answers(classifier: Classifier, photos: Sequence[bytes]) -> list[Answer]:
    """What the app says of picture files, one at a time, as it does."""
    return [classifier([images.open_photo(photo)])[0].to_dict() for photo in photos]


def compare(expected: Sequence[Answer], found: Sequence[Answer]) -> dict[str, Any]:
    """How many of `found` are the same as `expected`: the label, and every probability within `SAME`.

    Returns:
        `same` and `of`, numbers of photos; `largest_difference` of a probability, 0 to 1.
    """
    differences = [_difference(*pair) for pair in zip(expected, found, strict=True)]
    labels = [a["label"] == b["label"] for a, b in zip(expected, found, strict=True)]
    same = sum(label and difference <= SAME for label, difference in zip(labels, differences, strict=True))
    return {"same": same, "of": len(expected), "largest_difference": max(differences)}


def _difference(a: Answer, b: Answer) -> float:
    if a["probabilities"].keys() != b["probabilities"].keys():
        return 1.0
    return max(abs(p - b["probabilities"][name]) for name, p in a["probabilities"].items())


def write_pth(classifier: Classifier, folder: Path) -> None:
    """Write the whole weights, float32, as plain PyTorch opens them; raises OSError where that cannot be done."""
    try:
        torch.save(dict(classifier.model.state_dict()), folder / WEIGHTS)
    except RuntimeError as error:  # as it tells of a full disk
        raise OSError("its disk is full") from error


def _main(folder: Path) -> None:
    classifier = load_classifier(Run(folder))
    photos = [path.read_bytes() for path in sorted((folder / PHOTOS).iterdir())]
    told = {"safetensors": answers(classifier, photos)}
    classifier.model.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    print(json.dumps(told | {"pth": answers(classifier, photos)}))


if __name__ == "__main__":
    _main(Path(sys.argv[1]).resolve())
