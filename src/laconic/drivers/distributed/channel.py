"""Frames between real processes, over torch.distributed's point-to-point calls.

One scheduler (`swap`) posts every message of a phase in one order, and never from a callback. A frame goes as two
messages, its head and its body, so that a receiver knows how much to expect before it allocates anything. A split
frame's body goes by the group of `device_channel.py`.
"""

import contextlib
import datetime
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.drivers.distributed.device_channel import DeviceChannel, wait_until
from laconic.drivers.distributed.failure_report import FailureReport
from laconic.errors import PayloadsLostError, PeerLostError, WireError
from laconic.protocol.ring_allreduce import ring_parts
from laconic.torch_compat import source_rank
from laconic.wire import HEADER_BYTES, Encoded, SplitFrame, max_encoded_bytes, read_payload_info

_SMALLEST_SAMPLE_BYTES = 1 << 16  # smaller sends end in a socket's buffer and say nothing about the link
_PATIENCE = 0.75  # share of the timeout spent waiting; the rest is for finding out who is missing
_PROBE_TAG = 1  # frames travel under tag 0
_CLOSING_S = 0.5  # between the ends of a dead rank's connections in two groups
_CLOSING_POLL_S = 0.02
_PROBE_EVERY_S = 1.0  # who waits for anybody's frame does not hear that a connection has closed


