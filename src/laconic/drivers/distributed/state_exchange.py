"""Saved state between ranks: bytes of any length, one rank after another, so that no rank needs room for two."""

import torch

from laconic.drivers.distributed.channel import Channel

_CHUNK = 1 << 26


def show(channel: Channel, data: bytes | None, root: int, n_bytes: int, purpose: str) -> bytes:
    """Return the bytes of rank `root` on every rank. Collective.

    Args:
        channel: the connection to the other ranks.
        data: the bytes, on that rank.
        root: the rank.
        n_bytes: how many there are.
        purpose: for errors, such as "for its state".

    Raises:
        PeerLostError: if a rank is missing.
    """
    buffer = bytearray(n_bytes) if data is None else bytearray(data)
    assert len(buffer) == n_bytes, f"{len(buffer)} bytes were promised as {n_bytes}"
    for start in range(0, n_bytes, _CHUNK):
        chunk = torch.frombuffer(buffer, dtype=torch.uint8, offset=start, count=min(_CHUNK, n_bytes - start))
        channel.broadcast(chunk, root=root, purpose=purpose)
    channel.control_bytes += (channel.size - 1) * n_bytes if channel.rank == root else 0
    return bytes(buffer) if data is None else data
