"""Passes of error feedback in machine code and in plain torch: the same bits, except in sums of magnitudes."""

import itertools

import pytest
import torch

from laconic.kernels.api import BlockLengths
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.reference import residuals as reference_residuals
from laconic.kernels.reference import scaled_answers as reference_answers
from support.inputs import over_inputs

if not compiled.numba_available():
    pytest.skip("no numba here: only the reference exists", allow_module_level=True)

from laconic.kernels.cpu import residuals as cpu_residuals
from laconic.kernels.cpu import scaled_answers as cpu_answers

TILE = cpu_residuals.TILE
COUNTS = (0, 1, 63, 64, 65, 1000, TILE - 1, TILE + 65, 2 * TILE + 64)
DTYPES = (torch.float32, torch.float64)
TOLERANCE = {torch.float32: 2.0**-22, torch.float64: 0.0}
both = pytest.mark.parametrize("kernels", [reference_residuals, cpu_residuals], ids=["reference", "cpu"])


def lengths_of(d: int) -> list:
    """One block, blocks of one size that end anywhere in a word, and uneven ones."""
    if not d:
        return [()]
    uneven = (3, 1, 64, 1, d - 69) if d > 69 else (d,)
    return [(d,), *(BlockLengths.uniform(size, d) for size in (1, 7, 64, 100, 512)), uneven]


def vectors(n: int, d: int, dtype: torch.dtype) -> torch.Tensor:
    """(n, d): ordinary, heavy-tailed and denormal entries, and zeros of both signs."""
    generator = torch.Generator().manual_seed(d)
    draws = torch.randn(n, d, generator=generator, dtype=torch.float64)
    tiny = torch.finfo(dtype).smallest_normal
    kinds = torch.stack([draws, torch.sinh(6 * draws), draws * tiny / 8, 0.0 * draws])
    chosen = torch.randint(4, (1, n, d), generator=generator)
    return kinds.gather(0, chosen)[0].to(dtype)


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.dtype == other.dtype
    assert one.numpy().tobytes() == other.numpy().tobytes()


def alike(made, expected) -> None:
    """The same signs; means that were added in another order."""
    same(made[0], expected[0])
    torch.testing.assert_close(made[1], expected[1], rtol=TOLERANCE[made[1].dtype], atol=0)


@over_inputs("dtype", DTYPES)
@over_inputs("d", COUNTS)
def test_both_correct_pack_and_add_up_alike(d, dtype):
    for lengths, (divisor, decay) in itertools.product(lengths_of(d), [(1, 1.0), (3, 0.7)]):
        vector, residual, momentum = vectors(3, d, dtype)
        made = []
        for kernels in (reference_residuals, cpu_residuals):
            corrected, moved, only, new_momentum = (*(vector.clone() for _ in range(3)), torch.empty_like(vector))
            kernels.correct(only, residual, divisor=divisor, decay=decay)
            signs = kernels.correct_signs(corrected, residual, lengths, divisor=divisor, decay=decay)
            same(only, corrected)
            steps = kernels.momentum_correct_signs(
                moved, momentum, residual, new_momentum, lengths, mu=0.9, decay=decay
            )
            made.append((signs, steps, kernels.mean_signs(vector, lengths), corrected, moved, new_momentum))
        for one, other in zip(*made, strict=True):
            same(one, other) if isinstance(one, torch.Tensor) else alike(other, one)


@over_inputs("dtype", DTYPES)
@over_inputs("d", COUNTS)
def test_both_write_and_add_scaled_signs_alike(d, dtype):
    for lengths in lengths_of(d):
        vector, total = vectors(2, d, dtype)
        packed, scales = reference_residuals.mean_signs(vector, lengths)
        for name, start in (("put_scaled_signs", total), ("add_scaled_signs", total), ("add_scaled_signs", -vector)):
            made = []
            for kernels in (reference_residuals, cpu_residuals):
                out = start.clone()
                getattr(kernels, name)(packed, scales, lengths, out)
                made.append(out)
            same(*made)


@over_inputs("dtype", DTYPES)
@over_inputs("d", COUNTS)
def test_a_servers_answer_is_that_of_a_sum_in_memory(d, dtype):
    for lengths, (n, divisor, decay) in itertools.product(lengths_of(d), [(1, 1, 1.0), (4, 1, 0.7), (2, 3, 0.0)]):
        residual, *sent = vectors(1 + n, d, dtype)
        packets = [reference_residuals.mean_signs(vector, lengths) for vector in sent]
        packed, scales = [signs for signs, _ in packets], [means for _, means in packets]
        left, expected_left, total = torch.zeros(3, d, dtype=dtype)
        left.fill_(7.0)
        scalars = {"divisor": divisor, "decay": decay}
        made = cpu_answers.answer_scaled_signs(packed, scales, residual, left, lengths, **scalars)
        alike(made, reference_answers.answer_scaled_signs(packed, scales, residual, expected_left, lengths, **scalars))
        for signs, means in packets:
            cpu_residuals.add_scaled_signs(signs, means, lengths, total)
        expected = cpu_residuals.correct_signs(total, residual, lengths, **scalars)
        same(made[0], expected[0])
        same(made[1], expected[1])
        cpu_residuals.add_scaled_signs(made[0], -made[1], lengths, total)
        same(left, total)


