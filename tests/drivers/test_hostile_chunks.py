"""Long dense frames between real processes whose chunks are damaged, too long, or in another order."""

import pytest
import torch
import torch.distributed as dist

from laconic.drivers.distributed.channel import Channel
from laconic.errors import WireError
from laconic.wire import (
    CHUNK_BYTES,
    LONG_BYTES,
    Dense,
    Frame,
    Header,
    OutgoingChunks,
    decode,
    encode,
    encode_in_place,
)
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

COUNT = (CHUNK_BYTES + LONG_BYTES) // 4
EXTRA = torch.ones(1000, dtype=torch.uint8)


def frame_of(rank):
    values = torch.full((COUNT,), 1.0 + rank)
    return Frame(header=Header(role="worker", rank=rank, round=0), packet=Dense(values=values))


def honest_messages():
    outgoing = OutgoingChunks(encode(frame_of(1)))
    return [outgoing.prefix, *(message.clone() for message in outgoing.messages())]


def damaged(number):
    messages = honest_messages()
    messages[number][-1] ^= 1
    return messages


def longer(number):
    messages = honest_messages()
    messages[number] = torch.cat([messages[number], EXTRA])
    return messages


HOSTILE = {
    "a chunk is damaged": (damaged(1), "checksum"),
    "the checksum is damaged": (damaged(3), "checksum"),
    "the last chunk is too long": (longer(2), "more than the"),
    "the checksum is of another frame": ([*honest_messages()[:3], torch.zeros(4, dtype=torch.uint8)], "checksum"),
}


def read(channel):
    ((_, data),) = channel.swap({}, [1], "its packet")
    decode(data, COUNT)


def act(rank):
    """Rank 1 sends hostile frames, then both swap valid ones. Returns what rank 0 says, and what each gets."""
    channel = Channel(None, PATIENCE_S, COUNT)
    found = {}
    for name, (messages, _) in HOSTILE.items():
        if rank == 1:
            for work in [dist.isend(message, 0, channel.group) for message in messages]:
                work.wait()
        else:
            with pytest.raises(WireError) as refused:
                read(channel)
            found[name] = str(refused.value)
    landed = []

    class Landing:
        def chunk(self, node, values, start):
            landed.append((node, start, values.numel()))

    ((_, data),) = channel.swap({1 - rank: encode_in_place(frame_of(rank))}, [1 - rank], "its packet", Landing())
    return found, landed, decode(data, COUNT).packet.dense().unique().tolist()


@pytest.mark.slow
def test_hostile_chunks_are_refused_and_the_next_frames_are_read():
    (found, landed, zeros), (_, _, ones) = run_ranks(act, 2)
    for name, (_, reason) in HOSTILE.items():
        assert reason in found[name], name
    assert (zeros, ones) == ([2.0], [1.0])
    assert landed == [(1, 0, CHUNK_BYTES // 4), (1, CHUNK_BYTES // 4, LONG_BYTES // 4)]
