"""Counter-based random numbers: a key identifies a draw, and both ends of a link can compute it.

A key is a 64-bit hash of (seed, role, rank, step, stream). It depends on nothing else: neither on the device nor on
earlier draws. Masks hash the index of each coordinate with a key (`kernels.reference.hashing.hash32`); a Bernoulli draw
compares one uniform number made from a key with its probability. `streams` has streams of numbers for a key.
"""

import struct
from functools import lru_cache
from hashlib import blake2b
from typing import Literal

Role = Literal["worker", "server", "shared", "model", "data", "link"]

KEY_BITS = 64


@lru_cache(maxsize=64)  # a packet's key is made by its method, then compared by the protocol
def make_key(seed: int, role: Role, rank: int, step: int, stream: str) -> int:
    """Return the 64-bit key of one draw. `stream` separates draws for different purposes ("mask", "skip", ...)."""
    text = f"{role}\0{stream}".encode()
    numbers = struct.pack("<qqq", seed, rank, step)
    return int.from_bytes(blake2b(numbers + text, digest_size=8).digest(), "little")


def shared_key(seed: int, step: int, stream: str) -> int:
    """Return the key of a draw that all ranks make alike."""
    return make_key(seed, "shared", 0, step, stream)


def uniform(key: int) -> float:
    """Return one number in [0, 1) with 53 random bits, made from a key."""
    return (key >> (KEY_BITS - 53)) * 2.0**-53
