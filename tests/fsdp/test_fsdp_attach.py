"""What a user of `fully_shard` does with a method that is attached between two nodes of two ranks."""

import pytest
import torch

import laconic
import laconic.fsdp
from support import small_model
from support.fsdp_infinities import BY_BACKWARD, BY_STEP
from support.fsdp_refusals import MESSAGES
from support.fsdp_scenarios import everything
from support.fsdp_tasks import Net
from support.methods import with_test_settings
from support.ranks import run_ranks

pytestmark = pytest.mark.slow
NAMES = ["sgd", "ec-sgd", "signsgd-mv", "csgd", "compskip", "dist-ef", "ssgd-mv"]

IN_SLICES = ["sgd", "ec-sgd", "signsgd-mv", "compskip"]


@pytest.fixture(scope="module")
def of():
    """Returns what all four ranks found in a scenario; all scenarios run in one group of ranks."""
    by_rank = run_ranks(everything, 4, NAMES)
    return lambda name: [found[name] for found in by_rank]


def assert_equal(*vectors):
    one, *others = vectors
    assert bool(torch.isfinite(one).all())
    for other in others:
        torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_each_shard_is_trained_as_by_two_workers_with_the_means_of_their_nodes(of):
    by_rank = of("twins")
    for name in NAMES:
        one = by_rank[0][name]
        assert_equal(one["expected"], *(found[name]["values"] for found in by_rank))
        sent = one["total"].up
        assert one["slices"] == (2 if name in IN_SLICES else 1), name
        if name in IN_SLICES[1:]:
            assert sent.messages == 2 * one["messages"], name
        else:
            assert sent.wire_bytes == one["bytes"], name
        assert one["traffic"].rounds == 4


def test_training_goes_on_bit_for_bit_from_the_state_of_each_rank(of):
    by_rank = of("saved_and_loaded")
    for name in ("ec-sgd", "compskip", "dist-ef", "ssgd-mv"):
        assert_equal(*(values for found in by_rank for values in found[name][:2]))
        names = {each for each, _ in Net().named_parameters()}
        assert all({*found[name][2]} == names for found in by_rank), name


def test_a_state_between_two_exchanges_is_gone_on_with(of):
    for found in of("saved_and_loaded"):
        assert_equal(*found["diloco"][:2])


def test_the_state_of_another_shard_and_a_file_of_all_ranks_are_refused(of):
    for rank, found in enumerate(of("saved_and_loaded")):
        other, file = found["others"]
        assert f"is [{1 - rank % 2}, 2] in the saved state and [{rank % 2}, 2] here" in other
        assert "whose ranks have a shard each" in file


def test_what_one_shard_cannot_load_is_loaded_by_none(of):
    for rank, found in enumerate(of("loaded_by_one_shard")):
        foreign, is_as_before = found["foreign"]
        assert "algorithm is 'sgd' in the saved state and 'ec-sgd' here" in foreign
        assert foreign.startswith(
            ("rank 1: state_dict", "shard 0: rank 1: ", "state_dict", "shard 0: state_dict")[rank]
        )
        assert is_as_before
        earlier, is_as_before = found["earlier"]
        assert "shard 0 loads the state of round 1 and shard 1 that of round 3" in earlier
        assert is_as_before
        assert found["rounds"] == 3


def test_an_inf_in_one_shard_of_one_node_leaves_no_trace_on_any_rank(of):
    by_rank = of("one_inf_in_one_shard")
    for name in by_rank[0]:
        for found in by_rank:
            seen = found[name]["seen"]
            assert [each["aborted"] for each in seen] == [False, True, False, False], name
            assert [each["all NaN"] for each in seen] == [False, True, False, False], name
            assert seen[1]["same memory"]
            assert found[name]["count"] == 1
        assert_equal(*(found[name]["values"] for found in by_rank))


def test_every_method_with_memory_meets_the_inf_in_full_precision_and_in_half():
    assert {*BY_BACKWARD} >= {"ec-sgd", "signsgd-mv", "compskip", "dropsign", "powersgd", "dist-ef", "sparse", "lag"}
    assert {*BY_STEP} >= {"diloco", "sparseloco", "ssgd-mv", "ssgd-topk"}


def test_an_overflow_that_an_optimizer_would_keep_is_skipped_by_all_shards(of):
    by_rank = of("one_overflow_by_step")
    for name in by_rank[0]:
        assert_equal(*(found[name]["values"] for found in by_rank))
        assert all(found[name]["finite"] for found in by_rank), name
        assert {found[name]["count"] for found in by_rank} == {1}, name


def test_an_inf_leaves_the_models_alike_where_the_step_exchanges(of):
    by_rank = of("one_inf_by_step")
    for name in by_rank[0]:
        assert_equal(*(found[name]["values"] for found in by_rank))
        assert {found[name]["count"] for found in by_rank} == {1}, name


