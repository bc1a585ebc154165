"""End-to-end training, images a second: our trainer against torchvision's reference loop, and our step alone.

    python benchmarks/train.py --json

Ours is the product's own step in a real run (see `ours.py`); stock is ImageFolder, DataLoader, torchvision's
transforms and eager float32 (see `stock.py`). Both train the same network on the same photos with the same crops,
flips, colours, batch size, optimizer and number of threads, in turns, each in a process of its own. Filling the cache and
compiling come before the measurement, and `seconds_before` says how long they took.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, its own folder comes first

from benchmarks import measure
from benchmarks.measure import Comparison, Result, Side

SECONDS = 100.0


def compare(options: argparse.Namespace) -> Result:
    """Train both ways in turns."""
    from alexnet import train
    from benchmarks import ours, stock

    recipe = measure.training_recipe(options)
    with ours.bench(options.data, options.photos) as bench, contextlib.ExitStack() as stack:
        started = time.perf_counter()
        session = ours.open_session(recipe, bench.dataset)
        before = time.perf_counter() - started  # caching and compiling
        device, classes = session.hardware.device, len(bench.dataset.classes)
        theirs = measure.apart(stock.training, recipe, classes, bench.train_folder, session.batch, device)
        reading = stack.enter_context(contextlib.closing(ours.batches(session)))
        sides = {
            "stock": stack.enter_context(theirs),
            "ours": Side(lambda: train.train_step(session, *next(reading))),
            "step": Side(ours.step_alone(session)),
        }
        seconds, rounds = measure.alternate(sides, device, options.seconds, ours.turn_seconds(device))
        speed = {name: session.batch / seconds[name] for name in sides}
    return Result(
        {"training": Comparison("images/s", speed["ours"], speed["stock"])},
        {
            "step_only": speed["step"],
            "share_of_step_only": speed["ours"] / speed["step"],
            "seconds_before": before,
            **ours.share_of_matmul(session, speed["ours"]),
            **ours.settings(session, options.data, rounds),
        },
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = measure.parser_of_turns(__doc__, SECONDS)
    measure.add_training_options(options)
    return measure.main(options, compare, arguments)


if __name__ == "__main__":
    sys.exit(main())
