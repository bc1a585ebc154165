"""The road itself, in Chromium against the real app: classify a photo; train, watch, reload, stop, and use the result."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from alexnet import doodles, runs
from alexnet.recipes import RECIPES

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
STARTUP = 60_000  # ms that the first import of torch may take on a busy machine
TRAINING = 600_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM and not os.environ.get("CI"), reason="there is no Chromium here"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory, drawings):
    """That of the app, its own."""
    home = tmp_path_factory.mktemp("home")
    drawings(home)
    return home


@pytest.fixture(scope="module")
def app(home):
    """The address of the app, started as a person would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (home / "app.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true", f"--server.port={port}"],
            cwd=runs.PROJECT,
            env={**os.environ, "ALEXNET_HOME": str(home)},
            stdout=log,
            stderr=log,
        )
    wait_for_port(port, server)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()
    assert "Traceback" not in (home / "app.log").read_text()


def wait_for_port(port: int, server: subprocess.Popen) -> None:
    while True:
        assert server.poll() is None, "the app did not start"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A tab of a new visitor, in which no script may fail."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(STARTUP)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    assert page.get_by_text("Traceback").count() == 0
    context.close()
    assert failures == []


def settled(page) -> None:
    page.wait_for_timeout(300)
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')


def enter(page, label: str, value: str, role: str = "spinbutton") -> None:
    field = page.get_by_role(role, name=label, exact=True)
    field.fill(value)
    field.press("Enter")
    settled(page)


def start_on_doodles(page, app: str, epochs: int) -> str:
    """Start a small run from the form; returns its id."""
    page.goto(f"{app}/train?run=new")
    page.get_by_text("files found").wait_for()
    settled(page)
    enter(page, "Epochs", str(epochs))
    enter(page, "Image size", "67")
    page.get_by_text("More settings").click()
    page.get_by_role("tab", name="Model").click()
    enter(page, "Hidden units", "64 64", role="textbox")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**run=2*")
    page.get_by_role("button", name="Start", exact=True).wait_for(state="hidden")  # and with it the form's own chart
    return page.url.split("run=")[1]


def training_points(page) -> int:
    """How many points the drawn training curve has by now."""
    return page.evaluate(
        "() => [...document.querySelectorAll('.live-chart')].flatMap(e => e.data ?? [])"
        ".reduce((most, trace) => Math.max(most, trace.x.length), 0)"
    )


def test_classify_has_an_address_of_its_own(page, app):
    page.goto(f"{app}/classify?example=dog-12&method=Saliency")  # the server's first session, which works otherwise
    page.get_by_text("Evidence for").first.wait_for()
    settled(page)
    assert page.get_by_text("Page not found").count() == 0
    assert page.get_by_role("heading", level=1).inner_text() == "Classify"
    page.get_by_role("link", name="Train").click()
    page.get_by_role("heading", name="Train", level=1).wait_for()
    page.go_back()
    page.get_by_role("heading", name="Classify", level=1).wait_for()
    page.goto(app)
    page.get_by_role("heading", name="Classify", level=1).wait_for()
    settled(page)
    assert page.get_by_role("dialog").count() == 0


def test_the_model_card_opens_and_fits_the_screen(chromium, app):
    context = chromium.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.set_default_timeout(STARTUP)
    page.goto(app)
    page.get_by_role("button", name="About this network").click()
    card = page.get_by_role("dialog")
    card.get_by_role("heading", name="Known limits").wait_for()
    settled(page)
    assert card.evaluate("e => e.scrollWidth <= e.clientWidth") and card.bounding_box()["width"] <= 390
    context.close()


def test_upload_a_photo_and_see_label_and_map(page, app, tmp_path):
    photo = tmp_path / "cat.png"
    doodles.draw("cat", 1).save(photo)
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    page.goto(app)
    page.locator("input[type=file]").first.set_input_files([photo, broken])
    page.get_by_text("Evidence for").first.wait_for()
    settled(page)
    assert page.get_by_text("broken.jpg").count() > 0
    assert page.locator('[data-testid="stAlert"]').count() == 1
    assert page.get_by_text("%", exact=False).count() >= 2
    assert page.locator('[data-testid="stImage"] img').count() >= 2


