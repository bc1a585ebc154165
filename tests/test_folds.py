"""Cross-validation: how photos are dealt into folds, what the folds say together, and how it stops and goes on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from alexnet import data, doodles, folds, runs, series
from alexnet.__main__ import main
from alexnet.data import DataError, Dataset, Photo, Report
from alexnet.folds import CrossValidation
from alexnet.recipes import Recipe
from alexnet.runs import Reporter, Run, RunError, Status, Stopped

SMALL = Recipe(name="small", image_size=67, resize=67, val_fraction=0.25, epochs=1, hidden="64 64")


def dataset_of(counts: dict[str, int], split: str | None = None) -> Dataset:
    """A dataset whose photos exist by name and digest only, as `split` looks at nothing else."""
    photos = tuple(
        Photo(f"{name}/{n}.jpg", label, split, data.digest(f"{name} {n}".encode()), 24, 16)
        for label, name in enumerate(counts)
        for n in range(counts[name])
    )
    return Dataset("pets", Path("pets"), tuple(counts), photos, Report(len(photos), len(photos), (), dict(counts)))


def parts_of(dataset: Dataset, count: int, **settings) -> list[dict[str, list[Photo]]]:
    """The splits of every fold."""
    recipe = Recipe(folds=count, fold=1, **settings)
    return [data.split(dataset, recipe.replace(fold=fold)) for fold in range(1, count + 1)]


# ---------------------------------------------------------------------------------------------------- dealing photos


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_each_photo_is_tested_once_and_folds_differ_by_one_photo_in_a_class_and_in_all(count):
    dataset = dataset_of({"cat": 104, "dog": 37, "fox": 11})
    splits = parts_of(dataset, count)
    tests = [part["test"] for part in splits]
    assert sorted(p.path for test in tests for p in test) == sorted(p.path for p in dataset.photos)
    for label in range(3):
        sizes = [sum(photo.label == label for photo in test) for test in tests]
        assert max(sizes) - min(sizes) <= 1
    assert max(map(len, tests)) - min(map(len, tests)) <= 1
    for part in splits:
        assert Counter(p.path for photos in part.values() for p in photos) == Counter(p.path for p in dataset.photos)
        assert {photo.label for photo in part["train"]} == {photo.label for photo in part["val"]} == {0, 1, 2}


def test_the_photos_that_are_not_tested_are_divided_by_the_validation_fraction():
    for part in parts_of(dataset_of({"cat": 2000, "dog": 2000}), 4, val_fraction=0.2, test_fraction=0.7):
        assert len(part["test"]) == 1000
        assert 500 < len(part["val"]) < 700  # 600 of the other 3,000, and four deviations of a binomial are 88


def test_folds_follow_from_the_seed_and_the_content_alone():
    dataset = dataset_of({"cat": 60, "dog": 60})
    renamed = [Photo(f"new/{p.label}/{n}.png", p.label, None, p.digest, 1, 1) for n, p in enumerate(dataset.photos)]
    shuffled = Dataset("other", Path("other"), ("a", "b"), tuple(reversed(renamed)), dataset.report)

    def tested(dataset: Dataset, seed: int) -> list[set[str]]:
        return [{photo.digest for photo in part["test"]} for part in parts_of(dataset, 5, seed=seed)]

    assert tested(dataset, 1) == tested(shuffled, 1)
    assert tested(dataset, 1) != tested(dataset, 2)


def test_every_photo_is_trained_on_in_some_fold():
    dataset = dataset_of({"cat": 60, "dog": 60})
    trained = {photo.path for part in parts_of(dataset, 5) for photo in part["train"]}
    assert trained == {photo.path for photo in dataset.photos}


def test_copies_of_a_photo_never_straddle_training_and_test(photo_folder):
    files = {f"{name}/{n}.png": first + n // 3 for name, first in (("cat", 0), ("dog", 100)) for n in range(60)}
    dataset = data.load(str(photo_folder(files)))
    for part in parts_of(dataset, 4):
        places = {name: {files[photo.path] for photo in photos} for name, photos in part.items()}
        assert not places["test"] & (places["train"] | places["val"]) and not places["train"] & places["val"]
        assert sum(map(len, places.values())) == 40


@pytest.mark.parametrize("given", ["train", "val", "test"])
def test_photos_that_lie_in_folders_of_splits_are_dealt_all_the_same(given):
    own, plain = (parts_of(dataset_of({"cat": 20, "dog": 20}, split), 4) for split in (given, None))
    paths = [
        [{name: [p.path for p in photos] for name, photos in part.items()} for part in parts] for parts in (own, plain)
    ]
    assert paths[0] == paths[1]


def test_a_pattern_chooses_the_validation_photos_that_are_not_tested():
    for part in parts_of(dataset_of({"cat": 50, "dog": 50}), 5, val_pattern="*3.jpg"):
        matching = [photo.path for photo in part["val"] + part["test"] if photo.path.endswith("3.jpg")]
        assert len(matching) == 10 and all(photo.path.endswith("3.jpg") for photo in part["val"])


def test_a_class_with_fewer_photos_than_folds_is_refused_in_a_sentence():
    dataset = dataset_of({"cat": 50, "fox": 4})
    parts_of(dataset, 4)
    with pytest.raises(DataError) as caught:
        parts_of(dataset, 5)
    assert (
        str(caught.value) == "The class fox of pets has 4 photos, too few for 5 folds; use fewer folds or more photos."
    )


def test_the_test_split_of_a_fold_can_be_asked_for_by_name():
    dataset, recipe = dataset_of({"cat": 20, "dog": 20}), Recipe(folds=4, fold=3)
    assert data.split_of(dataset, recipe, "test") == parts_of(dataset, 4)[2]["test"]


# ------------------------------------------------------------------------------------------------- the folds together


def report(confusion: list[list[int]], loss: float) -> dict:
    count = sum(map(sum, confusion))
    accuracy = (confusion[0][0] + confusion[1][1]) / count
    return {"accuracy": accuracy, "loss": loss, "count": count, "classes": ["cat", "dog"], "confusion": confusion}


def test_the_summary_by_hand():
    summary = folds.summarize(
        [report([[4, 1], [1, 4]], 0.5), report([[5, 0], [1, 4]], 0.25), report([[5, 0], [0, 5]], 0.0)]
    )
    assert summary["accuracy"] == {"mean": pytest.approx(0.9), "deviation": pytest.approx(0.1)}
    assert summary["loss"] == {"mean": 0.25, "deviation": 0.25}
    assert [fold["accuracy"] for fold in summary["folds"]] == [0.8, 0.9, 1.0]
    assert summary["confusion"] == [[14, 1], [2, 13]] and summary["count"] == 30
    assert summary["per_class"] == {
        "cat": {"count": 15, "accuracy": 14 / 15},
        "dog": {"count": 15, "accuracy": 13 / 15},
    }


# ------------------------------------------------------------------------------------------------- training the folds


@pytest.fixture
def pets(photo_folder) -> str:
    names = {"cat": 0, "dog": 100}
    return str(photo_folder({f"{name}/{n}.png": first + n for name, first in names.items() for n in range(12)}))


@pytest.fixture
def three(pets) -> CrossValidation:
    return folds.create(SMALL.replace(folds=3, fold=1), pets, data.load(pets))


def finish(run: Run) -> int:
    """Stands in for the trainer: the run ends with a report; the better the later the fold."""
    fold = run.recipe.fold
    Reporter(run, Status(state="finished"))
    runs.write_json(run.path / "report.json", report([[fold, 4 - fold], [0, 4]], loss=1 / fold))
    return 0


def stop_in(run: Run) -> int:
    """Stands in for a trainer that looks for a wish to stop after its first step."""
    with pytest.raises(Stopped):
        Reporter(run, Status(state="running")).check_stop()
    runs.write_status(run.path, Status(state="stopped"))
    return 0


def noting(trained: list[int], work: Callable[[Run], int] = finish) -> Callable[[Run], int]:
    """`work`, with the numbers of the folds that it is given."""

    def call(run: Run) -> int:
        trained.append(run.recipe.fold)
        return work(run)

    return call


def test_each_fold_is_a_run_and_the_report_tells_them_together(three, pets):
    trained: list[int] = []
    summary = series.train(three, noting(trained))
    assert trained == [1, 2, 3]
    files = {"folds.json", "report.json", "status.json", "lock"}
    assert {path.name for path in three.path.iterdir()} == {"fold-1", "fold-2", "fold-3", *files}
    assert json.loads((three.path / "report.json").read_text()) == summary
    assert summary["confusion"] == [[6, 6], [0, 12]] and summary["accuracy"]["mean"] == 0.75
    for fold in (1, 2, 3):
        run = three.run(fold)
        assert run.recipe == SMALL.replace(folds=3, fold=fold) and run.config["data"] == pets


def test_a_stop_between_folds_keeps_what_is_there_and_goes_on_later(three):
    def stop_after_two(run: Run) -> int:
        if run.recipe.fold == 2:
            (three.path / "stop").touch()
        return finish(run)

    trained: list[int] = []
    assert series.train(three, noting(trained, stop_after_two)) is None
    assert trained == [1, 2] and not (three.path / "stop").exists() and not (three.path / "report.json").exists()
    assert series.train(three, noting(trained))["count"] == 24
    assert trained == [1, 2, 3]


@pytest.mark.parametrize("place", [".", "fold-2"])
def test_a_stop_within_a_fold_from_either_folder(three, place):
    def stop_in_two(run: Run) -> int:
        if run.recipe.fold != 2:
            return finish(run)
        (three.path / place / "stop").touch()
        return stop_in(run)

    trained: list[int] = []
    assert series.train(three, noting(trained, stop_in_two)) is None
    assert trained == [1, 2] and three.run(2).status().state == "stopped"
    three.run(2).request_stop()  # left over from a second click
    assert series.train(three, noting(trained)) is not None
    assert trained == [1, 2, 2, 3]


def test_a_stop_beside_runs_of_their_own_stops_none_of_them(pets):
    run = runs.create(SMALL, pets, data.load(pets))
    (run.path.parent / "stop").touch()
    Reporter(run, Status(state="running")).check_stop()


def test_a_fold_that_fails_ends_it_and_is_tried_again(three):
    trained: list[int] = []
    with pytest.raises(RunError, match="Fold 2 did not finish; see to that and go on with: .* --resume --run"):
        series.train(three, noting(trained, lambda run: finish(run) if run.recipe.fold == 1 else 1))
    assert series.train(three, noting(trained)) is not None
    assert trained == [1, 2, 2, 3]


def test_photos_that_changed_are_refused(three, pets):
    (Path(pets) / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match="photos has changed since this cross-validation was made"):
        series.train(three, finish)


@pytest.mark.parametrize("content", ["{", "[]", '{"accuracy": 1.0}'])
def test_a_report_of_a_fold_that_was_lost_is_asked_for(three, content):
    series.train(three, finish)
    (three.run(2).path / "report.json").write_text(content)
    with pytest.raises(RunError, match=r"report.json of .*/fold-2 cannot be read; delete that folder and resume"):
        series.train(three, finish)
    shutil.rmtree(three.run(2).path)
    trained: list[int] = []
    assert series.train(three, noting(trained))["count"] == 24 and trained == [2]


def test_what_cannot_work_is_refused_before_a_folder_is_made(pets, tmp_path):
    dataset = data.load(pets)
    with pytest.raises(DataError, match="12 photos, too few for 13 folds"):
        folds.create(SMALL.replace(folds=13, fold=1), pets, dataset, tmp_path / "cv")
    with pytest.raises(RunError, match="There is no run"):
        folds.create(SMALL.replace(folds=3, fold=1, start_from="nothing"), pets, dataset, tmp_path / "cv")
    assert not (tmp_path / "cv").exists()
    folds.create(SMALL.replace(folds=3, fold=1), pets, dataset, tmp_path / "cv")
    for make in (lambda: folds.create(SMALL.replace(folds=3, fold=1), pets, dataset, tmp_path / "cv"),
                 lambda: runs.create(SMALL, pets, dataset, path=tmp_path / "cv")):  # fmt: skip
        with pytest.raises(RunError, match="cv holds a run already"):
            make()


# -------------------------------------------------------------------------------------------------------- run folders


def test_the_folds_are_runs_with_names_of_their_own_and_their_folder_is_none(three, pets):
    other = folds.create(SMALL.replace(folds=3, fold=1), pets, data.load(pets))
    single = runs.create(SMALL, pets, data.load(pets))
    series.train(three, finish)
    series.train(other, finish)
    made = [run for run in runs.list_runs() if not run.shipped]
    names = {f"{validation.path.name}/fold-{fold}" for validation in (three, other) for fold in (1, 2, 3)}
    assert {run.id for run in made} == names | {single.id} and len(made) == 7
    assert runs.damaged_runs() == []
    assert all(runs.find(run.id) == run for run in made)
    with pytest.raises(RunError, match=f"{three.path.name} is a cross-validation; give one of its runs"):
        runs.find(three.path.name)


def test_a_cross_validation_is_found_by_name_and_by_folder(three, pets):
    found = [series.find(CrossValidation, Path(name)) for name in (three.path.name, three.path)]
    assert found == [three, three]
    assert series.find(CrossValidation, runs.create(SMALL, pets, data.load(pets)).path) is None


DAMAGED = [b"", b"[]", b"{}", b"\xff", b'{"recipe": {"lr": "x"}}']
DAMAGED += [b"[" * 100_000, b'{"recipe": {}, "data": "x", "fingerprint": "", "created": 1.0}']
DAMAGED += [b'{"recipe": {"folds": 3, "fold": 1}, "data": 5, "fingerprint": "", "created": 1.0}']


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:70]))
def test_a_damaged_folds_json_is_a_sentence_and_its_runs_stay(three, content):
    series.train(three, finish)
    (three.path / "folds.json").write_bytes(content)
    with pytest.raises(RunError, match="The folds.json of .* cannot be read; restore the file"):
        series.find(CrossValidation, three.path)
    assert len([run for run in runs.list_runs() if run.is_member]) == 3


def test_the_train_page_shows_a_fold(three):
    series.train(three, finish)
    app = AppTest.from_file("../app.py", default_timeout=30)
    app.query_params["run"] = three.run(2).id
    app.switch_page("pages/train.py").run()
    assert not app.exception and not app.warning
    assert app.session_state["shown"] == f"{three.path.name}/fold-2"
    assert app.success


# --------------------------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def drawings(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("photos") / "pets"
    doodles.write(folder, per_class=8)
    return str(folder)


COMMAND = ["--recipe", "first-run", "--epochs", "1", "--image-size", "67", "--resize", "67", "--batch-size", "8"]
COMMAND += ["--val-fraction", "0.3", "--device", "cpu", "--compile", "off", "--ema", "0", "--folds", "2"]


def test_two_folds_from_the_command_line_and_what_it_says_to_resume(drawings, tmp_path, capsys):
    place = tmp_path / "cv"
    train = ["train", "--data", drawings, *COMMAND, "--run", str(place)]
    assert main(train) == 0
    printed = capsys.readouterr().out
    summary = json.loads((place / "report.json").read_text())
    rows = [line.split(",") for fold in (1, 2) for line in (place / f"fold-{fold}/predictions.csv").read_text().split()]
    tested = [row for row in rows if row[0] != "file"]
    assert len({row[0] for row in tested}) == 16 == len(tested) == summary["count"]
    pooled = Counter((row[1], row[2]) for row in tested)
    assert summary["confusion"] == [[pooled[a, b] for b in ("cat", "dog")] for a in ("cat", "dog")]
    assert f"accuracy {summary['accuracy']['mean']:.2%} ± {summary['accuracy']['deviation']:.2%}" in printed

    (place / "report.json").unlink()  # as if it had been killed before its last words
    times = [(place / f"fold-{fold}/report.json").stat().st_mtime_ns for fold in (1, 2)]
    assert main([*train, "--resume"]) == 0
    assert json.loads((place / "report.json").read_text()) == summary
    assert [(place / f"fold-{fold}/report.json").stat().st_mtime_ns for fold in (1, 2)] == times

    assert main([*train, "--resume", "--lr", "0.5"]) == 2
    assert "lr: the run was made with 0.01, not 0.5" in capsys.readouterr().err
    assert main([*train, "--resume", "--folds", "3"]) == 2
    assert "folds: the run was made with 2, not 3" in capsys.readouterr().err
    assert main(train) == 1
    assert "cv holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--folds", "1"], 2, "folds: one part leaves nothing to train on; use at least 2."),
        (["--folds", "-2"], 2, "folds: -2 is out of range"),
        (["--folds", "many"], 2, "folds: 'many' is not a whole number."),
        (["--folds", "9"], 1, "has 8 photos, too few for 9 folds"),
        (["--folds", "2", "--resume"], 2, "Give --run, the folder of the run to resume."),
    ],
)
def test_mistakes_get_one_sentence(drawings, capsys, arguments, status, sentence):
    data.load(drawings)
    assert main(["train", "--data", drawings, *arguments]) == status
    assert sentence in capsys.readouterr().err
    assert [run for run in runs.list_runs() if not run.shipped] == []


def test_a_single_run_cannot_go_on_as_a_cross_validation(untrained_run, tmp_path, capsys):
    shutil.copy(untrained_run[0].path / "run.json", tmp_path)
    assert main(["train", "--run", str(tmp_path), "--resume", "--folds", "5"]) == 2
    assert "folds: the run was made with 0, not 5; start a new run for that." in capsys.readouterr().err


def test_torchrun_is_left_to_the_folds(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert main(["train", "--data", "doodles", "--folds", "3"]) == 2
    assert "leave torchrun out and set --processes" in capsys.readouterr().err
