"""Tensors gathered into one vector, and a vector scattered into them, in one pass over memory."""

import pytest
import torch

from laconic.kernels import api as kernels
from laconic.kernels.api import add_into, gather, gather_change, gather_scaled, scatter
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.reference import flatten as reference_flatten
from support.inputs import failing_at, over_inputs

SHAPES = [(3, 5), (64,), (), (0,), (100, 7), (129,), (1,)]
LARGE = [*SHAPES, (4_200_000,), (31,)]  # past the caches
KINDS = [
    (SHAPES, torch.float32),
    (SHAPES, torch.float64),
    (LARGE, torch.float32),
    (LARGE, torch.float64),
]


def _pieces(shapes, dtype, seed=0):
    random = torch.Generator().manual_seed(seed)
    pieces = [torch.randn(shape, generator=random, dtype=dtype) for shape in shapes]
    for piece in pieces:
        flat = piece.view(-1)
        flat[::5] *= torch.finfo(dtype).max / 16
        flat[1::5] *= torch.finfo(dtype).smallest_normal
        flat[2::5] = -0.0
    return pieces, sum(piece.numel() for piece in pieces)


def _bits(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).view(torch.uint8)


@over_inputs(("shapes", "dtype"), KINDS)
def test_both_gather_alike(shapes, dtype):
    assert compiled.numba_available()
    pieces, d = _pieces(shapes, dtype)
    made, expected = torch.empty(2, d, dtype=dtype)
    assert gather(pieces, made)
    assert reference_flatten.gather(pieces, expected)
    assert torch.equal(_bits([made]), _bits([expected]))
    assert torch.equal(_bits([made]), _bits(pieces))


@over_inputs("among", [2, 7])
@over_inputs(("shapes", "dtype"), KINDS)
def test_both_gather_shares_alike(shapes, dtype, among):
    pieces, d = _pieces(shapes, dtype)
    made, expected = torch.empty(2, d, dtype=dtype)
    assert gather(pieces, made, among=among)
    assert reference_flatten.gather(pieces, expected, among=among)
    assert torch.equal(_bits([made]), _bits([expected]))
    gather(pieces, expected)
    assert torch.equal(_bits([made]), _bits([expected / among]))


@over_inputs(("shapes", "dtype"), KINDS)
def test_both_gather_a_change_alike(shapes, dtype):
    pieces, d = _pieces(shapes, dtype)
    start = torch.randn(d, dtype=dtype, generator=torch.Generator().manual_seed(1))
    start[2::5] = 0.0
    made, expected = torch.empty(2, d, dtype=dtype)
    for plus in (None, start * 0.3):
        assert gather_change(pieces, start, made, plus)
        assert reference_flatten.gather_change(pieces, start, expected, plus)
        assert torch.equal(_bits([made]), _bits([expected]))


@over_inputs(("shapes", "dtype"), KINDS)
def test_both_gather_scaled_pieces_alike(shapes, dtype):
    pieces, d = _pieces(shapes, dtype)
    factors = [-0.3 * number for number in range(len(shapes))]
    plus = torch.randn(d, dtype=dtype, generator=torch.Generator().manual_seed(1))
    made, expected = torch.empty(2, d, dtype=dtype)
    for more in (None, plus):
        assert gather_scaled(pieces, factors, made, more)
        assert reference_flatten.gather_scaled(pieces, factors, expected, more)
        assert torch.equal(_bits([made]), _bits([expected]))
        by_hand = torch.cat([piece.view(-1) * by for piece, by in zip(pieces, factors, strict=True)])
        assert torch.equal(_bits([made]), _bits([by_hand + (0.0 if more is None else more)]))


