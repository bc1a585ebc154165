"""Run folders: made, found, damaged in every way, locked by a living process, and written without a torn file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from alexnet import runs
from alexnet.data import DataError, Dataset, Photo, Report
from alexnet.public import PublicError
from alexnet.recipes import Recipe
from alexnet.runs import Reporter, Run, RunError, Status, Stopped


def dataset_of(*classes: str) -> Dataset:
    """Ten photos of each class that exist by name only."""
    photos = tuple(
        Photo(f"{name}/{n}.jpg", label, None, f"{name} {n}", 9, 9)
        for label, name in enumerate(classes)
        for n in range(10)
    )
    return Dataset("pets", Path("pets"), classes, photos, Report(len(photos), len(photos), (), {}))


PETS = dataset_of("cat", "dog")


def new_run(recipe: Recipe | None = None, **options) -> Run:
    return runs.create(recipe or Recipe(), "/photos/pets", PETS, **options)


def sentence(error: Exception) -> str:
    """The text of an error; checks that it is one sentence for a person."""
    text = str(error)
    assert text.endswith(".") and ". " not in text and "\n" not in text
    return text


def names_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ------------------------------------------------------------------------------------------------- create, find, list


def test_a_new_run_holds_all_that_training_needs_and_nothing_else():
    run = new_run(Recipe(name="My Recipe!", lr=0.5, image_size=131))
    assert names_in(run.path) == {"run.json"}
    assert run.path.parent == runs.runs_dir() and run.id.endswith("-my-recipe-")
    config = run.config
    assert run.recipe == Recipe(name="My Recipe!", lr=0.5, image_size=131)
    assert (config["data"], config["classes"], config["parent"]) == ("/photos/pets", ["cat", "dog"], None)
    assert config["dataset"] == {"name": "pets", "fingerprint": PETS.fingerprint, "photos": 20}
    assert (config["image_size"], config["mean"], config["std"]) == (131, list(runs.MEAN), list(runs.STD))
    assert config["versions"].keys() == {"torch", "numpy", "pillow"}
    assert not run.shipped and not run.has_weights and run.report() is None
    assert run.metrics() == [] and run.log_tail() == "" and run.status().state == "lost" and not run.status().live


def test_a_run_may_be_made_in_a_folder_of_ones_own_but_not_twice(tmp_path):
    run = new_run(path=tmp_path / "deep" / "mine")
    assert run.path == tmp_path / "deep" / "mine" and run.recipe == Recipe()
    with pytest.raises(RunError, match="holds a run already") as caught:
        new_run(path=tmp_path / "deep" / "mine")
    sentence(caught.value)


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written") as caught:
        new_run(path=tmp_path / "file" / "run")
    sentence(caught.value)


def test_photos_in_a_folder_whose_name_is_no_text_are_told_in_a_sentence(tmp_path):
    with pytest.raises(RunError, match="no text; rename it") as caught:
        runs.create(Recipe(), os.fsdecode(b"/photos/\xff"), PETS, path=tmp_path / "run")
    sentence(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_that_starts_from_another_knows_it_by_a_name_that_is_good_anywhere(tmp_path, monkeypatch):
    inside, outside = new_run(), new_run(path=tmp_path / "elsewhere")
    with pytest.raises(RunError, match="has no weights to start from") as caught:
        new_run(Recipe(start_from=inside.id))
    sentence(caught.value)
    with pytest.raises(RunError, match="There is no run"):
        new_run(Recipe(start_from="gone"))
    inside.weights.touch()
    outside.weights.touch()
    monkeypatch.chdir(tmp_path)
    for given, kept in ((inside.id, inside.id), (str(inside.path), inside.id), ("elsewhere", str(outside.path))):
        run = new_run(Recipe(start_from=given))
        assert (run.config["parent"], run.recipe.start_from) == (kept, kept)


def test_one_logit_needs_two_classes():
    three = dataset_of("cat", "dog", "fish")
    with pytest.raises(RunError, match="single_logit"):
        runs.create(Recipe(single_logit=True), "pets", three)
    assert new_run(Recipe(single_logit=True)).recipe.single_logit
    assert runs.create(Recipe(single_logit=True, max_classes=2), "pets", three).config["classes"] == ["cat", "dog"]


def test_a_run_on_some_of_the_classes_knows_those_and_the_whole_dataset():
    three = dataset_of("cat", "dog", "fish")
    config = runs.create(Recipe(max_classes=2, max_per_class=5), "pets", three).config
    assert config["classes"] == ["cat", "dog"]
    assert config["dataset"] == {"name": "pets", "fingerprint": three.fingerprint, "photos": 30}


@pytest.mark.parametrize("settings", [{"max_classes": 3}, {"max_per_class": 11}, {"given_splits": True}])
def test_what_a_dataset_does_not_have_is_told_before_there_is_a_folder(settings, tmp_path):
    with pytest.raises(DataError) as caught:
        new_run(Recipe(**settings), path=tmp_path / "run")
    sentence(caught.value)
    assert not (tmp_path / "run").exists()


def test_runs_made_at_the_same_moment_get_folders_of_their_own():
    start = threading.Barrier(8)

    def make(_: int) -> Run:
        start.wait()
        return new_run()

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(make, range(8)))
    assert len(made) == 8 and made == {run for run in runs.list_runs() if not run.shipped}


CREATE = """
import sys
from pathlib import Path
from alexnet import data, runs
from alexnet.recipes import Recipe

