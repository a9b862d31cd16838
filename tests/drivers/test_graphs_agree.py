"""Methods without a server end with the same bits in the simulator and in real processes, on every graph."""

import dataclasses

import pytest
import torch

import laconic
from laconic.algorithms.csgd_ring import CSGDRing
from laconic.algorithms.dsgd import DSGD
from laconic.compressors import DenseValues, ScaledSign, TopK
from laconic.gossip.graphs import GRAPHS
from support import optimizers, small_model
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

ROUNDS = 8  # more than any graph has turns
ODD = "0-1 1-2 2-3 3-4 4-0 0-2"


def cases(n):
    """The algorithms that n workers can run."""
    graphs = [graph for graph in GRAPHS if n == 8 or graph not in ("torus", "shift-one")] + [ODD] * (n == 5)
    return [
        *(DSGD(graph=graph) for graph in graphs),
        DSGD(mixing="choco", compressor=TopK(density=0.3), consensus_step_size=0.4),
        DSGD(mixing="difference", compressor=DenseValues(value_type="bfloat16")),
        *(CSGDRing(partitioned=partitioned, compressor=ScaledSign(blocks="vector")) for partitioned in (True, False)),
    ]


def inner_of(net):
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)


def train_in_process(rank, algorithms):
    results = []
    for algorithm in algorithms:
        net = small_model.net()
        opt = laconic.DistributedOptimizer(inner_of(net), algorithm, model=net, seed=5, timeout_s=PATIENCE_S)
        for round_ in range(ROUNDS):
            optimizers.one_step(opt, net, rank, round_)
        results.append((small_model.values(net), opt.traffic.as_data()))
    return results


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, pytest.param(8, marks=pytest.mark.nightly)])
def test_on_every_graph_processes_and_simulator_end_with_the_same_bits_and_bytes(n):
    algorithms = cases(n)
    by_rank = run_ranks(train_in_process, n, algorithms)
    torch.set_num_threads(1)
    for place, algorithm in enumerate(algorithms):
        net = small_model.net()
        simulation = laconic.Simulation(net, inner_of(net), algorithm, workers=n, seed=5)
        for round_ in range(ROUNDS):
            simulation.step(lambda rank, round_=round_, net=net: small_model.loss(net, rank, round_))
        for rank in range(n):
            parameters, traffic = by_rank[rank][place]
            assert torch.equal(parameters, simulation.parameters_of(rank)), (algorithm, rank)
            assert traffic["up"] == dataclasses.asdict(simulation.traffic_of(rank).up)
            assert traffic["down"] == dataclasses.asdict(simulation.traffic_of(rank).down)
