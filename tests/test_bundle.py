"""Bundles: what one holds, that it proves itself, that it comes back as a run, and what is refused of a stranger's."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from alexnet import bundle, doodles, proof, runs
from alexnet.__main__ import main
from alexnet.bundle import BundleError
from alexnet.predict import load_classifier
from alexnet.runs import Run, RunError
from alexnet.weights import WeightsError
from tests.test_graph import NETWORKS, made


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run, its bundle, and what the command said."""
    folder = tmp_path_factory.mktemp("bundle")
    run = made(folder / "small", NETWORKS["batch norm"])
    runs.write_json(run.path / "run.json", {**run.config, "data": "/home/someone/photos"})
    command = [sys.executable, "-m", "alexnet", "export", "--format", "bundle", "--run", str(run.path)]
    command += ["--out", str(folder / "small.zip")]
    done = subprocess.run(command, cwd=runs.PROJECT, capture_output=True, text=True, check=True)
    return run, folder / "small.zip", done.stdout


def test_what_a_bundle_holds(exported):
    run, file, told = exported
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        names = {"run.json", "weights.safetensors", "familiarity.safetensors", "calibration.json", "card.md"}
        assert set(archive.namelist()) == names | {"weights.pth", "model.onnx", "classify.py", "proof.json"}
        stored = json.loads(archive.read("proof.json"))
        assert archive.read("weights.safetensors") == run.weights.read_bytes()
        state = torch.load(io.BytesIO(archive.read("weights.pth")), weights_only=True)
        assert json.loads(archive.read("run.json"))["data"] == "nothing"  # not where the photos lay
        assert b"# Model card" in archive.read("card.md")
    assert all(torch.equal(state[name], tensor) for name, tensor in load_file(run.weights).items())
    assert json.loads((run.path / "proof.json").read_text()) == stored
    assert {form: (check["same"], check["of"]) for form, check in stored["checks"].items()} == dict.fromkeys(
        bundle.FORMS, (20, 20)
    )
    assert stored["checks"]["onnx"]["largest_difference"] <= 1e-4
    assert told.count("20 of 20 answers identical to the app's") == 3


def test_the_proof_is_of_the_apps_own_answers(exported):
    run, file, _ = exported
    stored = json.loads(zipfile.ZipFile(file).read("proof.json"))
    expected = proof.answers(load_classifier(run), list(proof.fixed_photos().values()))
    assert [answer["file"] for answer in stored["answers"]] == list(proof.fixed_photos())
    assert proof.compare(expected, stored["answers"])["largest_difference"] == 0
    assert len({answer["probabilities"]["class 0"] for answer in stored["answers"]}) == 20  # photos that differ


