"""What people have corrected in a dataset: photos of another class, and photos left out. Files are never changed.

The list lies beside the data, in `data/corrections`, and goes by what is in a photo: it holds when files are renamed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock

from alexnet import public, runs
from alexnet.layout import DataError


@dataclass(frozen=True)
class Correction:
    """Of one photo: the class that it belongs to, or None where it is left out; and which it was when that was decided."""

    path: str
    was: str
    label: str | None


def corrections(root: Path) -> dict[str, Correction]:
    """The corrections of the dataset in the folder `root`, by the digest of the photo, oldest first.

    Raises:
        DataError: the list is there and cannot be read.
    """
    path = _path(root)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {digest: Correction(**entry) for digest, entry in content["photos"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"The list of corrections {path} cannot be read; mend it or move it away.") from None


def correct(root: Path, changes: Mapping[str, Correction | None]) -> None:
    """Note corrections, by the digest of the photo, in place of what was noted before; None undoes one.

    Raises:
        DataError: the list cannot be read or written.
    """
    public.refuse("review of labels")
    path = _path(root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            noted = corrections(root)
            for digest, change in changes.items():
                noted.pop(digest, None)
                if change is not None:
                    noted[digest] = change
            photos = {digest: asdict(correction) for digest, correction in noted.items()}
            runs.write_json(path, {"folder": str(root), "photos": photos})
    except OSError as error:
        raise DataError(
            f"The correction cannot be noted in {path}: {error.strerror or error}; check the disk."
        ) from None


def _path(root: Path) -> Path:
    home = runs.data_dir()
    # Relative where it can be, so that a home that is moved keeps its corrections.
    place = root.relative_to(home).as_posix() if root.is_relative_to(home) else str(root)
    return home / "corrections" / f"{blake2b(place.encode(), digest_size=16).hexdigest()}.json"
