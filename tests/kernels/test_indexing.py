"""Entries of a vector at some places: the compiled kernels against plain torch."""

import torch

from laconic.kernels.api import add_at, clear_at, set_at, take_at, take_from
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.reference import indexing as reference_indexing
from support.inputs import over_inputs

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def _sampled(d, k, dtype):
    random = torch.Generator().manual_seed(d + k)
    vector = torch.randn(d, generator=random).to(dtype)
    vector[::3] *= torch.finfo(dtype).max / 16
    vector[1::3] = -0.0
    indices = torch.randperm(d, generator=random)[:k].sort().values
    return vector, indices, torch.randn(k, generator=random).to(dtype)


@over_inputs("dtype", DTYPES)
@over_inputs(("d", "k"), [(1, 0), (1, 1), (7, 7), (5000, 499)])
def test_both_take_add_and_clear_alike(d, k, dtype):
    assert compiled.numba_available()
    vector, indices, values = _sampled(d, k, dtype)
    found, expected = take_at(vector, indices), reference_indexing.take_at(vector, indices)
    assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8))
    for mine, peer, given in (
        (add_at, reference_indexing.add_at, (values,)),
        (clear_at, reference_indexing.clear_at, ()),
    ):
        made, right = vector.clone(), vector.clone()
        mine(made, indices, *given)
        peer(right, indices, *given)
        assert torch.equal(made.view(torch.uint8), right.view(torch.uint8))
        others = torch.ones(d, dtype=torch.bool)
        others[indices] = False
        assert torch.equal(made[others], vector[others])


def test_a_strided_vector_is_changed_all_the_same():
    strided = torch.zeros(12)[::2]
    add_at(strided, torch.tensor([1, 5]), torch.tensor([2.0, 3.0]))
    assert strided.tolist() == [0, 2, 0, 0, 0, 3]
    assert take_at(strided, torch.tensor([1, 5])).tolist() == [2, 3]
    clear_at(strided, torch.tensor([5]))
    assert strided.tolist() == [0, 2, 0, 0, 0, 0]


@over_inputs("dtype", DTYPES)
def test_elements_of_tensors_are_those_of_the_vector_that_they_make(dtype):
    vector, indices, values = _sampled(5000, 499, dtype)
    given = [part.clone() for part in vector.split([0, 3, 997, 0, 4000])]
    matrix = given[-1].view(80, 50).t().contiguous().t()  # not in rows
    for tensors in (given, [*given[:-1], matrix]):
        assert torch.equal(take_from(tensors, indices).view(torch.uint8), vector[indices].view(torch.uint8))
    versions = [tensor._version for tensor in given]
    for tensors in (given, [*given[:-1], matrix]):
        set_at(tensors, indices, values)
        made = torch.cat([tensor.reshape(-1) for tensor in tensors])
        assert torch.equal(made.view(torch.uint8), vector.index_copy(0, indices, values).view(torch.uint8))
    assert all(tensor._version > before for tensor, before in zip(given, versions, strict=True))  # autograd is told