@over_inputs(("shapes", "dtype"), [(SHAPES, torch.float32), (LARGE, torch.float32), (SHAPES, torch.float64)])
def test_both_add_into_pieces_alike(shapes, dtype):
    pieces, d = _pieces(shapes, dtype)
    inner = torch.randperm(d - 2, generator=torch.Generator().manual_seed(1))[: d // 3] + 1
    places = torch.cat([torch.tensor([0, d - 1]), inner]).sort().values
    values = torch.randn(len(places), dtype=dtype, generator=torch.Generator().manual_seed(2))
    by_hand = torch.cat([piece.view(-1) for piece in pieces]).index_add_(0, places, values)
    for add in (add_into, reference_flatten.add_into):
        made = [piece.clone() for piece in pieces]
        add(made, places, values)
        assert torch.equal(_bits(made), _bits([by_hand]))
        add(made, places[:0], values[:0])
        assert torch.equal(_bits(made), _bits([by_hand]))


@over_inputs("as_sum", [False, True])
@over_inputs(("shapes", "dtype"), KINDS)
def test_both_scatter_alike(shapes, dtype, as_sum):
    pieces, d = _pieces(shapes, dtype)
    vector = torch.empty(d, dtype=dtype)
    gather(pieces, vector)
    made, expected = ([torch.zeros(shape, dtype=dtype) for shape in shapes] for _ in range(2))
    scatter(vector, made, as_sum=as_sum)
    reference_flatten.scatter(vector, expected, as_sum=as_sum)
    assert torch.equal(_bits(made), _bits(expected))
    assert torch.equal(_bits(made), _bits([vector + 0.0 if as_sum else vector]))


def test_a_piece_with_one_wrong_entry_is_seen():
    pieces, d = _pieces(LARGE, torch.float32)
    out, ones, factors = torch.empty(d), torch.ones(d), [0.1] * len(pieces)
    for number, entry in ((0, 0), (1, 63), (4, 70), (5, 128), (6, 0), (7, 0), (7, 4_199_999), (8, 30)):
        flat = pieces[number].view(-1)
        right = flat[entry].item()
        for wrong in (torch.inf, -torch.inf, torch.nan):
            flat[entry] = wrong
            for version in (reference_flatten, kernels):
                with failing_at(number=number, entry=entry, wrong=wrong, version=version.__name__):
                    assert not version.gather(pieces, out)
                    assert not version.gather(pieces, out, among=3)
                    assert not version.gather_scaled(pieces, factors, out)
                    assert not version.gather_scaled(pieces, factors, out, ones)
                    assert not version.gather_change(pieces, ones, out)
        flat[entry] = right


def test_a_share_too_large_to_be_added_up_is_seen():
    pieces, d = _pieces(LARGE, torch.float32)
    out = torch.empty(d)
    for number, entry in ((0, 0), (1, 63), (4, 70), (7, 4_199_999), (8, 30)):
        flat = pieces[number].view(-1)
        right = flat[entry].item()
        for sign in (1, -1):
            flat[entry] = sign * torch.finfo(torch.float32).max
            for take in (gather, reference_flatten.gather):
                with failing_at(number=number, entry=entry, sign=sign, take=take.__module__):
                    assert take(pieces, out)
                    assert not take(pieces, out, among=3)
        flat[entry] = right


def test_pieces_of_another_type_or_order_come_as_torch_copies_them():
    pieces = [torch.arange(6.0).view(2, 3).t(), torch.tensor([1.5, torch.pi], dtype=torch.bfloat16)]
    vector = torch.empty(8)
    assert gather(pieces, vector)
    assert vector.tolist() == [0, 3, 1, 4, 2, 5, 1.5, 3.140625]
    assert gather_change(pieces, torch.ones(8), vector)
    assert vector.tolist() == [-1, 2, 0, 3, 1, 4, 0.5, 2.140625]
    assert gather_scaled(pieces, [2.0, -1.0], vector)
    assert vector.tolist() == [0, 6, 2, 8, 4, 10, -1.5, -3.140625]
    add_into(pieces, torch.tensor([1, 6]), torch.tensor([0.5, 1.0]))
    assert pieces[0].tolist() == [[0, 3.5], [1, 4], [2, 5]]
    assert pieces[1].tolist() == [2.5, 3.140625]
    scatter(torch.arange(8.0), pieces)
    assert [piece.tolist() for piece in pieces] == [[[0, 1], [2, 3], [4, 5]], [6, 7]]


def test_a_tape_sees_that_a_tensor_was_overwritten():
    weight = torch.ones(3, requires_grad=True)
    loss = weight.square().sum()
    scatter(torch.zeros(3), [weight.detach()])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
