"""All values, uncompressed. FORMAT.md, section 3.1."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.buffer_pool import BUFFER_POOL
from laconic.errors import WireError
from laconic.kernels.api import absolute_maximum, add_up, elements_of, put_at
from laconic.torch_compat import version_of
from laconic.wire.head import VALUE_BITS
from laconic.wire.measured import Measured
from laconic.wire.packets.packet import Packet, PayloadPart, check_length, check_range, scaled_values

_FIELDS = struct.Struct("<II")
_FEW = 16  # where one value in so many is not zero, it is faster to go through a list of them than through all


def dense_bytes(count: int, value_type: torch.dtype) -> int:
    """Return the bytes of the payload of `count` values."""
    return _FIELDS.size + count * (VALUE_BITS[value_type] // 8)


@dataclass(frozen=True, kw_only=True)
class Dense(Packet):
    """All values of a vector, uncompressed."""

    kind: ClassVar[int] = 3
    name: ClassVar[str] = "dense"
    is_nestable: ClassVar[bool] = True
    values: Tensor
    """(count,) float32, float64 or bfloat16."""
    offset: int = 0
    """Number of the first coordinate."""

    @classmethod
    def of_elements(cls, indices: Tensor, values: Tensor, out: Tensor, offset: int = 0) -> Self:
        """Return the packet of a vector that is zero but for some elements, which `elements` then has.

        Args:
            indices: (k,) int64, each once.
            values: (k,), the elements there.
            out: (count,), overwritten with the vector.
            offset: Number of the first coordinate.
        """
        put_at(out, indices.to(out.device), values.to(out))
        packet = cls(values=out, offset=offset)
        packet.__dict__.update(absolute_maximum=absolute_maximum(values), elements=(indices, values))  # cached, too
        return packet

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.values.shape[0]

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return torch.float32 if self.values.dtype == torch.bfloat16 else self.values.dtype

    @property
    def value_type(self) -> torch.dtype:
        return self.values.dtype

    @property
    def payload_bits(self) -> int:
        return VALUE_BITS[self.values.dtype] * self.values.shape[0]

    @property
    def paper_bits(self) -> float:
        return 32.0 * self.values.shape[0]

    @property
    def named_overheads(self) -> dict[str, float]:
        return {"value type": self.payload_bits - self.paper_bits} if self.value_type != torch.float32 else {}

    @cached_property
    def elements(self) -> tuple[Tensor, Tensor] | None:
        """Indices (k,) outside which the values are zero, and the values there, where they are few; else None."""
        values = self.values
        if not values.is_cpu or values.dtype not in (torch.float32, torch.float64):
            return None
        return elements_of(values, values.numel() // _FEW)

    @cached_property
    def absolute_maximum(self) -> float:
        return absolute_maximum(self.values)

    def measured(self, largest: float, checksum: int | None = None) -> Self:
        """Return this packet, which takes `largest` for the largest magnitude of its values, or for a bound on it.

        Args:
            largest: The magnitude.
            checksum: The CRC-32 of the values' bytes, if it is known, for as long as nothing changes them.
        """
        self.__dict__["absolute_maximum"] = largest  # the cached property
        return self if checksum is None else self.with_parts({(0, self.count): (largest, checksum)})

    def with_parts(self, parts: Mapping[tuple[int, int], tuple[float, int]]) -> Self:
        """Return this packet, of whose values some parts are known, for as long as nothing changes them.

        Args:
            parts: By start and stop in the values, the largest magnitude and the CRC-32 of the bytes.
        """
        if parts:
            self.__dict__["_parts"] = parts, version_of(self.values)
        return self

    def known_checksum(self) -> int | None:
        """Return the CRC-32 of the values' bytes, if it is known."""
        known = self._known(0, self.count)
        return None if known is None else known[1]

    def _known(self, start: int, stop: int) -> tuple[float, int] | None:
        """Return what `with_parts` was given of a part."""
        parts, version = self.__dict__.get("_parts", ({}, 0))
        return parts.get((start, stop)) if parts and version == version_of(self.values) else None

    def dense(self) -> Tensor:
        return self.values.to(self.dtype)

    def put_as_sum(self, out: Tensor) -> None:
        if self.values.dtype == out.dtype and self.values.device == out.device:
            torch.add(self.values, 0.0, out=out)
        else:
            super().put_as_sum(out)

    @classmethod
    def put_sum(cls, packets: Sequence[Self], out: Tensor, divisor: int = 1) -> float | None:
        """Overwrite `out` (count,) with the packets' sum from 0, in their order, divided, in one pass over all.

        Returns:
            The largest magnitude of `out`; None where values have another type, or are elsewhere: then it is not made.
        """
        vectors = [packet.values for packet in packets]
        if any(vector.dtype != out.dtype or vector.device != out.device for vector in vectors):
            return None
        return add_up(vectors, out, divisor=divisor)

    def unsent_of(self, vector: Tensor) -> Tensor:
        return vector - self.dense()  # not in place: the values may be the vector

    def scaled(self, factor: float) -> Self:
        return replace(self, values=scaled_values(self.values, factor))

    def part(self, start: int, stop: int) -> Self:
        place = start - self.offset, stop - self.offset
        made, known = type(self)(values=self.values[slice(*place)], offset=start), self._known(*place)
        return made if known is None else made.measured(*known)

    def as_read(self) -> Self | None:
        if self.values.device.type != "cpu":
            return None
        values = BUFFER_POOL.borrow(self.values.numel() * self.values.element_size()).view(self.values.dtype)
        return type(self)(
            values=values.copy_(self.values), offset=self.offset
        )  # the sender may overwrite its own values

    def payload(self) -> list[PayloadPart]:
        return [_FIELDS.pack(self.offset, self.count), self.values.contiguous()]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int, known: Measured | None = None) -> Self:
        """Read a payload, as `Packet.read`; `known`: what is known of its values."""
        if payload.numel() < _FIELDS.size:
            raise WireError(f"dense: a payload of {payload.numel()} bytes has no room for its fields")
        offset, count = _FIELDS.unpack_from(payload.numpy())  # type: ignore[arg-type]
        check_range(offset, count, max_count)
        check_length(payload, dense_bytes(count, dtype), "dense")
        packet = cls(values=payload[_FIELDS.size :].view(dtype), offset=offset)
        if known is not None:
            packet.measured(known.largest, known.checksum)
        if not packet.finite:
            raise WireError("dense: inf or NaN among the values")
        return packet
