"""All values: as they are (`identity`), or rounded to a shorter type (`dense`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic.compressors.compressor import Compressor, as_values
from laconic.contract import Accept, ModelSpec
from laconic.hyperparameters import hyperparameter
from laconic.wire import Dense

_ROUNDED = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_RELATIVE_ERROR = {"float32": 2.0**-24, "bfloat16": 2.0**-8}  # of rounding to nearest, float64 to float32 included


def dense(vector: Tensor, *, offset: int = 0) -> Dense:
    """Return a packet of all values of `vector` (d,), uncompressed: 32 bits each, 64 for float64."""
    return Dense(values=as_values(vector), offset=offset)


@dataclass(frozen=True, kw_only=True)
class Identity(Compressor):
    """Q(v) = v, exactly."""

    name: ClassVar[str] = "identity"
    unbiased: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Dense:
        return dense(vector, offset=offset)

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return Accept(Dense)

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        return 1.0

    def variances(self, vector: Tensor, spec: ModelSpec | None = None) -> Tensor:
        return torch.zeros_like(vector, dtype=torch.float64)

    def paper_bits(self, spec: ModelSpec) -> float:
        return 32.0 * spec.d


@dataclass(frozen=True, kw_only=True)
class DenseValues(Compressor):
    """All values, rounded to nearest in `value_type`."""

    name: ClassVar[str] = "dense"
    separable: ClassVar[bool] = True
    test_settings: ClassVar[Mapping[str, Any]] = {"value_type": "bfloat16"}

    value_type: str = hyperparameter("float32", "type of the values on the wire", choices=("float32", "bfloat16"))

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Dense:
        return Dense(values=as_values(vector).to(_ROUNDED[self.value_type]), offset=offset)

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return Accept(Dense, value_type=_ROUNDED[self.value_type])

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        return 1.0 - _RELATIVE_ERROR[self.value_type] ** 2

    def paper_bits(self, spec: ModelSpec) -> float:
        return 32.0 * spec.d
