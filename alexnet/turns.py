"""The queue: one run at a time on a device, and the first to come is the first to be served.

A run that wants to train writes a ticket: since when it waits, for which devices, and which of them it has. Who has a
device, its lock decides; the tickets give the order and the names. That of a process that was killed does not count,
which the lock of its run tells.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from alexnet import runs
from alexnet.runs import Reporter, Run

POLL_SECONDS = 1.0  # between two looks at whether it is this run's turn


@dataclass(frozen=True)
class Ticket:
    """A place in the queue."""

    run: str  # its folder
    since: float  # seconds since 1970
    devices: Sequence[str]  # such as cpu or cuda-0: those that will do
    count: int = 1  # how many of them it takes to train
    has: Sequence[str] = ()  # none while it waits

    @property
    def place(self) -> tuple[float, str]:
        """By which tickets are in order."""
        return self.since, self.run


@contextlib.contextmanager
def take_turn(run: Run, reporter: Reporter, kind: str, *, count: int = 1, of: int = 1) -> Iterator[tuple[int, ...]]:
    """Wait until it is the turn of `run`, then hold its devices as long as the block lasts; gives their indices.

    Args:
        run: locked by this process.
        reporter: told what the run waits for.
        kind: of device: cuda, mps or cpu, of which the last two are one device however many processes use it.
        count: how many GPUs the run needs. One may be any; several are the first of the machine, so that two runs
            never wait for each other.
        of: how many GPUs there are.

    Raises:
        Stopped: the run was cancelled while it waited.
    """
    names = tuple(f"cuda-{index}" for index in range(of)) if kind == "cuda" else (kind,)
    devices = names[:count] if count > 1 else names
    ticket = Ticket(str(run.path), time.time(), devices, min(count, len(devices)))
    try:
        _write(ticket)
        with contextlib.ExitStack() as held:
            while not (taken := _take(ticket, held)):
                reporter.check_stop()
                reporter.say(state="queued", message=_message(ticket))
                time.sleep(POLL_SECONDS)
            _write(replace(ticket, has=taken))
            yield tuple(map(names.index, taken))
    finally:
        _file(run.path).unlink(missing_ok=True)


def ahead(run: Run) -> list[Run]:
    """The runs that `run` waits for: those that have its devices, then those that came before it; empty without any."""
    ticket = _read(_file(run.path))
    if ticket is None:
        return []
    holders, earlier = _ahead(ticket)
    return [Run(Path(other.run)) for other in (*holders, *earlier)]


def _take(ticket: Ticket, held: contextlib.ExitStack) -> tuple[str, ...]:
    """The devices that the run gets, locked until `held` is closed; none as long as there are too few for it."""
    wanted = {name for other in _ahead(ticket)[1] for name in other.devices}
    with contextlib.ExitStack() as stack:
        taken: list[str] = []
        for name in ticket.devices:
            if name not in wanted and len(taken) < ticket.count:
                with contextlib.suppress(Timeout):
                    stack.enter_context(FileLock(_folder() / f"{name}.lock", timeout=0))
                    taken.append(name)
        if len(taken) < ticket.count:
            return ()
        held.push(stack.pop_all())
        return tuple(taken)


def _ahead(ticket: Ticket) -> tuple[list[Ticket], list[Ticket]]:
    """Those in the way of `ticket`: who has one of its devices, and who has waited longer for one, in order."""
    others = [other for other in _tickets() if other.run != ticket.run and Run(Path(other.run)).locked()]
    holders = [other for other in others if set(other.has) & set(ticket.devices)]
    waiting = [other for other in others if not other.has and set(other.devices) & set(ticket.devices)]
    return holders, [other for other in waiting if other.place < ticket.place]


def _message(ticket: Ticket) -> str:
    holders, earlier = _ahead(ticket)
    if earlier:
        runs_are = "run is" if (number := len(holders) + len(earlier)) == 1 else "runs are"
        return f"Waiting behind {_id(earlier[-1])}; {number} {runs_are} ahead."
    whom = _id(holders[0]) if holders else "another run"
    if len(holders) > 1:
        whom = f"{len(holders)} runs" if ticket.count > 1 else f"one of {len(holders)} runs"
    return f"Waiting for {whom} to leave the {'cpu' if 'cpu' in ticket.devices else 'GPU'}."


def _id(ticket: Ticket) -> str:
    return Run(Path(ticket.run)).id


def _folder() -> Path:
    """Where the queue of this machine is: others may share the folder of runs, but not the devices."""
    return runs.runs_dir() / ".queue" / platform.node()


def _file(run: Path) -> Path:
    """The ticket of a run, of which it never has two."""
    return _folder() / f"{hashlib.blake2b(os.fsencode(run.resolve()), digest_size=8).hexdigest()}.json"


def _write(ticket: Ticket) -> None:
    _folder().mkdir(parents=True, exist_ok=True)
    runs.write_json(_file(Path(ticket.run)), asdict(ticket))


def _read(path: Path) -> Ticket | None:
    try:
        return Ticket(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # it is gone by now, or no ticket
        return None


def _tickets() -> list[Ticket]:
    """All that there are, in the order in which they were written."""
    found = (_read(path) for path in _folder().glob("*.json"))
    return sorted((ticket for ticket in found if ticket is not None), key=lambda ticket: ticket.place)
