"""The Data page as a visitor meets it: list, import, photos, report, splits, duplicates and corrections."""

from __future__ import annotations

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from skimage import data as samples
from streamlit.testing.v1 import AppTest

import ui
from alexnet import data, downloads, imports, review, runs
from alexnet.review import Correction


@pytest.fixture(autouse=True)
def nothing_cached():
    """Each test has a home of its own, and the caches would bring back what another saw under the same name."""
    for name in ("pets", "plural", "doodles"):
        ui.forget_dataset(name)


@pytest.fixture
def pets(photo_folder):
    """The imported dataset `pets`: ten photos of each class, two of them near-duplicates, and a file left out."""
    chelsea, small = Image.fromarray(samples.chelsea()), io.BytesIO()
    large = io.BytesIO()
    chelsea.save(large, "JPEG")
    chelsea.resize((150, 100)).save(small, "JPEG")
    files = {f"{label}/{n}.png": 100 * place + n for place, label in enumerate(("cat", "dog")) for n in range(10)}
    files |= {"cat/chelsea.jpg": large.getvalue(), "dog/small.jpg": small.getvalue(), "dog/broken.jpg": b"no photo"}
    imports.bring_in(imports.plan(imports.at_path(photo_folder(files))), "pets")
    return data.load("pets")


def page(**address) -> AppTest:
    app = AppTest.from_file("../app.py", default_timeout=60)
    for name, value in address.items():
        app.query_params[name] = value
    app.switch_page("pages/data.py").run()
    assert not app.exception
    return app


def texts(elements) -> list[str]:
    return [element.value.replace("\\", "") for element in elements]


def button(app, label):
    return next((b for b in app.button if b.label == label), None)


def press(app, label) -> AppTest:
    button(app, label).click().run()
    assert not app.exception
    return app


