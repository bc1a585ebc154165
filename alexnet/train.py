"""Training: the hardware, the photos, `train_one_epoch`, `evaluate_split` and `fit`.

Every random draw follows from the seed and the number of the step alone, and a checkpoint holds all the rest, so a run
that was stopped or killed goes on exactly where its last checkpoint left it.
"""

from __future__ import annotations

import contextlib
import csv
import os
import pickle
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alexnet import data, model, runs, weights
from alexnet.augment import CACHE_SIDE, EvalTransform, augment, draw, to_square
from alexnet.evaluate import averaged_logits, batches, class_logits, score
from alexnet.recipes import Recipe, learning_rate
from alexnet.runs import Reporter, Run, Stopped

CHECKPOINT_SECONDS = 300.0  # between checkpoints within a long epoch
RECORDS_PER_EPOCH = 20  # points that the training curve gains within an epoch
COMPILE_PAYS_FROM = 5_000  # photos to train on, over all epochs; with fewer, compiling costs more than it saves


class TrainingError(RuntimeError):
    """Training cannot go on; the text is one sentence that says why and what to try."""


@dataclass(frozen=True)
class Hardware:
    """Where and how to compute."""

    device: torch.device
    bfloat16: bool
    compile: bool

    def autocast(self) -> torch.autocast:
        """The context for forward passes."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    def __str__(self) -> str:
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else self.device.type.upper()
        return ", ".join([name, "bfloat16" if self.bfloat16 else "float32", *["compiled"] * self.compile])


@dataclass(frozen=True)
class HeldOut:
    """The photos of a split as the network is given them: `(N, 3, S, S)` uint8, `(N,)` labels, and their files."""

    images: np.ndarray
    labels: Tensor
    files: tuple[str, ...]


@dataclass(frozen=True)
class Photos:
    """What a run trains on (`(N, 3, CACHE_SIDE, CACHE_SIDE)` uint8, labels, sizes before squashing) and what it holds out."""

    classes: tuple[str, ...]
    train: np.ndarray
    labels: Tensor
    sizes: Tensor
    held_out: dict[str, HeldOut]  # "val" and, unless it is empty, "test"


@dataclass
class Progress:
    """How far a run has come. The sums are (loss, correct, photos), of the epoch and since the last record."""

    epoch: int = 0  # finished
    step: int = 0  # finished, over all epochs
    seconds: float = 0.0  # spent, over all sittings
    best: dict[str, Any] | None = None
    epoch_sums: Tensor = field(default_factory=lambda: torch.zeros(3))
    record_sums: Tensor = field(default_factory=lambda: torch.zeros(3))


@dataclass
class State:
    """All that changes while training."""

    model: model.AlexNet
    ema: AveragedModel | None
    optimizer: torch.optim.Optimizer
    progress: Progress


# ---------------------------------------------------------------------------------------------------- before training


def choose_device(recipe: Recipe) -> torch.device:
    """The device that the recipe names, or for `auto` the best one here.

    Raises:
        TrainingError: the recipe names a device that is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(d for d in here if here[d]) if recipe.device == "auto" else recipe.device
    if not here[name]:
        raise TrainingError(f"There is no {name} device here; set device to auto or cpu.")
    return torch.device(name)


def choose_hardware(recipe: Recipe, device: torch.device, photos: Photos) -> Hardware:
    """What `auto` stands for on this device: compile where it pays, bfloat16 where it is faster."""
    pays = len(photos.train) * recipe.epochs >= COMPILE_PAYS_FROM and _can_compile(device)
    compiles = recipe.compile == "on" or (recipe.compile == "auto" and pays)
    # Eager bfloat16 is slower than float32 on a CPU; compiled it is about twice as fast, given the instructions.
    on_cpu = compiles and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    faster = {"cuda": True, "mps": False, "cpu": on_cpu}[device.type]
    bfloat16 = recipe.precision == "bfloat16" or (recipe.precision == "auto" and faster)
    return Hardware(device, bfloat16, compiles)


def _can_compile(device: torch.device) -> bool:
    if device.type == "cuda":
        return platform.system() != "Windows"  # where Triton is not at hand
    return device.type == "cpu" and any(shutil.which(compiler) for compiler in ("g++", "clang++"))


