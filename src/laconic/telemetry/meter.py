"""Three counts of the same traffic, kept side by side.

`wire` is the length of what was encoded and crossed a link, `payload` its information bits, `paper` what the
paper's formula charges. A rank that is worker and server at once hands itself its own packet: that crosses no
link, so it counts in `payload` and `paper` (the papers charge every worker) and under `local` instead of `wire`.
A round with several exchanges (positions, then values) is also counted by exchange.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import reduce
from operator import add
from typing import Any, Literal, NamedTuple, get_args

from laconic.wire import Frame

Direction = Literal["up", "down", "setup"]
_DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


@dataclass(frozen=True, kw_only=True)
class Count:
    """What went one way. Bytes and bits are totals since the start."""

    messages: int = 0
    skips: int = 0
    wire_bytes: int = 0
    local_bytes: int = 0
    payload_bits: int = 0
    paper_bits: float = 0.0

    def __add__(self, other: "Count") -> "Count":
        return Count(
            messages=self.messages + other.messages,
            skips=self.skips + other.skips,
            wire_bytes=self.wire_bytes + other.wire_bytes,
            local_bytes=self.local_bytes + other.local_bytes,
            payload_bits=self.payload_bits + other.payload_bits,
            paper_bits=self.paper_bits + other.paper_bits,
        )


class FrameSizes(NamedTuple):
    """What the encoded frames count for that one packet was cut into."""

    n_bytes: list[int]  # of each
    total_bytes: int
    payload_bits: int  # of all, with the flag bits that they are no skips
    paper_bits: list[float]  # of each
    skips: int  # 1 where they are skip notices


class _Counter:
    """A count in the making: the same fields."""

    __slots__ = tuple(field.name for field in fields(Count))

    def __init__(self, count: Count) -> None:
        self.messages = count.messages
        self.skips = count.skips
        self.wire_bytes = count.wire_bytes
        self.local_bytes = count.local_bytes
        self.payload_bits = count.payload_bits
        self.paper_bits = count.paper_bits

    def add(self, sizes: FrameSizes, local_bytes: int) -> None:
        self.messages += len(sizes.n_bytes)
        self.skips += sizes.skips
        self.wire_bytes += sizes.total_bytes - local_bytes
        self.local_bytes += local_bytes
        self.payload_bits += sizes.payload_bits
        self.paper_bits = reduce(add, sizes.paper_bits, self.paper_bits)  # one by one: sums depend on the order

    def read(self) -> Count:
        return Count(**{name: getattr(self, name) for name in self.__slots__})


class Meter:
    """Counts one rank's traffic: up from the worker's end, down at the worker's end."""

    def __init__(self) -> None:
        self._counts: dict[Direction, _Counter] = {direction: _Counter(Count()) for direction in _DIRECTIONS}
        self._by_exchange: dict[Direction, dict[str, _Counter]] = {direction: {} for direction in _DIRECTIONS}

    @property
    def counts(self) -> dict[Direction, Count]:
        """What went each way."""
        return {direction: counter.read() for direction, counter in self._counts.items()}

    @property
    def by_exchange(self) -> dict[Direction, dict[str, Count]]:
        """The same by the names of a round's exchanges."""
        return {
            direction: {name: counter.read() for name, counter in by_name.items()}
            for direction, by_name in self._by_exchange.items()
        }

    def _add(self, direction: Direction, exchange: str, sizes: FrameSizes, local_bytes: int) -> None:
        by_name = self._by_exchange[direction]
        if exchange not in by_name:
            by_name[exchange] = _Counter(Count())
        self._counts[direction].add(sizes, local_bytes)
        by_name[exchange].add(sizes, local_bytes)

    def frame(
        self,
        direction: Direction,
        frame: Frame,
        n_bytes: int,
        *,
        paper_bits: float,
        exchange: str,
        local: bool,
        flag_bit: bool,
        lead: bool,
    ) -> None:
        """Count one encoded frame of the exchange of that name; `paper_bits` is what the paper charges for it.

        flag_bit: the method may skip, so "this is no skip" is a bit of information. lead: the first of the frames
        that one packet was cut into; a skip is counted once.
        """
        packet = frame.packet
        payload_bits = frame.payload_bits + (1 if flag_bit and packet is not None else 0)
        skips = int(lead and packet is None and not frame.aborted)
        sizes = FrameSizes([n_bytes], n_bytes, payload_bits, [paper_bits], skips)
        self._add(direction, exchange, sizes, n_bytes if local else 0)

    def frames(self, direction: Direction, sizes: FrameSizes, *, exchange: str, local: int | None) -> None:
        """Count the frames that one packet was cut into, the same as by `frame` one after the other.

        local: which of them crosses no link.
        """
        self._add(direction, exchange, sizes, 0 if local is None else sizes.n_bytes[local])

    def collective(
        self, direction: Direction, n_bytes: int, payload_bits: int, paper_bits: float, exchange: str = "update"
    ) -> None:
        """Count a collective: an engine's own, whose bytes are known by its algorithm, or one frame for many peers."""
        self._add(direction, exchange, FrameSizes([n_bytes], n_bytes, payload_bits, [paper_bits], 0), 0)

    def saved(self) -> dict[str, Any]:
        """The counts as plain data."""
        return {
            "counts": {direction: asdict(count) for direction, count in self.counts.items()},
            "by_exchange": {
                direction: {name: asdict(count) for name, count in by_name.items()}
                for direction, by_name in self.by_exchange.items()
            },
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue counting from `saved`."""
        for direction in _DIRECTIONS:
            self._counts[direction] = _Counter(Count(**saved["counts"][direction]))
            by_name = saved["by_exchange"][direction]
            self._by_exchange[direction] = {name: _Counter(Count(**count)) for name, count in by_name.items()}
