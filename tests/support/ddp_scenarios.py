"""What users do with a method that is attached to a model; each is a task of one rank that returns what it found."""

import copy
import io
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import laconic
import laconic.checkpoint
import laconic.ddp
from laconic.compressors import ScaledSign
from support import ddp_models, methods, small_model
from support.deadlines import PATIENCE_S

BY_LAYER = laconic.ECSGD(compressor=ScaledSign(blocks="layer"), server_compressor=ScaledSign(blocks="layer"))
WITH_MEMORY = ("ec-sgd", "compskip", "powersgd", "dropsign", "dist-ef", "sparse", "ssgd-mv")
ROUNDS = 6


def reloaded(state: Any) -> Any:
    """A state as it comes back from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def saved_and_loaded(rank: int) -> dict[str, Any]:
    """Six steps at once, and three with a state that three others have left, by method."""
    found = {}
    for name, method in {
        "ec-sgd": BY_LAYER,
        "compskip": methods.with_test_settings("compskip"),
        "dist-ef": None,
    }.items():
        method = method or methods.with_test_settings(name)
        ddp = ddp_models.model()
        optimizer = ddp_models.sgd(ddp)
        handle = ddp_models.attached(ddp, method, optimizer=optimizer)
        ddp_models.train(ddp, optimizer, rank, range(3))
        states = reloaded([ddp.module.state_dict(), optimizer.state_dict(), handle.state_dict()])
        found[name] = [ddp_models.train(ddp, optimizer, rank, range(3, 6)), states[2], handle.traffic]
        handle.detach()
        again = ddp_models.model()
        again.module.load_state_dict(states[0])
        optimizer = ddp_models.sgd(again)
        handle = ddp_models.attached(again, method, optimizer=optimizer)
        optimizer.load_state_dict(states[1])
        handle.load_state_dict(states[2])
        found[name] += [ddp_models.train(again, optimizer, rank, range(3, 6)), handle.traffic]
        handle.detach()
    return found


def gathered_and_loaded(rank: int, folder: str) -> list[Tensor]:
    """Six steps at once, and three from states: gathered on rank 0, loaded in another number of slices, and a file."""
    dropsign = methods.with_test_settings("dropsign")
    ddp = ddp_models.model()
    optimizer = ddp_models.sgd(ddp)
    handle = ddp_models.attached(ddp, dropsign, optimizer=optimizer)
    ddp_models.train(ddp, optimizer, rank, range(3))
    handle.gather_state(0)
    laconic.checkpoint.save(folder, handle, step=3)
    shared = [reloaded([ddp.module.state_dict(), optimizer.state_dict(), handle.state_dict()])]
    dist.broadcast_object_list(shared)
    found = [ddp_models.train(ddp, optimizer, rank, range(3, 6))]
    handle.detach()
    for given in ({}, {"overlap": False}, {"folder": folder}):
        again = ddp_models.model()
        optimizer = ddp_models.sgd(again)
        settings = {"overlap": False} if "overlap" in given else {}
        handle = ddp_models.attached(again, dropsign, optimizer=optimizer, **settings)
        if "folder" in given:
            loaded = laconic.checkpoint.load(folder, handle)
            assert loaded is not None
            assert loaded.step == 3
        else:
            states = copy.deepcopy(shared[0])  # an optimizer goes on with the tensors that it is given
            again.module.load_state_dict(states[0])
            optimizer.load_state_dict(states[1])
            handle.load_state_dict(states[2])
        found.append(ddp_models.train(again, optimizer, rank, range(3, 6)))
        handle.detach()
    return found


def refused_states(rank: int) -> list[str]:
    """What is reported to states that are of something else."""
    ddp = ddp_models.model()
    handle = ddp_models.attached(ddp, BY_LAYER)
    ddp_models.train(ddp, ddp_models.sgd(ddp), rank, range(2))
    good = handle.state_dict()
    other = copy.deepcopy(good)
    other["driver"]["worker"]["memory"]["residual"]["0.bias"][0][3] = torch.nan
    reported = []
    for state in ({}, {**good, "algorithm": "csgd"}, {**good, "seed": 9}, other):
        try:
            handle.load_state_dict(state)
        except ValueError as error:
            reported.append(str(error))
    unchanged = torch.equal(
        handle.state_dict()["driver"]["worker"]["memory"]["residual"]["2.bias"][0],
        good["driver"]["worker"]["memory"]["residual"]["2.bias"][0],
    )
    handle.detach()
    return [*reported, str(unchanged)]


def detached_and_replaced(rank: int) -> dict[str, Any]:
    """A model that goes from a method to the plain mean, and on to other methods; and one that has had no method."""
    ddp, plain = ddp_models.model(), ddp_models.model()
    optimizer, plain_optimizer = ddp_models.sgd(ddp), ddp_models.sgd(plain)
    handle = ddp_models.attached(ddp, BY_LAYER)
    text = repr(handle)
    ddp_models.train(ddp, optimizer, rank, range(3))
    handle.detach()
    plain.module.load_state_dict(ddp.module.state_dict())
    plain_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    means = [ddp_models.train(*one, rank, range(3, 6)) for one in ((ddp, optimizer), (plain, plain_optimizer))]
    handle = ddp_models.attached(ddp, laconic.SignSGDMajorityVote())
    ddp_models.train(ddp, optimizer, rank, range(6, 8))
    handle.replace(methods.with_test_settings("dropsign"))
    values = ddp_models.train(ddp, optimizer, rank, range(8, 10))
    found = {"means": means, "text": text, "after": repr(handle), "values": values, "rounds": handle.traffic.rounds}
    handle.detach()
    handle.detach()
    return found


def one_inf(rank: int, name: str, by_step: bool) -> dict[str, Any]:
    """Six steps, in the third of which rank 1's gradient has an inf."""
    method = methods.with_test_settings(name)
    ddp = ddp_models.model()
    optimizer = ddp_models.sgd(ddp)
    handle = ddp_models.attached(ddp, method, **({"optimizer": optimizer, "overlap": False} if by_step else {}))
    found: dict[str, Any] = {"aborted": []}
    for round_ in range(ROUNDS):
        optimizer.zero_grad()
        ddp_models.backward(ddp, rank, round_, torch.inf if (rank, round_) == (1, 2) else 1.0)
        if round_ == 2:
            found["gradient"] = small_model.values_of_gradients(ddp)
        if by_step or not handle.aborted:
            optimizer.step()
        found["aborted"].append(handle.aborted)
    found |= {"values": small_model.values(ddp), "count": handle.traffic.aborted_rounds}
    handle.detach()
    return found


