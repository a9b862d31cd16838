"""Frames whose values are sent from where they are: processes and simulator end with the same bits.

A payload is long from 1 MiB on. Frames that are not long go in one message.
"""

import pytest
import torch

import laconic
from laconic.algorithms.asgd import ASGD
from laconic.algorithms.csgd import CSGD
from laconic.algorithms.csgd_ring import CSGDRing
from laconic.algorithms.dsgd import DSGD
from laconic.algorithms.lag import LAG
from laconic.algorithms.sgd import SGD
from laconic.algorithms.sgd_model import ModelAveraging
from laconic.algorithms.sgd_server import GlobalReplica
from laconic.algorithms.signsgd_mv import SignSGDMajorityVote
from laconic.algorithms.sparse import SparseSGD
from laconic.compressors import Quantized
from laconic.wire import LONG_BYTES
from support.deadlines import PATIENCE_S
from support.optimizer_tasks import bytes_sent
from support.ranks import run_ranks

D, N, ROUNDS = 600_001, 2, 4  # half of it is long, too; vectors are used again from the second round on
CASES = [
    (GlobalReplica(), "rank0"),
    (ASGD(), "dedicated"),
    (ASGD(lr_scaling="inverse"), "dedicated"),
    (ModelAveraging(), "rank0"),
    (ModelAveraging(), "allreduce"),
    (SGD(), "dedicated"),
    (SGD(), "sharded"),
    (LAG(warm_up_rounds=1, alpha=1e-9), "rank0"),
    (SparseSGD(density=0.01), "rank0"),
    (SparseSGD(density=0.01), "allgather"),
    (CSGDRing(), "auto"),
    (DSGD(), "auto"),
    (DSGD(mixing="difference"), "auto"),
]


OF_CODES = (
    2,
    1_200_001,
    [
        (CSGD(), "rank0"),
        (DSGD(mixing="difference", compressor=Quantized()), "auto"),
        (DSGD(mixing="choco", compressor=Quantized(bits=7)), "auto"),
        (DSGD(mixing="difference", compressor=Quantized(blocks="layer")), "auto"),
    ],
)  # codes that come in chunks
OF_THREE = 3, 800_001, [(CSGDRing(), "auto"), (DSGD(), "auto"), (GlobalReplica(), "rank0")]  # a third is long


def gradient(rank: int, round_: int, d: int) -> torch.Tensor:
    return torch.randn(d, generator=torch.Generator().manual_seed(10 * rank + round_))


def inner_of(weight: torch.nn.Parameter) -> torch.optim.Optimizer:
    return torch.optim.SGD([weight], lr=0.1, momentum=0.0 if weight.numel() == OF_CODES[1] else 0.5)


def train_in_process(rank: int, d: int, cases: list[tuple[laconic.Algorithm, str]]) -> list[torch.Tensor]:
    """The parameters that each case ends with."""
    ended = []
    for algorithm, layout in cases:
        weight = torch.nn.Parameter(torch.zeros(d))
        opt = laconic.DistributedOptimizer(
            inner_of(weight), algorithm, layout=layout, seed=5, timeout_s=PATIENCE_S, check_every=0
        )
        for round_ in range(ROUNDS):
            weight.grad = None if opt.serves_only else gradient(rank, round_, d)
            opt.step()
        ended.append(weight.detach().clone())
    return ended


def in_simulator(algorithm: laconic.Algorithm, layout: str, n: int, d: int) -> laconic.Simulation:
    weight = torch.nn.Parameter(torch.zeros(d))
    model = torch.nn.ParameterList([weight])
    workers = n - (layout == "dedicated")
    simulation = laconic.Simulation(model, inner_of(weight), algorithm, workers=workers, layout=layout, seed=5)
    for round_ in range(ROUNDS):
        simulation.step(lambda rank, round_=round_: weight @ gradient(rank, round_, d))
    return simulation


@pytest.mark.slow
def test_long_frames_give_the_bits_of_the_simulator():
    for n, d, cases in ((N, D, CASES), OF_THREE, OF_CODES):
        assert 4 * (d // n) >= LONG_BYTES
        by_rank = run_ranks(train_in_process, n, d, cases)
        for place, (algorithm, layout) in enumerate(cases):
            simulation = in_simulator(algorithm, layout, n, d)
            for rank in range(simulation.n_workers):
                same = torch.equal(by_rank[rank][place], simulation.parameters_of(rank))
                assert same, f"{algorithm.name}, {layout}, rank {rank} of {n}"


def messages_of_a_step(rank: int, d: int, algorithm: laconic.Algorithm, layout: str) -> int:
    """How many this rank sends in its third step."""
    weight = torch.nn.Parameter(torch.zeros(d))
    opt = laconic.DistributedOptimizer(
        torch.optim.SGD([weight], lr=0.1), algorithm, layout=layout, timeout_s=PATIENCE_S, check_every=0, lr="kept"
    )
    for round_ in range(2):
        weight.grad = gradient(rank, round_, d)
        opt.step()
    with bytes_sent() as count:
        opt.step()
    return count["messages"]


def test_signs_of_half_a_million_parameters_go_in_one_message():
    assert run_ranks(messages_of_a_step, 2, 500_000, SignSGDMajorityVote(), "rank0") == [1, 1]
