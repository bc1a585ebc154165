"""Sweeps and cross-validations on the Train page, without a browser: the form, what it starts, and the view of it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

import ui
from alexnet import data, folds, runs, series, sweep
from alexnet.folds import CrossValidation
from alexnet.recipes import RECIPES
from alexnet.runs import Run, Status
from alexnet.sweep import Sweep

BASE = RECIPES["first-run"]


@pytest.fixture
def pets(photo_folder) -> str:
    names = {"cat": 0, "dog": 100}
    return str(photo_folder({f"{name}/{n}.png": first + n for name, first in names.items() for n in range(12)}))


@pytest.fixture
def launched(monkeypatch) -> list[tuple[runs.Job, list[str]]]:
    """What would have been started as a process, with the command; none is."""
    calls: list[tuple[runs.Job, list[str]]] = []
    monkeypatch.setattr(runs, "start", lambda job, command: calls.append((job, command)))
    return calls


def page(run: str = "new", folder: str = "") -> AppTest:
    app = AppTest.from_file("../app.py", default_timeout=60)
    app.session_state["dataset"], app.session_state["folder"] = ui.FOLDER, folder
    app.query_params["run"] = run
    app.switch_page("pages/train.py").run()
    assert not app.exception
    return app


def texts(elements) -> list[str]:
    return [element.value.replace("\\", "") for element in elements]


def button(app: AppTest, label: str):
    return next((b for b in app.button if b.label == label), None)


def charts(app: AppTest) -> list[dict]:
    return [json.loads(c.proto.json) for c in app.get("bidi_component") if c.proto.component_name == "chart"]


def try_values(app: AppTest, **vary: str) -> AppTest:
    """Fill the rows of the form."""
    app.radio(key="how").set_value("values").run()
    for row, (name, values) in enumerate(vary.items()):
        app.selectbox(key=f"vary-{row}").set_value(name)
        app.text_input(key=f"values-{row}").set_value(values).run()
    return app


def test_a_sweep_is_started_from_the_form(pets, launched):
    app = try_values(page(folder=pets), dropout="0.2, 0.5", optimizer="sgd,adam,adamw")
    assert "6 runs, one after the other." in texts(app.caption) and not app.error
    button(app, "Start").click().run()
    (job, command) = launched[0]
    made = series.find(Sweep, job.path)
    assert command[-4:] == ["sweep", "--resume", "--run", str(job.path)] and app.query_params["run"] == made.id
    assert made.recipe == BASE and made.data == pets and made.count == 6 and made.plan.pruning
    assert made.plan.vary == {"dropout": (0.2, 0.5), "optimizer": ("sgd", "adam", "adamw")}


def test_the_form_asks_row_by_row_and_says_what_cannot_be(pets):
    app = try_values(page(folder=pets))
    assert button(app, "Start") is None and not app.error
    assert "Choose a setting and write the values to try." in texts(app.caption)
    assert [s.key for s in app.selectbox if s.key.startswith("vary-")] == ["vary-0"]
    try_values(app, lr="0.1, 99")
    assert texts(app.error) == ["Learning rate: 99.0 is out of range; use a value from 1e-08 to 10.0."]
    assert button(app, "Start") is None and app.text_input(key="values-0").value == "0.1, 99"
    try_values(app, lr="0.1, 0.2", seed="1..3")
    assert [s.key for s in app.selectbox if s.key.startswith("vary-")] == ["vary-0", "vary-1", "vary-2"]
    assert not app.error and button(app, "Start")
    try_values(app, lr="0.1, 0.2", seed="1..3")
    app.selectbox(key="vary-1").set_value("lr").run()
    assert texts(app.error)[0].startswith("Learning rate: it is chosen twice")


def test_a_random_search_takes_ranges_and_a_number_of_trials(pets, launched):
    app = try_values(page(folder=pets), epochs="2, 3")
    app.selectbox(key="search").set_value("random").run()
    app.text_input(key="values-0").set_value("2..9")
    app.number_input(key="trials").set_value(4)
    app.toggle(key="pruning").set_value(False).run()
    button(app, "Start").click().run()
    plan = series.find(Sweep, launched[0][0].path).plan
    assert (plan.search, plan.trials, plan.pruning, plan.vary) == ("random", 4, False, {"epochs": sweep.Span(2, 9)})


def test_a_cross_validation_is_started_from_the_form(pets, launched):
    app = page(folder=pets)
    app.radio(key="how").set_value("folds").run()
    app.number_input(key="fold-count").set_value(13).run()
    assert "12 photos, too few for 13 folds" in texts(app.error)[0] and button(app, "Start") is None
    app.number_input(key="fold-count").set_value(3).run()
    button(app, "Start").click().run()
    (job, command) = launched[0]
    assert series.find(CrossValidation, job.path).recipe == BASE.replace(folds=3, fold=1)
    assert command[-4:] == ["train", "--resume", "--run", str(job.path)]


# ----------------------------------------------------------------------------------------------------------- the view


def finish(run: Run) -> int:
    """Stands in for the trainer: the more dropout the better, in two epochs."""
    accuracy = 0.5 + run.recipe.dropout / 2
    reporter = runs.Reporter(run, Status(state="running", epochs=2))
    for epoch in (1, 2):
        reporter.record(
            epoch=epoch, step=epoch, split="val", accuracy=accuracy - 0.2 + epoch / 10, loss=1.0, seconds=61.0
        )
    report = {"split": "test", "accuracy": 0.5, "loss": 1.0, "count": 4, "classes": ["cat", "dog"]}
    runs.write_json(run.path / "report.json", {**report, "confusion": [[1, 1], [1, 1]]})
    reporter.say(state="finished", message="", best={"epoch": 2, "accuracy": accuracy, "loss": 1.0})
    return 0


@pytest.fixture
def make(pets) -> Callable[..., Sweep]:
    def make(**vary: str) -> Sweep:
        return sweep.create(BASE, sweep.make_plan(BASE, vary), pets, data.load(pets))

    return make


def test_a_finished_sweep_shows_the_best_the_table_the_curves_and_the_way_to_each_trial(make):
    made = make(dropout="0.2,0.6,0.4", flip="true,false")
    series.train(made, finish)
    app = page(made.id)
    assert app.success and button(app, "Resume") is None
    assert {m.label: m.value for m in app.metric} == {"Best validation accuracy": "80.0%", "Best trial": "trial-3"}
    table = app.dataframe[0].value
    assert list(table["Trial"]) == [f"trial-{n}" for n in (3, 4, 5, 6, 1, 2)]
    assert list(table.columns) == [
        "Trial", "Best validation accuracy", "Dropout", "Flip", "Epoch", "Test accuracy", "Time", "State"
    ]  # fmt: skip
    assert dict(table.iloc[0]) == {
        "Trial": "trial-3", "Dropout": "0.6", "Flip": "true", "Best validation accuracy": 80, "Epoch": 2,
        "Test accuracy": 50, "Time": "1 min 1 s", "State": "finished",
    }  # fmt: skip
    curves, by_dropout, by_flip = charts(app)
    assert [trace["name"] for trace in curves["data"]][-1] == "trial-3" and len(curves["data"]) == 6
    assert by_dropout["data"][0]["x"] == [0.6, 0.6, 0.4, 0.4, 0.2, 0.2]
    assert by_flip["data"][0]["x"] == ["true", "false"] * 3
    app.selectbox(key=f"open-{made.id}").set_value("trial-5").run()
    assert app.query_params["run"] == f"{made.id}/trial-5" and not app.exception
    button(app, f"All of {made.id}").click().run()
    assert app.query_params["run"] == made.id and len(app.dataframe) == 1


def test_a_sweep_is_one_entry_of_the_picker_and_comes_first_while_it_trains(make):
    made = make(dropout="0.2,0.4")
    series.train(made, finish)
    runs.write_status(made.path, Status(state="running", message="Trial 2 of 2.", step=1, steps=2))
    with runs.FileLock(made.path / "lock"):
        app = AppTest.from_file("../app.py", default_timeout=60).run()
        app.switch_page("pages/train.py").run()
        assert app.session_state["shown"] == made.id
        assert app.selectbox(key="picked").options == ["New run", f"{made.id} (running)"]
        assert "Trial 2 of 2." in texts(app.markdown)
        button(app, "Stop").click().run()
        assert (made.path / "stop").exists() and button(app, "Stopping").disabled


def test_a_sweep_of_which_nothing_has_begun_says_so(make, launched):
    made = make(dropout="0.2,0.4")
    runs.write_status(made.path, Status(state="stopped", message="Stopped; it can be resumed."))
    app = page(made.id)
    assert "No trial has begun yet." in texts(app.caption) and not charts(app) and not app.dataframe
    button(app, "Resume").click().run()
    assert launched[0][0] == made


def test_a_trial_that_is_still_training_is_shown_as_far_as_it_is(make, pets):
    made = make(dropout="0.2,0.4")
    run = runs.create(made.recipe_of(1), pets, data.load(pets), path=made.run(1).path)
    runs.write_status(made.path, Status(state="running", message="Trial 1 of 2.", steps=2))
    runs.write_status(run.path, Status(state="running", epochs=2))
    with runs.FileLock(made.path / "lock"), runs.FileLock(run.path / "lock"):
        app = page(made.id)
        assert list(app.dataframe[0].value["State"]) == ["running"] and not charts(app)
        finish(run)
        runs.write_status(run.path, Status(state="running", best={"epoch": 1, "accuracy": 0.5, "loss": 1.0}))
        assert list(app.run().dataframe[0].value["Best validation accuracy"]) == [50] and len(charts(app)) == 2


def test_over_seeds_the_mean_and_its_deviation_are_shown(make):
    made = make(seed="0,1,2")
    series.train(made, finish)
    labels = {m.label: m.value for m in page(made.id).metric}
    assert labels["Validation accuracy, mean ± deviation"] == "60.0% ± 0.0%"
    assert labels["Test accuracy, mean ± deviation"] == "50.0% ± 0.0%"


def test_a_cross_validation_is_shown_as_a_whole(pets):
    made = folds.create(BASE.replace(folds=2, fold=1), pets, data.load(pets))
    series.train(made, finish)
    app = page(made.id)
    assert {m.label: m.value for m in app.metric}["Test accuracy, mean ± deviation"] == "50.0% ± 0.0%"
    assert list(app.dataframe[0].value["Fold"]) == ["fold-1", "fold-2"] and len(charts(app)) == 1


def test_a_sweep_whose_file_is_damaged_is_not_there_and_its_trials_are(make):
    made = make(dropout="0.2,0.4")
    series.train(made, finish)
    (made.path / "sweep.json").write_text("{")
    assert texts(page(made.id).warning) == [f"There is no run called {made.id} here."]
    assert not page(f"{made.id}/trial-1").warning
