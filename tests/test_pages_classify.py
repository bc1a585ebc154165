"""The Classify page without a browser: photos good and bad, every saliency method, and what it says when it cannot."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import ui
from alexnet import doodles, runs, saliency
from alexnet.data import Dataset, Report
from alexnet.recipes import Recipe
from ui.networks import spare_from_collection

TITLES = {method.title: method for method in saliency.METHODS.values()}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """The page sees only the runs that a test makes, and remembers no other test."""
    st.cache_data.clear()
    monkeypatch.setattr(runs, "weights_dir", lambda: tmp_path / "weights")


@pytest.fixture
def trained(untrained_run):
    """A run that sees 67 px and has random weights."""
    return make_run("untrained", weights=untrained_run[0].weights)


def make_run(name: str, classes: tuple[str, ...] = ("cat", "dog"), weights: Path | None = None) -> runs.Run:
    dataset = Dataset("nothing", Path("nothing"), classes, (), Report(0, 0, (), {}))
    run = runs.create(
        Recipe(name="small", image_size=67, resize=70, hidden="64 64"), "nothing", dataset, path=runs.runs_dir() / name
    )
    if weights:
        run.weights.symlink_to(weights)
    return run


def save_weights(run: runs.Run, state: dict) -> None:
    from alexnet import weights

    weights.save(run.weights, state)


def png(label: str, seed: int) -> tuple[str, bytes, str]:
    """A drawing as an upload, under a name that Markdown would take for emphasis."""
    file = io.BytesIO()
    doodles.draw(label, seed, 80).save(file, "PNG")
    return f"_{label}_{seed}_.png", file.getvalue(), "image/png"


def page(*photos: tuple[str, bytes, str], **query: str) -> AppTest:
    """The app, opened on the Classify page at an address with `query`, with `photos` uploaded."""
    app = AppTest.from_file("../app.py", default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    if photos:
        app.file_uploader(key="photos").set_value(list(photos)).run()
    assert not app.exception
    return app


def captions(app: AppTest) -> list[str]:
    """The captions of all pictures, as they read."""
    return [caption.replace("\\", "") for image in app.get("image") for caption in image.captions if caption]


def verdicts(app: AppTest) -> list[str]:
    """The HTML of label and bars of each photo."""
    return [element.value for element in app.get("html") if "tabular-nums" in element.value]


def charts(app: AppTest) -> list[dict]:
    """The figures on the page, as Plotly in the browser gets them."""
    return [json.loads(c.proto.json) for c in app.get("bidi_component") if c.proto.component_name == "chart"]


def headline(verdict: str) -> str:
    return verdict.split("</div>")[0].split(">")[-1]


@pytest.fixture
def say(monkeypatch):
    """Makes the network find the next photos this familiar; below 0.05 it abstains."""
    from alexnet.predict import Classifier

    answers, classify = iter(()), Classifier.__call__

    def judged(classifier, photos):
        share = next(answers)
        return [
            replace(p, label=None if share < 0.05 else p.best, familiarity=share) for p in classify(classifier, photos)
        ]

    def expect(*shares: float) -> None:
        nonlocal answers
        answers = iter(shares)
        monkeypatch.setattr(Classifier, "__call__", judged)

    return expect


def test_without_a_run_it_says_so_and_leads_to_train():
    app = page()
    assert "No network is trained yet" in app.info[0].value
    assert app.get("page_link")[0].proto.page == "train"
    assert not app.get("file_uploader")


def test_only_runs_with_weights_can_be_chosen_and_a_shipped_one_comes_first(trained):
    make_run("unfinished")
    shipped = runs.weights_dir() / "shipped"
    shipped.mkdir(parents=True)
    for name in ("run.json", "weights.safetensors"):
        (shipped / name).symlink_to(trained.path / name)
    assert page().selectbox(key="run").options == ["shipped", "untrained"]


def test_the_uploader_is_there_before_torch():
    make_run("empty").weights.touch()
    script = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        "app = AppTest.from_file('app.py', default_timeout=60).run()\n"
        "assert not app.exception and app.file_uploader and len(app.button) == 6, app\n"
        "print([name for name in ('torch', 'captum', 'torchvision', 'wandb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=runs.PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_photo_gets_label_bars_crop_and_map(trained):
    app = page(png("cat", 1))
    (verdict,) = verdicts(app)
    assert "cat</span>" in verdict and "dog</span>" in verdict and verdict.count("width:") == 2
    assert captions(app) == ["_cat_1_.png", "Given to the network: 67 × 67 px", f"Evidence for {headline(verdict)}"]
    assert "familiar" not in verdict  # of a run that cannot tell


def test_a_photo_of_something_else_is_called_neither_with_its_reason_and_still_gets_a_map(trained, say):
    say(0.004)
    app = page(png("cat", 1))
    (verdict,) = verdicts(app)
    assert headline(verdict) == "Neither a cat nor a dog"
    assert "less familiar than 99.6% of the photos" in verdict and "the probabilities mean little" in verdict
    shares = {
        name: float(verdict.split(f">{name}</span>")[1].split("%</span>")[0].split(">")[-1]) for name in ("cat", "dog")
    }
    assert sum(shares.values()) == pytest.approx(100, abs=0.11)
    assert captions(app)[2] == f"Evidence for {max(shares, key=shares.get)}"


def test_a_familiar_photo_is_called_what_it_is_and_says_how_familiar_it_is(trained, say):
    say(0.63)
    (verdict,) = verdicts(page(png("cat", 1)))
    assert headline(verdict) in ("cat", "dog")
    assert "more familiar than 63% of the validation photos" in verdict and "mean little" not in verdict


def test_of_many_photos_those_of_neither_are_counted_too(trained, say):
    say(0.001, 0.5, 0.002)
    app = page(png("cat", 1), png("cat", 2), png("cat", 3))
    assert [headline(v) for v in verdicts(app)].count("Neither a cat nor a dog") == 2
    assert any(m.value.startswith("neither a cat nor a dog: **2**, ") for m in app.markdown)


def test_what_a_run_learns_about_itself_later_changes_its_answers(trained):
    from alexnet import calibration

    app = page(png("cat", 1))
    before = verdicts(app)
    calibration.write(trained.path, temperature=1e-9)
    os.utime(trained.path / calibration.FILE, (2e9, 2e9))
    app.run()
    assert "100.0%" in verdicts(app)[0] != before[0]


def test_the_model_card_is_read_when_it_is_asked_for(trained, monkeypatch):
    from alexnet import card

    made, markdown = [], card.markdown
    monkeypatch.setattr(card, "markdown", lambda run: made.append(run.id) or markdown(run))
    app = page()
    assert made == []
    next(b for b in app.button if b.label == "About this network").click().run()
    assert made == ["untrained"] and not app.exception
    assert "Model card" in app.markdown[0].value and not charts(app)


def test_the_model_card_has_the_reliability_plot_of_a_measured_run(trained):
    bins = [{"count": 9, "confidence": 0.9, "accuracy": 8 / 9, "interval": [0.5, 0.98]}]
    runs.write_json(trained.path / "report.json", {"ece": 0.01, "risk_at_90": 0.0, "reliability": bins, "split": "val"})
    app = page()
    next(b for b in app.button if b.label == "About this network").click().run()
    (chart,) = charts(app)
    measured = next(trace for trace in chart["data"] if trace["name"] == "Measured")
    assert measured["y"] == [pytest.approx(8 / 9, abs=1e-4)]


def test_a_model_card_that_cannot_be_made_is_one_sentence(trained):
    app = page()
    (trained.path / "calibration.json").write_text("not a calibration")
    next(b for b in app.button if b.label == "About this network").click().run()
    assert not app.exception and "calibration.json of untrained cannot be read" in app.error[0].value


def test_a_bad_photo_gets_one_sentence_and_the_others_go_on(trained):
    app = page(
        png("cat", 1), ("notes.jpg", b"Dear diary", "image/jpeg"), ("empty.png", b"", "image/png"), png("dog", 2)
    )
    assert len(verdicts(app)) == 2
    messages = [error.value.replace("\\", "") for error in app.error]
    assert [message.split(":")[0] for message in messages] == ["notes.jpg", "empty.png"]
    assert "The file is not a picture" in messages[0] and "The file is empty" in messages[1]
    assert [caption.value for caption in app.caption if "\\_cat\\_1\\_.png" in caption.value]


def test_an_example_is_classified_and_stays_in_the_address(trained):
    app = page()
    app.button(key="dog-12").click().run()
    assert app.query_params["example"] == "dog-12"
    assert len(verdicts(app)) == 1 and captions(app)[0] == "Drawing of a dog"
    again = page(example="dog-12")
    assert captions(again)[0] == "Drawing of a dog"
    assert not verdicts(page(example="no-such"))


def test_the_camera_gives_a_photo_like_any_other(trained):
    app = page()
    assert not app.get("camera_input")
    app.toggle[0].set_value(True).run()
    app.camera_input[0].set_value(("shot.jpg", png("cat", 3)[1], "image/jpeg")).run()
    assert not app.exception and len(verdicts(app)) == 1


@pytest.mark.parametrize("title", TITLES)
def test_every_method_can_be_reached_by_a_link_and_has_colours_of_its_own(trained, monkeypatch, title):
    asked = []
    ramp = np.linspace(-1, 1, 67 * 67, dtype=np.float32).reshape(67, 67)
    monkeypatch.setattr(saliency, "attribute", lambda *args: asked.append(args[2]) or ramp)
    app = page(png("cat", 1), method=title, run="untrained")
    method = TITLES[title]
    assert asked == [method.name] and captions(app)[2].startswith("Evidence for")
    assert app.selectbox(key=f"colors-{method.signed}").value == ("classes" if method.signed else "inferno")
    assert any(method.paper in caption.value and method.cost in caption.value for caption in app.caption)
    assert bool(method.warning) == any("1810.03292" in caption.value for caption in app.caption)


def test_the_target_class_can_be_chosen(trained):
    app = page(png("cat", 1), method="Saliency")
    for target in ("cat", "dog"):
        app.button_group(key="target").set_value(target).run()
        assert captions(app)[2] == f"Evidence for {target}"


def test_a_target_that_the_next_run_does_not_know_is_forgotten(trained):
    app = page(png("cat", 1), run="untrained", method="Saliency")
    app.button_group(key="target").set_value("dog").run()
    make_run("others", ("cow", "hen"), trained.weights)
    app.run()
    app.selectbox(key="run").set_value(runs.find("others")).run()
    assert not app.exception and captions(app)[2] in ("Evidence for cow", "Evidence for hen")


def test_without_a_method_there_is_no_map(trained):
    app = page(png("cat", 1))
    app.button_group(key="method").set_value([]).run()
    assert not app.exception and len(captions(app)) == 2 and len(verdicts(app)) == 1


def test_what_was_computed_is_not_computed_again(trained, monkeypatch):
    computed = []
    attribute = saliency.attribute
    monkeypatch.setattr(saliency, "attribute", lambda *args: computed.append(args[2:4]) or attribute(*args))
    app = page(png("cat", 40), png("dog", 41), method="Saliency")
    assert len(computed) == 2
    app.slider(key="opacity").set_value(30).run()
    app.toggle(key="shared").set_value(True).run()
    page(png("dog", 41), png("cat", 40), method="Saliency")
    assert len(computed) == 2
    app.button_group(key="target").set_value("dog").run()
    assert 2 <= len(computed) <= 4 and not app.exception


def test_one_scale_for_all_changes_only_the_weaker_map(trained):
    app = page(png("cat", 1), png("dog", 2), method="Saliency")
    own = [image.value for image in app.get("image")]
    app.toggle(key="shared").set_value(True).run()
    shared = [image.value for image in app.get("image")]
    assert sum(a != b for a, b in zip(own, shared, strict=True)) == 1


def test_several_methods_for_one_photo_are_a_grid_with_a_warning_where_one_misleads(trained):
    app = page(png("cat", 1), method=["Saliency", "Guided Backprop"], run="untrained")
    label = headline(verdicts(app)[0])
    assert captions(app)[2:] == [f"**Saliency**: Evidence for {label}", f"**Guided Backprop**: Evidence for {label}"]
    warnings = [caption.value for caption in app.caption if "⚠️" in caption.value]
    assert len(warnings) == 1 and warnings[0].startswith("⚠️ Guided Backprop: Shows the edges")
    app.button_group(key="method").set_value(["saliency"]).run()
    assert captions(app)[2:] == [f"Evidence for {label}"]


def test_several_methods_for_several_photos(trained):
    app = page(png("cat", 1), png("dog", 2), method=["Saliency", "Input x Gradient"])
    said = captions(app)
    assert len(said) == 4 and [c.split("**")[1] for c in said] == ["Saliency", "Input x Gradient"] * 2


def test_runs_are_compared_on_one_photo_and_one_that_lacks_the_class_says_so(trained):
    make_run("others", ("cow", "hen"), trained.weights)
    app = page(png("cat", 1), method="Saliency", run="untrained", compare="others")
    rows = [m.value for m in app.markdown if m.value.startswith("**")]
    assert rows[0].startswith("**untrained**: ") and rows[1].startswith(("**others**: cow", "**others**: hen"))
    assert captions(app)[2].startswith("Evidence for") and captions(app)[3] in ("Evidence for cow", "Evidence for hen")
    app.button_group(key="target").set_value("cat").run()
    assert captions(app)[2:] == ["Evidence for cat", "This run knows no class 'cat'; choose one of cow, hen."]
    app.selectbox(key="run").set_value(runs.find("others")).run()
    assert not app.exception and len(captions(app)) == 3 and app.multiselect(key="compare").options == ["untrained"]
    app.selectbox(key="run").set_value(runs.find("untrained")).run()
    app.multiselect(key="compare").set_value([]).run()
    assert captions(app)[2:] == ["Evidence for dog"]


def test_grad_cam_can_look_at_another_layer(trained, monkeypatch):
    asked, attribute = [], saliency.attribute
    monkeypatch.setattr(saliency, "attribute", lambda *args: asked.append(args[5]) or attribute(*args))
    app = page(png("cat", 60))
    for layer in ("conv3", "conv5"):
        app.button_group(key="gradcam-layer").set_value(layer).run()
    assert asked == [None, "conv3"] and not app.exception
    app.button_group(key="method").set_value(["saliency"]).run()
    assert asked == [None, "conv3", None]
    assert not [group for group in app.button_group if group.key == "gradcam-layer"]


def test_a_signed_map_can_be_seen_in_three_ways_and_three_layouts(trained, monkeypatch):
    attribution = np.full((67, 67), -1, np.float32)
    attribution[:9] = 2
    monkeypatch.setattr(saliency, "attribute", lambda *args: attribution)
    app = page(png("cat", 1), method="Occlusion")
    app.button_group(key="target").set_value("cat").run()
    pictures = {}
    for view, caption in (
        ("signed", "for cat and for dog"),
        ("absolute", "for or against cat"),
        ("positive", "for cat"),
    ):
        app.button_group(key="view").set_value(view).run()
        assert captions(app)[2] == f"Evidence {caption}"
        for layout in ("overlay", "alone", "mask"):
            app.button_group(key="layout").set_value(layout).run()
            pictures[view, layout] = str(app.get("image")[2].value)
        app.button_group(key="layout").set_value("overlay").run()
    assert len(set(pictures.values())) == 8  # a mask is the same by strength and for and against
    assert not app.exception


def test_only_what_speaks_against_the_class_is_no_evidence_for_it(trained, monkeypatch):
    monkeypatch.setattr(saliency, "attribute", lambda *args: np.full((67, 67), -1, np.float32))
    app = page(png("cat", 1), method="Occlusion")
    app.button_group(key="view").set_value("positive").run()
    assert captions(app)[2].startswith("Nothing found that speaks for")


def test_integrated_gradients_say_how_well_they_add_up(trained, monkeypatch):
    monkeypatch.setattr(saliency, "attribute", lambda *args: np.full((67, 67), 1.1 / 67**2, np.float32))
    monkeypatch.setattr(saliency, "completeness", lambda *args: saliency.Completeness(float(args[4].sum()), 1.0))
    app = page(png("cat", 1), method="Integrated Gradients")
    assert captions(app)[2].endswith("; sums to 1.100 of 1.000 logits (10.0% off)")


def test_a_network_that_looks_at_nothing_finds_nothing(untrained_run):
    state = {name: value.clone() for name, value in untrained_run[1].state_dict().items()}
    state["classifier.fc8.weight"].zero_()
    save_weights(make_run("constant"), state)
    app = page(png("cat", 1), method="Saliency")
    assert captions(app)[2].startswith("Nothing found that speaks for")


def test_an_open_page_does_not_keep_a_network_that_the_cache_has_dropped(trained):
    app = page(png("cat", 1), run="untrained", method="Saliency", trust="true", erase="true")
    network = weakref.ref(ui.classifier(*ui.edition(trained)).model)
    assert network() is not None and app.metric
    st.cache_resource.clear()
    gc.unfreeze()
    gc.collect()
    assert network() is None


def test_what_dies_after_it_was_spared_from_collection_is_not_spared_for_good():
    class Node:
        pass

    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    spare_from_collection()
    del node
    gc.collect()
    assert gone() is not None  # what a network's loading froze
    spare_from_collection()
    assert gone() is None


def test_weights_that_are_not_numbers_are_one_sentence(untrained_run):
    state = {name: value.clone() for name, value in untrained_run[1].state_dict().items()}
    state["classifier.fc8.weight"].fill_(float("nan"))
    save_weights(make_run("diverged"), state)
    app = page(png("cat", 1), method="Saliency")
    assert "hold values that are not numbers" in app.error[0].value and not verdicts(app)


def test_an_unknown_run_in_the_address_is_told(trained):
    app = page(run="nothing")
    assert app.warning[0].value == "There is no run called nothing with weights here."


def test_damaged_weights_are_one_sentence(trained):
    make_run("zz-damaged").weights.write_bytes(b"not weights")
    app = page(png("cat", 1), run="zz-damaged")
    assert "damaged" in app.error[0].value and not verdicts(app)


def test_of_many_classes_the_likeliest_are_shown(untrained_run, say):
    from alexnet import model

    say(0.001)
    classes = tuple(f"<b>{i}</b>" for i in range(9))
    run = make_run("many", classes)
    save_weights(run, model.from_recipe(run.recipe, len(classes)).state_dict())
    (verdict,) = verdicts(page(png("cat", 1)))
    shares = [float(part.split("%")[0].split(">")[-1]) for part in verdict.split("tabular-nums'")[1:]]
    assert len(shares) == 5 and shares == sorted(shares, reverse=True)
    assert "&lt;b&gt;" in verdict and "<b>" not in verdict
    assert headline(verdict) == "None of the 9 classes"


def test_who_waits_for_the_network_is_told_how_many_are_ahead(trained):
    edition, told = ui.edition(trained), Future()
    network = ui.classifier(*edition)

    def tell(ahead: int) -> None:
        if not told.done():
            told.set_result(ahead)

    with ThreadPoolExecutor(1) as pool:
        with network.lock:
            waiting = pool.submit(ui.answer, png("cat", 77)[1], edition, network, tell)
            assert told.result(60) == 1
        assert waiting.result(60)[1].probabilities


def test_the_page_says_how_many_are_ahead_and_no_more_once_nobody_is():
    shown: list[str] = []
    place = SimpleNamespace(caption=shown.append, empty=shown.clear)
    with ui.queue_on_demand(place) as queue:
        queue(3)
        assert shown == ["In line for the network: 3 ahead of you"]
    assert shown == []


writes: list[str] | None = None


def watch_writes(event: str, args: tuple) -> None:
    """An audit hook that notes the files opened to be written, while `writes` is a list."""
    if writes is not None and event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        writes.append(str(args[0]))


def test_an_upload_is_never_written_to_disk(trained):
    global writes
    page(png("cat", 1))  # whatever Python and its packages keep on disk, they have kept now
    sys.addaudithook(watch_writes)
    writes = []
    try:
        page(png("dog", 50))
        assert writes == []
        Path("/dev/null").write_text("seen")
        assert writes == ["/dev/null"]
    finally:
        writes = None
