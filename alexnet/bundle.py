"""A run as one ZIP to take elsewhere: every usual form of its weights, and the proof that each answers as the app does.

The same file imports as a run again. Whoever it comes from, nothing in it is executed, and what it holds beside the files
of a run is never unpacked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from PIL import Image

from alexnet import public, runs
from alexnet.errors import LabError
from alexnet.recipes import Recipe
from alexnet.runs import Run, RunError

Progress = Callable[[str, int, int], None]

FORM = "bundle"  # as `export --format` knows it
GRAPH, SCRIPT, PROOF = "model.onnx", "classify.py", "proof.json"
FORMS = {"onnx": "ONNX", "safetensors": "Safetensors", "pth": "PyTorch (.pth)"}  # what the proof is of
WEIGHTS = ("weights.safetensors", "familiarity.safetensors")
TEXTS = ("metrics.jsonl", "status.json", "report.json", "predictions.csv", "calibration.json")
RUN_FILES = ("run.json", *WEIGHTS, *TEXTS)  # all that an import takes; what it proves is for others to say
PACKED = (".json", ".jsonl", ".csv", ".md", ".py")  # suffixes of what is worth packing
STEPS = 5

MOST_BYTES = 2 * 10**9  # of the weights in a bundle
MOST_TEXT = 50 * 10**6  # bytes of any other file
MOST_RATIO = 50  # of a file's size to its packed size; weights hardly pack, and numbers as text about tenfold
MOST_DIRECTORY = 10**6  # bytes of a ZIP's table of contents; ours have about one thousand
POLL_SECONDS = 0.3
KEPT = "exports"  # the folder, beside `runs/`, of the bundles that pages made


class BundleError(LabError, ValueError):
    """A bundle that cannot be made or used; its text is one sentence."""


# -------------------------------------------------------------------------------------------------------------- making


def write(run: Run, file: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Write the bundle of `run`; it takes its place only when it has been opened elsewhere and answered as the app.

    Args:
        run: any that has weights; the proof goes into its folder too, unless it came with the project.
        file: the ZIP, replaced in one step.
        progress: told what is being done; an exception that it raises ends it, and leaves nothing behind.

    Returns:
        The proof: the `checks` of `alexnet.proof.compare` by the names in `FORMS`, the `answers` on the fixed photos,
        and with what `versions` that was.

    Raises:
        BundleError: the run was deleted meanwhile, the file cannot be written, or a form answers otherwise.
        RunError, WeightsError: the run cannot be read, or has no weights.
    """
    public.refuse("exports")

    def report(what: str, done: int) -> None:
        _require(run)
        if progress:
            progress(what, done, STEPS)

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=file.parent) as work:
            draft = Path(work).resolve() / "bundle.zip"
            expected = _pack(run, draft, report)
            proof = _prove(run.id, draft, expected, report)
            _require(run)
            if not run.shipped:
                runs.write_json(run.path / PROOF, proof)
            os.replace(draft, file)
    except (OSError, LabError) as error:
        _require(run)
        if isinstance(error, LabError):
            raise
        raise BundleError(f"{file} cannot be written ({error.strerror or error}); choose another place.") from None
    if progress:
        progress("Done", STEPS, STEPS)
    return proof


def _require(run: Run) -> None:
    if not (run.path / "run.json").exists():
        raise BundleError(f"{run.id} was deleted while it was exported; bring it back, or export another run.")


def _pack(run: Run, draft: Path, report: Callable[[str, int], None]) -> list[dict[str, Any]]:
    """Write a ZIP of all but the proof; returns the app's answers on the fixed photos."""
    from alexnet import graph, proof
    from alexnet.predict import load_classifier

    with tempfile.TemporaryDirectory(prefix=".", dir=draft.parent) as made:
        report("Copying the run", 0)
        copy = _copy(run, Path(made).resolve() / run.id.replace("/", "-"))
        classifier = load_classifier(copy)
        answers = proof.answers(classifier, list(proof.fixed_photos().values()))
        report("Writing the weights for PyTorch", 1)
        proof.write_pth(classifier, copy.path)
        report("Writing the ONNX graph", 2)
        graph.write(copy, copy.path / GRAPH)
        shutil.copyfile(Path(__file__).with_name("classify_photos.py"), copy.path / SCRIPT)
        report("Packing", 3)
        with zipfile.ZipFile(draft, "w") as archive:
            for path in sorted(copy.path.iterdir()):
                packing = zipfile.ZIP_DEFLATED if path.suffix in PACKED else zipfile.ZIP_STORED
                archive.write(path, path.name, packing)
    return answers


