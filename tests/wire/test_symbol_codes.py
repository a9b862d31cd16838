"""Symbols in a number of bits each, or by how often each is there: FORMAT.md, section 7."""

import math
import re
import struct
from importlib.resources import files

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.errors import WireError
from laconic.kernels.api import pack_codes
from laconic.kernels.cpu import ans_symbols as cpu_ans_symbols
from laconic.kernels.reference import ans_gaps as reference_ans_gaps
from laconic.kernels.reference import ans_symbols as reference_ans_symbols
from laconic.wire.coding.symbols import check_packed, decode_symbols, encode_symbols, entropy_bits, symbol_starts
from support.inputs import over_inputs

VERSIONS = [reference_ans_symbols, cpu_ans_symbols]


@st.composite
def alphabets(draw):
    """Symbols (k,) int32 and the size of their alphabet."""
    n_symbols = draw(st.sampled_from((1, 2, 3, 5, 256, 511)))
    used = draw(st.integers(1, n_symbols))
    return torch.tensor(draw(st.lists(st.integers(0, used - 1), min_size=1, max_size=80)), dtype=torch.int32), n_symbols


@settings(deadline=None, max_examples=200)
@given(alphabets())
def test_what_is_read_is_what_was_written(sampled):
    symbols, n_symbols = sampled
    data, n_bits = encode_symbols(symbols, n_symbols)
    assert data.numel() == 4 * n_symbols + 8 + (n_bits - 32 * n_symbols + 7) // 8
    delivered, read_bits = decode_symbols(data, len(symbols), n_symbols, "test")
    assert delivered.dtype == torch.int32
    assert delivered.tolist() == symbols.tolist()
    assert read_bits == n_bits


@settings(deadline=None)
@given(alphabets())
def test_symbols_are_encoded_and_decoded_alike(sampled):
    symbols, n_symbols = sampled[0].numpy(), sampled[1]
    starts = symbol_starts(np.bincount(symbols, minlength=n_symbols))
    words, top = reference_ans_symbols.ans_encode_symbols(symbols, starts)
    made_words, made_top = cpu_ans_symbols.ans_encode_symbols(symbols, starts)
    assert made_words.dtype == words.dtype
    assert (made_words.tolist(), made_top) == (words.tolist(), top)
    for version in VERSIONS:
        decoded, full = version.ans_decode_symbols(words, top, symbols.size, starts)
        assert full
        assert decoded.tolist() == symbols.tolist()


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(0, 2**32 - 1), max_size=12),
    st.lists(st.integers(0, 9), min_size=1, max_size=9).filter(any),
    st.integers(1, 30),
    st.data(),
)
def test_a_stack_of_noise_is_read_alike(words, counts, k, data):
    starts = symbol_starts(np.array(counts))
    top = data.draw(st.integers(2**32 if words else 1, 2**64 - 1))
    stack = np.array(words, dtype=np.uint32)
    reference, made = (version.ans_decode_symbols(stack, top, k, starts) for version in VERSIONS)
    assert made[1] == reference[1]
    assert made[0].tolist() == reference[0].tolist()


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 // 511), min_size=1, max_size=511).filter(any))
def test_every_symbol_that_is_there_has_a_share_and_no_other_has_one(counts):
    starts = symbol_starts(np.array(counts))
    assert (starts[0], starts[-1]) == (0, 1 << reference_ans_gaps.SHARE_BITS)
    assert ((np.diff(starts) > 0) == (np.array(counts) > 0)).all()


@over_inputs("chances", [[0.9, 0.05, 0.05], [0.5, 0.3, 0.2], [0.01] * 100])
def test_a_stream_is_as_long_as_the_entropy_of_its_counts(chances):
    symbols = torch.multinomial(torch.tensor(chances), 40_000, True, generator=torch.Generator().manual_seed(1))
    _, n_bits = encode_symbols(symbols.int(), len(chances))
    shares = np.bincount(symbols.numpy()) / 40_000
    entropy = -float((shares * np.log2(shares)).sum())
    assert 40_000 * entropy <= n_bits - 32 * len(chances) + 64
    assert n_bits - 32 * len(chances) <= 40_000 * entropy * 1.01 + 64


