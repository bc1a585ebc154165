"""The command line: `python -m alexnet train | classify | evaluate | data | export`.

Exit status 0, 1 when something failed, 2 for wrong use. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet import runs
from alexnet.errors import LabError
from alexnet.recipes import RECIPES, Recipe, RecipeError, parse_setting

if TYPE_CHECKING:
    from alexnet import data, folds

DATA_HELP = "a folder of photos, or doodles, dogs-vs-cats, oxford-pets"
RUN_HELP = "the name or folder of a run; the shipped weights by default"


class UsageError(LabError):
    """A command that was put together wrongly."""


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
    for add in (_add_train, _add_classify, _add_evaluate, _add_data, _add_export):
        add(commands)
    return parser


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser("train", help="train a run, or go on with one")
    train.add_argument("--data", help=DATA_HELP)
    train.add_argument("--recipe", choices=RECIPES, default="cats-dogs", help="the settings to start from")
    # The second name is for torchrun, which takes --run for its own --run-path.
    train.add_argument(
        "--run", "--run-dir", type=Path, metavar="DIR", help="the run folder; a new one under runs/ by default"
    )
    train.add_argument("--resume", action="store_true", help="go on with the run in --run from its last checkpoint")
    train.add_argument(
        "--folds",
        dest="set_folds",
        metavar="K",
        help="cross-validate: K runs, each tested on another part of the photos",
    )
    settings = train.add_argument_group("settings of the recipe")
    for f in fields(Recipe):
        if f.metadata["group"] != "about":
            flag, text = "--" + f.name.replace("_", "-"), f.metadata["help"].replace("%", "%%")
            settings.add_argument(flag, dest=f"set_{f.name}", metavar="VALUE", help=text)
    train.set_defaults(command=_train)


def _train(options: argparse.Namespace) -> int:
    texts = {name[4:]: text for name, text in vars(options).items() if name.startswith("set_") and text is not None}
    given = {name: parse_setting(name, text) for name, text in texts.items()}
    if "TORCHELASTIC_RUN_ID" in os.environ:
        if given.get("folds"):
            raise UsageError(
                "--folds starts the processes of each fold itself; leave torchrun out and set --processes."
            )
        return _train_in_group(options, given)
    validation = _cross_validation(options, given)
    return _work(_run_to_train(options, given)) if validation is None else _cross_validate(validation)


def _work(run: runs.Run) -> int:
    """Train a run in this process, or in several others; returns the exit status."""
    if run.recipe.processes > 1:
        return subprocess.call(runs.trainer(run))
    from alexnet.worker import work

    return work(run)


def _cross_validation(options: argparse.Namespace, given: dict[str, Any]) -> folds.CrossValidation | None:
    """The cross-validation that is asked for, made if it is new; None where that is a single run."""
    from alexnet import folds

    if options.resume and options.run and (validation := folds.find(options.run)):
        _check_unchanged(validation.recipe, given)
        return validation
    if not given.get("folds") or (options.resume and (options.run is None or (options.run / "run.json").exists())):
        return None
    recipe = RECIPES[options.recipe].replace(**given, fold=1)
    return folds.create(recipe, *_load(options), path=options.run)


def _cross_validate(validation: folds.CrossValidation) -> int:
    from alexnet import folds

    report = folds.train(validation, _work, _show_progress)
    if report is None:
        print(f"Stopped; go on with: python -m alexnet train --resume --run {validation.path}")
        return 0
    accuracy, loss = (report[name] for name in ("accuracy", "loss"))
    print(f"{validation.path.name}: mean and standard deviation over {len(report['folds'])} folds")
    print(f"  accuracy {accuracy['mean']:.2%} ± {accuracy['deviation']:.2%}")
    print(f"  loss {loss['mean']:.4f} ± {loss['deviation']:.4f}")
    for number, fold in enumerate(report["folds"], 1):
        print(f"  fold {number}: accuracy {fold['accuracy']:.2%}, loss {fold['loss']:.4f}, {fold['count']:,} photos")
    _print_confusion(report)
    return 0


def _train_in_group(options: argparse.Namespace, given: dict[str, Any]) -> int:
    """Train as one of the processes that torchrun started."""
    if options.run is None and int(os.environ["TORCHELASTIC_MAX_RESTARTS"]):
        raise UsageError("Give --run, the run folder, so that processes that are started again find it.")
    from alexnet.distributed import join
    from alexnet.worker import work

    with join() as group:
        try:
            path = group.together(lambda: str(_run_to_train(options, given).path) if group.leads else None)
        except LabError:
            if group.leads:
                raise
            return 1
        return work(runs.find(group.agree(path)), group)


def _run_to_train(options: argparse.Namespace, given: dict[str, Any]) -> runs.Run:
    """The run that is asked for, made if it is new."""
    if options.resume and options.run is None:
        raise UsageError("Give --run, the folder of the run to resume.")
    exists = options.run is not None and (options.run / "run.json").exists()
    # torchrun repeats its command when it starts processes again.
    again = options.resume or "TORCHELASTIC_RUN_ID" in os.environ
    if (again and exists) or (options.resume and options.data is None):
        run = _run_to_resume(options.run, given)
    else:
        run = _new_run(options, given)
    (run.path / "stop").unlink(missing_ok=True)
    return run


def _run_to_resume(folder: Path, given: dict[str, Any]) -> runs.Run:
    """The run in `folder`; the same command with --resume added may repeat its settings, not change them."""
    run = runs.find(folder)
    if run.status().state == "finished":
        raise runs.RunError(f"{run.id} is finished; start a new run to train on.")
    _check_unchanged(run.recipe, given)
    return run


def _check_unchanged(recipe: Recipe, given: dict[str, Any]) -> None:
    settings = recipe.to_dict()
    for name, value in given.items():
        if settings[name] != value:
            raise UsageError(f"{name}: the run was made with {settings[name]}, not {value}; start a new run for that.")


def _new_run(options: argparse.Namespace, given: dict[str, Any]) -> runs.Run:
    recipe = RECIPES[options.recipe].replace(**given)
    return runs.create(recipe, *_load(options), path=options.run)


def _load(options: argparse.Namespace) -> tuple[str, data.Dataset]:
    """The dataset to train on, and the name under which it is found from anywhere."""
    from alexnet import data

    if not options.data:
        raise UsageError(f"Give --data: {DATA_HELP}.")
    dataset = data.load(options.data, _show_progress)
    data.check_trainable(dataset)
    return options.data if options.data in data.KNOWN else str(dataset.root), dataset


def _add_classify(commands: argparse._SubParsersAction) -> None:
    classify = commands.add_parser("classify", help="say what is on photos")
    classify.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    classify.add_argument("--run", help=RUN_HELP)
    classify.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    classify.add_argument("--saliency", metavar="METHOD", help="also write a saliency map of each photo to --out")
    classify.add_argument("--out", type=Path, metavar="DIR", help="the folder for saliency maps")
    classify.set_defaults(command=_classify)


def _classify(options: argparse.Namespace) -> int:
    if (options.saliency is None) != (options.out is None):
        raise UsageError("Give --saliency and --out together.")
    from alexnet.predict import load_classifier

    classifier = load_classifier(_run(options.run))
    answers = [_classify_one(classifier, number, path, options) for number, path in enumerate(options.photos, 1)]
    if options.json:
        print(json.dumps({"run": classifier.run.id, "photos": answers}, ensure_ascii=False))
    else:
        for answer in answers:
            print(f"{answer['file']}: {answer.get('error') or _in_words(answer)}")
    return int(any("error" in answer for answer in answers))


def _in_words(answer: dict[str, Any]) -> str:
    from alexnet.familiarity import neither

    ordered = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
    percentages = ", ".join(f"{name} {p:.1%}" for name, p in ordered)
    if answer["label"] is not None:
        return percentages
    return f"{neither(list(answer['probabilities']))} (looks familiar to {answer['familiarity']:.0%}); {percentages}"


def _classify_one(classifier: Any, number: int, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    from alexnet.images import PhotoError, open_photo

    if len(options.photos) > 1:
        _show_progress("Classifying", number, len(options.photos))
    try:
        photo = open_photo(path)
    except PhotoError as error:
        return {"file": str(path), "error": str(error)}
    prediction = classifier([photo])[0]
    answer = {
        "file": str(path),
        "label": prediction.label,
        "familiarity": prediction.familiarity,
        "probabilities": prediction.probabilities,
    }
    if options.saliency:
        # The number keeps apart photos of one name from different folders.
        stem = f"{number}-{path.stem}" if len(options.photos) > 1 else path.stem
        answer["saliency"] = _write_saliency(classifier, photo, prediction, stem, options)
    return answer


def _write_saliency(classifier: Any, photo: Any, prediction: Any, stem: str, options: argparse.Namespace) -> str:
    """Write the overlay and the raw attribution of one photo; returns the overlay's file name."""
    import numpy as np

    from alexnet import saliency

    attribution = saliency.attribute(classifier, photo, options.saliency, prediction.best)
    signed = saliency.METHODS[options.saliency].signed
    colormap = next(name for name, table in saliency.COLORMAPS.items() if table.diverging == signed)
    target = options.out / f"{stem}-{options.saliency}.png"
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        saliency.render(attribution, prediction.input, 0.6, colormap).save(target)
        np.save(target.with_suffix(".npy"), attribution)
    except OSError as error:
        raise UsageError(f"{options.out} cannot be written ({error.strerror}); choose another folder.") from None
    return str(target)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
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
    evaluate.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    evaluate.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from alexnet import data
    from alexnet.evaluate import evaluate, interval, measure_neither
    from alexnet.predict import load_classifier

    run = _run(options.run)
    if options.neither:
        data.photo_files(options.neither)  # a mistyped folder is told now, not after minutes
    dataset = data.load(options.data, _show_progress)
    photos = data.split_of(dataset, run.recipe, options.split)
    classifier = load_classifier(run)
    evaluation = evaluate(classifier, dataset, photos, _show_progress)
    metrics = evaluation.metrics
    if options.neither:
        metrics |= measure_neither(classifier, options.neither, evaluation, _show_progress)
    if options.json:
        print(json.dumps({"run": run.id, "split": options.split, **metrics}, ensure_ascii=False))
        return 0
    low, high = interval(metrics["accuracy"], metrics["count"])
    print(
        f"{run.id} on {len(photos):,} photos: accuracy {metrics['accuracy']:.2%} "
        f"(95 % interval {low:.2%} to {high:.2%}), loss {metrics['loss']:.4f}"
    )
    _print_confusion(metrics)
    print(f"  calibration error (ECE): {metrics['ece']:.2%}")
    print(f"  risk at 90 % coverage: {metrics['risk_at_90']:.2%} wrong of the 90 % that it is surest of")
    if options.neither:
        found = metrics["neither"]
        print(f"  neither: AUROC {metrics['auroc_neither']:.3f} against {found['count']:,} photos of something else")
    return 0


