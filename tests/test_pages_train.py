"""The Train page without a browser: the form, its errors, and the view of a run in each of its states."""

from __future__ import annotations

import json
import os

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import ui
from alexnet import data, runs
from alexnet.recipes import RECIPES, learning_rate

BASE = RECIPES["first-run"]


@pytest.fixture
def home(_own_home):
    return runs.home()


@pytest.fixture
def pets(tmp_path):
    """Ten photos of each of two classes, one copy, one broken file and a link to a photo elsewhere."""
    folder = tmp_path / "my_pets"
    for label, tint in (("cat", 200), ("dog", 90)):
        (folder / label).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (80, 60), (tint, 10 * i, 40)).save(folder / label / f"{i}.png")
    (folder / "cat" / "copy.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    (folder / "dog" / "broken.jpg").write_bytes(b"not a photo")
    Image.new("RGB", (50, 50), "white").save(tmp_path / "elsewhere.png")
    os.symlink(tmp_path / "elsewhere.png", folder / "dog" / "link.png")
    return folder


def page(run="new", folder=""):
    """The app, opened on the Train page with the address's `run` and with a folder chosen for photos."""
    app = AppTest.from_file("../app.py", default_timeout=30)
    app.session_state["dataset"], app.session_state["folder"] = ui.FOLDER, str(folder)
    app.query_params["run"] = run
    app.switch_page("pages/train.py").run()
    assert not app.exception
    return app


def texts(elements):
    return [element.value.replace("\\", "") for element in elements]


def charts(app):
    """The figures on the page, as Plotly in the browser gets them."""
    return [json.loads(c.proto.json) for c in app.get("bidi_component") if c.proto.component_name == "chart"]


def button(app, label):
    return next((b for b in app.button if b.label == label), None)


def make_run(home, name, pets, state="finished", **status):
    run = runs.create(BASE, str(pets), data.load(str(pets)), path=home / "runs" / name)
    records = [
        {"epoch": e, "step": 10 * e, "split": s, "accuracy": 0.5 + e / 20, "loss": 1 / e}
        for e in range(1, 5)
        for s in ("train", "val")
    ]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + '{"epoch": 5, "st')
    best = {"epoch": 4, "accuracy": 0.7, "loss": 0.25}
    runs.write_status(
        run.path,
        runs.Status(**{"state": state, "epochs": 6, "steps": 60, "step": 40, "epoch": 4, "best": best} | status),
    )
    return run


def test_without_photos_there_is_a_form_and_nothing_to_start():
    app = page()
    assert app.selectbox(key="recipe").value == "first-run"
    assert app.number_input(key="first-run-lr").value == BASE.lr
    assert button(app, "Start") is None and not app.error


def test_photos_are_counted_by_class_and_what_is_left_out_has_a_reason(pets):
    app = page(folder=pets)
    assert {"**cat** &ensp;10", "**dog** &ensp;11"} <= set(texts(app.markdown))
    assert "23 files found, 21 used, 2 left out." in texts(app.caption)
    labels = [expander.label for expander in app.expander]
    assert any(label.startswith("Left out: ") and "duplicate" in label and "unreadable" in label for label in labels)
    assert sorted(app.dataframe[0].value["path"]) == ["cat/copy.png", "dog/broken.jpg"]
    assert button(app, "Start")


def test_look_again_sees_what_has_changed_in_the_folder(pets):
    app = page(folder=pets)
    Image.new("RGB", (40, 40), "navy").save(pets / "cat" / "new.png")
    assert "23 files found, 21 used, 2 left out." in texts(app.run().caption)
    button(app, "Look again").click().run()
    assert "24 files found, 22 used, 2 left out." in texts(app.caption)


def test_a_folder_that_cannot_be_used_is_one_sentence_and_stays_typed(tmp_path, pets):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one_class" / "cat").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "one_class" / "cat" / "a.png")
    app = page()
    for name, said in (("missing", "no folder"), ("empty", "empty"), ("one_class", "one class")):
        app.text_input(key="folder").set_value(str(tmp_path / name)).run()
        assert len(app.error) == 1 and said in texts(app.error)[0] and "Traceback" not in texts(app.error)[0]
        assert app.text_input(key="folder").value == str(tmp_path / name)
        assert button(app, "Start") is None
    app.text_input(key="folder").set_value(str(pets)).run()
    assert not app.error and button(app, "Start")


def test_photos_to_be_downloaded_are_offered(home):
    app = page()
    app.selectbox(key="dataset").set_value("oxford-pets").run()
    assert button(app, "Download") and button(app, "Start") is None
    assert any("MB from" in text for text in texts(app.caption))


def test_the_schedule_follows_the_form():
    app = page()
    app.number_input(key="first-run-lr").set_value(0.4)
    app.number_input(key="first-run-epochs").set_value(3)
    app.selectbox(key="first-run-schedule").set_value("step").run()
    recipe = BASE.replace(lr=0.4, epochs=3, schedule="step")
    (curve,) = charts(app)[0]["data"]
    assert curve["x"][-1] == 3 and max(curve["y"]) == 0.4
    assert curve["y"] == pytest.approx([learning_rate(recipe, i / 200) for i in range(201)], rel=1e-4)


def test_a_setting_that_cannot_work_is_one_sentence_and_stays_typed(pets):
    app = page(folder=pets)
    app.number_input(key="first-run-lr").set_value(99.0).run()
    assert len(app.error) == 1 and texts(app.error)[0].startswith("Learning rate: 99")
    assert app.number_input(key="first-run-lr").value == 99 and button(app, "Start") is None
    app.number_input(key="first-run-lr").set_value(0.01).run()
    assert not app.error and button(app, "Start")