def load_photos(run: Run, reporter: Reporter) -> Photos:
    """The dataset of `run`: checked, split and cached.

    Raises:
        DataError: it cannot be used, or is not the one that the run was made for.
    """
    recipe, transform = run.recipe, EvalTransform.from_recipe(run.recipe)
    dataset = data.load(run.config["data"], reporter.preparing)
    data.check_trainable(dataset)
    if dataset.fingerprint != run.config["dataset"]["fingerprint"]:
        raise data.DataError(f"{dataset.name} has changed since this run was made; start a new run on it.")
    parts = data.split(dataset, recipe.val_fraction, recipe.test_fraction, recipe.val_pattern, recipe.seed)
    return Photos(
        classes=dataset.classes,
        train=data.cached(dataset, parts["train"], to_square, "square", CACHE_SIDE, reporter.preparing),
        labels=torch.tensor([photo.label for photo in parts["train"]]),
        sizes=torch.tensor([(photo.width, photo.height) for photo in parts["train"]], dtype=torch.float32),
        held_out={
            name: held_out(dataset, parts[name], transform, reporter.preparing) for name in ("val", "test") if parts[name]
        },
    )


def held_out(
    dataset: data.Dataset, photos: list[data.Photo], transform: EvalTransform, progress: data.Progress | None
) -> HeldOut:
    """Photos as the evaluation transform makes them, cached.

    Raises:
        DataError: as `data.cached`.
    """
    make = f"centre of {transform.resize}"
    images = data.cached(dataset, photos, transform.crop_photo, make, transform.crop, progress)
    return HeldOut(images, torch.tensor([p.label for p in photos]), tuple(p.path for p in photos))


# ----------------------------------------------------------------------------------------------------------- training


def fit(run: Run, photos: Photos, hardware: Hardware, reporter: Reporter) -> None:
    """Train from the last checkpoint, or the start, to the last epoch; then test the best epoch once.

    Raises:
        Stopped: asked to; everything is in the checkpoint.
        TrainingError: the loss is no longer a number, or the checkpoint is of another recipe.
    """
    recipe = run.recipe
    state = initial_state(recipe, len(photos.classes), hardware.device)
    forward = _compiled(state.model, recipe, hardware, reporter)
    load_checkpoint(run.path, state, recipe)
    reporter.forget_after(state.progress.step)
    batch = min(recipe.batch_size, len(photos.train))
    steps = len(photos.train) // batch
    reporter.say(state="running", message="", device=str(hardware), steps=steps * recipe.epochs,
                 best=state.progress.best)  # fmt: skip
    clock = _Clock(state.progress, steps * recipe.epochs, batch)
    while state.progress.epoch < recipe.epochs:
        train_one_epoch(run.path, state, forward, photos, recipe, hardware, reporter, clock)
        _end_epoch(run.path, state, forward, photos, recipe, hardware, reporter, clock)
    _finish(run, state, forward, photos, hardware, reporter)


