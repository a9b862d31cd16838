"""More threads within a compiled kernel: the same bits, and no more threads than asked for."""

import threading
from itertools import pairwise

import pytest
import torch

import laconic
from laconic.kernels import api as kernels
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.cpu import threads
from support.inputs import over_inputs

D = 3 * threads.CHUNK + 1001


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(threads, "MAX_KERNEL_THREADS", 8)  # whatever this machine has
    yield laconic.set_kernel_threads
    laconic.set_kernel_threads(1)


def made_by_every_kernel():
    vector = torch.randn(D, generator=torch.Generator().manual_seed(1))
    made = []
    for lengths in ((D,), (70_000, D - 70_000), (512,) * (D // 512) + (D % 512,)):
        ends = kernels.ranges(vector, lengths)
        scales = kernels.norms(vector, lengths)
        made += [*ends, scales, kernels.absolute_maxima(vector, lengths)]
        for bits in (1, 3, 4, 8):
            codes = kernels.quantize(vector, *ends, lengths, bits, 5, 9)
            levels = kernels.quantize_levels(vector, scales, lengths, 2**bits - 1, 5, 9)
            total = torch.ones(D)
            kernels.add_dequantized(codes, *ends, lengths, bits, total)
            kernels.add_levels(levels, scales, lengths, 2**bits - 1, total)
            made += [codes, levels, total, kernels.dequantize(codes, *ends, lengths, bits)]
    made += made_by_sign_kernels(vector)
    for values in (vector, vector.double()):
        powers, _ = kernels.power_codes(values, 5, 9)
        total = torch.ones_like(values)
        kernels.add_powers(powers, total)
        made += [powers, total]
        for threshold in (1, 3 << 30, 2**32):
            selected = kernels.take_selected(values, threshold / 2**32, 5, 9, threshold)
            for mask_words in (None, kernels.selected_bits(5, D, 9, threshold)[0]):
                put = torch.empty_like(values)
                kernels.put_selected(selected, 5, 9, threshold, put, mask_words)
                made += [selected, put]
    few = torch.ones(D).index_fill_(0, torch.arange(50), 2.0)
    for values in (vector, vector.double(), torch.sinh(3 * vector), vector.sign(), few, vector * torch.arange(D)):
        made += [kernels.top_k(values, k) for k in (1, D // 1000, D // 100, D // 10, D // 2)]
        made.append(kernels.top_k_by_chunk(values, 4096, 64, 1))
    for bits in (1, 3, 4, 6):
        packed, means = kernels.fractional_codes(vector, bits)
        made += [packed, means, kernels.fractional_dense(packed, means, D, bits)]
    return made


def made_by_sign_kernels(vector):
    made = []
    momentum, residual = vector.flip(0), vector.roll(1)
    scalars = {"mu": 0.9, "decay": 0.8, "c": 0.5}
    for threshold in (0, 1, round(0.3 * 2**32), 2**32 - 1, 2**32):
        draw = 5, 9, threshold
        named = {"offset": 5, "key": 9, "threshold": threshold}
        packed, selected = kernels.pack_signs(vector, *draw)
        sampled, n_sampled = kernels.selected_bits(5, D, 9, threshold)
        made += [packed, sampled, torch.tensor([selected, n_sampled, kernels.count_selected(5, D, 9, threshold)])]
        for mask_words in (None, sampled):
            put, votes = torch.empty(D), torch.ones(D, dtype=torch.int8)
            kernels.put_signs(packed, *draw, put, mask_words)
            kernels.add_signs(packed, *draw, votes, mask_words)
            made += [put, votes]
        new_momentum, new_residual = torch.empty(D), torch.empty(D)
        tensors = vector[: D // 3], vector[D // 3 :]
        signs, n_sent, selected_ones, is_finite = kernels.error_feedback_step(
            tensors, momentum, residual, new_momentum, new_residual, **scalars, **named
        )
        made += [signs, selected_ones, torch.tensor([n_sent, is_finite]), new_momentum, new_residual.clone()]
        sums = {"divisor": 3, "scale": 0.5, "decay": 0.8, "c": 0.5}
        made += [*kernels.error_feedback_total(votes, residual, new_residual, **sums, **named)[::2], new_residual]
    gradient = vector.clone()
    made += [kernels.momentum_signs(gradient, momentum, mu=0.9), gradient]
    voters = [kernels.pack_signs(vector.roll(n), 0, 0, 2**32)[0] for n in range(3)]
    return [*made, kernels.majority(voters, D)]


@pytest.mark.slow
@pytest.mark.skipif(not compiled.numba_available(), reason="needs numba")
def test_the_number_of_threads_changes_no_bit(two_threads):
    one = made_by_every_kernel()
    for n in (2, 3, 8):
        two_threads(n)
        assert laconic.kernel_threads() == n
        for at, (many, alone) in enumerate(zip(made_by_every_kernel(), one, strict=True)):
            assert torch.equal(many, alone), (n, at)


@over_inputs("n", [1, 2, 3, 7])
@over_inputs("count", [0, 1, 65_535, 131_071, 131_072, 131_073, 1_000_000])
def test_ranges_cover_everything_once_begin_at_chunks_and_are_no_more_than_threads(two_threads, n, count):
    two_threads(n)
    seen = []
    threads.in_chunks(count, lambda start, stop: seen.append((start, stop)))
    seen.sort()
    assert len(seen) == max(1, min(len(seen), n))
    assert seen[0][0] == 0
    assert seen[-1][1] == count
    for (_, stop), (start, _) in pairwise(seen):
        assert stop == start
        assert start % threads.CHUNK == 0
    if len(seen) > 1:
        assert min(stop - start for start, stop in seen[:-1]) >= threads.CHUNK


def test_ranges_of_blocks_cover_every_block_once(two_threads):
    two_threads(3)
    seen = []
    threads.in_chunks(10, lambda start, stop: seen.append((start, stop)), 10 * threads.CHUNK)
    assert sorted(seen) == [(0, 4), (4, 8), (8, 10)]
    threads.in_chunks(2, lambda start, stop: seen.append((start, stop)), 10 * threads.CHUNK)
    assert sorted(seen[3:]) == [(0, 1), (1, 2)]


def test_one_thread_is_the_callers_own_and_others_are_its_company(two_threads):
    names = []
    threads.in_chunks(10 * threads.CHUNK, lambda start, stop: names.append(threading.current_thread().name))
    assert names == [threading.current_thread().name]
    two_threads(2)
    meeting = threading.Barrier(2, timeout=60)
    threads.in_chunks(10 * threads.CHUNK, lambda start, stop: meeting.wait())  # both are there at once


def test_what_goes_wrong_in_a_thread_is_raised(two_threads):
    two_threads(2)

    def fail(start, stop):
        if start:
            raise RuntimeError("this range")

    with pytest.raises(RuntimeError, match="this range"):
        threads.in_chunks(10 * threads.CHUNK, fail)


@over_inputs("n", [0, -1, 10**6])
def test_a_number_of_threads_outside_the_cores_is_named(n):
    with pytest.raises(ValueError, match=rf"set_kernel_threads: n={n} must be in 1 \.\. \d+, the cores"):
        laconic.set_kernel_threads(n)


@over_inputs("n", [True, 2.0, "2"])
def test_a_number_of_threads_of_the_wrong_kind_is_named(n):
    with pytest.raises(TypeError, match=r"set_kernel_threads: n=.* must be a whole number"):
        laconic.set_kernel_threads(n)
