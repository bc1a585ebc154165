"""The command line: `python -m alexnet train | classify | evaluate | data | export`.

Exit status 0, 1 when something failed, 2 for wrong use. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from alexnet import runs
from alexnet.recipes import RECIPES, Recipe, RecipeError, parse_setting


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    from alexnet.data import DataError

    try:
        return options.command(options)
    except (RecipeError, runs.RunError, DataError) as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m alexnet", description="Train AlexNet, classify and evaluate.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    return parser


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser("train", help="train a run, or go on with one")
    train.add_argument("--data", help="a folder of photos, or doodles, dogs-vs-cats, oxford-pets")
    train.add_argument("--recipe", choices=RECIPES, default="cats-dogs", help="the settings to start from")
    train.add_argument("--run", type=Path, metavar="DIR", help="the run folder; a new one under runs/ by default")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --run")
    settings = train.add_argument_group("settings of the recipe")
    for f in fields(Recipe):
        if f.metadata["group"] != "about":
            settings.add_argument(_flag(f.name), dest=f"set_{f.name}", metavar="VALUE", help=f.metadata["help"].replace("%", "%%"))
    train.set_defaults(command=_train)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _train(options: argparse.Namespace) -> int:
    run = runs.find(options.run) if options.resume and options.run else _new_run(options)
    (run.path / "stop").unlink(missing_ok=True)
    from alexnet.worker import work

    return work(run)


def _new_run(options: argparse.Namespace) -> runs.Run:
    from alexnet import data

    if not options.data:
        raise runs.RunError("Give --data: a folder of photos, or doodles, dogs-vs-cats or oxford-pets.")
    given = {f.name: getattr(options, f"set_{f.name}") for f in fields(Recipe) if hasattr(options, f"set_{f.name}")}
    changes = {name: parse_setting(name, text) for name, text in given.items() if text is not None}
    recipe = RECIPES[options.recipe].replace(**changes)
    dataset = data.load(options.data, _show_progress)
    data.check_trainable(dataset)
    return runs.create(recipe, options.data, dataset, path=options.run)


def _show_progress(stage: str, done: int, total: int) -> None:
    print(f"\r{stage}: {done:,} of {total:,}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
