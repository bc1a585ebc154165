"""Importing photos: what is taken and what is not and why, classes, names, limits, and that nothing is left of a failure."""

from __future__ import annotations

import errno
import io
import os
import shutil
import struct
import zipfile
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from alexnet import data, imports
from alexnet.__main__ import main
from alexnet.layout import DataError, Skip


def png(number: int, size: tuple[int, int] = (24, 16)) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PETS = {f"pets/{label}/{number}.png": png(10 * place + number) for place, label in enumerate(("cat", "dog"))
        for number in range(3)}  # fmt: skip


def zip_of(files: dict[str, bytes], title: str = "pets.zip", **how) -> imports.Source:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **how) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return imports.from_zip(title, file)


def bring_in(source: imports.Source, name: str = "pets", classes=None) -> data.Dataset:
    imports.bring_in(imports.plan(source), name, classes)
    return data.load(name)


def refusal(act, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        act(*arguments)
    return str(caught.value)


def paths(dataset: data.Dataset) -> list[str]:
    return [photo.path for photo in dataset.photos]


def nothing_left() -> bool:
    return not imports.names() and not list(imports.imports_dir().rglob("*.png"))


# ------------------------------------------------------------------------------------------------------ three sources


def test_a_zip_becomes_a_dataset_that_is_found_by_name():
    dataset = bring_in(zip_of(PETS))
    assert paths(dataset) == [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(3)]
    assert dataset.classes == ("cat", "dog") and dataset.name == "pets"
    assert (dataset.root / "cat/1.png").read_bytes() == PETS["pets/cat/1.png"]
    assert data.has_name("pets") and data.available("pets") and imports.names() == ["pets"]
    assert data.named()["pets"].source == "pets.zip"


def test_a_folder_and_files_from_a_browser_give_the_same_as_a_zip(tmp_path, photo_folder):
    folder = photo_folder(PETS, name="mine")
    sources = {
        "zipped": zip_of(PETS),
        "folder": imports.at_path(folder),
        "files": imports.from_files("pets", [(name, io.BytesIO(content)) for name, content in PETS.items()]),
    }
    assert len({bring_in(source, name).fingerprint for name, source in sources.items()}) == 1
    assert sorted(p.name for p in folder.rglob("*.png")) == sorted(name[-5:] for name in PETS)  # still there


def test_a_zip_is_found_by_its_path(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in PETS.items():
            archive.writestr(name, content)
    assert len(bring_in(imports.at_path(tmp_path / "a.zip")).photos) == 6
    assert "no folder" in refusal(lambda: imports.plan(imports.at_path(tmp_path / "b.zip")))


def test_files_from_a_browser_can_be_read_again_after_a_refusal():
    plan = imports.plan(imports.from_files("pets", [(name, io.BytesIO(content)) for name, content in PETS.items()]))
    imports.bring_in(plan, "one")
    imports.bring_in(plan, "two")
    assert data.load("one").fingerprint == data.load("two").fingerprint


def test_given_splits_stay_even_where_classes_are_called_like_splits():
    files = {f"{split}/{label}/{number}.png": png(hash((split, label, number)) % 10**6)
             for split in ("training", "val") for label in ("test", "real") for number in range(2)}  # fmt: skip
    dataset = bring_in(zip_of(files))
    assert dataset.classes == ("real", "test")
    assert {(p.split, p.path.split("/")[0]) for p in dataset.photos} == {("train", "train"), ("val", "val")}


def test_labels_from_names_become_folders_and_new_names_hold_against_the_names_of_files():
    files = {
        f"{label}.{number}.png": PETS[f"pets/{label}/{number}.png"] for label in ("cat", "dog") for number in range(3)
    }
    dataset = bring_in(zip_of(files), classes={"cat": "feline", "dog": None})
    assert dataset.classes == ("feline",) and paths(dataset) == [f"feline/cat.{number}.png" for number in range(3)]


# ---------------------------------------------------------------------------------------------------------- the report


def test_the_report_adds_up_with_what_was_never_unpacked():
    wide = io.BytesIO()
    Image.new("L", (40_000, 10)).save(wide, "PNG")
    dataset = bring_in(zip_of(PETS | {
        "../evil.png": b"?", "/evil.png": b"?", "pets/notes.txt": b"?", "pets/dog/broken.png": b"no photo",
        "pets/dog/wide.png": wide.getvalue(), "pets/dog/copy.png": PETS["pets/dog/1.png"], "pets/.DS_Store": b"?",
        "__MACOSX/pets/cat/._0.png": b"?", "pets/bird/0.png": png(99),
    }), classes={"bird": None})  # fmt: skip
    report = dataset.report
    assert report.reasons == {
        "a name that leads out of the folder": 2,
        "not a photo file": 1,
        "unreadable": 1,
        "more than 50 megapixels or 20,000 pixels a side": 1,
        "duplicate by content": 1,
        "of a class that was left out": 1,
    }
    assert (report.found, report.used) == (13, 6) and report.found == report.used + len(report.skipped)
    assert Skip("pets/bird/0.png", "of a class that was left out") in report.skipped
    assert not list(imports.imports_dir().parents[2].rglob("evil.png"))


def test_links_in_a_zip_are_not_followed():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in PETS.items():
            archive.writestr(name, content)
        link = zipfile.ZipInfo("pets/cat/link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    dataset = bring_in(imports.from_zip("pets.zip", file))
    assert dataset.report.reasons == {"a link or a device": 1}
    assert not os.path.lexists(dataset.root / "cat/link.png")


def test_a_damaged_member_is_skipped_and_the_others_come():
    source = zip_of(PETS)
    file = source.members.args[0]
    raw = bytearray(file.getvalue())
    at = raw.index(PETS["pets/cat/1.png"])
    raw[at + 40] ^= 1
    dataset = bring_in(imports.from_zip("pets.zip", io.BytesIO(raw)))
    assert dataset.report.skipped == (Skip("pets/cat/1.png", "damaged in the archive"),)
    assert len(dataset.photos) == 5 and not (dataset.root / "cat/1.png").exists()


def test_a_second_entry_of_the_same_name_is_told():
    with pytest.warns(UserWarning, match="Duplicate name"):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in [*PETS.items(), ("pets/cat/0.png", png(77))]:
                archive.writestr(name, content)
    dataset = bring_in(imports.from_zip("pets.zip", file))
    assert dataset.report.reasons == {"a second file of the same name": 1} and len(dataset.photos) == 6


def test_a_photo_that_went_away_is_told(photo_folder):
    plan = imports.plan(imports.at_path(photo_folder(PETS)))
    (photo_folder([]) / "pets/cat/1.png").unlink()
    imports.bring_in(plan, "pets")
    assert data.load("pets").report.skipped == (Skip("pets/cat/1.png", "gone before it was read"),)


def test_photos_of_one_name_from_several_folders_all_come():
    files = {f"pets/{label}/{place}/{name}": png(hash((label, place)) % 10**6)
             for label in ("cat", "dog") for place, name in (("2019", "a.png"), ("2020", "A.png"), ("2021", "a.png"))}  # fmt: skip
    assert paths(bring_in(zip_of(files)))[:3] == ["cat/A (2).png", "cat/a (3).png", "cat/a.png"]


@pytest.mark.parametrize("label", ["猫", "قط", "gató", "кот", "בעל חיים", "chat 🐈", "ab:c?"])
def test_names_in_any_script(label):
    dataset = bring_in(
        zip_of({f"{label}/写真 {n}.png": png(n) for n in range(2)} | {f"dog/ñ{n}.png": png(9 + n) for n in range(2)})
    )
    assert label.translate({ord(":"): "-", ord("?"): "-"}) in dataset.classes and len(dataset.photos) == 4


def test_a_very_long_name_is_cut():
    assert len(bring_in(zip_of(PETS | {f"pets/cat/{'猫' * 120}.png": png(50)})).photos) == 7


# -------------------------------------------------------------------------------------------------------------- classes


def test_classes_that_differ_in_case_only_are_refused_or_merged():
    files = {name.replace("cat/2", "Cat/2"): content for name, content in PETS.items()}
    plan = imports.plan(zip_of(files))
    assert plan.classes == {"Cat": 1, "cat": 2, "dog": 3}
    assert imports.same_but_for_case(list(plan.classes)) == [["Cat", "cat"]]
    assert "Cat and cat differ in case only" in refusal(imports.bring_in, plan, "pets")
    assert nothing_left()
    imports.bring_in(plan, "pets", {"Cat": "cat"})
    assert data.load("pets").report.per_class == {"cat": 3, "dog": 3}


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", ".hidden", "x" * 61, "a\0b", "nul:", "end.", "\udcff"])
def test_names_that_no_folder_can_have_are_refused(name):
    plan = imports.plan(zip_of(PETS))
    assert "cannot be called" in refusal(imports.bring_in, plan, name)
    assert "class cannot be called" in refusal(imports.bring_in, plan, "pets", {"cat": name})
    assert not imports.exists(name) and nothing_left()


@pytest.mark.parametrize("name", ["doodles", "SVHN", "Pets"])
def test_a_name_that_is_taken_is_refused_in_any_case(name):
    bring_in(zip_of(PETS))
    assert "already" in refusal(imports.bring_in, imports.plan(zip_of(PETS)), name)


def test_a_free_name_is_proposed():
    assert imports.free_name("pets.zip") == "pets"
    bring_in(zip_of(PETS))
    assert imports.free_name("Pets.zip") == "Pets 2" and imports.free_name("...") == "photos"


# --------------------------------------------------------------------------------------------------------------- limits


def test_a_bomb_is_refused_before_anything_is_written():
    files = {f"{label}/{number}.png": bytes(10_000_000) for label in ("cat", "dog") for number in range(3)}
    source = zip_of(files, "bomb.zip", compression=zipfile.ZIP_DEFLATED)
    assert refusal(imports.plan, source).startswith("bomb.zip would unpack to 0.1 GB, more than 50 times")


def test_a_member_gives_no_more_than_it_says():
    """A header that lies about the size: what is read ends there, and the checksum tells."""
    source = zip_of({**PETS, "pets/cat/lie.png": bytes(10_000)}, compression=zipfile.ZIP_DEFLATED)
    raw = bytearray(source.members.args[0].getvalue())
    at = raw.rindex(b"PK\1\2")
    struct.pack_into("<I", raw, at + 24, 10)
    dataset = bring_in(imports.from_zip("pets.zip", io.BytesIO(raw)))
    assert dataset.report.skipped == (Skip("pets/cat/lie.png", "damaged in the archive"),)


def test_a_million_entries_are_refused_from_the_last_bytes():
    raw = bytearray(zip_of(PETS).members.args[0].getvalue())
    struct.pack_into("<I", raw, raw.rindex(b"PK\5\6") + 12, 60_000_000)  # bytes of the list of entries
    assert refusal(imports.from_zip, "many.zip", io.BytesIO(raw)) == (
        "many.zip lists more than 500,000 files; unpack it and give the folder."
    )


def test_a_photo_over_the_limit_is_not_unpacked():
    big = PETS | {"pets/cat/big.png": np.random.default_rng(0).bytes(51_000_000)}
    assert bring_in(zip_of(big)).report.reasons == {"larger than 50 MB": 1}


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\5\6"])
def test_what_is_no_zip_is_said_so(content):
    assert refusal(imports.from_zip, "a.zip", io.BytesIO(content)).startswith("a.zip is not a ZIP file")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "a.zip is empty"),
        ({"readme.txt": b"?"}, "not a photo file"),
        ({"1.png": b"?"}, "no label in its folder or name"),
    ],
)
def test_a_zip_without_labelled_photos_says_why(files, says):
    assert says in refusal(imports.plan, zip_of(files, "a.zip"))


