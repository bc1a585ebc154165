"""Whether two networks differ by more than chance. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """What two networks made of the same photos: how many both got right, only the one, only the other, or neither."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def count(self) -> int:
        """The photos in all."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def p(self) -> float:
        """The probability, 0 to 1, of counts so uneven or more if both networks were right equally often.

        McNemar 1947 in its exact form: the two-sided binomial test of the photos that one network alone got right, which
        needs no correction where these are few.
        """
        fewer, discordant = min(self.only_first, self.only_second), self.only_first + self.only_second
        tail = sum(math.comb(discordant, count) for count in range(fewer + 1))
        return min(1.0, tail / 2 ** (discordant - 1))


def pair(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Count how two networks did on the same photos, from whether each was right about each, in the same order."""
    found = list(zip(first, second, strict=True))
    return Paired(*(found.count(outcome) for outcome in ((True, True), (True, False), (False, True), (False, False))))
