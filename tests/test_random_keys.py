"""Keys: one for every draw, the same on every machine and in every version."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.random_keys import KEY_BITS, make_key, uniform

ROLES = ("worker", "server", "model", "data")
int64s = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize(
    ("draw", "key", "number"),
    [
        ((0, "worker", 0, 0, "mask"), 0x97847015D380F552, 0.5918645909582698),
        ((1, "worker", 3, 7, "mask"), 0x4806654E26238EC1, 0.28134759099897455),
        ((0, "server", 0, 0, "skip"), 0xD9293985227EAA19, 0.8482852888141631),
        ((2**63 - 1, "model", 0, 0, "init"), 0x3704990ED4F918D9, 0.21491390812022748),
        ((-1, "data", 2**40, -5, ""), 0x43D9C0CDB5BC2958, 0.26504139921392833),
    ],
)
def test_keys_never_change(draw, key, number):
    assert make_key(*draw) == key
    assert uniform(key) == number


def test_a_key_differs_in_every_component():
    draw = {"seed": 1, "role": "worker", "rank": 2, "step": 3, "stream": "mask"}
    others = {"seed": 2, "role": "server", "rank": 3, "step": 4, "stream": "skip"}
    keys = [make_key(**draw)] + [make_key(**(draw | {name: other})) for name, other in others.items()]
    assert len(set(keys)) == 6
    swapped = [make_key(a, "worker", b, c, "mask") for a, b, c in product((1, 2, 3), repeat=3)]
    assert len(set(swapped)) == 27


def test_no_two_draws_of_a_grid_share_a_key():
    grid = product((0, 1, -1), ROLES, range(20), range(50), ("mask", "skip"))
    assert len({make_key(*draw) for draw in grid}) == 3 * 4 * 20 * 50 * 2


def test_role_and_stream_are_separated_in_a_key():
    assert make_key(0, "data", 0, 0, "a") != make_key(0, "dat", 0, 0, "aa")
    assert make_key(0, "worker", 0, 0, "") != make_key(0, "worker", 0, 0, "\0")


@given(int64s, st.sampled_from(ROLES), int64s, int64s, st.text(max_size=20))
def test_a_key_is_64_bits_and_its_number_is_below_one(seed, role, rank, step, stream):
    key = make_key(seed, role, rank, step, stream)
    assert 0 <= key < 2**KEY_BITS
    assert 0.0 <= uniform(key) < 1.0
    assert make_key(seed, role, rank, step, stream) == key


def test_the_smallest_and_largest_key_give_the_smallest_and_largest_number():
    assert uniform(0) == 0.0
    assert uniform(2**64 - 1) == 1 - 2**-53
    assert uniform(1 << 63) == 0.5
    assert uniform((1 << 11) - 1) == 0.0  # a float cannot hold the lowest 11 bits
    assert uniform(1 << 11) == 2**-53


def numbers(n: int, role: str = "worker", rank: int = 0, stream: str = "skip") -> np.ndarray:
    return np.array([uniform(make_key(7, role, rank, step, stream)) for step in range(n)])


def test_every_bit_of_the_keys_is_balanced():
    n = 20_000
    keys = np.array([make_key(7, "worker", 0, step, "skip") for step in range(n)], dtype=np.uint64)
    for bit in range(64):
        ones = int((keys >> np.uint64(bit) & np.uint64(1)).sum())
        assert abs(ones - n / 2) < 5 * (n / 4) ** 0.5, bit


def test_the_numbers_of_successive_steps_fill_the_unit_interval_evenly():
    n, cells = 20_000, 50
    counts = np.bincount((numbers(n) * cells).astype(int), minlength=cells)
    chi_squared = float(((counts - n / cells) ** 2 / (n / cells)).sum())
    assert abs(chi_squared - (cells - 1)) < 5 * (2 * (cells - 1)) ** 0.5


def test_draws_of_different_ranks_roles_and_purposes_are_unrelated():
    n = 5000
    streams = [numbers(n), numbers(n, rank=1), numbers(n, role="server"), numbers(n, stream="mask")]
    streams.append(np.roll(streams[0], 1))  # and those of successive steps
    for one, other in combinations(streams, 2):
        together = ((one - 0.5) * (other - 0.5)).sum() * 12 / n**0.5
        assert abs(together) < 5
