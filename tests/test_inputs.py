"""Photos on their way to the device: kept, or decoded as they come, the batches are the same."""

from __future__ import annotations

import threading
from collections import namedtuple

import numpy as np
import pytest
import torch

from alexnet import data, inputs, runs
from alexnet.augment import to_square
from alexnet.data import DataError
from alexnet.inputs import Kept, Streamed

CPU = torch.device("cpu")


@pytest.fixture
def pets(photo_folder):
    return data.load(str(photo_folder(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(5))))


def read(pets, cache: str, photos=None) -> Kept | Streamed:
    return inputs.images(pets, photos or pets.photos, to_square, "square", 256, cache=cache, among=pets.photos)


def test_streamed_photos_are_those_of_the_cache(pets):
    kept, streamed = read(pets, "on"), read(pets, "off")
    assert isinstance(kept, Kept) and isinstance(streamed, Streamed)
    assert streamed.shape == kept.shape == (10, 3, 256, 256)
    chosen = np.array([7, 0, 7, 3])
    np.testing.assert_array_equal(streamed[chosen], kept[chosen])
    np.testing.assert_array_equal(streamed[8:12], kept[8:12])
    indices = torch.from_numpy(chosen)
    assert torch.equal(inputs.reader(streamed, CPU)(indices), inputs.reader(kept, CPU)(indices))


def test_runs_that_divide_the_photos_otherwise_share_one_cache(pets):
    whole, some = read(pets, "on"), read(pets, "on", pets.photos[7:3:-1])
    assert len(some) == 4
    np.testing.assert_array_equal(some[0:4], whole[np.array([7, 6, 5, 4])])
    np.testing.assert_array_equal(some[np.array([1, 3])], whole[np.array([6, 4])])
    assert len(list((runs.data_dir() / "cache").iterdir())) == 1


def test_auto_streams_where_the_disk_lacks_room(pets, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(data.shutil, "disk_usage", lambda path: usage(0, 0, 1000))
    assert isinstance(read(pets, "auto"), Streamed)
    with pytest.raises(DataError, match="needs .* GB and the disk has .* GB free"):
        read(pets, "on")


def test_a_photo_that_is_gone_is_told_in_a_sentence(pets):
    streamed = read(pets, "off")
    (pets.root / pets.photos[3].path).unlink()
    assert streamed[0:3].shape == (3, 3, 256, 256)
    with pytest.raises(DataError, match="A photo of photos changed while it was trained on"):
        streamed[2:5]


def test_one_is_read_ahead_and_the_order_stays():
    begun = [threading.Event() for _ in range(4)]

    def make(number: int) -> torch.Tensor:
        begun[number].set()
        return torch.tensor(number)

    pairs = inputs.ahead(make, range(4))
    assert next(pairs) == (0, torch.tensor(0))
    assert begun[1].wait(timeout=30) and not begun[2].is_set()
    assert [(item, value.item()) for item, value in pairs] == [(1, 1), (2, 2), (3, 3)]


def test_what_fails_while_reading_ahead_is_raised_in_its_place():
    def make(number: int) -> torch.Tensor:
        return torch.tensor(1 // (2 - number))

    pairs = inputs.ahead(make, range(4))
    assert [next(pairs)[0], next(pairs)[0]] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(pairs)
