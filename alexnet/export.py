"""Making a run small enough to ship, and measuring what ships."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from alexnet import data, runs, weights
from alexnet.evaluate import evaluate, write_report
from alexnet.predict import load_classifier
from alexnet.runs import Run, RunError

RANK = 192  # of the two large matrices; what it costs is in the report, under `uncompressed`
SAMPLE = 3000  # at least so many training photos, if there are, whose activations decide which components are kept


def ship(run: Run, target: Path, progress: Callable[[str, int, int], None] | None = None) -> dict[str, Any]:
    """Write `run` to the folder `target` with compressed weights, and measure those on the photos it held out.

    Returns:
        The metrics of the compressed network, as in the `report.json` that is written.

    Raises:
        RunError: the run is not finished, or `target` holds one already or cannot be written.
        DataError: its photos are no longer there.
    """
    report = run.report()
    if report is None:
        raise RunError(f"{run.id} has no report yet; let it finish first.")
    if (target / "run.json").exists():
        raise RunError(f"{target} holds a run already; choose another folder or delete that one.")
    dataset = data.load(run.config["data"], progress)
    training = data.split_of(dataset, run.recipe, "train")
    held_out = data.split_of(dataset, run.recipe, report["split"])
    classifier = load_classifier(run)
    with activation_moments(classifier.model) as moments:
        evaluate(classifier, dataset, training[:: max(1, len(training) // SAMPLE)], progress)
    small = weights.compress(classifier.model.state_dict(), RANK, moments)
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Where the photos lay on the machine that trained is nobody's business.
        runs.write_json(target / "run.json", {**run.config, "data": dataset.name})
        for name in ("metrics.jsonl", "status.json"):
            shutil.copyfile(run.path / name, target / name)
        weights.save(target / "weights.safetensors", small)
        evaluation = evaluate(load_classifier(Run(target.resolve())), dataset, held_out, progress)
        write_report(target, evaluation, split=report["split"], best_epoch=report["best_epoch"], uncompressed=report)
    except OSError as error:
        raise RunError(f"{target} cannot be written ({error.strerror}); choose another folder.") from None
    return evaluation.metrics


@contextmanager
def activation_moments(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within, each forward adds to the mean of x x^T over the inputs x of every large matrix of `network`, by its name.

    Gives a dictionary of float32 tensors (inputs, inputs), complete when the block ends.
    """
    moments: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        def add(_: nn.Module, inputs: tuple[Tensor]) -> None:
            x = inputs[0].float()
            moments[name] = moments.get(name, 0) + x.T @ x
            counts[name] = counts.get(name, 0) + len(x)

        return add

    large = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear) and weights.is_large(m.weight)}
    hooks = [module.register_forward_pre_hook(watch(f"{name}.weight")) for name, module in large.items()]
    try:
        yield moments
        for name in moments:
            moments[name] = moments[name] / counts[name]
    finally:
        for hook in hooks:
            hook.remove()
