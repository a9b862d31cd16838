"""Answers of several servers that become the gradient where they are: no vector is put together, with the same bits."""

import pytest
import torch

import laconic
from laconic.algorithms.lag import LAG
from laconic.algorithms.lasg import LASG
from laconic.contract import InParts
from laconic.wire import Dense
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

SHAPES = [(400_001,), (300, 1000), (500_003,)]  # a server's slice ends within one
N, ROUNDS = 3, 12
CASES = [
    LAG(warm_up_rounds=2, max_delay=4),
    LAG(warm_up_rounds=2, max_delay=4, lr_convention="sum"),
    LASG(rule="ps", smoothness=0.3, warm_up_rounds=1, max_delay=4),
]


def gradients(rank, round_):
    """They change in some rounds only, so that workers skip."""
    random = torch.Generator().manual_seed(100 * rank + round_ // (1 + rank))
    return [torch.randn(shape, generator=random) for shape in SHAPES]


def parameters():
    return [torch.nn.Parameter(torch.zeros(shape)) for shape in SHAPES]


def inner_of(given):
    return torch.optim.SGD(given, lr=0.05)


def train(rank, in_place):
    """Parameters and gradients that each case ends with, and how many memories the gradients lie in."""
    ended = []
    for algorithm in CASES:
        mine = parameters()
        opt = laconic.DistributedOptimizer(inner_of(mine), algorithm, seed=5, timeout_s=PATIENCE_S, check_every=0)
        for round_ in range(ROUNDS):
            for parameter, gradient in zip(mine, gradients(rank, round_), strict=True):
                if in_place and parameter.grad is not None:
                    parameter.grad.zero_().add_(gradient)  # as zero_grad(set_to_none=False) and a backward
                else:
                    parameter.grad = gradient
            opt.step(*([lambda: 0.0] if algorithm.second_gradient else []))
        n_memories = len({parameter.grad.untyped_storage().data_ptr() for parameter in mine})
        ended.append((*(flat(each) for each in (mine, [parameter.grad for parameter in mine])), n_memories))
    return ended


def flat(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def simulated(algorithm):
    model = torch.nn.ParameterList(parameters())
    simulation = laconic.Simulation(model, inner_of(model.parameters()), algorithm, workers=N, seed=5)
    for round_ in range(ROUNDS):
        simulation.step(lambda rank, round_=round_: sum(map(product, model, gradients(rank, round_))))
    return simulation


def product(parameter, gradient):
    return (parameter * gradient).sum()


@pytest.mark.slow
@pytest.mark.parametrize("in_place", [False, True], ids=["new gradients", "gradients written over directions"])
def test_gradients_that_are_views_of_answers_have_the_bits_of_a_vector(in_place):
    by_rank = run_ranks(train, N, in_place)
    for place, algorithm in enumerate(CASES):
        simulation = simulated(algorithm)
        for rank in range(N):
            values, directions, n_memories = by_rank[rank][place]
            assert torch.equal(values, simulation.parameters_of(rank)), f"{algorithm}, rank {rank}"
            assert torch.equal(directions, flat([each.grad for each in simulation.flat.parameters])), f"{algorithm}"
            assert n_memories == len(SHAPES), "a vector was put together"


@pytest.mark.parametrize("sizes", [(4, 3, 3), (2, 2, 1, 5), (10,), (1,) * 10, (0, 4, 0, 6), (3, 4, 3)])
def test_an_answer_is_split_into_views_and_a_copy_where_a_part_ends_within(sizes):
    values = torch.arange(10.0)
    parts = tuple(Dense(values=values[start:stop], offset=start) for start, stop in ((0, 4), (4, 7), (7, 10)))
    split = InParts(parts=parts, count=10).split(sizes)
    assert [len(each) for each in split] == list(sizes)
    assert torch.equal(torch.cat(split), values)
    start = 0
    for each in split:
        ends_within = any(start < bound < start + len(each) for bound in (4, 7))
        is_view = each.untyped_storage().data_ptr() == values.untyped_storage().data_ptr()
        assert is_view != ends_within
        start += len(each)
