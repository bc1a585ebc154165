"""AlexNet (Krizhevsky, Sutskever and Hinton 2012, section 3), the settings that later work gave it, and its baseline.

The networks are safe to explain: every ReLU is a module of its own and none works in place, so that hooks see each
activation once and unchanged.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.recipes import (
    CONVOLUTIONS,
    FIRST_STRIDE,
    POOLED,
    Recipe,
    dropout_of_layers,
    hidden_names,
    whole_numbers,
)

Normalization = Literal["batch", "local_response", "none"]
NormPlace = Literal["after_relu", "before_relu", "after_pool"]
Initialization = Literal["pytorch", "paper"]
Activation = Literal["relu", "sigmoid", "tanh"]

NORMALIZED_BY_LOCAL_RESPONSE = (1, 2)  # section 3.5 applies it to the first two convolutions only
GROUPED = (2, 4, 5)  # the convolutions that see their own tower only; conv3 sees both (section 3.2)
BIASED = ("conv2", "conv4", "conv5")  # whose units start with positive inputs, as the hidden layers' (section 5)
ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


@dataclass(frozen=True)
class Geometry:
    """The sizes of an AlexNet's layers; by default those of 2012 (section 3.5). A number for each of five convolutions."""

    maps: tuple[int, ...] = (96, 256, 384, 384, 256)
    kernels: tuple[int, ...] = (11, 5, 3, 3, 3)  # sides, in pixels
    paddings: tuple[int, ...] = (0, 2, 1, 1, 1)
    pool: int = 3  # side of the windows, two apart; those of 3 overlap, which resists overfitting (section 3.4)
    avgpool: int = 6  # side of the maps that enter the fully connected layers
    hidden: tuple[int, ...] = (4096, 4096)  # units of the fully connected layers before the last


