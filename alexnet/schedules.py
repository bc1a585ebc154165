"""How the learning rate moves over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alexnet.recipes import Recipe


def learning_rate(recipe: Recipe, progress: float, reductions: int = 0) -> float:
    """The learning rate when a share `progress` (0 to 1) of all steps is done.

    `plateau` has been divided by ten `reductions` times so far, see `reductions_on_plateau`.

    `one-cycle` follows Smith and Topin 2018 (arXiv 1708.07120) in the cosine form of
    `torch.optim.lr_scheduler.OneCycleLR`, ending at zero; the others warm up along a straight line (Goyal et al. 2017,
    arXiv 1706.02677, section 2.2). `step` divides by ten after each third.
    """
    if progress < recipe.warmup:
        share = progress / recipe.warmup
        return _cosine(recipe.lr / 25, recipe.lr, share) if recipe.schedule == "one-cycle" else _line(recipe.lr, share)
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "plateau":
        return recipe.lr * 0.1**reductions
    after = (progress - recipe.warmup) / (1 - recipe.warmup)
    if recipe.schedule == "step":
        return recipe.lr * 0.1 ** min(int(after * 3), 2)
    return _cosine(recipe.lr, 0.0, after)


def reductions_on_plateau(losses: Sequence[float], patience: int) -> int:
    """How often the validation losses of the epochs so far have stalled for more than `patience` epochs.

    The same as `torch.optim.lr_scheduler.ReduceLROnPlateau` with its defaults: only a loss lower by a relative 1e-4 is
    progress, and after each reduction the patience starts anew.
    """
    best, stalled, reductions = math.inf, 0, 0
    for loss in losses:
        stalled = stalled + 1
        if loss < best * (1 - 1e-4):
            best, stalled = loss, 0
        if stalled > patience:
            stalled, reductions = 0, reductions + 1
    return reductions


def _line(peak: float, share: float) -> float:
    return peak / 25 + peak * (1 - 1 / 25) * share


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
