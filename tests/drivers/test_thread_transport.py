"""The requests of a rank over a transport of threads and queues: every bit and byte is the simulator's."""

from dataclasses import dataclass
from itertools import count, pairwise

import pytest
import torch

import laconic
from laconic.compressors import dense
from laconic.contract import ModelSpec
from laconic.drivers.scheduler import Scheduler
from laconic.drivers.simulated.arrivals import SimulatedArrivals
from laconic.drivers.simulated.rounds import Simulated
from laconic.drivers.transport import carry_out
from laconic.errors import ContractError
from laconic.protocol.async_rank import ServingRank
from laconic.protocol.exchanges import RankSessions, run_rank
from laconic.protocol.job import Job
from laconic.protocol.layout import choose_layout
from laconic.protocol.round_inputs import Inputs
from laconic.protocol.slices import SlicedRank
from support import methods
from support.golden_jobs import LR, D, table
from support.inputs import each_over
from support.thread_transport import in_threads

N = 4
SPEC = ModelSpec.of_sizes(200, 61)


class Replica:
    """The parameters of one worker, or of a server."""

    def __init__(self):
        self.x = torch.zeros(D)
        self.path = []

    def inputs(self, algorithm, rank, round_):
        here = self.x.clone()
        gradient = table(rank, round_) + here / 8
        return Inputs(
            vector=gradient if algorithm.consumes == "gradient" else -LR * gradient, parameters=here.clone(),
            gradient_at=lambda point: table(rank, round_) + point / 8,
        )  # fmt: skip

    def apply(self, algorithm, result):
        result = result if isinstance(result, torch.Tensor) else result.dense()
        if algorithm.returns == "parameters":
            self.x = result.clone()
        else:
            self.x = self.x + (result if algorithm.consumes == "change" else -LR * result)

    def descend(self, direction, largest=None):
        self.x = self.x - LR * direction
        self.path.append(self.x)
        return self.x.clone()


def rounds_of(algorithm):
    """Where workers first wait 10 rounds before they skip any, some more than that."""
    return 12 if hasattr(algorithm, "max_delay") else 8


def job_of(algorithm, layout, n_nodes):
    return Job(
        algorithm=algorithm, seed=5, spec=SPEC, dtype=torch.float32,
        layout=choose_layout(layout, algorithm, SPEC, n_nodes),
    )  # fmt: skip


def silent(phase):
    pass


def over_threads(algorithm, layout):
    """Of each rank: the parameters after the rounds, and the traffic; None for one that only serves."""

    def task(transport):
        own, job = Replica(), job_of(algorithm, layout, N)
        sessions = RankSessions(job, transport.rank, Replica().descend)
        worker = sessions.worker
        for round_ in range(rounds_of(algorithm)):
            inputs = None if worker is None else own.inputs(algorithm, worker.rank, round_)
            result = carry_out(run_rank(sessions, round_, inputs, LR, silent), transport)
            if worker is not None:
                own.apply(algorithm, result.of(worker.rank))
        transport.close()
        return None if worker is None else (own.x, worker.meter.saved())

    return in_threads(task, N)


def in_lock_step(algorithm, layout):
    """The same of each worker, in the simulator."""
    driver = Simulated(
        algorithm, spec=SPEC, n_workers=N - (layout == "dedicated"), layout=layout, seed=5,
        descend=Replica().descend, sparse_results=True,
    )  # fmt: skip
    replicas = [Replica() for _ in driver.workers]
    for round_ in range(rounds_of(algorithm)):
        result = driver.round(lambda rank, round_=round_: replicas[rank].inputs(algorithm, rank, round_), LR)
        for rank, replica in enumerate(replicas):
            replica.apply(algorithm, result.of(rank))
    return [(replica.x, worker.meter.saved()) for replica, worker in zip(replicas, driver.workers, strict=True)]


@pytest.mark.slow
@each_over(("name", "layout"), methods.in_step_with_layouts(N) + methods.BY_LAYER)
def test_threads_and_the_simulator_end_with_the_same_bits_and_bytes(name, layout):
    algorithm = methods.with_test_settings(name)
    found = [of_rank for of_rank in over_threads(algorithm, layout) if of_rank is not None]
    expected = in_lock_step(algorithm, layout)
    assert len(found) == len(expected)
    for (x, traffic), (expected_x, expected_traffic) in zip(found, expected, strict=True):
        assert torch.isfinite(x).all()
        assert torch.equal(x, expected_x)
        assert traffic == expected_traffic


@dataclass(frozen=True, kw_only=True)
class Careless(laconic.CSGD):
    """Adds up into the first packet."""

    def serve(self, server, inbox):
        total = inbox[0].dense()
        for rank in range(1, len(inbox)):
            total += inbox[rank].dense()
        return dense(total.mul_(0.5))


def test_a_server_that_writes_into_what_its_own_worker_lends_it_is_refused():
    identity = laconic.Identity()
    job = job_of(Careless(compressor=identity, server_compressor=identity), "rank0", 1)

    def task(transport):
        inputs = Inputs(vector=torch.ones(D), parameters=torch.zeros(D))
        carry_out(run_rank(RankSessions(job, 0), 0, inputs, LR, silent), transport)

    with pytest.raises(ContractError, match=r"csgd: serve changes a packet's values in place.*inbox\.sum\(\)"):
        in_threads(task, 1)


