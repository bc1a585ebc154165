"""Datasets: find the photos, check each one, report what was left out, split, and cache as uint8.

A dataset is a folder in one of the layouts of `alexnet.layout`, with the corrections that its review has led to.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import json
import os
import shutil
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice, zip_longest
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from alexnet import doodles, downloads, imagenet, imports, public, review, runs
from alexnet.images import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_SIDE,
    PHOTO_SUFFIXES,
    PhotoError,
    TooLargeError,
    check_photo,
    open_photo,
)
from alexnet.layout import DataError as DataError
from alexnet.layout import Label, Skip, as_text, list_files, read_labels
from alexnet.recipes import Recipe

Progress = Callable[[str, int, int], None]  # what is being done, how much of it, of how much

HELD_OUT = ("val", "test", "rest")  # what a limit on the photos to learn from does not count
NOT_OPENED = "cannot be opened"
CACHE_FORMAT = 1


class NoRoom(DataError):
    """The disk lacks room for a cache of photos; without one, they have to be decoded in each epoch."""


@dataclass(frozen=True)
class Known:
    """A dataset that has a name: how people read it and where its photos come from."""

    title: str
    description: str
    archive: bool  # has to be downloaded, or placed by hand
    source: str  # where the photos come from
    licence: str


KNOWN: dict[str, Known] = {
    "doodles": Known(
        "Doodles",
        "1,200 cats and dogs drawn by code; ready in seconds, nothing to download.",
        False,
        "this program",
        "MIT",
    ),
    **{
        name: Known(
            archive.title,
            f"{archive.bytes / 1e6:,.0f} MB from {archive.homepage}.",
            True,
            archive.homepage,
            archive.licence,
        )
        for name, archive in downloads.ARCHIVES.items()
    },
}


@dataclass(frozen=True)
class Photo:
    """One usable photo: `path` is relative to the dataset's root, `label` indexes its classes."""

    path: str
    label: int
    split: str | None  # that its folder gives it: train, val, test, or None; or rest, see `Dataset.subset`
    digest: str  # of the file's content
    width: int  # upright, in pixels
    height: int


@dataclass(frozen=True)
class Report:
    """What a scan found; `found == used + len(skipped)`."""

    found: int
    used: int
    skipped: tuple[Skip, ...]
    per_class: dict[str, int]
    relabelled: int = 0  # of those used, by people who reviewed them

    @property
    def reasons(self) -> Counter[str]:
        """How many files were skipped for each reason."""
        return Counter(skip.reason for skip in self.skipped)


@dataclass(frozen=True)
class Dataset:
    """The usable photos of a folder, ordered by path, with the report of all that was found there."""

    name: str
    root: Path
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]
    report: Report

    @property
    def fingerprint(self) -> str:
        """Changes with any photo's content, name, label or given split."""
        lines = (f"{p.path}\t{self.classes[p.label]}\t{p.split}\t{p.digest}\n" for p in self.photos)
        return digest("".join(lines).encode())

    def open(self, photo: Photo, at_least: int | None = None) -> Image.Image:
        """The photo, upright and RGB.

        Raises:
            PhotoError: the file can no longer be read.
        """
        return open_photo(self.root / photo.path, at_least=at_least)

    def subset(self, recipe: Recipe) -> Dataset:
        """What a run with this recipe works on: the classes that it takes, and of their photos those that it uses.

        `max_per_class` photos are drawn by a hash of seed and content from those that no folder holds out. Of those that
        it leaves, `test_on_rest` stay as photos of the split `rest`, dealt evenly over the classes. A subset of a subset
        is itself; `report` goes on to tell of all that was found.

        Raises:
            DataError: the recipe insists on splits that no folders give, or asks for more classes or photos than there are.
        """
        dataset = _first_classes(self, recipe.max_classes) if recipe.max_classes else self
        if recipe.given_splits:
            _require_given_splits(dataset)
        return _limited(dataset, recipe) if recipe.max_per_class else dataset


