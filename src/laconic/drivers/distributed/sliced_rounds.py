"""Rounds over slices of the vector, which one thread carries out in the order in which they are started.

All that a rank sends is sent by that thread, so that no collective begins in a callback, and every rank has one order.
"""

from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor

from laconic.contract import Algorithm, ModelSpec
from laconic.drivers.distributed.agreement import Settings
from laconic.drivers.distributed.rounds import Kernels, Part, Processes
from laconic.drivers.transport import Scheduler, carry_out
from laconic.protocol.abort import Abort
from laconic.protocol.exchanges import RankSessions, abandon_round
from laconic.protocol.participation import Participation
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import RoundResult
from laconic.protocol.server import Descend
from laconic.protocol.slices import SlicedRank


class SlicedProcesses(Processes):
    """This rank's part of a job whose rounds run over slices: each is started when its part of the gradient is there.

    A round takes effect for all slices or for none. What says "in the thread" below runs in that of `scheduler`.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        bounds: Sequence[int],
        parameters: Tensor,
        spec: ModelSpec,
        group: dist.ProcessGroup | None,
        layout: str,
        seed: int,
        timeout_s: float | None,
        active: Active,
        agreed: Settings,
        kernels: Kernels,
    ) -> None:
        """Set up this rank; see `Processes`. The `bounds` are where the slices begin, and the end of the last."""
        self._bounds = tuple(bounds)
        super().__init__(
            algorithm, parameters=parameters, spec=spec, group=group, layout=layout, seed=seed, timeout_s=timeout_s,
            active=active, agreed={**agreed, "slices": str(self._bounds)}, kernels=kernels,
        )  # fmt: skip
        self.scheduler = Scheduler(self.channel)
        self._aborted: dict[int, Abort] = {}  # by slice, of those that have run in this round

    def _make_sessions(
        self, descend: Descend | None, active: Active | None, participation: Participation | None
    ) -> Sequence[RankSessions]:
        assert descend is None, "a server with a model of its own has no slices"
        assert participation is None, "all workers take part"
        self.sliced = SlicedRank(self.job, self._bounds, self.channel.rank, active=active)
        return self.sliced.slices

    @property
    def _own_worker(self) -> Part:
        return self.sliced

    @property
    def causes(self) -> list[int]:
        """The rank of this process's worker, if its own numbers abort the last round."""
        return [worker.rank for worker in self.sliced.workers if worker.is_cause][:1]

    def run_slice(self, number: int, inputs: Inputs, lr: float) -> None:
        """Run slice `number` of this round up to its end, in the thread. The `inputs` are of the slice.

        Raises:
            PeerLostError: if a rank is missing. The round then has no effect on this rank, as after any other error.
        """
        self.seconds.phase("compute")
        try:
            requests = self.sliced.run(number, self.rounds, inputs, lr, self.seconds.phase)
            self._aborted[number] = carry_out(requests, self.channel)
        except BaseException:
            abandon_round(self.sliced.workers, self.servers)
            raise

    def end_round(self) -> list[RoundResult]:
        """End a round whose slices have all run, in the thread. Returns the results of the slices, in order."""
        aborted = [self._aborted[number] for number in range(len(self.sliced.slices))]
        self._aborted = {}
        results = self.sliced.end(aborted, self.seconds.phase)
        self._count_round(results[0].aborted)
        return results

    def close(self) -> None:
        """Leave the group when the thread has carried out what was started. Not collective."""
        super().close()
        self.scheduler.close()
