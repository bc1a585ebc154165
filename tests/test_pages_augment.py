"""The Augment page without a browser: its address, its pictures, and the way to the Train page."""

from __future__ import annotations

import html
import io
import re

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import ui
from alexnet import data, runs
from alexnet.preview import OPERATIONS
from alexnet.recipes import RECIPES

TITLES = ["Crop", "Flip", "Blur", "Rotation", "Shear", "Zoom", "Shift", "Brightness", "Contrast", "Saturation"]
TITLES += ["PCA colour", "Random erasing", "Mixup", "CutMix"]


@pytest.fixture
def pets(tmp_path):
    """Fifteen photos of noise of each of two classes, 80 x 60."""
    folder, random = tmp_path / "my_pets", np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for i in range(15):
            pixels = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture
def page(pets):
    """Opens the app on the Augment page at an address; photos are those of `pets`, unless it says otherwise."""
    ui.forget_dataset("doodles")  # they were in the home of another test

    def open_page(asked: bool = True, **query: str) -> AppTest:
        app = AppTest.from_file("../app.py", default_timeout=60)
        for name, value in ({"recipe": "first-run", "data": str(pets), "image_size": "67"} | query).items():
            app.query_params[name] = value
        if asked:
            app.session_state["augment-asked"] = {str(pets)}
        app.switch_page("pages/augment.py").run()
        assert not app.exception
        return app

    return open_page


def texts(elements) -> list[str]:
    return [element.value.replace("\\", "") for element in elements]


def figures(app) -> list[tuple[str, str, str]]:
    """The pictures on the page: address, alternative text and caption of each."""
    bodies = "".join(element.proto.body for element in app.get("html"))
    found = re.findall(r"<figure><img src='([^']*)' alt='([^']*)'><figcaption>(.*?)</figcaption>", bodies)
    return [(uri, html.unescape(alt), html.unescape(re.sub("<[^>]*>", "", words))) for uri, alt, words in found]


def of(app, title: str) -> list[tuple[str, str]]:
    """Address and caption of an operation's pictures."""
    return [(uri, words) for uri, alt, words in figures(app) if alt.startswith(f"{title}: ")]


def samples(app) -> list[str]:
    return [uri for uri, alt, _ in figures(app) if alt.startswith("Sample ")]


def button(app, label: str):
    return next((b for b in app.button if b.label == label), None)


def labels(app) -> list[str]:
    widgets = [*app.selectbox, *app.toggle, *app.slider]
    return [w.label.strip("*") for w in widgets if w.label.startswith("**")]


def test_operations_stand_in_their_order_each_with_original_ends_and_samples(page):
    app = page(rotation="15", erasing="0.25", mixup="0.2")
    assert sorted(labels(app), key=lambda label: int(label.split(".")[0])) == [
        f"{number}. {title}" for number, title in enumerate(TITLES, 1)
    ]
    assert len(TITLES) == len(OPERATIONS)
    on = ("Crop", "Flip", "Rotation", "Brightness", "Contrast", "Saturation", "Random erasing", "Mixup")
    assert {title: len(of(app, title)) for title in TITLES} == {title: 11 if title in on else 0 for title in TITLES}
    assert [words for _, words in of(app, "Rotation")][:3] == ["original", "15.0° right", "15.0° left"]
    captions = texts(app.caption)
    assert captions.count("Off") == len(TITLES) - len(on)
    assert {"50% of the photos", "25% of the photos", "Each pair in the batch, after Beta(0.2, 0.2)"} <= set(captions)
    assert all(alt for _, alt, _ in figures(app))


def test_a_link_brings_back_recipe_settings_seed_step_and_photo(page, pets):
    query = {
        "recipe": "keras-dogs-vs-cats",
        "rotation": "40",
        "seed": "5",
        "step": "3",
        "photo": "dog/7.png",
        "image_size": "224",
    }
    app = page(**query)
    assert app.selectbox(key="augment-recipe").value == "keras-dogs-vs-cats"
    assert app.slider(key="augment-rotation").value == 40
    assert app.slider(key="augment-zoom").value == RECIPES["keras-dogs-vs-cats"].zoom
    assert app.number_input(key="augment-seed").value == 5 and app.number_input(key="augment-step").value == 3
    assert app.text_input(key="augment-folder").value == str(pets)
    assert "dog, dog/7.png, as it is" in [alt for _, alt, _ in figures(app)]
    assert figures(app) == figures(page(**query)) and len(samples(app)) == 8


