"""All that changes while training: made, averaged, written to a checkpoint and read from one."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alexnet import model, runs, weights
from alexnet.errors import LabError
from alexnet.hardware import Hardware, is_out_of_memory
from alexnet.model import MLP, AlexNet
from alexnet.recipes import Recipe
from alexnet.runs import Run
from alexnet.towers import lay_over

CHECKPOINT = "checkpoint.pt"


class CheckpointError(LabError, RuntimeError):
    """A checkpoint that cannot be written or read; the text is one sentence that says what to do."""


@dataclass
class Progress:
    """How far a run has come. The sums are (loss, correct, photos), over the epoch and since the last record."""

    epoch_sums: Tensor
    record_sums: Tensor
    epoch: int = 0  # finished
    step: int = 0  # finished, over all epochs
    seconds: float = 0.0  # spent, over all sittings
    best: dict[str, Any] | None = None
    val_losses: list[float] = field(default_factory=list)  # of the finished epochs
    parts: int = 1  # in which a batch goes through the network, so that it fits into memory


@dataclass
class State:
    """All that changes while training, and all that a checkpoint holds."""

    model: nn.Module  # an AlexNet, its two towers, or an MLP
    ema: AveragedModel | None
    optimizer: torch.optim.Optimizer
    progress: Progress

    def train_mode(self, recipe: Recipe) -> None:
        """Set the network to training; frozen layers stay in evaluation, so that their statistics stay, too."""
        self.model.train()
        if recipe.freeze_features:
            self.model.get_submodule("features").eval()

    def average(self, decay: float) -> None:
        """Take the weights of now into the running average, if the recipe has one."""
        if self.ema is not None:
            # A short memory at first, or the random start would stay in the average for epochs.
            decay = min(decay, (1 + self.progress.step) / (10 + self.progress.step))
            self.ema.multi_avg_fn = get_ema_multi_avg_fn(decay)
            self.ema.update_parameters(self.model)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the model has the averaged weights; in its own tensors, which compiled code goes on reading."""
        if self.ema is None:
            yield
            return
        own = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema.module.state_dict())
        try:
            yield
        finally:
            self.model.load_state_dict(own)


def initial_state(recipe: Recipe, classes: list[str], hardware: Hardware, *, blank: bool = False) -> State:
    """Network, average and optimizer at the start of a run; the same for the same seed.

    Args:
        recipe: the settings.
        classes: their names, in order.
        hardware: where the state is to be.
        blank: leave all values open, since a checkpoint is about to set them; drawing them first would cost a second.

    Raises:
        RunError: the run to start from is gone.
        WeightsError: its weights do not fit this network.
    """
    torch.manual_seed(recipe.seed)
    with torch.device("meta" if blank else "cpu"):
        whole = model.from_recipe(recipe, len(classes))
    if blank:
        whole.to_empty(device="cpu")
    elif recipe.start_from:
        start_from(runs.find(recipe.start_from), whole, classes)
    network: Any = whole.to(hardware.device).to(memory_format=hardware.memory_format)
    if recipe.freeze_features:
        network.get_submodule("features").requires_grad_(False)
    if hardware.second is not None:
        network = lay_over(network, (hardware.device, hardware.second)).to(memory_format=hardware.memory_format)
    ema = AveragedModel(network, use_buffers=True) if recipe.ema else None
    epoch_sums, record_sums = (torch.zeros(3, device=hardware.device) for _ in range(2))
    progress = Progress(epoch_sums, record_sums, parts=recipe.accumulation)
    return State(network, ema, make_optimizer(network, recipe), progress)


def start_from(parent: Run, network: AlexNet | MLP, classes: list[str]) -> None:
    """Fill `network` with the weights of `parent`; the last layer only if its classes are the same.

    Raises:
        WeightsError: the parent has no weights, or they are of another network.
    """
    single_logit = network.classifier[-1].out_features == 1
    same = list(parent.config["classes"]) == classes and parent.recipe.single_logit == single_logit
    weights.load_into(network, parent.weights, leave=() if same else (f"{model.output_name(network)}.",))


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; weight decay spares biases and normalisation, all of which have one dimension."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = trained[0].device.type in ("cpu", "cuda")
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint to go on from."""
    return (folder / CHECKPOINT).exists()


def save_checkpoint(folder: Path, recipe: Recipe, state: State) -> None:
    """Replace `checkpoint.pt` in one step; if that fails, the previous one stays.

    Raises:
        CheckpointError: it cannot be written.
    """
    temporary = folder / ".checkpoint.pt"
    try:
        torch.save(
            {
                "recipe": recipe.to_dict(),
                "model": state.model.state_dict(),
                "ema": state.ema and state.ema.state_dict(),
                "optimizer": state.optimizer.state_dict(),
                "progress": dict(vars(state.progress)),
            },
            temporary,
        )
        os.replace(temporary, folder / CHECKPOINT)
    except (OSError, RuntimeError):  # torch tells a full disk as a RuntimeError
        raise CheckpointError(
            "The checkpoint cannot be written; free some space and resume from the last one."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(folder: Path, recipe: Recipe, state: State) -> None:
    """Fill `state` from `checkpoint.pt`, where there is one.

    Raises:
        CheckpointError: it is damaged, or of another recipe.
    """
    if not has_checkpoint(folder):
        return
    try:
        device = state.progress.epoch_sums.device
        saved = torch.load(folder / CHECKPOINT, map_location=device, weights_only=True, mmap=device.type == "cpu")
        if {
            **Recipe().to_dict(),
            **saved["recipe"],
        } != recipe.to_dict():  # settings that came later have their defaults
            raise CheckpointError("The checkpoint is of another recipe; start a new run with this one.")
        state.model.load_state_dict(saved["model"])
        if state.ema is not None:
            state.ema.load_state_dict(saved["ema"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.progress = Progress(**saved["progress"])
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        if isinstance(error, CheckpointError) or is_out_of_memory(error):
            raise
        raise CheckpointError("The checkpoint is damaged; delete checkpoint.pt to train from the start.") from None
