"""Plain PyTorch in and out: other code's weights answer here as they do there, and what is not clear is refused."""

from __future__ import annotations

import json
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from streamlit.testing.v1 import AppTest
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from alexnet import card, doodles, export, imagenet, interchange, model, run_inference, runs, statefile
from alexnet.__main__ import main
from alexnet.interchange import InterchangeError, fit, import_run, import_weights, recognise
from alexnet.predict import load_classifier
from alexnet.recipes import RECIPES
from alexnet.statefile import read_state

CATS_DOGS = RECIPES["batchnorm-cats-dogs"]
SMALL = CATS_DOGS.replace(maps="8 16 12 12 16", hidden="20 10", image_size=67, resize=67, avgpool=1)
PETS = ("cat", "dog")


class TheirNetwork(nn.Module):
    """Written as the README of the first project describes it, without anything of ours."""

    def __init__(self, maps=(8, 16, 12, 12, 16), hidden=(20, 10), side=1):
        super().__init__()
        self.block1 = self.block(3, maps[0], 11, stride=4, padding=2, pool=True)
        self.block2 = self.block(maps[0], maps[1], 5, padding=2, pool=True)
        self.block3 = self.block(maps[1], maps[2], 3, padding=1)
        self.block4 = self.block(maps[2], maps[3], 3, padding=1)
        self.block5 = self.block(maps[3], maps[4], 3, padding=1, pool=True)
        self.dropout = nn.Dropout(0.5)
        self.fc1 = nn.Linear(maps[4] * side * side, hidden[0])
        self.fc2 = nn.Linear(hidden[0], hidden[1])
        self.fc3 = nn.Linear(hidden[1], 1)

    @staticmethod
    def block(inputs, outputs, kernel, stride=1, padding=0, pool=False):
        layers = [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU(), nn.BatchNorm2d(outputs)]
        return nn.Sequential(*layers, *([nn.MaxPool2d(3, 2)] if pool else []))

    def forward(self, x):
        for block in (self.block1, self.block2, self.block3, self.block4, self.block5):
            x = block(x)
        x = torch.relu(self.fc1(self.dropout(x.flatten(1))))
        return self.fc3(self.dropout(torch.relu(self.fc2(x))))


def trained(network):
    """`network` in evaluation, its normalisation with statistics of its own, as after training."""
    torch.manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.uniform_(0.5, 1.5)
            layer.num_batches_tracked += 7
    return network.eval()


@pytest.fixture
def theirs():
    torch.manual_seed(0)
    return trained(TheirNetwork())


def photos(side=67):
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def answers(state, recipe=SMALL, classes=2):
    """The logits of our network with these weights."""
    network = model.from_recipe(recipe, classes).eval()
    network.load_state_dict(state)
    return network(photos(recipe.image_size))


@torch.inference_mode()
def assert_same(state, theirs, recipe=SMALL):
    expected = theirs(photos(recipe.image_size))
    assert expected.std() > 1e-3  # it depends on the photo
    torch.testing.assert_close(answers(state, recipe), expected, rtol=1e-5, atol=1e-5)


def test_their_parameter_pth_answers_here_as_there(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "parameter.pth")
    imported = import_weights(tmp_path / "parameter.pth", SMALL, PETS)
    assert_same(imported.state, theirs)
    assert imported.state["features.norm1.num_batches_tracked"] == 7


def test_our_weights_answer_there_as_here(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "parameter.pth")
    run = import_run(tmp_path / "parameter.pth", SMALL, PETS, path=tmp_path / "run")
    file = export.write_whole(run, tmp_path / "out", "pth")
    ours = torch.load(file, weights_only=True)
    fresh = TheirNetwork()
    fresh.load_state_dict(dict(zip(fresh.state_dict(), ours.values(), strict=True)))
    with torch.inference_mode():
        assert torch.equal(fresh.eval()(photos()), theirs(photos()))
    # And the file of ours comes back under its own names.
    assert_same(import_weights(file, SMALL, PETS).state, theirs)


@pytest.mark.parametrize("wrap", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_containers_and_prefixes(theirs, tmp_path, wrap, prefix):
    state = {prefix + name: tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"epoch": 30, "optimizer": {"state": {}}, wrap: state}, tmp_path / "checkpoint.pt")
    assert_same(import_weights(tmp_path / "checkpoint.pt", SMALL, PETS).state, theirs)


