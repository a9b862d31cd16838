"""Rounds over slices of the vector, which threads carry out in the order in which they are started.

All that a rank sends over a channel is sent by one thread, so that no collective begins in a callback, and every rank
has one order.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch.distributed as dist
from torch import Tensor
from torch.profiler import record_function

from laconic.contract import Algorithm, ModelSpec
from laconic.drivers.distributed.agreement import Settings
from laconic.drivers.distributed.channel import Channel
from laconic.drivers.distributed.nodes import Node, Nodes
from laconic.drivers.distributed.parts import Kernels, Part
from laconic.drivers.distributed.rounds import Processes
from laconic.drivers.distributed.shards import Shards
from laconic.drivers.scheduler import Scheduler
from laconic.drivers.transport import Transport, carry_out
from laconic.protocol.abort import Abort
from laconic.protocol.exchanges import RankSessions, Requests, abandon_round
from laconic.protocol.own_model import Descend
from laconic.protocol.participation import Participation
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import RoundResult
from laconic.protocol.slices import SlicedRank
from laconic.torch_compat import timeout_s_of

T = TypeVar("T")


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
        nodes: Nodes,
        shards: Shards | None,
        active: Active,
        agreed: Settings,
        kernels: Kernels,
    ) -> None:
        """Set up this rank; see `Processes`. The `bounds` are where the slices begin, and the end of the last."""
        self._bounds = tuple(bounds)
        self._more_lanes: list[Channel] = []
        super().__init__(
            algorithm, parameters=parameters, spec=spec, group=group, layout=layout, seed=seed, timeout_s=timeout_s,
            nodes=nodes, shards=shards, active=active, agreed={**agreed, "slices": str(self._bounds)}, kernels=kernels,
        )  # fmt: skip
        if self.node is not None:
            self.node.open_memory(self.job.d, self.job.dtype, self.job.device, everywhere=False)
        self._make_lanes(group, timeout_s)
        self.allow_parts(self.sliced.slices, "all")
        self._aborted: dict[int, Abort] = {}  # by slice, of those that have run in this round

    def _make_lanes(self, group: dist.ProcessGroup | None, timeout_s: float | None) -> None:
        """Make what runs the slices. Collective.

        Two lanes, where frames come from the host: while one slice is under way the next one is encoded. Several calls
        at once of an engine of GPUs would have to be in one order on all ranks.
        """
        alone = self.node is None and self.shards is None
        if alone and len(self.sliced.slices) > 1 and self.job.device.type == "cpu":
            patience_s = timeout_s_of(group) if timeout_s is None else timeout_s
            self._more_lanes = [Channel(group, patience_s, self.job.spec.stop)]
            for channel in self._more_lanes:
                self.end_at_exit(channel)
        self.scheduler = Scheduler(self.channel, *self._more_lanes)

    @property
    def _channels(self) -> list[Channel]:
        return [*super()._channels, *self._more_lanes]

    def _make_sessions(
        self, descend: Descend | None, active: Active | None, participation: Participation | None
    ) -> Sequence[RankSessions]:
        assert descend is None, "a server with a model of its own has no slices"
        assert participation is None, "all workers take part"
        self.sliced = SlicedRank(self.job, self._bounds, self.place, active=active)
        return self.sliced.slices

    @property
    def _own_worker(self) -> Part:
        return self.sliced

    @property
    def causes(self) -> list[int]:
        """The rank of this process's worker, if its own numbers abort the last round."""
        return [worker.rank for worker in self.sliced.workers if worker.is_cause][:1]

    def run_slice(self, number: int, inputs: Inputs, lr: float, lane: Transport | None = None) -> None:
        """Run slice `number` of this round up to its end, in the thread. The `inputs` are of the slice.

        `lane` is what the scheduler has given; by default it goes over the channel.

        Raises:
            PeerLostError: if a rank is missing. The round then has no effect on this rank, as after any other error.
        """
        self.seconds.phase("compute")
        between = self.between if self.node is not None or lane is None else lane
        try:
            with record_function(f"laconic::slice {number}"):
                if self.node is not None:
                    inputs = self._of_node(self.node, number, inputs)
                if between is not None:
                    requests = self.sliced.run(number, self.rounds, inputs, lr, self.seconds.phase)
                    self._aborted[number] = carry_out(_with_spans(requests), between)
        except BaseException as error:
            abandon_round(self.sliced.workers, self.servers)
            self.give_up(error)
            raise

    def _of_node(self, node: Node, number: int, inputs: Inputs) -> Inputs:
        """Return the inputs of slice `number` with the mean over the ranks of this node. Collective over them."""
        job, vector = self.sliced.slices[number].job, inputs.vector
        assert not isinstance(vector, Tensor), "it is read from the buckets"
        purpose = f"for the gradients of its node, round {self.rounds}"
        mean, (mark,) = node.mean_of(vector, job.d, [inputs.abort.mark], job, purpose)
        self.seconds.phase("wait")
        given = vector if mean is None else mean
        return Inputs(vector=given, parameters=inputs.parameters, abort=Abort.of_sum(mark))

    def end_round(self) -> list[RoundResult]:
        """End a round whose slices have all run, in the thread. Returns the results of the slices, in order."""
        results = None
        if self.between is not None:
            aborted, self._aborted = [self._aborted[number] for number in range(len(self.sliced.slices))], {}
            if self.shards is not None:
                aborted = [self._verdict(self.shards, max(aborted))] * len(aborted)
            results = self.sliced.end(aborted, self.seconds.phase)
        if self.node is not None:
            try:
                results = self.node.share(results, [part.job for part in self.sliced.slices], self.rounds)
            except BaseException as error:
                self.give_up(error)
                raise
            self.seconds.phase("wait")
        assert results is not None, "a rank that does not exchange has a node"
        self._count_round(results[0].aborted)
        return results

    def _verdict(self, shards: Shards, aborted: Abort) -> Abort:
        try:
            return shards.verdict(aborted, self.rounds)
        except BaseException as error:
            abandon_round(self.sliced.workers, self.servers)
            self.give_up(error)
            raise

    def close(self) -> None:
        """Leave the group when the thread has carried out what was started. Not collective."""
        super().close()
        self.scheduler.close()


def _with_spans(requests: Requests[T]) -> Requests[T]:
    """Return the same requests, with a span in the trace of torch.profiler for the time that each takes."""
    answer = None
    while True:
        try:
            request = requests.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        with record_function("laconic::exchange"):
            answer = yield request
