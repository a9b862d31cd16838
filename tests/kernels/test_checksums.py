"""The largest magnitude and the checksum of a vector that is read or written once: compiled, and zlib's CRC-32."""

from zlib import crc32

import pytest
import torch

from laconic.kernels import api
from laconic.kernels.cpu import checked_sums as cpu_sums
from laconic.kernels.cpu import checksums as cpu_checksums
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.cpu import passing
from laconic.kernels.cpu import steps as cpu_steps
from laconic.kernels.cpu.long_parts import FoldedPart
from laconic.kernels.reference import checked_sums as reference_sums
from laconic.kernels.reference import checksums as reference_checksums
from laconic.kernels.reference import steps as reference_steps
from support.inputs import over_inputs

both = pytest.mark.parametrize("kernels", [reference_checksums, cpu_checksums], ids=["plain", "cpu"])
SHAPES = [(3, 5), (64,), (), (0,), (100, 7), (129,), (1,)]
LONG = {torch.float32: (2_200_000,), torch.float64: (1_100_000,)}  # stored past the caches


@pytest.fixture(params=["folded", "by a library"])
def folding(request, monkeypatch):
    """With a processor that multiplies without carry, and without."""
    assert compiled.numba_available()
    if request.param == "by a library":
        monkeypatch.setattr(passing, "_can_fold", lambda: False)


def tensors_of(shapes, dtype, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=dtype) for shape in shapes]


def placed(count, dtype, offset):
    """A vector that begins `offset` elements behind a line of the cache."""
    return torch.full((count + offset,), torch.nan, dtype=dtype)[offset:]


@both
@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("count", [0, 1, 31, 32, 33, 63, 64, 65, 4096, 5001])
@pytest.mark.usefixtures("folding")
def test_a_vector_s_checksum_is_zlib_s_whatever_came_before(kernels, count, dtype):
    vector = placed(count, dtype, 1).normal_()
    for before in (b"", b"before", bytes(1000)):
        largest, found = kernels.largest_and_checksum(vector, crc32(before))
        assert found == crc32(before + vector.numpy().tobytes())
        assert largest == float(vector.abs().max() if count else 0.0)


@both
@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("offset", [0, 3])
@pytest.mark.usefixtures("folding")
def test_tensors_are_gathered_with_their_checksum_into_short_and_long_vectors(kernels, offset, dtype):
    for shapes in (SHAPES[:1], SHAPES, [*SHAPES, LONG[dtype], (31,)], [LONG[dtype]]):
        tensors = tensors_of(shapes, dtype)
        expected = torch.cat([tensor.reshape(-1) for tensor in tensors])
        out = placed(expected.numel(), dtype, offset)
        measured = kernels.gather_with_checksum(tensors, out)
        assert torch.equal(out, expected)
        assert measured == (float(expected.abs().max()), crc32(expected.numpy().tobytes()))


@both
@over_inputs("value", [torch.nan, torch.inf, -torch.inf])
@over_inputs("at", [0, 1_000_000, 2_200_908])
def test_one_value_that_is_no_number_is_seen_wherever_it_is(kernels, at, value):
    vector = torch.ones(2_200_909)
    vector[at] = value
    tensors = list(vector.split([15, 64, 700, 2_200_000, 130]))
    for largest, _ in (
        kernels.largest_and_checksum(vector),
        kernels.gather_with_checksum(tensors, torch.empty(2_200_909)),
    ):
        assert not largest < torch.inf
        assert (largest == torch.inf) is (value == value)


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs(("n", "offset"), [(2, 0), (3, 3)])
def test_steps_into_long_vectors_have_the_reference_s_bits_and_checksum(n, offset, dtype):
    shapes = [*SHAPES, LONG[dtype], (31,)]
    tensors, gradients = tensors_of(shapes, dtype), tensors_of(shapes, dtype, 1)
    factors, d = [-0.1 * (number + 1) for number in range(len(shapes))], sum(map(torch.Tensor.numel, tensors))
    vectors = [torch.cat([each.reshape(-1) for each in tensors_of(shapes, dtype, seed)]) for seed in range(n)]
    for name, arguments, options in (
        ("gather_mean_step", (tensors, factors, vectors), {"divisor": n}),
        ("gather_step", (tensors, gradients, factors), {"adds": True}),
    ):
        made, expected = placed(d, dtype, offset), torch.empty(d, dtype=dtype)
        measured = getattr(cpu_steps, name)(*arguments, made, **options)
        assert measured == getattr(reference_steps, name)(*arguments, expected, **options)
        assert torch.equal(made, expected)


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("shape", [(1,), (5001,), "long"])
@over_inputs(("n", "offset"), [(1, 0), (2, 3), (3, 0), (5, 3)])
@pytest.mark.usefixtures("folding")
def test_sums_into_short_and_long_vectors_have_the_reference_s_bits_and_checksum(n, offset, shape, dtype):
    (d,) = LONG[dtype] if shape == "long" else shape
    vectors = [placed(d, dtype, number % 2).normal_() for number in range(n)]
    for each in vectors:
        each[::7] = -0.0
    for from_zero in (True, False):
        made, expected = placed(d, dtype, offset), torch.empty(d, dtype=dtype)
        options = {"divisor": n, "from_zero": from_zero}
        measured = cpu_sums.add_up_with_checksum(vectors, made, **options)
        assert measured == reference_sums.add_up_with_checksum(vectors, expected, **options)
        assert measured[1] == crc32(made.numpy().tobytes())
        assert torch.equal(made, expected)


def test_the_checksum_of_joined_bytes_is_that_of_both():
    for one, other in ((b"", b""), (b"one", b""), (b"", b"other"), (b"one", bytes(5000)), (bytes(3), b"\xff" * 4097)):
        assert api.joined_checksum(crc32(one), crc32(other), len(other)) == crc32(one + other)


def test_what_no_kernel_takes_is_read_by_the_reference():
    for vector in (torch.randn(99).bfloat16(), torch.randn(200)[::2]):
        largest, found = api.largest_and_checksum(vector)
        assert (largest, found) == (
            float(vector.abs().max()), crc32(vector.contiguous().view(torch.uint8).numpy().tobytes()),
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"^largest_and_checksum: found="):
        api.largest_and_checksum(torch.ones(3), -1)


def test_a_part_of_a_long_vector_is_stored_past_the_caches_as_the_vector_is():
    vector = torch.zeros(LONG[torch.float32])
    assert FoldedPart(vector).how[2]
    assert FoldedPart(vector[1_000_000:1_300_000]).how[2]
    assert not FoldedPart(vector[:1000]).how[2], "a few lines"
    assert not FoldedPart(torch.zeros(300_000)).how[2]
    others = [torch.randn(300_000) for _ in range(2)]
    for start in (1_000_000, 1_000_003):
        part = vector[start:][:300_000]
        measured = cpu_sums.add_up_with_checksum(others, part)
        assert measured == reference_sums.add_up_with_checksum(others, torch.empty(300_000))
        assert torch.equal(part, others[0] + others[1])
    assert not vector[:1_000_000].any()
    assert not vector[1_300_003:].any()
