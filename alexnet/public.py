"""Public mode, `ALEXNET_PUBLIC=1`: strangers may look, and change nothing.

The variable speaks for the process that has it. What writes, trains, fetches or reads paths of this computer asks `refuse`
first, so that a page that forgets to hide something gets a sentence and not its way; a command of the same
environment gets it, too, and one from a shell without the variable may do everything.
"""

from __future__ import annotations

import math
import os
from collections import deque
from dataclasses import dataclass, field

from alexnet.errors import LabError

VARIABLE = "ALEXNET_PUBLIC"
MOST_AT_ONCE = 20  # photos
MOST_PER_MINUTE = 40  # photos
MOST_PIXELS_PER_MINUTE = 200 * 10**6
MOST_UPLOAD_MB = 50  # that the server may take for one file
MINUTE = 60.0  # seconds


class PublicError(LabError, RuntimeError):
    """Something that a public app does not offer, or not so much of; its text is one sentence."""


def is_on() -> bool:
    """Whether this process serves strangers."""
    return os.environ.get(VARIABLE, "").strip().lower() not in ("", "0", "false", "no", "off")


def refuse(what: str) -> None:
    """Nothing, unless strangers are served.

    Args:
        what: is not for them, so that "This app offers no ..." is a sentence.

    Raises:
        PublicError: they are.
    """
    if is_on():
        raise PublicError(
            f"This app is open to the public and offers no {what}; for that, run AlexNet Lab on a computer of your own."
        )


@dataclass
class Allowance:
    """What one visitor has had looked at within the last minute."""

    _taken: deque[tuple[float, int]] = field(default_factory=deque)  # when, and pixels

    def take(self, pixels: int, now: float) -> None:
        """Count one more photo of so many pixels at the time `now`, in seconds.

        Raises:
            PublicError: that would be too many within a minute; the text says when it will not. Nothing is counted.
        """
        while self._taken and self._taken[0][0] <= now - MINUTE:
            self._taken.popleft()
        if (seconds := self._seconds_until(pixels, now)) > 0:
            raise PublicError(
                f"This app is open to the public and looks at {MOST_PER_MINUTE} photos or "
                f"{MOST_PIXELS_PER_MINUTE // 10**6} megapixels a minute from each visitor; go on in "
                f"{math.ceil(seconds)} seconds."
            )
        self._taken.append((now, pixels))

    def _seconds_until(self, pixels: int, now: float) -> float:
        """How long from `now` until there is room for a photo; one that exceeds a minute's pixels alone waits for all."""
        count, total, seconds = len(self._taken) + 1, sum(p for _, p in self._taken) + pixels, 0.0
        for when, before in self._taken:
            if count <= MOST_PER_MINUTE and total <= MOST_PIXELS_PER_MINUTE:
                break
            count, total, seconds = count - 1, total - before, when + MINUTE - now
        return seconds
