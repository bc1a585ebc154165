"""Two towers on two devices against the network on one, and against the paper's figure 2."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet.model import AlexNet, Geometry
from alexnet.towers import TwoTowers, lay_over

CPUS = ("cpu", "cpu")
FEW_UNITS = Geometry(hidden=(32, 24))  # since these have nearly all of the paper's 60 million weights
LAYOUTS = [
    {"normalization": "batch", "norm_place": "after_relu"},
    {"normalization": "batch", "norm_place": "before_relu"},
    {"normalization": "batch", "norm_place": "after_pool"},
    {"normalization": "local_response", "norm_place": "after_relu"},
    {"normalization": "local_response", "norm_place": "before_relu"},
    {"normalization": "none"},
    {"geometry": Geometry((8, 16, 8, 4, 12), (9, 3, 3, 5, 3), (2, 0, 1, 2, 1), pool=2, avgpool=2, hidden=(16, 12, 10))},
]


def empty(**settings: object) -> AlexNet:
    """A network with two groups and no dropout; it has shapes only."""
    with torch.device("meta"):
        return AlexNet(**{"num_classes": 3, "groups": 2, "dropout": 0.0, **settings})


def network(**settings: object) -> AlexNet:
    """One with weights. What batch norm starts with and has learnt differs from map to map."""
    torch.manual_seed(0)
    model = AlexNet(**{"num_classes": 3, "groups": 2, "dropout": 0.0, "geometry": FEW_UNITS, **settings})
    for layer in model.features:
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.uniform_(0.5, 1.5)
            layer.num_batches_tracked.fill_(7)
    return model


def photos(seed: int = 1) -> Tensor:
    """Bright enough for local response normalisation to dampen."""
    return 50 * torch.randn(4, 3, 67, 67, generator=torch.Generator().manual_seed(seed))


def halves(towers: TwoTowers, name: str) -> list[nn.Parameter]:
    """Of the parameter that has this name in the network on one device."""
    block, rest = name.split(".", 1)
    parameters = dict(towers.named_parameters())
    return [parameters[half] for i in range(2) if (half := f"{block}.{i}.{rest}") in parameters]


def assert_same_state(one: nn.Module, other: nn.Module) -> None:
    mine, its = one.state_dict(), other.state_dict()
    assert list(mine) == list(its)
    assert all(mine[name].dtype == its[name].dtype and torch.equal(mine[name], its[name]) for name in mine)


# ------------------------------------------------------------------------------------------------------- the function


@pytest.mark.parametrize("settings", LAYOUTS)
def test_a_training_step_is_that_of_the_network_on_one_device(settings):
    one = network(**settings)
    two, labels = lay_over(one, CPUS), torch.tensor([0, 1, 2, 0])
    logits = one(photos()), two(photos())
    torch.testing.assert_close(logits[1], logits[0])
    for output in logits:
        F.cross_entropy(output, labels).backward()
    for name, parameter in one.named_parameters():
        gradient = torch.cat([half.grad for half in halves(two, name)])
        torch.testing.assert_close(gradient, parameter.grad, msg=lambda text, name=name: f"{name}: {text}")
    statistics = two.state_dict()
    for name, buffer in one.named_buffers():
        torch.testing.assert_close(statistics[name], buffer)


@pytest.mark.parametrize("settings", LAYOUTS)
@torch.inference_mode()
def test_evaluation_is_that_of_the_network_on_one_device(settings):
    one = network(**settings).eval()
    torch.testing.assert_close(lay_over(one, CPUS)(photos()), one(photos()))


def test_several_steps_with_momentum_and_an_average_end_in_the_same_weights():
    one = network()
    networks = (one, lay_over(one, CPUS))
    averages = [AveragedModel(n, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True) for n in networks]
    for model, average in zip(networks, averages, strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True)
        for step in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(photos(step) / 50), torch.tensor([0, 1, 2, 0])).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(model)
    for first, second in (networks, averages):
        torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=1e-4, atol=1e-5)


def test_dropout_silences_the_units_of_each_tower():
    two = lay_over(network(dropout={"conv5": 0.5, "fc6": 0.25}), CPUS)
    for features, classifier in zip(two.features, two.classifier, strict=True):
        assert (features.drop5.p, classifier.drop6.p, classifier.drop7.p) == (0.5, 0.25, 0.0)
    with torch.no_grad():
        maps = two.features([photos(), photos()])
        assert all((half == 0).float().mean() > 0.3 for half in maps)
        two.eval()
        assert torch.equal(two(photos()), two(photos()))


# -------------------------------------------------------------------------------------------------------- the layout


def test_each_device_has_the_half_that_figure_2_gives_it():
    """The shapes are those of section 3.5: 48, 128, 192, 192 and 128 maps, and 2048 and 2048 units, a GPU."""
    two = lay_over(empty(num_classes=1000, normalization="none"), ("meta", "meta"))
    for index in (0, 1):
        layers = [*two.features[index].named_children(), *two.classifier[index].named_children()]
        assert {name: tuple(layer.weight.shape) for name, layer in layers if hasattr(layer, "weight")} == {
            "conv1": (48, 3, 11, 11),
            "conv2": (128, 48, 5, 5),
            "conv3": (192, 256, 3, 3),
            "conv4": (192, 192, 3, 3),
            "conv5": (128, 192, 3, 3),
            "fc6": (2048, 9216),
            "fc7": (2048, 4096),
            **({"fc8": (1000, 4096)} if index == 0 else {}),
        }
    assert sum(p.numel() for p in two.parameters()) == 60_965_224


def test_the_first_maps_are_on_the_first_device():
    one = network()
    with torch.no_grad():
        one.features.conv1.bias.copy_(torch.arange(96))
    first, second = (tower.conv1.bias.tolist() for tower in lay_over(one, CPUS).features)
    assert first == list(range(48)) and second == list(range(48, 96))


class Transfers(TorchDispatchMode):
    """Within, notes what goes from one device to another: where to, and its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation is torch.ops.aten._to_copy.default and result.device != args[0].device:
            self.seen.append((str(result.device), tuple(result.shape)))
        return result


