"""Every public constructor refuses wrong types and ranges when it is called, and prints as a line to paste back."""

import dataclasses
import math
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch

import laconic
from laconic.hyperparameters import hyperparameters_of, value_type
from laconic.units import bytes_text
from support import methods, small_model
from support.inputs import over_inputs

NAMES = {name: getattr(laconic, name) for name in laconic.__all__}
DECLARED = {name: cls for name, cls in NAMES.items() if dataclasses.is_dataclass(cls)
            and not getattr(cls, "__abstractmethods__", None) and hyperparameters_of(cls)}  # fmt: skip
MADE = {  # objects with values of their own
    "Link": laconic.Link(bytes_per_s=1.5e6, latency_s=0.01, jitter_s=1e-3, loss=0.01, retransmit_s=0.2),
    "Event": laconic.Event(round=3, worker=1, kind="lost", exchange=0),
    "FaultPlan": laconic.FaultPlan(
        seed=3, lost=0.1, rescale=(0.5, 2), stragglers={1: 4.0}, slow_links={0: 0.5}, inverted_links=1,
        events=[laconic.Event(round=1, worker=0, kind="crashed")],
    ),
    "ComputeTime": laconic.ComputeTime(seconds={0: 0.1, 1: 0.2}, factors={1: 3}, tail_s=0.01),
    "Mixing": laconic.Mixing.from_text("ring", 5),
    "Count": laconic.Count(messages=2, wire_bytes=100, payload_bits=640, paper_bits=600.5),
    "Traffic": laconic.Traffic(
        up=laconic.Count(messages=2), down=laconic.Count(), setup=laconic.Count(), rounds=2, aborted_rounds=0,
        seconds={"compute": 1.5}, up_by_exchange={"update": laconic.Count(messages=2)}, staleness={0: 3},
    ),
}  # fmt: skip
MIXINGS = [
    laconic.Mixing.from_text("0-1:0.25 1-2:0.5", 3),
    laconic.Mixing.from_matrix([[0.7, 0.3], [0.3, 0.7]]),
    laconic.Mixing.from_text("shift-one", 4, 1),
    laconic.Mixing.over_cycle("shift-one", 4),
]
WITH_STATE = {"DistributedOptimizer", "PrometheusEndpoint", "RunLog", "Simulation"}
WRONG: dict[str, list[tuple[dict[str, Any], str]]] = {
    "Link": [
        ({"bytes_per_s": "100Mbit"}, "bytes_per_s='100Mbit' must be a number.*units.bandwidth"),
        ({"bytes_per_s": True}, "bytes_per_s=True"), ({"bytes_per_s": math.nan}, "bytes_per_s=nan"),
        ({"latency_s": -1}, "latency_s=-1"), ({"latency_s": None}, "latency_s=None"),
        ({"jitter_s": math.inf}, "jitter_s=inf"), ({"loss": 1}, "loss=1"),
        ({"retransmit_s": "1s"}, "retransmit_s='1s'"),
    ],
    "Event": [
        ({"round": True, "worker": 0, "kind": "lost"}, "round=True"),
        ({"round": 0, "worker": "1", "kind": "lost"}, "worker='1'"),
        ({"round": 0, "worker": 0, "kind": "gone"}, "kind='gone'"),
        ({"round": 0, "worker": 0, "kind": "lost", "exchange": -1}, "exchange=-1"),
    ],
    "FaultPlan": [
        ({"lost": "0.1"}, "lost='0.1'"), ({"lost": math.nan}, "lost=nan"), ({"crashed": 1}, "crashed=1"),
        ({"crash_rounds": 1.5}, "crash_rounds=1.5"), ({"seed": -1}, "seed=-1"), ({"rescale": 2}, "rescale=2"),
        ({"rescale": (2, 1)}, r"rescale=\[2, 1\]"), ({"stragglers": [4.0]}, r"stragglers=\[4.0\]"),
        ({"stragglers": {0: "slow"}}, "worker 0='slow'"), ({"events": ["lost"]}, "events="),
        ({"straggle_factor": math.inf}, "straggle_factor=inf"), ({"slow_links": {"0": 1}}, "worker='0'"),
    ],
    "ComputeTime": [
        ({"seconds": "20ms"}, "seconds='20ms'"), ({"seconds": {0: None}}, r"seconds\[0\]=None"),
        ({"seconds": math.nan}, "seconds=nan"), ({"factors": 2}, "factors=2"), ({"factors": {"a": 1}}, "node='a'"),
        ({"tail_s": True}, "tail_s=True"),
    ],
    "Mixing": [
        ({"rows": "ring", "self_weights": ()}, "rows='ring'"),
        ({"rows": ((),), "self_weights": (0.5,)}, "worker 0 sum to 0.5"),
        ({"rows": (((1, 0.5),), ()), "self_weights": (0.5, 1.0)}, "symmetric"),
        ({"rows": (((2, 0.5),), ()), "self_weights": (0.5, 1.0)}, "names worker 2"),
        ({"rows": (((1, math.nan),), ()), "self_weights": (0.5, 1.0)}, "nan"),
    ],
    "Count": [
        ({"messages": "1"}, "messages='1'"), ({"wire_bytes": -1}, "wire_bytes=-1"),
        ({"messages": True}, "messages=True"),
        ({"paper_bits": math.nan}, "paper_bits=nan"), ({"payload_bits": 1.5}, "payload_bits=1.5"),
    ],
    "Traffic": [
        (vars(MADE["Traffic"]) | {"up": 3}, "up=3"), (vars(MADE["Traffic"]) | {"rounds": -1}, "rounds=-1"),
        (vars(MADE["Traffic"]) | {"seconds": 1.0}, "seconds=1.0"),
        (vars(MADE["Traffic"]) | {"served": 3}, "served=3"),
        (vars(MADE["Traffic"]) | {"replica_syncs": -1}, "replica_syncs=-1"),
    ],
}  # fmt: skip


