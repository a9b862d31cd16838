"""Three counts of the same traffic.

`wire` is the number of encoded bytes that crossed a link, `payload` the number of information bits, and `paper` the
number of bits by the paper's formula. If a rank is both worker and server, its own packet crosses no link. It counts in
`payload` and `paper` (the papers count every worker), and in `local` instead of `wire`. What the others send to it and
get from it crosses this rank's link too: `served` counts it here, beside their own counts.
A round with several exchanges (positions, then values) is also counted by exchange.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, reduce
from operator import add, attrgetter, sub
from typing import Any, Literal, NamedTuple, get_args

from laconic.hyperparameters import make_plain
from laconic.telemetry.html import html_table
from laconic.wire import Frame

Direction = Literal["up", "down", "setup", "served"]
_DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
UP_AND_DOWN: tuple[Literal["up", "down"], ...] = ("up", "down")
"""The directions of a collective."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """The traffic in one direction, as totals since the start."""

    messages: int = 0
    """Number of frames: in each exchange one for each server or neighbor, or one for all in a collective."""
    skips: int = 0
    """Number of exchanges in which a SKIP control frame was sent instead of a packet, to however many servers."""
    skip_messages: int = 0
    """How many of the messages are SKIP control frames; the other messages carry packets, or abort a round."""
    wire_bytes: int = 0
    """Encoded bytes, headers included, that crossed a link."""
    local_bytes: int = 0
    """Bytes of packets that a rank sent to itself."""
    payload_bits: int = 0
    """Information bits of the packets."""
    paper_bits: float = 0.0
    """Bits by the formula of the method's paper."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) not in (int, float) or not value >= 0 or (type(value) is float and name != "paper_bits"):
                self._make_plain(name)

    def _make_plain(self, name: str) -> None:
        """Take a number of numpy's as Python's own, or raise TypeError or ValueError."""
        make_plain(self, [name], "Count", float if name == "paper_bits" else int)
        number = getattr(self, name)
        if not number >= 0:
            raise ValueError(f"Count: {name}={number} must be at least 0")

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        rows = [[name.replace("_", " "), f"{value:,}"] for name, value in asdict(self).items()]
        return html_table(rows, title="Count", header=False)

    def __add__(self, other: "Count") -> "Count":
        return Count(
            messages=self.messages + other.messages,
            skips=self.skips + other.skips,
            skip_messages=self.skip_messages + other.skip_messages,
            wire_bytes=self.wire_bytes + other.wire_bytes,
            local_bytes=self.local_bytes + other.local_bytes,
            payload_bits=self.payload_bits + other.payload_bits,
            paper_bits=self.paper_bits + other.paper_bits,
        )

    def __sub__(self, other: "Count") -> "Count":
        return Count(
            messages=self.messages - other.messages,
            skips=self.skips - other.skips,
            skip_messages=self.skip_messages - other.skip_messages,
            wire_bytes=self.wire_bytes - other.wire_bytes,
            local_bytes=self.local_bytes - other.local_bytes,
            payload_bits=self.payload_bits - other.payload_bits,
            paper_bits=self.paper_bits - other.paper_bits,
        )


class FrameSizes(NamedTuple):
    """The sizes of the frames that one packet was split into."""

    n_bytes: list[int]
    """Of each frame."""
    total_bytes: int
    payload_bits: int
    """Of all frames, with the flag bits that distinguish them from skips."""
    paper_bits: list[float]
    """Of each frame."""
    skips: int
    """1 if they are SKIP control frames, else 0."""


class _Counter:
    """A mutable `Count`."""

    __slots__ = tuple(field.name for field in fields(Count))

    def __init__(self, count: Count) -> None:
        self.messages = count.messages
        self.skips = count.skips
        self.skip_messages = count.skip_messages
        self.wire_bytes = count.wire_bytes
        self.local_bytes = count.local_bytes
        self.payload_bits = count.payload_bits
        self.paper_bits = count.paper_bits

    def read(self) -> Count:
        return Count(**{name: getattr(self, name) for name in self.__slots__})


_values = attrgetter(*_Counter.__slots__)
_MESSAGES = _Counter.__slots__.index("messages")
Totals = tuple[Any, ...]
"""What a `Count` holds, in its order."""