def test_the_same_seed_and_step_show_the_same_and_others_do_not(page):
    app = page()
    before = samples(app)
    app.number_input(key="augment-step").set_value(1).run()
    assert app.query_params["step"] == "1" and not set(samples(app)) & set(before)
    app.number_input(key="augment-step").set_value(0).run()
    assert "step" not in app.query_params and samples(app) == before
    app.number_input(key="augment-seed").set_value(9).run()
    assert app.query_params["seed"] == "9" and not set(samples(app)) & set(before)


def test_a_slider_moves_its_operation_alone_and_the_address(page):
    app = page()
    brightness, contrast, whole = of(app, "Brightness"), of(app, "Contrast"), samples(app)
    app.slider(key="augment-contrast").set_value(0.8).run()
    assert app.query_params["contrast"] == "0.8"
    assert of(app, "Brightness") == brightness
    assert of(app, "Contrast")[0] == contrast[0] and of(app, "Contrast")[1:3] != contrast[1:3]
    assert not set(samples(app)) & set(whole)
    app.slider(key="augment-contrast").set_value(RECIPES["first-run"].contrast).run()
    assert "contrast" not in app.query_params and of(app, "Contrast") == contrast
    app.selectbox(key="augment-crop").set_value("none").run()
    assert not of(app, "Crop") and not [s for s in app.slider if s.key == "augment-crop_scale"]
    app.toggle(key="augment-flip").set_value(False).run()
    assert app.query_params["flip"] == "False" and not of(app, "Flip")


def test_changes_are_dropped_on_request_and_each_recipe_keeps_its_own(page):
    app = page()
    assert button(app, "Back to the recipe").help == "Changed: Image size."
    app.slider(key="augment-blur").set_value(2.0).run()
    app.selectbox(key="augment-recipe").set_value("paper-2012").run()
    assert app.slider(key="augment-blur").value == 0 and button(app, "Back to the recipe") is None
    app.selectbox(key="augment-recipe").set_value("first-run").run()
    assert app.slider(key="augment-blur").value == 2
    button(app, "Back to the recipe").click().run()
    assert app.slider(key="augment-blur").value == 0 and button(app, "Back to the recipe") is None


def test_train_with_this_takes_settings_and_photos_to_the_form(page, pets):
    app = page(rotation="12.5", epochs="3", seed="4")
    app.slider(key="augment-mixup").set_value(0.3).run()
    button(app, "Train with this").click().run()
    assert app.title[0].value == "Train" and not app.exception
    assert app.selectbox(key="recipe").value == "first-run" and app.text_input(key="folder").value == str(pets)
    assert (
        app.number_input(key="first-run-epochs").value == 3 and app.number_input(key="first-run-image_size").value == 67
    )
    app.session_state["more"], app.session_state["group"] = True, "Augmentation"
    app.switch_page("pages/train.py").run()
    assert app.number_input(key="first-run-rotation").value == 12.5
    assert app.number_input(key="first-run-mixup").value == 0.3
    assert app.number_input(key="first-run-brightness").value == RECIPES["first-run"].brightness
    app.switch_page("pages/augment.py").run()  # and what was looked at here is still there
    assert app.slider(key="augment-rotation").value == 12.5 and app.query_params["seed"] == "4"


