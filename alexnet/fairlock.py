"""A lock for a network that many people share: first come, first served, and everyone may know how many are ahead."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

Told = Callable[[int], None]  # how many are ahead, from 1

NEWS = 0.5  # seconds between two words to somebody who waits; who is next is told nothing more and woken at once


class FairLock:
    """A reentrant lock that threads get in the order in which they asked for it.

    Those of `threading` go to whichever thread comes first when they are released, often the one that has just had it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[int] = deque()  # threads in order, of which the first has the lock
        self._depth = 0  # how many times it has it

    @property
    def held(self) -> bool:
        """Whether the calling thread has it."""
        with self._changed:
            return bool(self._queue) and self._queue[0] == threading.get_ident()

    def __enter__(self) -> None:
        self._acquire(None)

    def __exit__(self, *error: object) -> None:
        self._release()

    @contextlib.contextmanager
    def turn(self, told: Told) -> Iterator[None]:
        """The lock for as long as the block lasts, telling `told` at times how many are ahead, while there are some.

        What `told` raises ends the wait and is raised here.
        """
        self._acquire(told)
        try:
            yield
        finally:
            self._release()

    def _acquire(self, told: Told | None) -> None:
        me = threading.get_ident()
        if self.held:
            self._depth += 1
            return
        with self._changed:
            self._queue.append(me)
        try:
            self._wait(me, told)
        except BaseException:
            with self._changed:
                self._queue.remove(me)
                self._changed.notify_all()
            raise
        self._depth = 1

    def _wait(self, me: int, told: Told | None) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._queue[0] == me, NEWS if told else None):
                    return
                ahead = self._queue.index(me)
            if told:
                told(ahead)

    def _release(self) -> None:
        with self._changed:
            self._depth -= 1
            if not self._depth:
                self._queue.popleft()
                self._changed.notify_all()