def test_train_watch_reload_finish_and_classify(page, app, tmp_path):
    run_id = start_on_doodles(page, app, epochs=2)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.live-chart')].some(e => e.data?.some(t => t.x.length > 3))",
        timeout=TRAINING,
    )
    before = training_points(page)
    page.reload()
    page.get_by_text("Running").first.wait_for()
    page.wait_for_function(
        f"() => [...document.querySelectorAll('.live-chart')].some(e => e.data?.some(t => t.x.length > {before}))",
        timeout=TRAINING,
    )
    page.get_by_role("button", name="Classify photos with it").wait_for(timeout=TRAINING)
    page.get_by_text("Test accuracy").wait_for()
    page.get_by_text("Watch it learn").click()
    page.get_by_text("After epoch 2").first.wait_for()
    page.wait_for_function("() => document.querySelector('figure img')?.naturalWidth === 67")
    page.get_by_role("slider", name="Epoch").press("ArrowLeft")
    page.get_by_text("After epoch 1").first.wait_for()
    page.wait_for_url("**epoch=1*")
    page.get_by_role("button", name="Classify photos with it").click()
    page.wait_for_url(f"**run={run_id}*")
    photo = tmp_path / "dog.png"
    doodles.draw("dog", 1).save(photo)
    page.locator("input[type=file]").first.set_input_files(photo)
    page.get_by_text("Evidence for").first.wait_for()
    assert page.get_by_role("combobox", name="Run", exact=True).input_value() == run_id


def test_stop_a_run(page, app):
    start_on_doodles(page, app, epochs=50)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.live-chart')].some(e => e.data?.some(t => t.x.length > 1))",
        timeout=TRAINING,
    )
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped; it can be resumed.").wait_for(timeout=TRAINING)
    page.get_by_role("button", name="Resume").wait_for()


def test_a_photo_is_followed_into_a_layer_a_unit_and_a_place_and_a_reload_finds_it_again(page, app):
    page.goto(f"{app}/architecture?photo=dog-12")
    page.get_by_role("button", name="conv2, puts out 256 × 27 × 27").click()
    page.wait_for_url("**layer=conv2*")
    settled(page)
    tile = page.locator(".sheet button").nth(2)
    number = tile.inner_text().strip()
    tile.click()
    page.wait_for_url(f"**unit={number}*")
    map_ = page.get_by_role("application")
    box = map_.bounding_box()
    map_.click(position={"x": box["width"] * 10.5 / 27, "y": box["height"] * 4.5 / 27})
    page.get_by_role("heading", name=f"conv2, map {number}, row 4, column 10: ").wait_for()
    map_.press("ArrowRight")
    heading = page.get_by_role("heading", name=f"conv2, map {number}, row 4, column 11: ")
    said = heading.inner_text()
    assert "photo=dog-12" in page.url
    page.reload()
    heading.wait_for()
    assert heading.inner_text() == said
    page.get_by_text(f"The network itself put out {said.split(': ')[1].replace('-', '−')}.").wait_for()
    page.get_by_role("tab", name="Filters").click()
    page.locator(".sheet button").nth(7).click()
    page.get_by_role("heading", name="conv1, map 7, row ").wait_for()


def test_a_slider_is_moved_by_keyboard_and_a_reload_finds_it_again(page, app):
    def sample() -> str:
        return page.get_by_role("img", name="Brightness: −31%").get_attribute("src")

    page.goto(f"{app}/augment?recipe=first-run&seed=3&data=own&example=dog-12")
    page.get_by_role("img", name="Brightness: −30%").wait_for()
    slider = page.get_by_role("slider", name="8. Brightness")
    slider.focus()
    slider.press("ArrowRight")
    page.get_by_role("img", name="Brightness: −31%").wait_for()
    page.wait_for_url("**brightness=0.31*")
    before = sample()
    page.reload()
    page.get_by_role("img", name="Brightness: −31%").wait_for()
    assert sample() == before and "seed=3" in page.url
    page.get_by_role("button", name="Train with this").click()
    page.get_by_role("heading", name="Train", level=1).wait_for()


