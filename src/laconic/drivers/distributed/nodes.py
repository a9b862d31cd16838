"""Two levels: ranks on one node average their gradients, and one rank of each node exchanges as one worker.

| between | what travels | over |
|---|---|---|
| the ranks of a node, before each step | the mean of their gradients | memory that they share, or a group of them |
| the nodes, in a round | the method's packets, one worker a node | a group of the leading ranks |
| the ranks of a node, after a round | what the worker applies | the same |

Where the ranks of a node are on one host, they hand vectors over in memory (`shared_memory.py`), and small messages of
their group say when. A rank writes into a vector that another has read before a message that both have had.

Settings, checks and totals go over the group of all ranks, as without nodes.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from laconic.buffer_pool import new_vector
from laconic.contract import Algorithm, InParts, Result
from laconic.drivers.distributed.agreement import agree
from laconic.drivers.distributed.channel import Channel
from laconic.drivers.distributed.meeting import Meeting
from laconic.drivers.distributed.shared_memory import SharedMemory
from laconic.errors import Named, OptionError
from laconic.hyperparameters import is_number
from laconic.kernels.api import take_at
from laconic.protocol.abort import Abort
from laconic.protocol.job import Job
from laconic.protocol.layout import has_dedicated_server
from laconic.protocol.ring_allreduce import ring_bytes
from laconic.protocol.round_inputs import VectorSource
from laconic.protocol.round_result import RoundResult
from laconic.telemetry.meter import Count
from laconic.wire import HEADER_BYTES, Dense, Frame, Header, Sparse, decode, encode, promised_bytes

Nodes = Literal["auto"] | int | None
"""The argument `nodes`: "auto" for the ranks of one host name, their number, or None for no nodes."""

PARTS_BYTES = 1 << 20
"""Vectors of so many bytes and more are handed over in the packets that they came in, if those are few bits."""
_NOTHING, _DENSE, _SPARSE, _SUPPORTED, _IN_PARTS = range(5)  # what a node's other ranks get


@dataclass(frozen=True, kw_only=True)
class NodeRanks:
    """Which ranks share a node. All nodes have equally many."""

    node_of: tuple[int, ...]
    """By rank, the number of its node."""

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return max(self.node_of) + 1

    @property
    def leading(self) -> list[int]:
        """The lowest rank of each node, which exchanges for it."""
        return [self.node_of.index(number) for number in range(self.n_nodes)]

    def beside(self, rank: int) -> list[int]:
        """Return the ranks of a rank's node, in order."""
        return [other for other, node in enumerate(self.node_of) if node == self.node_of[rank]]


def check_nodes(nodes: Nodes, algorithm: Algorithm, layout: str, clients_per_round: int | None, n_ranks: int) -> None:
    """Raise TypeError or ValueError for a wrong number of nodes, or what does not work over nodes."""
    if nodes is None:
        return
    if nodes != "auto" and not is_number(nodes, int):
        raise TypeError(f"nodes={nodes!r:.80} must be 'auto', a number of nodes, or None")
    if nodes != "auto" and not 1 <= nodes <= n_ranks:
        raise ValueError(f"nodes={nodes} must be within 1 .. {n_ranks}, the number of ranks, or 'auto'")
    if nodes != "auto" and n_ranks % nodes:
        raise ValueError(
            f"nodes={nodes} does not divide {n_ranks} ranks into nodes of equally many, which a mean of the nodes' "
            "means needs; start as many ranks on each node"
        )
    reasons = {
        "its server takes each gradient as it arrives, and no rank waits for another": algorithm.is_asynchronous,
        "it evaluates each mini-batch at two points, and a node's ranks have several": algorithm.second_gradient,
        "its workers' models differ, and a node's ranks have one": not algorithm.replicas_equal,
    }
    for reason, holds in reasons.items():
        if holds:
            raise OptionError(Named("nodes", nodes), f" does not go with {algorithm.name}: {reason}; leave it out")
    if has_dedicated_server(layout, by_arrival=False):
        raise ValueError(f'nodes={nodes!r} does not go with layout="{layout}", whose last rank trains nothing')
    if clients_per_round is not None:
        raise ValueError(f"nodes={nodes!r} does not go with clients_per_round={clients_per_round}: all nodes exchange")


