"""A packet: a compressed vector, with its dense form and its bytes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from laconic.buffer_pool import new_vector
from laconic.errors import WireError
from laconic.kernels.api import absolute_maximum, part_of, scatter, slice_tensors

PayloadPart = bytes | Tensor  # tensors are contiguous
Ends = tuple[Tensor, Tensor]
"""The minimum and the maximum of a vector, (1,) of its type each, or of each of its blocks, (blocks,)."""


KINDS: dict[int, "type[Packet]"] = {}
"""Every kind of packet by its number; `packets/__init__.py` fills it from the files of its folder."""


class Size(NamedTuple):
    """Length of a packet's payload."""

    encoded_bytes: int
    """Bytes of the payload."""
    payload_bits: int
    """Information bits of the payload."""
    paper_bits: float
    """Bits that the papers' formulas count for it."""


class Sizes(NamedTuple):
    """Lengths of the payloads of several packets, one element for each."""

    encoded_bytes: list[int]
    """Bytes of each payload."""
    payload_bits: list[int]
    """Information bits of each payload."""
    paper_bits: list[float]
    """Bits that the papers' formulas count for each."""

    @classmethod
    def of(cls, sizes: Sequence[Size]) -> Self:
        """Return the sizes as three lists."""
        return cls(*([size[place] for size in sizes] for place in range(3)))  # type: ignore[arg-type]


class Packet(ABC):
    """The coordinates offset .. offset+count-1 of a vector, in some compressed form.

    Each kind is a subclass in a file of its own, which also defines the bytes of that kind.
    """

    kind: ClassVar[int]
    """Number of the kind on the wire, below 128."""
    name: ClassVar[str]
    """Name of the kind in messages."""
    has_values: ClassVar[bool] = True
    """Whether its numbers are of a value type that the method chooses."""
    shows_magnitudes: ClassVar[bool] = True
    """Whether the magnitudes of the vector that it was made of bound its own from below: not of signs or a draw."""
    is_nestable: ClassVar[bool] = False
    """Whether a sparse packet may carry this kind as the values of its positions."""
    offset: int
    """Number of the first coordinate."""
    count: int
    """Number of coordinates."""
    dtype: torch.dtype
    """Type of the dense form."""

    @property
    def value_type(self) -> torch.dtype:
        """The type of the values on the wire."""
        return self.dtype

    @property
    @abstractmethod
    def payload_bits(self) -> int:
        """Information bits that the receiver needs and cannot derive, without framing and padding."""

    @property
    @abstractmethod
    def paper_bits(self) -> float:
        """Bits that the papers' formulas count for this packet."""

    @property
    def named_overheads(self) -> dict[str, float]:
        """The difference of `payload_bits` and `paper_bits`, as named parts that add up to it exactly."""
        return {}

    @property
    def minimum_bits(self) -> float | None:
        """The minimum bits of any code of single symbols; None where values are sent as they are.

        Positions have log2 C(count, k) bits, signs one bit, levels their empirical entropy. Scales count at their full
        width.
        """
        return None

    @cached_property
    def absolute_maximum(self) -> float:
        """The largest magnitude that its numbers allow the dense form; NaN if one of them is NaN."""
        return absolute_maximum(self.dense())

    @property
    def finite(self) -> bool:
        """Whether no value to be sent is inf or NaN. A decoder refuses such values."""
        return math.isfinite(self.absolute_maximum)

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the vector that this packet stands for, (count,) of type `dtype`."""

    def put_into(self, out: Tensor) -> None:
        """Overwrite `out` (count,) with the dense form, in the type of `out`."""
        out.copy_(self.dense())

    def put_at(self, full: Tensor, start: int) -> None:
        """Overwrite the `count` elements of a vector from `start` on with the dense form."""
        self.put_into(part_of(full, start, start + self.count))

    @classmethod
    def put_in_row(cls, packets: Sequence["Packet"], full: Tensor, start: int) -> bool:
        """Do the same with packets that follow each other, in fewer calls; return whether it did.

        It does not where a kind has no way to do so, or none for these packets.
        """
        return False

    @property
    def goes_across(self) -> bool:
        """Whether `put_across` takes one pass, without a vector (count,)."""
        return False

    def put_across(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors of any shapes, one behind the other and of `count` elements in all, with the dense form."""
        scatter(self.dense(), tensors)

    def add_to(self, total: Tensor) -> None:
        """Add the dense form to `total` (count,), in place."""
        total.add_(self.dense().to(total))

    def put_moved(self, base: Tensor, out: Tensor) -> None:
        """Overwrite `out` (count,) with `base` (count,) plus the dense form. They share no memory."""
        self.add_to(out.copy_(base))

    def put_as_sum(self, out: Tensor) -> None:
        """Overwrite `out` (count,) with 0 plus the dense form, so that no element is -0.0: the first of a sum."""
        self.add_to(out.zero_())

    @classmethod
    def sum_into(cls, packets: Sequence[Self], out: Tensor, divisor: int = 1) -> bool | Ends:
        """Overwrite `out` (count,) with the packets' sum from 0, in their order, divided, in one pass over all.

        Returns:
            Whether it did: not where a kind has no such pass, or none for these packets and this type of `out`. If it
            did and knows them, the minimum and the maximum of `out`.
        """
        return False

    def unsent_of(self, vector: Tensor) -> Tensor:
        """Return what the packet leaves out of a vector: `vector` less the dense form.

        Args:
            vector: (count,) of floats, which this packet was made from; overwritten, unless the packet holds it.
        """
        if vector.dtype != self.dtype or vector.device.type != "cpu":
            return vector.sub_(self.dense())
        sent = new_vector(vector.numel(), vector.dtype)  # new pages would take longer than the rest
        self.put_into(sent)
        return vector.sub_(sent)

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """Return the packet whose dense form is `factor` times as large, rounded.

        What would overflow becomes the largest finite value. Signs have no magnitude and are only inverted. Positions
        have no sign either and do not change.
        """

    @abstractmethod
    def part(self, start: int, stop: int) -> Self:
        """Return the packet of the coordinates start .. stop-1 alone, as numbered in the complete vector."""

    @property
    def encoded_bytes(self) -> int:
        """Bytes of the payload, without assembling it."""
        n_bytes = 0
        for part in self.payload():
            n_bytes += len(part) if isinstance(part, bytes) else part.nbytes
        return n_bytes

    @property
    def size(self) -> Size:
        """Length of the payload, without assembling it."""
        return Size(self.encoded_bytes, self.payload_bits, self.paper_bits)

    def sizes(self, bounds: Sequence[int]) -> Sizes:
        """Return the sizes of the parts between neighboring coordinates in `bounds`, which ascend."""
        return Sizes.of([self.part(start, stop).size for start, stop in pairwise(bounds)])

    def as_read(self) -> Self | None:
        """Return the packet that a reader decodes from this one's bytes; None where only the bytes show it."""
        return None

    @abstractmethod
    def payload(self) -> list[PayloadPart]:
        """Return the bytes after the header, as a list of parts."""

    @classmethod
    @abstractmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        """Read a payload.

        Args:
            payload: (n,) uint8 on the CPU.
            dtype: Type of the values on the wire, from the header.
            max_count: Length of the receiver's vector; all coordinates must be below it.

        Raises:
            WireError: The payload is not valid. No more is allocated before than `max_count` coordinates need.
        """


