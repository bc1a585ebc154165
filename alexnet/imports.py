"""Photos that people bring: from a ZIP, a folder or a browser into a folder of their own under `data/imports`.

Nothing is written before names, sizes and classes are known, and the folder appears in one step, complete. In it a photo is
`class/name` or `split/class/name`. What was not taken stays in its record, so that the report of the dataset adds up.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import IO, Any

from filelock import FileLock, Timeout

from alexnet import archives, downloads, public, runs
from alexnet.archives import Member
from alexnet.images import MAX_BYTES
from alexnet.layout import DataError, Label, Skip, as_text, list_files, read_labels

Progress = Callable[[str, int, int], None]  # what is being done, how much of it, of how much

MAX_ENTRIES = 500_000  # files in a ZIP; its list of a million takes a gigabyte of memory
MAX_RATIO = 50  # times its size that a ZIP may unpack to; photos hardly pack, flat bitmaps do
RECORD = ".import.json"
# Neither part of a path nor, on Windows, anything else than a name.
UNFIT = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]')
MAX_NAME = 60  # characters, of up to four bytes each: file systems take 255
BUILT_IN = frozenset(("doodles", *downloads.ARCHIVES))


@dataclass(frozen=True)
class Source:
    """Where photos come from: `members` lists them anew at each call."""

    title: str
    members: Callable[[], Iterator[Member]]
    packed: int | None = None  # bytes of the archive; None: the files are as they are


@dataclass(frozen=True)
class Plan:
    """What would come of a source: the label of each file to take, by its name there, and what is left."""

    source: Source
    labels: dict[str, Label]
    skipped: tuple[Skip, ...]
    bytes: int

    @property
    def classes(self) -> dict[str, int]:
        """The classes found, by name, with their files."""
        counts = Counter(label.label for label in self.labels.values())
        return dict(sorted(counts.items()))

    @property
    def names(self) -> dict[str, str]:
        """What the classes found may be called here: as they are, or what is nearest to that."""
        return {found: _fit(found) for found in self.classes}


@dataclass(frozen=True)
class Record:
    """Where an import came from, when, and what was not taken of it."""

    source: str
    imported: float  # seconds since 1970
    skipped: tuple[Skip, ...]


def imports_dir() -> Path:
    """The folder of imported datasets."""
    return runs.data_dir() / "imports"


def names() -> list[str]:
    """The imported datasets, in alphabetical order."""
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(imports_dir()) if exists(name))
    return []


def exists(name: str) -> bool:
    """Whether there is an imported dataset of this name."""
    return is_name(name) and (imports_dir() / name / RECORD).is_file()


def is_name(name: str) -> bool:
    """Whether a dataset or a class, in any script, may be called so: what a folder may be called anywhere."""
    return bool(name) and _fit(name) == name


def record(name: str) -> Record:
    """What is remembered of an import; of one whose record is damaged, nothing but its name."""
    try:
        content = json.loads((imports_dir() / name / RECORD).read_text(encoding="utf-8"))
        source, imported, skipped = (content[member] for member in ("source", "imported", "skipped"))
        if not isinstance(source, str) or not runs.fits(imported, float) or not all(map(_is_skip, skipped)):
            raise TypeError
        return Record(source, imported, tuple(Skip(*skip) for skip in skipped))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Record(name, 0.0, ())


def _is_skip(value: object) -> bool:
    """Whether it is a path and a reason."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


def labels(files: Sequence[str]) -> dict[str, Label]:
    """Label and split of the files of an imported dataset, which lie as `bring_in` put them."""
    found = {}
    for path in files:
        *split, label = path.split("/")[:-1] or [""]
        known = label and split in ([], ["train"], ["val"], ["test"])
        found[path] = Label(label, *split) if known else Label(reason="not where imported photos are")
    return found


def at_path(path: str | Path) -> Source:
    """The ZIP or the folder at `path`.

    Raises:
        DataError: there is none.
    """
    public.refuse("folders of the computer that it runs on")
    place = Path(os.path.expanduser(path)).resolve()
    return from_zip(place.name, place) if os.path.isfile(place) else from_folder(place)


def from_zip(title: str, file: Path | IO[bytes]) -> Source:
    """A ZIP: its path, or its bytes.

    Raises:
        DataError: it is no ZIP, or lists more entries than are read.
    """
    try:
        entries = archives.zip_entries(file)
        size = file.stat().st_size if isinstance(file, Path) else file.seek(0, os.SEEK_END)
    except (*archives.DAMAGED, OSError):
        raise DataError(f"{title} is not a ZIP file, or not all of it; make or copy it again.") from None
    if entries > MAX_ENTRIES:
        raise DataError(f"{title} lists more than {MAX_ENTRIES:,} files; unpack it and give the folder.")
    return Source(title, partial(archives.members, file), size)


