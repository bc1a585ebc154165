"""Weights files: written and read back, refused in a sentence, and the small form with its error bound by hand."""

from __future__ import annotations

import threading

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from alexnet import weights
from alexnet.weights import WeightsError

ROWS, COLUMNS = 2000, 2048  # a little over 4 million entries, from which on a matrix is factored


class Network(nn.Module):
    """One layer of each kind of state: convolution, running statistics with a counter, and a matrix."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(5, outputs)


def network(seed: int, **options) -> Network:
    torch.manual_seed(seed)
    made = Network(**options)
    made.norm.running_var.uniform_(1e-9, 1e9)
    made.norm.num_batches_tracked.fill_(seed)
    return made


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def refusal(path, model: nn.Module | None = None) -> str:
    """The sentence with which a weights file is refused; checks that the network is left as it was."""
    model = model or network(9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        weights.load_into(model, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    text = str(caught.value)
    assert text.endswith(".") and ". " not in text and "\n" not in text
    return text


@pytest.fixture
def file(tmp_path):
    """The weights of `network(1)` in a run folder."""
    path = tmp_path / "my-run" / "weights.safetensors"
    path.parent.mkdir()
    weights.save(path, network(1).state_dict())
    return path


def test_what_is_saved_is_loaded(file):
    model = network(2)
    assert not same(model, network(1))
    weights.load_into(model, file)
    assert same(model, network(1))
    assert [path.name for path in file.parent.iterdir()] == ["weights.safetensors"]


def test_tensors_that_are_views_or_need_gradients_are_saved_as_what_they_show(tmp_path):
    matrix = torch.arange(6.0).view(2, 3).requires_grad_()
    weights.save(tmp_path / "w.safetensors", {"turned": matrix.T, "part": matrix[1]})
    saved = load_file(tmp_path / "w.safetensors")
    assert saved["turned"].tolist() == [[0, 3], [1, 4], [2, 5]] and saved["part"].tolist() == [3, 4, 5]


def test_a_file_that_cannot_be_written_is_told_and_the_old_one_stays(file):
    before = file.read_bytes()
    with pytest.raises(WeightsError, match="cannot be written"):
        weights.save(file.parent / "no such folder" / "w.safetensors", network(2).state_dict())
    assert file.read_bytes() == before


def test_missing_weights(tmp_path):
    assert "new-run has no weights yet" in refusal(tmp_path / "new-run" / "weights.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    assert "The weights file of my-run is damaged" in refusal(file)


@pytest.mark.parametrize("content", [b"\xff" * 100, b"text of a web page", b"\x80\x02 pickle", b"\2\0\0\0\0\0\0\0{}xx"])
def test_damaged_weights(file, content):
    file.write_bytes(content)
    refusal(file)


def test_a_folder_in_place_of_weights(file):
    file.unlink()
    file.mkdir()
    assert "damaged" in refusal(file)


def test_weights_of_another_network_name_the_odd_tensor(file):
    assert "fc.bias is (3,), not (7,)" in refusal(file, network(1, outputs=7))
    assert "of another network: 0.bias is not in both" in refusal(file, nn.Sequential(nn.Linear(2, 2)))
    weights.save(file, {**network(1).state_dict(), "more": torch.zeros(1)})
    assert "more is not in both" in refusal(file)


def test_weights_that_are_not_numbers(file):
    state = network(1).state_dict()
    state["fc.bias"][1] = float("nan")
    weights.save(file, state)
    assert "hold values that are not numbers; train again with a lower lr." in refusal(file)


# ------------------------------------------------------------------------------------------------------ the small form


@pytest.fixture(scope="module")
def matrix() -> torch.Tensor:
    """Of rank 3."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, 3, generator=generator) @ torch.randn(3, COLUMNS, generator=generator)


@pytest.fixture(scope="module")
def small(matrix) -> dict[str, torch.Tensor]:
    return weights.compress({"fc.weight": matrix}, rank=5)


def test_the_small_form_is_two_thin_8_bit_matrices_and_a_scale_for_each_component(small):
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in small.items()} == {
        "fc.weight.left": ((ROWS, 5), torch.int8),
        "fc.weight.left_scale": ((1, 5), torch.float32),
        "fc.weight.right": ((5, COLUMNS), torch.int8),
        "fc.weight.right_scale": ((5, 1), torch.float32),
    }
    assert sum(tensor.nbytes for tensor in small.values()) == 5 * (ROWS + COLUMNS) + 2 * 4 * 5


def test_a_matrix_of_low_rank_comes_back_within_the_rounding_of_8_bits(matrix, small):
    """|L R - L' R'| <= sum over components of |L| r/2 + |R| l/2 + l r/4, where |L| <= 127 l and |R| <= 127 r."""
    left, right = small["fc.weight.left_scale"].flatten(), small["fc.weight.right_scale"].flatten()
    bound = (127.25 * left * right).sum().item()
    error = (weights.expand(small)["fc.weight"] - matrix).abs().max().item()
    assert 0 < error < bound < 0.05 * matrix.abs().max().item()


