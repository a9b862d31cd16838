"""What users do with a method that is attached to a sharded model; each is a task of one rank of four."""

import copy
import io
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

import laconic
import laconic.checkpoint
import laconic.fsdp
from support import small_model
from support.deadlines import PATIENCE_S
from support.fsdp_automatic import automatic
from support.fsdp_infinities import one_inf_by_step, one_inf_in_one_shard, one_overflow_by_step
from support.fsdp_refusals import refusals
from support.fsdp_tasks import N_SHARDS, Net, attached, full_values, mesh, methods_as_twins, sgd, sharded, trained
from support.methods import with_test_settings
from support.optimizers import Branches


def reloaded(state: Any) -> Any:
    """A state as it comes back from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def saved_and_loaded(rank: int, over: DeviceMesh) -> dict[str, Any]:
    """Six steps at once, and three with a state that three others have left, by method; and a foreign state."""
    found: dict[str, Any] = {}
    for name in ("ec-sgd", "compskip", "dist-ef", "diloco", "ssgd-mv"):
        method = with_test_settings(name)
        settings = {"local_steps": 2} if name == "diloco" else {}  # so that it is saved between two exchanges
        net = sharded(over)
        optimizer = sgd(net)
        handle = attached(net, method, over, optimizer=optimizer, **settings)
        trained(net, optimizer, rank, range(3))
        states = copy.deepcopy([net.state_dict(), optimizer.state_dict()])
        own = reloaded(handle.state_dict())
        values = trained(net, optimizer, rank, range(3, 6))
        handle.detach()
        again = sharded(over)
        again.load_state_dict(states[0])
        optimizer = sgd(again)
        optimizer.load_state_dict(states[1])
        handle = attached(again, method, over, optimizer=optimizer, **settings)
        handle.load_state_dict(own)
        found[name] = [values, trained(again, optimizer, rank, range(3, 6)), list(own["parameters"])]
        if name == "ec-sgd":
            found["others"] = _of_the_other_shard(rank, handle)
        handle.detach()
    return found


def _of_the_other_shard(rank: int, handle: laconic.fsdp.Handle) -> list[str]:
    """What is reported to the state of another shard, and to a file of all ranks."""
    shown: list[Any] = [None] * 4
    dist.all_gather_object(shown, handle.state_dict())
    reported = []
    try:
        handle.load_state_dict(shown[rank ^ 1])
    except ValueError as error:
        reported.append(str(error))
    try:
        laconic.checkpoint.save("nowhere", handle, step=3)
    except TypeError as error:
        reported.append(str(error))
    return reported


def loaded_by_one_shard(rank: int, over: DeviceMesh) -> dict[str, Any]:
    """What is reported where a rank loads a foreign state, or a shard that of another round; if all is as it was."""
    net = sharded(over)
    optimizer = sgd(net)
    handle = attached(net, laconic.ECSGD(), over)
    trained(net, optimizer, rank, range(1))
    early = reloaded(handle.state_dict())
    trained(net, optimizer, rank, range(1, 3))
    late = reloaded(handle.state_dict())
    found: dict[str, Any] = {}
    for name, state in (("foreign", late | {"algorithm": "sgd"} if rank == 2 else late),
                        ("earlier", late if rank % N_SHARDS else early)):  # fmt: skip
        trained(net, optimizer, rank, range(3, 4))
        before = str(_memories(handle))
        try:
            handle.load_state_dict(state)
        except ValueError as error:
            found[name] = str(error), str(_memories(handle)) == before
    handle.load_state_dict(late)
    found["rounds"] = handle.state_dict()["driver"]["rounds"]
    handle.detach()
    return found


def _memories(handle: laconic.fsdp.Handle) -> Any:
    driver = handle.state_dict()["driver"]
    return driver["rounds"], driver["worker"]["memory"], driver["servers"]


def local_steps(rank: int, over: DeviceMesh) -> dict[str, list[Tensor]]:
    """The parameters after local steps of a sharded model, and of full ones whose nodes average their gradients."""
    found = {}
    for name in ("diloco", "sgd", "signsgd-mv"):
        method, settings = with_test_settings(name), {"local_steps": 1 if name == "signsgd-mv" else 3}
        net = sharded(over)
        optimizer = sgd(net)
        handle = attached(net, method, over, optimizer=optimizer, clip_norm=0.3, **settings)
        values = trained(net, optimizer, rank, range(6))
        handle.detach()
        plain = Net()
        with laconic.DistributedOptimizer(
            sgd(plain), method, model=plain, nodes=2, timeout_s=PATIENCE_S, lr="kept", clip_norm=0.3, **settings
        ) as opt:
            for round_ in range(6):
                opt.zero_grad()
                small_model.loss(plain, rank, round_).backward()
                opt.step()
        found[name] = [values, small_model.values(plain)]
    return found


def kinds_of_shards(rank: int, over: DeviceMesh) -> dict[str, Tensor]:
    """The parameters after four steps of ec-sgd, with models that are sharded in other ways."""
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "kept unsharded": {"reshard_after_forward": False},
        "offloaded": {"offload_policy": CPUOffloadPolicy(pin_memory=False)},
        "half": {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)},
    }
    found = {}
    for kind, settings in kinds.items():
        net = sharded(over, **settings)
        optimizer = sgd(net)
        with torch.no_grad():
            small_model.loss(net, rank, 0)  # an evaluation, after which parameters may be full ones
        handle = attached(net, laconic.ECSGD(), over)
        found[kind] = trained(net, optimizer, rank, range(4))
        handle.detach()
    return found


def accumulated(rank: int, over: DeviceMesh) -> dict[str, Any]:
    """Two steps of three passes each, of which the last one exchanges; and of their sum in one pass."""
    found: dict[str, Any] = {}
    for how in ("passes", "sum"):
        net = sharded(over)
        optimizer = sgd(net)
        handle = attached(net, laconic.SGD(), over)
        for step in range(2):
            optimizer.zero_grad()
            losses = []
            for part in range(3):
                net.set_requires_gradient_sync(how == "sum" or part == 2)
                loss = small_model.loss(net, rank, 3 * step + part)
                losses.append(loss)
                if how == "passes":
                    loss.backward()
            if how == "sum":
                torch.stack(losses).sum().backward()
            optimizer.step()
        found[how] = full_values(net)
        found[f"{how}, rounds"] = handle.traffic.rounds
        handle.detach()
    return found


def two_passes(rank: int, over: DeviceMesh) -> str:
    """What is reported to two exchanges for one step, by a method with memory."""
    net = sharded(over)
    optimizer = sgd(net)
    handle = attached(net, laconic.ECSGD(), over)
    trained(net, optimizer, rank, range(1))
    small_model.loss(net, rank, 1).backward()
    try:
        small_model.loss(net, rank, 2).backward()
    except RuntimeError as error:
        return str(error)
    finally:
        handle.detach()
    return "no error"


class Again(nn.Module):
    """A model that calls one of its layers twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.linspace(-0.3, 0.4, parameter.numel()).view_as(parameter))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.inner(torch.tanh(self.inner(inputs))))


