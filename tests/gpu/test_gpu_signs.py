"""Packed signs: made, used, cut and voted on."""

import pytest
import torch

from support.gpu_inputs import over_dtypes, over_kinds, vector_of
from support.inputs import over_inputs

KEY = 0x4806654E26238EC1
OFFSET = 2**32 - 3000
ALL = 1 << 32
THRESHOLDS = [0, 1, 3 * 2**29, ALL]
LENGTHS = (0, 1, 1025)


@pytest.fixture
def signs(twins):
    return twins("signs")


@over_inputs("threshold", THRESHOLDS)
def test_selected_values_are_counted(signs, threshold):
    for offset, count in ((0, 0), (7, 1), (OFFSET, 2500)):
        expected = signs.reference.count_selected(offset, count, KEY, threshold)
        assert signs.gpu.count_selected(offset, count, KEY, threshold, signs.device) == expected
        sampled, selected = signs.gpu.selected_bits(offset, count, KEY, threshold, signs.device)
        assert selected == expected
        assert torch.equal(sampled.cpu(), signs.reference.selected_bits(offset, count, KEY, threshold)[0])


@over_inputs("threshold", THRESHOLDS)
@over_inputs("values", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int8])
def test_signs_are_packed_from_every_type(signs, values, threshold):
    for count in LENGTHS:
        signs.alike("pack_signs", (3 * vector_of("normal", count, torch.float32)).to(values), OFFSET, KEY, threshold)


@over_kinds
@over_dtypes
def test_signs_of_all_kinds_of_values_are_packed(signs, kind, dtype):
    signs.alike("pack_signs", vector_of(kind, 1025, dtype), OFFSET, KEY, 2**31)


@over_inputs("threshold", THRESHOLDS)
@over_inputs("totals", [torch.float32, torch.float64, torch.int8])
def test_packed_signs_are_written_and_added(signs, totals, threshold):
    for count in LENGTHS:
        vector = vector_of("normal", count, torch.float32)
        packed, _ = signs.reference.pack_signs(vector, OFFSET, KEY, threshold)
        total = (100 * vector).clamp(-128, 127).to(totals)
        signs.alike("add_signs", packed, OFFSET, KEY, threshold, total)
        if totals.is_floating_point:
            signs.alike("put_signs", packed, OFFSET, KEY, threshold, total)


def test_votes_in_one_byte_wrap(signs):
    packed, _ = signs.reference.pack_signs(torch.ones(3), 0, KEY, ALL)
    signs.alike("add_signs", packed, 0, KEY, ALL, torch.tensor([127, -128, 0], dtype=torch.int8))


@over_inputs(("low", "high"), [(0, 0), (5, 5), (0, 9001), (3, 9001), (8, 16), (9, 17), (4095, 9000), (9000, 9001)])
def test_a_stream_of_bits_is_sliced_anywhere(signs, low, high):
    packed = torch.randint(0, 256, (1126,), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    signs.alike("slice_bits", packed, low, high)


@over_inputs("n_voters", [1, 2, 3, 8])
def test_the_majority_wins_and_a_tie_is_plus(signs, n_voters):
    for count in (1, 1023, 1025):
        votes = torch.randn(n_voters, count, generator=torch.Generator().manual_seed(n_voters))
        signs.alike("majority", [signs.reference.pack_signs(vote, 0, 0, ALL)[0] for vote in votes], count)


@over_kinds
@over_dtypes
def test_momentum_and_its_signs_are_alike(signs, kind, dtype):
    for d in (1, 1025):
        signs.alike("momentum_signs", vector_of(kind, d, dtype), vector_of("normal", d, dtype), mu=0.9)


@over_inputs("threshold", THRESHOLDS)
@over_dtypes
def test_a_workers_step_is_alike(signs, dtype, threshold):
    for d in LENGTHS:
        gradient, momentum, residual = (vector_of(kind, d, dtype) for kind in ("normal", "heavy-tailed", "normal"))
        scalars = {"mu": 0.9, "decay": 0.97, "c": 0.3, "offset": OFFSET, "key": KEY, "threshold": threshold}
        tensors = [gradient[: d // 3], gradient[d // 3 :]]
        signs.alike("error_feedback_step", tensors, momentum, 3 * residual, *torch.zeros(2, d, dtype=dtype), **scalars)


@over_kinds
@over_dtypes
def test_a_workers_step_is_alike_for_all_kinds_of_gradients(signs, kind, dtype):
    gradient = vector_of(kind, 1025, dtype)
    scalars = {"mu": 0.3, "decay": 1.0, "c": 6e-3, "offset": 0, "key": KEY, "threshold": 2**31}
    signs.alike("error_feedback_step", [gradient], gradient, gradient, *torch.zeros(2, 1025, dtype=dtype), **scalars)


@over_inputs("non_finite", [float("inf"), -float("inf"), float("nan")])
def test_a_workers_step_reports_what_is_no_number(signs, non_finite):
    gradient, others = torch.ones(1030), torch.zeros(4, 1030)
    gradient[1027] = non_finite
    scalars = {"mu": 0.3, "decay": 1.0, "c": 6e-3, "offset": 0, "key": KEY, "threshold": 2**31}
    *_, is_finite = signs.gpu.error_feedback_step([gradient.to(signs.device)], *others.to(signs.device), **scalars)
    assert not is_finite


@over_inputs("threshold", THRESHOLDS)
@over_dtypes
def test_a_servers_step_is_alike(signs, dtype, threshold):
    for count in LENGTHS:
        residual, total = vector_of("heavy-tailed", count, dtype), 9 * vector_of("normal", count, dtype)
        scalars = {
            "divisor": 7,
            "scale": 0.3,
            "decay": 0.97,
            "c": 0.1,
            "offset": OFFSET,
            "key": KEY,
            "threshold": threshold,
        }
        signs.alike("error_feedback_total", total, residual, torch.zeros_like(residual), **scalars)
        signs.alike("error_feedback_total", total.to(torch.int8), residual, torch.zeros_like(residual), **scalars)


@over_dtypes
def test_the_new_residual_may_be_written_over_the_old_one(signs, dtype):
    gradient, momentum, residual = vector_of("normal", 3 * 2049, dtype).view(3, -1).to(signs.device)
    scalars = {"mu": 0.9, "decay": 0.97, "c": 0.3, "offset": 0, "key": KEY, "threshold": 2**31}
    apart = torch.empty(2, len(residual), dtype=dtype, device=signs.device)
    signs.gpu.error_feedback_step([gradient], momentum, residual, *apart, **scalars)
    signs.gpu.error_feedback_step([gradient], momentum, residual, momentum, residual, **scalars)
    assert torch.equal(momentum, apart[0])
    assert torch.equal(residual, apart[1])
