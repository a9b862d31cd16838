"""The behavior of `DistributedOptimizer`, in four processes that run all tasks of support/optimizer_tasks.py."""

from itertools import pairwise

import pytest
import torch

import laconic
from laconic.random_keys import make_key, uniform
from support import optimizer_tasks as tasks
from support import optimizers, small_model
from support.ranks import run_ranks

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share

N = 4
METHODS = sorted(laconic.ALGORITHMS)
LATE = [("sgd", "allreduce", True), ("sgd", "allreduce", False), ("compskip", "sharded", False),
        ("sgd-server", "rank0", True), ("signsgd-mv", "dedicated", True), ("sgd-model", "rank0", True)]  # fmt: skip
BAD = [("sgd", "allreduce"), ("sgd", "rank0"), ("sgd", "dedicated"), ("compskip", "sharded"), ("ec-sgd", "rank0"),
       ("sgd-model", "allreduce"), ("sgd-server", "rank0"), ("dist-ef", "rank0")]  # fmt: skip
SCALED = [("sgd", "allreduce"), ("compskip", "sharded"), ("sgd-model", "rank0")]
COUNTED = [("sgd", "rank0"), ("sgd", "sharded"), ("ec-sgd", "rank0"), ("compskip", "sharded"), ("compskip", "rank0"),
           ("dropsign", "dedicated")]  # fmt: skip

SHORT = ("sgd", "compskip", "sgd-server", "sgd-model")

TASKS = {
    **{("inner", inner, name): (tasks.any_inner, inner, name) for inner in optimizers.INNER for name in SHORT[:2]},
    **{("groups", name): (tasks.groups_and_frozen, name) for name in ("sgd", "dist-ef")},
    **{("never", name): (tasks.never_used, name) for name in METHODS},
    **{("late", *case): (tasks.used_late_by_rank_2, *case) for case in LATE},
    **{("start", layout): (tasks.initial_parameters, layout) for layout in ("allreduce", "dedicated")},
    **{("outside", culprit): (tasks.changed_outside, culprit) for culprit in (0, 2)},
    **{("bad", *case): (tasks.with_a_bad_round, *case, [torch.inf, torch.nan][i % 2]) for i, case in enumerate(BAD)},
    **{("scaler", *case): (tasks.with_a_scaler, *case) for case in SCALED},
    **{("counted", *case): (tasks.counted, *case) for case in COUNTED},
    **{("lr_schedule", layout): (tasks.with_an_inner_scheduler, layout) for layout in ("rank0", "dedicated")},
    "two points": (tasks.at_two_points_and_late,),
    "two groups": (tasks.in_two_groups,),
    **{("type", name): (tasks.in_type, name, torch.bfloat16) for name in SHORT},
}  # fmt: skip


def run_tasks(rank: int, wanted: list) -> list:
    return [task(rank, *arguments) for task, *arguments in wanted]


@pytest.fixture(scope="module")
def seen():
    """What each rank returned from each task: seen[task][rank]."""
    by_rank = run_ranks(run_tasks, N, list(TASKS.values()))
    return {name: [results[i] for results in by_rank] for i, name in enumerate(TASKS)}


def assert_equal_on_all_ranks(vectors):
    for rank, vector in enumerate(vectors):
        assert torch.equal(vector, vectors[0]), f"rank {rank} differs from rank 0"


def plainly(net, inner, rounds, n=N):
    """Train as one process would that has all workers' mini-batches."""
    for round_ in range(rounds):
        inner.zero_grad()
        (sum(small_model.loss(net, rank, round_) for rank in range(n)) / n).backward()
        inner.step()
    return small_model.values(net)


