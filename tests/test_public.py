"""Public mode: what changes anything or reads this computer is refused in the function itself; limits by hand."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet import bundle, data, downloads, imports, notes, public, review, runs, series, tracking, trash, worker
from alexnet.public import Allowance, PublicError
from alexnet.recipes import Recipe
from alexnet.runs import Run

PHOTO = 10**6  # pixels


@pytest.fixture
def to_strangers(monkeypatch):
    monkeypatch.setenv("ALEXNET_PUBLIC", "1")


@pytest.fixture
def run(untrained_run) -> Run:
    """A finished run among those of the home."""
    runs.runs_dir().mkdir(parents=True)
    path = runs.runs_dir() / "mine"
    path.mkdir()
    for file in ("run.json", "status.json"):
        (path / file).write_bytes((untrained_run[0].path / file).read_bytes())
    return Run(path)


def export(run: Run) -> None:
    from alexnet import export

    export.ship(run, run.path / "out")


def export_whole(run: Run) -> None:
    from alexnet import export

    export.write_whole(run, run.path / "out", "pth")


def import_weights(run: Run) -> None:
    from alexnet import interchange

    interchange.import_run(run.path / "weights.pth")


def evaluate(run: Run) -> None:
    from alexnet import evaluate

    evaluate.evaluate_and_keep(None, "doodles", None, "all")


def submit(run: Run) -> None:
    from alexnet import submission

    submission.predict(None, run.path)


def make_run(run: Run) -> None:
    runs.create(Recipe(), "doodles", data.Dataset("d", run.path, ("cat", "dog"), (), data.Report(0, 0, (), {})))


REFUSED = {
    "a new run": make_run,
    "training": lambda run: run.resume(),
    "training here": worker.work,
    "a series": lambda run: series.train(None, worker.work),
    "stopping": lambda run: run.request_stop(),
    "a download": lambda run: downloads.download("svhn", run.path),
    "a path to import": lambda run: imports.at_path(run.path),
    "an import": lambda run: imports.bring_in(None, "pets"),
    "a removal": lambda run: imports.remove("pets"),
    "a folder": lambda run: data.load(str(run.path)),
    "a dataset": lambda run: data.load("dogs-vs-cats"),
    "deletion": lambda run: trash.Trash().put(run),
    "restoring": lambda run: trash.Trash().restore(run.path),
    "a note": lambda run: notes.write(run, notes.Note("Mine")),
    "a label": lambda run: review.correct(run.path, {}),
    "an export": export,
    "whole weights": export_whole,
    "a bundle": lambda run: bundle.write(run, run.path / "out.zip"),
    "a bundle for a page": lambda run: bundle.write_aside(run, print),
    "a bundle from outside": lambda run: bundle.load(run.path / "a.zip"),
    "weights from outside": import_weights,
    "an evaluation": evaluate,
    "a folder to answer": submit,
    "a record elsewhere": tracking.follow,
}


@pytest.mark.parametrize("what", REFUSED)
def test_strangers_are_refused_in_one_sentence_and_nothing_is_written(what, run, to_strangers):
    before = files()
    with pytest.raises(PublicError, match=r"^This app is open to the public and offers no [^.]*\.$"):
        REFUSED[what](run)
    assert files() == before


def files() -> set[str]:
    return {path.relative_to(runs.home()).as_posix() for path in runs.home().rglob("*")}


def test_without_public_mode_nothing_is_refused(run):
    notes.write(run, notes.Note("Mine"))
    assert notes.title(run) == "Mine"
    trash.Trash().put(run)
    assert not run.path.exists()


def test_the_drawings_are_for_everybody_and_no_other_photos(photo_folder, drawings, to_strangers):
    drawings(runs.home())
    assert data.available("doodles") and not data.available(str(photo_folder(["cat/1.png"])))
    assert len(data.load("doodles").photos) > 100


@pytest.mark.parametrize(
    ("value", "on"), [("1", True), ("true", True), ("yes", True), ("", False), ("0", False), ("off", False)]
)
def test_the_variable(monkeypatch, value, on):
    monkeypatch.setenv("ALEXNET_PUBLIC", value)
    assert public.is_on() is on


def test_a_command_of_the_same_environment_is_refused_too(tmp_path):
    command = [sys.executable, "-m", "alexnet", "train", "--data", "doodles", "--recipe", "first-run"]
    environment = {**os.environ, "ALEXNET_PUBLIC": "1", "ALEXNET_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=runs.PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and not list(tmp_path.iterdir())
    assert done.stderr.splitlines()[-1].startswith("This app is open to the public and offers no new runs;")


# --------------------------------------------------------------------------------------------------------------- limits


def test_so_many_photos_a_minute_and_the_sentence_says_when_to_go_on():
    allowance = Allowance()
    for number in range(public.MOST_PER_MINUTE):
        allowance.take(PHOTO, now=100.0 + number / 10)
    with pytest.raises(PublicError, match="40 photos .* a minute from each visitor; go on in 50 seconds.$"):
        allowance.take(PHOTO, now=110.0)  # the first one was at 100
    allowance.take(PHOTO, now=160.0)
    with pytest.raises(PublicError, match="go on in 1 seconds"):
        allowance.take(PHOTO, now=160.0)  # the second was at 100.1


def test_so_many_pixels_a_minute():
    """50, 50 and 90 megapixels leave 10; 60 more have to wait until the first is a minute old."""
    allowance = Allowance()
    for now, megapixels in ((0, 50), (10, 50), (20, 90)):
        allowance.take(megapixels * 10**6, now)
    with pytest.raises(PublicError, match="or 200 megapixels a minute .* go on in 35 seconds.$"):
        allowance.take(60 * 10**6, now=25)
    allowance.take(10 * 10**6, now=25)  # what was refused has not been counted
    allowance.take(50 * 10**6, now=60)


def test_one_photo_beyond_a_minutes_pixels_does_not_wait_for_ever():
    allowance = Allowance()
    allowance.take(2 * public.MOST_PIXELS_PER_MINUTE, now=0)
    with pytest.raises(PublicError, match="in 60 seconds"):
        allowance.take(1, now=0)


def test_the_size_of_a_photo_is_read_from_its_header():
    from PIL import Image

    from alexnet import images

    file = io.BytesIO()
    Image.new("L", (300, 200)).save(file, "PNG")
    assert images.measure(file.getvalue()) == (300, 200)
    assert images.measure(file.getvalue()[:60]) == (300, 200)
    with pytest.raises(images.PhotoError):
        images.measure(Path("/no such file"))
