"""The weights in a file that anybody may have sent; nothing in it is executed, and memory and time are bounded.

A `.safetensors` file says in its header how large it is. A `.pth` or `.pt` file is a pickle, in which a few bytes can ask for
terabytes: PyTorch's weights-only loader reads it in a process of its own, with limits, which hands on plain tensors as
safetensors. `python -m alexnet.statefile FILE OUT BYTES` is that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from alexnet import runs, weights
from alexnet.errors import LabError

MOST_BYTES = 2 * 10**9  # of a file, also once it is unpacked; a checkpoint of the network of 2012 with Adam has 0.7
MOST_SECONDS = 120  # that a file may take to open, most of which is importing torch
CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "network",
    "net",
    "weights",
)  # in which checkpoints keep a state
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
DTYPES = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64))
REFUSED = 3  # exit status of the process that reads a pickle, which then has printed the reason


class InterchangeError(LabError, ValueError):
    """Weights or photos that cannot be used; its text is one sentence."""


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors in a `.pth`, `.pt` or `.safetensors` file by their names, in order; nothing in it is executed.

    Containers such as `{"state_dict": ...}` are opened, and prefixes that wrappers put before all names are dropped. A
    `.safetensors` file does not keep the order, so there it is that of the names, with numbers in them by their value.

    Raises:
        InterchangeError: it is missing, damaged, too large, a whole network instead of its weights, or holds none.
    """
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
    except OSError as error:
        raise InterchangeError(f"{file} cannot be opened ({error.strerror}); check the path.") from None
    if size > MOST_BYTES:
        raise _too_large(file.name)
    if not is_unordered(file):
        return _from_pickle(file)
    state, _ = _from_safetensors(file, file.name)
    state = _checked(_find_state(state), file.name)
    return dict(sorted(state.items(), key=lambda item: natural(item[0])))


def is_unordered(file: Path) -> bool:
    """Whether a file of this name does not keep the order of its tensors."""
    return file.suffix == ".safetensors"


def natural(name: str) -> list[str | int]:
    """A key to sort names by, with the numbers in them by their value."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _from_safetensors(file: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in a file, which take no more memory than it has bytes, and what is noted beside them."""
    try:
        with weights.open_safely(file) as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError, AttributeError, TypeError):  # the last two of types that torch does not know
        raise _damaged(name) from None


def _from_pickle(file: Path) -> dict[str, Tensor]:
    """The tensors in a pickle, by way of another process."""
    if _unpacked(file) > MOST_BYTES:
        raise _too_large(file.name)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "state.safetensors"
        command = [sys.executable, "-m", "alexnet.statefile", str(file.resolve()), str(out), str(MOST_BYTES)]
        try:
            done = subprocess.run(
                command, cwd=runs.PROJECT, stdin=subprocess.DEVNULL, capture_output=True, timeout=MOST_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise InterchangeError(f"{file.name} takes too long to open; save its weights alone.") from None
        if done.returncode == REFUSED:
            raise InterchangeError(done.stdout.decode("utf-8", "replace").strip())
        if done.returncode:
            raise _damaged(file.name)
        tensors, about = _from_safetensors(out, file.name)
        return {name: tensors[str(number)].clone() for number, name in enumerate(json.loads(about["names"]))}


def _unpacked(file: Path) -> int:
    """The bytes that a ZIP, as which `torch.save` writes, unpacks to; 0 of another file."""
    try:
        if not zipfile.is_zipfile(file):
            return 0
        with zipfile.ZipFile(file) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise _damaged(file.name) from None


def _too_large(name: str) -> InterchangeError:
    return InterchangeError(
        f"{name} has more than {MOST_BYTES / 1e9:.0f} GB, more than any such network; save its weights alone."
    )


def _damaged(name: str) -> InterchangeError:
    return InterchangeError(f"{name} is damaged or no file of PyTorch; get or save it again.")


def _find_state(content: Any, depth: int = 3) -> dict[str, Tensor] | None:
    """The names and tensors in what a file holds, on the surface or in a container."""
    if not isinstance(content, Mapping) or not depth:
        return None
    if content and all(isinstance(name, str) and isinstance(t, Tensor) for name, t in content.items()):
        return _without_prefixes({name: t for name, t in content.items() if name != "n_averaged"})
    states = (_find_state(content[name], depth - 1) for name in CONTAINERS if name in content)
    return next(filter(None, states), None)


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _checked(state: dict[str, Tensor] | None, name_of_file: str) -> dict[str, Tensor]:
    """`state`, if it is one and all in it are plain tensors."""
    if state is None:
        raise InterchangeError(f"{name_of_file} holds no weights by name; save network.state_dict() and import that.")
    for name, tensor in state.items():
        if (
            tensor.layout != torch.strided
            or tensor.is_quantized
            or tensor.device.type != "cpu"
            or tensor.dtype not in DTYPES
        ):
            raise InterchangeError(f"{name} in {name_of_file} is not a plain tensor; save the weights in float32.")
    return state


# -------------------------------------------------------------------------------------- in the process that reads a pickle


def _limit(most_bytes: int) -> None:
    """Have this process end before it takes much more memory, disk or time than such a file needs."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no limits; a system may refuse one
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes + weights.MOST_HEADER,) * 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])  # what torch has mapped is not what the file takes
        most = pages * resource.getpagesize() + 2 * most_bytes  # the file, and its weights as they are written
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _load(file: Path) -> Any:
    """What `torch.save` wrote, as far as it is data."""
    try:
        with warnings.catch_warnings(action="ignore"):  # what they say is said below
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise _too_large(file.name) from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        if "GLOBAL" in str(error) or "TorchScript" in str(error):
            raise InterchangeError(
                f"{file.name} holds more than data, such as a whole network, and would run code of its own; save the "
                "state_dict() alone and import that."
            ) from None
        raise (_too_large if "alloc" in str(error) else _damaged)(file.name) from None
    except (zipfile.BadZipFile, AttributeError, IndexError, AssertionError, OverflowError, RecursionError):
        raise _damaged(file.name) from None


def _convert(file: Path, out: Path, most_bytes: int) -> None:
    """Write the state in a pickle as safetensors, with its names in order beside tensors that are numbered."""
    state = _checked(_find_state(_load(file)), file.name)
    if sum(tensor.nbytes for tensor in state.values()) > most_bytes:  # a view may show one number a billion times
        raise _too_large(file.name)
    tensors = {str(number): tensor.detach().contiguous().clone() for number, tensor in enumerate(state.values())}
    save_file(tensors, out, {"names": json.dumps(list(state))})


def _main(file: str, out: str, most_bytes: str) -> int:
    _limit(int(most_bytes))
    try:
        _convert(Path(file), Path(out), int(most_bytes))
    except InterchangeError as error:
        reason = error
    except MemoryError:
        reason = _too_large(Path(file).name)
    else:
        return 0
    sys.stdout.buffer.write(str(reason).encode())
    return REFUSED


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
