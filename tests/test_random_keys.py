"""Keys: one for every draw, the same on every machine and in every version."""

import statistics
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.random_keys import KEY_BITS, make_key, uniform
from laconic.random_keys.streams import normals, words

ROLES = ("worker", "server", "shared", "model", "data")
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
    assert len({make_key(*draw) for draw in grid}) == 3 * 5 * 20 * 50 * 2


def test_role_and_stream_are_separated_in_a_key():
    assert make_key(0, "data", 0, 0, "a") != make_key(0, "dat", 0, 0, "aa")
    assert make_key(0, "worker", 0, 0, "") != make_key(0, "worker", 0, 0, "\0")


@pytest.mark.slow
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


# Streams of words and of normal numbers.

KEY = 0x97847015D380F552
MASK_64 = 2**64 - 1


def philox_words(key, n):
    """Philox 4x64-10, as its authors print it (Salmon et al.: Parallel Random Numbers: As Easy as 1, 2, 3)."""
    found = []
    for number in range(1, n // 4 + 2):  # numpy counts before it draws
        counter, k = [number, 0, 0, 0], [key, 0]
        for round_ in range(10):
            if round_:
                k = [(k[0] + 0x9E3779B97F4A7C15) & MASK_64, (k[1] + 0xBB67AE8584CAA73B) & MASK_64]
            one, other = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
            counter = [
                (other >> 64) ^ counter[1] ^ k[0], other & MASK_64, (one >> 64) ^ counter[3] ^ k[1], one & MASK_64
            ]  # fmt: skip
        found += counter
    return found[:n]


def test_words_are_those_that_philox_defines():
    assert words(KEY, 21).tolist() == philox_words(KEY, 21)


@pytest.mark.parametrize("offset", range(9))
def test_a_part_of_a_stream_has_the_same_numbers(offset):
    assert np.array_equal(words(KEY, 7, offset), words(KEY, 20)[offset : offset + 7])
    assert np.array_equal(normals(KEY, 7, offset), normals(KEY, 20)[offset : offset + 7])
    assert len(normals(KEY, 0, offset)) == 0


def test_normals_are_the_quantiles_of_the_words():
    exact = [((word >> 12) + 0.5) / 2**52 for word in philox_words(KEY, 3000)]
    usual = np.array([statistics.NormalDist().inv_cdf(probability) for probability in exact])
    np.testing.assert_allclose(normals(KEY, 3000), usual, rtol=1e-14)


def test_normals_never_change():
    bits = [float(number).hex() for number in normals(KEY, 3)]
    assert bits == ["-0x1.3e5f7b3370f8cp+1", "-0x1.a5fc694f46a9fp+0", "0x1.5d4256edff018p+0"]


def test_normals_have_the_moments_of_the_normal_distribution():
    n = 200_000
    z = normals(KEY, n)
    moments = {1: 0.0, 2: 1.0, 3: 0.0, 4: 3.0, 5: 0.0, 6: 15.0}
    variances = {1: 1, 2: 2, 3: 15, 4: 96, 5: 945, 6: 10_170}  # of z**k: E z**2k - (E z**k)**2
    for power, moment in moments.items():
        assert abs((z**power).mean() - moment) < 4 * (variances[power] / n) ** 0.5
    assert abs((z[1:] * z[:-1]).mean()) < 4 / n**0.5
    other = normals(KEY ^ 1, n)
    assert abs((z * other).mean()) < 4 / n**0.5