@pytest.mark.slow
@pytest.mark.parametrize("inner", optimizers.INNER)
def test_any_inner_optimizer_does_what_it_would_do_with_the_mean_gradient(inner, seen):
    net = small_model.net().double()
    expected = plainly(net, optimizers.INNER[inner](net.parameters()), tasks.INNER_ROUNDS)
    assert_equal_on_all_ranks(seen["inner", inner, "sgd"])
    torch.testing.assert_close(seen["inner", inner, "sgd"][0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("inner", optimizers.INNER)
def test_any_inner_optimizer_follows_compressed_directions_on_all_ranks_alike(inner, seen):
    results = seen["inner", inner, "compskip"]
    assert_equal_on_all_ranks(results)
    assert torch.isfinite(results[0]).all()
    assert not torch.equal(results[0], small_model.values(small_model.net().double()))


@pytest.mark.slow
def test_groups_keep_their_learning_rates_and_decays_and_frozen_parameters_stay(seen):
    net = small_model.net().double()
    expected = plainly(net, tasks.grouped_inner(net), 8)
    torch.testing.assert_close(seen["groups", "sgd"][0][0], expected, rtol=1e-9, atol=1e-9)
    for name in ("sgd", "dist-ef"):
        assert_equal_on_all_ranks([values for values, _ in seen["groups", name]])
        for _, frozen in seen["groups", name]:
            assert torch.equal(frozen, small_model.net().double()[0].bias.detach())


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_parameter_that_no_rank_uses_does_not_move_and_gets_no_gradient(name, seen):
    for values, has_gradient in seen["never", name]:
        assert torch.equal(values, small_model.values(optimizers.Branches().never))
        assert not has_gradient


@pytest.mark.slow
@pytest.mark.parametrize("case", LATE, ids=str)
def test_a_layer_that_one_rank_begins_to_use_late_moves_on_all_ranks_from_that_round_on(case, seen):
    results = seen[("late", *case)]
    workers = results[:-1] if case[1] == "dedicated" else results
    assert_equal_on_all_ranks([result["values"] for result in workers])
    for result in workers:
        assert torch.equal(result["before"], small_model.values(optimizers.Branches().late))
        assert not torch.equal(result["after"], result["before"])
    for result in results:
        assert (result["rounds"], result["aborted_rounds"]) == (8, 0)


@pytest.mark.slow
@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_layer_used_late_moves_by_its_gradient_averaged_with_nothing(set_to_none, seen):
    net = optimizers.Branches()
    inner = torch.optim.SGD(net.parameters(), lr=laconic.SGD.test_lr)
    for round_ in range(8):
        inner.zero_grad()
        for rank in range(N):
            net.uses_late = rank == 2 and round_ >= tasks.LATE_FROM
            (small_model.loss(net, rank, round_) / N).backward()
        inner.step()
    torch.testing.assert_close(seen["late", "sgd", "allreduce", set_to_none][0]["values"], small_model.values(net))


@pytest.mark.slow
def test_a_round_repeated_for_a_late_layer_uses_the_original_of_two_gradients(seen):
    """The method's own second gradient must not replace the original one when the round is aborted."""
    net = optimizers.Branches()
    for round_ in range(5):
        direction = [torch.zeros_like(p) for p in net.parameters()]
        for shift, sign in ((0.0, 1.0), (1.0, -1.0)):
            for rank in range(N):
                there = optimizers.Branches()
                there.uses_late = rank == 2 and round_ >= tasks.LATE_FROM
                moved = [(p, q.detach() + shift) for p, q in zip(there.parameters(), net.parameters(), strict=True)]
                with torch.no_grad():
                    for parameter, value in moved:
                        parameter.copy_(value)
                small_model.loss(there, rank, round_).backward()
                for total, parameter in zip(direction, there.parameters(), strict=True):
                    total += 0 if parameter.grad is None else sign / N * parameter.grad
        with torch.no_grad():
            for parameter, total in zip(net.parameters(), direction, strict=True):
                parameter -= laconic.Algorithm.test_lr * total
    assert_equal_on_all_ranks(seen["two points"])
    torch.testing.assert_close(seen["two points"][0], small_model.values(net))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["allreduce", "dedicated"])
def test_ranks_with_other_initial_values_get_rank_0s_parameters_frozen_ones_and_buffers_included(layout, seen):
    own = [mine for mine, _ in seen["start", layout]]
    assert not any(torch.equal(own[0], mine) for mine in own[1:])
    for _, then in seen["start", layout]:
        assert torch.equal(then, own[0])


@pytest.mark.slow
@pytest.mark.parametrize("culprit", [0, 2])
def test_a_replica_changed_outside_is_named_on_all_ranks_at_the_next_check(culprit, seen):
    for found_in, message in seen["outside", culprit]:
        assert found_in == 2  # the third round, with check_every=3
        assert f"after round 3 the parameters of rank {culprit} differ" in message


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD, ids="-".join)
def test_one_ranks_inf_or_nan_leaves_all_parameters_and_memories_as_they_were(case, seen):
    for result in seen[("bad", *case)]:
        for before, after in zip(result["before"], result["after"], strict=True):
            torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD, ids="-".join)
