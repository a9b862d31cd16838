"""Four codes of one list: what was put in comes out, in as many bits as said, and one set has one stream."""

import math
import re
import sys
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.errors import WireError
from laconic.kernels import dispatch
from laconic.kernels.cpu import compile as compiled
from laconic.wire import POSITION_CODES, decode_positions, encode_positions, entropy_bound_bits, paper_position_bits
from laconic.wire.coding.positions import block_bits, block_length, block_stream, position_bits, rice_bits
from support.inputs import over_inputs
from support.position_sets import random_support, supports

RESNET_18 = 11_173_962


def bits_of(data, n_bits: int) -> str:
    return "".join(f"{byte:08b}" for byte in data.tolist())[:n_bits]


def stream_of(text: str) -> tuple[torch.Tensor, int]:
    """A stream from its bits in words of 0 and 1."""
    bits = text.replace(" ", "")
    return torch.from_numpy(np.packbits(np.array(list(bits), dtype=np.uint8))), len(bits)


def believed(data: torch.Tensor, n_bits: int, k: int, count: int, code: str) -> bool:
    """Whether the stream is taken. What is taken is a set of k positions, and has this stream alone."""
    try:
        where = decode_positions(data, n_bits, k, count, code)
    except WireError:
        return False
    again, again_bits = encode_positions(where, count, code)
    assert (where.numel(), again_bits) == (k, n_bits)
    assert torch.equal(again, data)
    return True


def test_blocks_of_4_in_16_give_the_papers_stream():
    data, n_bits = block_stream(torch.tensor([1, 2, 9]), 16, 4)
    assert bits_of(data, n_bits) == "1011100010100"
    assert data.tolist() == [0b10111000, 0b10100000]


@over_inputs(
    ("count", "length", "k", "n_bits"), [(1000, 100, 10, 90), (1037, 100, 11, 99), (4096, 128, 32, 288),
                                         (100_000, 1000, 100, 1200)]
)  # fmt: skip
def test_a_block_stream_has_its_one_length_whatever_it_codes(count, length, k, n_bits):
    for where in (torch.arange(k), torch.arange(count - k, count), random_support(count, k)):
        assert block_stream(where, count, length)[1] == n_bits


def test_the_papers_figures_for_resnet_18():
    k, changed = RESNET_18 // 100, RESNET_18 // 1000
    assert block_length(RESNET_18, k) == 100
    assert block_bits(RESNET_18, k) == 1_005_652
    assert 2 * block_bits(RESNET_18, changed) == 268_154
    assert paper_position_bits(RESNET_18, k) == k * 9 == 1_005_651
    assert paper_position_bits(RESNET_18, changed) == changed * 12
    assert paper_position_bits(RESNET_18, 0) == block_bits(RESNET_18, 0) == 0


def test_the_streams_listed_in_the_page_are_the_ones_made():
    page = files("laconic.wire").joinpath("FORMAT.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (\d+) \| ([0-9a-f ]+) \| (\d+) \| ([0-9a-f ]+) \|$", page, re.MULTILINE)
    assert [row[0] for row in rows] == list(POSITION_CODES)
    for code, *cells in rows:
        for where, count, n_bits, data in (
            (torch.tensor([1, 2, 9]), 16, *cells[:2]),
            (torch.arange(3, 1000, 90), 1000, *cells[2:]),
        ):
            made, made_bits = encode_positions(where, count, code)
            assert (bytes(made.tolist()).hex(" "), made_bits) == (data, int(n_bits))


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(supports(), st.sampled_from(POSITION_CODES))
def test_what_is_decoded_is_what_was_encoded(support, code):
    where, count = support
    data, n_bits = encode_positions(where, count, code)
    assert data.dtype == torch.uint8
    assert data.numel() == math.ceil(n_bits / 8)
    found = decode_positions(data, n_bits, where.numel(), count, code)
    assert found.dtype == torch.int64
    assert torch.equal(found, where)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(supports(), st.sampled_from(POSITION_CODES))
def test_the_length_is_known_as_the_stream_has_it(support, code):
    positions, count = support
    assert position_bits(positions, count, code) == encode_positions(positions, count, code)[1]


@settings(deadline=None)
@given(supports())
def test_lengths_are_what_the_counting_reports(support):
    where, count = support
    k = where.numel()
    lengths = {code: encode_positions(where, count, code)[1] for code in POSITION_CODES}
    assert lengths["list"] == k * (count - 1).bit_length()
    assert lengths["block"] == block_bits(count, k)
    if k:
        low = rice_bits(count, k)
        assert k * (1 + low) <= lengths["rice"] <= k * (1 + low) + (count - k) / 2**low
        assert lengths["entropy"] <= 44 * k  # 14 for a class of one share, 30 for the longest rest
    assert paper_position_bits(count, k) == (k * (math.ceil(math.log2(block_length(count, k))) + 2) if k else 0)


