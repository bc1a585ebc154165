"""Sweeps: what they try, which trials end early, what they say together, and how they stop and go on."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet import data, doodles, runs, series, sweep
from alexnet.__main__ import main
from alexnet.recipes import Recipe, RecipeError
from alexnet.runs import Reporter, Run, RunError, Status, Stopped
from alexnet.sweep import Span, Sweep, make_plan

SMALL = Recipe(name="small", image_size=67, resize=67, val_fraction=0.25, epochs=1, hidden="64 64")

needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


@pytest.fixture
def pets(photo_folder) -> str:
    names = {"cat": 0, "dog": 100}
    return str(photo_folder({f"{name}/{n}.png": first + n for name, first in names.items() for n in range(12)}))


@pytest.fixture
def make(pets) -> Callable[..., Sweep]:
    """Makes a sweep over the given values, on made-up photos."""

    def make(search: str = "grid", trials: int | None = None, pruning: bool = True, recipe=SMALL, **vary: str) -> Sweep:
        plan = make_plan(recipe, vary, search, trials, pruning)
        return sweep.create(recipe, plan, pets, data.load(pets))

    return make


def finish(run: Run, *accuracies: float) -> int:
    """Stands in for the trainer: the run ends after epochs of these validation accuracies; by default of one, 0.5."""
    reporter = Reporter(run, Status(state="running", epochs=run.recipe.epochs))
    for epoch, accuracy in enumerate(accuracies or (0.5,), 1):
        reporter.record(epoch=epoch, step=epoch, split="val", accuracy=accuracy, loss=1.0, seconds=2.0 * epoch)
    best = max(accuracies or (0.5,))
    epoch = list(accuracies or (0.5,)).index(best) + 1
    reporter.say(state="finished", message="", best={"epoch": epoch, "accuracy": best, "loss": 1.0})
    return 0


def noting(trained: list[str], work: Callable[[Run], int] = finish) -> Callable[[Run], int]:
    """`work`, with the names of the trials that it is given."""

    def call(run: Run) -> int:
        trained.append(run.path.name)
        return work(run)

    return call


def values_of(made: Sweep) -> list[dict]:
    return [made.values_of(run) for run in made.made()]


# ----------------------------------------------------------------------------------------------------- what is tried


def test_a_grid_is_all_combinations_in_order(make):
    made = make(dropout="0.2, 0.5", optimizer="sgd,adam", seed="3..5")
    assert made.count == 12
    assert series.train(made, finish) is not None
    combinations = itertools.product((0.2, 0.5), ("sgd", "adam"), (3, 4, 5))
    assert values_of(made) == [{"dropout": d, "optimizer": o, "seed": s} for d, o, s in combinations]
    assert made.run(8).recipe == SMALL.replace(dropout=0.5, optimizer="sgd", seed=4)


def test_values_are_read_as_those_of_their_setting():
    values = make_plan(
        Recipe(), {"flip": "true,no", "epochs": "1,5..7", "hidden": "64 32, 8", "start_from": ",cats-dogs"}
    ).vary
    assert values == {
        "flip": (True, False), "epochs": (1, 5, 6, 7), "hidden": ("64 32", "8"), "start_from": ("", "cats-dogs")
    }  # fmt: skip
    assert make_plan(Recipe(), {"lr": "1e-4..1e-1"}, "random").vary == {"lr": Span(1e-4, 0.1)}
    assert make_plan(Recipe(), {"epochs": "2..4,9"}, "random").vary == {"epochs": (2, 3, 4, 9)}


def drawn(trials: int, recipe: Recipe = SMALL, **vary: str) -> list[Recipe]:
    plan = make_plan(recipe, vary, "random", trials)
    made = Sweep(Path(), recipe, "", "", 0.0, plan)
    return [made.recipe_of(number) for number in range(1, trials + 1)]


def test_draws_follow_from_the_seed_and_the_first_are_the_same_in_a_longer_sweep():
    vary = {"lr": "1e-4..1e-1", "optimizer": "sgd,adam", "batch_size": "8..64"}
    assert drawn(5, **vary) == drawn(9, **vary)[:5]
    assert drawn(5, **vary) != drawn(5, SMALL.replace(seed=1), **vary)


def test_draws_are_all_different_and_can_be_all_there_are():
    recipes = drawn(6, optimizer="sgd,adam,adamw", seed="0..1")
    assert {(r.optimizer, r.seed) for r in recipes} == set(itertools.product(("sgd", "adam", "adamw"), (0, 1)))


def test_a_range_of_a_factor_of_ten_is_drawn_by_factors_and_a_narrower_one_evenly():
    wide = [recipe.lr for recipe in drawn(200, lr="0.001..0.1")]
    assert all(0.001 <= lr <= 0.1 and lr == float(f"{lr:.4g}") for lr in wide)
    assert 65 < sum(lr < 0.01 for lr in wide) < 135  # half of 200, and five deviations of a binomial are 35
    narrow = [recipe.lr for recipe in drawn(200, lr="0.011..0.1")]
    assert 65 < sum(lr < 0.0555 for lr in narrow) < 135
    whole = [recipe.epochs for recipe in drawn(9, epochs="1..9")]
    assert sorted(whole) == list(range(1, 10))


REFUSED = [
    ({}, {}, "vary: name a setting and the values to try, such as dropout=0.2,0.5."),
    ({"colour": "1,2"}, {}, "colour: there is no such setting to vary"),
    ({"folds": "2,3"}, {}, "folds: there is no such setting to vary"),
    ({"name": "a,b"}, {}, "name: there is no such setting to vary"),
    ({"dropout": "0.2"}, {}, "dropout: one value varies nothing"),
    ({"dropout": "0.2,0.20"}, {}, "dropout: 0.2 is listed twice"),
    ({"dropout": "0.2,many"}, {}, "dropout: 'many' is not a number."),
    ({"dropout": ""}, {}, "dropout: '' is not a number."),
    ({"dropout": "0.2,1.5"}, {}, "dropout: 1.5 is out of range"),
    ({"lr": "0.1..0.2"}, {}, "lr: '0.1..0.2' is a range to draw from; list single values, or search at random."),
    ({"lr": "0.2..0.1"}, {"search": "random"}, "lr: the range 0.2..0.1 is empty"),
    ({"lr": "0.1..20"}, {"search": "random"}, "lr: 20.0 is out of range"),
    ({"lr": "0.1..inf"}, {"search": "random"}, "lr: inf is out of range"),
    ({"epochs": f"1..{10**30}"}, {"search": "random"}, f"epochs: {10**30} is out of range"),
    ({"lr": "0.1.."}, {"search": "random"}, "lr: '' is not a number."),
    ({"seed": "nan..3"}, {}, "seed: 'nan' is not a whole number."),
    ({"mixup": "0,0.2", "cutmix": "0,1"}, {}, "cutmix: photos are either blended or cut"),
    ({"mixup": "0,0.2", "cutmix": "0,1"}, {"search": "random", "trials": 1}, "cutmix: photos are either"),
    ({"resize": "67..256", "image_size": "67..99"}, {"search": "random"}, "resize: 67 is smaller than image_size"),
    ({"seed": "0..1000000000"}, {}, "vary: these values make more than 1,000 combinations; list fewer"),
    ({"seed": "0..39", "epochs": "1..40"}, {}, "vary: these values make more than 1,000 combinations; list fewer"),
    ({"seed": "0..3"}, {"trials": 2}, "trials: a grid tries every combination"),
    ({"lr": "0.1..0.2"}, {"search": "random", "trials": 0}, "trials: 0 is out of range"),
    ({"lr": "0.1..0.2"}, {"search": "random", "trials": 1001}, "trials: 1,001 is out of range"),
    ({"seed": "0..3"}, {"search": "random", "trials": 5}, "trials: these values make 4 different combinations"),
    ({"lr": "0.1..0.2"}, {"search": "guess"}, "search: 'guess' is not one of grid, random, optuna."),
]


@pytest.mark.parametrize(("vary", "options", "sentence"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_tried_is_refused_and_named(vary, options, sentence):
    with pytest.raises(RecipeError) as caught:
        make_plan(Recipe(), vary, **options)
    assert str(caught.value).startswith(sentence) and str(caught.value).endswith(".")


def test_a_search_makes_as_many_trials_as_there_are_combinations():
    assert make_plan(Recipe(), {"seed": "0..3"}, "random").trials == 4
    assert make_plan(Recipe(), {"seed": "0..99"}, "random").trials == sweep.TRIALS


def test_what_the_photos_do_not_allow_is_refused_before_a_folder_is_made(make, pets, tmp_path):
    with pytest.raises(data.DataError, match="has 2 classes and max_classes asks for 3"):
        make(max_classes="2,3")
    with pytest.raises(RunError, match="There is no run 'nothing'"):
        make(start_from=",nothing")
    assert not runs.runs_dir().exists()
    plan = make_plan(SMALL, {"seed": "0,1"})
    sweep.create(SMALL, plan, pets, data.load(pets), tmp_path / "sweep")
    with pytest.raises(RunError, match="sweep holds a run already"):
        sweep.create(SMALL, plan, pets, data.load(pets), tmp_path / "sweep")


# ------------------------------------------------------------------------------------------------------------- Optuna


def by_hand(run: Run) -> int:
    """The better the nearer the dropout is to 0.3."""
    return finish(run, 1 - abs(run.recipe.dropout - 0.3))


@needs_optuna
def test_optuna_finds_what_is_better_than_chance(make):
    made = make("optuna", 24, dropout="0.0..0.9", optimizer="sgd,adam")
    report = series.train(made, by_hand)
    dropouts = [values["dropout"] for values in values_of(made)]
    assert len(dropouts) == 24 and all(0 <= dropout <= 0.9 for dropout in dropouts)
    assert statistics.fmean(abs(d - 0.3) for d in dropouts[12:]) < statistics.fmean(abs(d - 0.3) for d in dropouts[:8])
    assert report["trials"][0]["accuracy"] > 0.95


@needs_optuna
def test_optuna_goes_on_after_a_stop_as_if_there_had_been_none(make):
    vary = {"dropout": "0.0..0.9", "lr": "1e-4..1e-1", "epochs": "1..3", "flip": "true,false"}
    whole = make("optuna", 8, **vary)
    series.train(whole, by_hand)
    stopped = make("optuna", 8, **vary)

    def stop_after_five(run: Run) -> int:
        if run.path.name == "trial-5":
            stopped.request_stop()
        return by_hand(run)

    assert series.train(stopped, stop_after_five) is None and len(values_of(stopped)) == 5
    series.train(stopped, by_hand)
    assert values_of(stopped) == values_of(whole)


@needs_optuna
def test_optuna_tries_nothing_twice(make):
    made = make("optuna", dropout="0.1,0.2,0.3", optimizer="sgd,adam")
    series.train(made, by_hand)
    assert len({tuple(values.values()) for values in values_of(made)}) == made.count == 6


def test_without_optuna_the_other_searches_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"search: Optuna is not installed; install it \(pip install optuna\) or"):
        make_plan(Recipe(), {"seed": "0..3"}, "optuna")


# ------------------------------------------------------------------------------------------------------ hopeless trials

CURVES = {1: (0.5, 0.6, 0.7), 2: (0.4, 0.8, 0.7), 3: (0.3, 0.7, 0.9), 4: (0.9, 0.5)}  # trial -> accuracies


@pytest.fixture
def with_curves(make):
    def with_curves(**options) -> Sweep:
        made = make(**({"dropout": "0.1,0.2,0.3,0.4,0.5,0.6"} | options))
        dataset = data.load(made.data)
        for number in range(1, made.count + 1):
            run = runs.create(made.recipe_of(number), made.data, dataset, path=made.run(number).path)
            if number in CURVES:
                finish(run, *CURVES[number])
        return made

    return with_curves


def test_the_median_rule_by_hand(with_curves):
    made = with_curves()
    fifth = made.run(5)
    # After two epochs the others had reached 0.6, 0.8, 0.7 and 0.9, of which the median is 0.75.
    assert sweep.why_hopeless(fifth, 2, 0.7499) == (
        "after 2 epochs its best validation accuracy, 74.99%, was below 75.00%, the median of 4 earlier trials"
    )
    assert sweep.why_hopeless(fifth, 2, 0.75) == ""
    # After three 0.7, 0.8 and 0.9: the fourth trial had ended.
    assert "below 80.00%, the median of 3 earlier" in sweep.why_hopeless(fifth, 3, 0.79)
    assert sweep.why_hopeless(fifth, 3, 0.8) == ""
    assert sweep.why_hopeless(fifth, 4, 0.0) == ""  # nobody came that far
    assert sweep.why_hopeless(fifth, 1, 0.0) == ""  # the first epoch decides nothing
    # The first three trials stand against the fourth; of later ones, and of itself, it knows nothing.
    assert "below 70.00%, the median of 3 earlier" in sweep.why_hopeless(made.run(4), 2, 0.69)
    assert sweep.why_hopeless(made.run(3), 2, 0.0) == ""  # two are too few


@pytest.mark.parametrize(
    "options", [{"pruning": False}, {"dropout": "0.1,0.2,0.3", "epochs": "4,5"}], ids=["not wanted", "unlike epochs"]
)
def test_trials_that_are_not_to_be_compared_go_on(with_curves, options):
    assert sweep.why_hopeless(with_curves(**options).run(5), 2, 0.0) == ""


def test_seeds_are_all_trained_to_the_end(make):
    made = make(seed="0..5")
    dataset = data.load(made.data)
    for number, curve in CURVES.items():
        finish(runs.create(made.recipe_of(number), made.data, dataset, path=made.run(number).path), *curve)
    assert sweep.why_hopeless(made.run(5), 2, 0.0) == ""


def test_runs_of_no_sweep_and_of_a_damaged_one_go_on(with_curves, pets):
    made = with_curves()
    assert sweep.why_hopeless(runs.create(SMALL, pets, data.load(pets)), 2, 0.0) == ""
    (made.path / "sweep.json").write_text("{")
    assert sweep.why_hopeless(made.run(5), 2, 0.0) == ""


# ---------------------------------------------------------------------------------------------------------- together


def trial(number: int, accuracy: float | None, test: float | None = None, state: str = "finished", **values) -> dict:
    outcome = {"run": f"trial-{number}", "state": state, "message": "", "epoch": 1, "seconds": 1.0}
    return {**outcome, "accuracy": accuracy, "test_accuracy": test, "values": values}


def test_the_summary_by_hand():
    trials = [
        trial(1, 0.6, lr=0.1),
        trial(2, None, lr=0.2, state="failed"),
        trial(3, 0.9, lr=0.3),
        trial(4, 0.6, lr=4.0),
    ]
    summary = sweep.summarize(trials)
    assert summary["best"] == "trial-3" and "seeds" not in summary
    assert [t["run"] for t in summary["trials"]] == ["trial-3", "trial-1", "trial-4", "trial-2"]


def test_over_seeds_mean_and_deviation_by_hand():
    trials = [trial(1, 0.6, 0.5, seed=0), trial(2, 0.8, 0.7, seed=1), trial(3, 0.7, None, seed=2)]
    trials.append(trial(4, 0.1, None, "failed", seed=3))
    seeds = sweep.summarize(trials)["seeds"]
    assert seeds["accuracy"] == {"mean": pytest.approx(0.7), "deviation": pytest.approx(0.1)}
    assert seeds["test_accuracy"] == {"mean": pytest.approx(0.6), "deviation": pytest.approx(0.1 * math.sqrt(2))}
    assert sweep.summarize(trials[:1])["seeds"] == {}


def test_the_report_tells_values_epoch_test_accuracy_and_seconds(make):
    made = make(dropout="0.1,0.2")

    def work(run: Run) -> int:
        runs.write_json(run.path / "report.json", {"split": "test", "accuracy": 0.25})
        return finish(run, 0.5, 0.5 + run.recipe.dropout, 0.4)

    report = series.train(made, work)
    assert json.loads((made.path / "report.json").read_text()) == report
    assert report["best"] == "trial-2"
    assert report["trials"][0] == {
        "run": "trial-2", "state": "finished", "message": "", "accuracy": 0.7, "epoch": 2, "test_accuracy": 0.25,
        "seconds": 6.0, "values": {"dropout": 0.2},
    }  # fmt: skip


def test_the_accuracy_on_validation_photos_is_none_on_test_photos(make):
    made = make(dropout="0.1,0.2")
    report = series.train(
        made, lambda run: runs.write_json(run.path / "report.json", {"split": "val", "accuracy": 1.0}) or finish(run)
    )
    assert [t["test_accuracy"] for t in report["trials"]] == [None, None]


# ----------------------------------------------------------------------------------------------------- stop and go on


def stop_in(run: Run) -> int:
    """Stands in for a trainer that looks for a wish to stop after its first step."""
    with pytest.raises(Stopped):
        Reporter(run, Status(state="running")).check_stop()
    runs.write_status(run.path, Status(state="stopped"))
    return 0


def test_a_stop_between_trials_keeps_what_is_there_and_goes_on_later(make):
    made = make(dropout="0.1,0.2,0.3")

    def stop_after_two(run: Run) -> int:
        if run.path.name == "trial-2":
            made.request_stop()
        return finish(run)

    trained: list[str] = []
    assert series.train(made, noting(trained, stop_after_two)) is None
    assert trained == ["trial-1", "trial-2"] and made.status().state == "stopped"
    assert not (made.path / "stop").exists() and not (made.path / "report.json").exists()
    assert len(series.train(made, noting(trained))["trials"]) == 3
    assert trained == ["trial-1", "trial-2", "trial-3"]


@pytest.mark.parametrize("place", [".", "trial-2"])
def test_a_stop_within_a_trial_from_either_folder(make, place):
    made = make(dropout="0.1,0.2,0.3")

    def stop_in_two(run: Run) -> int:
        if run.path.name != "trial-2":
            return finish(run)
        (made.path / place / "stop").touch()
        return stop_in(run)

    trained: list[str] = []
    assert series.train(made, noting(trained, stop_in_two)) is None
    assert trained == ["trial-1", "trial-2"] and made.run(2).status().state == "stopped"
    made.run(2).request_stop()  # left over from a second click
    assert series.train(made, noting(trained)) is not None
    assert trained == ["trial-1", "trial-2", "trial-2", "trial-3"]


def test_a_trial_that_fails_is_a_result_and_is_tried_again_when_resumed(make):
    made = make(dropout="0.1,0.2,0.3")

    def fail_in_two(run: Run) -> int:
        if run.path.name != "trial-2":
            return finish(run)
        runs.write_status(run.path, Status(state="failed", message="The loss was no longer a number."))
        return 1

    trained: list[str] = []
    report = series.train(made, noting(trained, fail_in_two))
    assert trained == ["trial-1", "trial-2", "trial-3"]
    assert report["trials"][-1]["run"] == "trial-2" and report["trials"][-1]["message"].startswith("The loss was")
    series.train(made, noting(trained))
    assert trained[3:] == ["trial-2"]


def test_where_all_trials_fail_the_sweep_does(make):
    def fail(run: Run) -> int:
        runs.write_status(run.path, Status(state="failed", message="The disk is full."))
        return 1

    made = make(dropout="0.1,0.2")
    with pytest.raises(RunError, match=r"^No trial came to a result; the last one says: The disk is full.$"):
        series.train(made, fail)
    assert made.status().state == "failed" and made.status().message.startswith("No trial came to a result")


def test_a_trial_whose_trainer_vanished_ends_the_sweep(make):
    made = make(dropout="0.1,0.2")
    with pytest.raises(RunError, match="Trial 1 did not finish; see to that and go on with: .* sweep --resume --run"):
        series.train(made, lambda run: runs.write_status(run.path, Status(state="running")) or 1)


def test_a_sweep_has_one_process_at_a_time_and_its_status_says_how_far_that_is(make, monkeypatch):
    monkeypatch.setattr(series.worker, "LOCK_SECONDS", 0.1)
    made = make(dropout="0.1,0.2")
    seen: list[Status] = []

    def look(run: Run) -> int:
        seen.append(made.status())
        with pytest.raises(RunError, match="is training already, in another process"):
            series.train(made, finish)
        with pytest.raises(RunError, match="is training already"):
            made.resume()
        return finish(run)

    series.train(made, look)
    assert [(s.state, s.live, s.message, s.step, s.steps) for s in seen] == [
        ("running", True, "Trial 1 of 2.", 0, 2),
        ("running", True, "Trial 2 of 2.", 1, 2),
    ]
    assert made.status().state == "finished" and made.status().step == 2


def test_photos_that_changed_are_refused(make, pets):
    made = make(dropout="0.1,0.2")
    (Path(pets) / "cat" / "0.png").unlink()
    with pytest.raises(data.DataError, match="photos has changed since this sweep was made; start a new sweep."):
        series.train(made, finish)


# -------------------------------------------------------------------------------------------------------- run folders


def test_trials_are_runs_with_names_of_their_own_and_their_folder_is_none(make, pets):
    made = make(dropout="0.1,0.2")
    single = runs.create(SMALL, pets, data.load(pets))
    series.train(made, finish)
    names = {run.id for run in runs.list_runs() if not run.shipped}
    assert names == {f"{made.id}/trial-1", f"{made.id}/trial-2", single.id}
    assert {run.id for run in runs.list_runs(members=False) if not run.shipped} == {single.id}
    assert runs.series_folders() == [("sweep.json", made.path)]
    assert runs.find(f"{made.id}/trial-2") == made.run(2) and runs.damaged_runs() == []
    with pytest.raises(RunError, match=f"{made.id} is a sweep; give one of its runs, such as {made.id}/trial-1"):
        runs.find(made.id)


def test_a_sweep_is_found_by_name_and_by_folder_as_it_was_made(make):
    made = make("random", 3, False, lr="1e-4..1e-1", epochs="2..9", flip="true,false", hidden="64 32,8")
    assert series.find(Sweep, Path(made.id)) == series.find(Sweep, made.path) == made
    assert made.plan.vary["lr"] == Span(1e-4, 0.1) and made.plan.vary["epochs"] == Span(2, 9)
    assert series.find(Sweep, made.run(1).path) is None


DAMAGE = [
    {"vary": {}}, {"vary": {"colour": [1, 2]}}, {"vary": {"lr": 5}}, {"vary": {"lr": {"low": 1}}}, {"vary": {"lr": []}},
    {"vary": {"lr": [{}, 1.0]}},
    {"vary": {"lr": {"low": "1", "high": 2}}}, {"vary": []}, {"search": "guess"}, {"trials": 0}, {"trials": 3}, {"trials": "2"},
    {"pruning": 1}, {"recipe": {"lr": "x"}}, {"data": 5}, {"created": None},
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=str)
def test_a_damaged_sweep_json_is_a_sentence(make, damage):
    made = make(lr="0.1,0.2")
    file = made.path / "sweep.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(RunError, match="The sweep.json of .* cannot be read; restore the file or start a new sweep."):
        series.find(Sweep, made.path)


# --------------------------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def drawings(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("photos") / "pets"
    doodles.write(folder, per_class=8)
    return str(folder)


TINY = Recipe(
    name="tiny", image_size=67, resize=67, epochs=1, batch_size=8, lr=0.01, val_fraction=0.3, ema=0.0, hidden="8",
    maps="4 4 4 4 4", device="cpu", compile="off",
)  # fmt: skip
COMMAND = [
    f"--{name.replace('_', '-')}={value}"
    for name, value in TINY.to_dict().items()
    if name != "name" and value != getattr(Recipe(), name)
]


def test_a_sweep_from_the_command_line_and_what_it_says_when_resumed(drawings, tmp_path, capsys):
    place = tmp_path / "sweep"
    command = ["sweep", "--data", drawings, *COMMAND, "--vary", "dropout=0.2,0.5", "--run", str(place)]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads((place / "report.json").read_text())
    table = lines[lines.index("sweep: 2 of 2 trials, the best first") + 1 :]
    assert table[0].split() == ["trial", "dropout", "validation", "epoch", "test", "seconds", "state"]
    for line, row in zip(table[1:], report["trials"], strict=True):
        own = runs.find(place / row["run"])
        assert row["accuracy"] == max(r["accuracy"] for r in own.metrics() if r["split"] == "val")
        assert row["test_accuracy"] == own.report()["accuracy"]
        cells = [row["run"], f"{own.recipe.dropout:g}", f"{row['accuracy']:.2%}", "1", f"{row['test_accuracy']:.2%}"]
        assert line.split()[:5] == cells and line.endswith("finished")

    times = [(place / f"trial-{n}/report.json").stat().st_mtime_ns for n in (1, 2)]
    shutil.rmtree(place / "report.json", ignore_errors=True)
    assert main(["sweep", "--resume", "--run", str(place), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {"run": "sweep", "state": "finished", **report}
    assert [(place / f"trial-{n}/report.json").stat().st_mtime_ns for n in (1, 2)] == times

    assert main([*command, "--resume", "--lr=0.5"]) == 2
    assert "lr: the run was made with 0.01, not 0.5" in capsys.readouterr().err
    assert main([*command[:-4], "--vary", "dropout=0.2,0.6", "--run", str(place), "--resume"]) == 2
    assert "vary: the sweep was made with other values" in capsys.readouterr().err
    assert main(command) == 1
    assert "sweep holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        ([], 2, "vary: name a setting and the values to try"),
        (["--vary", "dropout"], 2, "--vary dropout: write a setting and its values, such as dropout=0.2,0.5."),
        (["--vary", "colour=1,2"], 2, "colour: there is no such setting"),
        (["--vary", "dropout=0.2,7"], 2, "dropout: 7.0 is out of range"),
        (["--vary", "weight-decay=0,5"], 2, "weight_decay: 5.0 is out of range"),
        (["--vary", "lr=1,2", "--vary", "lr=3,4"], 2, "lr is varied twice; give all its values at once."),
        (["--vary", "lr=1,2", "--lr", "3"], 2, "lr is varied and set; leave one of the two out."),
        (["--vary", "seed=0..3", "--trials", "2"], 2, "trials: a grid tries every combination"),
        (["--resume"], 2, "Give --run, the folder of the sweep to resume."),
        (["--resume", "--run", "nowhere"], 1, "There is no sweep 'nowhere'; give the folder of one."),
    ],
)
def test_mistakes_get_one_sentence(drawings, capsys, arguments, status, sentence):
    photos = [] if "nowhere" in arguments else ["--data", drawings]
    assert main(["sweep", *photos, *arguments]) == status
    assert sentence in capsys.readouterr().err
    assert not runs.runs_dir().exists()


def test_a_hopeless_trial_ends_early_and_is_finished(drawings, tmp_path, capsys):
    place = tmp_path / "sweep"
    dataset, recipe = data.load(drawings), TINY.replace(epochs=3, test_fraction=0.0)
    made = sweep.create(recipe, make_plan(recipe, {"lr": "0.1,0.2,0.3,0.01"}), drawings, dataset, place)
    for number in (1, 2, 3):
        finish(runs.create(made.recipe_of(number), drawings, dataset, path=made.run(number).path), 0.9, 1.1, 1.2)
    capsys.readouterr()
    assert main(["sweep", "--resume", "--run", str(place), "--json"]) == 0
    last = json.loads(capsys.readouterr().out)["trials"][-1]
    assert last["run"] == "trial-4" and last["state"] == "finished" and last["accuracy"] <= 1
    assert last["message"].startswith("Ended early: after 2 epochs its best validation accuracy, ")
    ended = made.run(4)
    assert ended.has_weights and ended.report()["accuracy"] == last["accuracy"]
    assert max(record["epoch"] for record in ended.metrics()) == 2 and not (ended.path / "checkpoint.pt").exists()


def test_torchrun_is_left_to_the_trials(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert main(["sweep", "--data", "doodles", "--vary", "seed=0,1"]) == 2
    assert "leave torchrun out and set --processes" in capsys.readouterr().err