def test_a_split_that_leaves_nothing_is_one_sentence(pets):
    app = page(folder=pets)
    app.text_input(key="first-run-val_pattern").set_value("*").run()
    assert len(app.error) == 1 and "train" in texts(app.error)[0] and button(app, "Start") is None


def test_each_recipe_keeps_its_own_changes_also_over_another_page():
    app = page()
    app.number_input(key="first-run-epochs").set_value(3).run()
    app.selectbox(key="recipe").set_value("cats-dogs").run()
    assert app.number_input(key="cats-dogs-epochs").value == RECIPES["cats-dogs"].epochs
    app.selectbox(key="recipe").set_value("first-run").run()
    assert app.number_input(key="first-run-epochs").value == 3
    app.switch_page("pages/classify.py").run()
    app.switch_page("pages/train.py").run()
    assert app.number_input(key="first-run-epochs").value == 3


def test_every_setting_has_a_widget_with_help():
    app = page()
    widgets = [*app.number_input, *app.selectbox, *app.toggle, *app.text_input]
    keys = {w.key: w.help for w in widgets if w.key and w.key.startswith("first-run-")}
    about = {"name", "title", "source"}
    assert keys.keys() == {f"first-run-{name}" for name in BASE.to_dict() if name not in about}
    assert all(keys.values())


def test_start_makes_the_run_of_the_form_and_shows_it(pets, monkeypatch):
    launched = []
    monkeypatch.setattr(runs, "launch", launched.append)
    app = page(folder=pets)
    app.number_input(key="first-run-epochs").set_value(3)
    app.selectbox(key="first-run-wandb").set_value("offline").run()
    button(app, "Start").click().run()
    (run,) = runs.list_runs()[:1]
    assert [r.id for r in launched] == [run.id] and app.query_params["run"] == run.id
    assert run.recipe == BASE.replace(epochs=3, wandb="offline")
    assert run.config["data"] == str(pets) and run.config["classes"] == ["cat", "dog"]


def test_a_run_that_is_not_there_is_said_so():
    app = page(run="20200101-000000-gone")
    assert texts(app.warning) == ["There is no run called 20200101-000000-gone here."]
    assert app.selectbox(key="recipe") and "run" not in app.query_params


def test_a_finished_run_leads_to_classify(home, pets):
    run = make_run(home, "done", pets)
    run.weights.write_bytes(b"")
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('\n{"epoch": 4, "step": 60, "split": "test", "accuracy": 0.654, "loss": 0.4}\n')
    app = page("done")
    numbers = {metric.label: metric.value for metric in app.metric}
    assert numbers["Best validation accuracy"] == "70.0%" and numbers["Test accuracy"] == "65.4%"
    assert app.success and button(app, "Classify photos with it") and button(app, "Resume") is None
    figure = charts(app)[0]
    assert next(t["x"] for t in figure["data"] if t["name"] == "Validation") == [1, 2, 3, 4]
    assert figure["layout"]["uirevision"] == "curves-done"


def test_a_failure_says_why_and_shows_the_log(home, pets):
    make_run(home, "broke", pets, "failed", message="The device ran out of memory; halve batch_size and start again.")
    (home / "runs" / "broke" / "log.txt").write_text("step 39\nout of memory\n")
    app = page("broke")
    assert texts(app.error) == ["The device ran out of memory; halve batch_size and start again."]
    assert app.code[0].value == "step 39\nout of memory"
    assert button(app, "Resume") and button(app, "Classify photos with it") is None


def test_a_trainer_that_vanished_can_be_resumed(home, pets):
    make_run(home, "gone", pets, "running")
    app = page("gone")
    assert len(app.error) == 1 and button(app, "Resume") and button(app, "Stop") is None


def test_a_new_run_like_this_fills_the_form(home, pets):
    run = make_run(home, "before", pets, "stopped")
    config = json.loads((run.path / "run.json").read_text())
    config["recipe"] |= {"epochs": 9, "lr": 0.25}
    (run.path / "run.json").write_text(json.dumps(config))
    app = page("before")
    button(app, "New run like this").click().run()
    assert app.number_input(key="first-run-epochs").value == 9 and app.number_input(key="first-run-lr").value == 0.25
    assert app.text_input(key="folder").value == str(pets) and "run" not in app.query_params


def test_a_live_run_comes_first_and_can_be_stopped(home, pets):
    make_run(home, "older", pets)
    run = make_run(
        home, "now", pets, "running", eta_seconds=75, images_per_s=41.6, memory_bytes=2 * 10**9, device="CPU"
    )
    with runs.FileLock(run.path / "lock"):
        app = AppTest.from_file("../app.py", default_timeout=30).run()
        app.switch_page("pages/train.py").run()
        assert app.query_params["run"] == "now"
        assert any(text.startswith("Epoch 4 of 6, step 40.") for text in texts(app.markdown))
        numbers = {metric.label: metric.value for metric in app.metric}
        assert numbers["Time left"] == "1 min 15 s" and numbers["Images per second"] == "42"
        assert numbers["Memory"] == "2.0 GB" and numbers["Device"] == "CPU"
        button(app, "Stop").click().run()
        assert (run.path / "stop").exists() and button(app, "Stopping").disabled


def test_the_picker_goes_to_a_run_and_back_to_the_form(home, pets):
    make_run(home, "first", pets)
    make_run(home, "second", pets, "stopped", message="Stopped; it can be resumed.")
    app = page(folder=pets)
    app.selectbox(key="picked").set_value("second").run()
    assert app.query_params["run"] == "second" and texts(app.info) == ["Stopped; it can be resumed."]
    app.selectbox(key="picked").set_value("first").run()
    assert app.query_params["run"] == "first" and app.success
    app.selectbox(key="picked").set_value("new").run()
    assert "run" not in app.query_params and button(app, "Start")
