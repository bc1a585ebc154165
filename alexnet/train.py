"""Training: the photos of a run, `train_one_epoch`, `validate` and `fit`.

Every random draw follows from the seed and the number of the step alone, and a checkpoint holds all the rest, so a run
that was stopped or killed goes on exactly where its last checkpoint left it. Several processes compute what one would.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet import card, data, draws, film, inputs, sweep, weights
from alexnet.augment import CACHE_SIDE, Draw, EvalTransform, augment, draw, mix, to_square
from alexnet.distributed import ALONE, Group, divide, parallel, place_in_batch
from alexnet.errors import LabError
from alexnet.evaluate import calibrate, evaluate, score, write_report
from alexnet.hardware import Hardware, is_device_lost, is_out_of_memory, memory_in_use
from alexnet.predict import averaged_logits, class_logits, load_classifier
from alexnet.recipes import Recipe
from alexnet.runs import SWEEP_FILE, Reporter, Run, Stopped
from alexnet.schedules import learning_rate, reductions_on_plateau
from alexnet.state import CHECKPOINT, State, has_checkpoint, initial_state, load_checkpoint, save_checkpoint

CHECKPOINT_SECONDS = 300.0  # between checkpoints within a long epoch
RECORDS_PER_EPOCH = 20  # points that the training curve gains within an epoch


class TrainingError(LabError, RuntimeError):
    """Training cannot go on; the text is one sentence that says why and what to try."""


@dataclass(frozen=True)
class Photos:
    """What a run works on; labels are `(N,)` int64 indices into the dataset's classes."""

    dataset: data.Dataset
    train: list[data.Photo]
    test: list[data.Photo]  # touched once, at the end
    val: list[data.Photo]
    train_images: inputs.Kept | inputs.Streamed  # (N, 3, CACHE_SIDE, CACHE_SIDE) uint8, squashed
    train_labels: Tensor
    train_sizes: Tensor  # (N, 2) float32: width and height before squashing
    val_images: inputs.Kept | inputs.Streamed  # (N, 3, image_size, image_size) uint8, from the evaluation transform
    val_labels: Tensor


@dataclass(frozen=True)
class Session:
    """One sitting of training: what the functions below share."""

    folder: Path
    recipe: Recipe
    hardware: Hardware
    group: Group
    photos: Photos
    reporter: Reporter
    state: State
    forward: Callable[[Tensor], Tensor]  # state.model, compiled where that pays, wrapped where there are several
    augment: Callable[..., Tensor]  # augment.augment and augment.mix, likewise
    mix: Callable[..., tuple[Tensor, Tensor]]
    batch: int  # photos a step, over all processes
    steps: int  # an epoch; the rest of a last, smaller batch comes up in another epoch's order
    clock: Clock


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


# ---------------------------------------------------------------------------------------------------- before training


def load_photos(run: Run, reporter: Reporter) -> Photos:
    """The dataset of `run`: checked, split, and cached or ready to be streamed.

    Raises:
        DataError: it cannot be used, or is not the one that the run was made for.
    """
    recipe = run.recipe
    # The centre alone chooses the epoch; the report looks at all views.
    transform = dataclasses.replace(EvalTransform.from_recipe(recipe), five_crops=False)
    dataset = data.load(run.config["data"], reporter.preparing)
    if dataset.fingerprint != run.config["dataset"]["fingerprint"]:
        raise data.DataError(f"{dataset.name} has changed since this run was made; start a new run on it.")
    dataset = dataset.subset(recipe)
    data.check_trainable(dataset)
    parts = data.split(dataset, recipe)
    how: dict[str, Any] = {"cache": recipe.cache, "progress": reporter.preparing}
    centre = f"centre of {'squashed ' if transform.squash else ''}{transform.resize}"
    return Photos(
        dataset=dataset,
        train=parts["train"],
        test=parts["test"],
        val=parts["val"],
        train_images=inputs.images(
            dataset,
            parts["train"],
            to_square,
            "square",
            CACHE_SIDE,
            among=None if recipe.max_per_class else dataset.photos,  # the next seed draws others
            at_least=CACHE_SIDE,
            **how,
        ),
        train_labels=torch.tensor([photo.label for photo in parts["train"]]),
        train_sizes=torch.tensor([(photo.width, photo.height) for photo in parts["train"]], dtype=torch.float32),
        val_images=inputs.images(dataset, parts["val"], transform.crop_photo, centre, transform.crop, **how),
        val_labels=torch.tensor([photo.label for photo in parts["val"]]),
    )