def test_a_server_that_takes_gradients_in_a_given_order_steps_as_the_simulator_s():
    """The order is that of simulated workers of different speeds, no two of which are ready at the same time."""
    algorithm, n_steps, simulated, served = laconic.ASGD(), 6, Replica(), Replica()
    driver = SimulatedArrivals(
        algorithm, parameters=torch.zeros(D), spec=SPEC, n_workers=3, seed=5,
        descend=simulated.descend, compute_s={0: 1.0, 1: 1.37, 2: 0.31},
    )  # fmt: skip
    steps = [count() for _ in range(3)]

    def inputs_of(rank):
        here = Replica()
        here.x = driver.pulled[rank]
        return here.inputs(algorithm, rank, next(steps[rank]))

    for _ in range(n_steps):
        driver.round(inputs_of, LR)
    order = []
    for update in driver.engine.updates:
        if all(order.count(rank) >= n_steps for rank in range(3)):
            break
        order.append(update.worker)

    def task(transport):
        sessions = RankSessions(job_of(algorithm, "auto", N), transport.rank, served.descend)
        if sessions.worker is None:
            transport.order = iter(order)
            serving = ServingRank(sessions, torch.zeros(D))
            for round_ in range(n_steps):
                carry_out(serving.serve(round_, LR, silent), transport)
            return serving.arrivals.update_counts
        own = Replica()
        for round_ in range(order.count(transport.rank)):
            inputs = own.inputs(algorithm, transport.rank, round_)
            result = carry_out(run_rank(sessions, round_, inputs, LR, silent), transport)
            own.apply(algorithm, result.of(transport.rank))
        return sessions.worker.meter.saved()

    *_, counts = in_threads(task, N)
    assert [each.n_finished for each in counts] == [order.count(rank) for rank in range(3)]
    assert any(staleness for each in counts for staleness in each.staleness)
    assert len(served.path) == len(order)
    for mine, expected in zip(served.path, simulated.path, strict=False):
        assert torch.equal(mine, expected)


# Slices.

BOUNDS = (0, 5, 40, 41, 120, 200, 230, 261)
EXACT = [
    (name, layout)
    for name, layout in methods.in_step_with_layouts(N)
    if methods.with_test_settings(name).over_slices == "exact" and layout not in ("allreduce", "dedicated")
]


def plain_steps(algorithm, layout, broken=()):
    """Of each rank, after rounds over the full vector: its parameters, and its worker's memory."""

    def task(transport):
        own, sessions = Replica(), RankSessions(job_of(algorithm, layout, N), transport.rank)
        for round_ in range(rounds_of(algorithm)):
            inputs = own.inputs(algorithm, transport.rank, round_)
            if (transport.rank, round_) in broken:
                inputs.vector[205] = torch.inf
            result = carry_out(run_rank(sessions, round_, inputs, LR, silent), transport)
            if not result.aborted:
                own.apply(algorithm, result.of(transport.rank))
        return own.x, sessions.worker.me.memory.saved()

    return in_threads(task, N)


def steps_over_slices(algorithm, layout, broken=()):
    """The same, with all seven slices of a round in flight: started by a thread that does not own the transport."""

    def task(transport):
        own, sliced = Replica(), SlicedRank(job_of(algorithm, layout, N), BOUNDS, transport.rank)
        scheduler = Scheduler(transport)
        for round_ in range(rounds_of(algorithm)):
            full = own.inputs(algorithm, transport.rank, round_)
            if (transport.rank, round_) in broken:
                full.vector[205] = torch.inf
            started = []
            for number, (start, stop) in enumerate(pairwise(BOUNDS)):
                part = Inputs(vector=full.vector[start:stop].clone(), parameters=full.parameters[start:stop])
                started.append(scheduler.start(sliced.run(number, round_, part, LR, silent)))
            results = sliced.end([each.result() for each in started], silent)
            if not results[0].aborted:
                dense = [result.of(transport.rank) for result in results]
                dense = [each if isinstance(each, torch.Tensor) else each.dense() for each in dense]
                own.apply(algorithm, torch.cat(dense))
        scheduler.close()
        transport.close()
        return own.x, sliced.memory.saved()

    return in_threads(task, N)


def assert_same_ends(found, expected):
    for (x, memory), (expected_x, expected_memory) in zip(found, expected, strict=True):
        assert torch.equal(x, expected_x)
        assert memory.keys() == expected_memory.keys()
        assert all(torch.equal(value, expected_memory[name]) for name, value in memory.items())


@pytest.mark.parametrize(("name", "layout"), EXACT)
@pytest.mark.slow
def test_seven_slices_in_flight_end_as_the_plain_step(name, layout):
    algorithm = methods.with_test_settings(name)
    plain = plain_steps(algorithm, layout)
    assert all(x.abs().max() > 0 for x, _ in plain)
    assert_same_ends(steps_over_slices(algorithm, layout), plain)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["rank0", "sharded", "allgather"])
def test_inf_in_one_slice_aborts_the_round_for_all_slices(layout):
    algorithm, broken = methods.with_test_settings("dropsign"), {(2, 3), (0, 7)}
    plain = plain_steps(algorithm, layout, broken)
    assert not torch.equal(plain[0][0], plain_steps(algorithm, layout)[0][0])
    assert_same_ends(steps_over_slices(algorithm, layout, broken), plain)