def test_steps_are_those_of_full_models_whose_nodes_average_their_gradients(of):
    by_rank = of("local_steps")
    for name in by_rank[0]:
        assert_equal(*(found[name][0] for found in by_rank))
        torch.testing.assert_close(*by_rank[0][name], rtol=1e-5, atol=1e-7)


def test_unsharded_offloaded_and_half_precision_models_are_trained_alike_on_all_nodes(of):
    by_rank = of("kinds_of_shards")
    for kind in by_rank[0]:
        assert_equal(*(found[kind] for found in by_rank))
    found = by_rank[0]
    assert_equal(found["plain"], found["kept unsharded"], found["offloaded"])
    assert not torch.equal(found["half"], found["plain"])


def test_passes_without_synchronization_exchange_nothing(of):
    for found in of("accumulated"):
        assert found["passes, rounds"] == found["sum, rounds"] == 2
        torch.testing.assert_close(found["passes"], found["sum"], rtol=1e-5, atol=1e-6)


def test_two_exchanges_for_one_step_are_refused_where_there_is_memory(of):
    for reported in of("two_passes"):
        assert "2 backward passes have exchanged gradients for one step" in reported
        assert "set_requires_gradient_sync(False)" in reported


def test_a_layer_that_is_called_twice_is_exchanged_once(of):
    by_rank = of("called_twice")
    for found in by_rank:
        assert (found["slices, number"], found["at once, number"]) == (2, 1)
        assert_equal(found["slices"], found["at once"], by_rank[0]["slices"])


def test_directions_are_clipped_over_all_shards(of):
    for by_method, by_user in of("clipped"):
        assert float(by_method.norm()) == pytest.approx(0.05, rel=1e-4)
        torch.testing.assert_close(by_method, by_user, rtol=1e-5, atol=1e-8)


def test_a_layer_takes_part_on_all_nodes_once_one_of_them_uses_it(of):
    one, *others = of("unlike_use")
    assert others == 3 * [one]
    used = [[norm is not None for norm in norms] for norms in one]
    assert used == [4 * [True] + 4 * [False], *(2 * [6 * [True] + 2 * [False]])]


def test_a_detached_model_gets_the_plain_mean_and_takes_another_method(of):
    one, *others = of("detached_and_replaced")
    for found in (one, *others):
        for by_method, plain in zip(*found["means"], strict=True):
            torch.testing.assert_close(by_method, plain, rtol=1e-6, atol=1e-7)
        assert found["model"]
        assert found["rounds"] == 2
        assert found["total"] == one["total"]
    assert sum(found["own"] for found in (one, *others)) == one["total"] > 0
    assert_equal(*(found["values"] for found in (one, *others)))
    assert one["text"] == "laconic.fsdp.Handle(SGD(): exchanges 2 slices while the backward pass goes on)"
    assert "DropSign" in one["after"]


def test_a_grad_scaler_skips_together_and_leaves_memories_unscaled(of):
    by_rank = of("scaled")
    for name in by_rank[0]:
        assert_equal(*(values for found in by_rank for values in (found[name][0], found[name][2])))
        assert len({found[name][1] for found in by_rank}) == 1


def test_mistakes_are_named_on_all_ranks(of):
    by_rank = of("refusals")
    missing = [
        (what, rank, found[what])
        for what, message in MESSAGES.items()
        for rank, found in enumerate(by_rank)
        if message not in found[what]
    ]
    assert not missing


def test_all_shards_take_one_choice_and_train_as_with_that_method(of):
    by_rank = of("automatic")
    one, *others = (found["measured"] for found in by_rank)
    assert others == 3 * [one]
    assert (one[0], one[4]) == (None, 3)
    for found in by_rank:
        assert found["made with it"]
        assert found["counted"]
        assert_equal(*found["values"])


def test_a_method_that_is_chosen_in_a_backward_pass_has_its_bits_and_goes_on_from_a_state(of):
    by_rank = of("automatic")
    for name in ("signsgd-mv", "ec-sgd"):
        for chosen, given, resumed, straight in (found[name] for found in by_rank):
            assert_equal(chosen, given, by_rank[0][name][0])
            assert_equal(resumed, straight)


def test_one_process_alone_exchanges_nothing(stated):
    handle = laconic.fsdp.attach(small_model.net(), laconic.ECSGD(), mesh=None)
    assert "exchanges nothing" in repr(handle)
    assert any("there is one node" in text for text in stated.messages)
    assert (handle.state_dict(), handle.aborted, handle.model) == ({}, False, None)
    handle.load_state_dict({})
    assert not any("left out" in text for text in stated.messages)
    handle.load_state_dict({"algorithm": "ec-sgd"})
    assert any("the state is left out, since ec-sgd exchanges nothing here" in text for text in stated.messages)
    handle.replace(with_test_settings("dropsign"))
    handle.detach()
