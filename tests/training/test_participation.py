"""k of n workers take part in a round, and workers count by weights."""

import math

import pytest
import torch

import laconic
from laconic.contract import ALGORITHMS, ModelSpec
from laconic.errors import OptionError
from laconic.lab.algorithms import make_algorithm
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.run import run_as_rank, run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.protocol.layout import choose_layout
from laconic.protocol.participation import Participation, why_all_are_needed
from support.ranks import run_ranks

TARGETS = torch.arange(1.0, 7.0)


def simulation(algorithm="sgd", lr=0.1, **options):
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    inner = torch.optim.SGD(model.parameters(), lr=lr)
    options = {"workers": 6, "layout": "dedicated", "clients_per_round": 2, "lr": "kept"} | options
    return laconic.Simulation(model, inner, make_algorithm(algorithm, {}), **options)


def loss_of(made, rank):
    """Worker `rank` pulls both weights to its own target; its gradient is weights - target."""
    return (made.model.weight - TARGETS[rank]).square().sum() / 2


def chosen_in(made, round_):
    return sorted({*range(6)} - made.driver.injector.down_in(round_))


def test_as_many_as_asked_for_are_chosen_anew_in_each_round_by_the_seed():
    rounds = [Participation(workers=100, per_round=10, seed=1).absent_in(number) for number in range(60)]
    assert {len(absent) for absent in rounds} == {90}
    present = [rank for absent in rounds for rank in set(range(100)) - absent]
    assert len(set(present)) > 90, "each worker has its turn"
    assert rounds == [Participation(workers=100, per_round=10, seed=1).absent_in(number) for number in range(60)]
    assert rounds[0] != Participation(workers=100, per_round=10, seed=2).absent_in(0)


def test_a_round_is_the_mean_of_those_that_take_part():
    made, weights = simulation(), torch.ones(2)
    for round_ in range(4):
        ranks = chosen_in(made, round_)
        losses = made.step(lambda rank: loss_of(made, rank))
        assert [rank for rank, loss in enumerate(losses) if not math.isnan(loss)] == ranks
        weights = weights - 0.1 * (weights - TARGETS[ranks].mean())
        assert torch.allclose(made.model.weight.detach()[0], weights)
    up = made.traffic.up
    assert up.messages == 4 * 2, "the others send nothing"


def test_local_steps_and_sgd_are_federated_averaging():
    made, weights = simulation(local_steps=3), torch.ones(2)
    ranks = chosen_in(made, 0)
    for _ in range(3):
        made.step(lambda rank: loss_of(made, rank))
    models = []
    for rank in ranks:
        own = weights
        for _ in range(3):
            own = own - 0.1 * (own - TARGETS[rank])
        models.append(own)
    assert torch.allclose(made.model.weight.detach()[0], torch.stack(models).mean(0))


def test_what_a_worker_has_not_sent_waits_until_it_takes_part_again():
    made = simulation("ec-sgd")
    before = {}
    for round_ in range(8):
        ranks = chosen_in(made, round_)
        made.step(lambda rank: loss_of(made, rank))
        for worker in made.driver.workers:
            residual = worker.me.memory["residual"].clone()
            if worker.rank in before and worker.rank not in ranks:
                assert torch.equal(residual, before[worker.rank])
            before[worker.rank] = residual
    resting = [worker for worker in made.driver.workers if worker.rank not in ranks and worker.me.round < 7]
    assert all(worker.result is None and not worker.me.gradient.numel() for worker in resting), "no vector of a round"


def test_methods_that_need_every_worker_are_refused_by_name():
    spec, refused = ModelSpec.of_sizes(100), {}
    for name in sorted(ALGORITHMS):
        algorithm = make_algorithm(name, {})
        if why := why_all_are_needed(algorithm):
            refused[name] = why
            layout = choose_layout("auto", algorithm, spec, n_nodes=5)
            with pytest.raises(OptionError, match=f"clients_per_round=2: {name} "):
                Participation(workers=4, per_round=2, seed=0).check(algorithm, layout)
    assert set(refused) == {
        "asgd", "csgd-ring", "diloco", "dsgd", "lag", "lasg", "powersgd", "sasg", "sgd-server", "ssgd-mv-ad",
    }  # fmt: skip
    for options, words in (
        ({"layout": "allreduce"}, "needs a server, and layout='allreduce' has none"),
        ({"layout": "sharded"}, "cannot go with layout='sharded', where every worker serves a slice"),
        ({"clients_per_round": 7}, "must be at least 1 and at most workers=6"),
    ):
        with pytest.raises(OptionError, match=words):
            simulation(**options)


def settings(**options):
    base = {"algorithm": "sgd", "model": "linear", "workers": 20, "batch_size": 8, "epochs": 1, "layout": "dedicated"}
    return RunSettings(**base | {"clients_per_round": 5, "partition": "unequal"} | options)


def test_an_epoch_is_as_many_rounds_as_those_that_take_part_need_for_all_examples():
    record = run_simulated(settings(), lambda progress: None)
    assert record.traffic.rounds == 4 * Experiment(settings(clients_per_round=None)).steps_per_epoch
    assert record.last.test_accuracy > 0.5
    bits = record.summary()["bits_per_worker_and_round"]
    assert bits["paper_up"] == bits["expected_paper_up"], "of a worker that takes part"


METHODS = [name for name in sorted(ALGORITHMS) if not why_all_are_needed(make_algorithm(name, {}))]
RUNS = [("sgd", "rank0", 1), ("dropsign", "rank0", 1), ("ec-sgd", "dedicated", 1), ("ssgd-mv", "rank0", 3)]
ROUNDS, WANTED = 6, torch.linspace(-1, 1, 3 * 24).view(3, 24)


