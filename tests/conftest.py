"""What the tests share: a home of their own, and folders of photos made for them."""

from __future__ import annotations

import io
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """No test sees or touches the runs and the data of the project."""
    monkeypatch.setenv("ALEXNET_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _own_main(monkeypatch):
    """No test leaves its page behind as the main module, which a process that a later test spawns would run again."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="session")
def drawings(tmp_path_factory) -> Callable[[Path], None]:
    """Puts the built-in dataset into a home, drawn once for all: half a minute that a first start has to wait for."""
    own = tmp_path_factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own  # the processes of a test run share the parent

    def put(home: Path) -> None:
        from alexnet import doodles

        doodles.write(root / "doodles")
        shutil.copytree(root / "doodles", home / "data" / "doodles", copy_function=os.link)

    return put


@pytest.fixture
def photo_folder(tmp_path) -> Callable[..., Path]:
    """Makes a folder of photos from their relative paths.

    Each path gets a picture of its own; a mapping says more: path -> number of a picture, or the bytes of the file.
    """

    def make(files: Iterable[str] | Mapping[str, int | bytes], name: str = "photos") -> Path:
        contents = files if isinstance(files, Mapping) else {path: zlib.crc32(path.encode()) for path in files}
        (tmp_path / name).mkdir(exist_ok=True)
        for path, content in contents.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else _noise(content))
        return tmp_path / name

    return make


def _noise(seed: int) -> bytes:
    """A PNG file of 24 x 16 random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory):
    """A finished run folder whose network has random weights and sees 67 px; the run and the network itself."""
    import torch

    from alexnet import model, runs, weights
    from alexnet.recipes import Recipe

    folder = tmp_path_factory.mktemp("runs") / "untrained"
    folder.mkdir()
    recipe = Recipe(name="small", image_size=67, resize=70, hidden="64 64")
    config = {"recipe": recipe.to_dict(), "classes": ["cat", "dog"], "mean": runs.MEAN, "std": runs.STD}
    dataset = {"name": "nothing", "fingerprint": "", "photos": 0}
    runs.write_json(folder / "run.json", {**config, "data": "nothing", "dataset": dataset})
    runs.write_status(folder, runs.Status(state="finished"))
    torch.manual_seed(0)
    network = model.from_recipe(recipe, num_classes=2).eval()
    weights.save(folder / "weights.safetensors", network.state_dict())
    return runs.Run(folder), network