def by_optimizer_with_inf(rank: int, name: str) -> Tensor:
    """The same with `DistributedOptimizer`."""
    net = small_model.net()
    with laconic.DistributedOptimizer(
        ddp_models.sgd(net), methods.with_test_settings(name), model=net, timeout_s=PATIENCE_S, lr="kept"
    ) as opt:
        for round_ in range(ROUNDS):
            opt.zero_grad()
            ddp_models.backward(net, rank, round_, torch.inf if (rank, round_) == (1, 2) else 1.0)
            opt.step()
    return small_model.values(net)


def infs(rank: int) -> dict[str, Any]:
    """One inf on one rank, for each method with memory, in the hook where that carries it, and in the step."""
    found = {}
    for name in WITH_MEMORY:
        expected = by_optimizer_with_inf(rank, name)
        by_path = (True,) if name in ("dist-ef", "sparse", "ssgd-mv") else (False, True)
        found[name] = [expected, *(one_inf(rank, name, by_step) for by_step in by_path)]
    return found


def scaled(rank: int) -> list[tuple[Tensor, float]]:
    """Training with a GradScaler, whose scale grows; in its third step rank 1 meets inf."""
    found = []
    for path in ("optimizer", "hook", "step"):
        net: nn.Module = small_model.net() if path == "optimizer" else ddp_models.model()
        inner = ddp_models.sgd(net)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
        optimizer: Any = inner
        if path == "optimizer":
            optimizer = laconic.DistributedOptimizer(inner, BY_LAYER, model=net, timeout_s=PATIENCE_S, lr="kept")
        else:
            given = {"grad_scaler": scaler} if path == "hook" else {"optimizer": inner, "overlap": False}
            handle = ddp_models.attached(net, BY_LAYER, **given)
        for round_ in range(ROUNDS):
            optimizer.zero_grad()
            loss = small_model.loss(net, rank, round_) * (torch.inf if (rank, round_) == (1, 2) else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        found.append((small_model.values(net), scaler.get_scale()))
        if path == "optimizer":
            optimizer.close()
        else:
            handle.detach()
    return found


KINDS: dict[str, Callable[[], tuple[nn.Module, dict[str, Any]]]] = {
    "views": lambda: (small_model.net(), {"gradient_as_bucket_view": True}),
    "static": lambda: (small_model.net(), {"static_graph": True}),
    "bfloat16": lambda: (small_model.net().bfloat16(), {}),
    "double": lambda: (small_model.net().double(), {}),
    "checkpointed": lambda: (Checkpointed(), {}),
    "transposed": lambda: (Transposed(), {}),
}


class Checkpointed(nn.Module):
    """The small model, whose activations are computed again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.core = small_model.net()

    def forward(self, inputs: Tensor) -> Tensor:
        return checkpoint(self.core, inputs, use_reentrant=False)


class Transposed(nn.Module):
    """The small model with a weight whose elements lie column by column."""

    def __init__(self) -> None:
        super().__init__()
        self.core = small_model.net()
        with torch.no_grad():
            self.core[0].weight = nn.Parameter(self.core[0].weight.t().contiguous().t())

    def forward(self, inputs: Tensor) -> Tensor:
        return self.core(inputs)


def kinds_of_models(rank: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Kinds of models and of wrapping, each by `DistributedOptimizer` and attached."""
    found = {}
    for kind, make in KINDS.items():
        net, _ = make()
        with laconic.DistributedOptimizer(
            ddp_models.sgd(net), BY_LAYER, model=net, timeout_s=PATIENCE_S, lr="kept"
        ) as opt:
            expected = ddp_models.train(net, opt, rank, range(4))
        net, settings = make()
        ddp = DistributedDataParallel(net, bucket_cap_mb=ddp_models.BUCKETS_OF_A_LAYER, **settings)
        handle = ddp_models.attached(ddp, BY_LAYER)
        found[kind] = (expected, ddp_models.train(ddp, ddp_models.sgd(ddp), rank, range(4)))
        handle.detach()
    return found


def several_models(rank: int) -> list[Tensor]:
    """Two models in turns, one in a group of its own, in one process; and each of them alone."""
    group = dist.new_group([0, 1])
    pair = [ddp_models.model(), ddp_models.model(process_group=group)]
    used = [BY_LAYER, methods.with_test_settings("dropsign")]
    optimizers = [ddp_models.sgd(ddp) for ddp in pair]
    handles = [ddp_models.attached(ddp, method) for ddp, method in zip(pair, used, strict=True)]
    for round_ in range(4):
        for optimizer in optimizers:
            optimizer.zero_grad()
        sum(small_model.loss(ddp, rank, round_) for ddp in pair).backward()
        for optimizer in optimizers:
            optimizer.step()
    for handle in handles:
        handle.detach()
    alone = [ddp_models.by_optimizer(rank, method, 4) for method in used]
    return [*map(small_model.values, pair), *alone]


def two_passes(rank: int) -> dict[str, Any]:
    """Two backward passes to a step: as they are, the one before in no_sync, and exchanged in the step."""
    found: dict[str, Any] = {}
    for path in ("plain", "no_sync", "step", "mean"):
        ddp = ddp_models.model()
        optimizer = ddp_models.sgd(ddp)
        method = laconic.SGD() if path == "mean" else BY_LAYER
        given = {"optimizer": optimizer, "overlap": False} if path == "step" else {}
        handle = ddp_models.attached(ddp, method, **given)
        try:
            for round_ in range(3):
                optimizer.zero_grad()
                if path == "no_sync":
                    with ddp.no_sync():
                        ddp_models.backward(ddp, rank, round_)
                else:
                    ddp_models.backward(ddp, rank, round_)
                ddp_models.backward(ddp, rank, round_ + 10)
                optimizer.step()
            found[path] = small_model.values(ddp)
        except RuntimeError as error:
            found[path] = str(error)
        handle.detach()
    for path, method in (("by optimizer", BY_LAYER), ("mean by optimizer", laconic.SGD())):
        net = small_model.net()
        with laconic.DistributedOptimizer(ddp_models.sgd(net), method, model=net, timeout_s=PATIENCE_S) as opt:
            for round_ in range(3):
                opt.zero_grad()
                ddp_models.backward(net, rank, round_)
                ddp_models.backward(net, rank, round_ + 10)
                opt.step()
        found[path] = small_model.values(net)
    return found


def thrown_away(rank: int) -> str:
    """A pass whose gradients are cleared without a step, after the optimizer has stepped."""
    ddp = ddp_models.model()
    optimizer = ddp_models.sgd(ddp)
    handle = ddp_models.attached(ddp, BY_LAYER)
    ddp_models.train(ddp, optimizer, rank, range(2))
    ddp_models.backward(ddp, rank, 2)
    optimizer.zero_grad()
    try:
        ddp_models.backward(ddp, rank, 3)
    except RuntimeError as error:
        return str(error)
    finally:
        handle.detach()
    return ""


def by_pairs(rank: int) -> dict[str, Any]:
    """The plain pair of state and hook, alone and in torch's wrapper for half precision."""
    found: dict[str, Any] = {"expected": ddp_models.by_optimizer(rank, BY_LAYER, 4)}
    for name, around in {"plain": lambda each: each, "half": default_hooks.fp16_compress_wrapper}.items():
        ddp = ddp_models.model()
        state, hook = laconic.ddp.hook(BY_LAYER, timeout_s=PATIENCE_S)
        ddp.register_comm_hook(state, around(hook))
        found[name] = ddp_models.train(ddp, ddp_models.sgd(ddp), rank, range(4))
        assert state.handle is not None
        found[f"{name} rounds"] = state.handle.traffic.rounds
        state.handle.detach()
    return found


def observed(rank: int) -> list[Any]:
    """The stats of each round, and the totals of both ranks."""
    ddp = ddp_models.model()
    handle = ddp_models.attached(ddp, BY_LAYER)
    stats: list[laconic.RoundStats] = []
    laconic.observe(handle, stats.append, residual_norm=True)
    ddp_models.train(ddp, ddp_models.sgd(ddp), rank, range(3))
    found = [stats, handle.traffic, handle.total_traffic()]
    handle.detach()
    return found


def joined(rank: int) -> list[Any]:
    """Rank 1 runs out of data two steps early, in `join()`; a method of votes refuses it."""
    found: list[Any] = []
    for method in (BY_LAYER, laconic.SignSGDMajorityVote()):
        ddp = ddp_models.model()
        optimizer = ddp_models.sgd(ddp)
        handle = ddp_models.attached(ddp, method)
        try:
            with ddp.join():
                ddp_models.train(ddp, optimizer, rank, range(4 - 2 * rank))
            found.append((small_model.values(ddp), handle.traffic.rounds))
        except (ValueError, RuntimeError) as error:
            found.append(f"{type(error).__name__}: {error}")
            break
        handle.detach()
    return found


def clipped(rank: int) -> list[Tensor]:
    """Directions clipped by norm and by value, attached and by `DistributedOptimizer`."""
    found = []
    for clip in ({"clip_norm": 0.05}, {"clip_value": 0.01}):
        found.append(ddp_models.by_optimizer(rank, BY_LAYER, 4, **clip))
        ddp = ddp_models.model()
        handle = ddp_models.attached(ddp, BY_LAYER, **clip)
        found.append(ddp_models.train(ddp, ddp_models.sgd(ddp), rank, range(4)))
        handle.detach()
    return found


ALL: tuple[Callable[..., Any], ...] = (
    saved_and_loaded, refused_states, detached_and_replaced, infs, scaled, kinds_of_models, several_models, two_passes,
    thrown_away, by_pairs, observed, clipped, gathered_and_loaded,
)  # fmt: skip


def everything(rank: int, folder: str) -> dict[str, Any]:
    """All scenarios, one after the other, by name; one writes to a folder."""
    return {each.__name__: each(rank, folder) if each is gathered_and_loaded else each(rank) for each in ALL}
