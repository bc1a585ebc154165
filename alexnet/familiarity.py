"""Familiarity: whether a photo shows what the network was trained on, or something else of which it should say nothing.

A small head reads the activations of the hidden fully connected layers, fc6 and fc7, and tells photos from outliers
(outlier exposure, Hendrycks et al. 2019, arXiv 1812.04606, but as a head, so that the network stays as it is). No photos
of anything else are needed: an outlier is put together from the background of training photos, in the maps that enter
fc6, where it costs no pass through the convolutions and brings none of the blur of enlarged pixels (VOS, Du et al. 2022,
arXiv 2202.01197, also makes its outliers of features).

What a score means is left to validation photos: its familiarity is the conformal p-value of the photo being one of them
(Bates et al. 2023, arXiv 2104.08279), so that at least 95 % of them are kept whatever the head has learnt.

Compared on the shipped network of 2026-11-20, one view of each photo: 1,250 validation photos of Dogs vs. Cats against
650 pictures made of training photos (shuffled, enlarged, textures, noise, drawings, text) and against 540 photos of
Imagenette without its dogs. Nothing was fitted to Imagenette, but this method was chosen by it, among about two
hundred variants, so that its figure is on the high side. The made pictures would choose another: heads that were fitted to
pictures of these very kinds lead on them, and not on photos. AUROC:

    score                                                  made   Imagenette
    max softmax (Hendrycks and Gimpel 2017)                0.868   0.816
    energy (Liu et al. 2020)                               0.853   0.793
    norm of fc7                                            0.832   0.845
    10 nearest neighbours in fc7 (Sun et al. 2022)         0.899   0.826
    10 nearest neighbours in fc6                           0.903   0.844
    10 nearest neighbours in the maxima of pool5           0.918   0.839
    Mahalanobis, means of pool5 (Lee et al. 2018)          0.821   0.716
    relative Mahalanobis, the same (Ren et al. 2021)       0.842   0.768
    ViM in fc6 (Wang et al. 2022)                          0.847   0.737
    ReAct at 98 % and energy (Sun et al. 2021)             0.829   0.742
    ASH-S at 65 % and energy (Djurisic et al. 2023)        0.860   0.807
    norm of fc7 + neighbours in fc6 and pool5, z-scored    0.930   0.867
    head on fc7, outliers made of pixels                   0.954   0.822
    head on means and maxima of pool5, the same            0.969   0.821
    head on fc6, backgrounds recombined in pool5           0.930   0.867
    head on fc6 and fc7, the same                          0.936   0.881

As built here, fitted to 2,000 training photos, all 2,500 validation photos, both views: 0.871 on Imagenette. What
`python -m alexnet evaluate --neither` measures is this one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from alexnet import runs, weights
from alexnet.model import MLP, AlexNet

FILE = "familiarity.safetensors"
METHOD = "head on the hidden fully connected layers"
ABSTAIN = 0.05  # the familiarity below which a photo counts as neither; as many real photos are lost at most
FEWEST, MOST = 50, 2000  # training photos that a head is fitted to
UNITS = 32  # of the head's hidden layer
SOURCES = 3  # photos, at most, whose backgrounds an outlier is put together from
BACKGROUND = 0.4  # of a photo's cells, those that say least about its class, count as background
EPOCHS, STEPS = 8, 100  # over the training photos; where those are few, so many steps at least
QUANTILES = 10_000  # of the scores of validation photos are kept, all of them where there are fewer


def neither(classes: Sequence[str]) -> str:
    """What a photo is called that looks like none of `classes`: "neither a cat nor a dog"."""
    if len(classes) != 2:
        return f"none of the {len(classes)} classes"
    return "neither " + " nor ".join(f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}" for name in classes)


@dataclass(frozen=True)
class Familiarity:
    """The head, and the scores that it gave to validation photos."""

    hidden: Tensor  # (UNITS, width) float16
    hidden_bias: Tensor  # (UNITS,) float32
    output: Tensor  # (UNITS,) float32
    reference: Tensor  # (n,) float32, ascending

    def score(self, descriptors: Tensor) -> Tensor:
        """How familiar photos look, from what `describe` says of them: `(N, width)` to `(N,)`, without a unit."""
        hidden = F.relu(descriptors.float() @ self.hidden.float().T + self.hidden_bias)
        return hidden @ self.output

    def share(self, scores: Tensor) -> Tensor:
        """The share `(N,)`, 0 to 1, of validation photos that look less familiar, the photo itself counted among them."""
        below = torch.searchsorted(self.reference, scores.float())
        return (1 + below) / (1 + len(self.reference))

    @property
    def threshold(self) -> float:
        """The lowest score of a validation photo that is kept."""
        return self.reference[max(0, math.ceil(ABSTAIN * (len(self.reference) + 1)) - 1)].item()

    def referring_to(self, scores: Tensor) -> Familiarity:
        """This head with the scores `(n,)` of validation photos to compare with."""
        wanted = torch.linspace(0, 1, min(len(scores), QUANTILES), dtype=torch.float64)
        # Not torch.quantile, which refuses more than 16 million.
        ranks = (wanted * (len(scores) - 1)).round().long()
        return replace(self, reference=scores.float().sort().values[ranks].clone())

    def tensors(self) -> dict[str, Tensor]:
        """All that it is made of, by name."""
        return dict(vars(self))

    def to(self, device: torch.device) -> Familiarity:
        """The same with its head on `device`; scores are compared on the CPU."""
        moved = {name: tensor.to(device) for name, tensor in vars(self).items() if name != "reference"}
        return replace(self, **moved)


def from_tensors(tensors: dict[str, Tensor]) -> Familiarity:
    """What `Familiarity.tensors` gave.

    Raises:
        ValueError: the tensors are others, or do not fit together.
    """
    if tensors.keys() != Familiarity.__annotations__.keys():
        raise ValueError("other tensors")
    hidden, units = tensors["hidden"], (len(tensors["hidden"]),)
    fits = tensors["hidden_bias"].shape == tensors["output"].shape == units and tensors["reference"].ndim == 1
    if hidden.ndim != 2 or not fits or not all(t.numel() and t.isfinite().all() for t in tensors.values()):
        raise ValueError("tensors that do not fit together")
    return Familiarity(**tensors)


def save(folder: Path, familiarity: Familiarity) -> None:
    """Write the file of the run in `folder`; raises WeightsError where that cannot be done."""
    weights.save(folder / FILE, familiarity.tensors())


def load(folder: Path, width: int) -> Familiarity | None:
    """The familiarity of the run in `folder`, or None where it has none.

    Args:
        folder: of the run.
        width: of the descriptors of its network.

    Raises:
        RunError: its file is damaged or of another network.
    """
    try:
        familiarity = from_tensors(load_file(folder / FILE))
        if familiarity.hidden.shape[1] != width:
            raise ValueError("of another network")
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError):
        raise runs.RunError(f"The {FILE} of {folder.name} cannot be read; restore the file or delete it.") from None
    return familiarity


def width(network: AlexNet | MLP) -> int:
    """The length of the descriptors of `network`: units in its hidden fully connected layers."""
    *hidden, _ = (layer for layer in network.classifier if isinstance(layer, nn.Linear))
    return sum(layer.out_features for layer in hidden)


def pooled(network: AlexNet, x: Tensor) -> Tensor:
    """The maps that enter fc6, `(N, 256, 6, 6)` by default, of normalised photos `(N, 3, H, W)`."""
    return network.avgpool(network.features(x))


def describe(network: AlexNet, maps: Tensor) -> tuple[Tensor, Tensor]:
    """From the maps that enter fc6 the activations of the hidden layers, `(N, width)`, and the network's output."""
    x, activations = maps.flatten(1), []
    for layer in network.classifier:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            activations.append(x)
    return torch.cat(activations, dim=1), x


