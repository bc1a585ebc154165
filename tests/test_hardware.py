"""What `auto` stands for, and what is refused."""

from __future__ import annotations

import pytest
import torch

from alexnet import hardware
from alexnet.hardware import Hardware, HardwareError, choose_device, choose_hardware, is_out_of_memory
from alexnet.recipes import Recipe

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")


@without_gpu
def test_a_device_that_is_not_here():
    with pytest.raises(HardwareError, match="There is no cuda device here; set device to auto or cpu."):
        choose_device(Recipe(device="cuda"))


def test_the_cpu_is_always_here():
    assert choose_device(Recipe(device="cpu", processes=3)) == ("cpu", 0)
    assert choose_device(Recipe(device="cpu", groups=2, towers_apart=True)) == ("cpu", 0)


@pytest.mark.parametrize(("photos", "epochs", "compiles"), [(5_999, 1, False), (6_000, 1, True), (100, 60, True)])
def test_compiling_has_to_pay(monkeypatch, photos, epochs, compiles):
    monkeypatch.setattr(hardware.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert choose_hardware(Recipe(epochs=epochs), "cpu", photos=photos).compile is compiles
    assert not choose_hardware(Recipe(epochs=epochs, compile="off"), "cpu", photos=photos).compile
    assert choose_hardware(Recipe(epochs=epochs, compile="on"), "cpu", photos=photos).compile


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_where_it_is_faster(monkeypatch, fast):
    monkeypatch.setattr(hardware.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast})
    chosen = choose_hardware(Recipe(), "cpu", photos=10_000)
    assert chosen.bfloat16 is fast
    assert not choose_hardware(Recipe(compile="off"), "cpu", photos=10_000).bfloat16
    assert choose_hardware(Recipe(compile="off", precision="bfloat16"), "cpu", photos=10_000).bfloat16
    # Where compiling fails after all, the CPU goes on in float32, unless bfloat16 was asked for.
    assert chosen.uncompiled(Recipe()) == Hardware(torch.device("cpu"), bfloat16=False, compile=False)
    assert chosen.uncompiled(Recipe(precision="bfloat16")).bfloat16 is fast
    assert Hardware(torch.device("cuda"), True, True).uncompiled(Recipe()).bfloat16


def test_towers_apart_take_two_devices():
    chosen = choose_hardware(Recipe(groups=2, towers_apart=True), "cuda", indices=(0, 1), photos=10_000)
    assert (chosen.device, chosen.second) == (torch.device("cuda", 0), torch.device("cuda", 1))
    assert not chosen.compile
    assert choose_hardware(Recipe(groups=2, towers_apart=True), "cpu", photos=1).second == torch.device("cpu")
    assert choose_hardware(Recipe(), "cuda", indices=(3,), photos=1).device == torch.device("cuda", 3)


def test_running_out_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
