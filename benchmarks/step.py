"""The training step alone, images a second: ours as the trainer runs it against eager float32.

    python benchmarks/step.py --json
    python benchmarks/step.py --norms

Ours is the trainer's own step, running average included, on a batch that lies ready on the device; stock is the step of
torchvision's reference loop (see `stock.py`) on such a batch. Same network, batch size, optimizer and threads, in turns.
With `--norms` ours is the network of 2012 with its two towers and local response normalisation, and stock, trained in the
same way, has batch norm instead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, its own folder comes first

from benchmarks import measure
from benchmarks.measure import Comparison, Result, Side

if TYPE_CHECKING:
    from alexnet.recipes import Recipe
    from benchmarks.ours import Bench

SECONDS = 100.0


def compare(options: argparse.Namespace) -> Result:
    """Both steps in turns."""
    from benchmarks import ours, stock

    recipe = measure.training_recipe(options)
    with ours.bench(options.data, options.photos) as bench:
        if options.norms:
            return _compare_norms(options, recipe.replace(groups=2), bench)
        session = ours.open_session(recipe, bench.dataset)
        device = session.hardware.device
        with measure.apart(stock.stepping, recipe, len(bench.dataset.classes), session.batch, device) as theirs:
            sides = {"stock": theirs, "ours": Side(ours.step_alone(session))}
            seconds, rounds = measure.alternate(sides, device, options.seconds, ours.turn_seconds(device))
    speed = {name: session.batch / seconds[name] for name in sides}
    return Result(
        {"step": Comparison("images/s", speed["ours"], speed["stock"])},
        {**ours.share_of_matmul(session, speed["ours"]), **ours.settings(session, options.data, rounds)},
    )


def _compare_norms(options: argparse.Namespace, recipe: Recipe, bench: Bench) -> Result:
    """The trainer's step with either normalisation, in turns."""
    from benchmarks import ours

    kinds = ("batch", "local_response")
    sessions = {kind: ours.open_session(recipe.replace(normalization=kind), bench.dataset) for kind in kinds}
    sides = {kind: Side(ours.step_alone(session)) for kind, session in sessions.items()}
    session = sessions["local_response"]
    device = session.hardware.device
    seconds, rounds = measure.alternate(sides, device, options.seconds, ours.turn_seconds(device))
    speed = {kind: session.batch / seconds[kind] for kind in kinds}
    step = Comparison("images/s", speed["local_response"], speed["batch"])
    return Result({"local response": step}, ours.settings(session, options.data, rounds))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = measure.parser_of_turns(__doc__, SECONDS)
    measure.add_training_options(options)
    options.add_argument("--norms", action="store_true", help="local response normalisation against batch norm")
    return measure.main(options, compare, arguments)


if __name__ == "__main__":
    sys.exit(main())