def folder_of(data: str) -> Path:
    """The folder that a dataset's name or a folder's path stands for; it need not exist."""
    if data in KNOWN:
        return runs.data_dir() / data
    return imports.imports_dir() / data if imports.exists(data) else Path(os.path.expanduser(data)).resolve()


def named() -> dict[str, Known]:
    """All datasets that have a name: `KNOWN`, and those that people have imported."""
    return KNOWN | {name: _imported(name) for name in imports.names()}


def has_name(data: str) -> bool:
    """Whether `data` is the name of a dataset, and not a folder's path."""
    return data in KNOWN or imports.exists(data)


def meaning(name: str) -> str:
    """What the name of a class stands for: `Cats`, `cat` and `CAT` are one."""
    return name.strip().casefold().removesuffix("s")


def _imported(name: str) -> Known:
    source = imports.record(name).source
    return Known(name, f"Imported from {source}.", False, source, "")


def available(data: str) -> bool:
    """Whether `data` can be loaded without a download; strangers see no photos but the drawings."""
    if public.is_on() and data != "doodles":
        return False
    return data not in KNOWN or not KNOWN[data].archive or folder_of(data).is_dir()


def download(name: str, progress: Progress | None = None) -> Path:
    """Fetch the archive of the dataset `name` into the data folder.

    Raises:
        downloads.DownloadError: it cannot be had; the text says how to place it by hand.
    """
    return downloads.download(name, runs.data_dir(), progress)


def load(data: str, progress: Progress | None = None) -> Dataset:
    """Find and check every photo of a known dataset or of a folder; quick when nothing has changed since the last time.

    Args:
        data: the name of a dataset, see `named`, or the path of a folder.
        progress: told what is being done, how much of it, of how much; may raise to cancel.

    Raises:
        DataError: the folder is missing, cannot be read, or holds no labelled photo; or the list of corrections is damaged.
    """
    dataset = load_uncorrected(data, progress)
    return corrected(dataset, review.corrections(dataset.root))


def load_uncorrected(data: str, progress: Progress | None = None) -> Dataset:
    """`load` with the photos as their paths label them, whatever a review has found."""
    if data != "doodles":
        public.refuse("photos of the computer that it runs on")
    root = folder_of(data)
    if data == "doodles":
        doodles.write(root, progress=progress and (lambda done, total: progress("Drawing doodles", done, total)))
    elif not available(data):
        raise DataError(
            f"{KNOWN[data].title} is not here yet; download it on the Data page, or by python -m alexnet data download {data}."
        )
    if not imports.exists(data):
        return scan(root, name=data if data in KNOWN else root.name, progress=progress)
    dataset, left = scan(root, data, progress, imports.labels), imports.record(data).skipped
    skipped = tuple(sorted((*dataset.report.skipped, *left), key=lambda skip: skip.path))
    return replace(dataset, report=replace(dataset.report, found=dataset.report.found + len(left), skipped=skipped))


def corrected(dataset: Dataset, corrections: Mapping[str, review.Correction]) -> Dataset:
    """`dataset` with photos left out, or of another class, as a review of it has found; `corrections` are by digest.

    A class that is left without photos is one no longer; one that photos are moved to becomes one.
    """
    if not corrections:
        return dataset
    left_out, moved, labels = [], 0, {}
    for photo in dataset.photos:
        found = corrections.get(photo.digest)
        labels[photo.path] = found.label if found else dataset.classes[photo.label]
        moved += labels[photo.path] not in (None, dataset.classes[photo.label])
        if labels[photo.path] is None:
            left_out.append(Skip(photo.path, "left out in review"))
    counts = Counter(label for label in labels.values() if label is not None)
    if not counts:
        raise DataError(f"Every photo of {dataset.name} was left out in review; put some back on the Data page.")
    classes = [*(name for name in dataset.classes if counts[name]), *sorted(counts.keys() - set(dataset.classes))]
    index = {name: number for number, name in enumerate(classes)}
    kept = ((photo, index[label]) for photo in dataset.photos if (label := labels[photo.path]) is not None)
    photos = tuple(photo if photo.label == label else replace(photo, label=label) for photo, label in kept)
    skipped = tuple(sorted((*dataset.report.skipped, *left_out), key=lambda skip: skip.path))
    report = Report(dataset.report.found, len(photos), skipped, {name: counts[name] for name in classes}, moved)
    return replace(dataset, classes=tuple(classes), photos=photos, report=report)