def wrong_values(cls: type) -> Iterator[tuple[str, Any]]:
    """For each hyper-parameter, values that it cannot have."""
    for field, spec in hyperparameters_of(cls):
        kind = value_type(field)
        if spec.kinds:
            yield from ((field.name, wrong) for wrong in ("never", 1, type(field.default)))
        elif spec.choices or kind is str:
            yield from ((field.name, wrong) for wrong in (["no such choice"], 3.5, True))
        elif kind is bool:
            yield from ((field.name, wrong) for wrong in ("true", 1))
        else:
            yield from ((field.name, wrong) for wrong in ("0.5", True, [1], *([1.5] if kind is int else [])))
            if spec.within:
                low, high = (float(end) for end in spec.within[1:-1].split(","))
                outside = ([] if low == -math.inf else [low - 1]) + ([] if high == math.inf else [high + 1])
                yield from ((field.name, kind(wrong)) for wrong in outside)
                if kind is float:
                    yield field.name, math.nan


def settings_of(name: str) -> dict[str, Any]:
    cls = NAMES[name]
    return dict(getattr(cls, "test_settings", {}))


def test_every_public_name_is_covered_here_or_is_no_constructor_of_users():
    made_by_the_library = {"Algorithm", "Inbox", "Reply", "RoundStats", "Server", "Worker", "Step", "ALGORITHMS"}
    functions = {name for name, value in NAMES.items() if isinstance(value, FunctionType)}
    errors = {
        name for name, value in NAMES.items() if isinstance(value, type) and issubclass(value, BaseException | Warning)
    }
    without_settings = {name for name, value in NAMES.items() if name not in made_by_the_library
                        and dataclasses.is_dataclass(value) and not dataclasses.fields(value)}  # fmt: skip
    covered = {*DECLARED, *MADE, *WITH_STATE, *made_by_the_library, *functions, *errors, *without_settings}
    assert covered == set(laconic.__all__)
    assert MADE.keys() == WRONG.keys()