def test_a_disk_without_room_is_told_before_anything_is_written(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 100))
    assert "the disk has 0.0 GB free" in refusal(imports.bring_in, imports.plan(zip_of(PETS)), "pets")
    assert nothing_left()


def test_a_disk_that_fills_up_meanwhile_is_told_and_leaves_nothing(monkeypatch):
    def fill(stream, out):
        out.write(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    plan = imports.plan(zip_of(PETS))
    monkeypatch.setattr(shutil, "copyfileobj", fill)
    said = refusal(imports.bring_in, plan, "pets")
    assert said.startswith("The photos cannot be written to") and "No space left on device" in said
    assert nothing_left()


def test_a_cancelled_import_leaves_nothing_and_can_be_repeated():
    class Cancelled(Exception):
        pass

    def cancel(what, done, total):
        assert total == sum(map(len, PETS.values())) and 0 < done <= total
        raise Cancelled

    plan = imports.plan(zip_of(PETS))
    with pytest.raises(Cancelled):
        imports.bring_in(plan, "pets", progress=cancel)
    assert nothing_left()
    imports.bring_in(plan, "pets")
    assert len(data.load("pets").photos) == 6


# ----------------------------------------------------------------------------------------------------------- afterwards


def test_a_removed_dataset_is_gone_and_its_name_is_free():
    root = bring_in(zip_of(PETS)).root
    imports.remove("pets")
    assert not root.exists() and imports.names() == [] and not data.has_name("pets")
    assert len(bring_in(zip_of(PETS)).photos) == 6


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", "[" * 100_000, '{"source": "a", "imported": 0, "skipped": [1]}'),
        '{"source": "a", "imported": 0, "skipped": [["b", null]]}',
        '{"source": ["a"], "imported": 0, "skipped": []}',
        '{"source": "a", "imported": NaN, "skipped": []}',
    ],
    ids=lambda content: content[:60],
)
def test_a_damaged_record_costs_the_record_only(content):
    root = bring_in(zip_of(PETS)).root
    (root / imports.RECORD).write_text(content)
    assert len(data.load("pets").photos) == 6 and data.named()["pets"].source == "pets"


def test_a_file_that_was_put_into_an_import_by_hand_is_reported():
    root = bring_in(zip_of(PETS)).root
    (root / "loose.png").write_bytes(png(70))
    assert data.load("pets").report.skipped == (Skip("loose.png", "not where imported photos are"),)


def test_the_command_imports_renames_and_reports(photo_folder, capsys):
    folder = photo_folder(PETS | {"pets/Cat/9.png": png(60)})
    assert main(["data", "import", str(folder), "--name", "pets"]) == 1
    assert "differ in case only" in capsys.readouterr().err
    assert main(["data", "import", str(folder), "--name", "pets", "--rename", "bird=x"]) == 2
    assert main(["data", "import", str(folder), "--name", "pets", "--rename", "Cat=cat", "--rename", "dog="]) == 0
    said = capsys.readouterr().out
    assert "pets: 7 files found, 4 used, 3 skipped" in said and "skipped, of a class that was left out: 3" in said
