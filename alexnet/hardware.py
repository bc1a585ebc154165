"""Where and how to compute: the device, its precision, whether compiling pays, and what fits into its memory."""

from __future__ import annotations

import ctypes
import platform
import shutil
from dataclasses import dataclass, replace

import torch

from alexnet.errors import LabError
from alexnet.recipes import Recipe

COMPILE_PAYS_FROM = 6_000  # photos to train on, over all epochs; with fewer, compiling costs more than it saves


class HardwareError(LabError, RuntimeError):
    """What the recipe asks for is not here; the text is one sentence that says what is."""


@dataclass(frozen=True)
class Hardware:
    """Where and how to compute; with several processes, one of them."""

    device: torch.device
    bfloat16: bool
    compile: bool
    second: torch.device | None = None  # where the other tower is, if the two are apart

    def autocast(self) -> torch.autocast:
        """The context for forward passes."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    def uncompiled(self, recipe: Recipe) -> Hardware:
        """The same without compiling, and without the bfloat16 that then is slower on a CPU."""
        bfloat16 = self.bfloat16 and (recipe.precision == "bfloat16" or self.device.type != "cpu")
        return replace(self, compile=False, bfloat16=bfloat16)

    @property
    def dtype(self) -> torch.dtype:
        """What forward passes compute with."""
        return torch.bfloat16 if self.bfloat16 else torch.float32

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout in which convolutions, and on a CPU pooling too, are fastest."""
        return torch.contiguous_format if self.device.type == "mps" else torch.channels_last

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type.upper()
        return ", ".join([name, "bfloat16" if self.bfloat16 else "float32", *["compiled"] * self.compile])


def choose_device(recipe: Recipe) -> tuple[str, int]:
    """The kind of device that the recipe names, or for `auto` the best one here (cuda, mps or cpu), and how many GPUs.

    Raises:
        HardwareError: the recipe names a device that is not here, or more GPUs than there are.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(d for d in here if here[d]) if recipe.device == "auto" else recipe.device
    if not here[kind]:
        raise HardwareError(f"There is no {kind} device here; set device to auto or cpu.")
    gpus = torch.cuda.device_count() if kind == "cuda" else 0
    if recipe.towers_apart and kind != "cpu" and gpus < 2:
        raise HardwareError("Laying the towers apart takes two GPUs; turn towers_apart off or set device to cpu.")
    if kind == "cuda" and recipe.processes > gpus:
        raise HardwareError(f"This machine has {gpus} of the {recipe.processes} GPUs; lower processes.")
    return kind, gpus


def choose_hardware(recipe: Recipe, kind: str, *, indices: tuple[int, ...] = (0,), photos: int) -> Hardware:
    """What `auto` stands for on this device: compile where it pays, bfloat16 where it is faster.

    Args:
        recipe: the settings.
        kind: of device, as `choose_device` gives it.
        indices: of the GPUs that this process may use.
        photos: how many there are to train on.
    """
    device, *others = [torch.device(kind, index) for index in indices] if kind == "cuda" else [torch.device(kind)]
    second = (others or [device])[0] if recipe.towers_apart else None
    pays = photos * recipe.epochs >= COMPILE_PAYS_FROM and _can_compile(kind)
    # The towers' copies from one device to the other break a compiled network into pieces that gain little.
    compiles = (recipe.compile == "on" or (recipe.compile == "auto" and pays)) and second is None
    # Eager bfloat16 is slower than float32 on a CPU; compiled it is about twice as fast, given the instructions.
    on_cpu = compiles and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    faster = {"cuda": True, "mps": False, "cpu": on_cpu}[kind]
    bfloat16 = recipe.precision == "bfloat16" or (recipe.precision == "auto" and faster)
    return Hardware(device, bfloat16, compiles, second)


def _can_compile(kind: str) -> bool:
    if kind == "cuda":
        return platform.system() != "Windows"  # where Triton is not at hand
    return kind == "cpu" and any(shutil.which(compiler) for compiler in ("g++", "clang++"))


def keep_freed_memory() -> None:
    """Have the C library keep what a step frees for the next one, in this process, where it is glibc.

    Asking the kernel for the same gigabytes at each step, page by page, took a quarter of a step's time on a CPU.
    """
    libc, _ = platform.libc_ver()
    if libc == "glibc":
        mmap_max, trim_threshold = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


def memory_in_use(device: torch.device) -> int | None:
    """Peak bytes: of the GPU's memory, or of this process where the system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if platform.system() != "Linux":
        return None
    import resource  # not there on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that a device, or this computer, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # Of the CPU's allocator, of Apple's GPUs, and of oneDNN, which computes the convolutions on a CPU.
    words = ("can't allocate memory", "out of memory", "could not create a primitive\n", "could not create a memory")
    return any(word in f"{error}\n" for word in words)


def is_device_lost(error: BaseException) -> bool:
    """Whether `error` says that a GPU failed: it dropped off the bus, its driver gave up, or a kernel never came back."""
    # cuDNN and cuBLAS tell what CUDA told them in RuntimeErrors of their own.
    return isinstance(error, torch.AcceleratorError) or str(error).startswith(("CUDA error", "cuDNN error"))
