"""The film of a run: what its network makes of a dozen validation photos after each epoch. Needs no torch.

In the run folder `film/` holds the photos as the network is shown them, side by side in `photos.jpg`, what they are in
`photos.json`, and a frame for each epoch, `epoch-1.safetensors` and so on. The pictures are kept, 150 KB at 227 px, since a
path alone would show nothing once the dataset has been moved. `camera` makes the frames. Each file is replaced in one
step, and readers leave out what is missing or damaged.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load, save

from alexnet import data
from alexnet.images import open_photo
from alexnet.runs import Run, write_json

FOLDER = "film"
PHOTOS = 12
QUALITY = 90  # of the photos, as JPEG


@dataclass(frozen=True)
class Subject:
    """A photo of the film: `path` is relative to the root of the dataset, `label` the name of its class."""

    path: str
    label: str
    picture: Image.Image  # RGB, S x S px: what the network is shown


@dataclass(frozen=True)
class Frame:
    """What the weights that were validated after an epoch make of the N photos of a film.

    `probabilities` `(N, classes)` float32 are those that the epoch's validation accuracy rests on. `maps` `(N, h, w)`
    float32 are those of `alexnet.saliency.signed_gradcam` for the class of each photo, and `filters` `(F, 3, k, k)`
    float16 the kernels of the first convolution; a network without convolutions has neither.
    """

    probabilities: np.ndarray
    maps: np.ndarray | None = None
    filters: np.ndarray | None = None


@dataclass(frozen=True)
class Film:
    """All that can be read of a film: its N photos, and the frames by their epochs, in order."""

    subjects: tuple[Subject, ...]
    frames: dict[int, Frame]


def choose(photos: Sequence[data.Photo], seed: int) -> list[int]:
    """Indices of `PHOTOS` photos, or of all, by class; as many of each class as can be, by the seed and their content alone."""
    order = sorted(range(len(photos)), key=lambda i: data.digest(f"{seed}/film/{photos[i].digest}".encode()))
    seen: Counter[int] = Counter()
    rounds = []
    for index in order:
        rounds.append((seen[photos[index].label], index))
        seen[photos[index].label] += 1
    chosen = [index for _, index in sorted(rounds, key=lambda turn: turn[0])[:PHOTOS]]
    return sorted(chosen, key=lambda index: photos[index].label)


def write_subjects(folder: Path, subjects: Sequence[Subject]) -> None:
    """Begin the film of the run in `folder`; raises OSError where it cannot be written."""
    place, side = folder / FOLDER, subjects[0].picture.height
    place.mkdir(exist_ok=True)
    sheet = Image.new("RGB", (side * len(subjects), side))
    for number, subject in enumerate(subjects):
        sheet.paste(subject.picture, (side * number, 0))
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=QUALITY, subsampling=0)  # or neighbours would share colours along their border
    _replace(place / "photos.jpg", file.getvalue())
    write_json(place / "photos.json", [{"path": subject.path, "label": subject.label} for subject in subjects])


def has_subjects(folder: Path) -> bool:
    """Whether the film of the run in `folder` has begun."""
    return all((folder / FOLDER / name).exists() for name in ("photos.jpg", "photos.json"))


def write_frame(folder: Path, epoch: int, frame: Frame) -> None:
    """Set the frame of `epoch`, from 1; raises OSError where it cannot be written."""
    # safetensors takes the memory as it lies, whatever the strides say.
    arrays = {name: np.ascontiguousarray(array) for name, array in vars(frame).items() if array is not None}
    _replace(folder / FOLDER / f"epoch-{epoch}.safetensors", save(arrays))


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def forget_after(folder: Path, epoch: int) -> None:
    """Drop the frames of what a run, resumed after `epoch` finished epochs, is about to do again, if they can be deleted."""
    for number, path in _frames(folder).items():
        if number > epoch:
            with contextlib.suppress(OSError):
                path.unlink()


def epochs(run: Run) -> list[int]:
    """The epochs of which there are frames, in order."""
    return list(_frames(run.path))


def changed(run: Run) -> int:
    """When a file of the film was last put in its place, in nanoseconds since 1970; 0 without a film."""
    try:
        return (run.path / FOLDER).stat().st_mtime_ns
    except OSError:
        return 0


def _frames(folder: Path) -> dict[int, Path]:
    found = {}
    for path in (folder / FOLDER).glob("epoch-*.safetensors"):
        if match := re.fullmatch(r"epoch-([1-9]\d{0,8})", path.stem):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def read(run: Run) -> Film | None:
    """The film of `run`, without the frames that cannot be used; None where its photos cannot.

    Raises:
        RunError: the `run.json` cannot be read.
    """
    classes = run.config["classes"]
    subjects = _subjects(run.path / FOLDER, classes)
    if not subjects:
        return None
    shape = (len(subjects), len(classes))
    frames = {epoch: _frame(path, shape) for epoch, path in _frames(run.path).items()}
    return Film(subjects, {epoch: frame for epoch, frame in frames.items() if frame is not None})


def _subjects(place: Path, classes: Sequence[str]) -> tuple[Subject, ...]:
    """The photos of a film; none where one cannot be used, for then it is open which is which."""
    try:
        listed = json.loads((place / "photos.json").read_text(encoding="utf-8"))
        about = [(each["path"], each["label"]) for each in listed]
        sheet = open_photo(place / "photos.jpg")
    except (OSError, ValueError, RecursionError, TypeError, KeyError):  # a PhotoError is a ValueError
        return ()
    side = sheet.height
    if sheet.width != side * len(about) or not all(isinstance(p, str) and label in classes for p, label in about):
        return ()
    pictures = (sheet.crop((side * i, 0, side * (i + 1), side)) for i in range(len(about)))
    return tuple(Subject(*each, picture) for each, picture in zip(about, pictures, strict=True))


def _frame(path: Path, shape: tuple[int, int]) -> Frame | None:
    try:
        arrays = load(path.read_bytes())
        members: dict[str, Any] = {f.name: arrays.get(f.name) for f in fields(Frame)}
        frame = Frame(**members)
    except (OSError, SafetensorError):
        return None
    return frame if _is_usable(frame, shape) else None


def _is_usable(frame: Frame, shape: tuple[int, int]) -> bool:
    """Whether all that a frame holds has the shapes that it has to have, and only numbers."""
    probabilities, maps, filters = frame.probabilities, frame.maps, frame.filters
    return (
        probabilities is not None
        and probabilities.shape == shape
        and (maps is None) == (filters is None)
        and (maps is None or (maps.ndim == 3 and len(maps) == len(probabilities)))
        and (filters is None or (filters.ndim == 4 and filters.shape[1] == 3))
        and all(array.size and np.isfinite(array).all() for array in vars(frame).values() if array is not None)
    )