def fit(network: AlexNet | MLP, batches: Iterable[Tensor]) -> Familiarity | None:
    """A head for `network`, which is in evaluation mode, without scores to refer to yet; the same for the same photos.

    Args:
        network: stays as it is.
        batches: of training photos, normalised, `(n, 3, H, W)` float32 on the network's device; `FEWEST` to `MOST` in all.

    Returns:
        None where there are fewer than `FEWEST`, or the network has no maps that outliers could be put together from.
    """
    if isinstance(network, MLP) or network.avgpool.output_size == (1, 1):  # the one cell of an outlier would be a photo
        return None
    parts = []
    for x in batches:
        with torch.no_grad():
            maps = pooled(network, x)
        parts.append((maps.cpu(), evidence(network, maps).cpu()))
    if sum(len(maps) for maps, _ in parts) < FEWEST:
        return None
    maps, found = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    outliers = recombine_backgrounds(maps, found, torch.Generator().manual_seed(0))
    return fit_head(_descriptors(network, maps), _descriptors(network, outliers))


@torch.no_grad()
def _descriptors(network: AlexNet, maps: Tensor) -> Tensor:
    device = next(network.parameters()).device
    return torch.cat([describe(network, part.to(device))[0].cpu() for part in maps.split(128)])


def evidence(network: AlexNet, maps: Tensor) -> Tensor:
    """How much each cell of `maps` (N, C, H, W) moves the answer, `(N, H * W)`: activation times gradient of the widest
    distance between two logits, the channels' magnitudes added up."""
    with torch.enable_grad():
        x = maps.detach().clone().requires_grad_()
        output = describe(network, x)[1]
        spread = output.amax(1) - output.amin(1) if output.shape[1] > 1 else output.abs()
        (gradient,) = torch.autograd.grad(spread.sum(), x)
    return (gradient * maps).abs().sum(1).flatten(1)


