"""The reference arithmetic: hashed draws and packed bits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.kernels.reference import hashing as reference_hashing
from support.inputs import over_inputs

WORD = 1 << 32
KEYS = (0, 1, 0x4806654E26238EC1, (1 << 64) - 1)
THRESHOLDS = (1, 1 << 26, round(0.1 * WORD), round(0.3 * WORD), 1 << 31, round(0.9 * WORD), WORD - 1, WORD)
DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


def hash32_of(coordinate: int, key: int) -> int:
    """hash32 as section 3.2 of wire/FORMAT.md words it, in whole numbers."""
    z = (key + 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    z = z ^ (z >> 31)
    low, high = z % WORD, z >> 32
    x = coordinate ^ low
    x = ((x ^ (x >> 16)) * 0x7FEB352D) % WORD
    x = x ^ (x >> 15)
    x = ((x + high) * 0x846CA68B) % WORD
    return x ^ (x >> 16)


def words(hashes: torch.Tensor) -> list[int]:
    """int32 patterns as unsigned numbers."""
    return [word % WORD for word in hashes.tolist()]


def unsigned(offset: int, count: int, key: int) -> np.ndarray:
    return reference_hashing.hash32(offset, count, key).numpy().view(np.uint32)


@settings(deadline=None)
@given(st.integers(0, WORD - 9), st.integers(0, 2**64 - 1))
def test_the_hash_is_the_one_of_the_format_page(offset, key):
    assert words(reference_hashing.hash32(offset, 9, key)) == [hash32_of(offset + i, key) for i in range(9)]


@pytest.mark.parametrize("device", DEVICES)
@over_inputs(
    ("key", "offset", "golden"),
    [
        (0, 0, [0xDD028AB4, 0xE8DCD29E, 0x81FE7FFE, 0x70363A95]),
        (0x4806654E26238EC1, 0, [0x8280A3B8, 0x4F955479, 0xD9F76186, 0x60247057]),
    ],
)
def test_the_hash_never_changes(device, key, offset, golden):
    assert words(reference_hashing.hash32(offset, 4, key, torch.device(device))) == golden


@over_inputs("offset", [0, 2**31 - 5, 2**31, WORD - 10])
def test_coordinates_up_to_the_last_of_the_format_have_a_hash(offset):
    assert words(reference_hashing.hash32(offset, 10, 12345)) == [hash32_of(offset + i, 12345) for i in range(10)]


@settings(deadline=None)
@given(st.integers(0, 2**33), st.integers(0, 60), st.integers(0, 60), st.sampled_from(KEYS))
def test_a_later_start_gives_the_same_draws(offset, skipped, count, key):
    offset = min(offset, WORD - 120)
    full = reference_hashing.hash32(offset, skipped + count, key)
    assert torch.equal(full[skipped:], reference_hashing.hash32(offset + skipped, count, key))
    for threshold in (1 << 30, WORD - 1, WORD):
        mask = reference_hashing.keep_mask(offset, skipped + count, key, threshold)
        assert torch.equal(mask[skipped:], reference_hashing.keep_mask(offset + skipped, count, key, threshold))


@over_inputs("key", KEYS)
def test_every_bit_of_the_hash_is_balanced(key):
    n = 1 << 17
    hashes = unsigned(0, n, key)
    for bit in range(32):
        ones = int((hashes >> np.uint32(bit) & 1).sum())
        assert abs(ones - n / 2) < 5 * (n / 4) ** 0.5, bit


def test_no_two_coordinates_share_a_hash_under_one_key():
    assert len(np.unique(unsigned(0, 1 << 18, 99))) == 1 << 18  # it is a bijection of the coordinate


@over_inputs("threshold", THRESHOLDS)
@over_inputs("key", KEYS)
def test_the_selected_share_is_the_threshold(threshold, key):
    n, share = 1 << 18, threshold / WORD
    selected = int(reference_hashing.keep_mask(0, n, key, threshold).sum())
    assert abs(selected - n * share) <= 5 * (n * share * (1 - share)) ** 0.5


@over_inputs("threshold", [1, 2, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, WORD - 1])
def test_the_threshold_is_compared_without_sign(threshold):
    # Preimages of the words around the threshold and of the ends, found by undoing the hash.
    for word in {0, 1, (1 << 31) - 1, 1 << 31, WORD - 1, threshold - 1, threshold, WORD - 2}:
        coordinate = preimage(word, key=77)
        assert words(reference_hashing.hash32(coordinate, 1, 77)) == [word]
        assert reference_hashing.keep_mask(coordinate, 1, 77, threshold).tolist() == [word < threshold]
        assert reference_hashing.keep_mask(coordinate, 1, 77, WORD).tolist() == [True]


def preimage(word: int, key: int) -> int:
    """The coordinate whose hash is `word`."""
    low, high = reference_hashing.key_words(key)
    x = word ^ (word >> 16)
    x = (x * pow(0x846CA68B, -1, WORD) - high) % WORD
    x = x ^ (x >> 15) ^ (x >> 30)
    x = (x * pow(0x7FEB352D, -1, WORD)) % WORD
    return x ^ (x >> 16) ^ low


@over_inputs("threshold", [0, -1, WORD + 1])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match=rf"threshold={threshold} must be in 1"):
        reference_hashing.keep_mask(0, 1, 0, threshold)


@over_inputs("threshold", [round(0.05 * WORD), round(0.3 * WORD), 1 << 31])
@over_inputs("key", [0, 0x4806654E26238EC1])
def test_keys_that_differ_in_one_bit_give_unrelated_masks(threshold, key):
    n, share = 1 << 15, threshold / WORD
    mask = reference_hashing.keep_mask(0, n, key, threshold).numpy()
    for bit in range(64):
        other = reference_hashing.keep_mask(0, n, key ^ 1 << bit, threshold).numpy()
        together = ((mask - share) * (other - share)).sum() / (n**0.5 * share * (1 - share))
        assert abs(together) < 5, bit


def test_keys_that_differ_in_one_bit_do_not_keep_equally_many_of_a_block():
    # One stream in another order would keep the same number of every aligned block.
    n = 1 << 15
    mask, *others = (reference_hashing.keep_mask(0, n, key, 1 << 31) for key in [0, *(1 << bit for bit in range(64))])
    for block in (2, 16, 64, 1024):
        selected, blocks = mask.view(-1, block).sum(1), n // block
        chances = torch.distributions.Binomial(block, 0.5).log_prob(torch.arange(block + 1.0)) * 2
        by_chance = float(chances.exp().sum())
        for bit, other in enumerate(others):
            equal = int((selected == other.view(-1, block).sum(1)).sum())
            allowed = 5 * (blocks * by_chance * (1 - by_chance)) ** 0.5 + 1
            assert abs(equal - blocks * by_chance) <= allowed, (block, bit)


def test_small_keys_in_a_row_are_as_good_as_any():
    n, share = 1 << 12, 0.3
    masks = (
        torch.stack([reference_hashing.keep_mask(0, n, key, round(share * WORD)) for key in range(200)]).double()
        - share
    )
    together = masks @ masks.T / (n * share * (1 - share))
    assert float((together - torch.eye(200, dtype=torch.float64)).abs().fill_diagonal_(0).max()) < 6 / n**0.5
    per_coordinate = masks.sum(0) / (200 * share * (1 - share)) ** 0.5
    assert float(per_coordinate.abs().max()) < 6


def test_neighbors_under_one_key_are_unrelated():
    signs = reference_hashing.keep_mask(0, 1 << 16, 31, 1 << 31).double() * 2 - 1
    for lag in [*range(1, 65), 256, 1024, 4096]:
        together = float((signs[lag:] * signs[:-lag]).sum()) / (len(signs) - lag) ** 0.5
        assert abs(together) < 5, lag


@pytest.mark.parametrize("device", DEVICES)
@settings(deadline=None)
@given(bits=st.lists(st.booleans(), max_size=100))
def test_bits_are_packed_as_numpy_packs_them_from_the_lowest(device, bits):
    tensor = torch.tensor(bits, dtype=torch.bool, device=device)
    packed = reference_hashing.pack_bits(tensor)
    assert packed.dtype == torch.uint8
    assert packed.cpu().numpy().tobytes() == np.packbits(np.array(bits, dtype=bool), bitorder="little").tobytes()
    assert torch.equal(reference_hashing.unpack_bits(packed, len(bits)), tensor)


@settings(deadline=None)
@given(st.binary(max_size=20), st.data())
def test_any_bytes_are_unpacked_as_numpy_unpacks_them(raw, data):
    k = data.draw(st.integers(max(0, 8 * len(raw) - 7), 8 * len(raw)))
    packed = torch.tensor(list(raw), dtype=torch.uint8)
    expected = np.unpackbits(np.frombuffer(raw, dtype=np.uint8), bitorder="little")[:k]
    assert reference_hashing.unpack_bits(packed, k).numpy().tolist() == expected.astype(bool).tolist()


def test_many_bits_are_packed_like_few():
    bits = torch.rand(100_003, generator=torch.Generator().manual_seed(4)) < 0.5
    packed = reference_hashing.pack_bits(bits)
    assert packed.numpy().tobytes() == np.packbits(bits.numpy(), bitorder="little").tobytes()
    assert torch.equal(reference_hashing.unpack_bits(packed, len(bits)), bits)


@over_inputs("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_signs_are_scattered_where_the_mask_is_true(dtype):
    negative = torch.tensor([True, False, True])
    assert reference_hashing.scatter_signs(negative, None, dtype).tolist() == [-1.0, 1.0, -1.0]
    mask = torch.tensor([False, True, True, False, True])
    dense = reference_hashing.scatter_signs(negative, mask, dtype)
    assert dense.dtype == dtype
    assert dense.tolist() == [0.0, -1.0, 1.0, 0.0, -1.0]
    assert negative.tolist() == [True, False, True]
    none = torch.zeros(4, dtype=torch.bool)
    assert reference_hashing.scatter_signs(negative[:0], none, dtype).tolist() == [0.0] * 4