def scan(
    root: Path,
    name: str,
    progress: Progress | None = None,
    read_labels: Callable[[Sequence[str]], dict[str, Label]] = read_labels,
) -> Dataset:
    """Read the folder `root`; raises as `load` does.

    Args:
        root: the folder.
        name: of the dataset.
        progress: as for `load`.
        read_labels: what the paths of the files say, by default as `alexnet.layout` has it.
    """
    files = list_files(root)
    labels = read_labels(files)
    checked = _check(root, [path for path in files if labels[path].reason is None], progress)
    skipped = [Skip(as_text(path), found.reason) for path, found in labels.items() if found.reason is not None]
    skipped += [Skip(path, check.reason) for path, check in checked.items() if check.reason]
    usable = {path: check for path, check in checked.items() if not check.reason}
    duplicates = _duplicates(usable, labels)
    skipped += [Skip(path, reason) for path, reason in duplicates.items()]
    kept = [path for path in usable if path not in duplicates]
    if not kept:
        raise DataError(_nothing_usable(root, skipped))
    index = {label: number for number, label in enumerate(sorted({labels[path].label for path in kept}))}
    classes = imagenet.titles(tuple(index))
    photos = tuple(Photo(path, index[labels[path].label], labels[path].split, *usable[path].facts) for path in kept)
    counts = Counter(classes[photo.label] for photo in photos)
    report = Report(
        len(files), len(photos), tuple(sorted(skipped, key=lambda s: s.path)), {c: counts[c] for c in classes}
    )
    return Dataset(name, root, classes, photos, report)


def _nothing_usable(root: Path, skipped: Sequence[Skip]) -> str:
    if not skipped:
        return f"The folder {root} is empty; put a folder of photos per class into it."
    reason, count = Counter(skip.reason for skip in skipped).most_common(1)[0]
    return (
        f"None of the {len(skipped)} files in {root} can be used, most of them ({count}) because: {reason}; "
        "use a folder per class, names like cat.0.jpg, or train/ and val/ folders of those."
    )


def photo_files(root: Path) -> list[str]:
    """Relative POSIX paths of all files below `root` that count as photos by their suffix, sorted; nothing is opened.

    Raises:
        DataError: there is no such folder, it cannot be read, or it holds no such file.
    """
    files = [path for path in list_files(root) if os.path.splitext(path)[1].lower() in PHOTO_SUFFIXES]
    if not files:
        raise DataError(f"There is no photo in the folder {root}; give one that holds photos.")
    return files


@dataclass(frozen=True)
class _Check:
    """What a file's content says: its facts, or why it cannot be used."""

    digest: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""

    @property
    def facts(self) -> tuple[str, int, int]:
        return self.digest, self.width, self.height


def _check(root: Path, paths: Sequence[str], progress: Progress | None) -> dict[str, _Check]:
    """Decode every photo once; remembered by size and time of change, so that the next call reads nothing."""
    index_path = runs.data_dir() / "index" / f"{digest(str(root).encode())}.json"
    index = _read_index(index_path)
    stats = {path: _stat(os.path.join(root, path)) for path in paths}
    known = {path: _Check(*index[path][2:]) for path in paths if path in index and index[path][:2] == stats[path]}
    new = [path for path in paths if path not in known]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        checks = pool.map(lambda path: _check_one(root / path), new)
        try:
            for count, (path, check) in enumerate(zip(new, checks, strict=True), 1):
                known[path] = check
                if progress and (count % 50 == 0 or count == len(new)):
                    progress("Checking photos", count, len(new))
        finally:  # cancelled, it ends at once, and the next time goes on from there
            pool.shutdown(cancel_futures=True)
            if new:
                # What could not be opened may be next time: a change of permissions leaves size and time as they are.
                sure = {path: check for path, check in known.items() if check.reason != NOT_OPENED}
                _write_index(index_path, {path: [*stats[path], *c.facts, c.reason] for path, c in sure.items()})
    return {path: known[path] for path in paths}