def test_training_continues_after_inf_or_nan_as_if_that_round_had_been_left_out(case, seen):
    for rank, result in enumerate(seen[("bad", *case)]):
        assert torch.isfinite(result["bad"]).all()
        assert torch.equal(result["bad"], result["left out"]), f"rank {rank}"
        if (case[1], rank) != ("dedicated", N - 1):
            assert not torch.equal(result["bad"], result["after"][0]), f"rank {rank} has stopped"


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD, ids="-".join)
def test_a_round_with_inf_or_nan_is_counted_as_aborted_on_all_ranks(case, seen):
    for result in seen[("bad", *case)]:
        assert (result["bad traffic"]["rounds"], result["bad traffic"]["aborted_rounds"]) == (6, 1)
        assert (result["left out traffic"]["rounds"], result["left out traffic"]["aborted_rounds"]) == (6, 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", SCALED, ids="-".join)
def test_a_grad_scaler_changes_no_bit_and_skips_on_all_ranks_together(case, seen):
    results = seen[("scaler", *case)]
    assert_equal_on_all_ranks([result["scaled"] for result in results])
    for rank, result in enumerate(results):
        assert torch.equal(result["scaled"], result["plain"])
        assert (result["scaled aborted"], result["plain aborted"]) == (1, 1)
        assert result["scaled scale"] == 512.0, f"rank {rank}: the next step would be scaled otherwise"


@pytest.mark.slow
@pytest.mark.parametrize("case", COUNTED, ids="-".join)
def test_wire_bytes_are_the_bytes_given_to_torch_distributed(case, seen):
    results, layout = seen[("counted", *case)], case[1]
    up = [result["traffic"]["up"]["wire_bytes"] for result in results]
    down = [result["traffic"]["down"]["wire_bytes"] for result in results]
    assert sum(result["sent"] for result in results) == sum(up) + sum(down) > 0
    if layout == "rank0":
        assert [result["sent"] for result in results] == [sum(down), *up[1:]]
        assert up[0] == down[0] == 0  # its own packets cross no link
    if layout == "dedicated":
        assert [result["sent"] for result in results] == [*up[:-1], sum(down)]


@pytest.mark.slow
def test_skips_are_the_rounds_of_the_keyed_bernoulli_draw(seen):
    server_skips = sum(uniform(make_key(5, "server", 0, round_, "skip")) < 0.1 for round_ in range(20))
    for rank, result in enumerate(seen["counted", "compskip", "rank0"]):
        skips = sum(uniform(make_key(5, "worker", rank, round_, "skip")) < 0.3 for round_ in range(20))
        assert result["traffic"]["up"]["skips"] == skips > 0
        assert result["traffic"]["down"]["skips"] == server_skips > 0


@pytest.mark.slow
@pytest.mark.parametrize("case", COUNTED, ids="-".join)
def test_traffic_can_be_written_as_json(case, seen):
    for result in seen[("counted", *case)]:
        traffic = result["traffic"]
        by_exchange = {"up_by_exchange", "down_by_exchange"}
        totals = {"up", "down", "setup", "served", "inside", "rounds", "aborted_rounds", "seconds", "control_bytes"}
        totals |= {"replica_syncs"}
        totals |= {"staleness", "updates", "faults"}
        assert set(traffic) == totals | by_exchange
        assert traffic["control_bytes"] > 0
        assert (traffic["rounds"], traffic["aborted_rounds"]) == (20, 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", COUNTED, ids="-".join)
def test_seconds_are_never_negative_and_grow(case, seen):
    for result in seen[("counted", *case)]:
        seconds = result["seconds"]
        assert set(seconds[0]) == {"compute", "encode", "wait", "decode"}
        assert all(value >= 0 for value in seconds[0].values())
        for earlier, later in pairwise(seconds):
            assert all(later[name] >= earlier[name] for name in later)
            assert sum(later.values()) > sum(earlier.values())
        assert all(seconds[-1][name] > seconds[0][name] for name in seconds[0])


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["rank0", "dedicated"])
def test_a_scheduler_on_the_inner_optimizer_works_on_ranks_where_it_never_steps(layout, seen):
    for learning_rate, warnings in seen["lr_schedule", layout]:
        assert learning_rate == laconic.GlobalReplica.test_lr / 16
        assert warnings == []


@pytest.mark.slow
def test_two_groups_of_ranks_train_two_models_at_the_same_time(seen):
    one, second, third, fourth = seen["two groups"]
    assert torch.equal(one, second)
    assert torch.equal(third, fourth)
    assert not torch.equal(one, third)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_bfloat16_model_trains_alike_on_all_ranks_and_keeps_its_type(name, seen):
    results = [values for values, _ in seen["type", name]]
    assert_equal_on_all_ranks(results)
    assert torch.isfinite(results[0]).all()
    assert not torch.equal(results[0], small_model.values(small_model.net().bfloat16()))
    assert {dtype for _, dtype in seen["type", name]} == {"torch.bfloat16"}
