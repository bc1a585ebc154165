"""Training: what a run folder holds at the end, and that a run that was stopped or killed ends the same."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from alexnet import calibration, card, data, doodles, film, inputs, runs, train
from alexnet.__main__ import main
from alexnet.augment import EvalTransform
from alexnet.distributed import ALONE
from alexnet.evaluate import evaluate, score
from alexnet.hardware import choose_device, choose_hardware
from alexnet.predict import class_logits, load_classifier
from alexnet.recipes import Recipe
from alexnet.runs import Reporter, Run, Status
from alexnet.schedules import learning_rate
from alexnet.worker import work

SMALL = Recipe(
    name="small", image_size=67, resize=67, epochs=2, batch_size=8, lr=0.005, dropout=0.2, ema=0.9, compile="off",
    val_fraction=0.2, test_fraction=0.2, device="cpu", precision="float32", hidden="64 64",
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "pets"
    doodles.write(folder, per_class=24)
    return str(folder)


def new_run(photos: str, home, recipe: Recipe = SMALL) -> Run:
    return runs.create(recipe, photos, data.load(photos), path=home / "run")


def child(run: Run, home, limit: int | None = None, **environment: str) -> subprocess.Popen:
    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", "alexnet", "train", "--run", str(run.path), "--resume"],
        cwd=runs.PROJECT,
        env={**os.environ, "ALEXNET_HOME": str(home), **environment},
        stdout=(run.path / "log.txt").open("ab"),
        stderr=subprocess.STDOUT,
        preexec_fn=limit_files if limit else None,
    )


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, "the trainer ended too early"
        time.sleep(0.01)


def results(run: Run) -> list[tuple]:
    keys = ("epoch", "step", "split", "loss", "accuracy", "lr")
    return [tuple(record.get(key) for key in keys) for record in run.metrics()]


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A run that nothing interrupted."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_HOME", str(home))
        run = new_run(photos, home)
        assert work(run) == 0
    return run


def test_a_finished_run_folder(finished):
    status = finished.status()
    assert (status.state, status.epoch, status.step) == ("finished", 2, status.steps)
    epochs = [r for r in finished.metrics() if not r.get("partial")]
    assert [(r["epoch"], r["split"]) for r in epochs[:4]] == [(1, "train"), (1, "val"), (2, "train"), (2, "val")]
    validation = {r["epoch"]: r["accuracy"] for r in epochs if r["split"] == "val"}
    assert status.best["accuracy"] == max(validation.values()) == validation[status.best["epoch"]]
    report = finished.report()
    tests = [r for r in epochs if r["split"] == "test"]
    assert len(tests) == 1
    assert (tests[0]["accuracy"], tests[0]["loss"]) == (report["accuracy"], report["loss"])
    assert sum(map(sum, report["confusion"])) == report["count"]
    rows = (finished.path / "predictions.csv").read_text().splitlines()
    assert rows[0] == "file,label,predicted,cat,dog"
    assert len(rows) == report["count"] + 1
    assert calibration.read(finished.path).temperature != 1
    assert load_classifier(finished).temperature == calibration.read(finished.path).temperature
    assert (finished.path / "card.md").read_text(encoding="utf-8") == card.markdown(finished)
    assert not (finished.path / "checkpoint.pt").exists()


def test_epoch_records_average_their_parts(finished):
    records = [r for r in finished.metrics() if r["split"] == "train" and r["epoch"] == 1]
    partial, whole = [r for r in records if r.get("partial")], records[-1]
    # One record a step here, and the last step of the epoch has its record in the epoch's own.
    assert len(partial) == whole["step"] - 1
    rates = [learning_rate(SMALL, (r["step"] - 1) / finished.status().steps) for r in records]
    assert [r["lr"] for r in records] == pytest.approx(rates)


@pytest.mark.parametrize("records", [1, 4, 8])
def test_killed_and_resumed_is_bit_for_bit_the_same(finished, photos, tmp_path, monkeypatch, records):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path)
    process = child(run, tmp_path)
    wait_for(lambda: len(run.metrics()) >= records, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run.status().state == "lost"
    assert work(run) == 0
    assert results(run) == results(finished)
    mine, theirs = load_file(run.weights), load_file(finished.weights)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_stopped_in_an_epoch_and_resumed_on_a_full_disk(finished, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path)
    process = child(run, tmp_path)
    wait_for(lambda: len(run.metrics()) >= 2, process)
    run.request_stop()
    assert process.wait() == 0
    assert run.status().state == "stopped"
    assert 0 < run.status().step < run.status().steps
    checkpoint = (run.path / "checkpoint.pt").read_bytes()

    (run.path / "stop").unlink()
    assert child(run, tmp_path, limit=len(checkpoint) // 2).wait() == 1
    assert run.status().state == "failed"
    assert "cannot be written" in run.status().message
    assert (run.path / "checkpoint.pt").read_bytes() == checkpoint

    assert work(run) == 0
    assert results(run) == results(finished)


def test_a_stop_before_the_first_step(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path)
    run.request_stop()
    assert work(run) == 0
    assert run.status().state == "stopped"


def test_a_checkpoint_of_another_recipe_or_damaged_is_refused(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path)
    torch.save({"recipe": {}}, run.path / "checkpoint.pt")
    assert work(run) == 1
    assert run.status().message == "The checkpoint is of another recipe; start a new run with this one."
    (run.path / "checkpoint.pt").write_bytes(b"PK\x03\x04 torn")
    assert work(run) == 1
    assert run.status().message == "The checkpoint is damaged; delete checkpoint.pt to train from the start."


def test_a_loss_that_is_no_number_fails_in_plain_words(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path, SMALL.replace(lr=10.0, normalization="none", warmup=0.0, schedule="constant"))
    assert work(run) == 1
    assert "The loss was no longer a number" in run.status().message
    assert "Try a lower lr than 10, or clip_norm 1." in run.status().message
    assert not run.has_weights  # none were good


def test_a_dataset_that_changed_is_refused(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path)
    config = json.loads((run.path / "run.json").read_text())
    config["dataset"]["fingerprint"] = "another"
    runs.write_json(run.path / "run.json", config)
    assert work(run) == 1
    assert "has changed since this run was made" in run.status().message


def test_a_run_on_a_part_of_the_photos_sees_no_others(photo_folder, capsys):
    folder = photo_folder([f"{name}/{n}.png" for name in ("ant", "cat", "dog") for n in range(12)])
    recipe = SMALL.replace(epochs=1, max_classes=2, max_per_class=8, test_on_rest=6, maps="8 8 8 8 8", hidden="16")
    run = runs.create(recipe, str(folder), data.load(str(folder)))
    assert work(run) == 0, run.status().message
    report = run.report()
    assert report["classes"] == ["ant", "cat"] and report["split"] == "test"
    counts = {name: sum(classes.values()) for name, classes in report["splits"].items()}
    assert sum(counts.values()) == 22 and report["count"] == counts["test"] >= 8
    tested = [line.split(",")[0] for line in (run.path / "predictions.csv").read_text().splitlines()[1:]]
    assert sorted(tested) == sorted(p.path for p in data.split_of(data.load(str(folder)), recipe, "test"))
    command = ["evaluate", "--data", str(folder), "--run", str(run.path), "--split"]
    capsys.readouterr()
    assert main([*command, "test", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["count"], again["confusion"]) == (report["count"], report["confusion"])
    assert main([*command, "all"]) == 1
    assert "The photos have a class dog, and this run knows only ant, cat." in capsys.readouterr().err


def test_a_run_is_validated_on_the_centre_and_tested_on_all_views(photo_folder):
    folder = str(photo_folder([f"{name}/{n}.png" for name in ("cat", "dog") for n in range(24)]))
    one_view = SMALL.replace(resize=72, epochs=1, maps="8 8 8 8 8", hidden="16 16")
    moves = {"crop": "patch", "rotation": 15.0, "shear": 5.0, "zoom": 0.2, "shift": 0.1, "blur": 1.0}
    for recipe in (one_view, one_view.replace(squash=True), one_view.replace(squash=True, five_crops=True, **moves)):
        run = runs.create(recipe, folder, data.load(folder))
        loaded = train.load_photos(run, Reporter(run, Status()))
        transform = EvalTransform(72, 67, squash=recipe.squash)
        expected = transform.batch([loaded.dataset.open(photo) for photo in loaded.val])
        assert torch.equal(torch.from_numpy(loaded.val_images[:]), expected)
    assert work(run) == 0, run.status().message
    ten = load_classifier(run)
    single = dataclasses.replace(ten, transform=transform, mirror=False)
    logits = [evaluate(each, loaded.dataset, loaded.test).logits for each in (ten, single)]
    assert run.report()["loss"] == pytest.approx(
        score(logits[0], torch.tensor([p.label for p in loaded.test]), "cd")["loss"]
    )
    assert not torch.allclose(*logits, atol=1e-5)


def test_compiled(finished, photos, tmp_path, monkeypatch):
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler here")
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path, SMALL.replace(compile="on", epochs=1))
    assert child(run, tmp_path).wait() == 0, run.log_tail()
    assert run.status().device == "CPU, float32, compiled"
    assert film.epochs(run) == [1]
    # The first step has seen the same photos, weights and dropout seeds; dropout itself draws in another order.
    first, same = run.metrics()[0], finished.metrics()[0]
    assert first["loss"] == pytest.approx(same["loss"], rel=0.2)


def test_where_compiling_fails_training_goes_on_without(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path, SMALL.replace(compile="on", epochs=1))
    broken = {"CXX": "/no/such/compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    assert child(run, tmp_path, **broken).wait() == 0
    assert run.status().state == "finished"
    assert run.status().device == "CPU, float32"
    assert "Compiling failed, training goes on uncompiled" in (run.path / "log.txt").read_text()


def test_one_logit_trains_with_binary_cross_entropy():
    z, labels = torch.randn(6, 1), torch.tensor([0, 1, 1, 0, 1, 0])
    expected = F.binary_cross_entropy_with_logits(z[:, 0], labels.float())
    torch.testing.assert_close(F.cross_entropy(class_logits(z), labels), expected)


# ------------------------------------------------------------------------------------------------------ settings at work


def open_session(photos: str, home, recipe: Recipe) -> train.Session:
    run = new_run(photos, home, recipe)
    reporter = Reporter(run, Status())
    kind, _ = choose_device(recipe)
    loaded = train.load_photos(run, reporter)
    hardware = choose_hardware(recipe, kind, photos=len(loaded.train_images))
    return train.open_session(run, loaded, hardware, reporter, ALONE)


def one_step(session: train.Session) -> dict[str, torch.Tensor]:
    """What the first step changes, by the names of the parameters."""
    before = {name: p.detach().clone() for name, p in session.state.model.named_parameters()}
    chosen = torch.arange(session.batch)
    read = inputs.reader(session.photos.train_images, session.hardware.device)
    train.train_step(session, chosen, read(chosen))
    return {name: p.detach() - before[name] for name, p in session.state.model.named_parameters()}


PLAIN = SMALL.replace(
    normalization="none", dropout=0.0, weight_decay=0.0, momentum=0.0, warmup=0.0, schedule="constant"
)


@pytest.mark.parametrize("parts", [2, 3, 100])
def test_a_batch_in_parts_changes_the_weights_as_a_whole_one(photos, tmp_path, parts):
    whole = one_step(open_session(photos, tmp_path / "whole", PLAIN))
    session = open_session(photos, tmp_path / "parts", PLAIN.replace(accumulation=parts))
    assert session.state.progress.parts == min(parts, 4)  # pairs of photos are the smallest part
    in_parts = one_step(session)
    for name, change in whole.items():
        torch.testing.assert_close(in_parts[name], change, atol=1e-7, rtol=1e-3)
    assert session.state.progress.epoch_sums[2] == 8


def test_a_long_gradient_is_cut_to_its_length(photos, tmp_path):
    changes = one_step(open_session(photos, tmp_path, PLAIN.replace(lr=0.5, clip_norm=0.01)))
    length = torch.cat([change.flatten() for change in changes.values()]).norm()
    assert length.item() == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_early_stopping(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path, SMALL.replace(epochs=9, patience=2, lr=1e-8, ema=0.0))
    assert work(run) == 0
    status = run.status()
    assert (status.state, status.epoch) == ("finished", status.best["epoch"] + 2)
    assert status.message == "Ended early: no better validation accuracy for 2 epochs."
    assert run.report() is not None


def test_the_learning_rate_falls_on_a_plateau(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    plateau = {"schedule": "plateau", "plateau_patience": 1, "warmup": 0.0}
    run = new_run(photos, tmp_path, PLAIN.replace(epochs=4, lr=1e-8, ema=0.0, **plateau))
    assert work(run) == 0
    rates = [r["lr"] for r in run.metrics() if r["split"] == "train" and not r.get("partial")]
    assert rates == pytest.approx([1e-8, 1e-8, 1e-8, 1e-9])


def test_towers_apart_train_as_the_network_in_one_piece(photos, tmp_path):
    recipe = SMALL.replace(groups=2, dropout=0.0)
    together = open_session(photos, tmp_path / "together", recipe)
    apart = open_session(photos, tmp_path / "apart", recipe.replace(towers_apart=True))
    for session in (together, apart):
        one_step(session)
    for ours, theirs in ((apart.state.model, together.state.model), (apart.state.ema, together.state.ema)):
        expected = theirs.state_dict()
        for name, tensor in ours.state_dict().items():
            torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-3)


def test_a_streamed_run_is_bit_for_bit_the_cached_one(finished, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path, SMALL.replace(cache="off"))
    assert work(run) == 0
    assert results(run) == results(finished)
    assert not list((tmp_path / "data" / "cache").glob("*"))


def test_a_run_goes_on_from_the_weights_of_another(finished, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path, SMALL.replace(start_from=str(finished.path), freeze_features=True, epochs=1))
    assert run.config["parent"] == str(finished.path)
    assert work(run) == 0
    mine, theirs = load_file(run.weights), load_file(finished.weights)
    features = [name for name in theirs if name.startswith("features")]
    assert all(torch.equal(mine[name], theirs[name]) for name in features)
    assert not torch.equal(mine["classifier.fc8.weight"], theirs["classifier.fc8.weight"])


def test_a_photo_that_goes_missing_during_a_run_costs_nothing(finished, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    folder = tmp_path / "photos" / "pets"
    shutil.copytree(photos, folder, copy_function=shutil.copy2)
    run = new_run(str(folder), tmp_path)
    process = child(run, tmp_path)
    wait_for(lambda: run.metrics(), process)
    dataset = data.load(str(folder))
    photo = folder / data.split(dataset, SMALL)["test"][0].path
    content = photo.read_bytes()
    photo.unlink()
    assert process.wait() == 1
    assert run.status().state == "failed"
    assert run.status().message.startswith("A photo of pets changed while it was read")
    photo.write_bytes(content)
    assert work(run) == 0
    assert results(run) == results(finished)


OUT_OF_MEMORY = """
import gc, resource, sys
from alexnet import train
from alexnet.distributed import ALONE
from alexnet.hardware import choose_hardware
from alexnet.runs import Reporter, Run, Status

