"""Scoring maps on outlined photos: each measure by hand, what cannot be used, and the command on drawings whose outline is known."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from alexnet import doodles, explain_score, saliency
from alexnet.__main__ import main
from alexnet.augment import EvalTransform
from alexnet.data import DataError
from alexnet.explain_score import BACKGROUND, BORDER, OBJECT
from alexnet.images import PhotoError
from alexnet.predict import Classifier

SIZE = 20
QUICK = ["saliency", "gradcam"]


def around(model: nn.Module) -> Classifier:
    transform = EvalTransform(resize=SIZE, crop=SIZE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Classifier(None, ("cat", "dog"), transform, False, model.eval().requires_grad_(False), torch.device("cpu"))


def linear(weights: np.ndarray) -> Classifier:
    """The logit of the cat is the sum of `weights` (S, S) times red, that of the dog is 0."""
    layer = nn.Linear(3 * SIZE * SIZE, 2, bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.data[0, : SIZE * SIZE] = torch.from_numpy(weights).flatten()
    return around(nn.Sequential(nn.Flatten(), layer))


def noise(seed: int, size: tuple[int, int] = (SIZE, SIZE)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def outline(label: str, seed: int, size: int) -> np.ndarray:
    """Where the animal of `doodles.draw` is: where two backgrounds do not shine through."""
    drawn = []
    for background in ("white", "black"):
        scene, shape = Random(f"scene {seed}"), Random(f"shape {seed}")
        pose, coat = doodles.Pose.random(scene), doodles.Coat.random(scene)
        large = doodles.SUPERSAMPLING * size
        canvas = Image.new("RGB", (large, large), background)
        page = doodles.Pen(canvas, np.eye(2) * large, np.zeros(2))
        animal = page.at(pose.x, pose.y, pose.unit, pose.tilt, pose.mirror)
        doodles._animal(animal, doodles.SPECIES[label], coat, pose, shape)
        drawn.append(np.asarray(canvas.reduce(doodles.SUPERSAMPLING), dtype=int))
    return np.abs(drawn[0] - drawn[1]).max(axis=2) < 60


def save_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def drawings(tmp_path):
    """Three cats and three dogs of 80 px in `photos`, and their trimaps in `masks`."""
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for seed in (1, 2, 3):
            doodles.draw(label, seed, 80).save(tmp_path / "photos" / label / f"{label}_{seed}.png")
            animal = outline(label, seed, 80)
            assert 0.05 < animal.mean() < 0.7
            save_mask(tmp_path / "masks" / f"{label}_{seed}.png", np.where(animal, OBJECT, BACKGROUND))
    return tmp_path


def test_the_pointing_game_asks_where_the_strongest_pixel_lies():
    trimap = np.array([[1, 1, 3], [2, 2, 2]])
    assert explain_score.pointing(np.array([[0, 9, 5], [8, 0, 0]]), trimap) == 1
    assert explain_score.pointing(np.array([[0, 7, 5], [8, 0, 0]]), trimap) == 0
    assert explain_score.pointing(np.array([[0, 7, 99], [5, 0, 0]]), trimap) == 1  # the border is not looked at
    assert explain_score.pointing(np.array([[4, 4, 4], [4, 0, 0]]), trimap) == pytest.approx(2 / 3)
    assert explain_score.pointing(np.ones((2, 3)), trimap) == pytest.approx(2 / 5)
    assert explain_score.pointing(np.zeros((2, 3)), trimap) == 0
    assert explain_score.pointing(np.array([[-1, -2, 0], [-3, -4, -5]]), trimap) == 0


def test_maps_are_smoothed_before_they_point():
    """A lone pixel off the object is outweighed by weaker ones on it that stand together; in a large map only."""
    trimap, attribution = np.full((100, 100), BACKGROUND), np.zeros((100, 100), np.float32)
    trimap[:, :50] = OBJECT
    attribution[20:40, 20:40], attribution[70, 70] = 0.5, 1.0
    assert explain_score.pointing(attribution, trimap) == 1
    attribution[70:90, 70:90] = 1.0
    assert explain_score.pointing(attribution, trimap) == 0


def test_an_object_outside_of_the_crop_is_told(tmp_path):
    noise(0, (60, 20)).save(tmp_path / "photo.png")
    mask = np.full((20, 60), BACKGROUND)
    mask[:, :10] = OBJECT
    save_mask(tmp_path / "mask.png", mask)
    pair = explain_score.Outlined(tmp_path / "photo.png", tmp_path / "mask.png", "cat")
    with pytest.raises(PhotoError, match="The object lies outside of what the network is given."):
        explain_score.open_outlined(pair, linear(np.ones((SIZE, SIZE), np.float32)))


def test_the_energy_is_the_share_of_the_positive_evidence_on_the_object():
    trimap = np.array([[1, 1, 3], [2, 2, 2]])
    assert explain_score.energy(np.array([[1, 2, 50], [1, 0, 0]]), trimap) == pytest.approx(3 / 4)
    assert explain_score.energy(np.array([[1, 2, 50], [1, -9, 0]]), trimap) == pytest.approx(3 / 4)
    assert explain_score.energy(np.ones((2, 3)), trimap) == pytest.approx(2 / 5)
    assert explain_score.energy(np.array([[-1, 0, 50], [0, 0, 0]]), trimap) == 0


def test_a_map_that_foretells_a_linear_network_has_no_infidelity():
    weights = np.random.default_rng(0).normal(0, 0.1, (SIZE, SIZE)).astype(np.float32)
    classifier, photo = linear(weights), noise(1)
    true = weights * np.asarray(photo, np.float32)[..., 0] / 255

    def of(attribution: np.ndarray) -> float:
        return explain_score.infidelity(classifier, photo, attribution.astype(np.float32), "cat")

    assert of(true) < 1e-6 and of(1000 * true) < 1e-6
    shuffled = np.random.default_rng(1).permutation(true.ravel()).reshape(SIZE, SIZE)
    assert of(np.zeros((SIZE, SIZE))) >= of(shuffled) > 1e-3
    assert of(shuffled) == of(shuffled)


def test_squares_are_squares_of_the_sizes_wanted():
    squares = explain_score._squares(200, 100, torch.Generator().manual_seed(0))[:, 0]
    heights, widths = squares.amax(2).sum(1), squares.amax(1).sum(1)
    assert (squares.sum((1, 2)) == heights * widths).all() and (heights == widths).all()
    assert 10 <= heights.min() < 15 and 35 < heights.max() <= 40
    assert all(edge.any() for edge in (squares[:, 0], squares[:, -1], squares[:, :, 0], squares[:, :, -1]))


def test_sensitivity_is_zero_for_a_linear_network_and_the_share_of_the_noise_for_a_map_of_the_photo():
    classifier, photo = linear(np.ones((SIZE, SIZE), np.float32)), noise(2)

    def gradient(classifier, photo, target):
        return saliency.attribute(classifier, photo, "saliency", target)

    def red(classifier, photo, target):
        return classifier.prepare([photo])[0, 0].numpy()

    assert explain_score.sensitivity(gradient, classifier, photo, "cat") == 0
    # Uniform noise of radius r has the deviation r / sqrt(3); the photo has the root mean square of a uniform 0 to 1.
    expected = explain_score.RADIUS / np.sqrt(3) / np.sqrt(1 / 3)
    assert explain_score.sensitivity(red, classifier, photo, "cat") == pytest.approx(expected, rel=0.15)


def test_a_mask_goes_through_the_geometry_of_its_photo(tmp_path):
    """A landscape photo whose object is a white square: the mask comes out where the white comes out."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 25:40] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    save_mask(tmp_path / "m.png", np.where(pixels[..., 0], OBJECT, BACKGROUND))
    transform = EvalTransform(resize=24, crop=SIZE)
    classifier = Classifier(None, ("cat",), transform, False, nn.Identity(), torch.device("cpu"))
    photo, trimap = explain_score.open_outlined(
        explain_score.Outlined(tmp_path / "a.png", tmp_path / "m.png", None), classifier
    )
    seen = np.asarray(transform.crop_photo(photo))[..., 0]
    assert set(np.unique(trimap)) == {OBJECT, BACKGROUND}
    assert ((trimap == OBJECT) == (seen > 127)).all() and 0 < (seen > 127).sum() < SIZE * SIZE


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (np.ones((9, 9)), "The mask has another size than its photo."),
        (np.full((SIZE, SIZE), 255), "The mask holds something else than 1, 2 and 3."),
        (np.ones((SIZE, SIZE, 3)), "The mask holds something else than 1, 2 and 3."),
        (np.full((SIZE, SIZE), 2), "The mask has no object."),
        (np.full((SIZE, SIZE), 3), "The mask has no object."),
        (b"no picture", "The mask cannot be read."),
    ],
)
def test_masks_that_cannot_be_used_are_told(tmp_path, mask, sentence):
    noise(0).save(tmp_path / "photo.png")
    if isinstance(mask, bytes):
        (tmp_path / "mask.png").write_bytes(mask)
    else:
        save_mask(tmp_path / "mask.png", mask)
    pair = explain_score.Outlined(tmp_path / "photo.png", tmp_path / "mask.png", "cat")
    with pytest.raises(PhotoError, match=sentence):
        explain_score.open_outlined(pair, linear(np.ones((SIZE, SIZE), np.float32)))


