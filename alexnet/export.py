"""Making a run small enough to ship, and measuring what ships."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet import data, runs, weights
from alexnet.evaluate import evaluate, write_report
from alexnet.predict import load_classifier
from alexnet.runs import Run, RunError

RANK = 512  # of the two large matrices; see the weights' report for what it costs


def ship(run: Run, target: Path, progress: Callable[[str, int, int], None] | None = None) -> dict[str, Any]:
    """Write `run` to the folder `target` with compressed weights, and measure those on the photos it held out.

    Returns:
        The metrics of the compressed network, as in the `report.json` that is written.

    Raises:
        RunError: the run is not finished, or `target` holds one already.
        DataError: its photos are no longer there.
    """
    report = run.report()
    if report is None:
        raise RunError(f"{run.id} has no report yet; let it finish first.")
    if (target / "run.json").exists():
        raise RunError(f"{target} holds a run already; choose another folder or delete that one.")
    dataset = data.load(run.config["data"], progress)
    photos = data.split_of(dataset, run.recipe, report["split"])
    network = load_classifier(run).model
    target.mkdir(parents=True, exist_ok=True)
    # Where the photos lay on the machine that trained is nobody's business.
    runs.write_json(target / "run.json", {**run.config, "data": dataset.name})
    for name in ("metrics.jsonl", "status.json"):
        shutil.copyfile(run.path / name, target / name)
    weights.save(target / "weights.safetensors", weights.compress(network.state_dict(), RANK))
    evaluation = evaluate(load_classifier(Run(target.resolve())), dataset, photos, progress)
    write_report(target, evaluation, split=report["split"], best_epoch=report["best_epoch"], uncompressed=report)
    return evaluation.metrics
