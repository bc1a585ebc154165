"""The Architecture page without a browser: links, photos good and bad, units, and what it says when it cannot."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from torch import nn

from alexnet import doodles, runs
from alexnet.recipes import Recipe

PARTS = ["A photo inside", "Layers", "Filters", "Try a layer", "Since 2012"]


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """The page sees only the runs that a test makes, and remembers no other test."""
    st.cache_data.clear()
    st.cache_resource.clear()
    monkeypatch.setattr(runs, "weights_dir", lambda: tmp_path / "weights")


@pytest.fixture
def trained(untrained_run):
    """A run that sees 67 px and has random weights; its photos are nowhere."""
    return make_run("untrained", untrained_run[0].weights)


@pytest.fixture
def empty_file(tmp_path) -> Path:
    (tmp_path / "empty").touch()
    return tmp_path / "empty"


def make_run(name: str, weights: Path, folder: str = "nowhere", fingerprint: str = "") -> runs.Run:
    dataset = {"name": "nothing", "fingerprint": fingerprint, "photos": 0}
    recipe = Recipe(name="small", image_size=67, resize=70, hidden="64 64")
    config = runs.configuration(recipe, ("cat", "dog"), folder, dataset)
    run = runs.Run(runs.make_folder(runs.runs_dir() / name, name, "run.json", config))
    run.weights.symlink_to(weights)
    return run


def page(**query: str) -> AppTest:
    """The app, opened on the Architecture page at an address with `query`."""
    app = AppTest.from_file("../app.py", default_timeout=120)
    app.switch_page("pages/architecture.py")
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


def said(app: AppTest) -> str:
    """All that is written on the page, as it reads."""
    parts = [element.value for kind in ("markdown", "caption", "html", "info") for element in app.get(kind)]
    return "\n".join(parts).replace("\\", "")


def component(app: AppTest, name: str) -> dict | str:
    """What a component of the page was given."""
    (found,) = [c.proto for c in app.get("bidi_component") if c.proto.component_name == name]
    return json.loads(found.json)


def shown(app: AppTest) -> list[int]:
    return [tile["number"] for tile in component(app, "sheet")["tiles"]]


def test_without_a_run_it_says_so_and_leads_to_train():
    app = page()
    assert "No network is trained yet" in app.info[0].value
    assert app.get("page_link")[0].proto.page == "train"


def test_title_and_choices_are_there_before_torch(empty_file):
    make_run("empty", empty_file)
    script = (
        "import sys, streamlit as st; from streamlit.testing.v1 import AppTest\n"
        "spinner, loaded = st.spinner, []\n"
        "def noting(text):\n"
        "    loaded.extend(name for name in ('torch', 'captum', 'torchvision', 'wandb') if name in sys.modules)\n"
        "    return spinner(text)\n"
        "st.spinner = noting\n"
        "app = AppTest.from_file('app.py', default_timeout=120)\n"
        "app.query_params['run'] = 'empty'\n"
        "app.switch_page('pages/architecture.py').run()\n"
        "assert not app.exception and app.title[0].value == 'Architecture' and app.selectbox(key='opened')\n"
        "print(loaded, [name for name in ('torch', 'captum', 'torchvision', 'wandb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=runs.PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] ['torch']"


def test_it_opens_with_a_drawing_in_the_first_layer_and_its_strongest_map(trained):
    app = page()
    assert app.selectbox(key="layer").value == "conv1"
    sheet = component(app, "sheet")
    assert len(sheet["tiles"]) == 48 and sheet["chosen"] == shown(app)[0]
    assert f"conv1, map {sheet['chosen']}, row " in said(app)
    assert not app.error and not app.warning
    assert "layer" not in app.query_params


def test_a_link_brings_back_run_layer_unit_place_and_photo(trained, untrained_run):
    make_run("zz-other", untrained_run[0].weights)
    app = page(run="untrained", layer="conv2", unit="200", place="0-6", photo="dog-12")
    assert app.selectbox(key="opened").value.id == "untrained" and app.selectbox(key="layer").value == "conv2"
    assert component(app, "sheet")["chosen"] == 200 in shown(app)
    assert "conv2, map 200, row 0, column 6: " in said(app)
    assert component(app, "places")["place"] == [0, 6]
    assert app.query_params["photo"] == "dog-12"
    # By hand: the last of seven places, 8 px apart, sees 51 px from 6 x 8 - 16 on, and the first 51 from -16 on.
    assert "35 × 35 px: columns 32 to 66, rows 0 to 34. The photo's border cuts it off: it would be 51 px." in said(app)


def test_what_is_clicked_goes_into_the_address(trained):
    app = page(layer="conv1", unit="3", place="1-1")
    app.selectbox(key="layer").set_value("relu3").run()
    assert app.query_params["layer"] == "relu3" and not {"unit", "place"} & set(app.query_params)
    app.button(key="cat-7").click().run()
    assert app.query_params["photo"] == "cat-7" and not app.exception


@pytest.mark.parametrize(
    "query",
    [
        {"unit": "96"},
        {"unit": "-1"},
        {"unit": "x"},
        {"place": "99-0"},
        {"place": "a-b-c"},
        {"layer": "drop6"},
        {"layer": "?"},
    ],
)
def test_an_address_that_means_nothing_is_like_none(trained, query):
    assert said(page(**query)) == said(page())


def test_an_unknown_run_and_an_unknown_photo_are_told(trained):
    assert page(run="nothing").warning[0].value == "There is no run called nothing with weights here."
    app = page(photo="../../run.json")
    assert "do not include ../../run.json" in app.warning[0].value.replace("\\", "")
    assert said(app) == said(page())


def test_maps_are_sorted_as_asked_and_come_in_pages(trained):
    app = page(layer="relu5")
    app.button_group(key="sorting-3").set_value("number").run()
    assert shown(app) == list(range(48))
    app.get("pagination")[0].set_value(6).run()
    assert shown(app) == list(range(240, 256)) and not app.exception


@pytest.mark.parametrize("layer", ["conv1", "conv4", "fc6", "fc8"])
def test_the_arithmetic_adds_up_to_the_networks_own_number(trained, layer):
    app = page(layer=layer)
    assert ":material/check: The network itself put out " in said(app) and not app.warning


def test_a_layer_that_adds_nothing_up_says_whose_numbers_it_takes(trained):
    app = page(layer="norm1", unit="3", place="2-5")
    assert "norm1 adds nothing up: it takes the numbers of relu1." in said(app)
    next(button for button in app.button if button.label == "The arithmetic of relu1").click().run()
    next(button for button in app.button if button.label == "The arithmetic of conv1").click().run()
    assert "conv1, map 3, row 2, column 5: " in said(app) and "The network itself put out" in said(app)


def test_the_units_of_the_last_layer_bear_the_names_of_the_classes(trained):
    app = page(layer="fc8")
    assert sorted(tile["label"] for tile in component(app, "sheet")["tiles"]) == ["cat", "dog"]


def test_a_photo_that_cannot_be_used_is_one_sentence(trained):
    app = page()
    app.file_uploader(key="photo-0").set_value([("notes.jpg", b"Dear diary", "image/jpeg")]).run()
    assert not app.exception and "notes.jpg: The file is not a picture" in app.error[0].value.replace("\\", "")
    assert component(app, "sheet") == component(page(), "sheet")


def test_an_upload_is_followed_until_a_drawing_is_chosen(trained, tmp_path):
    app = page(photo="dog-12", layer="conv1", unit="0")
    before = component(app, "sheet")["picture"]
    doodles.draw("cat", 33).save(tmp_path / "mine.png")
    app.file_uploader(key="photo-0").set_value([("mine.png", (tmp_path / "mine.png").read_bytes(), "image/png")]).run()
    assert not app.exception and component(app, "sheet")["picture"] != before
    app.button(key="dog-12").click().run()
    assert component(app, "sheet")["picture"] == before


def test_weights_that_vanish_and_damaged_ones_are_one_sentence(trained, empty_file):
    app = page()
    trained.weights.unlink()
    app.run()
    assert "No network is trained yet" in app.info[0].value and not app.exception
    make_run("damaged", empty_file)
    assert "damaged" in page().error[0].value


def test_the_table_of_layers_has_what_was_counted_by_hand(trained):
    app = page(part="Layers")
    table = app.dataframe[0].value.set_index("Layer")
    # At 67 px conv1 has 15 x 15 places; conv2 looks at 7 x 7.
    assert table.loc["conv1", "Multiply-adds"] == 15 * 15 * 96 * 11 * 11 * 3
    assert table.loc["conv2", "Multiply-adds"] == 7 * 7 * 256 * 5 * 5 * 96
    assert table.loc["conv2", "A unit sees"] == "51 px, 8 apart" and table.loc["fc6", "A unit sees"] == "all"
    # 3,747,200 in the convolutions, 2,752 in batch norm, and 64 x 9,217, 64 x 65 and 2 x 65 in fc6 to fc8.
    assert app.metric[0].value == f"{table['Parameters'].sum():,}" == "4,344,130"
    assert app.metric[1].value == f"{table['Multiply-adds'].sum():,}"


def test_all_filters_are_shown_and_one_scale_changes_their_picture(trained):
    app = page(part="Filters")
    sheet = component(app, "sheet")
    assert len(sheet["tiles"]) == 96
    app.toggle(key="filter-scale").set_value(False).run()
    assert component(app, "sheet")["picture"] != sheet["picture"]


def test_filters_become_colours_by_hand():
    from ui.architecture_maps import filter_colours

    kernels = np.zeros((2, 3, 1, 1), np.float32)
    kernels[0, :, 0, 0], kernels[1, :, 0, 0] = (1, -1, 0), (0.5, 0.25, 0)
    assert filter_colours(kernels, shared=True)[:, 0, 0].tolist() == [[255, 1, 128], [192, 160, 128]]
    assert filter_colours(kernels, shared=False)[:, 0, 0].tolist() == [[255, 1, 128], [255, 192, 128]]


def test_what_changed_since_2012_is_listed_and_nothing_else(trained):
    app = page(part="Since 2012")
    layers, recipe = (table.value.set_index(table.value.columns[0]) for table in app.table)
    assert list(layers.loc["conv4"]) == [
        "convolution: 384 kernels of 3 × 3 × 192, padding 1, groups 2".replace(":", "\\:"),
        "convolution: 384 kernels of 3 × 3 × 384, padding 1".replace(":", "\\:"),
    ]
    assert "conv1" not in layers.index and "conv3" not in layers.index
    assert list(recipe.loc["PCA colour"]) == ["0.1", "0"] and list(recipe.loc["Image size"]) == ["227 px", "67 px"]
    assert "Momentum" not in recipe.index


@pytest.mark.parametrize("demo", ["Convolution", "Local response norm", "Pooling", "Dropout"])
def test_every_demonstration_opens(trained, demo):
    app = page(part="Try a layer")
    app.button_group(key="demo").set_value(demo).run()
    assert not app.exception and not app.error


def test_the_geometry_of_a_convolution_follows_the_sliders(trained):
    app = page(part="Try a layer")
    for key, value in (("try-input", 10), ("try-kernel", 4), ("try-stride", 3), ("try-padding", 2)):
        app.slider(key=key).set_value(value).run()
    assert component(app, "geometry") == {"size": 10, "kernel": 4, "stride": 3, "padding": 2, "out": 4}
    assert app.latex[0].value.count("+ 1 = 4 ") == 1
    app.slider(key="try-input").set_value(1).run()
    app.slider(key="try-kernel").set_value(11).run()
    assert "larger than the input" in app.warning[0].value and not app.exception


@pytest.mark.parametrize("typed", ["one two", "", "1e9", "nan", " ".join(["1"] * 17)])
def test_numbers_that_cannot_be_normalised_are_told(trained, typed):
    app = page(part="Try a layer")
    app.button_group(key="demo").set_value("Local response norm").run()
    app.text_input(key="try-activations").set_value(typed).run()
    assert not app.exception and "Write up to 16 numbers" in app.error[0].value


def test_a_network_without_convolutions_shows_what_applies(trained, monkeypatch):
    from alexnet import predict
    from alexnet.augment import EvalTransform

    class Perceptron(nn.Module):
        def __init__(self):
            super().__init__()
            layers = {"fc1": nn.Linear(3 * 67 * 67, 12), "act1": nn.Sigmoid(), "fc2": nn.Linear(12, 2)}
            self.classifier = nn.Sequential(OrderedDict(layers))

        def forward(self, x):
            return self.classifier(x.flatten(1))

        def layers(self):
            return [("flatten", nn.Flatten()), *self.classifier.named_children()]

    import torch

    network = Perceptron().eval().requires_grad_(False)
    classifier = predict.Classifier(trained, ("cat", "dog"), EvalTransform(70, 67), False, network, torch.device("cpu"))
    monkeypatch.setattr(predict, "load_classifier", lambda run: classifier)
    app = page()
    assert app.selectbox(key="layer").options == ["fc1 (fully connected)", "act1 (sigmoid)", "fc2 (fully connected)"]
    assert ":material/check: The network itself put out " in said(app)
    for part in PARTS[1:]:
        app = page(part=part)
        assert not app.error
    assert "no convolution" in page(part="Filters").info[0].value


def test_the_strongest_training_photos_are_found_once_they_are_asked_for(untrained_run, photo_folder):
    folder = photo_folder([f"{label}/{number}.png" for label in ("cat", "dog") for number in range(12)])
    make_run("pets", untrained_run[0].weights, folder=str(folder))
    app = page(layer="relu5")
    assert "<figure" not in said(app)
    next(button for button in app.button if button.label.startswith("Look through")).click().run()
    assert not app.exception
    captions = re.findall(r"([a-z]+ [\d.]+)</figure>", said(app))
    assert len(captions) == 9 and {caption.split()[0] for caption in captions} <= {"cat", "dog"}
    values = [float(caption.split()[1]) for caption in captions]
    assert values == sorted(values, reverse=True)
    assert "The folder has changed since then." in said(app)


def test_the_runs_own_photos_can_be_followed_and_are_in_the_link(untrained_run, photo_folder):
    folder = photo_folder([f"{label}/{number}.png" for label in ("cat", "dog") for number in range(12)])
    make_run("pets", untrained_run[0].weights, folder=str(folder))
    app = page()
    next(button for button in app.button if button.label == "The run's own photos").click().run()
    offered = [button.key for button in app.button if button.key and button.key.endswith(".png")]
    assert offered and not app.exception
    app.button(key=offered[0]).click().run()
    assert app.query_params["photo"] == offered[0] and not app.warning
    again = page(photo=offered[0])
    assert (
        component(again, "sheet")["picture"]
        == component(app, "sheet")["picture"]
        != component(page(), "sheet")["picture"]
    )


def test_a_photo_is_led_through_the_network_once(trained, monkeypatch):
    from alexnet import anatomy

    calls, activations = [], anatomy.activations
    monkeypatch.setattr(anatomy, "activations", lambda *args: calls.append(1) or activations(*args))
    app = page()
    app.selectbox(key="layer").set_value("conv3").run()
    page(unit="5")
    assert len(calls) == 1
    app.button(key="cat-7").click().run()
    assert len(calls) == 2


def test_the_drawing_has_every_layer_to_choose(trained):
    drawing = component(page(layer="norm2"), "network_drawing")
    for name in ("conv1", "relu1", "norm1", "pool1", "conv5", "pool5", "avgpool", "fc6", "relu7", "fc8"):
        assert drawing.count(f"data-layer='{name}'") == 1
    assert "data-layer='drop6'" not in drawing and "data-layer='flatten'" not in drawing
    assert "data-layer='norm2' role='button' tabindex='0' aria-label='norm2' aria-pressed='true'" in drawing
    assert drawing.count("aria-pressed='true'") == 1