class Channel:
    """This rank's way to the others: a gloo group of its own, so that a user's collectives never mix with ours."""

    def __init__(self, group: dist.ProcessGroup | None, timeout_s: float) -> None:
        """group: the ranks that train together; None for all. Collective: every rank of the group must call it.

        Raises PeerLostError, naming the ranks that did not call it in time.
        """
        ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
        self._global_ranks = ranks
        self.timeout_s = timeout_s
        self.rank = ranks.index(dist.get_rank())
        self.size = len(ranks)
        self.link_bytes_per_s: float | None = None  # of the slowest large message in the last phase that had one
        self.control_bytes = 0  # sent for agreements: settings, hashes, lists; every rank's share of the gathers
        self.device_channel: DeviceChannel | None = None  # the way for what lies on a device, where there is one
        self._failure_report = FailureReport(ranks, self.rank)
        self._probed_s = time.monotonic()
        try:
            self.group = dist.new_group(
                ranks,
                backend="gloo",
                timeout=datetime.timedelta(seconds=timeout_s * _PATIENCE),
                use_local_synchronization=self.size < dist.get_world_size(),  # else all of the world would have to call
            )
        except RuntimeError as error:
            raise PeerLostError(
                f"{self._named(self._failure_report.absent())} was waited for (to make its DistributedOptimizer), but "
                f"did not "
                f"come within timeout_s={timeout_s:g}; every rank of the group must make one"
            ) from error

    def open_device_channel(self, device: torch.device, engine: str) -> None:
        """From now on split frames' bodies and vectors on `device` go by a second group, of that engine. Collective.

        Raises PeerLostError.
        """
        try:
            self.device_channel = DeviceChannel(self._global_ranks, device, engine, self.timeout_s * _PATIENCE)
            deadline = time.monotonic() + self.timeout_s * _PATIENCE
            self.device_channel.connect(deadline, lambda: self._look(self._others()))
        except RuntimeError as error:
            what = f"to make a group over {engine}, which said: {error!s:.200}"
            raise self._lost(what, PayloadsLostError(str(error))) from error

    def swap(self, outgoing: Mapping[int, Encoded], expected: Sequence[int], d: int, what: str) -> dict[int, Encoded]:
        """Send each peer its frame, and receive one frame from each of `expected`. Peers are ranks of the group.

        Nobody's frame may depend on one of the same swap: bodies go out when the heads are there. An answer is a swap
        of its own.

        what: named in errors, such as "its packet of round 7". d: the vector's length, which bounds what is believed.
        Raises PeerLostError, naming the rank that is missing, and WireError.
        """
        deadline = time.monotonic() + self.timeout_s * _PATIENCE
        awaited = self.rank
        try:
            headers = {peer: torch.empty(HEADER_BYTES, dtype=torch.uint8) for peer in expected}
            arriving = {}
            for peer in expected:
                arriving[peer] = dist.irecv(headers[peer], self._global_ranks[peer], self.group)
            sends = [self._send(peer, _on_host(data)[:HEADER_BYTES]) for peer, data in outgoing.items()]
            frames, payloads = {}, {}
            for peer in expected:
                awaited = peer
                wait_until(arriving[peer], deadline)
                frames[peer] = self._empty_frame(headers[peer], d)
                if len(_on_host(frames[peer])) > HEADER_BYTES:
                    payload = _on_host(frames[peer])[HEADER_BYTES:]
                    payloads[peer] = dist.irecv(payload, self._global_ranks[peer], self.group)
            bandwidths = (
                [] if self.device_channel is None else self._swap_split(self.device_channel, outgoing, frames, deadline)
            )
            # Not before: the engine's word that a receive is posted queues behind what the connection already sends.
            # Each rank begins with the next one, so that not all of them send to the same.
            start = time.perf_counter()
            for peer in sorted(outgoing, key=lambda peer: (peer - self.rank) % self.size):
                if len(_on_host(outgoing[peer])) > HEADER_BYTES:
                    sends.append(self._send(peer, _on_host(outgoing[peer])[HEADER_BYTES:]))
            for part, work in sends:
                wait_until(work, deadline)
                if part.numel() >= _SMALLEST_SAMPLE_BYTES:
                    bandwidths.append(part.numel() / max(time.perf_counter() - start, 1e-9))
            self.link_bytes_per_s = min(bandwidths, default=self.link_bytes_per_s)
            for work in payloads.values():
                wait_until(work, deadline)
        except WireError as error:
            raise WireError(f"rank {awaited}, {what}: {error}") from None
        except RuntimeError as error:
            raise self._lost(what, error) from error
        return frames

    def _send(self, peer: int, part: Tensor) -> tuple[Tensor, dist.Work | None]:
        """Begin to send; the piece must live until the work is done."""
        return part, dist.isend(part, self._global_ranks[peer], self.group)

    def _empty_frame(self, header: Tensor, d: int) -> Encoded:
        """Room for the frame that a head announces, the head in it. Raises WireError."""
        info = read_payload_info(
            bytes(header.numpy()), max_encoded_bytes(d), may_be_split=self.device_channel is not None
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
        """Swap the bodies of the split frames. Returns the bytes per second of the large ones that went out."""
        sent = {peer: data.payload for peer, data in outgoing.items() if isinstance(data, SplitFrame)}
        expected = {peer: data.payload for peer, data in frames.items() if isinstance(data, SplitFrame)}
        start = time.perf_counter()
        device_channel.swap(sent, expected, deadline, lambda: self._look({*sent, *expected}))
        seconds = max(time.perf_counter() - start, 1e-9)
        return [payload.numel() / seconds for payload in sent.values() if payload.numel() >= _SMALLEST_SAMPLE_BYTES]

    def _look(self, peers: Iterable[int]) -> None:
        """Raises RuntimeError where the connection to one of them has closed."""
        for peer in peers:
            self._probe(peer)

    def receive(self, senders: Sequence[int], awaited: Sequence[int], d: int, what: str) -> tuple[int, Encoded]:
        """One frame from whichever of `senders` sends first, and who that was. No other rank may send meanwhile.

        awaited: whom to blame when nothing comes. what, d: as for `swap`. Raises PeerLostError and WireError.
        """
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
            frame = self._empty_frame(header, d)
            if len(_on_host(frame)) > HEADER_BYTES:
                wait_until(dist.irecv(_on_host(frame)[HEADER_BYTES:], self._global_ranks[sender], self.group), deadline)
            elif self.device_channel is not None:
                self._swap_split(self.device_channel, {}, {sender: frame}, deadline)
        except WireError as error:
            raise WireError(f"rank {sender}, {what}: {error}") from None
        except RuntimeError as error:
            raise self._lost(what, error, awaited) from error
        return sender, frame

    def _probe(self, peer: int) -> dist.Work | None:
        """Expect what never comes. Raises RuntimeError where the connection has closed."""
        return dist.irecv(torch.empty(1), self._global_ranks[peer], self.group, tag=_PROBE_TAG)

    def all_reduce(self, vector: Tensor, what: str, write: Callable[[int, int], object] | None = None) -> None:
        """Sum `vector` (d,) over all ranks, in place, by the engine.

        write: called for each part, (first, stop), before it goes out, where there is still something to do to it.
        Raises PeerLostError.
        """
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
            raise self._lost(what, error) from error

    def broadcast(self, vector: Tensor) -> None:
        """Overwrite `vector` (any shape, contiguous) on every rank by rank 0's.

        Raises PeerLostError.
        """
        try:
            dist.broadcast(vector, self._global_ranks[0], self.group)
        except RuntimeError as error:
            raise self._lost("for the first parameters", error) from error

    def share(self, tensor: Tensor) -> None:
        """Overwrite any tensor, of any device and shape, by rank 0's.

        Raises PeerLostError.
        """
        travelling = tensor.detach().cpu().contiguous()
        self.broadcast(travelling)
        self.control_bytes += travelling.numel() * travelling.element_size() if self.rank == 0 else 0
        with torch.no_grad():
            tensor.copy_(travelling)

    def gather(self, value: Any, what: str) -> list[Any]:  # noqa: ANN401 - anything JSON holds
        """Everybody's `value`, by rank. Facts travel as JSON, so that nothing received is ever executed.

        Raises PeerLostError.
        """
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        try:
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(sizes, torch.tensor([data.numel()]), self.group)
            longest = max(int(size) for size in sizes)
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: data.numel()] = data
            texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(texts, padded, self.group)
            self.control_bytes += (self.size - 1) * (longest + 8)
        except RuntimeError as error:
            raise self._lost(what, error) from error
        return [json.loads(bytes(text[: int(size)].numpy())) for text, size in zip(texts, sizes, strict=True)]

    def _lost(self, what: str, error: RuntimeError, awaited: Sequence[int] = ()) -> PeerLostError:
        """Give up: find out who is missing, and let nobody wait for this rank.

        awaited: who is to blame of those that say nothing, where not everybody is.
        """
        if isinstance(error, PayloadsLostError):
            self._hang_up(_CLOSING_S)
        elif "timed out" in str(error).lower():  # the engine has closed all our connections itself
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
        """Say whose connections are closed, then close all others, so that who waits for us learns of it at once.

        patience_s: how long to wait until one is closed, where that is to be expected.
        """
        closed, probes = self._probe_all()
        expected_until = time.monotonic() + patience_s
        while not closed and time.monotonic() < expected_until:
            time.sleep(_CLOSING_POLL_S)
            closed, probes = self._probe_all()
        self._failure_report.give_up(closed)
        if probes:
            with contextlib.suppress(RuntimeError):  # it times out, upon which the engine closes every connection
                wait_until(probes[0], time.monotonic())

    def _probe_all(self) -> tuple[list[int], list[dist.Work | None]]:
        """Whose connections have closed, and what is expected from the others."""
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
        return " and ".join(names) or "a rank that came too late"


def _on_host(data: Encoded) -> Tensor:
    """What of a frame goes by the channel's own group, the head first."""
    return data.header if isinstance(data, SplitFrame) else data
