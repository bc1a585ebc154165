"""Reading and writing weights as safetensors: nothing is executed, and a small form for the weights that ship.

The small form keeps each large fully connected matrix as a product of two thin ones, in 8 bits with a scale for each
component, and all else in 16 bits. It opens as the full network. Which components to keep is decided by the activations
that the matrix meets (Chen et al. 2021, "DRONE: Data-aware Low-rank Compression"), not by the matrix alone: most
of a trained matrix still is its random start, which activations hardly reach.

A file may come from anybody, so its header is compared with the network before memory is taken for a single tensor.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alexnet.errors import LabError

LARGE = 4_000_000  # entries from which on a matrix is factored
FACTORS = ("left", "left_scale", "right", "right_scale")
MOST_BYTES = 2 * 10**9  # of all tensors together; the network of 2012 has 0.25
MOST_HEADER = 10**6  # bytes; of a network of eight layers it has a few thousand
FLOATS = frozenset(("F16", "BF16", "F32", "F64"))  # as safetensors calls them


class WeightsError(LabError, ValueError):
    """Weights that cannot be read or do not fit the network; its text is one sentence."""


def save(path: Path, state: dict[str, Tensor]) -> None:
    """Replace the file `path` by the tensors of `state`, in one step; if that fails, the previous one stays.

    Raises:
        WeightsError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError):
        raise WeightsError(f"The file {path.name} cannot be written; free some space and resume.") from None
    finally:
        temporary.unlink(missing_ok=True)


class Entry(NamedTuple):
    """What the header of a safetensors file says of a tensor."""

    shape: tuple[int, ...]
    dtype: str  # as safetensors calls it: F32, I8, ...

    @classmethod
    def of(cls, tensor: Tensor) -> Entry:
        """What a header would say of `tensor`, for the kinds that a network has."""
        return cls(tuple(tensor.shape), "F32" if tensor.is_floating_point() else "I64")


def load_into(model: torch.nn.Module, path: Path, leave: tuple[str, ...] = ()) -> None:
    """Fill `model` with the weights in the file `path`, whole or compressed; names that begin as in `leave` stay.

    Raises:
        WeightsError: as `check`, or the file holds values that are not numbers.
    """
    with _opened(path) as file:
        _check(file, model, path.name, leave)
        state = expand({name: file.get_tensor(name) for name in file.keys() if not name.startswith(leave)})  # noqa: SIM118
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise WeightsError(f"The weights in {path.name} hold values that are not numbers; train again with a lower lr.")
    model.load_state_dict(state, strict=not leave)


def check(model: torch.nn.Module, path: Path) -> None:
    """Whether the file `path` holds the weights of `model`, which may be on the device `meta`; no tensor is read.

    Raises:
        WeightsError: the file is missing or damaged, or of another network by its names, shapes or types; or the network
            is larger than any that is opened.
    """
    with _opened(path) as file:
        _check(file, model, path.name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open file, whose tensors are not read yet; its errors, also those within the block, in a sentence."""
    try:
        with open_safely(path) as file:
            yield file
    except FileNotFoundError:
        raise WeightsError(f"{path.parent.name} has no weights yet; let it finish an epoch first.") from None
    except (SafetensorError, OSError):
        raise WeightsError(f"The weights file of {path.parent.name} is damaged; train again or restore it.") from None


def open_safely(path: Path) -> Any:
    """`safetensors.safe_open` of a file that anybody may have sent; its library checks that shapes, types and offsets add
    up to the size of the file and overlap nowhere.

    Raises:
        SafetensorError: it is damaged, or its header is longer than any that is read.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) == 8 and struct.unpack("<Q", start)[0] > MOST_HEADER:
        raise SafetensorError("The header is too long.")
    return safe_open(path, framework="pt")


