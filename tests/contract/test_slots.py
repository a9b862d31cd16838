"""Every method writes the memories that its tables declare, and no others. A new method needs no change here."""

import copy
import functools

import pytest
import torch

import laconic
from laconic.contract import Algorithm
from laconic.contract.slots import rank_in
from laconic.errors import ContractError
from support import small_model
from support.inputs import each_over
from support.methods import WITH_ALL_MEMORIES as METHODS
from support.methods import layouts_of

N = 4
SIDES = ("worker_slots", "server_slots")
SLOTS = [
    (method, side, name) for method, algorithm in METHODS.items() for side in SIDES for name in getattr(algorithm, side)
]


def trained(algorithm: Algorithm, layout: str = "auto", **options) -> laconic.Simulation:
    """A few rounds of the method in float64."""
    net = small_model.net().double()
    inner = torch.optim.SGD(net.parameters(), lr=algorithm.test_lr)
    link = laconic.Link(bytes_per_s=1e3)  # slow enough to skip for
    simulation = laconic.Simulation(net, inner, algorithm, workers=N, layout=layout, link=link, **options)
    for round_ in range(4):
        simulation.step(lambda rank, round_=round_: small_model.loss(net, rank, round_))
    return simulation


def written(simulation: laconic.Simulation) -> dict[str, set[str]]:
    """By side, the names of the memories that were written; the rank of a worker is left open."""
    memories = {
        "worker_slots": [session.me.memory for session in simulation.driver.workers],
        "server_slots": [session.view.memory for session in simulation.driver.servers],
    }
    return {
        side: {name if rank_in(name) is None else f"{name.rpartition('.')[0]}.<rank>" for one in all_ for name in one}
        for side, all_ in memories.items()
    }


@functools.cache
def written_in(method: str, layout: str) -> dict[str, set[str]]:
    return written(trained(METHODS[method], layout))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_writes_what_it_declares_in_every_layout_and_with_frames(method):
    algorithm = METHODS[method]
    framed = ["rank0"] if algorithm.mode == "rounds" else []
    if algorithm.separable:
        framed.append("sharded")
    runs = [(layout, written_in(method, layout)) for layout in layouts_of(algorithm, N)]
    runs += [(layout, written(trained(algorithm, layout, faults=laconic.FaultPlan()))) for layout in framed]
    for layout, found in runs:
        for side in SIDES:
            beyond = found[side] - getattr(algorithm, side).keys()
            assert not beyond, f"{layout}: {side}"


@pytest.mark.parametrize("method", METHODS)
def test_every_declared_memory_is_written(method):
    algorithm = METHODS[method]
    found = written_in(method, "auto" if algorithm.mode != "rounds" else "rank0")
    for side in SIDES:
        assert found[side] == getattr(algorithm, side).keys()


@each_over(("method", "side", "name"), SLOTS)
def test_a_slot_that_is_missing_from_a_table_is_found(method, side, name):
    algorithm = copy.copy(METHODS[method])
    table = {other: slot for other, slot in getattr(algorithm, side).items() if other != name}
    short = type("Short", (type(algorithm),), {side: property(lambda self: table)})
    object.__setattr__(algorithm, "__class__", short)
    family = name.removesuffix("<rank>")
    with pytest.raises(ContractError, match=f"Short.{side} declares no memory '{family}"):
        trained(algorithm, "auto" if algorithm.mode != "rounds" else "rank0")
