"""The state of a simulation: 6 rounds, a save, new objects, a load and 6 more end with the bits of 12 without a break.

With another number of workers the slots' rules hold: no residual is lost.
"""

import copy
import io
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_structure

import laconic
from laconic.contract import Rule
from laconic.contract.slots import rank_in, slot_of
from support import small_model
from support.methods import WITH_ALL_MEMORIES as METHODS
from support.methods import layouts_of

N = 4
ROUNDS = 6


def made(algorithm: laconic.Algorithm, *, workers: int = N, net=None, adam: bool = False, **options: Any):
    net = net or small_model.net().double()
    inner = (torch.optim.Adam if adam else torch.optim.SGD)(net.parameters(), lr=algorithm.test_lr)
    link = laconic.Link(bytes_per_s=1e5, latency_s=1e-3)
    return laconic.Simulation(net, inner, algorithm, workers=workers, seed=3, **({"link": link} | options))


def train(simulation: laconic.Simulation, rounds: range) -> None:
    for round_ in rounds:
        simulation.step(lambda rank, round_=round_: small_model.loss(simulation.model, rank, round_))


def through_a_file(*states: Any) -> Any:
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def continued(simulation: laconic.Simulation, **options: Any) -> laconic.Simulation:
    """A new simulation that goes on where another one is."""
    model_state, state = through_a_file(simulation.model.state_dict(), simulation.state_dict())
    net = copy.deepcopy(simulation.model)
    for parameter in net.parameters():
        parameter.data.fill_(7.0)
    resumed = made(simulation.algorithm, net=net, **options)
    net.load_state_dict(model_state)
    resumed.load_state_dict(state)
    return resumed


def everything(simulation: laconic.Simulation) -> dict[str, Any]:
    return {"state": simulation.state_dict(), "model": simulation.model.state_dict(), "traffic": simulation.traffic}


def assert_equal(one: Any, other: Any) -> None:
    """Equal structure and equal leaves, tensors bit for bit."""
    leaves = [tree_leaves(tree) for tree in (one, other)]
    assert tree_structure(one) == tree_structure(other)
    for leaf, other_leaf in zip(*leaves, strict=True):
        if isinstance(leaf, torch.Tensor):
            torch.testing.assert_close(leaf, other_leaf, rtol=0, atol=0, equal_nan=True)
        else:
            assert repr(leaf) == repr(other_leaf)


IN_STEP = {name: algorithm for name, algorithm in METHODS.items() if algorithm.mode != "arrivals"}


@pytest.mark.parametrize("method", IN_STEP)
def test_a_simulation_goes_on_with_the_same_bits_bytes_and_nanoseconds(method):
    algorithm = IN_STEP[method]
    straight = made(algorithm)
    train(straight, range(2 * ROUNDS))
    broken = made(algorithm)
    train(broken, range(ROUNDS))
    resumed = continued(broken)
    train(resumed, range(ROUNDS, 2 * ROUNDS))
    assert everything(resumed)["traffic"] == everything(straight)["traffic"]
    assert resumed.driver.clock.now_ns == straight.driver.clock.now_ns
    assert_equal(everything(resumed)["model"], everything(straight)["model"])
    assert_equal(everything(resumed)["state"], everything(straight)["state"])


# Another number of workers.

OTHERS = (2, 7)


def memories_of(simulation: laconic.Simulation) -> list[dict[str, torch.Tensor]]:
    return [session.me.memory.saved() for session in simulation.driver.workers]


def served_by(simulation: laconic.Simulation) -> dict[str, torch.Tensor]:
    """The servers' memories, slices of vectors joined; indices are those of the full vector."""
    found: dict[str, list[torch.Tensor]] = {}
    for session in simulation.driver.servers:
        for name, value in session.view.memory.saved().items():
            slot = session.view.memory.slots.find(name)
            offset = session.view.offset if slot.values == "indices" else 0
            is_sliced = slot.length == "d" or slot.values == "indices" or slot.at
            found[name] = [*(found.get(name, []) if is_sliced else []), value + offset]
    return {name: torch.cat(values) if values[0].dim() else values[0] for name, values in found.items()}


def expected_of(name: str, slot: laconic.contract.Slot, old: list[dict[str, torch.Tensor]], rank: int, n: int):
    """The value of a memory of worker `rank` of n, given those of the old workers; None if it has none."""
    values = [memory.get(name) for memory in old]
    if slot.rule is Rule.DROP:
        return None
    if slot.rule is Rule.SUM and rank == 0:
        return values[0] + sum(value for value in values[n:] if value is not None)
    if rank < len(old):
        return values[rank]
    if slot.rule is Rule.MEAN:
        return sum(values) / len(values)
    return values[0] if slot.rule is Rule.SAME else None


CASES = [
    (method, layout, frames)
    for method, algorithm in IN_STEP.items()
    for layout in layouts_of(algorithm, N)
    for frames in ((False, True) if layout == "sharded" else (False,))
]


@pytest.mark.parametrize(("method", "layout", "frames"), CASES)
def test_another_number_of_workers_follows_the_slots_rules_and_loses_no_residual(method, layout, frames):
    algorithm = IN_STEP[method]
    options = {"layout": layout} | ({"faults": laconic.FaultPlan()} if frames else {})
    saved = made(algorithm, **options)
    train(saved, range(ROUNDS))
    old, served = memories_of(saved), served_by(saved)
    names = {name for memory in old for name in memory}
    for n in OTHERS:
        resumed = continued(saved, workers=n, **options)
        new = memories_of(resumed)
        for name in names:
            slot = slot_of(algorithm.worker_slots, name)
            for rank, memory in enumerate(new):
                expected = expected_of(name, slot, old, rank, n)
                assert (name in memory) == (expected is not None), f"{name} of worker {rank} of {n}"
                if expected is not None:
                    torch.testing.assert_close(memory[name], expected, rtol=1e-12, atol=1e-12)
            if slot.rule is Rule.SUM:
                now, before = (sum(memory[name] for memory in all_ if name in memory) for all_ in (new, old))
                assert float(before.abs().max()) > 0
                assert float((now - before).abs().max()) <= 1e-12 * float(before.abs().max())
        stays = {name: value for name, value in served.items() if (rank_in(name) or 0) < n}
        assert_equal(served_by(resumed), stays)
        train(resumed, range(ROUNDS, ROUNDS + 3))
        assert torch.isfinite(resumed.flat.values()).all()
        assert resumed.traffic.rounds == ROUNDS + 3
        assert resumed.traffic.up.messages > saved.traffic.up.messages
