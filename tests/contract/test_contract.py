"""What every registered algorithm must satisfy, given its claims. A new one needs no change here."""

import functools
from dataclasses import fields, is_dataclass

import pytest
import torch

import laconic
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.hyperparameters import from_text, hyperparameters_of
from laconic.lab.synthetic_job import sample_spec
from laconic.protocol.layout import choose_layout
from laconic.protocol.round_inputs import Inputs
from laconic.training.active_parameters import ActiveParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.server_model import ServerModel
from laconic.wire import HEADER_BYTES
from support import small_model
from support.methods import IN_STEP, layouts_of, with_test_settings
from support.simulated_run import exchange_without

NAMES = sorted(laconic.ALGORITHMS)
N = 5
ROUNDS = (150, 400)


def over(names: list[str]) -> pytest.MarkDecorator:
    """Run a test for each of these methods. The tests of one method share a process, and so its usual runs."""
    return pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names])


every = over(NAMES)
every_in_step = over(IN_STEP)
every_star = over([name for name in NAMES if laconic.ALGORITHMS[name].mode == "rounds"])


def home(name: str) -> str:
    """A layout in which packets are not split: one server, or the graph of a method that has one."""
    return "rank0" if laconic.ALGORITHMS[name].mode == "rounds" else "auto"


def automatic_layout(name: str) -> str:
    """The layout that "auto" is."""
    spec = ModelSpec.of_sizes(small_model.N_PARAMETERS)
    return choose_layout("auto", with_test_settings(name), spec, n_nodes=N).name


def trained(name: str, layout: str = "auto", seed: int = 1, rounds: int = 10, **options) -> laconic.Simulation:
    net = small_model.net()
    algorithm = with_test_settings(name)
    inner = torch.optim.SGD(net.parameters(), lr=algorithm.test_lr, momentum=0.5)
    simulation = laconic.Simulation(net, inner, algorithm, workers=N, layout=layout, seed=seed, **options)
    for round_ in range(rounds):
        simulation.step(lambda rank, round_=round_: small_model.loss(net, rank, round_))
    return simulation


@functools.cache
def usual_run(name: str, layout: str) -> laconic.Simulation:
    """A run that several tests look at, and none of them changes."""
    return trained(name, layout)


@pytest.mark.filterwarnings("ignore:.*bring the same first gradient")  # where one data distribution is needed
@every
def test_it_comes_near_the_best_point_of_a_quadratic(name):
    """Most do so in a few rounds. Those whose steps have a size of their own, not the gradient's, need more."""
    assert any(distance_to_the_best_point(name, rounds) < 0.1 for rounds in ROUNDS)


def distance_to_the_best_point(name: str, rounds: int) -> float:
    """The mean distance in the last 50 rounds, as a share of that at the start. The learning rate falls to 5 %."""
    n, algorithm = 3, with_test_settings(name)
    generator = torch.Generator().manual_seed(11)
    best = torch.randn(23, generator=generator)
    noise_scale = 0.0 if algorithm.same_data else 0.3
    targets = best + noise_scale * torch.randn(n, 23, generator=generator)
    goal = targets.mean(0)
    x = torch.nn.Parameter(torch.zeros(1, 23))  # a matrix, for methods that need one
    inner = torch.optim.SGD([x], lr=algorithm.test_lr)
    net = torch.nn.ParameterList([x])
    simulation = laconic.Simulation(net, inner, algorithm, workers=n)
    decay = torch.optim.lr_scheduler.LambdaLR(inner, lambda t: 1 - 0.95 * t / rounds)
    late = []
    for round_ in range(rounds):
        simulation.step(lambda rank: 0.5 * (x - targets[rank]).square().sum())
        decay.step()
        if round_ >= rounds - 50:
            late.append(float((x.detach() - goal).norm()))
    return sum(late) / len(late) / float(goal.norm())


@every
def test_the_same_seed_gives_the_same_bits_and_bytes(name):
    one, again = usual_run(name, automatic_layout(name)), trained(name, "auto")
    assert torch.equal(one.flat.values(), again.flat.values())
    assert one.traffic == again.traffic


