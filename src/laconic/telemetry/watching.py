"""`watch()`: the bytes of every collective call of torch.distributed in a program, with or without a method of ours."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from laconic.telemetry.count_table import aligned
from laconic.torch_compat import group_of_call, on_collectives
from laconic.units import bytes_text


@dataclass(kw_only=True)
class Calls:
    """What one rank's calls of one kind have moved."""

    calls: int = 0
    """Number of calls."""
    given_bytes: int = 0
    """Bytes of the tensors that were given to be sent, once each, however often an algorithm sends them on."""
    sent_bytes: float = 0.0
    """Bytes that left this rank, by the backend's algorithm; a share of a vector need not be a full number of bytes."""
    received_bytes: float = 0.0
    """Bytes that reached this rank."""

    def __add__(self, other: "Calls") -> "Calls":
        return Calls(**{name: getattr(self, name) + getattr(other, name) for name in _NAMES})


_NAMES = [each.name for each in fields(Calls)]


@dataclass
class Watched:
    """What `watch()` has counted so far, on this rank. `print` shows it as a table."""

    by_kind: dict[str, Calls] = field(default_factory=dict)
    """The calls by their kind: "all_reduce", "broadcast", ..."""

    @property
    def total(self) -> Calls:
        """All kinds added up."""
        return sum(self.by_kind.values(), Calls())

    @property
    def sent_bytes(self) -> float:
        """Bytes that left this rank."""
        return self.total.sent_bytes

    @property
    def received_bytes(self) -> float:
        """Bytes that reached this rank."""
        return self.total.received_bytes

    def as_data(self) -> dict[str, dict[str, float]]:
        """Return the counts as plain values, by kind."""
        return {kind: {name: getattr(calls, name) for name in _NAMES} for kind, calls in self.by_kind.items()}

    def __str__(self) -> str:
        rows = [["", "calls", "given", "sent", "received"]]
        for kind, calls in [*sorted(self.by_kind.items()), ("total", self.total)]:
            sizes = (calls.given_bytes, calls.sent_bytes, calls.received_bytes)
            rows.append([kind, f"{calls.calls:,}", *map(bytes_text, sizes)])
        return "\n".join(aligned(rows))


@contextmanager
def watch() -> Iterator[Watched]:
    """Count the bytes of every collective call of torch.distributed in this process, in any thread and any group.

    DistributedDataParallel's, FSDP's, those of compiled programs and those of laconic are among them. A call costs some
    ten microseconds more. Contexts may lie inside each other. Not counted: the store, the headers of TCP and of the
    backend (hundreds of bytes a call), and what a backend adds in a barrier.

    Yields:
        The counts, which grow until the context ends.
    """
    watched = Watched()
    with _LOCK:
        _ACTIVE.append(watched)
        if len(_ACTIVE) == 1:
            _ENDING.append(on_collectives(_count))
    try:
        yield watched
    finally:
        with _LOCK:
            _ACTIVE[:] = [one for one in _ACTIVE if one is not watched]
            if not _ACTIVE:
                _ENDING.pop()()


