"""Damaged and hostile files by the thousand, through every function that reads what strangers may have made.

    python -m tests.fuzz --cases 20000               # all targets, in turn; a table, and exit status 1 if one fell
    python -m tests.fuzz --target photo --only 1234  # one case again

Each case follows from its target and its number alone. It may be read, or refused by a `LabError`; it may write nowhere but
below its own folder, and takes no more than `MOST_SECONDS` of the processor and `MOST_BYTES` of memory.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import faulthandler
import functools
import io
import json
import os
import random
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, features

from alexnet import archives, imports, notes, runs
from alexnet.errors import LabError
from alexnet.images import MAX_PIXELS, MAX_SIDE, PhotoError, check_photo, open_photo
from alexnet.recipes import RECIPES, Recipe, parse_setting
from alexnet.runs import Run

MOST_SECONDS = 10.0  # of the processor; the largest photo that is opened takes about two
MOST_BYTES = 1_500_000_000  # more than before; that photo takes 0.5 GB
HEADER = 300  # bytes, where most mutations go
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True)
class Target:
    """Something that reads strangers' files: `make` a damaged one, and `read` it, in a folder of its own."""

    make: Callable[[random.Random], Any]
    read: Callable[[Any, Path], object]


# ------------------------------------------------------------------------------------------------------------ mutations


def damaged(content: bytes, dice: random.Random) -> bytes:
    """`content` with a few bytes changed, taken out, put in or cut off, mostly near its beginning."""
    mutant = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4, 12))):
        end = len(mutant) if dice.random() < 0.3 else min(len(mutant), HEADER)
        place = dice.randrange(max(1, end))
        length = dice.choice((1, 2, 4, 8))
        kind = dice.randrange(7)
        if kind < 2:
            mutant[place : place + 1] = bytes([dice.randrange(256)])
        elif kind == 2:
            mutant[place : place + 1] = bytes([(mutant[place] if place < len(mutant) else 0) ^ 1 << dice.randrange(8)])
        elif kind == 3:
            mutant[place : place + 4] = struct.pack(dice.choice("<>") + "I", dice.choice(EDGES))
        elif kind == 4:
            mutant[place : place + 2] = struct.pack(dice.choice("<>") + "H", dice.choice(EDGES) & 0xFFFF)
        elif kind == 5:
            mutant[place : place + length] = b""
        else:
            mutant[place:place] = mutant[place : place + length] * dice.choice((1, 1, 300))
    return bytes(mutant[: dice.randrange(len(mutant) + 1)] if dice.random() < 0.1 else mutant)


TEXTS = (
    "",
    " ",
    "x" * 5_000,
    "\ud800",
    "\0",
    "../../escaped",
    "/etc/passwd",
    "/dev/zero",
    "\n# heading",
    "<script>",
    "NaN",
    "٣",
    "1e999",
)
NUMBERS = (0, 1, -1, 2, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**400, 2.0**40)


def odd(dice: random.Random) -> Any:
    """A JSON value that nobody expects."""
    kind = dice.randrange(5)
    if kind == 0:
        return dice.choice((None, True, False, [], {}))
    if kind == 1:
        return dice.choice(TEXTS)
    if kind == 2:
        return [odd(dice) for _ in range(dice.randrange(4))]
    if kind == 3:
        return {dice.choice(TEXTS): odd(dice) for _ in range(dice.randrange(4))}
    return dice.choice(NUMBERS)


