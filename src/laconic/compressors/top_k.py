"""The k entries of largest magnitude, exactly; the rest is left out.

Alistarh, Hoefler, Johansson, Khirirat, Konstantinov, Renggli: The Convergence of Sparsified Gradient Methods, NeurIPS
2018.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from laconic.compressors.compressor import Compressor
from laconic.compressors.largest import block_entries
from laconic.compressors.selection import Selection
from laconic.wire import Sparse


@dataclass(frozen=True, kw_only=True)
class TopK(Selection, Compressor):
    """The largest magnitudes of the vector or of each layer, as they are, and their positions."""

    name: ClassVar[str] = "top-k"

    def __call__(self, vector: Tensor, *, layers: Sequence[int] = (), key: int = 0, first: int = 0) -> Sparse:
        return self.take(vector, layers, first)

    def delta(self, vector: Tensor, layers: Sequence[int] = ()) -> float | None:
        """k/d of the worst block: what is left out of d entries is at most their (1 - k/d)th part."""
        blocks = block_entries(vector.numel(), density=self.density, k=self.k, blocks=self.blocks, layers=layers)
        return min(entries / length for length, entries in blocks)

    def paper_bits(self, d: int, layers: Sequence[int] = ()) -> float:
        return 32.0 * self.entries(d, layers)