def test_the_script_says_what_the_app_says_of_a_photo(exported, tmp_path):
    run, file, _ = exported
    with zipfile.ZipFile(file) as archive:
        archive.extract("classify.py", tmp_path)
        archive.extract("model.onnx", tmp_path)
    photo = doodles.draw("dog", 3, size=150)
    photo.save(tmp_path / "dog.png")
    script = [sys.executable, "-I", str(tmp_path / "classify.py"), str(tmp_path / "dog.png")]
    told = subprocess.run(script, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    prediction = load_classifier(run)([photo])[0]
    assert f"{prediction.best} {prediction.probabilities[prediction.best]:.1%}" in told
    assert ("none of the classes" in told) == (prediction.label is None)
    (tmp_path / "text.jpg").write_text("no photo")
    many = subprocess.run(
        [*script[:3], "gone.jpg", "text.jpg", "dog.png"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (many.returncode, many.stdout) == (1, told.replace(str(tmp_path / "dog.png"), "dog.png"))
    assert many.stderr == "gone.jpg cannot be opened as a photo.\ntext.jpg cannot be opened as a photo.\n"


def test_a_bundle_comes_back_as_a_run_that_answers_identically(exported, tmp_path, capsys):
    run, file, _ = exported
    assert main(["import", str(file), "--out", str(tmp_path / "back")]) == 0
    assert "small.zip as a run of a, 2 classes" in capsys.readouterr().out
    back = runs.find(tmp_path / "back")
    assert (back.status().state, back.status().message) == ("finished", "Imported from small.zip.")
    photos = list(proof.fixed_photos().values())
    assert proof.answers(load_classifier(back), photos) == proof.answers(load_classifier(run), photos)
    assert {path.name for path in back.path.iterdir()} == {
        *("run.json", "status.json", "weights.safetensors", "familiarity.safetensors"),
        *("calibration.json", "card.md"),
    }
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(RunError, match="holds a run already"):
        bundle.load(file, tmp_path / "back")
    assert bundle.load(file).path.parent == runs.runs_dir()


def test_comparing_by_hand():
    def answers(*values):
        return [{"label": label, "probabilities": {"a": share, "b": 1 - share}} for label, share in values]

    expected = answers(("a", 0.7), ("a", 0.7), (None, 0.5), ("b", 0.2))
    found = answers(("a", 0.70009), ("a", 0.7002), ("a", 0.5), ("b", 0.2))
    check = proof.compare(expected, found)
    assert (check["same"], check["of"]) == (2, 4)
    assert check["largest_difference"] == pytest.approx(2e-4)
    renamed = [{"label": "a", "probabilities": {"a": 0.7, "c": 0.3}}]
    assert proof.compare(expected[:1], renamed)["same"] == 0


def test_the_fixed_photos_are_twenty_and_always_the_same():
    photos = proof.fixed_photos()
    assert len(photos) == 20 == len(set(photos.values()))
    assert photos == proof.fixed_photos.__wrapped__()


def test_what_answers_otherwise_is_not_exported(exported, tmp_path):
    run, file, _ = exported
    expected = proof.answers(load_classifier(run), list(proof.fixed_photos().values()))
    expected[7]["probabilities"]["class 0"] += 2e-4
    draft = tmp_path / "draft.zip"
    shutil.copyfile(file, draft)
    with pytest.raises(BundleError, match="^The ONNX of small gives the app's answer on 19 of 20 photos only"):
        bundle._prove(run.id, draft, expected, lambda *_: None)


@pytest.mark.parametrize("step", [0, 1])
def test_a_run_that_is_deleted_meanwhile(exported, tmp_path, step):
    run = Run(tmp_path / "gone")
    shutil.copytree(exported[0].path, run.path)

    def delete(what: str, done: int, total: int) -> None:
        if done == step:
            shutil.rmtree(run.path)

    with pytest.raises(BundleError, match="^gone was deleted while it was exported; bring it back, or export another"):
        bundle.write(run, tmp_path / "gone.zip", delete)
    assert not list(tmp_path.iterdir())


def test_a_run_without_weights(exported, tmp_path):
    run = Run(tmp_path / "young")
    shutil.copytree(exported[0].path, run.path)
    run.weights.unlink()
    with pytest.raises(RunError, match="young has no weights yet; let it finish an epoch first."):
        bundle.write(run, tmp_path / "young.zip")


def test_stopping_leaves_nothing(exported, tmp_path):
    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    with pytest.raises(Stopped):
        bundle.write(exported[0], tmp_path / "out" / "x.zip", stop)
    assert not list((tmp_path / "out").iterdir())


def test_a_page_has_it_made_in_another_process(exported, tmp_path):
    run, reports = Run(tmp_path / "mine"), []
    shutil.copytree(exported[0].path, run.path)
    (run.path / "proof.json").unlink()
    assert bundle.current_proof(run) is None
    bundle.write_aside(run, lambda *report: reports.append(report))
    assert bundle.current_proof(run) == json.loads((run.path / "proof.json").read_text())
    assert ("Writing the ONNX graph", 2, bundle.STEPS) in reports
    os.utime(run.weights)  # trained on
    assert bundle.current_proof(run) is None


def test_a_page_is_told_why_it_failed(tmp_path):
    with pytest.raises(BundleError, match="There is no run"):
        bundle.write_aside(Run(tmp_path / "none"), lambda *_: None)


# --------------------------------------------------------------------------------------------------- a stranger's bundle


def changed(file, tmp_path, **contents: bytes) -> str:
    """A copy of the bundle in which these files are others; `run_json` is `run.json`."""
    changes = {name.replace("_", "."): content for name, content in contents.items()}
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "strange.zip", "w") as new:
        for name in old.namelist():
            if name in bundle.RUN_FILES and name not in changes:
                new.writestr(name, old.read(name))
        for name, content in changes.items():
            if content is not None:
                new.writestr(name, content, zipfile.ZIP_DEFLATED)
    return tmp_path / "strange.zip"


def refuse(file, tmp_path, error=BundleError) -> str:
    """The sentence with which it is refused; nothing is left of it, inside and outside the runs."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error) as refused:
        bundle.load(file, tmp_path / "made" / "run")
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] in ([], [tmp_path / "made"])
    return str(refused.value)


def test_names_that_lead_elsewhere_are_not_unpacked(exported, tmp_path):
    file = changed(exported[1], tmp_path)
    with zipfile.ZipFile(file, "a") as archive:
        for name in ("../evil.py", "/tmp/evil.py", "a/../../evil.py", "C:\\evil.py", "sitecustomize.py", "log.txt"):
            archive.writestr(name, b"evil")
    run = bundle.load(file, tmp_path / "made" / "run")
    assert {path.name for path in run.path.iterdir()} <= {*bundle.RUN_FILES, "card.md"}
    assert not list(tmp_path.rglob("evil*"))


def test_a_link_is_refused(exported, tmp_path):
    file = changed(exported[1], tmp_path, report_json=None)
    link = zipfile.ZipInfo("report.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert "report.json that is not safe to unpack" in refuse(file, tmp_path)


def test_a_file_that_unpacks_to_far_more_is_refused(exported, tmp_path):
    file = changed(exported[1], tmp_path, report_json=b" " * 20_000_000)
    assert "report.json that is not safe to unpack" in refuse(file, tmp_path)


def test_two_files_of_one_name_are_refused(exported, tmp_path):
    file = changed(exported[1], tmp_path)
    with pytest.warns(UserWarning), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("run.json", b"{}")
    assert "is no bundle, or damaged" in refuse(file, tmp_path)


def test_a_million_entries_are_refused_before_they_are_read(tmp_path):
    entries = 20_000  # with a table of contents of over 1 MB
    file = tmp_path / "many.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(entries):
            archive.writestr(f"{number:020}", b"")
    assert "is no bundle, or damaged" in refuse(file, tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\5\6" + bytes(18), b"PK\3\4" + bytes(300)])
def test_what_is_no_bundle(tmp_path, content):
    file = tmp_path / "x.zip"
    file.write_bytes(content)
    assert refuse(file, tmp_path).startswith("x.zip ")
    assert "cannot be imported" in refuse(tmp_path / "missing.zip", tmp_path)


def test_a_damaged_bundle(exported, tmp_path):
    data = bytearray(exported[1].read_bytes())
    with zipfile.ZipFile(exported[1]) as archive:
        entry = archive.getinfo("weights.safetensors")
    data[entry.header_offset + 5000] ^= 255
    (tmp_path / "x.zip").write_bytes(data)
    assert refuse(tmp_path / "x.zip", tmp_path) == "x.zip is no bundle, or damaged: get it again."


def test_a_recipe_that_does_not_fit(exported, tmp_path):
    config = exported[0].config
    wider = {**config, "recipe": {**config["recipe"], "hidden": "64 16"}}
    file = changed(exported[1], tmp_path, run_json=json.dumps(wider).encode())
    assert "of another network: classifier.fc6.bias is (32,), not (64,)" in refuse(file, tmp_path, WeightsError)
    refuse(changed(exported[1], tmp_path, run_json=b"[]"), tmp_path, RunError)
    refuse(changed(exported[1], tmp_path, weights_safetensors=b"text"), tmp_path, WeightsError)
    assert "holds no run" in refuse(changed(exported[1], tmp_path, run_json=None), tmp_path)


@pytest.mark.parametrize("content", [{"mean": ["a", "b", "c"]}, {"mean": [0.5, 0.5]}, {"parent": 5}])
def test_a_run_that_could_not_answer_or_be_shown(exported, tmp_path, content):
    file = changed(exported[1], tmp_path, run_json=json.dumps({**exported[0].config, **content}).encode())
    assert refuse(file, tmp_path).startswith("strange.zip says things of its run that cannot be so")


def test_thin_factors_of_a_huge_matrix_are_refused_unread(exported, tmp_path):
    """One kilobyte that would multiply out to a terabyte."""
    state = load_file(exported[0].weights)
    del state["classifier.fc7.weight"]
    thin = torch.zeros(500_000, 1, dtype=torch.int8)
    factors = {
        "left": thin,
        "left_scale": torch.ones(1, 1),
        "right": thin.T.clone(),
        "right_scale": torch.ones(1, 1),
    }
    save_file(state | {f"classifier.fc7.weight.{part}": t for part, t in factors.items()}, tmp_path / "w")
    file = changed(exported[1], tmp_path, weights_safetensors=(tmp_path / "w").read_bytes())
    assert "classifier.fc7.weight is (500000, 500000)" in refuse(file, tmp_path, (WeightsError, BundleError))


def test_places_on_another_machine_are_forgotten(exported, tmp_path):
    config = {**exported[0].config, "data": "/etc", "parent": "/root/x"}
    run = bundle.load(changed(exported[1], tmp_path, run_json=json.dumps(config).encode()), tmp_path / "run")
    assert (run.config["data"], run.config["parent"]) == ("nothing", "x")