def called_twice(rank: int, over: DeviceMesh) -> dict[str, Any]:
    """The parameters where a layer is called twice, in slices and at once; the same without, after a broken pass."""
    found: dict[str, Any] = {}
    for kind, overlap in (("slices", None), ("at once", False)):
        net = Again()
        for layer in (net.inner, net.head, net):
            fully_shard(layer, mesh=over["shard"])
        optimizer = sgd(net)
        handle = attached(net, laconic.SignSGDMajorityVote(), over, overlap=overlap)
        found[kind] = trained(net, optimizer, rank, range(4))
        found[f"{kind}, number"] = handle.n_slices
        handle.detach()
    return found


def clipped(rank: int, over: DeviceMesh) -> list[Tensor]:
    """Directions that `attach` clips, and those that the user clips over all shards."""
    found = []
    for settings in ({"clip_norm": 0.05}, {}):
        net = sharded(over)
        handle = attached(net, laconic.ECSGD(), over, **settings)
        small_model.loss(net, rank, 0).backward()
        if not settings:
            nn.utils.clip_grad_norm_(net.parameters(), 0.05)
        found.append(torch.cat([p.grad.full_tensor().reshape(-1) for p in net.parameters()]))
        handle.detach()
    return found


def unlike_use(rank: int, over: DeviceMesh) -> list[list[float | None]]:
    """The gradients' norms by parameter and round, where nodes use other layers, and a layer is frozen."""
    net = Branches()
    for parameter in net.never.parameters():
        parameter.requires_grad_(False)
    fully_shard(net, mesh=over["shard"])
    handle = attached(net, laconic.SGD(), over)
    found = []
    for round_ in range(3):
        net.zero_grad()
        net.uses_late = (False, rank >= 2, True)[round_]
        small_model.loss(net, rank, round_).backward()
        norms = [None if p.grad is None else float(p.grad.full_tensor().norm()) for p in net.parameters()]
        found.append(norms)
    handle.detach()
    return found