pets = data.Dataset("pets", Path("pets"), ("cat", "dog"), (), data.Report(0, 0, (), {}))
print(flush=True)
sys.stdin.readline()  # until all are up
for _ in range(40):
    print(runs.create(Recipe(), "pets", pets).id)
"""


def test_two_processes_that_make_runs_at_the_same_moment_never_get_the_same():
    command = [sys.executable, "-c", CREATE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": runs.PROJECT}
    tabs = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for tab in tabs:
        tab.stdout.readline()
    for tab in tabs:
        tab.stdin.write("\n")
        tab.stdin.flush()
    made = [run_id for tab in tabs for run_id in tab.communicate()[0].split()]
    assert len(made) == 80 and set(made) == names_in(runs.runs_dir())
    assert all(runs.find(run_id).recipe == Recipe() for run_id in made)


def test_find_by_name_by_folder_and_by_neither(tmp_path):
    inside, outside = new_run(), new_run(path=tmp_path / "elsewhere")
    assert runs.find(inside.id) == inside and runs.find(inside.path) == inside
    assert runs.find(str(outside.path)) == outside == runs.find(outside.path)
    for name in ("nothing", "", "~nobody-of-this-name/run", "x" * 300, "a\0b", tmp_path):
        with pytest.raises(RunError, match="There is no run") as caught:
            runs.find(name)
        sentence(caught.value)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A shipped run with weights, in a project folder of the test's own."""
    monkeypatch.setattr(runs, "PROJECT", tmp_path / "project")
    run = new_run(path=tmp_path / "project" / "weights" / "cats")
    run.weights.touch()
    return run


def test_the_list_is_newest_first_with_the_shipped_runs_last(shipped):
    dated, named, older = new_run(), new_run(path=runs.runs_dir() / "zebra"), new_run(path=runs.runs_dir() / "ant")
    oldest = new_run(path=runs.runs_dir() / "yak")
    for run, created in ((dated, 2000), (named, 1000.5), (older, 1000.25), (oldest, "long ago"), (shipped, 3000)):
        runs.write_json(run.path / "run.json", {**run.config, "created": created})
    (runs.runs_dir() / ".device-cpu.lock").touch()
    (runs.runs_dir() / ".hidden").mkdir()
    (runs.runs_dir() / "a file").touch()
    assert runs.list_runs() == [dated, named, older, oldest, shipped]
    assert [run.shipped for run in runs.list_runs()] == [False, False, False, False, True]
    assert runs.damaged_runs() == []


