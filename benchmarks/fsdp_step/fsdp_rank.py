"""One rank of the bench of sharded models; those of a node share a network namespace."""

import time

import torch
import torch.distributed as dist
from ranks import TIMEOUT_S
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import laconic
import laconic.fsdp

HSDP = "HSDP"
_WARM_UP, _BATCH = 2, 16


class FsdpRank:
    """One rank, which trains equal models: one that FSDP averages between nodes itself, and one for each method."""

    def set_up(self, methods: list[str], nodes: int, width: int, n_layers: int) -> int:
        """Make the models. Returns their number of parameters."""
        mesh = init_device_mesh("cpu", (nodes, dist.get_world_size() // nodes), mesh_dim_names=("replicate", "shard"))
        self._jobs: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {}
        self._handles = []
        n_parameters = 0
        for name in (HSDP, *methods):
            torch.manual_seed(0)
            model = nn.Sequential(*(nn.Linear(width, width) for _ in range(n_layers)))
            n_parameters = sum(parameter.numel() for parameter in model.parameters())
            over = mesh if name == HSDP else mesh["shard"]
            for module in (*model, model):
                fully_shard(module, mesh=over)
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            if name != HSDP:
                method = laconic.ALGORITHMS[name]()
                given = {"optimizer": optimizer} if method.reads_lr else {}
                self._handles.append(laconic.fsdp.attach(model, method, mesh=mesh, timeout_s=TIMEOUT_S, **given))
            self._jobs[name] = model, optimizer
        self._inputs = torch.randn(_BATCH, width, generator=torch.Generator().manual_seed(dist.get_rank()))
        return n_parameters

    def measure(self, turns: int) -> dict[str, list[float]]:
        """Return the seconds of the steps of each model, taken in turns."""
        seconds: dict[str, list[float]] = {name: [] for name in self._jobs}
        for turn in range(_WARM_UP + turns):
            for name, (model, optimizer) in self._jobs.items():
                dist.barrier()
                begun = time.perf_counter()
                optimizer.zero_grad()
                model(self._inputs).square().mean().backward()
                optimizer.step()
                if turn >= _WARM_UP:
                    seconds[name].append(time.perf_counter() - begun)
        return seconds
