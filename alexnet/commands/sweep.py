"""`sweep`: several runs that differ in a few settings, to find the values that work best."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alexnet import runs
from alexnet.commands import UsageError, show_progress
from alexnet.commands.train import add_options, check_unchanged, given_settings, load, work
from alexnet.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from alexnet.sweep import Plan, Sweep

COLUMNS = ("validation", "epoch", "test", "seconds", "state")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sweep = commands.add_parser("sweep", help="train runs that differ in a few settings, and find the best")
    sweep.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="SETTING=VALUES",
        help="a setting and what to try for it, once for each: a list such as dropout=0.2,0.5; a range to draw from, such "
        "as lr=1e-4..1e-1, with --search random or optuna; in a grid, of whole numbers each: seed=0..9",
    )
    sweep.add_argument(
        "--search",
        choices=("grid", "random", "optuna"),
        default="grid",
        help="all combinations; some of them, drawn by --seed; or those with promise, which needs the package optuna",
    )
    sweep.add_argument(
        "--trials", type=int, metavar="N", help="how many runs to make; of a grid all, else 10 by default"
    )
    sweep.add_argument("--no-pruning", action="store_true", help="let hopeless trials train to their end, too")
    sweep.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(sweep)
    sweep.set_defaults(command=_sweep)


def _sweep(options: argparse.Namespace) -> int:
    from alexnet import series

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UsageError("sweep starts the processes of each trial itself; leave torchrun out and set --processes.")
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):
        sweep = _sweep_to_train(options, given_settings(options))
        report = series.train(sweep, _work, show_progress)
    outcome = {"run": sweep.id, "state": "finished", **report} if report else _unfinished(sweep)
    if options.json:
        print(json.dumps(outcome, ensure_ascii=False))
        return 0
    print(f"{sweep.path.name}: {len(outcome['trials'])} of {sweep.count} trials, the best first")
    print(_table(outcome["trials"]))
    for name, values in outcome.get("seeds", {}).items():
        title = {"accuracy": "validation accuracy", "test_accuracy": "test accuracy"}[name]
        print(f"{title} over the seeds: {values['mean']:.2%} ± {values['deviation']:.2%}")
    if report is None:
        print(f"Stopped; go on with: {sweep.resume_command}")
    return 0


def _unfinished(sweep: Sweep) -> dict[str, Any]:
    from alexnet.sweep import ranked

    return {"run": sweep.id, "state": "stopped", "trials": ranked(sweep.trials())}


def _work(run: runs.Run) -> int:
    status = work(run)
    # What compiles does so for a few different networks only, and would leave all later ones as they are.
    if "torch._dynamo" in sys.modules:
        import torch

        torch.compiler.reset()
    return status


def _sweep_to_train(options: argparse.Namespace, given: dict[str, Any]) -> Sweep:
    """The sweep that is asked for, made if it is new."""
    from alexnet import series
    from alexnet.sweep import Sweep, create

    vary = _varied(options.vary)
    if both := vary.keys() & given.keys():
        raise UsageError(f"{both.pop()} is varied and set; leave one of the two out.")
    if options.resume:
        if options.run is None:
            raise UsageError("Give --run, the folder of the sweep to resume.")
        if sweep := series.find(Sweep, options.run):
            check_unchanged(sweep.recipe, given)
            if vary and _plan(sweep.recipe, options, vary) != sweep.plan:
                raise UsageError("vary: the sweep was made with other values; start a new one for these.")
            return sweep
        if options.data is None:
            raise runs.RunError(f"There is no sweep {str(options.run)!r}; give the folder of one.")
    recipe = RECIPES[options.recipe].replace(**given)
    plan = _plan(recipe, options, vary)
    return create(recipe, plan, *load(options), path=options.run)


def _varied(texts: Sequence[str]) -> dict[str, str]:
    """Setting -> values, from `SETTING=VALUES`."""
    vary: dict[str, str] = {}
    for text in texts:
        flag, equals, values = text.partition("=")
        name = flag.strip().lstrip("-").replace("-", "_")
        if not equals:
            raise UsageError(f"--vary {text}: write a setting and its values, such as dropout=0.2,0.5.")
        if name in vary:
            raise UsageError(f"{name} is varied twice; give all its values at once.")
        vary[name] = values
    return vary


def _plan(recipe: Recipe, options: argparse.Namespace, vary: dict[str, str]) -> Plan:
    from alexnet.sweep import make_plan

    return make_plan(recipe, vary, options.search, options.trials, not options.no_pruning)


def _table(trials: Sequence[dict[str, Any]]) -> str:
    """A line for each trial, in columns."""
    from alexnet.sweep import in_words

    def share(value: float | None) -> str:
        return "" if value is None else f"{value:.2%}"

    rows = [["trial", *(trials[0]["values"] if trials else ()), *COLUMNS]]
    for trial in trials:
        seconds = "" if trial["seconds"] is None else f"{trial['seconds']:.0f}"
        numbers = [share(trial["accuracy"]), str(trial["epoch"] or ""), share(trial["test_accuracy"]), seconds]
        rows.append(
            [trial["run"], *map(in_words, trial["values"].values()), *numbers, trial["message"] or trial["state"]]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
