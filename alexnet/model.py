"""AlexNet (Krizhevsky, Sutskever and Hinton 2012, section 3) and the settings that later work gave it.

The network is safe to explain: every ReLU is a module of its own and none works in place, so that hooks see each
activation once and unchanged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from alexnet.recipes import Recipe, dropout_of_layers

Normalization = Literal["batch", "local_response", "none"]
NormPlace = Literal["after_relu", "before_relu"]

NORMALIZED_BY_LOCAL_RESPONSE = ("conv1", "conv2")  # section 3.5 applies it to the first two convolutions only


class AlexNet(nn.Module):
    """Five convolutions (96-256-384-384-256) and three fully connected layers (4096-4096-classes).

    Args:
        num_classes: outputs; 1 makes a network with one logit for binary cross-entropy.
        normalization: `batch` after every convolution, `local_response` after the first two (section 3.3), or `none`.
        norm_place: on the ReLU's output, as in the paper, or on its input.
        groups: 2 splits conv2, conv4, conv5 and local response normalisation as the paper's two GPUs did (section 3.2).
        dropout: probability with which a unit is silenced in training: that of fc6 and fc7 (section 4.2), or that of
            each layer which a mapping such as `{"conv5": 0.1, "fc6": 0.5}` names. A convolution's comes last, after
            its pooling.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        normalization: Normalization = "batch",
        norm_place: NormPlace = "after_relu",
        groups: int = 1,
        dropout: float | Mapping[str, float] = 0.5,
    ) -> None:
        super().__init__()
        shares = dropout if isinstance(dropout, Mapping) else {"fc6": dropout, "fc7": dropout}
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def convolution(name: str, conv: nn.Conv2d, pool: bool = False) -> None:
            norm = _normalization(name, normalization, conv.out_channels, groups)
            relu = {name.replace("conv", "relu"): nn.ReLU()}
            layers[name] = conv
            layers.update(relu | norm if norm_place == "after_relu" else norm | relu)
            if pool:
                # 3x3 windows two apart overlap, which section 3.4 found to resist overfitting.
                layers[name.replace("conv", "pool")] = nn.MaxPool2d(kernel_size=3, stride=2)
            if share := shares.get(name):
                layers[name.replace("conv", "drop")] = nn.Dropout(share)

        convolution("conv1", nn.Conv2d(3, 96, kernel_size=11, stride=4), pool=True)
        convolution("conv2", nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=groups), pool=True)
        convolution("conv3", nn.Conv2d(256, 384, kernel_size=3, padding=1))  # sees both towers, hence no groups
        convolution("conv4", nn.Conv2d(384, 384, kernel_size=3, padding=1, groups=groups))
        convolution("conv5", nn.Conv2d(384, 256, kernel_size=3, padding=1, groups=groups), pool=True)
        self.features = nn.Sequential(layers)
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))  # the identity at 227 px; lets other image sizes through
        self.classifier = nn.Sequential(
            OrderedDict(
                fc6=nn.Linear(256 * 6 * 6, 4096),
                relu6=nn.ReLU(),
                drop6=nn.Dropout(shares.get("fc6", 0.0)),
                fc7=nn.Linear(4096, 4096),
                relu7=nn.ReLU(),
                drop7=nn.Dropout(shares.get("fc7", 0.0)),
                fc8=nn.Linear(4096, num_classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(N, num_classes)` of normalised photos `(N, 3, H, W)`, H and W 227 by default, at least 67."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class GroupedLocalResponseNorm(nn.LocalResponseNorm):
    """Local response normalisation in which a map's neighbours are those of its own group (section 3.3).

    On the paper's two GPUs no other were at hand: they exchange maps before conv3 and the fully connected layers only
    (section 3.2).
    """

    def __init__(self, groups: int, size: int, alpha: float, beta: float, k: float) -> None:
        super().__init__(size, alpha, beta, k)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` to the same shape; C is a multiple of the groups."""
        groups = x.unflatten(1, (self.groups, -1)).flatten(0, 1)
        return super().forward(groups).reshape(x.shape)


def _normalization(conv: str, kind: Normalization, channels: int, groups: int) -> dict[str, nn.Module]:
    """The normalisation layer that belongs to the convolution named `conv`, if it has one."""
    name = conv.replace("conv", "norm")
    if kind == "batch":
        return {name: nn.BatchNorm2d(channels)}
    if kind == "local_response" and conv in NORMALIZED_BY_LOCAL_RESPONSE:
        # Section 3.3: k 2, n 5, alpha 1e-4. PyTorch divides alpha by n, the paper does not.
        paper = {"size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0}
        return {name: nn.LocalResponseNorm(**paper) if groups == 1 else GroupedLocalResponseNorm(groups, **paper)}
    return {}


def from_recipe(recipe: Recipe, num_classes: int) -> AlexNet:
    """The network that `recipe` asks for, freshly initialised, for `num_classes` classes."""
    return AlexNet(
        num_classes=1 if recipe.single_logit else num_classes,
        normalization=recipe.normalization,
        norm_place=recipe.norm_place,
        groups=recipe.groups,
        dropout=dropout_of_layers(recipe.dropout, recipe.dropout_by_layer),
    )


@dataclass(frozen=True)
class Layer:
    """One row of the layer table: the shape excludes the batch, `parameters` counts weights and biases."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


def layer_table(model: AlexNet, image_size: int = 227) -> list[Layer]:
    """The layers in order with the shape of what each puts out for one photo of `image_size` px."""
    return list(_walk(model, torch.zeros(1, 3, image_size, image_size)))


@torch.inference_mode()
def _walk(model: AlexNet, x: Tensor) -> Iterator[Layer]:
    was_training = model.training
    model.eval()  # batch norm must not learn from the zeros that measure it
    middle = nn.Sequential(OrderedDict(avgpool=model.avgpool, flatten=nn.Flatten()))
    for block in (model.features, middle, model.classifier):
        for name, layer in block.named_children():
            x = layer(x)
            count = sum(p.numel() for p in layer.parameters())
            yield Layer(name, type(layer).__name__, tuple(x.shape[1:]), count)
    model.train(was_training)
