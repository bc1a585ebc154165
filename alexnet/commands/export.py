"""`export`: a run made small enough to ship, its whole weights, or one bundle of all."""

from __future__ import annotations

import argparse
from pathlib import Path

from alexnet import bundle, runs
from alexnet.commands import RUN_HELP, UsageError, chosen_run, show_progress


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser("export", help="write a run as a small folder to ship, its whole weights, or a bundle")
    export.add_argument("--run", required=True, help=RUN_HELP)
    export.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="PATH",
        help="the folder to write, such as weights/NAME; the file of a bundle, such as NAME.zip",
    )
    export.add_argument(
        "--format",
        choices=("small", "pth", "safetensors", bundle.FORM),
        default="small",
        help="small: a run with compressed weights and its report (the default); pth, safetensors: one file with the "
        "uncompressed weights, for plain PyTorch; bundle: a ZIP of these, ONNX, the run and a script that classifies, "
        "opened and compared with the app first",
    )
    export.add_argument(
        "--neither",
        type=Path,
        metavar="FOLDER",
        help="small: also measure how well photos in this folder, which show something else, are recognised as such",
    )
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    if options.neither and options.format != "small":
        raise UsageError("--neither is for the small format; leave it out, or --format.")
    run = chosen_run(options.run)
    if options.format == bundle.FORM:
        return _bundle(run, options.out)
    from alexnet.export import ship, write_whole

    if options.format != "small":
        file = write_whole(run, options.out, options.format)
        print(f"{file}: {file.stat().st_size / 1e6:.0f} MB, answers as {run.id} does")
        return 0
    metrics = ship(run, options.out, show_progress, options.neither)
    print(f"{options.out}: accuracy {metrics['accuracy']:.2%} on {metrics['count']:,} photos, as shipped")
    return 0


def _bundle(run: runs.Run, file: Path) -> int:
    if file.suffix.lower() != ".zip":
        raise UsageError(f"A bundle is a ZIP file: give --out a name such as {file.name}.zip.")
    proof = bundle.write(run, file, show_progress)
    print(f"{file}: {file.stat().st_size / 1e6:.0f} MB")
    for form, check in proof["checks"].items():
        told = f"{check['same']} of {check['of']} answers identical to the app's"
        print(f"  {bundle.FORMS[form]}: {told}, probabilities within {check['largest_difference']:.1e}")
    return 0