def detached_and_replaced(rank: int, over: DeviceMesh) -> dict[str, Any]:
    """A model that goes from a method to the plain mean, and on to another method; and what its handle says."""
    net = sharded(over)
    optimizer = sgd(net)
    handle = attached(net, laconic.SGD(), over)
    text = repr(handle)
    small_model.loss(net, rank, 0).backward()
    by_method = [p.grad.full_tensor() for p in net.parameters()]
    optimizer.zero_grad()
    handle.detach()
    small_model.loss(net, rank, 0).backward()
    plain = [p.grad.full_tensor() for p in net.parameters()]
    handle.replace(with_test_settings("dropsign"))
    values = trained(net, optimizer, rank, range(2))
    found = {
        "text": text, "after": repr(handle), "means": [by_method, plain], "values": values,
        "rounds": handle.traffic.rounds, "own": handle.traffic.up.wire_bytes,
        "total": handle.total_traffic().up.wire_bytes, "model": handle.model is net,
    }  # fmt: skip
    handle.detach()
    handle.detach()
    return found


def scaled(rank: int, over: DeviceMesh) -> dict[str, list[Any]]:
    """Training with a GradScaler, and without one; in its second step one rank meets inf."""
    found: dict[str, list[Any]] = {"ec-sgd": [], "diloco": []}
    for name in found:
        for is_scaled in (True, False):
            net = sharded(over)
            optimizer = sgd(net)
            scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2, enabled=is_scaled)
            given = None if is_scaled and name == "ec-sgd" else optimizer
            handle = attached(net, with_test_settings(name), over, grad_scaler=scaler, optimizer=given)
            for round_ in range(5):
                optimizer.zero_grad()
                loss = small_model.loss(net, rank, round_) * (torch.inf if (rank, round_) == (2, 1) else 1.0)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            found[name] += [full_values(net), scaler.get_scale()]
            handle.detach()
    return found


_TASKS = {
    task.__name__: task
    for task in (
        automatic, saved_and_loaded, loaded_by_one_shard, one_inf_in_one_shard, one_inf_by_step, one_overflow_by_step,
        local_steps, kinds_of_shards, accumulated, two_passes,
        called_twice, clipped, unlike_use, detached_and_replaced, scaled,
    )
}  # fmt: skip


def everything(rank: int, names: list[str]) -> dict[str, Any]:
    """What a rank finds in each scenario, by name; `names`: of methods to compare with the plain computation."""
    over = mesh()
    found = {name: task(rank, over) for name, task in _TASKS.items()}
    return found | {"twins": methods_as_twins(rank, over, names, 4), "refusals": refusals(over)}
