"""A hash of examples, so that ranks can compare what they have read."""

import zlib

from torch import Tensor


def hash_of(*tensors: Tensor) -> int:
    """Return one hash of the values of tensors on the CPU, in order."""
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.contiguous().numpy().data, crc)
    return crc
