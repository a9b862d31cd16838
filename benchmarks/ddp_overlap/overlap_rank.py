"""One rank of the bench, in its own namespace."""

import resource
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from ranks import TIMEOUT_S
from torch import nn
from torch._C._profiler import _ExperimentalConfig
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile, record_function

import laconic
import laconic.ddp
from laconic.algorithms.ec_sgd import ECSGD
from laconic.compressors import ScaledSign

WIDTH, LAYERS = 1443, 12  # 25.0 million parameters
ALONE, OPTIMIZER, ATTACHED, PLAIN = "no exchange", "optimizer", "attached", "ddp"
_WARM_UP = 3
_EC_SGD_BY_LAYER = ECSGD(compressor=ScaledSign(blocks="layer"), server_compressor=ScaledSign(blocks="layer"))
STEP, BACKWARD, EXCHANGE, SLICE = "step", "autograd::engine::evaluate_function: ", "laconic::exchange", "laconic::slice"
"""Names in a trace."""


class OverlapRank:
    """One rank, which takes steps of all contenders."""

    def set_up(self, method: str, layout: str, batch: int, plain: bool, bucket_mb: float) -> int:
        """Make the contenders. Returns the number of slices of the attached one."""
        self._inputs = torch.randn(batch, WIDTH, generator=torch.Generator().manual_seed(dist.get_rank()))
        algorithm = laconic.ALGORITHMS[method]() if method != "ec-sgd" else _EC_SGD_BY_LAYER
        self._steps: dict[str, Callable[[], None]] = {}
        net = _net()
        self._steps[ALONE] = self._step_of(net, torch.optim.SGD(net.parameters(), lr=1e-4))
        net = _net()
        inner = torch.optim.SGD(net.parameters(), lr=1e-4)
        opt = laconic.DistributedOptimizer(
            inner, algorithm, model=net, layout=layout, check_every=0, timeout_s=TIMEOUT_S, lr="kept"
        )
        self._steps[OPTIMIZER] = self._step_of(net, opt)
        for name in (ATTACHED, PLAIN) if plain else (ATTACHED,):
            ddp = DistributedDataParallel(
                _net(),
                bucket_cap_mb=bucket_mb,  # type: ignore[arg-type]
                gradient_as_bucket_view=True,
            )
            self._steps[name] = self._step_of(ddp, torch.optim.SGD(ddp.parameters(), lr=1e-4))
            if name == ATTACHED:
                self._handle = laconic.ddp.attach(ddp, algorithm, layout=layout, check_every=0, timeout_s=TIMEOUT_S)
        return self._handle.n_slices

    def _step_of(self, model: nn.Module, opt: Any) -> Callable[[], None]:  # noqa: ANN401 - an optimizer of either kind
        def step() -> None:
            opt.zero_grad()
            model(self._inputs).square().mean().backward()
            opt.step()

        return step

    def measure(self, turns: int) -> dict[str, list[tuple[float, float]]]:
        """Return of each contender's steps, taken in turns, the seconds, and those of a processor in all threads."""
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in self._steps}
        for turn in range(_WARM_UP + turns):
            for name, step in self._steps.items():
                dist.barrier()
                start, used = time.perf_counter(), _processor_s()
                step()
                if turn >= _WARM_UP:
                    seconds[name].append((time.perf_counter() - start, _processor_s() - used))
        return seconds

    def trace(self, steps: int) -> list[tuple[str, int, float, float]]:
        """Return the spans of the attached contender's last of some steps: what, thread, from when to when, in s."""
        step = self._steps[ATTACHED]
        for _ in range(steps - 1):
            dist.barrier()
            step()
        dist.barrier()
        config = _ExperimentalConfig(profile_all_threads=True)  # the exchange has a thread of its own
        with profile(activities=[ProfilerActivity.CPU], experimental_config=config) as profiled, record_function(STEP):
            step()
        return [
            (e.name, e.thread, e.time_range.start / 1e6, e.time_range.end / 1e6)
            for e in profiled.events()
            if _is_shown(e.name)
        ]


def _is_shown(name: str) -> bool:
    return name in (STEP, EXCHANGE) or name.startswith((BACKWARD, SLICE, "Optimizer.step"))


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [each for _ in range(LAYERS) for each in (nn.Linear(WIDTH, WIDTH), nn.Tanh())]
    return nn.Sequential(*layers)
