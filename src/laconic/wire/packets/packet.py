"""What an algorithm yields and a server answers: a compressed vector that knows its own dense form."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from laconic.errors import WireError

PayloadPart = bytes | Tensor  # of a payload; tensors are contiguous


class Size(NamedTuple):
    """How long the payload of a packet is, and what it says."""

    encoded_bytes: int
    payload_bits: int
    paper_bits: float


class Sizes(NamedTuple):
    """Those of several packets, one element for each."""

    encoded_bytes: list[int]
    payload_bits: list[int]
    paper_bits: list[float]

    @classmethod
    def of(cls, sizes: Sequence[Size]) -> Self:
        """In columns."""
        return cls(*([size[place] for size in sizes] for place in range(3)))  # type: ignore[arg-type]


class Packet(ABC):
    """The coordinates first .. first+count-1 of a vector, in some compressed form.

    One subclass a kind, in a file of its own that also holds the kind's bytes.
    """

    kind: ClassVar[int]
    name: ClassVar[str]
    offset: int
    count: int
    dtype: torch.dtype  # of the dense form

    @property
    def value_type(self) -> torch.dtype:
        """The type of the values on the wire."""
        return self.dtype

    @property
    @abstractmethod
    def payload_bits(self) -> int:
        """Every information bit that the receiver needs and cannot derive; no framing, no padding."""

    @property
    @abstractmethod
    def paper_bits(self) -> float:
        """What the papers' formulas charge for this packet."""

    @property
    def named_overheads(self) -> dict[str, float]:
        """Why `payload_bits` is not `paper_bits`: the differences by name; they add up exactly."""
        return {}

    @property
    def finite(self) -> bool:
        """Whether no value to be sent is inf or NaN; a decoder refuses those."""
        return True

    @abstractmethod
    def dense(self) -> Tensor:
        """The vector that this packet stands for: (count,) of dtype."""

    def put_into(self, out: Tensor) -> None:
        """out (count,) = dense(), in out's type."""
        out.copy_(self.dense())

    def add_to(self, total: Tensor) -> None:
        """total (count,) += dense()."""
        total.add_(self.dense())

    def unsent_of(self, vector: Tensor, out: Tensor) -> Tensor:
        """out = vector - dense(), (count,) all: what is left of `vector` when this packet was made of it."""
        self.put_into(out)
        return torch.sub(vector, out, out=out)

    @abstractmethod
    def part(self, start: int, stop: int) -> Self:
        """The packet of the coordinates first .. stop-1 alone (numbers of the whole vector)."""

    @property
    def size(self) -> Size:
        """Its own; nothing is put together for it."""
        lengths = (len(p) if isinstance(p, bytes) else p.numel() * p.element_size() for p in self.payload())
        return Size(sum(lengths), self.payload_bits, self.paper_bits)

    def sizes(self, bounds: Sequence[int]) -> Sizes:
        """Those of the parts from each coordinate in `bounds` to the next one, ascending."""
        return Sizes.of([self.part(start, stop).size for start, stop in pairwise(bounds)])

    def as_read(self) -> Self | None:
        """What a reader makes of this packet's bytes, where that is known without them; else None."""
        return None

    @abstractmethod
    def payload(self) -> list[PayloadPart]:
        """The bytes after the header, in pieces."""

    @classmethod
    @abstractmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        """Read a payload: (n,) uint8. No coordinate at or above `max_count` may appear.

        Raises WireError, before allocating more than `max_count` coordinates need.
        """


def check_range(offset: int, count: int, max_count: int) -> None:
    """Refuse coordinates outside the receiver's vector."""
    if count < 1 or offset + count > max_count:
        raise WireError(f"coordinates {offset} .. {offset + count - 1} are not within a vector of {max_count}")


def check_length(payload: Tensor, expected: int, what: str) -> None:
    """Refuse a payload that is not exactly as long as its own fields say."""
    if payload.numel() != expected:
        raise WireError(f"{what}: a payload of {payload.numel()} bytes, its fields need {expected}")


def check_padding(last_byte: int, bits: int) -> None:
    """Refuse set bits behind the last one that means something."""
    if bits % 8 and last_byte >> (bits % 8):
        raise WireError(f"the padding after bit {bits} is not zero")
