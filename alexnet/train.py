"""Training: the hardware, the photos, `train_one_epoch`, `validate` and `fit`.

Every random draw follows from the seed and the number of the step alone, and a checkpoint holds all the rest, so a run
that was stopped or killed goes on exactly where its last checkpoint left it.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alexnet import data, model, weights
from alexnet.augment import CACHE_SIDE, EvalTransform, augment, draw, to_square
from alexnet.errors import LabError
from alexnet.evaluate import evaluate, score, write_report
from alexnet.predict import averaged_logits, class_logits, load_classifier
from alexnet.recipes import Recipe, learning_rate
from alexnet.runs import Reporter, Run, Stopped

CHECKPOINT_SECONDS = 300.0  # between checkpoints within a long epoch
RECORDS_PER_EPOCH = 20  # points that the training curve gains within an epoch
COMPILE_PAYS_FROM = 6_000  # photos to train on, over all epochs; with fewer, compiling costs more than it saves


class TrainingError(LabError, RuntimeError):
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
class Photos:
    """What a run works on; labels are `(N,)` int64 indices into the dataset's classes."""

    dataset: data.Dataset
    test: list[data.Photo]  # touched once, at the end
    val: list[data.Photo]
    train_images: np.ndarray  # (N, 3, CACHE_SIDE, CACHE_SIDE) uint8, squashed
    train_labels: Tensor
    train_sizes: Tensor  # (N, 2) float32: width and height before squashing
    val_images: np.ndarray  # (N, 3, image_size, image_size) uint8, as the evaluation transform makes them
    val_labels: Tensor


@dataclass
class Progress:
    """How far a run has come. The sums are (loss, correct, photos), over the epoch and since the last record."""

    epoch_sums: Tensor
    record_sums: Tensor
    epoch: int = 0  # finished
    step: int = 0  # finished, over all epochs
    seconds: float = 0.0  # spent, over all sittings
    best: dict[str, Any] | None = None


@dataclass
class State:
    """All that changes while training, and all that a checkpoint holds."""

    model: model.AlexNet
    ema: AveragedModel | None
    optimizer: torch.optim.Optimizer
    progress: Progress


@dataclass(frozen=True)
class Session:
    """One sitting of training: what the functions below share."""

    folder: Path
    recipe: Recipe
    hardware: Hardware
    photos: Photos
    reporter: Reporter
    state: State
    forward: Callable[[Tensor], Tensor]  # state.model, compiled where that pays
    batch: int  # photos a step
    steps: int  # an epoch; the rest of a last, smaller batch comes up in another epoch's order
    clock: Clock


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
    pays = len(photos.train_images) * recipe.epochs >= COMPILE_PAYS_FROM and _can_compile(device)
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
        dataset=dataset,
        test=parts["test"],
        val=parts["val"],
        train_images=data.cached(
            dataset, parts["train"], to_square, "square", CACHE_SIDE, reporter.preparing, at_least=CACHE_SIDE
        ),
        train_labels=torch.tensor([photo.label for photo in parts["train"]]),
        train_sizes=torch.tensor([(photo.width, photo.height) for photo in parts["train"]], dtype=torch.float32),
        val_images=data.cached(
            dataset,
            parts["val"],
            transform.crop_photo,
            f"centre of {transform.resize}",
            transform.crop,
            reporter.preparing,
        ),
        val_labels=torch.tensor([photo.label for photo in parts["val"]]),
    )


# ----------------------------------------------------------------------------------------------------------- training


def fit(run: Run, photos: Photos, hardware: Hardware, reporter: Reporter) -> None:
    """Train from the last checkpoint, or the start, to the last epoch; then test the best epoch once.

    Raises:
        Stopped: asked to; everything is in the checkpoint.
        TrainingError: the loss is no longer a number, the memory does not suffice, or the checkpoint is of another
            recipe.
    """
    try:
        session = _open_session(run, photos, hardware, reporter)
        while session.state.progress.epoch < session.recipe.epochs:
            train_one_epoch(session)
            _end_epoch(session)
    except torch.OutOfMemoryError:
        raise TrainingError("The device ran out of memory; halve batch_size and start again.") from None
    _finish(run, session)


