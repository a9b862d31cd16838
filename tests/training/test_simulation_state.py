"""The state of a simulation: 4 rounds, a save, new objects, a load and 4 more end with the bits of 8 without a break.

With another number of workers the slots' rules hold: no residual is lost.
"""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_structure

import laconic
from laconic.contract import Rule
from laconic.contract.slots import rank_in, slot_of
from support import small_model
from support.inputs import failing_at, over_inputs
from support.methods import BY_LAYER, layouts_of
from support.methods import WITH_ALL_MEMORIES as METHODS

N = 4
ROUNDS = 4


def made(algorithm: laconic.Algorithm, *, workers: int = N, net=None, adam: bool = False, **options: Any):
    net = net or small_model.net().double()
    inner = (torch.optim.Adam if adam else torch.optim.SGD)(net.parameters(), lr=algorithm.test_lr)
    link = laconic.Link(bytes_per_s=1e5, latency_s=1e-3)
    return laconic.Simulation(net, inner, algorithm, workers=workers, seed=3, **({"link": link} | options))


def train(simulation: laconic.Simulation, rounds: range) -> None:
    for round_ in rounds:
        simulation.step(lambda rank, round_=round_: small_model.loss(simulation.model, rank, round_))


def bits_of(simulation: laconic.Simulation) -> list[Any]:
    leaves = tree_leaves([simulation.model.state_dict(), simulation.state_dict()])
    return [leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]


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
@pytest.mark.slow
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


