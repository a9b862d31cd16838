"""Positions, votes and the streams that they are coded in: the functions of the face, by the fastest backend."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels import checks
from laconic.kernels.checked_tensors import CheckedTensors
from laconic.kernels.dispatch import fastest
from laconic.kernels.reference.ans_gaps import SHARE_BITS, AnsWords, Codes, Numbers
from laconic.kernels.reference.gathered_top_k import Guesses
from laconic.kernels.vectors import gather_scaled

_MAX_VOTES = 1 << 24  # of one coordinate, by as many workers


def top_k(vector: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest magnitudes, exactly; of equal ones, the lower index comes first.

    Args:
        vector: (d,) float32 or float64. NaN counts as larger than infinity.
        k: 1 .. d.

    Returns:
        (k,) int64, ascending.

    Raises:
        TypeError: The vector has another type or shape.
        ValueError: k is outside 1 .. d.
    """
    checks.vector("top_k", "vector", vector, checks.FLOATS)
    d = vector.numel()
    if not 1 <= k <= d:
        raise ValueError(f"top_k: k={k} must be in 1 .. d={d}; take fewer elements, or at least one")
    made: Tensor = fastest("top_k", vector.device).top_k(vector, k)
    return made


def bottom_k(vector: Tensor, k: int) -> Tensor:
    """Return the indices of the k smallest magnitudes, exactly; of equal ones, the lower index comes first.

    Arguments, result and exceptions as of `top_k`.
    """
    checks.vector("bottom_k", "vector", vector, checks.FLOATS)
    checks.number("bottom_k", "k", k, 1, vector.numel())
    integer = torch.int32 if vector.dtype == torch.float32 else torch.int64
    largest = torch.iinfo(integer).max  # less a magnitude's bits, it has the opposite order
    return top_k((largest - (vector.contiguous().view(integer) & largest)).view(vector.dtype), k)


def top_k_by_block(vector: Tensor, blocks: Sequence[tuple[int, int]]) -> Tensor:
    """Return the indices of the largest magnitudes of each block, as `top_k` chooses them, in one call for all.

    Args:
        vector: (d,) float32 or float64.
        blocks: The length of each block, which add up to d, and how many elements to take of it, 1 .. length.

    Returns:
        (n,) int64, ascending, counted over all blocks.

    Raises:
        TypeError: The vector has another type or shape.
        ValueError: The lengths do not add up, or a number is outside 1 .. length.
    """
    checks.vector("top_k_by_block", "vector", vector, checks.FLOATS)
    _check_blocks("top_k_by_block", blocks, vector.numel())
    made: Tensor = fastest("top_k", vector.device).top_k_by_block(vector, blocks)
    return made


def gather_top_k(
    tensors: Sequence[Tensor], factors: Sequence[float], out: Tensor, plus: Tensor | None,
    blocks: Sequence[tuple[int, int]], guesses: Guesses,
) -> tuple[bool, Tensor]:  # fmt: skip
    """Do what `gather_scaled` does, and return what `top_k_by_block` chooses of the result; in one pass on the CPU.

    See `reference/gathered_top_k.py`. Exceptions as of those two.
    """
    tensors = CheckedTensors.of(tensors)
    checks.output("gather_top_k", "out", out, checks.FLOATS)
    checks.number("gather_top_k", "number of factors", len(factors), len(tensors), len(tensors))
    if plus is not None:
        checks.vector("gather_top_k", "plus", plus, checks.ALL_FLOATS, out.numel(), out.device)
    checks.tensors("gather_top_k", tensors, out.numel())
    _check_blocks("gather_top_k", blocks, out.numel())
    if not out.is_cpu:
        return gather_scaled(tensors, factors, out, plus), top_k_by_block(out, blocks)
    is_finite, largest = fastest("gathered_top_k").gather_top_k(tensors, factors, out, plus, blocks, guesses)
    return is_finite, checks.note_place(largest)


def _check_blocks(call: str, blocks: Sequence[tuple[int, int]], d: int) -> None:
    total = 0
    if not all(isinstance(block, tuple) and len(block) == 2 for block in blocks):
        raise TypeError(f"{call}: blocks must be pairs: the length of each, and how many elements to take of it")
    for length, k in blocks:
        if not 1 <= k <= length:
            raise ValueError(f"{call}: k={k} must be in 1 .. {length}, the length of its block")
        total += length
    if total != d or not blocks:
        raise ValueError(f"{call}: blocks of {total} elements in all for a vector of {d}")


