"""Folders of photos, made here in every layout: what is used, what is left out and why, the splits and the caches."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections import Counter, namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet import data, runs
from alexnet.data import DataError, Dataset, NoRoom, Photo, Report
from alexnet.images import MAX_BYTES
from alexnet.recipes import Recipe, RecipeError

CATS, DOGS = [f"cat/{n}.jpg" for n in range(3)], [f"dog/{n}.jpg" for n in range(2)]


def labels(dataset: Dataset) -> dict[str, str]:
    """Class of each used photo, by path."""
    return {photo.path: dataset.classes[photo.label] for photo in dataset.photos}


def splits(dataset: Dataset) -> dict[str, str | None]:
    return {photo.path: photo.split for photo in dataset.photos}


def skipped(dataset: Dataset) -> dict[str, str]:
    return {skip.path: skip.reason for skip in dataset.report.skipped}


def load(folder: Path | str, **options) -> Dataset:
    """The dataset, after a check that its report adds up."""
    dataset = data.load(str(folder), **options)
    report = dataset.report
    assert report.found == report.used + len(report.skipped)
    assert report.used == len(dataset.photos) == sum(report.per_class.values())
    assert list(report.per_class) == list(dataset.classes) and sum(report.reasons.values()) == len(report.skipped)
    paths = [photo.path for photo in dataset.photos]
    assert paths == sorted(paths) and not set(paths) & set(skipped(dataset))
    return dataset


def refusal(folder: Path | str) -> str:
    """The sentence with which a folder is refused."""
    with pytest.raises(DataError) as caught:
        data.load(str(folder))
    text = str(caught.value)
    assert text.endswith(".") and ". " not in text and "\n" not in text
    return text


# ------------------------------------------------------------------------------------------------------------ layouts


@pytest.mark.parametrize("wrapper", ["", "PetImages/", "archive/PetImages/", "train/", "training_set/training_set/"])
def test_a_folder_per_class_however_wrapped(photo_folder, wrapper):
    dataset = load(photo_folder([wrapper + path for path in CATS + DOGS]))
    assert dataset.classes == ("cat", "dog")
    assert labels(dataset) == {wrapper + path: path[:3] for path in CATS + DOGS}
    split = "train" if wrapper.startswith("train") else None
    assert set(splits(dataset).values()) == {split}
    assert dataset.report == Report(5, 5, (), {"cat": 3, "dog": 2}) and dataset.name == "photos"


@pytest.mark.parametrize("wrapper", ["", "train/", "train/train/", "dogs-vs-cats/train/", "dogs-vs-cats/", "a/b/"])
def test_labels_in_file_names_however_wrapped(photo_folder, wrapper):
    paths = ["cat.0.jpg", "cat.10.jpg", "dog.0.JPG", "big dog.7.png"]
    dataset = load(photo_folder([wrapper + path for path in paths]))
    assert labels(dataset) == {wrapper + path: path.split(".")[0] for path in paths}
    assert set(splits(dataset).values()) == {"train" if "train" in wrapper else None}


def test_train_val_and_test_folders_of_classes(photo_folder):
    names = {"Training": "train", "valid": "val", "test_set": "test"}
    paths = {f"{folder}/{path}": split for folder, split in names.items() for path in CATS + DOGS}
    dataset = load(photo_folder(list(paths)))
    assert splits(dataset) == paths and dataset.classes == ("cat", "dog")


def test_split_folders_that_hold_a_folder_of_their_own_name(photo_folder):
    """As in a popular archive of 10,000 cats and dogs, with its two photos of neither."""
    paths = [f"{s}/{s}/{path}" for s in ("training_set", "test_set") for path in ("cats/1.jpg", "dogs/1.jpg")]
    dataset = load(photo_folder([*paths, "single_prediction/cat_or_dog_1.jpg"]))
    assert labels(dataset) == {path: path.split("/")[2] for path in paths}
    assert Counter(splits(dataset).values()) == {"train": 2, "test": 2}
    assert skipped(dataset) == {"single_prediction/cat_or_dog_1.jpg": "outside the train, val and test folders"}


def test_splits_of_different_layouts(photo_folder):
    dataset = load(photo_folder(["train/cat.0.jpg", "train/dog.0.jpg", "val/cat/1.jpg", "val/dog/1.jpg", "test/1.jpg"]))
    assert splits(dataset) == {
        "train/cat.0.jpg": "train",
        "train/dog.0.jpg": "train",
        "val/cat/1.jpg": "val",
        "val/dog/1.jpg": "val",
    }
    assert dataset.classes == ("cat", "dog") and skipped(dataset) == {"test/1.jpg": "no label in its folder or name"}


def test_folders_decide_where_most_photos_lie_in_some(photo_folder):
    dataset = load(photo_folder([*CATS, *DOGS, "bird.1.jpg", "bird.2.jpg"]))
    assert dataset.classes == ("cat", "dog") and skipped(dataset)["bird.1.jpg"] == "no label in its folder or name"


def test_folders_within_a_class_belong_to_it(photo_folder):
    dataset = load(photo_folder(["cat/kittens/2024/1.jpg", "cat/2.jpg", "dog/puppies/1.jpg", "dog/3.jpg"]))
    assert dataset.report.per_class == {"cat": 2, "dog": 2}


def test_a_class_alone_in_its_folder_is_still_that_class(photo_folder):
    dataset = load(photo_folder(CATS))
    assert dataset.classes == ("cat",)
    with pytest.raises(DataError, match="has one class only, cat;"):
        data.check_trainable(dataset)


# "ą" is one character in the first name and two in the second; the vowel signs of Hindi are no letters to `re`.
NAMES = ["кошка", "犬", "قط", "na\u0105", "na\u0061\u0328", "बिल्ली", "Große Katze", "cat & dog's", "100% cat", "🐈"]


@pytest.mark.parametrize("name", NAMES)
def test_class_folders_in_any_script(photo_folder, name):
    dataset = load(photo_folder([f"{name}/фото 1.jpg", f"{name}/写真.PNG", "dog/1.jpg"]))
    assert set(dataset.classes) == {name, "dog"} and dataset.report.per_class[name] == 2


@pytest.mark.parametrize("name", [name for name in NAMES if name[0].isalpha()])
def test_labels_in_file_names_in_any_script(photo_folder, name):
    dataset = load(photo_folder([f"{name}.1.jpg", f"{name}.2.jpg", "dog.1.jpg"]))
    assert dataset.report.per_class == {name: 2, "dog": 1}


@pytest.mark.skipif(os.name == "nt", reason="file names on Windows are always Unicode")
def test_a_name_in_bytes_that_are_no_text_is_left_out(photo_folder):
    folder = photo_folder(CATS + DOGS)
    shutil.copy(folder / "cat/0.jpg", os.fsencode(folder) + b"/cat/caf\xe9.jpg")
    assert skipped(load(folder)) == {"cat/caf?.jpg": "a name that is not Unicode"}
    load(folder)


# ------------------------------------------------------------------------------------------------- what is left out


def test_the_report_tells_each_reason(photo_folder):
    broken = {"cat/text.jpg": b"words", "cat/empty.png": b"", "dog/half.jpg": b"\xff\xd8\xff\xe0 and no more"}
    same = {"cat/1.jpg": 1, "cat/copy.png": 1, "dog/1.jpg": 2, "cat/both.jpg": 3, "dog/both.jpg": 3, "dog/2.jpg": 4}
    other = {"cat/Thumbs.db": b"x", "cat/notes.txt": b"x", "list.csv": b"x", "cat/cat.jpg.bak": b"x", "cat/jpg": b"x"}
    dataset = load(photo_folder({**broken, **same, **other, "logo.png": 5}))
    assert labels(dataset) == {"cat/1.jpg": "cat", "dog/1.jpg": "dog", "dog/2.jpg": "dog"}
    reasons = {**dict.fromkeys(broken, "unreadable"), **dict.fromkeys(other, "not a photo file")}
    reasons |= dict.fromkeys(("cat/both.jpg", "dog/both.jpg"), "the same photo under two labels")
    reasons |= {"cat/copy.png": "duplicate by content", "logo.png": "no label in its folder or name"}
    assert skipped(dataset) == reasons
    assert dataset.report.reasons == Counter(reasons.values()) and dataset.report.found == 15


def test_hidden_files_are_no_files(photo_folder):
    hidden = ["cat/._0.jpg", ".DS_Store", ".cache/cat/9.jpg", "__MACOSX/cat/9.jpg", "cat/.hidden/9.jpg"]
    assert load(photo_folder(CATS + DOGS + hidden)).report.found == 5


def test_of_equal_photos_the_one_held_out_stays(photo_folder):
    files = {"train/cat/1.jpg": 1, "val/cat/1.jpg": 1, "test/cat/1.jpg": 1, "train/cat/2.jpg": 2, "val/cat/2.jpg": 2}
    dataset = load(photo_folder({**files, "train/dog/3.jpg": 3, "train/dog/4.jpg": 3}))
    assert splits(dataset) == {"test/cat/1.jpg": "test", "val/cat/2.jpg": "val", "train/dog/3.jpg": "train"}


def test_a_linked_photo_counts_and_a_broken_link_is_reported(photo_folder, tmp_path):
    elsewhere = photo_folder(["x.jpg", "album/1.jpg", "album/2.jpg"], name="elsewhere")
    folder = photo_folder(CATS + DOGS)
    (folder / "dog/link.jpg").symlink_to(elsewhere / "x.jpg")
    (folder / "dog/broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "dog/itself.jpg").symlink_to("itself.jpg")
    (folder / "fish").symlink_to(elsewhere / "album")
    dataset = load(folder)
    assert dataset.report.per_class == {"cat": 3, "dog": 3, "fish": 2}
    assert skipped(dataset) == {"dog/broken.jpg": "cannot be opened", "dog/itself.jpg": "cannot be opened"}
    shutil.copy(elsewhere / "x.jpg", tmp_path / "nowhere.jpg")
    assert skipped(load(folder)) == {"dog/itself.jpg": "cannot be opened", "dog/link.jpg": "duplicate by content"}


def test_folders_that_link_to_each_other_end(photo_folder):
    folder = photo_folder(CATS + DOGS)
    (folder / "cat/up").symlink_to(folder)
    (folder / "dog/cats").symlink_to(folder / "cat")
    assert load(folder).report == Report(5, 5, (), {"cat": 3, "dog": 2})


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
def test_a_pipe_and_a_huge_file_are_left_out_unread(photo_folder):
    folder = photo_folder(CATS + DOGS)
    os.mkfifo(folder / "cat/pipe.jpg")
    (folder / "cat/huge.jpg").touch()
    os.truncate(folder / "cat/huge.jpg", MAX_BYTES + 1)
    (folder / "dog/folder.jpg").mkdir()
    assert skipped(load(folder)) == {"cat/pipe.jpg": "cannot be opened", "cat/huge.jpg": "larger than 50 MB"}


# ------------------------------------------------------------------------------------------------------------- errors


def test_folders_that_cannot_be_used(photo_folder, tmp_path):
    assert "There is no folder" in refusal(tmp_path / "nowhere")
    assert "There is no folder" in refusal("~nobody-of-this-name/photos")
    assert "There is no folder" in refusal(tmp_path / ("x" * 300))
    assert "is empty" in refusal(photo_folder([], name="empty"))
    assert "is not a folder" in refusal(photo_folder(["cat.1.jpg"], name="one") / "cat.1.jpg")
    assert "because: no label" in refusal(photo_folder(["1.jpg", "2.jpg"], name="loose"))
    assert "because: not a photo file" in refusal(photo_folder({"cat/a.txt": b"", "dog/b.txt": b""}, name="texts"))
    bad = {"cat/1.jpg": b"x", "cat/2.jpg": b"y", "dog/1.jpg": b"z", "dog/a.txt": b""}
    assert "None of the 4 files" in (text := refusal(photo_folder(bad, name="bad"))) and "(3) because: unread" in text
    both = {"cat/1.jpg": 1, "dog/1.jpg": 1}
    assert "because: the same photo under two labels" in refusal(photo_folder(both, name="both"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(photo_folder):
    folder = photo_folder(CATS + DOGS)
    (folder / "cat").chmod(0)
    assert "check its permissions" in refusal(folder)


def test_an_archive_that_is_not_here_says_how_to_get_it():
    assert "alexnet data download oxford-pets" in refusal("oxford-pets")
    assert not data.available("oxford-pets") and data.available("doodles") and data.available("/any/folder")


def test_a_class_needs_two_photos(photo_folder):
    dataset = load(photo_folder([*CATS, "dog/1.jpg"]))
    with pytest.raises(DataError, match="The class dog of photos has one photo only;"):
        data.check_trainable(dataset)
    data.check_trainable(load(photo_folder(DOGS)))


def test_the_fingerprint_changes_with_content_name_label_and_split(photo_folder):
    prints = [
        load(photo_folder(files, name=str(n))).fingerprint
        for n, files in enumerate(
            [
                {"cat/1.jpg": 1, "dog/2.jpg": 2},
                {"cat/1.jpg": 1, "dog/2.jpg": 3},
                {"cat/1.jpg": 1, "dog/3.jpg": 2},
                {"cat/1.jpg": 1, "fox/2.jpg": 2},
                {"train/cat/1.jpg": 1, "train/dog/2.jpg": 2},
                {"val/cat/1.jpg": 1, "train/dog/2.jpg": 2},
            ]
        )
    ]
    assert len(set(prints)) == 6
    assert load(photo_folder({"cat/1.jpg": 1, "dog/2.jpg": 2}, name="again")).fingerprint == prints[0]


# ------------------------------------------------------------------------------------------------------------- splits


def dataset_of(counts: dict[str, int], first: int = 0, split: str | None = None) -> Dataset:
    """A dataset whose photos exist by name and digest only, as `split` looks at nothing else."""
    classes = tuple(counts)
    photos = tuple(
        Photo(f"{name}/{n}.jpg", label, split, data.digest(f"{name} {n}".encode()), 24, 16)
        for label, name in enumerate(classes)
        for n in range(first, first + counts[name])
    )
    return Dataset("pets", Path("pets"), classes, photos, Report(len(photos), len(photos), (), dict(counts)))


def split(dataset: Dataset, val: float = 0.1, test: float = 0.1, **settings) -> dict[str, list[Photo]]:
    return data.split(dataset, Recipe(val_fraction=val, test_fraction=test, **settings))


def sizes(parts: dict[str, list[Photo]]) -> dict[str, dict[int, int]]:
    return {name: dict(Counter(photo.label for photo in photos)) for name, photos in parts.items()}


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_divided_in_the_shares_asked_for(seed):
    counts = {"cat": 4000, "dog": 400}
    parts = split(dataset_of(counts), 0.2, 0.1, seed=seed)
    assert sum(map(len, parts.values())) == 4400 == len({photo.path for part in parts.values() for photo in part})
    for name, share in (("train", 0.7), ("val", 0.2), ("test", 0.1)):
        for label, count in enumerate(counts.values()):
            deviation = math.sqrt(count * share * (1 - share))  # of a binomial distribution
            assert abs(sizes(parts)[name][label] - count * share) < 4 * deviation


def test_a_split_follows_from_the_seed():
    dataset = dataset_of({"cat": 200, "dog": 200})
    assert split(dataset, 0.2, 0.1, seed=1) == split(dataset, 0.2, 0.1, seed=1)
    assert split(dataset, 0.2, 0.1, seed=1) != split(dataset, 0.2, 0.1, seed=2)


def test_every_photo_keeps_its_split_when_others_come_or_go_and_names_change():
    def places(dataset: Dataset) -> dict[str, str]:
        parts = split(dataset, 0.2, 0.1, seed=3)
        return {photo.digest: name for name, photos in parts.items() for photo in photos}

    few = places(dataset_of({"cat": 100, "dog": 100}))
    many = places(dataset_of({"cat": 300, "dog": 100, "fox": 50}))
    assert few.items() <= many.items()
    renamed = dataset_of({"Cats": 0})
    photos = tuple(Photo(f"new/{p.path}", p.label, None, p.digest, 1, 1) for p in dataset_of({"cat": 100}).photos)
    assert places(Dataset("x", renamed.root, ("Cats",), photos, renamed.report)).items() <= few.items()


def test_a_larger_validation_split_takes_from_training_only():
    dataset = dataset_of({"cat": 300, "dog": 300})
    small, large = split(dataset, 0.1, 0.1), split(dataset, 0.3, 0.1)
    assert small["test"] == large["test"] and set(small["val"]) < set(large["val"])


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_the_smallest_classes_still_get_training_and_validation(count):
    for seed in range(30):
        parts = sizes(split(dataset_of({"cat": count, "dog": 500}), 0.1, 0.1, seed=seed))
        assert parts["train"][0] >= 1 and parts["val"][0] >= 1
        assert parts["test"].get(0, 0) >= (count > 2)
        assert sum(part.get(0, 0) for part in parts.values()) == count


def test_no_share_asked_for_is_none_given():
    parts = split(dataset_of({"cat": 100, "dog": 100}), 0.2, 0.0)
    assert parts["test"] == [] and sizes(parts)["val"].keys() == {0, 1}


def test_a_pattern_makes_the_validation_split():
    parts = split(dataset_of({"cat": 40, "dog": 40}), 0.2, 0.0, val_pattern="*3.jpg")
    assert [photo.path for photo in parts["val"]] == [f"{c}/{n}3.jpg" for c in ("cat", "dog") for n in ("", 1, 2, 3)]
    assert len(parts["train"]) == 72 and parts["test"] == []
    with pytest.raises(DataError, match="to validate with"):
        split(dataset_of({"cat": 40, "dog": 40}), 0.2, 0.1, val_pattern="*.png")
    with pytest.raises(DataError, match="to train on"):
        split(dataset_of({"cat": 40, "dog": 40}), 0.2, 0.1, val_pattern="*")
    with pytest.raises(DataError, match="to validate with"):
        split(dataset_of({"cat": 40, "dog": 40}), 0.0, 0.1)


def given(**counts: int) -> Dataset:
    """A dataset whose folders give the splits, with so many photos of each of two classes."""
    parts, first = [], 0
    for name, count in counts.items():
        parts += dataset_of({"cat": count, "dog": count}, first, name).photos
        first += count
    return Dataset("pets", Path("pets"), ("cat", "dog"), tuple(parts), Report(len(parts), len(parts), (), {}))


def lengths(parts: dict[str, list[Photo]]) -> tuple[int, ...]:
    return tuple(len(parts[name]) for name in ("train", "val", "test"))


def test_splits_that_folders_give_stand():
    assert lengths(split(given(train=50, val=10, test=20), 0.3, 0.3)) == (100, 20, 40)
    assert lengths(split(given(train=50, val=10), 0.3, 0.3)) == (100, 20, 0)
    train, val, test = lengths(split(given(train=200, test=20), 0.3, 0.3))
    assert test == 40 and 60 <= val <= 180 and train + val == 400
    train, val, test = lengths(split(given(train=200), 0.3, 0.3))
    assert min(train, val, test) >= 60 and train + val + test == 400


def test_a_pattern_takes_nothing_from_given_splits():
    parts = split(given(train=50, test=50), 0.0, 0.0, val_pattern="*3.jpg")
    assert lengths(parts) == (90, 10, 100) and {photo.split for photo in parts["val"]} == {"train"}


def paths(photos) -> set[str]:
    return {photo.path for photo in photos}


def test_only_the_first_classes_are_used():
    pets = dataset_of({"ant": 20, "bee": 30, "cat": 40})
    recipe = Recipe(max_classes=2)
    subset = pets.subset(recipe)
    assert subset.classes == ("ant", "bee") and subset.photos == pets.photos[:50]
    assert (
        data.split(pets, recipe)
        == data.split(subset, recipe)
        == data.split(dataset_of({"ant": 20, "bee": 30}), Recipe())
    )
    assert {name: set(counts) for name, counts in data.split_counts(pets, recipe).items()} == dict.fromkeys(
        ("train", "val", "test"), {"ant", "bee"}
    )
    with pytest.raises(RecipeError, match="max_classes: one class"):
        Recipe(max_classes=1)
    assert pets.subset(Recipe()) is pets and pets.subset(Recipe(max_classes=3)).photos == pets.photos


def test_so_many_photos_of_each_class_are_drawn_by_the_seed():
    pets = dataset_of({"cat": 300, "dog": 100})
    few, more, other = (pets.subset(Recipe(max_per_class=n, seed=s)) for n, s in ((20, 0), (50, 0), (20, 1)))
    assert Counter(photo.label for photo in few.photos) == {0: 20, 1: 20}
    assert paths(few.photos) < paths(more.photos) and paths(few.photos) != paths(other.photos)
    assert list(few.photos) == [photo for photo in pets.photos if photo.path in paths(few.photos)]
    assert pets.subset(Recipe(max_per_class=100)).report == pets.report
    assert Counter(photo.label for photo in pets.subset(Recipe(max_per_class=200)).photos) == {0: 200, 1: 100}
    parts = split(pets, 0.2, 0.1, max_per_class=20)
    assert paths(few.photos) == paths(photo for part in parts.values() for photo in part)


def test_a_drawn_photo_stays_drawn_when_others_go_and_names_change():
    many, few = dataset_of({"cat": 300, "dog": 90}), dataset_of({"cat": 200, "dog": 90})
    drawn = {photo.digest for photo in many.subset(Recipe(max_per_class=80)).photos}
    again = {photo.digest for photo in few.subset(Recipe(max_per_class=80)).photos}
    assert {photo.digest for photo in few.photos} & drawn <= again
    renamed = tuple(Photo(f"new/{n}.png", p.label, None, p.digest, 1, 1) for n, p in enumerate(many.photos))
    subset = Dataset("x", many.root, many.classes, renamed, many.report).subset(Recipe(max_per_class=80))
    assert {photo.digest for photo in subset.photos} == drawn


def test_drawn_photos_are_divided_in_the_shares_asked_for():
    """That they were drawn says nothing of the split that a photo then gets."""
    parts = split(dataset_of({"cat": 9000, "dog": 9000}), 0.1, 0.1, max_per_class=1000)
    for name, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert abs(len(parts[name]) - 2000 * share) < 4 * math.sqrt(2000 * share * (1 - share))


def test_photos_that_folders_hold_out_do_not_count_against_the_limit():
    pets = given(train=50, val=8, test=20)
    assert lengths(split(pets, 0.3, 0.3, max_per_class=10)) == (20, 16, 40)
    train, val, test = lengths(split(given(train=200, test=20), 0.3, 0.3, max_per_class=100))
    assert test == 40 and 30 <= val <= 90 and train + val == 200


def test_photos_that_the_limit_leaves_out_are_tested_on():
    pets, settings = dataset_of({"cat": 300, "dog": 100, "fox": 52}), {"max_per_class": 50, "seed": 3}
    without, parts = split(pets, **settings), split(pets, **settings, test_on_rest=101)
    assert (parts["train"], parts["val"]) == (without["train"], without["val"]) and len(without["test"]) > 0
    rest = paths(parts["test"]) - paths(without["test"])
    assert paths(without["test"]) < paths(parts["test"]) and len(rest) == 101
    assert Counter(path[:3] for path in rest) == {"cat": 50, "dog": 49, "fox": 2}  # two foxes are all that is left
    more = split(pets, **settings, test_on_rest=102)
    assert paths(parts["test"]) < paths(more["test"])
    assert paths(split(pets, max_per_class=50, seed=4, test_on_rest=101)["test"]) != paths(parts["test"])


def test_photos_left_out_are_tested_on_beside_those_that_folders_hold_out():
    assert lengths(split(given(train=50, val=8, test=20), max_per_class=10, test_on_rest=30)) == (20, 16, 70)
    parts = split(dataset_of({"cat": 50, "dog": 50}), 0.1, 0.0, max_per_class=40, test_on_rest=20, val_pattern="*3.jpg")
    assert len(parts["test"]) == 20 and len(parts["train"]) + len(parts["val"]) == 80
    assert all(photo.path.endswith("3.jpg") for photo in parts["val"])


@pytest.mark.parametrize("pets", [dataset_of({"cat": 30, "dog": 20, "fox": 10}), given(train=30, val=5, test=5)])
def test_the_subset_of_a_subset_is_itself(pets):
    recipe = Recipe(max_classes=2, max_per_class=15, test_on_rest=10)
    subset = pets.subset(recipe)
    assert subset.subset(recipe) == subset and len(subset.photos) == 40 + 20 * (pets.classes == ("cat", "dog"))
    assert data.split(subset, recipe) == data.split(pets, recipe)


def test_folds_divide_the_photos_that_were_drawn():
    pets, recipe = dataset_of({"cat": 50, "dog": 60}), Recipe(folds=4, fold=1, max_per_class=20)
    tests = [data.split(pets, recipe.replace(fold=fold))["test"] for fold in range(1, 5)]
    assert sorted(photo.path for test in tests for photo in test) == sorted(paths(pets.subset(recipe).photos))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_classes": 3}, "pets has 2 classes and max_classes asks for 3; use 2 at most."),
        (
            {"max_per_class": 1061},
            "No class of pets has more than 1,060 photos to learn from and max_per_class asks for 1,061;",
        ),
        (
            {"max_per_class": 40, "test_on_rest": 1031},
            "leaves out 1,030 photos of pets and test_on_rest asks for 1,031;",
        ),
    ],
)
def test_a_subset_larger_than_the_data_is_refused(settings, sentence):
    pets = dataset_of({"cat": 1060, "dog": 50})
    for ask in (pets.subset, lambda recipe: data.split(pets, recipe), lambda recipe: data.split_counts(pets, recipe)):
        with pytest.raises(DataError) as caught:
            ask(Recipe(**settings))
        text = str(caught.value)
        assert sentence in text and text.endswith(".") and ". " not in text


def test_a_recipe_may_insist_on_the_splits_of_folders():
    for counts, missing in (
        ({"train": 5, "val": 5}, None),
        ({"train": 50, "test": 5}, None),
        ({"train": 5}, "has no val/ or test/ folder with photos;"),
        ({"val": 5, "test": 5}, "has no train/ folder with photos;"),
    ):
        with pytest.raises(DataError, match=missing) if missing else contextlib.nullcontext():
            split(given(**counts), given_splits=True)
    with pytest.raises(DataError, match="pets has no train/ folder and no val/ or test/ folder with photos; add that"):
        split(dataset_of({"cat": 5, "dog": 5}), given_splits=True)


def test_the_first_classes_may_lack_the_splits_that_others_have():
    pets = dataset_of({"cat": 5, "dog": 5}, split="train").photos
    fish = Photo("val/fish/1.jpg", 2, "val", "1", 9, 9)
    dataset = Dataset("pets", Path("pets"), ("cat", "dog", "fish"), (*pets, fish), Report(11, 11, (), {}))
    assert dataset.subset(Recipe(given_splits=True)) is dataset
    with pytest.raises(DataError, match="has no val/ or test/ folder"):
        dataset.subset(Recipe(given_splits=True, max_classes=2))


def test_equal_photos_never_straddle_two_splits(photo_folder):
    files = {f"{name}/{n}.png": number + n // 3 for name, number in (("cat", 0), ("dog", 100)) for n in range(60)}
    dataset = load(photo_folder(files))
    parts = split(dataset, 0.3, 0.2)
    digests = [photo.digest for part in parts.values() for photo in part]
    assert len(digests) == len(set(digests)) == 40 and dataset.report.reasons == {"duplicate by content": 80}


def test_one_split_by_name():
    dataset, recipe = dataset_of({"cat": 50, "dog": 50}), Recipe(val_fraction=0.2, test_fraction=0.0, seed=4)
    assert data.split_of(dataset, recipe, "val") == data.split(dataset, recipe)["val"] != []
    assert data.split_of(dataset, recipe, "all") == list(dataset.photos)
    with pytest.raises(DataError, match="no photo of pets for the test split"):
        data.split_of(dataset, recipe, "test")


# -------------------------------------------------------------------------------------------------------------- index


def overwrite_unnoticed(path: Path, content: bytes) -> None:
    """Replace the content, keeping size and time of change."""
    stat = path.stat()
    path.write_bytes(content.ljust(stat.st_size, b"\0"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_what_was_checked_once_is_not_read_again(photo_folder):
    folder = photo_folder({**dict.fromkeys(CATS, b"broken"), "cat/9.jpg": 9, "dog/1.jpg": 1, "dog/2.jpg": 2})
    first = load(folder)
    for path in ("cat/9.jpg", "dog/1.jpg"):
        overwrite_unnoticed(folder / path, b"no picture")
    told = []
    assert load(folder, progress=lambda *step: told.append(step)) == first and told == []


def test_what_has_changed_is_read_again(photo_folder):
    folder = photo_folder({"cat/1.jpg": 1, "cat/2.jpg": 2, "dog/1.jpg": 3, "dog/2.jpg": b"broken"})
    first = load(folder)
    photo_folder({"dog/2.jpg": 4, "dog/3.jpg": 5})
    (folder / "cat/2.jpg").unlink()
    stat = (folder / "cat/1.jpg").stat()
    os.utime(folder / "cat/1.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    told = []
    second = load(folder, progress=lambda *step: told.append(step))
    assert told == [("Checking photos", 3, 3)]
    assert first.report == Report(4, 3, first.report.skipped, {"cat": 2, "dog": 1})
    assert second.report == Report(4, 4, (), {"cat": 1, "dog": 3})


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b'{"cat/0.jpg": 3}', b'{"cat/0.jpg": [1, 2]}'])
def test_a_damaged_index_is_made_again(photo_folder, content):
    folder = photo_folder(CATS + DOGS)
    first = load(folder)
    (index,) = (runs.data_dir() / "index").iterdir()
    index.write_bytes(content)
    assert load(folder) == first


def test_a_place_without_room_for_the_index_costs_nothing_else(photo_folder):
    runs.data_dir().parent.mkdir(parents=True, exist_ok=True)
    runs.data_dir().write_text("a file where the folder should be")
    assert load(photo_folder(CATS + DOGS)).report.used == 5


def test_what_could_not_be_opened_is_not_remembered(photo_folder):
    """It may be next time: a change of permissions leaves size and time of the file as they are."""
    folder = photo_folder({"cat/1.jpg": 1, "cat/2.jpg": b"broken", "dog/1.jpg": 2})
    (folder / "dog/link.jpg").symlink_to(folder / "nowhere")
    assert skipped(load(folder)) == {"cat/2.jpg": "unreadable", "dog/link.jpg": "cannot be opened"}
    (index,) = (runs.data_dir() / "index").iterdir()
    assert set(json.loads(index.read_text())) == {"cat/1.jpg", "cat/2.jpg", "dog/1.jpg"}


def slowly(function: Callable, calls: list) -> Callable:
    """`function`, noting each call and taking long enough for two threads not to run ahead of a cancellation."""

    def call(*arguments):
        calls.append(arguments)
        time.sleep(0.01)
        return function(*arguments)

    return call


def test_a_cancelled_check_ends_and_goes_on_where_it_was(photo_folder, monkeypatch):
    opened: list = []
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(data, "check_photo", slowly(data.check_photo, opened))
    folder = photo_folder({f"{name}/{n}.png": n + 1000 * len(name) for name in ("cat", "tiger") for n in range(100)})

    def cancel(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(folder, progress=cancel)
    assert 50 <= len(opened) < 200
    told = []
    load(folder, progress=lambda *step: told.append(step))
    assert [step[1:] for step in told] == [(50, 150), (100, 150), (150, 150)]


def test_doodles_need_no_download():
    drawing = []

    def stop(stage: str, done: int, total: int) -> None:
        drawing.append(stage)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        data.load("doodles", stop)
    assert drawing == ["Drawing doodles"]


# -------------------------------------------------------------------------------------------------------------- cache


def squash(photo: Image.Image) -> Image.Image:
    return photo.resize((4, 4), Image.Resampling.NEAREST)


def refuse_to_make(photo: Image.Image) -> Image.Image:
    raise AssertionError("made again")


def cache_files() -> list[Path]:
    return sorted((runs.data_dir() / "cache").iterdir())


@pytest.fixture
def pets(photo_folder) -> Dataset:
    return load(photo_folder({f"{name}/{n}.png": n + 100 * len(name) for name in ("cat", "tiger") for n in range(60)}))


def test_the_cache_holds_the_right_pixels_in_the_right_order(pets):
    photos = pets.photos[::-3]
    array = data.cached(pets, photos, squash, "squash", 4)
    assert array.shape == (40, 3, 4, 4) and array.dtype == np.uint8 and isinstance(array, np.memmap)
    assert not array.flags.writeable
    for row, photo in zip(array, photos, strict=True):
        with Image.open(pets.root / photo.path) as image:
            assert np.array_equal(row, np.asarray(squash(image.convert("RGB"))).transpose(2, 0, 1))


def test_the_cache_is_made_once_for_each_choice_of_photos_recipe_and_side(pets):
    first = data.cached(pets, pets.photos, squash, "squash", 4)
    shutil.rmtree(pets.root)  # the photos are not needed any more
    assert np.array_equal(data.cached(pets, pets.photos, refuse_to_make, "squash", 4), first)
    assert len(cache_files()) == 1
    others = [(pets.photos[1:], "squash", 4), (pets.photos[::-1], "squash", 4)]
    for photos, recipe, side in [*others, (pets.photos, "other", 4), (pets.photos, "squash", 5)]:
        with pytest.raises(DataError, match="changed while the dataset was read"):
            data.cached(pets, photos, squash, recipe, side)
    assert len(cache_files()) == 1


@pytest.mark.parametrize("keep", [0, 5, 60, 200, -1])
def test_a_truncated_cache_is_made_again(pets, keep):
    expected = np.array(data.cached(pets, pets.photos, squash, "squash", 4))
    (file,) = cache_files()
    file.write_bytes(file.read_bytes()[:keep])
    assert np.array_equal(data.cached(pets, pets.photos, squash, "squash", 4), expected)
    assert cache_files() == [file]


@pytest.mark.parametrize("content", [b"PK\x03\x04 not an archive", b"\x80\x04pickle", b"\x93NUMPY\x01\x00\x04\x00{((}"])
def test_a_damaged_cache_is_made_again(pets, content):
    expected = np.array(data.cached(pets, pets.photos, squash, "squash", 4))
    (file,) = cache_files()
    file.write_bytes(content.ljust(500, b" "))
    assert np.array_equal(data.cached(pets, pets.photos, squash, "squash", 4), expected)


@pytest.mark.parametrize(
    "change",
    [lambda a: a[1:], lambda a: a[:, :, :2], np.int16, np.float32],
    ids=["a photo less", "narrower", "int16", "float32"],
)
def test_a_cache_of_another_shape_or_type_is_made_again(pets, change):
    expected = np.array(data.cached(pets, pets.photos, squash, "squash", 4))
    (file,) = cache_files()
    np.save(file, change(expected))
    again = data.cached(pets, pets.photos, squash, "squash", 4)
    assert np.array_equal(again, expected) and again.dtype == np.uint8


def test_a_cache_of_another_version_is_made_again(pets, monkeypatch):
    expected = np.array(data.cached(pets, pets.photos, squash, "squash", 4))
    monkeypatch.setattr(data, "CACHE_FORMAT", data.CACHE_FORMAT + 1)
    made: list = []
    assert np.array_equal(data.cached(pets, pets.photos, slowly(squash, made), "squash", 4), expected)
    assert len(made) == 120 and len(cache_files()) == 2


def test_a_disk_without_room_is_told_before_anything_is_written(pets, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12, 120 * 3 * 4 * 4))
    with pytest.raises(NoRoom, match=r"needs 0\.0 GB and the disk has 0\.0 GB free; .*ALEXNET_HOME"):
        data.cached(pets, pets.photos, squash, "squash", 4)
    assert cache_files() == []


FULL_DISK = """
import resource, signal, sys
from alexnet import data
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write past the limit fails, as on a full disk
dataset = data.load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    data.cached(dataset, dataset.photos, lambda photo: photo.resize((4, 4)), "squash", 4)
except data.NoRoom as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of a file")
@pytest.mark.parametrize("limit", [0, 100, 3000, 120 * 48 + 127])
def test_a_disk_that_fills_while_the_cache_is_written_is_told_in_a_sentence_and_nothing_is_left(pets, limit):
    command = [sys.executable, "-c", FULL_DISK, str(pets.root), str(limit)]
    done = subprocess.run(command, cwd=runs.PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The cache of photos cannot be written: ") and "set cache to off" in done.stdout
    assert cache_files() == []
    data.cached(pets, pets.photos, squash, "squash", 4)


def test_a_place_that_cannot_be_written_is_told_in_a_sentence(pets):
    shutil.rmtree(runs.data_dir())
    runs.data_dir().write_text("a file where the folder should be")
    with pytest.raises(DataError, match="cannot be written") as caught:
        data.cached(pets, pets.photos, squash, "squash", 4)
    assert not isinstance(caught.value, NoRoom)


def test_few_photos_are_made_ahead_of_what_is_written(pets, monkeypatch):
    """However slow the disk, the memory holds a few photos only."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    made: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        results = data._map_ahead(pool, lambda number: made.append(number) or number, range(100))
        assert next(results) == 0
        pool.submit(int).result()  # the one thread has done all that it was given before
        assert made == list(range(8))
        assert list(results) == list(range(1, 100)) and made == list(range(100))


def test_planes():
    picture = Image.new("RGB", (3, 2), (1, 2, 3))
    picture.putpixel((2, 0), (7, 8, 9))
    array = data.planes(picture)
    assert array.shape == (3, 2, 3) and array.dtype == np.uint8
    assert array.tolist() == [[[c, c, c + 6], [c, c, c]] for c in (1, 2, 3)]


def test_progress_is_told_and_what_it_raises_cancels_and_leaves_nothing(pets, monkeypatch):
    told, made = [], []
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def cancel(stage: str, done: int, total: int) -> None:
        told.append((stage, done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.cached(pets, pets.photos, slowly(squash, made), "squash", 4, progress=cancel)
    assert told == [("Preparing photos", 50, 120)] and 50 <= len(made) < 120 and cache_files() == []
    data.cached(pets, pets.photos, squash, "squash", 4, progress=lambda *step: told.append(step))
    assert [done for _, done, _ in told] == [50, 50, 100, 120]


def test_a_photo_that_vanished_is_told_and_leaves_nothing(pets):
    (pets.root / pets.photos[7].path).unlink()
    with pytest.raises(DataError, match="A photo changed while the dataset was read: The file does not exist"):
        data.cached(pets, pets.photos, squash, "squash", 4)
    assert cache_files() == []


def test_photos_may_be_decoded_smaller(photo_folder, tmp_path):
    folder = photo_folder(["dog/1.png"])
    (folder / "cat").mkdir()
    Image.new("RGB", (1600, 800), "red").save(folder / "cat/1.jpg")
    dataset, seen = load(folder), []

    def make(photo: Image.Image) -> Image.Image:
        seen.append(photo.size)
        return squash(photo)

    data.cached(dataset, dataset.photos[:1], make, "squash", 4, at_least=100)
    assert seen == [(200, 100)] and (dataset.photos[0].width, dataset.photos[0].height) == (1600, 800)


def test_what_a_killed_builder_left_is_cleared_away(photo_folder):
    dataset = load(photo_folder(CATS + DOGS))
    left = runs.data_dir() / "cache" / ".0123.npy"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a cache")
    data.cached(dataset, dataset.photos, lambda photo: photo.resize((8, 8)), "tiny", 8)
    assert len(cache_files()) == 1


def test_photos_are_counted_by_split_and_class(photo_folder):
    files = ("train/cat/1.png", "train/cat/2.png", "train/dog/3.png", "val/dog/4.png", "test/cat/5.png")
    counts = data.split_counts(data.load(str(photo_folder(files))), Recipe())
    assert counts == {"train": {"cat": 2, "dog": 1}, "val": {"cat": 0, "dog": 1}, "test": {"cat": 1, "dog": 0}}
