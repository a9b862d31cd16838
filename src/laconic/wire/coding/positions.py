"""Four codes for an ascending list of k positions among `count` coordinates. FORMAT.md, section 6.

All four hold the same positions; they differ in length. No code of all sets needs fewer than log2 C(count, k) bits on
average.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import (
    SHARE_BITS,
    AnsWords,
    Bytes,
    Numbers,
    ans_decode_gaps,
    ans_encode_gaps,
    ascending,
    put_numbers,
    put_runs,
    take_numbers,
    take_runs,
)

_ONE = 1 << 64  # 1.0 in the fixed-point numbers that shares are computed in
_CLASSES = 128


def encode_positions(positions: Tensor, count: int, code: str) -> tuple[Tensor, int]:
    """Encode positions as a bit stream.

    Args:
        positions: (k,) int64, ascending, each once, in 0 .. count - 1.
        count: Number of coordinates.
        code: One of POSITION_CODES.

    Returns:
        (n,) uint8 on the positions' device (on the CPU for the code "entropy"), the unused bits of the last byte 0; and
        the length in bits.

    Raises:
        ValueError: The positions are not as above, or the code is unknown.
    """
    encoder, _ = _coder(code)
    _check_type(positions)
    if not positions.numel():
        return torch.empty(0, dtype=torch.uint8, device=positions.device), 0
    if int(positions[-1]) >= count:
        _check(positions, count)
    try:
        return encoder(positions, count)  # finds out whether they ascend while it writes them
    except (ValueError, IndexError):
        _check(positions, count)  # says what is wrong with all of them
        raise


def position_bits(positions: Tensor, count: int, code: str) -> int:
    """Return the length in bits of the stream that `encode_positions` makes.

    The length of a block code is known without the stream.

    Args:
        positions: (k,) int64, ascending, each once, in 0 .. count - 1.
        count: Number of coordinates.
        code: One of POSITION_CODES.

    Raises:
        ValueError: As `encode_positions` does.
    """
    if code == "block":
        _check(positions, count)
        return block_bits(count, positions.numel())
    return encode_positions(positions, count, code)[1]


def _check_type(positions: Tensor) -> None:
    if positions.dtype != torch.int64 or positions.ndim != 1:
        raise ValueError(f"positions are (k,) int64, not {positions.dtype} of shape {tuple(positions.shape)}")


def _check(positions: Tensor, count: int) -> None:
    _check_type(positions)
    if not ascending(positions, count):
        raise ValueError(
            f"positions must ascend, each once, within 0 .. {count - 1}; "
            f"found {int(positions.min())} .. {int(positions.max())}; sort them, and check what they are counted from"
        )


def decode_positions(data: Tensor, n_bits: int, k: int, count: int, code: str) -> Tensor:
    """Invert `encode_positions`.

    Args:
        data: (n,) uint8.
        n_bits: Length of the stream in bits.
        k: Number of positions.
        count: Number of coordinates.
        code: One of POSITION_CODES.

    Returns:
        (k,) int64, ascending, on the device of `data`.

    Raises:
        WireError: `encode_positions` does not make this stream of any k positions.
    """
    _, decoder = _coder(code)
    if not 0 <= k <= count:
        raise WireError(f"{k} positions among {count} coordinates")
    if data.numel() != (n_bits + 7) // 8:
        raise WireError(f"a stream of {n_bits} bits in {data.numel()} bytes")
    if k == 0:
        if n_bits:
            raise WireError(f"{n_bits} bits of positions where there are none")
        return torch.empty(0, dtype=torch.int64, device=data.device)
    return decoder(data, n_bits, k, count)


def entropy_bound_bits(count: int, k: int) -> float:
    """Return log2 C(count, k), the shortest mean length in bits of any code of all sets of k positions."""
    nats = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
    return max(0.0, nats / math.log(2))


def block_bits(count: int, k: int) -> int:
    """Return the bits of any k positions in the code "block": k (1 + w) + blocks (SSGD-MV, section 4.3.1)."""
    return _block_bits(count, k, block_length(count, k)) if k else 0


def paper_position_bits(count: int, k: int) -> float:
    """Return what SSGD-MV counts for k positions: k (ceil(log2 B) + 2) bits, where B = round(count / k)."""
    return float(k * (_width(block_length(count, k)) + 2)) if k else 0.0


def block_length(count: int, k: int) -> int:
    """Return count / k, rounded to the nearest whole number; a half is rounded up."""
    return (2 * count + k) // (2 * k)


def rice_bits(count: int, k: int) -> int:
    """Return how many low bits of a gap the code "rice" sends as they are.

    It is the largest b with 2**b <= 0.9625 (count/k - 1/2), in whole numbers: the best b for gaps of a geometric law
    (Kiely, IPN Progress Report 42-159, 2004).
    """
    return max(1, 77 * (2 * count - k) // (160 * k)).bit_length() - 1


@functools.lru_cache(maxsize=16)
def class_starts(count: int, k: int) -> Numbers:
    """Return where each class of gaps begins among the 2**14 shares.

    Gaps are assumed to follow a geometric law: one of at least g has probability (1 - k/count)**g. Classes above that
    of the longest possible gap have no share; every other one has at least one. The arithmetic is in whole numbers, so
    the result is the same on every machine.

    Args:
        count: Number of coordinates.
        k: Number of positions.

    Returns:
        (129,) int64, read-only.
    """
    longest = count - k + 4
    extra = longest.bit_length() - 3
    n_classes = 4 * extra + (longest >> extra) - 3
    none_here = (count - k) * _ONE // count  # the probability that a coordinate is not marked
    to_four = _times(_times(none_here, none_here), _times(none_here, none_here))
    starts = np.full(_CLASSES + 1, 1 << SHARE_BITS, dtype=np.int64)
    tail_share, stride, lowest = (
        _ONE,
        none_here,
        _ONE,
    )  # of gaps from 4 * 2**e - 4 on; of 2**e coordinates without a mark
    for start in range(0, n_classes, 4):
        tail = tail_share
        for kind in range(start, min(start + 4, n_classes)):
            lowest = min(lowest, tail)  # truncation must not swap two classes
            starts[kind] = kind + _times((1 << SHARE_BITS) - n_classes, _ONE - lowest)
            tail = _times(tail, stride)
        tail_share = _times(_times(tail_share, tail_share), to_four)
        stride = _times(stride, stride)
    starts.flags.writeable = False
    return starts


def _times(one: int, other: int) -> int:
    """Return the product of two fixed-point numbers, or of one and a whole number, truncated."""
    return one * other >> 64


def _width(n: int) -> int:
    """Return ceil(log2 n), the bits of a number below n."""
    return (n - 1).bit_length()


def _encode_list(positions: Tensor, count: int) -> tuple[Tensor, int]:
    width = _width(count)
    n_bits = positions.numel() * width
    if not n_bits:
        return torch.empty(0, dtype=torch.uint8, device=positions.device), 0
    return put_numbers(positions, width), n_bits


def _decode_list(data: Tensor, n_bits: int, k: int, count: int) -> Tensor:
    width = _width(count)
    if n_bits != k * width:
        raise WireError(f"a list of {k} positions among {count} in {n_bits} bits")
    if not n_bits:  # the only position among one coordinate
        return torch.zeros(k, dtype=torch.int64, device=data.device)
    positions, ascend = take_numbers(data, k, width)
    if not ascend or int(positions[-1]) >= count:
        raise WireError(f"listed positions do not ascend within 0 .. {count - 1}")
    _check_padding(int(data[-1]), n_bits)
    return positions


def block_stream(positions: Tensor, count: int, length: int) -> tuple[Tensor, int]:
    """Encode positions in the code "block" with blocks of any length.

    Args:
        positions: (k,) int64, ascending, each once, in 0 .. count - 1.
        count: Number of coordinates.
        length: Coordinates of a block.

    Returns:
        (n,) uint8, and the length in bits.
    """
    n_bits = _block_bits(count, positions.numel(), length)
    data, _ = put_runs(positions, _width(length), length, False, n_bits)
    return data, n_bits


def _block_bits(count: int, k: int, length: int) -> int:
    return k * (1 + _width(length)) + -(-count // length)


def _encode_block(positions: Tensor, count: int) -> tuple[Tensor, int]:
    return block_stream(positions, count, block_length(count, positions.numel()))


def _decode_block(data: Tensor, n_bits: int, k: int, count: int) -> Tensor:
    if n_bits != block_bits(count, k):
        raise WireError(f"{k} positions among {count} in {n_bits} bits of blocks")
    length = block_length(count, k)
    return _runs(data, n_bits, k, _width(length), length, count, from_last=False)


def _encode_rice(positions: Tensor, count: int) -> tuple[Tensor, int]:
    k = positions.numel()
    low = rice_bits(count, k)
    data, n_bits = put_runs(positions, low, 1 << low, True, k * (1 + low) + (count - k >> low))
    return data[: (n_bits + 7) // 8], n_bits


def _decode_rice(data: Tensor, n_bits: int, k: int, count: int) -> Tensor:
    low = rice_bits(count, k)
    if not 0 <= n_bits - k * (1 + low) <= (count - k) >> low:
        raise WireError(f"{k} positions among {count} in {n_bits} bits of gaps")
    return _runs(data, n_bits, k, low, 1 << low, count, from_last=True)


def _runs(data: Tensor, n_bits: int, k: int, width: int, step: int, count: int, *, from_last: bool) -> Tensor:
    positions, used = take_runs(data, n_bits, k, width, step, count, from_last)
    if used < 0 or (from_last and used != n_bits):
        raise WireError(f"a stream of {n_bits} bits does not hold {k} ascending positions among {count}")
    return positions


def _encode_entropy(positions: Tensor, count: int) -> tuple[Tensor, int]:
    data, n_bits = stack_bytes(*ans_encode_gaps(positions.cpu().numpy(), class_starts(count, positions.numel())))
    return torch.from_numpy(data), n_bits


def _decode_entropy(data: Tensor, n_bits: int, k: int, count: int) -> Tensor:
    words, top = read_stack(data.cpu().numpy(), n_bits)
    positions, complete = ans_decode_gaps(words, top, k, class_starts(count, k), count)
    if not complete:
        raise WireError(f"a stream of {n_bits} bits does not hold {k} positions among {count}")
    return torch.from_numpy(positions).to(data.device)


def stack_bytes(words: AnsWords, top: int) -> tuple[Bytes, int]:
    """Write an ANS stack as a stream: its words, then its top without the leading one.

    Args:
        words: (n,) uint32.
        top: The top of the stack, at least 1.

    Returns:
        The bytes, and the length in bits.
    """
    top_bits = top.bit_length() - 1
    padded = (top - (1 << top_bits)) << -top_bits % 8
    tail = np.frombuffer(padded.to_bytes((top_bits + 7) // 8, "big"), dtype=np.uint8)
    return np.concatenate([words.astype("<u4").view(np.uint8), tail]), 32 * words.size + top_bits


def read_stack(data: Bytes, n_bits: int) -> tuple[AnsWords, int]:
    """Invert `stack_bytes`.

    Args:
        data: (ceil(n_bits / 8),) uint8.
        n_bits: Length of the stream in bits.

    Raises:
        WireError: The padding is not zero.
    """
    n_words, top_bits = (0, n_bits) if n_bits < 64 else (n_bits // 32 - 1, 32 + n_bits % 32)
    words = data[: 4 * n_words].copy().view("<u4").astype(np.uint32, copy=False)
    padded = int.from_bytes(data[4 * n_words :].tobytes(), "big")
    _check_padding(padded & 0xFF, n_bits)
    return words, (1 << top_bits) + (padded >> -top_bits % 8)


def _check_padding(last_byte: int, n_bits: int) -> None:
    """Raise WireError for set bits after the last bit of a stream."""
    if n_bits % 8 and last_byte << n_bits % 8 & 0xFF:
        raise WireError(f"the padding after bit {n_bits} is not zero")


_Encoder = Callable[[Tensor, int], tuple[Tensor, int]]
_Decoder = Callable[[Tensor, int, int, int], Tensor]
_CODES: dict[str, tuple[_Encoder, _Decoder]] = {
    "list": (_encode_list, _decode_list),
    "block": (_encode_block, _decode_block),
    "rice": (_encode_rice, _decode_rice),
    "entropy": (_encode_entropy, _decode_entropy),
}
POSITION_CODES = tuple(_CODES)


def _coder(code: str) -> tuple[_Encoder, _Decoder]:
    if code not in _CODES:
        raise ValueError(f"unknown position code {code!r}; known: {', '.join(_CODES)}")
    return _CODES[code]
