"""What ZIP and tar files hold, one member after the other, for those who trust neither names nor sizes."""

from __future__ import annotations

import contextlib
import functools
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO

DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError)
"""What reading an archive raises where that is damaged, or packed in a way that this Python does not know."""

# Of offsets that lead nowhere, names that are no text, and lists that end too early: not told apart from damage.
_ALSO_DAMAGED = (ValueError, OverflowError, IndexError, struct.error, lzma.LZMAError)
_ZIP_UTF8 = 0x800
_ZIP_ENCRYPTED = 0x1


_Stream = AbstractContextManager[IO[bytes]]  # a member of `Member` takes the name of bytes


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    bytes: int  # once unpacked, as the archive has it; no more than that are read
    fault: str | None  # why it must not be unpacked: a link, a device, or encrypted
    open: Callable[[], _Stream]


def members(source: Path | IO[bytes]) -> Iterator[Member]:
    """What a zip or a tar holds but folders, in its order; read each before the next is asked for.

    Raises:
        OSError, and those in `DAMAGED`.
    """
    with _told_as_damage():
        yield from _members(source)


def _members(source: Path | IO[bytes]) -> Iterator[Member]:
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield Member(
                        _zip_name(info), info.file_size, _zip_fault(info), functools.partial(archive.open, info)
                    )
    else:
        with tarfile.open(source) if isinstance(source, Path) else tarfile.open(fileobj=source) as tar:
            for entry in tar:
                if not entry.isdir():
                    fault = None if entry.isreg() else "a link or a device"
                    yield Member(entry.name, entry.size, fault, functools.partial(_unpacked, tar, entry))


def zip_entries(source: Path | IO[bytes]) -> int:
    """How many entries a zip has room for, from its last bytes alone: the list itself may fill the memory.

    Raises:
        zipfile.BadZipFile: it is no zip.
    """
    with open(source, "rb") if isinstance(source, Path) else contextlib.nullcontext(source) as stream:
        # A private name, but the public way is to read the whole list.
        end = zipfile._EndRecData(stream)  # type: ignore[attr-defined]  # private
    if not end:
        raise zipfile.BadZipFile
    # The count may lie; the size of the list does not, and with its name an entry takes about 100 bytes of it.
    total, size = zipfile._ECD_ENTRIES_TOTAL, zipfile._ECD_SIZE  # type: ignore[attr-defined]
    return max(end[total], end[size] // 100)


def leaves_folder(name: str) -> bool:
    """Whether a member of this name would be written anywhere but below the folder that it is unpacked to."""
    path = PureWindowsPath(name)  # knows both kinds of slash, and drives
    return bool(path.anchor) or ".." in path.parts


def write(member: Member, path: Path) -> None:
    """Unpack `member` to the new file `path`, piece by piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _told_as_damage(), member.open() as stream, path.open("xb") as out:
        shutil.copyfileobj(stream, out)


@contextlib.contextmanager
def _told_as_damage() -> Iterator[None]:
    try:
        yield
    except _ALSO_DAMAGED as error:
        raise zipfile.BadZipFile(str(error)) from error


def _unpacked(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(entry)
    if stream is None:  # a link to nothing, a device
        raise tarfile.ExtractError(f"{entry.name} is no file")
    return stream


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name; macOS writes UTF-8 without saying so, which would be read as the letters of the first PCs."""
    if info.flag_bits & _ZIP_UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _zip_fault(info: zipfile.ZipInfo) -> str | None:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "a link or a device"
    return "encrypted" if info.flag_bits & _ZIP_ENCRYPTED else None