def test_the_default_is_shipped_or_else_the_newest_with_weights(shipped):
    without, made = new_run(path=runs.runs_dir() / "a"), new_run(path=runs.runs_dir() / "b")
    made.weights.touch()
    assert runs.default_run() == shipped
    shipped.weights.unlink()
    assert runs.default_run() == made
    made.weights.unlink()
    assert runs.default_run() is None and without in runs.list_runs()


def test_no_folder_of_runs_is_no_run():
    assert not runs.runs_dir().exists() and [run for run in runs.list_runs() if not run.shipped] == []


# ------------------------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"recipe": {}}',
        b'{"recipe": [], "classes": []}',
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_damaged_run_json_is_one_sentence_and_leaves_the_other_runs_alone(content):
    good, bad = new_run(), new_run()
    (bad.path / "run.json").write_bytes(content)
    assert_damaged(bad, good)


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"no such setting": 1}},
        {"recipe": {"self": 1}},
        {"recipe": {"epochs": "many"}},
        {"recipe": None},
        {"classes": []},
        {"classes": "cat"},
        {"classes": [1, 2]},
        {"data": 5},
        {"dataset": {"name": "pets"}},
        {"dataset": {"name": "pets", "fingerprint": "ab", "photos": "20"}},
        {"mean": None},
        {"std": 0.2},
    ],
    ids=json.dumps,
)
def test_a_run_json_with_a_wrong_value_is_one_sentence(changes):
    good, bad = new_run(), new_run()
    runs.write_json(bad.path / "run.json", {**bad.config, **changes})
    assert_damaged(bad, good)


def assert_damaged(bad: Run, good: Run) -> None:
    for read in (lambda: bad.recipe, lambda: runs.find(bad.id)):
        with pytest.raises(RunError) as caught:
            read()
        assert bad.id in sentence(caught.value)
    assert good in runs.list_runs() and bad not in runs.list_runs()
    assert runs.damaged_runs() == [str(caught.value)]
    assert bad.status().state == "lost" and bad.metrics() == []


def test_a_folder_without_run_json_is_no_run():
    (runs.runs_dir() / "empty").mkdir(parents=True)
    assert runs.damaged_runs() == ["empty is not a run: its folder has no run.json."]


def test_a_run_that_was_deleted_meanwhile_says_so():
    with pytest.raises(runs.RunError, match="^gone has gone: its folder was deleted or moved.$"):
        _ = Run(runs.runs_dir() / "gone").recipe


HUGE = 10**400
STATUSES = [
    b"",
    b"{",
    b"[]",
    b"3",
    b"null",
    b"\xff\xff",
    b"[" * 100_000,
    *(
        json.dumps(values).encode()
        for values in (
            {"state": "running", "updated": "now"},
            {"state": "starting", "updated": "now"},
            {"state": "starting", "updated": None},
            {"state": "starting", "updated": [1]},
            {"state": "starting", "updated": HUGE},
            {"state": "starting", "updated": float("nan")},
            {"state": ["running"]},
            {"state": {"a": 1}},
            {"state": None, "live": True, "unknown": 1},
            {"state": "dreaming"},
            {"state": 3, "epoch": "one", "best": [], "message": 5, "eta_seconds": "soon", "memory_bytes": 1.5},
            {"state": "stopped", "epoch": [], "steps": {}, "eta_seconds": float("inf"), "device": None, "best": {}},
            {"state": "stopped", "best": {"epoch": 1, "accuracy": "high", "loss": None}, "step": HUGE, "live": True},
        )
    ),
]


@pytest.mark.parametrize("content", STATUSES, ids=lambda content: repr(content[:70]))
def test_a_damaged_status_never_raises_and_has_the_types_that_pages_format(content):
    run = new_run()
    (run.path / "status.json").write_bytes(content)
    status = run.status()
    assert status.state in runs.STATES and status.live is False
    assert f"{status.state.capitalize()} {status.message} {status.epoch:,} {status.steps:,} {status.device}"
    assert status.eta_seconds is None and status.memory_bytes is None and status.best is None
    assert type(status.step) is int and type(status.updated) is float


