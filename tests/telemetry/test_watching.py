"""`laconic.traffic.watch` counts the collectives of any program: what was given, sent and received by each rank."""

import pytest
import torch
import torch.distributed as dist

import laconic
from laconic.traffic import Calls, watch
from support.ranks import run_ranks

D = 12  # divisible by 2, 3 and 4
BYTES = 4 * D


def every_collective(rank: int) -> dict[str, dict[str, float]]:
    n = dist.get_world_size()

    def full() -> torch.Tensor:
        return torch.ones(D)

    with watch() as watched:
        dist.all_reduce(full())
        with torch.inference_mode():
            dist.all_reduce(full())
        dist.broadcast(full(), 1)
        dist.reduce(full(), 1)
        dist.all_gather([full() for _ in range(n)], full())
        dist.gather(full(), [full() for _ in range(n)] if rank == 1 else None, dst=1)
        dist.scatter(full(), [full() for _ in range(n)] if rank == 1 else None, src=1)
        dist.reduce_scatter(torch.ones(D // n), list(full().chunk(n)))
        dist.all_to_all_single(full(), full())
        if rank < 2:
            (dist.send if rank == 0 else dist.recv)(full(), 1 - rank)
        dist.barrier()
    dist.all_reduce(full())  # after the end: nobody counts
    return watched.as_data()


def a_model_in_ddp(rank: int) -> tuple[dict[str, dict[str, float]], int]:
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(10, 10))
    with watch() as outer, watch() as inner:
        model(torch.ones(2, 10)).sum().backward()
    assert inner.as_data() == outer.as_data()
    return inner.as_data(), sum(parameter.numel() * 4 for parameter in model.parameters())


def a_sparse_sum(rank: int) -> dict[str, float]:
    twice = torch.sparse_coo_tensor(torch.tensor([[0, 0, 5]]), torch.ones(3), (D,))  # one place stands there twice
    with watch() as watched:
        dist.all_reduce(twice)
    return watched.as_data()["all_reduce"]


def steps_of_laconic(rank: int) -> list[tuple[float, int]]:
    model = torch.nn.Linear(D, 1, bias=False)
    with laconic.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1), laconic.SGD(), model=model, layout="allreduce", check_every=0
    ) as opt:
        found = []
        for _ in range(2):
            opt.zero_grad()
            model(torch.ones(3, D) * (rank + 1)).sum().backward()
            before = opt.traffic
            with watch() as watched:
                opt.step()
            found.append((watched.sent_bytes, metered(opt.traffic) - metered(before)))
    return found


def metered(traffic: laconic.Traffic) -> int:
    return traffic.up.wire_bytes + traffic.down.wire_bytes + traffic.control_bytes


@pytest.mark.slow
def test_each_collective_counts_what_its_algorithm_moves_on_every_rank():
    for n in (2, 3, 4):
        found = run_ranks(every_collective, n)
        ring = (n - 1) / n * BYTES
        sent = {kind: [of_rank[kind]["sent_bytes"] for of_rank in found if kind in of_rank] for kind in found[0]}
        received = {
            kind: [of_rank[kind]["received_bytes"] for of_rank in found if kind in of_rank] for kind in found[0]
        }
        assert sent["all_reduce"] == [4 * ring] * n
        assert sent["reduce"] == pytest.approx([ring + (BYTES / n if rank != 1 else 0) for rank in range(n)])
        assert sent["all_gather"] == [BYTES * (n - 1)] * n
        assert sent["gather"] == [BYTES if rank != 1 else 0 for rank in range(n)]
        assert sent["scatter"] == [BYTES * (n - 1) if rank == 1 else 0 for rank in range(n)]
        assert sent["reduce_scatter"] == [2 * ring] * n
        assert sent["all_to_all"] == [ring] * n
        assert sent["send"] == [BYTES]
        assert sent["barrier"] == [0] * n
        for kind in sent.keys() - {"send"}:  # what one rank sends another one receives
            assert sum(sent[kind]) == pytest.approx(sum(received[kind])), kind
        assert sum(sent["broadcast"]) == BYTES * (n - 1)


@pytest.mark.slow
def test_the_gradients_of_distributed_data_parallel_are_counted_though_no_python_sends_them():
    for counts, n_bytes in run_ranks(a_model_in_ddp, 2):
        assert counts == {
            "all_reduce": {"calls": 1, "given_bytes": n_bytes, "sent_bytes": n_bytes, "received_bytes": n_bytes}
        }


@pytest.mark.slow
def test_a_step_of_a_method_sends_what_its_own_meter_counts():
    for found in run_ranks(steps_of_laconic, 2):
        assert all(sent == counted > 0 for sent, counted in found)


@pytest.mark.slow
def test_a_sparse_sum_counts_the_positions_and_values_that_are_sent():
    for counts in run_ranks(a_sparse_sum, 2):
        assert counts["sent_bytes"] == counts["given_bytes"] == 2 * (8 + 4)


def test_what_was_counted_is_shown_as_a_table_and_adds_up():
    with watch() as watched:
        pass
    watched.by_kind["all_reduce"] = Calls(calls=2, given_bytes=100, sent_bytes=150.0, received_bytes=150.0)
    watched.by_kind["send"] = Calls(calls=1, given_bytes=10, sent_bytes=10.0)
    assert (watched.sent_bytes, watched.received_bytes, watched.total.calls) == (160.0, 150.0, 3)
    assert str(watched).splitlines() == [
        "            calls  given   sent  received",
        "all_reduce      2  100 B  150 B     150 B",
        "send            1   10 B   10 B       0 B",
        "total           3  110 B  160 B     150 B",
    ]


def test_an_error_in_the_context_ends_the_counting():
    with pytest.raises(ZeroDivisionError), watch():
        1 / 0  # noqa: B018
    with watch() as watched:
        pass
    assert watched.by_kind == {}
