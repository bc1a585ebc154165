"""`evaluate`: how good a run is on photos whose labels are known."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from alexnet.commands import DATA_HELP, RUN_HELP, chosen_run, print_confusion, show_progress
from alexnet.measures import interval


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    evaluate = commands.add_parser("evaluate", help="measure a run on photos whose labels are known")
    evaluate.add_argument("--data", required=True, help=DATA_HELP)
    evaluate.add_argument("--run", help=RUN_HELP)
    evaluate.add_argument(
        "--split",
        choices=("all", "train", "val", "test"),
        default="all",
        help="only this split, as the run itself divides the photos",
    )
    evaluate.add_argument(
        "--neither",
        type=Path,
        metavar="FOLDER",
        help="also tell those photos from the photos in this folder, which show something else",
    )
    evaluate.add_argument(
        "--resize",
        type=int,
        metavar="PX",
        help="scale the shorter side of photos to this before their centre is cut out, instead of to the run's own",
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    evaluate.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from alexnet import data
    from alexnet.evaluate import evaluate, measure_neither
    from alexnet.predict import load_classifier

    run = chosen_run(options.run)
    if options.neither:
        data.photo_files(options.neither)  # a mistyped folder is told now, not after minutes
    dataset = data.load(options.data, show_progress)
    photos = data.split_of(dataset, run.recipe, options.split)
    classifier = load_classifier(run)
    if options.resize is not None:
        classifier = classifier.scaling_to(options.resize)
    evaluation = evaluate(classifier, dataset, photos, show_progress)
    metrics = evaluation.metrics
    if options.neither:
        metrics |= measure_neither(classifier, options.neither, evaluation, show_progress)
    if options.json:
        print(json.dumps({"run": run.id, "split": options.split, **metrics}, ensure_ascii=False))
        return 0
    low, high = interval(metrics["accuracy"], metrics["count"])
    top = f"top-5 accuracy {metrics['top5']:.2%}, " if "top5" in metrics else ""
    print(
        f"{run.id} on {len(photos):,} photos: accuracy {metrics['accuracy']:.2%} "
        f"(95 % interval {low:.2%} to {high:.2%}), {top}loss {metrics['loss']:.4f}"
    )
    print_confusion(metrics)
    print(f"  calibration error (ECE): {metrics['ece']:.2%}")
    print(f"  risk at 90 % coverage: {metrics['risk_at_90']:.2%} wrong of the 90 % that it is surest of")
    if options.neither:
        found = metrics["neither"]
        print(f"  neither: AUROC {metrics['auroc_neither']:.3f} against {found['count']:,} photos of something else")
    return 0