def _check_one(path: Path) -> _Check:
    try:
        if not path.is_file():  # reading a pipe would never end
            return _Check(reason=NOT_OPENED)
        if path.stat().st_size > MAX_BYTES:
            return _Check(reason=f"larger than {MAX_BYTES // 10**6} MB")
        content = path.read_bytes()
        width, height = check_photo(content)
    except TooLargeError:
        return _Check(reason=f"more than {MAX_PIXELS // 10**6} megapixels or {MAX_SIDE:,} pixels a side")
    except PhotoError:
        return _Check(reason="unreadable")
    except OSError:
        return _Check(reason=NOT_OPENED)
    return _Check(digest(content), width, height)


def _stat(path: str) -> list[int]:
    try:
        stat = os.stat(path)
    except OSError:
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]


def _read_index(path: Path) -> dict[str, list[Any]]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return {name: entry for name, entry in index.items() if len(entry) == 6}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write_index(path: Path, index: dict[str, list[Any]]) -> None:
    # Only a memory of work done: a disk without room for it costs time, not the dataset.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(path, index)


def _duplicates(usable: dict[str, _Check], labels: dict[str, Label]) -> dict[str, str]:
    """Paths to leave out since their content is elsewhere, with the reason; a held-out copy is the one that stays."""
    same: dict[str, list[str]] = defaultdict(list)
    for path, check in usable.items():
        same[check.digest].append(path)
    left_out: dict[str, str] = {}
    for paths in same.values():
        if len({labels[path].label for path in paths}) > 1:
            left_out |= dict.fromkeys(paths, "the same photo under two labels")
        elif len(paths) > 1:
            order = {"test": 0, "val": 1}
            paths.sort(key=lambda path: (order.get(labels[path].split or "train", 2), path))
            left_out |= dict.fromkeys(paths[1:], "duplicate by content")
    return left_out


def check_trainable(dataset: Dataset) -> None:
    """Whether a classifier can be trained on `dataset`.

    Raises:
        DataError: it has fewer than two classes, or a class with fewer than two photos.
    """
    if len(dataset.classes) < 2:
        raise DataError(f"{dataset.name} has one class only, {dataset.classes[0]}; a classifier needs at least two.")
    for name, photos in zip(dataset.classes, _by_class(dataset), strict=True):
        if len(photos) < 2:
            raise DataError(f"The class {name} of {dataset.name} has one photo only; give each class at least two.")


def _first_classes(dataset: Dataset, count: int) -> Dataset:
    if count > (there := len(dataset.classes)):
        raise DataError(
            f"{dataset.name} has {there:,} classes and max_classes asks for {count:,}; use {there:,} at most."
        )
    photos = tuple(photo for photo in dataset.photos if photo.label < count)
    return replace(dataset, classes=dataset.classes[:count], photos=photos)


def _require_given_splits(dataset: Dataset) -> None:
    given = {photo.split for photo in dataset.photos}
    missing = [] if "train" in given else ["train/ folder"]
    missing += [] if given & {"val", "test"} else ["val/ or test/ folder"]
    if missing:
        raise DataError(
            f"This recipe takes its splits from train/ and val/ folders, and {dataset.name} has no "
            f"{' and no '.join(missing)} with photos; add that or turn given_splits off."
        )


