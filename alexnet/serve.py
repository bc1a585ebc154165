"""A JSON API over one classifier: photos come in as uploads, answers go out as `classify --json` prints them.

Photos stay in memory. Starlette and uvicorn are what Streamlit itself runs on.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from urllib.parse import urlsplit

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from alexnet import images
from alexnet.errors import LabError
from alexnet.predict import Classifier

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")  # names by which this machine is asked from itself
MOST_BYTES = 2 * images.MAX_BYTES  # of a request
MOST_PHOTOS = 100  # in a request
PARALLEL = 4  # requests whose photos are in memory at once; the others wait
UPLOAD_SECONDS = 120.0  # that a request may take to arrive, as it keeps others waiting

NO_FORM = "Send photos as multipart/form-data, for example with curl -F photo=@cat.jpg."
NO_PHOTO = "The form holds no photo: send at least one file, for example with curl -F photo=@cat.jpg."
TOO_LARGE = f"The request is larger than {MOST_BYTES // 10**6} MB: send fewer or smaller photos."
TOO_MANY = f"The form is damaged, or holds more than {MOST_PHOTOS} photos: send fewer at once."
TOO_SLOW = f"The photos did not arrive within {UPLOAD_SECONDS:.0f} s: send fewer or smaller ones."
STRANGE_HOST = "This server is not known by that name: start it with --allow-host and the name that you use."
FAILED = "The server failed at this request; its log says more."
MEANINGS = {
    404: "There is nothing at this address: POST photos to /classify, or see /openapi.json.",
    405: "This address does not take that method: POST to /classify, GET /health and /openapi.json.",
}
CLOSE = {"Connection": "close"}  # after a refusal, or the server would read on what is still being sent


class ServeError(LabError, RuntimeError):
    """The server cannot be started; the text is one sentence."""


class _InMemoryParser(MultiPartParser):
    spool_max_size = 0  # never to a temporary file


class _KnownHosts:
    """Answers only who asked for one of `hosts`: a foreign website could give this machine's address a name of its own."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app, self.hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _host_name(Headers(scope=scope)) not in self.hosts:
            await JSONResponse({"error": STRANGE_HOST}, 400, CLOSE)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _host_name(headers: Headers) -> str | None:
    try:
        return urlsplit("//" + headers.get("host", "")).hostname
    except ValueError:
        return None


def application(classifier: Classifier, hosts: Sequence[str] = LOCAL_HOSTS) -> Starlette:
    """The API of `classifier`, for whoever asks for one of `hosts`, names without ports.

    Every answer is JSON; one that is not 200 has a sentence in `error`.
    """
    turn = anyio.Semaphore(PARALLEL)

    async def classify(request: Request) -> JSONResponse:
        async with turn:
            photos = await _photos(request)
            answers, status = await anyio.to_thread.run_sync(_answers, classifier, photos)
        content = {"run": classifier.run.id, "photos": answers}
        if status != 200:
            content["error"] = answers[0]["error"] if len(answers) == 1 else "None of these photos can be used."
        return JSONResponse(content, status)

    def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "run": classifier.run.id, "classes": list(classifier.classes)})

    def openapi(_: Request) -> JSONResponse:
        return JSONResponse(description(classifier))

    routes = [
        Route("/classify", classify, methods=["POST"]),
        Route("/health", health),
        Route("/openapi.json", openapi),
    ]
    handlers: dict[Any, Any] = {HTTPException: _as_json, Exception: _failure}
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(_KnownHosts, hosts=hosts)])


