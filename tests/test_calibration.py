"""The temperature against searches and known answers, and the file that carries it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from alexnet import calibration
from alexnet.calibration import Calibration, fit_temperature
from alexnet.predict import load_classifier
from alexnet.runs import RunError


def drawn(count: int, classes: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels, these drawn with the probabilities softmax(logits / temperature)."""
    random = torch.Generator().manual_seed(count)
    logits = 3 * torch.randn(count, classes, generator=random)
    return logits, torch.multinomial((logits / temperature).softmax(1), 1, generator=random).squeeze(1)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_no_other_temperature_has_a_lower_cross_entropy(classes, temperature):
    logits, labels = drawn(300, classes, temperature)
    smoothing = classes / (classes - 1) / 302  # PyTorch's also gives the photo's own class its share
    grid = np.geomspace(0.05, 50, 2001)
    losses = [F.cross_entropy(logits.double() / t, labels, label_smoothing=smoothing).item() for t in grid]
    found, best = fit_temperature(logits, labels), grid[np.argmin(losses)]
    assert found == pytest.approx(best, rel=0.004)  # a step of the grid
    loss = F.cross_entropy(logits.double() / found, labels, label_smoothing=smoothing).item()
    assert loss <= min(losses)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_the_labels_were_drawn_with_is_found(temperature):
    assert fit_temperature(*drawn(40_000, 2, temperature)) == pytest.approx(temperature, rel=0.04)


def test_by_hand():
    """Of two kinds of answers alike in all but their sign: right in the share that their common probability should be."""
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]]).repeat(50, 1)
    labels = torch.tensor([0, 1]).repeat(50)
    labels[:20] = 1 - labels[:20]
    wanted = 0.8 * (1 - 1 / 102) + 0.2 / 102
    assert fit_temperature(logits, labels) == pytest.approx(2 / np.log(wanted / (1 - wanted)), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-1, 1.0, 1e1])
def test_logits_of_another_scale_have_a_temperature_of_that_scale(scale):
    logits, labels = drawn(500, 3, 1.5)
    shifted = logits.double() * scale + torch.arange(500)[:, None]  # softmax does not see what all have in common
    assert fit_temperature(shifted, labels) == pytest.approx(scale * fit_temperature(logits, labels), rel=1e-6)


def test_right_on_all_of_few_photos_is_not_certain():
    logits = torch.tensor([[3.0, 0.0]] * 8)
    probability = (logits / fit_temperature(logits, torch.zeros(8, dtype=torch.long))).softmax(1)[0, 0].item()
    assert probability == pytest.approx(9 / 10)  # the rule of succession


@pytest.mark.parametrize(
    ("logits", "labels", "temperature"),
    [
        ([[1.0, 1.0], [-4.0, -4.0]], [0, 1], 1.0),  # nothing to go by
        ([[5.0, 0.0]] * 6, [1] * 6, 100.0),  # always wrong: as little sure as can be
        ([[1e8, 0.0]] * 6, [0] * 6, 100.0),
        ([[1e-8, 0.0]] * 6, [0] * 6, 0.01),
    ],
)
def test_extremes_stay_within_the_range(logits, labels, temperature):
    assert fit_temperature(torch.tensor(logits), torch.tensor(labels)) == pytest.approx(temperature, rel=1e-9)


def test_a_run_answers_with_its_temperature_and_keeps_its_ranking(untrained_run):
    run, network = untrained_run
    photos = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (80, 90, 3), np.uint8)) for n in range(4)]
    plain = load_classifier(run)
    assert plain.temperature == 1
    calibration.write(run.path, 0.05)
    try:
        warm = load_classifier(run)
    finally:
        (run.path / calibration.FILE).unlink()
    assert warm.temperature == 0.05
    images = plain.transform.batch(photos)
    torch.testing.assert_close(warm.answer(images), plain.answer(images) / 0.05)
    x = plain.prepare(photos)
    with torch.inference_mode():  # the mirror images are averaged in before
        mean = (network(x) + network(x.flip(3))) / 2
    for cold, hot, row in zip(plain(photos), warm(photos), (mean / 0.05).softmax(1).tolist(), strict=True):
        assert list(hot.probabilities.values()) == pytest.approx(row, abs=1e-4)
        ranks = [sorted(p.probabilities, key=p.probabilities.get) for p in (cold, hot)]
        assert ranks[0] == ranks[1] and max(hot.probabilities.values()) > max(cold.probabilities.values())
    assert torch.equal(replace(warm, temperature=1.0).answer(images), plain.answer(images))


def test_the_file_can_be_read_back(tmp_path):
    assert calibration.read(tmp_path) == Calibration(1.0, None)
    calibration.write(tmp_path, 0.7)
    assert calibration.read(tmp_path) == Calibration(0.7, None)
    method = {"method": "neighbours", "threshold": -0.25}
    calibration.write(tmp_path, 1.5, method)
    assert calibration.read(tmp_path) == Calibration(1.5, method)
    assert json.loads((tmp_path / "calibration.json").read_text()) == {"temperature": 1.5, "familiarity": method}
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{}", '{"temperature": 0}', '{"temperature": -1}', '{"temperature": NaN}', '{"temperature": Infinity}',
     '{"temperature": "warm"}', '{"temperature": null}', '{"temperature": true}', f'{{"temperature": 1{"0" * 400}}}',
     '{"temperature": 1, "familiarity": 3}', "\udcff"],
)  # fmt: skip
def test_a_damaged_file_is_told_in_a_sentence(text, tmp_path):
    (tmp_path / "calibration.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(RunError) as caught:
        calibration.read(tmp_path)
    told = f"The calibration.json of {tmp_path.name} cannot be read; restore the file or delete it."
    assert str(caught.value) == told
