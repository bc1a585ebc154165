"""`classify --saliency`: the files that a notebook or a paper takes up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from alexnet import doodles, maps, saliency
from alexnet.__main__ import main
from alexnet.images import open_photo
from alexnet.predict import load_classifier

pytestmark = pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks")

FAST = [name for name, method in saliency.METHODS.items() if not method.slow]


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "cat.png"
    doodles.draw("cat", 3).save(path)
    return path


@pytest.fixture
def explain(untrained_run, photo, tmp_path, capsys):
    """Runs the command on a doodle; returns its exit status, its answer on the photo, and what it says on the side."""

    def run(*arguments: str) -> tuple[int, dict, str]:
        where = ["--run", str(untrained_run[0].path), "--out", str(tmp_path / "maps")]
        status = main(["classify", str(photo), *where, "--json", *arguments])
        printed = capsys.readouterr()
        return status, json.loads(printed.out)["photos"][0] if printed.out else {}, printed.err

    return run


@pytest.mark.parametrize("method", ["gradcam", "deeplift"])
def test_the_numbers_are_those_of_the_package_and_the_overlay_is_drawn_from_them(
    untrained_run, photo, tmp_path, explain, method
):
    status, answer, _ = explain("--saliency", method, "--target", "dog")
    assert status == 0 and answer["saliency"] == str(tmp_path / "maps" / f"cat-{method}.png")
    classifier = load_classifier(untrained_run[0])
    found = np.load(tmp_path / "maps" / f"cat-{method}.npy")
    np.testing.assert_allclose(found, saliency.attribute(classifier, open_photo(photo), method, "dog"), atol=1e-7)
    colormap = maps.default_colormap(method == "deeplift", ("cat", "dog"), "dog")
    overlay = maps.render(found, classifier([open_photo(photo)])[0].input, 0.6, colormap)
    assert Image.open(answer["saliency"]).tobytes() == overlay.tobytes()


def test_grad_cam_of_a_layer(tmp_path, explain):
    written = []
    for layer in ([], ["--layer", "conv5"], ["--layer", "conv3"]):
        assert explain("--saliency", "gradcam", *layer)[0] == 0
        written.append(np.load(tmp_path / "maps" / "cat-gradcam.npy"))
    np.testing.assert_array_equal(written[0], written[1])
    assert not np.allclose(written[0], written[2])


def test_all_writes_a_map_of_each_method_that_the_run_supports(tmp_path, explain, monkeypatch):
    slow = [name for name in saliency.METHODS if name not in FAST]
    reasons = {**dict.fromkeys(slow, "Slow."), "deeplift": "It would not add up."}
    monkeypatch.setattr(saliency, "unsupported", lambda model, method: reasons.get(method))
    status, answer, said = explain("--saliency", "all", "--layer", "conv4")
    left = [name for name in FAST if name != "deeplift"]
    assert status == 0 and "It would not add up.\n" in said
    assert answer["saliency"] == {name: str(tmp_path / "maps" / f"cat-{name}.png") for name in left}
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {
        f"cat-{name}.{kind}" for name in left for kind in ("png", "npy")
    }


def test_a_slow_method_says_how_far_it_is(explain, monkeypatch):
    monkeypatch.setattr(saliency, "STEPS", 4)
    monkeypatch.setattr(saliency, "STEPS_AT_ONCE", 2)
    _, _, said = explain("--saliency", "integrated-gradients")
    assert "Integrated Gradients, per cent: 50 of 100" in said and said.endswith("100 of 100\n")


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--saliency", "guess"], 1, "There is no saliency method 'guess'; choose one of hirescam"),
        (["--saliency", "saliency", "--target", "cow"], 1, "This run knows no class 'cow'; choose one of cat, dog."),
        (["--saliency", "gradcam", "--layer", "conv9"], 1, "no convolution 'conv9'; choose one of conv1, conv2"),
        (["--saliency", "saliency", "--layer", "conv4"], 1, "Saliency looks at no single layer; leave the layer out."),
        ([], 2, "Give --saliency and --out together."),
    ],
)
def test_mistakes_get_one_sentence(explain, arguments, status, sentence):
    got, answer, said = explain(*arguments)
    assert (got, answer) == (status, {})
    assert sentence in said and len(said.strip().splitlines()) == 1


def test_target_and_layer_without_maps_are_wrong_use(photo, capsys):
    for option in (["--target", "cat"], ["--layer", "conv4"]):
        assert main(["classify", str(photo), *option]) == 2
        assert "--target and --layer are for saliency maps" in capsys.readouterr().err