def test_the_stream_of_the_page_comes_out():
    page = files("laconic.wire").joinpath("FORMAT.md").read_text(encoding="utf-8")
    found = re.search(
        r"symbols ([\d ]+) with S = 4 have the\ncounts ([\d ]+) and the stream ([0-9a-f ]+) of (\d+) bits", page
    )
    assert found is not None
    symbols = torch.tensor([int(word) for word in found[1].split()], dtype=torch.int32)
    counts = struct.pack("<4I", *map(int, found[2].split()))
    data, n_bits = encode_symbols(symbols, 4)
    assert bytes(data.numpy()) == counts + struct.pack("<Q", int(found[4])) + bytes.fromhex(found[3])
    assert n_bits == 4 * 32 + int(found[4])


def test_one_symbol_alone_takes_no_stream():
    data, n_bits = encode_symbols(torch.full((1000,), 2, dtype=torch.int32), 3)
    assert (data.numel(), n_bits) == (20, 96)
    assert decode_symbols(data, 1000, 3, "test")[0].unique().tolist() == [2]


SYMBOLS = torch.tensor([1, 0, 2, 1, 1, 0, 1, 1, 3], dtype=torch.int32)


@over_inputs(
    ("n_left", "at", "value", "reason"),
    [
        (23, 0, 2, "no room for how often"),
        (28, 0, 3, "add up to 10, not to 9"),
        (28, 16, 26, "does not hold the symbols"),
        (28, 16, 33, "its fields need"),
        (27, 0, 2, "its fields need"),
        (28, 27, 0x7F, "padding"),
    ],
)
def test_what_the_encoder_did_not_make_is_refused_by_name(n_left, at, value, reason):
    data = encode_symbols(SYMBOLS, 4)[0].clone()
    data[at] = value
    with pytest.raises(WireError, match=reason):
        decode_symbols(data[:n_left], 9, 4, "test")


def test_counts_of_other_symbols_than_the_streams_are_refused():
    data = encode_symbols(SYMBOLS, 4)[0].clone()
    data[:16] = torch.tensor([1, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], dtype=torch.uint8)
    with pytest.raises(WireError, match="test: a stream of 25 bits does not hold the symbols that are counted"):
        decode_symbols(data, 9, 4, "test")


@settings(deadline=None, max_examples=300)
@given(alphabets(), st.data())
def test_a_damaged_stream_is_refused_or_is_another_stream_of_the_encoder(sampled, data):
    symbols, n_symbols = sampled
    made = encode_symbols(symbols, n_symbols)[0].clone()
    bit = data.draw(st.integers(0, 8 * made.numel() - 1))
    made[bit // 8] ^= 1 << bit % 8
    try:
        delivered, _ = decode_symbols(made, len(symbols), n_symbols, "test")
    except WireError:
        return
    assert encode_symbols(delivered, n_symbols)[0].tolist() == made.tolist()


@over_inputs("bits", [1, 3, 9])
def test_packed_symbols_take_their_bits_and_no_more(bits):
    data = pack_codes(torch.arange(11, dtype=torch.int32) % (1 << bits), bits)
    assert data.numel() == math.ceil(11 * bits / 8)
    check_packed(data, 11, bits, "test")
    with pytest.raises(WireError, match="test: a payload of"):
        check_packed(data[:-1], 11, bits, "test")
    data[-1] |= 0x80
    with pytest.raises(WireError, match="padding"):
        check_packed(data, 11, bits, "test")


def test_the_entropy_of_equal_symbols_is_none_and_of_four_as_frequent_two_bits_each():
    assert entropy_bits(torch.zeros(100, dtype=torch.int32)) == 0
    assert entropy_bits(torch.arange(400) % 4) == pytest.approx(800)
