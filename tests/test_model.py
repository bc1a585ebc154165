"""AlexNet against parameter counts and shapes worked out from the paper, and torch's own layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alexnet.model import AlexNet, GroupedLocalResponseNorm, from_recipe, layer_table
from alexnet.recipes import Recipe


def parameters(**settings: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in AlexNet(**settings).parameters())


# By hand: weights and biases of conv1 34,944; conv2 614,656; conv3 885,120; conv4 1,327,488; conv5 884,992;
# fc6 37,752,832; fc7 16,781,312; fc8 4,097 a class. Batch norm adds twice 96 + 256 + 384 + 384 + 256.
WITHOUT_FC8 = 34_944 + 614_656 + 885_120 + 1_327_488 + 884_992 + 37_752_832 + 16_781_312


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"num_classes": 1000, "normalization": "none"}, 62_378_344),
        ({"num_classes": 1000, "normalization": "none", "groups": 2}, 60_965_224),
        ({"num_classes": 1000, "normalization": "local_response"}, 62_378_344),
        ({"num_classes": 1, "normalization": "none"}, WITHOUT_FC8 + 4_097),
        ({"num_classes": 2, "normalization": "none"}, WITHOUT_FC8 + 2 * 4_097),
        ({"num_classes": 2, "normalization": "batch"}, WITHOUT_FC8 + 2 * 4_097 + 2 * 1_376),
    ],
)
def test_parameter_counts(settings, count):
    assert parameters(**settings) == count


def test_shapes_at_227_px():
    sides = {layer.name: layer.shape for layer in layer_table(AlexNet(num_classes=2))}
    convolutions_and_pools = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    assert [sides[name][-1] for name in convolutions_and_pools] == [55, 27, 27, 13, 13, 13, 13, 6]
    assert [sides[name][0] for name in convolutions_and_pools] == [96, 96, 256, 256, 384, 384, 256, 256]
    assert sides["flatten"] == (9216,)
    assert sides["fc8"] == (2,)


@pytest.mark.parametrize("side", [67, 131, 256])
def test_other_image_sizes_reach_the_classifier(side):
    model = AlexNet(num_classes=3).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, side, side)).shape == (1, 3)


def order_of(model: AlexNet, number: int) -> list[str]:
    return [name[:-1] for name, _ in model.features.named_children() if name.endswith(str(number))]


def test_place_of_the_normalisation():
    assert order_of(AlexNet(2), 1) == ["conv", "relu", "norm", "pool"]
    assert order_of(AlexNet(2, norm_place="before_relu"), 1) == ["conv", "norm", "relu", "pool"]
    assert order_of(AlexNet(2, normalization="none"), 5) == ["conv", "relu", "pool"]


def test_local_response_normalisation_follows_the_paper():
    model = AlexNet(2, normalization="local_response")
    norms = [name for name, _ in model.features.named_children() if name.startswith("norm")]
    assert norms == ["norm1", "norm2"]
    # Section 3.3 by hand: five channels with activation 3 around the one in the middle of seven.
    activations = torch.full((1, 7, 1, 1), 3.0)
    expected = 3.0 / (2 + 1e-4 * 5 * 3.0**2) ** 0.75
    assert model.features.norm1(activations)[0, 3].item() == pytest.approx(expected, rel=1e-6)


def test_local_response_normalisation_stays_within_a_tower():
    norms = AlexNet(2, normalization="local_response", groups=2).features
    assert (norms.norm1.groups, norms.norm2.groups) == (2, 2)
    # By hand: maps 46 to 49 have two neighbours each way, but 47 is the last of the first tower and 48 begins the second.
    out = norms.norm1(torch.full((1, 96, 1, 1), 30.0))[0, :, 0, 0]
    within = {45: 5, 46: 4, 47: 3, 48: 3, 49: 4, 50: 5}
    expected = [30.0 / (2 + 1e-4 * maps * 30.0**2) ** 0.75 for maps in within.values()]
    assert out[list(within)].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_grouped_local_response_normalisation_is_that_of_torch_on_each_group(memory_format):
    x = 50 * torch.randn(3, 12, 4, 5).to(memory_format=memory_format)
    whole = nn.LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0)
    for groups in (1, 2, 3):
        expected = torch.cat([whole(group) for group in x.chunk(groups, dim=1)], dim=1)
        torch.testing.assert_close(GroupedLocalResponseNorm(groups, 5, 5e-4, 0.75, 2.0)(x), expected)


def test_without_groups_local_response_normalisation_is_torchs_own():
    assert type(AlexNet(2, normalization="local_response").features.norm2) is nn.LocalResponseNorm


def test_groups_keep_the_towers_apart():
    model = AlexNet(2, normalization="none", groups=2)
    first_half = torch.zeros(1, 96, 5, 5)
    first_half[:, :48] = torch.randn(1, 48, 5, 5)
    second_tower = model.features.conv2(first_half)[:, 128:]
    bias = model.features.conv2.bias[128:].view(1, -1, 1, 1)
    assert torch.equal(second_tower, bias.expand_as(second_tower))


def test_no_relu_works_in_place_or_serves_twice():
    model = AlexNet(2)
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    assert len(relus) == 7
    assert not any(relu.inplace for relu in relus)
    calls: list[nn.Module] = []
    for relu in relus:
        relu.register_forward_hook(lambda module, *_: calls.append(module))
    with torch.inference_mode():
        model(torch.zeros(1, 3, 67, 67))
    assert len(calls) == len(set(calls)) == 7


def shares(model: AlexNet) -> dict[str, float]:
    """The dropout of each layer that has one, by its name, in their order."""
    layers = [*model.features.named_children(), *model.classifier.named_children()]
    return {name: layer.p for name, layer in layers if isinstance(layer, nn.Dropout)}


def test_a_single_dropout_is_that_of_the_fully_connected_layers():
    with torch.device("meta"):
        assert shares(AlexNet(2, dropout=0.3)) == {"drop6": 0.3, "drop7": 0.3}


def test_dropout_by_layer_comes_last_in_its_layer_and_changes_no_weight():
    with torch.device("meta"):
        plain, model = AlexNet(2), AlexNet(2, dropout={"fc7": 0.5, "conv1": 0.1, "conv3": 0.2, "conv4": 0.0})
    assert shares(model) == {"drop1": 0.1, "drop3": 0.2, "drop6": 0.0, "drop7": 0.5}
    assert order_of(model, 1) == ["conv", "relu", "norm", "pool", "drop"]
    assert order_of(model, 3) == ["conv", "relu", "norm", "drop"]
    assert order_of(model, 4) == ["conv", "relu", "norm"]
    assert list(model.state_dict()) == list(plain.state_dict())


def test_the_layer_table_shows_the_dropout_of_a_convolution():
    rows = {layer.name: layer for layer in layer_table(AlexNet(2, dropout={"conv5": 0.1}), image_size=67)}
    assert (rows["drop5"].kind, rows["drop5"].shape, rows["drop5"].parameters) == ("Dropout", (256, 1, 1), 0)


def test_the_layer_table_leaves_the_network_as_it_was():
    model = AlexNet(2)
    before = model.features.norm1.running_var.clone()
    layer_table(model)
    assert model.training
    assert torch.equal(model.features.norm1.running_var, before)


def test_from_recipe():
    with torch.device("meta"):
        one_logit = from_recipe(Recipe(single_logit=True, dropout=0.25, groups=2), num_classes=2)
    assert one_logit.classifier.fc8.out_features == 1
    assert one_logit.classifier.drop6.p == 0.25
    assert one_logit.features.conv4.groups == 2


def test_from_recipe_with_dropout_by_layer():
    with torch.device("meta"):
        model = from_recipe(Recipe(dropout=0.25, dropout_by_layer="conv5=0.1, fc7=0.5"), num_classes=2)
    assert shares(model) == {"drop5": 0.1, "drop6": 0.25, "drop7": 0.5}
