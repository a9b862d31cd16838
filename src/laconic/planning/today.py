"""What people use today, modelled beside the methods: DistributedDataParallel, bare and with its two common hooks.

DistributedDataParallel cuts the gradient into buckets, and all-reduces each while the backward pass computes the next.
What is assumed: the backward pass is two thirds of a gradient's time, buckets are of 25 MiB (the first of 1 MiB) as
torch's default is, they become ready in proportion to their bytes, and sending does not slow down computing. The
all-reduce is the ring that plain all-reduce is planned with.

PowerSGD's hook (Vogels, Karimireddy and Jaggi 2019) sends the two factors of each matrix, and what is no matrix as it
is, in three all-reduces a bucket. Where shapes are not known, all parameters are taken as matrices of 512 x 512.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from laconic.contract import ModelSpec
from laconic.network import ring
from laconic.planning.candidate import ended_ns
from laconic.planning.query import Query

_SMALL_BUCKET_BYTES = 1 << 20
_BUCKET_BYTES = 25 << 20
_BACKWARD = 2 / 3
_SIDE = 512
_INSTANT_S = 1e-12  # in place of no time at all
_MIN_COMPRESSION = 2  # torch's min_compression_rate
_SAMPLE_SIDE = 1024
_HOOKS = "torch.distributed.algorithms.ddp_comm_hooks"

BucketBytes = tuple[int, ...]
"""The bytes of each all-reduce of one bucket, one after the other."""


@dataclass(frozen=True, kw_only=True)
class Today:
    """One way to train today, in time per step."""

    name: str
    python: str
    """The lines that set it up."""
    step_s: float
    up_bytes: float
    """Bytes per step and worker that are added up, as `Candidate.up_bytes` counts them; as many come back."""
    coding_s: float | None
    """Seconds of compressing and decompressing per step; None if they are not measured."""
    speed_up: float
    """Speed-up over plain all-reduce."""
    speed_up_bound: float
    """Its upper bound over what is not known; equal to it if nothing is missing."""

    @property
    def worker_bytes_a_day(self) -> float | None:
        """The bytes that a worker's link sends and receives in a day of steps; None if a step takes no time."""
        # In an all-reduce both what is added up and what comes back is sent by one worker and received by another.
        return 4 * self.up_bytes * 86_400 / self.step_s if self.step_s else None

    def as_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "name": self.name, "python": self.python, "step_s": self.step_s, "up_bytes": self.up_bytes,
            "down_bytes": self.up_bytes, "coding_s": self.coding_s, "speed_up": self.speed_up,
            "speed_up_upper_bound": self.speed_up_bound, "worker_bytes_per_day": self.worker_bytes_a_day,
            "is_modelled": True,
        }  # fmt: skip


def assumptions(spec: ModelSpec) -> str:
    """Return what the rows assume, in a few sentences."""
    shapes = f", with all parameters in matrices of {_SIDE} x {_SIDE} since their shapes are not known"
    return (
        "DDP rows are modelled: the backward pass is 2/3 of a gradient, buckets of 25 MiB go while it computes, and "
        f"sending does not slow it down. PowerSGD: rank 1, after its first 1000 steps"
        f"{shapes if len(spec.sizes) == 1 else ''}."
    )


def today(query: Query, plain_s: Callable[[Query], float], *, measure: bool) -> list[Today]:
    """Return the rows of what people use today.

    Args:
        query: The model, workers and network.
        plain_s: Returns the seconds of a step of plain all-reduce on a network.
        measure: Whether to measure the time of compressing.
    """
    spec, n = query.spec, query.n_workers
    buckets = _buckets(spec)
    half_s, low_rank_s = (_half_s(), _low_rank_s()) if measure else (None, None)
    wrapped = "model = torch.nn.parallel.DistributedDataParallel(model)"
    powersgd = f"{_HOOKS}.powerSGD_hook"
    rows: list[tuple[str, str, list[BucketBytes], float | None]] = [
        ("DDP", wrapped, [(4 * sum(sizes),) for sizes in buckets], 0.0),
        (
            "DDP + fp16",
            f"{wrapped}\nmodel.register_comm_hook(None, {_HOOKS}.default_hooks.fp16_compress_hook)",
            [(2 * sum(sizes),) for sizes in buckets],
            half_s,
        ),
        (
            "DDP + PowerSGD",
            f"{wrapped}\nmodel.register_comm_hook({powersgd}.PowerSGDState(None, matrix_approximation_rank=1), "
            f"{powersgd}.powerSGD_hook)",
            _low_rank(spec, buckets),
            low_rank_s,
        ),
    ]
    found = []
    for name, python, sent, element_s in rows:
        coding_s = 0.0 if element_s is None else element_s * spec.d

        here = _Overlapped(query, buckets, sent, coding_s)
        here_s, usual_s = here.step_s(query.compute_s or 0.0), plain_s(query)
        up_bytes = sum(map(sum, sent)) * (n - 1) / n
        found.append(
            Today(
                name=name, python=python, step_s=here_s, up_bytes=up_bytes,
                coding_s=None if element_s is None else coding_s, speed_up=usual_s / max(here_s, _INSTANT_S),
                speed_up_bound=max(
                    _largest_speed_up(_Overlapped(at, buckets, sent, coding_s), plain_s(at))
                    for at in query.at_possible_latencies()
                ),
            )
        )  # fmt: skip
    return found


