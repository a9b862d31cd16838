"""The tasks of one of several processes in the tests of `DistributedOptimizer`; they return results for the parent."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

import laconic
from laconic.compressors import dense
from laconic.contract import ModelSpec
from laconic.drivers.distributed import channel
from laconic.wire import Packet
from support import optimizers, small_model


@contextmanager
def bytes_sent() -> Iterator[dict[str, int]]:
    """Counts the bytes and messages that this process passes to its groups' point-to-point calls."""
    count = {"bytes": 0, "messages": 0}
    send = channel.post_send

    def counting(group: dist.ProcessGroup, tensors: list[Tensor], *place: int) -> Any:
        count["bytes"] += sum(tensor.nbytes for tensor in tensors)
        count["messages"] += 1
        return send(group, tensors, *place)

    channel.post_send = counting
    try:
        yield count
    finally:
        channel.post_send = send


@contextmanager
def two_points() -> Iterator[laconic.Algorithm]:
    """An algorithm that steps along the difference of two gradients of one mini-batch, entered for a while."""

    @laconic.algorithm("two-points")
    @dataclass(frozen=True, kw_only=True)
    class TwoPoints(laconic.Algorithm):
        second_gradient: ClassVar[bool] = True

        def work(self, me: laconic.Worker) -> laconic.Step:
            there = me.gradient_at(me.parameters + 1)
            reply = yield dense(me.gradient - there)
            return reply.dense()

        def serve(self, server: laconic.Server, inbox: laconic.Inbox) -> Packet:
            return dense(inbox.mean())

        def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
            return 32.0 * spec.d, 32.0 * spec.d

    try:
        yield TwoPoints()
    finally:
        del laconic.ALGORITHMS["two-points"]


INNER_ROUNDS = 6


def any_inner(rank: int, inner: str, name: str) -> Tensor:
    """INNER_ROUNDS in float64; the all-reduce where the method admits it."""
    net = small_model.net().double()
    opt = optimizers.wrapped(net, name, "auto", optimizers.INNER[inner](net.parameters()))
    for round_ in range(INNER_ROUNDS):
        optimizers.one_step(opt, net, rank, round_)
    return small_model.values(net)


def grouped_inner(net: nn.Sequential) -> torch.optim.Optimizer:
    """Two groups with learning rates and decays of their own; the bias of layer 0 is frozen."""
    net[0].bias.requires_grad_(False)
    groups = [{"params": net[2].parameters(), "lr": 0.02, "weight_decay": 0.1}, {"params": net[0].parameters()}]
    return torch.optim.SGD(groups, lr=0.2, momentum=0.5)


def groups_and_frozen(rank: int, name: str) -> tuple[Tensor, Tensor]:
    """All parameters, and the frozen ones, after 8 rounds in float64."""
    net = small_model.net().double()
    opt = optimizers.wrapped(net, name, "auto", grouped_inner(net))
    for round_ in range(8):
        optimizers.one_step(opt, net, rank, round_)
    return small_model.values(net), net[0].bias.detach()


def never_used(rank: int, name: str) -> tuple[Tensor, bool]:
    """The layer that no rank uses after 3 rounds with momentum and weight decay, and whether it has a gradient."""
    net = optimizers.Branches()
    opt = optimizers.wrapped(
        net, name, "auto", torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    )
    for round_ in range(3):
        optimizers.one_step(opt, net, rank, round_)
    return small_model.values(net.never), any(parameter.grad is not None for parameter in net.never.parameters())


LATE_FROM = 3


def used_late_by_rank_2(rank: int, name: str, layout: str, set_to_none: bool) -> dict[str, Any]:
    """8 rounds; from round 3 on, rank 2 alone uses a further layer."""
    net = optimizers.Branches()
    opt = optimizers.wrapped(net, name, layout)
    frozen_until = None
    for round_ in range(8):
        net.uses_late = rank == 2 and round_ >= LATE_FROM
        if round_ == LATE_FROM:
            frozen_until = small_model.values(net.late)
        if not opt.serves_only:
            opt.zero_grad(set_to_none=set_to_none)
            small_model.loss(net, rank, round_).backward()
        opt.step()
    traffic = opt.traffic
    return {"values": small_model.values(net), "before": frozen_until, "after": small_model.values(net.late),
            "rounds": traffic.rounds, "aborted_rounds": traffic.aborted_rounds}  # fmt: skip


def at_two_points_and_late(rank: int) -> Tensor:
    """5 rounds of the method with two gradients, while from round 3 on rank 2 alone uses a further layer."""
    net = optimizers.Branches()
    with two_points():
        opt = optimizers.wrapped(net, "two-points", "rank0")
        for round_ in range(5):
            net.uses_late = rank == 2 and round_ >= LATE_FROM

            def closure(round_: int = round_) -> Tensor:
                opt.zero_grad()
                loss = small_model.loss(net, rank, round_)
                loss.backward()
                return loss

            opt.step(closure)
    return small_model.values(net)


