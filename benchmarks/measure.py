"""What the benchmarks share: their options, measuring in turns, and showing what came out.

Both sides of a comparison take turns, so that whatever else the machine does slows both; each figure is the median
over the turns of one run. Nothing here imports torch at once: the clock starts before that, and `--help` is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from alexnet.errors import LabError
from alexnet.recipes import RECIPES, Recipe, RecipeError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    import torch

STARTED = time.perf_counter()
LEAST_ROUNDS = 3
Name = TypeVar("Name")


@dataclass(frozen=True)
class Comparison:
    """Both sides of one thing, in `unit`: ms, of which fewer are better, or something a second."""

    unit: str
    ours: float
    stock: float

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.stock / self.ours if self.unit == "ms" else self.ours / self.stock

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"ours": _short(self.ours), "stock": _short(self.stock), "ratio": _short(self.ratio), "unit": self.unit}


@dataclass(frozen=True)
class Result:
    """What a benchmark found: comparisons by name, and single facts."""

    comparisons: Mapping[str, Comparison]
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a comparison that is the only one is not nested."""
        rows = {name: comparison.to_dict() for name, comparison in self.comparisons.items()}
        if len(rows) == 1:
            (rows,) = rows.values()
        return {**rows, **{name: _short(value) for name, value in self.facts.items()}}

    def __str__(self) -> str:
        width = max(map(len, self.comparisons)) + 2
        lines = [f"{'':{width}}{'ours':>10}{'stock':>10}{'ratio':>8}"]
        for name, c in self.comparisons.items():
            lines.append(f"{name:{width}}{_short(c.ours):>10}{_short(c.stock):>10}{c.ratio:>8.2f}  {c.unit}")
        return "\n".join([*lines, "", *(f"{name}: {_in_words(value)}" for name, value in self.facts.items())])


def _short(value: Any) -> Any:
    """Four digits say all that a measured figure means."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items() if part is not None)
    return "not measured" if value is None else str(_short(value))


# ------------------------------------------------------------------------------------------------------- command line


def parser(docstring: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=docstring.partition("\n\n")[0])
    options.add_argument("--data", default="doodles", help="a dataset's name or a folder of photos (default: doodles)")
    options.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    return options


def parser_of_turns(docstring: str, seconds: float) -> argparse.ArgumentParser:
    """The options of a benchmark whose sides take turns; `seconds` is the default of one of them."""
    options = parser(docstring)
    options.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    options.add_argument(
        "--seconds",
        type=float,
        default=seconds,
        help=f"when to end, counted from the start, with at least {LEAST_ROUNDS} rounds measured (default: %(default)g)",
    )
    return options


def add_training_options(options: argparse.ArgumentParser) -> None:
    """The options of the benchmarks that train."""
    recipe = RECIPES["cats-dogs"]
    options.add_argument("--photos", type=int, default=1_200, help="how many at most (default: %(default)s)")
    options.add_argument("--batch-size", type=int, default=recipe.batch_size, help="(default: %(default)s)")
    options.add_argument("--image-size", type=int, default=recipe.image_size, help="in pixels (default: %(default)s)")
    options.add_argument("--compile", default="auto", help="our side: auto, on or off (default: %(default)s)")


def training_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe that both sides train by; so long that `auto` compiles wherever it can be done.

    Raises:
        RecipeError: an option has a value that cannot work.
    """
    recipe = RECIPES["cats-dogs"]
    return recipe.replace(
        epochs=10_000,
        batch_size=options.batch_size,
        image_size=options.image_size,
        resize=max(recipe.resize, options.image_size),
        device=options.device,
        compile=options.compile,
    )


def main(
    options: argparse.ArgumentParser,
    compare: Callable[[argparse.Namespace], Result],
    arguments: Sequence[str] | None,
) -> int:
    """Run one benchmark; returns the exit status: 0, 1 when something failed, 2 for wrong use."""
    given = options.parse_args(arguments)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a run says of its progress
            result = compare(given)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 1
    except LabError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, RecipeError) else 1
    print(json.dumps(result.to_dict()) if given.json else result)
    return 0


def show_progress(stage: str, done: int, total: int) -> None:
    """Progress on standard error, for `data.load` and the like."""
    end = "\n" if done == total else "\r"
    print(f"{stage}: {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Side:
    """One side of a comparison: `step` is measured; `at_work` is entered for its turns and left for the others'."""

    step: Callable[[], object]
    at_work: Callable[[], AbstractContextManager] = nullcontext


@contextlib.contextmanager
def apart(make: Callable[..., AbstractContextManager[Side]], *arguments: Any) -> Iterator[Side]:
    """The side that `make(*arguments)` gives, in a process of its own: how the other one sets up its process is no help.

    `make` has to be a function of a module, since the other process starts from nothing.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make, arguments))
    process.start()
    there.close()

    def ask(what: str) -> None:
        here.send(what)
        here.recv()

    @contextlib.contextmanager
    def at_work() -> Iterator[None]:
        ask("begin")
        try:
            yield
        finally:
            ask("pause")

    try:
        here.recv()  # it is ready
        yield Side(lambda: ask("step"), at_work)
    finally:
        here.close()
        process.join()


def _serve(asked: Connection, make: Callable[..., AbstractContextManager[Side]], arguments: tuple) -> None:
    """Do what the other process asks for, until it goes."""
    with make(*arguments) as side, contextlib.ExitStack() as turn, contextlib.suppress(EOFError):
        actions = {"step": side.step, "begin": lambda: turn.enter_context(side.at_work()), "pause": turn.close}
        asked.send(None)
        while True:
            actions[asked.recv()]()
            asked.send(None)


def alternate(
    sides: Mapping[Name, Side], device: torch.device, seconds: float, turn: float
) -> tuple[dict[Name, float], int]:
    """Seconds that one call of each side takes, the median over the rounds, and the number of rounds.

    In each round every side has a turn: as many calls as fit into `turn` seconds, and at least one. The first round
    warms up and does not count. There are as many as fit until `seconds` after the start of this process, and at least
    `LEAST_ROUNDS`.
    """
    rounds: list[dict[Name, float]] = []
    longest = 0.0
    while len(rounds) <= LEAST_ROUNDS or time.perf_counter() + longest < STARTED + seconds:
        started = time.perf_counter()
        rounds.append({name: time_turn(side, device, turn) for name, side in sides.items()})
        longest = max(longest, time.perf_counter() - started)
        spent = time.perf_counter() - STARTED
        print(f"Round {len(rounds) - 1}, {spent:.0f} seconds since the start", end="\r", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: median(r[name] for r in rounds[1:]) for name in sides}, len(rounds) - 1


def time_turn(side: Side, device: torch.device, seconds: float) -> float:
    """Seconds a call, over one turn."""
    with side.at_work():
        _synchronize(device)
        started, calls = time.perf_counter(), 0
        while not calls or time.perf_counter() - started < seconds:
            side.step()
            calls += 1
        _synchronize(device)
        return (time.perf_counter() - started) / calls


def _synchronize(device: torch.device) -> None:
    """Wait until all that was asked of the device is done."""
    if device.type != "cpu":
        import torch

        getattr(torch, device.type).synchronize(device)


# ------------------------------------------------------------------------------------------------------------ machine


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    return {"cpu": _cpu_name(), "cores": cores(), "threads": torch.get_num_threads(), "gpu": gpu, **versions}


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()
