"""Rounds over slices of the vector give what rounds over the full vector give, or differ as `over_slices` says."""

import functools
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import laconic
from laconic import ALGORITHMS
from laconic.algorithms.csgd import CSGD
from laconic.algorithms.csgd_ring import CSGDRing
from laconic.algorithms.dist_ef import DistEFBlockwise
from laconic.algorithms.dsgd import DSGD
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.sparse import SparseSGD
from laconic.algorithms.ssgd_mv import SSGDMV
from laconic.algorithms.ssgd_mv_ad import SSGDMVAD
from laconic.algorithms.ssgd_mv_rs import SSGDMVRS
from laconic.algorithms.ssgd_topk import SSGDTopK
from laconic.buffer_pool import VectorPool
from laconic.compressors import QSGD, Quantized, ScaledSign, Sparsified, Ternary, TopK, block_lengths
from laconic.contract import ModelSpec, Scratch, Server
from laconic.drivers.simulated.rounds import Simulated
from laconic.protocol.round_inputs import Inputs
from support.jobs import job_of
from support.memories import memory_of
from support.methods import LAYERS, SAMPLES, layouts_of, with_test_settings
from support.simulated_run import quadratic

N, ROUNDS, LR, SEED = 4, 4, 0.05, 3
SPEC = ModelSpec.of_sizes(*LAYERS)
BOUNDS = {"one": (0, 37), "two": (0, 23, 37), "seven": (0, 1, 3, 9, 17, 21, 30, 37)}
over_bounds = pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)

DECENTRALIZED = {
    "dsgd": DSGD(),
    "dsgd, difference": DSGD(mixing="difference", compressor=Sparsified(), graph="full"),
    "csgd-ring": CSGDRing(compressor=Quantized()),
}
ALL = SAMPLES | DECENTRALIZED
EXACT = [name for name, sample in ALL.items() if sample.over_slices == "exact"]


def results_of(algorithm, specs, layout):
    """What each worker applies in each round, over models or slices of one model that follow each other."""
    problem = quadratic(n_workers=N)
    drivers = [
        Simulated(algorithm, spec=spec, n_workers=N, dtype=torch.float64, layout=layout, seed=SEED, frames="encoded")
        for spec in specs
    ]
    stops = torch.tensor([spec.d for spec in specs]).cumsum(0).tolist()
    x = problem.start.expand(N, -1).clone()
    found = []
    for t in range(ROUNDS):
        gradients = torch.stack([problem.gradient(rank, t, x[rank]) for rank in range(N)])
        vectors = gradients if algorithm.consumes == "gradient" else -LR * gradients
        parts = []
        for driver, (start, stop) in zip(drivers, pairwise([0, *stops]), strict=True):

            def inputs_of(rank, x=x[:, start:stop], vectors=vectors[:, start:stop]):
                return Inputs(vector=vectors[rank].clone(), parameters=x[rank].clone())

            outcome = driver.round(inputs_of, LR)
            parts.append(torch.stack([outcome.of(rank) for rank in range(N)]))
        applied = torch.cat(parts, 1)
        moved = {"direction": x - LR * applied, "change": x + applied, "parameters": applied}
        x = moved[algorithm.returns].clone()
        found.append(applied.clone())
    return torch.stack(found)


@functools.cache
def full_results_of(name, layout):
    return results_of(ALL[name], [SPEC], layout)


def slices_of(spec, bounds):
    return [spec.part(start, stop - start) for start, stop in pairwise(bounds)]


def test_which_methods_work_over_slices():
    claims = {name: with_test_settings(name).over_slices for name in ALGORITHMS}
    refused = {"asgd", "lag", "lasg", "sasg", "sgd-server"}
    exact = {"sgd", "sgd-model", "signsgd-mv", "dropsign", "compskip", "dsgd"}
    assert {name for name, claim in claims.items() if claim == "refused"} == refused
    assert exact <= {name for name, claim in claims.items() if claim == "exact"}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
@over_bounds
def test_exact_over_slices_means_to_the_bit(name, bounds):
    for layout in layouts_of(ALL[name], N):
        if layout != "dedicated":  # as rank0, with one node more
            full = full_results_of(name, layout)
            sliced = results_of(ALL[name], slices_of(SPEC, bounds), layout)
            # The engine's ring adds up in an order that depends on the vector's length.
            torch.testing.assert_close(sliced, full, rtol=1e-13 if layout == "allreduce" else 0, atol=0)
            assert full.count_nonzero() > full.numel() // 4


BY_BLOCKS = {
    "ec-sgd": (ECSGD(), "layer"),
    "ec-sgd, blocks of 5": (ECSGD(compressor=ScaledSign(blocks="5"), server_compressor=ScaledSign(blocks="5")), "5"),
    "ec-sgd, top-k": (ECSGD(compressor=TopK(k=2), server_compressor=TopK(k=3)), "layer"),
    "ec-sgd, top-k of blocks": (ECSGD(compressor=TopK(k=2, blocks="4"), server_compressor=TopK(k=3, blocks="4")), "4"),
    "csgd": (CSGD(), "vector"),
    "csgd, levels": (CSGD(compressor=Ternary(blocks="8"), server_compressor=QSGD(blocks="8")), "8"),
    "dist-ef": (DistEFBlockwise(blocks="vector"), "vector"),
    "dist-ef, layers": (DistEFBlockwise(), "layer"),
    "sparse": (SparseSGD(k=2), "layer"),
    "sparse, of blocks": (SparseSGD(k=2, blocks="4"), "4"),
}


