"""Input alone, images a second: augmented batches and the photo cache, ours against ImageFolder and DataLoader.

    python benchmarks/input.py --json

`batches`: from photos on disk to what the network is given, on the device; ours reads the cache and augments whole
batches there, stock decodes and augments photo by photo in a worker for each core. `cache`: reading every photo once
and scaling it to the cache's square; ours writes the cache as well. Nothing trains meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, its own folder comes first

from alexnet import data, runs
from benchmarks import measure
from benchmarks.measure import Comparison, Result, Side

if TYPE_CHECKING:
    from benchmarks.ours import Bench

SECONDS = 100.0
TURN_SECONDS = 4.0  # long enough for workers that finish their batches in bursts


def compare(options: argparse.Namespace) -> Result:
    """Both comparisons in turns."""
    from alexnet.augment import CACHE_SIDE
    from benchmarks import ours, stock

    recipe = measure.training_recipe(options)
    with ours.bench(options.data, options.photos) as bench, contextlib.ExitStack() as stack:
        session = ours.open_session(recipe, bench.dataset)
        device = session.hardware.device
        loader = stock.Batches(bench.train_folder, stock.training_transform(recipe), session.batch, device)
        stack.enter_context(contextlib.closing(loader))
        reading = stack.enter_context(contextlib.closing(ours.batches(session)))
        sides = {
            "stock": Side(lambda: [part.to(device) for part in next(loader)], loader.at_work),
            "ours": Side(lambda: ours.augmented(session, *next(reading))),
            "stock cache": Side(lambda: stock.read_once(bench.train_folder, CACHE_SIDE, session.batch)),
            "our cache": Side(lambda: build_cache(bench)),
        }
        seconds, rounds = measure.alternate(sides, device, options.seconds, TURN_SECONDS)
    photos = len(bench.train_photos)
    return Result(
        {
            "batches": Comparison("images/s", session.batch / seconds["ours"], session.batch / seconds["stock"]),
            "cache": Comparison("photos/s", photos / seconds["our cache"], photos / seconds["stock cache"]),
        },
        ours.settings(session, options.data, rounds),
    )


def build_cache(bench: Bench) -> None:
    """Build a cache of the training photos, as a run does, and delete it."""
    from alexnet.augment import CACHE_SIDE, to_square

    folder = runs.data_dir() / "cache"
    others = set(folder.glob("*.npy"))
    data.cached(bench.dataset, bench.train_photos, to_square, "benchmark", CACHE_SIDE, at_least=CACHE_SIDE)
    for cache in set(folder.glob("*.npy")) - others:
        cache.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = measure.parser_of_turns(__doc__, SECONDS)
    measure.add_training_options(options)
    return measure.main(options, compare, arguments)


if __name__ == "__main__":
    sys.exit(main())
