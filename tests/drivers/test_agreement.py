"""What ranks must have in common is agreed at the start: the first difference is named with both, on all ranks."""

import json
import logging
import sys
import time

import pytest
import torch
from torch import nn

import laconic
from laconic.drivers.distributed.agreement import _beginning, difference
from support import small_model
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

pytestmark = pytest.mark.xdist_group(__name__)

ODD = 1


def inner_of(parameters, **options):
    return torch.optim.SGD(parameters, **{"lr": 0.1, "momentum": 0.9} | options)


def square():
    """Two equally large layers, with equal values on all ranks."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6, bias=False), nn.Tanh(), nn.Linear(6, 6, bias=False))


def in_another_order(rank, **options):
    net = square()
    parameters = list(net.parameters())
    if rank == ODD:
        parameters.reverse()
    named = {"model": net} if options.pop("is_named") else {}
    return laconic.DistributedOptimizer(inner_of(parameters, **options), laconic.SGD(), timeout_s=PATIENCE_S, **named)


def odd_inner(rank, **odd):
    net = small_model.net()
    inner = inner_of(net.parameters(), **odd if rank == ODD else {})
    return laconic.DistributedOptimizer(inner, laconic.SGD(), model=net, timeout_s=PATIENCE_S)


def transposed(rank):
    net = nn.Linear(2, 6, bias=False) if rank == ODD else nn.Linear(6, 2, bias=False)
    return laconic.DistributedOptimizer(inner_of(net.parameters()), laconic.SGD(), model=net, timeout_s=PATIENCE_S)


def another_class(rank):
    net = small_model.net()
    kind = torch.optim.Adam if rank == ODD else torch.optim.AdamW
    return laconic.DistributedOptimizer(kind(net.parameters()), laconic.SGD(), model=net, timeout_s=PATIENCE_S)


def grouped(rank):
    net = small_model.net()
    groups = [{"params": net[0].parameters()}, {"params": net[2].parameters(), "weight_decay": 0.1}]
    if rank == ODD:
        groups[1]["weight_decay"] = 0.2
    return laconic.DistributedOptimizer(inner_of(groups), laconic.SGD(), model=net, timeout_s=PATIENCE_S)


def loaded_on_one_rank(rank):
    net = small_model.net()
    inner = inner_of(net.parameters())
    if rank == ODD:
        small_model.loss(net, 0, 0).backward()
        inner.step()
    return laconic.DistributedOptimizer(inner, laconic.SGD(), model=net, timeout_s=PATIENCE_S)


def with_options(rank, **odd):
    net = small_model.net()
    options = {"model": net, "timeout_s": PATIENCE_S} | (odd if rank == ODD else {})
    return laconic.DistributedOptimizer(inner_of(net.parameters()), laconic.SGD(), **options)


def of_another_version(rank):
    package = sys.modules["laconic"]
    before = package.__version__
    package.__version__ = "0.0.9" if rank == ODD else before
    try:
        return odd_inner(rank)
    finally:
        package.__version__ = before


DIFFERENCES = {  # what each rank does: what rank 0 has, what rank 1 has
    "names": ((in_another_order, {"is_named": True}), "parameter 0='0.weight' (6, 6)", "parameter 0='2.weight' (6, 6)"),
    "shapes": ((transposed, {}), "parameter 0='weight' (2, 6)", "parameter 0='weight' (6, 2)"),
    "class": ((another_class, {}), "inner=torch.optim.adamw.AdamW", "inner=torch.optim.adam.Adam"),
    "lr": ((odd_inner, {"lr": 0.5}), "lr=0.1,", "lr=0.5 (parameter group 0)"),
    "lr as a tensor": ((odd_inner, {"lr": torch.tensor(0.5)}), "lr=0.1,", "lr=0.5 (parameter group 0)"),
    "momentum": ((odd_inner, {"momentum": 0.8}), "momentum=0.9,", "momentum=0.8 (parameter group 0)"),
    "an option of one group": ((grouped, {}), "weight_decay=0.1,", "weight_decay=0.2 (parameter group 1)"),
    "state": ((loaded_on_one_rank, {}), "state of inner=none", "state of inner=momentum_buffer of 4 parameters"),
    "seed": ((with_options, {"seed": 3}), "seed=0,", "seed=3"),
    "layout": ((with_options, {"layout": "sharded"}), "layout=allreduce", "layout=sharded"),
    "local steps": ((with_options, {"local_steps": 2}), "local_steps=1", "local_steps=2"),
    "replicas": ((with_options, {"replicas": "stop"}), "replicas=sync", "replicas=stop"),
}  # fmt: skip
REFUSED = {"local_steps": -1, "layout": "shraded", "check_every": -1, "replicas": "sink"}


def error_of(task, *arguments, **options):
    """The error of a task, with the seconds that it took."""
    start = time.monotonic()
    try:
        task(*arguments, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - start
    return "nothing", 0.0


def differ(rank):
    found = {what: error_of(task, rank, **odd)[0] for what, ((task, odd), _, _) in DIFFERENCES.items()}
    found["order"] = error_of(in_another_order, rank, is_named=False)[0]
    found["version"] = error_of(of_another_version, rank)[0]
    for name, wrong in REFUSED.items():
        found["refused", name] = error_of(with_options, rank, **{name: wrong})[0]
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("laconic").addHandler(handler)
    real = torch.backends.cpu.get_cpu_capability
    torch.backends.cpu.get_cpu_capability = lambda: "NONE" if rank == ODD else real()
    try:
        found["after all of it"] = error_of(with_options, rank)[0]
        found["again"] = error_of(with_options, rank)[0]
    finally:
        torch.backends.cpu.get_cpu_capability = real
        logging.getLogger("laconic").removeHandler(handler)
    found["stated"] = records
    return found


@pytest.fixture(scope="module")
def seen():
    return run_ranks(differ, 2)


@pytest.mark.slow
@pytest.mark.parametrize("what", DIFFERENCES)
def test_a_difference_is_named_with_both_ranks_values_on_both(what, seen):
    _, of_rank_0, of_rank_1 = DIFFERENCES[what]
    for found in seen:
        assert found[what].startswith("SetupError: rank 0 and rank 1 were set up differently: rank 0 has ")
        assert f"rank 0 has {of_rank_0}" in found[what], found[what]
        assert f"rank 1 has {of_rank_1}" in found[what], found[what]


@pytest.mark.slow
def test_parameters_without_names_in_another_order_are_known_by_their_values(seen):
    for found in seen:
        assert found["order"].startswith("SetupError: rank 0 and rank 1 list their parameters in another order")
        assert "parameter 0 ('group0.0') of rank 1 has the values of rank 0's parameter 1" in found["order"]


@pytest.mark.slow
def test_another_version_is_refused_with_both_versions(seen):
    for found in seen:
        assert found["version"].startswith("SetupError: rank 0 runs laconic 0.1.0"), found["version"]
        assert "rank 1 runs laconic 0.0.9" in found["version"]


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_on_one_rank_is_shown_to_the_others_which_wait_for_nothing(name, seen):
    of_others, own = (found["refused", name] for found in seen)
    assert own.startswith(("ValueError: ", "OptionError: ")), own
    assert of_others.startswith("SetupError: rank 1 refused its own arguments (to make its DistributedOptimizer)")
    assert own in of_others


@pytest.mark.slow
def test_ranks_that_are_unlike_may_train_and_it_is_stated_once_on_rank_0(seen):
    for found in seen:
        assert (found["after all of it"], found["again"]) == ("nothing", "nothing")
    (stated,), of_rank_1 = (found["stated"] for found in seen)
    assert of_rank_1 == []
    assert "the ranks are unlike: capability " in stated
    assert "NONE on rank 1" in stated


def test_values_that_differ_by_rounding_are_equal_and_others_are_not():
    assert difference({"lr": 0.1}, {"lr": 0.1 * (1 + 1e-9)}) is None
    assert difference({"a/lr": 0.1}, {"a/lr": 0.11}) == ("lr=0.1", "lr=0.11 (a)")
    assert difference({"lr": 1, "seed": 1}, {"lr": 1.0, "seed": 2}) == ("seed=1", "seed=2")
    assert difference({"x": 1, "y": None}, {"x": 1}) == ("y=None", "no y")
    assert difference({}, {"y": "text"}) == ("no y", "y=text")


def test_of_more_settings_than_the_store_takes_the_rest_is_compared_by_a_hash():
    many = {f"parameter {number}": "x" * 100 for number in range(50_000)}
    one, other = (_beginning(many | {"parameter 49999": value}) for value in ("a", "b"))
    assert len(json.dumps(one)) < 1 << 22
    assert difference(one, other) == (f"hash={one['hash']}", f"hash={other['hash']}")
    assert _beginning({"lr": 0.1}) == {"lr": 0.1}