@every_star
def test_the_order_of_delivery_changes_no_bit(name):
    algorithm = with_test_settings(name)
    ends = []
    targets = torch.randn(N, 19, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for delivery_seed in (None, 1, 2):
        x = torch.zeros(19, dtype=torch.float64)
        active = ActiveParameters([19])
        active.select([True])
        inner = torch.optim.SGD([torch.nn.Parameter(x.clone())], lr=0.1)
        model = ServerModel(inner, active, LearningRates(inner, algorithm), None)
        driver = Simulated(
            algorithm, spec=sample_spec(algorithm, 19, N), n_workers=N, layout="rank0", dtype=torch.float64,
            delivery_seed=delivery_seed, descend=model.descend,
        )  # fmt: skip
        for _ in range(20):
            here = x.clone()

            def inputs_of(rank, here=here):
                def gradient_at(point):
                    return point - targets[rank]

                vector = gradient_at(here) * (1.0 if algorithm.consumes == "gradient" else -0.1)
                return Inputs(vector=vector, parameters=here, gradient_at=gradient_at)

            result = driver.round(inputs_of, lr=0.1).of(0)
            x = x - 0.1 * result if algorithm.consumes == "gradient" else x + result
        ends.append(x)
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])
    assert not torch.equal(ends[0], torch.zeros(19, dtype=torch.float64))


@every_star
def test_every_layout_it_admits_gives_the_same_parameters(name):
    expected = usual_run(name, "rank0").flat.values()
    for layout in layouts_of(with_test_settings(name), N):
        if layout == "dedicated":
            continue  # one node more, with the same workers: compared below
        found = (trained if layout == "rank0" else usual_run)(name, layout).flat.values()
        if layout == "allreduce":
            assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5), "the engine's order of addition differs"
        else:
            assert torch.equal(found, expected), layout
    assert torch.equal(trained(name, "dedicated").flat.values(), expected)


@every
def test_the_bytes_counted_are_the_bytes_of_the_messages(name):
    simulation = usual_run(name, home(name))
    for rank in range(N):
        counted = simulation.traffic_of(rank)
        for direction in (counted.up, counted.down):
            framing = HEADER_BYTES * direction.messages
            if home(name) == "rank0":
                assert (direction.wire_bytes == 0) == (rank == 0), "worker 0 is on the server's node"
            assert (
                8 * (direction.wire_bytes + direction.local_bytes - framing)
                >= direction.payload_bits - 2 * direction.messages
            )
            assert direction.messages == counted.rounds * messages_a_round(
                simulation.algorithm, simulation.flat.spec, rank
            )


@every_star
def test_what_crosses_a_link_is_counted_at_the_worker_and_at_the_rank_that_serves_it(name):
    total = usual_run(name, home(name)).traffic
    assert total.served.wire_bytes == total.up.wire_bytes + total.down.wire_bytes > 0


def messages_a_round(algorithm: laconic.Algorithm, spec: ModelSpec, rank: int) -> int:
    """One for each yield; on a graph, one for each neighbor."""
    exchanges = len(algorithm.exchanges(spec, N))
    if algorithm.mode != "decentralized":
        return exchanges
    return sum(len(algorithm.peers(rank, N, 0, exchange, 0)) for exchange in range(exchanges))


@every
def test_the_papers_formula_is_the_mean_of_the_papers_meter(name):
    skips = with_test_settings(name).skips
    simulation = trained(name, home(name), rounds=60 if skips else 10)  # a share of skips needs many
    up, down = simulation.algorithm.paper_bits(simulation.flat.spec, N)
    total = simulation.traffic
    worker_rounds = N * total.rounds
    if simulation.algorithm.adaptive:
        assert total.up.paper_bits > 0
        return  # the next test
    share = 0.25 if skips else 1e-6
    assert total.up.paper_bits / worker_rounds == pytest.approx(up, rel=share)
    assert total.down.paper_bits / worker_rounds == pytest.approx(down, rel=share)
    assert (total.up.skips + total.down.skips > 0) == skips


@every
def test_the_papers_formula_is_the_maximum_of_any_round_if_the_traffic_depends_on_the_data(name):
    if not laconic.ALGORITHMS[name].adaptive:
        return
    simulation = trained(name, home(name), rounds=0)
    formula = simulation.algorithm.paper_bits(simulation.flat.spec, N)
    seen = [[0.0, 0.0] for _ in range(N)]
    for round_ in range(16):
        simulation.step(lambda rank, round_=round_: small_model.loss(simulation.model, rank, round_))
        for rank, before in enumerate(seen):
            traffic = simulation.traffic_of(rank)
            now = [traffic.up.paper_bits, traffic.down.paper_bits]
            for counted, last, maximum in zip(now, before, formula, strict=True):
                assert counted - last <= maximum * (1 + 1e-9), (round_, rank)
            seen[rank] = now


