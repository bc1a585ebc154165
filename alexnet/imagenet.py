"""The 1,000 classes of ImageNet, whose folders have WordNet ids for names, by names that people know.

`imagenet.txt` has a line for each: the id, and the name that torchvision gives to the class. The ids are in ascending
order, which is that of the outputs of networks trained on ImageNet elsewhere.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

WORDNET_ID = re.compile(r"n[0-9]{8}")


@functools.cache
def names() -> dict[str, str]:
    """The name of each class by its WordNet id; two that differ by a capital letter alone have the id in brackets."""
    lines = Path(__file__).with_name("imagenet.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def titles(labels: Sequence[str]) -> tuple[str, ...]:
    """What to call the classes of these labels: where all are WordNet ids, their names, as far as they are known."""
    if not all(map(WORDNET_ID.fullmatch, labels)):
        return tuple(labels)
    return tuple(names().get(label, label) for label in labels)
