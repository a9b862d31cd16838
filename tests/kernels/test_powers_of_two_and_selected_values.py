"""Powers of two and kept values in machine code and in plain torch: the same bits, whatever the values and types."""

import pytest
import torch

from laconic.kernels.cpu import compile as compiled
from laconic.kernels.reference import powers_of_two as reference_powers_of_two
from laconic.kernels.reference import selected_values as reference_selected_values
from laconic.kernels.reference import signs as reference_signs
from laconic.kernels.reference import stochastic_rounding as reference_stochastic_rounding
from support.inputs import over_inputs

if not compiled.numba_available():
    pytest.skip("no numba here: only the plain kernels exist", allow_module_level=True)

from laconic.kernels.cpu import powers_of_two as cpu_powers_of_two
from laconic.kernels.cpu import selected_values as cpu_selected_values

DTYPES = (torch.float32, torch.float64)
LENGTHS = (0, 1, 2, 7, 8, 63, 64, 65, 127, 1000, 1023, 1024, 1025, 3000)
OFFSET, KEY, WORD = 2**32 - 4000, 0x4806654E26238EC1, 1 << 32


def values(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Ordinary, heavy-tailed, denormal and extreme entries, and zeros of both signs; all finite."""
    generator = torch.Generator().manual_seed(count)
    draws = torch.randn(count, generator=generator, dtype=torch.float64)
    heavy = torch.sinh(6 * torch.randn(count, generator=generator, dtype=torch.float64))
    tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    kinds = torch.stack([draws, heavy, draws * tiny / 8, draws.sign() * huge, 0.0 * draws])
    return kinds[torch.randint(5, (count,), generator=generator), torch.arange(count)].to(dtype)


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.dtype == other.dtype
    assert one.numpy().tobytes() == other.numpy().tobytes()


@over_inputs("dtype", DTYPES)
@over_inputs("count", LENGTHS)
def test_both_round_to_the_same_powers_and_read_them_alike(count, dtype):
    vector = values(count, dtype)
    packed, finite = reference_powers_of_two.power_codes(vector, OFFSET, KEY)
    again, finite_again = cpu_powers_of_two.power_codes(vector, OFFSET, KEY)
    same(packed, again)
    assert finite is finite_again is True
    outs, totals = [torch.empty(count, dtype=dtype) for _ in range(2)], [values(count, dtype) for _ in range(2)]
    for by, out, total in zip((reference_powers_of_two, cpu_powers_of_two), outs, totals, strict=True):
        by.put_powers(packed, out)
        by.add_powers(packed, total)
        assert by.powers_finite(packed, count, dtype)
    same(*outs)
    same(*totals)


@over_inputs("dtype", DTYPES)
@over_inputs("bad", [torch.nan, torch.inf, -torch.inf])
@over_inputs("place", [0, 7, 8, 1023, 1024, 2998])
def test_both_see_what_is_not_finite_wherever_it_is(place, bad, dtype):
    vector = torch.ones(2999, dtype=dtype)
    vector[place] = bad
    for by in (reference_powers_of_two, cpu_powers_of_two):
        packed, finite = by.power_codes(vector, 0, KEY)
        assert not finite
        assert not by.powers_finite(packed, 2999, dtype)


@over_inputs("dtype", DTYPES)
@over_inputs("mantissa_bits", [0, 1, 7, 8, 13, 22])
@over_inputs("count", [0, 7, 1024, 1025, 3000])
def test_both_shorten_mantissas_alike_and_read_them_alike(count, mantissa_bits, dtype):
    vector = values(count, dtype)
    codes, again = (by.short_codes(vector, mantissa_bits) for by in (reference_powers_of_two, cpu_powers_of_two))
    same(codes[0], again[0])
    same(codes[1], again[1])
    assert codes[2] is again[2] is True
    outs, totals = [torch.empty(count, dtype=dtype) for _ in range(2)], [values(count, dtype) for _ in range(2)]
    for by, out, total in zip((reference_powers_of_two, cpu_powers_of_two), outs, totals, strict=True):
        by.put_powers(codes[0], out, codes[1], mantissa_bits)
        by.add_powers(codes[0], total, codes[1], mantissa_bits, subtract=True)
    same(outs[0], reference_stochastic_rounding.shortened(vector, mantissa_bits))
    same(*outs)
    same(*totals)


@over_inputs("dtype", DTYPES)
def test_what_is_not_finite_is_seen_where_mantissas_are_short(dtype):
    vector = torch.ones(1500, dtype=dtype)
    vector[1499] = torch.nan
    for by in (reference_powers_of_two, cpu_powers_of_two):
        assert not by.short_codes(vector, 7)[2]
        assert by.short_codes(vector[:1499], 7)[2]


@over_inputs("threshold", [1, 1 << 28, round(0.75 * WORD), WORD - 1, WORD])
@over_inputs("dtype", [*DTYPES, torch.bfloat16])
@over_inputs("count", LENGTHS)
def test_both_take_the_same_values_and_put_them_back(count, dtype, threshold):
    vector = values(count, dtype)
    draw = OFFSET, KEY, threshold
    selected = reference_selected_values.take_selected(vector, threshold / WORD, *draw)
    again = cpu_selected_values.take_selected(vector, threshold / WORD, *draw)
    assert torch.equal(selected.isnan(), again.isnan())
    assert torch.equal(selected.view(torch.uint8), again.view(torch.uint8))
    sampled, _ = reference_signs.selected_bits(OFFSET, count, KEY, threshold)
    for bits in (None, sampled):
        for call in ("put_selected", "add_selected"):
            outs = [values(count, torch.float32 if dtype == torch.bfloat16 else dtype) for _ in range(2)]
            getattr(reference_selected_values, call)(selected, *draw, outs[0], bits)
            getattr(cpu_selected_values, call)(selected, *draw, outs[1], bits)
            same(*outs)