def test_an_averaged_model_and_half_precision(theirs, tmp_path):
    torch.save(torch.optim.swa_utils.AveragedModel(theirs).state_dict(), tmp_path / "swa.pth")
    assert_same(import_weights(tmp_path / "swa.pth", SMALL, PETS).state, theirs)
    torch.save(theirs.half().state_dict(), tmp_path / "half.pth")
    state = import_weights(tmp_path / "half.pth", SMALL, PETS).state
    assert_same(state, theirs.float())
    assert {tensor.dtype for tensor in state.values()} == {torch.float32, torch.int64}


def reordered(state, *starts):
    """`state` with the layers that are named first; the others keep their order."""
    ordered = [name for start in starts for name in state if name.startswith(start)]
    return {name: state[name] for name in dict.fromkeys([*ordered, *state])}


def test_layers_may_be_registered_by_kind_and_where_shapes_decide_in_any_order(theirs):
    state = theirs.state_dict()
    by_kind = reordered(state, *(f"block{n}.2" for n in range(1, 6)), "fc", *(f"block{n}.0" for n in range(1, 6)))
    assert_same(fit(by_kind, SMALL, 2), theirs)
    assert_same(fit(reordered(state, "fc3", "block4.0", "block2.0", "fc1"), SMALL, 2), theirs)


def test_what_order_does_not_settle_is_refused(theirs):
    state = theirs.state_dict()
    # The two of 12 maps, swapped: by their shapes everything is in its place.
    with pytest.raises(InterchangeError, match=r"^block4.2.weight and block3.2.weight have one shape, .* as .pth\.$"):
        fit(reordered(state, "block1.2", "block2.2", "block4.2"), SMALL, 2)
    with pytest.raises(InterchangeError, match="have one shape, and their order and names do not settle"):
        fit(reordered(state, "block5.2", "block4.2"), SMALL, 2)


def test_safetensors_have_no_order_but_that_of_numbers(theirs, tmp_path):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            blocks = (theirs.block1, theirs.block2, theirs.block3, theirs.block4, theirs.block5)
            self.features = nn.Sequential(*(layer for block in blocks for layer in block))
            self.classifier = nn.Sequential(theirs.fc1, nn.ReLU(), theirs.fc2, nn.ReLU(), theirs.fc3)

    state = Flat().state_dict()
    save_file(state, tmp_path / "flat.safetensors")  # features.10 comes before features.2 in it
    assert_same(import_weights(tmp_path / "flat.safetensors", SMALL, PETS).state, theirs)
    words = {"block3.2": "third", "block4.2": "fourth"}
    for number, word in words.items():
        state = {name.replace(number, word): tensor for name, tensor in theirs.state_dict().items()}
        save_file(state, tmp_path / "words.safetensors")
        with pytest.raises(InterchangeError, match="have one shape"):
            import_weights(tmp_path / "words.safetensors", SMALL, PETS)
        torch.save(state, tmp_path / "words.pth")  # which keeps the order
        assert_same(import_weights(tmp_path / "words.pth", SMALL, PETS).state, theirs)