def test_what_is_right_in_a_damaged_status_is_kept():
    run = new_run()
    best = {"epoch": 2, "accuracy": 1, "loss": 0.25, "more": "of it"}
    runs.write_json(run.path / "status.json", {"state": "failed", "message": "No room.", "epoch": "x", "best": best})
    assert run.status() == Status(state="failed", message="No room.", best=best)


def test_a_status_that_is_a_folder_or_unreadable_never_raises():
    run = new_run()
    (run.path / "status.json").mkdir()
    (run.path / "metrics.jsonl").mkdir()
    (run.path / "log.txt").mkdir()
    (run.path / "report.json").mkdir()
    (run.path / "lock").mkdir()
    assert run.status().state == "lost"
    assert run.metrics() == [] and run.log_tail() == "" and run.report() is None


def test_a_run_that_was_deleted_meanwhile_is_merely_lost(tmp_path):
    run = Run(tmp_path / "gone")
    assert run.status() == Status() and run.metrics() == [] and not run.has_weights


def record(step: int, **changes) -> dict:
    return {"epoch": 1, "step": step, "split": "train", "loss": 0.5, "accuracy": 0.75, **changes}


def test_metrics_leave_out_torn_and_damaged_lines():
    run = new_run()
    good = [record(1, partial=True), record(2, lr=0.01), record(3, split="val", accuracy=1, loss=0)]
    lines = [json.dumps(line).encode() for line in good]
    garbage = [b"", b"{}", b"[1]", b"null", b"\xff\xfe", b"{" * 50, b"[" * 100_000, b"\0\0\0\0"]
    wrong = [record("4"), record(4, epoch=0), record(4, epoch=None), record(4, loss="low"), record(4, split=None)]
    wrong += [record(4, accuracy=[]), record(True), record(HUGE), record(4, loss=float("nan"))]
    content = [lines[0], *garbage, lines[1], *(json.dumps(line).encode() for line in wrong), lines[2], lines[0][:-9]]
    (run.path / "metrics.jsonl").write_bytes(b"\n".join(content))
    assert run.metrics() == good


def test_a_report_is_an_object_or_nothing():
    run = new_run()
    for content, value in ((b'{"accuracy": 0.5}', {"accuracy": 0.5}), (b"[1]", None), (b"{", None)):
        (run.path / "report.json").write_bytes(content)
        assert run.report() == value


@pytest.mark.parametrize(
    "damaged",
    [
        {"accuracy": "high"},
        {"accuracy": 2},
        {"loss": float("nan")},
        {"count": 4.5},
        {"confusion": [[1, 2]]},
        {"confusion": [[1, -2], [0, 0]]},
        {"confusion": 3},
        {"classes": [1]},
        {"reliability": [{"confidence": 0.5, "accuracy": {}, "count": 1}]},
        {"reliability": [{"confidence": 0.5, "accuracy": 0.5, "count": 1, "interval": [0]}]},
        {"reliability": [{"confidence": 0.5, "accuracy": 0.5, "count": 1, "interval": [0, 2]}]},
        {"splits": {"train": {"cat": []}}},
        {"splits": []},
        {"neither": 5},
        {"uncompressed": {"bytes": 1}},
        {"rank": "8"},
        {"split": None},
    ],
    ids=json.dumps,
)
def test_a_report_lacks_what_cannot_be_used(damaged):
    run = new_run()
    bins = [{"confidence": 0.5, "accuracy": 1, "count": 1, "interval": each} for each in ([0, 1], None)]
    good = {
        "ece": 0.25, "accuracy": 0, "risk_at_90": 1, "count": 0, "rank": None, "reliability": bins, "other": "x",
        "confusion": [[0, 1], [2, 3]], "splits": {"train": {"cat": 0, "dog": 4}},
    }  # fmt: skip
    runs.write_json(run.path / "report.json", {**good, **damaged})
    assert run.report() == {name: value for name, value in good.items() if name not in damaged}


