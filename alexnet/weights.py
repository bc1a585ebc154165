"""Reading and writing weights as safetensors: nothing is executed, and what is needed to read them is beside them."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class WeightsError(ValueError):
    """Weights that cannot be read or do not fit the network; its text is one sentence."""


def save(path: Path, state: dict[str, Tensor]) -> None:
    """Replace the file `path` by the tensors of `state`, in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_into(model: torch.nn.Module, path: Path) -> None:
    """Fill `model` with the weights in the file `path`.

    Raises:
        WeightsError: the file is missing, damaged, or made for another network.
    """
    expected = model.state_dict()
    state = _read(path)
    if state.keys() != expected.keys():
        odd = sorted(state.keys() ^ expected.keys())[0]
        raise WeightsError(f"The weights in {path.name} are of another network: {odd} is not in both.")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise WeightsError(
                f"The weights in {path.name} are of another network: {name} has shape {tuple(tensor.shape)}, "
                f"not {tuple(expected[name].shape)}."
            )
    model.load_state_dict(state)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise WeightsError(f"{path.parent.name} has no weights yet; let it finish an epoch first.") from None
    except (SafetensorError, OSError):
        raise WeightsError(f"The weights file of {path.parent.name} is damaged; train again or restore it.") from None