def test_a_palette_mask_is_read_by_its_numbers(tmp_path):
    noise(0).save(tmp_path / "photo.png")
    values = np.full((SIZE, SIZE), BORDER, np.uint8)
    values[:5] = OBJECT
    mask = Image.fromarray(values).convert("P")
    mask.putdata(values.ravel().tolist())
    mask.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    mask.save(tmp_path / "mask.png")
    pair = explain_score.Outlined(tmp_path / "photo.png", tmp_path / "mask.png", "cat")
    _, trimap = explain_score.open_outlined(pair, linear(np.ones((SIZE, SIZE), np.float32)))
    assert (trimap == values).all()


def test_masks_are_found_by_name_anywhere_and_by_place_where_names_repeat(photo_folder, tmp_path):
    photos = photo_folder(["Cats/1.png", "Cats/2.jpg", "Dogs/1.png", "Dogs/3.png"])
    for path in ("Cats/1.png", "Dogs/1.png", "deep/er/2.PNG", "._3.png"):
        save_mask(tmp_path / "masks" / path, np.ones((16, 24)))
    found = explain_score.collect(str(photos), tmp_path / "masks", ("cat", "dog"))
    places = {p.photo.relative_to(photos).as_posix(): p for p in found.photos}
    assert {name: p.mask.relative_to(tmp_path / "masks").as_posix() for name, p in places.items()} == {
        "Cats/1.png": "Cats/1.png",
        "Dogs/1.png": "Dogs/1.png",
        "Cats/2.jpg": "deep/er/2.PNG",
    }
    assert {name: p.label for name, p in places.items()} == {
        "Cats/1.png": "cat",
        "Cats/2.jpg": "cat",
        "Dogs/1.png": "dog",
    }
    assert found.target == "true class" and [skip.path for skip in found.skipped] == [str(photos / "Dogs/3.png")]