def open_session(run: Run, photos: Photos, hardware: Hardware, reporter: Reporter, group: Group) -> Session:
    """The state as the last checkpoint left it, or as a run starts, tried out on this hardware.

    Raises:
        TrainingError: not even two photos at a time fit into memory, or there are too few for all processes.
        CheckpointError: the checkpoint is damaged, or of another recipe.
    """
    recipe = run.recipe
    torch.backends.cudnn.benchmark = True
    state = initial_state(recipe, list(photos.dataset.classes), hardware, blank=has_checkpoint(run.path))
    load_checkpoint(run.path, recipe, state)
    state.train_mode(recipe)
    progress = state.progress
    if not group.leads:  # a checkpoint has the sums of all processes
        progress.epoch_sums.zero_()
        progress.record_sums.zero_()
    batch = min(recipe.batch_size, len(photos.train_images))
    if batch < 2 * group.size and group.size > 1:
        raise TrainingError(f"{group.size} processes cannot share a batch of {batch} photos; raise batch_size.")
    steps = len(photos.train_images) // batch
    clock = Clock(progress.step, progress.seconds, steps * recipe.epochs, batch)
    session = Session(
        run.path, recipe, hardware, group, photos, reporter, state, state.model, augment, mix, batch, steps, clock
    )
    session = _try_out(session)
    reporter.forget_after(progress.epoch, progress.step)
    if group.leads:
        film.forget_after(run.path, progress.epoch)
    name = f"{group.size} x {session.hardware}" if group.size > 1 else str(session.hardware)
    reporter.say(state="running", message="", device=name, steps=steps * recipe.epochs, best=progress.best)
    return session


def _try_out(session: Session) -> Session:
    """`session` with a step that works here: compiled if that succeeds, a batch in as many parts as memory asks for."""
    session = _with_hardware(session, session.hardware)
    progress, group, reporter = session.state.progress, session.group, session.reporter
    most = max(1, session.batch // group.size // 2)
    progress.parts = min(progress.parts, most)
    while outcomes := set(filter(None, group.gather(_trial(session)))):
        if "no compiler" in outcomes:
            session = _with_hardware(session, session.hardware.uncompiled(session.recipe))
        elif progress.parts >= most:
            raise TrainingError("Not even two photos at a time fit into memory; lower image_size.")
        else:
            progress.parts = min(2 * progress.parts, most)
            part = math.ceil(session.batch / group.size / progress.parts)
            reporter.say(message=f"The batch does not fit into memory; it goes through in parts of {part} photos.")
    if group.size == 1:
        return session
    wrapped = parallel(session.state.model, group)
    forward = torch.compile(wrapped, dynamic=False) if session.hardware.compile else wrapped
    session = dataclasses.replace(session, forward=forward)
    return dataclasses.replace(session, forward=wrapped) if any(group.gather(_trial(session))) else session


def _with_hardware(session: Session, hardware: Hardware) -> Session:
    """`session` on this hardware, its step compiled or not."""
    functions: dict[str, Any] = {"forward": session.state.model, "augment": augment, "mix": mix}
    if hardware.compile:
        session.reporter.say(message="Compiling the network, about a minute.")
        functions = {name: torch.compile(function, dynamic=False) for name, function in functions.items()}
    return dataclasses.replace(session, hardware=hardware, **functions)


def _trial(session: Session) -> str | None:
    """What keeps one part of a batch from going through, if anything; leaves no trace but compiled code."""
    state, recipe = session.state, session.recipe
    buffers = {name: buffer.clone() for name, buffer in state.model.named_buffers()}
    share = session.group.share(session.batch)
    part = divide(share.stop - share.start, state.progress.parts)[0]
    choices = draw(recipe, session.photos.train_sizes[: session.batch], draws.generator(0, 0, "trial"))[share][part]
    images = torch.zeros(part.stop, 3, CACHE_SIDE, CACHE_SIDE, dtype=torch.uint8, device=session.hardware.device)
    labels = torch.zeros(part.stop, dtype=torch.int64, device=images.device)
    place_in_batch(state.model, 0, session.batch)
    try:
        # The optimizer has not made its room yet.
        slots = 0 if state.optimizer.state else {"sgd": 1}.get(recipe.optimizer, 2)
        room = [torch.zeros_like(p) for p in state.model.parameters() for _ in range(slots)]
        _backward(session, images, labels, choices, session.batch)
        del room
    except Exception as error:  # whatever a compiler may fail with, training goes on without it
        if is_out_of_memory(error):
            return "no memory"
        if not session.hardware.compile:
            raise
        print(f"Compiling failed, training goes on uncompiled: {type(error).__name__}: {error}")
        return "no compiler"
    finally:
        state.optimizer.zero_grad()
        for name, buffer in state.model.named_buffers():  # the running statistics have seen the zeros
            buffer.copy_(buffers[name])
    return None


# ----------------------------------------------------------------------------------------------------------- training


def fit(run: Run, photos: Photos, hardware: Hardware, reporter: Reporter, group: Group = ALONE) -> None:
    """Train from the last checkpoint, or the start, to the last epoch; then test the best epoch once.

    Raises:
        Stopped: asked to; everything is in the checkpoint.
        TrainingError: the loss is no longer a number, the memory does not suffice, or the GPU failed.
        CheckpointError: the checkpoint cannot be written or read, or is of another recipe.
    """
    try:
        session = open_session(run, photos, hardware, reporter, group)
        while (ending := session.group.agree(_ending(session))) is None:
            train_one_epoch(session)
            _end_epoch(session)
        group.together(lambda: _finish(run, session, ending) if group.leads else None)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, LabError):
            raise
        if is_out_of_memory(error):
            raise TrainingError("The device ran out of memory; resume with other programs closed.") from None
        if is_device_lost(error):
            traceback.print_exc()
            why = str(error).partition("\n")[0]
            raise TrainingError(f"The GPU stopped working ({why}); resume, or restart the computer first.") from None
        raise


