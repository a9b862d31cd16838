"""A vector made of tensors and the largest of its blocks in one pass: as two passes find them, whatever the guesses."""

import math

import numpy as np
import pytest
import torch

from laconic.kernels.api import Guesses, gather_scaled, gather_top_k, top_k_by_block
from laconic.kernels.cpu.flatten import PAST_CACHES_BYTES
from support.inputs import over_inputs

BLOCKS = [(70_000, 700), (1, 1), (9000, 8999), (20_000, 1), (40_000, 5000), (64, 3)]
D = sum(length for length, _ in BLOCKS)
SIZES = [50_000, 0, 30_000, 1, 59_000, 64]  # tensors end elsewhere than blocks
FACTORS = [0.5, 1.0, -2.0, 3.0, 0.25, 1.0]


def rounds(dtype):
    """Tensors and what is added to them, of rounds that are unlike: scales jump, values are tied, or all zero."""
    random = torch.Generator().manual_seed(0)

    def normal(scale=1.0):
        return scale * torch.randn(D, generator=random, dtype=dtype)

    few = torch.randint(-1, 2, (D,), generator=random).to(dtype)
    for vector, plus in (
        (normal(), normal()), (normal(), normal()), (normal(1e-3), normal(1e-3)), (normal(1e5), normal()),
        (few, few), (few, None), (0 * few, None), (0 * few, 0 * few), (normal(), None), (normal(1e-42), None),
    ):  # fmt: skip
        yield vector.split(SIZES), plus


@over_inputs("dtype", [torch.float32, torch.float64])
def test_one_pass_finds_what_two_passes_find_in_every_round(dtype):
    guesses = Guesses()
    for tensors, plus in rounds(dtype):
        out, expected = torch.empty(D, dtype=dtype), torch.empty(D, dtype=dtype)
        is_finite = gather_scaled(tensors, FACTORS, expected, plus)
        found = gather_top_k(tensors, FACTORS, out, plus, BLOCKS, guesses)
        assert found[0] is is_finite is True
        assert torch.equal(out, expected)
        assert torch.equal(out.signbit(), expected.signbit())
        assert torch.equal(found[1], top_k_by_block(expected, BLOCKS))


def test_no_guess_changes_what_is_found():
    vector = torch.randn(D, generator=torch.Generator().manual_seed(1))
    expected = top_k_by_block(vector + 0.0, BLOCKS)
    for magnitude in (0, 1, 1 << 29, 0x3F800000, 0x40200000, (1 << 31) - 1):
        guesses = Guesses()
        guesses.magnitudes = np.full(len(BLOCKS), magnitude)
        for _ in range(2):
            assert torch.equal(gather_top_k([vector], [1.0], torch.empty(D), None, BLOCKS, guesses)[1], expected)
    other_blocks = [(D, 100)]  # for which the guesses are none
    assert torch.equal(
        gather_top_k([vector], [1.0], torch.empty(D), None, other_blocks, guesses)[1],
        top_k_by_block(vector, other_blocks),
    )


def test_long_vectors_which_are_stored_past_the_caches_get_the_same_bits():
    random, n = torch.Generator().manual_seed(3), PAST_CACHES_BYTES // 4
    vector, plus = torch.randn(2, n + 100, generator=random)
    tensors, blocks, guesses = vector.split([n - 71, 171]), [(n, 300), (100, 7)], Guesses()  # the second lies elsewhere
    for more in (plus, None, plus):
        out, expected = torch.empty(2, n + 128)[:, : n + 100]
        assert not out.data_ptr() % 64
        gather_scaled(tensors, [0.5, -1.0], expected, more)
        is_finite, found = gather_top_k(tensors, [0.5, -1.0], out, more, blocks, guesses)
        assert is_finite
        assert torch.equal(out, expected)
        assert torch.equal(found, top_k_by_block(expected, blocks))


def test_inf_and_nan_are_noticed_and_are_the_largest():
    vector, guesses = torch.zeros(D), Guesses()
    vector[1], vector[3], vector[4] = -math.inf, math.nan, 1.0
    for _ in range(2):
        is_finite, found = gather_top_k([vector], [1.0], torch.empty(D), None, [(D, 2)], guesses)
        assert not is_finite
        assert found.tolist() == [1, 3]


def test_tensors_that_are_not_plain_are_found_as_torch_reads_them():
    matrix = torch.randn(200, 100, generator=torch.Generator().manual_seed(2)).t()
    out = torch.empty(20_000)
    assert torch.equal(
        gather_top_k([matrix], [2.0], out, torch.zeros(1).expand(20_000), [(20_000, 50)], Guesses())[1],
        top_k_by_block(2 * matrix.reshape(-1), [(20_000, 50)]),
    )
    assert torch.equal(out, 2 * matrix.reshape(-1))


def test_wrong_blocks_and_factors_are_refused():
    out = torch.empty(5)
    for blocks, message in (
        ([(2, 1), (3, 4)], r"gather_top_k: k=4 must be in 1 \.\. 3, the length of its block"),
        ([(2, 1)], "gather_top_k: blocks of 2 elements in all for a vector of 5"),
    ):
        with pytest.raises(ValueError, match=message):
            gather_top_k([torch.ones(5)], [1.0], out, None, blocks, Guesses())
    with pytest.raises(ValueError, match="gather_top_k: number of factors=2"):
        gather_top_k([torch.ones(5)], [1.0, 2.0], out, None, [(5, 1)], Guesses())
