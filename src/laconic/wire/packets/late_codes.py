"""Codes that are made when they are read: while a frame is sent, those of its later parts are still made."""

from typing import final

import torch
from torch import Tensor

from laconic.buffer_pool import new_vector
from laconic.kernels.api import put_codes
from laconic.wire.packets.packet import Ends, Packet

_UNIT = 1 << 16  # elements; so many codes fill bytes, whatever their bits


@final
class LateCodes:
    """Codes of a vector's elements between its minimum and its maximum, made from the first one on."""

    def __init__(self, values: Tensor, ends: Ends, bits: int, offset: int, key: int, *, replaces: bool) -> None:
        """Begin with none of them.

        Args:
            values: (d,) float32 or float64, which stay as they are until all codes are made.
            ends: their minimum and maximum, (1,) each.
            bits: bits of a code, 1 .. 8.
            offset: number of the first coordinate.
            key: the key of the draws.
            replaces: whether values become what their codes stand for.
        """
        self.values = values
        """(d,), what the codes stand for where they replace values and all are made."""
        self.packed = new_vector((bits * values.numel() + 7) // 8, torch.uint8)
        """(n,) uint8, the packed codes, as far as they are made."""
        self.replaces = replaces
        """Whether values become what their codes stand for."""
        self._ends, self._bits, self._offset, self._key = ends, bits, offset, key
        self._n_made = 0  # elements
        self._taken = False

    def make(self, n_bytes: int) -> None:
        """Make the first `n_bytes` of the packed codes, and perhaps more."""
        start, count = self._n_made, self.values.numel()
        stop = min(count, -(-8 * n_bytes // (self._bits * _UNIT)) * _UNIT)
        if stop <= start:
            return
        packed = self.packed[start * self._bits // 8 : (stop * self._bits + 7) // 8]
        place, key = self._offset + start, self._key
        put_codes(self.values[start:stop], *self._ends, self._bits, place, key, packed, replaces=self.replaces)
        self._n_made = stop

    def take(self, packet: Packet) -> Tensor | None:
        """Return the dense form (d,) of a packet, once: the vector is the caller's. None where that is not here."""
        is_here = self.replaces and self._n_made == self.values.numel() and not self._taken
        if not is_here or getattr(packet, "packed", None) is not self.packed:
            return None
        self._taken = True
        return self.values

    def all(self) -> Tensor:
        """Return the packed codes (n,) uint8, all of them."""
        self.make(self.packed.numel())
        return self.packed
