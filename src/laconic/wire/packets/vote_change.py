"""A changed vote: the coordinates added and those dropped (SSGD-MV-AD). FORMAT.md, section 3.6."""

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.wire.coding.positions import decode_positions, encode_positions, entropy_bound_bits, paper_position_bits
from laconic.wire.packets.packet import Packet, PayloadPart, check_length
from laconic.wire.packets.positions import FIELDS_BYTES, add_ones, code_overhead, indicator, read_fields, write_fields

_MORE_FIELDS = struct.Struct("<IQ")


@dataclass(frozen=True, kw_only=True)
class VoteChange(Packet):
    """The coordinates that a list gains, and those that it loses.

    Sender and receiver both hold the last list, ascending. A dropped coordinate is named by its index in that list. The
    dense form is one at the added coordinates; those dropped mean nothing without the list.

    Raises:
        ValueError: `added` and `dropped` differ in length.
    """

    kind: ClassVar[int] = 8
    name: ClassVar[str] = "vote change"
    has_values: ClassVar[bool] = False
    absolute_maximum: ClassVar[float] = 1.0
    added: Tensor
    """(k,) int64 coordinates, counted from `offset`, in 0 .. count-1, ascending, each once."""
    dropped: Tensor
    """(k,) int64 indices in the last list, ascending, each once."""
    count: int
    """Number of coordinates."""
    listed: int
    """Length of the list."""
    offset: int = 0
    """Number of the first coordinate."""
    code: str = "block"
    """How the positions are coded: one of POSITION_CODES."""

    def __post_init__(self) -> None:
        if self.added.numel() != self.dropped.numel():
            raise ValueError(
                f"{self.added.numel()} added and {self.dropped.numel()} dropped: a list keeps its length, "
                "so drop as many as you add"
            )

    @cached_property
    def streams(self) -> tuple[tuple[Tensor, int], tuple[Tensor, int]]:
        """The coded `added` and `dropped`: for each (n,) uint8, and the length in bits."""
        return (
            encode_positions(self.added, self.count, self.code),
            encode_positions(self.dropped, self.listed, self.code),
        )

    @property
    def n_added(self) -> int:
        """Number of added coordinates, which is that of the dropped ones."""
        return self.added.numel()

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return torch.float32

    @property
    def payload_bits(self) -> int:
        (_, added_bits), (_, dropped_bits) = self.streams
        return added_bits + dropped_bits

    @property
    def paper_bits(self) -> float:
        return 2 * paper_position_bits(self.count, self.added.numel())

    @property
    def named_overheads(self) -> dict[str, float]:
        return code_overhead(self.payload_bits, self.paper_bits)

    @property
    def minimum_bits(self) -> float:
        k = self.added.numel()
        return entropy_bound_bits(self.count, k) + entropy_bound_bits(self.listed, k)

    def dense(self) -> Tensor:
        return indicator(self.added, self.count)

    def add_to(self, total: Tensor) -> None:
        add_ones(total, self.added)

    def scaled(self, factor: float) -> Self:
        return self

    def part(self, start: int, stop: int) -> Self:
        raise AssertionError("vote changes cannot be split: their methods are not separable")

    def as_read(self) -> Self | None:
        return self if self.added.device.type == "cpu" else None

    def payload(self) -> list[PayloadPart]:
        (added, added_bits), (dropped, dropped_bits) = self.streams
        fields = write_fields(self.offset, self.count, self.added.numel(), self.code, 0, added_bits)
        return [fields, _MORE_FIELDS.pack(self.listed, dropped_bits), added, dropped]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        offset, count, k, code, nested, added_bits = read_fields(payload, cls.name, max_count)
        start = FIELDS_BYTES + _MORE_FIELDS.size
        if payload.numel() < start:
            raise WireError(f"vote change: a payload of {payload.numel()} bytes has no room for its fields")
        listed, dropped_bits = _MORE_FIELDS.unpack(bytes(payload[FIELDS_BYTES:start].numpy()))
        if nested or dtype != torch.float32:
            raise WireError(f"vote changes have no values, of kind {nested} or of type {dtype}")
        if not k <= listed <= count:
            raise WireError(f"vote change: {k} of a list of {listed} among {count} coordinates")
        middle = start + (added_bits + 7) // 8
        check_length(payload, middle + (dropped_bits + 7) // 8, cls.name)
        streams = (payload[start:middle], added_bits), (payload[middle:], dropped_bits)
        packet = cls(
            added=decode_positions(*streams[0], k, count, code),
            dropped=decode_positions(*streams[1], k, listed, code),
            count=count, listed=listed, offset=offset, code=code,
        )  # fmt: skip
        packet.__dict__["streams"] = streams  # the cached property: they are known here
        return packet
