"""Says what is on photos. Needs nothing but onnxruntime and Pillow, and `model.onnx` beside this file.

pip install onnxruntime pillow
python classify.py PHOTO...             # or with --json, one JSON object and nothing else
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

try:
    import numpy as np
    import onnxruntime
    from PIL import Image, ImageOps
except ImportError as error:
    sys.exit(f"{error.name} is missing; first: pip install onnxruntime pillow")


def open_photo(path: str) -> Image.Image:
    """The photo as upright RGB of 8 bits a channel, transparency on white."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I;16"):  # grey of 16 bits
        levels = np.rint(np.asarray(image, np.float32) * np.float32(255 / 65535))
        image = Image.fromarray(levels.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(image, mask=image.getchannel("A"))
        return canvas
    return image.convert("RGB")


class Classifier:
    """The network with all that goes before and after it."""

    def __init__(self, file: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        self.session = onnxruntime.InferenceSession(file, options)
        about = self.session.get_modelmeta().custom_metadata_map
        self.run, self.classes, self.abstain = (json.loads(about[name]) for name in ("run", "classes", "abstain"))

    def __call__(self, photo: Image.Image) -> dict[str, Any]:
        """Label, familiarity and probabilities; the label is None where the photo looks like none of the classes."""
        outputs = [output.name for output in self.session.get_outputs()]
        answer = dict(zip(outputs, self.session.run(None, {"photo": np.asarray(photo)}), strict=True))
        probabilities = dict(zip(self.classes, answer["probabilities"].tolist(), strict=True))
        familiarity = float(answer["familiarity"]) if "familiarity" in answer else None
        is_known = familiarity is None or familiarity >= self.abstain
        label = max(probabilities, key=lambda name: probabilities[name]) if is_known else None
        return {"label": label, "familiarity": familiarity, "probabilities": probabilities}


def main() -> int:
    """Answer for each photo that can be opened; returns 1 if there is one that cannot, otherwise 0."""
    parser = argparse.ArgumentParser(description="Say what is on photos.")
    parser.add_argument("photos", nargs="+", metavar="PHOTO")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    classify = Classifier(Path(__file__).with_name("model.onnx"))
    answers = []
    for path in options.photos:
        try:
            answers.append({"file": path, **classify(open_photo(path))})
        except (OSError, ValueError, Image.DecompressionBombError):  # all that Pillow says of what is no photo
            print(f"{path} cannot be opened as a photo.", file=sys.stderr)
    failed = int(len(answers) < len(options.photos))
    if options.json:
        print(json.dumps({"run": classify.run, "photos": answers}))
        return failed
    for answer in answers:
        ordered = sorted(answer["probabilities"].items(), key=lambda item: -item[1])[:5]
        told = ", ".join(f"{name} {share:.1%}" for name, share in ordered)
        print(f"{answer['file']}: {'' if answer['label'] else 'none of the classes; '}{told}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