def _limited(dataset: Dataset, recipe: Recipe) -> Dataset:
    """`dataset` with `max_per_class` photos a class to learn from, and those of the rest to test on."""
    limit = recipe.max_per_class
    free = [[photo for photo in photos if photo.split not in HELD_OUT] for photos in _by_class(dataset)]
    if (most := max(map(len, free))) < limit:
        raise DataError(
            f"No class of {dataset.name} has more than {most:,} photos to learn from and max_per_class asks for "
            f"{limit:,}; lower it or add photos."
        )
    # By the hash that divides photos into splits, those drawn would be the ones that it tests on.
    ranked = [[photo for _, photo in _ranked(photos, f"{recipe.seed}/subset")] for photos in free]
    rest = [photo for turn in zip_longest(*(photos[limit:] for photos in ranked)) for photo in turn if photo]
    wanted = recipe.test_on_rest - sum(photo.split == "rest" for photo in dataset.photos)
    if wanted > len(rest):
        raise DataError(
            f"max_per_class leaves out {len(rest):,} photos of {dataset.name} and test_on_rest asks for "
            f"{recipe.test_on_rest:,}; lower one of the two."
        )
    used = {photo.path: photo for photo in dataset.photos if photo.split in HELD_OUT}
    used |= {photo.path: photo for photos in ranked for photo in photos[:limit]}
    used |= {photo.path: replace(photo, split="rest") for photo in rest[:wanted]}
    return replace(dataset, photos=tuple(used[photo.path] for photo in dataset.photos if photo.path in used))


def split(dataset: Dataset, recipe: Recipe) -> dict[str, list[Photo]]:
    """Divide the photos that `recipe` uses, see `Dataset.subset`, into `train`, `val` and `test`, as it asks.

    The splits that folders give stand, and photos of the split `rest` join the test split. Otherwise a photo's place
    follows from the seed and its content alone, class by class, so that it keeps its split when others are added; only a
    class so small that a split would miss it is evened out.

    In a cross-validation the test split is the recipe's fold, whatever folders its photos lie in: over all folds each
    photo is tested once. Of the others, `val_fraction` validates.

    Raises:
        DataError: nothing is left to train on or to validate with, or a class has fewer photos than there are folds;
            and as `Dataset.subset`.
    """
    dataset = dataset.subset(recipe)
    classes = _by_class(dataset)
    place = _fold(dataset, classes, recipe) if recipe.folds else _given_splits(dataset)
    # A layout that brings held-out photos has decided; only a validation split, without which nothing works, is added.
    test_fraction = 0.0 if place else recipe.test_fraction
    val_fraction = 0.0 if recipe.val_pattern or "val" in place.values() else recipe.val_fraction
    if recipe.val_pattern:
        place = _matching(dataset, recipe.val_pattern) | place
    place |= {photo.path: "test" for photo in dataset.photos if photo.split == "rest"}
    # Each fold validates with other photos, or some would never be trained on.
    salt = f"{recipe.seed}/{recipe.fold}" if recipe.folds else f"{recipe.seed}"
    parts: dict[str, list[Photo]] = {"train": [], "val": [], "test": []}
    for photos in classes:
        for photo in photos:
            if photo.path in place:
                parts[place[photo.path]].append(photo)
        free = [photo for photo in photos if photo.path not in place]
        for name, members in _divide(free, val_fraction, test_fraction, salt).items():
            parts[name] += members
    if not parts["train"] or not parts["val"]:
        missing = "train on" if not parts["train"] else "validate with"
        raise DataError(
            f"The split leaves no photo of {dataset.name} to {missing}; change val_fraction or val_pattern."
        )
    return parts


def _by_class(dataset: Dataset) -> list[list[Photo]]:
    classes: list[list[Photo]] = [[] for _ in dataset.classes]
    for photo in dataset.photos:
        classes[photo.label].append(photo)
    return classes


