"""The k elements of largest magnitude, exactly; the rest is left out.

Alistarh, Hoefler, Johansson, Khirirat, Konstantinov, Renggli: The Convergence of Sparsified Gradient Methods, NeurIPS
2018.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from laconic.compressors.compressor import Compressor
from laconic.compressors.largest import n_selected_by_block
from laconic.compressors.selection import Selection
from laconic.contract import Accept, ModelSpec
from laconic.wire import Sparse


@dataclass(frozen=True, kw_only=True)
class TopK(Selection, Compressor):
    """The elements of largest magnitude of the vector or of each layer, unrounded, and their positions."""

    name: ClassVar[str] = "top-k"
    test_settings: ClassVar[Mapping[str, Any]] = {"density": 0.2}

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Sparse:
        return self.take(vector, spec, offset)

    def with_residual(
        self, vector: Tensor, residual: Tensor, *, divisor: int = 1, decay: float = 1.0,
        spec: ModelSpec | None = None, key: int = 0, offset: int = 0,
    ) -> Sparse:  # fmt: skip
        return self.take_with_residual(vector, residual, divisor=divisor, decay=decay, spec=spec, offset=offset)

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return self.accept_selection(spec)

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        """Return k/d of the worst block: the other d - k elements hold at most 1 - k/d of its squared norm."""
        blocks = n_selected_by_block(vector.numel(), density=self.density, k=self.k, blocks=self.blocks, spec=spec)
        return min(n_selected / length for length, n_selected in blocks)

    def paper_bits(self, spec: ModelSpec) -> float:
        return 32.0 * self.n_selected(spec)