def test_a_layer_without_a_bias_has_one_of_zeros():
    torch.manual_seed(0)
    theirs = TheirNetwork()
    for block in (theirs.block1, theirs.block2, theirs.block3, theirs.block4, theirs.block5):
        block[0].bias = None
    trained(theirs)
    state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.endswith("tracked")}
    assert_same(fit(state, SMALL, 2), theirs)


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if not name.startswith(names)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s | {"block3.0.weight": torch.zeros(13, 16, 3, 3)},
            r"block3.0.weight is \(13, 16, 3, 3\), and batch",
        ),
        (lambda s: s | {"block2.0.bias": torch.zeros(17)}, r"block2.0.bias is \(17,\), and .* needs \(16,\) there"),
        (
            lambda s: without(s, "block5.0"),
            r"Nothing is there for features.conv5.weight, \(16, 12, 3, 3\), of batchnorm",
        ),
        (lambda s: s | {"fc4.weight": torch.zeros(1, 1)}, r"fc4.weight, \(1, 1\), has no place in batchnorm-cats-dogs"),
        (lambda s: without(s, "block1.2.running_var"), "block1.2.running_var is missing"),
        (
            lambda s: without(s, "block1.2.running", "block1.2.num"),
            "block1.2.weight is of a layer that AlexNet does not",
        ),
        (lambda s: without(s, "block1.0.weight"), "block1.0.bias is of a layer that AlexNet does not have"),
        (lambda s: s | {"scale": torch.ones(1)}, "scale is no weight, bias or statistic"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(theirs, change, said):
    with pytest.raises(InterchangeError, match=said) as caught:
        fit(change(theirs.state_dict()), SMALL, 2)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text


def test_one_logit_and_three_classes(theirs):
    with pytest.raises(InterchangeError, match="one output, which tells two classes apart, not 3"):
        fit(theirs.state_dict(), SMALL, 3)


class Unknown:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")
@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("none.pth", lambda file: None, "cannot be opened .*; check the path."),
        ("folder.pth", lambda file: file.mkdir(), "cannot be opened"),
        ("text.pth", lambda file: file.write_text("no weights"), "text.pth is damaged"),
        ("empty.pth", lambda file: file.touch(), "empty.pth is damaged"),
        ("text.safetensors", lambda file: file.write_text("no weights"), "text.safetensors is damaged"),
        ("numbers.pth", lambda file: torch.save({"epoch": 3, "model": [1, 2]}, file), "holds no weights by name"),
        ("tensor.pth", lambda file: torch.save(torch.zeros(2), file), "holds no weights by name"),
        ("nothing.pth", lambda file: torch.save({}, file), "holds no weights by name"),
        ("whole.pth", lambda file: torch.save(TheirNetwork(), file), "holds more than data, such as a whole network"),
        ("script.pt", lambda file: torch.jit.script(nn.Linear(2, 2)).save(file), "holds more than data"),
        (
            "code.pth",
            lambda file: file.write_bytes(pickle.dumps(Unknown(), protocol=2)),
            "code.pth holds more than data",
        ),
        (
            "sparse.pth",
            lambda file: torch.save({"w": torch.eye(2).to_sparse()}, file),
            "w in sparse.pth is not a plain",
        ),
        (
            "meta.pth",
            lambda file: torch.save({"w": torch.zeros(2, device="meta")}, file),
            "w in meta.pth is not a plain",
        ),
    ],
)
def test_files_that_hold_no_weights(tmp_path, name, write, said, capsys):
    write(tmp_path / name)
    with pytest.raises(InterchangeError, match=said) as caught:
        read_state(tmp_path / name)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and "executed" not in capsys.readouterr().out


def test_a_file_that_is_cut_short(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "cut.pth").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InterchangeError, match="cut.pth is damaged"):
            read_state(tmp_path / "cut.pth")


def test_a_file_that_is_too_large_or_would_become_so(tmp_path, monkeypatch):
    torch.save({"w": torch.zeros(10_000)}, tmp_path / "plain.pth")
    packed = tmp_path / "packed.pth"
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for entry in plain.infolist():
            archive.writestr(entry.filename, plain.read(entry))
    monkeypatch.setattr(statefile, "MOST_BYTES", 20_000)
    assert packed.stat().st_size < 20_000 < (tmp_path / "plain.pth").stat().st_size
    for name in ("plain.pth", "packed.pth"):
        with pytest.raises(InterchangeError, match="more than any such network"):
            read_state(tmp_path / name)


def test_values_that_are_no_numbers(theirs, tmp_path):
    theirs.fc2.weight.data[3, 4] = torch.nan
    torch.save(theirs.state_dict(), tmp_path / "diverged.pth")
    with pytest.raises(InterchangeError, match="values that are not numbers, in what becomes classifier.fc7.weight"):
        import_weights(tmp_path / "diverged.pth", SMALL, PETS)


