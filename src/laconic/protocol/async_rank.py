"""One rank's part of an asynchronous job, without I/O: requests that a driver carries out over its transport.

A worker sends packets and two control frames. A gradient is answered with the newest model. If a bound on the staleness
can make workers wait, a worker requests admission before it computes, with ADMIT; the answer is ADMIT if the worker's
model is still the newest, else the newest model. So no worker blocks others between two steps, where all may meet in a
barrier. USED, which names the parameters behind this worker's gradients, precedes the first of them and has no answer;
nor has BYE, after which the server waits for no gradient of this worker.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from laconic.contract import UpdateOutcome
from laconic.protocol.abort import Abort
from laconic.protocol.async_server import ArrivalServer
from laconic.protocol.exchanges import RankSessions, Receive, Requests, Swap
from laconic.protocol.frames import read_frame
from laconic.protocol.job import Job
from laconic.protocol.round_inputs import Active
from laconic.protocol.round_result import RoundResult
from laconic.protocol.worker import WorkerSession
from laconic.wire import Control, Encoded, Frame, Header, encode, encode_in_place


def request_admission(worker: WorkerSession, round_: int) -> Requests[Tensor | None]:
    """Wait until this worker may compute. Returns the parameters (d,) if they have changed, else None."""
    job = worker.job
    (shard,) = job.layout.shards
    header = Header(role="worker", rank=worker.rank, round=round_)
    request = Frame(header=header, control=Control.ADMIT)
    data, replies = encode(request), list[Encoded]()
    yield Swap(outgoing={shard.node: data}, expected=(), purpose="admission", take=_never)
    yield Swap(outgoing={}, expected=(shard.node,), purpose="admission", take=lambda _, data: replies.append(data))
    (reply,) = replies
    admission = read_frame(reply, job, "server", 0, round_, 0, controls=(Control.ADMIT,))
    bits = 0.0 if admission.packet is None else job.algorithm.paper_bits_of("down", admission.packet)
    common: dict[str, Any] = {"exchange": "admission", "local": False, "flag_bit": False, "lead": False}
    worker.meter.frame("up", request, data.numel(), paper_bits=0.0, **common)
    worker.meter.frame("down", admission, reply.numel(), paper_bits=bits, **common)
    return None if admission.packet is None else admission.packet.dense()


def report_used(worker: WorkerSession, round_: int, used: Sequence[bool]) -> Requests[int]:
    """Report to the server which parameters are behind this worker's next gradient.

    Returns the number of bytes, which are control bytes.
    """
    header = Header(role="worker", rank=worker.rank, round=round_)
    data = encode(Frame(header=header, control=Control.USED, used=tuple(used)))
    server = worker.job.layout.shards[0].node
    yield Swap(outgoing={server: data}, expected=(), purpose="list of used parameters", take=_never)
    return data.numel()


def goodbye(worker: int, round_: int) -> Encoded:
    """Return the frame that tells the server that this worker takes no further step after `round_` rounds."""
    return encode(Frame(header=Header(role="worker", rank=worker, round=round_), control=Control.BYE))


def _never(peer: int, data: Encoded) -> None:
    raise AssertionError("nothing is expected")


class ServingRank:
    """The server's rank: it takes messages as they arrive."""

    def __init__(self, sessions: RankSessions, parameters: Tensor, active: Active | None = None) -> None:
        """Start from the initial `parameters` (d,).

        Args:
            sessions: the rank's.
            parameters: the initial parameters (d,).
            active: which parameters take part in an update: those behind the gradient that is applied.
        """
        self.job: Job = sessions.job
        self.arrivals = ArrivalServer(sessions.servers[0], parameters, active)
        self.bound = self.job.algorithm.staleness_bound()
        self._ranks = range(self.job.layout.n_workers)
        self.left: set[int] = set()
        """The workers that take no further step."""
        self._seen = [0 for _ in self._ranks]  # the version of each worker's model
        self._outgoing: list[tuple[int, Encoded]] = []
        if not self.bound.may_wait:
            for rank in self._ranks:
                self._let_go(rank)

    def serve(self, round_: int, lr: float, phase: Callable[[str], object]) -> Requests[RoundResult]:
        """Serve until every worker's gradient number `round_` is committed, except for those of workers that left."""
        while behind := self._behind(round_):
            waiting = {*self.bound.requesting, *self.bound.held, *self.left}
            yield Receive(
                senders=[rank for rank in self._ranks if rank not in waiting], awaited=behind,
                purpose=f"for its packet of round {round_}", take=lambda rank, data: self._take(rank, data, lr, phase),
                landing=self.arrivals.landing,
            )  # fmt: skip
            for rank, data in self._outgoing:
                yield Swap(outgoing={rank: data}, expected=(), purpose="answer", take=_never)
                phase("wait")
            self._outgoing = []
        return RoundResult(aborted=Abort.NO, results={})

    def _behind(self, round_: int) -> list[int]:
        counts = self.arrivals.update_counts
        return [rank for rank in self._ranks if rank not in self.left and counts[rank].n_finished <= round_]

    def _take(self, rank: int, data: Encoded, lr: float, phase: Callable[[str], object]) -> None:
        """Take one message, and answer the workers that may continue."""
        phase("wait")
        frame = self.arrivals.read(rank, data)
        if frame.control is Control.USED:
            self.arrivals.used[rank] = frame.used
            return
        if frame.control is Control.BYE:
            self.left.add(rank)
            self._commit(self.bound.forget(rank), lr)
        elif frame.control is Control.ADMIT:
            self.bound.request(rank)
        else:
            outcomes = self.bound.arrive(rank, aborted=frame.aborted)
            self.arrivals.receive(rank, frame)
            self._commit(outcomes, lr)
        phase("decode")
        if self.bound.may_wait:
            for admitted in self.bound.admit():
                self._admit(admitted)

    def _commit(self, outcomes: list[UpdateOutcome], lr: float) -> None:
        arrivals = self.arrivals
        for each in outcomes:
            arrivals.commit(each, lr)
        for each in outcomes:
            rank = each.worker
            answer = arrivals.answer(arrivals.update_counts[rank].n_finished - 1)
            self._outgoing.append((rank, encode_in_place(answer)))
            self._seen[rank] = self.bound.version
            if not self.bound.may_wait:
                self._let_go(rank)

    def _let_go(self, rank: int) -> None:
        """Record that the worker computes with the model that was just sent to it."""
        self.bound.request(rank)
        for admitted in self.bound.admit():
            self.bound.take(admitted)

    def _admit(self, rank: int) -> None:
        self.bound.take(rank)
        header = Header(role="server", rank=0, round=self.arrivals.update_counts[rank].n_finished)
        if self._seen[rank] == self.bound.version:
            frame = Frame(header=header, control=Control.ADMIT)
        else:
            frame = Frame(header=header, packet=self.arrivals.latest)
        self._outgoing.append((rank, encode_in_place(frame)))
        self._seen[rank] = self.bound.version

    def take(self, values: Tensor) -> None:
        """Answer with these parameters (d,) from now on."""
        self.arrivals.take(values)
        self._seen = [-1 for _ in self._ranks]

    def saved(self, round_: int) -> dict[str, Any]:
        """Return the state of its workers after `round_` rounds, as data that JSON can hold.

        Raises:
            RuntimeError: if a worker is ahead or waits; its message would be lost.
        """
        for rank, counts in enumerate(self.arrivals.update_counts):
            if rank in self.left:
                continue
            if counts.n_finished != round_ or rank in (*self.bound.requesting, *self.bound.held):
                raise RuntimeError(
                    f"state_dict: worker {rank} has begun step {counts.n_finished + 1}, and the server has ended step "
                    f"{round_}; let all ranks meet in a torch.distributed.barrier() after the step, then save"
                )
        return {"bound": self.bound.saved(), "arrivals": self.arrivals.saved(), "seen": list(self._seen)}

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError if a saved model is not one of this server's."""
        self.arrivals.check(saved["arrivals"])

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from what `saved` returned."""
        self.bound.restore(saved["bound"])
        self.arrivals.restore(saved["arrivals"])
        self._seen = list(saved["seen"])
