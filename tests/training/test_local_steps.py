"""Several steps of the inner optimizer to one exchange."""

import math

import pytest
import torch

import laconic
from laconic.algorithms.ssgd_mv import SSGDMV
from laconic.algorithms.ssgd_mv_ad import SSGDMVAD
from laconic.algorithms.ssgd_topk import SSGDTopK
from laconic.training.flat_parameters import FlatParameters
from support import methods, optimizers, small_model
from support.simulated_run import assert_same

STARS = [name for name, cls in sorted(laconic.ALGORITHMS.items()) if cls.mode == "rounds"]
TAKING = [name for name in STARS if laconic.ALGORITHMS[name].takes_changes]
REFUSING = [name for name in STARS if name not in TAKING]
each_taking = pytest.mark.parametrize("name", TAKING)


def simulated(algorithm, net=None, inner=None, workers=3, **settings):
    """A simulation of the small model in float64, with SGD inside unless `inner` is given."""
    net = net or small_model.net().double()
    inner = inner or torch.optim.SGD(net.parameters(), lr=0.1)
    return laconic.Simulation(net, inner, algorithm, workers=workers, seed=5, **settings)


def take(simulation, steps):
    for step in steps:
        simulation.step(lambda rank, step=step: small_model.loss(simulation.model, rank, step))
    return small_model.values(simulation.model)


def residuals_of(simulation):
    return torch.stack([worker.me.memory["residual"] for worker in simulation.driver.workers])


# Every method that admits local steps.


@pytest.mark.filterwarnings("ignore:.*bring the same first gradient")  # where one data distribution is needed
@pytest.mark.slow
@each_taking
def test_every_method_with_local_steps_comes_near_the_minimum_with_three_of_them(name):
    algorithm, n, rounds = methods.with_test_settings(name), 2, 80
    noise_scale = 0.0 if algorithm.same_data else 0.3
    best = torch.randn(23, generator=torch.Generator().manual_seed(11))
    targets = best + noise_scale * torch.randn(n, 23, generator=torch.Generator().manual_seed(12))
    x = torch.nn.Parameter(torch.zeros(23))
    faster = {"signsgd-mv": 4, "compskip": 2, "dropsign": 2}.get(name, 1)  # signs do not grow with the change
    inner = torch.optim.SGD([x], lr=faster * algorithm.test_lr)
    simulation = simulated(algorithm, torch.nn.ParameterList([x]), inner, n, local_steps=3)
    decay = torch.optim.lr_scheduler.LambdaLR(inner, lambda t: 1 - 0.95 * t / (3 * rounds))
    late = []
    for step in range(3 * rounds):
        simulation.step(lambda rank: 0.5 * (x - targets[rank]).square().sum())
        decay.step()
        if step >= 3 * rounds - 60:
            late.append(float((x.detach() - targets.mean(0)).norm()))
    assert simulation.traffic.rounds == rounds
    assert simulation.traffic.aborted_rounds == 0
    assert sum(late) / len(late) < 0.3 * float(targets.mean(0).norm())


@each_taking
def test_between_two_exchanges_the_model_stays_and_nothing_is_sent(name):
    simulation = simulated(methods.with_test_settings(name), local_steps=3)
    start = small_model.values(simulation.model)
    for steps in ([0], [1]):
        assert torch.equal(take(simulation, steps), start)
        assert simulation.traffic.up.messages == 0
    assert not torch.equal(take(simulation, [2]), start)
    assert simulation.traffic.rounds == 1


# Model averaging.


def two_groups(net):
    return torch.optim.SGD([{"params": net[0].parameters(), "lr": 0.02}, {"params": net[2].parameters()}], lr=0.15)


INNERS = {
    "plain": lambda net: torch.optim.SGD(net.parameters(), lr=0.1),
    "momentum": lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda net: torch.optim.Adam(net.parameters(), lr=0.01),
    "two learning rates": two_groups,
}


@pytest.mark.parametrize("inner", INNERS)
@pytest.mark.parametrize("many", [2, 3])
def test_sgd_with_local_steps_is_model_averaging(many, inner):
    ends = []
    for algorithm in (laconic.SGD(), laconic.ModelAveraging()):
        net = small_model.net().double()
        simulation = simulated(algorithm, net, INNERS[inner](net), local_steps=many)
        ends.append(torch.stack([take(simulation, [step]) for step in range(4 * many)]))
    assert_same(*ends)
    assert len(ends[0].unique(dim=0)) == 5


