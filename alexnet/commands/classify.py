"""`classify`: what is on photos, and why the network thinks so."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from alexnet.commands import RUN_HELP, UsageError, chosen_run, show_progress

MOST_TOLD = 5  # classes whose probability is told in words, the likeliest


def add(commands: argparse._SubParsersAction) -> None:
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

    classifier = load_classifier(chosen_run(options.run))
    answers = [_classify_one(classifier, number, path, options) for number, path in enumerate(options.photos, 1)]
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


def _classify_one(classifier: Any, number: int, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    from alexnet.images import PhotoError, open_photo

    if len(options.photos) > 1:
        show_progress("Classifying", number, len(options.photos))
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
