"""Frames between real processes, over torch.distributed's point-to-point calls.

One scheduler (`swap`) posts every message of a phase in one order, and never from a callback. A frame goes as two
messages, its head and its body, so that a receiver knows how much to expect before it allocates anything.
"""

import datetime
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.wire import HEAD_BYTES
from laconic.wire.codec import most_body_bytes
from laconic.wire.head import WireError, body_bytes_of

_SMALLEST_SAMPLE_BYTES = 1 << 16  # smaller sends end in a socket's buffer and say nothing about the link
_PATIENCE = 0.75  # share of the timeout spent waiting; the rest is for finding out who is missing


class PeerLostError(RuntimeError):
    """A rank that was waited for did not come. The process group cannot be used any more."""


class Channel:
    """This rank's way to the others: a gloo group of its own, so that a user's collectives never mix with ours."""

    def __init__(self, group: dist.ProcessGroup | None, timeout_s: float) -> None:
        """group: the ranks that train together; None for all. Collective: every rank of the group must call it."""
        ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
        self._global_ranks = ranks
        self.timeout_s = timeout_s
        self.rank = ranks.index(dist.get_rank())
        self.size = len(ranks)
        self.link_bytes_per_s: float | None = None
        self._calls = 0
        self.group = dist.new_group(ranks, backend="gloo", timeout=datetime.timedelta(seconds=timeout_s * _PATIENCE))

    def swap(self, outgoing: Mapping[int, Tensor], expected: Sequence[int], d: int, what: str) -> dict[int, Tensor]:
        """Send each peer its frame, and receive one frame from each of `expected`. Peers are ranks of the group.

        what: named in errors, such as "its packet of round 7". d: the vector's length, which bounds what is believed.
        Raises PeerLostError, naming the rank that was waited for, and WireError.
        """
        deadline = time.monotonic() + self.timeout_s * _PATIENCE
        awaited = self.rank
        try:
            heads = {peer: torch.empty(HEAD_BYTES, dtype=torch.uint8) for peer in expected}
            arriving = {}
            for peer in expected:
                arriving[peer] = dist.irecv(heads[peer], self._global_ranks[peer], self.group)
            sends = []
            for peer, data in outgoing.items():
                for piece in (data[:HEAD_BYTES], data[HEAD_BYTES:]):
                    if len(piece):
                        sends.append((peer, piece, dist.isend(piece, self._global_ranks[peer], self.group)))
            frames, bodies = {}, {}
            for peer in expected:
                awaited = peer
                _wait(arriving[peer], deadline)
                n_body = body_bytes_of(bytes(heads[peer].numpy()), most_body_bytes(d))
                frames[peer] = torch.empty(HEAD_BYTES + n_body, dtype=torch.uint8)
                frames[peer][:HEAD_BYTES] = heads[peer]
                if n_body:
                    bodies[peer] = dist.irecv(frames[peer][HEAD_BYTES:], self._global_ranks[peer], self.group)
            start = time.perf_counter()
            for peer, piece, work in sends:
                awaited = peer
                _wait(work, deadline)
                self._measure(piece.numel(), start)
            for peer, work in bodies.items():
                awaited = peer
                _wait(work, deadline)
        except WireError as error:
            raise WireError(f"rank {awaited}, {what}: {error}") from None
        except RuntimeError as error:
            raise self._lost(awaited, what, error) from error
        return frames

    def _measure(self, n_bytes: int, start: float) -> None:
        if n_bytes >= _SMALLEST_SAMPLE_BYTES:
            self.link_bytes_per_s = n_bytes / max(time.perf_counter() - start, 1e-9)

    def all_reduce(self, vector: Tensor, what: str) -> None:
        """Sum `vector` over all ranks, in place, by the engine.

        Raises PeerLostError.
        """
        try:
            dist.all_reduce(vector, group=self.group)
        except RuntimeError as error:
            raise self._lost(None, what, error) from error

    def broadcast(self, vector: Tensor) -> None:
        """Overwrite `vector` on every rank by rank 0's.

        Raises PeerLostError.
        """
        try:
            dist.broadcast(vector, self._global_ranks[0], self.group)
        except RuntimeError as error:
            raise self._lost(0, "the first parameters", error) from error

    def gather(self, fact: Any, what: str) -> list[Any]:  # noqa: ANN401 - anything JSON holds
        """Everybody's `fact`, by rank. Facts travel as JSON, so that nothing received is ever executed.

        Raises PeerLostError.
        """
        data = torch.frombuffer(bytearray(json.dumps(fact).encode()), dtype=torch.uint8)
        try:
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(sizes, torch.tensor([data.numel()]), self.group)
            longest = max(int(size) for size in sizes)
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: data.numel()] = data
            texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(texts, padded, self.group)
        except RuntimeError as error:
            raise self._lost(None, what, error) from error
        return [json.loads(bytes(text[: int(size)].numpy())) for text, size in zip(texts, sizes, strict=True)]

    def _lost(self, suspect: int | None, what: str, error: RuntimeError) -> PeerLostError:
        """Find out who is missing: every rank that gave up says so in the store; who says nothing is the one."""
        closed = "timed out" not in str(error).lower()
        silent = self._silent(suspect if closed else None)
        if not silent:
            silent = [suspect] if suspect is not None else []
        names = " and ".join(f"rank {rank}" for rank in silent) or "a rank"
        how = "its connection closed" if closed else f"nothing came within timeout_s={self.timeout_s:g}"
        return PeerLostError(
            f"{names} was waited for ({what}), but {how}. Look at that rank's own output; "
            "a slow rank needs a larger timeout_s"
        )

    def _silent(self, dead: int | None) -> list[int]:
        """The ranks that have not given up as well; `dead` is known to be gone and is not waited for."""
        deadline = time.monotonic() + self.timeout_s * (1 - _PATIENCE)
        name = f"laconic/{'-'.join(map(str, self._global_ranks))}/gave-up"
        silent = [] if dead is None else [dead]
        try:
            store = dist.distributed_c10d._get_default_store()
            store.set(f"{name}/{self.rank}", "yes")
            for rank in range(self.size):
                if rank in (self.rank, dead):
                    continue
                left = max(0.001, deadline - time.monotonic())
                try:
                    store.wait([f"{name}/{rank}"], datetime.timedelta(seconds=left))
                except dist.DistStoreError:
                    silent.append(rank)
        except RuntimeError:  # the store went with its host, rank 0
            return [0] if self.rank != 0 and dead is None else silent
        return sorted(silent)


def _wait(work: dist.Work | None, deadline: float) -> None:
    assert work is not None
    work.wait(datetime.timedelta(seconds=max(0.001, deadline - time.monotonic())))
