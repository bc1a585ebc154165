"""The JSON API: a real server, asked over HTTP, answers as `classify --json` does and refuses with one sentence."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
import requests
from PIL import Image
from starlette.requests import Request

from alexnet import doodles, images, runs, serve
from alexnet.__main__ import main
from alexnet.predict import load_classifier


@pytest.fixture(scope="module")
def address(untrained_run):
    """Of a server of the untrained run, on a free port."""
    command = [sys.executable, "-m", "alexnet", "serve", "--port", "0", "--run", str(untrained_run[0].path)]
    with subprocess.Popen(
        [*command, "--allow-host", "lab.example"], cwd=runs.PROJECT, stdout=subprocess.PIPE, text=True
    ) as server:
        told = server.stdout.readline()
        assert told.startswith("untrained answers at http://127.0.0.1:")
        yield told.split()[3].removesuffix("/classify")
        server.terminate()


def png(label: str, seed: int, size: int = 80) -> bytes:
    file = io.BytesIO()
    doodles.draw(label, seed, size=size).save(file, "PNG")
    return file.getvalue()


def post(address: str, files: list, **options) -> requests.Response:
    return requests.post(f"{address}/classify", files=[("photo", file) for file in files], timeout=120, **options)


def test_the_answer_is_that_of_the_command_line(address, untrained_run, tmp_path, capsys):
    photo = tmp_path / "кот.png"
    photo.write_bytes(png("cat", 1))
    assert main(["classify", str(photo), "--json", "--run", str(untrained_run[0].path)]) == 0
    expected = json.loads(capsys.readouterr().out)
    expected["photos"][0]["file"] = photo.name
    answer = post(address, [(photo.name, photo.read_bytes())])
    assert (answer.status_code, answer.json()) == (200, expected)


def test_of_several_photos_the_good_ones_are_answered(address):
    answer = post(address, [("a.png", png("cat", 1)), ("b.png", b"text"), ("c.png", png("dog", 2))])
    assert answer.status_code == 200
    a, b, c = answer.json()["photos"]
    assert set(a) == set(c) == {"file", "label", "familiarity", "probabilities"}
    assert b["file"] == "b.png" and b["error"].startswith("The file is not a picture in a known format")


def test_requests_at_once_get_their_own_answers(address, untrained_run):
    classifier = load_classifier(untrained_run[0])
    photos = [png(label, seed) for label in ("cat", "dog") for seed in range(5)]
    with ThreadPoolExecutor(10) as pool:
        answers = [reply.json()["photos"][0] for reply in pool.map(lambda data: post(address, [("x", data)]), photos)]
    for data, answer in zip(photos, answers, strict=True):
        expected = classifier([images.open_photo(data)])[0].probabilities
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-6)


def large_picture() -> bytes:
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"text", 415, "The file is not a picture in a known format"),
        (png("cat", 1)[:3000], 400, "The picture is incomplete or damaged: copy or download it again."),
        (b"", 400, "The file is empty: copy or download it again."),
        (large_picture(), 413, "The picture has more than 50 megapixels"),
        (bytes(images.MAX_BYTES + 1), 413, "The file is larger than 50 MB"),
    ],
)
def test_a_photo_that_cannot_be_used(address, data, status, sentence):
    answer = post(address, [("photo", data)])
    assert answer.status_code == status
    assert answer.json()["error"].startswith(sentence)
    assert answer.json()["photos"][0]["error"] == answer.json()["error"]


def test_requests_that_are_put_together_wrongly(address):
    no_form = requests.post(f"{address}/classify", data=b"x", timeout=60)
    assert (no_form.status_code, no_form.json()) == (415, {"error": serve.NO_FORM})
    no_file = requests.post(f"{address}/classify", files=[("a", (None, "text"))], timeout=60)
    assert (no_file.status_code, no_file.json()) == (400, {"error": serve.NO_PHOTO})
    for headers in ({"Content-Type": "multipart/form-data"}, {"Content-Type": "multipart/form-data; boundary=x"}):
        damaged = requests.post(f"{address}/classify", data=b"--y", headers=headers, timeout=60)
        assert (damaged.status_code, list(damaged.json())) == (400, ["error"])
    many = post(address, [(str(number), b"x") for number in range(serve.MOST_PHOTOS + 1)])
    assert (many.status_code, many.json()) == (400, {"error": serve.TOO_MANY})
    nowhere = requests.get(address, timeout=60)
    assert (nowhere.status_code, nowhere.json()) == (404, {"error": serve.MEANINGS[404]})
    wrong_way = requests.get(f"{address}/classify", timeout=60)
    assert (wrong_way.status_code, wrong_way.json()) == (405, {"error": serve.MEANINGS[405]})
    assert wrong_way.headers["allow"] == "POST"


def test_a_request_that_is_too_large_is_refused_while_it_arrives(address):
    sent = []

    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
        while True:  # without a length that would announce it
            sent.append(2**20)
            yield bytes(2**20)

    try:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = requests.post(f"{address}/classify", data=body(), headers=headers, timeout=60)
        assert (answer.status_code, answer.json()) == (413, {"error": serve.TOO_LARGE})
    except requests.ConnectionError:
        pass  # the server hung up while we were still sending
    assert sum(sent) < 2 * serve.MOST_BYTES
    assert requests.get(f"{address}/health", timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example", 400), ("lab.example:80", 200), ("localhost", 200), ("", 400)]
)
def test_only_known_names_are_answered(address, host, status):
    answer = requests.get(f"{address}/health", headers={"Host": host}, timeout=60)
    assert answer.status_code == status
    assert answer.json() == (
        {"error": serve.STRANGE_HOST}
        if status == 400
        else {"status": "ok", "run": "untrained", "classes": ["cat", "dog"]}
    )


def test_the_description_names_what_is_there(address):
    described = requests.get(f"{address}/openapi.json", timeout=60).json()
    assert described["openapi"].startswith("3.") and set(described["paths"]) == {"/classify", "/health"}
    for path, ways in described["paths"].items():
        for way, about in ways.items():
            assert requests.request(way, f"{address}{path}", timeout=60).status_code not in (404, 405)
            assert "200" in about["responses"]


def test_photos_stay_in_memory(monkeypatch):
    """Also one that the parser of the framework would write to a temporary file."""

    def refuse(*_):
        raise AssertionError("a photo went to the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    content = bytes(3 * 2**20)
    body = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n' + content + b"\r\n--x--\r\n"

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    assert anyio.run(serve._photos, request) == [("a.png", content)]


def test_an_address_that_is_taken_is_told(address, capsys):
    port = address.rpartition(":")[2]
    assert main(["serve", "--port", port]) == 1
    assert "cannot be listened at" in capsys.readouterr().err
