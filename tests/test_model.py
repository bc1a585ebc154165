"""The networks against parameter counts and shapes worked out by hand, torchvision's AlexNet, and torch's own layers."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from alexnet.model import MLP, AlexNet, Geometry, Layer, LocalResponseNorm, from_recipe, layer_table, output_name
from alexnet.recipes import Recipe, map_sides


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
    with torch.device("meta"):
        sides = {layer.name: layer.shape for layer in layer_table(AlexNet(num_classes=2))}
    convolutions_and_pools = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
    assert [sides[name][-1] for name in convolutions_and_pools] == [55, 27, 27, 13, 13, 13, 13, 6]
    assert [sides[name][0] for name in convolutions_and_pools] == [96, 96, 256, 256, 384, 384, 256, 256]
    assert sides["flatten"] == (9216,)
    assert sides["fc8"] == (2,)


# What the convolutions have in all but torchvision's network and that with valid padding.
CONVOLUTIONS = {
    "conv1": 96 * (3 * 11 * 11 + 1),
    "conv2": 256 * (96 * 5 * 5 + 1),
    "conv3": 384 * (256 * 3 * 3 + 1),
    "conv4": 384 * (384 * 3 * 3 + 1),
    "conv5": 256 * (384 * 3 * 3 + 1),
}
BATCH_NORM = {"norm1": 2 * 96, "norm2": 2 * 256, "norm3": 2 * 384, "norm4": 2 * 384, "norm5": 2 * 256}
FULL_2012 = {"fc6": 4096 * (256 * 6 * 6 + 1), "fc7": 4096 * (4096 + 1)}


def rows_of(recipe: Recipe, classes: int) -> dict[str, Layer]:
    with torch.device("meta"):
        return {row.name: row for row in layer_table(from_recipe(recipe, classes), recipe.image_size)}


def parameters_of(rows: dict[str, Layer]) -> dict[str, int]:
    return {name: row.parameters for name, row in rows.items() if row.parameters}


def sides_of(rows: dict[str, Layer]) -> list[int]:
    """Of the maps that each convolution and pooling puts out, and the averaging."""
    return [row.shape[-1] for name, row in rows.items() if name.startswith(("conv", "pool", "avgpool"))]


def test_padding_of_two_batch_norm_and_one_logit():
    rows = rows_of(Recipe(paddings="2 2 1 1 1", single_logit=True), classes=2)
    # (227 + 2 * 2 - 11) / 4 + 1 = 56, which pools to 27 = (56 - 3) / 2 + 1 rounded down, as 55 does.
    assert sides_of(rows) == [56, 27, 27, 13, 13, 13, 13, 6, 6]
    parameters = parameters_of(rows)
    assert parameters == {**CONVOLUTIONS, **BATCH_NORM, **FULL_2012, "fc8": 4096 + 1}
    assert sum(parameters.values()) == 3_747_200 + 2_752 + 54_534_144 + 4_097 == 58_288_193


def test_valid_padding_small_pooling_and_three_hidden_layers():
    geometry = {"kernels": "11 11 3 3 3", "paddings": "0 0 0 0 0", "pool": 2, "avgpool": 1, "hidden": "4096 4096 1000"}
    rows = rows_of(Recipe(image_size=224, norm_place="after_pool", **geometry), classes=2)
    # (224 - 11) / 4 + 1 = 54; 27; 27 - 10 = 17; 8; three times 2 less; 2 / 2 = 1.
    assert sides_of(rows) == [54, 27, 17, 8, 6, 4, 2, 1, 1]
    parameters = parameters_of(rows)
    conv2 = 256 * (96 * 11 * 11 + 1)
    full = {"fc6": 4096 * (256 + 1), "fc7": 4096 * (4096 + 1), "fc8": 1000 * (4096 + 1), "fc9": 2 * (1000 + 1)}
    assert parameters == {**CONVOLUTIONS, "conv2": conv2, **BATCH_NORM, **full}
    without_full = 34_944 + 2_973_952 + 885_120 + 1_327_488 + 884_992 + 2_752
    assert sum(parameters.values()) == without_full + 1_052_672 + 16_781_312 + 4_097_000 + 2_002 == 28_042_234


def test_valid_padding_with_the_kernels_of_2012():
    rows = rows_of(Recipe(paddings="0 0 0 0 0", avgpool=2, hidden="4096 4096 1000"), classes=2)
    assert sides_of(rows) == [55, 27, 23, 11, 9, 7, 5, 2, 2]
    assert rows["flatten"].shape == (256 * 2 * 2,)
    assert rows["fc6"].parameters == 4096 * (1024 + 1)


def test_narrow_fully_connected_layers_and_ten_classes():
    rows = rows_of(Recipe(hidden="128 64"), classes=10)
    full = {"fc6": 128 * (9216 + 1), "fc7": 64 * (128 + 1), "fc8": 10 * (64 + 1)}
    assert parameters_of(rows) == {**CONVOLUTIONS, **BATCH_NORM, **full}
    assert sum(parameters_of(rows).values()) == 3_747_200 + 2_752 + 1_179_776 + 8_256 + 650 == 4_938_634
    assert [rows[name].shape for name in ("fc6", "fc7", "fc8")] == [(128,), (64,), (10,)]


def test_the_fully_connected_baseline():
    recipe = Recipe(network="mlp", normalization="none", hidden="128 128 128", image_size=67, activation="tanh")
    rows = rows_of(recipe, classes=2)
    assert list(rows) == [
        "flatten", "fc1", "act1", "drop1", "fc2", "act2", "drop2", "fc3", "act3", "drop3", "fc4",
    ]  # fmt: skip
    assert (rows["flatten"].shape, rows["act3"].kind, rows["fc4"].shape) == ((3 * 67 * 67,), "Tanh", (2,))
    wide, deep = 128 * (13_467 + 1), 128 * (128 + 1)
    assert parameters_of(rows) == {"fc1": wide, "fc2": deep, "fc3": deep, "fc4": 2 * (128 + 1)}
    assert sum(parameters_of(rows).values()) == 1_723_904 + 2 * 16_512 + 258 == 1_757_186


TORCHVISION = Recipe(
    maps="64 192 384 256 256",
    paddings="2 2 1 1 1",
    normalization="none",
    dropout_by_layer="conv5=0.5 fc6=0.5 fc7=0",  # there it comes before fc6 and fc7
    image_size=224,
)


def test_the_geometry_of_torchvisions_alexnet():
    rows = rows_of(TORCHVISION, classes=1000)
    assert sides_of(rows) == [55, 27, 27, 13, 13, 13, 13, 6, 6]
    convolutions = {
        "conv1": 64 * (3 * 11 * 11 + 1),
        "conv2": 192 * (64 * 5 * 5 + 1),
        "conv3": 384 * (192 * 3 * 3 + 1),
        "conv4": 256 * (384 * 3 * 3 + 1),
        "conv5": 256 * (256 * 3 * 3 + 1),
    }
    assert parameters_of(rows) == {**convolutions, **FULL_2012, "fc8": 1000 * (4096 + 1)}
    assert sum(parameters_of(rows).values()) == 2_469_696 + 54_534_144 + 4_097_000 == 61_100_840


def test_with_torchvisions_weights_it_answers_as_torchvisions_does():
    torch.manual_seed(0)
    theirs = torchvision.models.alexnet(num_classes=7).eval()
    with torch.device("meta"):
        ours = from_recipe(TORCHVISION, num_classes=7).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)), assign=True)
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))
    dropouts = [m.p for m in theirs.modules() if isinstance(m, nn.Dropout)]
    assert [share for share in shares(ours).values() if share] == dropouts == [0.5, 0.5]


@pytest.mark.parametrize(
    "settings",
    [
        {"image_size": 67},
        {"image_size": 131, "pool": 2, "kernels": "9 3 5 3 1"},
        {"image_size": 250, "paddings": "4 0 2 0 1"},
    ],
)
def test_the_recipe_knows_the_sides_of_the_maps(settings):
    recipe = Recipe(normalization="none", **settings)
    rows = rows_of(recipe, classes=2)
    last = ("pool1", "pool2", "relu3", "relu4", "pool5")
    assert map_sides(recipe) == tuple(rows[name].shape[-1] for name in last)


# By hand, at 227 px: places x maps x side of the kernel squared x maps that a map sees; a fully connected layer has as
# many as it has weights. Two groups halve what conv2, conv4 and conv5 see.
MULTIPLY_ADDS = {
    "conv1": 55 * 55 * 96 * 11 * 11 * 3,  # 105,415,200
    "conv2": 27 * 27 * 256 * 5 * 5 * 96,
    "conv3": 13 * 13 * 384 * 3 * 3 * 256,
    "conv4": 13 * 13 * 384 * 3 * 3 * 384,
    "conv5": 13 * 13 * 256 * 3 * 3 * 384,
    "fc6": 6 * 6 * 256 * 4096,
    "fc7": 4096 * 4096,
    "fc8": 4096 * 1000,
}


@pytest.mark.parametrize(("groups", "total"), [(1, 1_135_256_096), (2, 724_406_816)])
def test_multiply_adds_at_227_px(groups, total):
    with torch.device("meta"):
        table = layer_table(AlexNet(normalization="local_response", groups=groups))
    expected = dict.fromkeys((layer.name for layer in table), 0) | MULTIPLY_ADDS
    expected |= {name: MULTIPLY_ADDS[name] // groups for name in ("conv2", "conv4", "conv5")}
    assert {layer.name: layer.multiply_adds for layer in table} == expected
    assert sum(layer.multiply_adds for layer in table) == total


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
    after_pool = AlexNet(2, norm_place="after_pool", dropout={"conv1": 0.1})
    assert order_of(after_pool, 1) == ["conv", "relu", "pool", "norm", "drop"]
    assert order_of(after_pool, 3) == ["conv", "relu", "norm"]


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


def torchs_local_response_norm(x: torch.Tensor, groups: int) -> torch.Tensor:
    """That of torch, which divides alpha by the size, on each group."""
    norm = nn.LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0)
    return torch.cat([norm(group) for group in x.chunk(groups, dim=1)], dim=1)


def value_and_gradient(function, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of `function` at `x`, and of the sum over its outputs, each with a weight of its own."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = function(x)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape))
    return y.detach(), x.grad


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_local_response_normalisation_is_torchs_own_on_each_group(memory_format, groups):
    x = 50 * torch.randn(3, 12, 4, 5, generator=torch.Generator().manual_seed(0)).to(memory_format=memory_format)
    found = value_and_gradient(LocalResponseNorm(groups), x)
    torch.testing.assert_close(found, value_and_gradient(lambda x: torchs_local_response_norm(x, groups), x))
    assert found[0].is_contiguous(memory_format=memory_format)


def test_fewer_maps_than_the_window_are_all_neighbours():
    x = 50 * torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(LocalResponseNorm(2)(x), torchs_local_response_norm(x, 2))


def test_local_response_normalisation_in_bfloat16_is_exact_but_for_the_rounding_of_its_result():
    x = (50 * torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0))).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = LocalResponseNorm(2)(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), torchs_local_response_norm(x.float(), 2), rtol=2**-8, atol=0)


def test_local_response_normalisation_is_one_graph_to_the_compiler():
    x = 50 * torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(LocalResponseNorm(2), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(value_and_gradient(compiled, x), value_and_gradient(LocalResponseNorm(2), x))


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


def test_a_single_dropout_is_that_of_three_hidden_layers_too():
    with torch.device("meta"):
        model = AlexNet(2, dropout=0.3, geometry=Geometry(hidden=(8, 8, 8)))
    assert shares(model) == {"drop6": 0.3, "drop7": 0.3, "drop8": 0.3}


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


def test_the_initialisation_of_the_paper():
    torch.manual_seed(0)
    small = Geometry(maps=(32, 32, 32, 32, 32), hidden=(64, 96, 128))
    network = AlexNet(100, geometry=small, initialization="paper")
    layers = {name: layer for name, layer in network.layers() if isinstance(layer, nn.Conv2d | nn.Linear)}
    for layer in layers.values():
        n = layer.weight.numel()
        assert abs(layer.weight.mean().item()) < 4 * 0.01 / n**0.5
        assert layer.weight.std().item() == pytest.approx(0.01, rel=4 / (2 * n) ** 0.5)
    biases = {name: set(layer.bias.tolist()) for name, layer in layers.items()}
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7", "fc8"}
    assert biases == {name: {1.0} if name in ones else {0.0} for name in (*CONVOLUTIONS, "fc6", "fc7", "fc8", "fc9")}
    assert network.features.norm1.weight.unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ({}, "classifier.fc8"),
        ({"hidden": "16 16 16"}, "classifier.fc9"),
        ({"network": "mlp", "normalization": "none", "hidden": "16"}, "classifier.fc2"),
    ],
)
def test_the_output_layer_has_the_last_number(network, name):
    with torch.device("meta"):
        model = from_recipe(Recipe(**network), num_classes=3)
    assert output_name(model) == name
    assert model.get_submodule(name).out_features == 3


def test_the_baseline_computes_matrix_products_and_activations():
    torch.manual_seed(0)
    model = MLP(3, image_size=5, hidden=(7, 4), activation="sigmoid", dropout=0.5).eval()
    x = torch.randn(2, 3, 5, 5)
    weights = [tensor for name, tensor in model.state_dict().items()]
    first, second, last = zip(weights[::2], weights[1::2], strict=True)
    hidden = torch.sigmoid(x.reshape(2, 75) @ first[0].T + first[1])
    hidden = torch.sigmoid(hidden @ second[0].T + second[1])
    with torch.inference_mode():
        torch.testing.assert_close(model(x), hidden @ last[0].T + last[1])
    assert list(model.state_dict())[::2] == ["classifier.fc1.weight", "classifier.fc2.weight", "classifier.fc3.weight"]
    assert not torch.equal(model.train()(x), model.eval()(x))


def test_from_recipe_passes_on_how_the_network_starts_and_where_its_norm_is():
    torch.manual_seed(0)
    settings = {"maps": "8 8 8 8 8", "hidden": "8", "normalization": "local_response", "norm_place": "after_pool"}
    model = from_recipe(Recipe(initialization="paper", **settings), num_classes=2)
    assert order_of(model, 2) == ["conv", "relu", "pool", "norm"]
    assert model.features.conv4.bias.tolist() == [1.0] * 8