_LOCK = threading.RLock()
_ACTIVE: list[Watched] = []
_ENDING: list[Callable[[], None]] = []


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where this rank is in the group of a call. `root`: rank of the root in the group, or -1."""

    rank: int
    size: int
    root: int
    sums_everywhere: bool
    """Whether the backend scatters a sum by summing all of it everywhere, as gloo does."""


_Moved = tuple[float, float, float]  # given, sent, received bytes


def _count(name: str, arguments: Sequence[Any]) -> None:
    known = _KINDS.get(name)
    if known is None:
        return
    kind, moved_by, root_at = known
    group = group_of_call(arguments)
    root = int(arguments[root_at]) if root_at else -1
    place = _Place(rank=group.rank(), size=group.size(), root=root, sums_everywhere="gloo" in group.name().lower())
    given, sent, received = moved_by(arguments, place)
    one = Calls(calls=1, given_bytes=int(given), sent_bytes=sent, received_bytes=received)
    with _LOCK:
        for watched in _ACTIVE:
            watched.by_kind[kind] = watched.by_kind.get(kind, Calls()) + one


def _n_bytes(tensors: Any) -> int:  # noqa: ANN401  (a tensor, a list of them, or lists of lists, as the calls take them)
    if isinstance(tensors, Tensor):
        if tensors.is_sparse:
            merged = tensors.coalesce()  # as gloo does before it sends
            return _n_bytes([merged.indices(), merged.values()])
        return tensors.numel() * tensors.element_size()
    return sum(map(_n_bytes, tensors))


def _all_reduce(arguments: Sequence[Any], at: _Place) -> _Moved:
    """A ring: each rank sends every share but one twice. A sparse sum gathers positions and values."""
    given = _n_bytes(arguments[0])
    if any(tensor.is_sparse for tensor in arguments[0]):
        return given, given * (at.size - 1), given * (at.size - 1)
    moved = 2 * (at.size - 1) / at.size * given
    return given, moved, moved


def _all_gather(arguments: Sequence[Any], at: _Place) -> _Moved:
    given = _n_bytes(arguments[1])
    return given, given * (at.size - 1), given * (at.size - 1)


def _reduce_scatter(arguments: Sequence[Any], at: _Place) -> _Moved:
    given = _n_bytes(arguments[1])
    moved = (2 if at.sums_everywhere else 1) * (at.size - 1) / at.size * given
    return given, moved, moved


def _broadcast(arguments: Sequence[Any], at: _Place) -> _Moved:
    """A binomial tree: a rank sends to those that differ from it in one of the bits below its own lowest one."""
    given = _n_bytes(arguments[0])
    place = (at.rank - at.root) % at.size
    below = place & -place if place else 1 << (at.size - 1).bit_length()
    children = sum(1 for bit in range(below.bit_length() - 1) if place | 1 << bit < at.size)
    return given if not place else 0, children * given, given if place else 0


def _reduce(arguments: Sequence[Any], at: _Place) -> _Moved:
    """A ring in which each rank sums one share, and then sends it to the root."""
    given = _n_bytes(arguments[0])
    share = given / at.size
    ring = (at.size - 1) * share
    return (given, ring, 2 * ring) if at.rank == at.root else (given, ring + share, ring)


def _gather(arguments: Sequence[Any], at: _Place) -> _Moved:
    given = _n_bytes(arguments[1])
    return (given, 0, given * (at.size - 1)) if at.rank == at.root else (given, given, 0)


def _scatter(arguments: Sequence[Any], at: _Place) -> _Moved:
    received = _n_bytes(arguments[0])
    return (received * at.size, received * (at.size - 1), 0) if at.rank == at.root else (0, 0, received)


def _all_to_all(arguments: Sequence[Any], at: _Place) -> _Moved:
    """Parts of lists, or of one tensor: equal ones, or as many rows as the last two lists say."""
    received, given = _n_bytes(arguments[0]), _n_bytes(arguments[1])
    if isinstance(arguments[1], Tensor):
        own = [
            _part(tensor, sizes, at) for tensor, sizes in ((arguments[0], arguments[3]), (arguments[1], arguments[4]))
        ]
    else:
        own = [_n_bytes(arguments[0][at.rank]), _n_bytes(arguments[1][at.rank])]
    return given, given - own[1], received - own[0]


def _part(tensor: Tensor, sizes: Sequence[int], at: _Place) -> float:
    """Return the bytes of a tensor's part that this rank sends to itself."""
    share = sizes[at.rank] / max(sum(sizes), 1) if sizes else 1 / at.size
    return _n_bytes(tensor) * share


def _send(arguments: Sequence[Any], at: _Place) -> _Moved:
    given = _n_bytes(arguments[0])
    return given, given, 0


def _receive(arguments: Sequence[Any], at: _Place) -> _Moved:
    return 0, 0, _n_bytes(arguments[0])


def _barrier(arguments: Sequence[Any], at: _Place) -> _Moved:
    return 0, 0, 0


# Operators of c10d: the kind of call, what it moves, and which argument is the root.
_KINDS: Mapping[str, tuple[str, Callable[[Sequence[Any], _Place], _Moved], int]] = {
    "allreduce_": ("all_reduce", _all_reduce, 0),
    "allreduce_coalesced_": ("all_reduce", _all_reduce, 0),
    "broadcast_": ("broadcast", _broadcast, 2),
    "reduce_": ("reduce", _reduce, 3),
    "allgather_": ("all_gather", _all_gather, 0),
    "_allgather_base_": ("all_gather", _all_gather, 0),
    "allgather_coalesced_": ("all_gather", _all_gather, 0),
    "allgather_into_tensor_coalesced_": ("all_gather", _all_gather, 0),
    "reduce_scatter_": ("reduce_scatter", _reduce_scatter, 0),
    "_reduce_scatter_base_": ("reduce_scatter", _reduce_scatter, 0),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter", _reduce_scatter, 0),
    "gather_": ("gather", _gather, 3),
    "scatter_": ("scatter", _scatter, 3),
    "alltoall_": ("all_to_all", _all_to_all, 0),
    "alltoall_base_": ("all_to_all", _all_to_all, 0),
    "send": ("send", _send, 0),
    "recv_": ("receive", _receive, 0),
    "recv_any_source_": ("receive", _receive, 0),
    "barrier": ("barrier", _barrier, 0),
    "monitored_barrier_": ("barrier", _barrier, 0),
}