def initial_parameters(rank: int, layout: str) -> tuple[Tensor, Tensor]:
    """What a rank starts with, and what it has once it has made its optimizer; with a frozen parameter and a buffer."""
    net = small_model.net()
    net.register_buffer("offset", torch.zeros(()))
    net[0].bias.requires_grad_(False)
    with torch.no_grad():
        for tensor in [*net.parameters(), *net.buffers()]:
            tensor.add_(rank)

    def everything() -> Tensor:
        return torch.cat([small_model.values(net), net.offset[None]])

    mine = everything()
    optimizers.wrapped(net, "sgd", layout, model=net)
    return mine, everything()


def changed_outside(rank: int, culprit: int) -> tuple[int, str]:
    """The round in which the change was found, and this rank's error."""
    net = small_model.net()
    opt = optimizers.wrapped(net, "compskip", "auto", check_every=3)
    for round_ in range(9):
        if rank == culprit and round_ == 1:
            with torch.no_grad():
                net[2].bias[1].add_(1e-3)
        try:
            optimizers.one_step(opt, net, rank, round_)
        except laconic.ReplicaError as error:
            return round_, str(error)
    return -1, "nothing"


BAD_ROUND, BAD_RANK = 3, 1


def with_a_bad_round(rank: int, name: str, layout: str, bad: float) -> dict[str, Any]:
    """6 rounds, in one of which one rank's loss is inf or NaN; and again with that round left out."""
    inner = None if name == "sgd-model" else (lambda net: optimizers.INNER["sgd"](net.parameters()))
    results: dict[str, Any] = {}
    for run in ("bad", "left out"):
        net = small_model.net()
        opt = optimizers.wrapped(net, name, layout, inner and inner(net))
        for round_ in range(6):
            if round_ != BAD_ROUND:
                optimizers.one_step(opt, net, rank, round_)
            elif run == "left out":
                opt.driver.rounds += 1  # its number is used up: keys are made from it
            else:
                results["before"] = small_model.values(net), optimizers.state_of(opt)
                optimizers.one_step(opt, net, rank, round_, bad if rank == BAD_RANK else 1.0)
                results["after"] = small_model.values(net), optimizers.state_of(opt)
        results[run] = small_model.values(net)
        results[f"{run} traffic"] = opt.traffic.as_data()
    return results


def with_a_scaler(rank: int, name: str, layout: str) -> dict[str, Any]:
    """6 rounds with scaled losses, and again without a scaler; in one round, one rank's loss is inf."""
    results: dict[str, Any] = {}
    for run in ("scaled", "plain"):
        net = small_model.net()
        opt = optimizers.wrapped(net, name, layout)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=run == "scaled")
        for round_ in range(6):
            bad = rank == BAD_RANK and round_ == BAD_ROUND
            opt.zero_grad()
            scaler.scale(small_model.loss(net, rank, round_) * (torch.inf if bad else 1.0)).backward()
            if round_ == 5:
                scaler.unscale_(opt)  # as users do who clip
            scaler.step(opt)
            scaler.update()
        results[run] = small_model.values(net)
        results[f"{run} aborted"] = opt.traffic.aborted_rounds
        results[f"{run} scale"] = scaler.get_scale()
    return results


def counted(rank: int, name: str, layout: str) -> dict[str, Any]:
    """The meters' counts after 20 rounds, the bytes that were sent, and whether the snapshot is JSON."""
    net = small_model.net()
    opt = optimizers.wrapped(net, name, layout, check_every=0)
    seconds = [opt.traffic.seconds]
    with bytes_sent() as sent:
        for round_ in range(20):
            optimizers.one_step(opt, net, rank, round_)
            seconds.append(opt.traffic.seconds)
    return {"sent": sent["bytes"], "traffic": json.loads(json.dumps(opt.traffic.as_data())), "seconds": seconds}


def in_two_groups(rank: int) -> Tensor:
    """Ranks 0 and 1 train one model while ranks 2 and 3 train another."""
    views = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    net = small_model.net()
    opt = optimizers.wrapped(net, "compskip", "sharded", group=views[rank // 2])
    for round_ in range(10):
        optimizers.one_step(opt, net, rank, round_)
    return small_model.values(net)


def with_an_inner_scheduler(rank: int, layout: str) -> tuple[float, list[str]]:
    """The learning rate after 4 rounds, and the warnings, of a method whose model steps only at the server."""
    net = small_model.net()
    opt = optimizers.wrapped(net, "sgd-server", layout)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(opt.inner, gamma=0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for round_ in range(4):
            optimizers.one_step(opt, net, rank, round_)
            scheduler.step()
    return opt.param_groups[0]["lr"], [str(warning.message) for warning in caught]


def in_type(rank: int, name: str, dtype: torch.dtype) -> tuple[Tensor, str]:
    """The parameters after 5 rounds, and the dtype of the directions in `.grad`."""
    net = small_model.net().to(dtype)
    opt = optimizers.wrapped(net, name, "auto")
    for round_ in range(5):
        optimizers.one_step(opt, net, rank, round_)
    return small_model.values(net), str(net[0].weight.grad.dtype)
