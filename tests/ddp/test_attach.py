"""What a user of DistributedDataParallel does with a method that is attached to a model."""

import pickle

import pytest
import torch

from support.ddp_scenarios import WITH_MEMORY, everything
from support.ranks import run_ranks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def of(tmp_path_factory):
    """Returns what both ranks found in a scenario; all scenarios run in one pair of ranks."""
    by_rank = run_ranks(everything, 2, str(tmp_path_factory.mktemp("checkpoints")))
    return lambda name: [found[name] for found in by_rank]


def assert_equal(*vectors):
    one, *others = vectors
    assert bool(torch.isfinite(one).all())
    for other in others:
        torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_training_goes_on_bit_for_bit_from_a_state_of_plain_values(of):
    (found, other) = of("saved_and_loaded")
    for name, (values, state, traffic, again, counted) in found.items():
        assert_equal(values, again, other[name][0], other[name][3])
        assert (traffic.up, traffic.rounds) == (counted.up, 6), name
        assert counted.rounds == 6
        assert len(pickle.dumps(state)) < 20_000
        assert not [key for key in state["parameters"] if "module." in key]


def test_a_state_is_gathered_on_one_rank_loaded_with_other_slices_and_saved_in_a_checkpoint(of):
    one, other = of("gathered_and_loaded")
    assert len(one) == 4
    assert_equal(*one, *other)


def test_a_state_of_something_else_is_refused_before_anything_changes(of):
    for reported in of("refused_states"):
        assert len(reported) == 5
        for key, text in zip(
            ("a method's state", "algorithm is", "seed is 9", "inf or NaN", "True"), reported, strict=True
        ):
            assert key in text


def test_a_detached_model_is_as_it_was_and_takes_other_methods(of):
    one, other = of("detached_and_replaced")
    assert_equal(*one["means"], *other["means"])
    assert_equal(one["values"], other["values"])
    assert "2 slices while the backward pass goes on" in one["text"]
    assert "DropSign" in one["after"]
    assert one["rounds"] == 2


def test_one_inf_on_one_rank_leaves_no_trace_in_any_memory(of):
    one, other = of("infs")
    assert one.keys() == {*WITH_MEMORY}
    for name, (expected, *by_path) in one.items():
        for path, found in enumerate(by_path):
            assert found["aborted"] == [False, False, True, False, False, False], name
            assert found["count"] == 1
            assert_equal(expected, found["values"], other[name][1 + path]["values"])


def test_an_aborted_round_hands_nan_to_all_ranks(of):
    for found in of("infs"):
        assert bool(found["ec-sgd"][1]["gradient"].isnan().all())


def test_a_grad_scaler_skips_together_and_leaves_memories_unscaled(of):
    one, other = of("scaled")
    assert_equal(*(values for values, _ in [*one, *other]))
    assert len({scale for _, scale in [*one, *other]}) == 1


def test_kinds_of_models_and_of_wrapping_give_the_bits_of_the_optimizer(of):
    one, other = of("kinds_of_models")
    for kind, (expected, found) in one.items():
        assert_equal(expected, found, other[kind][1])


def test_two_models_in_one_process_and_a_group_of_its_own_do_not_meet(of):
    one, other = of("several_models")
    assert_equal(one[0], one[2], other[0])
    assert_equal(one[1], one[3], other[1])


def test_two_backward_passes_to_a_step_are_refused_or_right(of):
    one, other = of("two_passes")
    assert "2 backward passes have exchanged gradients for one step" in one["plain"] == other["plain"]
    assert_equal(one["by optimizer"], one["step"], one["no_sync"], other["step"])
    torch.testing.assert_close(one["mean"], one["mean by optimizer"], rtol=1e-5, atol=1e-7)


def test_a_pass_whose_gradients_are_thrown_away_is_refused_at_the_next_one(of):
    assert all("thrown away" in reported for reported in of("thrown_away"))


def test_the_plain_pair_of_state_and_hook_attaches_itself_also_with_half_precision(of):
    one, other = of("by_pairs")
    assert_equal(one["expected"], one["plain"], other["plain"])
    assert_equal(one["half"], other["half"])
    torch.testing.assert_close(one["half"], one["expected"], rtol=0.05, atol=0.05)
    assert one["half rounds"] == one["plain rounds"] == 4


def test_observers_and_totals_see_every_round(of):
    for stats, traffic, total in of("observed"):
        assert [each.round for each in stats] == [0, 1, 2]
        assert sum(count.wire_bytes for each in stats for count in each.up.values()) == traffic.up.wire_bytes
        assert all(each.residual_norm > 0 for each in stats)
        assert total.up.payload_bits == 2 * traffic.up.payload_bits


def test_directions_are_clipped_as_by_the_optimizer(of):
    one, other = of("clipped")
    assert_equal(one[0], one[1], other[1])
    assert_equal(one[2], one[3], other[3])
    assert not torch.equal(one[0], one[2])
