"""What a worker's simulated round costs beyond its gradient, in calls: no load of the machine changes their number."""

import cProfile
import pstats

import pytest
import torch
from torch.nn.functional import cross_entropy

import laconic
from laconic.lab.algorithms import make_algorithm

N, ROUNDS = 7, 4


def calls_of(run):
    run()
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(ROUNDS):
        run()
    profile.disable()
    return pstats.Stats(profile).total_calls / ROUNDS / N


@pytest.mark.parametrize(("method", "maximum"), [("sgd", 92), ("compskip", 220), ("ssgd-mv", 400), ("csgd-ring", 1900)])
def test_a_round_makes_few_calls_beyond_its_gradients(method, maximum):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.Linear(20, 10))
    inputs, labels = torch.randn(N, 2, 30), torch.randint(10, (N, 2))
    inner = torch.optim.SGD(model.parameters(), lr=1e-3)
    simulation = laconic.Simulation(model, inner, make_algorithm(method, {}), workers=N, lr="kept")

    def loss_of(rank):
        return cross_entropy(model(inputs[rank]), labels[rank])

    def gradients():
        for rank in range(N):
            model.zero_grad()
            loss_of(rank).backward()

    simulation.step(loss_of)
    beyond = calls_of(lambda: simulation.step(loss_of)) - calls_of(gradients)
    assert beyond < maximum
