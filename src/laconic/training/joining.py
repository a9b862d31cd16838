"""Ranks that run out of mini-batches: within `opt.join()` they shadow the others' rounds, as torch's join contexts do.

A rank in shadow brings a gradient of zeros and takes no local step, but applies the result like all others. So replicas
stay equal, and a mean is still divided by the number of all workers, as DistributedDataParallel.join does by default.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.drivers.distributed.channel import Channel
from laconic.drivers.distributed.rounds import Processes
from laconic.training.flat_parameters import FlatParameters


def check_join(driver: Processes, local_steps: int, *, by_initial_size: bool) -> None:
    """Raise ValueError if a rank without a mini-batch cannot take part in this method's rounds."""
    algorithm = driver.job.algorithm
    if driver.node is not None:
        raise ValueError("join: the ranks of a node step together; give all equally many mini-batches, or no nodes=")
    why = None
    if algorithm.is_asynchronous:
        why = "its workers wait for nobody, so a rank whose data has run out leaves its loop"
    elif algorithm.second_gradient:
        why = "it evaluates each mini-batch at two points, and a rank that has none cannot; give all ranks equally many"
    elif algorithm.counts_zeros or getattr(getattr(algorithm, "compressor", None), "counts_zeros", False):
        why = (
            "a gradient of zeros would still be a vote; give all ranks equally many mini-batches, for instance by "
            "DistributedSampler, or end all loops together"
        )
    if why is not None:
        raise ValueError(f"join: {algorithm.name} admits no rank without data: {why}")
    if not by_initial_size and (algorithm.consumes == "change" or local_steps > 1):
        raise ValueError(
            f"join: divide_by_initial_world_size=False does not go with {algorithm.name} and local_steps={local_steps}"
            ": what local steps change is averaged over all workers; leave it at True"
        )


class Joined(Protocol):
    """What a join context needs of the optimizer that it is for."""

    inner: Optimizer
    serves_only: bool
    joining: "Joining | None"

    def shadow(self) -> None:
        """Take part in one step of the others."""


class Joining:
    """One context, from `opt.join()` to its end."""

    def __init__(
        self, opt: Joined, channel: Channel, n_workers: int, *, by_initial_size: bool, throws: bool, enabled: bool
    ) -> None:
        self.scale: float | None = None
        """The share of workers that still have data, if gradients are divided by it in this step."""
        self._opt, self._channel, self._n_workers = opt, channel, n_workers
        self._by_initial_size, self._throws, self._enabled = by_initial_size, throws, enabled
        self._is_over = False
        self._had_data = False  # in the last step
        self._n_had_data = n_workers

    def __enter__(self) -> Self:
        if self._opt.joining is not None:
            raise RuntimeError("join: this optimizer is in a join context already; one is enough for a loop")
        if self._enabled:
            self._opt.joining = self
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            while self._enabled and kind is None and self.goes_on(has_data=False):
                self._opt.shadow()
        finally:
            self._opt.joining = None

    def goes_on(self, *, has_data: bool) -> bool:
        """Tell the others whether this rank has data; return whether any rank has. Collective while one has.

        Raises:
            RuntimeError: on all ranks, if one has run out of data and the context was asked to raise.
        """
        if self._is_over:
            return False
        with_data = torch.tensor([float(has_data and not self._opt.serves_only)])
        self._channel.all_reduce(with_data, "to learn who still has data")
        self._channel.control_bytes += 2 * with_data.element_size()
        n = int(with_data)
        self._is_over = n == 0
        is_missing = 0 < n < self._n_workers
        if n == 0 and self._n_had_data < self._n_workers:
            self._share_options(has_data=self._had_data)  # as they are after the last step
        self._had_data, self._n_had_data = has_data, n
        if is_missing and self._throws:
            self._is_over = True
            raise RuntimeError(
                f"join: {self._n_workers - n} of {self._n_workers} workers have run out of data, and "
                "throw_on_early_termination=True ends all"
            )
        self.scale = n / self._n_workers if is_missing and not self._by_initial_size else None
        if is_missing:
            self._share_options(has_data=has_data)
        return not self._is_over

    def scaled(self, loss_scale: Tensor | None, flat: FlatParameters) -> Tensor | None:
        """Return what gradients are to be divided by, given what the loss was multiplied by; None for nothing."""
        if self.scale is None:
            return loss_scale
        share = torch.tensor(self.scale, dtype=flat.dtype, device=flat.device)
        return share if loss_scale is None else share * loss_scale

    def _share_options(self, *, has_data: bool) -> None:
        """Give this rank, whose scheduler rests, the learning rates and the like of a rank with data. Collective."""
        groups = self._opt.inner.param_groups
        mine = [_numbers(group) for group in groups] if has_data and not self._opt.serves_only else []
        shown = self._channel.gather(mine, "for its learning rates", [[int | float]], max_bytes=1 << 20)
        newest: list[list[float]] = next((of_rank for of_rank in shown if of_rank), [])
        for group, numbers in zip(groups, newest if not mine else [], strict=False):
            _set_numbers(group, numbers)


def _numbers(group: Mapping[str, Any]) -> list[float]:
    """Return the numbers among a group's options, in the order of their names."""
    return [float(part) for name in sorted(group) for part in _parts(group[name])]


def _set_numbers(group: dict[str, Any], numbers: Sequence[float]) -> None:
    """Overwrite them by `numbers`, in the same order."""
    left = iter(numbers)
    for name in sorted(group):
        value = group[name]
        parts = [_like(part, next(left)) for part in _parts(value)]
        if parts:
            group[name] = tuple(parts) if isinstance(value, tuple) else parts[0]


def _parts(value: object) -> Sequence[float | Tensor]:
    """Return the numbers of an option: one, those of a pair such as Adam's betas, or none."""
    parts = value if isinstance(value, tuple) else (value,)
    are_numbers = all(_is_number(part) for part in parts)
    return parts if are_numbers else ()


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1
    return isinstance(value, int | float) and not isinstance(value, bool)


def _like(value: float | Tensor, number: float) -> float | Tensor:
    if isinstance(value, Tensor):
        return value.fill_(number)
    return int(number) if isinstance(value, int) and number.is_integer() else number
