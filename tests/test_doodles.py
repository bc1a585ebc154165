"""Doodles: the same everywhere, varied, and told apart by shape alone."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet import doodles

LABELS = np.tile([-1.0, 1.0], 200)  # cat, dog, cat, dog, ...
PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """400 doodles, each of a scene of its own, (400, 64, 64, 3) uint8."""
    return np.stack([np.asarray(doodles.draw(doodles.CLASSES[k % 2], k, size=64)) for k in range(len(LABELS))])


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)


def _files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_an_unknown_label_is_refused_in_plain_words():
    with pytest.raises(ValueError, match=r"no doodle of a 'teapot': choose one of cat, dog\."):
        doodles.draw("teapot", 0)


@pytest.mark.parametrize("size", [32, 97, 200])
def test_pictures_are_rgb_and_square(size):
    picture = doodles.draw("cat", 1, size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))


def test_another_process_draws_the_same_pixels():
    code = "from alexnet import doodles; print(doodles.draw('dog', 7).tobytes().hex())"
    assert _python(code).stdout.strip() == doodles.draw("dog", 7).tobytes().hex()


def test_no_two_pictures_are_alike(pictures):
    assert len({hashlib.sha256(picture.tobytes()).digest() for picture in pictures}) == len(pictures)


def test_a_cat_and_a_dog_of_one_seed_share_all_but_the_animal():
    for seed in range(20):
        cat, dog = (np.asarray(doodles.draw(label, seed, size=96)) for label in doodles.CLASSES)
        same = (cat == dog).all(-1)
        assert 0.4 < same.mean() < 0.99


def test_colour_does_not_tell_the_class(pictures):
    """The class means of the mean colour lie within three standard errors, and so do those of its spread."""
    pixels = pictures.reshape(len(pictures), -1, 3)
    for feature in (pixels.mean(1), pixels.std(1)):
        cats, dogs = feature[LABELS < 0], feature[LABELS > 0]
        error = np.sqrt(cats.var(0, ddof=1) / len(cats) + dogs.var(0, ddof=1) / len(dogs))
        assert (np.abs(cats.mean(0) - dogs.mean(0)) < 3 * error).all()


def test_twins_have_nearly_the_same_mean_colour():
    means = np.array([[np.asarray(doodles.draw(label, seed, 64)).mean((0, 1)) for label in doodles.CLASSES]
                      for seed in range(100)])  # fmt: skip
    assert (np.abs((means[:, 0] - means[:, 1]).mean(0)) < 1.5).all()  # of 255


def test_raw_pixels_are_not_enough_for_a_linear_model(pictures):
    """Ridge regression on 32 x 32 pixels, four folds: far below 75 %, the standard error being 2.5 %."""
    small = [np.asarray(Image.fromarray(picture).resize((32, 32))).ravel() / 255 for picture in pictures]
    pixels = np.array(small) - np.mean(small, axis=0)
    gram, fold = pixels @ pixels.T, np.arange(len(LABELS)) // 2 % 4
    for strength in (10, 100, 1000):
        right = 0
        for k in range(4):
            train, test = fold != k, fold == k
            dual = np.linalg.solve(gram[np.ix_(train, train)] + strength * np.eye(train.sum()), LABELS[train])
            right += (np.sign(gram[np.ix_(test, train)] @ dual) == LABELS[test]).sum()
        assert right / len(LABELS) < 0.7


def test_write_fills_a_folder_a_class_and_tells_how_far_it_is(tmp_path):
    told = []
    doodles.write(tmp_path / "data" / "doodles", per_class=3, progress=lambda *numbers: told.append(numbers))
    assert _files(tmp_path / "data" / "doodles") == [
        f"{label}/{label}-000{k}.jpg" for label in doodles.CLASSES for k in range(3)
    ]
    assert told == [(k, 6) for k in range(1, 7)]
    with Image.open(tmp_path / "data" / "doodles" / "dog" / "dog-0002.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (200, 200))


def test_write_leaves_an_existing_folder_alone(tmp_path):
    (tmp_path / "doodles").mkdir()
    doodles.write(tmp_path / "doodles", per_class=2)
    assert _files(tmp_path / "doodles") == []


def test_another_seed_gives_other_pictures(tmp_path):
    for seed in (0, 1):
        doodles.write(tmp_path / str(seed), per_class=4, seed=seed)
    contents = {file.read_bytes() for file in tmp_path.rglob("*.jpg")}
    assert len(contents) == 16


def test_what_progress_raises_ends_the_call_and_leaves_nothing(tmp_path):
    def stop(drawn: int, total: int) -> None:
        if drawn == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        doodles.write(tmp_path / "doodles", per_class=4, progress=stop)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_call_leaves_no_folder_and_the_next_one_makes_it_whole(tmp_path):
    code = """if True:
        import os, pathlib, signal, sys
        from alexnet import doodles
        kill = lambda drawn, total: drawn == 5 and os.kill(os.getpid(), signal.SIGKILL)
        doodles.write(pathlib.Path(sys.argv[1]), per_class=4, progress=kill)
    """
    assert _python(code, str(tmp_path / "doodles")).returncode == -signal.SIGKILL
    assert not (tmp_path / "doodles").exists()
    doodles.write(tmp_path / "doodles", per_class=2)
    assert len(_files(tmp_path / "doodles")) == 4
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["doodles"]