class Meter:
    """Counts one worker's traffic: up is what it sends, down is what it receives.

    If its rank serves, too, `served` is what that server receives from other ranks and sends to them.
    """

    def __init__(self) -> None:
        self._counts: dict[Direction, _Counter] = {direction: _Counter(Count()) for direction in _DIRECTIONS}
        self._by_exchange: dict[Direction, dict[str, _Counter]] = {direction: {} for direction in _DIRECTIONS}

    @property
    def counts(self) -> dict[Direction, Count]:
        """The traffic in each direction."""
        return {direction: counter.read() for direction, counter in self._counts.items()}

    @property
    def by_exchange(self) -> dict[Direction, dict[str, Count]]:
        """The traffic in each direction by the names of a round's exchanges."""
        return {
            direction: {name: counter.read() for name, counter in by_name.items()}
            for direction, by_name in self._by_exchange.items()
        }

    def _add(
        self,
        direction: Direction,
        exchange: str,
        n_bytes: int,
        payload_bits: int,
        paper_bits: Sequence[float],
        *,
        n_messages: int = 1,
        skips: int = 0,
        skip_messages: int = 0,
        local_bytes: int = 0,
    ) -> None:
        """Add messages, each with its own `paper_bits`."""
        by_name = self._by_exchange[direction]
        if exchange not in by_name:
            by_name[exchange] = _Counter(Count())
        total, one = self._counts[direction], by_name[exchange]
        for counter in (total, one):
            counter.messages += n_messages
            counter.skips += skips
            counter.skip_messages += skip_messages
            counter.wire_bytes += n_bytes - local_bytes
            counter.local_bytes += local_bytes
            counter.payload_bits += payload_bits
        # In order, since floating-point sums depend on it. Where a round has one exchange, both are one sum.
        is_alone = total.paper_bits == one.paper_bits
        for bits in paper_bits:
            total.paper_bits += bits
            if not is_alone:
                one.paper_bits += bits
        if is_alone:
            one.paper_bits = total.paper_bits

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
        """Count one encoded frame.

        Args:
            direction: "up", "down" or "setup".
            frame: the frame.
            n_bytes: its encoded size.
            paper_bits: its size by the paper's formula.
            exchange: name of its exchange.
            local: whether it crosses no link.
            flag_bit: whether the method may skip, so that one more bit tells a packet from a skip.
            lead: whether it is frame 0 of those that one packet was split into; a skip is counted once.
        """
        packet, by_name = frame.packet, self._by_exchange[direction]
        if packet is None or exchange not in by_name:
            is_skip, bits = frame.skipped, frame.payload_bits if packet is None else packet.payload_bits + flag_bit
            self._add(
                direction, exchange, n_bytes, bits, (paper_bits,),
                skips=is_skip and lead, skip_messages=is_skip, local_bytes=n_bytes if local else 0,
            )  # fmt: skip
            return
        payload_bits = packet.payload_bits + flag_bit  # as `_add`, in one call: nearly all frames carry a packet
        total, one = self._counts[direction], by_name[exchange]
        total.messages += 1
        one.messages += 1
        total.payload_bits += payload_bits
        one.payload_bits += payload_bits
        total.paper_bits += paper_bits
        one.paper_bits += paper_bits
        if local:
            total.local_bytes += n_bytes
            one.local_bytes += n_bytes
        else:
            total.wire_bytes += n_bytes
            one.wire_bytes += n_bytes

    def frames(self, direction: Direction, sizes: FrameSizes, *, exchange: str, local: int | None) -> None:
        """Count the frames that one packet was split into, as `frame` does. `local` is the one that crosses no link."""
        self._add(
            direction, exchange, sizes.total_bytes, sizes.payload_bits, sizes.paper_bits,
            n_messages=len(sizes.paper_bits), skips=sizes.skips, skip_messages=len(sizes.n_bytes) if sizes.skips else 0,
            local_bytes=0 if local is None else sizes.n_bytes[local],
        )  # fmt: skip

    def collective(
        self,
        direction: Direction,
        n_bytes: int,
        payload_bits: int,
        paper_bits: float,
        exchange: str = "update",
        *,
        skips: bool = False,
    ) -> None:
        """Count a collective of known size: the engine's own, or one frame for many peers, which may be a skip."""
        self._add(direction, exchange, n_bytes, payload_bits, (paper_bits,), skips=skips, skip_messages=skips)

    def serve(self, n_messages: int, n_bytes: int, exchange: str) -> None:
        """Count frames that the server on this rank received from other ranks, or sent to them."""
        self._add("served", exchange, n_bytes, 0, (), n_messages=n_messages)

    def saved(self) -> dict[str, Any]:
        """Return the counts as data that JSON can hold."""
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
            self._counts[direction] = _Counter(Count(**saved["counts"].get(direction, {})))
            by_name = saved["by_exchange"].get(direction, {})
            self._by_exchange[direction] = {name: _Counter(Count(**count)) for name, count in by_name.items()}


def totals_by_exchange(meters: Sequence[Meter], direction: Direction) -> dict[str, Totals]:
    """Return the traffic of several workers in one direction by exchange. It is asked for after every round."""
    totals: dict[str, Totals] = {}
    for meter in meters:
        for name, counter in meter._by_exchange[direction].items():
            before = totals.get(name)
            totals[name] = _values(counter) if before is None else tuple(map(add, before, _values(counter)))
    return totals


class CountsSince(Mapping[str, Count]):
    """What was counted between two times, of the exchanges that had messages: made when it is read.

    It is taken after every round, while a step of training waits, and few who observe rounds read all of it at once.
    """

    def __init__(self, before: Mapping[str, Totals], now: Mapping[str, Totals]) -> None:
        """Take what `totals_by_exchange` has returned at both times."""
        self._before, self._now = before, now

    @cached_property
    def _counts(self) -> dict[str, Count]:
        counts = {}
        for name, values in self._now.items():
            count = values if name not in self._before else tuple(map(sub, values, self._before[name]))
            if count[_MESSAGES]:
                counts[name] = Count(**dict(zip(_Counter.__slots__, count, strict=True)))
        return counts

    def __getitem__(self, name: str) -> Count:
        return self._counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return repr(self._counts)


def sum_of_saved(meters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of what several meters saved, as one meter would have saved it."""

    def sum_of(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return asdict(reduce(add, (Count(**count) for count in counts)))

    return {
        "counts": {
            direction: sum_of([meter["counts"].get(direction, {}) for meter in meters]) for direction in _DIRECTIONS
        },
        "by_exchange": {
            direction: {
                name: sum_of([by_name[name] for by_name in of_meters if name in by_name])
                for name in dict.fromkeys(name for by_name in of_meters for name in by_name)
            }
            for direction in _DIRECTIONS
            for of_meters in [[meter["by_exchange"].get(direction, {}) for meter in meters]]
        },
    }