@pytest.mark.parametrize(
    "layout",
    [
        ["Bengal_1.png", "british_2.png", "english_setter_7.png", "Maine_Coon_12.jpg"],
        ["images/Bengal_1.png", "images/pug_7.png"],
        ["Bengal/Bengal_1.png", "pug/pug_7.png"],
        ["cats/Bengal_1.png", "dogs/pug_7.png"],
        ["pets/cat/x.png", "pets/dog/y.jpg"],
        ["cat_1.png", "dog_7.png"],
        ["cat.1.png", "dog.7.png"],
        ["dog/small/pug_1.jpg", "dog/large/boxer_1.jpg"],
    ],
)
def test_cats_and_dogs_are_known_by_folder_by_name_or_by_breed(photo_folder, tmp_path, layout):
    folder = photo_folder(layout)
    for path in layout:
        save_mask(tmp_path / "annotations/trimaps" / f"{Path(path).stem}.png", np.ones((16, 24)))
        save_mask(tmp_path / "annotations/trimaps" / f"._{Path(path).stem}.png", np.zeros((2, 2)))
    found = explain_score.collect(str(folder), tmp_path / "annotations", ("cat", "dog"))
    cats = ("Bengal", "Maine", "cat", "x")
    dogs = ("english", "pug", "dog", "y", "boxer")
    for photo in found.photos:
        name = photo.photo.name.partition("_")[0].partition(".")[0]
        assert photo.label == ("cat" if name in cats else "dog" if name in dogs else None)
    assert len(found.photos) == len(layout) and not found.skipped
    known = "true class where it is known, else the likeliest" if "british_2.png" in layout else "true class"
    assert found.target == known


