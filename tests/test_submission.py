"""Answers for photos without labels: what is in the file, what becomes of files that cannot be answered, and what is refused."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from alexnet import doodles, model, runs, weights
from alexnet.__main__ import main
from alexnet.data import DataError
from alexnet.images import open_photo
from alexnet.predict import load_classifier
from alexnet.recipes import Recipe
from alexnet.submission import SubmissionError, predict, replacing

NUMBERS = (1, 2, 3, 10, 11, 100)


RECIPE = Recipe(image_size=67, resize=70, maps="8 8 8 8 8", avgpool=1, hidden="16")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Six drawings, as Kaggle names its photos."""
    (tmp_path / "test1").mkdir()
    for number in NUMBERS:
        doodles.draw("dog" if number % 2 else "cat", number, 80).save(tmp_path / f"test1/{number}.jpg")
    return tmp_path / "test1"


@pytest.fixture
def run(photos, tmp_path) -> runs.Run:
    """A run that calls three of the drawings dogs."""
    torch.manual_seed(0)
    network = model.from_recipe(RECIPE, num_classes=2).eval()
    made = make_run(tmp_path / "run", ("cat", "dog"), network)
    answers = load_classifier(made)([open_photo(path) for path in photos.iterdir()])
    leaning = sorted(math.log(answer.probabilities["dog"] / answer.probabilities["cat"]) for answer in answers)
    with torch.no_grad():
        network.classifier[-1].bias[1] -= (leaning[2] + leaning[3]) / 2
    return make_run(tmp_path / "run", ("cat", "dog"), network)


def make_run(folder: Path, classes: tuple[str, ...], network: nn.Module | None = None) -> runs.Run:
    """A run folder with the weights of `network`, or those that are there."""
    folder.mkdir(exist_ok=True)
    dataset = {"name": "nothing", "fingerprint": "", "photos": 0}
    config = {"recipe": RECIPE.to_dict(), "mean": runs.MEAN, "std": runs.STD, "data": "nothing", "dataset": dataset}
    runs.write_json(folder / "run.json", {**config, "classes": classes})
    run = runs.Run(folder)
    if network is not None:
        weights.save(run.weights, network.state_dict())
    return run


def expected(run: runs.Run, photos: Path) -> dict[int, float]:
    """The probability of a dog for each photo, one after the other."""
    classifier = load_classifier(run)
    return {n: classifier([open_photo(photos / f"{n}.jpg")])[0].probabilities["dog"] for n in NUMBERS}


def submit(run: runs.Run, photos: Path, out: Path, *more: str) -> int:
    return main(["submit", "--data", str(photos), "--run", str(run.path), "--out", str(out), *more])


def test_labels_in_kaggles_format(run, photos, tmp_path, capsys):
    dogs = expected(run, photos)
    assert 0 < sum(p > 0.5 for p in dogs.values()) < len(dogs)
    assert submit(run, photos, tmp_path / "new/answers.csv") == 0
    rows = "".join(f"{number},{1 if p > 0.5 else 0}\n" for number, p in dogs.items())
    assert (tmp_path / "new/answers.csv").read_bytes() == b"id,label\n" + rows.encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["answers.csv"]
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path}/new/answers.csv: 6 rows, {sum(p > 0.5 for p in dogs.values())} of dogs\n"
    assert printed.err.endswith("Classifying: 6 of 6\n")


def test_probabilities_for_the_second_competition(run, photos, tmp_path):
    assert submit(run, photos, tmp_path / "answers.csv", "--probabilities") == 0
    header, *rows = (tmp_path / "answers.csv").read_text().splitlines()
    written = {int(row.split(",")[0]): float(row.split(",")[1]) for row in rows}
    assert header == "id,label" and list(written) == list(NUMBERS)
    assert written == pytest.approx(expected(run, photos), abs=1e-5)


def test_files_that_cannot_be_answered_are_told_and_the_others_go_on(run, photos, tmp_path, capsys):
    (photos / "20.jpg").write_text("no picture")
    (photos / "5.png").write_bytes(b"")
    (photos / "more").mkdir()
    for name in ("cat.7.jpg", "more/100.png", "more/007.jpg", "1².jpg"):
        shutil.copy(photos / "1.jpg", photos / name)
    (photos / "readme.txt").write_text("words")
    assert submit(run, photos, tmp_path / "answers.csv") == 1
    rows = dict(row.split(",") for row in (tmp_path / "answers.csv").read_text().splitlines()[1:])
    assert list(rows) == ["1", "2", "3", "5", "7", "10", "11", "20", "100"]
    assert rows["5"] == rows["20"] == "0" and rows["7"] == rows["1"]
    progress, *told = capsys.readouterr().err.splitlines()[1:]
    assert progress == "Classifying: 9 of 9" and told == [
        "1².jpg gets no row: its name is not a number.",
        "cat.7.jpg gets no row: its name is not a number.",
        "more/100.png gets no row: 100.jpg has the same number.",
        "5.png is answered by a guess, label 0 or probability 0.5: the file is empty: copy or download it again.",
        told[4],
    ]
    assert told[4].startswith("20.jpg is answered by a guess, label 0 or probability 0.5: the file is not a picture")
    assert submit(run, photos, tmp_path / "answers.csv", "--probabilities") == 1
    assert "\n5,0.500000\n" in (tmp_path / "answers.csv").read_text()


@pytest.mark.parametrize("classes", [("cat", "horse"), ("ant", "bee")])
def test_runs_of_other_classes_are_refused(run, photos, classes):
    with pytest.raises(
        SubmissionError, match="run does not tell cats from dogs, which Kaggle asks for; choose another"
    ):
        predict(load_classifier(make_run(run.path, classes)), photos)


def test_the_order_and_the_spelling_of_the_classes_do_not_matter(run, photos):
    dogs = predict(load_classifier(make_run(run.path, ("cat", "dog"))), photos).dogs
    assert predict(load_classifier(make_run(run.path, ("Cats", "DOG"))), photos).dogs == dogs
    swapped = predict(load_classifier(make_run(run.path, ("Dogs", "cat"))), photos).dogs
    assert swapped == pytest.approx({number: 1 - p for number, p in dogs.items()}, abs=1e-6)


def test_folders_without_numbers_are_refused(run, photos, tmp_path, capsys):
    (tmp_path / "train").mkdir()
    shutil.copy(photos / "1.jpg", tmp_path / "train/cat.1.jpg")
    classifier = load_classifier(run)
    with pytest.raises(SubmissionError, match="No photo in .* has a number for a name"):
        predict(classifier, tmp_path / "train")
    with pytest.raises(DataError, match="There is no folder"):
        predict(classifier, tmp_path / "nowhere")
    assert submit(run, tmp_path / "nowhere", tmp_path / "answers.csv") == 1
    assert capsys.readouterr().err.startswith("There is no folder") and not (tmp_path / "answers.csv").exists()


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for out in (tmp_path / "folder", tmp_path / "file/answers.csv"):
        begun = False
        with pytest.raises(SubmissionError, match="cannot be written .*; choose another place."), replacing(out):
            begun = True
        assert not begun


def test_a_file_that_was_there_stays_when_the_work_fails(tmp_path):
    out = tmp_path / "answers.csv"
    out.write_text("before")
    with pytest.raises(KeyboardInterrupt), replacing(out) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert out.read_text() == "before" and list(tmp_path.iterdir()) == [out]


def test_what_progress_raises_cancels(run, photos):
    def cancel(stage: str, done: int, total: int) -> None:
        raise InterruptedError(stage)

    with pytest.raises(InterruptedError, match="Classifying"):
        predict(load_classifier(run), photos, cancel)
