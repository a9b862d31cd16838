"""What ranks do with models of other kinds than the small one: several types, sparse gradients, shards, loss scales."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import laconic
from laconic.training.replica_check import hash_of
from support import methods, optimizers, small_model


class Mixed(nn.Module):
    """Layers of one type around a norm of another."""

    def __init__(self, layers: torch.dtype, norm: torch.dtype) -> None:
        super().__init__()
        self.inputs, _, self.outputs = small_model.net().to(layers)
        self.norm = nn.LayerNorm(11, dtype=norm)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(self.inputs(inputs).to(self.norm.weight.dtype)).tanh()
        return self.outputs(hidden.to(self.outputs.weight.dtype)).to(self.norm.weight.dtype)


TYPES = {"bfloat16": (torch.bfloat16, torch.float32), "float16": (torch.float16, torch.float32),
         "float64": (torch.float32, torch.float64)}  # fmt: skip


class Words(nn.Module):
    """A table of which a mini-batch uses some rows."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(20, 4, sparse=sparse)
        self.out = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.table((inputs * 5).long().clamp(-10, 9) + 10).mean(1))


def values(net: nn.Module) -> Tensor:
    """All parameters as one vector, float64."""
    return torch.cat([parameter.detach().double().reshape(-1) for parameter in net.parameters()])


def trained(
    rank: int, net: nn.Module, name: str, *, rounds: int = 4, resume_at: int = -1, **settings: Any
) -> tuple[str, bool, float]:
    """A hash of the parameters after some rounds, whether types were kept, and how far they moved."""
    start, types = values(net), [parameter.dtype for parameter in net.parameters()]
    opt = optimizers.wrapped(net, name, "auto", **settings)
    for round_ in range(rounds):
        if round_ == resume_at:
            state = opt.state_dict()
            opt = optimizers.wrapped(net, name, "auto", **settings)
            opt.load_state_dict(state)
        optimizers.one_step(opt, net, rank, round_)
    opt.exchange_steps()
    have_types = types == [parameter.dtype for parameter in net.parameters()]
    return hash_of(values(net)), have_types, float((values(net) - start).abs().max())


def simulated(net: nn.Module, name: str, n: int, rounds: int = 4, **settings: Any) -> list[str]:
    """Hashes of the workers' parameters after the same rounds in one process."""
    algorithm = methods.with_test_settings(name)
    inner = torch.optim.SGD(net.parameters(), lr=algorithm.test_lr)
    simulation = laconic.Simulation(net, inner, algorithm, workers=n, seed=5, **settings)
    for round_ in range(rounds):
        simulation.step(lambda rank, round_=round_: small_model.loss(net, rank, round_))
    simulation.exchange_steps()
    return [hash_of(_of_types(net, simulation.parameters_of(rank))) for rank in range(n)]


def _of_types(net: nn.Module, vector: Tensor) -> Tensor:
    sizes = [parameter.numel() for parameter in net.parameters()]
    parts = zip(vector.split(sizes), net.parameters(), strict=True)
    return torch.cat([part.to(parameter.dtype).double() for part, parameter in parts])


def sharded(rank: int) -> dict[str, str]:
    """The error for each way in which a rank may hold a part of a parameter."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    mesh, cpu = init_device_mesh("cpu", (dist.get_world_size(),)), torch.device("cpu")

    def fully(net: nn.Module) -> nn.Module:
        fully_shard(net, mesh=mesh)
        return net

    makers: dict[str, Callable[[nn.Module], nn.Module]] = {
        "fully_shard": fully,
        "tensor parallel": lambda net: parallelize_module(net, mesh, {"0": ColwiseParallel()}),
        "FSDP": lambda net: FullyShardedDataParallel(net, device_id=cpu),
        "FSDP, own parameters": lambda net: FullyShardedDataParallel(net, device_id=cpu, use_orig_params=True),
    }
    errors = {}
    for kind, shard in makers.items():
        net = shard(small_model.net())
        for model in (net, None):
            try:
                laconic.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), laconic.SGD(), model=model)
            except ValueError as error:
                errors[f"{kind}, {'with' if model else 'without'} model"] = str(error)
    return errors


def shared_at_the_start(rank: int) -> list[Tensor]:
    """What a model holds beside the trained parameters once its optimizer is made; it differed from rank to rank."""
    net = small_model.net()
    net.unlisted = nn.Parameter(torch.full((3,), float(rank)))
    net.register_buffer("rotations", torch.full((2,), complex(rank, 1), dtype=torch.cfloat).conj())
    net.register_buffer("mask", torch.tensor([rank == 0, True]))
    net.register_buffer("expanded", torch.full((1, 1), float(rank)).expand(2, 3))
    net.register_buffer("empty", torch.zeros(0))
    inner = torch.optim.SGD([*net[0].parameters(), *net[2].parameters()], lr=0.1)
    optimizers.wrapped(net, "sgd", "auto", inner)
    return [net.unlisted.detach(), *(buffer.resolve_conj().clone() for buffer in net.buffers())]


def of_two_optimizers(rank: int) -> tuple[str, bool]:
    """Two optimizers over one model, the second made between two exchanges of the first: what each changes."""
    net = small_model.net()
    inners = [torch.optim.SGD(net[place].parameters(), lr=0.1) for place in (0, 2)]
    one = optimizers.wrapped(net, "sgd", "auto", inners[0], local_steps=2)
    optimizers.one_step(one, net, rank, 0)
    own = small_model.values(net[0])
    other = optimizers.wrapped(net, "sgd", "auto", inners[1])
    untouched = torch.equal(small_model.values(net[0]), own)
    for round_ in (1, 2, 3):
        small_model.loss(net, rank, round_).backward()
        one.step()
        other.step()
        net.zero_grad()
    return hash_of(small_model.values(net)), untouched


BAD_ROUND, BAD_RANK = 2, 1


def scales(rank: int, name: str, local_steps: int, clip: bool) -> list[tuple[float, int, str]]:
    """By round, the loss scale, the rounds since it changed, and a hash of the parameters; one rank overflows once."""
    net = small_model.net()
    opt = optimizers.wrapped(net, name, "auto", local_steps=local_steps)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
    seen = []
    for round_ in range(8):
        opt.zero_grad()
        factor = torch.inf if (rank, round_) == (BAD_RANK, BAD_ROUND) else 1.0
        scaler.scale(small_model.loss(net, rank, round_) * factor).backward()
        if clip:
            scaler.unscale_(opt)
            for parameter in net.parameters():
                parameter.grad.nan_to_num_(0.0, 1.0, -1.0).clamp_(-1, 1)  # no trace of what was found
        scaler.step(opt)
        scaler.update()
        seen.append((scaler.get_scale(), scaler.state_dict()["_growth_tracker"], hash_of(small_model.values(net))))
    return seen


def within_machines(rank: int) -> tuple[Tensor, str]:
    """Two machines of two ranks: DDP within each, laconic between them; and the refusal of DDP over all."""
    machines = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    between = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    net = small_model.net()
    ddp = nn.parallel.DistributedDataParallel(net, process_group=machines[rank // 2])
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    opt = laconic.DistributedOptimizer(inner, laconic.SGD(), model=ddp, group=between[rank % 2])
    for round_ in range(4):
        opt.zero_grad()
        small_model.loss(ddp, rank, round_).backward()
        opt.step()
    try:
        laconic.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), laconic.SGD(), model=ddp)
    except ValueError as error:
        return small_model.values(net), str(error)
    return small_model.values(net), ""