class AlexNet(nn.Module):
    """Five convolutions (96-256-384-384-256) and three fully connected layers (4096-4096-classes), or as `geometry` says.

    The fully connected layers are fc6, fc7 and so on; the last one, fc8 where two are hidden, puts out the logits.

    Args:
        num_classes: outputs; 1 makes a network with one logit for binary cross-entropy.
        normalization: `batch` after every convolution, `local_response` after the first two (section 3.3), or `none`.
        norm_place: on the ReLU's output, as in the paper, on its input, or after the pooling where there is one.
        groups: 2 splits conv2, conv4, conv5 and local response normalisation as the paper's two GPUs did (section 3.2).
        dropout: probability with which a unit is silenced in training: that of all hidden fully connected layers
            (section 4.2), or that of each layer which a mapping such as `{"conv5": 0.1, "fc6": 0.5}` names. A
            convolution's comes last, after its pooling.
        geometry: the sizes of the layers.
        initialization: PyTorch's, or that of the paper (section 5): weights from a Gaussian of standard deviation 0.01,
            biases 1 in conv2, conv4, conv5 and the hidden fully connected layers, and 0 in the others.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        normalization: Normalization = "batch",
        norm_place: NormPlace = "after_relu",
        groups: int = 1,
        dropout: float | Mapping[str, float] = 0.5,
        geometry: Geometry = Geometry(),
        initialization: Initialization = "pytorch",
    ) -> None:
        super().__init__()
        hidden = hidden_names(len(geometry.hidden))
        shares = dropout if isinstance(dropout, Mapping) else dict.fromkeys(hidden, dropout)
        convolutions: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 3
        for number, name in enumerate(CONVOLUTIONS, 1):
            conv = nn.Conv2d(
                inputs,
                geometry.maps[number - 1],
                geometry.kernels[number - 1],
                stride=FIRST_STRIDE if number == 1 else 1,
                padding=geometry.paddings[number - 1],
                groups=groups if number in GROUPED else 1,
            )
            inputs = conv.out_channels
            relu = {f"relu{number}": nn.ReLU()}
            norm = _normalization(number, normalization, inputs, groups)
            pool = {f"pool{number}": nn.MaxPool2d(geometry.pool, stride=2)} if number in POOLED else {}
            orders = {
                "before_relu": norm | relu | pool,
                "after_relu": relu | norm | pool,
                "after_pool": relu | pool | norm,
            }
            convolutions |= {name: conv} | orders[norm_place]
            if share := shares.get(name):
                convolutions[f"drop{number}"] = nn.Dropout(share)
        self.features = nn.Sequential(convolutions)
        # The identity where the last maps have this side, as at 227 px; lets other image sizes through.
        self.avgpool = nn.AdaptiveAvgPool2d((geometry.avgpool, geometry.avgpool))
        self.classifier = _fully_connected(
            inputs * geometry.avgpool**2,
            geometry.hidden,
            num_classes,
            first=6,
            activation=("relu", nn.ReLU),
            dropout=[shares.get(name, 0.0) for name in hidden],
        )
        if initialization == "paper":
            _initialize_as_in_2012(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(N, num_classes)` of normalised photos `(N, 3, H, W)`, H and W 227 by default, at least 67."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """Name and layer, in the order in which a photo goes through them."""
        yield from self.features.named_children()
        yield "avgpool", self.avgpool
        yield "flatten", nn.Flatten()
        yield from self.classifier.named_children()


class MLP(nn.Module):
    """The baseline without convolutions: fully connected layers on the pixels (a multilayer perceptron).

    Its layers are fc1, act1, drop1, fc2 and so on; the last one puts out the logits.

    Args:
        num_classes: outputs.
        image_size: side in pixels of the only photos that it takes.
        hidden: units of each layer before the last.
        activation: what bends the sums of the hidden layers.
        dropout: probability with which a hidden unit is silenced in training.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        hidden: tuple[int, ...] = (128, 128, 128),
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features = nn.Flatten()
        self.classifier = _fully_connected(
            3 * image_size**2,
            hidden,
            num_classes,
            first=1,
            activation=("act", ACTIVATIONS[activation]),
            dropout=[dropout] * len(hidden),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(N, num_classes)` of normalised photos `(N, 3, image_size, image_size)`."""
        return self.classifier(self.features(x))

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """Name and layer, in the order in which a photo goes through them."""
        yield "flatten", self.features
        yield from self.classifier.named_children()


class LocalResponseNorm(nn.Module):
    """Local response normalisation with the paper's constants (section 3.3): x / (2 + 1e-4 s)^0.75, where s is the sum of
    squares over the five maps around that of x.

    A map's neighbours are those of its own group: on the paper's two GPUs no other were at hand, since these exchange
    maps before conv3 and the fully connected layers only (section 3.2).
    """

    K, SIZE, ALPHA = 2.0, 5, 1e-4

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` to the same shape and type; computed in float32. C is a multiple of the groups."""
        wide = x.float()
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            # A 1x1 convolution adds up maps far faster than the 3-d average pooling of nn.LocalResponseNorm.
            sums = F.conv2d(wide.square(), self._window(wide), groups=self.groups)
        root = (self.K + self.ALPHA * sums).rsqrt()
        return (wide * root * root.sqrt()).to(x.dtype)  # beta is 1/2 + 1/4

    def _window(self, x: Tensor) -> Tensor:
        """The kernel `(C, C / groups, 1, 1)` that adds up each map and its neighbours."""
        index = torch.arange(x.shape[1] // self.groups, device=x.device)
        near = (index[:, None] - index).abs() <= self.SIZE // 2
        return near.to(x.dtype).repeat(self.groups, 1)[:, :, None, None]

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        return f"groups={self.groups}"


def _normalization(number: int, kind: Normalization, channels: int, groups: int) -> dict[str, nn.Module]:
    """The normalisation layer that belongs to the convolution of this number, if it has one."""
    if kind == "batch":
        return {f"norm{number}": nn.BatchNorm2d(channels)}
    if kind == "local_response" and number in NORMALIZED_BY_LOCAL_RESPONSE:
        return {f"norm{number}": LocalResponseNorm(groups)}
    return {}


def _fully_connected(
    inputs: int,
    hidden: tuple[int, ...],
    outputs: int,
    *,
    first: int,
    activation: tuple[str, type[nn.Module]],
    dropout: list[float],
) -> nn.Sequential:
    """Hidden layers, each followed by its activation and dropout, and the output layer; their numbers begin at `first`."""
    kind, activate = activation
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (units, share) in enumerate(zip(hidden, dropout, strict=True), first):
        layers[f"fc{number}"] = nn.Linear(inputs, units)
        layers[f"{kind}{number}"] = activate()
        layers[f"drop{number}"] = nn.Dropout(share)
        inputs = units
    layers[f"fc{first + len(hidden)}"] = nn.Linear(inputs, outputs)
    return nn.Sequential(layers)


@torch.no_grad()
def _initialize_as_in_2012(network: AlexNet) -> None:
    """Section 5: biases of 1 give the ReLUs positive inputs, which speeds up the start."""
    for name, layer in network.layers():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            is_hidden = isinstance(layer, nn.Linear) and layer is not network.classifier[-1]
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 1.0 if is_hidden or name in BIASED else 0.0)


def output_name(network: AlexNet | MLP) -> str:
    """The name, as in the state dict, of the layer that puts out the logits: `classifier.fc8` of the network of 2012."""
    *_, (name, _) = network.classifier.named_children()
    return f"classifier.{name}"


def from_recipe(recipe: Recipe, num_classes: int) -> AlexNet | MLP:
    """The network that `recipe` asks for, freshly initialised, for `num_classes` classes."""
    hidden = whole_numbers(recipe, "hidden")
    if recipe.network == "mlp":
        activation: Any = recipe.activation  # among the choices, as a Recipe checks
        return MLP(num_classes, recipe.image_size, hidden, activation, recipe.dropout)
    return AlexNet(
        num_classes=1 if recipe.single_logit else num_classes,
        normalization=recipe.normalization,  # type: ignore[arg-type]  # a Recipe's are among them
        norm_place=recipe.norm_place,  # type: ignore[arg-type]  # a Recipe's are among them
        groups=recipe.groups,
        dropout=dropout_of_layers(recipe.dropout, recipe.dropout_by_layer, len(hidden)),
        geometry=Geometry(
            maps=whole_numbers(recipe, "maps"),
            kernels=whole_numbers(recipe, "kernels"),
            paddings=whole_numbers(recipe, "paddings"),
            pool=recipe.pool,
            avgpool=recipe.avgpool,
            hidden=hidden,
        ),
        initialization=recipe.initialization,  # type: ignore[arg-type]  # a Recipe's are among them
    )


@dataclass(frozen=True)
class Layer:
    """One row of the layer table: the shape excludes the batch, `parameters` counts weights and biases."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@torch.inference_mode()
def layer_table(model: AlexNet | MLP, image_size: int = 227) -> list[Layer]:
    """The layers in order with the shape of what each puts out for one photo of `image_size` px, and what it costs.

    Networks without values, on the device `meta`, will do.
    """
    was_training = model.training
    model.eval()  # batch norm must not learn from the zeros that measure it
    x, rows = torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device), []
    for name, layer in model.layers():
        x = layer(x)
        shape, parameters = tuple(x.shape[1:]), sum(p.numel() for p in layer.parameters())
        rows.append(Layer(name, type(layer).__name__, shape, parameters, multiply_adds(layer, shape)))
    model.train(was_training)
    return rows


def multiply_adds(layer: nn.Module, shape: Sequence[int]) -> int:
    """Multiplications, each with its addition, by which `layer` makes its output of `shape` (without the batch).

    As the field counts them: those of convolutions and fully connected layers; biases, normalisation, pooling and ReLUs
    are left out.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        places = math.prod(shape[1:])  # 1 for a fully connected layer
        return places * layer.weight.numel()
    return 0
