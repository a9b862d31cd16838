"""Replicas and the options that schedulers move are compared: roundings are put right, everything else is named."""

import pytest
import torch

from laconic.lab.processes.ranks import Host, Ranks
from laconic.training.flat_parameters import FlatParameters
from laconic.training.replica_check import largest_difference
from support import optimizers, small_model
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks
from support.unlike_ranks import INNER, UnlikeRank

pytestmark = pytest.mark.xdist_group(__name__)


def error_of(task, *arguments, **options):
    try:
        return task(*arguments, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def changed(rank, factor, replicas="sync", name="sgd", at=1):
    """Train three rounds with a check after each; before one, rank 1 changes a parameter by a factor."""
    net = small_model.net()
    opt = optimizers.wrapped(net, name, "auto", check_every=1, replicas=replicas)
    for round_ in range(3):
        if rank == 1 and round_ == at:
            with torch.no_grad():
                net[0].weight[0, 0] *= factor
        optimizers.one_step(opt, net, rank, round_)
    return small_model.values(net), opt.traffic.replica_syncs, opt.total_traffic().replica_syncs


def scheduled(rank, name, option, at_end=False):
    """Train two rounds; rank 1 moves an option of its optimizer in between."""
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    opt = optimizers.wrapped(net, name, "auto", inner, check_every=100 if at_end else 2)
    for round_ in range(2):
        optimizers.one_step(opt, net, rank, round_)
        if rank == 1 and round_ == 0:
            opt.param_groups[0][option] *= 0.5
    opt.exchange_steps()


def after_local_steps(rank):
    """End in the middle of local steps, with a replica that was changed outside; the check comes with the exchange."""
    net = small_model.net()
    opt = optimizers.wrapped(net, "sgd", "auto", local_steps=2)
    for round_ in range(3):
        optimizers.one_step(opt, net, rank, round_)
    opt.exchange_steps()
    if rank == 1:
        with torch.no_grad():
            net[0].weight[0, 0] += 1
    opt.replica_check.at_end()  # has been checked
    optimizers.one_step(opt, net, rank, 3)
    opt.exchange_steps()


def all_cases(rank):
    found = {
        "bits": error_of(changed, rank, 1 + 2e-6), "more": error_of(changed, rank, 1.1),
        "not finite": error_of(changed, rank, torch.inf, at=2), "stop": error_of(changed, rank, 1 + 2e-6, "stop"),
    }  # fmt: skip
    for option in ("lr", "momentum"):
        found[option] = error_of(scheduled, rank, "sgd", option)
    found["models that differ"] = error_of(scheduled, rank, "dsgd", "lr")
    found["at the end"] = error_of(scheduled, rank, "sgd", "lr", at_end=True)
    found["dedicated"] = error_of(changed, rank, 1 + 2e-6, name="compskip")
    found["local steps"] = error_of(after_local_steps, rank)
    return found


@pytest.fixture(scope="module")
def seen():
    return run_ranks(all_cases, 2)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["bits", "dedicated"])
def test_a_replica_that_differs_in_its_last_bits_gets_rank_0s_parameters_and_is_counted(case, seen):
    (one, *counts), (other, *other_counts) = (found[case] for found in seen)
    assert torch.equal(one, other)
    assert counts == other_counts == [1, 1]


@pytest.mark.slow
def test_with_replicas_stop_the_last_bits_stop_all_ranks(seen):
    for found in seen:
        assert found["stop"].startswith("ReplicaError: after round 2 the parameters of rank 1 differ from rank 0's;")


@pytest.mark.slow
@pytest.mark.parametrize(("case", "round_"), [("more", 2), ("not finite", 3)])
def test_a_replica_that_differs_by_more_than_rounding_is_named_with_its_parameter(case, round_, seen):
    for found in seen:
        assert found[case].startswith(
            f"ReplicaError: after round {round_} the parameters of rank 1 differ from rank 0's"
        )
        assert "of the largest value of '0.weight', which is more than rounding explains" in found[case]