@pytest.mark.parametrize("normalization", ["batch", "local_response"])
def test_the_towers_exchange_maps_before_conv3_and_the_full_layers_only(normalization):
    """On two pretended GPUs, where any operation on tensors of both raises."""
    with FakeTensorMode(), torch.device("cuda:0"):
        settings = {"normalization": normalization, "dropout": {"conv1": 0.1, "fc6": 0.5, "fc7": 0.5}}
        two = lay_over(AlexNet(num_classes=2, groups=2, **settings), ("cuda:0", "cuda:1"))
        with Transfers() as transfers:
            logits = two(torch.zeros(5, 3, 227, 227))
        merged = two.state_dict()
    for index in (0, 1):
        tensors = (*two.features[index].state_dict().values(), *two.classifier[index].state_dict().values())
        assert {str(tensor.device) for tensor in tensors} == {f"cuda:{index}"}
    assert {str(tensor.device) for tensor in (logits, *merged.values())} == {"cuda:0"}
    photo, conv3, fc6, fc7, fc8 = (5, 3, 227, 227), (5, 128, 13, 13), (5, 4608), (5, 2048), (5, 2048)
    both_ways = [(device, shape) for shape in (conv3, fc6, fc7) for device in ("cuda:0", "cuda:1")]
    assert transfers.seen == [("cuda:1", photo), *both_ways, ("cuda:0", fc8)]


def test_a_tower_learns_of_the_other_at_conv3():
    two = lay_over(network(), CPUS).eval()
    before = activations(two, 0)
    with torch.no_grad():
        two.features[1].conv1.bias.add_(1)
    after = activations(two, 0)
    unmoved = [name for name in before if torch.equal(before[name], after[name])]
    assert unmoved == ["conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2"]


