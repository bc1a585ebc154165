"""`data`: a look at a dataset, or its download."""

from __future__ import annotations

import argparse
import json

from alexnet.commands import DATA_HELP, show_progress


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("data", help="look at a dataset, or download one")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    report = actions.add_parser("report", help="say what was found, what is used, and what was skipped and why")
    report.add_argument("data", metavar="DATA", help=DATA_HELP)
    report.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    report.set_defaults(command=_report)
    download = actions.add_parser("download", help="fetch a public dataset")
    download.add_argument("name", choices=("dogs-vs-cats", "oxford-pets", "svhn"))
    download.set_defaults(command=_download)


def _report(options: argparse.Namespace) -> int:
    from alexnet import data

    dataset = data.load(options.data, show_progress)
    report = dataset.report
    if options.json:
        skipped = [{"file": skip.path, "reason": skip.reason} for skip in report.skipped]
        counts = {"found": report.found, "used": report.used, "per_class": report.per_class}
        print(json.dumps({"dataset": dataset.name, **counts, "skipped": skipped}, ensure_ascii=False))
        return 0
    print(f"{dataset.name}: {report.found:,} files found, {report.used:,} used, {len(report.skipped):,} skipped")
    for name, count in report.per_class.items():
        print(f"  {name}: {count:,}")
    for reason, count in report.reasons.most_common():
        print(f"  skipped, {reason}: {count:,}")
    return 0


def _download(options: argparse.Namespace) -> int:
    from alexnet import data

    print(f"Ready in {data.download(options.name, show_progress)}")
    return 0