async def _photos(request: Request) -> list[tuple[str, bytes]]:
    """Name and content of each file in the request; HTTPException says why there are none."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise HTTPException(415, NO_FORM)
    try:
        with anyio.fail_after(UPLOAD_SECONDS):
            parser = _InMemoryParser(request.headers, _limited(request), max_files=MOST_PHOTOS)
            form = await parser.parse()
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            photos = [(file.filename or "", await file.read()) for file in files]
            await form.close()
    except MultiPartException:
        raise HTTPException(400, TOO_MANY) from None
    except TimeoutError:
        raise HTTPException(408, TOO_SLOW) from None
    except ClientDisconnect:
        raise HTTPException(400, NO_PHOTO) from None  # nobody is there to read it
    if not photos:
        raise HTTPException(400, NO_PHOTO)
    return photos


async def _limited(request: Request) -> AsyncGenerator[bytes, None]:
    """The body, as long as it is not too large."""
    announced = request.headers.get("content-length", "0")
    received = int(announced) if announced.isdecimal() else 0
    if received > MOST_BYTES:
        raise HTTPException(413, TOO_LARGE)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > MOST_BYTES:
            raise HTTPException(413, TOO_LARGE)
        yield chunk


def _answers(classifier: Classifier, photos: Sequence[tuple[str, bytes]]) -> tuple[list[dict[str, Any]], int]:
    """An answer for each photo, and the status: 200 if one of them could be used, or else what was wrong with the first."""
    answers, faults = [], []
    for name, data in photos:
        try:
            prediction = classifier([images.open_photo(data)])[0]  # which takes the classifier's lock
            answers.append({"file": name, **prediction.to_dict()})
        except images.PhotoError as error:
            answers.append({"file": name, "error": str(error)})
            faults.append(error)
    return answers, _status(faults[0]) if len(faults) == len(photos) else 200


def _status(error: images.PhotoError) -> int:
    statuses = {images.TooLargeError: 413, images.UnknownFormatError: 415}
    return statuses.get(type(error), 400)


def _as_json(_: Request, error: HTTPException) -> JSONResponse:
    content = {"error": MEANINGS.get(error.status_code, error.detail)}
    return JSONResponse(content, error.status_code, {**(error.headers or {}), **CLOSE})


def _failure(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({"error": FAILED}, 500)


def description(classifier: Classifier) -> dict[str, Any]:
    """The OpenAPI description of `application`."""
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    nullable: dict[str, dict[str, Any]] = {
        "familiarity": {**probability, "type": ["number", "null"]},
        "label": {"type": ["string", "null"]},
    }
    probabilities = dict.fromkeys(classifier.classes, probability)
    answer = {
        "file": {"type": "string", "description": "the name that it was sent under"},
        "label": {**nullable["label"], "description": "the class, or null for a photo that looks like none of them"},
        "familiarity": {**nullable["familiarity"], "description": "share of validation photos that look less familiar"},
        "probabilities": {"type": "object", "properties": probabilities},
        "error": {"type": "string", "description": "instead of an answer: why the photo cannot be used"},
    }
    photo = {"type": "object", "required": ["file"], "properties": answer}
    answers = {"run": {"type": "string"}, "photos": {"type": "array", "items": photo}}
    health = {"status": {"const": "ok"}, "run": {"type": "string"}, "classes": {"type": "array"}}
    upload = {"photo": {"type": "array", "maxItems": MOST_PHOTOS, "items": {"type": "string", "format": "binary"}}}
    wrong = {status: _content(what, {"error": {"type": "string"}}) for status, what in WRONG.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"AlexNet Lab: {classifier.run.id}", "version": "1"},
        "paths": {
            "/classify": {
                "post": {
                    "summary": "Say what is on photos",
                    "requestBody": {"required": True, **_content(None, upload, "multipart/form-data")},
                    "responses": {"200": _content("at least one photo could be used", answers), **wrong},
                }
            },
            "/health": {
                "get": {
                    "summary": "Whether the server answers, and for which network",
                    "responses": {"200": _content("it does", health)},
                }
            },
        },
    }


WRONG = {
    "400": "a photo that is damaged, or no photo",
    "408": "an upload that took too long",
    "413": "a photo or a request that is too large",
    "415": "no picture in a known format, or no form",
}


def _content(what: str | None, properties: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    about = {"description": what} if what else {}
    return {**about, "content": {kind: {"schema": {"type": "object", "properties": properties}}}}


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at this address; port 0 takes a free one.

    Raises:
        ServeError: the address is taken or not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServeError(f"{host}:{port} cannot be listened at ({reason}); choose another --port or --host.") from None


def run(classifier: Classifier, listening: socket.socket, hosts: Sequence[str]) -> None:
    """Serve until interrupted."""
    config = uvicorn.Config(application(classifier, hosts), log_level="warning", server_header=False)
    uvicorn.Server(config).run(sockets=[listening])