@pytest.mark.parametrize(
    "path", ["", "/classify", "/train", "/data", "/augment", "/runs", "/runs?run=cats-dogs", "/architecture"]
)
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_screen(chromium, app, path, width):
    context = chromium.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.set_default_timeout(STARTUP)
    page.goto(app + path)
    page.get_by_role("heading", level=1).wait_for()
    settled(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    context.close()


def erased(page) -> str:
    """What the picture that is left says of itself, once the page has settled."""
    settled(page)
    return page.get_by_text("% erased").inner_text().split()[-2]


def test_painting_over_the_photo_moves_the_probabilities(page, app):
    page.goto(f"{app}/classify?example=dog-12&method=Saliency&erase=true")
    canvas = page.get_by_role("application")
    canvas.wait_for()
    page.get_by_text("% erased").wait_for()
    assert erased(page) == "0%" and page.get_by_text(" points").count() == 0
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2, steps=8)
    page.mouse.up()
    page.get_by_text(" points").first.wait_for()
    stroke = 0.8 * 0.16 + 3.14 * 0.08**2  # a line of 0.8 with round ends, 0.16 wide
    assert abs(float(erased(page).rstrip("%")) / 100 - stroke) < 0.02
    page.get_by_role("button", name="Undo").click()
    page.get_by_text(" points").first.wait_for(state="detached")
    assert erased(page) == "0%"

    canvas.focus()  # the same without a mouse
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Space")
    page.get_by_text("2% erased").wait_for()
    page.keyboard.press("Delete")
    page.get_by_text("0% erased").wait_for()


def finished_run(folder, curve: list[float], created: float) -> None:
    """A run folder as a trainer leaves it, of a run in which nothing was trained."""
    dataset = {"name": "pets", "fingerprint": "", "photos": 9}
    config = runs.configuration(RECIPES["first-run"], ["cat", "dog"], "pets", dataset)
    folder.mkdir(parents=True)
    runs.write_json(folder / "run.json", {**config, "created": created})
    records = (
        {"epoch": e, "step": e, "split": "val", "loss": 1.0, "accuracy": a} for e, a in enumerate(curve, start=1)
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    runs.write_status(folder, runs.Status(state="finished", epoch=len(curve), epochs=len(curve)))


def tick(page, row: int) -> None:
    """Choose or leave a row of the table, from 0."""
    box = page.get_by_test_id("stDataFrame").first.bounding_box()
    page.mouse.click(box["x"] + 18, box["y"] + 35 * (row + 1.5))
    settled(page)


def test_runs_are_chosen_compared_named_deleted_and_brought_back(page, app, home):
    future = time.time() + 1e6  # so that they come first
    finished_run(home / "runs" / "one", [0.5, 0.7], future + 1)
    finished_run(home / "runs" / "two", [0.6, 0.8], future)
    page.goto(f"{app}/runs")
    page.get_by_test_id("stDataFrame").first.wait_for()
    settled(page)
    tick(page, 0)
    page.wait_for_url("**runs=one")
    tick(page, 1)
    page.wait_for_url("**runs=one%2Ctwo")
    page.get_by_role("heading", name="Settings that differ").wait_for()
    page.reload()
    page.get_by_role("heading", name="Settings that differ").wait_for()
    settled(page)
    names = "[...document.querySelectorAll('.live-chart')].flatMap(e => e.data ?? []).map(t => t.name)"
    page.wait_for_function(f"() => String({names}) === 'one,two'")
    tick(page, 1)
    page.wait_for_url("**runs=one")

    page.get_by_role("button", name="Title and note").click()
    page.get_by_role("textbox", name="Title", exact=True).fill("The *first*")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("dialog").wait_for(state="detached")
    page.get_by_role("button", name="Open", exact=True).click()
    page.get_by_role("heading", name="The *first*").wait_for()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Undo").wait_for()
    assert not (home / "runs" / "one").exists()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").wait_for(state="detached")
    assert json.loads((home / "runs" / "one" / "note.json").read_text())["title"] == "The *first*"


def test_dropped_folders_become_a_dataset_whose_labels_are_corrected_and_undone(page, app, tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / "drawn" / label).mkdir(parents=True)
        for number in range(4):
            doodles.draw(label, number).save(tmp_path / "drawn" / label / f"{label}-{number}.png")
    page.goto(f"{app}/data")
    page.get_by_text("Folders, dropped").click()
    page.get_by_text("Held in memory until they are imported").wait_for()
    page.locator("input[type=file]").set_input_files(tmp_path / "drawn")
    page.get_by_role("textbox", name="cat, 4 photos").wait_for()
    page.get_by_role("button", name="Import", exact=True).click()
    page.wait_for_url("**data=drawn*")
    page.get_by_role("img", name="cat: cat/cat-1.png").wait_for()
    page.get_by_role("tab", name="Duplicates").click()
    page.get_by_role("button", name="Leave out", exact=True).first.click()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").wait_for(state="detached")
    page.get_by_role("button", name="All datasets").click()
    page.get_by_role("heading", name="Your own photos").wait_for()  # on the list alone; the dataset's page has the rest
    page.wait_for_url(lambda address: "data=" not in address)
    page.get_by_text("Imported from drawn on").wait_for()