def from_folder(root: Path) -> Source:
    """All files of a folder on this computer; links are followed."""

    def members() -> Iterator[Member]:
        for name in list_files(root):
            file = root / name
            with contextlib.suppress(FileNotFoundError):  # it went away since it was listed
                opened: Any = partial(open, file, "rb")
                yield Member(name, file.stat().st_size, None if file.is_file() else "a device", opened)

    return Source(root.name, members)


def from_files(title: str, files: Sequence[tuple[str, IO[bytes]]]) -> Source:
    """Files by their paths, such as a browser sends of a folder."""

    def members() -> Iterator[Member]:
        for name, file in files:
            yield Member(name, file.seek(0, os.SEEK_END), None, partial(_rewound, file))

    return Source(title, members)


def plan(source: Source) -> Plan:
    """Read names and sizes, and decide what to take; no content is read.

    Raises:
        DataError: the source cannot be read, unpacks to suspiciously much, or holds no labelled photo.
    """
    skipped: list[Skip] = []
    sizes: dict[str, int] = {}
    try:
        with _whole(source):
            for member in source.members():
                if _is_hidden(member.name):
                    continue
                if fault := _fault(member, sizes):
                    skipped.append(Skip(as_text(member.name), fault))
                else:
                    sizes[member.name] = member.bytes
    except OSError as error:
        raise DataError(f"{source.title} cannot be read: {error.strerror or error}; check its permissions.") from None
    found = read_labels([name.replace("\\", "/") for name in sizes])
    by_name = {name: found[name.replace("\\", "/")] for name in sizes}
    skipped += [Skip(as_text(name), label.reason) for name, label in by_name.items() if label.reason]
    taken = {name: label for name, label in by_name.items() if not label.reason}
    total = sum(sizes[name] for name in taken)
    if source.packed is not None and total > MAX_RATIO * source.packed:
        raise DataError(
            f"{source.title} would unpack to {total / 1e9:.1f} GB, more than {MAX_RATIO} times its size, as no photos do; "
            "unpack it yourself if you trust it, and give the folder."
        )
    if not taken:
        raise DataError(_nothing_to_take(source, skipped))
    return Plan(source, taken, tuple(skipped), total)


