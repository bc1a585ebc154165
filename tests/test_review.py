"""Corrections: noted beside the data, honoured by load, counted, part of the fingerprint, and undone."""

from __future__ import annotations

import pytest

from alexnet import data, review, runs
from alexnet.layout import DataError, Skip
from alexnet.review import Correction

FILES = [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(3)]


@pytest.fixture
def pets(photo_folder):
    return photo_folder(FILES)


def photo(dataset: data.Dataset, path: str) -> data.Photo:
    return next(photo for photo in dataset.photos if photo.path == path)


def note(dataset: data.Dataset, path: str, label: str | None) -> str:
    """Note a correction of the photo at `path`; returns its digest."""
    found = photo(dataset, path)
    review.correct(dataset.root, {found.digest: Correction(path, dataset.classes[found.label], label)})
    return found.digest


def test_a_relabelled_photo_changes_class_fingerprint_and_report_and_no_file(pets):
    before = data.load(str(pets))
    contents = {path: path.read_bytes() for path in pets.rglob("*.png")}
    note(before, "cat/1.png", "dog")
    after = data.load(str(pets))
    assert after.classes[photo(after, "cat/1.png").label] == "dog"
    assert after.report.per_class == {"cat": 2, "dog": 4} and after.report.relabelled == 1
    assert (after.report.found, after.report.used) == (6, 6)
    assert after.fingerprint != before.fingerprint
    assert {path: path.read_bytes() for path in pets.rglob("*") if path.is_file()} == contents


def test_a_photo_left_out_is_skipped_with_a_reason_and_the_report_adds_up(pets):
    before = data.load(str(pets))
    note(before, "cat/1.png", None)
    after = data.load(str(pets))
    assert [p.path for p in after.photos] == [path for path in FILES if path != "cat/1.png"]
    assert after.report.skipped == (Skip("cat/1.png", "left out in review"),)
    assert after.report.found == after.report.used + len(after.report.skipped) == 6
    assert after.fingerprint != before.fingerprint and after.report.relabelled == 0


def test_what_is_undone_leaves_no_trace(pets):
    before = data.load(str(pets))
    first, second = note(before, "cat/1.png", None), note(before, "dog/1.png", "cat")
    assert list(review.corrections(pets)) == [first, second]
    review.correct(pets, {first: None, second: None})
    assert review.corrections(pets) == {} and data.load(str(pets)) == before


def test_a_later_correction_takes_the_place_of_the_one_before(pets):
    dataset = data.load(str(pets))
    digest = note(dataset, "cat/1.png", None)
    note(dataset, "cat/1.png", "dog")
    assert review.corrections(pets) == {digest: Correction("cat/1.png", "cat", "dog")}


def test_a_correction_stays_with_a_photo_that_is_renamed(pets):
    note(data.load(str(pets)), "cat/1.png", "dog")
    (pets / "cat/1.png").rename(pets / "cat/new.png")
    after = data.load(str(pets))
    assert after.classes[photo(after, "cat/new.png").label] == "dog"


def test_corrections_move_with_a_home_that_moves(tmp_path, pets, monkeypatch):
    home = tmp_path / "home"
    (home / "data/imports").mkdir(parents=True)
    pets.rename(home / "data/imports/pets")
    note(data.load(str(home / "data/imports/pets")), "cat/1.png", None)
    home.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path / "elsewhere"))
    assert len(data.load(str(tmp_path / "elsewhere/data/imports/pets")).photos) == 5


def test_a_class_that_loses_all_its_photos_is_none_any_more(pets):
    dataset = data.load(str(pets))
    for number in range(3):
        note(dataset, f"cat/{number}.png", None)
    after = data.load(str(pets))
    assert after.classes == ("dog",) and {p.label for p in after.photos} == {0}
    with pytest.raises(DataError, match="one class only"):
        data.check_trainable(after)


def test_with_every_photo_left_out_there_is_a_sentence(pets):
    dataset = data.load(str(pets))
    review.correct(pets, {p.digest: Correction(p.path, "", None) for p in dataset.photos})
    with pytest.raises(DataError, match="left out in review; put some back"):
        data.load(str(pets))
    assert len(data.load_uncorrected(str(pets)).photos) == 6


@pytest.mark.parametrize("content", ["", "[]", '{"photos": {"a": {"path": 1}}}', '{"photos": []}'])
def test_a_damaged_list_is_told_and_never_written_over(pets, content):
    dataset = data.load(str(pets))
    note(dataset, "cat/1.png", None)
    (path,) = (runs.data_dir() / "corrections").glob("*.json")
    path.write_text(content)
    with pytest.raises(DataError, match="cannot be read"):
        data.load(str(pets))
    with pytest.raises(DataError, match="cannot be read"):
        note(dataset, "cat/2.png", None)
    assert path.read_text() == content