def altered(value: Any, dice: random.Random) -> Any:
    """A JSON value with something odd in a random place of it; `value` stays."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 2, 3))):
        place: Any = value
        while isinstance(place, dict | list) and place:
            key = dice.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or not place[key] or dice.random() < 0.3:
                _alter(place, key, dice)
                break
            place = place[key]
    return value


def _alter(place: dict | list, key: Any, dice: random.Random) -> None:
    kind = dice.randrange(6)
    if kind == 0:
        del place[key]
    elif kind == 1 and isinstance(place, dict):
        place[dice.choice((*TEXTS, *place))] = place.pop(key)
    elif kind == 2 and isinstance(place, list):
        place.insert(key, copy.deepcopy(place[key]))
    else:
        place[key] = odd(dice)


def as_json(value: Any, dice: random.Random) -> bytes:
    """`value` altered as a value, damaged as bytes, or replaced by something that nests too deep."""
    kind = dice.random()
    if kind < 0.02:
        return dice.choice((b"[" * 100_000, b'{"a":' * 100_000, b"[" * 400 + b"]" * 400))
    if kind < 0.7:
        return json.dumps(altered(value, dice)).encode()
    return damaged(json.dumps(value).encode(), dice)


# --------------------------------------------------------------------------------------------------------------- photos


@functools.cache
def photos() -> list[bytes]:
    """Small pictures in every format that is opened, and in several ways of storing pixels."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    other = noise.rotate(180)
    wide = Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32) * 85)
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (noise, "JPEG", {"exif": exif}), (noise, "JPEG", {"progressive": True}), (noise.convert("CMYK"), "JPEG", {}),
        (noise, "MPO", {"save_all": True, "append_images": [other]}), (noise, "PNG", {"exif": exif}),
        (noise.quantize(16), "PNG", {"transparency": 1}), (wide, "PNG", {}), (noise.convert("RGBA"), "PNG", {}),
        (noise, "PNG", {"save_all": True, "append_images": [other]}), (noise, "WEBP", {"exif": exif}),
        (noise, "WEBP", {"lossless": True}), (noise, "WEBP", {"save_all": True, "append_images": [other]}),
        (noise.quantize(16), "GIF", {}), (noise, "GIF", {"save_all": True, "append_images": [other]}),
        (noise, "BMP", {}), (noise.quantize(16), "BMP", {}), (noise, "TIFF", {"exif": exif}),
        (noise, "TIFF", {"compression": "tiff_lzw"}), (noise, "TIFF", {"compression": "tiff_deflate"}),
        (noise, "TIFF", {"compression": "jpeg"}), (noise.convert("F"), "TIFF", {}), (wide, "TIFF", {}),
    ]  # fmt: skip
    if features.check("avif"):
        kinds.append((noise, "AVIF", {"exif": exif}))
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
        kinds += [(noise, "HEIF", {}), (noise, "HEIF", {"exif": exif.tobytes()})]
    return [encoded(*kind) for kind in kinds]


def encoded(image: Image.Image, format: str, options: dict[str, Any]) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def read_photo(content: bytes, folder: Path) -> None:
    try:
        photo = open_photo(content)
    except PhotoError:
        with contextlib.suppress(PhotoError):
            check_photo(content)
            raise AssertionError("what cannot be opened passes the check") from None
        raise
    assert photo.mode == "RGB" and photo.width * photo.height <= MAX_PIXELS and max(photo.size) <= MAX_SIDE
    assert check_photo(content) == photo.size
    assert open_photo(content, at_least=8).mode == "RGB"


# -------------------------------------------------------------------------------------------------------------- weights


@functools.cache
def network() -> Any:
    """A network small enough to be loaded by the thousand."""
    from alexnet import model

    return model.from_recipe(
        Recipe(image_size=67, resize=67, maps="2 2 2 2 2", hidden="4", avgpool=1), num_classes=2
    ).eval()


@functools.cache
def tensor_files() -> dict[str, bytes]:
    """Of each kind of safetensors file in a run folder one that is whole, by its name."""
    import torch
    from safetensors.numpy import save as save_arrays
    from safetensors.torch import save

    from alexnet import familiarity

    torch.manual_seed(0)
    head = familiarity.Familiarity(torch.ones(3, 4).half(), torch.ones(3), torch.ones(3), torch.arange(5.0))
    frame = {
        "probabilities": np.full((2, 2), 0.5, np.float32),
        "maps": np.ones((2, 3, 3), np.float32),
        "filters": np.ones((2, 3, 5, 5), np.float16),
    }
    compressed = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in network().state_dict().items()}
    matrix = compressed.pop("classifier.fc6.weight")
    compressed |= {
        "classifier.fc6.weight.left": torch.ones(matrix.shape[0], 1, dtype=torch.int8),
        "classifier.fc6.weight.left_scale": torch.ones(1, 1),
        "classifier.fc6.weight.right": torch.ones(1, matrix.shape[1], dtype=torch.int8),
        "classifier.fc6.weight.right_scale": torch.ones(1, 1),
    }
    return {
        "weights.safetensors": save(network().state_dict()),
        "small.safetensors": save(compressed),
        familiarity.FILE: save(head.tensors()),
        "film/epoch-1.safetensors": save_arrays(frame),
    }


