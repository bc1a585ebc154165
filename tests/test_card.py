"""The model card against files whose figures were worked out by hand."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields

import pytest

from alexnet import calibration, card, runs
from alexnet.__main__ import _parser
from alexnet.recipes import RECIPES, Recipe, parse_setting
from alexnet.runs import Run, RunError, Status

RECIPE = RECIPES["cats-dogs"].replace(epochs=3, lr=0.01, flip=False, val_pattern="*3.jpg", device="cpu")


def make(folder, recipe: Recipe = RECIPE, classes=("cat", "dog"), **more) -> Run:
    """A run folder with nothing but its run.json."""
    folder.mkdir()
    config = {"recipe": recipe.to_dict(), "classes": list(classes), "mean": runs.MEAN, "std": runs.STD}
    dataset = {"name": "pets", "fingerprint": "abc", "photos": 1234}
    runs.write_json(folder / "run.json", {**config, "data": "/home/somebody/pets", "dataset": dataset, **more})
    return Run(folder)


def record(epoch: int, split: str, accuracy: float, **more) -> str:
    values = {"epoch": epoch, "step": 10 * epoch, "split": split, "loss": 1 - accuracy, "accuracy": accuracy}
    return json.dumps({**values, "seconds": 40.0 * epoch, **more}) + "\n"


@pytest.fixture
def run(tmp_path) -> Run:
    """Three epochs, of which the second is the best, and a report of 100 photos."""
    made = make(tmp_path / "run", python="3.11.7", versions={"torch": "2.15.0"})
    lines = [record(1, "train", 0.2, partial=True), record(1, "train", 0.5), record(1, "val", 0.75)]
    lines += [record(2, "train", 0.6), record(2, "val", 0.875), record(3, "train", 0.7), record(3, "val", 0.5)]
    (made.path / "metrics.jsonl").write_text("".join(lines))
    best = {"epoch": 2, "accuracy": 0.875, "loss": 0.125}
    runs.write_status(made.path, Status(state="finished", best=best, device="CPU, bfloat16"))
    report = {
        "split": "val",
        "best_epoch": 2,
        "splits": {"train": {"cat": 500, "dog": 634}, "val": {"cat": 40, "dog": 60}, "test": {"cat": 0, "dog": 0}},
        "accuracy": 0.95,
        "loss": 0.25,
        "count": 100,
        "confusion": [[38, 2], [3, 57]],
        "ece": 0.0123,
        "risk_at_90": 0.0111,
        "reliability": [{"count": 100, "confidence": 0.96, "accuracy": 0.95}],
        "auroc_neither": 0.9123,
        "neither": {"count": 3_500, "skipped": 0},
    }
    runs.write_json(made.path / "report.json", report)
    calibration.write(made.path, 0.75, {"method": "energy", "threshold": -1.5})
    rows = [f"dog/{n}.jpg,dog,cat,{(80 + n) / 100},{(20 - n) / 100}\n" for n in range(12)]
    rows += ["dog/right.jpg,dog,dog,0.01,0.99\n", '"cat/a|b, `c`.jpg",cat,dog,0.005,0.995\n']
    (made.path / "predictions.csv").write_text("file,label,predicted,cat,dog\n" + "".join(rows))
    (made.path / "weights.safetensors").write_bytes(bytes(1_500_000))
    return made


def section(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n\n")[1].split("\n\n## ")[0].strip()


def test_figures_by_hand(run):
    text = card.markdown(run)
    assert text.startswith("# Model card: Cats and dogs\n")
    assert "trained from scratch, that sorts photos into the classes cat and dog" in text
    assert section(text, "Data").splitlines()[-4:] == [
        "| split | cat | dog | all |",
        "|---|---|---|---|",
        "| training | 500 | 634 | 1,134 |",
        "| validation | 40 | 60 | 100 |",
    ]
    # Wilson's interval: (0.95 + z²/200 ± z √(0.95 · 0.05 / 100 + z²/40000)) / (1 + z²/100), z = 1.96.
    assert "**95.0 %** of 100 validation photos" in text and "95 % interval 88.8 to 97.8 %" in text
    assert section(text, "Accuracy").splitlines()[-2:] == [
        "| cat | 38 | 2 | 95.0 % | 83.5 to 98.6 % |",
        "| dog | 3 | 57 | 95.0 % | 86.3 to 98.3 % |",
    ]
    assert "expect a little less on others" in text
    calibrated = section(text, "Calibration")
    assert "divided by 0.750" in calibrated and "**1.23 %**" in calibrated and "**1.11 %**" in calibrated
    assert calibrated.endswith("| 96.0 % | 95.0 % | 100 |")
    unfamiliar = section(text, "Photos of something else")
    assert "neither a cat nor a dog" in unfamiliar
    assert "`energy`" in unfamiliar and "-1.5" in unfamiliar and "3,500 photos of something else" in unfamiliar
    assert "AUROC of **0.912**" in unfamiliar
    assert section(text, "Size") == "`weights.safetensors`: 1.5 MB."


def test_the_training_curve_marks_the_best_epoch(run):
    training = section(card.markdown(run), "Training")
    assert training.startswith("3 epochs, 30 steps in 2 min on CPU, bfloat16.")
    assert training.splitlines()[-3:] == [
        "| 1 | 50.0 % | 75.0 % | 0.250 |",
        "| **2** | 60.0 % | 87.5 % | 0.125 |",
        "| 3 | 70.0 % | 50.0 % | 0.500 |",
    ]


def test_a_long_curve_is_thinned_and_keeps_the_first_the_best_and_the_last(run):
    (run.path / "metrics.jsonl").write_text("".join(record(n, "val", n / 1000) for n in range(1, 102)))
    runs.write_status(run.path, Status(state="finished", best={"epoch": 50, "accuracy": 0.05, "loss": 0.95}))
    rows = section(card.markdown(run), "Training").splitlines()[4:]
    epochs = [row.split(" | ")[0].strip("|* ") for row in rows]
    assert epochs == [str(n) for n in sorted({*range(1, 102, 6), 50, 101})]


def test_the_ten_surest_mistakes_come_first(run):
    rows = section(card.markdown(run), "Worst mistakes").splitlines()[4:]
    assert rows[0] == r"| `cat/a\|b, 'c'.jpg` | cat | dog | 99.5 % |"
    assert rows[1:] == [f"| `dog/{n}.jpg` | dog | cat | {80 + n}.0 % |" for n in range(11, 2, -1)]


def test_only_what_differs_from_the_defaults_and_the_main_settings_are_told(run):
    rows = section(card.markdown(run), "Recipe").splitlines()
    assert "| `flip` | no | yes |" in rows and "| `lr` | 0.01 | 0.02 |" in rows
    assert "| `val_pattern` | `*3.jpg` | none |" in rows and "| `optimizer` | `sgd` |  |" in rows
    assert not [row for row in rows if "brightness" in row or "device" in row]


@pytest.mark.parametrize(
    "recipe",
    [RECIPE, RECIPES["first-run"], Recipe(name="own", groups=2, dropout_by_layer="conv5=0.1 fc7=0.5", ema=0.0)],
)
def test_the_command_gives_the_recipe_again_and_no_place_on_this_machine(tmp_path, recipe):
    text = card.markdown(make(tmp_path / "run", recipe))
    command = next(line for line in text.splitlines() if line.startswith("python -m alexnet train"))
    options = _parser().parse_args(shlex.split(command)[3:])
    given = {name[4:]: value for name, value in vars(options).items() if name.startswith("set_") and value}
    again = RECIPES[options.recipe].replace(**{name: parse_setting(name, value) for name, value in given.items()})
    told = [f.name for f in fields(Recipe) if f.metadata["group"] not in ("about", "hardware")]
    assert {name: getattr(again, name) for name in told} == {name: getattr(recipe, name) for name in told}
    assert "somebody" not in text and options.data == "pets"


def test_what_files_do_not_tell_is_left_out(tmp_path):
    text = card.markdown(make(tmp_path / "run", classes=("ant", "bee", "<cow>")))
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# Model card: Cats and dogs", "## Data", "## Recipe", "## Known limits", "## Reproduce"]
    assert r"the classes ant, bee and \<cow\>, with" in text and "Breeds" not in text and "None" not in text


def test_compression_is_told_with_what_it_costs(run):
    report = run.report() | {"rank": 192, "mean_probability_change": 0.0042}
    runs.write_json(run.path / "report.json", report | {"uncompressed": {"bytes": 233_000_000, "accuracy": 0.9512}})
    size = section(card.markdown(run), "Size")
    assert "1.5 MB, of 233 MB" in size and "rank 192 in 8 bits" in size
    assert "was 95.12 %, now it is 95.00 %; on average the probabilities moved by 0.42 %" in size


def test_it_is_written_beside_the_run(run):
    card.write(run)
    assert (run.path / "card.md").read_text(encoding="utf-8") == card.markdown(run)
    assert not list(run.path.glob(".*"))


def test_a_folder_that_is_no_run_has_no_card(tmp_path):
    with pytest.raises(RunError, match="is not a run"):
        card.markdown(Run(tmp_path))
