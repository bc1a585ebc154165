"""`data`: a look at a dataset, its download, or the import of one."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from alexnet.commands import DATA_HELP, UsageError, show_progress

if TYPE_CHECKING:
    from alexnet import data


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("data", help="look at a dataset, download or import one")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    report = actions.add_parser("report", help="say what was found, what is used, and what was skipped and why")
    report.add_argument("data", metavar="DATA", help=DATA_HELP)
    report.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    report.set_defaults(command=_report)
    download = actions.add_parser("download", help="fetch a public dataset")
    download.add_argument("name", choices=("dogs-vs-cats", "oxford-pets", "svhn"))
    download.set_defaults(command=_download)
    bring_in = actions.add_parser("import", help="copy the photos of a ZIP or a folder into a dataset of their own")
    bring_in.add_argument("source", metavar="ZIP_OR_FOLDER")
    bring_in.add_argument("--name", required=True, help="of the dataset, by which it is found from then on")
    bring_in.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="CLASS=NAME",
        help="call a class otherwise, like another one to merge the two; without NAME it is left out",
    )
    bring_in.set_defaults(command=_import)


def _report(options: argparse.Namespace) -> int:
    from alexnet import data

    _print_report(data.load(options.data, show_progress), options.json)
    return 0


def _print_report(dataset: data.Dataset, as_json: bool = False) -> None:
    report = dataset.report
    if as_json:
        skipped = [{"file": skip.path, "reason": skip.reason} for skip in report.skipped]
        counts = {
            "found": report.found,
            "used": report.used,
            "per_class": report.per_class,
            "relabelled": report.relabelled,
        }
        print(json.dumps({"dataset": dataset.name, **counts, "skipped": skipped}, ensure_ascii=False))
        return
    print(f"{dataset.name}: {report.found:,} files found, {report.used:,} used, {len(report.skipped):,} skipped")
    for name, count in report.per_class.items():
        print(f"  {name}: {count:,}")
    for reason, count in report.reasons.most_common():
        print(f"  skipped, {reason}: {count:,}")
    if report.relabelled:
        print(f"  relabelled in review: {report.relabelled:,}")


def _download(options: argparse.Namespace) -> int:
    from alexnet import data

    print(f"Ready in {data.download(options.name, show_progress)}")
    return 0


def _import(options: argparse.Namespace) -> int:
    from alexnet import data, imports

    plan = imports.plan(imports.at_path(options.source))
    imports.bring_in(plan, options.name, _renamed(options.rename, plan.classes), show_progress)
    _print_report(data.load(options.name, show_progress))
    return 0


def _renamed(given: list[str], classes: dict[str, int]) -> dict[str, str | None]:
    """The `classes` of `imports.bring_in` from CLASS=NAME."""
    called = {}
    for entry in given:
        found, equals, name = entry.partition("=")
        if not equals or found not in classes:
            raise UsageError(f"--rename {entry}: give CLASS=NAME with one of the classes {', '.join(classes)}.")
        called[found] = name or None
    return called