def test_recipes_are_recognised_by_their_shapes():
    from torchvision.models import alexnet

    with torch.device("meta"):
        theirs = TheirNetwork((96, 256, 384, 384, 256), (4096, 4096), side=6).state_dict()
        torchvision = alexnet().state_dict()
        own = {name: model.from_recipe(RECIPES[name], 10).state_dict() for name in ("svhn", "cats-dogs")}
        keras = model.from_recipe(RECIPES["keras-dogs-vs-cats"], 2).state_dict()
    assert recognise(theirs) is CATS_DOGS
    assert recognise(torchvision) is interchange.TORCHVISION
    assert recognise(own["svhn"]) is RECIPES["svhn"] and recognise(keras) is RECIPES["keras-dogs-vs-cats"]
    with pytest.raises(InterchangeError, match="fit cats-dogs and first-run alike; say with --recipe"):
        recognise(own["cats-dogs"])
    with pytest.raises(InterchangeError, match="fit no recipe; name the nearest with --recipe"):
        recognise(without(torchvision, "features.3"))
    with pytest.raises(InterchangeError, match="no fully connected layer"):
        recognise({"conv.weight": torch.zeros(1, 3, 2, 2)})


def test_torchvisions_alexnet_answers_here_as_there(tmp_path):
    from torchvision.models import alexnet

    torch.manual_seed(0)
    theirs = alexnet().eval()
    torch.save(theirs.state_dict(), tmp_path / "alexnet.pth")
    run = import_run(tmp_path / "alexnet.pth", path=tmp_path / "run")
    assert run.config["classes"] == list(imagenet.names().values()) and len(run.config["classes"]) == 1000
    assert run.recipe == interchange.TORCHVISION
    classifier = load_classifier(run)
    assert sum(p.numel() for p in classifier.model.parameters()) == 61_100_840
    with torch.inference_mode():
        torch.testing.assert_close(classifier.model(photos(224)), theirs(photos(224)), rtol=1e-5, atol=1e-5)


def test_classes_have_to_be_told(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "parameter.pth")
    with pytest.raises(InterchangeError, match="give its two classes, the one that its output speaks for last"):
        import_weights(tmp_path / "parameter.pth", SMALL)
    for names in (("cat", "cat"), ("cat", "")):
        with pytest.raises(InterchangeError, match="Two classes have the same name"):
            import_weights(tmp_path / "parameter.pth", SMALL, names)
    theirs.fc3 = nn.Linear(10, 5)
    torch.save(theirs.state_dict(), tmp_path / "five.pth")
    with pytest.raises(InterchangeError, match="give its 5 classes"):
        import_weights(tmp_path / "five.pth", SMALL.replace(single_logit=False))
    with pytest.raises(InterchangeError, match=r"fc3.weight is \(5, 10\), and .* with 2 classes needs \(2, 10\) there"):
        import_weights(tmp_path / "five.pth", SMALL.replace(single_logit=False), PETS)


SET = ["maps=8 16 12 12 16", "hidden=20 10", "image_size=67", "resize=67", "avgpool=1"]


