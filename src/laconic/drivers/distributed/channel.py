"""Frames between real processes, over torch.distributed's point-to-point calls.

One scheduler (`swap`) posts every message of a phase in one order, and never from a callback. A short frame is one
message. Any other is sent as header and payload, so that a receiver knows the payload's size before it allocates
memory. A long payload's fields travel with the header: then its values are sent from where they are (`BorrowedFrame`),
in chunks, which both ends read for the checksum while others are under way. The payload of a split frame goes through
the group of `device_channel.py`. How a rank gives up is in `giving_up.py`.
"""

import datetime
import json
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from types import NoneType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.drivers.distributed.device_channel import DeviceChannel
from laconic.drivers.distributed.giving_up import GivingUp, is_call
from laconic.drivers.distributed.incoming import SHORT_BYTES, HeaderMessage, IncomingFrame, left_until
from laconic.drivers.distributed.outgoing import SMALLEST_SAMPLE_BYTES, Rests
from laconic.drivers.gathered import Schema, check_sizes, read_gathered
from laconic.errors import PayloadsLostError, PeerLostError, WireError
from laconic.protocol.landing import Landing
from laconic.protocol.ring_allreduce import ring_parts
from laconic.telemetry.moved import Moved
from laconic.torch_compat import post_receive, post_receive_from_any, post_send, post_sum, source_rank, wait_until
from laconic.wire import (
    HEADER_BYTES,
    LEAD_BYTES,
    BorrowedFrame,
    Encoded,
    SplitFrame,
    max_encoded_bytes,
    promised_bytes,
    read_payload_info,
)

_PROBE_EVERY_S = 1.0  # waiting for a frame from any rank does not detect a closed connection
_WORD_BITS = 31  # of a gather's purpose, beside its size

Sent = tuple[int, Tensor, dist.Work | None]
"""A message: its receiver, its bytes, which must be held until it is sent, and the engine's work."""


