"""`laconic.checkpoint` over real ranks: a run goes on with the same bits, on other numbers of ranks without losses."""

import pytest
import torch

from support.ranks import run_ranks
from support.saved_folders import RESUMED, SAVED, act

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group(__name__)]
N = 7


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory):
    return run_ranks(act, N, str(tmp_path_factory.mktemp("saved")))


def test_a_run_that_goes_on_from_a_folder_has_the_bits_of_a_straight_one(by_rank):
    for rank, results in enumerate(by_rank[:2]):
        for name in RESUMED:
            straight, resumed, is_it = results["resumed"][name]
            assert is_it, (name, rank)
            assert torch.equal(straight, resumed), (name, rank)


def test_saved_by_four_ranks_two_and_seven_go_on_and_no_residual_is_lost(by_rank):
    for n in (2, 7):
        for results in (by_rank[rank]["other numbers"] for rank in range(n)):
            residual, before, after = results[n]
            expected = by_rank[0]["other numbers"]["saved"]
            assert (residual - expected).norm() <= 1e-6 * expected.norm()
            assert expected.norm() > 0
            assert torch.equal(after, by_rank[0]["other numbers"][n][2])
            assert after.isfinite().all()
            assert not torch.equal(before, after)


def test_a_full_disk_on_one_rank_is_an_error_on_all_and_leaves_what_was_saved(by_rank):
    for results in by_rank[:2]:
        error, names, again, afterwards = results["full"]
        assert "rank 1: " in error
        assert "rank1.safetensors" in error
        assert names == [f"000001-step-{SAVED}"]
        assert afterwards == [again] == [f"000002-step-{SAVED + 1}"]


def test_what_one_rank_refuses_changes_nothing_on_any_rank(by_rank):
    for results in by_rank[:2]:
        assert "algorithm is 'ec-sgd' in the saved state and 'compskip' here" in results["refused"]["method"]
        assert "rank 1: it has the objects ['scheduler'], and here are []" in results["refused"]["objects"]
