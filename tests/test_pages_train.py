"""The Train page without a browser: the form, its errors, and the view of a run in each of its states."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import fields

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import ui
from alexnet import data, runs, turns
from alexnet.recipes import RECIPES, Recipe
from alexnet.schedules import learning_rate

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


def open_settings(app, group):
    """Open More settings at a tab."""
    app.session_state["more"], app.session_state["group"] = True, group
    return app.run()


def setting_widgets(app):
    """The widgets of settings that are on the page, by the name of the setting."""
    widgets = [*app.number_input, *app.selectbox, *app.toggle, *app.text_input]
    return {w.key.removeprefix("first-run-"): w for w in widgets if w.key and w.key.startswith("first-run-")}


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
    app = open_settings(page(), "Optimisation")
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
    app = open_settings(page(folder=pets), "Data")
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
    app, helps = page(), {}
    for group in ("Optimisation", "Augmentation", "Model", "Data", "Hardware"):
        helps |= {name: widget.help for name, widget in setting_widgets(open_settings(app, group)).items()}
    about = {f.name for f in fields(Recipe) if f.metadata["group"] == "about"}
    depend = {"plateau_patience", "towers_apart", "processes", "activation", "test_on_rest"}
    assert helps.keys() == set(BASE.to_dict()) - about - depend
    assert all(helps.values())


def test_a_setting_that_depends_on_another_shows_beside_it_and_counts_only_then(pets, monkeypatch):
    monkeypatch.setattr(runs, "launch", lambda run: None)
    app = open_settings(page(folder=pets), "Optimisation")
    app.selectbox(key="first-run-schedule").set_value("plateau").run()
    app.number_input(key="first-run-plateau_patience").set_value(2).run()
    assert any("validation loss" in text for text in texts(app.caption))
    open_settings(app, "Model")
    app.selectbox(key="first-run-normalization").set_value("none")
    app.number_input(key="first-run-groups").set_value(2).run()
    assert "norm_place" not in setting_widgets(app)
    app.toggle(key="first-run-towers_apart").set_value(True).run()
    assert started(app).recipe == BASE.replace(
        schedule="plateau", plateau_patience=2, normalization="none", groups=2, towers_apart=True
    )
    app = page(folder=pets)
    for name, value in (("groups", 1), ("towers_apart", True), ("plateau_patience", 2)):
        app.session_state[f"first-run-{name}"] = value
    assert started(app.run()).recipe == BASE


def started(app):
    """The run that Start makes."""
    button(app, "Start").click().run()
    return runs.find(app.query_params["run"])


@pytest.mark.parametrize("name", RECIPES)
def test_the_form_of_each_recipe_is_that_recipe(name, pets, monkeypatch):
    monkeypatch.setattr(runs, "launch", lambda run: None)
    app, recipe = page(folder=pets), RECIPES[name]
    app.selectbox(key="recipe").set_value(name).run()
    assert app.number_input(key=f"{name}-lr").value == recipe.lr
    for group in ("Augmentation", "Model", "Data", "Optimisation"):
        assert not open_settings(app, group).exception
    assert recipe.source in texts(app.caption)
    if recipe.published:
        assert f"Published: {recipe.published}" in texts(app.caption)
    listed = "\n".join(f"- {line}" for line in recipe.deviations.splitlines())
    assert (listed in texts(app.markdown)) == bool(listed)
    needs = {"tiny-100": "max_per_class asks for 50", "imagenet": "given_splits"}
    if name in needs:
        assert len(app.error) == 1 and needs[name] in texts(app.error)[0]
    else:
        assert started(app).recipe == recipe


def test_what_a_network_does_not_have_is_not_asked_for(pets, monkeypatch):
    monkeypatch.setattr(runs, "launch", lambda run: None)
    app = open_settings(page(folder=pets), "Model")
    asked = setting_widgets(app).keys()
    app.selectbox(key="first-run-network").set_value("mlp").run()
    assert asked - setting_widgets(app).keys() >= {
        "normalization",
        "norm_place",
        "maps",
        "kernels",
        "groups",
        "avgpool",
    }
    assert setting_widgets(app).keys() - asked == {"activation"}
    app.selectbox(key="first-run-activation").set_value("tanh").run()
    assert not app.error
    assert started(app).recipe == BASE.replace(network="mlp", normalization="none", activation="tanh")


def test_settings_of_crops_and_subsets_show_where_they_mean_something():
    app = open_settings(page(), "Augmentation")
    app.selectbox(key="first-run-crop").set_value("patch").run()
    assert "crop_scale" not in setting_widgets(app)
    assert "test_on_rest" not in setting_widgets(open_settings(app, "Data"))
    app.number_input(key="first-run-max_per_class").set_value(5).run()
    assert "test_on_rest" in setting_widgets(app)
    app.number_input(key="first-run-resize").set_value(99).run()
    assert "five_crops" not in setting_widgets(app)
    app = open_settings(app, "Optimisation")
    app.selectbox(key="first-run-optimizer").set_value("adam").run()
    assert "nesterov" not in setting_widgets(app)


def test_gpus_are_offered_where_there_are_several(monkeypatch):
    monkeypatch.setattr(runs, "gpus", lambda: ["NVIDIA L4"])
    app = open_settings(page(), "Hardware")
    assert "processes" not in setting_widgets(app)
    monkeypatch.setattr(runs, "gpus", lambda: ["NVIDIA L4"] * 3)
    gpus = setting_widgets(app.run())["processes"]
    assert gpus.label == "GPUs" and gpus.options == ["1", "2", "3"] and gpus.value == 1
    gpus.set_value(2).run()
    monkeypatch.setattr(runs, "gpus", list)  # none, but it has been asked for
    assert setting_widgets(app.run())["processes"].value == 2


def test_a_run_starts_from_any_that_has_weights(home, pets, monkeypatch):
    monkeypatch.setattr(runs, "launch", lambda run: None)
    make_run(home, "without", pets)
    made = make_run(home, "with", pets)
    made.weights.write_bytes(b"")
    app = open_settings(page(folder=pets), "Optimisation")
    choice = app.selectbox(key="first-run-start_from")
    assert choice.options == ["Random weights", "with", *(run.id for run in runs.list_runs() if run.shipped)]
    choice.set_value("with").run()
    made.weights.unlink()  # meanwhile
    assert app.run().selectbox(key="first-run-start_from").value == "with"
    button(app, "Start").click().run()
    assert texts(app.error) == ["with has no weights to start from; let it finish an epoch first."]
    made.weights.write_bytes(b"")
    assert started(app).recipe == BASE.replace(start_from="with")


def test_start_makes_the_run_of_the_form_and_shows_it(pets, monkeypatch):
    launched = []
    monkeypatch.setattr(runs, "launch", launched.append)
    app = page(folder=pets)
    app.number_input(key="first-run-epochs").set_value(3)
    open_settings(app, "Hardware").selectbox(key="first-run-wandb").set_value("offline").run()
    open_settings(app, "Model")  # what is no longer on the page still counts
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


def test_a_finished_run_is_trained_on_from_its_weights(home, pets):
    run = make_run(home, "before", pets)
    assert button(page("before"), "Train on from it") is None  # it has no weights
    run.weights.write_bytes(b"")
    app = open_settings(page(), "Optimisation")  # its widgets have been on the page, and are not when it is filled
    app.session_state["more"] = False
    app.selectbox(key="picked").set_value("before").run()
    button(app, "Train on from it").click().run()
    assert app.text_input(key="folder").value == str(pets) and "run" not in app.query_params
    choice = open_settings(app, "Optimisation").selectbox(key="first-run-start_from")
    assert choice.value == "before" and choice.proto.set_value  # or the browser would go on showing what it had


def test_a_run_of_a_recipe_that_is_gone_fills_the_form_of_another(home, pets):
    run = runs.create(Recipe(name="gone", epochs=77), str(pets), data.load(str(pets)), path=home / "runs" / "old")
    runs.write_status(run.path, runs.Status(state="stopped"))
    app = page("old")
    button(app, "New run like this").click().run()
    assert app.number_input(key=f"{app.selectbox(key='recipe').value}-epochs").value == 77


@pytest.fixture
def take_a_turn(monkeypatch):
    """Starts a thread that waits for its turn on the CPU as a trainer does, and then holds it until it is stopped."""
    monkeypatch.setattr(turns, "POLL_SECONDS", 0.01)

    def hold(run):
        with runs.FileLock(run.path / "lock"), contextlib.suppress(runs.Stopped):
            reporter = runs.Reporter(run, runs.Status(state="starting"))
            with turns.take_turn(run, reporter, "cpu"):
                reporter.say(state="running", message="")
                while True:
                    reporter.check_stop()
                    time.sleep(0.01)

    threads = {}

    def start(run):
        threads[run] = threading.Thread(target=hold, args=[run])
        threads[run].start()
        while run.status().state not in ("queued", "running"):
            assert threads[run].is_alive()
            time.sleep(0.01)
        return threads[run]

    yield start
    for run, thread in threads.items():
        run.request_stop()
        thread.join()


def test_a_queued_run_says_what_is_ahead_and_can_be_cancelled(home, pets, take_a_turn):
    first, second, third = (make_run(home, name, pets) for name in ("first", "second", "third"))
    for run in (first, second):
        take_a_turn(run)
    waiting = take_a_turn(third)
    app = AppTest.from_file("../app.py", default_timeout=30).run()
    app.switch_page("pages/train.py").run()
    assert app.query_params["run"] == "first"  # what trains comes before what waits
    assert set(app.selectbox(key="picked").options) >= {"first (running)", "second (queued)", "third (queued)"}
    app.selectbox(key="picked").set_value("second").run()
    assert "Waiting for first to leave the cpu." in texts(app.markdown)
    assert not any("(running)" in text for text in texts(app.markdown))  # the message names all there is
    app.selectbox(key="picked").set_value("third").run()
    assert "Waiting behind second; 2 runs are ahead." in texts(app.markdown)
    assert "1. first (running)\n1. second (queued)" in texts(app.markdown)
    assert button(app, "Stop") is None
    button(app, "Cancel").click().run()
    waiting.join()
    assert button(app.run(), "Cancel") is None and first.status().live and second.status().live


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
