"""Layers that are used in some rounds, by some ranks: processes do what the simulator does, in every layout.

The simulator sees all gradients and knows what was used. Processes find out: see `training/active_parameters.py`.
"""

import dataclasses
from itertools import pairwise

import pytest
import torch

import laconic
from laconic import ASGD, DSGD, SGD
from laconic.compressors import DenseValues, TopK
from support import methods, optimizers, small_model
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share

N = 4
ROUNDS = 14


def uses(rank, round_):
    """Whether a rank uses the layer: all in turns of rounds, then ranks in turn, then one alone, then nobody."""
    if round_ < 4:
        return round_ % 2 == 1
    if round_ < 8:
        return rank == round_ % 3
    return rank == 1 if round_ < 11 else False


USED = [any(uses(rank, round_) for rank in range(3)) for round_ in range(ROUNDS)]
CASES = {f"{name}-{layout}": (name, layout, 1) for name, layout in methods.in_step_with_layouts(N)} | {
    f"{name}-{layout}, local steps": (name, layout, 2)
    for name, layout in [
        ("sgd", "allreduce"),
        ("ec-sgd", "rank0"),
        ("ssgd-mv", "rank0"),
        ("compskip", "sharded"),
        ("dsgd", "peers"),
    ]
}


def chosen():
    """All cases. One layout a method runs every day, another one for each next method; the others are nightly."""
    by_method = {}
    for case, (name, _, local_steps) in CASES.items():
        if local_steps == 1:
            by_method.setdefault(name, []).append(case)
    by_day = {cases[place % len(cases)] for place, cases in enumerate(by_method.values())}
    by_day |= {case for case, (_, _, local_steps) in CASES.items() if local_steps > 1}
    return [case if case in by_day else pytest.param(case, marks=pytest.mark.nightly) for case in CASES]


GRAPHS = {
    "choco": DSGD(mixing="choco", compressor=TopK(density=0.3), consensus_step_size=0.4),
    "difference": DSGD(mixing="difference", compressor=DenseValues(value_type="bfloat16")),
}


def made(case):
    """The algorithm of a case, its layout and local steps."""
    if case in GRAPHS:
        return GRAPHS[case], "peers", 1
    name, layout, local_steps = CASES[case]
    return methods.with_test_settings(name), layout, local_steps


def inner_of(net, lr):
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.5, weight_decay=0.1)


