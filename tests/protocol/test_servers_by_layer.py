"""Servers share a method's vector where its blocks end: the same bits as one server of all, and less for each link."""

from dataclasses import replace

import pytest
import torch

import laconic
from laconic.algorithms.csgd import CSGD
from laconic.algorithms.dist_ef import DistEFBlockwise
from laconic.algorithms.ec_sgd import ECSGD
from laconic.compressors import QSGD, Natural, Quantized, ScaledSign, Ternary, TopK, common_bounds
from laconic.contract import ModelSpec
from laconic.errors import ContractError, OptionError
from laconic.protocol.frames import check_frame, check_own
from laconic.protocol.job import Job
from laconic.protocol.layout import choose_layout
from laconic.wire import Frame, Header
from support import small_model
from support.methods import LAYERS
from support.simulated_run import Run, quadratic

N = 4
SPEC = ModelSpec.of_sizes(*LAYERS)
METHODS = {
    "ec-sgd": ECSGD(),
    "ec-sgd, blocks of 5": ECSGD(compressor=ScaledSign(blocks="5"), server_compressor=ScaledSign(blocks="5")),
    "ec-sgd, blocks of 4 and 6": ECSGD(compressor=TopK(k=2, blocks="4"), server_compressor=QSGD(blocks="6")),
    "ec-sgd, layers and top-k": ECSGD(compressor=TopK(k=2), server_compressor=ScaledSign()),
    "ec-sgd, natural and layers": ECSGD(
        compressor=Natural(), server_compressor=Quantized(blocks="layer", entropy=True)
    ),
    "csgd": CSGD(compressor=Ternary(blocks="layer"), server_compressor=Quantized(blocks="layer")),
    "dist-ef": DistEFBlockwise(),
    "dist-ef, weight decay": DistEFBlockwise(weight_decay=0.1, blocks="7"),
}


def shares(algorithm, spec, n=N, **options):
    layout = choose_layout("sharded", algorithm, spec, n, **options)
    return [(shard.node, shard.offset, shard.stop) for shard in layout.shards]


def test_servers_that_share_layers_end_with_the_bits_of_one_server():
    for name, algorithm in METHODS.items():
        ends = {}
        for layout, frames in (("rank0", "encoded"), ("sharded", "encoded"), ("sharded", "sized")):
            problem = quadratic(n_workers=N)
            run = Run(algorithm, problem, lr=0.02, layers=LAYERS, layout=layout, frames=frames)
            path, state = run.path(4), run.state()
            traffic = [worker.meter.saved() for worker in run.sim.workers]
            ends[layout, frames] = path, state.residuals, state.server_residual, traffic
        assert ends["rank0", "encoded"][0].abs().max() > 0, name
        for place in range(3):
            assert torch.equal(ends["sharded", "encoded"][place], ends["rank0", "encoded"][place]), (name, place)
            assert torch.equal(ends["sharded", "sized"][place], ends["rank0", "encoded"][place]), (name, place)
        assert ends["sharded", "encoded"][3] == ends["sharded", "sized"][3], name


def test_a_share_ends_where_a_block_of_both_directions_does():
    for name, algorithm in METHODS.items():
        bounds = algorithm.server_bounds(SPEC)
        assert len(bounds) >= 1, name
        assert {start for _, start, _ in shares(algorithm, SPEC)} <= {0, *bounds}, name
    assert list(METHODS["ec-sgd, blocks of 4 and 6"].server_bounds(SPEC)) == [12, 24, 36]
    assert METHODS["ec-sgd"].server_bounds(ModelSpec.of_sizes(20, 0, 1, 16, 0)) == (20, 21)
    assert common_bounds(range(1, 10**12), range(5, 10**12, 5)) == range(5, 10**12, 5)
    assert common_bounds(range(5, 40, 5), (4, 10, 12, 35)) == (10, 35)