def test_sgd_with_local_steps_is_the_mean_of_hand_written_replicas():
    simulation = simulated(laconic.SGD(), local_steps=3)
    replicas = [small_model.net().double() for _ in range(3)]
    for round_ in range(4):
        steps = range(3 * round_, 3 * round_ + 3)
        for rank, replica in enumerate(replicas):
            inner = torch.optim.SGD(replica.parameters(), lr=0.1)
            for step in steps:
                inner.zero_grad()
                small_model.loss(replica, rank, step).backward()
                inner.step()
        mean = torch.stack([small_model.values(replica) for replica in replicas]).mean(0)
        assert_same(take(simulation, steps), mean)
        for replica in replicas:
            replica.load_state_dict(simulation.model.state_dict())


def test_model_averaging_also_holds_with_a_learning_rate_that_changes():
    ends = []
    for algorithm in (laconic.SGD(), laconic.ModelAveraging()):
        net = small_model.net().double()
        inner = torch.optim.SGD(net.parameters(), lr=0.1)
        simulation = simulated(algorithm, net, inner, local_steps=2)
        for step in range(8):
            inner.param_groups[0]["lr"] = 0.1 * (1 + 0.8 * math.sin(2.3 * step))  # within a round too
            take(simulation, [step])
        ends.append(small_model.values(net))
    assert_same(*ends)


@pytest.mark.parametrize("name", ["sparse", "ec-sgd", "compskip", "ssgd-mv", "lasg"])
def test_one_local_step_is_the_same_as_no_option_bit_for_bit(name):
    ends = []
    for settings in ({}, {"local_steps": 1}):
        net = small_model.net().double()
        inner = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        simulation = simulated(methods.with_test_settings(name), net, inner, **settings)
        ends.append(take(simulation, range(6)))
        assert simulation.traffic.rounds == 6
    assert torch.equal(*ends)


# One step of SGD, which need not be taken.


class TakenSGD(torch.optim.SGD):
    """SGD of a class that laconic does not recognize as SGD."""


@pytest.mark.parametrize("name", ["sgd-model", "ssgd-topk", "ssgd-mv", "ssgd-mv-ad", "ssgd-mv-rs"])
def test_a_step_that_is_not_taken_has_the_same_result_as_one_that_is(name):
    ends, inners = [], []
    for sgd in (torch.optim.SGD, TakenSGD):
        net = small_model.net().double()
        net[0].bias.requires_grad_(False)
        groups = [{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 0.05}]
        inner = sgd(groups, lr=0.1)
        simulation = simulated(methods.with_test_settings(name), net, inner)
        assert simulation.training.local.is_known_in(0) == (sgd is torch.optim.SGD)
        ends.append(torch.stack([take(simulation, [step]) for step in range(6)]))
        inners.append(inner)
    assert_same(*ends)
    assert not torch.equal(ends[0][0], ends[0][-1])


def test_a_round_with_inf_in_a_gradient_leaves_the_parameters_as_they_were():
    simulation = simulated(methods.with_test_settings("ssgd-mv"))
    take(simulation, [0])
    before = small_model.values(simulation.model)
    simulation.step(lambda rank: small_model.loss(simulation.model, rank, 1) * (torch.inf if rank == 1 else 1))
    assert simulation.traffic.aborted_rounds == 1
    assert torch.equal(small_model.values(simulation.model), before)
    assert not torch.equal(take(simulation, [2]), before)


@pytest.mark.parametrize(
    "inner",
    [
        lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
        lambda ps: torch.optim.SGD(ps, lr=0.1, weight_decay=0.1),
        lambda ps: torch.optim.SGD(ps, lr=0.1, maximize=True),
        lambda ps: torch.optim.Adam(ps, lr=0.1),
        lambda ps: TakenSGD(ps, lr=0.1),
    ],
)
def test_a_step_that_may_be_more_than_vanilla_sgd_is_taken(inner):
    net = small_model.net().double()
    assert not simulated(
        methods.with_test_settings("ssgd-mv"), net, inner(net.parameters())
    ).training.local.is_known_in(0)


