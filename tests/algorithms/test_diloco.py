"""DiLoCo: the mean of the workers' changes, and a step of Nesterov momentum along it."""

import pytest
import torch

import laconic
from laconic.algorithms.diloco import DiLoCo
from support import small_model
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks
from support.simulated_run import assert_same

N, H, ROUNDS = 3, 4, 5
LAYOUTS = ("allreduce", "rank0", "sharded")
INNERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
}
each_inner = pytest.mark.parametrize("inner", INNERS)


def simulated(algorithm, inner, dtype=torch.float64, layout="auto"):
    """The parameters after each round, (ROUNDS, d)."""
    net = small_model.net().to(dtype)
    simulation = laconic.Simulation(
        net, INNERS[inner](net.parameters()), algorithm, workers=N, layout=layout, local_steps=H
    )
    points = []
    for step in range(H * ROUNDS):
        simulation.step(lambda rank, step=step: small_model.loss(net, rank, step))
        if step % H == H - 1:
            points.append(small_model.values(net))
    return torch.stack(points)


def by_hand(inner, outer_lr, outer_momentum):
    """The same with torch's own SGD as the outer optimizer, over replicas that keep their inner optimizers."""
    model = small_model.net().double()
    outer = torch.optim.SGD(model.parameters(), lr=outer_lr, momentum=outer_momentum, nesterov=outer_momentum > 0)
    replicas = [small_model.net().double() for _ in range(N)]
    inners = [INNERS[inner](replica.parameters()) for replica in replicas]
    points = []
    for round_ in range(ROUNDS):
        for rank, (replica, optimizer) in enumerate(zip(replicas, inners, strict=True)):
            with torch.no_grad():
                for own, shared in zip(replica.parameters(), model.parameters(), strict=True):
                    own.copy_(shared)
            for step in range(H * round_, H * round_ + H):
                optimizer.zero_grad()
                small_model.loss(replica, rank, step).backward()
                optimizer.step()
        for place, shared in enumerate(model.parameters()):
            ends = torch.stack([list(replica.parameters())[place].detach() for replica in replicas])
            shared.grad = shared.detach() - ends.mean(0)  # the outer gradient
        outer.step()
        points.append(small_model.values(model))
    return torch.stack(points)


@pytest.mark.slow
@each_inner
@pytest.mark.parametrize(("outer_lr", "outer_momentum"), [(0.7, 0.9), (0.4, 0.0), (1.0, 0.0)])
def test_it_is_torchs_nesterov_over_replicas_that_keep_their_inner_optimizers(inner, outer_lr, outer_momentum):
    expected = by_hand(inner, outer_lr, outer_momentum)
    for layout in LAYOUTS:
        found = simulated(DiLoCo(outer_lr=outer_lr, outer_momentum=outer_momentum), inner, layout=layout)
        assert_same(found, expected)


PLAIN_MEAN = DiLoCo(outer_lr=1.0, outer_momentum=0.0)


@pytest.mark.slow
@each_inner
def test_without_momentum_and_at_an_outer_learning_rate_of_1_it_is_local_sgd_with_averaging(inner):
    for dtype, to in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        for layout in LAYOUTS:
            averaged = simulated(laconic.ModelAveraging(), inner, dtype, layout)
            assert_same(simulated(PLAIN_MEAN, inner, dtype, layout), averaged, to=to)


def in_process(rank, inner, layout):
    """The parameters at the end, by DiLoCo at an outer learning rate of 1 without momentum, and by averaging."""
    ends = []
    for algorithm in (PLAIN_MEAN, laconic.ModelAveraging(), DiLoCo()):
        net = small_model.net()
        opt = laconic.DistributedOptimizer(
            INNERS[inner](net.parameters()), algorithm, model=net, layout=layout, local_steps=H, timeout_s=PATIENCE_S
        )
        for step in range(H * ROUNDS):
            opt.zero_grad()
            small_model.loss(net, rank, step).backward()
            opt.step()
        ends.append(small_model.values(net))
    return ends


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout", [each if each == "rank0" else pytest.param(each, marks=pytest.mark.nightly) for each in LAYOUTS]
)
def test_in_processes_it_is_local_sgd_with_averaging_too_and_equals_the_simulator(layout):
    by_rank = run_ranks(in_process, N, "adamw", layout)
    expected = simulated(DiLoCo(), "adamw", torch.float32, layout)[-1]
    for plain_mean, averaged, ended in by_rank:
        assert_same(plain_mean, averaged, to=1e-6)
        assert torch.equal(ended, expected)
