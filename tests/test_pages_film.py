"""The film of a run on the Train page, without a browser."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from alexnet import figures, film, runs
from alexnet.data import Dataset, Report
from alexnet.film import Frame, Subject
from alexnet.recipes import Recipe

GREY = (120, 120, 120)
ANSWERS = {1: [0.4, 0.4], 2: [0.6, 0.4], 3: [0.8, 0.9]}  # epoch -> the probability of its own class, cat and dog
RIGHT = {1: 0, 2: 1, 3: 2}


@pytest.fixture(autouse=True)
def alone():
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.fixture
def run():
    """A finished run with a film of a cat and a dog; each map is as strong as the number of its epoch, the cat's for it."""
    dataset = Dataset("nothing", Path("nothing"), ("cat", "dog"), (), Report(0, 0, (), {}))
    run = runs.create(Recipe(name="small"), "nothing", dataset, path=runs.runs_dir() / "learnt")
    best = {"epoch": 3, "accuracy": 0.9, "loss": 0.1}
    runs.write_status(run.path, runs.Status(state="finished", epoch=3, epochs=3, best=best))
    subjects = [Subject(f"{name}/<b>.jpg", name, Image.new("RGB", (24, 24), GREY)) for name in ("cat", "dog")]
    film.write_subjects(run.path, subjects)
    for epoch, (cat, dog) in ANSWERS.items():
        rows = np.array([[cat, 1 - cat], [1 - dog, dog]], np.float32)
        signs = np.array([1, -1], np.float32)[:, None, None]
        maps = epoch * signs * np.ones((2, 3, 3), np.float32)
        film.write_frame(run.path, epoch, Frame(rows, maps, np.full((4, 3, 5, 5), epoch / 3, np.float16)))
    return run


def page(**query: str) -> AppTest:
    app = AppTest.from_file("../app.py", default_timeout=60)
    app.query_params.update({"run": "learnt", **query})
    app.switch_page("pages/train.py").run()
    assert not app.exception
    return app


def shown(app: AppTest) -> str:
    """The HTML of the photos and the filters."""
    return "".join(h.proto.body for h in app.get("html") if "<figure" in h.proto.body)


def captions(app: AppTest) -> str:
    return " ".join(caption.value for caption in app.caption)


def pictures(app: AppTest) -> list[np.ndarray]:
    """What is shown of the photos, and of the filters."""
    found = re.findall(r"data:image/(?:jpeg|png);base64,([^']+)'", shown(app))
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(file)))).astype(int) for file in found]


def test_a_film_is_not_even_read_before_it_is_opened(run, monkeypatch):
    monkeypatch.setattr(film, "read", lambda run: pytest.fail("read"))
    assert "Watch it learn" in [expander.label for expander in page().expander]


def test_the_newest_epoch_is_shown_until_another_is_chosen(run):
    app = page(film="true")
    for epoch in (3, 1, 2):
        if epoch < 3:
            app.select_slider(key="film-epoch").set_value(epoch).run()
            assert app.query_params["epoch"] == str(epoch)
        kept = ", whose weights are kept," if epoch == 3 else ""
        assert f"After epoch {epoch}{kept} it answers {RIGHT[epoch]} of these 2 validation photos right." in captions(
            app
        )
        marks = ["✓" if p > 0.5 else "✗" for p in ANSWERS[epoch]]
        assert re.findall("[✓✗]", shown(app)) == marks
        assert re.findall(r"(\d+)%</span>", shown(app)) == [f"{100 * p:.0f}" for p in ANSWERS[epoch]]
        assert shown(app).count("taken for") == marks.count("✗")
    app.select_slider(key="film-epoch").set_value(3).run()
    assert "epoch" not in app.query_params
    rows = np.full((2, 2), 0.5, np.float32)
    film.write_frame(run.path, 4, Frame(rows))  # it goes on training
    assert "After epoch 4 it" in captions(app.run())


def test_a_link_restores_the_epoch(run):
    assert "After epoch 2 it" in captions(page(film="true", epoch="2"))
    for nonsense in ("7", "x", "²", ""):
        assert "After epoch 3, " in captions(page(film="true", epoch=nonsense))


def test_maps_and_filters_have_one_scale_for_all_epochs(run):
    cat, dog, filters = pictures(page(film="true", epoch="3"))
    # Both speak for the cat: the cat's map for it, the dog's against the dog. Most of the colour covers the photo.
    orange = np.array([int(figures.CAT[i : i + 2], 16) for i in (1, 3, 5)])
    for picture in (cat, dog):
        np.testing.assert_allclose(picture.mean(axis=(0, 1)), 0.8 * orange + 0.2 * np.array(GREY), atol=6)
    assert filters[0, 0].tolist() == [255, 255, 255, 255] and filters[0, 5, 3] == 0
    weak, _, filters = pictures(page(film="true", epoch="1"))
    assert np.abs(weak.mean(axis=(0, 1)) - GREY).sum() < np.abs(cat.mean(axis=(0, 1)) - GREY).sum() / 1.5
    assert filters[0, 0].tolist() == [170, 170, 170, 255]  # a third of the largest weight


def test_names_of_photos_cannot_become_part_of_the_page(run):
    assert "<b>" not in shown(page(film="true")) and "cat/&lt;b&gt;.jpg" in shown(page(film="true"))


def test_a_network_without_convolutions_and_a_single_epoch(run):
    film.forget_after(run.path, 0)
    film.write_frame(run.path, 1, Frame(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)))
    app = page(film="true")
    assert "After epoch 1 it answers 2 of these 2 validation photos right." in captions(app) and not app.select_slider
    cat, dog = pictures(app)
    assert np.abs(cat - GREY).max() < 6 and "Grad-CAM" not in captions(app)


@pytest.mark.parametrize("name", ["photos.json", "photos.jpg", "epoch-1.safetensors"])
def test_a_half_written_film_is_one_sentence(run, name):
    film.forget_after(run.path, 1)
    (run.path / "film" / name).write_bytes(b"half")
    app = page(film="true")
    assert [info.value for info in app.info][-1].startswith("The film of this run cannot be read")


def test_a_run_without_a_film_does_not_mention_one(run):
    film.forget_after(run.path, 0)
    assert "Watch it learn" not in [expander.label for expander in page().expander]
