"""From photos to labels and probabilities, with the transform that the run was evaluated with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from alexnet import calibration, familiarity, model, weights
from alexnet.augment import EvalTransform
from alexnet.fairlock import FairLock
from alexnet.familiarity import ABSTAIN, Familiarity
from alexnet.runs import Run


def class_logits(output: Tensor) -> Tensor:
    """One logit per class, `(N, classes)`: a network's single logit z becomes (-z/2, z/2), whose softmax is sigmoid(z)."""
    return torch.cat([-output / 2, output / 2], dim=1) if output.shape[1] == 1 else output


def averaged_logits(network: Callable[[Tensor], Tensor], views: Sequence[Tensor], mirror: bool) -> Tensor:
    """Logits `(N, classes)` averaged over normalised views of the same photos, and their mirror images if `mirror`.

    Five views and their mirror images are the ten crops of Krizhevsky et al. 2012, section 4.1. The paper averages after
    the softmax; before it the answer is the mean of the single answers at any temperature, and of two views as of ten.
    """
    shown = (x for view in views for x in ((view, view.flip(3)) if mirror else (view,)))
    return torch.stack([class_logits(network(x)) for x in shown]).mean(dim=0)


@dataclass(frozen=True)
class Prediction:
    """What the network says of one photo.

    `familiarity` is the share, 0 to 1, of real validation photos that look less familiar than this one, or None where the
    run was not taught that. Below `familiarity.ABSTAIN` the photo looks like none of the classes, and `label` is None.
    """

    label: str | None
    best: str  # the class with the highest probability, whatever the photo shows
    probabilities: dict[str, float]  # by class name; they sum to 1
    seconds: float  # from the open photo to the probabilities, its share of the batch
    input: Image.Image  # the crop that the network was given; of several, the centre
    familiarity: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """What programs are told: label, familiarity and probabilities, as JSON has them."""
        return {name: getattr(self, name) for name in ("label", "familiarity", "probabilities")}


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
    temperature: float = 1.0  # divides the logits, after those of all views were averaged
    familiarity: Familiarity | None = None
    lock: FairLock = field(default_factory=FairLock)

    def __call__(self, photos: Sequence[Image.Image]) -> list[Prediction]:
        """Classify upright RGB photos of any size."""
        if not photos:
            return []
        started = time.perf_counter()
        squares = [self.transform.crop_photo(photo) for photo in photos]
        logits, scores = self.examine(self.transform.stack(squares))
        rows = logits.softmax(dim=1).tolist()
        head = self.familiarity
        shares = head.share(scores).tolist() if head and scores is not None else [None] * len(rows)
        seconds = (time.perf_counter() - started) / len(photos)
        inputs = [self.transform.centre(square) for square in squares]
        return [self._predict(*each, seconds) for each in zip(rows, shares, inputs, strict=True)]

    def _predict(self, row: list[float], share: float | None, crop: Image.Image, seconds: float) -> Prediction:
        best = self.classes[row.index(max(row))]
        label = None if share is not None and share < ABSTAIN else best
        return Prediction(label, best, dict(zip(self.classes, row, strict=True)), seconds, crop, share)

    def answer(self, images: Tensor) -> Tensor:
        """The logits `(N, classes)` that predictions and metrics rest on, on the CPU.

        Of what `transform.crop_photo` makes of photos, `(N, 3, S, S)` uint8; all views of it count alike.
        """
        return self.examine(images)[0]

    def examine(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits as `answer` gives them, and the scores `(N,)` of `Familiarity.score`, averaged in the same way."""
        scores: list[Tensor] = []

        def look(x: Tensor) -> Tensor:
            if self.familiarity is None:
                return self.model(x)
            network: Any = self.model  # where there is a head, one of those that it was made for
            descriptors, output = familiarity.describe(network, familiarity.pooled(network, x))
            scores.append(self.familiarity.score(descriptors))
            return output

        with self.lock, torch.inference_mode():
            views = self.transform.views(self.transform.normalize(images.to(self.device)))
            logits = averaged_logits(look, views, self.mirror).float().cpu() / self.temperature
            return logits, torch.stack(scores).mean(0).cpu() if scores else None

    def looking_once(self) -> Classifier:
        """The same network, which looks at the centre of a photo only, and at its mirror image if it did before."""
        return replace(self, transform=replace(self.transform, five_crops=False))

    def scaling_to(self, resize: int) -> Classifier:
        """The same network, which scales the shorter side of a photo to `resize` px before it cuts out the centre.

        Networks that were trained on random crops know animals larger than a centre crop of the usual scale shows them
        (Touvron et al. 2019, section 3).

        Raises:
            RecipeError: `resize` is out of range or smaller than what is cut out.
        """
        recipe = self.run.recipe.replace(resize=resize)
        return replace(self, transform=replace(self.transform, resize=recipe.resize))

    def prepare(self, photos: Sequence[Image.Image]) -> Tensor:
        """The centres of upright RGB photos as the network computes with them: `(N, 3, S, S)` float32, normalised."""
        return self.transform.normalize(self.transform.batch(photos).to(self.device))

    def logits(self, x: Tensor) -> Tensor:
        """One logit per class, `(N, classes)`, of prepared photos; differentiable, one view only."""
        return class_logits(self.model(x))


def load_classifier(run: Run, device: str | torch.device = "cpu") -> Classifier:
    """The classifier of a run that has weights.

    Raises:
        RunError: its `run.json`, `calibration.json` or `familiarity.safetensors` cannot be read.
        WeightsError: it has no weights, or not those of its network.
    """
    recipe, config = run.recipe, run.config
    with torch.device("meta"):  # the weights come from the file; drawing them first would only cost time
        network = model.from_recipe(recipe, len(config["classes"]))
    weights.check(network, run.weights)  # before memory is taken for a network that anybody may have described
    network.to_empty(device="cpu")
    weights.load_into(network, run.weights)
    network.eval().requires_grad_(False).to(device)
    colours: dict[str, Any] = {name: tuple(config[name]) for name in ("mean", "std")}
    transform = replace(EvalTransform.from_recipe(recipe), **colours)
    classes, temperature = tuple(config["classes"]), calibration.read(run.path).temperature
    head, place = familiarity.load(run.path, familiarity.width(network)), torch.device(device)
    head = head and head.to(place)
    return Classifier(run, classes, transform, recipe.mirror, network, place, temperature, head)
