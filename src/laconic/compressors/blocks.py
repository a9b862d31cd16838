"""Compressors that treat a vector in blocks: the whole of it, its layers, or so many neighbors at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from laconic.compressors.compressor import Compressor
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import per_block as per_block
from laconic.wire import uniform_lengths


def block_lengths(blocks: str, d: int, layers: Sequence[int]) -> tuple[int, ...]:
    """The sizes of the blocks: "vector" is one block, "layer" one a parameter, a number that many elements each.

    `layers` must add up to d, or be empty for one layer. A parameter without elements gets no block.
    """
    if blocks == "vector" or (blocks == "layer" and not layers):
        return (d,)
    if blocks == "layer":
        assert sum(layers) == d, (sum(layers), d)
        return tuple(length for length in layers if length)
    return uniform_lengths(int(blocks), d)


@dataclass(frozen=True, kw_only=True)
class BlockCompressor(Compressor):
    """What depends on a block, such as its scale, is worked out for each block alone."""

    blocks: str = hyperparameter("layer", 'one scale a "vector", a "layer", or this many elements')

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks not in ("vector", "layer") and not (self.blocks.isdecimal() and int(self.blocks) >= 1):
            raise ValueError(
                f'{self.name}: blocks={self.blocks!r} must be "vector", "layer" or a whole number of elements above 0'
            )

    def lengths(self, d: int, layers: Sequence[int] = ()) -> tuple[int, ...]:
        """The sizes of the blocks of d elements."""
        return block_lengths(self.blocks, d, layers)