def _ending(session: Session) -> str | None:
    """What is to be said of the end of the run: nothing after the last epoch, else why it is early; None before the end."""
    recipe, progress = session.recipe, session.state.progress
    if progress.epoch >= recipe.epochs:
        return ""
    if progress.best is None:
        return None
    if 0 < recipe.patience <= progress.epoch - progress.best["epoch"]:
        return f"Ended early: no better validation accuracy for {recipe.patience} epochs."
    why = sweep.why_hopeless(Run(session.folder), progress.epoch, progress.best["accuracy"])
    return f"Ended early: {why}." if why else None


def train_one_epoch(session: Session) -> None:
    """The steps of one epoch that are still to do, in the order that the seed and the epoch's number give."""
    recipe, progress, steps = session.recipe, session.state.progress, session.steps
    plan = draws.batches(recipe, len(session.photos.train_images), progress.epoch)
    first = progress.step - progress.epoch * steps
    every = max(1, steps // RECORDS_PER_EPOCH)
    saved = time.perf_counter()
    session.state.train_mode(recipe)
    read = inputs.reader(session.photos.train_images, session.hardware.device)
    share = session.group.share(session.batch)
    for index, (chosen, images) in enumerate(inputs.ahead(lambda chosen: read(chosen[share]), plan[first:]), first + 1):
        train_step(session, chosen, images)
        if index % every == 0 and index < steps:
            _record_training(session, progress.record_sums, partial=True)
            progress.record_sums.zero_()
        session.reporter.now_and_then(
            epoch=progress.epoch + 1,
            step=progress.step,
            eta_seconds=session.clock.left(progress.step),
            memory_bytes=memory_in_use(session.hardware.device),
        )
        saved = _save_and_stop_in_time(session, saved)


def train_step(session: Session, chosen: Tensor, images: Tensor) -> None:
    """One update of the network.

    Args:
        session: the sitting.
        chosen: `(N,)` int64, the training photos of the whole batch by their indices, on the CPU.
        images: those that are this process's share, `(n, 3, CACHE_SIDE, CACHE_SIDE)` uint8, on the device.
    """
    recipe, state, group, progress = session.recipe, session.state, session.group, session.state.progress
    share = group.share(len(chosen))
    sizes = session.photos.train_sizes[chosen]
    choices = draws.choices(recipe, sizes, progress.step)[share]
    labels = session.photos.train_labels[chosen[share]].to(images.device, non_blocking=True)
    rate = learning_rate(
        recipe,
        progress.step / (session.steps * recipe.epochs),
        reductions_on_plateau(progress.val_losses, recipe.plateau_patience),
    )
    for settings in state.optimizer.param_groups:
        settings["lr"] = rate
    state.optimizer.zero_grad()
    dropout_seed = draws.number(recipe.seed, progress.step, "dropout")
    torch.manual_seed(dropout_seed)
    sums, parts = [], divide(len(images), progress.parts)
    for part in parts:
        if group.size > 1:  # all processes and parts draw alike, for the whole batch, and use their rows
            torch.manual_seed(dropout_seed)
            place_in_batch(state.model, share.start + part.start, len(chosen))
        alone = group.size > 1 and part is not parts[-1]  # gradients are exchanged once, with the last part
        forward: Any = session.forward  # that of several processes, where one is alone
        with forward.no_sync() if alone else contextlib.nullcontext():
            sums.append(_backward(session, images[part], labels[part], choices[part], len(chosen)))
    if recipe.clip_norm:
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip_norm)
    state.optimizer.step()
    state.average(recipe.ema)
    progress.epoch_sums += sum(sums)
    progress.record_sums += sum(sums)
    progress.step += 1


