"""Randomized rounding to packed codes, and what depends on a block."""

import torch

from support.gpu_inputs import KINDS, is_in_part, over_dtypes, over_kinds, over_parts, vector_of
from support.inputs import over_inputs

KEY = 0x4806654E26238EC1
OFFSET = 2**32 - 1100
LENGTHS = [(1030,), (500, 500, 30), (1, 700, 2, 327)]


@over_parts
@over_inputs("lengths", LENGTHS)
@over_kinds
@over_dtypes
def test_ends_and_largest_and_norms_of_blocks_are_alike(twins, kind, dtype, lengths, part):
    if not is_in_part(part, LENGTHS.index(lengths), KINDS.index(kind), dtype == torch.float64):
        return
    family = twins("stochastic_rounding")
    vector = vector_of(kind, 1030, dtype)
    family.alike("ranges", vector, lengths)
    family.alike("absolute_maxima", vector, lengths)
    (expected, _), (found, _) = family.both("norms", vector, lengths)
    torch.testing.assert_close(found, expected, rtol=2.0**-22 if dtype == torch.float32 else 2.0**-40, atol=0)


def test_a_block_of_many_parts_is_measured_alike(twins):
    vector = vector_of("normal", 5003, torch.float32)
    for name in ("ranges", "absolute_maxima"):
        twins("stochastic_rounding").alike(name, vector, (2, 5001))


@over_parts
@over_inputs("lengths", LENGTHS)
@over_kinds
@over_dtypes
def test_codes_and_their_values_of_all_kinds_of_vectors_are_alike(twins, kind, dtype, lengths, part):
    if not is_in_part(part, LENGTHS.index(lengths), KINDS.index(kind), dtype == torch.float64):
        return
    family = twins("stochastic_rounding")
    vector = vector_of(kind, 1030, dtype)
    lows, highs = family.reference.ranges(vector, lengths)
    packed = family.alike("quantize", vector, lows, highs, lengths, 3, OFFSET, KEY)
    family.alike("dequantize", packed, lows, highs, lengths, 3)


@over_inputs("bits", range(1, 9))
def test_codes_and_their_values_of_every_width_are_alike(twins, bits):
    family = twins("stochastic_rounding")
    for d in (1, 13):
        vector = vector_of("normal", d, torch.float32)
        lows, highs = family.reference.ranges(vector, (d,))
        packed = family.alike("quantize", vector, lows, highs, (d,), bits, OFFSET, KEY)
        family.alike("add_dequantized", packed, lows, highs, (d,), bits, vector)


@over_parts
@over_inputs("lengths", LENGTHS)
@over_kinds
@over_dtypes
def test_levels_of_all_kinds_of_vectors_are_alike(twins, kind, dtype, lengths, part):
    if not is_in_part(part, LENGTHS.index(lengths), KINDS.index(kind), dtype == torch.float64):
        return
    family = twins("stochastic_rounding")
    vector = vector_of(kind, 1030, dtype)
    scales = family.reference.absolute_maxima(vector, lengths)
    packed = family.alike("quantize_levels", vector, scales, lengths, 7, OFFSET, KEY)
    family.alike("levels_dense", packed, scales, lengths, 7)


@over_inputs("steps", [1, 2, 100, 255])
def test_any_number_of_levels_is_alike(twins, steps):
    family = twins("stochastic_rounding")
    vector = vector_of("normal", 77, torch.float32)
    scales = 1.5 * family.reference.absolute_maxima(vector, (77,))
    packed = family.alike("quantize_levels", vector, scales, (77,), steps, 0, KEY)
    family.alike("add_levels", packed, scales, (77,), steps, vector)


@over_inputs("ends", [torch.bfloat16, torch.float32, torch.float64])
@over_inputs("totals", [torch.bfloat16, torch.float32, torch.float64])
def test_ends_and_sums_may_be_of_different_types(twins, ends, totals):
    family = twins("stochastic_rounding")
    vector = vector_of("normal", 50, torch.float32)
    lows, highs = (end.to(ends) for end in family.reference.ranges(vector, (50,)))
    packed = family.reference.quantize(vector, lows.float(), highs.float(), (50,), 4, 0, KEY)
    family.alike("dequantize", packed, lows, highs, (50,), 4)
    family.alike("add_dequantized", packed, lows, highs, (50,), 4, vector.to(totals))


def test_what_is_not_a_number_is_rounded_alike(twins):
    wrong = torch.tensor([1.0, float("nan"), float("inf"), -float("inf"), 0.0])
    for low, high in ((0.0, 1.0), (float("nan"), 1.0), (-float("inf"), float("inf")), (-3e38, 3e38), (1e-45, 3e-45)):
        twins("stochastic_rounding").alike("quantize", wrong, torch.tensor([low]), torch.tensor([high]), (5,), 3, 0, 1)
