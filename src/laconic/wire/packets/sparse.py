"""The values of some coordinates, and their positions. FORMAT.md, section 3.5."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import add_at, put_at
from laconic.wire.coding.positions import block_bits, decode_positions, encode_positions, entropy_bound_bits
from laconic.wire.head import VALUE_BITS
from laconic.wire.packets.dense import Dense, dense_bytes
from laconic.wire.packets.packet import KINDS, Packet, PayloadPart, Sizes
from laconic.wire.packets.positions import FIELDS_BYTES, index_range, read_fields, stream_bits, write_fields

_OF_POSITIONS = ("stream", "position_bits")  # cached properties


@dataclass(frozen=True, kw_only=True)
class Sparse(Packet):
    """The values of k coordinates, and which coordinates they are. The dense form is zero elsewhere.

    Raises:
        ValueError: `values` is of another kind or about other coordinates.
    """

    kind: ClassVar[int] = 7
    name: ClassVar[str] = "sparse"
    indices: Tensor
    """(k,) int64, counted from `offset`, in 0 .. count-1, ascending, each once."""
    values: Packet
    """A packet of a kind that can be nested, about the coordinates 0 .. k-1; dense where k is 0."""
    count: int
    """Number of coordinates."""
    offset: int = 0
    """Number of the first coordinate."""
    code: str = "block"
    """How the positions are coded: one of POSITION_CODES."""

    def __post_init__(self) -> None:
        k, values = self.indices.numel(), self.values
        if not values.is_nestable or (k == 0 and values.kind != Dense.kind):
            names = ", ".join(sorted(kind.name for kind in KINDS.values() if kind.is_nestable))
            raise ValueError(f"values of {k} elements cannot be {values.name!r}; give {names if k else Dense.name}")
        if (values.offset, values.count) != (0, k):
            raise ValueError(
                f"{k} indices need values of coordinates 0 .. {k - 1}, "
                f"not {values.offset} .. {values.offset + values.count - 1}"
            )

    @classmethod
    def of_sums(cls, indices: Tensor, sums: Tensor, count: int, offset: int = 0, code: str = "block") -> Self:
        """Return the packet of dense values (k,) at indices (k,), without those that are zero: sums may cancel."""
        if int(sums.count_nonzero()) < sums.numel():
            moves = sums != 0
            indices, sums = indices[moves], sums[moves]
        return cls(indices=indices, values=Dense(values=sums), count=count, offset=offset, code=code)

    @cached_property
    def stream(self) -> tuple[Tensor, int]:
        """The coded positions: (n,) uint8, and the length in bits."""
        return encode_positions(self.indices, self.count, self.code)

    @property
    def n_selected(self) -> int:
        """Number of positions."""
        return self.indices.numel()

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.values.dtype

    @property
    def value_type(self) -> torch.dtype:
        return self.values.value_type

    @cached_property
    def position_bits(self) -> int:
        """Length of the coded positions in bits."""
        return stream_bits(self)

    @property
    def payload_bits(self) -> int:
        return self.position_bits + self.values.payload_bits

    @property
    def encoded_bytes(self) -> int:
        values = self.values.encoded_bytes if self.indices.numel() else 0
        return FIELDS_BYTES + values + (self.position_bits + 7) // 8

    @property
    def paper_bits(self) -> float:
        return self.values.paper_bits

    @property
    def named_overheads(self) -> dict[str, float]:
        return {"positions": float(self.position_bits), **self.values.named_overheads}

    @property
    def minimum_bits(self) -> float:
        values = self.values.minimum_bits
        values_bits = self.values.payload_bits if values is None else values
        return entropy_bound_bits(self.count, self.indices.numel()) + values_bits

    @property
    def absolute_maximum(self) -> float:
        return self.values.absolute_maximum

    @property
    def finite(self) -> bool:
        return self.values.finite

    def dense(self) -> Tensor:
        full = torch.zeros(self.count, dtype=self.dtype, device=self.indices.device)
        full[self.indices] = self.values.dense()
        return full

    def put_into(self, out: Tensor) -> None:
        put_at(out, self.indices.to(out.device), self.values.dense().to(out))

    def add_to(self, total: Tensor) -> None:
        add_at(total, self.indices.to(total.device), self.values.dense().to(total))

    def unsent_of(self, vector: Tensor) -> Tensor:
        add_at(vector, self.indices.to(vector.device), -self.values.dense().to(vector))
        return vector

    def scaled(self, factor: float) -> Self:
        return replace(self, values=self.values.scaled(factor))

    def part(self, start: int, stop: int) -> Self:
        low, high = index_range(self.indices, self.offset, start, stop)
        indices = self.indices[low:high] - (start - self.offset)
        values = self._values_in(low, high)
        return type(self)(indices=indices, values=values, count=stop - start, offset=start, code=self.code)

    def as_read(self) -> Self | None:
        values = self.values.as_read() if self.indices.device.type == "cpu" else None
        if values is None:
            return None
        read = replace(self, values=values)
        read.__dict__.update({name: self.__dict__[name] for name in _OF_POSITIONS if name in self.__dict__})
        return read

    def sizes(self, bounds: Sequence[int]) -> Sizes:
        if self.code != "block" or not isinstance(self.values, Dense) or self.indices.device.type != "cpu":
            return super().sizes(bounds)
        _ = self.position_bits  # raises ValueError for positions that do not ascend
        starts = torch.searchsorted(self.indices, torch.tensor(bounds) - self.offset).tolist()
        counts = [stop - start for start, stop in pairwise(bounds)]
        ks = [high - low for low, high in pairwise(starts)]
        bits = [block_bits(count, k) for count, k in zip(counts, ks, strict=True)]
        a_value = VALUE_BITS[self.value_type]
        return Sizes(
            [
                FIELDS_BYTES + (n_bits + 7) // 8 + (dense_bytes(k, self.value_type) if k else 0)
                for n_bits, k in zip(bits, ks, strict=True)
            ],
            [n_bits + a_value * k for n_bits, k in zip(bits, ks, strict=True)],
            [32.0 * k for k in ks],
        )

    def _values_in(self, low: int, high: int) -> Packet:
        if isinstance(self.values, Dense):
            return Dense(values=self.values.values[low:high])
        if low == high:
            return Dense(values=torch.empty(0, dtype=self.value_type))
        part = self.values.part(low, high)
        return replace(part, offset=0)  # type: ignore[type-var]  # every kind is a dataclass

    def payload(self) -> list[PayloadPart]:
        data, n_bits = self.stream
        k = self.indices.numel()
        fields = write_fields(self.offset, self.count, k, self.code, self.values.kind, n_bits)
        return [fields, *(self.values.payload() if k else ()), data]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        offset, count, k, code, nested, n_bits = read_fields(payload, cls.name, max_count)
        kind = KINDS.get(nested)
        if kind is None or not kind.is_nestable or (k == 0 and nested != Dense.kind):
            raise WireError(f"sparse: values of kind {nested} for {k} positions")
        stop = payload.numel() - (n_bits + 7) // 8
        if stop < FIELDS_BYTES or (k == 0 and stop > FIELDS_BYTES):
            raise WireError(f"sparse: a payload of {payload.numel()} bytes with {n_bits} bits of positions")
        values: Packet
        if k:
            values = kind.read(payload[FIELDS_BYTES:stop], dtype, k)
            if values.count != k:
                raise WireError(f"sparse: {values.count} values for {k} positions")
        else:
            values = Dense(values=torch.empty(0, dtype=dtype))
        data = payload[stop:]
        indices = decode_positions(data, n_bits, k, count, code)
        packet = cls(indices=indices, values=values, count=count, offset=offset, code=code)
        packet.__dict__["stream"] = (data, n_bits)  # the cached property: it is known here
        return packet
