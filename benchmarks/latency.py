"""One photo, in milliseconds: its answer and each of its saliency maps, against plain torchvision and Captum.

    python benchmarks/latency.py --json

Both sides start from the bytes of the file and use the same network, sizes, views and Captum settings; the stock side
is what a notebook would do (see `notebook.py`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, its own folder comes first

from alexnet import data, runs
from alexnet.images import open_photo
from alexnet.recipes import Recipe
from benchmarks import measure
from benchmarks.measure import Comparison, Result, Side

if TYPE_CHECKING:
    from alexnet.predict import Classifier

SECONDS = 60.0
TARGET = 0  # the class whose maps are made; which one makes no difference to the time


def compare(options: argparse.Namespace) -> Result:
    """Both sides of each thing in turns, one call a turn."""
    from alexnet.hardware import choose_device
    from alexnet.predict import load_classifier

    run = runs.find(options.run) if options.run else runs.Run(runs.weights_dir() / "cats-dogs")
    kind, _ = choose_device(Recipe(device=options.device))
    classifier = load_classifier(run, kind)
    dataset = data.load(options.data, measure.show_progress)
    sides = _sides(classifier, (dataset.root / dataset.photos[0].path).read_bytes())
    seconds, rounds = measure.alternate(sides, classifier.device, options.seconds, turn=0.0)
    return Result(
        {
            thing: Comparison("ms", seconds[thing, "ours"] * 1000, seconds[thing, "stock"] * 1000)
            for thing in dict.fromkeys(thing for thing, _ in sides)
        },
        {
            "run": run.id,
            "data": options.data,
            "views": 2 if classifier.mirror else 1,
            "rounds": rounds,
            "machine": measure.machine(classifier.device),
        },
    )


def _sides(classifier: Classifier, content: bytes) -> dict[tuple[str, str], Side]:
    """What is measured, by thing and side."""
    from alexnet import saliency
    from benchmarks.notebook import METHODS, Notebook

    notebook = Notebook(classifier)
    sides = {
        ("one photo", "ours"): Side(lambda: classifier([open_photo(content)])),
        ("one photo", "stock"): Side(lambda: notebook.classify(content)),
    }

    def attribute(method: str) -> object:
        return saliency.attribute(classifier, open_photo(content), method, classifier.classes[TARGET])

    for method in METHODS:
        sides[method, "ours"] = Side(partial(attribute, method))
        sides[method, "stock"] = Side(partial(notebook.attribute, content, method, TARGET))
    return sides


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = measure.parser_of_turns(__doc__, SECONDS)
    options.add_argument("--run", help="the name or folder of a run; the shipped weights by default")
    options.set_defaults(device="cpu")  # where the app and the command line classify
    return measure.main(options, compare, arguments)


if __name__ == "__main__":
    sys.exit(main())