def zip_of(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def png(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_every_dataset_is_listed_with_source_licence_and_state(pets):
    app = page()
    captions = "\n".join(texts(app.caption))
    for archive in downloads.ARCHIVES.values():
        assert archive.homepage in captions and f"Licence: {archive.licence}" in captions
    assert "Imported from photos" in captions
    assert len([b for b in app.button if b.label == "Download"]) == len(downloads.ARCHIVES)
    assert len([b for b in app.button if b.label == "Open"]) == 2  # doodles and pets


def test_a_download_that_stopped_says_how_far_it_is_and_goes_on():
    folder = runs.data_dir()
    folder.mkdir(parents=True)
    file = downloads.ARCHIVES["svhn"].files[0]
    with (folder / f"{file.name}.part").open("wb") as part:
        part.truncate(downloads.ARCHIVES["svhn"].bytes // 4)
    app = page()
    assert "25% downloaded" in "\n".join(texts(app.markdown)) and button(app, "Resume")


def test_a_zip_is_imported_with_its_classes_confirmed():
    app = page()
    files = {f"{label}/{n}.png": png(hash((label, n)) % 10**6) for label in ("Cat", "cat", "dog") for n in range(3)}
    app.file_uploader(key="import-zip").set_value(("mine.zip", zip_of(files), "application/zip")).run()
    assert not app.exception and "differ in case only and become one, Cat" in app.warning[0].value
    assert app.text_input(key="name-mine.zip").value == "mine"
    app.text_input(key="class-mine.zip-dog").set_value("hound").run()
    press(app, "Import")
    assert app.query_params["data"] == "mine"
    assert data.load("mine").report.per_class == {"Cat": 6, "hound": 3}
    assert {metric.label: metric.value for metric in app.metric} == {"Photos": "9", "Classes": "2", "Left out": "0"}


def test_a_bad_zip_is_one_sentence():
    app = page()
    app.file_uploader(key="import-zip").set_value(("mine.zip", b"no zip", "application/zip")).run()
    assert not app.exception and app.error[0].value.startswith("mine.zip is not a ZIP file")


def test_a_folder_is_opened_where_it_is_or_refused_in_a_sentence(photo_folder):
    folder = photo_folder([f"{label}/{n}.png" for label in ("cat", "dog") for n in range(3)])
    app = page()
    app.segmented_control(key="import-from").set_value("A path on this computer").run()
    app.text_input(key="import-path").set_value(str(folder / "nowhere")).run()
    assert "There is no folder" in app.error[0].value
    app.text_input(key="import-path").set_value(str(folder)).run()
    press(app, "Open it where it is")
    assert app.query_params["data"] == str(folder) and app.metric[0].value == "6"
    assert imports.names() == []


def test_photos_of_a_class_are_shown_page_by_page(photo_folder):
    folder = photo_folder([f"{label}/{n:03}.png" for label, count in (("cat", 60), ("dog", 5)) for n in range(count)])
    app = page(data=str(folder), **{"class": "cat"})
    shown = "".join(str(element.proto) for element in app.get("html"))
    assert shown.count("cat/047.png") and not shown.count("cat/048.png") and not shown.count("dog/")
    assert "1 to 48 of 60" in texts(app.caption)


def test_the_report_adds_up(pets):
    app = page(data="pets", part="Report")
    assert "**23** files found = **22** used + **1** left out." in texts(app.markdown)
    figures = [json.loads(c.proto.json) for c in app.get("bidi_component") if c.proto.component_name == "chart"]
    assert [sum(sum(trace["y"]) for trace in figure["data"]) for figure in figures] == [22, 22]


def test_splits_keep_a_test_and_go_to_the_train_page(pets):
    app = page(data="pets", part="Splits")
    table = app.dataframe[0].value.set_index("Split")["Photos"]
    assert table.sum() == 22 and table["Test"] > 0
    app.number_input(key="test").set_value(0).run()
    assert "Without test photos" in app.warning[0].value
    app.number_input(key="test").set_value(30).run()
    press(app, "Train with these")
    assert app.session_state["kept"]["dataset"] == "pets"
    assert app.session_state["kept"]["first-run-test_fraction"] == 0.3
    assert app.title[0].value == "Train" and app.selectbox(key="dataset").value == "pets"


def test_splits_that_leave_nothing_are_one_sentence(pets):
    app = page(data="pets", part="Splits", val="60", test="60")
    assert not app.exception and "nothing to train on" in app.error[0].value


def test_near_duplicates_are_shown_and_left_out_and_put_back(pets):
    app = page(data="pets", part="Duplicates")
    assert {"All (1)", "Of several classes (1)"} <= set(app.segmented_control(key="near").options)
    chelsea = next(photo for photo in pets.photos if photo.path == "cat/chelsea.jpg")
    app.button(key=f"out-{chelsea.digest}").click().run()
    assert not app.exception and len(data.load("pets").photos) == 21 and app.metric[2].value == "2"
    app.button(key=f"undo-{chelsea.digest}").click().run()
    assert data.load("pets") == pets and app.metric[2].value == "1"


def test_labels_that_surprise_a_run_are_ranked_corrected_and_undone(pets, untrained_run):
    shutil.copytree(untrained_run[0].path, runs.runs_dir() / "small")
    app = page(data="pets", part="Labels", run="small", of="all")
    press(app, "Rank 22 photos")
    first = pets.photos[0]
    app.button(key=f"dog-{first.digest}").click().run()
    assert review.corrections(pets.root) == {first.digest: Correction("cat/0.png", "cat", "dog")}
    assert {metric.label: metric.value for metric in app.metric}["Relabelled"] == "1"
    app = page(data="pets", part="Labels", review="corrected")
    app.button(key=f"undo-{first.digest}").click().run()
    assert not app.exception and review.corrections(pets.root) == {}
    assert "Nothing has been corrected yet" in app.info[0].value


def test_a_run_of_cat_and_dog_ranks_the_photos_of_Cats_and_dogs(photo_folder, untrained_run):
    shutil.copytree(untrained_run[0].path, runs.runs_dir() / "small")
    folder = photo_folder(
        {f"{label}/{n}.png": n + 9 * (label == "dogs") for label in ("Cats", "dogs") for n in range(9)}
    )
    imports.bring_in(imports.plan(imports.at_path(folder)), "plural")
    app = page(data="plural", part="Labels", run="small", of="all")
    press(app, "Rank 18 photos")
    assert any("labelled **Cats**, looks like" in text for text in texts(app.caption))


def test_with_every_photo_left_out_they_can_still_be_put_back(pets):
    review.correct(pets.root, {photo.digest: Correction(photo.path, "cat", None) for photo in pets.photos})
    app = page(data="pets", review="corrected")
    assert "Every photo of pets was left out" in app.error[0].value
    app.button(key=f"undo-{pets.photos[-1].digest}").click().run()
    assert not app.exception and not app.error and app.metric[0].value == "1"


def test_a_dataset_that_is_removed_while_it_is_shown_is_one_sentence(pets):
    app = page(data="pets")
    imports.remove("pets")
    app.run()
    assert not app.exception and "There is no dataset or folder pets here" in app.error[0].value


def test_photos_that_go_while_they_are_shown_leave_a_gap(photo_folder):
    folder = photo_folder(
        {f"{label}/{n}.png": 4000 + 10 * place + n for place, label in enumerate(("cat", "dog")) for n in range(3)}
    )
    page(data=str(folder), part="Report")
    (folder / "cat/1.png").unlink()
    app = page(data=str(folder))
    assert "1.png has gone or changed" in "".join(str(element.proto) for element in app.get("html"))


def test_an_import_is_removed_once_that_is_confirmed(pets):
    app = page()
    press(app, "Remove")
    assert imports.names() == ["pets"] and str(pets.root) in "\n".join(texts(app.markdown))
    app.button(key="confirm-removal").click().run()
    assert not app.exception and imports.names() == []


def test_the_train_page_minds_that_a_dataset_was_removed(pets):
    app = AppTest.from_file("../app.py", default_timeout=60)
    app.session_state["dataset"] = "pets"
    app.query_params["run"] = "new"
    app.switch_page("pages/train.py").run()
    assert app.selectbox(key="dataset").value == "pets"
    imports.remove("pets")
    app.run()
    assert not app.exception and "pets is no longer here" in app.warning[0].value