def test_shares_are_as_even_as_layers_that_are_not_split_can_be():
    assert shares(ECSGD(), ModelSpec.of_sizes(*[10] * 8)) == [(0, 0, 20), (1, 20, 40), (2, 40, 60), (3, 60, 80)]
    assert shares(ECSGD(), ModelSpec.of_sizes(100, 30)) == [(1, 0, 100), (3, 100, 130)]
    assert shares(ECSGD(), ModelSpec.of_sizes(5, 1, 5), n=1) == [(0, 0, 11)]
    offset = ModelSpec.of_sizes(7, 10, 10).part(7, 20)
    assert shares(ECSGD(), offset, n=2) == [(0, 7, 17), (1, 17, 27)]
    anywhere = shares(laconic.DropSign(), ModelSpec.of_sizes(10))
    assert anywhere == [(0, 0, 3), (1, 3, 6), (2, 6, 8), (3, 8, 10)]


def test_one_block_cannot_be_shared_but_one_slice_of_a_model_has_one_server():
    unsplit = ECSGD(compressor=ScaledSign(blocks="vector"))
    for algorithm, spec in ((unsplit, SPEC), (ECSGD(), ModelSpec.of_sizes(37)), (DistEFBlockwise(blocks="37"), SPEC)):
        with pytest.raises(OptionError, match=r"use rank0 or dedicated, or blocks that end within the 37 param"):
            choose_layout("sharded", algorithm, spec, N)
    with pytest.raises(OptionError, match=r"use rank0 or dedicated$"):
        choose_layout("sharded", laconic.SSGDMV(), SPEC, N)
    job = split_job(ECSGD())
    parts = job.sliced((0, 20, 37))
    assert [len(part.layout.shards) for part in parts] == [1, 2]


def split_job(algorithm):
    layout = choose_layout("sharded", algorithm, SPEC, N)
    return Job(algorithm=algorithm, seed=1, spec=SPEC, dtype=torch.float32, layout=layout)


def test_a_slice_with_other_blocks_than_the_layers_is_refused():
    job = split_job(ECSGD())
    (planned,) = job.exchanges_in(0)
    shard = job.layout.shards[-1]
    full = job.algorithm.compressor(torch.arange(37.0) - 18, spec=SPEC)
    part = full.part(shard.offset, shard.stop)
    header = Header(role="worker", rank=1, round=0, exchange=0)
    check_frame(Frame.carrying(header, part), job, "worker", 1, 0, 0, shard, planned=planned)
    check_own(part, job, planned, "server", shard.node, 0, (shard.offset, shard.count))
    for lengths in ((5, shard.count - 5), (1,) * shard.count):
        scales = torch.ones(len(lengths))
        wrong = replace(part, lengths=lengths, scales=scales)
        with pytest.raises(ContractError, match=r"sent scaled signs.*lengths="):
            check_frame(Frame.carrying(header, wrong), job, "worker", 1, 0, 0, shard, planned=planned)


@pytest.mark.parametrize("algorithm", [ECSGD(), DistEFBlockwise()], ids=["ec-sgd", "dist-ef"])
def test_a_job_of_several_servers_goes_on_with_the_bits_of_one_without_a_break(algorithm):
    def made(layout):
        net = small_model.net()
        inner = torch.optim.SGD(net.parameters(), lr=0.1)
        return laconic.Simulation(net, inner, algorithm, workers=N, layout=layout, seed=3)

    def train(simulation, rounds):
        for round_ in rounds:
            simulation.step(lambda rank, round_=round_: small_model.loss(simulation.model, rank, round_))

    plain, halted, resumed = made("rank0"), made("sharded"), made("sharded")
    train(plain, range(6))
    train(halted, range(3))
    resumed.model.load_state_dict(halted.model.state_dict())
    resumed.load_state_dict(halted.state_dict())
    train(resumed, range(3, 6))
    assert len(resumed.driver.layout.shards) > 1
    assert torch.equal(small_model.values(resumed.model), small_model.values(plain.model))
