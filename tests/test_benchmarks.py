"""The benchmarks: that they run from a bare checkout, and that both sides of each do the same. No speed is asserted."""

from __future__ import annotations

import io
import json
import multiprocessing
import subprocess
import sys
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose

from alexnet import data, doodles, runs, saliency
from alexnet.predict import load_classifier
from alexnet.recipes import RECIPES
from benchmarks import digits, latency, load, measure, notebook, ours, step, stock, train
from benchmarks import input as input_benchmark

SMALL = ["--batch-size", "4", "--photos", "12", "--image-size", "67", "--compile", "off", "--device", "cpu"]
BOTH_SIDES = {"ours", "stock", "ratio", "unit"}


@pytest.fixture
def pets(tmp_path):
    """Twelve doodles, named as Kaggle names photos."""
    folder = tmp_path / "pets"
    folder.mkdir()
    for label in doodles.CLASSES:
        for number in range(6):
            doodles.draw(label, number).save(folder / f"{label}.{number}.jpg")
    return folder


@pytest.fixture
def hurried(monkeypatch):
    """One call a turn, one round that counts, and saliency maps of few passes, on both sides."""
    monkeypatch.setattr(saliency, "STEPS", 4)
    monkeypatch.setattr(saliency, "WINDOWS_AT_ONCE", 64)
    monkeypatch.setattr(measure, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(input_benchmark, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(ours, "turn_seconds", lambda device: 0.0)


def result_of(benchmark, capsys, *arguments: object) -> dict:
    """What `benchmark` prints as JSON: one object and nothing else."""
    assert benchmark.main([*map(str, arguments), "--seconds", "0", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def has_both_sides(comparison: dict) -> bool:
    ratio = comparison["ours"] / comparison["stock"]
    expected = 1 / ratio if comparison["unit"] == "ms" else ratio
    return comparison["ours"] > 0 and comparison["ratio"] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", ["train", "input", "step", "latency", "load"])
def test_each_runs_as_a_script_from_the_repository(name):
    command = [sys.executable, f"benchmarks/{name}.py", "--help"]
    help_text = subprocess.run(command, cwd=runs.PROJECT, capture_output=True, text=True, check=True).stdout
    assert "--data" in help_text and "--json" in help_text


def test_training(pets, hurried, capsys):
    result = result_of(train, capsys, "--data", pets, *SMALL)
    assert has_both_sides(result)
    assert result["step_only"] > 0
    assert result["share_of_step_only"] == pytest.approx(result["ours"] / result["step_only"], rel=0.01)
    facts = {"photos": 10, "batch_size": 4, "image_size": 67, "hardware": "CPU, float32", "rounds": 1}
    assert facts.items() <= result.items()
    assert result["machine"]["threads"] == torch.get_num_threads()


def test_input(pets, hurried, capsys):
    result = result_of(input_benchmark, capsys, "--data", pets, *SMALL)
    assert has_both_sides(result["batches"]) and has_both_sides(result["cache"])


def test_step(pets, hurried, capsys):
    assert has_both_sides(result_of(step, capsys, "--data", pets, *SMALL))


def test_step_with_either_normalisation(pets, hurried, capsys):
    assert has_both_sides(result_of(step, capsys, "--data", pets, "--norms", *SMALL))


def test_latency(pets, hurried, untrained_run, capsys):
    result = result_of(latency, capsys, "--data", pets, "--run", untrained_run[0].path)
    assert all(has_both_sides(result[thing]) for thing in ["one photo", *notebook.METHODS])


def test_visitors_at_once_get_the_answers_to_their_own_photos_while_a_run_trains(capsys):
    few = ["--visitors", "3", "--rounds", "2", "--look", "0", "--seconds", "0.1", "--actions", "6"]
    assert load.main([*few, "--recipe", "mlp-baseline", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"visitors": 3, "uploads": 6, "wrong_answers": 0, "actions": 6}.items() <= result.items()
    assert set(result["label"]) == set(result["training"]) == BOTH_SIDES


def test_more_uploads_than_photos_get_one_sentence(pets, capsys):
    assert load.main(["--data", str(pets), "--visitors", "5", "--rounds", "5"]) == 1
    assert capsys.readouterr().err.endswith("29 photos are uploaded, and pets has 12; ask for fewer.\n")


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--data", "no/such/folder"], 1, "There is no folder"),
        (["--batch-size", "0"], 2, "batch_size: 0 is out of range"),
        (["--device", "abacus"], 2, "device: 'abacus' is not one of"),
    ],
)
def test_mistakes_get_one_sentence(arguments, status, sentence, capsys):
    assert train.main(arguments) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(sentence)


def test_too_few_photos_get_one_sentence(pets, capsys):
    assert step.main(["--data", str(pets), "--photos", "4"]) == 1
    assert capsys.readouterr().err.endswith("2 photos of cat are too few to train on; give more, or raise --photos.\n")


def test_a_table_in_words():
    comparisons = {"a": measure.Comparison("images/s", 50.0, 20.0), "b": measure.Comparison("ms", 50.0, 20.0)}
    result = measure.Result(comparisons, {"rate": None, "machine": {"cores": 2, "gpu": None}})
    heading, a, b, _, rate, machine = str(result).splitlines()
    assert heading.split() == ["ours", "stock", "ratio"]
    assert a.split() == ["a", "50.0", "20.0", "2.50", "images/s"]
    assert b.split() == ["b", "50.0", "20.0", "0.40", "ms"]
    assert (rate, machine) == ("rate: not measured", "machine: cores 2")


def test_sides_take_turns_and_the_first_round_does_not_count():
    calls = []
    sides = {name: measure.Side(lambda name=name: calls.append(name)) for name in ("stock", "ours")}
    seconds, rounds = measure.alternate(sides, torch.device("cpu"), seconds=0.0, turn=0.0)
    assert calls == ["stock", "ours"] * (1 + measure.LEAST_ROUNDS)
    assert rounds == measure.LEAST_ROUNDS
    assert set(seconds) == {"stock", "ours"}


def test_both_sides_read_the_same_photos(pets):
    (pets / "cat.6.gif").write_bytes(b"")  # a format that ImageFolder cannot read
    with ours.bench(str(pets), 8) as bench:
        folder = ImageFolder(str(bench.train_folder))
        assert folder.classes == list(bench.dataset.classes)
        assert [label for _, label in folder.samples] == [photo.label for photo in bench.train_photos]
        assert len(folder) == 6
    assert not bench.train_folder.exists()


def test_stock_batches_are_those_of_the_reference_and_their_workers_end(pets):
    with ours.bench(str(pets), 12) as bench:
        transform = stock.training_transform(RECIPES["cats-dogs"].replace(image_size=67))
        before = multiprocessing.active_children()
        batches = stock.Batches(bench.train_folder, transform, 4, torch.device("cpu"))
        assert len(multiprocessing.active_children()) == len(before) + measure.cores()
        with batches.at_work():
            drawn = [next(batches) for _ in range(5)]  # more than the ten photos that there are
        batches.close()
        assert multiprocessing.active_children() == before
    for images, labels in drawn:
        assert images.shape == (4, 3, 67, 67) and images.dtype == torch.float32
        assert -2.2 < images.min() < images.max() < 2.7  # (0 - 0.485) / 0.229 to (1 - 0.406) / 0.225
        assert set(labels.tolist()) <= {0, 1}


def test_the_notebook_computes_what_the_classifier_does(hurried, untrained_run):
    classifier = load_classifier(untrained_run[0])
    stock_side = notebook.Notebook(classifier)
    stock_side.transform = Compose([classifier.transform.crop_photo, *stock.to_tensor()])  # the same pixels
    photo = Image.new("RGB", (90, 80), "teal")
    photo.paste("orange", (20, 10, 50, 60))
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    content = buffer.getvalue()
    probabilities = classifier([photo])[0].probabilities
    assert stock_side.classify(content) == pytest.approx(list(probabilities.values()), abs=1e-5)
    reduced = {"saliency": lambda a: a.amax(1), "integrated-gradients": lambda a: a.sum(1)}
    for method in notebook.METHODS:
        expected = reduced.get(method, lambda a: a[:, 0])(stock_side.attribute(content, method, 0)).mean(0)
        found = saliency.attribute(classifier, photo, method, classifier.classes[0])
        assert found == pytest.approx(expected.numpy(), abs=max(1e-6, saliency.ROUNDING * (method == "occlusion")))


def test_operations_of_a_training_step_by_hand():
    # Multiply-adds of each layer: output pixels x output channels x inputs of a pixel.
    conv1 = 55 * 55 * 96 * 363
    others = 27 * 27 * 256 * 2400 + 13 * 13 * (384 * 2304 + 384 * 3456 + 256 * 3456)
    full = 9216 * 4096 + 4096 * 4096 + 4096 * 2
    # Forward, gradient of the weights, gradient of the input; nobody asks for that of the photo.
    assert ours.training_flops(RECIPES["cats-dogs"], 2) == 2 * (2 * conv1 + 3 * (others + full))


def test_digits_become_a_dataset_of_ten_classes(tmp_path, capsys):
    assert digits.main([str(tmp_path / "digits"), "--count", "20"]) == 0
    dataset = data.load(str(tmp_path / "digits"))
    assert dataset.classes == tuple("0123456789") and len(dataset.photos) == 30
    assert sum(photo.split == "test" for photo in dataset.photos) == 10
    seven = np.asarray(dataset.open(next(p for p in dataset.photos if p.path == "train/7/00007.png")))
    assert np.array_equal(seven, digits.draw(7, Random("train/7")))  # each file lies with the digit that was drawn
    with pytest.raises(SystemExit):
        digits.main([str(tmp_path / "digits")])
    assert "is not empty; name another folder." in capsys.readouterr().err
