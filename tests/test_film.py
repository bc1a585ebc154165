"""The film of a run: kept after each epoch, the same however often the run was interrupted, and never in its way."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from alexnet import data, doodles, film, maps, runs, train
from alexnet.distributed import ALONE
from alexnet.film import Frame, Subject
from alexnet.hardware import choose_hardware
from alexnet.predict import load_classifier
from alexnet.recipes import Recipe
from alexnet.runs import Reporter, Run, Status, Stopped
from alexnet.saliency import attribute
from alexnet.worker import work

# Captum says so at each call; pytest undoes the filter that saliency sets.
pytestmark = pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks")

SMALL = Recipe(
    name="small", image_size=67, resize=70, epochs=3, batch_size=8, lr=0.02, dropout=0.2, ema=0.9, compile="off",
    maps="16 8 8 8 8", hidden="16 16", val_fraction=0.4, test_fraction=0.1, device="cpu", precision="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "pets"
    doodles.write(folder, per_class=24)
    return str(folder)


def new_run(photos: str, folder, recipe: Recipe = SMALL) -> Run:
    return runs.create(recipe, photos, data.load(photos), path=folder)


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A run that nothing interrupted."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_HOME", str(home))
        run = new_run(photos, home / "run")
        assert work(run) == 0, run.status().message
    return run


def files(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run.path / "film").iterdir()}


def results(run: Run) -> list[tuple]:
    return [
        tuple(record.get(key) for key in ("epoch", "step", "split", "loss", "accuracy")) for record in run.metrics()
    ]


def test_a_frame_is_what_the_weights_say_of_the_photos(finished, photos):
    seen, best = film.read(finished), finished.status().best["epoch"]
    assert list(seen.frames) == film.epochs(finished) == [1, 2, 3]
    frame, dataset = seen.frames[best], data.load(photos)
    held_out = {photo.path: photo for photo in data.split(dataset, SMALL)["val"]}
    assert len(seen.subjects) == 12 and [s.label for s in seen.subjects] == ["cat"] * 6 + ["dog"] * 6
    opened = [dataset.open(held_out[subject.path]) for subject in seen.subjects]
    classifier = dataclasses.replace(load_classifier(finished), temperature=1.0, familiarity=None)
    alone = dataclasses.replace(classifier, mirror=False)  # a film shows photos without their mirror images
    for prediction, row, subject in zip(classifier(opened), frame.probabilities, seen.subjects, strict=True):
        assert list(prediction.probabilities.values()) == pytest.approx(row.tolist(), abs=1e-5)
        apart = np.asarray(prediction.input).astype(int) - np.asarray(subject.picture)
        assert np.abs(apart).mean() < 5  # it has been a JPEG
    assert np.abs(frame.maps).max() > 0 > frame.maps.min()
    for photo, found, subject in zip(opened, frame.maps, seen.subjects, strict=True):
        expected = attribute(alone, photo, "gradcam", subject.label)
        np.testing.assert_allclose(maps.stretch(np.maximum(found, 0), 67), expected, atol=1e-5)
    weights = load_file(finished.weights)["features.conv1.weight"].numpy()
    np.testing.assert_array_equal(frame.filters, weights.astype(np.float16))


def test_all_frames_tell_how_the_network_changed(finished):
    frames = list(film.read(finished).frames.values())
    for one, other in zip(frames, frames[1:], strict=False):
        assert not np.array_equal(one.probabilities, other.probabilities)
        assert not np.array_equal(one.filters, other.filters)


class StopsInEpoch2(Reporter):
    """A run that ends between the frame of epoch 2 and the checkpoint that counts that epoch as done."""

    def record(self, **values):
        if (values["epoch"], values["split"]) == (2, "val"):
            raise Stopped
        super().record(**values)


def test_a_run_that_repeats_an_epoch_has_one_frame_of_it(finished, photos, tmp_path):
    run = new_run(photos, tmp_path / "run")
    reporter, hardware = StopsInEpoch2(run, Status()), choose_hardware(SMALL, "cpu", photos=24)
    loaded = train.load_photos(run, reporter)
    with pytest.raises(Stopped):
        train.fit(run, loaded, hardware, reporter, ALONE)
    assert film.epochs(run) == [1, 2]
    train.open_session(run, loaded, hardware, Reporter(run, Status()), ALONE)
    assert film.epochs(run) == [1]
    assert work(run) == 0
    assert files(run) == files(finished)


def test_a_run_that_cannot_keep_a_film_trains_as_one_that_does(finished, photos, tmp_path, capsys):
    run = new_run(photos, tmp_path / "run")
    (run.path / "film").write_bytes(b"in the way")
    assert work(run) == 0
    said = capsys.readouterr().out
    assert all(f"The film of this run lacks epoch {n} (File exists); training goes on." in said for n in (1, 2, 3))
    assert film.epochs(run) == [] and film.read(run) is None
    assert results(run) == results(finished)
    mine, theirs = load_file(run.weights), load_file(finished.weights)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"network": "mlp", "normalization": "none"}, None),
        ({"single_logit": True, "five_crops": True}, (12, 3, 3)),
        ({"groups": 2, "towers_apart": True}, (12, 3, 3)),
    ],
)
def test_any_network_has_a_film(photos, tmp_path, settings, shape):
    run = new_run(photos, tmp_path / "run", SMALL.replace(epochs=1, **settings))
    assert work(run) == 0, run.status().message
    (frame,) = film.read(run).frames.values()
    np.testing.assert_allclose(frame.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (frame.maps is None, frame.filters is None) == (shape is None, shape is None)
    if shape:
        assert frame.maps.shape == shape
        weights = load_file(run.weights)["features.conv1.weight"].numpy()
        np.testing.assert_array_equal(frame.filters, weights.astype(np.float16))


def test_trials_of_a_sweep_have_none(photos, tmp_path):
    run = new_run(photos, tmp_path / "sweep" / "trial-1", SMALL.replace(epochs=1))
    (run.path.parent / "sweep.json").write_text("{}")
    assert work(run) == 0
    assert not (run.path / "film").exists()


def photo(label: int, number: int) -> data.Photo:
    return data.Photo(f"{label}/{number}.png", label, None, f"{label}-{number}", 1, 1)


def test_photos_are_spread_over_the_classes_and_chosen_by_seed_and_content():
    many = [photo(label, number) for label in range(5) for number in range(9)]
    chosen = [many[i] for i in film.choose(many, seed=0)]
    counts = [sum(p.label == label for p in chosen) for label in range(5)]
    assert len(set(chosen)) == 12 and sorted(counts) == [2, 2, 2, 3, 3]
    assert [p.label for p in chosen] == sorted(p.label for p in chosen)
    back = many[::-1]
    assert {back[i] for i in film.choose(back, seed=0)} == set(chosen)
    assert {many[i] for i in film.choose(many, seed=1)} != set(chosen)
    rare = [photo(0, 0), *(photo(1, number) for number in range(20))]
    assert [rare[i].label for i in film.choose(rare, seed=0)] == [0] + [1] * 11
    classes = [photo(label, 0) for label in range(30)]
    assert len({classes[i].label for i in film.choose(classes, seed=0)}) == 12
    assert film.choose([photo(1, 0), photo(0, 0)], seed=0) == [1, 0]


# ------------------------------------------------------------------------------------------------- what is on the disk


@pytest.fixture
def run(untrained_run, tmp_path):
    """A run with a film of two photos and three epochs."""
    config = (untrained_run[0].path / "run.json").read_text()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(config)
    run = Run(tmp_path / "run")
    colours = {"cat": (250, 10, 10), "dog": (10, 10, 250)}
    film.write_subjects(run.path, [Subject(f"{n}.jpg", n, Image.new("RGB", (20, 20), c)) for n, c in colours.items()])
    for epoch in (1, 2, 10):
        film.write_frame(run.path, epoch, frame_of(epoch))
    return run


def frame_of(epoch: int, count: int = 2) -> Frame:
    share = np.full((count, 2), 0.5, np.float32)
    return Frame(share, np.full((count, 3, 3), epoch, np.float32), np.full((4, 3, 5, 5), 0.25, np.float16))


def test_what_was_written_is_read(run):
    seen = film.read(run)
    assert [(s.path, s.label) for s in seen.subjects] == [("cat.jpg", "cat"), ("dog.jpg", "dog")]
    for subject, colour in zip(seen.subjects, ((250, 10, 10), (10, 10, 250)), strict=True):
        assert np.abs(np.asarray(subject.picture).astype(int) - colour).max() < 10
    assert list(seen.frames) == [1, 2, 10]
    for epoch, frame in seen.frames.items():
        for array, expected in zip(vars(frame).values(), vars(frame_of(epoch)).values(), strict=True):
            np.testing.assert_array_equal(array, expected)
            assert array.dtype == expected.dtype
    film.write_frame(run.path, 2, frame_of(7))
    assert film.read(run).frames[2].maps[0, 0, 0] == 7
    film.forget_after(run.path, 2)
    assert film.epochs(run) == [1, 2]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 300,
        None,
        frame_of(2, count=3),
        Frame(np.full((2, 2), np.nan, np.float32)),
        Frame(np.ones((2, 2), np.float32), np.ones((2, 3), np.float32), np.ones((4, 3, 5, 5), np.float16)),
        Frame(np.ones((2, 2), np.float32), np.ones((2, 3, 3), np.float32)),
    ],
)
def test_a_frame_that_cannot_be_used_is_left_out(run, damage):
    file = run.path / "film" / "epoch-2.safetensors"
    if isinstance(damage, Frame):
        film.write_frame(run.path, 2, damage)
    else:
        file.write_bytes(file.read_bytes()[:500] if damage is None else damage)
    (run.path / "film" / ".epoch-3.safetensors").write_bytes(b"half")
    (run.path / "film" / "epoch-x.safetensors").write_bytes(b"of somebody else")
    assert list(film.read(run).frames) == [1, 10]


@pytest.mark.parametrize("name", ["photos.json", "photos.jpg"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b'[{"path": "a", "label": "cat"}]', b"[" * 100_000])
def test_without_its_photos_there_is_no_film(run, name, content):
    if content is None:
        (run.path / "film" / name).unlink()
    else:
        (run.path / "film" / name).write_bytes(content)
    assert film.read(run) is None and film.epochs(run) == [1, 2, 10]
    assert film.has_subjects(run.path) == (content is not None)


def test_a_run_without_a_film(tmp_path, untrained_run):
    assert film.read(untrained_run[0]) is None
    assert (film.epochs(untrained_run[0]), film.changed(untrained_run[0])) == ([], 0)
    film.forget_after(tmp_path, 0)
