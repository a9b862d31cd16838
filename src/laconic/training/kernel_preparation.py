"""Compiles the kernels of a job before its first round, by a few steps of a smaller simulation that uses them all.

A round has a deadline, and compiling takes longer than most. Results do not depend on this: what it misses is compiled
at its first use.
"""

import logging
import sys
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from laconic.contract import Algorithm
from laconic.kernels.api import (
    add_up_with_checksum,
    are_prepared,
    descend,
    gather_mean_step,
    gather_step,
    gather_with_checksum,
    kernel_threads,
    largest_and_checksum,
    prepare,
    scatter,
    step_along_mean,
    sum_landed,
)
from laconic.protocol.layout import Layout
from laconic.statements import mark_stated
from laconic.training.flat_parameters import FlatParameters
from laconic.training.second_gradient import called_twice
from laconic.training.simulation import Simulation

_MAX_D = 1 << 18  # parameters; kernels are the same from there on, those that store past the caches among them
_MAX_WORKERS = 16
_LONG_BYTES = 1 << 23  # from so many on, vectors are stored past the caches
_ROUNDS, _ROUNDS_WITH_SKIPS = 3, 12
_LR = 0.01


@dataclass(frozen=True, kw_only=True)
class KernelPreparation:
    """The kernels that one rank of a `DistributedOptimizer` is going to use."""

    algorithm: Algorithm
    flat: FlatParameters
    local_steps: int
    clip: tuple[float | None, float | None]
    """`clip_norm` and `clip_value`."""
    speaks: bool
    """Whether this rank states what users should know of the method."""

    def is_done(self, layout: Layout) -> bool:
        """Return whether this machine has the kernels, or needs none."""
        return self.flat.device.type != "cpu" or are_prepared(self._job(layout))

    def run(self, layout: Layout) -> None:
        """Compile the kernels, unless another process of this machine has. It waits for one that does."""
        prepare(self._job(layout), lambda: self._use(layout))

    def _job(self, layout: Layout) -> str:
        """Return all that the choice of kernels depends on."""
        cls = type(self.algorithm)
        file = Path(getattr(sys.modules.get(cls.__module__), "__file__", None) or "")
        source = zlib.crc32(file.read_bytes()) if file.is_file() else 0
        shapes = [
            (len(shape), min(size, _MAX_D)) for shape, size in zip(self.flat.spec.shapes, self.flat.sizes, strict=True)
        ]
        about = (
            cls.__qualname__, source, repr(self.algorithm), layout.name, layout.n_workers, self.local_steps, self.clip,
            sorted({str(parameter.dtype) for parameter in self.flat.parameters}), zlib.crc32(repr(shapes).encode()),
            kernel_threads() > 1,
        )  # fmt: skip
        return repr(about)

    def _use(self, layout: Layout) -> None:
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")
                self._simulate(layout)
                self._step_in_one_pass()
        except Exception as error:  # a user's method may fail anywhere; its first round shows that
            logging.getLogger("laconic").debug("kernels could not be compiled before the first round: %s", error)

    def _simulate(self, layout: Layout) -> None:
        algorithm: Any = self.algorithm
        if not self.speaks:
            mark_stated(called_twice(algorithm))
        if getattr(algorithm, "dense_rounds", 0):
            algorithm = replace(algorithm, dense_rounds=1)
        model, random = _Sample(self.flat), torch.Generator().manual_seed(0)
        simulation = Simulation(
            model, torch.optim.SGD(model.parameters(), lr=_LR), algorithm,
            workers=min(layout.n_workers, _MAX_WORKERS), layout=layout.name, local_steps=min(self.local_steps, 2),
            frames="encoded", clip_norm=self.clip[0], clip_value=self.clip[1], lr="kept",
        )  # fmt: skip
        simulation.flat.set_values(simulation.flat.values())
        n_rounds = _ROUNDS_WITH_SKIPS if algorithm.skips else _ROUNDS
        for _ in range(n_rounds * simulation.training.local.many):
            simulation.step(lambda rank: model.loss(random))
        simulation.exchange_steps()

    def _step_in_one_pass(self) -> None:
        """Take steps of plain SGD that a simulation takes otherwise, and read and write long frames and vectors."""
        values, gradient, out = (torch.zeros(8, dtype=self.flat.dtype) for _ in range(3))
        if self.flat.d * out.itemsize >= _LONG_BYTES:
            gather_with_checksum([values], out)
            largest_and_checksum(out)
            long = torch.zeros(_LONG_BYTES // out.itemsize, dtype=out.dtype)
            scatter(long, [long.clone()])
            descend([values], [gradient], factor=-_LR)
            if self.algorithm.sum_divisor(2) is not None:
                add_up_with_checksum([values, gradient], out)
        if self.algorithm.server_steps:
            step_along_mean(values, [gradient], divisor=1, lr=_LR)
            gather_mean_step([values], [-_LR], [gradient], out, divisor=1)
        if self.algorithm.is_decentralized:
            sum_landed([values, gradient], 1, out)
            sum_landed([values, gradient], 1, out, sends_on=True)
        if self.algorithm.consumes == "change" and not self.algorithm.replicas_equal:
            gather_step([values], [gradient], [-_LR], out, adds=True)


class _Sample(nn.Module):
    """A model with parameters like those of another one, but fewer."""

    def __init__(self, flat: FlatParameters) -> None:
        super().__init__()
        share = min(1.0, _MAX_D / flat.d)
        self.tensors = nn.ParameterList(
            nn.Parameter(torch.zeros(max(1, int(share * len(each))), *each.shape[1:], dtype=each.dtype))
            if each.dim()
            else nn.Parameter(torch.zeros_like(each))
            for each in flat.parameters
        )

    def loss(self, random: torch.Generator) -> Tensor:
        """Return a loss whose gradient is random."""
        return torch.stack(
            [(each * torch.randn(each.shape, generator=random).to(each.dtype)).sum().double() for each in self.tensors]
        ).sum()
