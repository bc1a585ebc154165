"""Public sets of photos, by name: downloaded, checked, unpacked and sorted into a folder for each class.

A download that breaks off goes on where it stopped. Nothing is unpacked before its size and digest are right,
and the folder of photos appears in one step, complete.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from alexnet import archives, public, svhn
from alexnet.errors import LabError

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the bytes done and the bytes in all; raising an exception cancels."""

BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait before each new attempt after a connection that broke."""

_TIMEOUT = 30  # seconds of silence after which a connection counts as broken
_CHUNK = 256 * 1024  # bytes between two calls of progress: a few seconds on a slow line
_MAX_EXPANSION = 2  # times its size that an archive may unpack to; photos hardly pack
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


class DownloadError(LabError, RuntimeError):
    """The photos could not be had; the text is one plain sentence for the person."""


@dataclass(frozen=True)
class RemoteFile:
    """One published file: `digest` is "sha256:..." or "md5:..." in hexadecimal, `bytes` its exact size."""

    url: str
    bytes: int
    digest: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Archive:
    """A public set of photos: where it is, how to know that it is whole, and how to take out what is in it.

    `fill(archive, paths, photos, report)` makes of the files, which are whole, the class folders in the empty folder
    `photos`; what it leaves beside that is deleted.
    """

    name: str
    title: str
    files: tuple[RemoteFile, ...]
    licence: str
    homepage: str
    fill: Callable[[Archive, Sequence[Path], Path, Progress], None]

    @property
    def bytes(self) -> int:
        """Size of the download."""
        return sum(file.bytes for file in self.files)

    @property
    def by_hand(self) -> str:
        """One sentence: how to go without our download."""
        names = " and ".join(file.name for file in self.files)
        them, are = ("it", "it is") if len(self.files) == 1 else ("them", "they are")
        return f"Download {names} from {self.homepage} in a browser and put {them}, as {are}, into the folder data."


def _unpacked(members: str, sort: Callable[[Path, Path], None]) -> Callable[..., None]:
    """An `Archive.fill` for zips and tars.

    Args:
        members: the pattern that the names of the members to unpack match in full.
        sort: moves the photos from the unpacked tree into class folders, given the two folders.
    """

    def fill(archive: Archive, paths: Sequence[Path], photos: Path, report: Progress) -> None:
        unpacked = photos.with_name("unpacked")
        _unpack(archive, re.compile(members), paths, unpacked, report)
        report("Sorting the photos", 0, archive.bytes)
        sort(unpacked, photos)

    return fill


def _sort_by_folder(unpacked: Path, photos: Path) -> None:
    for label in ("Cat", "Dog"):
        os.replace(unpacked / "PetImages" / label, photos / label.lower())


def _sort_by_species(unpacked: Path, photos: Path) -> None:
    """The 37 breeds lie in one folder; torchvision reads from the annotations which of them are cats."""
    from torchvision.datasets import OxfordIIITPet  # here, because it takes seconds to import

    for label in ("cat", "dog"):
        (photos / label).mkdir()
    root = unpacked.rename(unpacked.with_name("oxford-iiit-pet")).parent  # the name that torchvision expects
    for split in ("trainval", "test"):
        pets = OxfordIIITPet(root, split=split, target_types="binary-category")
        # Private names, but the public way to a photo is its decoded pixels.
        for path, label in zip(pets._images, pets._bin_labels, strict=True):
            os.replace(path, photos / pets.bin_classes[label].lower() / path.name)


def _write_digits(archive: Archive, paths: Sequence[Path], photos: Path, report: Progress) -> None:
    try:
        svhn.write(paths, photos, report)
    except svhn.SvhnError as error:
        raise DownloadError(str(error)) from error


ARCHIVES: dict[str, Archive] = {
    archive.name: archive
    for archive in (
        Archive(
            name="dogs-vs-cats",
            title="Dogs vs. Cats",
            files=(
                RemoteFile(
                    "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"
                    "kagglecatsanddogs_5340.zip",
                    824_887_076,
                    "sha256:b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
                ),
            ),
            licence="CDLA-Permissive-2.0",
            homepage="https://www.microsoft.com/en-us/download/details.aspx?id=54765",
            fill=_unpacked(r"PetImages/(Cat|Dog)/\d+\.jpg", _sort_by_folder),
        ),
        Archive(
            name="oxford-pets",
            title="Oxford-IIIT Pet",
            files=(  # addresses and digests are torchvision's
                RemoteFile(
                    "https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",
                    791_918_971,
                    "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
                ),
                RemoteFile(
                    "https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",
                    19_173_078,
                    "md5:95a8c909bbe2e81eed6a22bccdf3f68f",
                ),
            ),
            licence="CC BY-SA 4.0",
            homepage="https://www.robots.ox.ac.uk/~vgg/data/pets/",
            fill=_unpacked(r"images/\w+\.jpg|annotations/(trainval|test)\.txt", _sort_by_species),
        ),
        Archive(
            name="svhn",
            title="Street View House Numbers",
            files=(  # addresses and digests are torchvision's
                RemoteFile(
                    "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
                    182_040_794,
                    "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
                ),
                RemoteFile(
                    "http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
                    64_275_384,
                    "md5:eb5a983be6a315427106f1b164d9cef3",
                ),
            ),
            licence="for non-commercial use only",
            homepage="http://ufldl.stanford.edu/housenumbers/",
            fill=_write_digits,
        ),
    )
}


def download(name: str, data_dir: Path, progress: Progress | None = None) -> Path:
    """The folder `data_dir / name` of photos by class, fetched first unless it is there.

    A file of the archive that lies in `data_dir` already, placed by hand, is used instead of the network.
    An exception that `progress` raises cancels and comes through; the next call goes on from what arrived.

    Raises:
        DownloadError: it cannot be had; the text says why and what to do.
    """
    public.refuse("downloads of datasets")
    if name not in ARCHIVES:
        raise DownloadError(f"There are no photos called {name} to download: choose {' or '.join(ARCHIVES)}.")
    archive, photos = ARCHIVES[name], data_dir / name
    report = progress or _say_nothing
    try:
        if not _is_filled(photos):
            data_dir.mkdir(parents=True, exist_ok=True)
            with _alone(data_dir / f".{name}.lock", archive, report):
                if not _is_filled(photos):  # by the other one, while this one waited
                    _install(archive, photos, report)
    except OSError as error:
        raise DownloadError(
            f"The photos cannot be written to {data_dir} ({error.strerror or error}):"
            " check the disk and its permissions, and try again."
        ) from error
    return photos


def received(name: str, data_dir: Path) -> float:
    """The share, 0 to 1, of the archive `name` that has arrived in `data_dir` and is not unpacked yet."""
    archive = ARCHIVES[name]
    here = (max(_size(data_dir / file.name), _size(_part(file, data_dir))) for file in archive.files)
    return min(sum(here) / archive.bytes, 1.0)


def _say_nothing(stage: str, done: int, total: int) -> None:
    pass


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


@contextmanager
def _alone(lock_path: Path, archive: Archive, report: Progress) -> Iterator[None]:
    """One download of an archive at a time, in this process or another; waiting can be cancelled."""
    lock = filelock.FileLock(lock_path)
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except filelock.Timeout:
            report("Waiting for another download of the same photos", 0, archive.bytes)
    try:
        yield
    finally:
        lock.release()


def _install(archive: Archive, photos: Path, report: Progress) -> None:
    _require_space(archive, photos.parent)
    paths = [_obtain(archive, file, photos.parent, report) for file in archive.files]
    work = photos.with_name(f".{archive.name}.unpacking")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
    try:
        (work / "photos").mkdir(parents=True)
        archive.fill(archive, paths, work / "photos", report)
        if photos.is_dir():
            photos.rmdir()  # empty; Windows replaces no folder, not even an empty one
        os.replace(work / "photos", photos)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for file in archive.files:
        _part(file, photos.parent).unlink(missing_ok=True)


def _part(file: RemoteFile, data_dir: Path) -> Path:
    return data_dir / f"{file.name}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _require_space(archive: Archive, data_dir: Path) -> None:
    missing = sum(
        file.bytes - min(_size(_part(file, data_dir)), file.bytes)
        for file in archive.files
        if not (data_dir / file.name).is_file()
    )
    needed, free = missing + archive.bytes, shutil.disk_usage(data_dir).free
    if needed > free:
        raise DownloadError(
            f"{archive.title} needs {needed / 1e9:.1f} GB in {data_dir}, and {free / 1e9:.1f} GB are free:"
            " free some space, or set ALEXNET_HOME to a folder on a larger disk."
        )


def _obtain(archive: Archive, file: RemoteFile, data_dir: Path, report: Progress) -> Path:
    """The path of the checked file: the one placed by hand, else the one downloaded."""
    placed, part = data_dir / file.name, _part(file, data_dir)
    if placed.is_file():
        if (wrong := _fault(file, placed, report)) is not None:
            raise DownloadError(f"{file.name} in {data_dir} {wrong}: delete or replace it, and try again.")
        return placed
    _fetch(archive, file, part, report)
    if (wrong := _fault(file, part, report)) is not None:
        part.unlink()
        raise DownloadError(f"{file.name} arrived damaged, as it {wrong}, and was deleted: try again.")
    return part


def _fault(file: RemoteFile, path: Path, report: Progress) -> str | None:
    """What tells the file at `path` from the published one, as the end of a sentence; None: nothing."""
    if _size(path) != file.bytes:
        return f"has {_size(path):,} bytes instead of {file.bytes:,}"
    algorithm, _, expected = file.digest.partition(":")
    digest, done = hashlib.new(algorithm, usedforsecurity=False), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(f"Checking {file.name}", done, file.bytes)
    if digest.hexdigest() != expected:
        return f"has another {algorithm} digest than the published file"
    return None


def _fetch(archive: Archive, file: RemoteFile, part: Path, report: Progress) -> None:
    """Fill `part` up to the file's size, from where it stands, over as many connections as BACKOFF allows.

    A server that sends nothing at all is not waited for: the person is probably offline.
    """
    waits, before = iter(BACKOFF), _size(part)
    while (start := _size(part)) < file.bytes:
        try:
            _receive(file, part, start, report)
        except urllib.error.HTTPError as error:
            error.close()  # it is the answer, too, and holds the connection
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
                raise _no_answer(archive, file, f"answered {error.code} {error.reason}") from error
            part.unlink()
        except _BROKEN as error:
            wait = next(waits, None) if _size(part) != before else None
            if wait is None:
                reason = getattr(error, "reason", error)
                reason = getattr(reason, "strerror", None) or reason
                raise _no_answer(archive, file, f"cannot be reached ({reason})") from error
            time.sleep(wait)


def _no_answer(archive: Archive, file: RemoteFile, what: str) -> DownloadError:
    host = urllib.parse.urlsplit(file.url).hostname
    by_hand = archive.by_hand[0].lower() + archive.by_hand[1:]
    return DownloadError(f"{host} {what}: check the network connection and try again, or {by_hand}")


def _receive(file: RemoteFile, part: Path, start: int, report: Progress) -> None:
    """One connection: append to `part`, or write it anew if the server does not resume."""
    request = urllib.request.Request(file.url, headers={"User-Agent": "alexnet-lab"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        done = start if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        if done + (response.length or 0) != file.bytes:  # before `part` is touched
            raise DownloadError(
                f"{file.name} is not offered with its {file.bytes:,} bytes: your network may want you to"
                " sign in first, so open any web page in a browser and try again."
            )
        with part.open("ab" if done else "wb") as out:
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                done += len(chunk)
                report(f"Downloading {file.name}", done, file.bytes)
    if done < file.bytes:
        raise ConnectionError("the connection broke off")


def _unpack(archive: Archive, pattern: re.Pattern[str], paths: Sequence[Path], folder: Path, report: Progress) -> None:
    """Write the members whose names match below `folder`; refuse the archive if anything in it looks hostile."""
    limit, done = _MAX_EXPANSION * archive.bytes, 0
    try:
        for path in paths:
            for member in archives.members(path):
                done += member.bytes
                expected = pattern.fullmatch(member.name)
                if done > limit or archives.leaves_folder(member.name) or (expected and member.fault):
                    raise DownloadError(
                        f"{archive.title} holds {member.name}, which is not safe to unpack:"
                        f" delete {path}, and try again."
                    )
                if expected:
                    archives.write(member, folder / member.name)
                    report("Unpacking the photos", min(done, archive.bytes), archive.bytes)
    except archives.DAMAGED as error:
        raise DownloadError(f"{archive.title} cannot be unpacked: delete {path}, and try again.") from error
