"""The plain twins of the LLVM kernels: each gives what its kernel gives, and is in its place while it is measured."""

import pytest
import torch

from laconic.bench.measure import vector_of
from laconic.bench.twins import CALLS, call_of
from laconic.kernels.api import twin_in_place
from laconic.kernels.cpu import mask_streams, signs
from laconic.kernels.twins.table import TWINS
from support.inputs import over_inputs

D = 70_013  # more than a chunk, and elements behind the last group
TOLERANCES = {  # of sums that are added in another order
    "level_sums": 2.0**-20,
    "residuals.correct_run": 2.0**-22,
    "scaled_answers.mean_run": 2.0**-22,
}


def results_of(made: object) -> list[torch.Tensor]:
    if isinstance(made, torch.Tensor):
        return [made.clone()]
    if isinstance(made, tuple | list):
        return [tensor for each in made for tensor in results_of(each)]
    return [] if made is None else [torch.tensor(float(made))]


def agree(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    if not tolerance or not one.is_floating_point():
        return torch.equal(one, other)
    return torch.allclose(one, other, rtol=tolerance, atol=0)


@pytest.mark.nightly
@over_inputs(("name", "what"), CALLS)
def test_every_twin_gives_the_results_of_its_kernel(name, what):
    vector = vector_of(D)
    expected = results_of(call_of(what, vector)())
    call = call_of(what, vector)
    with twin_in_place(name):
        made = results_of(call())
    assert len(made) == len(expected) > 0
    assert all(agree(one, other, TOLERANCES.get(name, 0.0)) for one, other in zip(made, expected, strict=True))


def test_every_twin_is_measured():
    assert TWINS.keys() == {name for name, _ in CALLS}


def test_a_twin_is_called_while_it_is_in_place_and_not_afterwards():
    before = signs.pack
    assert before is mask_streams.pack
    with twin_in_place("vectors.selected"):
        assert signs.pack is mask_streams.pack is not before
    assert signs.pack is mask_streams.pack is before
