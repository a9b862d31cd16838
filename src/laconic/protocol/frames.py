"""Decoding a frame, and refusing every one that is not expected, before anything is computed from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from laconic.errors import ContractError, WireError
from laconic.protocol.expectation import Expectation
from laconic.protocol.frame_sizes import as_received
from laconic.protocol.job import Job, PlannedExchange
from laconic.protocol.layout import Shard
from laconic.wire import Control, Encoded, Frame, Packet, decode

Role = Literal["worker", "server"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A decoded frame from a server or a peer, and its size."""

    frame: Frame
    n_bytes: int

    @classmethod
    def read(cls, data: Encoded, job: "Job", index: int, round_: int, exchange: int) -> "Answer":
        """Decode the answer of server `index`. Workers may share it, because packets are never changed."""
        frame = read_frame(data, job, "server", index, round_, exchange)
        return cls(frame=frame, n_bytes=data.numel())

    @classmethod
    def own(cls, frame: Frame, job: Job) -> "Answer":
        """Return the answer of the server on the worker's own node, which crosses no link."""
        return cls(frame=as_received(frame, job.spec.stop), n_bytes=frame.n_bytes)

    @classmethod
    def read_from_peer(cls, data: Encoded, job: Job, rank: int, round_: int, exchange: int) -> "Answer":
        """Decode the frame that worker `rank` sent to its neighbors."""
        frame = read_frame(data, job, "worker", rank, round_, exchange)
        return cls(frame=frame, n_bytes=data.numel())


def read_frame(
    data: Encoded, job: Job, role: Role, rank: int, round_: int, exchange: int,
    shard: Shard | None = None, *, controls: Sequence[Control] = (), planned: PlannedExchange | None = None,
) -> Frame:  # fmt: skip
    """Decode a frame and check that it is the expected one.

    Args:
        data: the encoded frame.
        job: the training job.
        role: whether its sender acts as a worker or as a server.
        rank: number of that worker or server.
        round_: number of the round.
        exchange: number of the exchange in this round.
        shard: the slice that a worker's frame must be about, by default that of the exchange; a server's is its own.
        controls: the control frames that it may be, besides ABORT, and SKIP where the exchange accepts it.
        planned: the exchange, if the caller has looked it up.

    Raises:
        WireError: for a frame that cannot be decoded.
        ContractError: for a frame of another sender, round, exchange or slice, or with a packet that the exchange does
            not accept.
    """
    try:
        frame = decode(data, job.spec.stop)
    except WireError as error:
        raise WireError(f"{_named(job, role, rank)}, round {round_}, exchange {exchange}: {error}") from None
    check_frame(frame, job, role, rank, round_, exchange, shard, controls=controls, planned=planned)
    return frame


def check_frame(
    frame: Frame, job: Job, role: Role, rank: int, round_: int, exchange: int,
    shard: Shard | None = None, *, controls: Sequence[Control] = (), planned: PlannedExchange | None = None,
) -> None:  # fmt: skip
    """Raise ContractError if the frame is not the expected one; the arguments are those of `read_frame`."""
    header = frame.header
    if (header.role, header.rank, header.round, header.exchange) != (role, rank, round_, exchange):
        raise ContractError(
            f"{_named(job, role, rank)} sent a frame of {header.role} {header.rank} with round {header.round}, "
            f"exchange {header.exchange}; expected was {role} {rank} with round {round_}, exchange {exchange}. "
            "Did every rank call step() equally often?"
        )
    control = frame.control
    # The server of an asynchronous method always answers with the model.
    may_abort = control is Control.ABORT and (role == "worker" or not job.algorithm.is_asynchronous)
    if may_abort or control in controls:
        if control is Control.USED and len(frame.used) != len(job.spec.shapes):
            raise ContractError(
                f"{_named(job, role, rank)} says of {len(frame.used)} parameters whether it uses them; expected were "
                f"{len(job.spec.shapes)}. Do all ranks train the same model?"
            )
        return
    if planned is None:
        planned = job.exchanges_in(round_)[exchange]
    expected, shard = planned.exchange, planned.shards[rank] if role == "server" else shard
    span = (expected.offset, expected.count) if shard is None else (shard.offset, shard.count)
    known = role, span[1] < expected.count
    expectation = planned.expectations[known] if known in planned.expectations else _expected(job, planned, rank, known)
    origin = (job.seed, role, 0 if role == "server" else rank, round_)
    other_control = control is not None and control is not Control.SKIP
    if other_control or not expectation.holds(frame.packet, origin, span):
        found = f"the control frame {control.name}" if control else expectation.found(frame.packet, origin)
        raise ContractError(
            f"{_named(job, role, rank)} sent {found}, in round {round_}, exchange {exchange} of {job.algorithm.name}; "
            f"expected was {expectation.text(span)}. Do all ranks run the same method, with the same settings and "
            "model?"
        )


def check_own(
    packet: Packet | None, job: Job, planned: PlannedExchange, role: Role, rank: int, round_: int, span: tuple[int, int]
) -> None:
    """Raise ContractError if a packet that this rank's own method made is not what its exchange accepts.

    Args:
        packet: what `work` yielded or `serve` returned.
        job: the training job.
        planned: the exchange.
        role: whether this rank acts as a worker or as a server.
        rank: number of that worker or server.
        round_: number of the round.
        span: offset and count that the packet must have.
    """
    known = role, span[1] < planned.exchange.count
    expectation = planned.expectations[known] if known in planned.expectations else _expected(job, planned, rank, known)
    origin = (job.seed, role, 0 if role == "server" else rank, round_)
    if not expectation.holds(packet, origin, span):
        made, field = ("yielded", "up") if role == "worker" else ("answered", "down")
        raise ContractError(
            f"{job.algorithm.name}: {role} {rank} {made} {expectation.found(packet, origin)}; its exchange "
            f"{planned.exchange.name!r} accepts {expectation.text(span)}. `exchanges` says what it accepts: "
            f"Exchange({field}=Accept(...))"
        )


def _expected(job: Job, planned: PlannedExchange, rank: int, known: tuple[Role, bool]) -> Expectation:
    """Return what is expected of a sender, and keep it in the plan where it is the same for all ranks."""
    role, is_split = known
    accepted = planned.exchange.up if role == "worker" else planned.exchange.down
    expectation = job.expect(accepted, rank, is_split=is_split)
    if not callable(accepted):
        planned.expectations[known] = expectation
    return expectation


def _named(job: Job, role: Role, rank: int) -> str:
    """Return the name of a sender: its rank, and what it does there."""
    if role == "worker":
        return f"rank {job.layout.worker_nodes[rank]} (worker)"
    shards = job.layout.shards
    return f"rank {shards[rank].node if shards else rank} (server)"
