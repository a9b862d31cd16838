"""Replicas of an attached model are compared as those of an optimizer, and messages name what the user called."""

import logging

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

import laconic
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

pytestmark = pytest.mark.slow


def model_of(*layers, **options):
    torch.manual_seed(0)
    return DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(3, 4), *layers), **options)


def train(ddp, optimizer, rank, n_steps):
    for step in range(n_steps):
        torch.manual_seed(10 * step + rank)
        optimizer.zero_grad()
        ddp(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()


def through_a_change(rank, change, method, **options):
    """What follows after rank 1 has changed a parameter between two steps."""
    ddp = model_of()
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
    if isinstance(method, laconic.DistEFBlockwise):
        options["optimizer"] = optimizer
    handle = laconic.ddp.attach(ddp, method, **options)
    train(ddp, optimizer, rank, 2)
    with torch.no_grad():
        ddp.module[0].weight[0, 0] *= 1 + rank * change
    error = ""
    try:
        train(ddp, optimizer, rank, 3)
    except laconic.ReplicaError as found:
        error = str(found)
    values = ddp.module[0].weight.detach().clone()
    syncs = handle.traffic.replica_syncs
    handle.detach()
    return error, values, syncs


def closed_and_refused(rank):
    ddp = model_of()
    with pytest.raises((laconic.SetupError, TypeError)) as refused:
        laconic.ddp.attach(ddp, laconic.SGD(), seed="a" if rank else 0, timeout_s=PATIENCE_S)
    with pytest.raises(laconic.SetupError) as differ:
        laconic.ddp.attach(ddp, laconic.SGD(), check_every=5 + rank, timeout_s=PATIENCE_S)
    handle = laconic.ddp.attach(ddp, laconic.SGD())
    handle.detach()
    with pytest.raises(laconic.errors.ClosedError) as closed:
        handle.total_traffic()
    return [str(each.value) for each in (refused, differ, closed)]


def buffers_shared(rank):
    """Statistics of batch norm after training and after they were shared, and what was stated."""
    records = []
    listener = logging.Handler()
    listener.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("laconic").addHandler(listener)
    found = []
    for method in (laconic.SGD(), laconic.DistEFBlockwise()):
        ddp = model_of(torch.nn.BatchNorm1d(4), broadcast_buffers=False)
        optimizer = torch.optim.SGD(ddp.parameters(), lr=0.1)
        handle = laconic.ddp.attach(ddp, method, optimizer=optimizer)
        train(ddp, optimizer, rank, 2)
        statistics = ddp.module[1].running_mean
        own = statistics.clone()
        handle.share_buffers("average")
        found.append((own, statistics.clone()))
        handle.detach()
    return found, [text for text in records if "share_buffers" in text]


def everything(rank):
    found = {}
    for name, change, method, options in (
        ("changed", 0.5, laconic.ECSGD(), {"check_every": 4}),
        ("changed in the step", 0.5, laconic.DistEFBlockwise(), {"check_every": 4}),
        ("rounded", 3e-7, laconic.SGD(), {"check_every": 4}),
        ("rounded, to stop", 3e-7, laconic.SGD(), {"check_every": 4, "replicas": "stop"}),
        ("never compared", 0.5, laconic.SGD(), {"check_every": 0}),
    ):
        found[name] = through_a_change(rank, change, method, **options)
    return {**found, "texts": closed_and_refused(rank), "buffers": buffers_shared(rank)}


@pytest.fixture(scope="module")
def ranks():
    """What both ranks found; all runs are in one pair of ranks."""
    return run_ranks(everything, 2)


def test_a_parameter_that_one_rank_has_changed_ends_training_at_the_next_check_on_all_ranks(ranks):
    for found in ranks:
        for name in ("changed", "changed in the step"):
            assert "the parameters of rank 1 differ from rank 0's" in found[name][0]


def test_replicas_that_differ_by_rounding_are_put_right_or_stop_as_asked(ranks):
    one, other = (found["rounded"] for found in ranks)
    assert one[0] == other[0] == ""
    assert torch.equal(one[1], other[1])
    assert one[2] == other[2] == 1
    assert all("differ" in found["rounded, to stop"][0] for found in ranks)


def test_replicas_are_never_compared_with_check_every_0(ranks):
    one, other = (found["never compared"] for found in ranks)
    assert (one[0], one[2]) == ("", 0)
    assert not torch.equal(one[1], other[1])


def test_messages_of_attach_name_attach(ranks):
    refused, differ, closed = ranks[0]["texts"]
    assert "rank 1 refused its own arguments (to attach its method)" in refused
    assert "check_every=5" in differ
    assert "this attached method is closed" in closed
    assert "attach the method anew on every rank" in closed
    for found in ranks:
        assert not [text for text in found["texts"] if "DistributedOptimizer" in text]


def test_a_handle_shares_buffers_as_it_advises(ranks):
    for number in range(2):
        (one, shared), (other, shared_there) = (found["buffers"][0][number] for found in ranks)
        assert not torch.equal(one, other)
        assert torch.equal(shared, shared_there)
        torch.testing.assert_close(shared, (one + other) / 2)
    assert "call handle.share_buffers() on every rank" in ranks[0]["buffers"][1][0]
