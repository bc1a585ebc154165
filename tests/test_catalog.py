"""The list of runs: what it says of each, in whatever state its folder is, and how little it reads."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from alexnet import catalog, data, folds, notes, runs, sweep
from alexnet.catalog import Measured
from alexnet.notes import Note
from alexnet.recipes import RECIPES
from alexnet.runs import Run, Status

BASE = RECIPES["first-run"]
LARGE = ("weights.safetensors", "checkpoint.pt", "predictions.csv", "log.txt")


def make(name: str, created: float = 1.0, epochs: int = 2, **status) -> Run:
    """A run that has finished, with all that a trainer leaves."""
    folder = runs.runs_dir() / name
    folder.mkdir(parents=True)
    config = runs.configuration(BASE, ["cat", "dog"], "pets", {"name": "pets", "fingerprint": "", "photos": 9})
    runs.write_json(folder / "run.json", {**config, "created": created})
    lines = [
        {"epoch": e, "step": e, "split": split, "accuracy": e / 10, "loss": 1.0, "seconds": 60 * e, **more}
        for e in range(1, epochs + 1)
        for split, more in (("train", {"partial": True}), ("train", {}), ("val", {}))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    best = {"epoch": epochs, "accuracy": epochs / 10, "loss": 1.0}
    runs.write_status(folder, Status(**{"state": "finished", "epoch": epochs, "epochs": epochs, "best": best} | status))
    runs.write_json(folder / "report.json", {"split": "test", "accuracy": 0.75, "count": 8})
    for file in (*LARGE, "lock"):
        (folder / file).touch()
    return Run(folder)


def own() -> list[catalog.Entry]:
    """What is listed but for the shipped weights."""
    return [entry for entry in catalog.entries() if not entry.job.path.is_relative_to(runs.weights_dir())]


def states() -> dict[str, str]:
    return {entry.id: entry.status.state for entry in own()}


# Hooks for audit events cannot be taken off again; this one counts only while somebody wants it to.
_opened: Counter[str] | None = None


def _count(event: str, args: tuple) -> None:
    if event == "open" and _opened is not None and isinstance(args[0], str | Path):
        path = Path(args[0])
        if path.is_relative_to(runs.runs_dir()):
            _opened[path.name] += 1


sys.addaudithook(_count)


def opened_by_listing() -> Counter[str]:
    """How often files of each name under `runs/` are opened to list all."""
    global _opened
    _opened = Counter()
    try:
        catalog.entries()
        return _opened
    finally:
        _opened = None


def test_an_entry_says_what_the_files_say():
    make("a", created=5.0, epochs=3)
    (entry,) = own()
    assert (entry.id, entry.title, entry.status.state, entry.recipe, entry.dataset) == (
        "a",
        "a",
        "finished",
        BASE,
        "pets",
    )
    assert (entry.best, entry.curve, entry.seconds, entry.created) == (0.3, (0.1, 0.2, 0.3), 180, 5.0)
    assert entry.test == Measured(0.75, 8, "test") and entry.is_run


def test_newest_first_and_shipped_weights_last():
    for name, created in (("old", 1.0), ("new", 3.0), ("middle", 2.0)):
        make(name, created)
    assert [entry.id for entry in catalog.entries()] == ["new", "middle", "old", "cats-dogs"]
    assert [entry.number for entry in own()] == [3, 2, 1]


def test_each_small_file_is_read_once_and_again_only_when_it_changes():
    made = [make(f"run-{n:03d}", created=n) for n in range(500)]
    first = opened_by_listing()
    assert not first.keys() & {*LARGE, "lock"}
    assert set(first) == {"run.json", "status.json", "metrics.jsonl", "report.json", "note.json"}
    assert first["metrics.jsonl"] == first["report.json"] == 500 and first.total() <= 6 * 500
    assert opened_by_listing().total() == 0
    (made[7].path / "report.json").write_text('{"split": "test", "accuracy": 0.125, "count": 80}')
    assert 0 < opened_by_listing().total() <= 6
    assert next(entry for entry in own() if entry.id == "run-007").test.accuracy == 0.125


def test_whether_a_trainer_lives_is_looked_up_each_time_though_no_file_changes():
    run = make("a", state="running")
    assert states() == {"a": "lost"}
    with runs.FileLock(run.path / "lock"):
        assert states() == {"a": "running"} and own()[0].status.live
    assert states() == {"a": "lost"}


def test_a_folder_from_another_machine_is_there_and_not_taken_for_alive():
    make("copied", state="running", device="NVIDIA H200")
    runs.write_json(runs.runs_dir() / "copied" / "status.json", {"state": "running", "updated": 4e9, "new": [1]})
    assert states() == {"copied": "lost"}


@pytest.mark.parametrize("file", ["run.json", "status.json", "metrics.jsonl", "report.json", "note.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"accuracy": "x", "recipe": 3}', b"\xff\x00", None])
def test_whatever_is_damaged_or_gone_the_list_is_there(file, content):
    run, other = make("hurt"), make("whole")
    path = run.path / file
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    found = states()
    assert found["whole"] == "finished" and other.path.exists()
    assert found["hurt"] == {"run.json": "damaged", "status.json": "lost"}.get(file, "finished")


@pytest.mark.parametrize("created", [-5.0, 1e18, float("nan"), float("inf"), "yesterday", None])
def test_a_time_that_makes_no_sense_is_left_out(created):
    run = make("a")
    runs.write_json(run.path / "run.json", {**run.config, "created": created})
    assert own()[0].made is None


def test_a_damaged_folder_says_why():
    (runs.runs_dir() / "empty").mkdir(parents=True)
    (entry,) = own()
    assert entry.status.message == "empty is not a run: its folder has no run.json." and not entry.is_run


def test_titles_and_notes_are_read_and_the_id_stays():
    run = make("a")
    notes.write(run, Note("  My best\n one ", "Lower rate.\nMore dropout. "))
    (entry,) = own()
    assert (entry.id, entry.title) == ("a", "My best one") and entry.note.note == "Lower rate.\nMore dropout."
    notes.write(run, Note())
    assert own()[0].title == "a" and not (run.path / "note.json").exists()


def test_notes_are_for_runs_that_are_there_and_do_not_ship():
    with pytest.raises(runs.RunError, match="came with the project"):
        notes.write(runs.find("cats-dogs"), Note("Mine"))
    for note in (Note("Mine"), Note()):
        with pytest.raises(runs.RunError, match="cannot be written"):
            notes.write(Run(runs.runs_dir() / "gone"), note)


# -------------------------------------------------------------------------------------------------------------- series


@pytest.fixture
def pets(photo_folder) -> str:
    return str(
        photo_folder(
            {f"{name}/{n}.png": 100 * place + n for place, name in enumerate(("cat", "dog")) for n in range(12)}
        )
    )


def finish(path: Path, accuracy: float) -> None:
    runs.write_status(path, Status(state="finished", best={"epoch": 1, "accuracy": accuracy, "loss": 1.0}))


def test_a_sweep_is_one_entry_and_its_trials_have_numbers_of_their_own(pets):
    dataset = data.load(pets)
    made = sweep.create(BASE, sweep.make_plan(BASE, {"dropout": "0.2,0.4"}), pets, dataset, runs.runs_dir() / "sweep")
    later = make("later", created=made.created + 1)
    for number, accuracy in ((1, 0.5), (2, 0.75)):
        run = runs.create(made.recipe_of(number), pets, dataset, path=made.run(number).path)
        finish(run.path, accuracy)
    runs.write_json(made.path / "report.json", made.report())
    finish(made.path, 0.0)
    newest, whole = own()
    assert (newest.job, whole.job, whole.best) == (later, made, 0.75)
    trials = catalog.members(whole)
    assert [(trial.id, trial.best, trial.number) for trial in trials] == [
        ("sweep/trial-1", 0.5, 2),
        ("sweep/trial-2", 0.75, 3),
    ]
    assert newest.number == 4 and catalog.members(newest) == []
    assert catalog.find("sweep/trial-2", [newest, whole]) == trials[1]
    assert catalog.find("sweep/trial-3", [newest, whole]) is None and catalog.find("sweep", [whole]) == whole


def test_a_cross_validation_tells_the_mean_of_its_folds(pets):
    made = folds.create(BASE.replace(folds=2, fold=1), pets, data.load(pets))
    finish(made.path, 0.0)
    runs.write_json(made.path / "report.json", {"accuracy": {"mean": 0.8, "deviation": 0.1}, "count": 24})
    (entry,) = own()
    assert entry.test == Measured(0.8, 24, "test") and catalog.members(entry) == []


def test_a_series_whose_file_is_damaged_is_told(pets):
    made = sweep.create(BASE, sweep.make_plan(BASE, {"dropout": "0.2,0.4"}), pets, data.load(pets))
    (made.path / "sweep.json").write_text("{")
    (entry,) = own()
    assert entry.status.state == "damaged" and "sweep.json" in entry.status.message