def test_the_command_makes_a_run_that_everything_can_use(theirs, tmp_path, capsys):
    torch.save(theirs.state_dict(), tmp_path / "parameter.pth")
    command = ["import", str(tmp_path / "parameter.pth"), "--recipe", "batchnorm-cats-dogs", "--classes", "cat, dog"]
    command += [word for setting in SET for word in ("--set", setting)]
    home = runs.runs_dir() / "theirs"
    colours = ["--mean", "0.5", "0.5", "0.5", "--std", "0.25", "0.25", "0.5"]
    assert main([*command, *colours, "--out", str(home)]) == 0
    assert "parameter.pth as a network of batchnorm-cats-dogs, 2 classes" in capsys.readouterr().out
    run = runs.find("theirs")
    assert run.recipe == SMALL and run.config["classes"] == ["cat", "dog"] and run.status().state == "finished"

    doodles.write(tmp_path / "pets", per_class=2)
    photo = min((tmp_path / "pets").rglob("*.*"))
    assert main(["classify", str(photo), "--run", "theirs", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["photos"]
    with torch.inference_mode():  # squashed, not cut out, and normalised as was said
        small = doodles.Image.open(photo).convert("RGB").resize((67, 67), doodles.Image.Resampling.BILINEAR)
        pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(67, 67, 3).permute(2, 0, 1) / 255
        x = (pixels - 0.5) / torch.tensor([0.25, 0.25, 0.5]).view(3, 1, 1)
        dog = torch.sigmoid(theirs(x[None])).item()
    assert answer["probabilities"]["dog"] == pytest.approx(dog, abs=1e-4)
    assert main(["evaluate", "--data", str(tmp_path / "pets"), "--run", "theirs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 4
    assert main(["export", "--run", "theirs", "--out", str(tmp_path / "out"), "--format", "safetensors"]) == 0

    text = card.markdown(run)
    assert "imported from `parameter.pth`" in text and "from scratch" not in text and "`epochs`" not in text
    for page in ("train", "classify"):
        app = AppTest.from_file("../app.py", default_timeout=60)
        app.query_params["run"] = "theirs"
        assert not app.switch_page(f"pages/{page}.py").run().exception and not app.error

    assert main([*command, "--out", str(home)]) == 1
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--classes", "cat,dog", "--data", "doodles"], 2, "Give --classes or --data, not both."),
        (["--set", "image_size=99"], 2, "Give --recipe, too"),
        (["--recipe", "svhn", "--set", "colour=3"], 2, "colour: there is no such setting"),
        (["--std", "0", "1", "1"], 2, "Give --mean from 0 to 1, and --std above 0"),
        (["--mean", "nan", "0", "0"], 2, "Give --mean from 0 to 1"),
        (["--classes", "cat,dog"], 1, "fit no recipe; name the nearest"),
        (["--classes", "cat,dog", "--recipe", "svhn"], 1, "block1.0.weight is (8, 3, 11, 11), and svhn with 2 classes"),
        ([], 1, "give its two classes"),
    ],
)
def test_mistakes_get_one_sentence(theirs, tmp_path, arguments, status, sentence, capsys):
    torch.save(theirs.state_dict(), tmp_path / "parameter.pth")
    assert main(["import", str(tmp_path / "parameter.pth"), *arguments, "--out", str(tmp_path / "run")]) == status
    printed = capsys.readouterr()
    assert sentence in printed.err and printed.out == "" and not (tmp_path / "run").exists()


def test_classes_of_a_dataset(theirs, tmp_path, photo_folder):
    torch.save(theirs.state_dict(), tmp_path / "parameter.pth")
    data = photo_folder(["training_set/cats/a.png", "training_set/dogs/b.png", "test_set/dogs/c.png"], "cat_and_dog")
    command = ["import", str(tmp_path / "parameter.pth"), "--data", str(data), "--recipe", "batchnorm-cats-dogs"]
    command += [word for setting in SET for word in ("--set", setting)]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert runs.find(tmp_path / "run").config["classes"] == ["cats", "dogs"]


class Fixed(nn.Module):
    """Passes on what it is given, scaled by 1; dropout within would show in training mode."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.scale * x)


def loader(logits, labels, batch_size=2):
    return DataLoader(TensorDataset(torch.tensor(logits), torch.tensor(labels)), batch_size=batch_size)


def test_inference_with_one_logit_by_hand(capsys):
    # sigmoid(ln 3) = 3/4: three photos of which the last is wrong; batches of two and one.
    ln3 = torch.tensor(3.0).log().item()
    network = Fixed().train()
    for labels in ([1, 0, 0], [1.0, 0.0, 0.0], [[1], [0], [0]]):
        batches = loader([[ln3], [-ln3], [ln3]], labels)
        loss, accuracy = run_inference(network, batches, nn.BCEWithLogitsLoss())
        expected = -(torch.tensor([3 / 4, 3 / 4, 1 / 4]).log().mean().item())
        assert loss == pytest.approx(expected) and accuracy == pytest.approx(2 / 3)
    assert f"Test loss {expected:.4f}, test accuracy 66.67%, 3 photos" in capsys.readouterr().out
    loss, accuracy = run_inference(network, loader([[0.75], [0.25], [0.75]], [1, 0, 0]), nn.BCELoss())
    assert loss == pytest.approx(expected) and accuracy == pytest.approx(2 / 3)
    assert network.training and network.dropout.training


def test_inference_with_several_logits_by_hand():
    network = Fixed().train()
    network.dropout.eval()  # a part that stays as it is in training
    batches = loader([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0]], [0, 0, 2], batch_size=2)
    loss, accuracy = run_inference(network, batches, nn.CrossEntropyLoss())
    total = torch.tensor(2.0).exp() + 2
    assert loss == pytest.approx((torch.tensor(3.0).log() + 2 * total.log() - 2).item() / 3)
    assert accuracy == pytest.approx(2 / 3)
    assert network.training and not network.dropout.training
    with pytest.raises(InterchangeError, match="no photo to test on"):
        run_inference(network, [], nn.CrossEntropyLoss())