def train_in_process(rank, cases):
    """By case: the parameters at the end, the layer's values after each step, and the counters."""
    results = []
    for case in cases:
        algorithm, layout, local_steps = made(case)
        net = optimizers.Branches()
        opt = laconic.DistributedOptimizer(
            inner_of(net, algorithm.test_lr), algorithm, model=net, layout=layout, local_steps=local_steps, seed=5,
            check_every=5, timeout_s=PATIENCE_S,
        )  # fmt: skip
        layers = []
        for round_ in range(ROUNDS * local_steps):
            net.uses_late = uses(rank, round_ // local_steps)
            optimizers.one_step(opt, net, rank, round_)
            layers.append(small_model.values(net.late))
        results.append((small_model.values(net), layers, opt.traffic.as_data()))
    return results


def train_in_simulator(case):
    algorithm, layout, local_steps = made(case)
    net = optimizers.Branches()
    workers = N - (layout == "dedicated")
    simulation = laconic.Simulation(
        net,
        inner_of(net, algorithm.test_lr),
        algorithm,
        workers=workers,
        layout=layout,
        local_steps=local_steps,
        seed=5,
    )
    for round_ in range(ROUNDS * local_steps):

        def loss_of(rank, round_=round_):
            net.uses_late = uses(rank, round_ // local_steps)
            return small_model.loss(net, rank, round_)

        simulation.step(loss_of)
    return simulation


@pytest.fixture(scope="module")
def from_processes(request):
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    wanted = {item.callspec.params.get("case") for item in here}
    cases = [case for case in (*CASES, *GRAPHS) if case in wanted]
    by_rank = run_ranks(train_in_process, N, cases)
    return {case: [of_rank[place] for of_rank in by_rank] for place, case in enumerate(cases)}


@pytest.mark.slow
@pytest.mark.parametrize("case", [*chosen(), *GRAPHS])
def test_a_layer_used_from_time_to_time_ends_with_the_bits_of_the_simulator(case, from_processes):
    torch.set_num_threads(1)
    simulation = train_in_simulator(case)
    for rank in range(simulation.n_workers):
        parameters, _, traffic = from_processes[case][rank]
        assert torch.equal(parameters, simulation.parameters_of(rank)), f"rank {rank} differs"
        assert (traffic["rounds"], traffic["aborted_rounds"]) == (ROUNDS, 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*chosen(), *GRAPHS])
def test_a_layer_moves_in_the_rounds_in_which_a_rank_uses_it_and_in_no_others(case, from_processes):
    _, layout, local_steps = made(case)
    start = small_model.values(optimizers.Branches().late)
    for _, layers, _ in from_processes[case][: N - (layout == "dedicated")]:
        after = [start, *layers[local_steps - 1 :: local_steps]]
        moved = [not torch.equal(one, other) for one, other in pairwise(after)]
        assert not any(moves and not used for moves, used in zip(moved, USED, strict=True)), moved
        assert moved[1], "the layer moves when it is used for the first time"


USES_LATE = ([True] * N, [False] * N, [False, True, False, False])


def trained_with_sets_that_stay(rank):
    return [trained_once(rank, uses_late) for uses_late in USES_LATE]


@pytest.fixture(scope="module")
def with_sets_that_stay():
    """What each rank returned, by place in USES_LATE."""
    return list(zip(*run_ranks(trained_with_sets_that_stay, N), strict=True))


def trained_once(rank, uses_late):
    """The counters, after the start and at the end, of a layer that ranks use always or never."""
    results = []
    for layout in ("allreduce", "rank0", "dedicated", "sharded", "peers"):
        algorithm = DSGD() if layout == "peers" else SGD()
        net = optimizers.Branches()
        net.uses_late = uses_late[rank]
        opt = laconic.DistributedOptimizer(
            inner_of(net, 0.1), algorithm, model=net, layout=layout, check_every=0, timeout_s=PATIENCE_S
        )
        for round_ in range(6):
            optimizers.one_step(opt, net, rank, round_)
            if round_ == 0:
                start = opt.traffic.as_data()
        results.append((layout, start, opt.traffic.as_data()))
    return results


@pytest.mark.slow
@pytest.mark.parametrize("uses_late", USES_LATE, ids=str)
def test_a_set_that_stays_costs_no_byte_after_the_initial_round(uses_late, with_sets_that_stay):
    for rank, results in enumerate(with_sets_that_stay[USES_LATE.index(uses_late)]):
        for layout, start, end in results:
            workers = N - (layout == "dedicated")
            if rank >= workers:
                continue
            algorithm = DSGD() if layout == "peers" else SGD()
            net = optimizers.Branches()
            simulation = laconic.Simulation(net, inner_of(net, 0.1), algorithm, workers=workers, layout=layout)
            for round_ in range(6):

                def loss_of(rank, round_=round_, net=net):
                    net.uses_late = uses_late[rank]
                    return small_model.loss(net, rank, round_)

                simulation.step(loss_of)
            mine = simulation.traffic_of(rank)
            assert end["up"] == dataclasses.asdict(mine.up), layout
            assert end["down"] == dataclasses.asdict(mine.down), layout
            flags = 5 * 8 if layout == "peers" else 0  # ranks of a graph agree at each round's end, as they always do
            assert end["control_bytes"] - start["control_bytes"] == flags, layout


def used_in_turns_by_one_worker(rank):
    """One asynchronous worker that uses a layer in every second step, and its server: what plain SGD would do."""
    net, twin = optimizers.Branches(), optimizers.Branches()
    opt = laconic.DistributedOptimizer(inner_of(net, 0.1), ASGD(), model=net, timeout_s=PATIENCE_S)
    reference = inner_of(twin, 0.1)
    control_bytes = []
    for round_ in range(6):
        net.uses_late = twin.uses_late = round_ in (1, 3, 4)
        optimizers.one_step(opt, net, rank, round_)
        control_bytes.append(opt.traffic.control_bytes)
        reference.zero_grad()
        small_model.loss(twin, 0, round_).backward()
        reference.step()
    return small_model.values(net).tolist(), small_model.values(twin).tolist(), control_bytes


@pytest.mark.slow
def test_an_asynchronous_server_applies_each_gradient_to_the_parameters_behind_it():
    (values, expected, control_bytes), _ = run_ranks(used_in_turns_by_one_worker, 2)
    assert values == expected
    sent = [later - earlier for earlier, later in pairwise(control_bytes)]
    assert [n > 0 for n in sent] == [True, True, True, False, True]  # the set is sent when it differs from the last one


# What the simulator alone shows.


def simulated(algorithm, used_in, rounds, *, layout="auto", workers=3, momentum=0.5):
    """A simulation whose workers use the layer in some rounds, and its memories and layer after each round."""
    net = optimizers.Branches()
    inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=momentum, weight_decay=0.1)
    simulation = laconic.Simulation(net, inner, algorithm, workers=workers, layout=layout, seed=5)
    late = slice(small_model.N_PARAMETERS, small_model.N_PARAMETERS + 12)
    history = []
    for round_ in range(rounds):
        net.uses_late = round_ in used_in
        simulation.step(lambda rank, round_=round_: small_model.loss(net, rank, round_))
        driver = simulation.driver
        sides = [worker.me for worker in driver.workers] + [server.view for server in driver.servers]
        held = [
            side.memory[name][late].clone()
            for side in sides
            for name in side.memory
            if side.memory.slots.is_vector(name)
        ]
        state = inner.state[net.late.weight].get("momentum_buffer")
        history.append((small_model.values(net.late), held, None if state is None else state.clone()))
    return history, net


