"""Every published system trains, is stopped, resumes and is tested; on a small scale, and in the layout of its photos."""

from __future__ import annotations

import pytest

from alexnet import data, doodles, runs, train
from alexnet.__main__ import main
from alexnet.hardware import choose_hardware
from alexnet.recipes import RECIPES
from alexnet.runs import Reporter, Status, Stopped
from alexnet.worker import work

SMALL = {"image_size": 67, "avgpool": 1, "maps": "8 8 8 8 8", "epochs": 2, "batch_size": 8, "test_on_rest": 0}
SMALL |= {"device": "cpu", "compile": "off", "max_per_class": 0, "val_fraction": 0.2}
OWN = {
    "batchnorm-cats-dogs": {"resize": 67, "hidden": "16 16"},
    "paper-2012": {"resize": 75, "hidden": "16 16"},
    "tiny-100": {"resize": 67, "hidden": "16 16", "max_per_class": 12, "test_on_rest": 6},
    "keras-dogs-vs-cats": {"image_size": 224, "resize": 224, "hidden": "16 16 10"},
    "three-class": {"resize": 67, "hidden": "16 16"},
    "svhn": {"resize": 67},
    "mlp-baseline": {"resize": 67},
    "imagenet": {"resize": 75, "hidden": "16 16"},
}


@pytest.fixture(scope="module")
def cat_and_dog(tmp_path_factory):
    """The layout of Kaggle's Cat and Dog: 2 x 16 photos in training_set/training_set, 2 x 4 in test_set/test_set."""
    root = tmp_path_factory.mktemp("photos") / "cat-and-dog"
    drawn = root.with_name("drawn")
    doodles.write(drawn, per_class=20)
    for label in ("cat", "dog"):
        for number, photo in enumerate(sorted((drawn / label).iterdir())):
            split = "training_set" if number < 16 else "test_set"
            folder = root / split / split / f"{label}s"
            folder.mkdir(parents=True, exist_ok=True)
            photo.rename(folder / f"{label}.{number}.jpg")
            (folder / "_DS_Store").write_bytes(b"")
    return root


class StopsAfter(Reporter):
    """Asks a run to stop as soon as it has recorded its first epoch."""

    def stop_asked(self) -> bool:
        return self.status.epoch > 1


@pytest.mark.parametrize("name", OWN)
def test_each_system_trains_stops_resumes_and_is_tested(name, cat_and_dog, tmp_path):
    recipe = RECIPES[name].replace(**SMALL | OWN[name])
    run = runs.create(recipe, str(cat_and_dog), data.load(str(cat_and_dog)), path=tmp_path / "run")
    reporter = StopsAfter(run, Status(state="starting", epochs=2))
    photos = train.load_photos(run, reporter)
    with pytest.raises(Stopped):
        train.fit(run, photos, choose_hardware(recipe, "cpu", photos=len(photos.train)), reporter)
    assert (run.path / "checkpoint.pt").exists() and run.report() is None
    assert work(run) == 0
    epochs = [(r["epoch"], r["split"]) for r in run.metrics() if not r.get("partial") and r["split"] != "test"]
    assert epochs == [(1, "train"), (1, "val"), (2, "train"), (2, "val")]
    assert run.status().state == "finished"
    assert run.report()["count"] == (14 if name == "tiny-100" else 8)  # those of test_set, and six that were not drawn


def test_cat_and_dog_from_the_command_line(cat_and_dog, tmp_path, capsys):
    """Trained on a share of training_set, validated on the rest of it, tested on test_set."""
    settings = [
        word
        for setting, value in (SMALL | OWN["batchnorm-cats-dogs"]).items()
        for word in (f"--{setting.replace('_', '-')}", str(value))
    ]
    command = ["train", "--data", str(cat_and_dog), "--recipe", "batchnorm-cats-dogs"]
    assert main([*command, *settings, "--run", str(tmp_path / "run")]) == 0
    run = runs.find(tmp_path / "run")
    splits = run.report()["splits"]
    assert run.config["classes"] == ["cats", "dogs"]
    assert splits["test"] == {"cats": 4, "dogs": 4} and run.report()["split"] == "test"
    assert all(
        splits["train"][label] + splits["val"][label] == 16 and splits["val"][label] for label in ("cats", "dogs")
    )
    rows = (run.path / "predictions.csv").read_text().splitlines()[1:]
    assert all(row.startswith("test_set/test_set/") for row in rows) and len(rows) == 8
    assert run.weights.exists() and capsys.readouterr().out