def _copy(run: Run, folder: Path) -> Run:
    """The run in `folder` as it is now, so that all forms are of the same weights even while it trains on."""
    from alexnet import card, export

    if not run.has_weights:
        raise RunError(f"{run.id} has no weights yet; let it finish an epoch first.")
    folder.mkdir()
    runs.write_json(folder / "run.json", export.shareable(run.config))
    for name in (*WEIGHTS, *TEXTS):
        if (run.path / name).exists():
            shutil.copyfile(run.path / name, folder / name)
    copy = Run(folder)
    card.write(copy)
    return copy


# ------------------------------------------------------------------------------------------------------------- proving


def _prove(
    name: str, draft: Path, expected: list[dict[str, Any]], report: Callable[[str, int], None]
) -> dict[str, Any]:
    """Open the bundle elsewhere, compare its answers with those that are `expected`, and put the result into it."""
    from alexnet import proof

    report(f"Comparing {len(expected)} answers", 4)
    photos = proof.fixed_photos()
    with tempfile.TemporaryDirectory(prefix=".", dir=draft.parent) as opened:
        folder = Path(opened).resolve()
        with zipfile.ZipFile(draft) as archive:
            archive.extractall(folder)  # it is ours
        (folder / proof.PHOTOS).mkdir()
        for file, data in photos.items():
            (folder / proof.PHOTOS / file).write_bytes(data)
        found = _answers_elsewhere(folder, [f"{proof.PHOTOS}/{file}" for file in photos])
    checks = {form: proof.compare(expected, found[form]) for form in FORMS}
    for form, check in checks.items():
        if check["same"] < check["of"]:
            raise BundleError(
                f"The {FORMS[form]} of {name} gives the app's answer on {check['same']} of {check['of']} photos only, so "
                "nothing was exported; install the versions in requirements.txt and export again."
            )
    content = {
        "format": 1,
        "run": name,
        "made": time.time(),
        "checks": checks,
        "tolerance": proof.SAME,
        "versions": {package: metadata.version(package) for package in ("torch", "onnxruntime", "pillow")},
        "answers": [{"file": file, **answer} for file, answer in zip(photos, expected, strict=True)],
    }
    with zipfile.ZipFile(draft, "a") as archive:
        archive.writestr(PROOF, json.dumps(content, indent=1, ensure_ascii=False), zipfile.ZIP_DEFLATED)
    return content


def _answers_elsewhere(folder: Path, photos: list[str]) -> dict[str, list[dict[str, Any]]]:
    """What each form in the unpacked bundle says, in clean processes: its own script, without this package, and PyTorch."""
    told = _output([sys.executable, "-I", SCRIPT, "--json", *photos], folder)
    return {"onnx": told["photos"], **_output([sys.executable, "-m", "alexnet.proof", str(folder)], runs.PROJECT)}


def _output(command: list[str], folder: Path) -> dict[str, Any]:
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise BundleError(f"The bundle cannot be opened elsewhere ({reason}), so nothing was exported.") from None


# ------------------------------------------------------------------------------------------------------------- for pages


def kept(run: Run) -> Path:
    """Where a page has the bundle of `run` made."""
    return runs.home() / KEPT / f"{run.id.replace('/', '-')}.zip"


def current_proof(run: Run) -> dict[str, Any] | None:
    """The proof in the bundle that a page had made of `run`; None where there is none, or the run has changed since."""
    try:
        changed = max((run.path / name).stat().st_mtime for name in RUN_FILES if (run.path / name).exists())
        if kept(run).stat().st_mtime < changed:
            return None
        with zipfile.ZipFile(kept(run)) as archive:
            return json.loads(archive.read(PROOF))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def write_aside(run: Run, progress: Progress) -> None:
    """`write` to the place of `kept` in a process of its own, which ends with this call.

    Writing ONNX loads so much that pages would be slow ever after. `progress` is called several times a second.

    Raises:
        BundleError: what that process said when it failed.
    """
    public.refuse("exports")
    kept(run).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".page-", dir=kept(run).parent) as work:  # all that a killed process leaves
        file = Path(work) / "bundle.zip"
        _follow(["export", "--format", FORM, "--run", str(run.path), "--out", str(file)], progress)
        os.replace(file, kept(run))


def _follow(arguments: list[str], progress: Progress) -> None:
    """Run a command of `python -m alexnet` that tells its progress."""
    # Appended to, so that reading it here does not move the place at which the process writes.
    with tempfile.TemporaryFile("a+", encoding="utf-8", newline="") as told:
        child = subprocess.Popen(
            [sys.executable, "-m", "alexnet", *arguments],
            cwd=runs.PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=told,
        )
        try:
            while child.poll() is None:
                progress(*_last_report(told))
                time.sleep(POLL_SECONDS)
        finally:
            child.kill()
            child.wait()
        if child.returncode:
            told.seek(0)
            lines = told.read().strip().splitlines()
            raise BundleError(lines[-1] if lines else "The export ended without a word; try again.")