def make_tensors(dice: random.Random) -> tuple[str, bytes]:
    name = dice.choice(list(tensor_files()))
    content = tensor_files()[name]
    if dice.random() < 0.4:
        return name, damaged(content, dice)
    length = struct.unpack("<Q", content[:8])[0]
    header = as_json(json.loads(content[8 : 8 + length]), dice)
    return name, struct.pack("<Q", dice.choice((len(header),) * 8 + (length, *EDGES))) + header + content[8 + length :]


def read_tensors(case: tuple[str, bytes], folder: Path) -> None:
    from alexnet import familiarity, film, weights

    name, content = case
    write_run(folder, {name: content})
    if name == familiarity.FILE:
        familiarity.load(folder, 4)
    elif name.startswith("film"):
        film.read(Run(folder))
    else:
        weights.load_into(network(), folder / name)


# ---------------------------------------------------------------------------------------------------------- run folders


@functools.cache
def run_files() -> dict[str, bytes]:
    """All that a finished run on two classes holds but its weights, by name."""
    classes, per_class = ["cat", "dog"], {"cat": {"count": 3, "accuracy": 1.0}, "dog": {"count": 1, "accuracy": 0.0}}
    recipe = Recipe(image_size=67, resize=67, maps="2 2 2 2 2", hidden="4", avgpool=1)
    config = runs.configuration(recipe, classes, "pets", {"name": "pets", "fingerprint": "ab", "photos": 40})
    best = {"epoch": 1, "accuracy": 0.75, "loss": 0.5}
    status = {
        "state": "finished",
        "message": "",
        "epoch": 1,
        "epochs": 1,
        "step": 3,
        "steps": 3,
        "best": best,
        "updated": 1.8e9,
    }
    bins = [{"confidence": 0.9, "accuracy": 0.75, "count": 4, "interval": [0.3, 0.95]}]
    report = {
        **best, "best_epoch": 1, "count": 4, "classes": classes, "confusion": [[3, 0], [1, 0]], "per_class": per_class,
        "ece": 0.1, "risk_at_90": 0.2, "reliability": bins, "split": "test", "network": "cd", "data": "pets", "rank": 8,
        "splits": {split: {"cat": 9, "dog": 9} for split in ("train", "val", "test")}, "auroc_neither": 0.9,
        "neither": {"count": 5}, "uncompressed": {"bytes": 9_000, "accuracy": 0.75}, "mean_probability_change": 0.01,
    }  # fmt: skip
    subjects = [{"path": f"{name}.jpg", "label": name} for name in classes]
    sheet = encoded(Image.new("RGB", (40, 20)), "JPEG", {})
    records = [
        {"epoch": 1, "step": 3, "split": split, "loss": 0.5, "accuracy": 0.75, "lr": 0.1, "seconds": 9.5}
        for split in ("train", "val", "test")
    ]
    values: dict[str, Any] = {
        "run.json": config, "status.json": status, "report.json": report, "note.json": {"title": "t", "note": "n"},
        "calibration.json": {"temperature": 1.5, "familiarity": {"method": "head", "threshold": 0.5}},
        "film/photos.json": subjects,
    }  # fmt: skip
    files = {name: json.dumps(value).encode() for name, value in values.items()}
    files["metrics.jsonl"] = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    files["predictions.csv"] = b"file,label,predicted,cat,dog\na.jpg,cat,cat,0.9,0.1\nb.jpg,dog,cat,0.8,0.2\n"
    return {**files, "film/photos.jpg": sheet, "film/epoch-1.safetensors": tensor_files()["film/epoch-1.safetensors"]}


def make_run(dice: random.Random) -> dict[str, bytes]:
    """One of the small files of a run, damaged."""
    name = dice.choice([name for name in run_files() if not name.endswith((".jpg", ".safetensors"))])
    content = run_files()[name]
    if name.endswith(".json"):
        return {name: as_json(json.loads(content), dice)}
    if name.endswith(".jsonl"):
        lines = [as_json(json.loads(line), dice) for line in content.splitlines()]
        return {name: b"\n".join(dice.sample(lines, dice.randrange(1, len(lines) + 1)))}
    return {name: damaged(content, dice)}


