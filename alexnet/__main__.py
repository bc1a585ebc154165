"""The command line: `python -m alexnet train | classify | evaluate | ...`, a module of `alexnet.commands` each.

Exit status 0, 1 when something failed, 2 for wrong use. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import argparse
import sys

from alexnet.commands import (
    UsageError,
    classify,
    data,
    evaluate,
    explain_score,
    export,
    import_,
    recipes,
    serve,
    submit,
    sweep,
    train,
)
from alexnet.errors import LabError
from alexnet.recipes import RecipeError

COMMANDS = (train, sweep, recipes, classify, explain_score, evaluate, submit, data, export, import_, serve)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
    except (UsageError, RecipeError) as error:
        print(error, file=sys.stderr)
        return 2
    except LabError as error:
        print(error, file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m alexnet", description="Train AlexNet, classify and evaluate.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