def _last_report(told: IO[str]) -> tuple[str, int, int]:
    """What `alexnet.commands.show_progress` wrote last."""
    told.seek(0)
    found = re.findall(r"\r([^\r]+): (\d+) of (\d+)", told.read())
    what, done, total = found[-1] if found else ("Starting", 0, STEPS)
    return what, int(done), int(total)


# ----------------------------------------------------------------------------------------------------------- importing


def load(file: Path, path: Path | None = None, name: str | None = None) -> Run:
    """Make a finished run of a bundle, which answers as the one that was exported; nothing in the file is executed.

    Args:
        file: the ZIP; only the files that a run is made of are unpacked.
        path: the folder to make; by default a new one under `runs/`.
        name: of the file where it came from, if not its own.

    Raises:
        BundleError: it is no bundle, is damaged, or is not safe to unpack.
        RunError, WeightsError: what it holds is no run, or the folder cannot be made.
    """
    public.refuse("imports")
    name = name or file.name
    parent = path.parent if path else runs.runs_dir()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=parent) as work:
            folder = Path(work).resolve() / "bundle"
            folder.mkdir()
            _unpack(file, name, folder)
            config = _checked(Run(folder), name)
            return _settle(folder, path, {**config, "imported": name})
    except OSError as error:
        raise BundleError(
            f"{name} cannot be imported ({error.strerror or error}); check the file and the disk."
        ) from None


def _unpack(file: Path, name: str, folder: Path) -> None:
    """The files of a run, and no others, from a ZIP that anybody may have made."""
    damaged = BundleError(f"{name} is no bundle, or damaged: get it again.")
    if not _is_small_table(file):
        raise damaged
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename in RUN_FILES]
            if len({entry.filename for entry in entries}) < len(entries):
                raise damaged
            for entry in entries:
                _check_entry(entry, name, file.stat().st_size)
                with archive.open(entry) as source, (folder / entry.filename).open("xb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        if isinstance(error, LabError):
            raise
        raise damaged from None
    if not (folder / "run.json").exists() or not (folder / WEIGHTS[0]).exists():
        raise BundleError(
            f"{name} holds no run, which has a run.json and a {WEIGHTS[0]}: choose a bundle made by export."
        )


def _is_small_table(file: Path) -> bool:
    """Whether the table of contents at the end of a ZIP (APPNOTE.TXT, 4.3.16) is short; it is read whole to open one."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 2**16))
        tail = stream.read()
    start = tail.rfind(b"PK\5\6")
    if start < 0 or start + 22 > len(tail) or tail[max(0, start - 20) : start].startswith(b"PK\6\7"):
        return False  # the last is how one of more than 4 GB announces a second table
    (table,) = struct.unpack_from("<L", tail, start + 12)
    return table <= MOST_DIRECTORY


def _check_entry(entry: zipfile.ZipInfo, name: str, size: int) -> None:
    """Refuse a link, and what would unpack to more than a file of a run in a ZIP of `size` bytes can."""
    most = min(MOST_BYTES if entry.filename in WEIGHTS else MOST_TEXT, MOST_RATIO * max(entry.compress_size, 1000))
    is_plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG)
    is_usual = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if not (is_plain and is_usual and entry.file_size <= most and entry.compress_size <= size):
        raise BundleError(f"{name} holds a {entry.filename} that is not safe to unpack: get it from another source.")


def _checked(run: Run, name: str) -> dict[str, Any]:
    """The content of the run's `run.json`, without places on a stranger's disk, after a first answer and its card."""
    import torch

    from alexnet import card, export, model, weights
    from alexnet.predict import load_classifier

    try:
        config = export.shareable(run.config)
        with torch.device("meta"):
            network = model.from_recipe(run.recipe, len(config["classes"]))
        weights.check(network, run.weights)
        load_classifier(run)([Image.new("RGB", (64, 64))])
        card.markdown(run)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:
        if isinstance(error, LabError):
            raise
        raise BundleError(f"{name} says things of its run that cannot be so: get it from another source.") from None
    return config


def _settle(folder: Path, path: Path | None, config: dict[str, Any]) -> Run:
    """Make a run folder of `folder`, with `config` as its `run.json`."""
    from alexnet import card

    status = replace(Run(folder).status(), state="finished", message=f"Imported from {config['imported']}.")
    (folder / "run.json").unlink()
    run = Run(runs.make_folder(path, Recipe.from_dict(config["recipe"]).name, "run.json", config))
    try:
        for part in folder.iterdir():
            os.replace(part, run.path / part.name)
        runs.write_status(run.path, status)
        card.write(run)
    except OSError:
        (run.path / "run.json").unlink(missing_ok=True)  # half a run is none
        raise
    return run
