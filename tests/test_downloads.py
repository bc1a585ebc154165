"""Downloads from a real web server on this machine, with small archives made here."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from alexnet import downloads
from alexnet.downloads import ARCHIVES, DownloadError, RemoteFile, download

CAT, DOG = os.urandom(300_000), os.urandom(400_000)  # photos hardly pack; what is in them is not looked at
PHOTOS = {
    "PetImages/Cat/0.jpg": CAT,
    "PetImages/Dog/10.jpg": DOG,
    "PetImages/Cat/Thumbs.db": b"not a photo",
    "readme[1].txt": b"words",
}


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; `server.ranges` keeps the Range header of each request."""

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        body = self.server.files.get(self.path.strip("/"))
        if body is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.resumes else 0
        if self.server.refuse_ranges and wanted:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = self.server.cuts.pop(0) if self.server.cuts else len(body)
        self.wfile.write(body[start:end])  # a cut: less than was promised, then the connection closes

    def log_message(self, *args):
        pass


@contextmanager
def serving(files: dict[str, bytes]):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.ranges, server.cuts = files, [], []
    server.resumes, server.refuse_ranges = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def quick_and_local(monkeypatch):
    monkeypatch.setattr(downloads, "BACKOFF", (0.0, 0.0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with serving({"pets.zip": zip_of(PHOTOS)}) as server:
        yield server


@pytest.fixture
def pets(server, monkeypatch):
    return publish(monkeypatch, server)


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


def publish(monkeypatch, server, archive="dogs-vs-cats", **changes) -> downloads.Archive:
    """An archive `pets` whose files are those of `server`, laid out and sorted as those of `archive`."""
    address = f"http://127.0.0.1:{server.server_address[1]}"
    files = tuple(
        RemoteFile(f"{address}/{name}", len(body), f"sha256:{hashlib.sha256(body).hexdigest()}")
        for name, body in server.files.items()
    )
    pets = dataclasses.replace(ARCHIVES[archive], name="pets", title="Pets", **{"files": files} | changes)
    monkeypatch.setitem(ARCHIVES, "pets", pets)
    return pets


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refusal(data_dir: Path) -> str:
    """The sentence with which the download fails; checks that it is one sentence for a person."""
    with pytest.raises(DownloadError) as caught:
        download("pets", data_dir)
    text = str(caught.value)
    assert text.endswith(".") and ". " not in text and "\n" not in text
    assert not (data_dir / "pets").exists()
    return text


def test_full_download(pets, server, tmp_path):
    calls = []
    folder = download("pets", tmp_path, lambda *call: calls.append(call))
    assert folder == tmp_path / "pets"
    assert contents(folder) == {"cat/0.jpg": CAT, "dog/10.jpg": DOG}
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["pets"]
    assert not (tmp_path / ".pets.unpacking").exists()
    for stage in ("Downloading pets.zip", "Checking pets.zip"):
        assert [call for call in calls if call[0] == stage][-1] == (stage, pets.bytes, pets.bytes)
    assert all(0 <= done <= total for _, done, total in calls)


def test_finished_download_is_not_repeated(pets, server, tmp_path):
    download("pets", tmp_path)
    assert download("pets", tmp_path) == tmp_path / "pets"
    assert len(server.ranges) == 1


def test_resumes_after_a_cut_connection(pets, server, tmp_path):
    server.cuts = [123_456]
    folder = download("pets", tmp_path)
    assert server.ranges == [None, "bytes=123456-"]
    assert contents(folder) == {"cat/0.jpg": CAT, "dog/10.jpg": DOG}


def test_gives_up_after_a_few_cuts_and_keeps_what_came(pets, server, tmp_path):
    server.cuts = [100_000, 200_000, 300_000]
    assert "broke off" in refusal(tmp_path)
    assert (tmp_path / "pets.zip.part").stat().st_size == 300_000
    assert contents(download("pets", tmp_path))["cat/0.jpg"] == CAT
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]


def test_server_that_ignores_ranges(pets, server, tmp_path):
    server.cuts, server.resumes = [123_456], False
    folder = download("pets", tmp_path)
    assert server.ranges == [None, "bytes=123456-"]
    assert contents(folder) == {"cat/0.jpg": CAT, "dog/10.jpg": DOG}


def test_server_that_refuses_ranges(pets, server, tmp_path):
    server.cuts, server.refuse_ranges = [123_456], True
    folder = download("pets", tmp_path)
    assert server.ranges == [None, "bytes=123456-", None]
    assert contents(folder) == {"cat/0.jpg": CAT, "dog/10.jpg": DOG}


def test_cancelled_by_progress_then_resumed(pets, server, tmp_path):
    class Cancelled(Exception):
        pass

    def cancel(stage, done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        download("pets", tmp_path, cancel)
    arrived = (tmp_path / "pets.zip.part").stat().st_size
    assert 0 < arrived < pets.bytes
    assert contents(download("pets", tmp_path)) == {"cat/0.jpg": CAT, "dog/10.jpg": DOG}
    assert server.ranges == [None, f"bytes={arrived}-"]


def test_cancelled_while_unpacking_leaves_no_half_folder(pets, server, tmp_path):
    def cancel(stage, done, total):
        if stage.startswith("Unpacking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download("pets", tmp_path, cancel)
    assert not (tmp_path / "pets").exists() and not (tmp_path / ".pets.unpacking").exists()
    download("pets", tmp_path)
    assert len(server.ranges) == 1  # the complete file was still there


def test_wrong_digest(server, monkeypatch, tmp_path):
    body = server.files["pets.zip"]
    pets = publish(monkeypatch, server)
    server.files["pets.zip"] = body[:-1] + bytes([body[-1] ^ 1])
    assert "sha256" in refusal(tmp_path)
    assert not (tmp_path / "pets.zip.part").exists()
    server.files["pets.zip"] = body
    assert contents(download(pets.name, tmp_path))["cat/0.jpg"] == CAT


def test_wrong_size(server, monkeypatch, tmp_path):
    publish(monkeypatch, server)
    server.files["pets.zip"] = b"<html>Welcome to our hotel</html>"
    assert "sign in" in refusal(tmp_path)
    assert not (tmp_path / "pets.zip.part").exists()


def test_sign_in_page_does_not_cost_what_had_arrived(pets, server, tmp_path):
    (tmp_path / "pets.zip.part").write_bytes(server.files["pets.zip"][:1000])
    server.files["pets.zip"], server.resumes = b"<html>Welcome to our hotel</html>", False
    assert "sign in" in refusal(tmp_path)
    assert (tmp_path / "pets.zip.part").stat().st_size == 1000


def test_part_that_is_too_long_is_removed(pets, server, tmp_path):
    (tmp_path / "pets.zip.part").write_bytes(bytes(pets.bytes + 1))
    assert "bytes instead of" in refusal(tmp_path)
    assert not (tmp_path / "pets.zip.part").exists()


def test_file_that_is_gone(pets, server, tmp_path):
    server.files.clear()
    text = refusal(tmp_path)
    assert "404" in text and "in a browser" in text


def test_no_connection_says_how_to_do_it_by_hand(pets, server, tmp_path, monkeypatch):
    with socket.socket() as unused:  # bound, not listening: connections to it are refused
        unused.bind(("127.0.0.1", 0))
        file = dataclasses.replace(pets.files[0], url=f"http://127.0.0.1:{unused.getsockname()[1]}/pets.zip")
        publish(monkeypatch, server, files=(file,))
        text = refusal(tmp_path)
    assert "cannot be reached" in text
    assert text.endswith(
        f"download pets.zip from {pets.homepage} in a browser and put it, as it is, into the folder data."
    )


def test_archive_placed_by_hand(pets, server, tmp_path):
    (tmp_path / "pets.zip").write_bytes(server.files["pets.zip"])
    assert contents(download("pets", tmp_path)) == {"cat/0.jpg": CAT, "dog/10.jpg": DOG}
    assert server.ranges == []
    assert (tmp_path / "pets.zip").is_file()  # it is the person's


def test_wrong_archive_placed_by_hand_is_named_and_kept(pets, server, tmp_path):
    (tmp_path / "pets.zip").write_bytes(b"something else")
    assert "14 bytes" in refusal(tmp_path)
    assert (tmp_path / "pets.zip").read_bytes() == b"something else"
    assert server.ranges == []


@pytest.mark.parametrize(
    "name", ["../escaped.jpg", "PetImages/Cat/../../../escaped.jpg", "/tmp/escaped.jpg", "C:\\escaped.jpg"]
)
def test_member_outside_the_folder_is_refused(name, monkeypatch, tmp_path):
    with serving({"pets.zip": zip_of({**PHOTOS, name: b"?"})}) as server:
        publish(monkeypatch, server)
        assert "not safe" in refusal(tmp_path / "data")
    assert not list(tmp_path.rglob("escaped.jpg"))


def test_links_are_refused(monkeypatch, tmp_path):
    with serving({"pets.tar.gz": tar_of(PHOTOS, links={"PetImages/Cat/1.jpg": "/etc/passwd"})}) as server:
        publish(monkeypatch, server)
        assert "not safe" in refusal(tmp_path)


def test_bomb_is_refused(monkeypatch, tmp_path):
    with serving({"pets.zip": zip_of({**PHOTOS, "PetImages/Cat/1.jpg": bytes(5_000_000)})}) as server:
        publish(monkeypatch, server)
        assert "not safe" in refusal(tmp_path)


def test_file_that_is_no_archive(monkeypatch, tmp_path):
    with serving({"pets.zip": b"neither a zip nor a tar" * 100}) as server:
        publish(monkeypatch, server)
        assert "cannot be unpacked" in refusal(tmp_path)


def test_full_disk_is_noticed_before_the_download(server, monkeypatch, tmp_path):
    file = RemoteFile(f"http://127.0.0.1:{server.server_address[1]}/pets.zip", 10**18, "sha256:0")
    publish(monkeypatch, server, files=(file,))
    assert "2000000000.0 GB" in refusal(tmp_path)
    assert server.ranges == []


def test_unusable_data_folder(pets, tmp_path):
    (tmp_path / "data").write_bytes(b"a file where the folder should be")
    with pytest.raises(DownloadError, match="cannot be written"):
        download("pets", tmp_path / "data")


def test_unknown_name(tmp_path):
    with pytest.raises(DownloadError, match="dogs-vs-cats"):
        download("dogs-vs-cows", tmp_path)


def test_two_at_once_download_once(pets, server, tmp_path):
    started, go_on, folders = threading.Event(), threading.Event(), []

    def hold(stage, done, total):
        started.set()
        assert go_on.wait(30)

    def release(stage, done, total):
        assert stage.startswith("Waiting")
        go_on.set()

    first = threading.Thread(target=lambda: folders.append(download("pets", tmp_path, hold)))
    first.start()
    assert started.wait(30)
    folders.append(download("pets", tmp_path, release))
    first.join()
    assert folders == [tmp_path / "pets"] * 2
    assert len(server.ranges) == 1


def test_oxford_pets_are_sorted_by_species(monkeypatch, tmp_path):
    pytest.importorskip("torchvision")
    images = {f"images/{name}.jpg": os.urandom(2000) for name in ("Abyssinian_1", "beagle_2", "Bombay_3", "pug_4")}
    annotations = {  # name, breed (1 to 37), species (1 cat, 2 dog), breed of the species
        "annotations/trainval.txt": b"Abyssinian_1 1 1 1\nbeagle_2 5 2 4\n",
        "annotations/test.txt": b"pug_4 26 2 18\nBombay_3 8 1 4\n",
        "annotations/trimaps/._pug_4.png": b"",
    }
    files = {"images.tar.gz": tar_of(images), "annotations.tar.gz": tar_of(annotations)}
    with serving(files) as server:
        publish(monkeypatch, server, archive="oxford-pets")
        folder = download("pets", tmp_path)
    assert contents(folder) == {
        "cat/Abyssinian_1.jpg": images["images/Abyssinian_1.jpg"],
        "cat/Bombay_3.jpg": images["images/Bombay_3.jpg"],
        "dog/beagle_2.jpg": images["images/beagle_2.jpg"],
        "dog/pug_4.jpg": images["images/pug_4.jpg"],
    }
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["pets"]


def test_house_numbers_are_sorted_by_digit(monkeypatch, tmp_path):
    picture, files = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 2), dtype=np.uint8), {}
    for name in ("train_32x32.mat", "test_32x32.mat"):
        scipy.io.savemat(buffer := io.BytesIO(), {"X": picture, "y": np.array([[10], [7]])})
        files[name] = buffer.getvalue()
    with serving(files) as server:
        publish(monkeypatch, server, archive="svhn")
        folder = download("pets", tmp_path)
    found = {path: np.asarray(Image.open(io.BytesIO(content))) for path, content in contents(folder).items()}
    assert sorted(found) == ["test/0/00000.png", "test/7/00001.png", "train/0/00000.png", "train/7/00001.png"]
    assert np.array_equal(found["test/0/00000.png"], picture[..., 0])
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["pets"]


def test_addresses_and_digests_are_torchvisions():
    datasets = pytest.importorskip("torchvision.datasets")
    ours = [(file.url, file.digest.removeprefix("md5:")) for file in ARCHIVES["oxford-pets"].files]
    assert ours == list(datasets.OxfordIIITPet._RESOURCES)


def test_what_people_are_told():
    assert ARCHIVES["dogs-vs-cats"].bytes == 824_887_076
    assert ARCHIVES["oxford-pets"].bytes == 811_092_049
    assert "images.tar.gz and annotations.tar.gz" in ARCHIVES["oxford-pets"].by_hand


def test_importing_it_imports_no_torch():
    code = "import sys, json, alexnet.downloads, alexnet.images; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "streamlit", "pillow_heif"} & set(json.loads(result.stdout))
