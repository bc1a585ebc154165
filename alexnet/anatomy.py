"""What is inside a network: its layers and what they cost, what each unit sees, and how it comes to its number.

Nothing here puts a hook on a network. Photos are led through it layer by layer, under the classifier's lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from alexnet import model
from alexnet.data import DataError
from alexnet.images import PhotoError
from alexnet.model import Layer
from alexnet.recipes import Recipe

if TYPE_CHECKING:
    from alexnet.data import Dataset, Photo, Progress
    from alexnet.predict import Classifier

PHOTO = "photo"  # the name under which the network's input stands beside the layers
STRONGEST = 9  # photos that are kept for a unit
AT_ONCE = 32  # photos
IDLE = (nn.Dropout, nn.Flatten, nn.Identity)  # layers that change no number of an answer

PAPER = Recipe(
    name="paper-2012",
    title="AlexNet of 2012",
    source="Krizhevsky, Sutskever and Hinton 2012, sections 3 to 5",
    normalization="local_response",
    groups=2,
    towers_apart=True,
    dropout=0.5,
    initialization="paper",
    five_crops=True,
    crop="patch",
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    pca_colour=0.1,
    epochs=90,
    lr=0.01,
    schedule="plateau",
    warmup=0.0,
    label_smoothing=0.0,
    ema=0.0,
)
PAPER_CLASSES = 1000

Network = model.AlexNet | model.MLP


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels of the network's input that a unit sees.

    `size` is the side of the square in pixels and `stride` how far apart those of neighbouring units lie, both as if
    the photo had no border. `spans` has for each row of units, or column, the first and the last pixel of the photo
    that it sees; where it sees none but padding, the first is the larger.
    """

    size: int
    stride: int
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Row(Layer):
    """A layer with the shape that it reads, what it does in a few words, and what its units see."""

    reads: tuple[int, ...]
    settings: str
    field: ReceptiveField
    window: tuple[int, int, int] | None  # kernel, stride and padding of a convolution or a pooling
    groups: int
    idle: bool  # whether it leaves the numbers of an answer as they are


def rows(network: Network, image_size: int) -> list[Row]:
    """The layers of `network` in order, for photos of `image_size` px; it may be on the meta device.

    Hold the lock of a network that others may be using.
    """
    seen, found = receptive_fields(network, image_size), []
    reads: tuple[int, ...] = (3, image_size, image_size)
    for (name, layer), row in zip(network.layers(), model.layer_table(network, image_size), strict=True):
        # An adaptive pooling that has nothing to pool passes its maps on.
        idle = isinstance(layer, IDLE) or (isinstance(layer, nn.AdaptiveAvgPool2d) and row.shape == reads)
        more: dict[str, Any] = {"window": _window(layer), "groups": getattr(layer, "groups", 1), "idle": idle}
        found.append(Row(**vars(row), reads=reads, settings=settings(layer), field=seen[name], **more))
        reads = row.shape
    return found