class Channel(GivingUp):
    """This rank's connection to the others: a gloo group of its own, so that user's collectives never mix with ours."""

    def __init__(self, group: dist.ProcessGroup | Sequence[int] | None, timeout_s: float, max_count: int) -> None:
        """Make the channel. Collective: every rank of the group must call it.

        Args:
            group: the ranks that train together, or a list of global ranks, this one among them; None for all.
            timeout_s: how long to wait for other ranks, seconds.
            max_count: number of coordinates up to the last one, which bounds the sizes that a header may announce.

        Raises:
            PeerLostError: naming the ranks that did not call it in time.
        """
        self._max_encoded_bytes = max_encoded_bytes(max_count)
        self.link_bytes_per_s: float | None = None  # of the slowest large message in the last phase that had one
        self.control_bytes = 0  # sent by this rank in gathers: settings, hashes, lists
        self.device_channel: DeviceChannel | None = None  # for payloads on a device, if opened
        self.moved: list[Moved] | None = None  # what it moves from now on, if that is to be recorded
        self._earliest = HeaderMessage()  # of whichever peer sends
        self._at: dict[int, HeaderMessage] = {}  # by peer
        self._probed_s = time.monotonic()
        super().__init__(group, timeout_s)

    def open_device_channel(self, device: torch.device, engine: str) -> None:
        """Send payloads of split frames, and vectors on `device`, through a second group from now on. Collective.

        Args:
            device: where payloads and vectors are.
            engine: name of that group's backend in torch.distributed.

        Raises:
            PeerLostError: if a rank is lost, or the group cannot be made.
        """
        purpose = f"to make a group over {engine}"
        self._began_s = time.monotonic()
        try:
            name = f"{self._failure_report.channel_name}/device"
            self.device_channel = DeviceChannel(self._global_ranks, device, engine, name, self.patience_s)
            self.device_channel.connect(self._began_s + self.patience_s, lambda: self._look(self._others()))
        except RuntimeError as error:
            purpose += f", which reported: {error!s:.200}"
            self._give_up(purpose, PayloadsLostError(str(error)), self._others())

    def swap(
        self, outgoing: Mapping[int, Encoded], expected: Sequence[int], purpose: str, landing: Landing | None = None
    ) -> Iterator[tuple[int, Encoded]]:
        """Swap frames; see `Transport`. Payloads are sent when all headers have arrived.

        Where only sending fails, the swap goes on: this rank has what it needs, and can end its round. The next call
        then reports the rank that is lost.
        """
        self._began_s = time.monotonic()
        deadline = self._began_s + self.patience_s
        awaited, sender = expected, self.rank
        try:
            if self._unsent is not None:
                raise self._unsent
            group, at = self.group, self._at
            arriving = {}
            for peer in expected:
                if peer not in at:
                    at[peer] = HeaderMessage()
                arriving[peer] = post_receive(group, [at[peer].data], peer, 0)
            sends: list[Sent] = []
            rests: Rests | None = None
            for peer in outgoing if self.size == 2 else self._in_turn(outgoing):
                data = part = outgoing[peer]
                if (
                    type(data) is not Tensor
                    or not HEADER_BYTES <= (n_bytes := data.nbytes) <= SHORT_BYTES
                    or (
                        promised_bytes(data.numpy())[0] != n_bytes - HEADER_BYTES  # type: ignore[arg-type]
                    )
                ):
                    _check_promise(data)
                    rests = rests or Rests()
                    part = rests.add(peer, data)
                try:
                    sends += ((peer, part, post_send(group, [part], peer, 0)),)  # type: ignore[arg-type,list-item]
                except RuntimeError as error:
                    self._note_unsent(peer, error)
            incoming: dict[int, IncomingFrame | SplitFrame | Tensor] = {}
            landing_from: list[int] = []
            left = datetime.timedelta(seconds=self.patience_s)
            for peer in expected:
                awaited, sender = (peer,), peer
                arriving[peer].wait(left if peer == expected[0] else left_until(deadline))
                frame = incoming[peer] = self._read_message(at[peer])
                if type(frame) is IncomingFrame:
                    frame.post(partial(_receive, group, peer))
                    landing_from += [peer] if frame.in_chunks else []
            awaited, sender = expected, self.rank
            if self.moved is not None:
                received = {peer: _n_bytes_of(frame) for peer, frame in incoming.items()}
                sent = {peer: data.numel() for peer, data in outgoing.items()}
                self.moved.append(Moved(sent=sent, received=received))
            there = self.device_channel
            bandwidths = [] if there is None else self._swap_split(there, outgoing, incoming, deadline)
            # Not earlier: the engine's control message that a receive is posted queues behind data already being sent.
            start = time.perf_counter() if rests is not None else 0.0
            for peer, part in rests.messages() if rests is not None else ():
                sends.append((peer, part, self._send(part, peer)))
            unsent: Iterable[Sent] = iter(sends) if landing_from else sends
            while landing_from:  # a message of each in turn: all are under way at once
                for peer in list(landing_from):
                    self._end_sends(islice(unsent, max(1, len(outgoing))), rests, start, deadline)  # meanwhile as many
                    awaited, sender = (peer,), peer
                    chunk = None if landing is None else partial(landing.chunk, peer)
                    if incoming[peer].land(deadline, chunk):  # type: ignore[union-attr]
                        landing_from.remove(peer)
            awaited, sender = expected, self.rank
            if sends:
                self._end_sends(unsent, rests, start, deadline)
            if rests is not None:
                bandwidths += rests.bandwidths()
            if bandwidths:
                self.link_bytes_per_s = min(bandwidths)
            for peer in expected:
                arrived = incoming[peer]
                del incoming[peer]
                if type(arrived) is IncomingFrame:
                    awaited, sender = (peer,), peer
                    while not arrived.has_landed:
                        arrived.land(deadline)
                    yield peer, arrived.read()
                else:
                    yield peer, arrived
        except WireError as error:
            self._at.clear()
            this = ", this one" if sender == self.rank else ""
            raise WireError(f"rank {sender}{this}, {purpose}: {error}") from None
        except RuntimeError as error:
            self._give_up(purpose, error, awaited)

    def _end_sends(self, sends: Iterable[Sent], rests: Rests | None, start: float, deadline: float) -> None:
        """Wait until messages are sent; of what was left after the headers, note since `start` how long it took."""
        for peer, part, work in sends:
            if work is not None:
                try:
                    work.wait(left_until(deadline))
                except RuntimeError as error:
                    self._note_unsent(peer, error)
            if rests is not None:
                rests.was_sent(peer, part.nbytes, time.perf_counter() - start)

    def _in_turn(self, peers: Iterable[int]) -> list[int]:
        """Return peers from this rank's successor on, so that not all ranks send to the same one at the beginning."""
        return sorted(peers, key=lambda peer: (peer - self.rank) % self.size)

    def _send(self, data: Tensor, peer: int) -> dist.Work | None:
        try:
            return post_send(self.group, [data], peer, 0)
        except RuntimeError as error:
            self._note_unsent(peer, error)
            return None

    def _read_message(self, message: HeaderMessage) -> IncomingFrame | SplitFrame | Tensor:
        """Return the short frame that has come, or a buffer for the one whose header has. Raises WireError."""
        n_bytes, is_split = promised_bytes(message.view)
        if n_bytes <= SHORT_BYTES - HEADER_BYTES and not is_split:
            return message.short_frame(HEADER_BYTES + n_bytes)  # who decodes it reads the rest of its header
        raw = bytes(message.view[:HEADER_BYTES])
        info = read_payload_info(raw, self._max_encoded_bytes, may_be_split=self.device_channel is not None)
        if info.is_split:
            assert self.device_channel is not None, "else it was refused"
            payload = torch.empty(info.encoded_bytes, dtype=torch.uint8, device=self.device_channel.device)
            return SplitFrame(message.short_frame(HEADER_BYTES), payload)
        frame = IncomingFrame(message.view, info)
        message.clear(LEAD_BYTES)
        return frame

    def _swap_split(
        self,
        device_channel: DeviceChannel,
        outgoing: Mapping[int, Encoded],
        incoming: Mapping[int, IncomingFrame | SplitFrame | Tensor],
        deadline: float,
    ) -> list[float]:
        """Swap the payloads of split frames. Returns the bytes per second of the large ones that were sent."""
        sent = {peer: data.payload for peer, data in outgoing.items() if isinstance(data, SplitFrame)}
        expected = {peer: data.payload for peer, data in incoming.items() if isinstance(data, SplitFrame)}
        start = time.perf_counter()
        device_channel.swap(sent, expected, deadline, lambda: self._look({*sent, *expected}))
        seconds = max(time.perf_counter() - start, 1e-9)
        return [payload.numel() / seconds for payload in sent.values() if payload.numel() >= SMALLEST_SAMPLE_BYTES]

    def receive(
        self, senders: Sequence[int], awaited: Sequence[int], purpose: str, landing: Landing | None = None
    ) -> tuple[int, Encoded]:
        """Return the earliest frame of `senders`; see `Transport`. A sender that is not awaited may have left."""
        self._began_s = time.monotonic()
        deadline = self._began_s + self.patience_s
        message = self._earliest
        sender = self.rank
        try:
            if self._unsent is not None:
                raise self._unsent
            if self._began_s - self._probed_s > _PROBE_EVERY_S:
                self._probed_s = self._began_s
                self._look(awaited)
            only = senders[0] if len(senders) == 1 else None
            if only is None:
                arriving = post_receive_from_any(self.group, [message.data], 0)
            else:
                arriving = post_receive(self.group, [message.data], only, 0)
            wait_until(arriving, deadline)
            sender = source_rank(arriving) if only is None else only
            frame = self._read_message(message)
            if self.moved is not None:
                self.moved.append(Moved(received={sender: _n_bytes_of(frame)}))
            if isinstance(frame, Tensor):
                return sender, frame
            if not isinstance(frame, IncomingFrame):
                assert self.device_channel is not None
                self._swap_split(self.device_channel, {}, {sender: frame}, deadline)
                return sender, frame
            frame.post(partial(_receive, self.group, sender))
            chunk = None if landing is None else partial(landing.chunk, sender)
            while not frame.has_landed:
                frame.land(deadline, chunk)
            return sender, frame.read()
        except WireError as error:
            message.clear()
            raise WireError(f"rank {sender}, {purpose}: {error}") from None
        except RuntimeError as error:
            self._give_up(purpose, error, awaited)

    def all_reduce(self, vector: Tensor, purpose: str, write: Callable[[int, int], object] | None = None) -> None:
        """Add up `vector` (d,) over all ranks by the engine; see `Transport`.

        Outside of `step()` the ranks agree on the purpose first: the engine would add vectors of different calls, or
        end the process where their lengths differ.
        """
        if write is None and is_call(purpose):
            self.gather(None, purpose, NoneType, max_bytes=len("null"))
        self._began_s = time.monotonic()
        there = self.device_channel
        if there is not None and there.device != vector.device:
            there = None
        works = []
        if self.moved is not None:
            self.moved.append(Moved(summed=vector.nbytes))
        try:
            if self._unsent is not None:
                raise self._unsent
            for start, stop in ring_parts(vector.shape[0], vector.itemsize):
                if write is not None:
                    write(start, stop)
                part = vector[start:stop]
                works += [
                    post_sum(self.group, [part])
                    if there is None
                    else dist.all_reduce(part, group=there.group, async_op=True)
                ]
            for work in works:
                if there is None:
                    work.wait()
                else:
                    there.end_sum(work, time.monotonic() + self.patience_s, lambda: self._look(self._others()))
        except RuntimeError as error:
            self._give_up(purpose, error, self._others())

    def broadcast(self, vector: Tensor, root: int = 0, purpose: str = "for the initial parameters") -> None:
        """Overwrite `vector` (any shape, contiguous) on every rank by rank `root`'s. Raises PeerLostError."""
        self._began_s = time.monotonic()
        try:
            dist.broadcast(vector, self._global_ranks[root], self.group)
        except RuntimeError as error:
            self._give_up(purpose, error, self._others())

    def share(self, tensor: Tensor, purpose: str = "for the initial parameters") -> None:
        """Overwrite a tensor of any device, shape and type by rank 0's. Raises PeerLostError."""
        travelling = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        self.broadcast(travelling.reshape(-1).view(torch.uint8), purpose=purpose)
        self.control_bytes += travelling.numel() * travelling.element_size() if self.rank == 0 else 0
        into = tensor.detach()
        for dim, stride in enumerate(into.stride()):
            if not stride:  # an expanded dimension, whose elements share memory
                into, travelling = into.narrow(dim, 0, 1), travelling.narrow(dim, 0, 1)
        into.copy_(travelling)

    def gather(self, value: Any, purpose: str, schema: Schema, max_bytes: int) -> list[Any]:  # noqa: ANN401 - JSON
        """Return the `value` of all ranks, by rank; see `Transport`. It is sent as JSON, so nothing is executed."""
        self._began_s = time.monotonic()
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        word = _word_of(purpose)
        try:
            if self._unsent is not None:
                raise self._unsent
            announced = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(announced, torch.tensor([data.numel() << _WORD_BITS | word]), self.group)
            if any(int(each) & (1 << _WORD_BITS) - 1 != word for each in announced):
                self._give_up_elsewhere(purpose)
            sizes = [int(each) >> _WORD_BITS for each in announced]
            check_sizes(sizes, max_bytes, purpose)  # all ranks see the same sizes
            padded = torch.zeros(max(sizes), dtype=torch.uint8)
            padded[: data.numel()] = data
            texts = [torch.zeros(max(sizes), dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(texts, padded, self.group)
            self.control_bytes += (self.size - 1) * (max(sizes) + 8)
        except PeerLostError:
            raise
        except RuntimeError as error:
            self._give_up(purpose, error, self._others())
        return read_gathered(
            [bytes(text[:size].numpy()) for text, size in zip(texts, sizes, strict=True)], schema, purpose
        )

    def show(self, topic: str, text: str) -> None:
        """Keep a text in the store for other ranks to read. Not collective; nothing waits for it."""
        self._failure_report.show(topic, text)

    def shown(self, topic: str, ranks: Sequence[int]) -> dict[int, str] | None:
        """Return what these ranks have shown, by rank; None while one of them has not."""
        return self._failure_report.shown(topic, ranks)

    def close(self) -> None:
        """Tell the others that this rank takes no further part, and leave the groups. Closed again, do nothing."""
        self.sign_off(sys.exc_info()[1])
        self.destroy_groups()


def _receive(group: dist.ProcessGroup, peer: int, into: Tensor) -> dist.Work:
    return post_receive(group, [into], peer, 0)


def _check_promise(data: Encoded) -> None:
    """Raise WireError for a frame of another length than its header promises: it would end the process that gets it."""
    if type(data) is SplitFrame:
        header, n_bytes = data.header, data.payload.numel()
    elif type(data) is BorrowedFrame:
        header, n_bytes = torch.frombuffer(bytearray(data.start), dtype=torch.uint8), data.numel() - HEADER_BYTES
    else:
        header, n_bytes = data, data.nbytes - HEADER_BYTES  # type: ignore[assignment,union-attr]
    promised = promised_bytes(header.numpy())[0] if header.nbytes >= HEADER_BYTES else -1  # type: ignore[arg-type]
    if n_bytes != promised:
        raise WireError(f"its frame has {n_bytes} payload bytes, and its header promises {promised}")


def _n_bytes_of(frame: IncomingFrame | SplitFrame | Tensor) -> int:
    return frame.nbytes if isinstance(frame, Tensor) else frame.n_bytes


def _word_of(purpose: str) -> int:
    """Return a number for what a gather is for, the same in every round."""
    return zlib.crc32(re.sub(r"\d+", "", purpose).encode()) & (1 << _WORD_BITS) - 1
