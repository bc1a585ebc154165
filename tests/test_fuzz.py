"""What strangers may send or leave behind: properties that hold for any of it, and a part of the cases of `fuzz`."""

from __future__ import annotations

import json
import mmap
import os
import string
from dataclasses import fields
from pathlib import Path

import fuzz
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet import archives, imports, notes, runs
from alexnet.images import PhotoError, open_photo
from alexnet.recipes import Recipe, RecipeError, parse_setting
from alexnet.runs import Run

settings.register_profile(
    "here", max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("here")

CASES = 60  # of each target; `python -m tests.fuzz --cases 20000` runs the first of them and many more
PARTS = st.sampled_from(["..", ".", "/", "\\", "C:", "~", "a", "猫", " ", "con", "...", "\0", "//host", "b.png"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_damaged_files_are_read_or_refused(target):
    tally = fuzz.run_cases(target, range(CASES))
    assert tally.fallen == []
    assert tally.taken and tally.refused or target == "import record"  # which is never refused
    assert tally.taken + tally.refused == CASES


def raise_value_error(case: None, folder: Path) -> None:
    raise ValueError("no LabError")


def write_elsewhere(case: None, folder: Path) -> None:
    (folder.parent / f"{folder.name}-escaped").mkdir()
    (folder.parent / f"{folder.name}-escaped").rmdir()


def take_memory(case: None, folder: Path) -> None:
    with mmap.mmap(-1, 2 * fuzz.MOST_BYTES) as fresh:  # not from what the process has kept of earlier tests
        fresh.write(b"1" * len(fresh))


@pytest.mark.parametrize(
    ("read", "says"), [(raise_value_error, "no LabError"), (write_elsewhere, "-escaped"), (take_memory, "MB")]
)
def test_a_reader_that_does_what_it_may_not_is_found_out(read, says, monkeypatch):
    monkeypatch.setitem(fuzz.TARGETS, "bad", fuzz.Target(lambda dice: None, read))
    monkeypatch.setattr(fuzz, "MOST_BYTES", 50_000_000)
    (fallen,) = fuzz.run_cases("bad", [7]).fallen
    assert fallen.startswith("bad 7: ") and says in fallen


@given(st.lists(PARTS, max_size=8).map("".join) | st.text())
def test_a_name_that_does_not_leave_its_folder_stays_below_it(name):
    if not archives.leaves_folder(name):
        for written in (name, name.replace("\\", "/")):
            place = os.path.normpath(os.path.join("/data/imports/pets", written))
            assert Path(place).is_relative_to("/data/imports/pets")


@given(st.text(max_size=200) | st.lists(PARTS, max_size=8).map("".join))
def test_what_a_class_is_called_here_is_one_folder(found):
    name = imports._fit(found)
    assert not name or imports.is_name(name)
    assert len(name) <= imports.MAX_NAME and name not in (".", "..") and not set(name) & set("/\\\0")


@given(st.binary(max_size=300) | st.builds(bytes.__add__, st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP", b"\0\0\0\x18ftypheic"]), st.binary(max_size=300)))  # fmt: skip
def test_no_bytes_are_more_than_refused_as_a_photo(content):
    try:
        assert open_photo(content).mode == "RGB"
    except PhotoError as error:
        assert str(error).endswith(".") and "\n" not in str(error)


SETTINGS = [f.name for f in fields(Recipe) if f.metadata["group"] != "about"]


@given(st.sampled_from([f.name for f in fields(Recipe)]) | st.text(), st.text() | st.text(string.digits + ".,-+e_ "))
def test_any_text_is_a_value_of_a_setting_or_a_recipe_error(name, text):
    try:
        recipe = Recipe().replace(**{name: parse_setting(name, text)})
    except RecipeError as error:
        assert error.field == name and "\n" not in str(error)
    else:
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@given(st.dictionaries(st.sampled_from([f.name for f in fields(Recipe)]) | st.text(), JSON) | JSON)
def test_any_json_is_a_recipe_or_a_recipe_error(values):
    try:
        assert isinstance(Recipe.from_dict(values), Recipe)
    except RecipeError as error:
        assert error.field is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs") / "run"


RECORD = st.fixed_dictionaries(
    {
        "epoch": st.integers(1, 10**6),
        "step": st.integers(0, 10**9),
        "split": st.sampled_from(["train", "val", "test"]),
        "loss": st.floats(allow_nan=False, allow_infinity=False, width=32),
        "accuracy": st.floats(0, 1),
    },
    optional={"note": st.text(), "partial": st.just(True)},
)


@given(st.lists(RECORD, max_size=5), st.data())
def test_metrics_cut_anywhere_are_the_first_records(folder, records, data):
    folder.mkdir(exist_ok=True)
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    (folder / "metrics.jsonl").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    found = Run(folder).metrics()
    assert found == records[: len(found)]


@given(JSON | st.dictionaries(st.sampled_from(list(runs.STATUS)), JSON))
def test_any_status_has_the_types_that_pages_format(folder, values):
    folder.mkdir(exist_ok=True)
    (folder / "status.json").write_text(json.dumps(values))
    status = Run(folder).status()
    assert status.state in runs.STATES and not (status.live and status.state != "starting")
    assert f"{status.message} {status.epoch:,} {status.step:,} {status.updated:.1f} {status.eta_seconds or 0:.1f}"


@given(st.text(), st.text())
def test_any_note_comes_back_as_it_was_cut(folder, title, note):
    folder.mkdir(exist_ok=True)
    notes.write(Run(folder), notes.Note(title, note))
    cut = notes.Note(" ".join(title.split())[: notes.MOST_TITLE], note.strip()[: notes.MOST_NOTE])
    assert notes.read(Run(folder)) == cut