def test_a_step_with_hooks_or_a_replaced_function_is_taken():
    net = small_model.net().double()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    simulation = simulated(methods.with_test_settings("ssgd-mv"), net, inner)
    torch.optim.lr_scheduler.StepLR(inner, 10)  # which puts a wrapper around the step
    assert simulation.training.local.is_known_in(0)
    calls = []
    hook = inner.register_step_pre_hook(lambda *_: calls.append("hook"))
    take(simulation, [0])
    assert calls == ["hook"] * 3
    hook.remove()
    step = inner.step
    inner.step = lambda: (calls.append("own"), step())
    take(simulation, [1])
    assert calls[3:] == ["own"] * 3


def test_bfloat16_parameters_and_methods_whose_replicas_differ_take_their_steps():
    net = small_model.net().bfloat16()
    assert not simulated(methods.with_test_settings("ssgd-mv"), net).training.local.is_known_in(0)
    assert not simulated(methods.with_test_settings("dsgd")).training.local.is_known_in(0)
    assert not simulated(methods.with_test_settings("ssgd-mv"), local_steps=2).training.local.is_known_in(0)


def test_one_local_step_of_a_gradient_method_steps_after_the_exchange():
    """The inner momentum averages the direction, not each worker's own gradient."""
    net = small_model.net().double()
    inner = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    take(simulated(laconic.SGD(), net, inner, local_steps=1), [0])
    twin = small_model.net().double()
    (sum(small_model.loss(twin, rank, 0) for rank in range(3)) / 3).backward()
    held = torch.cat([inner.state[parameter]["momentum_buffer"].reshape(-1) for parameter in net.parameters()])
    assert_same(held, torch.cat([parameter.grad.reshape(-1) for parameter in twin.parameters()]))


def test_each_parameter_groups_change_is_divided_by_its_own_learning_rate():
    seen = []

    class WatchedChanges(laconic.SGD):
        def work(self, me):
            seen.append(me.gradient.clone())
            return super().work(me)

    x, y = (torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2))
    inner = torch.optim.SGD([{"params": [x], "lr": 0.5}, {"params": [y], "lr": 0.125}])
    slopes = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)
    simulation = simulated(WatchedChanges(), torch.nn.ParameterList([x, y]), inner, 1, local_steps=2)
    for _ in range(2):
        simulation.step(lambda rank: slopes @ torch.cat([x, y]))
    assert seen[0].tolist() == [2, 4, 6, 8]
    assert x.tolist() + y.tolist() == [-1, -2, -0.75, -1]


# A dense warm-up.


@pytest.mark.parametrize("cls", [SSGDTopK, SSGDMV, SSGDMVAD], ids=lambda cls: cls.name)
def test_dense_rounds_are_vanilla_sgd_of_one_step_each_and_store_no_memory(cls):
    simulation = simulated(cls(density=0.2, dense_rounds=4), local_steps=3)
    reference = simulated(laconic.SGD())
    for step in range(4):
        assert_same(take(simulation, [step]), take(reference, [step]))
        assert simulation.traffic.rounds == step + 1
    views = [worker.me.memory for worker in simulation.driver.workers] + [simulation.driver.servers[0].view.memory]
    assert [memory.saved() for memory in views] == [{}] * 4
    dense = simulation.traffic
    assert set(dense.up_by_exchange) == {"dense"}
    assert dense.up.paper_bits == 4 * 3 * 32 * small_model.N_PARAMETERS

    here = small_model.values(simulation.model)
    assert torch.equal(take(simulation, [4, 5]), here)
    assert not torch.equal(take(simulation, [6]), here)
    assert simulation.traffic.rounds == 5
    assert residuals_of(simulation).any()
    assert simulation.traffic.up_by_exchange["dense"] == dense.up


def test_a_quadratics_dense_rounds_without_a_server_are_the_same():
    ends = []
    for layout in ("rank0", "allreduce"):
        simulation = simulated(SSGDMV(density=0.2, dense_rounds=4), layout=layout, local_steps=2)
        ends.append(take(simulation, range(10)))
        assert simulation.traffic.rounds == 7
    assert_same(*ends, to=1e-11)


# A bad step.


