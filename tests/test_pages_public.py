"""The pages as strangers meet them, and the login of a private app: by deep link, nothing of a page before it."""

from __future__ import annotations

import io

import pytest
import streamlit as st
from streamlit import config
from streamlit.testing.v1 import AppTest

from alexnet import doodles, public, runs
from alexnet.recipes import RECIPES

PAGES = ("train", "data", "augment", "runs", "architecture")
OFF = "This app is open to the public and offers no"


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    st.cache_data.clear()
    monkeypatch.setattr(runs, "weights_dir", lambda: tmp_path / "weights")


@pytest.fixture
def to_strangers(monkeypatch):
    monkeypatch.setenv("ALEXNET_PUBLIC", "1")
    before = config.get_option("server.maxUploadSize")
    yield
    config.set_option("server.maxUploadSize", before)


@pytest.fixture
def finished(untrained_run):
    """A run of this home with the network that has random weights."""
    folder = runs.runs_dir() / "mine"
    folder.mkdir(parents=True)
    dataset = {"name": "pets", "fingerprint": "", "photos": 9}
    runs.write_json(
        folder / "run.json", runs.configuration(RECIPES["first-run"], ["cat", "dog"], "/secret/pets", dataset)
    )
    for file in ("run.json", "status.json", "weights.safetensors"):
        (folder / file).write_bytes((untrained_run[0].path / file).read_bytes())
    return runs.Run(folder)


def page(name: str = "", **query: str) -> AppTest:
    app = AppTest.from_file("../app.py", default_timeout=300)
    app.run()
    for key, value in query.items():
        app.query_params[key] = value
    if name:
        app.switch_page(f"pages/{name}.py")
    app.run()
    assert not app.exception
    return app


def buttons(app: AppTest) -> set[str]:
    return {button.label for button in app.button}


@pytest.mark.parametrize(("name", "what"), [("train", "training"), ("data", "datasets")])
def test_pages_that_change_things_say_so_instead(to_strangers, name, what):
    app = page(name)
    assert [info.value.startswith(f"{OFF} {what}; ") for info in app.info] == [True]
    assert not app.button and not app.text_input and not app.selectbox


def test_runs_can_be_looked_at_and_not_changed(to_strangers, finished):
    app = page("runs", run="mine")
    assert [tab.label for tab in app.tabs] == ["Overview", "Evaluation"]
    assert not {"Title and note", "Delete", "Open on the Train page", "Answer"} & buttons(app)
    assert not app.text_input
    assert not app.error
    assert any("Open to the public" in caption.value for caption in app.caption)
    app = page("runs", run="mine", tab="Evaluation")
    assert app.selectbox[0].options == ["Your own photos"]


def test_the_same_page_on_ones_own_computer(finished):
    app = page("runs", run="mine")
    assert {"Title and note", "Delete", "Open on the Train page"} <= buttons(app)
    assert not any("Open to the public" in caption.value for caption in app.caption)


def test_a_folder_in_the_address_is_not_looked_at(to_strangers, tmp_path, drawings):
    drawings(runs.home())
    app = page("augment", data=str(tmp_path))
    assert "A folder on this computer" not in app.selectbox(key="augment-data").options
    assert app.selectbox(key="augment-data").value == "doodles" and not app.text_input
    assert "Train with this" not in buttons(app)
    app = page("data", data=str(tmp_path))
    assert str(tmp_path) not in str(app.main)


def captions(app: AppTest) -> set[str]:
    return {caption.value for caption in app.caption}


def drawings(count: int) -> list[tuple[str, bytes, str]]:
    files = []
    for number in range(count):
        file = io.BytesIO()
        doodles.draw("cat", number, 40).save(file, "PNG")
        files.append((f"{number}.png", file.getvalue(), "image/png"))
    return files


def test_a_visitor_is_told_when_to_go_on_and_what_was_looked_at_is_not_counted_again(
    to_strangers, finished, monkeypatch
):
    monkeypatch.setattr(public, "MOST_PER_MINUTE", 3)
    app = page()
    app.file_uploader(key="photos").set_value(drawings(5)).run()
    assert len(app.warning) == 1 and "3 photos" in app.warning[0].value and "go on in" in app.warning[0].value
    assert captions(app) >= {"0.png", "2.png"} and not captions(app) & {"3.png", "4.png"}
    app.run()
    assert len(app.warning) == 1
    monkeypatch.setattr(public, "MOST_PER_MINUTE", 5)
    app.button(key="go-on-photos").click().run()
    assert not app.warning and captions(app) >= {"0.png", "4.png"}


def test_so_many_photos_at_once(to_strangers, finished, monkeypatch):
    monkeypatch.setattr(public, "MOST_AT_ONCE", 2)
    app = page()
    app.file_uploader(key="photos").set_value(drawings(3)).run()
    assert [warning.value for warning in app.warning] == [
        "Of 3 photos the first 2 are looked at; remove some for the others."
    ]


@pytest.mark.parametrize(("configured", "taken"), [(1000, 50), (20, 20)])
def test_a_public_app_takes_no_files_larger_than_photos(to_strangers, configured, taken):
    config.set_option("server.maxUploadSize", configured)
    page("classify")
    assert config.get_option("server.maxUploadSize") == taken


# ---------------------------------------------------------------------------------------------------------------- login


def private(name: str, **user: object) -> AppTest:
    """A page of an app that asks for a login; tests/test_network.py goes there by its address."""
    app = AppTest.from_file("../app.py", default_timeout=300)
    app.secrets["auth"] = {"client_id": "lab"}
    app.user = user
    app.run()
    app.switch_page(f"pages/{name}.py").run()
    assert not app.exception
    return app


@pytest.mark.parametrize("name", PAGES)
def test_before_login_there_is_the_login_and_nothing_of_a_page(name):
    app = private(name)
    assert buttons(app) == {"Log in"}
    assert [title.value for title in app.title] == ["AlexNet Lab"]
    assert not (app.selectbox or app.text_input or app.subheader or app.caption or app.info or app.error)


@pytest.mark.parametrize("name", ["train", "runs"])
def test_after_login_the_page_is_there(name):
    app = private(name, is_logged_in=True)
    assert "Log in" not in buttons(app) and app.title[0].value.lower() == name


def test_secrets_that_cannot_be_read_let_nobody_in(tmp_path):
    before = config.get_option("secrets.files")
    (tmp_path / "secrets.toml").write_text("[auth\n")
    config.set_option("secrets.files", [str(tmp_path / "secrets.toml")])
    try:
        app = page("train")
        assert [error.value for error in app.error] == [
            "The file secrets.toml cannot be read, so nobody is let in; mend it or move it away."
        ]
        assert not app.title
    finally:
        config.set_option("secrets.files", before)
