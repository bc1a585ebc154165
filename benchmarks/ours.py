"""Our side of the training benchmarks: a real run, in a temporary home, on links to some photos of a dataset."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets.folder import IMG_EXTENSIONS

from alexnet import data, inputs, model, runs, train
from alexnet.augment import draw
from alexnet.distributed import ALONE
from alexnet.hardware import choose_device, choose_hardware, keep_freed_memory
from alexnet.recipes import Recipe
from alexnet.runs import Reporter, Status
from benchmarks import measure
from benchmarks.measure import Side

VAL_EVERY = 10  # one photo in so many validates
LEAST_PHOTOS = 3  # of a class: one validates, and a class needs two to train on


@dataclass(frozen=True)
class Bench:
    """What both sides work on."""

    dataset: data.Dataset
    train_folder: Path  # the training photos, in a folder per class, as ImageFolder wants them
    train_photos: list[data.Photo]  # the same ones


@contextlib.contextmanager
def bench(data_name: str, photos: int) -> Iterator[Bench]:
    """At most `photos` photos of a dataset, evenly over its classes, linked into a home that is gone afterwards.

    Raises:
        DataError: the dataset cannot be used, or there are too few photos of a class that ImageFolder can read.
    """
    source = data.load(data_name, measure.show_progress)
    with tempfile.TemporaryDirectory(prefix="alexnet-benchmark-") as folder, _home(Path(folder)):
        _link(source, photos, Path(folder) / "photos")
        linked = data.load(str(Path(folder) / "photos"))
        chosen = data.split(linked, Recipe())["train"]
        yield Bench(linked, Path(folder) / "photos" / "train", chosen)


def _link(source: data.Dataset, photos: int, folder: Path) -> None:
    """Both sides read these links: ImageFolder knows neither Kaggle's file names nor HEIC."""
    readable = [photo for photo in source.photos if photo.path.lower().endswith(IMG_EXTENSIONS)]
    for label, name in enumerate(source.classes):
        members = [photo for photo in readable if photo.label == label]
        count = min(len(members), photos // len(source.classes))
        if count < LEAST_PHOTOS:
            raise data.DataError(f"{count} photos of {name} are too few to train on; give more, or raise --photos.")
        for number in range(count):
            photo = members[number * len(members) // count]
            split = "val" if number % VAL_EVERY == 0 else "train"
            link = folder / split / name / f"{number:06}{Path(photo.path).suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source.root / photo.path)


@contextlib.contextmanager
def _home(folder: Path) -> Iterator[None]:
    """Within, runs and caches are in `folder`."""
    before = os.environ.get("ALEXNET_HOME")
    os.environ["ALEXNET_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["ALEXNET_HOME"]
        if before is not None:
            os.environ["ALEXNET_HOME"] = before


def open_session(recipe: Recipe, dataset: data.Dataset) -> train.Session:
    """A run of `recipe` on `dataset`, opened as the trainer opens it: photos cached, network compiled and tried."""
    keep_freed_memory()
    run = runs.create(recipe, str(dataset.root), dataset)
    reporter = Reporter(run, Status(state="starting", epochs=recipe.epochs))
    photos = train.load_photos(run, reporter)
    kind, _ = choose_device(recipe)
    hardware = choose_hardware(recipe, kind, photos=len(photos.train_images))
    return train.open_session(run, photos, hardware, reporter, ALONE)


def batches(session: train.Session) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches as `train_one_epoch` reads them: indices (N,) on the CPU, photos (N, 3, S, S) on the device."""
    read = inputs.reader(session.photos.train_images, session.hardware.device)
    return inputs.ahead(read, _plan(len(session.photos.train_images), session.batch))


def _plan(photos: int, batch: int) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(photos)[: photos // batch * batch].split(batch)


def augmented(session: train.Session, chosen: Tensor, images: Tensor) -> Tensor:
    """A batch after the training transform: what the network is given."""
    choices = draw(session.recipe, session.photos.train_sizes[chosen], torch.Generator())
    return session.augment(images, choices, session.recipe.image_size, session.hardware.dtype)


def step_alone(session: train.Session) -> Callable[[], None]:
    """The trainer's own step on a batch that lies ready, augmented: nothing is read and nothing is transformed."""
    reading = batches(session)
    chosen, images = next(reading)
    reading.close()
    ready = augmented(session, chosen, images)
    without_input = dataclasses.replace(session, augment=lambda images, *_: ready[: len(images)])
    return lambda: train.train_step(without_input, chosen, images)


def settings(session: train.Session, data_name: str, rounds: int) -> dict[str, Any]:
    """What was measured, how often, and on what."""
    return {
        "data": data_name,
        "photos": len(session.photos.train_images),
        "batch_size": session.batch,
        "image_size": session.recipe.image_size,
        "hardware": str(session.hardware),
        "rounds": rounds,
        "machine": measure.machine(session.hardware.device),
    }


def share_of_matmul(session: train.Session, images_per_s: float) -> dict[str, float | None]:
    """The rate of a large bfloat16 matrix product, in TFLOP/s, and the share of it that training at this speed uses.

    Not measured where the session computes in float32: a CPU without the instructions takes ages for bfloat16.
    """
    if not session.hardware.bfloat16:
        return {"matmul_tflops": None, "share_of_matmul": None}
    rate = _matmul_rate(session.hardware.device)
    used = images_per_s * training_flops(session.recipe, len(session.photos.dataset.classes))
    return {"matmul_tflops": rate / 1e12, "share_of_matmul": used / rate}


def training_flops(recipe: Recipe, classes: int) -> int:
    """Floating-point operations of one photo's forward and backward pass; a multiply-add counts as two."""
    with torch.device("meta"):
        network = model.from_recipe(recipe, classes)
        photos = torch.zeros(2, 3, recipe.image_size, recipe.image_size)
    with FlopCounterMode(display=False) as counter:
        network(photos).sum().backward()
    return counter.get_total_flops() // len(photos)


def _matmul_rate(device: torch.device) -> float:
    """Floating-point operations a second."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    product = Side(lambda: a @ b)
    measure.time_turn(product, device, seconds=0.2)  # warms up
    return 2 * side**3 / measure.time_turn(product, device, seconds=1.0)


def turn_seconds(device: torch.device) -> float:
    """How long a side's turn in training is: on a CPU one step, on a GPU enough for workers that come in bursts."""
    return 1.0 if device.type == "cpu" else 4.0
