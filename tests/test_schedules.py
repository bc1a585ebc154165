"""Learning rates that are known from elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

from alexnet.recipes import Recipe
from alexnet.schedules import learning_rate, reductions_on_plateau


def test_one_cycle_is_that_of_torch():
    steps, warmup, peak = 501, 0.2, 0.02
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    # torch's first phase ends one step early; this share of its steps ends where a fifth of ours does.
    share = (warmup * (steps - 1) + 1) / steps
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=steps, pct_start=share, final_div_factor=1e12, anneal_strategy="cos"
    )
    recipe = Recipe(schedule="one-cycle", lr=peak, warmup=warmup)
    ours, theirs = [], []
    for step in range(steps):
        ours.append(learning_rate(recipe, step / (steps - 1)))
        theirs.append(cycle.get_last_lr()[0])
        optimizer.step()
        if step < steps - 1:
            cycle.step()
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    assert max(ours) == pytest.approx(peak) and ours[0] == pytest.approx(peak / 25) and ours[-1] == 0


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        ("cosine", {0: 1, 1 / 3: 0.75, 1 / 2: 0.5, 2 / 3: 0.25, 1: 0}),
        ("step", {0: 1, 0.33: 1, 0.34: 0.1, 0.66: 0.1, 0.67: 0.01, 1: 0.01}),
        ("constant", {0: 1, 0.5: 1, 1: 1}),
    ],
)
def test_schedules_without_warm_up(schedule, points):
    recipe = Recipe(schedule=schedule, lr=1.0, warmup=0.0)
    assert {at: learning_rate(recipe, at) for at in points} == pytest.approx(points)


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine", "step", "constant"])
def test_the_warm_up_rises_from_a_25th_to_the_peak(schedule):
    recipe = Recipe(schedule=schedule, lr=1.0, warmup=0.4)
    quarter = 0.04 + 0.96 * ((1 - math.cos(math.pi / 4)) / 2 if schedule == "one-cycle" else 0.25)
    rates = [learning_rate(recipe, progress) for progress in (0, 0.1, 0.2, 0.4)]
    assert rates == pytest.approx([0.04, quarter, 0.52, 1])


def test_after_the_warm_up_the_schedule_fills_the_rest():
    assert learning_rate(Recipe(schedule="cosine", lr=1.0, warmup=0.4), 0.7) == pytest.approx(0.5)
    assert learning_rate(Recipe(schedule="step", lr=1.0, warmup=0.4), 0.75) == pytest.approx(0.1)
    assert learning_rate(Recipe(schedule="constant", lr=1.0, warmup=0.4), 0.7) == 1.0


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_plateaus_are_those_of_pytorch(patience):
    losses = [1.0, 0.9, 0.91, 0.89995, 0.9, 0.7, 0.8, 0.8, 0.8, 0.8, 0.69, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=patience, eps=0)
    recipe = Recipe(schedule="plateau", plateau_patience=patience, lr=1.0, warmup=0.0)
    for epoch, loss in enumerate(losses, 1):
        reference.step(loss)
        rate = learning_rate(recipe, epoch / 100, reductions_on_plateau(losses[:epoch], patience))
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"])
    assert rate < 1.0
