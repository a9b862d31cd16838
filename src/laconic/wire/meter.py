"""Three counts of the same traffic, kept side by side.

`wire` is the length of what was encoded and crossed a link, `payload` its information bits, `paper` what the
paper's formula charges. A rank that is worker and server at once hands itself its own packet: that crosses no
link, so it counts in `payload` and `paper` (the papers charge every worker) and under `local` instead of `wire`.
A round with several exchanges (positions, then values) is also counted by exchange.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from laconic.wire.codec import Frame

Direction = Literal["up", "down", "setup"]


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


class Meter:
    """Counts one rank's traffic: up from the worker's end, down at the worker's end."""

    def __init__(self) -> None:
        self.counts: dict[Direction, Count] = {"up": Count(), "down": Count(), "setup": Count()}
        self.by_exchange: dict[Direction, dict[str, Count]] = {"up": {}, "down": {}, "setup": {}}

    def _add(self, direction: Direction, exchange: str, count: Count) -> None:
        self.counts[direction] += count
        by_name = self.by_exchange[direction]
        by_name[exchange] = by_name.get(exchange, Count()) + count

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
        count = Count(
            messages=1,
            skips=int(lead and packet is None and not frame.void),
            wire_bytes=0 if local else n_bytes,
            local_bytes=n_bytes if local else 0,
            payload_bits=frame.payload_bits + (1 if flag_bit and packet is not None else 0),
            paper_bits=paper_bits,
        )
        self._add(direction, exchange, count)

    def frames(self, direction: Direction, sizes: FrameSizes, *, exchange: str, local: int | None) -> None:
        """Count the frames that one packet was cut into, the same as by `frame` one after the other.

        local: which of them crosses no link.
        """
        local_bytes = 0 if local is None else sizes.n_bytes[local]
        by_name = self.by_exchange[direction]
        self.counts[direction] = _more(self.counts[direction], sizes, local_bytes)
        by_name[exchange] = _more(by_name.get(exchange, _NOTHING), sizes, local_bytes)

    def collective(
        self, direction: Direction, n_bytes: int, payload_bits: int, paper_bits: float, exchange: str = "update"
    ) -> None:
        """Count a collective: an engine's own, whose bytes are known by its algorithm, or one frame for many peers."""
        count = Count(messages=1, wire_bytes=n_bytes, payload_bits=payload_bits, paper_bits=paper_bits)
        self._add(direction, exchange, count)

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
        for direction in self.counts:
            self.counts[direction] = Count(**saved["counts"][direction])
            counts = saved["by_exchange"][direction]
            self.by_exchange[direction] = {name: Count(**count) for name, count in counts.items()}


_NOTHING = Count()


def _more(before: Count, sizes: FrameSizes, local_bytes: int) -> Count:
    paper_bits = before.paper_bits
    for bits in sizes.paper_bits:  # not summed up first: sums of floats depend on the order
        paper_bits += bits
    return Count(
        messages=before.messages + len(sizes.n_bytes),
        skips=before.skips + sizes.skips,
        wire_bytes=before.wire_bytes + sizes.total_bytes - local_bytes,
        local_bytes=before.local_bytes + local_bytes,
        payload_bits=before.payload_bits + sizes.payload_bits,
        paper_bits=paper_bits,
    )
