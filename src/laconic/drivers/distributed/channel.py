"""Frames between real processes, over torch.distributed's point-to-point calls.

One scheduler (`swap`) posts every message of a phase in one order, and never from a callback. A frame is sent as two
messages, header and payload, so that a receiver knows the payload's size before it allocates memory. The payload of a
split frame goes through the group of `device_channel.py`.
"""

import contextlib
import datetime
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.drivers.distributed.device_channel import DeviceChannel
from laconic.drivers.distributed.failure_report import FailureReport
from laconic.drivers.gathered import Schema, check_sizes, read_gathered
from laconic.errors import PayloadsLostError, PeerLostError, WireError
from laconic.protocol.ring_allreduce import ring_parts
from laconic.torch_compat import source_rank, wait_until
from laconic.wire import HEADER_BYTES, Encoded, SplitFrame, max_encoded_bytes, read_payload_info

_SMALLEST_SAMPLE_BYTES = 1 << 16  # smaller messages end in a socket's buffer and do not measure the link
_PATIENCE = 0.75  # share of the timeout spent waiting; the rest is for finding out who is missing
_SOON_S = 0.001  # a deadline that has passed still lets finished work end
_PROBE_TAG = 1  # frames travel under tag 0
_CLOSING_S = 0.5  # between the ends of a dead rank's connections in two groups
_CLOSING_POLL_S = 0.02
_PROBE_EVERY_S = 1.0  # waiting for a frame from any rank does not detect a closed connection


