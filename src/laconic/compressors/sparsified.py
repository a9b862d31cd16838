"""The values of the elements that a keyed Bernoulli draw selects, scaled so that the mean is the value.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, section 3.2, randomized sparsification: z/p with
probability p, zero with 1 - p (the print says p twice).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from laconic.compressors.compressor import Compressor, as_values
from laconic.compressors.sign import threshold_of
from laconic.contract import Accept, ModelSpec
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import ALL_SELECTED, take_selected
from laconic.wire import SelectedValues


@dataclass(frozen=True, kw_only=True)
class Sparsified(Compressor):
    """z/p where the draw selects, else 0. Both ends derive the mask from the key, so no positions are sent.

    It leaves out (1/p - 1) ||z||^2, so a residual grows unless p is above 1/2.
    """

    name: ClassVar[str] = "sparsified"
    unbiased: ClassVar[bool] = True
    separable: ClassVar[bool] = True
    test_settings: ClassVar[Mapping[str, Any]] = {"keep": 0.8}

    keep: float = hyperparameter(0.75, "p, share of elements that is sent", within="(0, 1]")

    def __call__(
        self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0
    ) -> SelectedValues:
        values = as_values(vector)
        threshold = threshold_of(self.keep)
        selected = take_selected(values, threshold / ALL_SELECTED, offset, key, threshold)
        return SelectedValues(values=selected, count=values.numel(), key=key, threshold=threshold, offset=offset)

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return Accept(SelectedValues, threshold=threshold_of(self.keep), stream=stream)

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        return None

    def variances(self, vector: Tensor, spec: ModelSpec | None = None) -> Tensor:
        """Return (1/p - 1) z^2."""
        return (ALL_SELECTED / threshold_of(self.keep) - 1) * as_values(vector).double().square()

    def outgrows_residual(self, spec: ModelSpec) -> bool:
        return threshold_of(self.keep) <= ALL_SELECTED // 2  # then (1/p - 1) z^2 is at least z^2

    def paper_bits(self, spec: ModelSpec) -> float:
        return 32 * self.keep * spec.d
