"""Entries of a vector at some places: the compiled kernels against plain torch."""

import torch

from laconic.kernels.api import add_at, clear_at, elements_of, put_at, step_at, take_at
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.cpu.flatten import PAST_CACHES_BYTES
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
def test_both_take_add_clear_and_put_alike(d, k, dtype):
    assert compiled.numba_available()
    vector, indices, values = _sampled(d, k, dtype)
    found, expected = take_at(vector, indices), reference_indexing.take_at(vector, indices)
    assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8))
    for mine, peer, given in (
        (add_at, reference_indexing.add_at, (values,)),
        (clear_at, reference_indexing.clear_at, ()),
        (put_at, reference_indexing.put_at, (values,)),
    ):
        made, right = vector.clone(), vector.clone()
        mine(made, indices, *given)
        peer(right, indices, *given)
        assert torch.equal(made.view(torch.uint8), right.view(torch.uint8))
        others = torch.ones(d, dtype=torch.bool)
        others[indices] = False
        assert torch.equal(made[others], torch.zeros_like(vector)[others] if mine is put_at else vector[others])


def test_a_strided_vector_is_changed_all_the_same():
    strided = torch.zeros(12)[::2]
    add_at(strided, torch.tensor([1, 5]), torch.tensor([2.0, 3.0]))
    assert strided.tolist() == [0, 2, 0, 0, 0, 3]
    assert take_at(strided, torch.tensor([1, 5])).tolist() == [2, 3]
    clear_at(strided, torch.tensor([5]))
    assert strided.tolist() == [0, 2, 0, 0, 0, 0]


@over_inputs("dtype", DTYPES[:2])
@over_inputs(("d", "k"), [(1, 0), (1, 1), (70, 9), (5000, 499)])
def test_the_elements_of_a_vector_are_what_was_put_there(d, k, dtype):
    _, indices, values = _sampled(d, k, dtype)
    values[::5] = -0.0
    values[1::5] = 1e-42
    vector = torch.empty(d, dtype=dtype)
    put_at(vector, indices, values)
    for find in (elements_of, reference_indexing.elements_of):
        found = find(vector, k)
        assert torch.equal(found[0], indices)
        assert torch.equal(found[1].view(torch.uint8), values.view(torch.uint8))
        assert k == 0 or find(vector, k - 1) is None


@over_inputs("dtype", DTYPES[:2])  # short floats may round otherwise in another place
def test_a_step_at_some_indices_is_that_of_sgd_along_what_is_zero_elsewhere(dtype):
    vector, indices, values = _sampled(5000, 499, dtype)
    expected = vector.clone()
    expected[indices] = vector[indices].add_(values, alpha=-0.1)
    given, others = ([part.clone() for part in vector.split([0, 3, 997, 0, 4000])] for _ in range(2))
    others[-1] = others[-1].view(80, 50).t().contiguous().t()  # not in rows
    versions = [tensor._version for tensor in given]
    for tensors in (given, others):
        step_at(tensors, indices, values, factor=-0.1)
        made = torch.cat([tensor.reshape(-1) for tensor in tensors])
        assert torch.equal(made.view(torch.uint8), expected.view(torch.uint8))
    assert all(tensor._version > before for tensor, before in zip(given, versions, strict=True))  # autograd is told


@over_inputs("dtype", DTYPES)
@over_inputs("start", [0, 1, 16])  # where a line of the caches begins, and elsewhere
def test_long_vectors_are_zero_but_for_the_values_that_are_put_there(start, dtype):
    d = PAST_CACHES_BYTES // 4 + 12_345
    indices = torch.tensor(sorted({0, 1, start, 4095, 4096, d - 65, d - 1, *range(70_000, 71_000)}))
    values = torch.arange(1, indices.numel() + 1).to(dtype)
    memory = torch.full((d + start + 1,), 7.0, dtype=dtype)
    put_at(memory[start:-1], indices, values)
    assert torch.equal(memory[start:-1], torch.zeros(d, dtype=dtype).index_copy(0, indices, values))
    assert memory[-1] == 7
    assert bool((memory[:start] == 7).all())
