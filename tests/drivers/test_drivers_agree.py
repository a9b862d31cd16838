"""One algorithm file, two drivers: every bit of the parameters and every byte of the traffic must be the same."""

import dataclasses
import functools

import pytest
import torch

import laconic
from laconic.protocol.ring_allreduce import ring_parts
from laconic.training.replica_check import hash_of
from support import methods, optimizers, small_model
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share

N = 4
CHECK_EVERY = 10

CASES = methods.in_step_with_layouts(N) + methods.BY_LAYER


def rounds_of(name: str, is_night: bool) -> int:
    """Those of a day are enough for a check of replicas, and where it takes 20 until every rank has skipped."""
    if is_night:
        return 50
    return 24 if hasattr(laconic.ALGORITHMS[name], "max_delay") else 12


def halving(opt: torch.optim.Optimizer, rounds: int) -> torch.optim.lr_scheduler.StepLR:
    """Two cuts of the learning rate."""
    return torch.optim.lr_scheduler.StepLR(opt, step_size=2 * rounds // 5, gamma=0.5)


def train_in_process(rank: int, cases: dict[tuple[str, str], int]) -> list[tuple[torch.Tensor, dict]]:
    """`cases` says how many rounds each has."""
    results = []
    for (name, layout), rounds in cases.items():
        net = small_model.net()
        algorithm = methods.with_test_settings(name)
        inner = torch.optim.SGD(net.parameters(), lr=algorithm.test_lr, momentum=0.5)
        opt = laconic.DistributedOptimizer(
            inner, algorithm, model=net, layout=layout, seed=5, check_every=CHECK_EVERY, timeout_s=PATIENCE_S
        )
        scheduler = halving(opt, rounds)
        for round_ in range(rounds):
            optimizers.one_step(opt, net, rank, round_)
            scheduler.step()
        results.append((small_model.values(net), opt.traffic.as_data()))
    return results


def train_in_simulator(name: str, layout: str, rounds: int) -> tuple[torch.Tensor, laconic.Simulation]:
    net = small_model.net()
    algorithm = methods.with_test_settings(name)
    inner = torch.optim.SGD(net.parameters(), lr=algorithm.test_lr, momentum=0.5)
    workers = N - (layout == "dedicated")
    simulation = laconic.Simulation(net, inner, algorithm, workers=workers, layout=layout, seed=5)
    scheduler = halving(inner, rounds)
    for round_ in range(rounds):
        simulation.step(lambda rank, round_=round_: small_model.loss(net, rank, round_))
        scheduler.step()
    return small_model.values(net), simulation


@pytest.fixture(scope="module")
def from_processes():
    """What each rank ended with, by case, after the rounds of a day or of a night."""

    @functools.cache
    def after(is_night: bool) -> dict[tuple[str, str], list[tuple[torch.Tensor, dict]]]:
        by_rank = run_ranks(train_in_process, N, {case: rounds_of(case[0], is_night) for case in CASES})
        return {case: [peer[place] for peer in by_rank] for place, case in enumerate(CASES)}

    return after


@pytest.mark.slow
@pytest.mark.parametrize("is_night", [False, pytest.param(True, marks=pytest.mark.nightly)], ids=["day", "night"])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_four_processes_and_the_simulator_end_with_the_same_bits_and_bytes(case, is_night, from_processes):
    name, layout = case
    rounds = rounds_of(name, is_night)
    torch.set_num_threads(1)
    expected, simulation = train_in_simulator(name, layout, rounds)
    assert torch.isfinite(expected).all()
    assert not torch.equal(expected, small_model.values(small_model.net()))
    for rank in range(simulation.n_workers):
        parameters, traffic = from_processes(is_night)[case][rank]
        assert torch.equal(parameters, simulation.parameters_of(rank)), f"rank {rank} differs"
        mine = simulation.traffic_of(rank)
        assert traffic["up"] == dataclasses.asdict(mine.up)
        assert traffic["down"] == dataclasses.asdict(mine.down)
        assert traffic["served"] == dataclasses.asdict(mine.served)
        assert traffic["up_by_exchange"] == {
            name: dataclasses.asdict(count) for name, count in mine.up_by_exchange.items()
        }
        assert traffic["rounds"] == rounds


LARGE = 1_100_003  # float32: the engine adds it up in two parts


def large_gradient(rank: int) -> torch.Tensor:
    return torch.randn(LARGE, generator=torch.Generator().manual_seed(rank))


BAD_VALUES = (0, LARGE // 2 - 1, LARGE // 2, LARGE - 1)  # at the ends of both parts


def step_a_large_model(rank: int) -> tuple[str, list[int]]:
    """The hash after a step, and the number of aborted rounds after each round in which rank 1 has one bad value."""
    weight = torch.nn.Parameter(torch.zeros(LARGE))
    opt = laconic.DistributedOptimizer(torch.optim.SGD([weight], lr=1.0), laconic.SGD(), timeout_s=PATIENCE_S)
    weight.grad = large_gradient(rank)
    opt.step()
    after, aborts = hash_of(weight.detach()), []
    for element in BAD_VALUES:
        weight.grad = large_gradient(rank)
        if rank == 1:
            weight.grad[element] = torch.inf
        opt.step()
        aborts.append(opt.traffic.aborted_rounds)
        assert hash_of(weight.detach()) == after
    return after, aborts


@pytest.mark.slow
def test_a_sum_in_two_parts_has_the_same_bits_as_the_simulator_s_and_one_bad_value_aborts_it():
    n = 3
    weight = torch.nn.Parameter(torch.zeros(LARGE))
    simulation = laconic.Simulation(
        torch.nn.ParameterList([weight]), torch.optim.SGD([weight], lr=1.0), laconic.SGD(), workers=n
    )
    simulation.step(lambda rank: weight @ large_gradient(rank))
    assert len(ring_parts(LARGE, 4)) == 2
    ended = run_ranks(step_a_large_model, n)
    assert [after for after, _ in ended] == [hash_of(weight.detach())] * n
    assert [aborts for _, aborts in ended] == [
        [1, 2, 3, 4]
    ] * n  # one bad value, at any index, aborts the round for all