def same_but_for_case(classes: Sequence[str]) -> list[list[str]]:
    """The classes that differ in nothing but capital letters, together: one folder on some systems, two on others."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(classes):
        groups[name.casefold()].append(name)
    return [group for group in groups.values() if len(group) > 1]


def bring_in(
    plan: Plan, name: str, classes: Mapping[str, str | None] | None = None, progress: Progress | None = None
) -> Path:
    """Write the photos of `plan` to the new dataset `name`; returns its folder.

    Args:
        plan: what to take.
        name: of the dataset, see `is_name`.
        classes: what to call classes, or None for one to leave out; the others are called as in `Plan.names`. Two that are
            called the same become one.
        progress: told what is being done, the bytes done, and all; may raise to cancel, and then nothing is left.

    Raises:
        DataError: the dataset exists, a name cannot be used, two classes differ in case alone, or the disk lacks room.
    """
    public.refuse("imports of datasets")
    called = plan.names | dict(classes or {})
    _check_names(name, called)
    folder = imports_dir() / name
    work = folder.with_name(f".{name}.part")
    try:
        imports_dir().mkdir(parents=True, exist_ok=True)
        _require_room(plan)
        with FileLock(folder.with_name(f".{name}.lock"), timeout=0):
            shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
            try:
                skipped = _copy(plan, called, work, progress)
                skips = [[skip.path, skip.reason] for skip in (*plan.skipped, *skipped)]
                about = {"source": plan.source.title, "imported": time.time(), "skipped": skips}
                runs.write_json(work / RECORD, about)
                os.replace(work, folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except Timeout:
        raise DataError(f"Another import to {name} is under way; wait for it or choose another name.") from None
    except OSError as error:
        raise DataError(
            f"The photos cannot be written to {folder}: {error.strerror or error}; check the disk."
        ) from None
    return folder


def free_name(title: str) -> str:
    """A name for a new dataset that comes from `title`: its own without the ending, with a number where that is taken."""
    stem = _fit(os.path.splitext(title)[0])[: MAX_NAME - 4].rstrip(". ") or "photos"
    taken = {other.casefold() for other in (*names(), *BUILT_IN)}
    return next(name for name in chain([stem], (f"{stem} {n}" for n in count(2))) if name.casefold() not in taken)


def remove(name: str) -> None:
    """Delete the imported dataset `name` from the disk.

    Raises:
        DataError: not all of it can be deleted.
    """
    public.refuse("removal of datasets")
    folder = imports_dir() / name
    if not exists(name):
        return
    trash = folder.with_name(f".{name}.part")  # which the next import of the name clears, should this be interrupted
    try:
        shutil.rmtree(trash, ignore_errors=True)
        os.replace(folder, trash)
        shutil.rmtree(trash)
    except OSError as error:
        raise DataError(f"{name} cannot be deleted: {error.strerror or error}; check the disk.") from None


def _fit(name: str) -> str:
    """`name`, or what is nearest to it and can be the name of a folder everywhere."""
    name = UNFIT.sub("-", unicodedata.normalize("NFC", name))
    return name[:MAX_NAME].lstrip(".~ ").rstrip(". ")


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part.startswith(".") and part != ".." for part in parts) or "__MACOSX" in parts


def _fault(member: Member, before: Mapping[str, int]) -> str | None:
    """Why a file is not taken, whatever its label."""
    if archives.leaves_folder(member.name):
        return "a name that leads out of the folder"
    if member.name in before:
        return "a second file of the same name"
    return member.fault or (f"larger than {MAX_BYTES // 10**6} MB" if member.bytes > MAX_BYTES else None)


@contextlib.contextmanager
def _whole(source: Source) -> Iterator[None]:
    try:
        yield
    except archives.DAMAGED:
        raise DataError(f"{source.title} is damaged; make or copy it again.") from None


def _rewound(file: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    """The file from its start, left open at the end: what a browser sent is read again by the next attempt."""
    file.seek(0)
    return contextlib.nullcontext(file)


def _nothing_to_take(source: Source, skipped: Sequence[Skip]) -> str:
    if not skipped:
        return f"{source.title} is empty; choose one with a folder of photos per class."
    reason, files = Counter(skip.reason for skip in skipped).most_common(1)[0]
    return (
        f"None of the {len(skipped):,} files in {source.title} can be used, most of them ({files:,}) because: {reason}; "
        "use a folder per class, names like cat.0.jpg, or train/ and val/ folders of those."
    )


def _check_names(name: str, called: Mapping[str, str | None]) -> None:
    if not is_name(name):
        raise DataError(
            f"A dataset cannot be called {as_text(name)!r}; use up to {MAX_NAME} letters, digits or spaces."
        )
    if name.casefold() in {other.casefold() for other in (*names(), *BUILT_IN)}:
        raise DataError(f"There is a dataset called {name} already; choose another name.")
    wanted = [each for each in called.values() if each is not None]
    for called_so in wanted:
        if not is_name(called_so):
            raise DataError(
                f"A class cannot be called {as_text(called_so)!r}; use up to {MAX_NAME} letters, digits or spaces."
            )
    for group in same_but_for_case(wanted):
        raise DataError(
            f"The classes {' and '.join(group)} differ in case only; give them one name to merge them, or two others."
        )
    if not wanted:
        raise DataError("Every class is left out; take at least two of them.")


def _require_room(plan: Plan) -> None:
    free = shutil.disk_usage(imports_dir()).free
    if free < plan.bytes * 1.05:
        raise DataError(
            f"{plan.source.title} needs {plan.bytes / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free; free some "
            "space, or set ALEXNET_HOME to a folder on a larger disk."
        )


def _copy(plan: Plan, called: Mapping[str, str | None], work: Path, progress: Progress | None) -> list[Skip]:
    """Write what `plan` takes below `work`; returns what could not be, or was not wanted."""
    skipped: list[Skip] = []
    taken: set[str] = set()
    seen: set[str] = set()
    done = told = 0
    work.mkdir()
    with _whole(plan.source):
        for member in plan.source.members():
            label = plan.labels.get(member.name)
            if label is None or member.name in seen or member.fault:
                continue
            seen.add(member.name)
            done += member.bytes
            reason: str | None = "of a class that was left out"
            if (title := called[label.label]) is not None:
                path = _free_path(work / (label.split or "") / title, member.name, taken)
                reason = _write(member, path)
            if reason:
                skipped.append(Skip(as_text(member.name), reason))
            if progress and (done - told > plan.bytes / 200 or done == plan.bytes):
                told = done
                progress("Copying photos", done, plan.bytes)
    skipped += [Skip(as_text(name), "gone before it was read") for name in plan.labels.keys() - seen]
    return skipped


def _write(member: Member, path: Path) -> str | None:
    """Write a member; why it cannot be, if its archive is at fault. A full disk ends the import."""
    try:
        archives.write(member, path)
    except (*archives.DAMAGED, PermissionError, FileNotFoundError) as error:
        path.unlink(missing_ok=True)
        return "cannot be opened" if isinstance(error, OSError) else "damaged in the archive"
    return None


def _free_path(folder: Path, name: str, taken: set[str]) -> Path:
    """A new file in `folder` for the photo `name`: its own name, with a number where another has that one.

    Names that differ in case are one on some systems, where the second would be lost.
    """
    stem, suffix = os.path.splitext(PurePosixPath(name.replace("\\", "/")).name)
    stem = _fit(stem) or "photo"
    number = 1
    while True:
        path = folder / (f"{stem}{suffix}" if number == 1 else f"{stem} ({number}){suffix}")
        if (key := str(path).casefold()) not in taken:
            taken.add(key)
            return path
        number += 1