def activations(towers: TwoTowers, index: int) -> dict[str, Tensor]:
    """What each layer of one tower puts out, by its name."""
    seen: dict[str, Tensor] = {}
    layers = [*towers.features[index].named_children(), *towers.classifier[index].named_children()]
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
        for name, layer in layers
    ]
    with torch.inference_mode():
        towers(photos())
    for hook in hooks:
        hook.remove()
    return seen


# --------------------------------------------------------------------------------------------------------- the state


def test_the_state_is_that_of_the_network_on_one_device():
    one = network()
    two = lay_over(one, CPUS)
    assert_same_state(two, one)
    assert two.state_dict()["features.norm3.num_batches_tracked"] == 7
    assert list(two.state_dict(prefix="a.")) == [f"a.{name}" for name in one.state_dict()]


@pytest.mark.parametrize("settings", [{}, {"normalization": "none", "num_classes": 1}])
def test_either_network_loads_the_others_state(settings):
    one = network(**settings)
    two = lay_over(one, CPUS)
    for parameter in one.parameters():
        parameter.data.neg_()
    two.load_state_dict(one.state_dict())
    assert_same_state(two, one)
    for parameter in two.parameters():
        parameter.data.mul_(2)
    one.load_state_dict(two.state_dict())
    assert_same_state(two, one)


def test_an_average_of_the_towers_saves_and_loads_as_one_of_the_whole_network():
    one = network()
    two = lay_over(one, CPUS)
    averages = [AveragedModel(model, use_buffers=True) for model in (one, two)]
    assert_same_state(*averages)
    for buffer in (*averages[0].parameters(), *averages[0].buffers()):
        buffer.data.add_(1)
    averages[1].load_state_dict(averages[0].state_dict())
    assert_same_state(*averages)
    two.load_state_dict(averages[1].module.state_dict())
    assert two.state_dict()["features.norm1.num_batches_tracked"] == 8
    assert_same_state(two, averages[0].module)


def test_a_copy_is_independent_of_what_it_was_copied_from():
    one = network()
    two = lay_over(one, CPUS)
    twin = copy.deepcopy(two)
    assert_same_state(twin, one)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in one.state_dict().items()}
    twin.load_state_dict(zeros)
    assert not any(tensor.any() for tensor in twin.state_dict().values())
    assert_same_state(two, one)
    del two  # hooks that held on to it would now fail
    twin.load_state_dict(one.state_dict())
    assert_same_state(twin, one)


def test_a_state_that_does_not_fit_is_refused():
    two = lay_over(empty(), ("meta", "meta"))
    with torch.device("meta"):
        whole = AlexNet(groups=1).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch for features.0.conv2.weight"):
        two.load_state_dict(whole)
    state = empty().state_dict()
    bias = state.pop("features.conv5.bias")
    with pytest.raises(RuntimeError, match='Missing key.* "features.0.conv5.bias", "features.1.conv5.bias"'):
        two.load_state_dict(state)
    with pytest.raises(RuntimeError, match='Unexpected key.* "features.conv6.bias"'):
        two.load_state_dict({**state, "features.conv5.bias": bias, "features.conv6.bias": bias})


# ------------------------------------------------------------------------------------------------------------ making


def test_frozen_layers_and_the_mode_are_kept():
    one = empty().eval()
    one.features.requires_grad_(False)
    two = lay_over(one, ("meta", "meta"))
    assert not two.training and not two.features[1].norm1.training
    assert not any(p.requires_grad for p in two.features.parameters())
    assert all(p.requires_grad for p in two.classifier.parameters())


def test_a_network_without_towers_is_refused():
    with torch.device("meta"):
        whole = AlexNet(groups=1)
    with pytest.raises(ValueError, match="make it with groups=2"):
        lay_over(whole, CPUS)