def entries(file: Any) -> dict[str, Entry]:
    """What the header of an open safetensors file says of its tensors."""
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    return {name: Entry(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


def _check(file: Any, model: torch.nn.Module, name_of_file: str, leave: tuple[str, ...] = ()) -> None:
    """Compare the header of an open file with what `model` needs."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(leave)}
    if sum(tensor.nbytes for tensor in state.values()) > MOST_BYTES:
        raise WeightsError(f"The network of {name_of_file} has more than {MOST_BYTES / 1e9:.0f} GB; make it smaller.")
    expected = {name: Entry.of(tensor) for name, tensor in state.items()}
    found = _expanded({name: entry for name, entry in entries(file).items() if not name.startswith(leave)})
    other = f"The weights in {name_of_file} are of another network:"
    if found.keys() != expected.keys():
        raise WeightsError(f"{other} {sorted(found.keys() ^ expected.keys())[0]} is not in both.")
    for name, (shape, dtype) in found.items():
        if shape != expected[name].shape:
            raise WeightsError(f"{other} {name} is {shape}, not {expected[name].shape}.")
        if dtype != expected[name].dtype:
            raise WeightsError(f"{other} {name} is of type {dtype}, not {expected[name].dtype}.")


def _expanded(found: Mapping[str, Entry]) -> dict[str, Entry]:
    """What `expand` makes of tensors with these entries, which it need not read; floats of any precision become F32."""
    state: dict[str, Entry] = {}
    for name, (shape, dtype) in found.items():
        matrix, _, part = name.rpartition(".")
        if part not in FACTORS:
            state[name] = Entry(shape, "F32" if dtype in FLOATS else dtype)
        elif matrix not in state:
            state[matrix] = _product_entry(found, matrix)
    return state


def _product_entry(found: Mapping[str, Entry], name: str) -> Entry:
    """The entry of a matrix that is stored as factors, once these fit together."""
    left, left_scale, right, right_scale = (found.get(f"{name}.{part}") for part in FACTORS)
    if left and left_scale and right and right_scale and len(left.shape) == len(right.shape) == 2:
        (rows, rank), columns = left.shape, right.shape[1]
        fitting = (
            Entry((rows, rank), "I8"),
            Entry((1, rank), "F32"),
            Entry((rank, columns), "I8"),
            Entry((rank, 1), "F32"),
        )
        if (left, left_scale, right, right_scale) == fitting:
            return Entry((rows, columns), "F32")
    raise _incomplete(name)


def _incomplete(name: str) -> WeightsError:
    return WeightsError(f"The compressed matrix {name} is incomplete; restore the file.")


def compress(state: dict[str, Tensor], rank: int, moments: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The small form of a state: what `expand` turns back into nearly the same.

    Args:
        state: name -> float tensor (or integer counters, kept as they are).
        rank: components kept of each large matrix; one that has no more than these stays whole.
        moments: for large matrices (outputs, inputs), the mean of x x^T over the inputs x that they meet; a matrix
            without one is cut to its own leading components.
    """
    small: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if is_factored(tensor, rank):
            factors = _factors(tensor.float(), rank, (moments or {}).get(name))
            small |= {f"{name}.{part}": value for part, value in zip(FACTORS, factors, strict=True)}
        else:
            # Running variances and their like span many magnitudes and weigh nothing: they stay as they are.
            small[name] = tensor.half() if tensor.ndim > 1 else tensor
    return small


def is_factored(tensor: Tensor, rank: int) -> bool:
    """Whether `compress` makes two thin matrices of this rank out of `tensor`."""
    return tensor.ndim == 2 and tensor.numel() >= LARGE and min(tensor.shape) > rank


def _factors(matrix: Tensor, rank: int, moment: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of all products of this rank, the one whose outputs are nearest to the matrix's own in the mean square."""
    if moment is None:
        root = None
    else:
        # Inputs never met in the sample may come up later: a little of every direction counts.
        ridge = 0.01 * moment.diagonal().mean() * torch.eye(len(moment))
        root = torch.linalg.cholesky(moment + ridge)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(matrix if root is None else matrix @ root, q=rank, niter=4)
    right = (v * s.sqrt()).T
    if root is not None:
        right = torch.linalg.solve_triangular(root, right, upper=False, left=False)
    left, left_scale = _to_int8(u * s.sqrt(), dim=0)
    return left, left_scale, *_to_int8(right, dim=1)


def _to_int8(matrix: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """8-bit integers and the scale of each component, which lies along the other dimension than `dim`."""
    scale = matrix.abs().amax(dim=dim, keepdim=True).clamp(min=1e-12) / 127
    return (matrix / scale).round().to(torch.int8), scale


def expand(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The full state of a whole or compressed one, float32.

    Raises:
        WeightsError: a factor of a compressed matrix is missing, or the factors do not fit together.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        matrix, _, part = name.rpartition(".")
        if part not in FACTORS:
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
        elif matrix not in state:
            state[matrix] = _product(tensors, matrix)
    return state


def read_factors(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The layers in the file `path` whose matrix is kept as a product, and its factors `(outputs, rank)`, `(rank, inputs)`.

    Raises:
        WeightsError: the file is missing or damaged, or a factor is.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    names = [name.removesuffix(".weight.left") for name in tensors if name.endswith(".weight.left")]
    return {name: _factors_of(tensors, f"{name}.weight") for name in names}


def _product(tensors: dict[str, Tensor], name: str) -> Tensor:
    left, right = _factors_of(tensors, name)
    try:
        return left @ right
    except RuntimeError:
        raise _incomplete(name) from None


def _factors_of(tensors: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    try:
        left, left_scale, right, right_scale = (tensors[f"{name}.{part}"].float() for part in FACTORS)
        return left * left_scale, right * right_scale
    except (KeyError, RuntimeError):
        raise _incomplete(name) from None