@pytest.mark.parametrize("code", POSITION_CODES)
@over_inputs("count", [1, 2, 7, 64, 1000])
def test_none_and_all_of_the_coordinates_can_be_coded(code, count):
    for where in (torch.empty(0, dtype=torch.int64), torch.arange(count), torch.tensor([count - 1])):
        data, n_bits = encode_positions(where, count, code)
        assert torch.equal(decode_positions(data, n_bits, where.numel(), count, code), where)
    assert encode_positions(torch.empty(0, dtype=torch.int64), count, code)[1] == 0


@pytest.mark.parametrize("code", POSITION_CODES)
def test_ten_million_coordinates_apart_and_side_by_side_are_coded(code):
    count = 1 << 32
    for where in (
        torch.tensor([0, 1, 2, 3, count - 1]),
        torch.tensor([count - 2, count - 1]),
        torch.arange(300) * 10_000_000,
        torch.cat([torch.arange(500), torch.arange(count - 500, count)]),
    ):
        data, n_bits = encode_positions(where, count, code)
        assert torch.equal(decode_positions(data, n_bits, where.numel(), count, code), where)


@over_inputs(("density", "rice", "entropy"), [(0.1, 1.02, 1.003), (0.01, 1.006, 1.002), (0.001, 1.01, 1.005)])
def test_random_supports_take_little_more_than_the_minimum(density, rice, entropy):
    count = 1_000_000
    k = int(count * density)
    bound = entropy_bound_bits(count, k)
    for seed in range(3):
        where = random_support(count, k, seed)
        assert bound <= encode_positions(where, count, "entropy")[1] <= entropy * bound
        assert bound <= encode_positions(where, count, "rice")[1] <= rice * bound


def test_the_bound_is_the_logarithm_of_the_number_of_sets():
    assert entropy_bound_bits(16, 3) == pytest.approx(math.log2(560))
    assert entropy_bound_bits(1000, 500) == pytest.approx(math.log2(math.comb(1000, 500)))
    assert entropy_bound_bits(7, 0) == entropy_bound_bits(7, 7) == 0


@pytest.mark.parametrize("code", POSITION_CODES)
@over_inputs("where", [[3, 2], [2, 2], [-1, 2], [2, 10], [10], [-1]])
def test_positions_that_are_none_are_the_callers_mistake(code, where):
    with pytest.raises(ValueError, match=r"positions must ascend, each once, within 0 \.\. 9"):
        encode_positions(torch.tensor(where), 10, code)


def test_other_types_and_unknown_codes_are_the_callers_mistake():
    with pytest.raises(ValueError, match=r"int64, not torch\.int32"):
        encode_positions(torch.tensor([1, 2], dtype=torch.int32), 10, "block")
    with pytest.raises(ValueError, match="unknown position code 'zip'; known: list, block, rice, entropy"):
        encode_positions(torch.tensor([1]), 10, "zip")


@over_inputs(
    ("code", "k", "count", "stream"),
    [
        ("list", 2, 10, "0101 0101"),  # twice the same
        ("list", 2, 10, "0101 0100"),  # backwards
        ("list", 2, 10, "0101 1010"),  # 10 is not below 10
        ("list", 2, 10, "0101 0111 0"),  # a bit more
        ("block", 2, 10, "1001 1001 0 0"),  # twice the same
        ("block", 2, 10, "1010 1001 0 0"),  # backwards
        ("block", 2, 10, "1001 1101 0 0"),  # offset 5 in a block of 5
        ("block", 2, 10, "0 0 1001 1010"),  # in a block that is none
        ("block", 2, 10, "0 1001 1010 0 0"),  # a block more
        ("block", 2, 9, "1001 0 1100 0"),  # 9 is not below 9
        ("block", 2, 10, "1001 0 0 1010"),  # behind the last block
        ("rice", 2, 10, "1 11 1 11 000"),  # a tail
        ("rice", 2, 10, "1 11 01 11"),  # 11 is not below 10
        ("rice", 2, 10, "1 11 1 1"),  # cut short
        ("rice", 2, 10, "1 11 0 0 0"),  # no one bit
        ("entropy", 2, 10, "0"),  # something is left
        ("entropy", 2, 10, 63 * "1"),  # much is left
        ("entropy", 2, 10, 32 * "0" + 33 * "1"),  # so is a word
    ],
)
def test_a_stream_of_no_set_is_refused(code, k, count, stream):
    data, n_bits = stream_of(stream)
    with pytest.raises(WireError):
        decode_positions(data, n_bits, k, count, code)