def parts(folder):
    run = Run(folder)
    reporter = Reporter(run, Status())
    photos = train.load_photos(run, reporter)
    hardware = choose_hardware(run.recipe, "cpu", photos=len(photos.train_images))
    return train.open_session(run, photos, hardware, reporter, ALONE).state.progress.parts

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmPeak"))

from pathlib import Path
assert parts(Path(sys.argv[1])) == 8
gc.collect()
resource.setrlimit(resource.RLIMIT_AS, (peak() + 500_000_000,) * 2)
print("parts", parts(Path(sys.argv[2])))
"""


# A whole batch of these takes about a gigabyte more than an eighth of it.
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the memory in use from /proc")
def test_a_batch_too_large_for_memory_is_found_out_beforehand(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    large = SMALL.replace(image_size=512, resize=512, batch_size=28)
    for name, accumulation in (("small", 8), ("large", 1)):
        runs.create(large.replace(accumulation=accumulation), photos, data.load(photos), path=tmp_path / name)
    command = [sys.executable, "-c", OUT_OF_MEMORY, str(tmp_path / "small"), str(tmp_path / "large")]
    said = subprocess.run(
        command, cwd=runs.PROJECT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    parts = int(said.stdout.split("parts ")[-1])
    assert 1 < parts <= 8
    assert "The batch does not fit into memory; it goes through in parts of" in said.stdout