def top_k_by_chunk(vector: Tensor, size: int, k: int, last_k: int) -> Tensor:
    """Return the indices of the largest magnitudes of each chunk of a size; see `reference/chunks.py`.

    Args:
        vector: (d,) float32 or float64, d at least 1.
        size: Elements of every chunk but the last one, which has the rest.
        k: How many to take of every chunk but the last one, 1 .. size.
        last_k: How many to take of the last one, at most its elements.

    Returns:
        (n,) int64, ascending, counted over all chunks.

    Raises:
        TypeError: The vector has another type or shape.
        ValueError: A number is outside its range.
    """
    checks.vector("top_k_by_chunk", "vector", vector, checks.FLOATS)
    _check_chunks("top_k_by_chunk", vector.numel(), size, k, last_k)
    made: Tensor = fastest("chunks", vector.device).top_k_by_chunk(vector, size, k, last_k)
    return made


def correct_top_k_by_chunk(
    vector: Tensor, residual: Tensor, size: int, k: int, last_k: int, *, divisor: int = 1, decay: float = 1.0
) -> Tensor:
    """Write vector / divisor + decay residual over the vector, and return its `top_k_by_chunk`, in one pass."""
    call = "correct_top_k_by_chunk"
    checks.output(call, "vector", vector, checks.FLOATS)
    checks.vector(call, "residual", residual, (vector.dtype,), vector.numel(), vector.device)
    checks.number(call, "divisor", divisor, 1, checks.MAX_COUNT)
    _check_chunks(call, vector.numel(), size, k, last_k)
    made: Tensor = fastest("chunks", vector.device).correct_top_k_by_chunk(
        vector, residual, size, k, last_k, divisor=divisor, decay=decay
    )
    return made


def gather_top_k_by_chunk(
    tensors: Sequence[Tensor], factors: Sequence[float], out: Tensor, residual: Tensor, size: int, k: int, last_k: int,
    *, decay: float = 1.0,
) -> tuple[bool, Tensor]:  # fmt: skip
    """Write tensors times their factors plus decay residual to `out` (d,), and choose as `top_k_by_chunk` does.

    In one pass; see `reference/chunks.py`.
    """
    call = "gather_top_k_by_chunk"
    tensors = CheckedTensors.of(tensors)
    checks.output(call, "out", out, checks.FLOATS)
    checks.number(call, "number of factors", len(factors), len(tensors), len(tensors))
    checks.vector(call, "residual", residual, (out.dtype,), out.numel(), out.device)
    checks.tensors(call, tensors, out.numel())
    _check_chunks(call, out.numel(), size, k, last_k)
    made: tuple[bool, Tensor] = fastest("chunks", out.device).gather_top_k_by_chunk(
        tensors, factors, out, residual, size, k, last_k, decay=decay
    )
    return made


def _check_chunks(call: str, d: int, size: int, k: int, last_k: int) -> None:
    checks.number(call, "length of the vector", d, 1, checks.MAX_COUNT)
    checks.number(call, "size", size, 1, checks.MAX_COUNT)
    checks.number(call, "k", k, 1, size)
    checks.number(call, "last_k", last_k, 1, (d - 1) % size + 1)


def ascending(positions: Tensor, count: int) -> bool:
    """Return whether positions ascend, each once, within 0 .. count - 1; see `reference/position_streams.py`."""
    checks.vector("ascending", "positions", positions, checks.INDICES)
    checks.number("ascending", "count", count, 0, checks.MAX_COUNT)
    made: bool = fastest("position_streams", positions.device).ascending(positions, count)
    return made


def put_numbers(numbers: Tensor, width: int) -> Tensor:
    """Write ascending numbers of one width into a bit stream; see `reference/position_streams.py`, as for all below."""
    checks.vector("put_numbers", "numbers", numbers, checks.INDICES)
    checks.number("put_numbers", "width", width, 1, 32)
    made: Tensor
    made, ascend = fastest("position_streams", numbers.device).put_numbers(numbers, width)
    if not ascend:
        checks.indices("put_numbers", "numbers", numbers, 1 << width)
    return made