def test_a_matrix_whose_factors_need_no_rounding_comes_back_exactly():
    row, column = torch.tensor([1.0, -1.0, 0.0]).repeat(1000), torch.tensor([2.0, -2.0]).repeat(1000)
    matrix = torch.outer(row, column)
    back = weights.expand(weights.compress({"w": matrix}, rank=1))["w"]
    assert torch.allclose(back, matrix, rtol=0, atol=1e-5)


def test_of_a_larger_rank_the_leading_components_stay():
    """Orthogonal components of known strength: what is cut off is the third, of strength 10 against 100 and 50."""
    u, _ = torch.linalg.qr(torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1)))
    v, _ = torch.linalg.qr(torch.randn(COLUMNS, 3, generator=torch.Generator().manual_seed(2)))
    strength = torch.tensor([100.0, 50.0, 10.0])
    back = weights.expand(weights.compress({"w": (u * strength) @ v.T}, rank=2))["w"]
    assert torch.allclose(torch.diag(u.T @ back @ v), torch.tensor([100.0, 50.0, 0.0]), atol=0.3)


def test_with_moments_the_matrix_is_kept_where_its_inputs_are():
    """A matrix of full rank, met only by inputs from three directions: three components carry all that it does."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(ROWS, COLUMNS, generator=generator)
    inputs = torch.randn(500, 3, generator=generator) @ torch.randn(3, COLUMNS, generator=generator)
    moments = {"w": inputs.T @ inputs / len(inputs)}
    wanted = inputs @ matrix.T

    def loss(state: dict[str, torch.Tensor]) -> float:
        return ((inputs @ weights.expand(state)["w"].T - wanted).norm() / wanted.norm()).item()

    assert loss(weights.compress({"w": matrix}, 3, moments)) < 0.02
    assert loss(weights.compress({"w": matrix}, 3)) > 0.9


def test_what_is_not_a_large_matrix_is_kept_in_16_bits_or_as_it_is():
    state = network(1).state_dict()
    compressed = weights.compress(state, rank=2)
    assert compressed.keys() == state.keys()
    kinds = {name: tensor.dtype for name, tensor in compressed.items()}
    assert kinds["conv.weight"] == kinds["fc.weight"] == torch.float16
    assert kinds["conv.bias"] == kinds["norm.running_var"] == torch.float32
    assert kinds["norm.num_batches_tracked"] == torch.int64
    back = weights.expand(compressed)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        exact = tensor if tensor.ndim <= 1 else tensor.half().float()
        assert torch.equal(back[name], exact)


@pytest.mark.parametrize(("rank", "factored"), [(3, True), (4, False), (192, False)])
def test_a_matrix_of_too_few_rows_for_the_rank_is_kept_in_16_bits(rank, factored):
    matrix = torch.randn(4, 1_000_000, generator=torch.Generator().manual_seed(0))
    compressed = weights.compress({"w": matrix}, rank)
    assert weights.is_factored(matrix, rank) == factored == ("w" not in compressed)
    if not factored:
        assert torch.equal(compressed["w"], matrix.half())


def test_compressed_weights_load_into_the_full_network(tmp_path, matrix, small):
    model = nn.Sequential(nn.Linear(COLUMNS, ROWS))
    path = tmp_path / "weights.safetensors"
    weights.save(path, weights.compress({"0.weight": matrix, "0.bias": torch.ones(ROWS)}, rank=5))
    weights.load_into(model, path)
    assert torch.equal(model[0].weight, weights.expand(small)["fc.weight"]) and model[0].bias.min() == 1
    assert path.stat().st_size < 40_000


def test_compressing_is_repeatable_and_leaves_the_random_numbers_of_the_caller_alone(matrix, small):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    again = weights.compress({"fc.weight": matrix}, rank=5)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(again[name], tensor) for name, tensor in small.items())


@pytest.mark.parametrize("part", weights.FACTORS)
def test_a_missing_factor_is_told(tmp_path, small, part):
    path = tmp_path / "weights.safetensors"
    weights.save(path, {name: tensor for name, tensor in small.items() if name != f"fc.weight.{part}"})
    assert refusal(path) == "The compressed matrix fc.weight is incomplete; restore the file."


def test_factors_that_do_not_fit_together_are_told(tmp_path, small):
    path = tmp_path / "weights.safetensors"
    weights.save(path, {**small, "fc.weight.right": torch.zeros(4, COLUMNS, dtype=torch.int8)})
    assert "fc.weight is incomplete" in refusal(path)


def test_a_reader_sees_the_old_or_the_new_weights_never_a_part(file):
    old, new = network(1).state_dict(), network(2).state_dict()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            weights.save(file, new)
            weights.save(file, old)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            model = network(3)
            weights.load_into(model, file)
            assert same(model, network(1)) or same(model, network(2))
    finally:
        stop.set()
        writer.join()
