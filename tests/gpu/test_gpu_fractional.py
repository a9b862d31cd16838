"""Codes of any width, and the fractional quantizer."""

import torch

from support.gpu_inputs import KINDS, is_in_part, over_dtypes, over_kinds, over_parts, vector_of
from support.inputs import over_inputs

BITS = [1, 4, 5, 6, 9, 16]
MEANS_AGREE = {torch.float32: 2.0**-20, torch.float64: 2.0**-40}


@over_inputs("bits", [1, 2, 3, 7, 8, 9, 12, 16, 22])
def test_codes_of_every_width_are_packed_and_unpacked(twins, bits):
    for k in (0, 1, 1031):
        codes = torch.randint(0, 1 << bits, (k,), dtype=torch.int32, generator=torch.Generator().manual_seed(k))
        packed = twins("fractional").alike("pack_codes", codes, bits)
        assert torch.equal(twins("fractional").alike("unpack_codes", packed, k, bits), codes)


@over_parts
@over_inputs("bits", BITS)
@over_kinds
@over_dtypes
def test_levels_are_alike_and_means_nearly(twins, kind, dtype, bits, part):
    if not is_in_part(part, BITS.index(bits), KINDS.index(kind), dtype == torch.float64):
        return
    family = twins("fractional")
    vector = vector_of(kind, 1027, dtype)
    ((packed, means), _), ((same_packed, same_means), _) = family.both("fractional_codes", vector, bits)
    assert torch.equal(packed, same_packed)
    torch.testing.assert_close(same_means, means, rtol=MEANS_AGREE[dtype], atol=0)
    family.alike("fractional_dense", packed, means, 1027, bits)
    family.alike("add_fractional", packed, means, 1027, bits, vector)
    family.alike("put_fractional", packed, means, 1027, bits, vector)


@over_dtypes
def test_one_value_and_what_is_not_a_number_have_levels(twins, dtype):
    for numbers in ([2.5], [0.0], [1.0, float("nan"), -0.5], [float("inf"), 1.0]):
        (expected, _), (found, _) = twins("fractional").both("fractional_codes", torch.tensor(numbers, dtype=dtype), 3)
        assert torch.equal(expected[0], found[0])


def test_the_sum_may_be_of_another_type(twins):
    packed, means = twins("fractional").reference.fractional_codes(vector_of("normal", 100, torch.float32), 4)
    for totals in (torch.float64, torch.bfloat16):
        for name in ("add_fractional", "put_fractional"):
            twins("fractional").alike(name, packed, means, 100, 4, vector_of("normal", 100, totals))
