"""From photos to labels and probabilities, with the transform that the run was evaluated with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor, nn

from alexnet import model, weights
from alexnet.augment import EvalTransform
from alexnet.runs import Run


def class_logits(output: Tensor) -> Tensor:
    """One logit per class, `(N, classes)`: a network's single logit z becomes (-z/2, z/2), whose softmax is sigmoid(z)."""
    return torch.cat([-output / 2, output / 2], dim=1) if output.shape[1] == 1 else output


def averaged_logits(network: Callable[[Tensor], Tensor], x: Tensor, mirror: bool) -> Tensor:
    """Logits `(N, classes)` of normalised photos, averaged with those of the mirror images if `mirror`."""
    logits = class_logits(network(x))
    return (logits + class_logits(network(x.flip(3)))) / 2 if mirror else logits


@dataclass(frozen=True)
class Prediction:
    """What the network says of one photo."""

    label: str
    probabilities: dict[str, float]  # by class name; they sum to 1
    seconds: float  # from the open photo to the probabilities, its share of the batch
    input: Image.Image  # the crop that the network was given


@dataclass(frozen=True)
class Classifier:
    """A run's network with all that its answers depend on.

    `lock` has to be held for each forward and each attribution: hooks on a network that two threads share corrupt each
    other's results without an error.
    """

    run: Run
    classes: tuple[str, ...]
    transform: EvalTransform
    mirror: bool
    model: nn.Module
    device: torch.device
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __call__(self, photos: Sequence[Image.Image]) -> list[Prediction]:
        """Classify upright RGB photos of any size."""
        if not photos:
            return []
        started = time.perf_counter()
        crops = [self.transform.crop_photo(photo) for photo in photos]
        rows = self.answer(self.transform.stack(crops)).softmax(dim=1).tolist()
        seconds = (time.perf_counter() - started) / len(photos)
        return [
            Prediction(self.classes[row.index(max(row))], dict(zip(self.classes, row, strict=True)), seconds, crop)
            for row, crop in zip(rows, crops, strict=True)
        ]

    def answer(self, images: Tensor) -> Tensor:
        """The logits `(N, classes)` that predictions and metrics rest on, of crops `(N, 3, S, S)` uint8; on the CPU."""
        with self.lock, torch.inference_mode():
            x = self.transform.normalize(images.to(self.device))
            return averaged_logits(self.model, x, self.mirror).float().cpu()

    def prepare(self, photos: Sequence[Image.Image]) -> Tensor:
        """Upright RGB photos as the network computes with them: `(N, 3, S, S)` float32, normalised."""
        return self.transform.normalize(self.transform.batch(photos).to(self.device))

    def logits(self, x: Tensor) -> Tensor:
        """One logit per class, `(N, classes)`, of prepared photos; differentiable, one view only."""
        return class_logits(self.model(x))


def load_classifier(run: Run, device: str | torch.device = "cpu") -> Classifier:
    """The classifier of a run that has weights.

    Raises:
        RunError: its `run.json` cannot be read.
        WeightsError: it has no weights, or not those of its network.
    """
    recipe, config = run.recipe, run.config
    with torch.device("meta"):  # the weights come from the file; drawing them first would only cost time
        network = model.from_recipe(recipe, len(config["classes"]))
    network.to_empty(device="cpu")
    weights.load_into(network, run.weights)
    network.eval().requires_grad_(False).to(device)
    transform = EvalTransform(recipe.resize, recipe.image_size, tuple(config["mean"]), tuple(config["std"]))
    return Classifier(run, tuple(config["classes"]), transform, recipe.mirror, network, torch.device(device))
