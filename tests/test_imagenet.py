"""The classes of ImageNet by name: the list itself, and datasets whose folders have WordNet ids for names."""

from __future__ import annotations

import pytest

from alexnet import data, imagenet
from alexnet.evaluate import match_classes
from alexnet.recipes import Recipe


def test_the_list_is_that_of_torchvision_in_the_order_of_the_ids():
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    names = imagenet.names()
    assert list(names) == sorted(names) and len(names) == 1000
    assert all(imagenet.WORDNET_ID.fullmatch(wordnet_id) for wordnet_id in names)
    assert [name.removesuffix(f" ({wordnet_id})") for wordnet_id, name in names.items()] == _IMAGENET_CATEGORIES


def test_ids_have_the_names_that_others_give_them():
    """From the ten classes of torchvision's Imagenette, and places that are well known."""
    from torchvision.datasets import Imagenette

    names = imagenet.names()
    assert {wordnet_id: names[wordnet_id] for wordnet_id in Imagenette._WNID_TO_CLASS} == {
        wordnet_id: synonyms[0] for wordnet_id, synonyms in Imagenette._WNID_TO_CLASS.items()
    }
    known = {0: "n01440764", 10: "n01530575", 217: "n02102040", 491: "n03000684", 574: "n03445777", 999: "n15075141"}
    assert {place: wordnet_id for place, wordnet_id in enumerate(names) if place in known} == known
    assert names["n01530575"] == "brambling" and names["n15075141"] == "toilet tissue"


def test_all_names_stay_apart_where_classes_are_matched_by_name():
    names = list(imagenet.names().values())
    assert match_classes(names, names) == list(range(1000))
    assert match_classes([name.upper() for name in names], names) == list(range(1000))


def test_class_folders_are_shown_by_name_in_the_order_of_their_ids(photo_folder):
    folders = ("n02102040", "n01440764", "n00000001", "n03445777")
    dataset = data.load(str(photo_folder([f"{split}/{f}/{split}.JPEG" for f in folders for split in ("train", "val")])))
    assert dataset.classes == ("n00000001", "tench", "English springer", "golf ball")
    assert {photo.path.split("/")[1]: dataset.classes[photo.label] for photo in dataset.photos} == {
        "n02102040": "English springer",
        "n01440764": "tench",
        "n00000001": "n00000001",
        "n03445777": "golf ball",
    }
    assert dataset.report.per_class == dict.fromkeys(dataset.classes, 2)
    assert dataset.subset(Recipe(max_classes=2)).classes == ("n00000001", "tench")


@pytest.mark.parametrize("other", ["cat", "n0210204", "n021020400", "N02102040", "n02102040 springer"])
def test_one_folder_of_another_kind_leaves_all_as_they_are(photo_folder, other):
    dataset = data.load(str(photo_folder(["n01440764/1.png", f"{other}/2.png"])))
    assert set(dataset.classes) == {"n01440764", other}


def test_imagenette(photo_folder):
    from torchvision.datasets import Imagenette

    classes = Imagenette._WNID_TO_CLASS
    folder = photo_folder([f"{split}/{f}/{f}_{n}.JPEG" for split, n in (("train", 1), ("val", 2)) for f in classes])
    dataset = data.load(str(folder))
    assert dataset.classes == (
        "tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck",
        "gas pump", "golf ball", "parachute",
    )  # fmt: skip
    parts = data.split(dataset, Recipe(given_splits=True))
    assert {name: len(photos) for name, photos in parts.items()} == {"train": 10, "val": 10, "test": 0}