@pytest.mark.parametrize("code", POSITION_CODES)
def test_more_positions_than_coordinates_are_refused(code):
    for k in (11, 2**32 - 1, 2**60, -1):
        with pytest.raises(WireError, match="positions among 10"):
            decode_positions(torch.zeros(2, dtype=torch.uint8), 12, k, 10, code)


@pytest.mark.parametrize("code", POSITION_CODES)
def test_a_set_is_coded_once_in_all_short_streams(code):
    for count, k, longest in ((5, 2, 12), (4, 4, 9), (6, 1, 10), (3, 0, 3)):
        taken = 0
        for n_bits in range(longest + 1):
            for number in range(1 << n_bits):
                data = (number << -n_bits % 8).to_bytes((n_bits + 7) // 8, "big")
                taken += believed(torch.tensor(list(data), dtype=torch.uint8), n_bits, k, count, code)
        sets = [torch.tensor(where, dtype=torch.int64) for where in combinations(range(count), k)]
        assert taken == sum(encode_positions(where, count, code)[1] <= longest for where in sets)


@settings(deadline=None, max_examples=100)
@given(supports(), st.sampled_from(POSITION_CODES), st.integers(1, 3))
def test_streams_that_are_truncated_turned_or_prolonged_are_refused_or_code_another_set(support, code, n_more):
    where, count = support
    k = where.numel()
    data, n_bits = encode_positions(where, count, code)
    for bit in range(8 * data.numel()):
        turned = data.clone()
        turned[bit // 8] ^= 0x80 >> bit % 8
        if believed(turned, n_bits, k, count, code):
            assert bit < n_bits  # padding is zero
            assert not torch.equal(decode_positions(turned, n_bits, k, count, code), where)
    for n_left in range(n_bits):
        full, bits = divmod(n_left, 8)
        shorter = data[: (n_left + 7) // 8].clone()
        if bits:
            shorter[full] &= 0xFF00 >> bits & 0xFF
        believed(shorter, n_left, k, count, code)
        assert not believed(shorter, n_bits, k, count, code) or shorter.numel() == data.numel()
    longer = torch.cat([data, torch.zeros(n_more, dtype=torch.uint8)])
    assert not believed(longer, n_bits, k, count, code)
    believed(longer, 8 * longer.numel(), k, count, code)


@pytest.mark.parametrize("code", POSITION_CODES)
def test_noise_is_refused_or_is_a_set(code):
    rng = np.random.default_rng(7)
    honest = [encode_positions(random_support(1000, k), 1000, code)[1] for k in range(21)]
    taken = 0
    for _ in range(5_000):
        data = rng.bytes(int(rng.integers(0, 20)))
        n_bits = max(0, 8 * len(data) - int(rng.integers(0, 8)))
        count = int(rng.choice((3, 30, 1000, 2**32)))
        k = int(rng.integers(0, min(count, 20) + 1))
        if rng.random() < 0.5:  # as long as such a stream may be
            n_bits, count = honest[k], 1000
            data = (int.from_bytes(rng.bytes(100), "big") % 2**n_bits << -n_bits % 8).to_bytes((n_bits + 7) // 8, "big")
        taken += believed(torch.tensor(list(data), dtype=torch.uint8), n_bits, k, count, code)
    assert taken < 2_500


@pytest.fixture
def no_numba(monkeypatch):
    """numba cannot be imported while the test runs."""
    monkeypatch.setitem(sys.modules, "numba", None)
    compiled.numba_available.cache_clear()
    dispatch.fastest.cache_clear()
    with pytest.warns(RuntimeWarning, match="numba cannot be imported"):
        assert not compiled.numba_available()
    yield
    compiled.numba_available.cache_clear()
    dispatch.fastest.cache_clear()


RANDOM_300 = random_support(5000, 300)
STREAMS = {code: encode_positions(RANDOM_300, 5000, code) for code in POSITION_CODES}


@pytest.mark.usefixtures("no_numba")
@pytest.mark.parametrize("code", POSITION_CODES)
def test_without_numba_the_streams_are_the_same(code):
    data, n_bits = encode_positions(RANDOM_300, 5000, code)
    assert n_bits == STREAMS[code][1]
    assert torch.equal(data, STREAMS[code][0])
    assert torch.equal(decode_positions(data, n_bits, 300, 5000, code), RANDOM_300)
