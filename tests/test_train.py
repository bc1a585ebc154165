"""Training: what a run folder holds at the end, and that a run that was stopped or killed ends the same."""

from __future__ import annotations

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

from alexnet import data, doodles, runs
from alexnet.predict import class_logits
from alexnet.recipes import Recipe, learning_rate
from alexnet.runs import Run
from alexnet.worker import work

SMALL = Recipe(
    name="small", image_size=67, resize=67, epochs=2, batch_size=8, lr=0.005, dropout=0.2, ema=0.9, compile="off",
    val_fraction=0.2, test_fraction=0.2, device="cpu", precision="float32",
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


def test_compiled(finished, photos, tmp_path, monkeypatch):
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler here")
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    run = new_run(photos, tmp_path, SMALL.replace(compile="on", epochs=1))
    assert child(run, tmp_path).wait() == 0, run.log_tail()
    assert run.status().device == "CPU, float32, compiled"
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
