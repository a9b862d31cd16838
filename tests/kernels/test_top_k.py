"""Exact top-K: the compiled and the plain version against sorting, on kind and on unkind vectors."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.algorithms.sparse import SparseSGD
from laconic.compressors import TopK, chosen, n_selected_by_block, n_selected_for, n_selected_in
from laconic.contract import ModelSpec
from laconic.kernels import api as kernels
from laconic.kernels import dispatch
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.cpu import top_k as cpu_top_k
from laconic.kernels.reference import top_k as reference_top_k
from support.inputs import over_inputs

VERSIONS = [reference_top_k.top_k, cpu_top_k.top_k, kernels.top_k]
D = 150_000  # long enough for the compiled version's sample


def by_magnitude(vector: torch.Tensor) -> np.ndarray:
    """All positions, those of the largest magnitudes first, and of equal ones the lower first."""
    magnitudes = vector.abs().numpy()
    return np.lexsort((np.arange(len(magnitudes)), -magnitudes))


def by_sorting(vector: torch.Tensor, k: int) -> list[int]:
    return sorted(by_magnitude(vector)[:k].tolist())


def normal(d: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(d, generator=torch.Generator().manual_seed(seed))


def long_vectors() -> dict[str, torch.Tensor]:
    warm_up_steps = torch.arange(D, dtype=torch.float32)
    few = torch.randint(0, 3, (D,), generator=torch.Generator().manual_seed(6)).float() - 1
    lone = torch.zeros(D)
    lone[[3, 64, 77_777, D - 1]] = torch.tensor([-1e-45, 2.0, -2.0, 1e-40])
    hidden = torch.zeros(D)
    hidden[torch.arange(0, D, 97)] = normal(len(range(0, D, 97)))
    return {
        "normal": normal(D),
        "heavy-tailed": normal(D) / normal(D, 7),
        "constant": torch.full((D,), -2.5),
        "all zero": torch.zeros(D),
        "few values": few,
        "ascending": warm_up_steps,
        "descending": -warm_up_steps.flip(0),
        "saw": (warm_up_steps % 4) * torch.where(warm_up_steps % 2 == 0, 1, -1),
        "nearly all zero": lone,
        "mostly zero": hidden,
        "denormal": normal(D) * 1e-42,
        "widest range": torch.exp2(40 * normal(D)).clamp(max=3e38),
    }


LONG = long_vectors()


@over_inputs("name", LONG)
@over_inputs("dtype", [torch.float32, torch.float64])
@pytest.mark.slow
def test_the_largest_of_a_long_vector_are_those_that_sorting_finds(name, dtype):
    vector = LONG[name].to(dtype)
    order = by_magnitude(vector)
    for k in (1, 2, 150, 1500, 20_000, D - 1, D):
        expected = np.sort(order[:k]).tolist()
        for version in VERSIONS:
            assert version(vector, k).tolist() == expected


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=70), st.data())
def test_every_version_finds_what_sorting_finds(numbers, data):
    k = data.draw(st.integers(1, len(numbers)))
    for dtype in (torch.float32, torch.float64):
        vector = torch.tensor(numbers, dtype=dtype)
        for version in VERSIONS:
            assert version(vector, k).tolist() == by_sorting(vector, k)


@pytest.mark.parametrize("version", VERSIONS)
def test_ties_go_to_the_lower_position_and_the_sign_of_zero_does_not_count(version):
    assert version(torch.tensor([1.0, -2.0, 2.0, -1.0, 2.0]), 2).tolist() == [1, 2]
    assert version(torch.tensor([1.0, -2.0, 2.0, -1.0, 2.0]), 4).tolist() == [0, 1, 2, 4]
    assert version(torch.tensor([-0.0, 0.0, 1e-45, 0.0]), 2).tolist() == [0, 2]
    assert version(torch.tensor([0.0, -0.0, -0.0]), 2).tolist() == [0, 1]


@pytest.mark.parametrize("version", VERSIONS)
@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("d", [6, D])
def test_nan_counts_as_larger_than_infinity(version, dtype, d):
    vector = torch.zeros(d, dtype=dtype)
    vector[1], vector[3], vector[4] = -math.inf, math.nan, 1.0
    assert [version(vector, k).tolist() for k in (1, 2, 3)] == [[3], [1, 3], [1, 3, 4]]
    assert version(torch.full((d,), math.nan, dtype=dtype), 2).tolist() == [0, 1]


def test_positions_are_integers_and_the_vector_stays_as_it_is():
    for vector in (normal(300), normal(900)[::3], normal(300).requires_grad_()):
        before = vector.detach().clone()
        found = kernels.top_k(vector, 7)
        assert found.dtype == torch.int64
        assert found.tolist() == by_sorting(vector.detach(), 7)
        assert torch.equal(vector.detach(), before)


def test_a_slice_in_the_middle_of_a_vector_is_taken_by_itself():
    vector = normal(2 * D)
    assert kernels.top_k(vector[D + 1 :], 200).tolist() == by_sorting(vector[D + 1 :], 200)


@over_inputs("k", [-1, 0, 4])
def test_a_number_of_values_that_there_are_not_is_refused(k):
    with pytest.raises(ValueError, match=rf"^top_k: k={k} must be in 1 \.\. d=3; "):
        kernels.top_k(torch.ones(3), k)


@over_inputs("vector", [torch.ones(2, 2), torch.ones(3, dtype=torch.float16), torch.ones(3).long()])
def test_what_is_no_flat_vector_of_floats_is_refused(vector):
    with pytest.raises(TypeError, match=r"^top_k: vector is torch\.\w+ of shape .* must be a vector of torch\.float32"):
        kernels.top_k(vector, 1)


# How many


@over_inputs(
    ("density", "d", "elements"),
    [
        (0.29, 100, 29),  # the float is below 0.29
        (0.01, 401408, 4014),
        (0.01, 11173962, 111739),
        (0.001, 11173962, 11173),
        (1.0, 7, 7),
        (1e-05, 100_000, 1),
        (1e-05, 99_999, 0),
        (0.07, 100, 7),
    ],
)
def test_a_density_is_read_as_the_decimal_that_it_prints_as(density, d, elements):
    assert n_selected_for(density, d) == elements


def test_every_layer_gives_its_share_and_one_value_or_more():
    spec = ModelSpec.of_sizes(401408, 512, 5120, 10)
    blocks = n_selected_by_block(spec.d, density=0.01, blocks="layer", spec=spec)
    assert blocks == [(401408, 4014), (512, 5), (5120, 51), (10, 1)]
    assert sum(elements for _, elements in blocks) == 4071
    blocks = n_selected_by_block(12, density=0.01, k=3, blocks="layer", spec=ModelSpec.of_sizes(8, 0, 2, 2))
    assert blocks == [(8, 3), (2, 2), (2, 2)]
    assert n_selected_by_block(12, density=0.5, blocks="layer") == [(12, 6)]


def test_the_chosen_are_the_largest_of_each_layer():
    vector = torch.tensor([1.0, -5.0, 4.0, 3.0, 9.0, -9.0, 0.5])
    assert chosen(vector, density=0.5).tolist() == [1, 4, 5]
    assert chosen(vector, density=0.5, blocks="layer", spec=ModelSpec.of_sizes(3, 2, 0, 2)).tolist() == [1, 4, 5]
    pairs = chosen(vector, density=0.5, k=2, blocks="layer", spec=ModelSpec.of_sizes(3, 2, 2))
    assert pairs.tolist() == [1, 2, 3, 4, 5, 6]
    assert chosen(vector, density=0.5, k=1).tolist() == [4]


@over_inputs("size", (1, 2, 7, 64, 500))
def test_the_chosen_of_blocks_of_a_size_are_those_of_layers_of_that_size(size):
    d, generator = 777, torch.Generator().manual_seed(size)
    spec = ModelSpec.of_sizes(*[size] * (d // size), *[d % size] * (d % size > 0))
    usual = torch.randn(d, generator=generator)
    ties = torch.randint(-2, 3, (d,), generator=generator).float()
    odd = torch.where(ties == 2, torch.nan, torch.where(ties == 1, torch.inf, usual))
    for vector in (usual, usual.double(), ties, odd, torch.zeros(d)):
        for selection in ({"density": 0.3}, {"density": 1.0}, {"density": 0.3, "k": 3}):
            of_blocks = chosen(vector, blocks=str(size), **selection)
            assert torch.equal(of_blocks, chosen(vector, blocks="layer", spec=spec, **selection))


@over_inputs("dtype", [torch.float32, torch.float64])
def test_the_largest_of_all_blocks_are_found_in_one_call_as_block_by_block(dtype):
    blocks = [(70_000, 700), (1, 1), (9000, 8999), (20_000, 1), (40_000, 5000), (64, 3)]
    of_zeros = torch.zeros(sum(length for length, _ in blocks))
    vectors = [LONG[name][: len(of_zeros)] for name in ("normal", "constant", "few values", "nearly all zero")]
    for vector in (*vectors, of_zeros):
        expected = reference_top_k.top_k_by_block(vector.to(dtype), blocks)
        assert torch.equal(kernels.top_k_by_block(vector.to(dtype), blocks), expected)


def test_blocks_that_do_not_make_the_vector_are_refused():
    with pytest.raises(ValueError, match=r"^top_k_by_block: k=4 must be in 1 \.\. 3, the length of its block"):
        kernels.top_k_by_block(torch.ones(5), [(2, 1), (3, 4)])
    for blocks in ([(2, 1), (2, 1)], []):
        with pytest.raises(ValueError, match=r"^top_k_by_block: blocks of \d elements in all for a vector of 5"):
            kernels.top_k_by_block(torch.ones(5), blocks)


@over_inputs("blocks", ("0", "-3", "half", "2.5", ""))
def test_blocks_that_are_no_size_are_refused_at_construction(blocks):
    for cls in (TopK, SparseSGD):
        with pytest.raises(ValueError, match=r'must be "vector", "layer" or a whole number of elements above 0'):
            cls(blocks=blocks)


def test_no_value_and_too_many_are_refused_with_the_remedy():
    with pytest.raises(
        ValueError, match=r"^top-k: density=0\.01 of d=99 is no element; make it at least 1/99, or give"
    ):
        n_selected_in(99, density=0.01)
    for k in (0, 6):
        with pytest.raises(ValueError, match=rf"^top-k: k={k} must be in 1 \.\. d=5, the vector's length; or leave k"):
            chosen(torch.ones(5), density=0.5, k=k)


# With and without numba


@pytest.mark.slow
def test_importing_the_package_does_not_import_numba():
    program = "import sys, laconic, laconic.cli; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def forget_backends():
    compiled.numba_available.cache_clear()
    dispatch.fastest.cache_clear()


def test_without_numba_torch_serves_and_one_warning_names_the_remedy(monkeypatch):
    forget_backends()
    monkeypatch.setitem(sys.modules, "numba", None)
    try:
        with pytest.warns(RuntimeWarning, match="pip install numba"):
            assert kernels.top_k(normal(50), 5).tolist() == by_sorting(normal(50), 5)
        assert kernels.top_k(normal(50), 6).tolist() == by_sorting(normal(50), 6)  # a second warning would be an error
    finally:
        forget_backends()


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("k", [1, 40, 99])
def test_the_smallest_magnitudes_are_those_that_a_stable_sort_begins_with(k, dtype):
    vector = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=dtype)
    vector[10:30] = -vector[0]  # ties
    vector[50], vector[60] = 0.0, torch.inf
    assert kernels.bottom_k(vector, k).tolist() == sorted(vector.abs().argsort(stable=True)[:k].tolist())
