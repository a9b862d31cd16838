"""Asynchronous SGD over real processes: three workers and a server, in whatever order their gradients come."""

import io
import os
import random
import time
from functools import partial

import pytest
import torch
import torch.distributed as dist

import laconic
from laconic import ASGD
from support import optimizers, small_model
from support.deadlines import DEATH_TIMEOUT_S, PATIENCE_S
from support.ranks import announce, ends_of_ranks, run_ranks, wait_for

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share

N = 4
STEPS = 15
BOUNDS = {
    "no bound": {},
    "bound 0": {"max_staleness": 0},
    "bound 1": {"max_staleness": 1},
    "bound 1, dropped": {"max_staleness": 1, "staleness": "drop"},
    "top-k": {"compressor": laconic.TopK(density=0.2)},
}


def made(net, group=None, **settings):
    inner = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.5)
    return laconic.DistributedOptimizer(inner, ASGD(**settings), model=net, seed=5, timeout_s=PATIENCE_S, group=group)


def one_step(opt, net, rank, round_, meanwhile=lambda: None, factor=1.0):
    """A step with a closure that calls `meanwhile` before it computes the gradient."""

    def closure():
        opt.zero_grad()
        loss = small_model.loss(net, rank, round_) * factor
        loss.backward()
        meanwhile()
        return loss

    opt.step(None if opt.serves_only else closure)


def at_random_speeds(rank, settings):
    """Counts and losses of some steps whose gradients take random times; all meet in a barrier from time to time."""
    net = small_model.net()
    opt = made(net, **settings)
    initial = float(small_model.loss(net, rank, 0))
    speed = random.Random(rank)
    for round_ in range(STEPS):
        seconds = speed.random() * (0.02 if rank == 1 else 0.004)
        one_step(opt, net, rank, round_, partial(time.sleep, seconds))
        if round_ % 6 == 5:
            dist.barrier()
    total = opt.total_traffic()
    losses = initial, float(small_model.loss(net, rank, 0))
    return {"mine": opt.traffic.as_data(), "total": total.as_data(), "losses": losses,
            "serves": opt.serves_only, "finite": bool(torch.isfinite(small_model.values(net)).all())}  # fmt: skip


def left_out(rank):
    """One worker's gradient is inf once. Returns whether all models are finite, and the counters."""
    net = small_model.net()
    opt = made(net)
    for round_ in range(4):
        one_step(opt, net, rank, round_, factor=torch.inf if (rank, round_) == (1, 2) else 1.0)
    finite = bool(torch.isfinite(small_model.values(net)).all())
    return finite, opt.traffic.aborted_rounds, opt.total_traffic().as_data()


def used_late(rank):
    """From step 2 on rank 2 alone uses a further layer; rank 0 sees the server's last model."""
    net = optimizers.Branches()
    opt = laconic.DistributedOptimizer(
        torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1), ASGD(), model=net, timeout_s=PATIENCE_S
    )
    layers = []
    for round_ in range(5):
        net.uses_late = rank == 2 and round_ >= 2
        one_step(opt, net, rank, round_)
        dist.barrier()
        layers.append((small_model.values(net.late).tolist(), small_model.values(net.never).tolist()))
    return layers


def alone_with_a_server(rank, group):
    """The bits of one worker's model after each step, those of plain SGD, and those of a run that was resumed."""
    nets = {name: small_model.net() for name in ("asgd", "bounded", "plain", "resumed")}
    inner = torch.optim.SGD(nets["plain"].parameters(), lr=0.05, momentum=0.5)
    opts = {name: made(nets[name], group, **({"max_staleness": 2} if name == "bounded" else {}))
            for name in ("asgd", "bounded", "resumed")}  # fmt: skip
    for round_ in range(8):
        for name in ("asgd", "bounded", "resumed"):
            one_step(opts[name], nets[name], rank, round_)
        inner.zero_grad()
        small_model.loss(nets["plain"], 0, round_).backward()
        inner.step()
        if round_ == 3:
            file = io.BytesIO()
            torch.save((nets["resumed"].state_dict(), opts["resumed"].state_dict()), file)
            file.seek(0)
            model_state, state = torch.load(file, weights_only=True)
            nets["resumed"] = small_model.net()
            nets["resumed"].load_state_dict(model_state)
            opts["resumed"] = made(nets["resumed"], group)
            opts["resumed"].load_state_dict(state)
    counts = {name: opt.traffic.as_data() for name, opt in opts.items()}
    return {name: small_model.values(net).tolist() for name, net in nets.items()}, counts


def saved_too_early(rank):
    """The error of a server that saves while a worker is ahead, and whether it can save after a barrier."""
    net = small_model.net()
    opt = made(net)
    reported = "nothing"
    one_step(opt, net, rank, 0, meanwhile=lambda: wait_for("1 is ahead", "2 is ahead") if rank == 0 else None)
    if rank in (1, 2):
        one_step(opt, net, rank, 1)
        announce(f"{rank} is ahead")
    if opt.serves_only:
        try:
            opt.state_dict()
        except RuntimeError as error:
            reported = str(error)
    if rank in (0, 3):
        one_step(opt, net, rank, 1)
    dist.barrier()
    return reported, opt.state_dict()["laconic"]["driver"]["rounds"]


