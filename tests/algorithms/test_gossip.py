"""Decentralized SGD and the compressed ring: identities with SGD, and how far models drift apart."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import laconic
from laconic.algorithms.csgd_ring import CSGDRing
from laconic.algorithms.dsgd import DSGD
from laconic.algorithms.sgd_model import ModelAveraging
from laconic.compressors import DenseValues, Identity, ScaledSign, Sign, TopK, dense
from laconic.contract import Exchange, ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.gossip.mixing import Mixing
from laconic.protocol.round_inputs import Inputs
from laconic.random_keys import shared_key
from laconic.random_keys.streams import words
from support import small_model
from support.inputs import over_inputs
from support.jobs import job_of
from support.simulated_run import Run, assert_same, normal, quadratic, wavy

GRAPHS = ["ring", "full", "torus", "exponential", "star", "0-1 1-2 2-3 3-4 4-5 0-3"]


class Gossip:
    """A decentralized method on a problem: one model per worker, with plain SGD as inner optimizer."""

    def __init__(self, algorithm, problem, lr=0.1):
        self.problem, self.lr, self.t = problem, lr, 0
        self.x = problem.start.expand(problem.n_workers, -1).clone()
        self.sim = Simulated(
            algorithm, spec=ModelSpec.of_sizes(problem.d), n_workers=problem.n_workers, dtype=torch.float64
        )

    def gradients(self):
        return torch.stack([self.problem.gradient(rank, self.t, x) for rank, x in enumerate(self.x)])

    def step(self):
        """Run one round; return the gradients that it used, (n, d)."""
        gradients, here = self.gradients(), self.x

        def inputs_of(rank):
            return Inputs(vector=-self.lr * gradients[rank], parameters=here[rank].clone())

        outcome = self.sim.round(inputs_of, self.lr)
        self.x = torch.stack([outcome.of(rank) for rank in range(self.problem.n_workers)])
        self.t += 1
        return gradients


def test_mixing_with_all_workers_is_minibatch_sgd():
    problem = quadratic(n_workers=6)
    gossip, sgd = Gossip(DSGD(graph="full"), problem), Run(laconic.SGD(), problem, lr=0.1)
    for _ in range(20):
        gossip.step()
        sgd.step()
        for x in gossip.x:
            assert_same(x, sgd.x)


@pytest.mark.parametrize("graph", [*GRAPHS, "shift-one"])
def test_a_round_is_a_step_and_then_the_matrix(graph):
    problem = quadratic(n_workers=6)
    gossip = Gossip(DSGD(graph=graph), problem)
    for t in range(8):
        before = gossip.x
        gradients = gossip.step()
        w = torch.from_numpy(Mixing.from_text(graph, 6, t).matrix())
        assert_same(gossip.x, w @ (before - 0.1 * gradients))


@pytest.mark.parametrize("mixing", ["models", "difference", "choco"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_the_mean_model_follows_sgd_on_the_mean_gradient_whatever_the_graph(graph, mixing):
    gossip = Gossip(DSGD(graph=graph, mixing=mixing), quadratic(n_workers=6))
    for _ in range(10):
        before = gossip.x.mean(0)
        step = 0.1 * gossip.step().mean(0)
        assert_same(gossip.x.mean(0), before - step)
    assert (gossip.x - gossip.x.mean(0)).norm() > 0 or graph == "full"


def test_chocos_mean_model_follows_sgd_even_when_differences_are_compressed():
    algorithm = DSGD(graph="ring", mixing="choco", compressor=TopK(density=0.3), consensus_step_size=0.4)
    gossip = Gossip(algorithm, quadratic(n_workers=5))
    for _ in range(15):
        before = gossip.x.mean(0)
        step = 0.1 * gossip.step().mean(0)
        assert_same(gossip.x.mean(0), before - step)


def test_without_loss_choco_at_step_size_one_mixes_the_models_themselves():
    problem = quadratic(n_workers=5)
    reference, choco = Gossip(DSGD(), problem), Gossip(DSGD(mixing="choco"), problem)
    for _ in range(10):
        reference.step()
        choco.step()
        assert_same(reference.x, choco.x, to=1e-11)


LOSSY = [
    DSGD(mixing="choco", compressor=TopK(density=0.3), consensus_step_size=0.4),
    DSGD(mixing="choco", compressor=ScaledSign(blocks="vector"), consensus_step_size=0.3),
    DSGD(mixing="choco", compressor=DenseValues(value_type="bfloat16")),
    DSGD(mixing="difference", compressor=DenseValues(value_type="bfloat16")),
]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", LOSSY, ids=lambda a: f"{a.mixing}-{a.compressor.name}")
def test_compressed_gossip_keeps_both_ends_copies_equal_and_brings_models_together(algorithm):
    problem = quadratic(n_workers=6, noise=0.0)
    gossip = Gossip(algorithm, problem, lr=0.05)
    for t in range(200):
        gossip.lr = 0.05 * (1 - t / 260)
        gossip.step()
    copies = [worker.me.memory for worker in gossip.sim.workers]
    for rank, memory in enumerate(copies):
        for other in ((rank + 1) % 6, (rank - 1) % 6):
            assert torch.equal(memory[f"replica.{other}"], copies[other][f"replica.{other}"])
    start = problem.gap(problem.start)
    assert problem.gap(gossip.x.mean(0)) < 0.02 * start
    assert max(problem.gap(x) for x in gossip.x) < 0.2 * start


def test_models_drift_apart_as_far_as_theory_says():
    """Identical Hessians a = 1, step 0.1, noise 1, a ring of 8: 0.031292 for all workers together, each coordinate."""
    d, n, lr = 400, 8, 0.1
    problem = quadratic(d=d, n_workers=n)
    generator = torch.Generator().manual_seed(5)
    gossip = Gossip(DSGD(), problem, lr=lr)
    gossip.gradients = lambda: gossip.x + torch.randn(n, d, generator=generator, dtype=torch.float64)
    apart, mean = [], []
    for t in range(400):
        gossip.step()
        if t >= 60:
            center = gossip.x.mean(0)
            apart.append(float((gossip.x - center).square().sum() / d))
            mean.append(float(center.square().mean()))
    eigenvalues = np.sort(np.linalg.eigvalsh(Mixing.from_text("ring", n).matrix()))[:-1]
    expected = sum(lr**2 * lam**2 / (1 - lam**2 * (1 - lr) ** 2) for lam in eigenvalues)
    assert expected == pytest.approx(0.031292, abs=1e-6)
    assert np.mean(apart) == pytest.approx(expected, rel=0.03)
    assert np.mean(mean) == pytest.approx(0.006579, rel=0.06)


# The ring.


@pytest.mark.parametrize("partitioned", [True, False])
@over_inputs("n", (1, 2, 3, 5, 8))
def test_a_ring_without_loss_is_the_mean(partitioned, n):
    gradients = normal(n, 17, key=n)
    driver = Simulated(CSGDRing(partitioned=partitioned), spec=ModelSpec.of_sizes(17), n_workers=n, dtype=torch.float64)
    outcome = driver.round(lambda rank: Inputs(vector=gradients[rank].clone(), parameters=gradients[0]), lr=0.1)
    assert_same(outcome.of(0), gradients.mean(0))


@pytest.mark.slow
def test_a_ring_of_130_workers_has_258_exchanges_a_round():
    n, d = 130, 5
    gradients = normal(n, d, key=n)
    driver = Simulated(CSGDRing(partitioned=False), spec=ModelSpec.of_sizes(d), n_workers=n, dtype=torch.float64)
    outcome = driver.round(lambda rank: Inputs(vector=gradients[rank].clone(), parameters=gradients[0]), lr=0.1)
    assert_same(outcome.of(n - 1), gradients.mean(0))


@pytest.mark.slow
def test_more_exchanges_than_a_header_can_number_are_refused_at_the_start():
    with pytest.raises(ValueError, match="csgd-ring with 33000 workers has 65,998 exchanges in a round"):
        job_of(CSGDRing(), ModelSpec.of_sizes(5), n_workers=33_000)


@pytest.mark.parametrize("partitioned", [True, False])
def test_each_slice_is_compressed_once_by_every_worker_and_then_passed_on_as_it_is(partitioned):
    n, d = 4, 19
    seen = []

    class Counting(Sign):
        def __call__(self, vector, **where):
            seen.append((where["offset"], vector.numel()))
            return super().__call__(vector, **where)

    algorithm = CSGDRing(partitioned=partitioned)
    object.__setattr__(algorithm, "compressor", Counting())
    gradients = normal(n, d, key=3)
    driver = Simulated(algorithm, spec=ModelSpec.of_sizes(d), n_workers=n, dtype=torch.float64)
    outcome = driver.round(lambda rank: Inputs(vector=gradients[rank].clone(), parameters=gradients[0]), lr=0.1)
    slices = {(0, 5), (5, 5), (10, 5), (15, 4)} if partitioned else {(0, 19)}
    assert {place: seen.count(place) for place in seen} == dict.fromkeys(slices, n)
    assert all(result is outcome.of(0) for result in outcome.results.values()), "all workers ended with the same bits"
    assert set(outcome.of(0).tolist()) <= {-1 / n, 1 / n}


def test_a_ring_of_signs_adds_up_as_by_hand():
    """One slice, three workers: Q(Q(Q(g0) + g1) + g2), and the sum is a third of it."""
    gradients = torch.tensor([[0.5, -2.0, 0.1], [-3.0, 0.5, 0.2], [0.5, 1.5, -4.0]], dtype=torch.float64)
    algorithm = CSGDRing(partitioned=False, compressor=Sign())
    driver = Simulated(algorithm, spec=ModelSpec.of_sizes(3), n_workers=3, dtype=torch.float64)
    outcome = driver.round(lambda rank: Inputs(vector=gradients[rank].clone(), parameters=gradients[0]), lr=0.1)
    passed = gradients[0].sign()
    for own in gradients[1:]:
        passed = (passed + own).sign()
    assert torch.equal(outcome.of(0), passed / 3)


@pytest.mark.parametrize("partitioned", [True, False])
def test_a_ring_moves_two_vectors_less_two_nths(partitioned):
    n, d = 5, 40
    run = Run(CSGDRing(partitioned=partitioned), quadratic(d=d, n_workers=n), lr=wavy, layout="auto")
    run.path(3)
    up = sum(worker.meter.counts["up"].payload_bits for worker in run.sim.workers)
    assert up == 3 * 2 * (n - 1) * 64 * d


# What goes wrong.


@pytest.mark.parametrize("name", ["dsgd", "csgd-ring"])
def test_inf_at_one_worker_aborts_the_round_for_all_even_distant_ones(name):
    problem = quadratic(n_workers=6)
    algorithm = laconic.ALGORITHMS[name]()
    driver = Simulated(algorithm, spec=ModelSpec.of_sizes(problem.d), n_workers=6, dtype=torch.float64)
    vector = torch.zeros(problem.d, dtype=torch.float64)
    outcome = driver.round(
        lambda rank: Inputs(vector=vector if rank else vector + torch.inf, parameters=vector),
        lr=0.1,
    )
    assert outcome.aborted
    assert driver.aborted_rounds == 1
    assert all(not list(worker.me.memory) for worker in driver.workers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"graph": "ringg"}, "did you mean ring"),
        ({"graph": "0-1 2-3"}, "are not connected to"),
        ({"graph": "0-9"}, "9"),
    ],
)
def test_a_wrong_graph_is_named_before_anything_is_sent(settings, message):
    with pytest.raises(ValueError, match=message):
        Simulated(DSGD(**settings), spec=ModelSpec.of_sizes(5), n_workers=4)


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="mixing=difference or mixing=choco"):
        Simulated(DSGD(compressor=Sign()), spec=ModelSpec.of_sizes(5), n_workers=4)
    with pytest.raises(ValueError, match="shift-one pairs each worker with another one every round"):
        Simulated(DSGD(graph="shift-one", mixing="choco"), spec=ModelSpec.of_sizes(5), n_workers=4)
    with pytest.raises(ValueError, match="layout='rank0' does not go with dsgd: it has no server"):
        Simulated(DSGD(), spec=ModelSpec.of_sizes(5), n_workers=4, layout="rank0")
    with pytest.raises(ValueError, match="layout='peers' does not go with sgd: it has no graph"):
        Simulated(laconic.SGD(), spec=ModelSpec.of_sizes(5), n_workers=4, layout="peers")


def test_after_a_step_the_simulations_model_is_the_mean_of_the_workers():
    net = small_model.net().double()
    simulation = laconic.Simulation(
        net, torch.optim.SGD(net.parameters(), lr=0.1), DSGD(compressor=Identity()), workers=5, local_steps=2
    )
    for step in range(4):
        simulation.step(lambda rank, step=step: small_model.loss(net, rank, step))
    models = [simulation.parameters_of(rank) for rank in range(5)]
    assert not torch.equal(models[0], models[1])
    assert_same(small_model.values(net), torch.stack(models).mean(0))


# Graphs.


@dataclass(frozen=True, kw_only=True)
class RandomPartners(ModelAveraging):
    """Every round, workers average their models in pairs that all ranks draw alike."""

    mode: ClassVar[str] = "decentralized"
    replicas_equal: ClassVar[bool] = False

    def exchanges(self, spec, n_workers=1):
        return (Exchange(count=spec.d, offset=spec.offset),)

    def peers(self, rank, n_workers, round_, exchange, key):
        order = np.argsort(words(key, n_workers)).tolist()
        return (order[order.index(rank) ^ 1],)

    def work(self, me):
        model = me.change_plus(me.parameters)
        reply = yield dense(model, offset=me.offset)
        (other,) = reply.packets.values()
        return (model + other.dense()) / 2


def test_a_graph_may_be_sampled_by_key_in_every_round():
    n, d = 6, 3
    x = normal(n, d, key=4)
    driver = Simulated(RandomPartners(), spec=ModelSpec.of_sizes(d), n_workers=n, dtype=torch.float64, seed=7)
    seen = set()
    for round_ in range(12):
        pairs = frozenset(
            frozenset((rank, *RandomPartners().peers(rank, n, round_, 0, shared_key(7, round_, "graph"))))
            for rank in range(n)
        )
        assert sorted(rank for pair in pairs for rank in pair) == list(range(n))
        seen.add(pairs)
        outcome = driver.round(lambda rank, x=x: Inputs(vector=torch.zeros(d).double(), parameters=x[rank]), lr=0.1)
        expected = torch.empty_like(x)
        for one, other in map(tuple, pairs):
            expected[one] = expected[other] = (x[one] + x[other]) / 2
        x = torch.stack([outcome.of(rank) for rank in range(n)])
        assert torch.equal(x, expected)
    assert len(seen) > 6