def initial_state(recipe: Recipe, classes: int, device: torch.device) -> State:
    """Network, average and optimizer at the start of a run; the same for the same seed."""
    torch.manual_seed(recipe.seed)
    network = model.from_recipe(recipe, classes).to(device)
    ema = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True) if recipe.ema else None
    return State(network, ema, make_optimizer(network, recipe), Progress())


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; weight decay spares biases and normalisation, all of which have one dimension."""
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = next(network.parameters()).device.type in ("cpu", "cuda")
    if recipe.optimizer == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)


def _compiled(network: nn.Module, recipe: Recipe, hardware: Hardware, reporter: Reporter) -> Callable[[Tensor], Tensor]:
    """The compiled network, tried on one batch; the network itself where that fails, with a notice in the log."""
    if not hardware.compile:
        return network
    reporter.say(message="Compiling the network, about a minute.")
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    forward = torch.compile(network, dynamic=False)
    sample = torch.zeros(recipe.batch_size, 3, recipe.image_size, recipe.image_size, device=hardware.device)
    try:
        with hardware.autocast():
            forward(sample).sum().backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler may fail with, training goes on without it
        print(f"Compiling failed, training goes on uncompiled: {type(error).__name__}: {error}")
        forward = network
    network.zero_grad()
    for name, buffer in network.named_buffers():  # the trial must leave no trace in the running statistics
        buffer.copy_(buffers[name])
    return forward


class _Clock:
    """Speed and time left, from the steps of this sitting."""

    def __init__(self, progress: Progress, steps: int, batch: int) -> None:
        self.first, self.earlier, self.steps, self.batch = progress.step, progress.seconds, steps, batch
        self.started = self.marked = time.perf_counter()
        self.marked_step = progress.step

    def seconds(self) -> float:
        """Spent on the run, over all sittings."""
        return self.earlier + time.perf_counter() - self.started

    def left(self, step: int) -> float | None:
        """Seconds to go at the pace so far."""
        done = step - self.first
        return (time.perf_counter() - self.started) / done * (self.steps - step) if done else None

    def speed(self, step: int) -> float:
        """Photos a second since the last call."""
        now = time.perf_counter()
        speed = (step - self.marked_step) * self.batch / max(now - self.marked, 1e-9)
        self.marked, self.marked_step = now, step
        return speed


def train_one_epoch(
    folder: Path,
    state: State,
    forward: Callable[[Tensor], Tensor],
    photos: Photos,
    recipe: Recipe,
    hardware: Hardware,
    reporter: Reporter,
    clock: _Clock,
) -> None:
    """The steps of one epoch that are still to do, in the order that the seed and the epoch's number give."""
    progress = state.progress
    batch = min(recipe.batch_size, len(photos.train))
    steps = len(photos.train) // batch  # the rest of a last, smaller batch comes up in another epoch's order
    order = torch.randperm(len(photos.train), generator=_generator(recipe.seed, progress.epoch, "order"))
    every = max(1, steps // RECORDS_PER_EPOCH)
    saved = time.perf_counter()
    state.model.train()
    while (index := progress.step - progress.epoch * steps) < steps:
        chosen = order[index * batch : (index + 1) * batch]
        train_step(state, forward, photos, chosen, steps * recipe.epochs, recipe, hardware)
        if (index + 1) % every == 0 and index + 1 < steps:
            speed = clock.speed(progress.step)
            _record(reporter, state, progress.record_sums, speed, clock, recipe, steps, partial=True)
            progress.record_sums.zero_()
        reporter.now_and_then(epoch=progress.epoch + 1, step=progress.step, eta_seconds=clock.left(progress.step),
                              memory_bytes=memory_in_use(hardware.device))  # fmt: skip
        _stop_or_save(folder, state, recipe, reporter, clock, due=time.perf_counter() - saved > CHECKPOINT_SECONDS)
        if time.perf_counter() - saved > CHECKPOINT_SECONDS:
            saved = time.perf_counter()


def train_step(
    state: State,
    forward: Callable[[Tensor], Tensor],
    photos: Photos,
    chosen: Tensor,
    steps: int,
    recipe: Recipe,
    hardware: Hardware,
) -> None:
    """One update of the network from the photos with the indices `chosen`, out of `steps` in the whole run."""
    progress = state.progress
    choices = draw(recipe, photos.sizes[chosen], _generator(recipe.seed, progress.step, "augmentation"))
    torch.manual_seed(_number(recipe.seed, progress.step, "dropout"))
    images = torch.from_numpy(photos.train[chosen.numpy()]).to(hardware.device, non_blocking=True)
    labels = photos.labels[chosen].to(hardware.device)
    dtype = torch.bfloat16 if hardware.bfloat16 else torch.float32
    x = augment(images, choices, recipe.image_size, dtype)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(recipe, progress.step / steps)
    with hardware.autocast():
        logits = class_logits(forward(x))
    # For one logit this is binary cross-entropy: the softmax over (-z/2, z/2) is the sigmoid of z.
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    if state.ema is not None:
        state.ema.update_parameters(state.model)
    n = len(chosen)
    sums = torch.stack([loss.detach() * n, (logits.argmax(1) == labels).sum().float(), loss.new_tensor(float(n))])
    progress.epoch_sums += sums.to(progress.epoch_sums.device)
    progress.record_sums += sums.to(progress.record_sums.device)
    progress.step += 1


def _number(seed: int, index: int, purpose: str) -> int:
    """A seed of its own for each step and purpose."""
    return int(data.digest(f"{seed}/{index}/{purpose}".encode())[:15], 16)


def _generator(seed: int, index: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(_number(seed, index, purpose))


def memory_in_use(device: torch.device) -> int | None:
    """Peak bytes: of the GPU's memory, or of this process where the system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if platform.system() != "Linux":
        return None
    import resource  # not there on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _stop_or_save(folder: Path, state: State, recipe: Recipe, reporter: Reporter, clock: _Clock, due: bool) -> None:
    """Write a checkpoint if one is due or the run is asked to stop."""
    try:
        reporter.check_stop()
    except Stopped:
        state.progress.seconds = clock.seconds()
        save_checkpoint(folder, state, recipe)
        reporter.say(step=state.progress.step)
        raise
    if due:
        state.progress.seconds = clock.seconds()
        save_checkpoint(folder, state, recipe)


def _record(
    reporter: Reporter,
    state: State,
    sums: Tensor,
    speed: float,
    clock: _Clock,
    recipe: Recipe,
    steps: int,
    **more: Any,
) -> None:
    """Write the mean loss and accuracy that `sums` hold, unless the loss is no longer a number."""
    progress = state.progress
    loss, correct, count = sums.tolist()
    if not np.isfinite(loss):
        raise TrainingError(
            f"The loss was no longer a number at step {progress.step}; the best weights so far are kept. "
            f"Try a lower lr than {recipe.lr:g}."
        )
    reporter.now_and_then(images_per_s=speed)
    reporter.record(
        epoch=(progress.step - 1) // steps + 1,
        step=progress.step,
        split="train",
        loss=loss / count,
        accuracy=correct / count,
        lr=state.optimizer.param_groups[0]["lr"],
        images_per_s=speed,
        seconds=clock.seconds(),
        **more,
    )


def _end_epoch(
    folder: Path,
    state: State,
    forward: Callable[[Tensor], Tensor],
    photos: Photos,
    recipe: Recipe,
    hardware: Hardware,
    reporter: Reporter,
    clock: _Clock,
) -> None:
    """Record the epoch, validate, keep the weights if they are the best, and write a checkpoint."""
    progress = state.progress
    steps = progress.step // (progress.epoch + 1)
    _record(reporter, state, progress.epoch_sums, clock.speed(progress.step), clock, recipe, steps)
    reporter.say(message="Validating.")
    with averaged_weights(state):
        metrics = evaluate_split(forward, state.model, photos, "val", recipe, hardware, reporter)
        if progress.best is None or metrics["accuracy"] > progress.best["accuracy"]:
            progress.best = {"epoch": progress.epoch + 1, "accuracy": metrics["accuracy"], "loss": metrics["loss"]}
            weights.save(folder / "weights.safetensors", state.model.state_dict())
    reporter.record(epoch=progress.epoch + 1, step=progress.step, split="val", loss=metrics["loss"],
                    accuracy=metrics["accuracy"], seconds=clock.seconds())  # fmt: skip
    progress.epoch += 1
    progress.seconds = clock.seconds()
    progress.epoch_sums.zero_()
    progress.record_sums.zero_()
    save_checkpoint(folder, state, recipe)
    clock.speed(progress.step)  # validation is no training time
    reporter.say(message="", epoch=progress.epoch, step=progress.step, best=progress.best)


@contextlib.contextmanager
def averaged_weights(state: State) -> Iterator[None]:
    """Within, the model has the averaged weights; they move into its own tensors, which compiled code goes on reading."""
    if state.ema is None:
        yield
        return
    own = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    state.model.load_state_dict(state.ema.module.state_dict())
    try:
        yield
    finally:
        state.model.load_state_dict(own)


def evaluate_split(
    forward: Callable[[Tensor], Tensor],
    network: nn.Module,
    photos: Photos,
    split: str,
    recipe: Recipe,
    hardware: Hardware,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """The metrics of `score` for a held-out split, with the evaluation transform and mirroring of the recipe."""
    held = photos.held_out[split]
    logits = split_logits(forward, network, held, recipe, hardware, reporter)
    return score(logits, held.labels, photos.classes)


@torch.inference_mode()
def split_logits(
    forward: Callable[[Tensor], Tensor],
    network: nn.Module,
    held: HeldOut,
    recipe: Recipe,
    hardware: Hardware,
    reporter: Reporter | None,
) -> Tensor:
    """Logits `(N, classes)` on the CPU, float32."""
    transform = EvalTransform.from_recipe(recipe)
    network.eval()
    found = []
    for images in batches(held.images, recipe.batch_size):
        with hardware.autocast():
            x = transform.normalize(images.to(hardware.device))
            found.append(averaged_logits(forward, x, recipe.mirror).float().cpu())
        if reporter is not None:
            reporter.now_and_then()  # a sign of life
    return torch.cat(found)[: len(held.labels)]


def _finish(
    run: Run,
    state: State,
    forward: Callable[[Tensor], Tensor],
    photos: Photos,
    hardware: Hardware,
    reporter: Reporter,
) -> None:
    """Test the best epoch, once, and write the report; without a test split the report is on validation."""
    recipe, progress = run.recipe, state.progress
    reporter.say(message="Testing the best epoch.")
    weights.load_into(state.model, run.weights)
    split = "test" if "test" in photos.held_out else "val"
    held = photos.held_out[split]
    logits = split_logits(forward, state.model, held, recipe, hardware, reporter)
    metrics = score(logits, held.labels, photos.classes)
    runs.write_json(run.path / "report.json", {"split": split, **metrics, "best_epoch": progress.best["epoch"]})
    write_predictions(run.path / "predictions.csv", held, logits, photos.classes)
    if split == "test":
        reporter.record(epoch=progress.best["epoch"], step=progress.step, split="test", loss=metrics["loss"],
                        accuracy=metrics["accuracy"], seconds=progress.seconds)  # fmt: skip
    (run.path / "checkpoint.pt").unlink(missing_ok=True)  # three times the size of the weights, and no longer needed
    reporter.say(state="finished", message="", eta_seconds=None, step=progress.step, epoch=progress.epoch)


def write_predictions(path: Path, held: HeldOut, logits: Tensor, classes: tuple[str, ...]) -> None:
    """One row for each photo: file, true label, predicted label, and the probability of each class."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "predicted", *classes])
        for name, label, row in zip(held.files, held.labels.tolist(), logits.softmax(1).tolist(), strict=True):
            writer.writerow([name, classes[label], classes[row.index(max(row))], *(f"{p:.6f}" for p in row)])
    os.replace(temporary, path)


# -------------------------------------------------------------------------------------------------------- checkpoints


def save_checkpoint(folder: Path, state: State, recipe: Recipe) -> None:
    """Replace `checkpoint.pt` in one step; if that fails, the previous one stays."""
    temporary = folder / ".checkpoint.pt"
    try:
        torch.save(
            {
                "recipe": recipe.to_dict(),
                "model": state.model.state_dict(),
                "ema": state.ema and state.ema.state_dict(),
                "optimizer": state.optimizer.state_dict(),
                "progress": asdict(state.progress),
            },
            temporary,
        )
        os.replace(temporary, folder / "checkpoint.pt")
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(folder: Path, state: State, recipe: Recipe) -> None:
    """Fill `state` from `checkpoint.pt`, where there is one.

    Raises:
        TrainingError: it is damaged, or of another recipe.
    """
    path = folder / "checkpoint.pt"
    if not path.exists():
        return
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["recipe"] != recipe.to_dict():
            raise TrainingError("The checkpoint is of another recipe; start a new run with this one.")
        state.model.load_state_dict(saved["model"])
        if state.ema is not None:
            state.ema.load_state_dict(saved["ema"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.progress = Progress(**saved["progress"])
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        if isinstance(error, TrainingError):
            raise
        raise TrainingError("The checkpoint is damaged; delete checkpoint.pt to train from the start.") from None