def _backward(session: Session, images: Tensor, labels: Tensor, choices: Draw, batch: int) -> Tensor:
    """Add the gradients of a part of a batch of `batch` photos; its sums of (loss, correct, photos)."""
    recipe, hardware = session.recipe, session.hardware
    x = session.augment(images, choices, recipe.image_size, hardware.dtype)
    targets = labels
    if choices.mixes:
        x, targets = session.mix(x, labels, len(session.photos.dataset.classes), choices)
    with hardware.autocast():
        logits = class_logits(session.forward(x.to(memory_format=hardware.memory_format))).float()
    # For one logit this is binary cross-entropy: the softmax over (-z/2, z/2) is the sigmoid of z.
    loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing, reduction="sum")
    (loss * (session.group.size / batch)).backward()  # the processes' gradients are averaged
    correct = (logits.argmax(1) == labels).sum()
    return torch.stack([loss.detach(), correct, torch.full_like(correct, len(labels))])


def _save_and_stop_in_time(session: Session, saved: float) -> float:
    """Write a checkpoint if the last, at `saved`, is old, or somebody wants the run to stop; when the last one was."""
    now = time.perf_counter()
    stop, due = session.group.agree((session.reporter.stop_asked(), now - saved > CHECKPOINT_SECONDS))
    if stop or due:
        _save(session)
    if stop:
        session.reporter.say(step=session.state.progress.step)
        raise Stopped
    return now if due else saved


def _save(session: Session) -> None:
    """Write a checkpoint, in the leading process; never one that nothing can be made of any more."""
    state, progress = session.state, session.state.progress
    progress.seconds = session.clock.seconds()
    sums: dict[str, Any] = {name: session.group.sum(getattr(progress, name)) for name in ("epoch_sums", "record_sums")}
    _require_finite(session, sums["record_sums"][0].item())
    if session.group.leads:
        of_all = dataclasses.replace(state, progress=dataclasses.replace(progress, **sums))
        save_checkpoint(session.folder, session.recipe, of_all)


def _record_training(session: Session, sums: Tensor, **more: Any) -> None:
    """Write the mean loss and accuracy that `sums` hold, unless the loss is no longer a number."""
    step = session.state.progress.step
    loss, correct, count = session.group.sum(sums).tolist()
    _require_finite(session, loss)
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


def _require_finite(session: Session, loss: float) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"The loss was no longer a number at step {session.state.progress.step}; the best weights so far are kept. "
            f"Try a lower lr than {session.recipe.lr:g}, or clip_norm 1."
        )


