"""House numbers: files made here in the format of the published ones, read, refused, and placed by hand for the app."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from alexnet import data, runs, svhn
from alexnet.downloads import ARCHIVES, DownloadError, RemoteFile
from alexnet.recipes import Recipe

LABELS = {"train": [1, 10, 2, 3, 10, 9, 4, 5, 6, 7, 8], "test": [10, 1, 9]}  # as published: 10 stands for the digit 0


def pixels(split: str) -> np.ndarray:
    """(32, 32, 3, N) uint8."""
    shape = (32, 32, 3, len(LABELS[split]))
    return np.random.default_rng(len(split)).integers(0, 256, shape, dtype=np.uint8)


def mat(**variables: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables, do_compression=True)
    return buffer.getvalue()


def published(split: str) -> bytes:
    return mat(X=pixels(split), y=np.array(LABELS[split], dtype=np.uint8)[:, None])


@pytest.fixture
def placed(monkeypatch) -> Path:
    """The two files in the folder data, as if a person had put the published ones there."""
    files = []
    runs.data_dir().mkdir(parents=True)
    for file, split in zip(ARCHIVES["svhn"].files, svhn.SPLITS, strict=True):
        content = published(split)
        (runs.data_dir() / file.name).write_bytes(content)
        files.append(
            RemoteFile("http://127.0.0.1:9/" + file.name, len(content), f"md5:{hashlib.md5(content).hexdigest()}")
        )
    monkeypatch.setitem(ARCHIVES, "svhn", dataclasses.replace(ARCHIVES["svhn"], files=tuple(files)))
    return runs.data_dir()


def check_digits(folder: Path) -> None:
    """Whether `folder` holds the digits made here, each pixel as it was, and nothing else."""
    expected = {
        f"{split}/{label % 10}/{number:05}.png": pixels(split)[..., number]
        for split, labels in LABELS.items()
        for number, label in enumerate(labels)
    }
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == set(expected)
    for path, array in expected.items():
        assert np.array_equal(np.asarray(Image.open(folder / path)), array)


def test_files_placed_by_hand_become_a_dataset(placed):
    with pytest.raises(data.DataError, match="data download svhn"):
        data.load("svhn")
    told = []
    folder = data.download("svhn", lambda *step: told.append(step))
    assert folder == placed / "svhn"
    check_digits(folder)
    assert [step for step in told if step[0].startswith("Writing")][-1] == (
        "Writing the digits of test_32x32.mat",
        3,
        3,
    )
    dataset = data.load("svhn")
    assert dataset.classes == tuple("0123456789") and dataset.name == "svhn"
    assert dataset.report.per_class == {"0": 3, "1": 2, "9": 2, **dict.fromkeys("2345678", 1)}
    parts = data.split(dataset, Recipe(val_pattern="00000.png"))
    assert {name: len(photos) for name, photos in parts.items()} == {"train": 10, "val": 1, "test": 3}


def test_a_cancelled_download_leaves_no_half_dataset(placed):
    def cancel(stage: str, done: int, total: int) -> None:
        if stage == "Writing the digits of test_32x32.mat":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.download("svhn", cancel)
    assert not (placed / "svhn").exists() and not (placed / ".svhn.unpacking").exists()
    check_digits(data.download("svhn"))


def test_a_file_placed_by_hand_that_is_cut_short_is_told_in_a_sentence(placed):
    file = placed / "test_32x32.mat"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(
        DownloadError, match="test_32x32.mat in .* has 1,000 bytes instead of [0-9,]+: delete or replace it"
    ):
        data.download("svhn")
    file.write_bytes(whole[:-1] + b"?")
    with pytest.raises(DownloadError, match="test_32x32.mat in .* has another md5 digest than the published file"):
        data.download("svhn")
    assert not (placed / "svhn").exists()


X, Y = pixels("test"), np.array(LABELS["test"], dtype=np.uint8)[:, None]
OTHERS = {
    "nothing": b"",
    "text": b"<html>Welcome to our hotel</html>" * 100,
    "no numbers": mat(Z=X),
    "no labels": mat(X=X),
    "larger pictures": mat(X=np.zeros((64, 64, 3, 3), np.uint8), y=Y),
    "one picture": mat(X=X[..., 0], y=Y[:1]),
    "fractions": mat(X=X / 255, y=Y),
    "too few labels": mat(X=X, y=Y[:2]),
    "no digit": mat(X=X, y=Y + 2),
    "words": mat(X=X, y="word"),
    **{
        f"{length} bytes": published("test")[:length]
        for length in (1, 100, 128, 130, 1000, 5000, len(published("test")) - 1)
    },
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_a_file_of_something_else_is_told_in_a_sentence(content, tmp_path):
    files = [tmp_path / "train_32x32.mat", tmp_path / "test_32x32.mat"]
    files[0].write_bytes(published("train"))
    files[1].write_bytes(content)
    (tmp_path / "digits").mkdir()
    with pytest.raises(svhn.SvhnError) as caught:
        svhn.write(files, tmp_path / "digits", lambda *step: None)
    assert str(caught.value).startswith(f"{files[1]} is cut short or holds something else than house numbers:")


def test_published_files_of_something_else_are_a_download_that_failed(placed, monkeypatch):
    content = OTHERS["no labels"]
    (placed / "train_32x32.mat").write_bytes(content)
    train, test = ARCHIVES["svhn"].files
    train = RemoteFile(train.url, len(content), f"md5:{hashlib.md5(content).hexdigest()}")
    monkeypatch.setitem(ARCHIVES, "svhn", dataclasses.replace(ARCHIVES["svhn"], files=(train, test)))
    with pytest.raises(DownloadError, match="train_32x32.mat is cut short or holds something else"):
        data.download("svhn")
    assert not (placed / "svhn").exists()


def test_addresses_and_digests_are_torchvisions():
    from torchvision.datasets import SVHN

    for file, split in zip(ARCHIVES["svhn"].files, svhn.SPLITS, strict=True):
        assert [file.url, file.name, file.digest.removeprefix("md5:")] == SVHN.split_list[split]
    assert ARCHIVES["svhn"].bytes == 246_316_178