class Normalized(torch.nn.Module):
    """The small model after batch norm, whose buffers differ from worker to worker."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(6, dtype=torch.float64)
        self.core = small_model.net().double()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.core(self.norm(inputs))


@pytest.mark.parametrize("method", ["sgd-model", "ssgd-mv", "ec-sgd", "dsgd, choco", "sgd-server"])
@pytest.mark.slow
def test_local_steps_adam_and_batch_norm_go_on_wherever_they_were_interrupted(method):
    algorithm = METHODS[method]
    options = {"adam": True, "local_steps": 3 if algorithm.takes_changes else 1}
    straight = made(algorithm, net=Normalized(), **options)
    train(straight, range(9))
    broken = made(algorithm, net=Normalized(), **options)
    train(broken, range(3))
    for rounds in (4, 5, 6):
        train(broken, range(rounds - 1, rounds))
        resumed = continued(broken, **options)
        train(resumed, range(rounds, 9))
        with failing_at(rounds=rounds):
            assert_equal(everything(resumed), everything(straight))


@pytest.mark.parametrize("method", [name for name, algorithm in IN_STEP.items() if algorithm.tolerates_absence])
@pytest.mark.slow
def test_faults_go_on_with_the_same_draws_and_counts(method):
    plan = laconic.FaultPlan(seed=2, lost=0.2, late=0.1, duplicated=0.1, crashed=0.1, crash_rounds=2)
    straight = made(IN_STEP[method], faults=plan, layout="rank0")
    train(straight, range(2 * ROUNDS))
    broken = made(IN_STEP[method], faults=plan, layout="rank0")
    train(broken, range(ROUNDS))
    resumed = continued(broken, faults=plan, layout="rank0")
    train(resumed, range(ROUNDS, 2 * ROUNDS))
    assert resumed.traffic.faults
    assert_equal(everything(resumed), everything(straight))


COMPUTE_S = {0: 0.01, 1: 0.013, 2: 0.037, 3: 0.008}
ASYNCHRONOUS = {
    "no bound": laconic.ASGD(),
    "one at a time": laconic.ASGD(max_staleness=0),
    "those that are too old wait": laconic.ASGD(max_staleness=3),
    "those that are too old are dropped": laconic.ASGD(max_staleness=2, staleness="drop", lr_scaling="inverse"),
    "compressed": laconic.ASGD(compressor=laconic.compressors.QSGD()),
}


def train_unless(simulation: laconic.Simulation, rounds: range, *, bad: int | None) -> None:
    """Train; the losses of worker 1 in round `bad` are infinite."""
    for round_ in rounds:

        def loss_of(rank: int, round_=round_) -> torch.Tensor:
            factor = float("inf") if (rank, round_) == (1, bad) else 1.0
            return factor * small_model.loss(simulation.model, rank, round_)

        simulation.step(loss_of)


@pytest.mark.slow
@pytest.mark.parametrize("method", ASYNCHRONOUS)
@over_inputs("bad", (None, 3, 4))
def test_gradients_and_models_in_transit_arrive_after_an_interruption(method, bad):
    options = {"compute_s": COMPUTE_S, "link": laconic.Link(bytes_per_s=1e5, latency_s=1e-3, jitter_s=1e-3)}
    straight = made(ASYNCHRONOUS[method], **options)
    train_unless(straight, range(8), bad=bad)
    broken = made(ASYNCHRONOUS[method], **options)
    for begin, end in ((0, 4), (4, 5), (5, 8)):
        train_unless(broken, range(begin, end), bad=bad)
        broken = continued(broken, **options)
    assert (straight.traffic.updates.get("aborted", 0) > 0) == (bad is not None)
    assert_equal(everything(broken), everything(straight))


@pytest.mark.parametrize("method", ASYNCHRONOUS)
def test_another_number_of_asynchronous_workers_goes_on_from_the_servers_model(method):
    options = {"compute_s": 0.01}
    saved = made(ASYNCHRONOUS[method], **options)
    train(saved, range(5))
    for n in (2, 7):
        resumed = continued(saved, workers=n, **options)
        assert torch.equal(resumed.parameters_of(n - 1), saved.flat.values())
        assert sum(resumed.traffic.staleness.values()) == sum(saved.traffic.staleness.values())
        assert resumed.driver.clock.now_ns == saved.driver.clock.now_ns
        train(resumed, range(5, 8))
        assert resumed.traffic.rounds == 8
        assert sum(resumed.traffic.staleness.values()) >= sum(saved.traffic.staleness.values()) + 2 * n
        assert torch.isfinite(resumed.flat.values()).all()


@pytest.mark.parametrize("method", ["ec-sgd", "asgd"])
def test_an_observer_sees_the_traffic_of_its_round_alone_after_a_state_is_loaded(method):
    options = {"compute_s": 0.01, "layout": "dedicated"}
    saved, here = made(METHODS[method], **options), made(METHODS[method], **options)
    train(saved, range(ROUNDS))
    seen = []
    here.driver.recorder.observe(seen.append)
    here.load_state_dict(saved.state_dict())
    before = here.traffic
    train(here, range(ROUNDS, ROUNDS + 1))
    (stats,) = seen
    assert stats.round == ROUNDS
    assert stats.up["update"].messages == here.traffic.up.messages - before.up.messages
    assert stats.up["update"].messages <= 2 * N


# What does not fit.


def change(state: Any, path: tuple[Any, ...], value: Any) -> None:
    """Replace what is found in a state along a path of keys."""
    for key in path[:-1]:
        state = state[key]
    if value is None:
        del state[path[-1]]
    else:
        state[path[-1]] = value


RESIDUAL = ("driver", "workers", 1, "memory", "residual", "0.bias", 0)
SERVER = ("driver", "servers", 0, "memory", "residual", "2.weight", 0)
NAN = float("nan") * torch.ones(11, dtype=torch.float64)
REFUSED = {
    "another value type": (RESIDUAL, torch.zeros(11), "'residual' is torch.float32"),
    "inf or NaN": (RESIDUAL, NAN, "'residual' has inf or NaN"),
    "a parameter too short": (
        RESIDUAL,
        torch.zeros(10, dtype=torch.float64),
        "'residual' has nothing for coordinate 76, or",
    ),
    "a parameter missing": (RESIDUAL[:-1], None, "'residual' has nothing for coordinate 66, or"),
    "at the server": (SERVER, torch.full((33,), float("inf"), dtype=torch.float64), "'residual' has inf or NaN"),
    "an unknown memory": ((*RESIDUAL[:4], "residuals"), torch.zeros(3), "declares no memory 'residuals'"),
    "a part missing": (("training",), None, "the part 'training' is not complete"),
    "a session's memories missing": (RESIDUAL[:4], None, "the part 'driver' is not complete: KeyError('memory')"),
    "buffers": (("workers", "buffers", 0), [torch.zeros(1)], "the buffers are not those of this model"),
    "seed": (("seed",), 4, "seed is 4 in the saved state and 3 here"),
    "version": (("version",), 3, "version is 3 in the saved state and 5 here"),
    "one rank's state": (("rank",), 0, "rank is 0 in the saved state and None here"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_state_that_does_not_fit_is_refused_before_anything_changes(what):
    path, value, message = REFUSED[what]
    algorithm = laconic.ECSGD()
    saved, here = made(algorithm), made(algorithm)
    train(saved, range(ROUNDS))
    train(here, range(2))
    state = copy.deepcopy(saved.state_dict())
    change(state["laconic"], path, value)
    before = copy.deepcopy(everything(here))
    with pytest.raises(ValueError, match=r"^state_dict: ") as caught:
        here.load_state_dict(state)
    assert message in str(caught.value)
    assert_equal(everything(here), before)


@pytest.mark.parametrize("votes", [torch.arange(-1, 27), torch.arange(87, 115), torch.arange(27)])
def test_votes_for_coordinates_that_do_not_exist_are_refused(votes):
    saved, here = made(METHODS["ssgd-mv-ad"]), made(METHODS["ssgd-mv-ad"])
    train(saved, range(2))
    state = saved.state_dict()
    assert state["laconic"]["driver"]["workers"][2]["memory"]["votes"].shape == (28,)
    state["laconic"]["driver"]["workers"][2]["memory"]["votes"] = votes
    with pytest.raises(ValueError, match="state_dict: the memory 'votes' has "):
        here.load_state_dict(state)


def test_another_number_of_workers_in_the_middle_of_local_steps_is_refused():
    saved, here = made(METHODS["sgd-model"], local_steps=3), made(METHODS["sgd-model"], workers=3, local_steps=3)
    train(saved, range(4))
    with pytest.raises(ValueError, match=r"between two exchanges; to go on with 3, call exchange_steps\(\)"):
        here.load_state_dict(saved.state_dict())
    saved.exchange_steps()
    here.load_state_dict(saved.state_dict())


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


def marks_of(method: str, layout: str, *, encoded: bool) -> list[pytest.MarkDecorator]:
    """By day, further settings of a method have one layout, and slices whose frames are encoded."""
    is_home = layout == ("rank0" if IN_STEP[method].mode == "rounds" else "peers")
    return [] if method in laconic.ALGORITHMS or is_home or encoded else [pytest.mark.nightly]


CASES = [
    pytest.param(method, layout, encoded, marks=marks_of(method, layout, encoded=encoded))
    for method, algorithm in IN_STEP.items()
    for layout in layouts_of(algorithm, N)
    for encoded in ((False, True) if layout == "sharded" else (False,))
] + [pytest.param(*case, True) for case in BY_LAYER]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "layout", "encoded"), CASES)
def test_another_number_of_workers_follows_the_slots_rules_and_loses_no_residual(method, layout, encoded):
    algorithm = IN_STEP[method]
    options = {"layout": layout} | ({"faults": laconic.FaultPlan()} if encoded else {})
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
        train(resumed, range(ROUNDS, ROUNDS + 2))
        assert torch.isfinite(resumed.flat.values()).all()
        assert resumed.traffic.rounds == ROUNDS + 2
        assert resumed.traffic.up.messages > saved.traffic.up.messages


@pytest.mark.parametrize("options", [{}, {"side_by_side": 2}], ids=["one after the other", "side by side"])
def test_a_copy_of_a_simulation_with_its_model_goes_on_with_the_same_bits_beside_it(options):
    simulation = made(METHODS["ec-sgd"], **options)
    train(simulation, range(ROUNDS))
    copied, before = copy.deepcopy(simulation), bits_of(simulation)
    train(copied, range(ROUNDS, 2 * ROUNDS))
    assert bits_of(simulation) == before
    train(simulation, range(ROUNDS, 2 * ROUNDS))
    assert bits_of(copied) == bits_of(simulation)


@pytest.mark.parametrize("write", [pickle.dumps, copy.copy, lambda it: torch.save(it, io.BytesIO())])
def test_a_simulation_that_is_pickled_says_what_to_save(write):
    with pytest.raises(TypeError, match=r"cannot be pickled.*save simulation\.state_dict\(\) and the model's"):
        write(made(laconic.ECSGD()))
