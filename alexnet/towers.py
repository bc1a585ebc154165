"""The two towers of 2012, each on a device of its own (Krizhevsky, Sutskever and Hinton 2012, sections 3.2 and 3.5).

Each device has half of the maps and units of every layer. What it lacks it gets before conv3 and before the fully
connected layers; conv2, conv4, conv5, normalisation, pooling and dropout make do with what is there.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.model import AlexNet, LocalResponseNorm

Device = torch.device | str


class TwoTowers(nn.Module):
    """An `AlexNet` with two groups on two devices: the same function, the same gradients, the same state dict.

    `lay_over` makes one. `features` and `classifier` hold the layers of both towers, and the output layer is in the
    first. A state dict is that of the network on one device, whole tensors on the first device, and either network loads
    the other's; unlike there, its tensors are copies. An optimizer's state is not interchangeable, since it knows the
    halves.
    """

    def __init__(self, features: TwinSequential, avgpool: nn.Module, classifier: TwinSequential) -> None:
        super().__init__()
        self.features = features
        self.avgpool = avgpool
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(N, num_classes)` on the first device, of normalised photos `(N, 3, H, W)` on any device."""
        maps = self.features([x.to(next(tower.parameters()).device) for tower in self.features])
        (logits,) = self.classifier([torch.flatten(self.avgpool(half), 1) for half in maps])
        return logits


class TwinSequential(nn.ModuleList):
    """Two `nn.Sequential` that run in step, each where its parameters are, and whose state dict is that of one.

    Layers of one name are the halves of one layer. The second may lack the last ones.
    """

    def __init__(self, towers: Sequence[nn.Sequential]) -> None:
        super().__init__(towers)
        # Hooks, unlike an overridden `load_state_dict`, are also called when a network around this one is loaded.
        self.register_state_dict_post_hook(_merge)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_split)  # type: ignore[no-untyped-call]

    def forward(self, halves: list[Tensor]) -> list[Tensor]:
        """What each tower puts out for its half `(N, C / 2, ...)` of the input, which is on its device."""
        towers = [dict(tower.named_children()) for tower in self]
        for name in towers[0]:
            layers = [tower[name] for tower in towers if name in tower]
            if name == "conv3" or isinstance(layers[0], nn.Linear):  # they see what both towers put out
                halves = _exchange(halves, len(layers))
            halves = [layer(half) for layer, half in zip(layers, halves, strict=True)]
        return halves


def _exchange(halves: list[Tensor], towers: int) -> list[Tensor]:
    """The whole input `(N, C, ...)` for each of the first `towers` towers, on its device."""
    return [torch.cat([other.to(half.device) for other in halves], dim=1) for half in halves[:towers]]


def _merge(module: TwinSequential, state: dict[str, Any], prefix: str, _metadata: dict[str, Any]) -> None:
    """Turns the towers' entries of a state dict into those of the one block that they are halves of."""
    first, second = (
        {name.removeprefix(tower): state.pop(name) for name in list(state) if name.startswith(tower)}
        for tower in (f"{prefix}0.", f"{prefix}1.")
    )
    for name, half in first.items():
        # Counters, which have no dimension, are alike in both towers.
        whole = name not in second or half.ndim == 0
        state[prefix + name] = half if whole else torch.cat([half, second[name].to(half.device)])


def _split(module: TwinSequential, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The inverse of `_merge`; what is missing or of another shape is left to the towers to tell."""
    towers = [tower.state_dict().keys() for tower in module]
    for name in towers[0]:
        if prefix + name in state:
            whole = state.pop(prefix + name)
            owners = [index for index, names in enumerate(towers) if name in names]
            halves = whole.chunk(len(owners)) if whole.ndim else [whole] * len(owners)
            state.update({f"{prefix}{i}.{name}": half for i, half in zip(owners, halves, strict=False)})


def lay_over(network: AlexNet, devices: tuple[Device, Device]) -> TwoTowers:
    """A copy of `network` with its first tower on the first device and its second on the second.

    The devices may be one and the same. Layers that are frozen stay so.

    Raises:
        ValueError: the network has no towers.
    """
    if network.features.get_submodule("conv2").groups != 2:
        raise ValueError("Only a network with two towers can be laid over two devices; make it with groups=2.")
    output: Any = network.classifier[-1]
    features, classifier = (_twins(block, output, devices) for block in (network.features, network.classifier))
    towers = TwoTowers(features, copy.deepcopy(network.avgpool), classifier)
    towers.load_state_dict(network.state_dict())
    return towers.train(network.training)


def _twins(block: nn.Sequential, output: nn.Linear, devices: tuple[Device, Device]) -> TwinSequential:
    """Both towers of `block`, not yet with its weights; the layer `output` has its place in the first, whole."""
    towers = []
    for index, device in enumerate(devices):
        with torch.device(device):
            layers = {
                name: _half(layer, whole=layer is output)
                for name, layer in block.named_children()
                if layer is not output or index == 0
            }
        towers.append(nn.Sequential(OrderedDict(layers)))
    return TwinSequential(towers)


def _half(layer: nn.Module, *, whole: bool) -> nn.Module:
    """The layer of one tower, where `layer` is that of the network; a fully connected one may stay `whole`."""
    if isinstance(layer, nn.Conv2d):
        shape = layer.in_channels // layer.groups, layer.out_channels // 2
        window: Any = layer.kernel_size, layer.stride, layer.padding
        half: nn.Module = nn.Conv2d(*shape, *window)
    elif isinstance(layer, nn.Linear):
        half = nn.Linear(layer.in_features, layer.out_features // (1 if whole else 2))
    elif isinstance(layer, nn.BatchNorm2d):
        half = nn.BatchNorm2d(layer.num_features // 2, layer.eps, layer.momentum)
    elif isinstance(layer, LocalResponseNorm):
        half = LocalResponseNorm(layer.groups // 2)
    else:
        half = copy.deepcopy(layer)  # has neither weights nor neighbours
    return half.requires_grad_(all(p.requires_grad for p in layer.parameters()))
