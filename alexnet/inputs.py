"""From photos on disk to uint8 batches on the device: cached, resident in a GPU's memory, or decoded as they come.

What `images` returns is indexed like an array `(N, 3, side, side)` uint8 in every case.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alexnet import data
from alexnet.data import Dataset, Photo
from alexnet.images import PhotoError

RESIDENT_SHARE = 0.5  # of a GPU's free memory that photos may take; the rest is for the network
CHUNK = 4096  # photos copied to a GPU at once


class Streamed:
    """Photos that are decoded whenever they are asked for; nothing is kept."""

    def __init__(
        self,
        dataset: Dataset,
        photos: Sequence[Photo],
        make: Callable[[Image.Image], Image.Image],
        side: int,
        at_least: int | None,
    ) -> None:
        self.dataset, self.photos, self.make, self.at_least = dataset, photos, make, at_least
        self.shape = (len(photos), 3, side, side)
        self._pool = ThreadPoolExecutor(os.cpu_count())  # Pillow decodes and scales without the GIL

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """The photos of a slice, or with these indices, as `(n, 3, side, side)` uint8.

        Raises:
            DataError: a photo can no longer be read.
        """
        chosen = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        try:
            return np.stack(list(self._pool.map(self._read, chosen)))
        except PhotoError as error:
            raise data.DataError(f"A photo of {self.dataset.name} changed while it was trained on: {error}") from None

    def _read(self, index: int) -> np.ndarray:
        return data.planes(self.make(self.dataset.open(self.photos[index], self.at_least)))


class Kept:
    """Some of the photos that a cache holds."""

    def __init__(self, cache: np.ndarray, rows: Sequence[int]) -> None:
        self.cache, self.rows = cache, np.asarray(rows)
        self.shape = (len(rows), *cache.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """The photos of a slice, or with these indices, as `(n, 3, side, side)` uint8."""
        return self.cache[self.rows[index]]


def images(
    dataset: Dataset,
    photos: Sequence[Photo],
    make: Callable[[Image.Image], Image.Image],
    key: str,
    side: int,
    *,
    cache: str,
    among: Sequence[Photo] | None = None,
    progress: data.Progress | None = None,
    at_least: int | None = None,
) -> Kept | Streamed:
    """`make` applied to each photo: kept in a file, or with `cache` off, or auto and no room, done at each reading.

    Args:
        cache: auto, on or off.
        among: all those that one file keeps, for this run and for others that divide them otherwise.
        others: those of `data.cached`.

    Raises:
        DataError: as `data.cached`.
    """
    if cache != "off":
        among = photos if among is None else among
        row = {photo.path: number for number, photo in enumerate(among)}
        try:
            kept = data.cached(dataset, among, make, key, side, progress, at_least)
            return Kept(kept, [row[photo.path] for photo in photos])
        except data.NoRoom:
            if cache == "on":
                raise
    return Streamed(dataset, photos, make, side, at_least)


def reader(source: Kept | Streamed, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function from indices (n,) int64, on the CPU, to those photos on `device`."""
    if device.type == "cuda" and isinstance(source, Kept):
        free, _ = torch.cuda.mem_get_info(device)
        if math.prod(source.shape) < free * RESIDENT_SHARE:
            resident = torch.empty(source.shape, dtype=torch.uint8, device=device)
            for start in range(0, len(source), CHUNK):
                resident[start : start + CHUNK] = torch.from_numpy(source[start : start + CHUNK])
            return lambda indices: resident[indices.to(device, non_blocking=True)]

    def read(indices: Tensor) -> Tensor:
        batch = torch.from_numpy(np.ascontiguousarray(source[indices.numpy()]))
        # From pinned memory the copy runs beside the computation.
        return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch.to(device)

    return read


def ahead(read: Callable[[Any], Tensor], plan: Iterable[Any]) -> Iterator[tuple[Any, Tensor]]:
    """Each item of `plan` with what `read` makes of it, the next one being read meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        waiting: list[tuple[Any, Any]] = []
        try:
            for item in plan:
                waiting.append((item, pool.submit(read, item)))
                if len(waiting) > 1:
                    item, future = waiting.pop(0)
                    yield item, future.result()
            for item, future in waiting:
                yield item, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
