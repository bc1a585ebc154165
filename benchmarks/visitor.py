"""A visitor of the app without a browser: the messages and uploads that Streamlit's page would exchange with its server.

Thirty browsers would take the cores from what is measured. This speaks the same protocol (Streamlit's own
`streamlit.proto`) over the same websocket and the same upload address, and keeps what the page would show.
"""

from __future__ import annotations

import contextlib
import html
import http.cookiejar
import re
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import ClientConnection, connect

PATIENCE = 300.0  # seconds for an answer before the app counts as hanging
TOKEN = "_streamlit_xsrf"  # the cookie that uploads have to repeat in a header


class VisitError(Exception):
    """The app failed this visitor: an error on the page, or no answer."""


class Visitor:
    """One session. `elements` is what its page shows: Streamlit's element by its place."""

    def __init__(self, address: str, connection: ClientConnection, opener: urllib.request.OpenerDirector) -> None:
        self.address, self._connection, self._opener = address, connection, opener
        self.elements: dict[tuple[int, ...], Any] = {}
        self._touched: set[tuple[int, ...]] = set()
        self._widgets: dict[str, WidgetState] = {}
        self._session = self._page = ""

    def open(self, page: str = "") -> None:
        """Go to the page with this address, `train` for one, and wait until it is there."""
        self._page = page
        self._widgets.clear()
        self.rerun()
        self.finish()

    def upload(self, name: str, content: bytes) -> None:
        """Put a photo into the page's first uploader, in place of one before, and have the page run; see `wait_for`."""
        uploader = next(e.file_uploader for e in self.elements.values() if e.WhichOneof("type") == "file_uploader")
        place = self._place_for(name)
        self._put(place.upload_url, name, content)
        state = WidgetState(id=uploader.id)
        state.file_uploader_state_value.uploaded_file_info.add(
            name=name, size=len(content), file_id=place.file_id, file_urls=place
        )
        self._widgets[uploader.id] = state
        self.rerun()

    def rerun(self) -> None:
        """Have the page run with its widgets as they are."""
        message = BackMsg()
        message.rerun_script.page_name = self._page
        message.rerun_script.widget_states.widgets.extend(self._widgets.values())
        self._send(message)

    def wait_for(self, seen: Callable[[str], bool]) -> float:
        """Seconds until the text of a page that is run says what `seen` looks for.

        Raises:
            VisitError: the page failed, or ended without.
        """
        started = time.perf_counter()
        while not seen(self.text()):
            if self._receive() == "script_finished" and not seen(self.text()):
                raise VisitError(f"The page never said it, but: {self.text()[:500]}")
        return time.perf_counter() - started

    def finish(self) -> None:
        """Wait until the page has run.

        Raises:
            VisitError: it failed, or hangs.
        """
        while self._receive() != "script_finished":
            pass

    def text(self) -> str:
        """What the page says in headings, markdown, HTML and beneath pictures, without its tags and line breaks."""
        bodies = (body for place in sorted(self.elements) for body in _bodies(self.elements[place]))
        said = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)) for body in bodies)
        return " ".join(said.split())

    def _place_for(self, name: str) -> Any:
        """Where the server wants the next file."""
        message = BackMsg()
        message.file_urls_request.request_id = uuid.uuid4().hex
        message.file_urls_request.file_names.append(name)
        message.file_urls_request.session_id = self._session
        self._send(message)
        while self._receive() != "file_urls_response":
            pass
        return self._last.file_urls_response.file_urls[0]

    def _put(self, path: str, name: str, content: bytes) -> None:
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        request = urllib.request.Request(
            f"{self.address}{path}", head.encode() + content + f"\r\n--{boundary}--\r\n".encode(), method="PUT"
        )
        request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
        request.add_header("X-Xsrftoken", _token(self._opener))
        self._opener.open(request, timeout=PATIENCE).close()

    def _send(self, message: BackMsg) -> None:
        self._connection.send(message.SerializeToString())

    def _receive(self) -> str:
        """Take in one message; returns its kind."""
        try:
            self._last = ForwardMsg.FromString(self._connection.recv(PATIENCE))
        except TimeoutError:
            raise VisitError(f"The app has said nothing for {PATIENCE:.0f} seconds.") from None
        kind = self._last.WhichOneof("type")
        if kind == "new_session":
            self._session = self._last.new_session.initialize.session_id
            self._touched = set()
        elif kind == "delta":
            self._draw(tuple(self._last.metadata.delta_path), self._last.delta)
        elif kind == "script_finished":
            self.elements = {place: e for place, e in self.elements.items() if place in self._touched}
        return kind

    def _draw(self, place: tuple[int, ...], delta: Any) -> None:
        self._touched.add(place)
        if delta.WhichOneof("type") == "new_element":
            self.elements[place] = delta.new_element
            if delta.new_element.WhichOneof("type") == "exception":
                raise VisitError(f"The page failed: {delta.new_element.exception.message}")
        else:  # a container, which takes the place of what was there
            self.elements = {other: e for other, e in self.elements.items() if other[: len(place)] != place}


@contextlib.contextmanager
def visit(address: str) -> Iterator[Visitor]:
    """A new visitor of the app at `address`, such as http://127.0.0.1:8501, with its first page open."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    opener.open(f"{address}/_stcore/health", timeout=PATIENCE).close()
    socket = connect(
        f"ws{address.removeprefix('http')}/_stcore/stream",
        subprotocols=["streamlit"],  # type: ignore[list-item]
        origin=address,  # type: ignore[arg-type]
        max_size=None,
    )
    with socket:
        visitor = Visitor(address, socket, opener)
        visitor.open()
        yield visitor


def _bodies(element: Any) -> list[str]:
    if element.WhichOneof("type") == "imgs":
        return [picture.caption for picture in element.imgs.imgs]
    return [getattr(getattr(element, element.WhichOneof("type")), "body", "")]


def _token(opener: urllib.request.OpenerDirector) -> str:
    for handler in opener.handlers:
        if isinstance(handler, urllib.request.HTTPCookieProcessor):
            return next(cookie.value or "" for cookie in handler.cookiejar if cookie.name == TOKEN)
    raise VisitError("The app gave no token for uploads.")