class _Overlapped:
    """Buckets that are all-reduced, one after the other, as they become ready."""

    def __init__(
        self, query: Query, buckets: Sequence[Sequence[int]], sent: Sequence[BucketBytes], coding_s: float
    ) -> None:
        self.query = query
        d, seconds_of = (
            query.n_parameters,
            cache(lambda n_bytes: ended_ns(ring(query.n_workers, n_bytes), query.ring())),
        )
        self._shares = [sum(sizes) / d for sizes in buckets]
        self._sending_s = [
            coding_s * share + sum(map(seconds_of, parts)) / 1e9
            for share, parts in zip(self._shares, sent, strict=True)
        ]

    def step_s(self, compute_s: float) -> float:
        """Return the seconds of a step with a gradient of `compute_s`."""
        ready_s, ended_s = compute_s * (1 - _BACKWARD), 0.0
        for share, sending_s in zip(self._shares, self._sending_s, strict=True):
            ready_s += compute_s * _BACKWARD * share
            ended_s = max(ready_s, ended_s) + sending_s
        return max(ended_s, compute_s)


def _largest_speed_up(overlapped: _Overlapped, plain_s: float) -> float:
    """Return the largest speed-up over the gradient's time, if that is not known."""
    known = overlapped.query.compute_s
    if known is not None:
        return plain_s / max(overlapped.step_s(known), _INSTANT_S)
    gradients_s = [0.0, *(plain_s * 2.0**power for power in range(-5, 6))]
    return max((plain_s + one) / max(overlapped.step_s(one), _INSTANT_S) for one in gradients_s)


def _buckets(spec: ModelSpec) -> list[list[int]]:
    """Return the sizes of the tensors in each bucket: from the last tensor on, as torch fills them."""
    if len(spec.sizes) == 1:  # its tensors are not known: cut anywhere
        small, usual = _SMALL_BUCKET_BYTES // 4, _BUCKET_BYTES // 4
        rest = max(0, spec.d - small)
        parts = [min(spec.d, small), *[usual] * (rest // usual), rest % usual]
        return [[size] for size in parts if size]
    buckets: list[list[int]] = []
    left_bytes = 0
    for size in reversed(spec.sizes):
        if left_bytes <= 0:
            left_bytes = _BUCKET_BYTES if buckets else _SMALL_BUCKET_BYTES
            buckets.append([])
        buckets[-1].append(size)
        left_bytes -= 4 * size
    return buckets


def _low_rank(spec: ModelSpec, buckets: Sequence[Sequence[int]]) -> list[BucketBytes]:
    """Return the bytes that PowerSGD of rank 1 sends of each bucket: what is no matrix, then the two factors."""
    if len(spec.sizes) == 1:
        factor = [sum(sizes) // _SIDE * 4 for sizes in buckets]
        return [(n_bytes, n_bytes) for n_bytes in factor]
    shapes = iter(reversed(spec.shapes))
    sent = []
    for sizes in buckets:
        plain = left = right = 0
        for size, shape in zip(sizes, shapes, strict=False):
            rows = shape[0] if shape else 1
            columns = size // max(1, rows)
            if len(shape) > 1 and (rows + columns) * _MIN_COMPRESSION < size:
                left, right = left + rows, right + columns
            else:
                plain += size
        sent.append(tuple(4 * n for n in (plain, left, right) if n))
    return sent


def _timed_s(work: Callable[[], object]) -> float:
    """Return the fewest processor seconds of three runs on this thread."""
    taken = []
    for _ in range(4):
        start_s = time.thread_time()
        work()
        taken.append(time.thread_time() - start_s)
    return min(taken[1:])


@cache
def _half_s() -> float:
    """Return the seconds of an element to half precision and back."""
    vector = torch.ones(_SAMPLE_SIDE**2)
    return _timed_s(lambda: vector.copy_(vector.half())) / vector.numel()


@cache
def _low_rank_s() -> float:
    """Return the seconds of an element in PowerSGD of rank 1: two products, and the residual."""
    matrix, residual = torch.ones(_SAMPLE_SIDE, _SAMPLE_SIDE), torch.zeros(_SAMPLE_SIDE, _SAMPLE_SIDE)
    q = torch.ones(_SAMPLE_SIDE, 1)

    def work() -> None:
        matrix.add_(residual)
        p = matrix @ q
        p /= p.norm()
        torch.sub(matrix, p @ (matrix.T @ p).T, out=residual)

    return _timed_s(work) / matrix.numel()