def _open_session(run: Run, photos: Photos, hardware: Hardware, reporter: Reporter) -> Session:
    """The state as the last checkpoint left it, or as a run starts, and what goes with it."""
    recipe = run.recipe
    state = initial_state(recipe, len(photos.dataset.classes), hardware.device)
    batch = min(recipe.batch_size, len(photos.train_images))
    forward: Callable[[Tensor], Tensor] = state.model
    if hardware.compile:
        reporter.say(message="Compiling the network, about a minute.")
        sample = torch.zeros(batch, 3, recipe.image_size, recipe.image_size, device=hardware.device)
        forward = torch.compile(state.model, dynamic=False)
        if not _compiles(state.model, forward, sample, hardware):
            forward, hardware = state.model, choose_hardware(recipe.replace(compile="off"), hardware.device, photos)
    load_checkpoint(run.path, state, recipe)
    progress = state.progress
    reporter.forget_after(progress.epoch, progress.step)
    steps = len(photos.train_images) // batch
    clock = Clock(progress.step, progress.seconds, steps * recipe.epochs, batch)
    reporter.say(state="running", message="", device=str(hardware), steps=steps * recipe.epochs, best=progress.best)
    return Session(run.path, recipe, hardware, photos, reporter, state, forward, batch, steps, clock)


def initial_state(recipe: Recipe, classes: int, device: torch.device) -> State:
    """Network, average and optimizer at the start of a run; the same for the same seed."""
    torch.manual_seed(recipe.seed)
    network = model.from_recipe(recipe, classes).to(device)
    ema = AveragedModel(network, use_buffers=True) if recipe.ema else None
    sums = (torch.zeros(3, device=device) for _ in range(2))
    return State(network, ema, make_optimizer(network, recipe), Progress(*sums))


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


