"""Compressors that treat a vector in blocks: the full vector, its layers, or runs of a fixed length."""

from collections.abc import Sequence
from dataclasses import dataclass

from laconic.compressors.compressor import Compressor
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import per_block as per_block
from laconic.wire import uniform_lengths


def block_lengths(blocks: str, d: int, layers: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes of the blocks of a vector.

    Args:
        blocks: "vector" for one block, "layer" for one block a layer, or a number of elements in each block.
        d: Length of the vector.
        layers: Sizes of the model's parameters, which add up to d; empty for one layer. A parameter without elements
            gets no block.
    """
    if blocks == "vector" or (blocks == "layer" and not layers):
        return (d,)
    if blocks == "layer":
        assert sum(layers) == d, (sum(layers), d)
        return tuple(length for length in layers if length)
    return uniform_lengths(int(blocks), d)


@dataclass(frozen=True, kw_only=True)
class BlockCompressor(Compressor):
    """A compressor that computes scales and the like for each block of the vector."""

    blocks: str = hyperparameter(
        "layer", 'one scale for the "vector", for each "layer", or for each block of this many elements'
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks not in ("vector", "layer") and not (self.blocks.isdecimal() and int(self.blocks) >= 1):
            raise ValueError(
                f'{self.name}: blocks={self.blocks!r} must be "vector", "layer" or a whole number of elements above 0'
            )

    def lengths(self, d: int, layers: Sequence[int] = ()) -> tuple[int, ...]:
        """Return the sizes of the blocks of d elements; `layers` as for a call."""
        return block_lengths(self.blocks, d, layers)
