"""Sharded models whose nodes change: one rank dies, and a state is gone on with by other numbers of nodes."""

import pytest
import torch

from support.fsdp_endings import DOOMED, gathered, gone_on, with_one_that_dies
from support.ranks import Launch, ends_of_ranks, run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group(__name__)]
WITH_RESIDUALS = ["ec-sgd", "dist-ef", "sparse", "sparseloco"]


@pytest.mark.parametrize(
    ("name", "share"), [("ec-sgd", 0.6), ("powersgd", 0.3), ("ssgd-mv", 0.95)], ids=["slices", "at the end", "step"]
)
def test_no_rank_waits_in_vain_for_one_that_dies_in_a_step(name, share):
    ends = ends_of_ranks(with_one_that_dies, 4, name, share)
    errors = [end.error for end in ends]
    assert (ends[DOOMED].result, errors[DOOMED]) == (None, "")
    for rank in range(DOOMED):
        assert ends[rank].result is None
        assert "came within timeout_s" not in errors[rank], errors[rank]
    other_node, same_shard, same_node = errors[:DOOMED]
    assert f"PeerLostError: rank 1 of the group (global rank {DOOMED})" in same_shard
    assert "PeerLostError: rank 1" in other_node
    assert "PeerLostError" in same_node or "closed" in same_node.lower() or "reset" in same_node.lower(), same_node


def test_other_numbers_of_nodes_go_on_from_a_gathered_state_and_lose_no_residual():
    launches = {n: Launch(gathered, 2 * n, WITH_RESIDUALS) for n in (2, 3)}
    saved = {n: launch.results() for n, launch in launches.items()}
    for before, now in ((2, 3), (3, 2)):
        by_rank = run_ranks(gone_on, 2 * now, saved[before][:2])
        for name in WITH_RESIDUALS:
            for residuals, loaded, values in (found[name] for found in by_rank):
                assert residuals.norm() > 0
                assert (loaded - residuals).norm() <= 1e-6 * residuals.norm(), name
                assert bool(values.isfinite().all())
                assert torch.equal(values, by_rank[0][name][2]), name
