"""The compiled position kernels give what the plain ones give, bit for bit, and read nothing outside their arrays."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.kernels.cpu import compile as compiled
from laconic.kernels.reference import ans_gaps as reference_ans_gaps
from laconic.kernels.reference import position_streams as reference_position_streams
from laconic.wire.coding.positions import class_starts
from support.position_sets import supports

pytestmark = pytest.mark.skipif(not compiled.numba_available(), reason="needs numba")
if compiled.numba_available():
    from laconic.kernels.cpu import ans_gaps as cpu_ans_gaps
    from laconic.kernels.cpu import position_streams as cpu_position_streams

widths = st.integers(0, 32)


def assert_equal(one, other):
    assert type(one) is type(other)
    if isinstance(one, tuple):
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    elif isinstance(one, np.ndarray | torch.Tensor):
        assert one.dtype == other.dtype
        assert one.tolist() == other.tolist()
    else:
        assert one == other


@settings(deadline=None)
@given(st.lists(st.integers(-1, 9), max_size=20), st.booleans(), st.integers(1, 10))
def test_positions_ascend_alike(numbers, in_order, count):
    numbers = sorted(set(numbers)) if in_order else numbers
    expected = numbers == sorted(set(numbers)) and all(0 <= number < count for number in numbers)
    for kernels in (reference_position_streams, cpu_position_streams):
        assert kernels.ascending(torch.tensor(numbers, dtype=torch.int64), count) == expected


@settings(deadline=None)
@given(st.data(), st.integers(1, 32))
def test_numbers_of_any_width_are_written_and_read_alike(data, width):
    numbers = torch.tensor(data.draw(st.lists(st.integers(0, 2**width - 1), min_size=1, max_size=50)))
    ascend = bool((torch.diff(numbers) > 0).all())
    stream, _ = reference_position_streams.put_numbers(numbers, width)
    for kernels in (reference_position_streams, cpu_position_streams):
        assert_equal(kernels.put_numbers(numbers, width), (stream, ascend))
        assert_equal(kernels.take_numbers(stream, len(numbers), width), (numbers, ascend))


@settings(deadline=None)
@given(st.lists(st.integers(-3, 40), min_size=1, max_size=20), st.integers(0, 4))
def test_what_does_not_ascend_or_fit_is_found_while_it_is_written(numbers, width):
    where = torch.tensor(numbers)
    ascend = numbers == sorted(set(numbers)) and numbers[0] >= 0
    gaps = np.linspace(0, 2**14, 129).astype(np.int64)
    for kernels in (reference_position_streams, cpu_position_streams):
        assert kernels.put_numbers(where, 5)[1] == (ascend and numbers[-1] < 32)
        for from_last in (False, True):
            used = kernels.put_runs(where, width, 1 << width, from_last, 20 * (1 + width) + 41)[1]
            assert (used >= 0) == ascend
    for ans in (reference_ans_gaps, cpu_ans_gaps):
        if ascend:
            ans.ans_encode_gaps(where.numpy(), gaps)
        else:
            with pytest.raises(ValueError, match="must ascend"):
                ans.ans_encode_gaps(where.numpy(), gaps)


@settings(deadline=None)
@given(supports(maximum=2000), st.integers(0, 11), st.booleans(), st.integers(0, 70))
def test_runs_are_written_and_read_alike(support, width, from_last, n_more):
    where, count = support
    step = 1 << width if from_last else max(1, (1 << width) - 1)
    n_bits = len(where) * (1 + width) + count // step + n_more
    stream, used = reference_position_streams.put_runs(where, width, step, from_last, n_bits)
    assert_equal(cpu_position_streams.put_runs(where, width, step, from_last, n_bits), (stream, used))
    for kernels in (reference_position_streams, cpu_position_streams):
        for enough in (n_bits, used):
            taken = kernels.take_runs(stream, enough, len(where), width, step, count, from_last)
            assert_equal(taken, (where, used))
        if len(where):
            assert kernels.take_runs(stream, used - 1, len(where), width, step, count, from_last)[1] == -1
            assert kernels.take_runs(stream, used, len(where), width, step, int(where[-1]), from_last)[1] == -1
        if used < 8 * len(stream):
            soiled = stream.clone()
            soiled[-1] |= 1
            assert kernels.take_runs(soiled, n_bits, len(where), width, step, count, from_last)[1] == -1


@settings(deadline=None)
@given(supports())
def test_gaps_are_encoded_and_decoded_alike(support):
    where, count = support[0].numpy(), support[1]
    starts = class_starts(count, max(1, where.size))
    words, top = reference_ans_gaps.ans_encode_gaps(where, starts)
    assert_equal(cpu_ans_gaps.ans_encode_gaps(where, starts), (words, top))
    for kernels in (reference_ans_gaps, cpu_ans_gaps):
        assert_equal(kernels.ans_decode_gaps(words, top, where.size, starts, count), (where, True))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), widths, st.integers(1, 2**32), st.integers(0, 30), st.booleans(), st.data())
def test_noise_is_read_alike(noise, width, count, k, from_last, data):
    stream = torch.tensor(list(noise), dtype=torch.uint8)
    n_bits = data.draw(st.integers(max(0, 8 * len(noise) - 7), 8 * len(noise)))
    step = data.draw(st.integers((1 << width) // 2 + 1, 1 << width))
    reference = reference_position_streams.take_runs(stream, n_bits, k, width, step, count, from_last)
    made = cpu_position_streams.take_runs(stream, n_bits, k, width, step, count, from_last)
    assert made[1] == reference[1]
    assert reference[1] < 0 or made[0].tolist() == reference[0].tolist()


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=12), st.integers(1, 2**32), st.integers(1, 30), st.data())
def test_a_stack_of_noise_is_read_alike(words, count, k, data):
    starts = class_starts(count, min(k, count))
    top = data.draw(st.integers(2**32 if words else 1, 2**64 - 1))
    stack = np.array(words, dtype=np.uint32)
    reference = reference_ans_gaps.ans_decode_gaps(stack, top, k, starts, count)
    made = cpu_ans_gaps.ans_decode_gaps(stack, top, k, starts, count)
    assert made[1] == reference[1]
    assert made[0].tolist() == reference[0].tolist()


@settings(deadline=None)
@given(st.integers(1, 2**32), st.data())
def test_every_class_in_use_has_a_share_and_all_shares_are_given_out(count, data):
    k = data.draw(st.one_of(st.integers(1, count), st.just(count), st.just(1)))
    starts = class_starts(count, k)
    longest = count - k + 4
    n_classes = 4 * (longest.bit_length() - 3) + (longest >> longest.bit_length() - 3) - 3
    assert starts[0] == 0
    assert (np.diff(starts[: n_classes + 1]) >= 1).all()
    assert (starts[n_classes:] == 1 << reference_ans_gaps.SHARE_BITS).all()