@pytest.mark.parametrize(
    "name", [name for name in methods.IN_STEP if methods.with_test_settings(name).worker_slots and name != "sasg"]
)
def test_memories_and_optimizer_keep_what_they_hold_for_a_layer_that_nobody_uses(name):
    history, _ = simulated(methods.with_test_settings(name), {0, 1, 2, 5}, 6)
    for round_ in (3, 4):
        layer, held, momentum = history[round_]
        assert torch.equal(layer, history[2][0])
        assert all(torch.equal(one, other) for one, other in zip(held, history[2][1], strict=True))
        assert momentum is None or torch.equal(momentum, history[2][2])
    assert not torch.equal(history[5][0], history[4][0])


def test_a_layer_that_nobody_uses_has_no_gradient_after_a_step():
    _, net = simulated(laconic.ECSGD(), {0, 1}, 4)
    assert all(parameter.grad is None for parameter in net.late.parameters())
    assert all(parameter.grad is not None for parameter in net.core.parameters())


@pytest.mark.parametrize("layout", ["allreduce", "rank0", "sharded"])
def test_sgd_over_workers_is_plain_sgd_with_the_mean_gradient_of_the_layers_in_use(layout):
    used_in = {1, 2, 5}
    _, net = simulated(SGD(), used_in, 8, layout=layout)
    twin = optimizers.Branches()
    reference = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.5, weight_decay=0.1)
    for round_ in range(8):
        reference.zero_grad()
        twin.uses_late = round_ in used_in
        (sum(small_model.loss(twin, rank, round_) for rank in range(3)) / 3).backward()
        reference.step()
    torch.testing.assert_close(small_model.values(net), small_model.values(twin))


def test_published_copies_stay_the_models_that_they_are_copies_of():
    """With mixing=difference a copy is its model; a layer out of use must not let them drift apart."""
    net = optimizers.Branches()
    algorithm = DSGD(mixing="difference", compressor=DenseValues(value_type="bfloat16"))
    simulation = laconic.Simulation(net, inner_of(net, 0.1), algorithm, workers=3, seed=5)
    for round_ in range(9):

        def loss_of(rank, round_=round_):
            net.uses_late = uses(rank, round_)
            return small_model.loss(net, rank, round_)

        simulation.step(loss_of)
        late = slice(small_model.N_PARAMETERS, small_model.N_PARAMETERS + 12)
        for worker in simulation.driver.workers:
            for name in worker.me.memory:
                of_rank = int(name.rpartition(".")[2])
                assert torch.equal(worker.me.memory[name][late], simulation.parameters_of(of_rank)[late]), (
                    round_,
                    name,
                )
