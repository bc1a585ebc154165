"""`train`: a run, several processes of one, or a cross-validation."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet import public, runs
from alexnet.commands import DATA_HELP, UsageError, print_confusion, show_progress
from alexnet.errors import LabError
from alexnet.recipes import RECIPES, Recipe, parse_setting

if TYPE_CHECKING:
    from alexnet import data, folds


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    train = commands.add_parser("train", help="train a run, or go on with one")
    add_options(train)
    train.add_argument(
        "--folds",
        dest="set_folds",
        metavar="K",
        help="cross-validate: K runs, each tested on another part of the photos",
    )
    train.set_defaults(command=_train)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What it takes to make a run or several: photos, a recipe, a folder, and each setting as an option."""
    parser.add_argument("--data", help=DATA_HELP)
    parser.add_argument("--recipe", choices=RECIPES, default="cats-dogs", help="the settings to start from")
    # The second name is for torchrun, which takes --run for its own --run-path.
    parser.add_argument(
        "--run", "--run-dir", type=Path, metavar="DIR", help="the run folder; a new one under runs/ by default"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --run from its last checkpoint")
    settings = parser.add_argument_group("settings of the recipe")
    for f in fields(Recipe):
        if f.metadata["group"] != "about":
            flag, text = "--" + f.name.replace("_", "-"), f.metadata["help"].replace("%", "%%")
            settings.add_argument(flag, dest=f"set_{f.name}", metavar="VALUE", help=text)


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that the options of `add_options` change.

    Raises:
        RecipeError: a text is no value of its setting.
    """
    texts = {name[4:]: text for name, text in vars(options).items() if name.startswith("set_") and text is not None}
    return {name: parse_setting(name, text) for name, text in texts.items()}


def _train(options: argparse.Namespace) -> int:
    given = given_settings(options)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        if given.get("folds"):
            raise UsageError(
                "--folds starts the processes of each fold itself; leave torchrun out and set --processes."
            )
        return _train_in_group(options, given)
    validation = _cross_validation(options, given)
    return work(_run_to_train(options, given)) if validation is None else _cross_validate(validation)


def work(run: runs.Run) -> int:
    """Train a run in this process, or in several others; returns the exit status."""
    if run.recipe.processes > 1:
        return subprocess.call(runs.trainer(run), stdout=sys.stdout)  # which a caller may have redirected
    from alexnet import worker

    return worker.work(run)


def _cross_validation(options: argparse.Namespace, given: dict[str, Any]) -> folds.CrossValidation | None:
    """The cross-validation that is asked for, made if it is new; None where that is a single run."""
    from alexnet import folds, series

    if options.resume and options.run and (validation := series.find(folds.CrossValidation, options.run)):
        check_unchanged(validation.recipe, given)
        return validation
    if not given.get("folds") or (options.resume and (options.run is None or (options.run / "run.json").exists())):
        return None
    recipe = RECIPES[options.recipe].replace(**given, fold=1)
    return folds.create(recipe, *load(options), path=options.run)


def _cross_validate(validation: folds.CrossValidation) -> int:
    from alexnet import series

    report = series.train(validation, work, show_progress)
    if report is None:
        print(f"Stopped; go on with: {validation.resume_command}")
        return 0
    accuracy, loss = (report[name] for name in ("accuracy", "loss"))
    print(f"{validation.path.name}: mean and standard deviation over {len(report['folds'])} folds")
    print(f"  accuracy {accuracy['mean']:.2%} ± {accuracy['deviation']:.2%}")
    print(f"  loss {loss['mean']:.4f} ± {loss['deviation']:.4f}")
    for number, fold in enumerate(report["folds"], 1):
        print(f"  fold {number}: accuracy {fold['accuracy']:.2%}, loss {fold['loss']:.4f}, {fold['count']:,} photos")
    print_confusion(report)
    return 0


def _train_in_group(options: argparse.Namespace, given: dict[str, Any]) -> int:
    """Train as one of the processes that torchrun started."""
    if options.run is None and int(os.environ["TORCHELASTIC_MAX_RESTARTS"]):
        raise UsageError("Give --run, the run folder, so that processes that are started again find it.")
    from alexnet.distributed import join, leave
    from alexnet.worker import work

    with join() as group:
        try:
            path = group.together(lambda: str(_run_to_train(options, given).path) if group.leads else None)
        except LabError:
            if group.leads:
                raise
            return 1
        status = work(runs.find(group.agree(path)), group)  # type: ignore[arg-type]  # the leader's is a path
    leave(status)


def _run_to_train(options: argparse.Namespace, given: dict[str, Any]) -> runs.Run:
    """The run that is asked for, made if it is new."""
    if options.resume and options.run is None:
        raise UsageError("Give --run, the folder of the run to resume.")
    exists = options.run is not None and (options.run / "run.json").exists()
    # torchrun repeats its command when it starts processes again.
    again = options.resume or "TORCHELASTIC_RUN_ID" in os.environ
    if (again and exists) or (options.resume and options.data is None):
        run = _run_to_resume(options.run, given)
    else:
        run = _new_run(options, given)
    (run.path / "stop").unlink(missing_ok=True)
    return run


def _run_to_resume(folder: Path, given: dict[str, Any]) -> runs.Run:
    """The run in `folder`; the same command with --resume added may repeat its settings, not change them."""
    run = runs.find(folder)
    if run.status().state == "finished":
        raise runs.RunError(f"{run.id} is finished; start a new run to train on.")
    check_unchanged(run.recipe, given)
    return run


def check_unchanged(recipe: Recipe, given: dict[str, Any]) -> None:
    """Raises `UsageError` where the settings that are `given` are not those of a run that goes on."""
    settings = recipe.to_dict()
    for name, value in given.items():
        if settings[name] != value:
            raise UsageError(f"{name}: the run was made with {settings[name]}, not {value}; start a new run for that.")


def _new_run(options: argparse.Namespace, given: dict[str, Any]) -> runs.Run:
    recipe = RECIPES[options.recipe].replace(**given)
    run = runs.create(recipe, *load(options), path=options.run)
    print(f"The run is in {run.path}.", flush=True)
    return run


def load(options: argparse.Namespace) -> tuple[str, data.Dataset]:
    """The dataset to train on, and the name under which it is found from anywhere."""
    from alexnet import data

    public.refuse("new runs")  # before anything is drawn or read for one
    if not options.data:
        raise UsageError(f"Give --data: {DATA_HELP}.")
    dataset = data.load(options.data, show_progress)
    data.check_trainable(dataset)
    return options.data if data.has_name(options.data) else str(dataset.root), dataset
