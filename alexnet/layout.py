"""A folder of photos before any is opened: the files in it, and the label and the split that their paths give them.

Three layouts are recognised: a folder per class; labels in the file names, as Kaggle has them (`cat.0.jpg`); or `train/`,
`val/` and `test/` holding either.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet.errors import LabError
from alexnet.images import PHOTO_SUFFIXES

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "training_set": "train",
    "train_set": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validation_set": "val",
    "val_set": "val",
    "test": "test",
    "testing": "test",
    "test_set": "test",
}
KAGGLE_NAME = re.compile(r"([^\W\d][^.]*)\.\d+\.\w+")  # \w lacks the vowel signs of Indic scripts


class DataError(LabError, ValueError):
    """A dataset that cannot be used; its text is one sentence that says what to do."""


@dataclass(frozen=True)
class Skip:
    """A file that is not used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Label:
    """What a path alone says of a photo."""

    label: str = ""
    split: str | None = None
    reason: str | None = None  # why it cannot be used, if so


def list_files(root: Path) -> list[str]:
    """Relative POSIX paths of all files below `root`, hidden ones left out, sorted; follows links, loops excepted."""
    if not os.path.exists(root):  # Path.exists raises where a name is too long
        raise DataError(f"There is no folder {root}; check the path.")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give the folder that holds the photos.")
    files, seen = [], set()

    def refuse(error: OSError) -> None:
        raise DataError(f"The folder {error.filename} cannot be read; check its permissions.") from None

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        subfolders[:] = sorted(s for s in subfolders if s[0] != "." and s != "__MACOSX")
        if (real := os.path.realpath(folder)) in seen:
            subfolders.clear()
            continue
        seen.add(real)
        relative = Path(folder).relative_to(root)
        files += [(relative / name).as_posix() for name in names if name[0] != "."]
    return sorted(files)


def read_labels(files: Sequence[str]) -> dict[str, Label]:
    """The label and the split of each file, from its path."""
    labels = {path: Label(reason="not a photo file") for path in files}
    # Strings, not paths: this looks at every file each time a dataset is opened.
    photos = {path: tuple(path.split("/")) for path in files if os.path.splitext(path)[1].lower() in PHOTO_SUFFIXES}
    for path in [path for path in photos if as_text(path) != path]:
        labels[path] = Label(reason="a name that is not Unicode")
        del photos[path]
    photos = _unwrap(photos, keep=SPLIT_FOLDERS)
    split_layout = any(parts[0].lower() in SPLIT_FOLDERS for parts in photos.values() if len(parts) > 1)
    groups: dict[str | None, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for path, parts in photos.items():
        split = SPLIT_FOLDERS.get(parts[0].lower()) if split_layout and len(parts) > 1 else None
        if split_layout and split is None:
            labels[path] = Label(reason="outside the train, val and test folders")
        else:
            groups[split][path] = parts[1:] if split_layout else parts
    for split, members in groups.items():
        labels |= _labels_of_group(_unwrap(members, keep=()) if split else members, split)
    return labels


def as_text(path: str) -> str:
    """A path with question marks for bytes that are not Unicode, which no page and no JSON file could hold."""
    return path.encode("utf-8", "replace").decode()


def _unwrap(photos: dict[str, tuple[str, ...]], keep: Container[str]) -> dict[str, tuple[str, ...]]:
    """Drop a folder that only wraps others, as archives like to have; not one in `keep`, and never one that is a class."""
    while photos:
        firsts = {parts[0] for parts in photos.values()}
        wrapped = all(len(parts) > 2 for parts in photos.values())
        names = all(len(parts) == 2 and KAGGLE_NAME.fullmatch(parts[1]) for parts in photos.values())
        if len(firsts) > 1 or not (wrapped or names) or next(iter(firsts)).lower() in keep:
            return photos
        photos = {path: parts[1:] for path, parts in photos.items()}
    return photos


def _labels_of_group(members: dict[str, tuple[str, ...]], split: str | None) -> dict[str, Label]:
    """Labels from file names where most photos lie loose and are named so, else from the first folder."""
    loose = {path: KAGGLE_NAME.fullmatch(parts[0]) for path, parts in members.items() if len(parts) == 1}
    by_name = sum(match is not None for match in loose.values()) > len(members) / 2
    labels = {}
    for path, parts in members.items():
        if by_name:
            label = match[1] if (match := loose.get(path)) else ""
        else:
            label = parts[0] if len(parts) > 1 else ""
        labels[path] = Label(label, split) if label else Label(reason="no label in its folder or name")
    return labels
