"""The app on the network, as the real server: who is let in, what the browser asks for, and that no upload reaches the disk."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from alexnet import runs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
STARTUP = 300_000  # ms that the first import of torch, or drawing all doodles, may take on a busy machine
PAGES = ("", "classify", "train", "data", "augment", "runs", "architecture")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM and not os.environ.get("CI"), reason="there is no Chromium here"),
]

# Streamlit as its command starts it, which writes to `$OPENED` the path of every file that is opened to write to.
WATCHED = """
import os, sys
log = os.open(os.environ["OPENED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def watch(event, arguments):
    if event == "open" and arguments[2] & writing:
        os.write(log, f"{arguments[0]}\\n".encode())

sys.addaudithook(watch)
from streamlit.web.cli import main
sys.argv = ["streamlit", *sys.argv[1:]]
main()
"""


class Server:
    """A running app."""

    def __init__(self, home, *options: str, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.home, self.opened = home, home / "opened"
        self.url = f"http://127.0.0.1:{self.port}"
        started = [
            sys.executable,
            "-c",
            WATCHED,
            "run",
            "app.py",
            "--server.headless=true",
            f"--server.port={self.port}",
        ]
        variables = {"ALEXNET_HOME": str(home), "OPENED": str(self.opened), **environment}
        with (home / "app.log").open("w") as log:
            self.process = subprocess.Popen(
                [*started, *options], cwd=runs.PROJECT, env={**os.environ, **variables}, stdout=log, stderr=log
            )
        while not self.answers("127.0.0.1"):
            assert self.process.poll() is None, (home / "app.log").read_text()

    def answers(self, address: str) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((address, self.port)) == 0

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()
        assert "Traceback" not in (self.home / "app.log").read_text()


@pytest.fixture(scope="module")
def app(tmp_path_factory, drawings):
    """The app as a person starts it."""
    home = tmp_path_factory.mktemp("home")
    drawings(home)
    server = Server(home)
    yield server
    server.end()


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
    context = chromium.new_context()
    page = context.new_page()
    page.set_default_timeout(STARTUP)
    yield page
    context.close()


def settled(page) -> None:
    page.get_by_role("heading", level=1).first.wait_for()
    page.wait_for_timeout(300)
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')


def test_pages_ask_nobody_but_the_app_itself(page, app):
    """Scripts, fonts, pictures, web sockets and what workers fetch."""
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))
    page.on("websocket", lambda websocket: asked.add(websocket.url))
    for name in PAGES:
        page.goto(f"{app.url}/{name}")
        settled(page)
    page.goto(f"{app.url}/classify?example=dog-12")
    page.get_by_text("Evidence for").first.wait_for()
    page.goto(f"{app.url}/runs?run=cats-dogs&tab=Evaluation")
    settled(page)
    hosts = {urlsplit(url).hostname for url in asked if urlsplit(url).scheme not in ("data", "blob")}
    assert hosts == {"127.0.0.1"}
    assert any(url.startswith("ws://") for url in asked) and any(".woff" in url for url in asked)


def test_only_this_machine_is_listened_to(app):
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    assert not any(app.answers(address) for address in addresses if not address.startswith("127."))
    assert app.answers("127.0.0.1")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"Origin": "OWN"}, 101),
        ({"Origin": "http://attacker.example"}, 403),
        ({"Host": "attacker.example", "Origin": "http://attacker.example"}, 403),
    ],
)
def test_web_sockets_of_foreign_hosts_and_origins_are_refused(app, headers, status):
    """As another site's script, or a name that was bent to this address (DNS rebinding), would ask."""
    connection = http.client.HTTPConnection("127.0.0.1", app.port)
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **{name: value.replace("OWN", app.url) for name, value in headers.items()},
    }
    connection.request("GET", "/_stcore/stream", headers=handshake)
    assert connection.getresponse().status == status
    connection.close()


def large_photo() -> bytes:
    """A photo of some 3 MB, which a server would by default put into a temporary file."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("public", [False, True])
def test_an_upload_is_written_nowhere(page, tmp_path, public):
    options = ("--server.maxUploadSize=20",) if public else ()
    server = Server(tmp_path, *options, ALEXNET_PUBLIC="1" if public else "")
    try:
        page.goto(f"{server.url}/classify?example=dog-12")  # all that is imported has been by then
        page.get_by_text("Evidence for").first.wait_for()
        settled(page)
        before = len(server.opened.read_text().splitlines())
        photo = {"name": "secret.png", "mimeType": "image/png", "buffer": large_photo()}
        page.locator("input[type=file]").first.set_input_files(photo)
        page.get_by_text("secret.png").first.wait_for()
        settled(page)
        opened = server.opened.read_text().splitlines()[before:]
        assert [path for path in opened if not path.endswith(".pyc") and "__pycache__" not in path] == []
    finally:
        server.end()


def test_a_deep_link_before_login_shows_the_login_and_nothing_of_the_page(page, tmp_path):
    secrets = {
        "redirect_uri": "https://lab.example/oauth2callback",
        "cookie_secret": "0" * 32,
        "client_id": "lab",
        "client_secret": "1",
        "server_metadata_url": "https://login.example/.well-known/openid-configuration",
    }
    lines = (f"{name} = {json.dumps(value)}" for name, value in secrets.items())
    (tmp_path / "secrets.toml").write_text("\n".join(["[auth]", *lines]))
    server = Server(tmp_path, f"--secrets.files={tmp_path / 'secrets.toml'}")
    try:
        for name in ("train", "data?data=doodles", "runs?run=cats-dogs", ""):
            page.goto(f"{server.url}/{name}")  # the first of them is the server's first session
            page.get_by_role("button", name="Log in").wait_for()
            settled(page)
            assert page.get_by_role("heading").all_inner_texts() == ["AlexNet Lab"]
            assert page.get_by_role("button", name="Log in").count() == 1
            links = [link.get_attribute("href") for link in page.get_by_role("link").all()]
            assert all(link.startswith("#") for link in links)  # to places on this page
            assert page.get_by_role("combobox").count() == page.get_by_role("textbox").count() == 0
    finally:
        server.end()
