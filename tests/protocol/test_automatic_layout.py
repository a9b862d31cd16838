"""Which layout "auto" is: two ranks with short vectors send to each other, where no server is needed for more."""

import pytest
import torch

import laconic
from laconic.contract import ModelSpec
from laconic.policies.skip_policies import SlowLink
from laconic.protocol.layout import choose_layout
from support.inputs import over_inputs
from support.methods import SAMPLES
from support.simulated_run import Run, quadratic

SHORT, LONG = ModelSpec.of_sizes(1 << 18, 1 << 18), ModelSpec.of_sizes(1 << 18, 1 << 18, 1)
SLOW = {"c": 4.0, "server_c": 4.0}


def automatic(algorithm, spec=SHORT, n_nodes=2, at_once=True):
    return choose_layout("auto", algorithm, spec, n_nodes, at_once=at_once).name


@pytest.mark.parametrize("name", ["signsgd-mv", "dropsign", "compskip", "sparse", "sasg", "lag"])
def test_two_ranks_with_short_vectors_send_their_packets_to_each_other(name):
    algorithm = laconic.ALGORITHMS[name]()
    assert automatic(algorithm) == "allgather"
    assert automatic(algorithm, LONG) == "sharded"
    assert automatic(algorithm, n_nodes=3) == "sharded"
    assert automatic(algorithm, at_once=False) == "sharded", "as in `laconic run`, and where some workers rest"
    assert automatic(algorithm, n_nodes=1) == "sharded"


def test_one_server_of_the_full_vector_stays_alone():
    for name in ("ec-sgd", "dist-ef", "csgd", "ssgd-mv", "ssgd-mv-rs", "ssgd-mv-ad", "ssgd-topk", "sparseloco"):
        assert automatic(laconic.ALGORITHMS[name]()) == "rank0", name
    assert automatic(laconic.ALGORITHMS["sgd-server"]()) == "rank0"
    assert automatic(laconic.CompSkip(**SLOW, server_skip=SlowLink())) == "rank0", "it measures its link"


def test_packets_that_add_up_go_through_the_all_reduce_and_graphs_have_peers():
    assert automatic(laconic.SGD()) == "allreduce"
    assert automatic(laconic.CSGDRing()) == "peers"
    assert automatic(laconic.ALGORITHMS["asgd"]()) == "dedicated"


SHORT_SAMPLES = [name for name, sample in SAMPLES.items() if automatic(sample, ModelSpec.of_sizes(37)) == "allgather"]


@over_inputs("name", SHORT_SAMPLES)
def test_no_bit_of_a_run_depends_on_who_answers(name):
    sample, problem = SAMPLES[name], quadratic(n_workers=2)
    chosen, sized, one = (
        Run(sample, problem, lr=0.02, layout=layout, frames=frames)
        for layout, frames in (("auto", "encoded"), ("auto", "sized"), ("rank0", "sized"))
    )
    assert (chosen.sim.layout.name, one.sim.layout.name) == ("allgather", "rank0")
    paths = [run.path(6) for run in (chosen, sized, one)]
    assert torch.equal(paths[0], paths[1])
    assert torch.equal(paths[0], paths[2])
    counts = [[worker.meter.saved() for worker in run.sim.workers] for run in (chosen, sized)]
    assert counts[0] == counts[1]
