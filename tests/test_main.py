"""The command line: its output, its exit status, and its sentences."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from alexnet import data, doodles, runs
from alexnet.__main__ import main
from alexnet.evaluate import evaluate
from alexnet.predict import load_classifier


@pytest.fixture
def cat_jpg(tmp_path):
    path = tmp_path / "cat.jpg"
    doodles.draw("cat", 3).save(path)
    return path


def classified(capsys, *arguments: object) -> tuple[int, dict]:
    status = main(["classify", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_classify_json_is_one_object_and_bad_photos_do_not_stop_the_others(untrained_run, cat_jpg, tmp_path, capsys):
    run, _ = untrained_run
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    status, answer = classified(capsys, cat_jpg, text, tmp_path / "missing.png", "--run", run.path)
    assert status == 1
    good, bad, missing = answer["photos"]
    assert good["file"] == str(cat_jpg)
    assert good["label"] == max(good["probabilities"], key=good["probabilities"].get)
    assert set(good["probabilities"]) == {"cat", "dog"}
    assert sum(good["probabilities"].values()) == pytest.approx(1)
    assert set(bad) == set(missing) == {"file", "error"}


def test_classify_in_words(untrained_run, cat_jpg, capsys):
    assert main(["classify", str(cat_jpg), "--run", str(untrained_run[0].path)]) == 0
    assert capsys.readouterr().out.startswith(f"{cat_jpg}: ")


def test_classify_writes_the_overlay_and_the_numbers(untrained_run, cat_jpg, tmp_path, capsys):
    run, _ = untrained_run
    out = tmp_path / "maps"
    status, answer = classified(capsys, cat_jpg, "--run", run.path, "--saliency", "gradcam", "--out", out)
    assert status == 0
    assert answer["photos"][0]["saliency"] == str(out / "cat-gradcam.png")
    side = run.recipe.image_size
    assert Image.open(out / "cat-gradcam.png").size == (side, side)
    assert np.load(out / "cat-gradcam.npy").shape == (side, side)


def test_evaluate_json(untrained_run, tmp_path, capsys):
    photos = tmp_path / "pets"
    for folder, label in (("Cats", "cat"), ("DOG", "dog")):
        (photos / folder).mkdir(parents=True)
        for seed in range(3):
            doodles.draw(label, seed).save(photos / folder / f"{seed}.png")
    command = ["evaluate", "--data", str(photos), "--run", str(untrained_run[0].path), "--json"]
    assert main(command) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["count"] == 6
    assert metrics["classes"] == ["cat", "dog"]
    assert [sum(row) for row in metrics["confusion"]] == [3, 3]
    assert metrics["accuracy"] == sum(metrics["confusion"][i][i] for i in range(2)) / 6
    assert metrics["loss"] > 0
    assert 0 <= metrics["ece"] <= 1 and 0 <= metrics["risk_at_90"] <= 1
    assert "auroc_neither" not in metrics
    assert main([*command, "--resize", "90"]) == 0
    dataset, closer = data.load(str(photos)), load_classifier(untrained_run[0]).scaling_to(90)
    assert json.loads(capsys.readouterr().out)["loss"] == evaluate(closer, dataset, dataset.photos).metrics["loss"]
    assert main([*command, "--resize", "0"]) == 2
    assert capsys.readouterr().err == "resize: 0 is out of range; use a value from 67 to 1024.\n"


def test_evaluate_against_photos_of_neither(untrained_run, tmp_path, photo_folder, capsys):
    doodles.write(tmp_path / "pets", per_class=2)
    neither = photo_folder({f"n0{n}/{n}.JPEG": n for n in range(3)} | {"broken.png": b"no picture"}, "neither")
    command = ["evaluate", "--data", str(tmp_path / "pets"), "--run", str(untrained_run[0].path), "--neither"]
    assert main([*command, str(neither), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert 0 <= metrics["auroc_neither"] <= 1 and metrics["neither"] == {"count": 3, "skipped": 1}
    assert main([*command, str(neither)]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert "accuracy 50.00% (95 % interval 15.00% to 85.00%)" in first
    assert [line.split(":")[0].strip() for line in others] == [
        "cat",
        "dog",
        "calibration error (ECE)",
        "risk at 90 % coverage",
        "neither",
    ]
    assert main([*command, str(tmp_path / "nowhere")]) == 1
    assert "There is no folder" in capsys.readouterr().err


def test_data_report_json_adds_up(tmp_path, capsys):
    photos = tmp_path / "pets"
    photos.mkdir()
    for seed in range(2):
        doodles.draw("cat", seed).save(photos / f"cat.{seed}.png")
    (photos / "dog.0.jpg").write_text("no picture")
    (photos / "readme.txt").write_text("words")
    assert main(["data", "report", str(photos), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["found"] == 4
    assert report["used"] == 2
    assert {(skip["file"], skip["reason"]) for skip in report["skipped"]} == {
        ("dog.0.jpg", "unreadable"),
        ("readme.txt", "not a photo file"),
    }


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["train"], 2, "Give --data"),
        (["train", "--data", "doodles", "--lr", "fast"], 2, "lr: 'fast' is not a number."),
        (["train", "--data", "doodles", "--epochs", "0"], 2, "epochs: 0 is out of range"),
        (["train", "--resume"], 2, "Give --run, the folder of the run to resume."),
        (["train", "--resume", "--run", "nothing"], 1, "There is no run 'nothing'"),
        (["train", "--data", "no/such/folder"], 1, "There is no folder"),
        (["classify", "cat.jpg", "--run", "nothing"], 1, "There is no run 'nothing'"),
        (["classify", "cat.jpg", "--saliency", "gradcam"], 2, "Give --saliency and --out together."),
        (["evaluate", "--data", "no/such/folder", "--run", "nothing"], 1, "There is no run 'nothing'"),
        (["data", "report", "dogs-vs-cats"], 1, "is not here yet"),
    ],
)
def test_mistakes_get_one_sentence(arguments, status, sentence, capsys):
    assert main(arguments) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(sentence) or sentence in printed.err
    assert len(printed.err.strip().splitlines()) == 1


def test_resume_may_repeat_settings_but_not_change_them(untrained_run, tmp_path, capsys):
    shutil.copy(untrained_run[0].path / "run.json", tmp_path)
    assert main(["train", "--run", str(tmp_path), "--resume", "--image-size", "67", "--lr", "0.5"]) == 2
    assert "lr: the run was made with 0.02, not 0.5; start a new run for that." in capsys.readouterr().err


def test_a_finished_run_is_not_trained_again(untrained_run, capsys):
    assert main(["train", "--run", str(untrained_run[0].path), "--resume"]) == 1
    assert "untrained is finished; start a new run to train on." in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["fly"], ["data", "download", "birds"], ["train", "--recipe", "none"]])
def test_wrong_use_exits_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_help_imports_no_torch():
    code = "import sys, alexnet.__main__ as m\ntry: m.main(['train', '--help'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=runs.PROJECT, capture_output=True).returncode == 0