def scaled_values(values: Tensor, factor: float) -> Tensor:
    """Return `factor` times the values (n,) in their own type; overflow gives the largest finite value."""
    largest = torch.finfo(values.dtype).max
    return (values.double() * factor).clamp_(-largest, largest).to(values.dtype)  # a float32 factor might be inf


def check_range(offset: int, count: int, max_count: int) -> None:
    """Raise WireError for coordinates outside the receiver's vector of `max_count`."""
    if count < 1 or offset + count > max_count:
        raise WireError(f"coordinates {offset} .. {offset + count - 1} are not within a vector of {max_count}")


def check_length(payload: Tensor, expected: int, what: str) -> None:
    """Raise WireError for a payload whose length is not the one that its fields require."""
    if payload.nbytes != expected:
        raise WireError(f"{what}: a payload of {payload.nbytes} bytes, its fields need {expected}")


def check_padding(last_byte: int, bits: int) -> None:
    """Raise WireError for set bits after the last bit of a stream."""
    if bits % 8 and last_byte >> (bits % 8):
        raise WireError(f"the padding after bit {bits} is not zero")


def put_across(packets: Sequence[Packet], tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors of any shapes, one behind the other, with the dense forms of packets that lie so too."""
    start = 0
    for packet in packets:
        packet.put_across(slice_tensors(tensors, start, start + packet.count))
        start += packet.count
