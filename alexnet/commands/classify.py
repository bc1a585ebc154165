"""`classify`: what is on photos, and why the network thinks so."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from alexnet.commands import RUN_HELP, UsageError, chosen_run, show_progress

MOST_TOLD = 5  # classes whose probability is told in words, the likeliest
OPACITY = 0.6  # of the strongest evidence over the photo


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    classify = commands.add_parser("classify", help="say what is on photos")
    classify.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    classify.add_argument("--run", help=RUN_HELP)
    classify.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    classify.add_argument(
        "--saliency",
        metavar="METHOD",
        help="also write a saliency map of each photo to --out: the overlay (.png) and the numbers (.npy); `all` for "
        "one of each method",
    )
    classify.add_argument("--out", type=Path, metavar="DIR", help="the folder for saliency maps")
    classify.add_argument("--target", metavar="CLASS", help="the class that the maps explain; the likeliest by default")
    classify.add_argument(
        "--layer", metavar="NAME", help="the convolution for HiResCAM and Grad-CAM, such as conv4; the last by default"
    )
    classify.set_defaults(command=_classify)


def _classify(options: argparse.Namespace) -> int:
    if (options.saliency is None) != (options.out is None):
        raise UsageError("Give --saliency and --out together.")
    if options.saliency is None and (options.target or options.layer):
        raise UsageError("--target and --layer are for saliency maps; give --saliency too.")
    from alexnet.predict import load_classifier

    classifier = load_classifier(chosen_run(options.run))
    methods = _methods(classifier, options.saliency) if options.saliency else []
    answers = [
        _classify_one(classifier, number, path, methods, options) for number, path in enumerate(options.photos, 1)
    ]
    if options.json:
        print(json.dumps({"run": classifier.run.id, "photos": answers}, ensure_ascii=False))
    else:
        for answer in answers:
            print(f"{answer['file']}: {answer.get('error') or _in_words(answer)}")
    return int(any("error" in answer for answer in answers))


def _in_words(answer: dict[str, Any]) -> str:
    from alexnet.familiarity import neither

    ordered = sorted(answer["probabilities"].items(), key=lambda item: -item[1])[:MOST_TOLD]
    percentages = ", ".join(f"{name} {p:.1%}" for name, p in ordered)
    if answer["label"] is not None:
        return percentages
    return f"{neither(list(answer['probabilities']))} (looks familiar to {answer['familiarity']:.0%}); {percentages}"


def _classify_one(
    classifier: Any, number: int, path: Path, methods: list[str], options: argparse.Namespace
) -> dict[str, Any]:
    from alexnet.images import PhotoError, open_photo

    if len(options.photos) > 1:
        show_progress("Classifying", number, len(options.photos))
    try:
        photo = open_photo(path)
    except PhotoError as error:
        return {"file": str(path), "error": str(error)}
    prediction = classifier([photo])[0]
    answer = {"file": str(path), **prediction.to_dict()}
    if options.saliency:
        # The number keeps apart photos of one name from different folders.
        stem = f"{number}-{path.stem}" if len(options.photos) > 1 else path.stem
        answer["saliency"] = _write_maps(classifier, photo, prediction, methods, stem, options)
    return answer


def _write_maps(
    classifier: Any, photo: Any, prediction: Any, methods: list[str], stem: str, options: argparse.Namespace
) -> str | dict[str, str]:
    """Write overlay and raw attribution of one photo; returns the overlay's file, or with `all` those of all methods."""
    from alexnet import maps, saliency

    target, files = options.target or prediction.best, {}
    for name in methods:
        attribution = _attribute(classifier, photo, name, target, options)
        colormap = maps.default_colormap(saliency.METHODS[name].signed, classifier.classes, target)
        overlay = maps.render(attribution, prediction.input, OPACITY, colormap)
        files[name] = str(_write(overlay, attribution, options.out, f"{stem}-{name}"))
    return files if options.saliency == "all" else files[options.saliency]


def _methods(classifier: Any, wanted: str) -> list[str]:
    """The one that is wanted, or of all those that say something true of the run."""
    from alexnet import saliency

    if wanted != "all":
        return [wanted]
    reasons = {name: saliency.unsupported(classifier.model, name) for name in saliency.METHODS}
    for reason in filter(None, reasons.values()):
        print(reason, file=sys.stderr)
    return [name for name, reason in reasons.items() if reason is None]


def _attribute(classifier: Any, photo: Any, name: str, target: str, options: argparse.Namespace) -> Any:
    """What `saliency.attribute` returns and raises; says how far a slow method is, and where one found nothing."""
    from alexnet import saliency

    method: Any = saliency.METHODS.get(name)  # None is refused by `attribute`
    layer = None if options.saliency == "all" and not method.layered else options.layer

    def tell(share: float) -> None:
        if method.slow:
            show_progress(f"{method.title}, per cent", round(100 * share), 100)

    attribution = saliency.attribute(classifier, photo, name, target, tell, layer)
    if not attribution.any():
        print(f"{method.title} found nothing that speaks for {target}.", file=sys.stderr)
    return attribution


def _write(overlay: Any, attribution: Any, folder: Path, stem: str) -> Path:
    """Write both files; returns that of the overlay."""
    import numpy as np

    try:
        folder.mkdir(parents=True, exist_ok=True)
        overlay.save(folder / f"{stem}.png")
        np.save(folder / f"{stem}.npy", attribution)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({error.strerror}); choose another folder.") from None
    return folder / f"{stem}.png"
