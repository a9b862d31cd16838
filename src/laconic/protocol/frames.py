"""Decoding a frame, and checking that it is the expected one."""

from dataclasses import dataclass

from laconic.errors import ContractError
from laconic.protocol.frame_sizes import as_received
from laconic.protocol.job import Job
from laconic.protocol.layout import Shard
from laconic.wire import Encoded, Frame, decode


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A decoded frame from a server or a peer, and its size."""

    frame: Frame
    n_bytes: int

    @classmethod
    def read(cls, data: Encoded, job: "Job", index: int, round_: int, exchange: int) -> "Answer":
        """Decode the answer of server `index`. Workers may share it, because packets are never changed."""
        shard = job.exchanges_in(round_)[exchange].shards[index]
        frame = read_frame(data, job, "server", index, round_, exchange, shard)
        return cls(frame=frame, n_bytes=data.numel())

    @classmethod
    def own(cls, frame: Frame, job: Job) -> "Answer":
        """Return the answer of the server on the worker's own node, which crosses no link."""
        return cls(frame=as_received(frame, job.spec.stop), n_bytes=frame.n_bytes)

    @classmethod
    def read_from_peer(cls, data: Encoded, job: Job, rank: int, round_: int, exchange: int) -> "Answer":
        """Decode the frame that worker `rank` sent to its neighbors."""
        frame = read_frame(data, job, "worker", rank, round_, exchange, None)
        return cls(frame=frame, n_bytes=data.numel())


def read_frame(data: Encoded, job: Job, role: str, rank: int, round_: int, exchange: int, shard: Shard | None) -> Frame:
    """Decode a frame and check that it is the expected one. Without a `shard`, any slice is accepted.

    Raises:
        WireError: for a frame that cannot be decoded.
        ContractError: for a frame of another sender, round, exchange or slice.
    """
    frame = decode(data, job.spec.stop)
    check_frame(frame, role, rank, round_, exchange, shard)
    return frame


def check_frame(frame: Frame, role: str, rank: int, round_: int, exchange: int, shard: Shard | None) -> None:
    """Raise ContractError if the frame's sender, round, exchange or slice is not the expected one."""
    header = frame.header
    if (header.role, header.rank, header.round, header.exchange) != (role, rank, round_, exchange):
        raise ContractError(
            f"expected {role} {rank} with round {round_}, exchange {exchange}, but received {header.role} "
            f"{header.rank} with round {header.round}, exchange {header.exchange}. Did every rank call step() equally "
            f"often?"
        )
    packet = frame.packet
    if shard is not None and packet is not None and (packet.offset, packet.count) != (shard.offset, shard.count):
        raise ContractError(
            f"{role} {rank} sent coordinates {packet.offset} .. {packet.offset + packet.count - 1}; "
            f"expected were {shard.offset} .. {shard.stop - 1}. Do all ranks train the same model?"
        )
