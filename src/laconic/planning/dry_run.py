"""A dry run: a few rounds of a method in this process, on random vectors, to measure its frames and its coding times.

It uses the worker and server sessions of the drivers. Vectors are independent between workers and between rounds, so
that adaptive methods send their maximum.
"""

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from laconic.contract import Algorithm, Exchange, ModelSpec
from laconic.drivers.simulated.lock_step import LockStep
from laconic.faults.injector import FaultInjector
from laconic.planning.candidate import CodingSeconds, Sent
from laconic.protocol.job import Job
from laconic.protocol.layout import Layout, choose_layout, n_nodes_for
from laconic.protocol.legs import Answering, Pattern
from laconic.protocol.round_inputs import Inputs
from laconic.protocol.server import ServerSession
from laconic.protocol.worker import WorkerSession
from laconic.wire import HEADER_BYTES

_LENGTH_D = 1 << 14  # elements of the vectors whose frames are measured
_SLICE_D = 1 << 12  # minimum of a server's slice: in shorter ones headers outweigh the payload
_MAX_LENGTH_D = 1 << 19
_SPEED_ELEMENTS = 1 << 20  # elements times workers of the vectors whose encoding is timed
_SPEED_WORKERS = 16
_SPEED_D = 1 << 20
_RANDOM_ROUNDS = 16  # rounds of methods that skip at random
_LR = 0.1
_HARDLY = 1.25  # growth of a frame of about constant length, when the vector doubles
_MAX_WARM_UP = 10**6


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """A planned job: a method, its layout, its model and its number of workers."""

    algorithm: Algorithm
    layout_name: str
    spec: ModelSpec
    """The parameters."""
    n_workers: int
    bytes_per_s: float | None = None
    """Bandwidth of each link, for methods that adapt to it."""

    @property
    def d(self) -> int:
        """The number of parameters."""
        return self.spec.d

    @property
    def layout(self) -> Layout:
        """The nodes of workers and servers.

        Raises:
            ValueError: The method does not admit the layout.
        """
        n_nodes = n_nodes_for(self.layout_name, self.algorithm, self.n_workers)
        return choose_layout(self.layout_name, self.algorithm, self.spec, n_nodes)

    def shrunk(self, d: int) -> "PlannedJob":
        """Return the job with about `d` parameters, or itself if the method refuses them or would have other exchanges.

        Tensors are smaller in proportion: vectors, or matrices of fewer rows for a method that needs these.
        """
        if d >= self.d:
            return self
        vectors = tuple((max(1, size * d // self.d),) for size in self.spec.sizes)
        matrices = tuple((max(1, shape[0] * d // self.d), *shape[1:]) if shape else () for shape in self.spec.shapes)
        for shapes in (vectors, matrices):
            smaller = replace(self, spec=ModelSpec(names=self.spec.names, shapes=shapes))
            if smaller._is_admitted and smaller.d < self.d and len(smaller.exchanges) == len(self.exchanges):
                return smaller
        return self

    def with_fewer(self, n_workers: int) -> "PlannedJob":
        """Return the job with fewer workers, or itself if the method refuses them or would have other exchanges."""
        fewer = replace(self, n_workers=min(n_workers, self.n_workers))
        return fewer if fewer._is_admitted and len(fewer.exchanges) == len(self.exchanges) else self

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The exchanges of one round."""
        return self.algorithm.exchanges(self.spec, self.n_workers)

    @property
    def _is_admitted(self) -> bool:
        try:
            self.algorithm.check_size(self.spec, self.n_workers)
            return bool(self.layout.n_nodes)
        except ValueError:
            return False


def sent_in_rounds(planned: PlannedJob) -> tuple[tuple[Sent, ...], ...]:
    """Measure what a few rounds send, extrapolated to the job's number of parameters from two smaller sizes.

    Returns:
        For each round, what each exchange sends.
    """
    at_random = planned.algorithm.skips and not planned.algorithm.adaptive
    n_rounds = _RANDOM_ROUNDS if at_random else 2
    sample = planned.shrunk(max(_LENGTH_D, min(_SLICE_D * len(planned.layout.shards), _MAX_LENGTH_D)))
    rounds = _DryRun(sample).run(n_rounds)
    if sample.d == planned.d:
        return tuple(rounds)
    small = sample.shrunk(sample.d // 2)
    return _carried_on(planned, (sample, rounds), (small, _DryRun(small).run(2)))


def coding_seconds(planned: PlannedJob) -> tuple[CodingSeconds, ...]:
    """Measure the coding times of each exchange on this machine, on one thread.

    Returns:
        The median of each exchange, scaled in proportion to d and to the number of workers.
    """
    fewer = planned.with_fewer(_SPEED_WORKERS)
    sample = fewer.shrunk(min(_SPEED_D, _SPEED_ELEMENTS // fewer.n_workers))
    dry_run = _DryRun(sample)
    dry_run.run(1)
    dry_run.forget_times()
    dry_run.run(2)
    scale, n_served = planned.d / sample.d, planned.n_workers / sample.n_workers
    return tuple(
        CodingSeconds(encode=scale * part.encode, serve=scale * n_served * part.serve, decode=scale * part.decode)
        for part in dry_run.medians()
    )


class _DryRun:
    """The simulator's executor with encoded frames, and the times of one job."""

    def __init__(self, planned: PlannedJob) -> None:
        self.planned = planned
        self.job = Job(
            algorithm=planned.algorithm, seed=0, spec=planned.spec, dtype=torch.float32,
            layout=planned.layout,
        )  # fmt: skip
        self.workers = [WorkerSession(self.job, rank) for rank in range(planned.n_workers)]
        n_servers = len(self.job.layout.shards) or 1
        self.servers = [
            ServerSession(self.job, index, lambda direction, _=None: -_LR * direction) for index in range(n_servers)
        ]
        self._timer = _Timer()
        self._lock_step = LockStep(
            self.job, self.servers, FaultInjector(None, planned.n_workers), unsplit=False,
            scratch=partial(self.job.zeros, planned.d), phase=self._timer.phase,
        )  # fmt: skip
        random = torch.Generator().manual_seed(0)
        # One more vector than workers, used in rotation: each worker gets another one each round.
        self.vectors = [torch.randn(planned.d, generator=random) for _ in range(planned.n_workers + 1)]
        warms_up = planned.algorithm.warms_up_in
        self.start_round = next((t for t in range(_MAX_WARM_UP) if not warms_up(t)), 0)
        self.round = self.start_round
        self._times: dict[int, dict[str, list[float]]] = {}

    def run(self, n_rounds: int) -> list[tuple[Sent, ...]]:
        """Run rounds. The very first round is run before them, since some methods send more in it."""
        if self.round == self.start_round:
            self._one_round()
        return [self._one_round() for _ in range(n_rounds)]

    def forget_times(self) -> None:
        """Drop the times measured so far."""
        self._times = {}

    def medians(self) -> list[CodingSeconds]:
        """Return the median times of each exchange."""
        return [
            CodingSeconds(**{name: statistics.median(times) for name, times in by_name.items() if times})
            for _, by_name in sorted(self._times.items())
        ]

    def _one_round(self) -> tuple[Sent, ...]:
        for server in self.servers:
            server.view.link_bytes_per_s = self.planned.bytes_per_s
        self._timer.start()
        for worker in self.workers:
            self._begin(worker)
            self._timer.phase("begin")
        began_s = self._timer.taken()["begin"]
        sent = []
        for number in range(len(self.job.exchanges_in(self.round))):
            self._timer.start()
            exchanged = self._lock_step.exchange(self.workers, self.round, number, _LR)
            for worker in self.workers:
                exchanged.receive(worker)
                self._timer.phase("decode")
            self._record(number, exchanged.pattern, began_s)
            sent.append(Sent.of(exchanged, self.job.layout))
            began_s = [0.0] * len(self.workers)
        for worker in self.workers:
            assert worker.close(), "random vectors are finite"
        for server in self.servers:
            server.close(True)
        self.round += 1
        return tuple(sent)

    def _begin(self, worker: WorkerSession) -> None:
        place = (worker.rank + self.round) % len(self.vectors)
        worker.me.link_bytes_per_s = self.planned.bytes_per_s
        second = self.vectors[place - 1]
        inputs = Inputs(
            vector=self.vectors[place].clone(), parameters=self.vectors[-1],
            gradient_at=lambda parameters: second,
        )  # fmt: skip
        worker.begin(self.round, inputs, _LR)

    def _record(self, number: int, pattern: Pattern, began_s: Sequence[float]) -> None:
        """Record the times of one exchange. The engine adds up while it sends, which is not timed."""
        taken, times = self._timer.taken(), self._times.setdefault(number, {"encode": [], "serve": [], "decode": []})
        times["encode"] += [sum(pair) for pair in zip(began_s, taken["encode"], strict=True)]
        times["serve"] += taken["serve"]
        read_s = sum(taken["read"])
        if pattern.answering is Answering.NOBODY:  # all frames were read once; each worker reads its neighbors'
            read_s *= len(pattern.uploads) / len(self.workers) / max(1, len({leg.sender for leg in pattern.uploads}))
        times["decode"] += [read_s + decode_s for decode_s in taken["decode"]]


class _Timer:
    """Adds up the thread's own processor time by phase, without waiting on a busy machine."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._taken: defaultdict[str, list[float]] = defaultdict(list)
        self._since_s = time.thread_time()

    def phase(self, name: str) -> None:
        """Record the time since the last call as one phase."""
        now_s = time.thread_time()
        self._taken[name].append(now_s - self._since_s)
        self._since_s = now_s

    def taken(self) -> defaultdict[str, list[float]]:
        """Return the seconds of each phase since the start, by name."""
        return self._taken


Rounds = Sequence[tuple[Sent, ...]]


def _carried_on(
    planned: PlannedJob, sample: tuple[PlannedJob, Rounds], small: tuple[PlannedJob, Rounds]
) -> tuple[tuple[Sent, ...], ...]:
    """Return the frames of `sample` extrapolated to the job's d. Control frames have constant length."""
    (here_job, rounds), (there_job, small_rounds) = sample, small
    counts = [exchange.count for exchange in planned.exchanges]
    factors: dict[tuple[int, str], float] = {}
    for number, exchange in enumerate(here_job.exchanges):
        for direction in ("up", "down"):
            here, there = _mean_frame(rounds, number, direction), _mean_frame(small_rounds, number, direction)
            length = _length_at(planned.d, (here_job.d, here), (there_job.d, there))
            if exchange.adds and planned.algorithm.needs_shapes:  # dense, of a length that is no multiple of d
                n_more = (counts[number] - exchange.count) / max(1, len(planned.layout.shards))
                length = here + n_more * torch.float32.itemsize
            factors[number, direction] = length / here if here else 1.0

    def longer(n_bytes: int, number: int, direction: str) -> int:
        return round(n_bytes * factors[number, direction]) if n_bytes > HEADER_BYTES else n_bytes

    def longer_sent(sent: Sent, number: int) -> Sent:
        if sent.answering is Answering.ENGINE:
            return replace(sent, up=((counts[number] * torch.float32.itemsize,),) * planned.n_workers)
        return replace(
            sent,
            up=tuple(tuple(longer(n_bytes, number, "up") for n_bytes in of_worker) for of_worker in sent.up),
            down=tuple(longer(n_bytes, number, "down") for n_bytes in sent.down),
        )

    return tuple(tuple(longer_sent(sent, number) for number, sent in enumerate(exchanges)) for exchanges in rounds)


def _length_at(d: int, sample: tuple[int, float], small: tuple[int, float]) -> float:
    """Return a frame's mean bytes at `d`, extrapolated linearly from two sizes.

    A frame that hardly grew has a constant number of elements, whose positions take log2(d) bits each.
    """
    (here_d, here), (there_d, there) = sample, small
    if not there or here_d == there_d:  # nothing was sent, or there is no smaller size: in proportion
        return here * d / here_d
    if here < _HARDLY * there:
        return here + max(0.0, here - there) * math.log(d / here_d) / math.log(here_d / there_d)
    return here + (here - there) * (d - here_d) / (here_d - there_d)


def _mean_frame(rounds: Rounds, number: int, direction: str) -> float:
    """Return the mean bytes of one exchange's frames, without control frames."""
    found = []
    for exchanges in rounds:
        sent = exchanges[number]
        found += [n for of_worker in sent.up for n in of_worker] if direction == "up" else list(sent.down)
    return statistics.fmean([n for n in found if n > HEADER_BYTES] or [0])
