"""The tests of a map and the eraser on the Classify page, without a browser: nothing before it is asked for, then all of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from alexnet import doodles, evidence, runs
from alexnet.data import Dataset, Report
from alexnet.recipes import Recipe


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """The page sees only the runs that a test makes, and remembers no other test."""
    st.cache_data.clear()
    monkeypatch.setattr(runs, "weights_dir", lambda: tmp_path / "weights")


@pytest.fixture
def trained(untrained_run):
    """A run that sees 67 px and has random weights."""
    return make_run("untrained").weights.symlink_to(untrained_run[0].weights)


@pytest.fixture
def asked(monkeypatch):
    """The methods that were tested so far."""
    methods, examine = [], evidence.examine
    monkeypatch.setattr(evidence, "examine", lambda *args: methods.append(args[3]) or examine(*args))
    return methods


def make_run(name: str, **settings: object) -> runs.Run:
    dataset = Dataset("nothing", Path("nothing"), ("cat", "dog"), (), Report(0, 0, (), {}))
    recipe = Recipe(name="small", image_size=67, resize=70, hidden="64 64", **settings)
    return runs.create(recipe, "nothing", dataset, path=runs.runs_dir() / name)


def page(**query: str) -> AppTest:
    """The Classify page at an address with `query`, with one drawing uploaded."""
    file = io.BytesIO()
    doodles.draw("cat", 1, 80).save(file, "PNG")
    app = AppTest.from_file("../app.py", default_timeout=120)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    app.file_uploader(key="photos").set_value([("cat.png", file.getvalue(), "image/png")]).run()
    assert not app.exception
    return app


def charts(app: AppTest) -> list[dict]:
    """The figures on the page, as Plotly in the browser gets them."""
    return [json.loads(c.proto.json) for c in app.get("bidi_component") if c.proto.component_name == "chart"]


def ask(app: AppTest) -> AppTest:
    next(button for button in app.button if button.label == "Test it").click().run()
    assert not app.exception
    return app


def test_nothing_is_tested_before_it_is_asked_for(trained, asked):
    assert not any(button.label == "Test it" for button in page(method="Saliency").button)
    app = page(method="Saliency", trust="true")
    assert asked == [] and not charts(app)
    assert any("sooner than in a random order" in caption.value for caption in app.caption)


def test_the_curves_the_stages_and_the_verdict(trained, asked):
    app = ask(page(method="Saliency", trust="true"))
    assert asked == ["saliency"]
    removed, arrived, weights = charts(app)
    steps = evidence.STEPS + 1
    for figure in (removed, arrived):
        assert [len(line["x"]) for line in figure["data"]] == [steps, steps]
        assert [line["name"] for line in figure["data"]] == ["In the map's order", "In random order"]
    assert removed["data"][0]["y"][0] == pytest.approx(arrived["data"][0]["y"][-1])
    assert weights["data"][0]["x"] == [f"fc{n}" for n in (8, 7, 6)] + [f"conv{n}" for n in (5, 4, 3, 2, 1)]
    (verdict,) = [box.value for box in (*app.success, *app.warning)]
    assert "against" in verdict and "rank correlation" in verdict
    area = evidence.area(removed["data"][0]["y"])
    assert any(f"area {area:.2f}" in caption.value for caption in app.caption)


def test_another_map_is_another_question_and_what_was_tested_is_kept(trained, asked):
    app = ask(page(method="Saliency", trust="true"))
    app.button_group(key="method").set_value(["gradcam"]).run()
    assert not charts(app) and asked == ["saliency"]
    ask(app)
    app.button_group(key="method").set_value(["saliency"]).run()
    assert len(charts(app)) == 3 and asked == ["saliency", "gradcam"]


def test_of_several_maps_one_is_chosen(trained, asked):
    app = page(method="Saliency", trust="true")
    app.button_group(key="method").set_value(["saliency", "gradcam"]).run()
    app.button_group(key="trusted").set_value("Saliency").run()
    ask(app)
    assert asked == ["saliency"]


def test_a_map_that_found_nothing_is_not_tested(untrained_run, asked):
    from alexnet import weights

    state = {name: value.clone() for name, value in untrained_run[1].state_dict().items()}
    state["classifier.fc8.weight"].zero_()
    weights.save(make_run("constant").weights, state)
    app = ask(page(method="Saliency", trust="true"))
    assert asked == [] and app.info[0].value == "Nothing was found, so there is nothing to test."


def test_the_eraser_starts_with_the_answer_on_the_whole_photo(trained):
    assert not page().metric
    app = page(erase="true")
    (verdict,) = [element.value for element in app.get("html") if "tabular-nums" in element.value]
    assert [metric.label for metric in app.metric] == ["cat", "dog"]
    assert all(f">{metric.value}<" in verdict and not metric.delta for metric in app.metric)
    (canvas,) = [c for c in app.get("bidi_component") if c.proto.component_name == "eraser"]
    assert json.loads(canvas.proto.json)["picture"].startswith("data:image/png;base64,")
    assert any("0% erased" in caption for image in app.get("image") for caption in image.captions)
    app.button_group(key="fill").set_value("blur").run()
    assert not app.exception


def test_of_a_network_that_looks_five_times_all_looks_are_erased_and_the_map_is_tested(untrained_run):
    make_run("five", five_crops=True).weights.symlink_to(untrained_run[0].weights)
    app = ask(page(method="Saliency", trust="true", erase="true"))
    (verdict,) = [element.value for element in app.get("html") if "tabular-nums" in element.value]
    assert all(f">{metric.value}<" in verdict and not metric.delta for metric in app.metric)
    assert len(charts(app)) == 3


def test_without_a_map_there_is_an_eraser_and_nothing_to_trust(trained):
    app = page(erase="true", trust="true")
    app.button_group(key="method").set_value([]).run()
    assert not app.exception and app.metric and not any(button.label == "Test it" for button in app.button)
