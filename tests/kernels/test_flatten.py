"""Tensors gathered into one vector, and a vector scattered into them, in one pass over memory."""

import functools
import math

import pytest
import torch

from laconic.kernels import api as kernels
from laconic.kernels.api import (
    add_into,
    equals,
    gather,
    gather_change,
    gather_largest,
    gather_scaled,
    scatter,
    scatter_packed_signs,
)
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.reference import flatten as reference_flatten
from support.inputs import failing_at, over_inputs

SHAPES = [(3, 5), (64,), (), (0,), (100, 7), (129,), (1,)]
LARGE = [*SHAPES, (4_200_000,), (31,)]  # past the caches
KINDS = [
    (SHAPES, torch.float32),
    (SHAPES, torch.float64),
    (LARGE, torch.float32),
    ([*SHAPES, (2_100_000,), (31,)], torch.float64),  # past the caches, too
]


def _segments(shapes, dtype, seed=0):
    tensors = [tensor.clone() for tensor in _sampled(tuple(shapes), dtype, seed)]
    return tensors, sum(tensor.numel() for tensor in tensors)


@functools.cache
def _sampled(shapes, dtype, seed):
    random = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=random, dtype=dtype) for shape in shapes]
    for tensor in tensors:
        flat = tensor.view(-1)
        flat[::5] *= torch.finfo(dtype).max / 16
        flat[1::5] *= torch.finfo(dtype).smallest_normal
        flat[2::5] = -0.0
    return tensors


def _bits(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).view(torch.uint8)


@over_inputs(("shapes", "dtype"), KINDS)
def test_both_gather_alike(shapes, dtype):
    assert compiled.numba_available()
    tensors, d = _segments(shapes, dtype)
    made, expected = torch.empty(2, d, dtype=dtype)
    assert gather(tensors, made)
    assert reference_flatten.gather(tensors, expected)
    assert torch.equal(_bits([made]), _bits([expected]))
    assert torch.equal(_bits([made]), _bits(tensors))


@over_inputs(("shapes", "dtype"), KINDS)
def test_both_find_the_largest_magnitude_while_they_gather(shapes, dtype):
    tensors, d = _segments(shapes, dtype)
    made, expected = torch.empty(2, d, dtype=dtype)
    assert gather_largest(tensors, made) == reference_flatten.gather_largest(tensors, expected) == made.abs().max()
    assert torch.equal(_bits([made]), _bits(tensors))
    tensors[-1].view(-1)[-1] = torch.nan
    assert all(
        take(tensors, made) != take(tensors, made) for take in (gather_largest, reference_flatten.gather_largest)
    )


