"""A parameter that no rank has used in a round stays still, and what is held for it waits: as in torch and in DDP."""

import pytest
import torch

import laconic
from support import ddp_tasks, methods, optimizers, small_model
from support.ddp_tasks import FROZEN, LATE, METHODS, ROUNDS
from support.inputs import each_over, over_inputs
from support.ranks import run_ranks

SGD_CASES = [
    ("allreduce", "sgd", "", True), ("allreduce", "sgd", "", False), ("rank0", "adamw", "", True),
    ("allreduce", "sgd", "norm", True), ("rank0", "adamw", "norm", True), ("allreduce", "sgd", "value", True),
]  # fmt: skip
OTHERS = [(name, "auto", "sgd", "", True) for name in METHODS]


def freeze(net, frozen):
    net.core[0].requires_grad_(not frozen)


@pytest.mark.slow
@each_over(("name", "layout"), [*methods.in_step_with_layouts(2), *methods.BY_LAYER, ("asgd", "auto")])
@over_inputs("local_steps", (1, 2))
def test_a_layer_frozen_in_mid_training_stays_with_its_memories_until_it_is_thawed(name, layout, local_steps):
    algorithm = methods.with_test_settings(name)
    if local_steps > 1 and not algorithm.takes_changes:
        return
    net = optimizers.Branches()
    inner = torch.optim.SGD(net.parameters(), lr=algorithm.test_lr, momentum=0.9, weight_decay=0.1)
    compute = {"compute_s": 0.01} if name == "asgd" else {}
    simulation = laconic.Simulation(
        net, inner, algorithm, workers=2, layout=layout, local_steps=local_steps, seed=5, **compute
    )

    def take(steps):
        for step in steps:
            simulation.step(lambda rank, step=step: small_model.loss(net, rank, step))
        return small_model.values(net.core[0])

    take(range(4))
    freeze(net, True)
    inner.zero_grad()
    if name == "asgd":
        take(range(4, 5))  # gradients of the step before are on their way
    before, held = small_model.values(net.core[0]), of_layer_0(simulation)
    others = small_model.values(net.core[2])
    assert torch.equal(take(range(5, 9)), before)
    assert not torch.equal(small_model.values(net.core[2]), others)
    torch.testing.assert_close(of_layer_0(simulation), held, rtol=0, atol=0)
    freeze(net, False)
    assert not torch.equal(take(range(9, 13)), before)


def of_layer_0(simulation):
    """The methods' memories for the first layer, which comes first in the vector, and the optimizer's momentum."""
    sides = [worker.me for worker in simulation.driver.workers]
    sides += [server.view for server in simulation.driver.servers if server.view.offset == 0]
    n = 6 * 11 + 11
    held = []
    for side in sides:
        slots = side.memory.slots
        held += [
            value[:n].clone() for name, value in sorted(side.memory.saved().items())
            if slots.is_vector(name) and value.numel() >= n and not slots.find(name).holds_parameters
        ]  # fmt: skip
    return held


def as_vector(state):
    return torch.cat([value.reshape(-1) for value in state.values()])


@pytest.mark.slow
@pytest.mark.parametrize("n", [pytest.param(2, marks=pytest.mark.nightly), 3])
def test_over_processes_unused_frozen_and_clipped_parameters_do_what_they_do_in_ddp_and_warm_up_from_zero(n):
    by_rank = run_ranks(ddp_tasks.all_cases, n, SGD_CASES, OTHERS)
    for case, (by_ddp, by_laconic) in zip(SGD_CASES, by_rank[0][0], strict=True):
        for round_ in range(ROUNDS):
            if n == 2:
                assert torch.equal(by_ddp[round_], by_laconic[round_]), (case, round_)
            else:  # DDP adds three gradients in the order of its own buckets
                torch.testing.assert_close(by_ddp[round_], by_laconic[round_], msg=f"{case}, round {round_}")
    for place, (name, *_) in enumerate(OTHERS):
        for rank, (_, others) in enumerate(by_rank):
            if name == "asgd" and rank == n - 1:
                continue  # it serves
            late_is_used = name != "asgd" or n > 2  # else rank 1 only serves
            assert_still_where_unused(
                others[place], f"{name}, rank {rank}", settles=2 if name == "asgd" else 0, late_is_used=late_is_used
            )


def assert_still_where_unused(states, where, *, settles, late_is_used):
    """`settles`: rounds after which other workers' older gradients are no longer on their way."""

    def moved(layer, round_):
        return any(
            not torch.equal(states[round_][key], states[round_ - 1][key]) for key in states[0] if key.startswith(layer)
        )

    start = optimizers.Branches().state_dict()
    assert all(torch.equal(states[0][key], start[key]) for key in start), f"{where}: at the learning rate 0"
    for round_ in range(1, ROUNDS):
        assert not moved("never.", round_), where
        assert moved("core.2.", round_), where
        if not LATE[0] <= round_ < LATE[1] + settles:
            assert not moved("late.", round_), (where, round_)
        if FROZEN[0] + settles <= round_ < FROZEN[1]:
            assert not moved("core.0.", round_), (where, round_)
    assert any(moved("late.", round_) for round_ in range(*LATE)) is late_is_used, where
    assert any(moved("core.0.", round_) for round_ in range(FROZEN[1], ROUNDS)), where
