"""Values with a short mantissa: rounded stochastically to a power of two, or with the low bits cleared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic.compressors.compressor import Compressor, as_values
from laconic.contract import Accept, ModelSpec
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import power_codes, powers_and_fractions
from laconic.wire import ShortFloats, short_bits


@dataclass(frozen=True, kw_only=True)
class Natural(Compressor):
    """A neighboring power of two, rounded stochastically so that the mean is the value: a sign and an exponent.

    Horvath, Ho, Horvath, Sahu, Canini, Richtarik: Natural Compression for Distributed Deep Learning, 2019. Magnitudes
    of 2**127 or more (float64: 2**1023) are rounded down, since no larger power can be sent.
    """

    name: ClassVar[str] = "natural"
    unbiased: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> ShortFloats:
        values = as_values(vector)
        exponents, finite = power_codes(values, offset, key)
        packet = ShortFloats(
            exponents=exponents,
            tails=exponents[:0],
            mantissa_bits=0,
            count=values.numel(),
            dtype=values.dtype,
            offset=offset,
        )
        packet.__dict__["finite"] = finite  # the cached property: it is known here
        return packet

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return Accept(ShortFloats, mantissa_bits=0)

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        return None

    def variances(self, vector: Tensor, spec: ModelSpec | None = None) -> Tensor:
        """Return (|v| - a) (b - |v|), at most |v|^2 / 8, with a and b = 2a the powers below and above."""
        values = as_values(vector)
        below, fractions = powers_and_fractions(values)
        rise = values.double().abs() - below  # also where the power below is zero, and the one above the smallest
        return torch.where(fractions > 0, rise.square() * (1 - fractions) / fractions, rise.square())

    def paper_bits(self, spec: ModelSpec) -> float:
        return float(short_bits(0) * spec.d)


@dataclass(frozen=True, kw_only=True)
class Clipped(Compressor):
    """Values rounded toward zero by clearing the low bits of the mantissa. Biased.

    Liu, Zhang: Distributed Learning Systems with First-Order Methods, section 3.2, clipping.
    """

    name: ClassVar[str] = "clipped"
    separable: ClassVar[bool] = True
    test_settings: ClassVar[Mapping[str, Any]] = {"mantissa_bits": 0}

    mantissa_bits: int = hyperparameter(7, "bits of the mantissa that are sent", within="[0, 22]", unit="bits")

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> ShortFloats:
        return ShortFloats.of(as_values(vector), self.mantissa_bits, offset)

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return Accept(ShortFloats, mantissa_bits=self.mantissa_bits)

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        """Return 1 - 1/(2^m + 1)^2: of 1.f at most 2^-m is lost. None where a value is subnormal."""
        magnitudes = as_values(vector).abs()
        if bool(((magnitudes > 0) & (magnitudes < torch.finfo(magnitudes.dtype).tiny)).any()):
            return None
        return 1 - 1 / float(2**self.mantissa_bits + 1) ** 2

    def paper_bits(self, spec: ModelSpec) -> float:
        return float(short_bits(self.mantissa_bits) * spec.d)
