"""One round in several, over slices of the vector: each has its own frames, and can be started when its part is ready.

Gradients become ready one after another in a backward pass, and parameters may be kept in parts. A rank starts the
slices of a round in any order that is the same on all ranks, and ends the round for all of them at once: the memories
are those of the full vector, and keep what the round wrote only if no slice was aborted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from laconic.buffer_pool import VectorPool
from laconic.contract import Memory, by_parameter, read_saved
from laconic.protocol.abort import Abort
from laconic.protocol.exchanges import RankSessions, Requests, end_round, run_exchanges
from laconic.protocol.job import Job
from laconic.protocol.layout import Shard
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import RoundResult
from laconic.telemetry.meter import Meter


class SlicedRank:
    """The sessions of one rank, for each slice of the vector."""

    def __init__(self, job: Job, bounds: Sequence[int], node: int, *, active: Active | None = None) -> None:
        """Make the sessions of a rank.

        Args:
            job: the training job of the full vector.
            bounds: where the slices begin, and the end of the last: they ascend from 0 to d.
            node: the rank's node.
            active: which parameters take part in a round; None for all.

        Raises:
            ValueError: for bounds that do not cover the vector, or a method that does not work over these slices.
        """
        self.memory = Memory(job.worker_slots, job.device)
        """The worker's memory of the full vector."""

        def server_memory(shard: Shard) -> Memory:
            return Memory(job.server_slots(shard))

        self.slices = [
            RankSessions(
                part, node, pool=VectorPool(part.d, job.dtype, job.device), active=active,
                memory=self.memory.part(part.spec.offset - job.spec.offset, part.d), server_memory=server_memory,
            )
            for part in job.sliced(bounds)
        ]  # fmt: skip
        self.meter = Meter()
        """What this rank sends, receives and serves, in all slices."""
        self.workers = [each.worker for each in self.slices if each.worker is not None]
        """The worker's sessions, none if this rank only serves."""
        self._slots = job.worker_slots
        for each in self.slices:
            each.meter = self.meter
        for worker in self.workers:
            worker.meter = self.meter
            if node:
                worker.count_parameters()

    def run(
        self, number: int, round_: int, inputs: Inputs | None, lr: float, phase: Callable[[str], object]
    ) -> Requests[Abort]:
        """Run slice `number` of a round up to its end; see `exchanges.run_exchanges`. Its `inputs` are of the slice."""
        return run_exchanges(self.slices[number], round_, inputs, lr, phase)

    def end(self, aborted: Sequence[Abort], phase: Callable[[str], object]) -> list[RoundResult]:
        """End a round whose slices have all run: for all of them, it is aborted if it is for one.

        Args:
            aborted: what the slices' runs returned, in order.
            phase: as for `run`.

        Returns:
            The results of the slices, in order.
        """
        worst = max(aborted)
        for each in self.slices:
            if each.worker is not None:
                each.worker.aborted = worst
        return [end_round(each, worst, phase) for each in self.slices]

    def saved(self) -> dict[str, Any]:
        """Return the worker's state between two rounds: that of the full vector, whatever the slices."""
        return {**self.workers[0].saved(), "memory": by_parameter(self.memory.saved(), self._slots)}

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError if the memories of a saved state do not fit the method's slots."""
        self._slots.check_saved(read_saved([saved["memory"]], self._slots))

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from a state of the full vector that was checked."""
        self.memory.restore(read_saved([saved["memory"]], self._slots))
        if saved["meter"] is not None:
            self.meter.restore(saved["meter"])
        for worker in self.workers:
            worker.magnitudes.restart()
            worker.me.link_bytes_per_s = saved["link_bytes_per_s"]
