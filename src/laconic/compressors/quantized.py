"""b bits a value, rounded at random to one of the two nearest grid points, so that the mean is the value.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, section 3.1.1. With scaling "min-max" the grid points
of a block are min + i (max - min) / (2**b - 1). With "l2" they are the levels of QSGD: one bit is the sign, and the
others count multiples of norm / (2**(b-1) - 1).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from laconic.compressors.compressor import BlockCompressor, as_values
from laconic.compressors.levels import level_variances, levels, levels_outgrow_residual, place_variances
from laconic.contract import Accept, ModelSpec, Worker
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import (
    BlockLengths,
    all_finite,
    norms,
    quantize,
    quantize_tensors,
    ranges,
    ranges_of_tensors,
)
from laconic.wire import LONG_BYTES, Ends, LateCodes, Levels, Packet, QuantizedValues

_ONE_BIT_BLOCK = (
    16  # in blocks of this size or more, (max - v)(v - min) adds up to more than v^2, also for a residual v
)


@dataclass(frozen=True, kw_only=True)
class Quantized(BlockCompressor):
    """Randomized quantization to b bits. With coarse settings a residual grows: see `outgrows_residual`."""

    name: ClassVar[str] = "quantized"
    unbiased: ClassVar[bool] = True
    test_settings: ClassVar[Mapping[str, Any]] = {"bits": 4}

    bits: int = hyperparameter(8, "b, bits of a value", within="[1, 8]", unit="bits")
    blocks: str = hyperparameter(
        "vector", 'one range for the "vector", for each "layer", or for each block of this many elements'
    )
    scaling: str = hyperparameter(
        "min-max", "grid points between minimum and maximum, or fractions of the norm", choices=("min-max", "l2")
    )
    entropy: bool = hyperparameter(False, "send frequent codes in fewer bits")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scaling == "l2" and self.bits == 1:
            raise ValueError(
                f"{self.name}: bits=1 with scaling='l2' has room for a sign alone; it must be in 2 .. 8, "
                "or take the compressor scaled-sign"
            )

    @property
    def _steps(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def __call__(
        self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0
    ) -> QuantizedValues | Levels:
        values = as_values(vector)
        lengths = self.lengths(values.numel(), spec)
        if self.scaling == "l2":
            scales = norms(values, lengths)
            return levels(values, scales, lengths, self._steps, entropy=self.entropy, offset=offset, key=key)
        return self._rounded(values, ranges(values, lengths), lengths, offset, key)

    def _rounded(self, values: Tensor, ends: Ends, lengths: BlockLengths, offset: int, key: int) -> QuantizedValues:
        packed = quantize(values, *ends, lengths, self.bits, offset, key)
        return self._packet(packed, ends, lengths, offset)

    def _packet(self, packed: Tensor, ends: Ends, lengths: BlockLengths, offset: int) -> QuantizedValues:
        return QuantizedValues(
            packed=packed, count=lengths.total, lows=ends[0], highs=ends[1], lengths=lengths, bits=self.bits,
            entropy=self.entropy, offset=offset,
        )  # fmt: skip

    def of_gradient(self, me: Worker, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Packet:
        tensors, dtype = me.gradient_tensors, me.memory.dtype
        are_read = all(tensor.is_cpu and tensor.dtype is dtype for tensor in tensors)
        if self.scaling == "l2" or not are_read:
            return super().of_gradient(me, spec=spec, key=key, offset=offset)
        lengths = self.lengths(me.count, spec)
        ends = ranges_of_tensors(tensors, lengths)
        me.require(all(map(all_finite, ends)))  # no NaN is between two numbers
        packed = quantize_tensors(tensors, *ends, lengths, self.bits, offset, key)
        return self._packet(packed, ends, lengths, offset)

    def of_measured(
        self, vector: Tensor, ends: Ends | None, *, replaces: bool = False, spec: ModelSpec | None = None,
        key: int = 0, offset: int = 0,
    ) -> Packet:  # fmt: skip
        lengths = self.lengths(vector.numel(), spec)
        if ends is None or self.scaling == "l2" or len(lengths) > 1:
            return self(vector, spec=spec, key=key, offset=offset)
        is_long = vector.is_cpu and vector.dtype is ends[0].dtype and self.bits * vector.numel() >= 8 * LONG_BYTES
        if is_long and not self.entropy and vector.is_contiguous():
            codes = LateCodes(vector, ends, self.bits, offset, key, replaces=replaces)
            return QuantizedValues.late(codes, ends, self.bits, offset)
        return self._rounded(vector, ends, lengths, offset, key)

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        lengths = self.lengths(spec.d, spec)
        if self.scaling == "l2":
            return Accept(Levels, steps=self._steps, lengths=lengths, entropy=self.entropy)
        return Accept(QuantizedValues, bits=self.bits, lengths=lengths, entropy=self.entropy)

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        return None

    def variances(self, vector: Tensor, spec: ModelSpec | None = None) -> Tensor:
        """Return D^2 f (1 - f), at most D^2 / 4, with D the distance of grid points and f D that to the lower one."""
        values = as_values(vector)
        lengths = self.lengths(values.numel(), spec)
        if self.scaling == "l2":
            return level_variances(values, norms(values, lengths), lengths, self._steps)
        return place_variances(values, *ranges(values, lengths), lengths, (1 << self.bits) - 1)

    def outgrows_residual(self, spec: ModelSpec) -> bool:
        lengths = self.lengths(spec.d, spec)
        if self.scaling == "l2":
            return levels_outgrow_residual(lengths, self._steps)
        return self.bits == 1 and lengths.longest >= _ONE_BIT_BLOCK

    def paper_bits(self, spec: ModelSpec) -> float:
        norms_bits = (
            32 * len(self.lengths(spec.d, spec)) if self.scaling == "l2" else 0
        )  # the section does not count ends
        return float(self.bits * spec.d + norms_bits)