def _end_epoch(session: Session) -> None:
    """Record the epoch, validate, keep the weights if they are the best, and write a checkpoint."""
    state, progress, reporter = session.state, session.state.progress, session.reporter
    _record_training(session, progress.epoch_sums)
    reporter.say(message="Validating.")
    epoch = progress.epoch + 1
    with state.averaged():
        logits = validate(session)
        metrics = score(logits, session.photos.val_labels, session.photos.dataset.classes)
        _require_finite(session, metrics["loss"])
        if progress.best is None or metrics["accuracy"] > progress.best["accuracy"]:
            progress.best = {"epoch": epoch, "accuracy": metrics["accuracy"], "loss": metrics["loss"]}
            if session.group.leads:
                weights.save(session.folder / "weights.safetensors", state.model.state_dict())
        trouble = _film(session, epoch, logits)
    validation = {"split": "val", "loss": metrics["loss"], "accuracy": metrics["accuracy"]}
    reporter.record(epoch=epoch, step=progress.step, **validation, seconds=session.clock.seconds())
    progress.epoch = epoch
    progress.val_losses.append(metrics["loss"])
    progress.epoch_sums.zero_()
    progress.record_sums.zero_()
    _save(session)
    session.clock.speed(progress.step)  # validation is not training time
    reporter.say(message=trouble, epoch=epoch, step=progress.step, best=progress.best)


def _film(session: Session, epoch: int, logits: Tensor) -> str:
    """Add a frame to the film of the run, unless it is a trial; what kept it from being made, in a sentence."""
    # Trials are short, many, and compared by their numbers.
    if not session.group.leads or (session.folder.parent / SWEEP_FILE).exists():
        return ""
    try:
        from alexnet import camera  # imports captum, which takes a second

        photos, answered = session.photos, session.state.model.state_dict()
        camera.add_frame(Run(session.folder), epoch, photos.val, photos.val_images, logits, answered)
    except Exception as error:  # whatever it is, no film is worth a run
        traceback.print_exc()
        why = getattr(error, "strerror", None) or str(error).partition("\n")[0].rstrip(".")
        why = "not enough memory" if is_out_of_memory(error) else why
        return f"The film of this run lacks epoch {epoch} ({why}); training goes on."
    return ""


@torch.inference_mode()
def validate(session: Session) -> Tensor:
    """The logits `(N, classes)` of the validation split, on the CPU, with the transform and mirroring of the recipe."""
    recipe, hardware, photos, group = session.recipe, session.hardware, session.photos, session.group
    transform = EvalTransform.from_recipe(recipe)
    network = session.forward if group.size == 1 else session.state.model
    session.state.model.eval()
    logits = {}
    for number, images in enumerate(_same_sized_batches(photos.val_images, session.batch)):
        if number % group.size == group.rank:
            x = transform.normalize(images().to(hardware.device)).to(memory_format=hardware.memory_format)
            with hardware.autocast():
                logits[number] = averaged_logits(network, [x], recipe.mirror).float().cpu()
            session.reporter.now_and_then()  # a sign of life
    everyone = {number: part for parts in group.gather(logits) for number, part in parts.items()}
    return torch.cat([everyone[number] for number in sorted(everyone)])[: len(photos.val_labels)]


def _same_sized_batches(images: inputs.Kept | inputs.Streamed, size: int) -> Iterator[Callable[[], Tensor]]:
    """Batches of `size`, each read when called; the last one filled up with black, so that a compiled network meets one
    shape only."""

    def read(start: int) -> Tensor:
        batch = torch.from_numpy(images[start : start + size])
        return torch.cat([batch, batch.new_zeros(size - len(batch), *batch.shape[1:])])

    return (functools.partial(read, start) for start in range(0, len(images), size))


def _finish(run: Run, session: Session, ending: str) -> None:
    """Calibrate the best epoch, test it, once, and write the report; without test photos, that is on validation."""
    recipe, reporter, photos, progress = session.recipe, session.reporter, session.photos, session.state.progress
    device, split = session.hardware.device, "test" if photos.test else "val"
    evaluation = calibrate(load_classifier(run, device), photos.dataset, photos.val, reporter.preparing, photos.train)
    if photos.test:
        evaluation = evaluate(load_classifier(run, device), photos.dataset, photos.test, reporter.preparing)
    splits = data.split_counts(photos.dataset, recipe)
    assert progress.best is not None
    write_report(run.path, evaluation, split=split, best_epoch=progress.best["epoch"], splits=splits)
    if split == "test":
        loss, accuracy = evaluation.metrics["loss"], evaluation.metrics["accuracy"]
        reporter.record(epoch=progress.best["epoch"], step=progress.step, split=split, loss=loss, accuracy=accuracy)
    card.write(run)
    reporter.say(state="finished", message=ending, eta_seconds=None)
    # Three times the size of the weights, and of no use once the run is known to have finished; never before.
    (run.path / CHECKPOINT).unlink(missing_ok=True)
