"""Parts of long vectors, such as of one that is made while packets come: they are stored past the caches, as it is."""

from torch import Tensor

from laconic.kernels.cpu.passing import LINE_BYTES, Folded

_LONG_BYTES, _PART_BYTES = 1 << 23, 1 << 20


class FoldedPart(Folded):
    """The checksum of a vector that is written by one kernel, or of a part of one."""

    def __init__(self, vector: Tensor) -> None:
        """`vector`: (d,) contiguous."""
        super().__init__(vector)
        if vector.nbytes >= _PART_BYTES and vector.untyped_storage().nbytes() >= _LONG_BYTES:
            self._n_before = -vector.data_ptr() % LINE_BYTES // vector.itemsize
            self.how = self.blocks, self._n_before, True