@over_inputs(("shapes", "dtype"), KINDS)
def test_tensors_equal_a_vector_until_one_element_or_the_sign_of_a_zero_differs(shapes, dtype):
    tensors, d = _segments(shapes, dtype)
    vector = torch.empty(d, dtype=dtype)
    gather(tensors, vector)
    for compare in (equals, reference_flatten.equals):
        assert compare(tensors, vector)
        for at in (0, d // 2, d - 1):
            other = vector.clone()
            other[at] = 5.0
            assert not compare(tensors, other)
        with_zero = [torch.zeros(3, dtype=dtype)]
        assert not compare(with_zero, torch.tensor([0.0, -0.0, 0.0], dtype=dtype))


@over_inputs("divisor", [2, 7])
@over_inputs(("shapes", "dtype"), KINDS)
def test_both_gather_shares_alike(shapes, dtype, divisor):
    tensors, d = _segments(shapes, dtype)
    made, expected = torch.empty(2, d, dtype=dtype)
    assert gather(tensors, made, divisor=divisor)
    assert reference_flatten.gather(tensors, expected, divisor=divisor)
    assert torch.equal(_bits([made]), _bits([expected]))
    gather(tensors, expected)
    assert torch.equal(_bits([made]), _bits([expected / divisor]))


@over_inputs(("shapes", "dtype"), KINDS)
def test_both_gather_a_change_alike(shapes, dtype):
    tensors, d = _segments(shapes, dtype)
    start = torch.randn(d, dtype=dtype, generator=torch.Generator().manual_seed(1))
    start[2::5] = 0.0
    made, expected = torch.empty(2, d, dtype=dtype)
    for plus in (None, start * 0.3):
        assert gather_change(tensors, start, made, plus)
        assert reference_flatten.gather_change(tensors, start, expected, plus)
        assert torch.equal(_bits([made]), _bits([expected]))


@over_inputs(("shapes", "dtype"), KINDS)
def test_both_gather_scaled_tensors_alike(shapes, dtype):
    tensors, d = _segments(shapes, dtype)
    factors = [-0.3 * number for number in range(len(shapes))]
    plus = torch.randn(d, dtype=dtype, generator=torch.Generator().manual_seed(1))
    made, expected = torch.empty(2, d, dtype=dtype)
    for more in (None, plus):
        assert gather_scaled(tensors, factors, made, more)
        assert reference_flatten.gather_scaled(tensors, factors, expected, more)
        assert torch.equal(_bits([made]), _bits([expected]))
        by_hand = torch.cat([tensor.view(-1) * by for tensor, by in zip(tensors, factors, strict=True)])
        assert torch.equal(_bits([made]), _bits([by_hand + (0.0 if more is None else more)]))
        assert gather_scaled(tensors, factors, made, more, divisor=3)
        assert reference_flatten.gather_scaled(tensors, factors, expected, more, divisor=3)
        assert torch.equal(_bits([made]), _bits([expected]))
        assert torch.equal(_bits([made]), _bits([(by_hand + (0.0 if more is None else more)) / 3]))
    for add in (gather_scaled, reference_flatten.gather_scaled):
        sizes = [tensor.numel() for tensor in tensors]
        assert add(tensors, factors, made, plus.split(sizes))
        assert torch.equal(_bits([made]), _bits([by_hand + plus]))


@over_inputs(("shapes", "dtype"), [(SHAPES, torch.float32), (LARGE, torch.float32), (SHAPES, torch.float64)])
def test_both_add_into_tensors_alike(shapes, dtype):
    tensors, d = _segments(shapes, dtype)
    inner = torch.randperm(d - 2, generator=torch.Generator().manual_seed(1))[: d // 3] + 1
    indices = torch.cat([torch.tensor([0, d - 1]), inner]).sort().values
    values = torch.randn(len(indices), dtype=dtype, generator=torch.Generator().manual_seed(2))
    by_hand = torch.cat([tensor.view(-1) for tensor in tensors]).index_add_(0, indices, values)
    for add in (add_into, reference_flatten.add_into):
        made = [tensor.clone() for tensor in tensors]
        add(made, indices, values)
        assert torch.equal(_bits(made), _bits([by_hand]))
        add(made, indices[:0], values[:0])
        assert torch.equal(_bits(made), _bits([by_hand]))


@over_inputs("as_sum", [False, True])
@over_inputs(("shapes", "dtype"), KINDS)
def test_both_scatter_alike(shapes, dtype, as_sum):
    tensors, d = _segments(shapes, dtype)
    vector = torch.empty(d, dtype=dtype)
    gather(tensors, vector)
    made, expected = ([torch.zeros(shape, dtype=dtype) for shape in shapes] for _ in range(2))
    scatter(vector, made, as_sum=as_sum)
    reference_flatten.scatter(vector, expected, as_sum=as_sum)
    assert torch.equal(_bits(made), _bits(expected))
    assert torch.equal(_bits(made), _bits([vector + 0.0 if as_sum else vector]))


@over_inputs(("shapes", "dtype"), KINDS)
def test_both_write_packed_signs_across_tensors_alike(shapes, dtype):
    random = torch.Generator().manual_seed(3)
    d = sum(math.prod(shape) for shape in shapes)
    packed = torch.randint(0, 256, ((d + 7) // 8,), dtype=torch.uint8, generator=random)
    factors = torch.rand(len(shapes), dtype=dtype, generator=random).mul_(torch.arange(len(shapes)) % 3).tolist()
    made, expected = ([torch.full(shape, torch.nan, dtype=dtype) for shape in shapes] for _ in range(2))
    scatter_packed_signs(packed, factors, made)
    reference_flatten.scatter_packed_signs(packed, factors, expected)
    assert torch.equal(_bits(made), _bits(expected))
    by_hand = torch.tensor([-1.0 if packed[i // 8] >> i % 8 & 1 else 1.0 for i in (0, d - 1)], dtype=dtype)
    ends = torch.cat([each.view(-1) for each in made])[[0, -1]]
    assert torch.equal(ends, by_hand * torch.tensor([factors[0], factors[-1]], dtype=dtype))


@pytest.mark.slow
def test_a_tensor_with_one_wrong_value_is_seen():
    tensors, d = _segments(LARGE, torch.float32)
    out, ones, factors = torch.empty(d), torch.ones(d), [0.1] * len(tensors)
    for number, element in ((0, 0), (1, 63), (4, 70), (5, 128), (6, 0), (7, 0), (7, 4_199_999), (8, 30)):
        flat = tensors[number].view(-1)
        right = flat[element].item()
        for wrong in (torch.inf, -torch.inf, torch.nan):
            flat[element] = wrong
            for version in (reference_flatten, kernels):
                with failing_at(number=number, element=element, wrong=wrong, version=version.__name__):
                    assert not version.gather(tensors, out)
                    assert not version.gather(tensors, out, divisor=3)
                    assert not version.gather_scaled(tensors, factors, out)
                    assert not version.gather_scaled(tensors, factors, out, ones)
                    assert not version.gather_change(tensors, ones, out)
        flat[element] = right


def test_a_share_too_large_to_be_added_up_is_seen():
    tensors, d = _segments(LARGE, torch.float32)
    out = torch.empty(d)
    for number, element in ((0, 0), (1, 63), (4, 70), (7, 4_199_999), (8, 30)):
        flat = tensors[number].view(-1)
        right = flat[element].item()
        for sign in (1, -1):
            flat[element] = sign * torch.finfo(torch.float32).max
            for take in (gather, reference_flatten.gather):
                with failing_at(number=number, element=element, sign=sign, take=take.__module__):
                    assert take(tensors, out)
                    assert not take(tensors, out, divisor=3)
                    scaled = (kernels if take is gather else reference_flatten).gather_scaled
                    assert not scaled(tensors, [1.0] * len(tensors), out, torch.zeros(d), divisor=3)
        flat[element] = right


def test_tensors_of_another_type_or_order_come_as_torch_copies_them():
    tensors = [torch.arange(6.0).view(2, 3).t(), torch.tensor([1.5, torch.pi], dtype=torch.bfloat16)]
    vector = torch.empty(8)
    assert gather(tensors, vector)
    assert vector.tolist() == [0, 3, 1, 4, 2, 5, 1.5, 3.140625]
    assert gather_change(tensors, torch.ones(8), vector)
    assert vector.tolist() == [-1, 2, 0, 3, 1, 4, 0.5, 2.140625]
    assert gather_scaled(tensors, [2.0, -1.0], vector)
    assert vector.tolist() == [0, 6, 2, 8, 4, 10, -1.5, -3.140625]
    add_into(tensors, torch.tensor([1, 6]), torch.tensor([0.5, 1.0]))
    assert tensors[0].tolist() == [[0, 3.5], [1, 4], [2, 5]]
    assert tensors[1].tolist() == [2.5, 3.140625]
    scatter(torch.arange(8.0), tensors)
    assert [tensor.tolist() for tensor in tensors] == [[[0, 1], [2, 3], [4, 5]], [6, 7]]


def test_a_tape_sees_that_a_tensor_was_overwritten():
    weight = torch.ones(3, requires_grad=True)
    loss = weight.square().sum()
    scatter(torch.zeros(3), [weight.detach()])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_tensors_that_were_checked_before_are_read_and_written_where_they_are_now():
    checked = kernels.CheckedTensors([torch.arange(6.0), torch.zeros(2, 2)])
    out = torch.empty(10)
    for _ in range(2):  # the second time, what is known of them is used
        assert kernels.gather(checked, out)
        assert out.tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0, 0]
    checked[0].data = torch.ones(6)
    checked[1].data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).t()
    assert kernels.gather(checked, out)
    assert out.tolist() == [1, 1, 1, 1, 1, 1, 1, 3, 2, 4]
    kernels.scatter(torch.arange(10.0), checked)
    assert checked[1].tolist() == [[6, 7], [8, 9]]


def test_a_tensor_that_was_checked_before_and_has_lost_its_memory_is_refused():
    for lose, error in (
        (lambda tensor: tensor.untyped_storage().resize_(0), TypeError),
        (lambda tensor: tensor.untyped_storage().resize_(16), TypeError),
        (lambda tensor: setattr(tensor, "data", tensor.data[:4]), ValueError),
        (lambda tensor: setattr(tensor, "data", torch.zeros(1).expand(8)), ValueError),
    ):
        checked = kernels.CheckedTensors([torch.ones(8), torch.ones(4)])
        kernels.scatter(torch.zeros(12), checked)
        lose(checked[0])
        with pytest.raises(error):
            kernels.scatter(torch.zeros(12), checked)
