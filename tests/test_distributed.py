"""Several processes on the CPU, which have to compute what one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file
from torch import nn

from alexnet import data, distributed, doodles, film, runs, train
from alexnet.distributed import Group, ProcessError, WholeBatchDropout, WholeBatchNorm, divide
from alexnet.errors import LabError
from alexnet.hardware import Hardware
from alexnet.recipes import Recipe
from alexnet.runs import Reporter, Run, Status, Stopped
from alexnet.state import initial_state
from alexnet.worker import work

RECIPE = Recipe(
    name="small", image_size=67, resize=67, epochs=2, batch_size=8, lr=0.0001, dropout=0.2, ema=0.5, compile="off",
    val_fraction=0.2, test_fraction=0.2, device="cpu", precision="float32", mixup=0.2, erasing=0.5,
    hidden="1024 1024",
)  # fmt: skip

CPU = Hardware(torch.device("cpu"), bfloat16=False, compile=False)


@pytest.mark.parametrize(
    ("photos", "parts", "sizes"),
    [(8, 2, [4, 4]), (8, 1, [8]), (10, 2, [4, 6]), (7, 2, [4, 3]), (6, 3, [2, 2, 2]), (2, 2, [0, 2]), (1, 1, [1])],
)
def test_a_batch_is_divided_between_pairs(photos, parts, sizes):
    slices = divide(photos, parts)
    assert [s.stop - s.start for s in slices] == sizes
    assert [i for s in slices for i in range(s.start, s.stop)] == list(range(photos))
    assert all(s.start % 2 == 0 for s in slices)


def test_alone_a_process_agrees_with_itself():
    group = Group()
    assert group.leads
    assert group.agree("x") == "x"
    assert group.gather("x") == ["x"]
    assert group.together(lambda: "x") == "x"
    assert group.sum(torch.ones(2)).tolist() == [1, 1]
    assert group.share(7) == slice(0, 7)
    with pytest.raises(Stopped):
        group.together(_raise_stopped)


def _raise_stopped():
    raise Stopped


# --------------------------------------------------------------------------------- two processes, started for one check


def in_two_processes(check, tmp_path) -> None:
    """Run `check(group)` in two processes; a failure in either fails the test."""
    torch.multiprocessing.spawn(_join_and, args=(check, str(tmp_path / "store")), nprocs=2)


def _join_and(rank: int, check, store: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    check(Group(rank, 2, rank))
    torch.distributed.destroy_process_group()


def _check_talk(group: Group) -> None:
    assert group.agree(f"from {group.rank}") == "from 0"
    assert group.gather(group.rank) == [0, 1]
    assert group.sum(torch.tensor([1.0, group.rank])).tolist() == [2, 1]
    assert group.share(10) == [slice(0, 4), slice(4, 10)][group.rank]
    assert group.together(lambda: group.rank) == group.rank

    def fail_in_the_second():
        if group.rank == 1:
            raise LabError("The second has no photos.")

    with pytest.raises(ProcessError if group.rank == 0 else LabError, match="The second has no photos."):
        group.together(fail_in_the_second)
    with pytest.raises(Stopped):
        group.together(_raise_stopped if group.leads else lambda: None)


def test_processes_tell_each_other(tmp_path):
    in_two_processes(_check_talk, tmp_path)


def _check_batch_norm(group: Group) -> None:
    torch.manual_seed(0)
    x, upstream = torch.randn(6, 3, 5, 5), torch.randn(6, 3, 5, 5)
    ours, theirs = WholeBatchNorm(3), nn.BatchNorm2d(3)
    mine, whole = x[group.share(6)].clone().requires_grad_(), x.clone().requires_grad_()
    for _ in range(2):
        y, expected = ours(mine), theirs(whole)
    torch.testing.assert_close(y, expected[group.share(6)], atol=1e-5, rtol=1e-5)
    (y * upstream[group.share(6)]).sum().backward()
    (expected * upstream).sum().backward()
    torch.testing.assert_close(mine.grad, whole.grad[group.share(6)], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(group.sum(ours.weight.grad), theirs.weight.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(group.sum(ours.bias.grad), theirs.bias.grad, atol=1e-4, rtol=1e-4)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_batch_norm_sees_the_photos_of_all_processes(tmp_path):
    in_two_processes(_check_batch_norm, tmp_path)


def test_dropout_is_that_of_the_whole_batch():
    x = torch.randn(6, 50)
    torch.manual_seed(3)
    expected = nn.Dropout(0.4)(x)
    dropout = WholeBatchDropout(0.4)
    parts = []
    for part in divide(6, 2):
        distributed.place_in_batch(nn.Sequential(dropout), part.start, 6)
        torch.manual_seed(3)
        parts.append(dropout(x[part]))
    torch.testing.assert_close(torch.cat(parts), expected)
    assert dropout.eval()(x) is x


# --------------------------------------------------------------------------------------------------- runs by torchrun


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos") / "pets"
    doodles.write(folder, per_class=24)
    return str(folder)


@pytest.fixture(scope="module")
def alone(photos, tmp_path_factory):
    """The run in one process."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALEXNET_HOME", str(home))
        run = runs.create(RECIPE, photos, data.load(photos), path=home / "run")
        assert work(run) == 0
    return run


