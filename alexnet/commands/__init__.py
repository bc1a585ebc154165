"""The commands of `python -m alexnet`, a module each, and what they share."""

from __future__ import annotations

import sys
from typing import Any

from alexnet import runs
from alexnet.errors import LabError
from alexnet.measures import MOST_SHOWN, frequent_confusions

DATA_HELP = "a folder of photos, or doodles, dogs-vs-cats, oxford-pets, svhn"
RUN_HELP = "the name or folder of a run; the shipped weights by default"


class UsageError(LabError):
    """A command that was put together wrongly."""


def chosen_run(name: str | None) -> runs.Run:
    """The run of this name, or without one the shipped weights.

    Raises:
        RunError: there is none.
    """
    run = runs.find(name) if name else runs.default_run()
    if run is None:
        raise runs.RunError("No run has weights yet; train one, or give --run.")
    return run


def show_progress(stage: str, done: int, total: int) -> None:
    """On standard error, one line that is written over."""
    print(f"\r{stage}: {done:,} of {total:,}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def print_confusion(metrics: dict[str, Any]) -> None:
    """The counts of `score`, a line for each true class; of many classes a line for each of the most frequent mistakes."""
    if len(metrics["classes"]) > MOST_SHOWN:
        print("  most frequent mistakes:")
        for name, predicted, count in frequent_confusions(metrics["confusion"], metrics["classes"], 10):
            print(f"  {name}: {count:,} as {predicted}")
        return
    for name, row in zip(metrics["classes"], metrics["confusion"], strict=True):
        counts = ", ".join(f"{n:,} as {other}" for other, n in zip(metrics["classes"], row, strict=True))
        print(f"  {name}: {counts}")
