"""Plain PyTorch in and out: weights that other code saved become a run, and other code's networks are tested here.

Names differ between projects, so tensors are matched by the layers that they make up, in order, and by their shapes.
What these do not settle is refused, never guessed.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alexnet import imagenet, model, public, runs, weights
from alexnet.recipes import RECIPES, Recipe
from alexnet.runs import Run, Status
from alexnet.statefile import InterchangeError, is_unordered, natural, read_state
from alexnet.weights import WeightsError

COUNTER = "num_batches_tracked"
ROLES = ("weight", "bias", "running_mean", "running_var", COUNTER)

TORCHVISION = Recipe(
    name="torchvision",
    title="torchvision's AlexNet",
    source="torchvision.models.alexnet, after Krizhevsky 2014 (arXiv 1404.5997).",
    maps="64 192 384 256 256",
    paddings="2 2 1 1 1",
    normalization="none",
    dropout=0.5,
    image_size=224,
    mirror=False,
)
VARIANTS = {**RECIPES, TORCHVISION.name: TORCHVISION}


# ------------------------------------------------------------------------------------------------------------ matching


@dataclass(frozen=True)
class _Layer:
    """The tensors of one layer by their roles, of which `weight` is always there."""

    name: str
    tensors: dict[str, Tensor]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensors["weight"].shape)

    @property
    def kind(self) -> int:
        """4 for a convolution, 2 for a fully connected layer, 1 for batch norm."""
        return len(self.shape)


def _layers(state: Mapping[str, Tensor]) -> list[_Layer]:
    """The layers that the tensors of `state` make up, in order.

    Raises:
        InterchangeError: a tensor does not say what it is, or belongs to a kind of layer that AlexNet does not have.
    """
    members: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer, _, role = name.rpartition(".")
        if role not in ROLES:
            raise InterchangeError(f"{name} is no weight, bias or statistic of a layer that AlexNet has; leave it out.")
        members.setdefault(layer, {})[role] = tensor
    for name, tensors in members.items():
        dimensions = tensors["weight"].ndim if "weight" in tensors else 0
        if dimensions not in (1, 2, 4) or (dimensions == 1) != ("running_mean" in tensors):
            raise InterchangeError(f"{name}.{next(iter(tensors))} is of a layer that AlexNet does not have.")
    return [_Layer(name, tensors) for name, tensors in members.items()]


def fit(state: Mapping[str, Tensor], recipe: Recipe, classes: int, *, ordered: bool = True) -> dict[str, Tensor]:
    """`state` under the names that the network of `recipe` for so many classes has; float32.

    Names that are the same already stand. Otherwise the convolutions, the normalisation and the fully connected layers
    are matched each in their order; where shapes tell layers apart, they may come in any order. A layer without a bias
    gets one of zeros, which computes the same.

    Args:
        state: name -> tensor, as `read_state` returns it.
        recipe: says what the network is.
        classes: how many it tells apart.
        ordered: whether `state` is in the order in which its layers were made; otherwise layers of one shape have to be
            told apart by numbers in their names.

    Raises:
        InterchangeError: it is of another network, or could be read in two ways; the text names the first tensor.
    """
    if recipe.single_logit and classes != 2:
        raise InterchangeError(f"{recipe.name} has one output, which tells two classes apart, not {classes:,}.")
    with torch.device("meta"):
        wanted = _layers(model.from_recipe(recipe, classes).state_dict())
    found = _layers(state)
    network = f"{recipe.name} with {classes:,} classes"
    if {layer.name for layer in found} == {layer.name for layer in wanted}:
        named = {layer.name: layer for layer in found}
        pairs = [(layer, named[layer.name]) for layer in wanted]
    else:
        pairs = []
        for kind in (4, 1, 2):
            needed, given = ([layer for layer in layers if layer.kind == kind] for layers in (wanted, found))
            pairs += _pair(needed, given, network, ordered)
    renamed = {}
    for ours, theirs in pairs:
        for role, blank in ours.tensors.items():
            renamed[f"{ours.name}.{role}"] = _tensor(theirs, role, blank, network)
    return renamed


def _pair(ours: Sequence[_Layer], theirs: Sequence[_Layer], network: str, ordered: bool) -> list[tuple[_Layer, _Layer]]:
    """Which of their layers, all of one kind, stands for which of ours."""
    wanted, found = [layer.shape for layer in ours], [layer.shape for layer in theirs]
    if Counter(wanted) != Counter(found):
        raise _misfit(ours, theirs, network)
    if len(set(found)) == len(found):
        by_shape = {layer.shape: layer for layer in theirs}
        return [(layer, by_shape[layer.shape]) for layer in ours]
    for alike in _of_one_shape(theirs):
        if wanted != found or not _settled(alike, ordered):
            raise InterchangeError(
                f"{alike[0].name}.weight and {alike[1].name}.weight have one shape, and their order and names do not "
                "settle which comes first in the network; save its layers in the order of their use, as .pth."
            )
    return list(zip(ours, theirs, strict=True))


def _misfit(ours: Sequence[_Layer], theirs: Sequence[_Layer], network: str) -> InterchangeError:
    """Says which of their layers is the first that has no place."""
    for wanted, found in zip(ours, theirs, strict=False):
        if wanted.shape != found.shape:
            return InterchangeError(f"{found.name}.weight is {found.shape}, and {network} needs {wanted.shape} there.")
    if len(theirs) > len(ours):
        extra = theirs[len(ours)]
        return InterchangeError(f"{extra.name}.weight, {extra.shape}, has no place in {network}.")
    missing = ours[len(theirs)]
    return InterchangeError(f"Nothing is there for {missing.name}.weight, {missing.shape}, of {network}.")


def _of_one_shape(layers: Iterable[_Layer]) -> list[list[_Layer]]:
    """The layers that share a shape, where there are several."""
    groups: dict[tuple[int, ...], list[_Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.shape, []).append(layer)
    return [alike for alike in groups.values() if len(alike) > 1]


def _settled(layers: Sequence[_Layer], ordered: bool) -> bool:
    """Whether these layers of one shape are sure to come in the order of their use."""
    names = [layer.name for layer in layers]
    if len({re.sub("[0-9]+", "#", name) for name in names}) == 1:  # then the numbers must agree
        return names == sorted(names, key=natural)
    return ordered


def _tensor(layer: _Layer, role: str, blank: Tensor, network: str) -> Tensor:
    """The tensor that has this role in `layer`, float32 unless it counts; it has the shape of `blank`."""
    name = f"{layer.name}.{role}"
    if role not in layer.tensors:
        if role not in ("bias", COUNTER):
            raise InterchangeError(f"{name} is missing, and {network} needs it; save the whole state_dict().")
        return torch.zeros(blank.shape, dtype=blank.dtype)
    tensor = layer.tensors[role]
    if tensor.shape != blank.shape:
        raise InterchangeError(f"{name} is {tuple(tensor.shape)}, and {network} needs {tuple(blank.shape)} there.")
    if tensor.is_floating_point() != blank.is_floating_point():
        raise InterchangeError(f"{name} is {_kind(tensor)}, and {network} needs {_kind(blank)} there.")
    return tensor.to(blank.dtype).contiguous()


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def recognise(state: Mapping[str, Tensor], classes: int | None = None, *, ordered: bool = True) -> Recipe:
    """The one recipe, or torchvision's variant, whose network has tensors of these shapes.

    Args:
        state: name -> tensor, also without values, on the device `meta`.
        classes: how many the network tells apart; by default as many as it has outputs.
        ordered: as for `fit`.

    Raises:
        InterchangeError: none fits, or several do.
    """
    classes = classes or max(2, outputs(state))
    fitting = []
    for recipe in VARIANTS.values():
        with contextlib.suppress(InterchangeError):
            fit(state, recipe, classes, ordered=ordered)
            fitting.append(recipe)
    if not fitting:
        raise InterchangeError("These weights fit no recipe; name the nearest with --recipe to be told what differs.")
    if len(fitting) > 1:
        names = [recipe.name for recipe in fitting]
        raise InterchangeError(
            f"These weights fit {', '.join(names[:-1])} and {names[-1]} alike; say with --recipe which they are of."
        )
    return fitting[0]


def outputs(state: Mapping[str, Tensor]) -> int:
    """How many numbers the last fully connected layer puts out.

    Raises:
        InterchangeError: there is none.
    """
    linear = [layer for layer in _layers(state) if layer.kind == 2]
    if not linear:
        raise InterchangeError("There is no fully connected layer among these weights, so they are of no AlexNet.")
    return linear[-1].shape[0]


class Imported(NamedTuple):
    """Weights as our network names them, and what that network is."""

    state: dict[str, Tensor]
    recipe: Recipe
    classes: tuple[str, ...]


def import_weights(file: Path, recipe: Recipe | None = None, classes: Sequence[str] | None = None) -> Imported:
    """The weights in `file`, for the network of `recipe`.

    Args:
        file: as for `read_state`.
        recipe: by default the one that fits alone.
        classes: in the order of the outputs, and with a single logit the class that it speaks for last; by default
            those of ImageNet, for a network with 1,000 outputs.

    Raises:
        InterchangeError: as `read_state`, `recognise` and `fit`; or the classes are not known, or a value is no number.
    """
    state, ordered = read_state(file), not is_unordered(file)
    names = _class_names(outputs(state), classes)
    recipe = recipe or recognise(state, len(names), ordered=ordered)
    renamed = fit(state, recipe, len(names), ordered=ordered)
    for name, tensor in renamed.items():
        if not tensor.isfinite().all():
            raise InterchangeError(f"{file.name} holds values that are not numbers, in what becomes {name}.")
    return Imported(renamed, recipe, names)


def _class_names(count: int, classes: Sequence[str] | None) -> tuple[str, ...]:
    if classes is None and count != len(imagenet.names()):
        known = f"{count:,} classes" if count > 1 else "two classes, the one that its output speaks for last"
        raise InterchangeError(f"The file does not tell what its network knows; give its {known}.")
    names = tuple(classes or imagenet.names().values())
    if len(set(names)) < len(names) or not all(names):
        raise InterchangeError("Two classes have the same name, or one has none; give each its own.")
    return names


def import_run(
    file: Path,
    recipe: Recipe | None = None,
    classes: Sequence[str] | None = None,
    *,
    path: Path | None = None,
    colours: Mapping[str, Sequence[float]] | None = None,
) -> Run:
    """Make a finished run of the weights in `file`, which everything treats like any other.

    Args:
        file: as for `import_weights`, and so are `recipe` and `classes`. The recipe's `image_size`, `resize` and
            `squash` have to be what the network is used to.
        path: the folder to make; by default a new one under `runs/`.
        colours: `mean` and `std` of red, green and blue in [0, 1] that the network is used to, where they are not the
            customary ones.

    Raises:
        InterchangeError: as `import_weights`.
        RunError: the folder cannot be made or holds a run already.
        WeightsError: the weights cannot be written.
    """
    public.refuse("imports of weights")
    imported = import_weights(file, recipe, classes)
    dataset = {"name": "", "fingerprint": "", "photos": 0}
    config = runs.configuration(imported.recipe, imported.classes, "", dataset)
    config |= {**(colours or {}), "imported": file.name}
    run = Run(runs.make_folder(path, imported.recipe.name, "run.json", config))
    try:
        weights.save(run.weights, imported.state)
        runs.write_status(run.path, Status(state="finished", message=f"Imported from {file.name}."))
    except (WeightsError, OSError) as error:
        (run.path / "run.json").unlink()  # half a run is none
        reason = error.strerror if isinstance(error, OSError) else "its disk is full"
        raise runs.RunError(f"{run.path} cannot be written ({reason}); choose another folder.") from None
    return run


# ------------------------------------------------------------------------------------------------------------- testing


def run_inference(
    network: nn.Module, test_loader: Iterable[Any], criterion: Callable[..., Tensor]
) -> tuple[float, float]:
    """Test a network on labelled photos, say how it did, and leave it in the mode in which it was.

    Args:
        network: gives one output a photo, for two classes, or one for each class. Photos go to where its weights are.
        test_loader: batches of photos `(N, 3, H, W)` and labels `(N,)`, such as a `torch.utils.data.DataLoader` makes.
        criterion: `nn.BCEWithLogitsLoss()`, or `nn.BCELoss()` behind a sigmoid, for one output; else
            `nn.CrossEntropyLoss()` or the like. It averages over a batch.

    Returns:
        The loss, averaged over the photos, and the accuracy, 0 to 1.

    Raises:
        InterchangeError: there is no photo.
    """
    device = next(network.parameters()).device
    modes = {module: module.training for module in network.modules()}
    loss, right, count = 0.0, 0, 0
    network.eval()
    try:
        with torch.inference_mode():
            for images, labels in test_loader:
                labels = labels.to(device).flatten()
                output = network(images.to(device))
                if output.numel() == len(labels):
                    output, labels = output.flatten(), labels.to(output.dtype)
                    predicted = output > (0.5 if isinstance(criterion, nn.BCELoss) else 0.0)
                else:
                    predicted = output.argmax(dim=1)
                loss += criterion(output, labels).item() * len(labels)
                right += (predicted == labels).sum().item()
                count += len(labels)
    finally:
        for module, training in modes.items():
            module.training = training
    if not count:
        raise InterchangeError("There is no photo to test on; check what the loader reads.")
    print(f"Test loss {loss / count:.4f}, test accuracy {right / count:.2%}, {count:,} photos")
    return loss / count, right / count
