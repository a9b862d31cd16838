"""Workers that bring the same first gradient are warned: they train on the same mini-batches."""

import warnings

import pytest
import torch

import laconic
from laconic.statements import LaconicWarning
from support import methods, optimizers, small_model
from support.ranks import run_ranks

pytestmark = [pytest.mark.xdist_group(__name__)]

N = 3
CASES = {  # which worker's mini-batch each worker takes -> workers that are named
    "all the same": ((0, 0, 0), "0, 1, 2"),
    "two the same": ((0, 1, 1), "1, 2"),
    "each its own": ((0, 1, 2), ""),
}


def warned_in(task) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task()
    ours = [warning for warning in caught if warning.category is LaconicWarning]
    assert all("/tests/" in warning.filename for warning in ours), "each is at the line of the user"
    return [str(warning.message) for warning in ours]


def train(rank: int, name: str, layout: str, data: tuple[int, ...], factor: float = 1.0, **settings) -> list[str]:
    net = small_model.net()
    opt = optimizers.wrapped(net, name, layout, **settings)

    def task() -> None:
        for round_ in range(4):
            optimizers.one_step(opt, net, data[rank], round_, factor)

    return warned_in(task)


def train_in_all_cases(rank: int) -> dict[str, list[str]]:
    found = {case: train(rank, "sgd", "allreduce", data) for case, (data, _) in CASES.items()}
    found["zero"] = train(rank, "sgd", "allreduce", (0, 0, 0), factor=0.0)
    found["local steps"] = train(rank, "diloco", "rank0", (0, 0, 0), local_steps=2)
    for name, layout in (("compskip", "sharded"), ("dsgd", "peers"), ("lasg", "rank0"), ("sgd", "dedicated"),
                         ("asgd", "dedicated")):  # fmt: skip
        found[name if name != "sgd" else layout] = train(rank, name, layout, (0, 0, 0))
    return found


@pytest.mark.slow
def test_ranks_with_the_same_initial_gradient_are_named_on_all_ranks_with_the_remedy():
    by_rank = run_ranks(train_in_all_cases, N)
    for rank, found in enumerate(by_rank):
        for case, (_, named) in CASES.items():
            if not named:
                assert found[case] == []
                continue
            (text,) = found[case]
            assert text.startswith(f"ranks {named} bring the same first gradient"), (rank, case)
            assert "DistributedSampler" in text
        assert found["zero"] == []
        for case in ("local steps", "compskip", "dsgd", "lasg"):
            assert len(found[case]) == 1, (rank, case)
    for case in ("dedicated", "asgd"):
        assert any(found[case] for found in by_rank[:2]), case
        assert all("ranks 0, 1 bring" in text for found in by_rank[:2] for text in found[case]), case
        assert by_rank[2][case] == [], "the server brings none"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["sgd", "lasg", "diloco", "asgd"])
def test_workers_of_a_simulation_with_the_same_initial_gradient_are_named(name, case):
    data, named = CASES[case]
    net, algorithm = small_model.net(), methods.with_test_settings(name)
    simulation = laconic.Simulation(net, torch.optim.SGD(net.parameters(), lr=0.1), algorithm, workers=N)

    def task() -> None:
        for round_ in range(3):
            simulation.step(lambda rank, round_=round_: small_model.loss(net, data[rank], round_))

    messages = warned_in(task)
    assert [text[: text.index(" bring")] for text in messages] == ([f"workers {named}"] if named else [])