def without_a_closure(rank):
    """The error of a worker that may have to wait and has no closure."""
    net = small_model.net()
    opt = made(net, max_staleness=1)
    if opt.serves_only:
        return "nothing"
    small_model.loss(net, rank, 0).backward()
    try:
        opt.step()
    except RuntimeError as error:
        return str(error)
    return "nothing"


def act(rank):
    seen = {
        "speeds": {name: at_random_speeds(rank, settings) for name, settings in BOUNDS.items()},
        "left out": left_out(rank),
        "used late": used_late(rank),
        "saved too early": saved_too_early(rank),
        "without a closure": without_a_closure(rank),
    }
    pair = dist.new_group([0, 1])
    if rank < 2:
        seen["alone"] = alone_with_a_server(rank, pair)
    return seen


@pytest.fixture(scope="module")
def by_rank():
    return run_ranks(act, N)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDS)
def test_every_gradient_is_counted_once_and_every_model_learns(name, by_rank):
    results = [seen["speeds"][name] for seen in by_rank]
    for result in results[:-1]:
        assert result["finite"]
        assert result["losses"][1] < result["losses"][0]
        assert result["total"] | {"control_bytes": None} == results[0]["total"] | {"control_bytes": None}
        assert result["mine"]["rounds"] == STEPS
        assert result["mine"]["up_by_exchange"]["update"]["messages"] == STEPS
        assert result["mine"]["down_by_exchange"]["update"]["messages"] == STEPS
    assert results[-1]["serves"]
    total = results[0]["total"]
    assert sum(total["staleness"].values()) + total["updates"].get("dropped", 0) == (N - 1) * STEPS
    assert results[-1]["mine"]["staleness"] == total["staleness"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, settings in BOUNDS.items() if "max_staleness" in settings])
def test_no_applied_gradient_is_older_than_the_bound(name, by_rank):
    total = by_rank[0]["speeds"][name]["total"]
    assert max(map(int, total["staleness"])) <= BOUNDS[name]["max_staleness"]
    assert ("admission" in total["up_by_exchange"]) == (name != "bound 1, dropped")


@pytest.mark.slow
def test_without_a_bound_no_worker_requests_admission_and_gradients_are_stale(by_rank):
    total = by_rank[0]["speeds"]["no bound"]["total"]
    assert set(total["up_by_exchange"]) == {"update"}
    assert max(map(int, total["staleness"])) > 1
    assert total["updates"] == {}


@pytest.mark.slow
def test_a_gradient_with_inf_affects_no_other_gradient(by_rank):
    assert [seen["left out"][1] for seen in by_rank] == [0, 1, 0, 1]
    for seen in by_rank:
        finite, _, total = seen["left out"]
        assert finite
        assert total["updates"] == {"aborted": 1}
        assert sum(total["staleness"].values()) == (N - 1) * 4 - 1


@pytest.mark.slow
def test_a_layer_that_one_worker_begins_to_use_late_moves_from_then_on_for_all(by_rank):
    late, never = zip(*by_rank[0]["used late"], strict=True)
    assert late[0] == late[1]
    assert late[4] != late[1]
    assert all(values == never[0] for values in never)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["asgd", "bounded", "resumed"])
def test_one_worker_and_a_server_are_vanilla_sgd_bit_for_bit_also_when_resumed(name, by_rank):
    values, _ = by_rank[0]["alone"]
    assert values[name] == values["plain"]


@pytest.mark.slow
def test_a_resumed_server_continues_its_counts(by_rank):
    _, counts = by_rank[1]["alone"]
    assert counts["resumed"]["staleness"] == counts["asgd"]["staleness"] == {0: 8}


@pytest.mark.slow
def test_a_server_does_not_save_while_a_worker_is_ahead(by_rank):
    reported = [seen["saved too early"] for seen in by_rank]
    early = reported[3][0].replace("worker 2", "worker 1")  # whichever is ahead
    assert early.startswith("state_dict: worker 1 has begun step 3, and the server has ended step 1")
    assert "torch.distributed.barrier()" in reported[3][0]
    assert [rounds for _, rounds in reported] == [2] * N


@pytest.mark.slow
def test_a_worker_that_may_have_to_wait_needs_a_closure(by_rank):
    for seen in by_rank[:-1]:
        assert "asgd with max_staleness may make this worker wait" in seen["without a closure"]
        assert "step() needs a closure" in seen["without a closure"]


def lose_a_worker(rank):
    """Rank 1 dies before its third gradient, while the others continue."""
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.05)
    opt = laconic.DistributedOptimizer(inner, ASGD(), timeout_s=DEATH_TIMEOUT_S)
    reported = "nothing"
    for round_ in range(400):
        if rank == 1 and round_ == 2:
            os._exit(1)
        try:
            one_step(opt, net, rank, round_, partial(time.sleep, 0.02))
        except laconic.PeerLostError as error:
            reported = str(error)
            break
    raise RuntimeError(f"reported: {reported}")


@pytest.mark.slow
def test_a_worker_that_dies_is_named_by_the_server_and_by_the_other_workers():
    endings = ends_of_ranks(lose_a_worker, N)
    for rank in (0, 2, 3):
        assert "reported: rank 1 was waited for" in endings[rank].error, endings[rank].error
        assert "its connection closed" in endings[rank].error