def recombine_backgrounds(maps: Tensor, found: Tensor, generator: torch.Generator) -> Tensor:
    """An outlier for each photo: maps whose every cell is a background cell of it or of up to two other photos.

    Args:
        maps: `(N, C, H, W)`.
        found: `(N, H * W)`, the evidence in each cell.
        generator: of the random choices, on the CPU.
    """
    count, cells = found.shape
    background = found.argsort(dim=1, stable=True)[:, : max(1, round(BACKGROUND * cells))]
    photos = torch.randint(count, (count, SOURCES), generator=generator)
    photos[:, 0] = torch.arange(count)
    sources = torch.randint(1, SOURCES + 1, (count, 1), generator=generator)  # how many of them are used
    chosen = (torch.rand(count, cells, generator=generator) * sources).long()
    photo = photos.gather(1, chosen)
    cell = background[photo, torch.randint(background.shape[1], (count, cells), generator=generator)]
    return maps.flatten(2).transpose(1, 2)[photo, cell].transpose(1, 2).reshape(maps.shape)


def fit_head(inside: Tensor, outside: Tensor) -> Familiarity:
    """The head that tells descriptors `(N, D)` of photos from those of outliers `(M, D)`; the global random state stays."""
    mean, deviation = inside.mean(0), inside.std(0)
    deviation = deviation.clamp(min=max(0.1 * deviation.mean().item(), 1e-3))  # units that hardly ever fire
    x = (torch.cat([inside, outside]) - mean) / deviation
    y = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, last = nn.Linear(x.shape[1], UNITS), nn.Linear(UNITS, 1)
        _train(nn.Sequential(first, nn.ReLU(), nn.Dropout(0.5), last), x, y)
    hidden = (first.weight.detach() / deviation).half()
    bias = first.bias.detach() - hidden.float() @ mean
    return Familiarity(hidden, bias, last.weight.detach()[0].clone(), torch.zeros(1))


def _train(head: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.3)
    for _ in range(max(EPOCHS, math.ceil(STEPS * 128 / len(x)))):
        for batch in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(head(x[batch])[:, 0], y[batch]).backward()
            optimizer.step()
