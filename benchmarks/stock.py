"""The stock way to train a classifier: the loop of torchvision's `references/classification`.

ImageFolder, DataLoader, torchvision's transforms on single photos, and eager float32. As fast as that script is meant
to be: a worker for each core, pinned memory and cuDNN's search for the fastest algorithm where there is a GPU.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from alexnet import model
from alexnet.augment import ASPECT
from alexnet.recipes import Recipe
from alexnet.runs import MEAN, STD
from benchmarks import measure
from benchmarks.measure import Side

ENDLESS = 10**9  # photos


def to_tensor() -> list[Callable]:
    """How the reference ends each of its transforms: to float32, normalised."""
    return [transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float), transforms.Normalize(MEAN, STD)]


def training_transform(recipe: Recipe) -> transforms.Compose:
    """The reference's training transform (`presets.py`), with the crops, flips and colours of `recipe`."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(recipe.image_size, scale=(recipe.crop_scale, 1.0), ratio=ASPECT),
            transforms.RandomHorizontalFlip(0.5 if recipe.flip else 0.0),
            transforms.ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation),
            *to_tensor(),
        ]
    )


def read_once(folder: Path, side: int, batch_size: int) -> None:
    """Read every photo of `folder`, scaled to a square of `side` px, (N, 3, side, side) uint8 a batch."""
    square = transforms.Compose([transforms.Resize((side, side)), transforms.PILToTensor()])
    for _ in DataLoader(ImageFolder(str(folder), square), batch_size, num_workers=measure.cores()):
        pass


class GatedFolder(ImageFolder):
    """An ImageFolder that hands out photos while its `gate` is open and keeps the others waiting."""

    def __init__(self, folder: Path, transform: Callable) -> None:
        super().__init__(str(folder), transform)
        self.gate = multiprocessing.Event()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The photo and its label. A worker whose parent was killed waits no longer."""
        while not self.gate.wait(1.0) and multiprocessing.parent_process().is_alive():
            pass
        return super().__getitem__(index)


class Batches:
    """Endless batches of the photos in a folder of one folder per class, made by a worker for each core.

    The workers stand still but within `at_work`. Otherwise they would fill their queue while the other side is
    measured: cores taken from it, and batches made that no clock has seen.
    """

    def __init__(self, folder: Path, transform: Callable, batch_size: int, device: torch.device) -> None:
        self._photos = GatedFolder(folder, transform)
        loader = DataLoader(
            self._photos,
            batch_size=batch_size,
            sampler=RandomSampler(self._photos, num_samples=ENDLESS),  # one random order after the other
            num_workers=measure.cores(),
            pin_memory=device.type == "cuda",
        )
        self._iterator = iter(loader)

    def __next__(self) -> tuple[Tensor, Tensor]:
        """Images (N, 3, S, S) float32 and labels (N,) int64, on the CPU."""
        return next(self._iterator)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Within, the workers work."""
        self._photos.gate.set()
        try:
            yield
        finally:
            self._photos.gate.clear()

    def close(self) -> None:
        """End the workers."""
        self._photos.gate.set()
        del self._iterator


class Trainer:
    """The network and the optimizer of `recipe`, trained as the reference's `train_one_epoch` does."""

    def __init__(self, recipe: Recipe, classes: int, device: torch.device) -> None:
        torch.backends.cudnn.benchmark = True  # as the reference does
        self.device = device
        self.network = model.from_recipe(recipe, classes).to(device).train()
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.lr / 25,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
        )

    def step(self, images: Tensor, labels: Tensor) -> tuple[float, float]:
        """One update; the loss and the accuracy, which the reference reads at each step."""
        images, labels = images.to(self.device), labels.to(self.device)
        output = self.network(images)
        loss = self.criterion(output, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        accuracy = (output.argmax(1) == labels).float().mean()
        return loss.item(), accuracy.item()


@contextlib.contextmanager
def training(recipe: Recipe, classes: int, folder: Path, batch_size: int, device: torch.device) -> Iterator[Side]:
    """Training on the photos in `folder`, end to end."""
    trainer = Trainer(recipe, classes, device)
    with contextlib.closing(Batches(folder, training_transform(recipe), batch_size, device)) as batches:
        yield Side(lambda: trainer.step(*next(batches)), batches.at_work)


@contextlib.contextmanager
def stepping(recipe: Recipe, classes: int, batch_size: int, device: torch.device) -> Iterator[Side]:
    """The step alone, on random numbers."""
    trainer = Trainer(recipe, classes, device)
    images = torch.randn(batch_size, 3, recipe.image_size, recipe.image_size, device=device)
    labels = torch.randint(classes, (batch_size,), device=device)
    yield Side(lambda: trainer.step(images, labels))
