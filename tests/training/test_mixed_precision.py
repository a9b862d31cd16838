"""Half precision with every method that has a memory: one inf on one rank is skipped by all, and leaves no trace."""

import pytest
import torch

from support.mixed_precision import BAD_STEP, STEPS, WITH_MEMORY, N, act
from support.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group(__name__)]


@pytest.fixture(scope="module")
def by_rank():
    return run_ranks(act, N, WITH_MEMORY)


def runs(by_rank):
    for name in by_rank[0]:
        for kind in by_rank[0][name]:
            yield name, kind, [results[name][kind] for results in by_rank]


def test_one_inf_on_one_rank_is_skipped_by_all_and_the_next_steps_are_finite_and_equal(by_rank):
    assert {"dropsign", "compskip", "ec-sgd", "dist-ef", "powersgd", "ssgd-mv"} <= by_rank[0].keys()
    for name, kind, ranks in runs(by_rank):
        for result in ranks:
            assert result["aborted"] == 1, (name, kind)
            assert result["seen"][BAD_STEP] == result["seen"][BAD_STEP - 1], (name, kind)
            assert len({*result["seen"]}) == STEPS - 1, (name, kind)
            assert result["values"].isfinite().all(), (name, kind)
            if result["equal"]:
                assert torch.equal(result["values"], ranks[0]["values"]), (name, kind)


def test_a_loss_scale_that_grows_and_falls_changes_no_bit_and_is_one_on_all_ranks(by_rank):
    for name, kind, ranks in runs(by_rank):
        if kind == "scaled":
            for result, results in zip(ranks, by_rank, strict=True):
                assert result["scales"] == [1024.0, 2048.0, 1024.0, 1024.0, 2048.0, 2048.0], name
                assert result["seen"] == results[name]["plain"]["seen"], name


def test_memories_of_bfloat16_parameters_are_not_in_half_precision(by_rank):
    for name, results in by_rank[0].items():
        assert results["bfloat16 parameters"]["types"] <= {torch.float32, torch.float64}, name
        assert results["bfloat16 parameters"]["values"].dtype == torch.bfloat16