@pytest.mark.parametrize("at", [4, 5])  # the last one is taken within the round
@pytest.mark.parametrize("name", ["sparse", "ssgd-mv-ad", "compskip"])
def test_nan_in_one_workers_local_step_aborts_the_round_for_all(name, at):
    simulation = simulated(methods.with_test_settings(name), local_steps=3)
    take(simulation, range(3))
    views = [worker.me.memory for worker in simulation.driver.workers] + [simulation.driver.servers[0].view.memory]
    here, before = small_model.values(simulation.model), [memory.saved() for memory in views]
    for step in range(3, 6):
        bad = {1: torch.nan} if step == at else {}
        simulation.step(
            lambda rank, step=step, bad=bad: small_model.loss(simulation.model, rank, step) * bad.get(rank, 1.0)
        )
    assert torch.equal(small_model.values(simulation.model), here)
    assert simulation.traffic.aborted_rounds == 1
    for memory, old in zip(views, before, strict=True):
        torch.testing.assert_close(memory.saved(), old, rtol=0, atol=0)
    assert not torch.equal(take(simulation, range(6, 9)), here)


# One process.


@each_taking
def test_the_optimizer_and_the_simulator_take_the_same_local_steps(group_of_one, name):
    net = small_model.net()
    algorithm = methods.with_test_settings(name)
    opt = optimizers.wrapped(net, name, "rank0", model=net, local_steps=3)
    for step in range(9):
        optimizers.one_step(opt, net, 0, step)
    twin = small_model.net()
    inner = torch.optim.SGD(twin.parameters(), lr=algorithm.test_lr)
    simulation = simulated(algorithm, twin, inner, 1, layout="rank0", local_steps=3)
    assert torch.equal(take(simulation, range(9)), small_model.values(net))
    assert opt.traffic.rounds == simulation.traffic.rounds == 3


# What is refused.


@pytest.mark.parametrize(
    ("many", "error", "message"),
    [
        (0, ValueError, "local_steps=0 must be at least 1"),
        (-3, ValueError, "local_steps=-3 must be at least 1"),
        (2.0, TypeError, "local_steps=2.0 must be a whole number"),
        (True, TypeError, "local_steps=True must be a whole number"),
        ("4", TypeError, "local_steps='4' must be a whole number"),
        (None, TypeError, "local_steps=None must be a whole number"),
    ],
)
def test_a_wrong_number_of_local_steps_is_refused_by_name(group_of_one, many, error, message):
    with pytest.raises(error, match=message):
        simulated(laconic.SGD(), local_steps=many)
    net = small_model.net()
    with pytest.raises(error, match=message):
        optimizers.wrapped(net, "sgd", "auto", local_steps=many)


@pytest.mark.parametrize("name", REFUSING)
def test_a_method_that_needs_the_gradient_itself_refuses_several_local_steps(group_of_one, name):
    algorithm = methods.with_test_settings(name)
    message = f"local_steps=2: {name} needs the gradient itself, .*leave local_steps at 1"
    with pytest.raises(ValueError, match=message):
        simulated(algorithm, local_steps=2)
    net = small_model.net()
    with pytest.raises(ValueError, match=message):
        optimizers.wrapped(net, name, "auto", model=net, local_steps=2)
    simulated(algorithm, local_steps=1)


def test_lazy_methods_and_the_global_replica_refuse_local_steps():
    assert set(REFUSING) >= {"lag", "lasg", "sasg", "sgd-server"}


@pytest.mark.parametrize("active", [[True, True, True], [True, False, True], [False, True, False]])
def test_a_change_of_few_coordinates_does_what_the_full_vector_would(active):
    sizes = (4, 3, 5)
    start, few = torch.randn(2, 12, generator=torch.Generator().manual_seed(3))
    start[[1, 5, 8]] = -0.0  # to the bit
    positions = torch.tensor([0, 3, 4, 6, 7, 11])
    change = torch.zeros(12).index_copy_(0, positions, few[:6])
    ends = []
    for sparse in (True, False):
        parameters = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
        flat = FlatParameters(torch.optim.SGD(parameters, lr=0.1))
        if sparse:
            flat.set_sparse_sum(start.clone(), positions, few[:6], active)
        else:
            flat.set_sum(start.clone(), change, active)
        ends.append(flat.values())
    moves = torch.tensor(active).repeat_interleave(torch.tensor(sizes))
    assert torch.equal(ends[0], torch.where(moves, start + change, start))
    assert torch.equal(ends[1].view(torch.int32), ends[0].view(torch.int32))