def test_the_tail_of_a_log():
    run = new_run()
    (run.path / "log.txt").write_bytes(b"".join(b"line %d\n" % n for n in range(5000)) + b"caf\xc3\xa9 \xff")
    assert run.log_tail(3) == "line 4998\nline 4999\ncafé \N{REPLACEMENT CHARACTER}"
    assert len(run.log_tail().splitlines()) == 20
    (run.path / "log.txt").write_text("a line without an end " * 1000)
    assert len(run.log_tail(2)) == 400  # of what has no lines no more is read than lines would have


# -------------------------------------------------------------------------------------------------------- life, death


@pytest.fixture
def holder():
    """Starts a process that holds the lock of a run."""
    processes = []

    def hold(run: Run) -> subprocess.Popen:
        code = "import sys, time, filelock\nwith filelock.FileLock(sys.argv[1]): print(flush=True); time.sleep(600)"
        process = subprocess.Popen([sys.executable, "-c", code, str(run.path / "lock")], stdout=subprocess.PIPE)
        processes.append(process)
        process.stdout.readline()
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("state", runs.UNFINISHED)
def test_the_lock_tells_a_living_trainer_from_a_killed_one(holder, state):
    run = new_run()
    words = {"state": state, "epoch": 3, "updated": 1.0}  # long ago: a trainer may be silent and alive
    runs.write_json(run.path / "status.json", words)
    assert run.status().state == "lost" and not run.status().live
    process = holder(run)
    assert run.locked() and run.status() == Status(**words, live=True)
    with pytest.raises(RunError, match="is training already"):
        run.resume()
    process.send_signal(signal.SIGKILL)
    process.wait()
    status = run.status()
    assert not run.locked() and not status.live
    assert (status.state, status.epoch) == ("lost", 3) and "resumed" in sentence(ValueError(status.message))


def test_a_finished_run_is_not_live_even_while_its_process_ends(holder):
    run = new_run()
    runs.write_status(run.path, Status(state="finished"))
    holder(run)
    assert run.locked() and run.status().state == "finished" and not run.status().live


def test_a_run_just_started_counts_as_live_before_its_process_is_up():
    run = new_run()
    runs.write_status(run.path, Status(state="starting"))
    assert run.status().live
    with pytest.raises(RunError, match="is training already"):
        runs.launch(run)
    runs.write_json(run.path / "status.json", {"state": "starting", "updated": time.time() - 2 * runs.START_SECONDS})
    assert run.status().state == "lost"


@pytest.mark.parametrize("state", ["queued", "running"])
def test_recent_words_do_not_make_a_run_live_without_its_lock(state):
    run = new_run()
    runs.write_status(run.path, Status(state=state))
    assert run.status().state == "lost"


def test_a_finished_run_is_not_started_again():
    run = new_run()
    runs.write_status(run.path, Status(state="finished", epoch=14))
    (run.path / "metrics.jsonl").write_text(json.dumps(record(1)) + "\n")
    with pytest.raises(RunError, match="has finished") as caught:
        runs.launch(run)
    sentence(caught.value)
    assert run.status().state == "finished" and run.metrics() == [record(1)]


