"""One graph for all that happens to a photo: the pixels are Pillow's, the answers the app's."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from alexnet import calibration, doodles, familiarity, graph, model, runs, weights
from alexnet.augment import EvalTransform
from alexnet.predict import load_classifier
from alexnet.recipes import Recipe
from alexnet.runs import Run

SMALL = {"maps": "8 16 16 16 8", "hidden": "32 16", "image_size": 67, "resize": 80}
NETWORKS = {
    "batch norm": Recipe(name="a", **SMALL),
    "local response, two groups, ten views": Recipe(
        name="b", normalization="local_response", groups=2, five_crops=True, **SMALL
    ),
    "one logit, squashed, one view": Recipe(name="c", single_logit=True, squash=True, mirror=False, **SMALL),
    "fully connected": Recipe(
        name="d", network="mlp", normalization="none", hidden="16 8", activation="tanh", image_size=67, resize=70
    ),
}
SIZES = [(200, 150), (150, 200), (67, 67), (80, 80), (8, 8), (31, 40), (9, 400), (400, 9), (333, 500), (300, 900)]


def made(folder, recipe: Recipe, classes: int = 2, small: bool = False) -> Run:
    """A run with random weights, a temperature, and where it can a familiarity."""
    folder.mkdir()
    about = {"name": "nothing", "fingerprint": "", "photos": 0}
    names = [f"class {number}" for number in range(classes)]
    runs.write_json(folder / "run.json", runs.configuration(recipe, names, "nothing", about))
    torch.manual_seed(1)
    network = model.from_recipe(recipe, classes)
    state = network.state_dict()
    weights.save(folder / "weights.safetensors", weights.compress(state, 8) if small else state)
    calibration.write(folder, 0.6)
    if isinstance(network, model.AlexNet):
        width = familiarity.width(network)
        head = (torch.randn(32, width).half(), torch.randn(32), torch.randn(32), torch.linspace(-1, 1, 50))
        familiarity.save(folder, familiarity.Familiarity(*head))
    return Run(folder)


def photos():
    return [doodles.draw("cat", number, size=120).resize(size) for number, size in enumerate(SIZES)]


@pytest.mark.parametrize(
    "transform",
    [
        EvalTransform(),
        EvalTransform(squash=True),
        EvalTransform(resize=256, crop=224, five_crops=True),
        EvalTransform(resize=70, crop=67),
        EvalTransform(resize=64, crop=64),
    ],
)
@pytest.mark.parametrize(
    "size", [*SIZES, (227, 227), (256, 256), (289, 289), (640, 427), (427, 640), (64, 64), (100, 136), (100, 137)]
)
def test_pixels_are_pillows(transform, size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    expected = transform.stack([transform.crop_photo(Image.fromarray(pixels))])
    assert torch.equal(graph.crop_photo(torch.from_numpy(pixels), transform), expected.double())


def test_weights_by_hand():
    """Two pixels from four: each triangle reaches two pixels to both sides of its centre, cut off at the edge."""
    matrix = graph.resampling(torch.tensor(0.0), torch.tensor(4.0), 4, 2)
    row = torch.tensor([0.75, 0.75, 0.25, 0.0], dtype=torch.float64)
    expected = (row / row.sum() * 2**22 + 0.5).floor()
    assert torch.equal(matrix, torch.stack([expected, expected.flip(0)]))


@pytest.mark.parametrize("network", NETWORKS)
def test_the_module_answers_as_the_app(tmp_path, network):
    run = made(tmp_path / "run", NETWORKS[network])
    expected = load_classifier(run)(photos())
    module = graph.Portable(load_classifier(run), {}).eval()
    for photo, prediction in zip(photos(), expected, strict=True):
        with torch.inference_mode():
            probabilities, *familiar = module(torch.from_numpy(np.array(photo)))
        assert probabilities.tolist() == pytest.approx(list(prediction.probabilities.values()), abs=1e-6)
        assert [value.item() for value in familiar] == pytest.approx(
            [] if prediction.familiarity is None else [prediction.familiarity]
        )


@pytest.mark.parametrize(
    ("network", "classes"), [("local response, two groups, ten views", 300), ("fully connected", 2)]
)
def test_the_file_answers_as_the_app(tmp_path, network, classes):
    run, file = made(tmp_path / "run", NETWORKS[network], classes), tmp_path / "model.onnx"
    graph.write(run, file)
    session = onnxruntime.InferenceSession(file)
    (photo_input,) = session.get_inputs()
    assert (photo_input.name, photo_input.shape, photo_input.type) == ("photo", ["height", "width", 3], "tensor(uint8)")
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == run.config["classes"] and json.loads(about["run"]) == "run"
    for photo, prediction in zip(photos(), load_classifier(run)(photos()), strict=True):
        answer = session.run(None, {"photo": np.asarray(photo)})
        assert answer[0].tolist() == pytest.approx(list(prediction.probabilities.values()), abs=1e-5)
        if prediction.familiarity is not None:
            assert answer[1] == pytest.approx(prediction.familiarity)


def test_compressed_matrices_stay_thin(tmp_path):
    recipe = NETWORKS["batch norm"].replace(hidden="2048 2048")
    run, file = made(tmp_path / "run", recipe, small=True), tmp_path / "model.onnx"
    assert set(weights.read_factors(run.weights)) == {"classifier.fc7"}  # fc6, 288 x 2048, is not large
    graph.write(run, file)
    assert file.stat().st_size < 4 * 2048 * 2048  # what fc7 alone has when whole
    photo = photos()[0]
    answer = onnxruntime.InferenceSession(file).run(None, {"photo": np.asarray(photo)})[0]
    assert answer.tolist() == pytest.approx(list(load_classifier(run)([photo])[0].probabilities.values()), abs=1e-5)
