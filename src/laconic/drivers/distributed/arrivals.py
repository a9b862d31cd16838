"""Asynchronous workers and a dedicated server over torch.distributed: the last rank serves messages as they arrive.

A worker sends packets and two control frames. A gradient is answered with the newest model. If a bound on the staleness
can make workers wait, a worker requests admission before it computes, with ADMIT; the answer is ADMIT if the worker's
model is still the newest, else the newest model. So no worker blocks others between two steps, where all may meet in a
barrier. USED, which names the parameters that this worker used for the first time, precedes the gradient and has no
answer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from laconic.contract import Algorithm, UpdateOutcome
from laconic.drivers.distributed.rounds import Processes
from laconic.errors import ContractError
from laconic.protocol.abort import Abort
from laconic.protocol.async_server import ArrivalServer, UpdateCounts
from laconic.protocol.frames import Answer, check_frame, read_frame
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import RoundResult
from laconic.protocol.worker import WorkerSession
from laconic.wire import Control, Encoded, Frame, Header, decode, encode


class ProcessArrivals(Processes):
    """This rank's part of the job: a worker, or the server."""

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        parameters: Tensor,
        active: Active | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Set up this rank. Collective, like `Processes`, which documents the other arguments.

        Args:
            algorithm: an asynchronous method.
            parameters: the initial parameters (d,).
            active: which parameters take part in an update: those behind the gradient that is applied.
            options: arguments of `Processes`.
        """
        super().__init__(algorithm, parameters=parameters, active=active, **options)
        self.bound = algorithm.staleness_bound()
        self.server = self.layout.shards[0].node
        self.arrivals = ArrivalServer(self.servers[0], parameters, active) if self.servers else None
        self._active = active
        self._reported: Sequence[bool] = ()  # by this worker: the parameters behind its last gradient
        self._seen = [0] * self.layout.n_workers  # the version of each worker's model
        if not self.bound.may_wait:
            for rank in range(self.layout.n_workers):
                self._let_go(rank)

    @property
    def may_wait(self) -> bool:
        """Whether a worker has to request admission before it computes."""
        return self.bound.may_wait

    @property
    def updates(self) -> UpdateCounts | None:
        """See `Processes`."""
        return None if self.arrivals is None else self.arrivals.total

    # The worker.

    def request_admission(self) -> Tensor | None:
        """Wait until this worker may compute. Returns the parameters (d,) if they have changed, else None."""
        assert self.worker is not None
        self.seconds.phase("compute")
        header = Header(role="worker", rank=self.worker.rank, round=self.rounds)
        request = Frame(header=header, control=Control.ADMIT)
        data = encode(request)
        reply = self._request(data, "admission")
        admission = read_frame(reply, self.job, "server", 0, self.rounds, 0, self.layout.shards[0])
        self._count(self.worker, request, data.numel(), admission, reply.numel())
        return None if admission.packet is None else admission.packet.dense()

    def _request(self, data: Encoded, noun: str) -> Encoded:
        """Send the server a frame, and return its reply."""
        self._swap({self.server: data}, [], noun)
        return self._swap({}, [self.server], noun)[self.server]

    def _count(self, worker: WorkerSession, request: Frame, n_up: int, admission: Frame, n_down: int) -> None:
        bits = 0.0 if admission.packet is None else self.job.algorithm.paper_bits_of("down", admission.packet)
        common = {"exchange": "admission", "local": False, "flag_bit": False, "lead": False}
        worker.meter.frame("up", request, n_up, paper_bits=0.0, **common)  # type: ignore[arg-type]
        worker.meter.frame("down", admission, n_down, paper_bits=bits, **common)  # type: ignore[arg-type]

    def _report_used(self, worker: WorkerSession, used: Sequence[bool]) -> None:
        """Report to the server the parameters behind this worker's next gradient, if they are others than before."""
        if list(used) == list(self._reported):
            return
        self._reported = used
        header = Header(role="worker", rank=worker.rank, round=self.rounds)
        data = encode(Frame(header=header, control=Control.USED, used=tuple(used)))
        self.channel.control_bytes += data.numel()
        self._swap({self.server: data}, [], "list of used parameters")

    def round(self, inputs_of: Callable[[int], Inputs], lr: float) -> RoundResult:
        """Send a worker's gradient and receive the answer; at the server, serve until every worker's is committed.

        A worker whose gradient has inf or NaN is also answered with the newest parameters: its round is aborted, but
        has a result.
        """
        if self.worker is None:
            return self._serve(lr)
        worker, round_ = self.worker, self.rounds
        inputs = inputs_of(worker.rank)
        self._report_used(worker, inputs.used)
        if self._active is not None:
            self._active.select(inputs.used)
        self.seconds.phase("compute")
        worker.begin(round_, inputs, lr)
        (data,) = worker.outgoing()
        self.seconds.phase("encode")
        reply = self._request(data, "answer")
        answer = Answer.read(reply, self.job, 0, round_, 0)
        worker.me.link_bytes_per_s = self.channel.link_bytes_per_s
        worker.receive([answer])
        packet = answer.frame.packet
        assert packet is not None
        result = packet.dense() if worker.result is None else worker.result
        aborted = worker.aborted
        worker.close()
        self.rounds += 1
        self.aborted_rounds += bool(aborted)
        self.seconds.phase("decode")
        return RoundResult(aborted=aborted, results={worker.rank: result})

    # The server.

    def saved(self) -> dict[str, Any]:
        """Return this rank's state between two rounds.

        Raises:
            RuntimeError: at the server, if a worker is ahead or waits; its message would be lost.
        """
        if self.arrivals is None:
            return super().saved()
        for rank, counts in enumerate(self.arrivals.update_counts):
            if counts.n_finished != self.rounds or rank in (*self.bound.requesting, *self.bound.held):
                raise RuntimeError(
                    f"state_dict: worker {rank} has begun step {counts.n_finished + 1}, and the server has ended step "
                    f"{self.rounds}; let all ranks meet in a torch.distributed.barrier() after the step, then save"
                )
        own = {"bound": self.bound.saved(), "arrivals": self.arrivals.saved(), "seen": list(self._seen)}
        return super().saved() | own

    def restore(self, saved: Mapping[str, Any]) -> None:
        super().restore(saved)
        if self.arrivals is not None:
            self.bound.restore(saved["bound"])
            self.arrivals.restore(saved["arrivals"])
            self._seen = list(saved["seen"])

    def _serve(self, lr: float) -> RoundResult:
        assert self.arrivals is not None
        self.seconds.phase("compute")
        while behind := [
            rank for rank, counts in enumerate(self.arrivals.update_counts) if counts.n_finished <= self.rounds
        ]:
            self._take_one(self.arrivals, behind, lr)
        self.rounds += 1
        self.aborted_rounds = sum(counts.aborted for counts in self.arrivals.update_counts)
        return RoundResult(aborted=Abort.NO, results={})

    def _take_one(self, arrivals: ArrivalServer, behind: list[int], lr: float) -> None:
        """Wait for one message, and answer the workers that may continue. This step waits for those in `behind`."""
        waiting = {*self.bound.requesting, *self.bound.held}
        rank, data = self.channel.receive(
            [rank for rank in range(self.layout.n_workers) if rank not in waiting], behind, self.job.spec.stop,
            f"for its packet of round {self.rounds}",
        )  # fmt: skip
        self.seconds.phase("wait")
        frame, step = decode(data, self.job.spec.stop), arrivals.update_counts[rank].n_finished
        if frame.control is Control.USED:
            check_frame(frame, "worker", rank, step, 0, None)
            if len(frame.used) != len(self.job.spec.sizes):
                raise ContractError(
                    f"worker {rank} says of {len(frame.used)} parameters whether it uses them; there are "
                    f"{len(self.job.spec.sizes)}. Do all ranks train the same model?"
                )
            arrivals.used[rank] = frame.used
            return
        if frame.control is Control.ADMIT:
            check_frame(frame, "worker", rank, step, 0, None)
            self.bound.request(rank)
        else:
            fit = arrivals.receive(rank, step, frame)
            self._commit(arrivals, self.bound.arrive(rank, aborted=not fit), lr)
        self.seconds.phase("decode")
        if self.may_wait:
            for admitted in self.bound.admit():
                self._admit(arrivals, admitted)

    def _commit(self, arrivals: ArrivalServer, outcomes: list[UpdateOutcome], lr: float) -> None:
        for each in outcomes:
            arrivals.commit(each, lr)
        for each in outcomes:
            rank = each.worker
            self._send(rank, arrivals.answer(arrivals.update_counts[rank].n_finished - 1))
            self._seen[rank] = self.bound.version
            if not self.may_wait:
                self._let_go(rank)

    def _let_go(self, rank: int) -> None:
        """Record that the worker computes with the model that was just sent to it."""
        self.bound.request(rank)
        for admitted in self.bound.admit():
            self.bound.take(admitted)

    def _admit(self, arrivals: ArrivalServer, rank: int) -> None:
        self.bound.take(rank)
        header = Header(role="server", rank=0, round=arrivals.update_counts[rank].n_finished)
        if self._seen[rank] == self.bound.version:
            frame = Frame(header=header, control=Control.ADMIT)
        else:
            frame = Frame(header=header, packet=arrivals.latest)
        self._send(rank, encode(frame))
        self._seen[rank] = self.bound.version

    def _send(self, rank: int, data: Tensor) -> None:
        self._swap({rank: data}, [], "answer")
