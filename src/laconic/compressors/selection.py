"""The elements that a sparse method sends: their number, their choice and the code of their positions."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from laconic.compressors.compressor import as_values, check_blocks
from laconic.compressors.largest import chosen, chosen_with_residual, chunks_of, n_selected_by_block
from laconic.contract import DENSE, Accept, ModelSpec, Worker
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import Guesses, gather_scaled, gather_top_k, gather_top_k_by_chunk, take_at
from laconic.wire import POSITION_CODES, Dense, FractionalValues, Sparse


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Hyperparameters of sparse methods. Compressors and algorithms inherit them."""

    density: float = hyperparameter(0.01, "share of the elements that is sent", within="(0, 1]")
    k: int | None = hyperparameter(
        None, "how many elements are sent, in place of density", within="[1, inf)", unit="elements"
    )
    blocks: str = hyperparameter(
        "layer", 'the largest of the full "vector", of each "layer", or of each block of this many elements'
    )
    code: str = hyperparameter("block", "how positions are coded", choices=POSITION_CODES)

    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc] # that of the compressor or algorithm
        check_blocks(self.name, self.blocks)

    def n_selected(self, spec: ModelSpec) -> int:
        """Return how many of d elements are sent.

        Args:
            d: Length of the vector.
            spec: The tensors of the vector.

        Raises:
            ValueError: The number is 0 or above d.
        """
        blocks = n_selected_by_block(spec.d, density=self.density, k=self.k, blocks=self.blocks, spec=spec)
        return sum(taken for _, taken in blocks)

    def accept_selection(self, spec: ModelSpec, bits: int = 32) -> Accept:
        """Return what a peer accepts of `take` with the same `spec`: values as they are, or in fewer `bits`."""
        values = DENSE if bits == 32 else Accept(FractionalValues, bits=bits)
        return Accept(Sparse, n_selected=self.n_selected(spec), values=values, code=self.code)

    def accept_union(self, spec: ModelSpec, n_workers: int) -> Accept:
        """Return what a peer accepts as elements that any worker has selected, with their values as they are."""
        union = range(min(spec.d, n_workers * self.n_selected(spec)) + 1)
        return Accept(Sparse, n_selected=union, values=DENSE, code=self.code)

    def take(self, vector: Tensor, spec: ModelSpec | None = None, offset: int = 0) -> Sparse:
        """Return the elements of largest magnitude; of equal ones, those with the lower index.

        Args:
            vector: (d,) of any float type.
            spec: The vector's tensors, each of which is a layer; without it, the vector is one.
            offset: Number of the vector's first coordinate in the full model.
        """
        values = as_values(vector)
        indices = chosen(values, density=self.density, k=self.k, blocks=self.blocks, spec=spec)
        return self._sparse(values, indices, offset)

    def gather_and_take(self, me: Worker, factor: float, out: Tensor, residual: Tensor | None) -> Sparse:
        """Return `take` of factor * gradient + residual, in one pass.

        Args:
            me: The worker; of its gradient, the tensors.
            factor: Factor of the gradient.
            out: (d,), overwritten with the sum. One that is not finite aborts the round.
            residual: (d,); None for 0.
        """
        spec, factors = me.spec, [factor] * len(me.gradient_tensors)
        if self.blocks not in ("vector", "layer"):  # there may be many, which are chosen side by side
            me.require(gather_scaled(me.gradient_tensors, factors, out, residual))
            return self.take(out, spec, me.offset)
        blocks = n_selected_by_block(spec.d, density=self.density, k=self.k, blocks=self.blocks, spec=spec)
        guesses = me.guesses.setdefault("largest", Guesses())
        is_finite, indices = gather_top_k(me.gradient_tensors, factors, out, residual, blocks, guesses)
        me.require(is_finite)
        return self._sparse(out, indices, me.offset)

    def take_of_change(self, me: Worker, residual: Tensor, *, decay: float) -> tuple[Tensor, Sparse]:
        """Return the change plus decay residual (d,), and `take` of it, in one pass where possible.

        Args:
            me: The worker. A change that is not finite aborts the round.
            residual: (d,).
            decay: Factor of the residual.
        """
        chunks = chunks_of(me.count, density=self.density, k=self.k, blocks=self.blocks, spec=me.spec)
        scaled = None if chunks is None else me.read_scaled_change()
        if scaled is None or chunks is None:
            corrected = me.change
            return corrected, self.take_with_residual(corrected, residual, decay=decay, spec=me.spec, offset=me.offset)
        corrected = me.scratch()
        is_finite, indices = gather_top_k_by_chunk(*scaled, corrected, residual, *chunks, decay=decay)
        me.require(is_finite)
        return corrected, self._sparse(corrected, indices, me.offset)

    def take_with_residual(
        self, vector: Tensor, residual: Tensor, *, divisor: int = 1, decay: float = 1.0,
        spec: ModelSpec | None = None, offset: int = 0,
    ) -> Sparse:  # fmt: skip
        """Write vector / divisor + decay residual over the vector, and `take` of it.

        Args:
            vector: (d,) float32 or float64, contiguous, overwritten.
            residual: (d,) of the same type.
            divisor: Divisor of the vector.
            decay: Factor of the residual.
            spec: As for `take`, as below.
            offset: Number of the vector's first coordinate.
        """
        indices = chosen_with_residual(
            vector, residual, divisor=divisor, decay=decay, density=self.density, k=self.k, blocks=self.blocks,
            spec=spec,
        )  # fmt: skip
        return self._sparse(vector, indices, offset)

    def _sparse(self, values: Tensor, indices: Tensor, offset: int) -> Sparse:
        """Return the packet of elements at indices (k,)."""
        largest = Dense(values=take_at(values, indices))
        return Sparse(indices=indices, values=largest, count=values.numel(), offset=offset, code=self.code)
