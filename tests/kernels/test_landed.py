"""Values that have come are added to others, and looked at, in one pass: compiled, and in plain torch."""

from zlib import crc32

import pytest
import torch

from laconic.kernels import api
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.cpu import landed as cpu_landed
from laconic.kernels.cpu import passing
from laconic.kernels.reference import landed as reference_landed
from support.inputs import over_inputs

both = pytest.mark.parametrize("kernels", [reference_landed, cpu_landed], ids=["plain", "cpu"])
LONG = 300_000  # stored past the caches


@pytest.fixture(params=["folded", "by a library"], autouse=True)
def folding(request, monkeypatch):
    """With a processor that multiplies without carry, and without."""
    assert compiled.numba_available()
    if request.param == "by a library":
        monkeypatch.setattr(passing, "_can_fold", lambda: False)


def vectors_of(n, count, dtype, offset=0):
    random = torch.Generator().manual_seed(n)
    return [torch.randn(count + offset, generator=random, dtype=dtype)[offset:] for _ in range(n)]


@both
@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("count", [0, 1, 63, 64, 5001, LONG])
@over_inputs("offset", [0, 3])
def test_a_sum_and_both_checksums_are_those_of_single_passes(kernels, count, dtype, offset):
    for n, divisor in ((1, 1), (1, 3), (2, 1), (2, 2), (3, 1), (4, 4)):
        vectors = vectors_of(n, count, dtype, offset)
        out, total = torch.empty(count + offset, dtype=dtype)[offset:], vectors[0].clone()
        for other in vectors[1:]:
            total += other
        total /= divisor
        for sends_on in (False, True):
            landed = kernels.sum_landed(vectors, n - 1, out, divisor=divisor, sends_on=sends_on)
            assert torch.equal(out, total)
            assert landed.checksum == crc32(vectors[-1].numpy().tobytes())
            assert landed.made_checksum == (crc32(total.numpy().tobytes()) if sends_on else None)
            if count:
                assert landed.largest == float(vectors[-1].abs().max())
                assert landed.made_largest == float(total.abs().max())


@both
def test_a_sum_may_be_written_where_the_own_vector_is(kernels):
    own, came = vectors_of(2, LONG, torch.float32)
    expected = own + came
    landed = kernels.sum_landed([own, came], 1, own, sends_on=True)
    assert torch.equal(own, expected)
    assert landed.made_checksum == crc32(expected.numpy().tobytes())


@both
def test_nan_shows_in_both_largest_magnitudes(kernels):
    own, came = vectors_of(2, 1000, torch.float32)
    came[700] = torch.nan
    landed = kernels.sum_landed([own, came], 1, torch.empty(1000))
    assert landed.largest != landed.largest
    assert landed.made_largest != landed.made_largest


def test_what_has_come_must_be_one_of_the_vectors():
    with pytest.raises(ValueError, match=r"^sum_landed: came"):
        api.sum_landed([torch.ones(3)], 1, torch.empty(3))