@every
def test_unequal_replicas_are_never_hidden_behind_the_claim(name):
    """Where the claim is made, the simulator itself compares every worker's result with worker 0's."""
    simulation = trained(name, rounds=3, link=laconic.Link(latency_s=0.001))
    same = all(torch.equal(simulation.parameters_of(0), simulation.parameters_of(rank)) for rank in range(N))
    assert same == simulation.algorithm.replicas_equal


@every
def test_its_settings_survive_the_round_trip_through_text(name):
    algorithm = with_test_settings(name)
    assert from_text(type(algorithm), algorithm.settings(), name) == algorithm


@every
def test_it_is_frozen_keyword_only_data_with_a_source_and_hyperparameters(name):
    cls = laconic.ALGORITHMS[name]
    assert is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert cls.source
    assert {field.name for field in fields(cls)} == {field.name for field, _ in hyperparameters_of(cls)}
    assert all(field.kw_only for field in fields(cls))


@every_in_step
def test_an_aborted_round_leaves_no_trace_in_any_memory(name):
    simulation = trained(name, home(name), rounds=3)
    before = [session.me.memory.saved() for session in simulation.driver.workers]
    served = simulation.driver.servers[0].view.memory.saved()
    here = simulation.flat.values()

    def non_finite(rank: int) -> torch.Tensor:
        return small_model.loss(simulation.model, rank, 3) * (float("inf") if rank == 2 else 1.0)

    simulation.step(non_finite)
    assert simulation.traffic.aborted_rounds == 1
    assert torch.equal(simulation.flat.values(), here)
    after = [session.me.memory.saved() for session in simulation.driver.workers]
    for old, new in zip([*before, served], [*after, simulation.driver.servers[0].view.memory.saved()], strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)


@pytest.mark.parametrize("name", [name for name in NAMES if laconic.ALGORITHMS[name].unbiased])
def test_where_it_claims_to_be_unbiased_the_mean_step_follows_the_mean_gradient(name):
    slopes = torch.randn(N, 29, generator=torch.Generator().manual_seed(4))
    steps = []
    for seed in range(40):
        x = torch.nn.Parameter(torch.zeros(29))
        simulation = laconic.Simulation(
            torch.nn.ParameterList([x]),
            torch.optim.SGD([x], lr=0.5),
            with_test_settings(name),
            workers=N,
            seed=seed,
        )
        simulation.step(lambda rank, x=x: slopes[rank] @ x)
        steps.append(x.detach() / -0.5)
    seen = torch.stack(steps)
    error = seen.std(0) / len(steps) ** 0.5
    assert ((seen.mean(0) - slopes.mean(0)).abs() <= 5 * error + 1e-6).all()


@pytest.mark.parametrize("name", [name for name in NAMES if laconic.ALGORITHMS[name].tolerates_absence])
def test_where_it_claims_to_tolerate_absence_a_gradient_not_delivered_is_sent_later(name):
    """Compared with a run whose gradient was zero, later steps go in the direction of the gradient not delivered."""
    assert moved_after_a_loss(with_test_settings(name), gradient_value=1.0) > moved_after_a_loss(
        with_test_settings(name), gradient_value=0.0
    )


def moved_after_a_loss(algorithm, gradient_value: float) -> float:
    """Sum of the changes of all parameters in 40 rounds, after worker 1's gradient -push was not delivered.

    All other gradients are zero.
    """
    driver = Simulated(algorithm, spec=sample_spec(algorithm, 31, 2), n_workers=2, layout="rank0", seed=3)
    lost, server = driver.workers[1], driver.servers[0]
    moved = 0.0
    for round_ in range(41):
        for each in driver.workers:
            gradient = torch.full((31,), -gradient_value if round_ == 0 and each is lost else 0.0)
            vector = gradient if algorithm.consumes == "gradient" else -0.1 * gradient
            inputs = Inputs(
                vector=vector, parameters=torch.zeros(31),
                gradient_at=lambda parameters: torch.zeros(31),
            )  # fmt: skip
            each.begin(round_, inputs, lr=0.1)
        for exchange in range(len(driver.job.exchanges_in(round_))):
            exchange_without([] if round_ else [lost.rank], driver, round_, exchange, 0.1)
        result = lost.result
        for each in driver.workers:
            each.close()
        server.close(happened=True)
        if round_ > 0:
            moved += float(result.sum() if algorithm.consumes == "change" else -result.sum())
    return moved