def test_the_train_page_leads_here_with_what_is_entered(page, pets):
    app = AppTest.from_file("../app.py", default_timeout=60)
    app.session_state["more"], app.session_state["group"] = True, "Augmentation"
    app.query_params["run"] = "new"
    app.session_state["first-run-rotation"] = 33.0
    app.session_state["dataset"], app.session_state["folder"] = ui.FOLDER, str(pets)
    app.switch_page("pages/train.py").run()
    (link,) = [link for link in app.get("page_link") if link.proto.page.endswith("augment")]
    assert link.proto.query_string == "recipe=first-run&rotation=33.0"
    app.switch_page("pages/augment.py").run()  # with the photos that are chosen there
    assert app.text_input(key="augment-folder").value == str(pets) and len(samples(app)) == 8


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"rotation": "much"}, "'much' is not a number"),
        ({"rotation": "720"}, "720.0 is out of range"),
        ({"mixup": "0.2", "cutmix": "1"}, "either blended or cut"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence_and_are_dropped(page, query, said):
    app = page(**query)
    assert len(app.error) == 1 and said in texts(app.error)[0]
    assert len(samples(app)) == 8 and not app.query_params.keys() & query
    assert not app.run().error


def test_what_excludes_another_operation_is_switched_off_first(page):
    app = page(cutmix="1")
    assert app.slider(key="augment-mixup").disabled and not app.slider(key="augment-cutmix").disabled
    assert app.slider(key="augment-cutmix").set_value(0.0).run().slider(key="augment-mixup").disabled is False


def test_recipes_steps_and_photos_that_are_not_there(page, drawings):
    drawings(runs.home())
    app = page(recipe="nobody's", step="9" * 5000, photo="gone.png")
    assert texts(app.warning) == ["There is no recipe called nobody's."]
    assert app.selectbox(key="augment-recipe").value == "first-run"
    assert app.number_input(key="augment-step").value == 0 and len(samples(app)) == 8
    app = page(data="dogs-vs-cats")
    assert texts(app.warning) == ["Dogs vs. Cats is not on this computer; the Train page downloads it."] and samples(
        app
    )
    app = page(data="/nowhere/at/all")
    button(app, "Read the photos in this folder").click().run()
    assert len(app.error) == 1 and "There is no folder /nowhere/at/all" in texts(app.error)[0]


def test_a_folder_that_only_a_link_names_is_read_when_asked_for(page):
    app = page(asked=False)
    assert not figures(app)
    button(app, "Read the photos in this folder").click().run()
    assert len(samples(app)) == 8 and button(app, "Read the photos in this folder") is None


def test_a_batch_is_that_of_training_with_its_labels(page):
    app = page(batch_size="10", val_fraction="0.1", test_fraction="0.2", step="5", cutmix="1")
    (caption,) = [text for text in texts(app.caption) if text.startswith("The first 8")]
    members = data.split(data.load(app.query_params["data"]), RECIPES["first-run"].replace(test_fraction=0.2))["train"]
    steps = len(members) // 10
    assert (
        f"of the 10 photos that training takes in epoch {5 // steps + 1}, step {5 % steps + 1} of {steps}: " in caption
    )
    numbers = {metric.label: metric.value for metric in app.metric}
    assert numbers["Shape"] == "8 × 3 × 67 × 67" and numbers["Type"] == "float32"
    batch = [words for _, _, words in figures(app)[-8:]]
    assert all(re.fullmatch(r"(●( \d+%)? (cat|dog))+", words) for words in batch)
    for words in batch:
        assert sum(int(share) for share in re.findall(r"(\d+)%", words)) in (0, 99, 100, 101)


def test_a_recipe_that_could_not_train_on_the_photos_is_still_seen(page):
    app = page(recipe="imagenet")
    assert not app.error and len(samples(app)) == 8
    assert any("takes its splits from train/ and val/ folders" in text for text in texts(app.caption))
    assert any("if these were the photos to train on" in text for text in texts(app.caption))


def png(color: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def test_own_photos_are_mixed_with_each_other_and_a_single_one_with_drawings(page, drawings):
    drawings(runs.home())
    app = page(data="own", cutmix="1")
    assert "Drawing of a cat, as it is" in [alt for _, alt, _ in figures(app)]
    photo = ("<my> cat_1_.png", png("red", (90, 60)), "image/png")
    app.file_uploader(key="photos").set_value([photo, ("notes.jpg", b"Dear diary", "image/jpeg")]).run()
    assert not app.exception and len(app.error) == 1 and texts(app.error)[0].startswith("notes.jpg: ")
    assert "<my> cat_1_.png, as it is" in [alt for _, alt, _ in figures(app)]
    assert any("drawing of a" in words for _, _, words in figures(app)[-6:])
    app.file_uploader(key="photos").set_value([photo, ("blue.png", png("blue", (60, 90)), "image/png")]).run()
    assert len(figures(app)) > 8 and not app.error
    assert {name for _, _, words in figures(app)[-2:] for name in ("cat_1_", "blue") if name in words} == {
        "cat_1_",
        "blue",
    }
    button(app, "Train with this").click().run()
    assert app.title[0].value == "Train" and app.selectbox(key="dataset").value == "doodles"


def test_a_photo_is_never_its_own_neighbour():
    from ui.augment_photos import Source, with_neighbours

    files = [png(color, (20, 20)) for color in ("red", "lime", "blue")]
    source = Source(
        ["r", "g", "b"], [0, 1, 2], ["r", "g", "b"], np.full((3, 2), 20, np.float32), lambda i: (files[i], "")
    )
    for chosen in range(3):
        colors = with_neighbours(source, chosen, 8).squares.amax(dim=(2, 3)).argmax(dim=1).tolist()
        assert colors[::2] == [chosen] * 8 and set(colors[1::2]) == {0, 1, 2} - {chosen}


def test_a_photo_that_has_gone_is_one_sentence(page, pets):
    from ui.augment_photos import opened

    page()
    opened.clear()
    for file in pets.rglob("*.png"):
        file.unlink()
    app = page()
    assert len(app.error) == 1 and re.match(r"\d+\.png: The file does not exist", texts(app.error)[0])
