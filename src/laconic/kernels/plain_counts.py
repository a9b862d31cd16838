"""Counting bits in a packed stream, lowest bit of each byte first."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor


def count_ones(packed: Tensor, cuts: Sequence[int]) -> list[int]:
    """How many bits are set between each cut and the next one.

    packed: (n,) uint8 on the CPU. cuts: numbers of bits, ascending, within 0 .. 8n.
    """
    bits = np.unpackbits(packed.numpy(), bitorder="little")
    return [int(bits[low:high].sum()) for low, high in pairwise(cuts)]
