"""The counts of a `Traffic` as rows of text, for a terminal and for a notebook."""

from collections.abc import Mapping, Sequence

from laconic.telemetry.meter import Count
from laconic.units import bytes_text, seconds_text

VIRTUAL = "virtual"
"""The name of a simulation's time among `Traffic.seconds`."""
NOT_COUNTED = "-"
NOTE = f"wire, local: bytes; payload, paper: bits / 8; {NOT_COUNTED}: not counted"


def count_rows(counts: Mapping[str, Count], others: Mapping[str, Count]) -> list[list[str]]:
    """Return the header and a row for each count. What is not counted is shown as "-", never as 0.

    Args:
        counts: What was sent, by name.
        others: Counts of messages and wire bytes alone; each has a row if there is any.
    """
    every = {**counts, **{name: count for name, count in others.items() if count.messages}}
    with_skips = any(count.skip_messages for count in every.values())
    skip_column = ["skip messages"] if with_skips else []
    rows = [["", "messages", "skips", *skip_column, "wire", "local", "payload", "paper"]]
    for name, count in every.items():
        in_meters = name in counts
        skip_cell = [f"{count.skip_messages:,}" if in_meters else NOT_COUNTED] if with_skips else []
        rows.append([
            name, f"{count.messages:,}", f"{count.skips:,}" if in_meters else NOT_COUNTED, *skip_cell,
            bytes_text(count.wire_bytes), bytes_text(count.local_bytes) if in_meters else NOT_COUNTED,
            bytes_text(count.payload_bits / 8) if in_meters else NOT_COUNTED, _paper_text(count, in_meters=in_meters),
        ])  # fmt: skip
    return rows


def _paper_text(count: Count, *, in_meters: bool) -> str:
    """Return the paper's figure in bytes. A formula that leaves packets out does not say that they are empty."""
    has_packets = count.messages > count.skip_messages
    left_out = has_packets and not count.paper_bits
    return NOT_COUNTED if left_out or not in_meters else bytes_text(count.paper_bits / 8)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines of text, the first column at the left and the others at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(both)
        ).rstrip()
        for both in (zip(row, widths, strict=True) for row in rows)
    ]


def seconds_line(seconds: Mapping[str, float], rounds: int) -> str:
    """Return the times, with a word on whether they are simulated or those of a clock on the wall."""
    if VIRTUAL in seconds:
        if rounds and not seconds[VIRTUAL]:
            return "simulated time: none, since neither link nor compute time is given"
        return f"simulated time: {seconds_text(seconds[VIRTUAL] or 0.0)}"
    phases = ", ".join(f"{name} {seconds_text(value)}" for name, value in seconds.items())
    return f"wall time: {phases}" if phases else ""
