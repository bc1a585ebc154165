"""Photos that look the same: copies that were scaled, saved again, mirrored or slightly edited.

Files that are equal bit by bit are none of these: a dataset takes one of them and reports the others. Two photos are near
when their perceptual hashes (imagehash's pHash, 64 bits of the lowest frequencies) differ in few bits.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from alexnet import data, runs
from alexnet.data import Dataset, Photo
from alexnet.images import PhotoError

# Of 28 million pairs of different photos of Dogs vs. Cats none is nearer than 10 bits. Saving again, scaling and squashing
# change 2 at most, a fifth more brightness 8.
NEAR = 8
SIDE = 32  # px of the picture that pHash transforms
ROWS = 128  # photos compared with all others at once

Hashes = np.ndarray  # (N, 2) uint64: of each photo, and of its mirror image


@dataclass(frozen=True)
class Group:
    """Photos that are near each other, directly or by way of others of the group, in the order of the dataset."""

    photos: tuple[Photo, ...]
    distance: int  # bits between the two that are nearest


def groups(dataset: Dataset, most: int = NEAR, progress: data.Progress | None = None) -> list[Group]:
    """The near-duplicates among the photos of `dataset`, the most alike first.

    Args:
        dataset: photos of it that can no longer be read are passed over.
        most: bits, 0 to 64, that the hashes of two photos may differ in.
        progress: told what is being done, how much of it, of how much; may raise to cancel, and the next call goes on.
    """
    hashes, photos = _hashed(dataset, progress)
    first, second, distance = pairs(hashes, most, progress)
    if not len(first):
        return []
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(photos), len(photos)))
    _, member_of = connected_components(links, directed=False)
    nearest: dict[int, int] = {}
    for group, bits in zip(member_of[first].tolist(), distance.tolist(), strict=True):
        nearest[group] = min(bits, nearest.get(group, 64))
    members: dict[int, list[Photo]] = {group: [] for group in nearest}
    for photo, group in zip(photos, member_of.tolist(), strict=True):
        if group in members:
            members[group].append(photo)
    found = [Group(tuple(members[group]), nearest[group]) for group in nearest]
    return sorted(found, key=lambda group: (group.distance, group.photos[0].path))


def pairs(
    hashes: Hashes, most: int, progress: data.Progress | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of photos that differ in `most` bits or fewer, as they are or with the first mirrored.

    Returns:
        The index of the first, that of the second, which is larger, and the bits between them, each `(P,)`.
    """
    found = []
    for start in range(0, len(hashes), ROWS):
        rest = hashes[start:, 0]
        bits = np.bitwise_count(hashes[start : start + ROWS, :, None] ^ rest).min(axis=1)
        first, second = np.nonzero(np.triu(bits <= most, k=1))
        found.append((first + start, second + start, bits[first, second]))
        if progress:
            progress("Comparing photos", min(start + ROWS, len(hashes)), len(hashes))
    if not found:
        return np.empty(0, int), np.empty(0, int), np.empty(0, int)
    first, second, distances = (np.concatenate(column) for column in zip(*found, strict=True))
    return first, second, distances


def perceptual_hash(photo: Image.Image) -> tuple[int, int]:
    """The pHash of an RGB photo and that of its mirror image, each of 64 bits."""
    small = photo.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    plain, mirrored = (int(str(imagehash.phash(picture)), 16) for picture in (small, ImageOps.mirror(small)))
    return plain, mirrored


def _hashed(dataset: Dataset, progress: data.Progress | None) -> tuple[Hashes, Sequence[Photo]]:
    """The hashes of the photos that can be read, and those photos; remembered by content."""
    path = runs.data_dir() / "hashes" / f"{data.digest(str(dataset.root).encode())}.json"
    known = _read(path)
    new = [photo for photo in dataset.photos if photo.digest not in known]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            made = pool.map(lambda photo: _hash(dataset, photo), new)
            for count, (photo, hashes) in enumerate(zip(new, made, strict=True), 1):
                if hashes:
                    known[photo.digest] = hashes
                if progress and (count % 50 == 0 or count == len(new)):
                    progress("Looking at photos", count, len(new))
        finally:
            pool.shutdown(cancel_futures=True)
            if new:
                _write(path, known)
    photos = [photo for photo in dataset.photos if photo.digest in known]
    return np.array([known[photo.digest] for photo in photos], np.uint64).reshape(-1, 2), photos


def _hash(dataset: Dataset, photo: Photo) -> tuple[int, int] | None:
    try:
        return perceptual_hash(dataset.open(photo, at_least=2 * SIDE))
    except PhotoError:
        return None


def _read(path: Path) -> dict[str, tuple[int, int]]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {digest: (int(own, 16), int(mirrored, 16)) for digest, (own, mirrored) in known.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _write(path: Path, known: dict[str, tuple[int, int]]) -> None:
    with contextlib.suppress(OSError):  # only a memory of work done
        path.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(path, {digest: [f"{h:016x}" for h in hashes] for digest, hashes in known.items()})
