"""`Simulation`: many workers in one process, each with its own state, on a clock that can be computed by hand."""

import math
import resource

import pytest
import torch
from torch import nn

import laconic
from laconic.lab.processes.pool import PoolTask, run_tasks
from laconic.wire import HEADER_BYTES
from support import methods, optimizers, small_model
from support.inputs import over_inputs


@pytest.fixture(autouse=True)
def one_thread():
    """So that sums are added in one order everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def simulated(net, algorithm, workers, inner=None, **settings):
    if isinstance(algorithm, str):
        algorithm = methods.with_test_settings(algorithm)
    inner = inner or torch.optim.SGD(net.parameters(), lr=algorithm.test_lr)
    return laconic.Simulation(net, inner, algorithm, workers=workers, seed=5, **settings)


def one_step(simulation, round_, factor_of=lambda rank: 1.0):
    return simulation.step(lambda rank: small_model.loss(simulation.model, rank, round_) * factor_of(rank))


def memories(simulation):
    views = [worker.me.memory for worker in simulation.driver.workers]
    return [memory.saved() for memory in views + [session.view.memory for session in simulation.driver.servers]]


@pytest.mark.parametrize("inner", optimizers.INNER)
def test_one_worker_of_sgd_is_the_inner_optimizer_itself(inner):
    net, twin = small_model.net(), small_model.net()
    simulation = simulated(net, "sgd", 1, optimizers.INNER[inner](net.parameters()))
    reference = optimizers.INNER[inner](twin.parameters())
    for round_ in range(8):
        one_step(simulation, round_)
        reference.zero_grad()
        small_model.loss(twin, 0, round_).backward()
        reference.step()
    assert torch.equal(small_model.values(net), small_model.values(twin))


@pytest.mark.parametrize("inner", optimizers.INNER)
def test_many_workers_of_sgd_step_with_their_mean_gradient(inner):
    net, twin = small_model.net().double(), small_model.net().double()
    simulation = simulated(net, "sgd", 5, optimizers.INNER[inner](net.parameters()))
    reference = optimizers.INNER[inner](twin.parameters())
    for round_ in range(8):
        losses = one_step(simulation, round_)
        reference.zero_grad()
        own = [small_model.loss(twin, rank, round_) for rank in range(5)]
        torch.testing.assert_close(losses, [float(loss.detach()) for loss in own], rtol=1e-9, atol=1e-9)
        (sum(own) / 5).backward()
        reference.step()
    torch.testing.assert_close(small_model.values(net), small_model.values(twin), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", methods.IN_STEP)
@over_inputs("bad", (torch.inf, torch.nan))
def test_one_workers_inf_or_nan_changes_no_parameter_and_no_memory(name, bad):
    net = small_model.net()
    simulation = simulated(net, name, 3)
    for round_ in range(2):
        one_step(simulation, round_)
    before = small_model.values(net), memories(simulation)
    one_step(simulation, 2, lambda rank: bad if rank == 1 else 1.0)
    after = small_model.values(net), memories(simulation)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert (simulation.traffic.rounds, simulation.traffic.aborted_rounds) == (3, 1)
    one_step(simulation, 3)
    assert torch.isfinite(small_model.values(net)).all()
    assert not torch.equal(small_model.values(net), before[0])
    assert (simulation.traffic.rounds, simulation.traffic.aborted_rounds) == (4, 1)


@pytest.mark.parametrize("name", sorted(laconic.ALGORITHMS))
def test_frozen_and_unused_parameters_stay_and_the_others_move(name):
    net = optimizers.Branches()
    net.core[0].bias.requires_grad_(False)
    start = {key: value.clone() for key, value in net.state_dict().items()}
    inner = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    simulation = simulated(net, name, 3, inner)
    for round_ in range(4):
        one_step(simulation, round_)
    moved = {key for key, value in net.state_dict().items() if not torch.equal(value, start[key])}
    assert moved == {"core.0.weight", "core.2.weight", "core.2.bias"}


def test_each_worker_has_its_own_batch_norm_statistics_and_the_model_shows_their_mean():
    net = nn.Sequential(nn.BatchNorm1d(6), *small_model.net())
    own = [nn.Sequential(nn.BatchNorm1d(6), *small_model.net()) for _ in range(3)]
    simulation = simulated(net, "compskip", 3)
    for round_ in range(4):
        for rank, twin in enumerate(own):
            twin.load_state_dict(dict(net.named_parameters()), strict=False)
            small_model.loss(twin, rank, round_)
        one_step(simulation, round_)
        for name in ("running_mean", "running_var"):
            mean = torch.stack([getattr(twin[0], name) for twin in own]).mean(0)
            torch.testing.assert_close(getattr(net[0], name), mean)
    assert not torch.equal(own[0][0].running_mean, own[1][0].running_mean)
    assert net[0].num_batches_tracked == 4


def test_local_steps_are_a_hand_written_loop_with_an_optimizer_for_each_worker():
    net = small_model.net().double()
    simulation = simulated(net, laconic.ModelAveraging(), 4, optimizers.INNER["adam"](net.parameters()), local_steps=3)
    replicas = [small_model.net().double() for _ in range(4)]
    inners = [optimizers.INNER["adam"](replica.parameters()) for replica in replicas]
    for step in range(9):
        one_step(simulation, step)
        for rank, (replica, inner) in enumerate(zip(replicas, inners, strict=True)):
            inner.zero_grad()
            small_model.loss(replica, rank, step).backward()
            inner.step()
        if step % 3 == 2:
            with torch.no_grad():
                for parameters in zip(*(replica.parameters() for replica in replicas), strict=True):
                    mean = torch.stack(parameters).mean(0)
                    for parameter in parameters:
                        parameter.copy_(mean)
            torch.testing.assert_close(small_model.values(net), small_model.values(replicas[0]), rtol=1e-10, atol=1e-12)
    assert simulation.traffic.rounds == 3


def test_between_two_averages_the_model_stays_at_the_last_one():
    net = small_model.net()
    simulation = simulated(net, laconic.ModelAveraging(), 3, local_steps=2)
    one_step(simulation, 0)
    assert torch.equal(small_model.values(net), small_model.values(small_model.net()))
    one_step(simulation, 1)
    assert not torch.equal(small_model.values(net), small_model.values(small_model.net()))


def test_local_steps_start_from_the_given_state_of_the_inner_optimizer():
    net = small_model.net().double()
    inner = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    small_model.loss(net, 0, 0).backward()
    inner.step()
    twin = small_model.net().double()
    other = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    twin.load_state_dict(net.state_dict())
    other.load_state_dict(inner.state_dict())
    one_step(simulated(net, laconic.ModelAveraging(), 1, inner), 1)
    other.zero_grad()
    small_model.loss(twin, 0, 1).backward()
    other.step()
    torch.testing.assert_close(small_model.values(net), small_model.values(twin), rtol=1e-12, atol=1e-12)


FRAME_BYTES = HEADER_BYTES + 8 + 4 * small_model.N_PARAMETERS  # header, two fields, float32 values


@over_inputs("workers", (1, 4))
@over_inputs("compute_s", (0.0, 0.25))
def test_a_round_with_a_dedicated_server_takes_2n_messages_and_the_time_to_compute(workers, compute_s):
    link = laconic.Link(bytes_per_s=1e6, latency_s=0.01)
    simulation = simulated(small_model.net(), "sgd", workers, layout="dedicated", link=link, compute_s=compute_s)
    message_ns = math.ceil((0.01 + FRAME_BYTES / 1e6) * 1e9)
    for round_ in range(3):
        one_step(simulation, round_)
        expected_ns = (round_ + 1) * (2 * workers * message_ns + round(compute_s * 1e9))
        assert simulation.traffic.seconds == {"virtual": expected_ns / 1e9}


@pytest.mark.parametrize(
    ("name", "layout", "n_steps"), [("sgd", "allreduce", 4), ("dsgd", "peers", 2), ("compskip", "sharded", 4)]
)
def test_a_round_waits_for_the_slowest_also_where_no_single_server_does(name, layout, n_steps):
    latency_s = 0.001
    algorithm = laconic.DSGD(graph="ring") if name == "dsgd" else name
    simulation = simulated(
        small_model.net(), algorithm, 3, layout=layout, link=laconic.Link(latency_s=latency_s),
        compute_s={0: 1.0, 1: 5.0, 2: 2.0},
    )  # fmt: skip
    one_step(simulation, 0)
    assert simulation.driver.clock.now_ns == pytest.approx((5 + n_steps * latency_s) * 1e9, abs=10)


def test_a_server_on_rank_0_saves_that_ranks_two_messages():
    link = laconic.Link(bytes_per_s=1e6, latency_s=0.01)
    simulation = simulated(small_model.net(), "sgd", 4, layout="rank0", link=link)
    one_step(simulation, 0)
    assert simulation.traffic.seconds["virtual"] == pytest.approx(2 * 3 * (0.01 + FRAME_BYTES / 1e6), abs=1e-8)


@pytest.mark.parametrize("layout", ["dedicated", "rank0"])
def test_all_traffic_is_that_of_the_workers_added_up(layout):
    simulation = simulated(small_model.net(), "compskip", 4, layout=layout)
    for round_ in range(10):
        one_step(simulation, round_)
    total, each = simulation.traffic.as_data(), [simulation.traffic_of(rank).as_data() for rank in range(4)]
    for direction in ("up", "down"):
        for count in total[direction]:
            assert total[direction][count] == pytest.approx(sum(other[direction][count] for other in each)), (
                direction,
                count,
            )
    assert total["up"]["skips"] > 0
    assert total["up"]["messages"] == total["down"]["messages"] == 40
    assert total["rounds"] == each[0]["rounds"] == 10


def test_dense_messages_are_as_long_as_their_format_says():
    simulation = simulated(small_model.net(), "sgd", 3, layout="dedicated")
    one_step(simulation, 0)
    assert simulation.traffic.up.wire_bytes == simulation.traffic.down.wire_bytes == 3 * FRAME_BYTES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 0}, "workers=0 must be at least 1"),
        ({"workers": 2, "compute_s": -1.0}, "compute_s=-1.0 must be at least 0"),
        ({"workers": 2, "compute_s": math.inf}, "compute_s=inf must be at least 0 and finite"),
        ({"workers": 2, "layout": "ranko"}, "layout='ranko' must be one of.*rank0"),
        ({"workers": 2, "layout": "allreduce"}, "does not go with compskip"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        simulated(small_model.net(), "compskip", **settings)


def memory_of_100_workers(report):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
    inputs, labels = torch.randn(100, 8, 784), torch.randint(10, (100, 8))
    simulation = simulated(net, "compskip", 100, layout="rank0")
    for _ in range(3):
        losses = simulation.step(lambda rank: nn.functional.cross_entropy(net(inputs[rank]), labels[rank]))
    return {"loss": sum(losses), "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


@pytest.mark.slow
def test_100_workers_with_400_thousand_parameters_fit_into_2_gib():
    (absolute_maximum,) = run_tasks([PoolTask(label="100 workers", work=memory_of_100_workers)], 1, print)
    assert math.isfinite(absolute_maximum["loss"])
    assert absolute_maximum["bytes"] < 2 * 2**30
