"""A run's classifier as one ONNX graph: a photo of any size in, probabilities out, and nothing to be done before or after.

The graph scales as Pillow does, by the same whole numbers, so that it shows the network the very pixels that the app
does. The matrices that do it are computed in the graph, from the height and the width of the photo that comes in.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import familiarity, weights
from alexnet.augment import EvalTransform
from alexnet.model import AlexNet
from alexnet.predict import Classifier, class_logits, load_classifier
from alexnet.runs import Run

EXAMPLE = (90, 120, 3)  # height, width and colours of the photo by which the graph is traced; the graph is for any
PRECISION = 22  # bits behind the point of Pillow's filter weights


def write(run: Run, file: Path) -> None:
    """Write the classifier of `run` as ONNX, with all that its answers depend on.

    The input `photo` is `(height, width, 3)` uint8, upright RGB. The outputs are `probabilities`, `(classes,)` float32,
    and `familiarity`, float32 without dimensions, where the run has been taught that. The file's metadata hold the run's
    name as `run`, a list of names as `classes`, and as `abstain` the familiarity below which the photo is of none of them.

    Raises:
        RunError, WeightsError: as `load_classifier`.
        OSError: the file cannot be written.
    """
    classifier = load_classifier(run)
    names = ["probabilities", *(["familiarity"] if classifier.familiarity else [])]
    program = _export(Portable(classifier, weights.read_factors(run.weights)).eval(), names)
    about = {"run": run.id, "classes": classifier.classes, "abstain": familiarity.ABSTAIN}
    program.model.metadata_props.update({name: json.dumps(value) for name, value in about.items()})
    program.save(file)


def _export(network: nn.Module, outputs: list[str]) -> torch.onnx.ONNXProgram:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
        program = torch.onnx.export(
            network,
            (torch.zeros(EXAMPLE, dtype=torch.uint8),),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: "height", 1: "width"},),
            input_names=["photo"],
            output_names=outputs,
        )
    assert program is not None  # it is None where a file is written at once
    return program


def resampling(start: Tensor, length: Tensor, source: int, target: int) -> Tensor:
    """The matrix `(target, source)` float64 by which Pillow's `resize(..., BILINEAR, box=...)` scales 8-bit pixels.

    Its entries are whole: weights in units of 2^-22, rounded as in `precompute_coeffs` and `normalize_coeffs_8bpc` of
    Pillow's Resample.c. `start` and `length`, in pixels, are tensors without dimensions.
    """
    start, end = start.float(), (start + length).float()  # Pillow keeps boxes so
    start, scale = start.double(), (end - start).double() / target
    support = scale.clamp(min=1)
    centres = (start + (torch.arange(target, dtype=torch.float64) + 0.5) * scale)[:, None]
    places = torch.arange(source, dtype=torch.float64)
    first, last = (centres - support + 0.5).clamp(min=0).floor(), (centres + support + 0.5).floor()
    inside = (places >= first) & (places < last)
    weight = (1 - ((places - centres + 0.5) / support).abs()).clamp(min=0) * inside
    return (weight / weight.sum(dim=1, keepdim=True) * 2**PRECISION + 0.5).floor()


def crop_photo(photo: Tensor, transform: EvalTransform) -> Tensor:
    """What `transform.crop_photo` makes of a photo: `(height, width, 3)` uint8 to `(1, 3, side, side)`, 0 to 255."""
    (height, width), side = photo.shape[:2], transform.side
    sides = torch.stack([torch.scalar_tensor(length, dtype=torch.float64) for length in (height, width)])
    lengths = (sides if transform.squash else sides.min().expand(2)) * side / transform.resize
    starts = (sides - lengths) / 2
    rows, columns = (resampling(starts[k], lengths[k], source, side) for k, source in enumerate((height, width)))
    is_tall = sides[0] - side > 2 * (sides[1] - side).clamp(min=0)  # Pillow then begins with the rows, since 13.0
    return torch.cond(is_tall, _down_first, _across_first, (photo, rows, columns.T))[None]


def _down_first(photo: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    # A colour at a time, the photo takes little memory in float64.
    return torch.stack([_scaled(_scaled(rows, photo[:, :, k].double()), columns) for k in range(3)])


def _across_first(photo: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return torch.stack([_scaled(rows, _scaled(photo[:, :, k].double(), columns)) for k in range(3)])


def _scaled(left: Tensor, right: Tensor) -> Tensor:
    """The product of weights and levels, exact in float64, rounded to whole levels of 0 to 255."""
    return (torch.matmul(left, right) / 2**PRECISION + 0.5).floor().clamp(0, 255)


class Factored(nn.Module):
    """A fully connected layer whose matrix is the product of two thin ones, as compressed weights keep it."""

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.left, self.right, self.bias = (nn.Parameter(tensor, requires_grad=False) for tensor in (left, right, bias))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, inputs)` to `(N, outputs)`."""
        return F.linear(F.linear(x, self.right), self.left, self.bias)


class Portable(nn.Module):
    """All that `classifier` does to a photo, `(height, width, 3)` uint8, as one module.

    It gives the probabilities `(classes,)`, and the familiarity, without dimensions, where the run has been taught that.
    Takes the network of `classifier` for itself and changes its layers into others that compute the same.
    """

    def __init__(self, classifier: Classifier, factors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.network, self.transform, self.mirror = classifier.model, classifier.transform, classifier.mirror
        self.temperature, self.familiarity = classifier.temperature, classifier.familiarity
        for name, (left, right) in factors.items():
            layer = self.network.get_submodule(name)
            self.network.set_submodule(name, Factored(left, right, cast(Tensor, layer.bias)))

    def forward(self, photo: Tensor) -> tuple[Tensor, ...]:
        """As the class says."""
        views = self.transform.views(self.transform.normalize(crop_photo(photo, self.transform)))
        x = torch.cat([*views, *(view.flip(3) for view in views)] if self.mirror else views)
        if self.familiarity is None:
            return (self._probabilities(self.network(x)),)
        network = cast(AlexNet, self.network)  # no other has been taught it
        descriptors, output = familiarity.describe(network, familiarity.pooled(network, x))
        score = self.familiarity.score(descriptors).mean()
        return self._probabilities(output), _share(self.familiarity.reference, score)

    def _probabilities(self, output: Tensor) -> Tensor:
        return (class_logits(output).mean(dim=0) / self.temperature).softmax(dim=0)


def _share(reference: Tensor, score: Tensor) -> Tensor:
    """As `Familiarity.share`; a comparison with each score of validation photos is cheap and every runtime has it."""
    return (1 + (reference < score).sum()) / (1 + len(reference))