@pytest.fixture
def program(tmp_path):
    """Makes a shell script that stands in for a program."""
    if os.name == "nt":
        pytest.skip("the stand-in is a shell script")

    def make(name: str, text: str) -> Path:
        (tmp_path / "bin").mkdir(exist_ok=True)
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.mark.parametrize(
    ("processes", "torchrun"), [(1, ""), (2, "-m torch.distributed.run --standalone --nproc-per-node=2 ")]
)
def test_launch_starts_the_trainer_in_a_session_of_its_own(tmp_path, monkeypatch, program, processes, torchrun):
    """What stands in for Python here writes down how it was called; a relative home has to mean the same folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALEXNET_HOME", "home")
    monkeypatch.setattr(sys, "executable", str(program("python", 'echo "$ALEXNET_HOME|$PWD|$*" >&2\nexec cat')))
    run = new_run(Recipe(processes=processes))
    if processes == 1:
        run.request_stop()
    with an_input_that_does_not_end():
        runs.launch(run)
        child = runs._children[-1]
        assert os.getsid(child.pid) == child.pid
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(os.getpriority(os.PRIO_PROCESS, 0) + runs.NICE, 19)
        assert child.wait(timeout=60) == 0  # cat met the end of its input at once
    train = f"-u {torchrun}-m alexnet train --run-dir {run.path} --resume"
    assert run.log_tail() == f"{tmp_path / 'home'}|{runs.PROJECT}|{train}"
    status = run.status()
    assert (status.state, status.message) == ("starting", "Starting the trainer.") and not (run.path / "stop").exists()
    runs.launch(new_run())
    assert child not in runs._children  # which has ended
    assert runs._children[-1].wait(timeout=60) == 0


@contextlib.contextmanager
def an_input_that_does_not_end():
    """For this process, and for those that it starts unless they get another."""
    mine, (end, kept_open) = os.dup(0), os.pipe()
    os.dup2(end, 0)
    try:
        yield
    finally:
        os.dup2(mine, 0)
        for number in (mine, end, kept_open):
            os.close(number)


def test_where_strangers_are_served_nothing_starts_or_stops(monkeypatch):
    run = new_run()
    monkeypatch.setenv("ALEXNET_PUBLIC", "1")
    for act, what in ((run.request_stop, "way to stop runs"), (lambda: runs.launch(run), "training")):
        with pytest.raises(PublicError, match=f"offers no {what};"):
            act()
    assert names_in(run.path) == {"run.json"}


def test_a_run_that_is_gone_cannot_be_told_to_stop(tmp_path):
    with pytest.raises(RunError) as caught:
        Run(tmp_path / "gone").request_stop()
    told = "gone cannot be told to stop (No such file or directory); end its process instead."
    assert sentence(caught.value) == told


def test_a_trainer_that_cannot_be_started_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RunError, match="cannot be started") as caught:
        runs.launch(new_run())
    sentence(caught.value)


@pytest.fixture
def look_for_gpus(monkeypatch, tmp_path):
    """Looks as a new process does, which finds no programs but the stand-ins."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    runs.gpus.cache_clear()
    yield runs.gpus
    runs.gpus.cache_clear()


def test_gpus_are_named_by_their_driver_which_is_asked_once(program, look_for_gpus):
    answer = 'case "$*" in "--query-gpu=name --format=csv,noheader") echo "NVIDIA H200"; echo "NVIDIA L4";; esac'
    smi = program("nvidia-smi", answer)
    assert look_for_gpus() == ["NVIDIA H200", "NVIDIA L4"]
    smi.unlink()
    assert look_for_gpus() == ["NVIDIA H200", "NVIDIA L4"]


@pytest.mark.parametrize("text", [None, "echo NVIDIA H200; exit 9", "", "while :; do :; done"])
def test_without_a_driver_that_answers_there_is_no_gpu(program, look_for_gpus, monkeypatch, text):
    monkeypatch.setattr(runs, "SMI_SECONDS", 0.2)
    if text is not None:
        program("nvidia-smi", text)
    assert look_for_gpus() == []


# ------------------------------------------------------------------------------------------------------------ writing


def test_the_reporter_writes_status_and_metrics():
    run = new_run()
    with FileLock(run.path / "lock"):
        reporter = Reporter(run, Status(state="starting", epochs=2))
        reporter.say(state="running", step=4, best={"epoch": 1, "accuracy": 0.5, "loss": 0.7})
        reporter.record(**record(4, note="Hündin"))
        reporter.record(**record(5))
        status = run.status()
    assert (status.state, status.epochs, status.step, status.live) == ("running", 2, 4, True)
    assert 0 <= time.time() - status.updated < 60 and status.best["accuracy"] == 0.5
    assert run.metrics() == [record(4, note="Hündin"), record(5)]
    assert names_in(run.path) == {"run.json", "status.json", "metrics.jsonl", "lock"}


