"""Taking a run elsewhere: small enough to ship, measured as it ships, or whole, for plain PyTorch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alexnet import calibration, card, data, model, public, runs, weights
from alexnet.data import Dataset
from alexnet.evaluate import Evaluation, calibrate, evaluate, measure_neither, write_report
from alexnet.predict import Classifier, load_classifier
from alexnet.runs import Run, RunError

RANKS = (192, 384, 736)  # of the large matrices, tried in turn; with those of 2012 files of 12, 16 and 24 MB
MOST_CHANGE = 0.01  # of probabilities by compression, on average
MOST_LOSS = 0.002  # of accuracy, unless that is a single photo
SAMPLE = 3000  # at least so many training photos, if there are, whose activations decide which components are kept
MOST_INPUTS = 16_384  # of a matrix whose activations are looked at; the moments of so many take 1 GB
SAME = 1e-4  # how far logits of a file that was read back may lie apart


def ship(
    run: Run, target: Path, progress: Callable[[str, int, int], None] | None = None, neither: Path | None = None
) -> dict[str, Any]:
    """Write `run` to the folder `target` with compressed weights, calibrated and measured on the photos it held out.

    With a folder `neither` it is also measured how well those are told from its photos, which show something else.

    Returns:
        The metrics of the compressed network, as in the `report.json` that is written.

    Raises:
        RunError: the run is not finished, its answers change too much even where little is left out, or `target` holds
            a run already or cannot be written.
        DataError: its photos are no longer there, or there are none in `neither`.
    """
    public.refuse("exports")
    report = run.report()
    if report is None or "split" not in report:
        raise RunError(f"{run.id} has no report yet; let it finish first, or export it whole, with --format pth.")
    if (target / "run.json").exists():
        raise RunError(f"{target} holds a run already; choose another folder or delete that one.")
    if neither:
        data.photo_files(neither)  # a mistyped folder is told now, not after minutes
    dataset = data.load(run.config["data"], progress)
    original, split = load_classifier(run), report["split"]
    training = data.split_of(dataset, run.recipe, "train")
    with activation_moments(original.model) as moments:
        evaluate(original, dataset, training[:: max(1, len(training) // SAMPLE)], progress)
    before = evaluate(original, dataset, data.split_of(dataset, run.recipe, split), progress)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=target) as folder:
            draft = _begin(run, Path(folder).resolve())
            size = run.weights.stat().st_size  # from here on the run may be deleted

            def measure() -> Evaluation:
                return _measure(draft, dataset, split, progress)

            rank, change, after = shrink(original, draft, moments, before, measure)
            told = measure_neither(load_classifier(draft), neither, after, progress) if neither else {}
            write_report(
                draft.path,
                after,
                **told,
                split=split,
                best_epoch=report["best_epoch"],
                splits=data.split_counts(dataset, run.recipe),
                rank=rank,
                mean_probability_change=change,
                uncompressed={**before.metrics, "bytes": size},
            )
            for file in sorted(draft.path.iterdir(), key=lambda file: file.name == "run.json"):
                os.replace(file, target / file.name)  # last of all what makes the folder a run
        card.write(Run(target.resolve()))
    except OSError as error:
        raise RunError(f"{target} cannot be written ({error.strerror}); choose another folder.") from None
    return after.metrics


def _begin(run: Run, folder: Path) -> Run:
    """A run in `folder` with all of `run` but weights and what is measured with them."""
    runs.write_json(folder / "run.json", shareable(run.config))
    for name in ("metrics.jsonl", "status.json"):
        shutil.copyfile(run.path / name, folder / name)
    return Run(folder)


def shareable(config: dict[str, Any]) -> dict[str, Any]:
    """The content of a `run.json` without the places where photos and other runs lay: they are nobody's business."""
    parent = Path(config.get("parent") or "").name
    recipe = {**config["recipe"], "start_from": parent} if parent else config["recipe"]
    return {**config, "data": config["dataset"]["name"], "recipe": recipe, "parent": parent or None}


def shrink(
    original: Classifier,
    draft: Run,
    moments: dict[str, Tensor],
    before: Evaluation,
    measure: Callable[[], Evaluation],
) -> tuple[int | None, float, Evaluation]:
    """Give `draft` the smallest weights that answer as `original` does.

    Returns:
        The rank of the large matrices, None where there are none, the change of probabilities, and what `measure` says of
        `draft` with them.
    """
    state = original.model.state_dict()
    ranks = [rank for rank in RANKS if any(weights.is_factored(tensor, rank) for tensor in state.values())]
    for rank in ranks or (None,):
        weights.save(draft.weights, weights.compress(state, rank or RANKS[0], moments))
        after = measure()
        change = probability_change(_as_calibrated(before, original.run, draft), after)
        if change <= MOST_CHANGE and _is_as_accurate(before, after):
            return rank, change, after
    gain = after.metrics["accuracy"] - before.metrics["accuracy"]
    raise RunError(
        f"Compressed, {original.run.id} gives other answers: probabilities change by {change:.3f} on average and "
        f"accuracy by {gain:+.2%}; export it whole, with --format safetensors."
    )


