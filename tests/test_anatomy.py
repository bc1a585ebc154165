"""What is inside a network, against counts and squares worked out by hand, autograd, and torch's own layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from alexnet import anatomy, data, doodles, model
from alexnet.augment import EvalTransform
from alexnet.predict import Classifier, load_classifier


class Network(nn.Module):
    """`features` and `classifier`, as AlexNet has them, of any layers."""

    def __init__(self, features: nn.Sequential | None, classifier: nn.Sequential) -> None:
        super().__init__()
        if features is not None:
            self.features = features
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1) if hasattr(self, "features") else x.flatten(1))

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        if hasattr(self, "features"):
            yield from self.features.named_children()
        yield "flatten", nn.Flatten()
        yield from self.classifier.named_children()


def named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def classifier_of(network: nn.Module, size: int) -> Classifier:
    transform = EvalTransform(size, size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Classifier(None, ("cat", "dog"), transform, False, network.eval().requires_grad_(False), torch.device("cpu"))


@pytest.fixture(scope="module")
def small(untrained_run) -> Classifier:
    """A classifier that sees 67 px, with random weights."""
    return load_classifier(untrained_run[0])


@pytest.fixture(scope="module")
def grouped() -> Classifier:
    """The network of 2012 at 67 px, with random weights and biases, and few units in the fully connected layers."""
    torch.manual_seed(2)
    network = model.AlexNet(2, normalization="local_response", groups=2)
    network.classifier = named(fc6=nn.Linear(256 * 36, 30), relu6=nn.ReLU(), drop6=nn.Dropout(), fc7=nn.Linear(30, 2))
    return classifier_of(network, 67)


def table_at(size: int, **settings: object) -> dict[str, anatomy.Row]:
    with torch.device("meta"):
        network = model.AlexNet(**settings)
    return {row.name: row for row in anatomy.rows(network, size)}


# Side, kernel and stride of each window, as the text of sections 3.4 and 3.5 has them; worked out layer by layer:
# a kernel k on units that see r px, s px apart, sees r + (k - 1) s.
FIELDS = {
    "conv1": (11, 4),
    "norm1": (11, 4),
    "pool1": (19, 8),
    "conv2": (51, 8),
    "pool2": (67, 16),
    "conv3": (99, 16),
    "conv4": (131, 16),
    "conv5": (163, 16),
    "pool5": (195, 32),
    "avgpool": (195, 32),
}


def test_receptive_fields_at_227_px_by_hand():
    table = table_at(227)
    assert {name: (table[name].field.size, table[name].field.stride) for name in FIELDS} == FIELDS
    assert all(len(row.field.spans) == row.shape[1] for row in table.values() if len(row.shape) == 3)
    conv2 = table["conv2"].field.spans
    # Two units of padding to the left of the first: 8 px each, which the photo's border cuts off.
    assert (conv2[0], conv2[2], conv2[13], conv2[26]) == ((0, 34), (0, 50), (88, 138), (192, 226))
    assert table["conv1"].field.spans[54] == (216, 226)
    assert table["fc6"].field.spans == ((0, 226),)


def test_a_kernel_that_stops_short_of_the_border_leaves_pixels_unseen():
    # 10 px under a kernel of 3, 4 apart: two places, and px 7 to 9 are seen by none, with padding after it or not.
    network = Network(named(conv1=nn.Conv2d(3, 2, 3, stride=4), conv2=nn.Conv2d(2, 2, 3, padding=1)), named())
    fields = anatomy.receptive_fields(network, 10)
    assert fields["conv1"].spans == ((0, 2), (4, 6))
    assert fields["conv2"].spans == ((0, 6), (0, 6))


def test_a_unit_that_sees_padding_only_sees_nothing():
    fields = anatomy.receptive_fields(Network(named(conv1=nn.Conv2d(3, 1, 2, padding=3)), named()), 4)
    assert fields["conv1"].spans[0] == (0, -1)
    assert fields["conv1"].spans[2] == (0, 0)


@pytest.mark.parametrize("size", [31, 36])
def test_receptive_fields_are_where_autograd_finds_a_gradient(size):
    """Positive weights and averages instead of maxima: each pixel that can count does."""
    torch.manual_seed(0)
    features = named(
        conv1=nn.Conv2d(3, 2, 5, stride=2),
        pool1=nn.AvgPool2d(3, 2),
        conv2=nn.Conv2d(2, 2, 3, padding=2),
        avgpool=nn.AdaptiveAvgPool2d(5),
    )
    network = Network(features, named(fc=nn.Linear(50, 1)))
    for parameter in network.parameters():
        parameter.data.abs_()
    table = anatomy.rows(network, size)
    x = torch.rand(1, 3, size, size, requires_grad=True)
    for count, row in enumerate(table[:4], 1):
        output = features[:count](x)
        for down in range(row.shape[1]):
            for across in (0, row.shape[2] // 2, row.shape[2] - 1):
                (gradient,) = torch.autograd.grad(output[0, 0, down, across], x, retain_graph=True)
                rows, columns = (gradient[0].amax(dim=(0, side)).nonzero().flatten() for side in (2, 1))
                assert row.field.spans[down] == (rows.min().item(), rows.max().item())
                assert row.field.spans[across] == (columns.min().item(), columns.max().item())


def test_outside_the_field_of_a_unit_of_alexnet_the_gradient_is_zero(grouped):
    table = {row.name: row for row in anatomy.rows(grouped.model, 67)}
    x = torch.rand(1, 3, 67, 67, requires_grad=True)
    y, checked = x, 0
    for name, layer in grouped.model.features.named_children():
        y = layer(y)
        for down in {0, y.shape[2] // 2, y.shape[2] - 1}:
            (gradient,) = torch.autograd.grad(y[0, :, down, 0].sum(), x, retain_graph=True)
            (top, bottom), (left, right) = table[name].field.spans[down], table[name].field.spans[0]
            inside = gradient[:, :, top : bottom + 1, left : right + 1]
            assert inside.any()
            inside.zero_()
            assert not gradient.any()
            checked += 1
    assert checked > 30


def test_a_layer_is_described_by_what_it_does():
    table = table_at(227, normalization="local_response", groups=2, num_classes=1000)
    assert table["conv1"].settings == "96 kernels of 11 × 11 × 3, stride 4"
    assert table["conv2"].settings == "256 kernels of 5 × 5 × 48, padding 2, groups 2"
    assert table["norm1"].settings == "k 2, n 5, α 0.0001, β 0.75, 2 groups"
    assert table["pool5"].settings == "3 × 3, stride 2"
    assert table["drop6"].settings == "50% silenced in training"
    assert table["fc8"].settings == "4,096 inputs, 1,000 units"
    assert (table["relu1"].settings, anatomy.kind_of(table["norm1"].kind)) == ("", "local response norm")


def test_an_average_pooling_counts_where_it_changes_something():
    assert table_at(227)["avgpool"].idle
    assert not table_at(67)["avgpool"].idle
    assert anatomy.source_of("fc6", list(table_at(227).values())) == "pool5"
    assert anatomy.source_of("fc6", list(table_at(67).values())) == "avgpool"
    assert anatomy.source_of("fc7", list(table_at(67).values())) == "relu6"
    assert anatomy.source_of("conv1", list(table_at(67).values())) == "photo"


def test_activations_are_what_the_network_puts_out_and_have_the_shapes_of_the_table(small):
    photo = doodles.draw("cat", 1)
    found = anatomy.activations(small, photo)
    logits = small.logits(small.prepare([photo]))[0].numpy()
    np.testing.assert_allclose(found["fc8"], logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["photo"], small.prepare([photo])[0].numpy())
    table = anatomy.rows(small.model, 67)
    assert {row.name: row.shape for row in table} == {name: a.shape for name, a in found.items() if name != "photo"}


def test_a_network_without_convolutions():
    torch.manual_seed(0)
    network = Network(None, named(fc1=nn.Linear(3 * 20 * 20, 8), act1=nn.Sigmoid(), fc2=nn.Linear(8, 2)))
    classifier, photo = classifier_of(network, 20), doodles.draw("dog", 2)
    found = anatomy.activations(classifier, photo)
    np.testing.assert_allclose(found["fc2"], classifier.logits(classifier.prepare([photo]))[0].numpy(), rtol=1e-6)
    table = anatomy.rows(network, 20)
    assert [(row.name, row.multiply_adds) for row in table] == [("flatten", 0), ("fc1", 9600), ("act1", 0), ("fc2", 16)]
    assert anatomy.filters(network) is None and table[1].field.spans == ((0, 19),)
    sums = anatomy.arithmetic(network.classifier.fc1, found["photo"], 5)
    assert sums.total == pytest.approx(found["fc1"][5], abs=1e-5)


def test_arithmetic_by_hand():
    conv = nn.Conv2d(2, 1, 2, stride=2, padding=1)
    conv.weight.data = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]]])
    conv.bias.data = torch.tensor([0.5])
    below = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    corner = anatomy.arithmetic(conv, below, unit=0)  # of the window only the lower right pixel is in the maps
    assert corner.products[:, 1, 1].tolist() == [0 * 4, 9 * 40]
    assert (corner.sums.tolist(), corner.bias, corner.total) == ([0, 360], 0.5, 360.5)
    inner = anatomy.arithmetic(conv, below, 0, row=1, column=1)  # rows and columns 1 and 2
    assert inner.patch.tolist() == [[[4, 5], [7, 8]], [[13, 14], [16, 17]]]
    assert inner.sums.tolist() == [4 + 10 + 21 + 32, 130 + 280 + 480 + 680]


@pytest.mark.parametrize("name", ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"])
def test_the_arithmetic_of_any_unit_is_the_networks_own_number(grouped, name):
    found = anatomy.activations(grouped, doodles.draw("cat", 3))
    table = anatomy.rows(grouped.model, 67)
    layer, output = dict(grouped.model.layers())[name], found[name]
    below = found[anatomy.source_of(name, table)]
    units = (0, len(output) // 2 - 1, len(output) // 2, len(output) - 1)  # on both sides of the towers' border
    for unit in units:
        if output.ndim == 1:
            assert anatomy.arithmetic(layer, below, unit).total == pytest.approx(output[unit], abs=1e-4)
            continue
        for row in (0, output.shape[1] // 2, output.shape[1] - 1):
            for column in (0, output.shape[2] - 1):
                sums = anatomy.arithmetic(layer, below, unit, row, column)
                assert sums.total == pytest.approx(output[unit, row, column], abs=1e-4)
                assert len(sums.inputs) == layer.in_channels // layer.groups


def test_the_second_tower_reads_the_second_half_of_the_maps(grouped):
    below = np.zeros((96, 7, 7), np.float32)
    features = grouped.model.features
    assert anatomy.arithmetic(features.conv2, below, 127).inputs == range(0, 48)
    assert anatomy.arithmetic(features.conv2, below, 128).inputs == range(48, 96)
    assert anatomy.arithmetic(features.relu2, below, 0) is None


def test_units_are_ordered_by_what_they_put_out():
    maps = np.array([[[0, 9]], [[5, 5]], [[1, 1]], [[5, 5]]], dtype=np.float32)
    assert anatomy.order(maps, "mean") == [1, 3, 0, 2]
    assert anatomy.order(maps, "maximum") == [0, 1, 3, 2]
    assert anatomy.order(maps, "number") == [0, 1, 2, 3]
    assert anatomy.order(np.array([1.0, 3.0, 2.0]), "mean") == [1, 2, 0]


@pytest.fixture
def coloured(tmp_path):
    """A dataset of 70 flat pictures of 12 px that grow redder and less blue, each with a spot of white at a place of its own."""
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
    for number in range(70):
        picture = Image.new("RGB", (12, 12), (2 * number, 0, 140 - 2 * number))
        picture.putpixel((number % 12, number // 12), (255, 255, 255))
        picture.save(tmp_path / "photos" / ("cat" if number % 2 else "dog") / f"{number:02}.png")
    return data.load(str(tmp_path / "photos"))


@pytest.fixture
def colour_reader() -> Classifier:
    """Unit 0 reads green, which is the white spot, unit 1 the mean of 4 x 4 px of red, unit 2 that of blue."""
    conv = nn.Conv2d(3, 3, 4, bias=False)
    conv.weight.data.zero_()
    conv.weight.data[0, 1, 0, 0] = 1.0
    conv.weight.data[1, 0], conv.weight.data[2, 2] = 1 / 16, 1 / 16
    return classifier_of(Network(named(conv1=conv), named(fc=nn.Linear(243, 2))), 12)


def test_the_photos_that_excite_a_unit_most_by_hand(coloured, colour_reader):
    photos = list(coloured.photos)
    best = anatomy.strongest(colour_reader, coloured, photos)["conv1"]
    names = lambda unit: [photos[index].path[-6:-4] for index in best.photos[unit]]  # noqa: E731
    assert best.values.shape == best.photos.shape == best.places.shape == (3, anatomy.STRONGEST)
    assert names(1) == [f"{number}" for number in range(69, 60, -1)]
    assert names(2) == [f"{number:02}" for number in range(9)]
    # The kernel starts at the spot: its place in the map of 9 x 9 is the pixel's own, where that lies in the map.
    for index, value, place in zip(best.photos[0], best.values[0], best.places[0], strict=True):
        number = int(photos[index].path[-6:-4])
        assert value == pytest.approx(1.0) and divmod(int(place), 9) == divmod(number, 12)


def test_the_strongest_photos_are_those_that_one_finds_one_by_one(coloured, colour_reader):
    photos = list(coloured.photos)
    best = anatomy.strongest(colour_reader, coloured, photos)["fc"]
    outputs = np.stack([anatomy.activations(colour_reader, coloured.open(photo))["fc"] for photo in photos])
    expected = np.sort(outputs, axis=0)[: -anatomy.STRONGEST - 1 : -1].T
    np.testing.assert_allclose(best.values, expected, rtol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(outputs.T, best.photos, axis=1), best.values, rtol=1e-5)


def test_the_search_for_photos_tells_how_far_it_is_and_can_be_ended(coloured, colour_reader):
    told = []
    anatomy.strongest(colour_reader, coloured, coloured.photos, lambda what, done, total: told.append((done, total)))
    assert told == [(32, 70), (64, 70), (70, 70)]

    def cancel(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        anatomy.strongest(colour_reader, coloured, coloured.photos, cancel)


def test_fewer_photos_than_are_kept_and_one_that_went_away(coloured, colour_reader):
    assert anatomy.strongest(colour_reader, coloured, coloured.photos[:2])["conv1"].photos.shape == (3, 2)
    (coloured.root / coloured.photos[1].path).unlink()
    with pytest.raises(data.DataError, match="changed while it was read"):
        anatomy.strongest(colour_reader, coloured, coloured.photos)


def test_of_a_network_that_looks_five_times_all_is_about_the_centre(coloured, colour_reader):
    once = replace(colour_reader, transform=replace(colour_reader.transform, resize=16))
    five = replace(once, transform=replace(once.transform, five_crops=True))
    assert five.transform.crop_photo(doodles.draw("cat", 1)).size == (16, 16)
    for name, expected in anatomy.strongest(once, coloured, coloured.photos).items():
        found = anatomy.strongest(five, coloured, coloured.photos)[name]
        np.testing.assert_array_equal(found.photos, expected.photos)
        np.testing.assert_array_equal(found.places, expected.places)


def test_every_forward_holds_the_lock(coloured, colour_reader):
    held = []

    class Watched(nn.Identity):
        def forward(self, x):
            held.append(colour_reader.lock.held)
            return x

    colour_reader.model.features.add_module("watched", Watched())
    anatomy.activations(colour_reader, doodles.draw("cat", 1))
    anatomy.strongest(colour_reader, coloured, coloured.photos[:40])
    assert held == [True] * 3


def test_two_people_at_once_see_what_each_sees_alone(small):
    photos = [doodles.draw(label, seed, 80) for label in ("cat", "dog") for seed in range(4)]
    alone = [anatomy.activations(small, photo) for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda photo: anatomy.activations(small, photo), photos))
    for one, other in zip(alone, together, strict=True):
        for name in one:
            np.testing.assert_allclose(other[name], one[name], rtol=1e-4, atol=1e-5)


def changes(before: dict[str, anatomy.Row], after: dict[str, anatomy.Row]) -> dict[str, tuple[str | None, str | None]]:
    found = anatomy.layer_differences(list(before.values()), list(after.values()))
    return {each.what: (each.before, each.after) for each in found}


def test_the_paper_does_not_differ_from_itself():
    paper = {row.name: row for row in anatomy.paper_rows()}
    assert changes(paper, paper) == {}
    assert sum(row.parameters for row in paper.values()) == 60_965_224
    assert sum(row.multiply_adds for row in paper.values()) == 724_406_816
    assert anatomy.recipe_differences(anatomy.PAPER, anatomy.PAPER, anatomy.PAPER.to_dict()) == []


def test_differences_are_told_layer_by_layer_in_the_order_of_a_photo():
    paper = {row.name: row for row in anatomy.paper_rows()}
    found = changes(paper, table_at(227, num_classes=2, dropout={"fc6": 0.5, "conv1": 0.1}))
    assert list(found) == [
        "norm1", "drop1", "conv2", "norm2", "norm3", "conv4", "norm4", "conv5", "norm5", "drop7", "fc8",
        "parameters", "multiply_adds",
    ]  # fmt: skip
    assert found["conv2"] == (
        "convolution: 256 kernels of 5 × 5 × 48, padding 2, groups 2",
        "convolution: 256 kernels of 5 × 5 × 96, padding 2",
    )
    assert found["norm3"] == (None, "batch norm")
    assert found["drop7"] == ("dropout: 50% silenced in training", "dropout: 0% silenced in training")
    assert found["multiply_adds"] == ("724,406,816", "1,131,168,288")


def test_a_layer_that_only_one_has_comes_in_its_place():
    plain, normed = table_at(67, num_classes=2, normalization="none"), table_at(67, num_classes=2)
    assert [name for name in changes(normed, plain) if name != "parameters"] == [f"norm{i}" for i in range(1, 6)]
    mixed = anatomy.layer_differences(list(normed.values()), list(plain.values()))[0]
    assert (mixed.before, mixed.after) == ("batch norm", None)


def test_recipes_are_compared_by_the_settings_that_are_asked_for():
    after = anatomy.PAPER.replace(groups=1, towers_apart=False, lr=0.02, wandb="offline")
    assert anatomy.recipe_differences(anatomy.PAPER, after, ("groups", "momentum")) == [("groups", 2, 1)]
    assert anatomy.recipe_differences(anatomy.PAPER, after, ("lr",)) == [("lr", 0.01, 0.02)]


def test_the_paper_was_trained_as_its_section_5_says():
    paper = anatomy.PAPER
    assert (paper.batch_size, paper.momentum, paper.weight_decay, paper.lr, paper.epochs) == (128, 0.9, 5e-4, 0.01, 90)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"), [(9, 3, 2, 1), (10, 3, 4, 0), (7, 7, 1, 0), (5, 2, 3, 2)]
)
def test_the_size_of_an_output_is_torchs(size, kernel, stride, padding):
    conv = nn.Conv2d(1, 1, kernel, stride, padding)
    assert anatomy.output_size(size, kernel, stride, padding) == conv(torch.zeros(1, 1, size, size)).shape[-1]


def test_a_kernel_that_does_not_fit_has_no_output():
    assert anatomy.output_size(3, 5, 1, 0) < 1


def test_local_response_by_hand():
    found = anatomy.local_response([10, 0, 20, 30], size=3, k=2.0, alpha=0.01, beta=0.5)
    expected = [10 / (2 + 1) ** 0.5, 0, 20 / (2 + 4 + 9) ** 0.5, 30 / (2 + 4 + 9) ** 0.5]
    assert found == pytest.approx(expected)


def test_pooling_by_hand():
    values = np.array([[1, 2, 0, 4], [3, 9, 1, 0], [0, 1, 7, 2], [5, 0, 6, 8]])
    out, winners = anatomy.pool(values, window=2, stride=2)
    assert out.tolist() == [[9, 4], [5, 8]] and winners == {(1, 1), (0, 3), (3, 0), (3, 3)}
    out, winners = anatomy.pool(values, window=3, stride=1)
    assert out.tolist() == [[9, 9], [9, 9]] and winners == {(1, 1)}


def test_dropout_silences_or_scales_and_changes_nothing_on_average():
    values = [1.0, 2.0, 3.0]
    draws = anatomy.dropout(values, 0.25, seed=3, draws=4000)
    assert all(
        set(np.unique(column.round(6))) == {0.0, round(v / 0.75, 6)} for column, v in zip(draws.T, values, strict=True)
    )
    assert (draws == 0).mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(draws.mean(axis=0), values, rtol=0.05)
    assert anatomy.dropout(values, 0.0, seed=3).tolist() == [values]


def test_dropout_draws_the_same_for_each_of_many_people_and_leaves_other_draws_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    alone = [anatomy.dropout([1.0] * 50, 0.5, seed).tolist() for seed in range(20)]
    assert torch.equal(torch.rand(3), expected)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda seed: anatomy.dropout([1.0] * 50, 0.5, seed).tolist(), range(20))) == alone
    assert len({str(draw) for draw in alone}) == 20