def test_masks_may_lie_among_their_photos(photo_folder):
    folder = photo_folder(["pug_1.jpg", "Bengal_2.jpg"])
    for name in ("pug_1", "Bengal_2"):
        save_mask(folder / f"{name}.png", np.ones((16, 24)))
    found = explain_score.collect(str(folder), folder, ("cat", "dog"))
    assert {(p.photo.name, p.label) for p in found.photos} == {("pug_1.jpg", "dog"), ("Bengal_2.jpg", "cat")}


def test_photos_that_the_dataset_leaves_out_are_told(photo_folder, tmp_path):
    folder = photo_folder({"cat/1.png": 1, "dog/2.png": 2, "dog/3.png": b"no photo"})
    for name in "123":
        save_mask(tmp_path / "masks" / f"{name}.png", np.ones((16, 24)))
    found = explain_score.collect(str(folder), tmp_path / "masks", ("cat", "dog"))
    assert len(found.photos) == 2
    assert [(Path(skip.path).name, skip.reason) for skip in found.skipped] == [
        ("3.png", "It is left out of the dataset: unreadable.")
    ]


@pytest.mark.parametrize("layout", [["IMG_1.png", "photo_7.png"], ["cow/1.png", "hen/2.png"]])
def test_photos_without_a_known_label_have_none_and_masks_beside_them_are_no_photos(photo_folder, layout):
    folder = photo_folder(layout)
    for path in layout:
        save_mask(folder / "masks" / path, np.ones((16, 24)))
    found = explain_score.collect(str(folder), folder / "masks", ("cat", "dog"))
    assert sorted(p.photo.relative_to(folder).as_posix() for p in found.photos) == layout
    assert found.target == "likeliest class" and all(p.label is None for p in found.photos)


