"""Control frames: messages between ranks that carry no vector. FORMAT.md, section 2."""

from collections.abc import Sequence
from enum import Enum

import numpy as np
from torch import Tensor

from laconic.errors import WireError


class Control(Enum):
    """What a control frame says; the value is its kind on the wire. Packet kinds are below 128."""

    SKIP = 128
    """The sender leaves out this exchange on purpose."""
    ABORT = 129
    """The round is aborted, since a rank met inf or NaN."""
    ADMIT = 130
    """A worker requests to begin its next step; a server lets it begin with the model that it has."""
    USED = 131
    """Which parameter tensors the sender uses from its next packet on, one bit each."""
    BYE = 132
    """The sender, a worker, takes no further step."""


CONTROLS = {control.value: control for control in Control}


def pack_used(used: Sequence[bool]) -> bytes:
    """Return the payload of USED: one bit a parameter tensor, from the lowest bit of a byte up."""
    return np.packbits(np.array(used, dtype=bool), bitorder="little").tobytes()


def read_used(payload: Tensor, n_tensors: int) -> tuple[bool, ...]:
    """Read the payload of USED.

    Args:
        payload: (n,) uint8 on the CPU.
        n_tensors: Number of parameter tensors, which is the payload bits of the header.

    Returns:
        One element a parameter tensor.

    Raises:
        WireError: The payload does not have that many bits, or its padding is not zero.
    """
    if n_tensors < 1 or payload.numel() != (n_tensors + 7) // 8:
        raise WireError(f"used: {n_tensors} payload bits in {payload.numel()} bytes")
    bits = np.unpackbits(payload.numpy(), bitorder="little")
    if bits[n_tensors:].any():
        raise WireError(f"used: the padding after bit {n_tensors} is not zero")
    return tuple(bits[:n_tensors].astype(bool).tolist())
