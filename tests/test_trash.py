"""What is deleted goes, comes back when asked, and is gone for good after the app."""

from __future__ import annotations

import subprocess
import sys

import pytest

from alexnet import bundle, runs, trash
from alexnet.recipes import RECIPES
from alexnet.runs import Run, RunError, Status
from alexnet.trash import Trash


def make(name: str, state: str = "finished") -> Run:
    folder = runs.runs_dir() / name
    folder.mkdir(parents=True)
    dataset = {"name": "pets", "fingerprint": "", "photos": 9}
    runs.write_json(folder / "run.json", runs.configuration(RECIPES["first-run"], ["cat", "dog"], "pets", dataset))
    runs.write_status(folder, Status(state=state))
    (folder / "weights.safetensors").write_bytes(b"w" * 1000)
    return Run(folder)


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_deleted_comes_back_as_it_was():
    run, bin_ = make("a"), Trash()
    before = contents(run.path)
    bin_.put(run)
    assert not run.path.exists() and [folder.name for folder in bin_.held()] == ["a"]
    bin_.restore(bin_.held()[0])
    assert contents(run.path) == before and bin_.held() == []


def test_the_last_deleted_comes_first_and_an_id_may_be_deleted_twice():
    bin_ = Trash()
    for name in ("a", "b", "a"):
        bin_.put(make(name))
    assert [folder.name for folder in bin_.held()] == ["a", "b", "a"]
    bin_.restore(bin_.held()[0])
    with pytest.raises(RunError, match="There is another a by now"):
        bin_.restore(bin_.held()[1])
    assert [folder.name for folder in bin_.held()] == ["b", "a"]


def test_a_live_run_stays():
    run, bin_ = make("a", state="running"), Trash()
    with runs.FileLock(run.path / "lock"), pytest.raises(RunError, match="a is training; stop it first."):
        bin_.put(run)
    assert run.path.exists()
    bin_.put(run)  # its trainer is gone
    assert not run.path.exists()


def test_a_series_stays_while_one_of_its_runs_trains_and_its_runs_go_only_with_it():
    member, bin_ = make("series/trial-1", state="running"), Trash()
    (member.path.parent / "sweep.json").write_text("{}")
    with runs.FileLock(member.path / "lock"), pytest.raises(RunError, match="series/trial-1 is training"):
        bin_.put(Run(member.path.parent))
    with pytest.raises(RunError, match="a part of series; delete that as a whole"):
        bin_.put(member)
    bin_.put(Run(member.path.parent))
    assert not member.path.exists()


def test_shipped_weights_stay():
    with pytest.raises(RunError, match="came with the project"):
        Trash().put(runs.find("cats-dogs"))
    assert runs.find("cats-dogs").has_weights


def test_what_is_gone_already_is_one_sentence():
    with pytest.raises(RunError, match="a has gone already"):
        Trash().put(Run(runs.runs_dir() / "a"))


def test_a_link_goes_and_what_it_points_to_stays(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    make("a").path.rename(elsewhere)
    (runs.runs_dir() / "a").symlink_to(elsewhere)
    bin_ = Trash()
    bin_.put(Run(runs.runs_dir() / "a"))
    bin_.empty()
    assert not (runs.runs_dir() / "a").exists() and (elsewhere / "run.json").exists()


def test_emptied_it_holds_nothing_and_takes_more():
    bin_ = Trash()
    bin_.put(make("a"))
    bin_.empty()
    assert bin_.held() == [] and list(trash.trash_dir().iterdir()) == []
    bin_.put(make("b"))
    assert len(bin_.held()) == 1


DELETE = "from alexnet import runs, trash; import os; trash.Trash().put(runs.find('a')); {end}"


@pytest.mark.parametrize(("end", "left"), [("", 0), ("os._exit(0)", 1)])
def test_it_is_emptied_when_the_app_ends_or_when_the_next_one_starts(end, left):
    make("a")
    subprocess.run([sys.executable, "-c", DELETE.format(end=end)], cwd=runs.PROJECT, check=True)
    assert len(list(trash.trash_dir().iterdir())) == left and not (runs.runs_dir() / "a").exists()
    Trash()
    assert list(trash.trash_dir().iterdir()) == []


def test_another_app_empties_only_what_nobody_holds():
    bin_ = Trash()
    bin_.put(make("a"))
    subprocess.run([sys.executable, "-c", "from alexnet import trash; trash.Trash()"], cwd=runs.PROJECT, check=True)
    bin_.restore(bin_.held()[0])
    assert runs.find("a").has_weights


def test_sizes_count_every_file_by_name():
    run = make("series/trial-1")
    make("series/trial-2")
    assert trash.sizes(Run(run.path.parent))["weights.safetensors"] == 2000
    assert trash.sizes(run).total() == sum(map(len, contents(run.path).values()))


def test_bundles_that_pages_made_are_counted_and_go_with_the_run_and_no_other_does():
    run, member, other = make("a"), make("series/trial-1"), make("series-trial")
    files = [bundle.kept(each) for each in (run, member, other)]
    files[0].parent.mkdir(parents=True)
    for file in files:
        file.write_bytes(b"123456789")
    assert trash.sizes(run)["a.zip"] == 9
    bin_ = Trash()
    bin_.put(run)
    bin_.put(runs.Job(member.path.parent))
    assert [file.exists() for file in files] == [False, False, True]
