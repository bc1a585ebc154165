"""What training leaves to chance: it follows from the seed and the number of the step alone, so a preview draws the same."""

from __future__ import annotations

import torch
from torch import Tensor

from alexnet.augment import Draw, draw
from alexnet.data import digest
from alexnet.recipes import Recipe


def number(seed: int, index: int, purpose: str) -> int:
    """A seed of its own for each epoch or step, `index`, and purpose."""
    return int(digest(f"{seed}/{index}/{purpose}".encode())[:15], 16)


def generator(seed: int, index: int, purpose: str) -> torch.Generator:
    """A generator, on the CPU, that starts from `number`."""
    return torch.Generator().manual_seed(number(seed, index, purpose))


def batches(recipe: Recipe, photos: int, epoch: int) -> tuple[Tensor, ...]:
    """The steps of an epoch, from 0: for each the indices `(N,)` int64 of its photos, of which there are `photos` in all.

    The rest, which fills no batch, is left out; it comes up in another epoch's order.
    """
    size = min(recipe.batch_size, photos)
    order = torch.randperm(photos, generator=generator(recipe.seed, epoch, "order"))
    return order.split(size)[: photos // size]


def choices(recipe: Recipe, sizes: Tensor, step: int) -> Draw:
    """The augmentation of the whole batch at a step, counted from the start of the run; `sizes` as for `augment.draw`."""
    return draw(recipe, sizes, generator(recipe.seed, step, "augmentation"))