def _print_confusion(metrics: dict[str, Any]) -> None:
    for name, row in zip(metrics["classes"], metrics["confusion"], strict=True):
        counts = ", ".join(f"{n:,} as {other}" for other, n in zip(metrics["classes"], row, strict=True))
        print(f"  {name}: {counts}")


def _add_data(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("data", help="look at a dataset, or download one")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    report = actions.add_parser("report", help="say what was found, what is used, and what was skipped and why")
    report.add_argument("data", metavar="DATA", help=DATA_HELP)
    report.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    report.set_defaults(command=_report)
    download = actions.add_parser("download", help="fetch a public dataset")
    download.add_argument("name", choices=("dogs-vs-cats", "oxford-pets"))
    download.set_defaults(command=_download)


def _report(options: argparse.Namespace) -> int:
    from alexnet import data

    dataset = data.load(options.data, _show_progress)
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

    print(f"Ready in {data.download(options.name, _show_progress)}")
    return 0


def _add_export(commands: argparse._SubParsersAction) -> None:
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

    run = _run(options.run)
    if options.format != "small":
        file = write_whole(run, options.out, options.format)
        print(f"{file}: {file.stat().st_size / 1e6:.0f} MB, answers as {run.id} does")
        return 0
    metrics = ship(run, options.out, _show_progress, options.neither)
    print(f"{options.out}: accuracy {metrics['accuracy']:.2%} on {metrics['count']:,} photos, as shipped")
    return 0


def _run(name: str | None) -> runs.Run:
    run = runs.find(name) if name else runs.default_run()
    if run is None:
        raise runs.RunError("No run has weights yet; train one, or give --run.")
    return run


def _show_progress(stage: str, done: int, total: int) -> None:
    print(f"\r{stage}: {done:,} of {total:,}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