def test_the_residual_of_two_senders_who_cancel_is_zeros_without_a_sign():
    packed, scales = cpu_residuals.mean_signs(torch.ones(200), (200,))
    for residual in (torch.zeros(200), -torch.zeros(200)):
        left = torch.ones(200)
        cpu_answers.answer_scaled_signs(
            [~packed, packed], [scales, scales], residual, left, (200,), divisor=2, decay=1.0
        )
        same(left, torch.zeros(200))


@over_inputs("size", [1e-44, 1e-38, 3e38])
def test_magnitudes_of_any_size_add_up(size):
    vector = torch.full((1000,), size)
    for number in range(2):
        vector[number::7] *= -0.5
    expected = reference_residuals.mean_signs(vector, (1000,))
    alike(cpu_residuals.mean_signs(vector, (1000,)), expected)
    none = cpu_residuals.mean_signs(torch.zeros(1000), (1000,))
    left = torch.empty(1000)
    for senders in (2, 3):
        packed, scales = zip(*[none] * senders, strict=True)
        made = cpu_answers.answer_scaled_signs(packed, scales, vector, left, (1000,), divisor=senders, decay=1.0)
        alike(made, expected)


def test_what_is_no_number_shows_in_an_answers_mean():
    none = cpu_residuals.mean_signs(torch.zeros(200), (200,))
    for place, bad in itertools.product((0, 63, 64, 199), (float("nan"), float("inf"), -float("inf"))):
        residual, left = torch.ones(200), torch.empty(200)
        residual[place] = bad
        packed, scales = zip(none, none, strict=True)
        _, means = cpu_answers.answer_scaled_signs(packed, scales, residual, left, (200,), divisor=2, decay=1.0)
        assert not means.isfinite(), (place, bad)


@over_inputs("scales_type", [*DTYPES, torch.bfloat16])
def test_both_add_scales_of_another_type_alike(scales_type):
    packed, scales = reference_residuals.mean_signs(vectors(1, 130, torch.float32)[0], (100, 30))
    for dtype in (*DTYPES, torch.bfloat16):
        totals = torch.ones(2, 130, dtype=dtype)
        for kernels, total in zip((reference_residuals, cpu_residuals), totals, strict=True):
            kernels.add_scaled_signs(packed, scales.to(scales_type), (100, 30), total)
        assert torch.equal(*totals)


@both
def test_the_mean_magnitude_of_each_block_goes_with_its_signs(kernels):
    vector = torch.tensor([1.0, -3.0, 0.0, -2.0, 2.0])
    packed, scales = kernels.mean_signs(vector, (2, 3))
    torch.testing.assert_close(scales, torch.tensor([2.0, 4 / 3]))
    dense = torch.empty(5)
    kernels.put_scaled_signs(packed, scales, (2, 3), dense)
    assert torch.equal(dense, torch.where(vector < 0, -1.0, 1.0) * scales.repeat_interleave(torch.tensor([2, 3])))


@both
def test_what_is_no_number_shows_in_its_blocks_mean_alone(kernels):
    for place, bad in itertools.product((0, 63, 64, 199), (float("nan"), float("inf"), -float("inf"))):
        vector = torch.ones(200)
        vector[place] = bad
        _, means = kernels.correct_signs(vector, torch.zeros(200), (100, 100))
        assert means.isfinite().tolist() == [place >= 100, place < 100], (place, bad)


def test_the_old_momentum_may_be_overwritten():
    gradient, momentum, residual = vectors(3, 1000, torch.float32)
    apart, again = gradient.clone(), gradient.clone()
    new = torch.empty(1000)
    cpu_residuals.momentum_correct_signs(apart, momentum, residual, new, (1000,), mu=0.9, decay=0.5)
    cpu_residuals.momentum_correct_signs(again, momentum, residual, momentum, (1000,), mu=0.9, decay=0.5)
    same(apart, again)
    same(new, momentum)


def test_memories_that_were_never_written_are_taken_as_they_are():
    zeros = torch.zeros(()).expand(130)
    vector = vectors(1, 130, torch.float32)[0]
    alike(
        cpu_residuals.correct_signs(vector.clone(), zeros, (130,)),
        reference_residuals.correct_signs(vector.clone(), zeros, (130,)),
    )
