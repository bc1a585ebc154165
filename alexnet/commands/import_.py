"""`import`: weights that other PyTorch code saved, or a bundle that `export` wrote, become a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from alexnet import bundle
from alexnet.commands import DATA_HELP, UsageError, show_progress
from alexnet.recipes import RECIPES, Recipe, parse_setting


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("import", help="make a run of weights that other PyTorch code saved, or of a bundle")
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a state_dict, as .pth, .pt or .safetensors, or a bundle, .zip"
    )
    parser.add_argument(
        "--recipe",
        choices=(*RECIPES, "torchvision"),
        help="whose network it is; found by the shapes where only one fits",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting in which the network differs from --recipe, such as image_size=224; may be repeated",
    )
    parser.add_argument(
        "--classes",
        help="their names in the order of the outputs, with commas between; of one output the second is meant",
    )
    parser.add_argument("--data", help=f"take the classes from {DATA_HELP}")
    for name, what in (("mean", "mean"), ("std", "standard deviation")):
        parser.add_argument(
            f"--{name}",
            nargs=3,
            type=float,
            metavar=("R", "G", "B"),
            help=f"the {what} of red, green and blue, 0 to 1, that photos were normalised with",
        )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder; a new one under runs/ by default")
    parser.set_defaults(command=_import)


def _import(options: argparse.Namespace) -> int:
    if options.file.suffix.lower() == ".zip":
        return _import_bundle(options)
    if options.classes and options.data:
        raise UsageError("Give --classes or --data, not both.")
    changes = dict(_setting(text) for text in options.set)
    if changes and not options.recipe:
        raise UsageError("Give --recipe, too: --set says in what the network differs from it.")
    colours = {name: value for name in ("mean", "std") if (value := getattr(options, name))}
    if not all(0 <= value <= 1 and (value or name == "mean") for name in colours for value in colours[name]):
        raise UsageError("Give --mean from 0 to 1, and --std above 0 and up to 1, as of colours from 0 to 1.")
    from alexnet.interchange import VARIANTS, import_run

    recipe: Recipe | None = VARIANTS[options.recipe].replace(**changes) if options.recipe else None
    show_progress("Importing", 0, 1)
    run = import_run(options.file, recipe, _classes(options), path=options.out, colours=colours)
    show_progress("Importing", 1, 1)
    about, classes = run.recipe, run.config["classes"]
    print(f"{run.path}: {options.file.name} as a network of {about.name}, {len(classes):,} classes")
    print(
        f"  What weights do not tell is as in that recipe: photos of {about.image_size} px, padding {about.paddings},"
    )
    print(f"  normalisation {about.norm_place.replace('_', ' ')}; with --recipe and --set it can be told otherwise.")
    return 0


def _import_bundle(options: argparse.Namespace) -> int:
    if any((options.recipe, options.set, options.classes, options.data, options.mean, options.std)):
        raise UsageError("A bundle says itself what its network is; give nothing but the file and --out.")
    show_progress("Importing", 0, 1)
    run = bundle.load(options.file, options.out)
    show_progress("Importing", 1, 1)
    print(f"{run.path}: {options.file.name} as a run of {run.recipe.name}, {len(run.config['classes']):,} classes")
    return 0


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, parse_setting(name, value)


def _classes(options: argparse.Namespace) -> list[str] | None:
    if options.classes:
        return [name.strip() for name in options.classes.split(",")]
    if options.data:
        from alexnet import data

        return list(data.load(options.data, show_progress).classes)
    return None
