"""`explain-score`: how good saliency maps are on photos in which the animal is outlined."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alexnet.commands import DATA_HELP, RUN_HELP, UsageError, chosen_run, show_progress


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    score = commands.add_parser("explain-score", help="measure saliency maps on photos in which the object is outlined")
    score.add_argument("--data", required=True, help=DATA_HELP)
    score.add_argument(
        "--masks",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="PNG masks with the names of the photos, anywhere below this folder: 1 object, 2 background, 3 border",
    )
    score.add_argument("--run", help=RUN_HELP)
    score.add_argument(
        "--method",
        nargs="+",
        action="extend",
        metavar="M",
        help="only these methods, beside the baselines, which are always measured",
    )
    score.add_argument("--limit", type=int, metavar="N", help="only N photos, drawn at random, always the same ones")
    score.add_argument(
        "--perturbed",
        type=int,
        metavar="N",
        help="measure infidelity and sensitivity, which take long, on N of the photos (5 by default, 0 for not at all)",
    )
    score.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    score.set_defaults(command=_explain_score)


def _explain_score(options: argparse.Namespace) -> int:
    for name, least in (("limit", 1), ("perturbed", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"--{name} is {value}; give {least} or more.")
    from alexnet import explain_score
    from alexnet.predict import load_classifier
    from alexnet.saliency import METHODS

    known = (*METHODS, *explain_score.BASELINES)
    for name in options.method or ():
        if name not in known:
            raise UsageError(f"There is no method {name!r}; choose from {', '.join(known)}.")
    names = list(dict.fromkeys([*(options.method or METHODS), *explain_score.BASELINES]))
    classifier = load_classifier(chosen_run(options.run))
    found = explain_score.collect(options.data, options.masks, classifier.classes, show_progress)
    perturbed = explain_score.PERTURBED if options.perturbed is None else options.perturbed
    rows, unusable = explain_score.score(classifier, found.photos, names, options.limit, perturbed, show_progress)
    skipped = [*found.skipped, *unusable]
    if options.json:
        answer = {
            "run": classifier.run.id,
            "photos": max(row["photos"] for row in rows),
            "target": found.target,
            "skipped": [{"file": skip.path, "reason": skip.reason} for skip in skipped],
            "methods": rows,
        }
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    photos = max(row["photos"] for row in rows)
    print(f"{classifier.run.id} on {photos:,} outlined photos, explained for the {found.target}")
    print(_table(rows))
    examples = {skip.reason: skip.path for skip in skipped}
    for reason, count in Counter(skip.reason for skip in skipped).most_common():
        print(f"Left out: {count:,} such as {examples[reason]}. {reason}")
    return 0


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The measures in columns, a line for each method; what was not measured is a dash."""
    head = ("pointing", "energy", "deletion", "insertion", "infidelity", "sensitivity", "s/photo")
    forms = ("{:.1%}", "{:.1%}", "{:.3f}", "{:.3f}", "{:.3f}", "{:.3f}", "{:.2f}")
    keys = (*head[:-1], "seconds")
    lines = [" ".join([f"{'':20}", *(f"{name:>11}" for name in head)])]
    for row in rows:
        if row["error"]:
            lines.append(f"{row['method']:20} {row['error']}")
            continue
        cells = ["-" if row[key] is None else form.format(row[key]) for key, form in zip(keys, forms, strict=True)]
        lines.append(" ".join([f"{row['method']:20}", *(f"{cell:>11}" for cell in cells)]))
    return "\n".join(lines)