def pulled(rank):
    """A model, and the loss by which worker `rank` pulls it to its own point."""
    model = torch.nn.Linear(24, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    return model, lambda rank=rank: (model.weight - WANTED[rank]).square().sum() / 2


def method_of(name):
    return make_algorithm(name, {key: str(value) for key, value in ALGORITHMS[name].test_settings.items()})


def ends_on(rank, runs):
    """What each run ends with on this rank: parameters, what the worker remembers, its upload, and when it rested."""
    found = []
    for name, layout, local_steps in runs:
        model, loss = pulled(rank)
        inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5 if local_steps == 1 else 0)
        opt = laconic.DistributedOptimizer(
            inner, method_of(name), layout=layout, local_steps=local_steps, seed=4, lr="kept", check_every=1,
            clients_per_round=1 if layout == "dedicated" else 2,
        )  # fmt: skip
        rests = []
        for step in range(ROUNDS * local_steps):
            rests.append(opt.rests)
            inner.zero_grad()
            if opt.rests and step % 2:  # then it needs no gradient, and one that it has does nothing
                (model.weight.sum() * math.nan).backward()
            elif not opt.rests and not opt.serves_only:
                loss().backward()
            opt.step()
        worker, weights = opt.driver.worker, model.weight.detach().clone()
        memory = {} if worker is None else {key: worker.me.memory[key].clone() for key in worker.me.memory}
        found.append((weights, memory, None if worker is None else worker.meter.counts["up"], rests[::local_steps]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("runs", [
    pytest.param(RUNS, id="some methods"),
    pytest.param([(name, "rank0", 1) for name in METHODS], id="all methods", marks=pytest.mark.nightly),
])  # fmt: skip
def test_processes_of_which_some_take_part_end_with_the_bits_of_the_simulator(runs):
    ends = run_ranks(ends_on, 3, runs)
    for number, (name, layout, local_steps) in enumerate(runs):
        workers = 2 if layout == "dedicated" else 3
        model, loss = pulled(0)
        inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5 if local_steps == 1 else 0)
        made = laconic.Simulation(
            model, inner, method_of(name), workers=workers, layout=layout, local_steps=local_steps,
            clients_per_round=workers - 1, seed=4, lr="kept",
        )  # fmt: skip
        absent = [made.driver.injector.down_in(round_) for round_ in range(ROUNDS)]
        for _ in range(ROUNDS * local_steps):
            made.step(loss)
        for rank, of_rank in enumerate(ends):
            weights, memory, up, rests = of_rank[number]
            if rank < workers:
                worker = made.driver.workers[rank]
                assert torch.equal(weights, model.weight.detach()), (name, layout, rank)
                assert rests == [rank in each for each in absent], "who rests, follows from the seed"
                assert up == worker.meter.counts["up"], "who is not chosen sends nothing"
                expected = {key: worker.me.memory[key] for key in worker.me.memory}
                assert memory.keys() == expected.keys()
                assert all(torch.equal(memory[key], expected[key]) for key in memory), (name, layout, rank)


def refused_on(rank):
    model, _ = pulled(rank)
    for name, layout in (("sgd", "sharded"), ("lag", "rank0")):
        with pytest.raises(OptionError, match="clients_per_round=1"):
            laconic.DistributedOptimizer(
                torch.optim.SGD(model.parameters(), lr=0.1), method_of(name), layout=layout, clients_per_round=1
            )


@pytest.mark.slow
def test_ranks_are_refused_what_needs_every_worker():
    run_ranks(refused_on, 2)


SMALL = {"workers": 2, "clients_per_round": 1, "layout": "rank0", "batch_size": 100}


def rows_over_processes(rank):
    return run_as_rank(settings(**SMALL, driver="processes"), lambda progress: None)


@pytest.mark.slow
def test_a_run_over_processes_has_the_losses_and_accuracies_of_the_simulated_one():
    found, expected = run_ranks(rows_over_processes, 2)[0], run_simulated(settings(**SMALL), lambda progress: None)
    for one, other in zip(found.rows, expected.rows, strict=True):
        assert (one.round, one.test_accuracy, one.up_wire_bytes) == (
            other.round, other.test_accuracy, other.up_wire_bytes
        )  # fmt: skip
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-6)
    assert found.traffic.down.payload_bits == 2 * found.traffic.up.payload_bits, (
        "all get the answers, half of them send"
    )
    bits = found.summary()["bits_per_worker_and_round"]
    assert bits["paper_down"] == bits["expected_paper_down"]


def test_workers_count_by_their_examples_if_asked():
    made = simulation(clients_per_round=None)
    made.training.weights = {rank: 6 * (rank + 1) / 21 for rank in range(6)}
    made.step(lambda rank: loss_of(made, rank))
    weighted = sum((rank + 1) / 21 * float(TARGETS[rank]) for rank in range(6))
    assert torch.allclose(made.model.weight.detach()[0], torch.tensor(1 - 0.1 * (1 - weighted)))
    experiment = Experiment(settings(weights="samples"))
    weights, sizes = experiment.weights(), [len(shard) for shard in experiment.task.partition.shards]
    assert sum(weights.values()) == pytest.approx(20)
    assert weights[19] / weights[0] == pytest.approx(sizes[19] / sizes[0])
    assert Experiment(settings()).weights() == {}
    with pytest.raises(OptionError, match="weights='samples' is for workers with shards of their own"):
        settings(weights="samples", partition="resample")
