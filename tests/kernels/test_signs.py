"""Packed signs in machine code and in reference_hashing torch: the same bits, whatever the values, lengths, masks and
types.
"""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.kernels.cpu import compile as compiled
from laconic.kernels.reference import hashing as reference_hashing
from laconic.kernels.reference import signs as reference_signs
from support.inputs import over_inputs

if not compiled.numba_available():
    pytest.skip("no numba here: only the reference_hashing kernels exist", allow_module_level=True)

from laconic.kernels.cpu import signs as cpu_signs
from laconic.kernels.cpu.flatten import PAST_CACHES_BYTES
from laconic.kernels.cpu.llvm import vectors as llvm_vectors

WORD = 1 << 32
THRESHOLDS = (0, 1, round(0.3 * WORD), WORD - 1, WORD)
LENGTHS = (0, 1, 7, 8, 63, 64, 65, 1000)
LONG = 1 << 16  # up to which a stream is one number
DTYPES = (torch.float32, torch.float64)
OFFSET, KEY = 2**32 - 1100, 0x4806654E26238EC1


def values(count: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Ordinary, heavy-tailed, denormal and extreme entries, and zeros of both signs."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(count, generator=generator, dtype=torch.float64)
    heavy = torch.sinh(6 * torch.randn(count, generator=generator, dtype=torch.float64))
    tiny, huge = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
    kinds = torch.stack([draws, heavy, draws * tiny / 8, draws.sign() * huge / 16, 0.0 * draws])
    return kinds[torch.randint(5, (count,), generator=generator), torch.arange(count)].to(dtype)


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.dtype == other.dtype
    assert one.numpy().tobytes() == other.numpy().tobytes()


@over_inputs("dtype", [*DTYPES, torch.bfloat16, torch.int8])
@over_inputs("count", LENGTHS)
def test_both_pack_the_same_bits(count, dtype):
    vector = values(count, torch.float32 if dtype == torch.int8 else dtype).sign() if dtype == torch.int8 else None
    vector = values(count, dtype) if vector is None else vector.to(dtype)
    for threshold in THRESHOLDS:
        packed, selected = reference_signs.pack_signs(vector, OFFSET, KEY, threshold)
        again, selected_again = cpu_signs.pack_signs(vector, OFFSET, KEY, threshold)
        same(packed, again)
        counts = {cpu.count_selected(OFFSET, count, KEY, threshold) for cpu in (reference_signs, cpu_signs)}
        assert counts == {selected} == {selected_again}


@over_inputs("dtype", [*DTYPES, torch.int8])
@over_inputs("count", LENGTHS)
def test_both_unpack_the_same_signs(count, dtype):
    for threshold in THRESHOLDS:
        packed, _ = reference_signs.pack_signs(values(count, torch.float32), OFFSET, KEY, threshold)
        totals = [torch.arange(count).remainder(9).sub(4).to(dtype) for _ in range(2)]
        reference_signs.add_signs(packed, OFFSET, KEY, threshold, totals[0])
        cpu_signs.add_signs(packed, OFFSET, KEY, threshold, totals[1])
        same(*totals)
        sampled, selected = reference_signs.selected_bits(OFFSET, count, KEY, threshold)
        again, selected_again = cpu_signs.selected_bits(OFFSET, count, KEY, threshold)
        same(sampled, again)
        assert selected == selected_again == reference_signs.count_selected(OFFSET, count, KEY, threshold)
        reference_signs.add_signs(packed, OFFSET, KEY, threshold, totals[0])
        cpu_signs.add_signs(packed, OFFSET, KEY, threshold, totals[1], sampled)
        same(*totals)
        reference_signs.put_signs(packed, OFFSET, KEY, threshold, totals[0])
        cpu_signs.put_signs(packed, OFFSET, KEY, threshold, totals[1])
        same(*totals)
        cpu_signs.put_signs(packed, OFFSET, KEY, threshold, totals[1].fill_(5), sampled)
        same(*totals)


@pytest.mark.parametrize("kernels", [reference_signs, cpu_signs])
def test_what_is_unpacked_is_the_sign_of_what_was_packed(kernels):
    vector = values(300, torch.float32)
    mask = reference_hashing.keep_mask(5, 300, KEY, round(0.3 * WORD))
    packed, selected = kernels.pack_signs(vector, 5, KEY, round(0.3 * WORD))
    dense = torch.empty(300)
    kernels.put_signs(packed, 5, KEY, round(0.3 * WORD), dense)
    assert selected == int(mask.sum())
    assert torch.equal(dense, torch.where(mask, torch.where(vector < 0, -1.0, 1.0), 0.0))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_both_slice_a_stream_alike(data):
    bits = data.draw(st.integers(0, 300) | st.integers(LONG, LONG + 300))
    packed, _ = reference_signs.pack_signs(values(bits, torch.float32, seed=bits), 0, 0, WORD)
    low = data.draw(st.integers(0, bits))
    high = data.draw(st.integers(low, bits))
    part = cpu_signs.slice_bits(packed, low, high)
    same(reference_signs.slice_bits(packed, low, high), part)
    assert torch.equal(
        reference_hashing.unpack_bits(part, high - low), reference_hashing.unpack_bits(packed, bits)[low:high]
    )


@over_inputs("n_voters", [1, 2, 3, 4, 7, 8, 9, 200])
def test_both_take_the_majority_alike_and_a_tie_is_plus(n_voters):
    for count in (0, 1, 64, 1000, *((LONG + 1,) if n_voters < 4 else ())):
        generator = torch.Generator().manual_seed(n_voters)
        votes = torch.rand(n_voters, count, generator=generator) - 0.5
        packed = [reference_signs.pack_signs(voter, 0, 0, WORD)[0] for voter in votes]
        majority = cpu_signs.majority(packed, count)
        same(reference_signs.majority(packed, count), majority)
        negatives = (votes < 0).sum(0)
        assert torch.equal(reference_hashing.unpack_bits(majority, count), negatives > n_voters - negatives)


def tensors_of(vector: torch.Tensor, bounds: tuple[int, ...]) -> list[torch.Tensor]:
    """Copies of what lies between the cuts; some may be empty."""
    ends = [min(bound, len(vector)) for bound in bounds]
    return [vector[low:high].clone() for low, high in itertools.pairwise([0, *ends, len(vector)])]


@over_inputs("dtype", DTYPES)
@over_inputs("count", LENGTHS)
def test_both_make_a_workers_step_alike(count, dtype):
    for threshold, bounds in itertools.product(THRESHOLDS, [(), (3, 3, 70, 200), (64, 640)]):
        made = []
        for kernels in (reference_signs, cpu_signs):
            gradient, momentum, residual = (values(count, dtype, seed) for seed in range(3))
            scalars = {"mu": 0.9, "decay": 0.8, "c": 0.3, "offset": OFFSET, "key": KEY, "threshold": threshold}
            moved, residual_out = torch.empty(2, count, dtype=dtype)
            tensors = tensors_of(gradient, bounds)
            packed, selected, sampled, fine = kernels.error_feedback_step(
                tensors, momentum, residual, moved, residual_out, **scalars
            )
            assert torch.equal(torch.cat(tensors), gradient)
            if sampled is not None:
                same(sampled, reference_signs.selected_bits(OFFSET, count, KEY, threshold)[0])
            in_place = kernels.error_feedback_step([gradient], momentum, residual, momentum, residual, **scalars)
            same(packed, in_place[0])
            same(residual_out, residual)
            same(moved, momentum)
            made.append((moved, residual_out, packed, torch.tensor([selected, fine])))
            assert fine
        for one, other in zip(*made, strict=True):
            same(one, other)


@over_inputs("wrong", [torch.inf, -torch.inf, torch.nan])
@over_inputs("place", [0, 5, 63, 64, 69, 500, 999])
def test_a_workers_step_reports_one_value_that_is_no_number(place, wrong):
    gradient = torch.ones(1000)
    gradient[place] = wrong
    for kernels, bounds in itertools.product((reference_signs, cpu_signs), [(), (5, 70)]):
        others = torch.zeros(4, 1000)
        scalars = {"mu": 0.9, "decay": 0.8, "c": 0.3, "offset": 0, "key": KEY, "threshold": WORD // 2}
        assert kernels.error_feedback_step(tensors_of(gradient, bounds), *others, **scalars)[3] is False


@pytest.mark.parametrize("kernels", [reference_signs, cpu_signs])
def test_a_workers_step_takes_gradients_of_another_type_or_order(kernels):
    gradient = torch.arange(-6.0, 6.0).view(3, 4)
    scalars = {"mu": 0.9, "decay": 0.8, "c": 0.3, "offset": 0, "key": KEY, "threshold": WORD}
    made = []
    for tensors in ([gradient.t().contiguous().t(), gradient.bfloat16()], [gradient, gradient]):
        moved, residual_out = torch.empty(2, 24)
        packed, *_ = kernels.error_feedback_step(
            tensors, torch.zeros(24), torch.zeros(24), moved, residual_out, **scalars
        )
        made.append((packed, moved, residual_out))
    for one, other in zip(*made, strict=True):
        same(one, other)


@over_inputs("dtype", DTYPES)
@over_inputs("votes", [False, True])
def test_both_make_a_servers_step_alike(votes, dtype):
    for count in LENGTHS:
        for threshold in THRESHOLDS:
            made = []
            for kernels in (reference_signs, cpu_signs):
                total = torch.arange(count).remainder(9).sub(4).to(torch.int8) if votes else values(count, dtype)
                residual = values(count + 1, dtype, 1)[1:]  # not at a multiple of 64 bytes
                residual_out = torch.empty(count + 1, dtype=dtype)[1:]
                packed, selected, sampled = kernels.error_feedback_total(
                    total,
                    residual,
                    residual_out,
                    divisor=7,
                    scale=0.3,
                    decay=0.8,
                    c=0.3,
                    offset=OFFSET,
                    key=KEY,
                    threshold=threshold,
                )
                if sampled is not None:
                    same(sampled, reference_signs.selected_bits(OFFSET, count, KEY, threshold)[0])
                made.append((residual_out, packed, torch.tensor(selected)))
            for one, other in zip(*made, strict=True):
                same(one, other)


def test_both_make_steps_alike_on_vectors_that_are_stored_past_the_caches():
    count, scalars = (
        PAST_CACHES_BYTES // 4 + 37,
        {"decay": 0.8, "c": 0.3, "offset": 3, "key": KEY, "threshold": WORD // 3},
    )
    made = []
    for kernels in (reference_signs, cpu_signs):
        gradient, momentum, residual = (values(count, torch.float32, seed) for seed in range(3))
        moved, of_worker, of_server = torch.empty(count), torch.empty(count), torch.empty(count)
        assert not moved.data_ptr() % 64
        tensors = tensors_of(gradient, (5, 100_000))
        kernels.error_feedback_step(tensors, momentum, residual, moved, of_worker, mu=0.9, **scalars)
        kernels.error_feedback_total(gradient, residual, of_server, divisor=7, scale=0.3, **scalars)
        made.append((moved, of_worker, of_server))
    for one, other in zip(*made, strict=True):
        same(one, other)


@over_inputs("dtype", DTYPES)
def test_both_average_a_momentum_alike(dtype):
    for count in (*LENGTHS, LONG + 1):
        made = []
        for kernels in (reference_signs, cpu_signs):
            gradient = values(count, dtype)
            made.append((kernels.momentum_signs(gradient, values(count, dtype, 1), mu=0.9), gradient))
        for one, other in zip(*made, strict=True):
            same(one, other)


@compiled.kernel
def _moved(words, masks, moved):
    for i in range(words.size):
        moved[0, i] = llvm_vectors.compress(words[i], masks[i])
        moved[1, i] = llvm_vectors.expand(words[i], masks[i])


def test_bits_are_gathered_alike_with_and_without_the_processors_instruction():
    draws = np.random.default_rng(3)
    words = draws.integers(0, 2**64, 400, np.uint64)
    masks = draws.integers(0, 2**64, 400, np.uint64)
    masks[:4] = [0, 2**64 - 1, 1, 2**63]
    moved = np.empty((2, 400), np.uint64)
    _moved(words, masks, moved)
    for i in range(400):
        word, mask = int(words[i]), int(masks[i])
        indices = [k for k in range(64) if mask >> k & 1]
        assert int(moved[0, i]) == sum((word >> k & 1) << n for n, k in enumerate(indices))
        assert int(moved[1, i]) == sum((word >> n & 1) << k for n, k in enumerate(indices))
        assert int(llvm_vectors.compress_by_loop(np.uint64(word), np.uint64(mask))) == int(moved[0, i])
        assert int(llvm_vectors.expand_by_loop(np.uint64(word), np.uint64(mask))) == int(moved[1, i])
