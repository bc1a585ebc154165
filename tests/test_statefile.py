"""Files of weights from strangers: each is refused in one sentence, and neither run nor given the memory that it asks for."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from alexnet import runs, statefile, weights
from alexnet.statefile import InterchangeError, read_state
from alexnet.weights import WeightsError

TERA = 10**12


def safetensors(file: Path, header: dict | bytes, content: bytes = b"") -> Path:
    """A file with this header, whatever it claims."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(struct.pack("<Q", len(text)) + text + content)
    return file


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LIES = {
    "terabytes": ({"w": tensor("F32", [10**6, 10**6], 0, 4 * TERA)}, b"1234"),
    "a shape beyond its bytes": ({"w": tensor("F32", [10**6, 10**6], 0, 4)}, b"1234"),
    "a shape beyond all numbers": ({"w": tensor("F32", [2**40, 2**40], 0, 4)}, b"1234"),
    "overlapping offsets": ({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 4, 12)}, bytes(12)),
    "the same offsets": ({f"{n}": tensor("F32", [2], 0, 8) for n in range(9)}, bytes(8)),
    "offsets backwards": ({"w": tensor("F32", [1], 8, 4)}, bytes(8)),
    "bytes left over": ({"w": tensor("F32", [1], 0, 4)}, bytes(40)),
    "an unknown type": ({"w": tensor("F31", [1], 0, 4)}, bytes(4)),
    "no JSON": (b"{" * 5000, b""),
    "a long header": (b" " * (weights.MOST_HEADER + 1), b""),
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(tmp_path, lie):
    file = safetensors(tmp_path / "run" / "weights.safetensors", *LIES[lie])
    with pytest.raises(InterchangeError, match="^weights.safetensors is damaged or no file of PyTorch; "):
        read_state(file)
    with pytest.raises(WeightsError, match="^The weights file of run is damaged; train again or restore it.$"):
        weights.load_into(nn.Linear(1, 1), file)


def test_types_that_weights_do_not_have(tmp_path):
    for dtype, size in (("C64", 8), ("F8_E4M3", 1), ("BOOL", 1), ("U8", 1)):
        header = {"0.weight": tensor(dtype, [2, 2], 0, 4 * size), "0.bias": tensor("F32", [2], 4 * size, 4 * size + 8)}
        file = safetensors(tmp_path / "run" / "weights.safetensors", header, bytes(4 * size + 8))
        with pytest.raises(InterchangeError, match="^0.weight in weights.safetensors is not a plain tensor; "):
            read_state(file)
        with pytest.raises(WeightsError, match=rf"another network: 0.weight is of type {dtype}, not F32\.$"):
            weights.load_into(nn.Sequential(nn.Linear(2, 2)), file)


def test_factors_are_not_multiplied_before_their_product_is_known_to_fit(tmp_path, monkeypatch):
    """Two thin matrices of 100 kB each claim a matrix of 40 GB."""
    rows, parts = 100_000, {}
    for part, shape, dtype in (("left", [rows, 1], "I8"), ("left_scale", [1, 1], "F32"), ("right", [1, rows], "I8"), ("right_scale", [1, 1], "F32")):  # fmt: skip
        begin = sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in parts.values())
        size = shape[0] * shape[1] * (4 if dtype == "F32" else 1)
        parts[f"0.weight.{part}"] = tensor(dtype, shape, begin, begin + size)
    file = safetensors(tmp_path / "run" / "weights.safetensors", parts, bytes(2 * rows + 8))
    monkeypatch.setattr(weights, "expand", None)
    with pytest.raises(WeightsError, match=r"0.weight is \(100000, 100000\), not \(2, 2\)\.$"):
        weights.load_into(nn.Sequential(nn.Linear(2, 2, bias=False)), file)
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(rows, rows, bias=False))
    with pytest.raises(WeightsError, match="has more than 2 GB; make it smaller.$"):
        weights.check(network, file)


class Bomb:
    """Asks for a terabyte when it is unpickled."""

    def __reduce__(self):
        return bytearray, (TERA,)


class Command:
    """Makes a folder when it is unpickled by a loader that runs what it reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def in_zip(file: Path, content: bytes) -> None:
    """A file as `torch.save` writes it, with this for its pickle."""
    torch.save({}, file)
    with zipfile.ZipFile(file) as before:
        entries = {entry.filename: before.read(entry) for entry in before.infolist()}
    with zipfile.ZipFile(file, "w") as after:
        for name, old in entries.items():
            after.writestr(name, content if name.endswith("data.pkl") else old)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_that_would_run_something_does_not(tmp_path, zipped):
    content, file = pickle.dumps(Command(tmp_path / "made"), protocol=2), tmp_path / "code.pth"
    in_zip(file, content) if zipped else file.write_bytes(content)
    with pytest.raises(InterchangeError, match="^code.pth holds more than data"):
        read_state(file)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_that_asks_for_a_terabyte(tmp_path, zipped):
    content, file = pickle.dumps(Bomb(), protocol=2), tmp_path / "bomb.pth"
    in_zip(file, content) if zipped else file.write_bytes(content)
    assert file.stat().st_size < 2000
    with pytest.raises(InterchangeError, match="^bomb.pth has more than 2 GB"):
        read_state(file)


# In a process of its own: the most memory of any child is told, and other tests have had larger ones.
READ_WITH_LITTLE = """
import resource, sys
from pathlib import Path
from alexnet import statefile
statefile.MOST_BYTES = 50 * 10**6
try:
    statefile.read_state(Path(sys.argv[1]))
except statefile.InterchangeError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_the_process_that_reads_a_pickle_has_no_more_memory_than_it_needs(tmp_path):
    """A gigabyte where 50 MB are allowed; without the limit it would be had, and found to be no weights."""
    file = tmp_path / "bomb.pth"
    file.write_bytes(pickle.dumps(Small(), protocol=2))
    command = [sys.executable, "-c", READ_WITH_LITTLE, str(file)]
    done = subprocess.run(command, cwd=runs.PROJECT, capture_output=True, text=True, check=True)
    said, kilobytes = done.stdout.splitlines()
    assert said.startswith("bomb.pth has more than") and int(kilobytes) < 10**6


class Small:
    """Asks for a gigabyte."""

    def __reduce__(self):
        return bytearray, (10**9,)


def test_one_number_that_is_shown_a_million_million_times(tmp_path):
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "view.pth")
    assert (tmp_path / "view.pth").stat().st_size < 3000
    with pytest.raises(InterchangeError, match="^view.pth has more than 2 GB"):
        read_state(tmp_path / "view.pth")


def test_a_pickle_that_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(statefile, "MOST_SECONDS", 0)
    torch.save({"w": torch.zeros(1)}, tmp_path / "slow.pth")
    with pytest.raises(InterchangeError, match="^slow.pth takes too long to open; save its weights alone.$"):
        read_state(tmp_path / "slow.pth")


def test_weights_come_through_as_they_are_in_their_order(tmp_path):
    """Also those that share memory, are views, or have a name that says something to a shell or to safetensors."""
    base = torch.arange(12.0).view(3, 4)
    state = {"z": base.T, "a; rm": base[1], "same": base, "n": torch.tensor(7), "h": base.half(), "__metadata__": base}
    torch.save({"state_dict": state, "optimizer": {"lr": 1}}, tmp_path / "ours.pth")
    found = read_state(tmp_path / "ours.pth")
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) and found[name].dtype == state[name].dtype for name in state)