def _given_splits(dataset: Dataset) -> dict[str, str]:
    """What folders hold out: path -> `val` or `test`."""
    return {photo.path: photo.split for photo in dataset.photos if photo.split in ("val", "test")}


def _matching(dataset: Dataset, pattern: str) -> dict[str, str]:
    names = {photo.path: PurePosixPath(photo.path).name for photo in dataset.photos}
    return {path: "val" for path, name in names.items() if fnmatch.fnmatch(name, pattern)}


def _fold(dataset: Dataset, classes: Sequence[Sequence[Photo]], recipe: Recipe) -> dict[str, str]:
    """The photos of the recipe's fold: path -> `test`.

    Dealt round like cards, one class after the other and each in the order of a hash, so that folds differ by one photo
    at most, within a class and in all.
    """
    for name, photos in zip(dataset.classes, classes, strict=True):
        if len(photos) < recipe.folds:
            raise DataError(
                f"The class {name} of {dataset.name} has {len(photos)} photos, too few for {recipe.folds} folds; "
                "use fewer folds or more photos."
            )
    dealt = [photo for photos in classes for _, photo in _ranked(photos, f"{recipe.seed}")]
    return {photo.path: "test" for photo in dealt[recipe.fold - 1 :: recipe.folds]}


def split_of(dataset: Dataset, recipe: Recipe, name: str) -> list[Photo]:
    """The photos of one split as `recipe` divides the dataset, or those of `all`.

    Raises:
        DataError: as `split`, or the split is empty.
    """
    if name == "all":
        return list(dataset.photos)
    photos = split(dataset, recipe)[name]
    if not photos:
        raise DataError(f"The run keeps no photo of {dataset.name} for the {name} split; choose another split.")
    return photos


def split_counts(dataset: Dataset, recipe: Recipe) -> dict[str, dict[str, int]]:
    """How many photos of each class that `recipe` takes are in `train`, `val` and `test`; raises as `split`."""
    dataset = dataset.subset(recipe)
    counts = {name: Counter(photo.label for photo in photos) for name, photos in split(dataset, recipe).items()}
    return {
        name: {title: count[label] for label, title in enumerate(dataset.classes)} for name, count in counts.items()
    }


def _divide(photos: Sequence[Photo], val_fraction: float, test_fraction: float, salt: str) -> dict[str, list[Photo]]:
    """Thresholds on a hash of salt and content; then one photo is moved where a wanted split would stay empty."""
    ranked = _ranked(photos, salt)
    tests = sum(rank < test_fraction for rank, _ in ranked)
    vals = sum(rank < test_fraction + val_fraction for rank, _ in ranked) - tests
    if val_fraction and not vals and len(ranked) > 1:
        vals = 1
    if test_fraction and not tests and len(ranked) > 2:
        tests = 1
    held_out = min(tests + vals, max(len(ranked) - 1, 0))
    tests = min(tests, max(held_out - (val_fraction > 0), 0))
    ordered = [photo for _, photo in ranked]
    return {"test": ordered[:tests], "val": ordered[tests:held_out], "train": ordered[held_out:]}


def _ranked(photos: Sequence[Photo], salt: str) -> list[tuple[float, Photo]]:
    """The photos in the order of a hash of salt and content, which lies in [0, 1)."""

    def rank(photo: Photo) -> float:
        hashed = blake2b(f"{salt}/{photo.digest}".encode(), digest_size=8).digest()
        return int.from_bytes(hashed) / 2**64

    return sorted(((rank(photo), photo) for photo in photos), key=itemgetter(0))


