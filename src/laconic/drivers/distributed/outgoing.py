"""What is sent of frames after their first messages: payloads, in one message or in chunks."""

from collections.abc import Iterator
from itertools import zip_longest

from torch import Tensor

from laconic.wire import (
    HEADER_BYTES,
    LEAD_BYTES,
    LONG_BYTES,
    BorrowedFrame,
    Encoded,
    OutgoingChunks,
    SplitFrame,
    goes_in_chunks,
    read_payload_info,
)

SMALLEST_SAMPLE_BYTES = 1 << 16
"""Smaller messages end in a socket's buffer and do not measure the link."""


class Rests:
    """What is left to send to each peer of one swap."""

    def __init__(self) -> None:
        self.n_bytes = 0
        """In all."""
        self._peers: dict[int, list[int]] = {}  # by frame, which several may get
        self._frames: dict[int, list[Tensor] | OutgoingChunks] = {}  # by their id
        self._sent: dict[int, tuple[int, float]] = {}  # by peer: bytes, and seconds until they were sent

    def add(self, peer: int, data: Encoded) -> Tensor:
        """Take a frame for a peer, and return its first message (n,) uint8."""
        key = id(data)
        self._peers.setdefault(key, []).append(peer)
        if isinstance(data, SplitFrame):
            self._frames[key] = []
            return data.header
        assert isinstance(data, Tensor | BorrowedFrame), "no frame that has landed is sent on"
        self.n_bytes += data.numel()
        known = self._frames.get(key)
        if isinstance(data, BorrowedFrame) or _is_in_chunks(data):
            chunks = known if isinstance(known, OutgoingChunks) else OutgoingChunks(data)
            self._frames[key] = chunks
            return chunks.prefix
        end = LEAD_BYTES if data.nbytes >= HEADER_BYTES + LONG_BYTES else HEADER_BYTES
        self._frames[key] = [data[end:]]
        return data[:end]

    def messages(self) -> Iterator[tuple[int, Tensor]]:
        """Return the messages that are left, each (n,) uint8, with their receivers: one of each frame in turn."""
        peers = self._peers.values()
        frames = (each.messages() if isinstance(each, OutgoingChunks) else iter(each) for each in self._frames.values())
        for messages in zip_longest(*frames):
            for message, receivers in zip(messages, peers, strict=True):
                for peer in receivers if message is not None else ():
                    yield peer, message

    def was_sent(self, peer: int, n_bytes: int, seconds: float) -> None:
        """Note that a message was sent so many seconds after the start."""
        if n_bytes >= SMALLEST_SAMPLE_BYTES:
            self._sent[peer] = self._sent.get(peer, (0, 0.0))[0] + n_bytes, seconds

    def bandwidths(self) -> list[float]:
        """Return the bytes per second to each peer that got a large message."""
        return [n_bytes / max(seconds, 1e-9) for n_bytes, seconds in self._sent.values()]


def _is_in_chunks(data: Tensor) -> bool:
    if data.nbytes < HEADER_BYTES + LONG_BYTES:
        return False
    return goes_in_chunks(read_payload_info(bytes(data[:HEADER_BYTES].numpy()), data.nbytes))