def settings(layer: nn.Module) -> str:
    """What a layer does in a few words, such as `96 kernels of 11 × 11 × 3, stride 4`; empty for one without settings."""
    match layer:
        case nn.Conv2d():
            side = " × ".join(map(str, (*layer.kernel_size, layer.in_channels // layer.groups)))
            extra = {"stride": layer.stride[0], "padding": layer.padding[0], "groups": layer.groups}
            usual = {"stride": 1, "padding": 0, "groups": 1}
            words = [f"{name} {value}" for name, value in extra.items() if value != usual[name]]
            return ", ".join([f"{layer.out_channels} kernels of {side}", *words])
        case nn.Linear():
            return f"{layer.in_features:,} inputs, {layer.out_features:,} units"
        case nn.MaxPool2d() | nn.AvgPool2d():
            return f"{layer.kernel_size} × {layer.kernel_size}, stride {layer.stride}"
        case nn.AdaptiveAvgPool2d():
            return f"to {_side(layer.output_size)} × {_side(layer.output_size)}"
        case model.LocalResponseNorm():
            paper = f"k {layer.K:g}, n {layer.SIZE}, α {layer.ALPHA:g}, β 0.75"
            return f"{paper}, {layer.groups} groups" if layer.groups > 1 else paper
        case nn.Dropout():
            return f"{layer.p:.0%} silenced in training"
    return ""


def output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Places along a side of `size` where a kernel fits; 0 or less where it does not.

    Dumoulin and Visin 2016 (arXiv 1603.07285), relationship 6.
    """
    return (size + 2 * padding - kernel) // stride + 1


def receptive_fields(network: Network, image_size: int) -> dict[str, ReceptiveField]:
    """What the units of each layer see of a photo of `image_size` px; all kernels are taken to be square."""
    found, field = {}, ReceptiveField(1, 1, tuple((i, i) for i in range(image_size)))
    for name, layer in network.layers():
        field = found[name] = _field_after(layer, field)
    return found


def _field_after(layer: nn.Module, below: ReceptiveField) -> ReceptiveField:
    """What the units of `layer` see where those that it reads see `below`."""
    count = len(below.spans)
    if isinstance(layer, nn.Flatten | nn.Linear):
        span = _union(below.spans)
        return ReceptiveField(span[1] - span[0] + 1, 0, (span,))
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        places = _side(layer.output_size)
        windows = [(i * count // places, -(-(i + 1) * count // places)) for i in range(places)]
        kernel, stride = max(end - start for start, end in windows), count // places
    elif window := _window(layer):
        kernel, stride, padding = window
        starts = [i * stride - padding for i in range(output_size(count, kernel, stride, padding))]
        windows = [(max(start, 0), max(start + kernel, 0)) for start in starts]
    else:
        return below
    spans = tuple(_union(below.spans[start:end]) for start, end in windows)
    return ReceptiveField(below.size + (kernel - 1) * below.stride, below.stride * stride, spans)


def _window(layer: nn.Module) -> tuple[int, int, int] | None:
    """Kernel, stride and padding of a layer that looks through a window, along one side."""
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return None
    return _side(layer.kernel_size), _side(layer.stride), _side(layer.padding)


def _side(value: Any) -> int:
    """Of a number of pixels, or of two, for height and width."""
    return value if isinstance(value, int) else value[0]


def _union(spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The span from the first to the last pixel of those that hold any."""
    seen = [span for span in spans if span[0] <= span[1]]
    return (min(first for first, _ in seen), max(last for _, last in seen)) if seen else (0, -1)


def activations(classifier: Classifier, photo: Image.Image) -> dict[str, np.ndarray]:
    """What each layer puts out for an upright RGB photo, one view of it: float32 `(C, H, W)`, or `(units,)`.

    In the order of the layers; before them, as `PHOTO`, what the network is given.
    """
    with classifier.lock, torch.inference_mode():
        x = classifier.prepare([photo])
        found = {PHOTO: x, **dict(_through(classifier.model, x))}  # type: ignore[arg-type]  # a whole network
        return {name: output[0].float().cpu().numpy() for name, output in found.items()}


def _through(network: Network, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The output of each layer on the way of `x` `(N, 3, H, W)` through a network in its evaluation mode."""
    for name, layer in network.layers():
        x = layer(x)
        yield name, x


def source_of(name: str, table: Sequence[Row]) -> str:
    """Whose numbers the layer `name` of `table` reads: those of the last layer before it that changes any, or `PHOTO`."""
    before = [row.name for row in table[: [row.name for row in table].index(name)] if not row.idle]
    return before[-1] if before else PHOTO


def order(maps: np.ndarray, by: str) -> list[int]:
    """The units of `maps` `(C, H, W)` or `(units,)`, strongest first by their `mean` or `maximum`, or as they are: `number`."""
    flat = maps.reshape(len(maps), -1)
    if by == "number":
        return list(range(len(flat)))
    strength = flat.mean(axis=1) if by == "mean" else flat.max(axis=1)
    return np.argsort(-strength, kind="stable").tolist()


def filters(network: Network) -> np.ndarray | None:
    """The kernels of the first convolution, float32 `(C, 3, k, k)`, or None where the network has none."""
    first = next((layer for _, layer in network.layers() if isinstance(layer, nn.Conv2d)), None)
    return None if first is None else first.weight.detach().float().cpu().numpy()


@dataclass(frozen=True)
class Arithmetic:
    """How one unit at one place comes to its number: float64 throughout.

    `patch` and `kernel` are `(maps, k, k)`, `inputs` says which maps of the layer below they belong to. Of a fully
    connected layer each input is a map of one pixel.
    """

    inputs: range
    patch: np.ndarray
    kernel: np.ndarray
    bias: float

    @property
    def products(self) -> np.ndarray:
        """Patch times kernel, place by place: `(maps, k, k)`."""
        return self.patch * self.kernel

    @property
    def sums(self) -> np.ndarray:
        """The products of each map, added up: `(maps,)`."""
        return self.products.sum(axis=(1, 2))

    @property
    def total(self) -> float:
        """All the sums and the bias: what the unit puts out."""
        return float(self.sums.sum()) + self.bias


def arithmetic(layer: nn.Module, below: np.ndarray, unit: int, row: int = 0, column: int = 0) -> Arithmetic | None:
    """How `unit` of `layer` comes to its number, at this row and column of its map.

    Args:
        layer: a convolution or a fully connected layer; of any other the answer is None.
        below: what the layer reads, `(C, H, W)` or, for a fully connected one, numbers of any shape.
        unit: 0 to the layer's outputs.
        row: of the unit's map.
        column: of the unit's map.
    """
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        return None
    kernel = layer.weight[unit].detach().double().cpu().numpy()
    bias = 0.0 if layer.bias is None else layer.bias[unit].item()
    if isinstance(layer, nn.Linear):
        numbers = below.astype(np.float64).reshape(-1, 1, 1)
        return Arithmetic(range(len(kernel)), numbers, kernel[:, None, None], bias)
    group = unit // (layer.out_channels // layer.groups)
    inputs = range(group * len(kernel), (group + 1) * len(kernel))
    padding, stride, (height, width) = int(layer.padding[0]), layer.stride[0], layer.kernel_size
    padded = np.pad(below[inputs.start : inputs.stop].astype(np.float64), ((0, 0), *((padding, padding),) * 2))
    top, left = row * stride, column * stride
    return Arithmetic(inputs, padded[:, top : top + height, left : left + width], kernel, bias)


@dataclass(frozen=True)
class Strongest:
    """For each unit of a layer the photos that excite it most, strongest first, and where in them.

    All `(units, k)`: `values` float32, the largest of the unit's map; `photos` and `places` int64, the photo's index and
    the place in the flattened map.
    """

    values: np.ndarray
    photos: np.ndarray
    places: np.ndarray


def strongest(
    classifier: Classifier, dataset: Dataset, photos: Sequence[Photo], progress: Progress | None = None
) -> dict[str, Strongest]:
    """The `STRONGEST` of `photos` for every unit of every layer, in one pass over them.

    Zeiler and Fergus 2014 (arXiv 1311.2901), section 2.1, show units by such photos.

    Args:
        classifier: its lock is held for a batch at a time, so that others wait for no more than that.
        dataset: that of the photos.
        photos: at least one.
        progress: told what is being done, how much of it, of how much; what it raises ends the work.

    Raises:
        DataError: a photo can no longer be read.
    """
    best: dict[str, tuple[Tensor, ...]] = {}

    def crop(photo: Photo) -> Image.Image:
        try:
            return classifier.transform.view(dataset.open(photo, at_least=classifier.transform.resize))
        except PhotoError as error:
            raise DataError(f"A photo of {dataset.name} changed while it was read: {error}") from None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(photos), AT_ONCE):
            images = classifier.transform.stack(list(pool.map(crop, photos[start : start + AT_ONCE])))
            with classifier.lock, torch.inference_mode():
                for name, output in _through(
                    classifier.model,  # type: ignore[arg-type]  # a whole network
                    classifier.transform.normalize(images.to(classifier.device)),
                ):
                    best[name] = _stronger(
                        best.get(name), output.flatten(2) if output.ndim > 2 else output[..., None], start
                    )
            if progress:
                progress("Looking for the photos that excite the units", start + len(images), len(photos))
    return {name: Strongest(*(part.cpu().numpy() for part in parts)) for name, parts in best.items()}


def _stronger(best: tuple[Tensor, ...] | None, output: Tensor, start: int) -> tuple[Tensor, ...]:
    """The strongest of those so far and of a batch `(N, units, places)` whose first photo is number `start`."""
    values, places = (part.T for part in output.max(dim=2))
    numbers = torch.arange(start, start + len(output), device=output.device).expand_as(places)
    found: tuple[Tensor, ...] = (values.float(), numbers, places)
    if best is not None:
        found = tuple(torch.cat(pair, dim=1) for pair in zip(best, found, strict=True))
    values, chosen = found[0].topk(min(STRONGEST, found[0].shape[1]), dim=1)
    return values, found[1].gather(1, chosen), found[2].gather(1, chosen)


@dataclass(frozen=True)
class Difference:
    """What two networks, or their recipes, do not have in common; None where one lacks it."""

    what: str
    before: str | None
    after: str | None


def layer_differences(before: Sequence[Row], after: Sequence[Row]) -> list[Difference]:
    """The layers that differ by what they are or do, in the order of a photo, and what all of them come to."""
    old, new = ({row.name: _in_words(row) for row in table} for table in (before, after))
    names = list(new)
    for place, name in enumerate(old):  # one that only the first has comes where it was, after the same layer
        if name not in new:
            names.insert(next((names.index(n) + 1 for n in reversed(list(old)[:place]) if n in names), 0), name)
    found = [Difference(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]
    for what in ("parameters", "multiply_adds"):
        counts = [f"{sum(getattr(row, what) for row in table):,}" for table in (before, after)]
        if counts[0] != counts[1]:
            found.append(Difference(what, *counts))
    return found


def _in_words(row: Row) -> str:
    return f"{kind_of(row.kind)}: {row.settings}" if row.settings else kind_of(row.kind)


KINDS = {
    "Conv2d": "convolution",
    "ReLU": "ReLU",
    "BatchNorm2d": "batch norm",
    "LocalResponseNorm": "local response norm",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "MaxPool2d": "max pooling",
    "AvgPool2d": "average pooling",
    "AdaptiveAvgPool2d": "average pooling",
    "Linear": "fully connected",
    "Dropout": "dropout",
    "Flatten": "flatten",
}


def kind_of(kind: str) -> str:
    """What the field calls a layer of the class `kind`, such as `convolution` for `Conv2d`."""
    return KINDS.get(kind, kind)


def recipe_differences(before: Recipe, after: Recipe, names: Iterable[str]) -> list[tuple[str, object, object]]:
    """Of the settings `names` those in which two recipes differ: name and both values."""
    pairs = [(name, getattr(before, name), getattr(after, name)) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def paper_rows() -> list[Row]:
    """The layers of the network of 2012, without its weights."""
    with torch.device("meta"):
        network = model.from_recipe(PAPER, PAPER_CLASSES)
    return rows(network, PAPER.image_size)


def local_response(values: Sequence[float], size: int, k: float, alpha: float, beta: float) -> list[float]:
    """Local response normalisation across maps of the activations at one place (2012, section 3.3), `alpha` as there."""
    layer = nn.LocalResponseNorm(size, alpha=alpha * size, beta=beta, k=k)
    return layer(torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)).flatten().tolist()


def pool(values: np.ndarray, window: int, stride: int) -> tuple[np.ndarray, set[tuple[int, int]]]:
    """The maxima of each window of `values` `(H, W)`, and the places `(row, column)` that they come from."""
    layer = nn.MaxPool2d(window, stride, return_indices=True)
    out, places = layer(torch.from_numpy(values)[None, None].double())
    return out[0, 0].numpy(), {divmod(place, values.shape[1]) for place in places.flatten().tolist()}


_drawing = threading.Lock()


def dropout(values: Sequence[float], share: float, seed: int, draws: int = 1) -> np.ndarray:
    """`draws` times what training makes of `values` with a dropout of `share`: `(draws, values)`."""
    layer = nn.Dropout(share).train()
    # The layer draws from the process's generator, which another session's draw must not move meanwhile.
    with _drawing, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return layer(torch.tensor(values, dtype=torch.float64).expand(draws, -1)).numpy()
