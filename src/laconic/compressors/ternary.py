"""-1, 0 or +1 times a block's largest magnitude, rounded stochastically so that the mean is the value.

Wen, Xu, Yan, Wu, Wang, Chen, Li: TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning,
NeurIPS 2017, equation (1): s = max |v|, and an element is sent as s sign(v) with probability |v| / s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from laconic.compressors.compressor import BlockCompressor, as_values
from laconic.compressors.levels import level_variances, levels
from laconic.contract import Accept, ModelSpec
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import absolute_maxima
from laconic.wire import Levels


@dataclass(frozen=True, kw_only=True)
class Ternary(BlockCompressor):
    """Two bits an element; fewer with `entropy`, since most elements are zero."""

    name: ClassVar[str] = "ternary"
    unbiased: ClassVar[bool] = True
    test_settings: ClassVar[Mapping[str, Any]] = {"blocks": "4"}

    entropy: bool = hyperparameter(False, "send frequent levels in fewer bits")

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Levels:
        values = as_values(vector)
        lengths = self.lengths(values.numel(), spec)
        return levels(
            values, absolute_maxima(values, lengths), lengths, 1, entropy=self.entropy, offset=offset, key=key
        )

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return Accept(Levels, steps=1, lengths=self.lengths(spec.d, spec), entropy=self.entropy)

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        return None

    def variances(self, vector: Tensor, spec: ModelSpec | None = None) -> Tensor:
        """Return |v| (s - |v|)."""
        values = as_values(vector)
        lengths = self.lengths(values.numel(), spec)
        return level_variances(values, absolute_maxima(values, lengths), lengths, 1)

    def paper_bits(self, spec: ModelSpec) -> float:
        return float(2 * spec.d + 32 * len(self.lengths(spec.d, spec)))
