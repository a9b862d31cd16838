"""State from a file is input: whatever stands in it, it is refused and nothing changes, or a step works afterwards."""

import copy
import math
import random
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import laconic
from support import optimizers, small_model
from support.methods import WITH_ALL_MEMORIES as METHODS

pytestmark = pytest.mark.usefixtures("group_of_one")

TENSORS = {
    "out of range": lambda value: torch.full_like(value, 2_000_000_000),
    "below zero": lambda value: torch.full_like(value, -7),
    "shorter": lambda value: value.reshape(-1)[:-1],
    "longer": lambda value: torch.cat([value.reshape(-1)] * 2),
    "empty": lambda value: value.reshape(-1)[:0],
    "another type": lambda value: value.to(torch.int16 if value.dtype != torch.int16 else torch.int32),
    "complex": lambda value: value.to(torch.complex64),
    "inf": lambda value: value * math.inf if value.is_floating_point() else value.flip(0),
    "nan": lambda value: value * math.nan if value.is_floating_point() else torch.zeros_like(value),
    "a matrix": lambda value: value.reshape(1, -1),
    "sparse": lambda value: value.reshape(-1).to_sparse(),
    "meta": lambda value: value.to("meta"),
    "a parameter": lambda value: torch.nn.Parameter(value.float()),
    "a text": lambda value: "3",
    "nothing": lambda value: None,
}
DATA = (None, -1, 1 << 70, 2.5, math.nan, True, "x", [], {}, [1, 2], torch.ones(2), b"x")


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything in a state, also of what holds more."""
    found = [path] if path else []
    if isinstance(tree, dict):
        found += [each for key, value in tree.items() for each in leaves(value, (*path, key))]
    elif isinstance(tree, list):
        found += [each for number, value in enumerate(tree) for each in leaves(value, (*path, number))]
    return found


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def mutated(state: dict[str, Any], path: tuple[Any, ...], how: Any) -> dict[str, Any]:
    """A copy of a state in which one thing is another."""
    state = copy.deepcopy(state)
    holder = at(state, path[:-1])
    if how == "missing":
        del holder[path[-1]]
    elif isinstance(how, str) and how in TENSORS and isinstance(holder[path[-1]], Tensor):
        holder[path[-1]] = TENSORS[how](holder[path[-1]])
    else:
        holder[path[-1]] = how
    return state


def mutations_of(state: dict[str, Any]) -> list[tuple[tuple[Any, ...], Any]]:
    """Every way in which one thing in a state can be another."""
    found: list[tuple[tuple[Any, ...], Any]] = []
    for path in leaves(state["laconic"], ("laconic",)):
        is_tensor = isinstance(at(state, path), Tensor)
        found += [(path, how) for how in ("missing", *(TENSORS if is_tensor else DATA))]
    return found


class OverProcesses:
    """One rank."""

    def __init__(self, algorithm: laconic.Algorithm) -> None:
        self.net = small_model.net()
        inner = torch.optim.SGD(self.net.parameters(), lr=algorithm.test_lr, momentum=0.9)
        self.job = laconic.DistributedOptimizer(inner, algorithm, model=self.net)

    def step(self, round_: int) -> None:
        optimizers.one_step(self.job, self.net, 0, round_)


class Simulated:
    """Three workers."""

    def __init__(self, algorithm: laconic.Algorithm) -> None:
        self.net = small_model.net()
        inner = torch.optim.SGD(self.net.parameters(), lr=algorithm.test_lr)
        self.job = laconic.Simulation(self.net, inner, algorithm, workers=3, compute_s=0.01)

    def step(self, round_: int) -> None:
        self.job.step(lambda rank: small_model.loss(self.net, rank, round_))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or repr(one) == repr(other)


def outcome(saved: dict[str, Any], kind: Any, algorithm: laconic.Algorithm, path: tuple[Any, ...], how: Any) -> str:
    """Load a mutated state. Returns what happened: it was refused, or a step worked after it."""
    here = kind(algorithm)
    here.step(0)
    before = copy.deepcopy(here.job.state_dict()), small_model.values(here.net)
    what = f"{algorithm.name}, {kind.__name__}: {'.'.join(map(str, path))} {how!r:.40}"
    try:
        here.job.load_state_dict(mutated(saved, path, how))
    except ValueError:
        assert same(before, (here.job.state_dict(), small_model.values(here.net))), what
        here.step(1)
        return "refused"
    try:
        here.step(1)
    except laconic.ContractError:  # lists of worker and server that do not belong together
        return "named"
    return "goes on"


CASES = [
    (name, kind)
    for name, algorithm in METHODS.items()
    for kind in (Simulated, OverProcesses)
    if kind is Simulated or algorithm.mode != "arrivals"
]
each = pytest.mark.parametrize(("name", "kind"), CASES, ids=lambda value: getattr(value, "__name__", value))


def outcomes(name: str, kind: Any, n: int | None) -> set[str]:
    algorithm = METHODS[name]
    job = kind(algorithm)
    for round_ in range(4):
        job.step(round_)
    saved = job.job.state_dict()
    for group in saved["param_groups"]:
        group.pop("laconic", None)
    mutations = mutations_of(saved)
    if n is not None:
        mutations = random.Random(name + kind.__name__).sample(mutations, n)
    return {outcome(saved, kind, algorithm, *mutation) for mutation in mutations}


@pytest.mark.slow
@each
def test_a_state_with_one_thing_changed_is_refused_or_a_step_works(name, kind):
    assert outcomes(name, kind, 2) <= {"refused", "goes on", "named"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Simulated, OverProcesses])
@pytest.mark.parametrize("name", ["version", "algorithm", "layout", "rank", "local_steps", "parameters"])
def test_what_a_state_is_of_may_be_missing_or_no_single_value(name, kind):
    method = METHODS["ec-sgd"]
    saved = kind(method)
    saved.step(0)
    for how in ("missing", torch.ones(2), None):
        assert outcome(saved.job.state_dict(), kind, method, ("laconic", name), how) in ("refused", "goes on")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ec-sgd", "sgd-server"])
@pytest.mark.parametrize("kind", [Simulated, OverProcesses])
def test_a_tensor_in_place_of_a_mapping_is_refused_before_torch_is_asked_for_one(name, kind, monkeypatch):
    monkeypatch.delattr(sys, "last_value", raising=False)  # set where torch's warning, an error here, meets another one
    saved = kind(METHODS[name])
    saved.step(0)
    state = saved.job.state_dict()
    for path in leaves(state["laconic"], ("laconic",)):
        if (
            isinstance(at(state, path), dict) and "memory" not in path and "optimizer" not in path[:-1]
        ):  # torch reads those
            outcome(state, kind, METHODS[name], path, torch.ones(2))
            assert not hasattr(sys, "last_value"), path


@pytest.mark.parametrize("part", ["driver", "training", "workers"])
def test_a_simulation_lacks_none_of_its_parts(part):
    saved = Simulated(METHODS["ec-sgd"])
    saved.step(0)
    state = saved.job.state_dict()
    for how in ("missing", None):
        assert outcome(state, Simulated, METHODS["ec-sgd"], ("laconic", part), how) == "refused"


@pytest.mark.nightly
@each
def test_every_single_change_of_a_state_is_refused_or_a_step_works(name, kind):
    assert "refused" in outcomes(name, kind, None)


def test_a_position_outside_of_the_model_never_reaches_a_kernel():
    algorithm = METHODS["sasg, corrected"]
    saved = OverProcesses(algorithm)
    for round_ in range(4):
        saved.step(round_)
    state = saved.job.state_dict()
    server = state["laconic"]["driver"]["servers"][0]["memory"]
    server["positions.0"] = server["positions.0"].clone()
    server["positions.0"][-1] = 2_000_000_000
    here = OverProcesses(algorithm)
    with pytest.raises(ValueError, match=r"'positions.0' has indices .* must be within 0 \.\. 112"):
        here.job.load_state_dict(state)
    assert not here.job.inner.state
    assert here.job.traffic.rounds == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state["state"][0].update(momentum_buffer=torch.zeros(3)),
        lambda state: state["param_groups"][0].pop("lr"),
        lambda state: state["param_groups"][0].update(lr="fast"),
        lambda state: state["param_groups"][0]["params"].pop(),
        lambda state: state.update(state=7),
    ],
    ids=["another shape", "no lr", "lr of text", "a parameter less", "no mapping"],
)
def test_a_state_that_the_inner_optimizer_cannot_use_changes_nothing(damage):
    saved, here = OverProcesses(METHODS["ec-sgd"]), OverProcesses(METHODS["ec-sgd"])
    for round_ in range(3):
        saved.step(round_)
    here.step(0)
    before = copy.deepcopy(here.job.state_dict())
    state = copy.deepcopy(saved.job.state_dict())
    damage(state)
    with pytest.raises(ValueError, match=r"^state_dict: |parameter group"):
        here.job.load_state_dict(state)
    assert same(before, here.job.state_dict())
    here.step(1)