def torchrun(home: Path, *arguments: str, processes: int = 2, options: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *options]
    return subprocess.Popen(
        [*command, "-m", "alexnet", "train", *arguments],
        cwd=runs.PROJECT,
        env={**os.environ, "ALEXNET_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=(home / "log.txt").open("ab"),
        stderr=subprocess.STDOUT,
    )


def settings() -> list[str]:
    """The recipe as options of the command line."""
    base = Recipe()
    changed = {name: value for name, value in RECIPE.to_dict().items() if value != getattr(base, name)}
    return [f"--{name.replace('_', '-')}={value}" for name, value in changed.items() if name != "name"]


def assert_same_results(run: Run, expected: Run) -> None:
    """Alike up to rounding, which flat parts of drawings, where maxima are ties, raise to a percent of an update."""
    keys = ("epoch", "step", "split", "lr")
    ours, theirs = run.metrics(), expected.metrics()
    assert [[r.get(k) for k in keys] for r in ours] == [[r.get(k) for k in keys] for r in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-3)
    weights, reference = load_file(run.weights), load_file(expected.weights)
    start = initial_state(RECIPE, ["cat", "dog"], CPU).model.state_dict()
    for name, tensor in reference.items():
        update, difference = (tensor - start[name]).float().norm(), (weights[name] - tensor).float().norm()
        assert difference <= 0.1 * update, name
    assert film.epochs(run) == film.epochs(expected) == [1, 2]


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, "the trainer ended too early"
        time.sleep(0.02)


def pid_of(rank: int, folder: Path) -> int:
    """The process of this rank that trains the run in `folder`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command and f"\0RANK={rank}\0".encode() in b"\0" + environment:
            return int(process.name)
    raise AssertionError(f"no process of rank {rank}")


def test_two_processes_equal_one(alone, photos, tmp_path):
    folder = tmp_path / "run"
    process = torchrun(tmp_path, "--data", photos, "--run-dir", str(folder), *settings())
    assert process.wait() == 0, (tmp_path / "log.txt").read_text()
    run = Run(folder)
    assert run.status().state == "finished"
    assert run.status().device == "2 x CPU, float32"
    assert_same_results(run, alone)
    assert run.report()["confusion"] == alone.report()["confusion"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the worker through /proc")
def test_a_killed_worker_comes_back_from_the_checkpoint(alone, photos, tmp_path):
    folder = tmp_path / "run"
    options = ("--max-restarts=1", "--monitor-interval=0.1")
    process = torchrun(tmp_path, "--data", photos, "--run-dir", str(folder), *settings(), options=options)
    wait_for(lambda: any(r["split"] == "val" for r in Run(folder).metrics()), process)
    os.kill(pid_of(1, folder), signal.SIGKILL)
    assert process.wait() == 0, (tmp_path / "log.txt").read_text()
    assert Run(folder).status().state == "finished"
    assert_same_results(Run(folder), alone)


def test_stopped_with_two_processes_and_resumed_with_one(alone, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    folder = tmp_path / "run"
    process = torchrun(tmp_path, "--data", photos, "--run-dir", str(folder), *settings())
    wait_for(lambda: len(Run(folder).metrics()) >= 2, process)
    Run(folder).request_stop()
    assert process.wait() == 0
    assert Run(folder).status().state == "stopped"
    (folder / "stop").unlink()
    assert work(Run(folder)) == 0
    assert_same_results(Run(folder), alone)


def test_what_keeps_one_process_from_training_ends_all(photos, tmp_path):
    (tmp_path / "run").mkdir()
    process = torchrun(tmp_path, "--data", str(tmp_path / "none"), "--run-dir", str(tmp_path / "run"))
    assert process.wait() == 1
    assert "check the path" in (tmp_path / "log.txt").read_text()


def test_processes_without_photos_are_refused(photos, tmp_path):
    run = runs.create(RECIPE.replace(batch_size=3), photos, data.load(photos), path=tmp_path / "run")
    reporter = Reporter(run, Status())
    with pytest.raises(train.TrainingError, match="2 processes cannot share a batch of 3 photos; raise batch_size."):
        train.open_session(run, train.load_photos(run, reporter), CPU, reporter, Group(0, 2))


def test_the_page_starts_several_processes_by_itself(alone, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = runs.create(RECIPE.replace(processes=2, epochs=1), photos, data.load(photos), path=tmp_path / "run")
    runs.launch(run)
    deadline = time.monotonic() + 120
    while run.status().live and time.monotonic() < deadline:
        time.sleep(0.1)
    assert run.status().state == "finished", run.log_tail()
    assert run.metrics()[0]["loss"] == pytest.approx(alone.metrics()[0]["loss"], rel=1e-3)
