"""A vector that the workers of a round read once: what each would read, and no worker sees what another has changed."""

import torch

from laconic.kernels.api import gather_distance
from laconic.protocol.round_inputs import SharedVector
from laconic.training.vector_sources import VectorCopy

TENSORS = [torch.arange(6.0).view(2, 3), torch.full((5,), 0.1)]


def shared():
    return SharedVector(VectorCopy(TENSORS), lambda: torch.full((11,), torch.nan))


def test_workers_get_one_vector_with_the_sources_values():
    made = shared()
    assert made.vector() is made.vector()
    assert torch.equal(made.vector(), torch.cat([tensor.view(-1) for tensor in TENSORS]))


def test_a_distance_has_the_bits_of_one_pass_whether_the_vector_was_read_or_not():
    other, another, out = torch.linspace(0, 1, 11), torch.zeros(11), torch.empty(11)
    for reads_before in (False, True):
        made = shared()
        if reads_before:
            made.vector()
        for start in (other, other, another, other):
            vector, distance = made.vector_and_distance(start)
            assert vector is made.vector()
            assert distance == gather_distance(TENSORS, start, out)


def test_what_a_worker_changes_in_place_is_its_own():
    made, values = shared(), torch.cat([tensor.view(-1) for tensor in TENSORS])
    own = made.vector().zero_()
    assert torch.equal(made.vector(), values)
    assert made.vector_and_distance(own)[1] == gather_distance(TENSORS, own, torch.empty(11))
    assert not own.any()