def test_the_reporter_prints_each_message_once_and_each_record(capsys):
    reporter = Reporter(new_run(), Status(state="running", epochs=2))
    for message in ("Reading the photos.", "Reading the photos.", "Validating."):
        reporter.say(message=message)
    reporter.say(step=4)
    reporter.preparing("Checking photos", 1000, 2000)
    assert reporter.status.message == "Checking photos: 1,000 of 2,000."
    reporter.record(**record(1234, split="val"))
    printed = ["Reading the photos.", "Validating.", "epoch 1 of 2, step 1,234, val: accuracy 75.00%, loss 0.5000"]
    assert capsys.readouterr().out.splitlines() == printed


def test_a_series_is_stopped_with_its_runs_and_others_go_on():
    run = new_run()
    (run.path.parent / "stop").touch()
    assert not Reporter(run, Status(state="running")).stop_asked()
    (run.path.parent / runs.FOLDS_FILE).write_text("{}")
    assert Reporter(run, Status(state="running")).stop_asked()


def test_the_reporter_stops_when_asked():
    run = new_run()
    reporter = Reporter(run, Status(state="running"))
    reporter.check_stop()
    run.request_stop()
    for look in (reporter.check_stop, lambda: reporter.preparing("Checking photos", 1, 2)):
        with pytest.raises(Stopped):
            look()


def test_a_resumed_run_forgets_what_it_is_about_to_do_again():
    """Killed in epoch 2 after its last training record; the checkpoint is of step 25, with epoch 1 finished."""
    run = new_run()
    reporter = Reporter(run, Status(state="running"))
    before = [record(10, partial=True), record(20), record(20, split="val"), record(22, epoch=2, partial=True)]
    again = [record(30, epoch=2, partial=True), record(40, epoch=2), record(40, epoch=2, split="val")]
    for values in before + again:
        reporter.record(**values)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "st')
    reporter.forget_after(1, 25)
    reporter.record(**record(26, epoch=2, partial=True))
    assert run.metrics() == [*before, record(26, epoch=2, partial=True)]
    reporter.forget_after(0, 20)  # the whole-epoch records of step 20 come again, when epoch 1 ends
    assert run.metrics() == [record(10, partial=True)]
    reporter.forget_after(0, 0)
    assert run.metrics() == []


def test_a_run_killed_between_its_test_and_its_end_is_tested_once_in_the_records():
    run = new_run()
    reporter = Reporter(run, Status(state="running"))
    epoch = [record(20), record(20, split="val")]
    for values in [*epoch, record(20, split="test")]:
        reporter.record(**values)
    reporter.forget_after(1, 20)
    assert run.metrics() == epoch


def test_forgetting_without_metrics_makes_an_empty_file():
    run = new_run()
    Reporter(run, Status()).forget_after(0, 5)
    assert (run.path / "metrics.jsonl").read_bytes() == b""


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from alexnet import runs
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write past the limit fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    runs.write_json(Path(sys.argv[1]), {"text": "x" * 10_000})
except OSError as error:
    print("refused", error.errno)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "folder" / "status.json"
    path.parent.mkdir()
    runs.write_json(path, {"text": "old"})
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    assert subprocess.run(command, capture_output=True, text=True, cwd=runs.PROJECT).stdout.startswith("refused")
    assert json.loads(path.read_text()) == {"text": "old"} and names_in(path.parent) == {"status.json"}


def test_what_cannot_be_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "folder" / "x.json"
    path.parent.mkdir()
    runs.write_json(path, ["Kätzchen", 1])
    with pytest.raises(TypeError):
        runs.write_json(path, {1, 2})
    assert json.loads(path.read_text(encoding="utf-8")) == ["Kätzchen", 1] and names_in(path.parent) == {"x.json"}


def test_readers_see_a_whole_file_however_many_threads_write_it(tmp_path):
    path = tmp_path / "x.json"
    runs.write_json(path, ["0" * 5_000])

    def write(digit: str) -> None:
        for _ in range(30):
            runs.write_json(path, [digit * 5_000])

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, digit) for digit in "1234"]
        seen = []
        while not all(writer.done() for writer in writers):
            seen.append(json.loads(path.read_text())[0])
    assert [writer.result() for writer in writers] == [None] * 4
    assert {(len(text), len(set(text))) for text in seen} == {(5_000, 1)}