@pytest.mark.slow
@pytest.mark.parametrize(("option", "values"), [("lr", (0.1, 0.05)), ("momentum", (0.9, 0.45))])
def test_an_option_that_one_rank_moved_is_named_with_both_values(option, values, seen):
    for found in seen:
        text = f"rank 0 has {option}={values[0]}, rank 1 has {option}={values[1]} (parameter group 0)"
        assert found[option].startswith(f"ReplicaError: after round 2 {text}"), found[option]


@pytest.mark.slow
def test_options_are_compared_where_models_differ_and_at_the_end_too(seen):
    for found in seen:
        for case in ("models that differ", "at the end"):
            assert found[case].startswith("ReplicaError: after round 2 rank 0 has lr="), found[case]


@pytest.mark.slow
def test_the_last_exchange_of_local_steps_is_checked_once(seen):
    for found in seen:
        assert found["local steps"].startswith("ReplicaError: after round 3 the parameters of rank 1"), found[
            "local steps"
        ]


def test_a_difference_is_measured_by_the_tensors_largest_value_and_the_types_last_bits():
    for dtype, exact in ((torch.float32, 2.0**-23), (torch.float64, 2.0**-52)):
        net = small_model.net().to(dtype)
        flat = FlatParameters(torch.optim.SGD(net.parameters(), lr=0.1), net)
        one = flat.values()
        other = one.clone()
        place = int(net[0].weight.detach().abs().argmax())
        other[place] *= 1 + 500 * exact
        bounds, relative, number = largest_difference(flat, one, other)
        assert (number, flat.names[number]) == (0, "0.weight")
        assert 0.4 < bounds < 0.6
        assert relative == pytest.approx(500 * exact, rel=0.1)
        other[place] *= 1.01
        assert largest_difference(flat, one, other)[0] > 1
        other[place] = torch.nan
        assert largest_difference(flat, one, other)[0] == torch.inf
        assert largest_difference(flat, one, one) == (0.0, 0.0, 0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_inf_and_nan_are_a_difference_whichever_replica_has_them_and_hide_no_other_one(value):
    net = small_model.net()
    flat = FlatParameters(torch.optim.SGD(net.parameters(), lr=0.1), net)
    one, other = flat.values(), flat.values()
    other[0] = value
    assert largest_difference(flat, one, other) == largest_difference(flat, other, one) == (torch.inf, torch.inf, 0)
    one[0] = value
    assert largest_difference(flat, one, other) == (0.0, 0.0, 0)
    for place, number in ((1, 0), (66, flat.names.index("0.bias"))):  # beside it, and in another parameter
        changed_there = other.clone()
        changed_there[place] += 1.0
        bounds, relative, found = largest_difference(flat, one, changed_there)
        assert (1 < bounds < torch.inf, 0 < relative < torch.inf, found) == (True, True, number)


def test_a_tensor_near_zero_is_measured_by_the_model():
    net = small_model.net()
    with torch.no_grad():
        net[0].bias.fill_(1e-9)
    flat = FlatParameters(torch.optim.SGD(net.parameters(), lr=0.1), net)
    other = flat.values()
    other[66] += 1e-9
    assert largest_difference(flat, flat.values(), other)[0] < 1


@pytest.mark.slow
def test_processors_that_round_differently_train_to_the_end_and_their_replicas_are_put_right():
    hosts = [Host(), Host(environment={"ATEN_CPU_CAPABILITY": "default"})]
    with Ranks(2, UnlikeRank, timeout_s=PATIENCE_S, hosts=hosts) as ranks:
        for name in INNER:
            found = ranks.call("train", name=name, replicas="sync")
            assert len({values for values, _, _ in found}) == 1, name
            assert {syncs for _, syncs, _ in found} == {max(syncs for _, syncs, _ in found)}
            if len({capability for _, _, capability in found}) > 1:
                assert found[0][1] > 0, f"{name}: they round alike"
