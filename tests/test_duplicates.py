"""Near-duplicates: found however they were edited, told from different photos, and remembered."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from skimage import data as samples

from alexnet import data, doodles, duplicates

CHELSEA = Image.fromarray(samples.chelsea())


def saved(picture: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def bits(first: Image.Image, second: Image.Image) -> int:
    """Between two photos, as they are or mirrored."""
    own, other = duplicates.perceptual_hash(first)[0], duplicates.perceptual_hash(second)
    return min((own ^ each).bit_count() for each in other)


EDITS = {
    "saved again": lambda photo: Image.open(io.BytesIO(saved(photo, 30))).convert("RGB"),
    "half": lambda photo: photo.resize((photo.width // 2, photo.height // 2)),
    "squashed": lambda photo: photo.resize((227, 227)),
    "mirrored": ImageOps.mirror,
    "brighter": lambda photo: ImageEnhance.Brightness(photo).enhance(1.2),
    "grey": lambda photo: photo.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("photo", [CHELSEA, Image.fromarray(samples.coffee()), Image.fromarray(samples.astronaut())])
def test_an_edited_copy_is_near(photo, edit):
    assert bits(photo, EDITS[edit](photo)) <= duplicates.NEAR


def test_different_photos_are_not_near():
    photos = [CHELSEA, *(Image.fromarray(p) for p in (samples.coffee(), samples.astronaut(), samples.rocket()))]
    assert all(bits(a, b) > 2 * duplicates.NEAR for i, a in enumerate(photos) for b in photos[:i])


def test_pairs_are_those_of_a_plain_double_loop():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, (400, 2), dtype=np.uint64)
    for copy in range(0, 300, 7):  # some a few bits off, as they are or mirrored
        hashes[copy + 1, 0] = hashes[copy, copy % 2] ^ np.uint64(random.integers(0, 2**5))
    wanted = {
        (i, j, found)
        for i in range(400)
        for j in range(i + 1, 400)
        if (found := min((int(hashes[i, k]) ^ int(hashes[j, 0])).bit_count() for k in (0, 1))) <= 3
    }
    found = duplicates.pairs(hashes, 3)
    assert len(wanted) > 20 and set(zip(*(column.tolist() for column in found), strict=True)) == wanted


def test_no_photos_no_pairs():
    assert [len(column) for column in duplicates.pairs(np.empty((0, 2), np.uint64), 8)] == [0, 0, 0]


@pytest.fixture
def pets(photo_folder):
    """A cat three times, one of them mirrored and called a dog; two photos like nothing else."""
    coffee, rocket = Image.fromarray(samples.coffee()), Image.fromarray(samples.rocket())
    return photo_folder({
        "cat/chelsea.jpg": saved(CHELSEA), "cat/small.jpg": saved(CHELSEA.resize((150, 100))),
        "dog/mirrored.jpg": saved(ImageOps.mirror(CHELSEA)), "dog/coffee.jpg": saved(coffee), "cat/rocket.jpg": saved(rocket),
    })  # fmt: skip


def test_groups_hold_all_copies_and_nothing_else(pets):
    (group,) = duplicates.groups(data.load(str(pets)))
    assert [photo.path for photo in group.photos] == ["cat/chelsea.jpg", "cat/small.jpg", "dog/mirrored.jpg"]
    assert group.distance <= 2


def test_the_second_time_no_photo_is_opened(pets, monkeypatch):
    dataset = data.load(str(pets))
    first = duplicates.groups(dataset)
    monkeypatch.setattr(data, "open_photo", None)
    assert duplicates.groups(dataset) == first


def test_a_photo_that_has_gone_is_passed_over(pets):
    dataset = data.load(str(pets))
    (pets / "cat/small.jpg").unlink()
    (group,) = duplicates.groups(dataset)
    assert [photo.path for photo in group.photos] == ["cat/chelsea.jpg", "dog/mirrored.jpg"]


def test_what_progress_raises_cancels_and_the_next_call_goes_on(pets):
    class Cancelled(Exception):
        pass

    def cancel(what, done, total):
        raise Cancelled

    dataset = data.load(str(pets))
    with pytest.raises(Cancelled):
        duplicates.groups(dataset, progress=cancel)
    told = []
    duplicates.groups(dataset, progress=lambda *step: told.append(step))
    assert [what for what, *_ in told] == ["Comparing photos"]


def test_drawings_of_different_scenes_are_not_near():
    hashes = [duplicates.perceptual_hash(doodles.draw("cat", number)) for number in range(30)]
    first, *_ = duplicates.pairs(np.array(hashes, np.uint64), 4)
    assert len(first) == 0