def with_layers(algorithm):
    """The same method with blocks that are the layers."""
    if hasattr(algorithm, "blocks"):
        return replace(algorithm, blocks="layer")
    compressors = {name: getattr(algorithm, name) for name in ("compressor", "server_compressor")}
    return replace(algorithm, **{name: replace(one, blocks="layer") for name, one in compressors.items()})


@pytest.mark.parametrize("name", BY_BLOCKS)
@over_bounds
@pytest.mark.slow
def test_blocks_over_slices_end_where_a_slice_does(name, bounds):
    algorithm, blocks = BY_BLOCKS[name]
    assert algorithm.over_slices == ("layers" if blocks == "layer" and isinstance(algorithm, ECSGD) else "blocks")
    parts = slices_of(SPEC, bounds)
    lengths = [length for part in parts for length in block_lengths(blocks, part.d, part)]
    full = results_of(with_layers(algorithm), [ModelSpec.of_sizes(*lengths)], "rank0")
    assert torch.equal(results_of(algorithm, parts, "rank0"), full)


@pytest.mark.parametrize(
    "algorithm",
    [SSGDTopK(density=0.3), SSGDTopK(k=1, bits=3), SSGDMV(k=1, ties="index"), SSGDMVAD(k=1, ties="index")],
    ids=repr,
)
@over_bounds
def test_selections_over_slices_are_those_of_a_model_that_is_the_slice(algorithm, bounds):
    if algorithm.k is None:
        bounds = tuple(bound for bound in bounds if bound % 37 == 0 or 37 - bound > 4 < bound)  # at least one of each
    parts = slices_of(SPEC, bounds)
    alone = [ModelSpec.of_sizes(part.d) for part in parts]
    assert algorithm.over_slices == "blocks"
    assert torch.equal(results_of(algorithm, parts, "rank0"), results_of(algorithm, alone, "rank0"))


@pytest.mark.parametrize("algorithm", [SSGDMV(k=3), SSGDMVRS(k=3)], ids=repr)
def test_random_selections_depend_on_the_coordinate_and_not_on_the_slice(algorithm):
    voted, votes = torch.arange(8, 14), torch.ones(6, dtype=torch.int64)
    full = ModelSpec.of_sizes(20)
    masks = []
    for spec in (full, full.part(8, 6)):
        scratch = Scratch(VectorPool(spec.d, torch.float64))
        server = Server(rank=0, n_workers=N, spec=spec, seed=SEED, memory=memory_of(spec.d), scratch=scratch)
        masks.append(algorithm.mask(server, voted - spec.offset, votes) + spec.offset)
    assert torch.equal(*masks)
    assert masks[0].tolist() != [8, 9, 10]


@over_bounds
def test_a_ring_over_slices_adds_in_another_order(bounds):
    ring = CSGDRing()
    assert ring.over_slices == "blocks"
    sliced, full = results_of(ring, slices_of(SPEC, bounds), "peers"), results_of(ring, [SPEC], "peers")
    torch.testing.assert_close(sliced, full, rtol=1e-12, atol=1e-14)


def test_a_job_is_split_into_jobs_whose_servers_have_a_share_of_each_slice():
    jobs = job_of(laconic.DropSign(), SPEC).sliced((0, 23, 37))
    assert [(job.spec.offset, job.d) for job in jobs] == [(0, 23), (23, 14)]
    shards = [(shard.node, shard.offset, shard.stop) for job in jobs for shard in job.layout.shards]
    assert shards == [
        (0, 0, 6), (1, 6, 12), (2, 12, 18), (3, 18, 23), (0, 23, 27), (1, 27, 31), (2, 31, 34), (3, 34, 37)
    ]  # fmt: skip


BY_LAYER = [
    ECSGD(compressor=ScaledSign(blocks="layer"), server_compressor=ScaledSign(blocks="layer")),
    ECSGD(compressor=TopK(k=2, blocks="layer"), server_compressor=ScaledSign(blocks="layer")),
    CSGD(compressor=Quantized(blocks="layer"), server_compressor=QSGD(blocks="layer")),
]


@pytest.mark.parametrize("algorithm", BY_LAYER, ids=repr)
def test_blocks_that_are_layers_are_exact_over_slices_of_full_layers(algorithm):
    ends = [0, *torch.tensor(LAYERS).cumsum(0).tolist()]
    assert algorithm.over_slices == "layers"
    assert replace(algorithm, compressor=Quantized(blocks="vector")).over_slices == "blocks"
    full = results_of(algorithm, [SPEC], "rank0")
    for bounds in (ends, [0, *ends[2:]], [*ends[:1], *ends[-2:]]):
        assert torch.equal(results_of(algorithm, slices_of(SPEC, bounds), "rank0"), full), bounds


@pytest.mark.parametrize("bounds", [(), (0,), (0, 36), (1, 37), (0, 20, 20, 37), (0, 38, 37)])
def test_bounds_that_do_not_cover_the_vector_are_refused(bounds):
    with pytest.raises(ValueError, match="must ascend from 0 to 37"):
        job_of(laconic.SGD(), SPEC).sliced(bounds)


def test_a_method_that_looks_at_the_full_vector_is_refused_slices():
    job = job_of(laconic.LASG(), SPEC)
    assert job.sliced((0, 37))[0].spec is SPEC
    with pytest.raises(ValueError, match="lasg looks at the full vector"):
        job.sliced((0, 20, 37))


def test_a_slice_with_no_element_to_send_is_refused():
    with pytest.raises(ValueError, match=r"density=0.1 of d=5 is no element"):
        job_of(SSGDTopK(density=0.1), SPEC).sliced((0, 32, 37))
