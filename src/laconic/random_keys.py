"""Counter-based randomness: a key says which draw is meant, and both ends of a link can work it out.

A key is 64 bits made from (seed, role, rank, step, stream). It depends on nothing else: not on the device,
not on how often it was asked for, not on what was drawn before. Masks hash a coordinate's number with a key
(`kernels.baseline.hash32`), coins turn a key into one uniform number.
"""

import struct
from hashlib import blake2b
from typing import Literal

Role = Literal["worker", "server", "model", "data", "link"]

KEY_BITS = 64


def make_key(seed: int, role: Role, rank: int, step: int, stream: str) -> int:
    """The 64-bit key of one draw; `stream` keeps draws for different purposes apart ("mask", "skip", ...)."""
    text = f"{role}\0{stream}".encode()
    numbers = struct.pack("<qqq", seed, rank, step)
    return int.from_bytes(blake2b(numbers + text, digest_size=8).digest(), "little")


def uniform(key: int) -> float:
    """One number in [0, 1) from a key, with 53 random bits."""
    return (key >> (KEY_BITS - 53)) * 2.0**-53
