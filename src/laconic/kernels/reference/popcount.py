"""Counting the set bits of a packed stream, lowest bit of each byte first: the reference."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor


def count_ones(packed: Tensor, bounds: Sequence[int]) -> list[int]:
    """Count the bits that are set between each bound and the next one.

    Args:
        packed: (n,) uint8 on the CPU.
        bounds: Bit numbers, ascending, within 0 .. 8n.

    Returns:
        One count for each pair of neighboring bounds.
    """
    bits = np.unpackbits(packed.numpy(), bitorder="little")
    return [int(bits[low:high].sum()) for low, high in pairwise(bounds)]
