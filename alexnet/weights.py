"""Reading and writing weights as safetensors: nothing is executed, and a small form for the weights that ship.

The small form keeps each large fully connected matrix as a product of two thin ones, in 8 bits with a scale for each
component, and all else in 16 bits. It opens as the full network. Which components to keep is decided by the activations
that the matrix meets (Chen et al. 2021, "DRONE: Data-aware Low-rank Compression"), not by the matrix alone: most
of a trained matrix still is its random start, which activations hardly reach.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alexnet.errors import LabError

LARGE = 4_000_000  # entries from which on a matrix is factored
FACTORS = ("left", "left_scale", "right", "right_scale")


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


def load_into(model: torch.nn.Module, path: Path, leave: tuple[str, ...] = ()) -> None:
    """Fill `model` with the weights in the file `path`, whole or compressed; names that begin as in `leave` stay.

    Raises:
        WeightsError: the file is missing, damaged, made for another network, or holds values that are not numbers.
    """
    expected = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(leave)}
    state = {name: tensor for name, tensor in expand(_read(path)).items() if not name.startswith(leave)}
    if state.keys() != expected.keys():
        odd = sorted(state.keys() ^ expected.keys())[0]
        raise WeightsError(f"The weights in {path.name} are of another network: {odd} is not in both.")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            found, wanted = tuple(tensor.shape), tuple(expected[name].shape)
            raise WeightsError(f"The weights in {path.name} are of another network: {name} is {found}, not {wanted}.")
        if not tensor.isfinite().all():
            raise WeightsError(
                f"The weights in {path.name} hold values that are not numbers; train again with a lower lr."
            )
    model.load_state_dict(state, strict=not leave)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise WeightsError(f"{path.parent.name} has no weights yet; let it finish an epoch first.") from None
    except (SafetensorError, OSError):
        raise WeightsError(f"The weights file of {path.parent.name} is damaged; train again or restore it.") from None


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
        WeightsError: as `load_into`.
    """
    tensors = _read(path)
    names = [name.removesuffix(".weight.left") for name in tensors if name.endswith(".weight.left")]
    return {name: _factors_of(tensors, f"{name}.weight") for name in names}


def check_shapes(model: torch.nn.Module, path: Path) -> None:
    """Compare the shapes that the file `path` announces with those of `model`, before any of its values is read.

    A small file may announce thin factors of a matrix that fits into no memory.

    Raises:
        WeightsError: the file is missing, damaged or made for another network.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        raise WeightsError(f"The weights file of {path.parent.name} is damaged; get it again.") from None
    announced = {name: shape for name, shape in shapes.items() if name.rpartition(".")[2] not in FACTORS}
    for name in [name.removesuffix(".left") for name in shapes if name.endswith(".left")]:
        announced[name] = (*shapes[f"{name}.left"][:1], *shapes.get(f"{name}.right", ())[1:])
    if announced != expected:
        odd = next(name for name in {**expected, **announced} if announced.get(name) != expected.get(name))
        raise WeightsError(f"The weights are of another network than the recipe: {odd} differs; get the file again.")


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


def _incomplete(name: str) -> WeightsError:
    return WeightsError(f"The compressed matrix {name} is incomplete; restore the file.")