@over_inputs("name", DECLARED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_settings_of_a_wrong_type_or_out_of_range_are_refused_with_their_name(name):
    for field, wrong in wrong_values(DECLARED[name]):
        with pytest.raises((TypeError, ValueError)) as caught:
            DECLARED[name](**{field: wrong})
        assert field in str(caught.value), (field, wrong, str(caught.value))
        assert str(wrong)[:20] in str(caught.value), (field, wrong, str(caught.value))


@over_inputs("name", WRONG)
def test_values_of_a_wrong_type_or_out_of_range_are_refused_with_their_name(name):
    for settings, why in WRONG[name]:
        with pytest.raises((TypeError, ValueError), match=why):
            NAMES[name](**settings)


@over_inputs("name", DECLARED)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_numbers_of_numpy_are_taken_as_pythons_own(name):
    plain = DECLARED[name](**settings_of(name))
    given = {}
    for field, _ in hyperparameters_of(DECLARED[name]):
        value = getattr(plain, field.name)
        if type(value) in (int, float):
            given[field.name] = (np.int64 if type(value) is int else np.float64)(value)
    made = DECLARED[name](**settings_of(name) | given)
    assert made == plain
    assert repr(made) == repr(plain)
    assert all(type(getattr(made, field)) in (int, float) for field in given)


@over_inputs("name", [*DECLARED, *MADE])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_object_prints_as_a_line_that_makes_an_equal_one(name):
    made = [MADE[name]] if name in MADE else [DECLARED[name](), DECLARED[name](**settings_of(name))]
    if name == "Mixing":
        made += MIXINGS
    if name in ("Link", "FaultPlan", "ComputeTime", "Count"):
        made.append(NAMES[name]())
    for one in made:
        line = repr(one)
        assert "\n" not in line
        assert eval(line, dict(NAMES)) == one, line


def test_numbers_of_numpy_make_equal_links_plans_and_times():
    assert laconic.Link(bytes_per_s=np.float32(1024), latency_s=np.float64(0.5)) == laconic.Link(
        bytes_per_s=1024, latency_s=0.5
    )
    plan = laconic.FaultPlan(seed=np.int64(3), lost=np.float64(0.25), stragglers={np.int64(1): np.float32(4)})
    assert repr(plan) == "FaultPlan(seed=3, lost=0.25, stragglers={1: 4.0})"
    assert repr(laconic.ComputeTime(seconds=np.float64(0.25))) == "ComputeTime(seconds=0.25)"


SIMULATION = [
    ({"link": "100Mbit"}, r"link='100Mbit' must be a laconic\.Link"), ({"links": [laconic.Link()]}, "links="),
    ({"links": {0: "1Mbit"}}, r"links\[0\]='1Mbit' must be a laconic\.Link"), ({"workers": "2"}, "workers='2'"),
    ({"workers": True}, "workers=True"), ({"workers": 0}, "workers=0"), ({"compute_s": "20ms"}, "compute_s='20ms'"),
    ({"compute_s": math.nan}, "compute_s=nan"), ({"faults": "lost"}, "faults='lost'"), ({"seed": 0.5}, "seed=0.5"),
    ({"seed": 2**63}, "seed="), ({"local_steps": True}, "local_steps=True"), ({"frames": "all"}, "frames='all'"),
    ({"layout": "ring"}, "layout='ring'"), ({"model": None}, "model=None"), ({"inner": "sgd"}, "inner='sgd'"),
    ({"algorithm": "sgd"}, "algorithm='sgd'"),
]  # fmt: skip


@over_inputs(("settings", "why"), SIMULATION)
def test_a_simulation_refuses_wrong_arguments_by_name(settings, why):
    net = small_model.net()
    arguments = {"model": net, "inner": torch.optim.SGD(net.parameters(), lr=0.1), "algorithm": laconic.SGD(),
                 "workers": 2} | settings  # fmt: skip
    with pytest.raises((TypeError, ValueError), match=why):
        laconic.Simulation(**arguments)


OPTIMIZER = [
    ({"seed": "1"}, "seed='1'"), ({"seed": True}, "seed=True"), ({"seed": -(2**64)}, "seed="),
    ({"check_every": "100"}, "check_every='100'"), ({"check_every": 1.5}, "check_every=1.5"),
    ({"timeout_s": "5min"}, "timeout_s='5min'"), ({"timeout_s": math.nan}, "timeout_s=nan"),
    ({"layout": 3}, "layout=3"), ({"model": "net"}, "model='net'"), ({"group": "world"}, "group='world'"),
    ({"local_steps": 0}, "local_steps=0"),
]  # fmt: skip


@over_inputs(("settings", "why"), OPTIMIZER)
def test_a_distributed_optimizer_refuses_wrong_arguments_by_name(settings, why, group_of_one):
    with pytest.raises((TypeError, ValueError), match=why):
        laconic.DistributedOptimizer(torch.optim.SGD(small_model.net().parameters(), lr=0.1), laconic.SGD(), **settings)


def test_optimizers_and_simulations_take_numpys_numbers_and_print_as_one_line(group_of_one):
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    opt = laconic.DistributedOptimizer(
        inner, laconic.SGD(), local_steps=np.int64(2), seed=np.int32(3), check_every=np.int64(5)
    )
    assert repr(opt) == (
        "DistributedOptimizer(SGD(lr=0.1), SGD(), layout='allreduce', local_steps=2): rank 0 of 1, 113 parameters, "
        "round 0"
    )
    simulation = laconic.Simulation(net, inner, laconic.SGD(), workers=np.int64(3), compute_s=np.float64(0.5))
    made = "Simulation(Sequential, SGD, SGD(), workers=3, layout='allreduce')"
    assert repr(simulation) == f"{made}: 113 parameters, round 0"


def test_traffic_prints_as_a_small_table():
    net = small_model.net()
    algorithm = methods.with_test_settings("ssgd-mv")
    simulation = laconic.Simulation(net, torch.optim.SGD(net.parameters(), lr=0.1), algorithm, workers=2)
    for round_ in range(3):
        simulation.step(lambda rank, round_=round_: small_model.loss(net, rank, round_))
    traffic = simulation.traffic
    lines = str(traffic).splitlines()
    assert lines[0].split() == ["messages", "skips", "wire", "local", "payload", "paper"]
    assert [line.split("  ")[0] for line in lines[1:6]] == ["up", "down", "setup", "up, positions", "up, values"]
    assert bytes_text(traffic.up.wire_bytes) in lines[1]
    assert "3 rounds, 0 aborted" in lines[-3]
    assert max(map(len, lines)) <= 100
    assert all(line == line.rstrip() for line in lines)