def _measure(run: Run, dataset: Dataset, split: str, progress: Callable[[str, int, int], None] | None) -> Evaluation:
    """Calibrate `run` on its validation photos and evaluate it on `split`."""
    parts = data.split(dataset, run.recipe)
    evaluation = calibrate(load_classifier(run), dataset, parts["val"], progress, parts["train"])
    if split == "val":
        return evaluation
    return evaluate(load_classifier(run), dataset, parts[split], progress)


def _as_calibrated(before: Evaluation, run: Run, draft: Run) -> Evaluation:
    """`before` at the temperature of `draft` where `run`, an older one, has none of its own."""
    if (run.path / calibration.FILE).exists():
        return before
    return replace(before, logits=before.logits / calibration.read(draft.path).temperature)


def probability_change(before: Evaluation, after: Evaluation) -> float:
    """How far the probability of a class has moved, 0 to 1: that which moved most, on average over the photos."""
    return (before.logits.softmax(1) - after.logits.softmax(1)).abs().amax(1).mean().item()


def _is_as_accurate(before: Evaluation, after: Evaluation) -> bool:
    right, still = ((e.logits.argmax(1) == e.labels).sum().item() for e in (before, after))
    return right - still <= max(1, MOST_LOSS * len(before.labels))


def write_whole(run: Run, target: Path, form: str) -> Path:
    """Write the uncompressed weights of `run`, float32, to a file in the folder `target` that plain PyTorch opens.

    A file of the same name with `.json` beside it tells the rest: recipe, classes, transform, and the temperature.

    Args:
        run: any that has weights, whole or compressed.
        target: the folder; it is made if need be.
        form: `pth`, for `torch.load(..., weights_only=True)`, or `safetensors`.

    Returns:
        The file, which was read back into a fresh network and gave the same answers.

    Raises:
        RunError: `target` cannot be written, or what was written answers otherwise.
        WeightsError: the run has no weights, or not those of its network.
    """
    public.refuse("exports")
    classifier = load_classifier(run)
    file = target / f"{run.id.replace('/', '-')}.{form}"
    draft = file.with_name(f".{file.name}")
    try:
        target.mkdir(parents=True, exist_ok=True)
        _write_state(classifier.model.state_dict(), draft, form)
        check_answers(classifier, _read_state(draft, form))
        os.replace(draft, file)
        about = shareable(run.config) | {"temperature": classifier.temperature}
        runs.write_json(file.with_suffix(".json"), about)
    except OSError as error:
        raise RunError(f"{target} cannot be written ({error.strerror}); choose another folder.") from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return file


def _write_state(state: dict[str, Tensor], file: Path, form: str) -> None:
    try:
        if form == "pth":
            torch.save(dict(state), file)
        else:
            save_file(state, file, metadata={"format": "pt"})
    except (RuntimeError, SafetensorError):
        raise RunError(f"{file.parent} cannot be written; free some space or choose another folder.") from None


def _read_state(file: Path, form: str) -> dict[str, Tensor]:
    return torch.load(file, weights_only=True) if form == "pth" else load_file(file)


def check_answers(classifier: Classifier, state: dict[str, Tensor]) -> None:
    """Raises RunError unless a fresh network with `state` gives the logits of `classifier` on fixed inputs."""
    recipe = classifier.run.recipe
    with torch.device("meta"):  # drawing weights would only cost time
        network = model.from_recipe(recipe, len(classifier.classes)).eval()
    network.load_state_dict(state, assign=True)
    shape = (4, 3, recipe.image_size, recipe.image_size)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        same = torch.allclose(network(x), classifier.model(x), rtol=SAME, atol=SAME)
    if not same:
        raise RunError("The file that was written does not answer as the run does; check the disk and export again.")


@contextmanager
def activation_moments(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Within, each forward adds to the mean of x x^T over the inputs x of every large matrix of `network`, by its name.

    Matrices with more than `MOST_INPUTS` inputs are left out. Gives a dictionary of float32 tensors (inputs, inputs),
    complete when the block ends.
    """
    moments: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        def add(_: nn.Module, inputs: tuple[Tensor]) -> None:
            x = inputs[0].float()
            moments[name] = moments.get(name, 0) + x.T @ x
            counts[name] = counts.get(name, 0) + len(x)

        return add

    matrices = {f"{name}.weight": m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    hooks = [
        module.register_forward_pre_hook(watch(name))
        for name, module in matrices.items()
        if weights.is_factored(module.weight, RANKS[0]) and module.in_features <= MOST_INPUTS
    ]
    try:
        yield moments
        for name in moments:
            moments[name] = moments[name] / counts[name]
    finally:
        for hook in hooks:
            hook.remove()
