"""Decoding a frame, and checking that it is the expected one."""

from dataclasses import dataclass

from laconic.errors import ContractError
from laconic.protocol.frame_sizes import as_received
from laconic.protocol.job import Job
from laconic.protocol.layout import Shard
from laconic.wire import Encoded, Frame, decode


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A server's decoded frame and how long it was."""

    frame: Frame
    n_bytes: int

    @classmethod
    def read(cls, data: Encoded, job: "Job", index: int, round_: int, exchange: int) -> "Answer":
        """Decode what server `index` sent. One decoding serves any number of workers: packets are never changed."""
        expected = job.exchanges_in(round_)[exchange]
        shards = job.shards(expected) or (Shard(0, 0, expected.count),)
        frame = read_frame(data, job, "server", index, round_, exchange, shards[index])
        return cls(frame=frame, n_bytes=data.numel())

    @classmethod
    def own(cls, frame: Frame, job: Job) -> "Answer":
        """What the server on the worker's own node said: no bytes of it cross a link."""
        return cls(frame=as_received(frame, job.d), n_bytes=frame.n_bytes)

    @classmethod
    def read_from_peer(cls, data: Encoded, job: Job, rank: int, round_: int, exchange: int) -> "Answer":
        """Decode what worker `rank` sent to its neighbours."""
        frame = read_frame(data, job, "worker", rank, round_, exchange, None)
        return cls(frame=frame, n_bytes=data.numel())


def read_frame(data: Encoded, job: Job, role: str, rank: int, round_: int, exchange: int, shard: Shard | None) -> Frame:
    """Decode a frame and check that it is the one that is due here and now; of any slice without a `shard`.

    Raises WireError for a broken frame, ContractError for one of another sender, round or slice.
    """
    frame = decode(data, job.d)
    check_frame(frame, role, rank, round_, exchange, shard)
    return frame


def check_frame(frame: Frame, role: str, rank: int, round_: int, exchange: int, shard: Shard | None) -> None:
    """Raises ContractError for a frame of another sender, round, exchange or slice than the due one."""
    header = frame.header
    if (header.role, header.rank, header.round, header.exchange) != (role, rank, round_, exchange):
        raise ContractError(
            f"{role} {rank} was due with round {round_}, exchange {exchange}; there came {header.role} {header.rank} "
            f"with "
            f"round {header.round}, exchange {header.exchange}. Did every rank call step() equally often?"
        )
    packet = frame.packet
    if shard is not None and packet is not None and (packet.offset, packet.count) != (shard.offset, shard.count):
        raise ContractError(
            f"{role} {rank} sent coordinates {packet.offset} .. {packet.offset + packet.count - 1}; "
            f"due were {shard.offset} .. {shard.stop - 1}. Do all ranks train the same model?"
        )