def node_ranks(nodes: Nodes, meeting: Meeting, purpose: str, timeout_s: float) -> NodeRanks | None:
    """Return which ranks share a node; None where each rank is alone on its own. Collective for "auto".

    Raises:
        SetupError: ranks were given different `nodes`.
        ValueError: on all ranks, if hosts have unequally many.
        PeerLostError: a rank is missing.
    """
    if nodes is None:
        return None
    if nodes == "auto":
        shown = agree(meeting, {"nodes": "auto"}, purpose, timeout_s, {"host": socket.gethostname()})
        found = on_hosts([each.get("host", "") for each in shown])
    else:
        each = meeting.size // nodes
        found = NodeRanks(node_of=tuple(rank // each for rank in range(meeting.size)))
    return None if found.n_nodes == meeting.size else found


def on_hosts(hosts: Sequence[str]) -> NodeRanks:
    """Return the nodes that ranks with these host names form. Raises ValueError if they have unequally many."""
    numbers = {host: number for number, host in enumerate(dict.fromkeys(hosts))}
    counts = {host: hosts.count(host) for host in numbers}
    if len({*counts.values()}) > 1:
        listed = ", ".join(f"{count} on {host}" for host, count in counts.items())
        raise ValueError(
            f"nodes='auto': the hosts have unequally many ranks ({listed:.300}), and a mean of their means would weigh "
            "them differently; start as many on each, or leave nodes out"
        )
    return NodeRanks(node_of=tuple(numbers[host] for host in hosts))


class Node:
    """This rank's node: its connection to the other ranks there, and on the leading rank that to the other nodes."""

    def __init__(self, ranks: NodeRanks, group: Sequence[int], rank: int, timeout_s: float, max_count: int) -> None:
        """Connect the ranks of each node, and the leading ones. Collective.

        Args:
            ranks: which ranks share a node.
            group: the global ranks of all.
            rank: number of this rank among them.
            timeout_s: how long a rank is waited for, seconds.
            max_count: as for `Channel`.
        """
        self.ranks, own = ranks, ranks.beside(rank)
        self.number = ranks.node_of[rank]
        """Of the node, and of the worker that it is."""
        self.n_ranks = len(own)
        self.sent = Count()
        """What this rank has sent to others of its node."""
        self.inside = Channel([group[rank] for rank in own], timeout_s, max_count)
        self._memory: SharedMemory | None = None
        self._everywhere = True
        self._n_sets, self._n_sums = 1, 0
        self.between: Channel | None = None
        """The connection of the leading ranks; None on the others."""
        if rank == own[0]:
            self.between = Channel([group[rank] for rank in ranks.leading], timeout_s, max_count)

    @property
    def channels(self) -> list[Channel]:
        """The connections of this rank besides that of all ranks."""
        return [self.inside] if self.between is None else [self.inside, self.between]

    def open_memory(self, count: int, dtype: torch.dtype, device: torch.device, *, everywhere: bool) -> None:
        """Let the ranks of the node hand vectors over in memory from now on, if they can. Collective over them.

        Args:
            count: length of the longest vector.
            dtype: their type.
            device: where they are.
            everywhere: whether each rank needs the sums, and not the leading one alone.

        Raises:
            PeerLostError: a rank of the node is missing.
        """
        self._everywhere = everywhere
        self._n_sets = 2 if everywhere else 1  # a rank may be a sum ahead of one that still reads
        if device.type == "cpu":
            self._memory = SharedMemory.of(self.inside, self._n_sets * self.n_ranks + 1, count, dtype)

    def mean_of(
        self, vector: VectorSource, count: int, tail: Sequence[float], like: Job, purpose: str
    ) -> tuple[Tensor | None, list[float]]:
        """Return the mean over the ranks of the node of a vector (count,), and sums of `tail`. Collective over them.

        Args:
            vector: where to read this rank's.
            count: its length.
            tail: more numbers.
            like: the job of the vector, which has its type and device, and where it is in the longest one.
            purpose: as for `Transport.swap`.

        Returns:
            The mean of the vectors, None on a rank that does not need it; and the sums of the other numbers.

        Raises:
            PeerLostError: a rank of the node is missing.
        """
        own = torch.tensor(tail, dtype=like.dtype, device=like.device)
        if self._memory is None:
            total = new_vector(count + len(tail), like.dtype, like.device)
            total[count:] = own
            self.inside.all_reduce(total, purpose, partial(self._write_share, vector, total[:count]))
            self._count(ring_bytes(total.numel(), self.n_ranks, total.itemsize))
            return total[:count], total[count:].tolist()
        leads, rank = self.between is not None, self.inside.rank
        shares = [share[like.spec.offset :][:count] for share in self._vectors_of_ranks(self._memory)]
        adds_own = leads and not self._everywhere  # to what others have written: nobody else reads its share
        if not adds_own:
            self._write_share(vector, shares[rank], 0, count)
        self.inside.all_reduce(own, purpose)  # and now all have written
        self._count(ring_bytes(own.numel(), self.n_ranks, own.itemsize))
        n_readers = self.n_ranks - 1 if self._everywhere else 1 - leads
        self._count(n_readers * count * own.itemsize)
        if not leads and not self._everywhere:
            return None, own.tolist()
        total = new_vector(count, like.dtype)
        if adds_own:
            vector.share_plus(total, self.n_ranks, shares[1])
        else:
            torch.add(*shares[:2], out=total)
        for share in shares[2:]:
            total += share
        return total, own.tolist()

    def _write_share(self, vector: VectorSource, out: Tensor, start: int, stop: int) -> None:
        """Write elements of this rank's part of a mean to the same ones of `out`, as far as it goes."""
        stop = min(stop, out.numel())
        if start < stop:
            vector.into(out, start, stop, divisor=self.n_ranks)

    def _vectors_of_ranks(self, memory: SharedMemory) -> list[Tensor]:
        """Return the vectors that the ranks write for the next sum."""
        start = self._n_sums % self._n_sets * self.n_ranks
        self._n_sums += 1
        return [memory.vector(start + number) for number in range(self.n_ranks)]

    def _result_at(self, memory: SharedMemory, job: Job, count: int) -> Tensor:
        """Return where the leading rank leaves the values (count,) of a result."""
        return memory.vector(self._n_sets * self.n_ranks)[job.spec.offset :][:count]

    def share(self, results: Sequence[RoundResult] | None, jobs: Sequence[Job], round_: int) -> list[RoundResult]:
        """Return what the leading rank gives, on all ranks of the node. Collective over them.

        Args:
            results: of a round's slices; None on ranks that do not lead.
            jobs: of the same slices.
            round_: number of the round.

        Raises:
            PeerLostError: a rank of the node is missing.
        """
        if results is None:
            return [self._awaited(job, round_) for job in jobs]
        for result, job in zip(results, jobs, strict=True):
            self._show(result, job, round_)
        return [*results]

    def takes_parts(self, job: Job) -> bool:
        """Return whether ranks hand a result over in packets, which each of them decodes, and not as a vector."""
        return job.device.type == "cpu" and job.d * job.dtype.itemsize >= PARTS_BYTES

    def _show(self, result: RoundResult, job: Job, round_: int) -> None:
        found = result.results.get(self.number)
        if isinstance(found, InParts):
            self._show_parts(found, job, round_)
            return
        kind, *parts = _parts_of(found, result.supports.get(self.number))
        if self._memory is not None and parts:
            values = parts.pop(0)
            self._result_at(self._memory, job, values.numel()).copy_(values)
            self._count((self.n_ranks - 1) * values.numel() * job.dtype.itemsize)
            sizes = [values.numel(), *(part.numel() for part in parts)]
        else:
            sizes = [part.numel() for part in parts]
        about = torch.tensor([result.aborted, kind, *sizes])
        self._broadcast(torch.nn.functional.pad(about, (0, 4 - about.numel())), round_)
        for part in parts:
            of_type = job.dtype if part.is_floating_point() else torch.int64
            self._broadcast(part.to(job.device, of_type).contiguous(), round_)

    def _show_parts(self, found: InParts, job: Job, round_: int) -> None:
        header = Header(role="server", rank=self.number, round=round_, exchange=0)
        frames = torch.cat([encode(Frame(header=header, packet=packet)) for packet in found.parts])
        if self._memory is not None:
            self._result_at(self._memory, job, job.d).view(torch.uint8)[: frames.numel()].copy_(frames)
            self._count((self.n_ranks - 1) * frames.numel())
        self._broadcast(torch.tensor([Abort.NO, _IN_PARTS, frames.numel(), 0]), round_)
        if self._memory is None:
            self._broadcast(frames, round_)

    def _awaited_parts(self, n_bytes: int, job: Job, round_: int) -> InParts:
        frames = torch.empty(n_bytes, dtype=torch.uint8)
        if self._memory is None:
            self._broadcast(frames, round_)
        else:
            frames.copy_(self._result_at(self._memory, job, job.d).view(torch.uint8)[:n_bytes])
        packets = []
        while frames.numel():
            end = HEADER_BYTES + promised_bytes(frames.numpy())[0]  # type: ignore[arg-type]
            packet = decode(frames[:end], job.spec.stop).packet
            assert packet is not None, "no control frame is handed over"
            packets.append(packet)
            frames = frames[end:]
        return InParts(parts=tuple(packets), count=job.d)

    def _awaited(self, job: Job, round_: int) -> RoundResult:
        about = torch.zeros(4, dtype=torch.int64)
        self._broadcast(about, round_)
        aborted, kind, n_values, n_indices = about.tolist()
        if kind == _IN_PARTS:
            results = {self.number: self._awaited_parts(n_values, job, round_)}
            return RoundResult(aborted=Abort(aborted), results=results)
        if kind == _NOTHING:
            return RoundResult(aborted=Abort(aborted), results={})
        values = new_vector(n_values, job.dtype, job.device)
        if self._memory is None:
            self._broadcast(values, round_)
        else:
            values.copy_(self._result_at(self._memory, job, n_values))
        if kind == _DENSE:
            return RoundResult(aborted=Abort(aborted), results={self.number: values})
        indices = torch.empty(n_indices, dtype=torch.int64, device=job.device)
        self._broadcast(indices, round_)
        if kind == _SPARSE:
            packet = Sparse(indices=indices, values=Dense(values=values), count=job.d)
            return RoundResult(aborted=Abort(aborted), results={self.number: packet})
        support = indices, take_at(values, indices)
        return RoundResult(aborted=Abort(aborted), results={self.number: values}, supports={self.number: support})

    def _broadcast(self, tensor: Tensor, round_: int) -> None:
        self.inside.broadcast(tensor, 0, f"for its node's result of round {round_}")
        self._count((self.n_ranks - 1) * tensor.nbytes if self.between is not None else 0)

    def _count(self, n_bytes: int) -> None:
        self.sent += Count(messages=1 if n_bytes else 0, wire_bytes=n_bytes)


def _parts_of(found: Result | None, support: tuple[Tensor, Tensor] | None) -> tuple[Any, ...]:
    """Return the kind of a result, and the tensors that it consists of: values, and indices if there are any."""
    if found is None:
        return (_NOTHING,)
    if isinstance(found, Sparse):
        return _SPARSE, found.values.dense(), found.indices
    return (_DENSE, found) if support is None else (_SUPPORTED, found, support[0])
