"""What is left to chance follows from the seed and the step."""

from __future__ import annotations

import torch

from alexnet import draws
from alexnet.recipes import Recipe


def test_an_epoch_takes_each_photo_once_in_an_order_of_its_own():
    recipe = Recipe(batch_size=4)
    first, second = (torch.stack(draws.batches(recipe, 12, epoch)) for epoch in (0, 1))
    assert first.shape == (3, 4) and sorted(first.flatten().tolist()) == list(range(12))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.stack(draws.batches(recipe, 12, 0)))
    assert not torch.equal(first, torch.stack(draws.batches(recipe.replace(seed=1), 12, 0)))


def test_photos_that_fill_no_batch_are_left_out_and_few_photos_are_one_batch():
    assert [len(batch) for batch in draws.batches(Recipe(batch_size=5), 13, 0)] == [5, 5]
    assert [len(batch) for batch in draws.batches(Recipe(batch_size=128), 13, 0)] == [13]


def test_each_step_and_seed_choose_otherwise():
    recipe, sizes = Recipe(), torch.full((3, 2), 64.0)
    boxes = draws.choices(recipe, sizes, 7).boxes
    assert torch.equal(boxes, draws.choices(recipe, sizes, 7).boxes)
    assert not torch.equal(boxes, draws.choices(recipe, sizes, 8).boxes)
    assert not torch.equal(boxes, draws.choices(recipe.replace(seed=1), sizes, 7).boxes)
    assert draws.number(0, 7, "augmentation") != draws.number(0, 7, "dropout")