def test_without_any_mask_it_says_what_a_mask_is(photo_folder, tmp_path):
    folder = photo_folder(["cat/1.png", "dog/2.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="None of the 2 photos .* a mask is a PNG with its photo's name."):
        explain_score.collect(str(folder), tmp_path / "empty", ("cat", "dog"))
    with pytest.raises(DataError, match="There is no folder .*nowhere; give the folder that holds the masks."):
        explain_score.collect(str(folder), tmp_path / "nowhere", ("cat", "dog"))
    with pytest.raises(DataError, match="There is no folder .*; check the path."):
        explain_score.collect(str(tmp_path / "nowhere"), tmp_path / "empty", ("cat", "dog"))
    with pytest.raises(DataError, match="is not here yet"):
        explain_score.collect("oxford-pets", tmp_path / "empty", ("cat", "dog"))


def test_baselines_are_what_they_are_called(untrained_run):
    from alexnet.predict import load_classifier

    classifier, photo = load_classifier(untrained_run[0]), doodles.draw("cat", 1, 80)
    explain = explain_score.explanations(classifier, explain_score.BASELINES)
    maps = {name: made(classifier, photo, "cat") for name, made in explain.items()}
    assert {name: (a.shape, a.dtype) for name, a in maps.items()} == dict.fromkeys(maps, ((67, 67), np.float32))
    assert np.unravel_index(maps["center"].argmax(), (67, 67)) == (33, 33)
    assert (maps["uniform"] == 1).all()
    own = saliency.attribute(classifier, photo, "gradcam", "cat")
    assert not np.allclose(maps["random-weights"], own)
    halves = np.zeros((80, 80, 3), np.uint8)
    halves[:, 40:] = 255
    edges = explain["edges"](classifier, Image.fromarray(halves), "cat")
    assert set(np.argwhere(edges > 0.1 * edges.max())[:, 1]) <= {32, 33, 34}


def run_command(capsys, *arguments: object) -> tuple[int, dict]:
    status = main(["explain-score", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_the_command_scores_methods_beside_the_baselines(drawings, untrained_run, capsys):
    (drawings / "masks" / "cat_3.png").unlink()
    save_mask(drawings / "masks" / "dog_3.png", np.ones((9, 9)))
    where = ["--data", drawings / "photos", "--masks", drawings / "masks", "--run", untrained_run[0].path]
    status, answer = run_command(capsys, *where, "--method", *QUICK, "--perturbed", 1)
    assert status == 0
    assert answer["photos"] == 4 and answer["target"] == "true class" and answer["run"] == "untrained"
    assert sorted(skip["reason"] for skip in answer["skipped"]) == [
        "The mask has another size than its photo.",
        "There is no mask of its name.",
    ]
    rows = {row["method"]: row for row in answer["methods"]}
    assert list(rows) == [*QUICK, *explain_score.BASELINES]
    for row in rows.values():
        assert row["photos"] == 4 and row["error"] is None
        assert all(0 <= row[key] <= 1 for key in ("pointing", "energy", "deletion", "insertion"))
        assert row["infidelity"] >= 0 and row["sensitivity"] >= 0 and row["seconds"] >= 0
    assert rows["uniform"]["sensitivity"] == rows["center"]["sensitivity"] == 0
    shares = []
    for label, seed in (("cat", 1), ("cat", 2), ("dog", 1), ("dog", 2)):
        trimap = EvalTransform(70, 67).crop_photo(Image.fromarray(outline(label, seed, 80)), Image.Resampling.NEAREST)
        shares.append(np.asarray(trimap).mean())
    assert rows["uniform"]["energy"] == pytest.approx(np.mean(shares)) == rows["uniform"]["pointing"]


def test_the_table_and_what_was_left_out(drawings, untrained_run, capsys):
    (drawings / "masks" / "cat_3.png").unlink()
    where = [
        "--data",
        str(drawings / "photos"),
        "--masks",
        str(drawings / "masks"),
        "--run",
        str(untrained_run[0].path),
    ]
    assert main(["explain-score", *where, "--method", "saliency", "--limit", "2", "--perturbed", "0"]) == 0
    printed = capsys.readouterr()
    title, head, *lines = printed.out.splitlines()
    assert title == "untrained on 2 outlined photos, explained for the true class"
    assert head.split() == ["pointing", "energy", "deletion", "insertion", "infidelity", "sensitivity", "s/photo"]
    assert [line.split()[0] for line in lines[:5]] == ["saliency", *explain_score.BASELINES]
    assert lines[0].split()[5:7] == ["-", "-"]
    left_out = drawings / "photos" / "cat" / "cat_3.png"
    assert lines[5] == f"Left out: 1 such as {left_out}. There is no mask of its name."
    assert "Maps measured: 10 of 10" in printed.err


def test_a_method_that_the_network_does_not_support_is_told_and_the_others_go_on(drawings):
    classifier = linear(np.ones((SIZE, SIZE), np.float32))
    classifier.model.features = nn.Sequential()
    found = explain_score.collect(str(drawings / "photos"), drawings / "masks", classifier.classes)
    rows, _ = explain_score.score(classifier, found.photos, ["gradcam", "saliency", "random-weights"], 1, 0)
    assert "needs a convolution" in rows[0]["error"] and rows[0]["pointing"] is None
    assert [row["error"] for row in rows[1:]] == [None, None] and rows[1]["photos"] == 1


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--method", "guess"], 2, "There is no method 'guess'; choose from hirescam"),
        (["--limit", "0"], 2, "--limit is 0; give 1 or more."),
        (["--masks", "no/such/folder"], 1, "There is no folder no/such/folder; give the folder that holds the masks."),
    ],
)
def test_mistakes_get_one_sentence(drawings, untrained_run, arguments, status, sentence, capsys):
    where = [
        "--data",
        str(drawings / "photos"),
        "--masks",
        str(drawings / "masks"),
        "--run",
        str(untrained_run[0].path),
    ]
    assert main(["explain-score", *where, *arguments]) == status
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith(sentence) and len(printed.err.strip().splitlines()) == 1


def test_interrupted_it_says_so(drawings, untrained_run, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(saliency, "attribute", interrupt)
    where = [
        "--data",
        str(drawings / "photos"),
        "--masks",
        str(drawings / "masks"),
        "--run",
        str(untrained_run[0].path),
    ]
    assert main(["explain-score", *where]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.rstrip().endswith("Interrupted.")
