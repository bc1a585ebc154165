"""`export`: a run made small enough to ship, or its whole weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from alexnet.commands import RUN_HELP, chosen_run, show_progress


def add(commands: argparse._SubParsersAction) -> None:
    export = commands.add_parser("export", help="write a run as a small folder to ship, or its whole weights")
    export.add_argument("--run", required=True, help=RUN_HELP)
    export.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="the folder to write, such as weights/NAME"
    )
    export.add_argument(
        "--format",
        choices=("small", "pth", "safetensors"),
        default="small",
        help="small: a run with compressed weights and its report (the default); pth, safetensors: one file with the "
        "uncompressed weights, for plain PyTorch",
    )
    export.add_argument(
        "--neither",
        type=Path,
        metavar="FOLDER",
        help="small: also measure how well photos in this folder, which show something else, are recognised as such",
    )
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from alexnet.export import ship, write_whole

    run = chosen_run(options.run)
    if options.format != "small":
        file = write_whole(run, options.out, options.format)
        print(f"{file}: {file.stat().st_size / 1e6:.0f} MB, answers as {run.id} does")
        return 0
    metrics = ship(run, options.out, show_progress, options.neither)
    print(f"{options.out}: accuracy {metrics['accuracy']:.2%} on {metrics['count']:,} photos, as shipped")
    return 0
