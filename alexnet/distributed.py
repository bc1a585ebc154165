"""Several processes that train as one, on `torch.distributed` as `torchrun` starts them.

A batch is divided over the processes. Normalisation and dropout see all of it, so that N processes compute what one
would with the same batch. Only the first process writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]  # public, but not marked so
from torch.distributed._functional_collectives import all_reduce
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from alexnet.errors import LabError
from alexnet.runs import Stopped

PATIENCE = timedelta(days=1)  # how long processes wait for each other: a run may be queued for hours
T = TypeVar("T")


class ProcessError(LabError, RuntimeError):
    """Another process of the run failed, or is gone; the text is one sentence that says so."""


@dataclass(frozen=True)
class Group:
    """The processes of a run, as one of them sees them; by default there is only one."""

    rank: int = 0  # over all machines
    size: int = 1
    local_rank: int = 0  # on this machine

    @property
    def leads(self) -> bool:
        """Whether this is the process that decides and writes."""
        return self.rank == 0

    def agree(self, value: T) -> T:
        """The leader's value, in all processes."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: T) -> list[T]:
        """The values of all processes by rank, in all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over the processes; the same in all of them."""
        total = tensor.clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def together(self, function: Callable[[], T]) -> T:
        """Call `function` in all processes; where it fails in one, all of them raise that.

        Raises:
            Stopped: as in one of them.
            ProcessError: with the words of another process's error; a process's own error it raises itself.
        """
        result: Any = None
        error: Exception | None = None
        try:
            result = function()
        except (Stopped, LabError) as raised:
            error = raised
        told = self.gather(None if error is None else (isinstance(error, Stopped), str(error)))
        if error is not None:
            raise error
        for stopped, text in filter(None, told):
            raise Stopped if stopped else ProcessError(text)
        return result

    def share(self, photos: int) -> slice:
        """Which photos of a batch are this process's."""
        return divide(photos, self.size)[self.rank]


ALONE = Group()


def divide(photos: int, parts: int) -> list[slice]:
    """A batch in parts of about one size, each beginning at an even number, so that mixed pairs stay together."""
    pairs = math.ceil(photos / 2)
    bounds = [min(2 * (pairs * part // parts), photos) for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]


@contextlib.contextmanager
def join() -> Iterator[Group]:
    """The group that `torchrun` started this process in, which lasts as long as the block."""
    store, rank, size = next(rendezvous("env://"))
    # Gloo carries what the processes tell each other, NCCL the gradients between GPUs.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    round_name = _agree_on_round(store, rank, size)
    dist.init_process_group(backend, store=PrefixStore(round_name, store), rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield Group(rank, size, int(os.environ["LOCAL_RANK"]))
    finally:
        dist.destroy_process_group()


def leave(status: int) -> NoReturn:
    """End this process, which was in a group, with an exit status, and without the interpreter's own clearing up.

    Threads of Gloo outlive the group and may just then let go of their last tensor. In an interpreter that ends, this
    aborts the process, and `torchrun` calls a run that went well a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _agree_on_round(store: Store, rank: int, size: int) -> str:
    """A name that only these processes have, after a restart, too.

    `torchrun` keeps one store over restarts, in which addresses of processes that are gone would be found (PyTorch's
    issue 135712). Each process puts down a fresh number; all of them have met when all have read the same ones.
    """
    store.set(f"number/{rank}", uuid.uuid4().hex)
    while True:
        numbers = [store.get(f"number/{other}") for other in range(size)]
        name = hashlib.blake2b(b"".join(numbers), digest_size=8).hexdigest()
        store.set(f"round/{rank}", name)
        if all(store.get(f"round/{other}") == name.encode() for other in range(size)):
            return name
        time.sleep(0.05)


def parallel(network: nn.Module, group: Group) -> nn.Module:
    """`network` with gradients averaged over the processes, and layers that see the whole batch."""
    device = next(network.parameters()).device
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            network.set_submodule(name, _whole_batch_norm(layer, device))
        elif isinstance(layer, nn.Dropout):
            network.set_submodule(name, WholeBatchDropout(layer.p))
    return DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)


def place_in_batch(network: nn.Module, start: int, photos: int) -> None:
    """Tell the layers of a `parallel` network that the next input begins at `start` of a batch of `photos`."""
    for layer in network.modules():
        if isinstance(layer, WholeBatchDropout):
            layer.start, layer.photos = start, photos


def _whole_batch_norm(layer: nn.BatchNorm2d, device: torch.device) -> nn.BatchNorm2d:
    """`layer` with its own tensors, but statistics over all processes."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    whole = WholeBatchNorm(layer.num_features, layer.eps, layer.momentum).to(device)
    whole.weight, whole.bias = layer.weight, layer.bias
    for name, buffer in layer.named_buffers():
        setattr(whole, name, buffer)
    return whole


class WholeBatchNorm(nn.BatchNorm2d):
    """Batch norm over the photos of all processes: PyTorch's own, `SyncBatchNorm`, is for GPUs only."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, H, W) normalised; the same type."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = values.new_full((1,), values.numel() / values.shape[1])
        sums = all_reduce(
            torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count]),
            "sum",
            dist.group.WORLD,  # type: ignore[arg-type]  # there is one here
        )
        (total, squares), count = sums[:-1].chunk(2), sums[-1]
        mean = total / count
        var = (squares / count - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


class WholeBatchDropout(nn.Module):
    """Dropout that draws for the whole batch and applies the rows of this process, whose generators are all alike."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.start, self.photos = p, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, ...), N consecutive photos of the batch."""
        if not self.training or self.p == 0:
            return x
        kept = torch.empty(self.photos, *x.shape[1:], dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * kept[self.start : self.start + len(x)] / (1 - self.p)