class Channel:
    """This rank's connection to the others: a gloo group of its own, so that user's collectives never mix with ours."""

    def __init__(self, group: dist.ProcessGroup | None, timeout_s: float, max_count: int) -> None:
        """Make the channel. Collective: every rank of the group must call it.

        Args:
            group: the ranks that train together; None for all.
            timeout_s: how long to wait for other ranks, seconds.
            max_count: number of coordinates up to the last one, which bounds the sizes that a header may announce.

        Raises:
            PeerLostError: naming the ranks that did not call it in time.
        """
        ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
        self._global_ranks = ranks
        self.timeout_s = timeout_s
        self._max_encoded_bytes = max_encoded_bytes(max_count)
        self.rank = ranks.index(dist.get_rank())
        self.size = len(ranks)
        self.link_bytes_per_s: float | None = None  # of the slowest large message in the last phase that had one
        self.control_bytes = 0  # sent by this rank in gathers: settings, hashes, lists
        self.device_channel: DeviceChannel | None = None  # for payloads on a device, if opened
        self._failure_report = FailureReport(ranks, self.rank)
        self._probed_s = time.monotonic()
        try:
            self.group = dist.new_group(
                ranks,
                backend="gloo",
                timeout=datetime.timedelta(seconds=timeout_s * _PATIENCE),
                use_local_synchronization=self.size
                < dist.get_world_size(),  # else every rank of the world would have to call
            )
        except RuntimeError as error:
            raise PeerLostError(
                f"{self._named(self._failure_report.absent())} was waited for (to make its DistributedOptimizer), but "
                f"did not "
                f"come within timeout_s={timeout_s:g}; every rank of the group must make one"
            ) from error

    def open_device_channel(self, device: torch.device, engine: str) -> None:
        """Send payloads of split frames, and vectors on `device`, through a second group from now on. Collective.

        Args:
            device: where payloads and vectors are.
            engine: name of that group's backend in torch.distributed.

        Raises:
            PeerLostError: if a rank is lost, or the group cannot be made.
        """
        try:
            self.device_channel = DeviceChannel(self._global_ranks, device, engine, self.timeout_s * _PATIENCE)
            deadline = time.monotonic() + self.timeout_s * _PATIENCE
            self.device_channel.connect(deadline, lambda: self._look(self._others()))
        except RuntimeError as error:
            what = f"to make a group over {engine}, which reported: {error!s:.200}"
            raise self._lost(what, PayloadsLostError(str(error))) from error

    def swap(
        self, outgoing: Mapping[int, Encoded], expected: Sequence[int], purpose: str
    ) -> Iterator[tuple[int, Encoded]]:
        """Swap frames; see `Transport`. Payloads are sent when all headers have arrived."""
        deadline = time.monotonic() + self.timeout_s * _PATIENCE
        awaited = self.rank
        try:
            headers = {peer: torch.empty(HEADER_BYTES, dtype=torch.uint8) for peer in expected}
            arriving = {}
            for peer in expected:
                arriving[peer] = dist.irecv(headers[peer], self._global_ranks[peer], self.group)
            # Each rank begins with its successor, so that not all of them send to the same rank.
            on_host = {
                peer: data.header if isinstance(data, SplitFrame) else data
                for peer, data in sorted(outgoing.items(), key=lambda item: (item[0] - self.rank) % self.size)
            }
            sends: list[tuple[Tensor, dist.Work | None]] = []  # a tensor must be held until it is sent
            for peer, data in on_host.items():
                header = data[:HEADER_BYTES]
                sends.append((header, dist.isend(header, self._global_ranks[peer], self.group)))
            frames, payloads = {}, {}
            for peer in expected:
                awaited = peer
                # Four waits a swap: written out, since each is on the way of every step.
                if (work := arriving[peer]) is not None:
                    work.wait(datetime.timedelta(seconds=max(_SOON_S, deadline - time.monotonic())))
                frame = frames[peer] = self._empty_frame(headers[peer])
                if isinstance(frame, Tensor) and len(frame) > HEADER_BYTES:
                    payloads[peer] = dist.irecv(frame[HEADER_BYTES:], self._global_ranks[peer], self.group)
            bandwidths = (
                [] if self.device_channel is None else self._swap_split(self.device_channel, outgoing, frames, deadline)
            )
            # Not earlier: the engine's control message that a receive is posted queues behind data already being sent.
            start = time.perf_counter()
            for peer, data in on_host.items():
                if len(data) > HEADER_BYTES:
                    payload = data[HEADER_BYTES:]
                    sends.append((payload, dist.isend(payload, self._global_ranks[peer], self.group)))
            for part, work in sends:
                if work is not None:
                    work.wait(datetime.timedelta(seconds=max(_SOON_S, deadline - time.monotonic())))
                if part.numel() >= _SMALLEST_SAMPLE_BYTES:
                    bandwidths.append(part.numel() / max(time.perf_counter() - start, 1e-9))
            self.link_bytes_per_s = min(bandwidths, default=self.link_bytes_per_s)
            for peer in expected:
                if (work := payloads.get(peer)) is not None:
                    work.wait(datetime.timedelta(seconds=max(_SOON_S, deadline - time.monotonic())))
                yield peer, frames.pop(peer)
        except WireError as error:
            raise WireError(f"rank {awaited}, {purpose}: {error}") from None
        except RuntimeError as error:
            raise self._lost(purpose, error) from error

    def _empty_frame(self, header: Tensor) -> Encoded:
        """Return a buffer for the frame that a header announces, with the header in it. Raises WireError."""
        info = read_payload_info(
            bytes(header.numpy()), self._max_encoded_bytes, may_be_split=self.device_channel is not None
        )
        if self.device_channel is not None and info.is_split:
            return SplitFrame(
                header, torch.empty(info.encoded_bytes, dtype=torch.uint8, device=self.device_channel.device)
            )
        frame = torch.empty(HEADER_BYTES + info.encoded_bytes, dtype=torch.uint8)
        frame[:HEADER_BYTES] = header
        return frame

    def _swap_split(
        self,
        device_channel: DeviceChannel,
        outgoing: Mapping[int, Encoded],
        frames: Mapping[int, Encoded],
        deadline: float,
    ) -> list[float]:
        """Swap the payloads of split frames. Returns the bytes per second of the large ones that were sent."""
        sent = {peer: data.payload for peer, data in outgoing.items() if isinstance(data, SplitFrame)}
        expected = {peer: data.payload for peer, data in frames.items() if isinstance(data, SplitFrame)}
        start = time.perf_counter()
        device_channel.swap(sent, expected, deadline, lambda: self._look({*sent, *expected}))
        seconds = max(time.perf_counter() - start, 1e-9)
        return [payload.numel() / seconds for payload in sent.values() if payload.numel() >= _SMALLEST_SAMPLE_BYTES]

    def _look(self, peers: Iterable[int]) -> None:
        """Raise RuntimeError if the connection to one of the peers has closed."""
        for peer in peers:
            self._probe(peer)

    def receive(self, senders: Sequence[int], awaited: Sequence[int], purpose: str) -> tuple[int, Encoded]:
        """Return the earliest frame of `senders`; see `Transport`."""
        deadline = time.monotonic() + self.timeout_s * _PATIENCE
        header = torch.empty(HEADER_BYTES, dtype=torch.uint8)
        sender = self.rank
        try:
            if time.monotonic() - self._probed_s > _PROBE_EVERY_S:
                self._probed_s = time.monotonic()
                self._look(senders)
            only = self._global_ranks[senders[0]] if len(senders) == 1 else None
            arriving = dist.irecv(header, only, self.group)
            wait_until(arriving, deadline)
            assert arriving is not None
            sender = senders[0] if only is not None else source_rank(arriving)
            frame = self._empty_frame(header)
            if isinstance(frame, Tensor) and len(frame) > HEADER_BYTES:
                wait_until(dist.irecv(frame[HEADER_BYTES:], self._global_ranks[sender], self.group), deadline)
            elif self.device_channel is not None:
                self._swap_split(self.device_channel, {}, {sender: frame}, deadline)
        except WireError as error:
            raise WireError(f"rank {sender}, {purpose}: {error}") from None
        except RuntimeError as error:
            raise self._lost(purpose, error, awaited) from error
        return sender, frame

    def _probe(self, peer: int) -> dist.Work | None:
        """Post a receive that no message answers. Raises RuntimeError if the connection has closed."""
        return dist.irecv(torch.empty(1), self._global_ranks[peer], self.group, tag=_PROBE_TAG)

    def all_reduce(self, vector: Tensor, purpose: str, write: Callable[[int, int], object] | None = None) -> None:
        """Add up `vector` (d,) over all ranks by the engine; see `Transport`."""
        there = (
            self.device_channel
            if self.device_channel is not None and self.device_channel.device == vector.device
            else None
        )
        works = []
        try:
            for start, stop in ring_parts(vector.numel(), vector.element_size()):
                if write is not None:
                    write(start, stop)
                group = self.group if there is None else there.group
                works.append(dist.all_reduce(vector[start:stop], group=group, async_op=True))
            for work in works:
                if there is None:
                    work.wait()
                else:
                    deadline = time.monotonic() + self.timeout_s * _PATIENCE
                    there.end_sum(work, deadline, lambda: self._look(self._others()))
        except RuntimeError as error:
            raise self._lost(purpose, error) from error

    def broadcast(self, vector: Tensor, purpose: str = "for the initial parameters") -> None:
        """Overwrite `vector` (any shape, contiguous) on every rank by rank 0's. Raises PeerLostError."""
        try:
            dist.broadcast(vector, self._global_ranks[0], self.group)
        except RuntimeError as error:
            raise self._lost(purpose, error) from error

    def share(self, tensor: Tensor, purpose: str = "for the initial parameters") -> None:
        """Overwrite a tensor of any device, shape and type by rank 0's. Raises PeerLostError."""
        travelling = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        self.broadcast(travelling.reshape(-1).view(torch.uint8), purpose)
        self.control_bytes += travelling.numel() * travelling.element_size() if self.rank == 0 else 0
        into = tensor.detach()
        for dim, stride in enumerate(into.stride()):
            if not stride:  # an expanded dimension, whose elements share memory
                into, travelling = into.narrow(dim, 0, 1), travelling.narrow(dim, 0, 1)
        into.copy_(travelling)

    def gather(self, value: Any, purpose: str, schema: Schema, max_bytes: int) -> list[Any]:  # noqa: ANN401 - JSON
        """Return the `value` of all ranks, by rank; see `Transport`. It is sent as JSON, so nothing is executed."""
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        try:
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(sizes, torch.tensor([data.numel()]), self.group)
            check_sizes([int(size) for size in sizes], max_bytes, purpose)  # all ranks see the same sizes
            longest = max(int(size) for size in sizes)
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: data.numel()] = data
            texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(texts, padded, self.group)
            self.control_bytes += (self.size - 1) * (longest + 8)
        except RuntimeError as error:
            raise self._lost(purpose, error) from error
        shown = [bytes(text[: int(size)].numpy()) for text, size in zip(texts, sizes, strict=True)]
        return read_gathered(shown, schema, purpose)

    def close(self) -> None:
        """Leave the groups."""
        if self.device_channel is not None:
            dist.destroy_process_group(self.device_channel.group)
        dist.destroy_process_group(self.group)

    def _lost(self, what: str, error: RuntimeError, awaited: Sequence[int] = ()) -> PeerLostError:
        """Give up: find out which ranks are missing, and let no rank wait for this one.

        Args:
            what: the purpose, for the error.
            error: what the engine raised.
            awaited: of the ranks that report nothing, those to name in the error; by default all of them.

        Returns:
            The error to raise.
        """
        if isinstance(error, PayloadsLostError):
            self._hang_up(_CLOSING_S)
        elif "timed out" in str(error).lower():  # the engine has then closed all our connections itself
            self._failure_report.give_up([])
        else:
            self._hang_up()
        if self.device_channel is not None:
            self.device_channel.abandon()
        dead, silent = self._failure_report.missing(self.timeout_s * (1 - _PATIENCE))
        silent = [rank for rank in silent if rank in awaited] or silent
        if self.rank in dead + silent:
            return PeerLostError(
                f"{self._named([self.rank])}, this one, came too late ({what}): the others gave up waiting after "
                f"timeout_s={self.timeout_s:g}; a slow rank needs a larger one"
            )
        how = "its connection closed" if dead else f"nothing came within timeout_s={self.timeout_s:g}"
        return PeerLostError(
            f"{self._named(dead or silent)} was waited for ({what}), but {how}. Look at that rank's own output; "
            "a slow rank needs a larger timeout_s"
        )

    def _hang_up(self, patience_s: float = 0.0) -> None:
        """Report the closed connections, then close all others, so that ranks waiting for this one learn it at once.

        Args:
            patience_s: how long to wait, in seconds, for a connection that is expected to close.
        """
        closed, probes = self._probe_all()
        expected_until = time.monotonic() + patience_s
        while not closed and time.monotonic() < expected_until:
            time.sleep(_CLOSING_POLL_S)
            closed, probes = self._probe_all()
        self._failure_report.give_up(closed)
        if probes:
            with contextlib.suppress(RuntimeError):  # on a timeout, the engine closes every connection
                wait_until(probes[0], time.monotonic())

    def _probe_all(self) -> tuple[list[int], list[dist.Work | None]]:
        """Return the ranks whose connections have closed, and the posted receives of the others."""
        closed, probes = [], []
        for peer in self._others():
            try:
                probes.append(self._probe(peer))
            except RuntimeError:
                closed.append(peer)
        return closed, probes

    def _others(self) -> list[int]:
        return [peer for peer in range(self.size) if peer != self.rank]

    def _named(self, ranks: Sequence[int]) -> str:
        names = []
        for rank in ranks:
            place = self._global_ranks[rank]
            names.append(f"rank {rank}" if place == rank else f"rank {rank} of the group (global rank {place})")
        return " and ".join(names) or "a rank that was too late"
