"""`sparse` and `sasg`: the sparse answer moves the parameters by the same bits as the dense one, in fewer bytes."""

import copy
from dataclasses import replace

import pytest
import torch

import laconic
from laconic.algorithms.sasg import SASG
from laconic.algorithms.sparse import SparseSGD
from support import optimizers, small_model
from support.deadlines import PATIENCE_S
from support.inputs import over_inputs
from support.ranks import run_ranks
from support.simulated_run import LossyRun, Run, quadratic, wavy

LAYERS = (20, 1, 16)
LAZY = {"density": 0.1, "alpha": 0.3, "warm_up_rounds": 1, "max_delay": 3}
METHODS = [
    SparseSGD(density=0.1),
    SparseSGD(k=1, blocks="vector", code="rice"),
    SASG(**LAZY),
    SASG(lr_convention="sum", **LAZY),
]


def with_pauses(t: int) -> float:
    """A learning rate that changes, and is 0 in some rounds."""
    return 0.0 if t % 7 == 5 else wavy(t)


def sparsely(algorithm):
    return replace(algorithm, answer="sparse")


def received(run: Run) -> int:
    return sum(
        worker.meter.counts["down"].wire_bytes + worker.meter.counts["down"].local_bytes for worker in run.sim.workers
    )


@over_inputs("layout", ["rank0", "sharded", "allgather"])
@over_inputs("algorithm", METHODS)
def test_in_the_simulator_both_answers_give_the_same_bits_and_the_sparse_one_fewer_bytes(algorithm, layout):
    problem = quadratic(n_workers=2)
    densely, sparse = (
        Run(each, problem, lr=with_pauses, layout=layout, layers=LAYERS, dtype=torch.float32, frames="encoded")
        for each in (algorithm, sparsely(algorithm))
    )
    for one, other in zip(densely.states(16), sparse.states(16), strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.residuals, other.residuals)
    assert one.x.any()
    if layout != "allgather":  # there nobody answers
        assert received(sparse) < received(densely)


@over_inputs("algorithm", METHODS)
def test_also_where_packets_are_lost(algorithm):
    def lost(t):
        return [{1}, set(), {0, 2}, {0, 1, 2}][t % 4]

    densely, sparse = (
        LossyRun(each, quadratic(n_workers=3), lost, lr=wavy, layers=LAYERS)
        for each in (algorithm, sparsely(algorithm))
    )
    for one, other in zip(densely.states(12), sparse.states(12), strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.residuals, other.residuals)


ROUNDS, SAVED_AFTER = 10, 6


def optimizer_of(net, algorithm):
    inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
    return laconic.DistributedOptimizer(inner, algorithm, model=net, layout="rank0", seed=5, timeout_s=PATIENCE_S)


def train_and_resume(rank: int, algorithms) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    """By algorithm, the parameters at the end, those of a run that went on from a saved state, and received bytes."""
    ended = []
    for algorithm in algorithms:
        net, again = small_model.net(), small_model.net()
        opt = optimizer_of(net, algorithm)
        for round_ in range(ROUNDS):
            if round_ == SAVED_AFTER:
                again.load_state_dict({name: value.clone() for name, value in net.state_dict().items()})
                opt.gather_state()
                state = copy.deepcopy(opt.state_dict())
            optimizers.one_step(opt, net, rank, round_)
        resumed = optimizer_of(again, algorithm)
        resumed.load_state_dict(state)
        for round_ in range(SAVED_AFTER, ROUNDS):
            optimizers.one_step(resumed, again, rank, round_)
        ended.append((small_model.values(net), small_model.values(again), opt.total_traffic().down.wire_bytes))
    return ended


@pytest.mark.slow
def test_over_processes_too_as_in_the_simulator_and_after_a_restart():
    algorithms = [each for algorithm in (METHODS[0], METHODS[2]) for each in (algorithm, sparsely(algorithm))]
    by_rank = run_ranks(train_and_resume, 2, algorithms)
    for place in range(0, len(algorithms), 2):
        net = small_model.net()
        inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
        simulation = laconic.Simulation(net, inner, algorithms[place + 1], workers=2, layout="rank0", seed=5)
        for round_ in range(ROUNDS):
            simulation.step(lambda rank, net=net, round_=round_: small_model.loss(net, rank, round_))
        for ended in by_rank:
            (dense, resumed, dense_bytes), (values, resumed_too, n_bytes) = ended[place : place + 2]
            assert torch.equal(dense, values)
            assert torch.equal(dense, resumed)
            assert torch.equal(values, resumed_too)
            assert torch.equal(values, small_model.values(net))
            assert n_bytes == simulation.traffic.down.wire_bytes < dense_bytes