def _compiles(network: nn.Module, forward: Callable[[Tensor], Tensor], sample: Tensor, hardware: Hardware) -> bool:
    """Whether the compiled network `forward` runs, tried on one batch; leaves no trace on `network`."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        with hardware.autocast():
            forward(sample).sum().backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler may fail with, training goes on without it
        print(f"Compiling failed, training goes on uncompiled: {type(error).__name__}: {error}")
        return False
    finally:
        network.zero_grad()
        for name, buffer in network.named_buffers():  # the running statistics have seen the sample
            buffer.copy_(buffers[name])
    return True


class Clock:
    """Speed and time left, from the steps of this sitting."""

    def __init__(self, step: int, seconds: float, steps: int, batch: int) -> None:
        self.first, self.earlier, self.steps, self.batch = step, seconds, steps, batch
        self.started = self.marked = time.perf_counter()
        self.marked_step = step

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


def train_one_epoch(session: Session) -> None:
    """The steps of one epoch that are still to do, in the order that the seed and the epoch's number give."""
    recipe, progress, steps = session.recipe, session.state.progress, session.steps
    photos = len(session.photos.train_images)
    order = torch.randperm(photos, generator=_generator(recipe.seed, progress.epoch, "order"))
    every = max(1, steps // RECORDS_PER_EPOCH)
    saved = time.perf_counter()
    session.state.model.train()
    while (index := progress.step - progress.epoch * steps) < steps:
        train_step(session, order[index * session.batch : (index + 1) * session.batch])
        if (index + 1) % every == 0 and index + 1 < steps:
            _record_training(session, progress.record_sums, partial=True)
            progress.record_sums.zero_()
        session.reporter.now_and_then(
            epoch=progress.epoch + 1,
            step=progress.step,
            eta_seconds=session.clock.left(progress.step),
            memory_bytes=memory_in_use(session.hardware.device),
        )
        if time.perf_counter() - saved > CHECKPOINT_SECONDS:
            save_checkpoint(session)
            saved = time.perf_counter()
        _stop_if_asked(session)


def train_step(session: Session, chosen: Tensor) -> None:
    """One update of the network from the training photos with the indices `chosen`, (N,) int64."""
    recipe, device, state, photos = session.recipe, session.hardware.device, session.state, session.photos
    progress = state.progress
    choices = draw(recipe, photos.train_sizes[chosen], _generator(recipe.seed, progress.step, "augmentation"))
    torch.manual_seed(_number(recipe.seed, progress.step, "dropout"))
    images = torch.from_numpy(photos.train_images[chosen.numpy()]).to(device, non_blocking=True)
    labels = photos.train_labels[chosen].to(device, non_blocking=True)
    x = augment(images, choices, recipe.image_size, torch.bfloat16 if session.hardware.bfloat16 else torch.float32)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(recipe, progress.step / (session.steps * recipe.epochs))
    with session.hardware.autocast():
        logits = class_logits(session.forward(x)).float()
    # For one logit this is binary cross-entropy: the softmax over (-z/2, z/2) is the sigmoid of z.
    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    state.optimizer.zero_grad()
    loss.backward()
    state.optimizer.step()
    if state.ema is not None:
        # A short memory at first, or the random start would stay in the average for epochs.
        decay = min(recipe.ema, (1 + progress.step) / (10 + progress.step))
        state.ema.multi_avg_fn = get_ema_multi_avg_fn(decay)
        state.ema.update_parameters(state.model)
    sums = torch.stack([loss.detach() * len(chosen), (logits.argmax(1) == labels).sum(), loss.new_tensor(len(chosen))])
    progress.epoch_sums += sums
    progress.record_sums += sums
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


def _stop_if_asked(session: Session) -> None:
    try:
        session.reporter.check_stop()
    except Stopped:
        save_checkpoint(session)
        session.reporter.say(step=session.state.progress.step)
        raise


def _record_training(session: Session, sums: Tensor, **more: Any) -> None:
    """Write the mean loss and accuracy that `sums` hold, unless the loss is no longer a number."""
    step = session.state.progress.step
    loss, correct, count = sums.tolist()
    if not math.isfinite(loss):
        raise TrainingError(
            f"The loss was no longer a number at step {step}; the best weights so far are kept. "
            f"Try a lower lr than {session.recipe.lr:g}."
        )
    speed = session.clock.speed(step)
    session.reporter.now_and_then(images_per_s=speed)
    session.reporter.record(
        epoch=(step - 1) // session.steps + 1,
        step=step,
        split="train",
        loss=loss / count,
        accuracy=correct / count,
        lr=session.state.optimizer.param_groups[0]["lr"],
        images_per_s=speed,
        seconds=session.clock.seconds(),
        **more,
    )


def _end_epoch(session: Session) -> None:
    """Record the epoch, validate, keep the weights if they are the best, and write a checkpoint."""
    progress, reporter = session.state.progress, session.reporter
    _record_training(session, progress.epoch_sums)
    reporter.say(message="Validating.")
    epoch = progress.epoch + 1
    with averaged_weights(session.state):
        metrics = validate(session)
        if progress.best is None or metrics["accuracy"] > progress.best["accuracy"]:
            progress.best = {"epoch": epoch, "accuracy": metrics["accuracy"], "loss": metrics["loss"]}
            weights.save(session.folder / "weights.safetensors", session.state.model.state_dict())
    validation = {"split": "val", "loss": metrics["loss"], "accuracy": metrics["accuracy"]}
    reporter.record(epoch=epoch, step=progress.step, **validation, seconds=session.clock.seconds())
    progress.epoch = epoch
    progress.epoch_sums.zero_()
    progress.record_sums.zero_()
    save_checkpoint(session)
    session.clock.speed(progress.step)  # validation is not training time
    reporter.say(message="", epoch=epoch, step=progress.step, best=progress.best)


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


@torch.inference_mode()
def validate(session: Session) -> dict[str, Any]:
    """The metrics of `evaluate.score` on the validation split, with the transform and mirroring of the recipe."""
    recipe, hardware, photos = session.recipe, session.hardware, session.photos
    transform = EvalTransform.from_recipe(recipe)
    session.state.model.eval()
    logits = []
    for images in _same_sized_batches(photos.val_images, session.batch):
        x = transform.normalize(images.to(hardware.device))
        with hardware.autocast():
            logits.append(averaged_logits(session.forward, x, recipe.mirror).float().cpu())
        session.reporter.now_and_then()  # a sign of life
    return score(torch.cat(logits)[: len(photos.val_labels)], photos.val_labels, photos.dataset.classes)


def _same_sized_batches(images: np.ndarray, size: int) -> Iterator[Tensor]:
    """Batches of `size`, the last one filled up with black, so that a compiled network meets one shape only."""
    for start in range(0, len(images), size):
        batch = torch.from_numpy(np.array(images[start : start + size]))
        yield torch.cat([batch, batch.new_zeros(size - len(batch), *batch.shape[1:])])


def _finish(run: Run, session: Session) -> None:
    """Test the best epoch, once, and write the report; where nothing was kept for a test, it is on validation."""
    progress, reporter, photos = session.state.progress, session.reporter, session.photos
    split, held_out = ("test", photos.test) if photos.test else ("val", photos.val)
    classifier = load_classifier(run, session.hardware.device)
    evaluation = evaluate(classifier, photos.dataset, held_out, reporter.preparing)
    write_report(run.path, evaluation, split=split, best_epoch=progress.best["epoch"])
    if split == "test":
        loss, accuracy = evaluation.metrics["loss"], evaluation.metrics["accuracy"]
        reporter.record(epoch=progress.best["epoch"], step=progress.step, split=split, loss=loss, accuracy=accuracy)
    reporter.say(state="finished", message="", eta_seconds=None)
    # Three times the size of the weights, and of no use once the run is known to have finished; never before.
    (run.path / "checkpoint.pt").unlink(missing_ok=True)


# -------------------------------------------------------------------------------------------------------- checkpoints


def save_checkpoint(session: Session) -> None:
    """Replace `checkpoint.pt` in one step; if that fails, the previous one stays.

    Raises:
        TrainingError: it cannot be written.
    """
    state = session.state
    state.progress.seconds = session.clock.seconds()
    temporary = session.folder / ".checkpoint.pt"
    try:
        torch.save(
            {
                "recipe": session.recipe.to_dict(),
                "model": state.model.state_dict(),
                "ema": state.ema and state.ema.state_dict(),
                "optimizer": state.optimizer.state_dict(),
                "progress": dict(vars(state.progress)),
            },
            temporary,
        )
        os.replace(temporary, session.folder / "checkpoint.pt")
    except (OSError, RuntimeError):  # torch tells a full disk as a RuntimeError
        raise TrainingError("The checkpoint cannot be written; free some space and resume from the last one.") from None
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
        saved = torch.load(path, map_location=next(state.model.parameters()).device, weights_only=True)
        if saved["recipe"] != recipe.to_dict():
            raise TrainingError("The checkpoint is of another recipe; start a new run with this one.")
        state.model.load_state_dict(saved["model"])
        if state.ema is not None:
            state.ema.load_state_dict(saved["ema"])
        state.optimizer.load_state_dict(saved["optimizer"])
        state.progress = Progress(**saved["progress"])
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        if isinstance(error, TrainingError | torch.OutOfMemoryError):
            raise
        raise TrainingError("The checkpoint is damaged; delete checkpoint.pt to train from the start.") from None