def cached(
    dataset: Dataset,
    photos: Sequence[Photo],
    make: Callable[[Image.Image], Image.Image],
    recipe: str,
    side: int,
    progress: Progress | None = None,
    at_least: int | None = None,
) -> np.ndarray:
    """`make` applied to each photo, as a memory-mapped uint8 array `(N, 3, side, side)`.

    Built once, in parallel, and kept under `data/cache`, from where it may be deleted at any time.

    Args:
        dataset: where the photos are.
        photos: which ones, in the order of the array.
        make: turns an upright RGB photo into one of `side` x `side`; releases the GIL where it can.
        recipe: says what `make` does, so that a change of it makes a new cache.
        side: in pixels.
        progress: as for `load`.
        at_least: photos may be decoded smaller, which is faster, as long as their shorter side stays this long.

    Raises:
        NoRoom: the disk lacks room; what was written of the cache is gone again.
        DataError: a photo can no longer be read, or nothing can be written.
    """
    shape = (len(photos), 3, side, side)
    key = digest("\n".join([f"{CACHE_FORMAT} {recipe} {side}", *(photo.digest for photo in photos)]).encode())
    path = runs.data_dir() / "cache" / f"{key}.npy"
    if (array := _open_cache(path, shape)) is not None:
        return array
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One is built at a time, so what else looks half-built was left by a kill.
        with FileLock(runs.data_dir() / ".cache.lock"):
            for leftover in path.parent.glob(".*.npy"):
                leftover.unlink()
            if _open_cache(path, shape) is None:  # another process may have built it meanwhile
                _require_room(path.parent, int(np.prod(shape)))
                _build(path, shape, lambda photo: planes(make(dataset.open(photo, at_least))), photos, progress)
    except OSError as error:
        raise _cannot_write(error) from None
    return np.load(path, mmap_mode="r")


def planes(photo: Image.Image) -> np.ndarray:
    """An RGB picture as a uint8 array `(3, H, W)`."""
    bands = b"".join(photo.tobytes("raw", band) for band in "RGB")  # five times as fast as a transposed copy
    return np.frombuffer(bands, np.uint8).reshape(3, photo.height, photo.width)


def _build(
    path: Path,
    shape: tuple[int, ...],
    read: Callable[[Photo], np.ndarray],
    photos: Sequence[Photo],
    progress: Progress | None,
) -> None:
    temporary = path.with_name(f".{path.name}")
    try:
        threads = (os.cpu_count() or 1) + 1  # one of them waits for the interpreter's lock most of the time
        # Written from start to end: on a full disk that is an error, where a memory map would kill the process.
        with temporary.open("wb") as file, ThreadPoolExecutor(threads) as pool:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            try:
                for done, array in enumerate(_map_ahead(pool, read, photos), 1):
                    file.write(array.data)
                    if progress and (done % 50 == 0 or done == len(photos)):
                        progress("Preparing photos", done, len(photos))
            except PhotoError as error:
                raise DataError(f"A photo changed while the dataset was read: {error}") from None
            finally:
                pool.shutdown(cancel_futures=True)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave a file of the right size without its content
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _map_ahead(
    pool: ThreadPoolExecutor, read: Callable[[Photo], np.ndarray], photos: Iterable[Photo]
) -> Iterator[np.ndarray]:
    """`pool.map` that keeps a few results ahead of what is taken, not all: they may exceed the memory."""
    rest = iter(photos)
    pending = deque(pool.submit(read, photo) for photo in islice(rest, 8 * (os.cpu_count() or 1)))
    while pending:
        yield pending.popleft().result()
        pending.extend(pool.submit(read, photo) for photo in islice(rest, 1))


def _open_cache(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # a damaged header raises whatever the parser that meets it happens to raise
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _cannot_write(error: OSError) -> DataError:
    kind = NoRoom if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else DataError
    return kind(
        f"The cache of photos cannot be written: {error.strerror}; free some space, set ALEXNET_HOME to another folder "
        "or set cache to off."
    )


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * 1.05:
        raise NoRoom(
            f"The cache of photos needs {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free; free some space, "
            "set ALEXNET_HOME to a folder on a larger disk or set cache to off."
        )


def digest(content: bytes) -> str:
    """A name for `content`: 32 hexadecimal digits of BLAKE2b."""
    return blake2b(content, digest_size=16).hexdigest()
