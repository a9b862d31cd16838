"""Codes for symbols of a small alphabet: of one width, or an entropy code by their counts. FORMAT.md, section 7."""

import struct

import numpy as np
import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import SHARE_BITS, Numbers, ans_decode_symbols, ans_encode_symbols
from laconic.wire.coding.positions import read_stack, stack_bytes
from laconic.wire.packets.packet import check_length, check_padding

SYMBOL_CODES = ("packed", "entropy")
_LENGTH = struct.Struct("<Q")


def encode_symbols(symbols: Tensor, n_symbols: int) -> tuple[Tensor, int]:
    """Encode symbols with an entropy code, as a table of counts and a stream.

    Args:
        symbols: (k,) int32 in 0 .. n_symbols - 1.
        n_symbols: Size of the alphabet.

    Returns:
        (n,) uint8 on the CPU, and its payload bits.
    """
    numbers = symbols.detach().cpu().numpy()
    counts = np.bincount(numbers, minlength=n_symbols)
    data, n_bits = stack_bytes(*ans_encode_symbols(numbers, symbol_starts(counts)))
    table = counts.astype("<u4").tobytes() + _LENGTH.pack(n_bits)
    complete = np.concatenate([np.frombuffer(table, dtype=np.uint8), data])
    return torch.from_numpy(complete), 32 * n_symbols + n_bits


def decode_symbols(data: Tensor, k: int, n_symbols: int, what: str) -> tuple[Tensor, int]:
    """Invert `encode_symbols`.

    Args:
        data: (n,) uint8 on the CPU.
        k: Number of symbols.
        n_symbols: Size of the alphabet.
        what: Name of the packet kind, for the messages.

    Returns:
        (k,) int32, and the payload bits.

    Raises:
        WireError: `encode_symbols` does not make these bytes.
    """
    at = 4 * n_symbols + _LENGTH.size
    if data.numel() < at:
        raise WireError(f"{what}: {data.numel()} bytes have no room for how often each of {n_symbols} symbols is there")
    raw = data.numpy()
    counts = raw[: 4 * n_symbols].copy().view("<u4").astype(np.int64)
    if int(counts.sum()) != k:
        raise WireError(f"{what}: counts of symbols that add up to {int(counts.sum())}, not to {k}")
    (n_bits,) = _LENGTH.unpack(raw[at - _LENGTH.size : at].tobytes())
    check_length(data, at + (n_bits + 7) // 8, what)
    words, top = read_stack(raw[at:], n_bits)
    symbols, complete = ans_decode_symbols(words, top, k, symbol_starts(counts))
    if not complete or not np.array_equal(np.bincount(symbols, minlength=n_symbols), counts):
        raise WireError(f"{what}: a stream of {n_bits} bits does not hold the symbols that are counted")
    return torch.from_numpy(symbols), 32 * n_symbols + n_bits


def entropy_bits(symbols: Tensor) -> float:
    """Return the empirical entropy of integer symbols (k,), times k, in bits."""
    if not symbols.numel():
        return 0.0
    counts = torch.unique(symbols, return_counts=True)[1].double()
    return float(-(counts * (counts / counts.sum()).log2()).sum())


def symbol_starts(counts: Numbers) -> Numbers:
    """Return where each symbol begins among the 2**14 shares.

    Each symbol that occurs has one share, and its proportion of the remaining ones; the others have none.

    Args:
        counts: (n_symbols,) int64.

    Returns:
        (n_symbols + 1,) int64.
    """
    shares = (1 << SHARE_BITS) - int((counts > 0).sum())
    before = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    present = np.concatenate([[0], np.cumsum(counts > 0, dtype=np.int64)])
    starts: Numbers = present + shares * before // before[-1]
    return starts


def check_packed(data: Tensor, k: int, bits: int, what: str) -> None:
    """Refuse bytes that are not k symbols of one width.

    Args:
        data: (n,) uint8.
        k: Number of symbols.
        bits: Bits of a symbol.
        what: Name of the packet kind, for the messages.

    Raises:
        WireError: The length is wrong, or the padding is not zero.
    """
    check_length(data, (bits * k + 7) // 8, what)
    check_padding(int(data[-1]), bits * k)