def take_numbers(data: Tensor, k: int, width: int) -> tuple[Tensor, bool]:
    """Read numbers of one width from a bit stream; return them and whether they ascend."""
    checks.vector("take_numbers", "data", data, checks.BYTES)
    checks.number("take_numbers", "width", width, 1, 32)
    checks.number("take_numbers", "k", k, 0, 8 * data.numel() // width)
    made: tuple[Tensor, bool] = fastest("position_streams", data.device).take_numbers(data, k, width)
    return made


def put_runs(positions: Tensor, width: int, step: int, from_last: bool, n_bits: int) -> tuple[Tensor, int]:
    """Write positions as a bit stream of runs and numbers; return it and the bits used."""
    checks.vector("put_runs", "positions", positions, checks.INDICES)
    k = _check_runs("put_runs", len(positions), width, step)
    last = int(positions[-1]) if k else 0
    checks.number("put_runs", "last position", last, 0, checks.MAX_COUNT - 1)
    longest = (last - (k - 1 if from_last else 0)) // step if k else 0
    enough = k * (1 + width) + checks.MAX_COUNT // step + 1
    checks.number("put_runs", "n_bits", n_bits, k * (1 + width) + longest, enough)
    family = fastest("position_streams", positions.device)
    made: tuple[Tensor, int] = family.put_runs(positions, width, step, from_last, n_bits)
    if made[1] < 0:
        checks.indices("put_runs", "positions", positions, checks.MAX_COUNT)
    return made


def take_runs(
    data: Tensor, n_bits: int, k: int, width: int, step: int, count: int, from_last: bool
) -> tuple[Tensor, int]:
    """Read positions from a bit stream of runs and numbers; return them and the bits used, or -1."""
    checks.vector("take_runs", "data", data, checks.BYTES)
    checks.number("take_runs", "n_bits", n_bits, 0, 8 * data.numel())
    checks.number("take_runs", "count", count, 0, checks.MAX_COUNT)
    _check_runs("take_runs", k, width, step)
    family = fastest("position_streams", data.device)
    made: tuple[Tensor, int] = family.take_runs(data, n_bits, k, width, step, count, from_last)
    return made


def _check_runs(call: str, k: int, width: int, step: int) -> int:
    """Return k."""
    checks.number(call, "k", k, 0, checks.MAX_COUNT)
    checks.number(call, "width", width, 0, 32)
    checks.number(call, "step", step, 1, 1 << width)
    return k


def ans_encode_gaps(positions: Numbers, starts: Numbers) -> tuple[AnsWords, int]:
    """Encode positions by their gaps with an ANS, in the host's memory; see `reference/ans_gaps.py`."""
    _check_array("ans_encode_gaps", "positions", positions, np.int64)
    if positions.size:
        checks.number("ans_encode_gaps", "last position", int(positions[-1]), 0, checks.MAX_COUNT - 1)
    _check_starts("ans_encode_gaps", starts, 128)
    made: tuple[AnsWords, int] = fastest("ans_gaps").ans_encode_gaps(positions, starts)
    return made


def ans_decode_gaps(words: AnsWords, top: int, k: int, starts: Numbers, count: int) -> tuple[Numbers, bool]:
    """Decode positions; return them and whether the stream held them and nothing else."""
    _check_stack("ans_decode_gaps", words, top, k)
    _check_starts("ans_decode_gaps", starts, 128)
    checks.number("ans_decode_gaps", "count", count, 0, checks.MAX_COUNT)
    made: tuple[Numbers, bool] = fastest("ans_gaps").ans_decode_gaps(words, top, k, starts, count)
    return made


def ans_encode_symbols(symbols: Codes, starts: Numbers) -> tuple[AnsWords, int]:
    """Encode symbols with an ANS; see `reference/ans_symbols.py`."""
    _check_starts("ans_encode_symbols", starts, len(starts) - 1)
    _check_array("ans_encode_symbols", "symbols", symbols, np.int32)
    if symbols.size:
        for end in (symbols.min(), symbols.max()):
            checks.number("ans_encode_symbols", "symbol", int(end), 0, len(starts) - 2)
    made: tuple[AnsWords, int] = fastest("ans_symbols").ans_encode_symbols(symbols, starts)
    return made


def ans_decode_symbols(words: AnsWords, top: int, k: int, starts: Numbers) -> tuple[Codes, bool]:
    """Decode symbols; return them and whether the stream held them and nothing else."""
    _check_stack("ans_decode_symbols", words, top, k)
    _check_starts("ans_decode_symbols", starts, len(starts) - 1)
    made: tuple[Codes, bool] = fastest("ans_symbols").ans_decode_symbols(words, top, k, starts)
    return made


def _check_stack(call: str, words: AnsWords, top: int, k: int) -> None:
    _check_array(call, "words", words, np.uint32)
    checks.number(call, "top", top, 0, (1 << 64) - 1)
    checks.number(call, "k", k, 0, checks.MAX_COUNT)


def _check_starts(call: str, starts: Numbers, n: int) -> None:
    """Check where each of n classes or symbols begins among the shares, and the end of the last one."""
    _check_array(call, "starts", starts, np.int64)
    end = 1 << SHARE_BITS
    if n < 1 or starts.size != n + 1 or starts[0] != 0 or starts[-1] != end or bool((starts[1:] < starts[:-1]).any()):
        raise ValueError(f"{call}: starts must have {n + 1} numbers that do not descend, from 0 to {end}")


def _check_array(call: str, name: str, given: NDArray[Any], dtype: type) -> None:
    if given.ndim != 1 or given.dtype != dtype:
        raise TypeError(
            f"{call}: {name} is {given.dtype} of shape {given.shape}; it must be a vector of {dtype.__name__}"
        )


def top_voted(votes: Tensor, order: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest vote counts, the lowest in `order` first; see `reference/votes.py`."""
    checks.vector("top_voted", "votes", votes, checks.INDICES)
    checks.vector("top_voted", "order", order, (torch.int32,), votes.numel(), votes.device)
    checks.number("top_voted", "k", k, 1, votes.numel())
    for end in votes.aminmax():
        checks.number("top_voted", "vote count", int(end), 0, _MAX_VOTES)
    made: Tensor = fastest("votes", votes.device).top_voted(votes, order, k)
    return made


def list_difference(positions: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions that are not among others, and the indices of those not among positions.

    Both are int64, ascending; see `reference/votes.py`.
    """
    for name, given in (("positions", positions), ("others", others)):
        checks.indices("list_difference", name, given, checks.MAX_COUNT)
    made: tuple[Tensor, Tensor] = fastest("votes", positions.device).list_difference(positions, others)
    return made


def revised_list(positions: Tensor, dropped: Tensor, added: Tensor) -> Tensor:
    """Return positions (k,) int64 less those at the indices `dropped`, plus `added`; see `reference/votes.py`."""
    checks.indices("revised_list", "positions", positions, checks.MAX_COUNT)
    checks.indices("revised_list", "dropped", dropped, positions.numel())
    checks.indices("revised_list", "added", added, checks.MAX_COUNT)
    made: Tensor = fastest("votes", positions.device).revised_list(positions, dropped, added)
    return made


def vote_counts(lists: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the positions in any of several lists, and in how many lists each is; see `reference/votes.py`."""
    if not lists:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    for number, positions in enumerate(lists):
        checks.indices("vote_counts", f"list {number}", positions, checks.MAX_COUNT)
    made: tuple[Tensor, Tensor] = fastest("votes", lists[0].device).vote_counts(lists)
    return made


def union_sum(lists: Sequence[Tensor], values: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the positions in any of several lists, and the sums of the values there; see `reference/votes.py`."""
    checks.number("union_sum", "number of lists of values", len(values), len(lists), len(lists))
    if dtype not in checks.FLOATS:
        raise TypeError(f"union_sum: dtype={dtype} must be torch.float32 or torch.float64")
    if not lists:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=dtype)
    device = lists[0].device
    for number, (positions, added) in enumerate(zip(lists, values, strict=True)):
        checks.indices("union_sum", f"list {number}", positions, checks.MAX_COUNT)
        checks.vector("union_sum", f"values {number}", added, (dtype,), positions.numel(), device)
    made: tuple[Tensor, Tensor] = fastest("votes", device).union_sum(lists, values, dtype)
    return made


def hash_at(positions: Tensor, key: int) -> Tensor:
    """Return 32 random bits for each of the positions (n,) int64: (n,) int32; see `reference/hashing.py`."""
    checks.vector("hash_at", "positions", positions, checks.INDICES)
    checks.coordinates("hash_at", 0, 0, key)
    made: Tensor = fastest("votes", positions.device).hash_at(positions, key)
    return made