def write_run(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in {**run_files(), **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read_run(files: dict[str, bytes], folder: Path) -> None:
    """All that the pages ask a run folder; one that is refused is asked on."""
    from alexnet import calibration, card, catalog, compare, film, predictions, series

    folder = runs.runs_dir() / "run"
    write_run(folder, files)
    run, refusal = Run(folder), None
    (entry,) = (entry for entry in catalog.entries() if entry.id == "run")
    questions: list[Callable[[], object]] = [
        run.status, run.metrics, run.report, run.log_tail, lambda: notes.read(run), lambda: notes.title(run),
        lambda: run.recipe, lambda: run.created, lambda: calibration.read(folder), lambda: card.markdown(run).encode(errors="replace"),
        lambda: film.read(run), lambda: predictions.read(folder, ("cat", "dog")), lambda: compare.outcomes(run),
        lambda: compare.curve(run.metrics(), "train", "accuracy", "minutes"), lambda: entry.made, lambda: entry.best,
        lambda: series.outcome(run), lambda: list(predictions.stored(run, "cd")), lambda: runs.find("run"), runs.list_runs, runs.damaged_runs,
    ]  # fmt: skip
    for question in questions:
        try:
            question()
        except LabError as error:
            refusal = error
    if refusal:
        raise refusal


@functools.cache
def series_values() -> dict[str, dict[str, Any]]:
    """The file that makes a folder a sweep or a cross-validation, and the report of it, by name."""
    shared = {"format": 1, "recipe": Recipe().to_dict(), "data": "pets", "fingerprint": "ab", "created": 1.8e9}
    plan = {
        "vary": {"dropout": [0.2, 0.5], "optimizer": ["sgd", "adam"]},
        "search": "grid",
        "trials": 4,
        "pruning": True,
    }
    drawn = {
        "vary": {"lr": {"low": 1e-4, "high": 0.1}, "seed": [1, 2]},
        "search": "random",
        "trials": 3,
        "pruning": False,
    }
    return {
        "sweep.json": {**shared, **plan},
        "sweep.json ": {**shared, **drawn},
        "folds.json": {**shared, "recipe": Recipe(folds=3, fold=1).to_dict()},
    }


def make_series(dice: random.Random) -> dict[str, bytes]:
    """The files of a series, one of them damaged."""
    name = dice.choice(list(series_values()))
    reports = [{"accuracy": {"mean": 0.5, "deviation": 0.1}, "count": 9}, {"trials": [{"accuracy": 0.5, "epoch": 1}]}]
    files = {name.strip(): series_values()[name], "report.json": dice.choice(reports)}
    chosen = dice.choice(list(files))
    return {
        name: as_json(value, dice) if name == chosen else json.dumps(value).encode() for name, value in files.items()
    }


def read_series(files: dict[str, bytes], folder: Path) -> None:
    from alexnet import catalog, series

    folder = runs.runs_dir() / "series"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (entry,) = (entry for entry in catalog.entries() if entry.id == "series")
    catalog.members(entry)
    kind = catalog.KINDS[next(iter(files))]
    found = series.read(kind, folder)
    for number in range(1, min(found.count, 5) + 1):
        found.recipe_of(number)


# ------------------------------------------------------------------------------------------------------------- archives

NAMES = (
    "cat/a.png", "dog/b.png", "train/cat/a.png", "val/dog/b.png", "cat.1.png", "dog.2.png", "../escaped.png", "/escaped.png",
    "cat/../../escaped.png", "C:\\escaped.png", "cat\\..\\..\\escaped.png", "cat/con.png", "cat/a\0b.png", "cat//a.png", "./cat/a.png",
    "cat/" + "x" * 300 + ".png", "c" * 300 + "/a.png", "\u202ecat/a.png", "猫/a.png", ".import.json", "cat/.import.json", "cat", "cat/a.png/b.png",
    "~/cat/a.png", "cat/ .png", " /a.png", "CAT/a.png", "cat/A.png",
)  # fmt: skip


def make_zip(dice: random.Random) -> bytes:
    """A ZIP of some of `NAMES`, half of the time damaged, most of that in its list of files."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # the same name twice
        for name in dice.choices(NAMES, k=dice.randrange(1, 8)):
            info = zipfile.ZipInfo(name)
            info.compress_type = dice.choice(
                (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)
            )
            info.create_system, info.external_attr = 3, dice.choice((0, 0o100644, 0o120777, 0o040755, 0o010644)) << 16
            archive.writestr(info, dice.choice((b"", b"/etc/passwd", photos()[4], bytes(200_000))))
    content = file.getvalue()
    if dice.random() < 0.4:
        return content
    start = max(content.find(b"PK\1\2"), 0) if dice.random() < 0.7 else 0
    return content[:start] + damaged(content[start:], dice)


def read_zip(content: bytes, folder: Path) -> None:
    plan = imports.plan(imports.from_zip("strange.zip", io.BytesIO(content)))
    place = imports.bring_in(plan, "strange")
    assert sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) <= plan.bytes + 20_000
    imports.labels([path.relative_to(place).as_posix() for path in place.rglob("*.png")])
    assert imports.record("strange").source == "strange.zip"


def make_tar(dice: random.Random) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=dice.choice(("w", "w:gz", "w:xz", "w:bz2"))) as archive:
        for name in dice.choices(NAMES, k=dice.randrange(1, 6)):
            info = tarfile.TarInfo(name.replace("\0", ""))
            info.type = dice.choice(
                (tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE)
            )
            info.linkname, content = "../../escaped", dice.choice((b"", photos()[4]))
            info.size = len(content) if info.type == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    return damaged(file.getvalue(), dice) if dice.random() < 0.7 else file.getvalue()


def read_tar(content: bytes, folder: Path) -> None:
    """As `downloads` unpacks what it has fetched."""
    (folder / "strange.tar").write_bytes(content)
    try:
        for member in archives.members(folder / "strange.tar"):
            if not archives.leaves_folder(member.name) and not member.fault:
                archives.write(member, folder / "out" / member.name)
    except (*archives.DAMAGED, OSError) as error:
        raise LabError(str(error)) from error


def make_record(dice: random.Random) -> bytes:
    return as_json({"source": "a.zip", "imported": 1.8e9, "skipped": [["a.txt", "not a photo file"]]}, dice)


def read_record(content: bytes, folder: Path) -> None:
    place = imports.imports_dir() / "strange"
    place.mkdir(parents=True)
    (place / imports.RECORD).write_bytes(content)
    found = imports.record("strange")
    assert (
        imports.names() == ["strange"]
        and isinstance(found.source, str)
        and all(skip.path is not None for skip in found.skipped)
    )


# -------------------------------------------------------------------------------------------------------------- recipes


def make_setting(dice: random.Random) -> tuple[str, str, str]:
    name = dice.choice([f.name for f in fields(Recipe)] + ["", "nothing", "__class__"])
    plain = str(getattr(dice.choice(list(RECIPES.values())), name, "1"))
    letters = damaged(plain.encode(), dice).decode("utf-8", "replace")
    text = dice.choice(
        (
            letters,
            letters,
            dice.choice(TEXTS),
            str(dice.choice(NUMBERS[:-2])),
            f"{plain},{letters}",
            f"{plain}..{letters}",
            "9" * 5_000,
        )
    )
    return name, text, dice.choice(("grid", "random", "optuna"))


def read_setting(case: tuple[str, str, str], folder: Path) -> None:
    from alexnet import sweep

    name, text, search = case
    with contextlib.suppress(LabError):
        sweep.read_values(name, text, search)
    with contextlib.suppress(LabError):
        sweep.make_plan(Recipe(), {name: text}, search=search)
    value = parse_setting(name, text)
    if name != "start_from":
        Recipe().replace(**{name: value})


def make_recipe(dice: random.Random) -> Any:
    return altered(dice.choice(list(RECIPES.values())).to_dict(), dice) if dice.random() < 0.95 else odd(dice)


def read_recipe(values: Any, folder: Path) -> None:
    recipe = Recipe.from_dict(values)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


TARGETS = {
    "photo": Target(lambda dice: damaged(dice.choice(photos()), dice), read_photo),
    "tensors": Target(make_tensors, read_tensors),
    "run": Target(make_run, read_run),
    "series": Target(make_series, read_series),
    "zip": Target(make_zip, read_zip),
    "tar": Target(make_tar, read_tar),
    "import record": Target(make_record, read_record),
    "setting": Target(make_setting, read_setting),
    "recipe": Target(make_recipe, read_recipe),
}
SHARES = {"photo": 6, "tensors": 3, "run": 4, "zip": 3}  # of the cases; the others have one


# -------------------------------------------------------------------------------------------------------------- running


@dataclass
class Tally:
    """What became of the cases of a target."""

    taken: int = 0
    refused: int = 0
    fallen: list[str] = field(default_factory=list)  # what did what no case may do, in words
    seconds: float = 0.0  # of the processor, the most that a case took
    bytes: int = 0  # of memory, the most that a case took


def run_cases(target: str, numbers: Iterable[int], tell: Callable[[int], object] = id) -> Tally:
    """Run these cases of a target; `tell` is told the number of each before."""
    tally = Tally()
    for number in numbers:
        tell(number)
        with _room() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if fault := _run_case(TARGETS[target], random.Random(f"{target} {number}"), folder, tally):
                tally.fallen.append(f"{target} {number}: {fault}")
    return tally


def _run_case(target: Target, dice: random.Random, folder: Path, tally: Tally) -> str | None:
    """Count a case; returns what is wrong with what it did, if anything is."""
    case = target.make(dice)
    before, start = _memory(reset=True), time.process_time()
    _written.clear()
    try:
        target.read(case, folder)
        tally.taken += 1
    except LabError:
        tally.refused += 1
    except Exception:
        return traceback.format_exc()
    seconds = time.process_time() - start
    strays = [path for path in _written if not Path(path).is_relative_to(folder)]
    more = _memory() - before
    tally.seconds, tally.bytes = max(tally.seconds, seconds), max(tally.bytes, more)
    if seconds > MOST_SECONDS or more > MOST_BYTES:
        return f"took {seconds:.1f} s and {more / 1e6:,.0f} MB"
    return f"wrote {strays}" if strays else None


_WRITING = ("open", "os.mkdir", "os.symlink", "os.link", "os.rename")
_written: list[str] = []  # by the case of now


def _look(event: str, about: tuple[Any, ...]) -> None:
    """Note what is opened for writing, or made; hooks cannot be taken off, so this one is set once."""
    path = about[1 if event == "os.rename" else 0] if event in _WRITING else None
    if not isinstance(path, str | bytes | os.PathLike):  # but a number of what is open already
        return
    if event != "open" or about[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        _written.append(os.path.realpath(os.fsdecode(path)))


@functools.cache
def _watch() -> None:
    sys.addaudithook(_look)


@contextlib.contextmanager
def _room() -> Iterator[Path]:
    """A new folder, which is also `ALEXNET_HOME`."""
    _watch()
    home = os.environ.get("ALEXNET_HOME")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-")).resolve()
    os.environ["ALEXNET_HOME"] = str(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.environ.pop("ALEXNET_HOME")
        if home is not None:
            os.environ["ALEXNET_HOME"] = home


def _memory(reset: bool = False) -> int:
    """The most bytes that this process had since the last reset; 0 where the system does not tell."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=20_000, help="over all targets")
    parser.add_argument("--target", choices=TARGETS, help="this one alone")
    parser.add_argument("--only", type=int, help="the case of this number alone, in this process")
    options = parser.parse_args()
    faulthandler.enable()  # for what crashes the process
    if options.only is not None:
        print(run_cases(options.target, [options.only]))
        return 0
    targets = [options.target] if options.target else list(TARGETS)
    shares = {target: SHARES.get(target, 1) for target in targets}
    fell = 0
    print(f"{'target':16}{'cases':>8}{'taken':>8}{'refused':>8}{'fell':>6}{'most CPU s':>12}{'most MB':>9}")
    for target, share in shares.items():
        cases = -(-options.cases * share // sum(shares.values()))
        tally = run_cases(target, range(cases), functools.partial(_show_case, target))
        fell += len(tally.fallen)
        counts = f"{cases:>8,}{tally.taken:>8,}{tally.refused:>8,}{len(tally.fallen):>6}"
        print(f"\r{target:16}{counts}{tally.seconds:>12.2f}{tally.bytes / 1e6:>9,.0f}", flush=True)
        print(*tally.fallen, sep="\n", file=sys.stderr)
    return 1 if fell else 0


def _show_case(target: str, number: int) -> None:
    print(f"\r{target} {number}", end="", file=sys.stderr, flush=True)  # the last one seen, where the process ends


if __name__ == "__main__":
    sys.exit(main())
