"""Compressors that treat a vector in blocks: the full vector, its layers, or runs of a fixed length."""

from dataclasses import dataclass

from laconic.compressors.compressor import Compressor
from laconic.contract import ModelSpec
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import per_block as per_block
from laconic.wire import uniform_lengths


def block_lengths(blocks: str, d: int, spec: ModelSpec | None = None) -> tuple[int, ...]:
    """Return the sizes of the blocks of a vector.

    Args:
        blocks: "vector" for one block, "layer" for one block a layer, or a number of elements in each block.
        d: Length of the vector.
        spec: The vector's tensors, each of which is a layer; without it, the vector is one. A tensor without elements
            gets no block.
    """
    if blocks == "vector" or (blocks == "layer" and spec is None):
        return (d,)
    if blocks == "layer":
        assert spec is not None
        assert spec.d == d, (spec.d, d)
        return spec.block_sizes
    return uniform_lengths(int(blocks), d)


def check_blocks(name: str, blocks: str) -> None:
    """Raise ValueError for a text that `block_lengths` does not take. `name` is that of the method or compressor."""
    if blocks not in ("vector", "layer") and not (blocks.isdecimal() and int(blocks) >= 1):
        raise ValueError(f'{name}: blocks={blocks!r} must be "vector", "layer" or a whole number of elements above 0')


@dataclass(frozen=True, kw_only=True)
class BlockCompressor(Compressor):
    """A compressor that computes scales and the like for each block of the vector."""

    blocks: str = hyperparameter(
        "layer", 'one scale for the "vector", for each "layer", or for each block of this many elements'
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_blocks(self.name, self.blocks)

    def lengths(self, d: int, spec: ModelSpec | None = None) -> tuple[int, ...]:
        """Return the sizes of the blocks of d elements; `spec` as for a call."""
        return block_lengths(self.blocks, d, spec)
