"""Signs on a keyed mask, compiled: the same bits, by the same operations in the same order.

Reference: `reference/signs.py`.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from laconic.kernels.checks import stream as check_stream
from laconic.kernels.cpu import error_feedback as cpu_error_feedback
from laconic.kernels.cpu.flatten import is_long, spans_of
from laconic.kernels.cpu.llvm.vectors import Words
from laconic.kernels.cpu.mask_streams import (
    Array,
    Draw,
    add,
    bit_buffer,
    count_draws,
    draw_from,
    joined,
    momentum_pack,
    pack,
    padded,
    placed,
    put,
    sampled_counts,
    shift_bits,
    trimmed,
    vote,
    words_of,
)
from laconic.kernels.cpu.threads import in_chunks, is_split
from laconic.kernels.reference import flatten as reference_flatten
from laconic.kernels.reference import signs as reference_signs
from laconic.kernels.reference.flatten import slice_tensors
from laconic.kernels.reference.hashing import key_words

_NO_WORDS: Words = np.empty(0, np.uint64)  # of a mask that is still to be sampled


def count_selected(offset: int, count: int, key: int, threshold: int, device: torch.device | None = None) -> int:
    """See `reference.signs.count_selected`."""
    draw = _draw(offset, key, threshold)
    counts: list[int] = []
    in_chunks(count, lambda start, stop: counts.append(int(count_draws(stop - start, draw_from(draw, start)))))
    return sum(counts)


def selected_bits(
    offset: int, count: int, key: int, threshold: int, device: torch.device | None = None
) -> tuple[Tensor, int]:
    """See `reference.signs.selected_bits`."""
    stream = bit_buffer(count)
    counts = sampled_counts(count, _draw(offset, key, threshold), words_of(stream))
    return trimmed(stream, count), sum(counts.values())


def pack_signs(values: Tensor, offset: int, key: int, threshold: int) -> tuple[Tensor, int]:
    """See `reference.signs.pack_signs`."""
    if values.dtype not in (torch.float32, torch.float64, torch.int8):
        values = values.float()
    elements, draw = _array(values), _draw(offset, key, threshold)
    return joined(len(elements), lambda start, stop, words: pack(elements[start:stop], draw_from(draw, start), words))


def put_signs(
    packed: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None = None
) -> None:
    """See `reference.signs.put_signs`."""
    if out.dtype == torch.bfloat16:  # which numpy has not
        reference_signs.put_signs(packed, offset, key, threshold, out, sampled)
        return
    elements, draw = _own(out), _draw(offset, key, threshold)
    signs, mask = padded(packed, elements.size), _NO_WORDS if sampled is None else padded(sampled, elements.size)
    if not is_split(elements.size):
        check_stream("put_signs", packed, put(signs, 0, draw, mask, elements))
        return
    used: list[int] = []

    def use(start: int, stop: int, n: int, mask_words: Words) -> None:
        used.append(int(put(signs, n, draw_from(draw, start), mask_words, elements[start:stop])))

    placed(elements.size, draw, mask, use)
    check_stream("put_signs", packed, max(used))


def add_signs(
    packed: Tensor, offset: int, key: int, threshold: int, total: Tensor, sampled: Tensor | None = None
) -> None:
    """See `reference.signs.add_signs`."""
    if total.dtype == torch.bfloat16:  # which numpy has not
        reference_signs.add_signs(packed, offset, key, threshold, total, sampled)
        return
    elements, draw = _own(total), _draw(offset, key, threshold)
    signs, mask = padded(packed, elements.size), _NO_WORDS if sampled is None else padded(sampled, elements.size)
    if not is_split(elements.size):
        check_stream("add_signs", packed, add(signs, 0, draw, mask, elements))
        return
    used: list[int] = []

    def use(start: int, stop: int, n: int, mask_words: Words) -> None:
        used.append(int(add(signs, n, draw_from(draw, start), mask_words, elements[start:stop])))

    placed(elements.size, draw, mask, use)
    check_stream("add_signs", packed, max(used))


def slice_bits(packed: Tensor, low: int, high: int) -> Tensor:
    """See `reference.signs.slice_bits`."""
    start, n_bits = low // 8, high - low
    words, stream = padded(packed[start : (high + 7) // 8], high - 8 * start), bit_buffer(n_bits)
    shift_bits(words, low - 8 * start, n_bits, words_of(stream))
    return trimmed(stream, n_bits)


def majority(packed: Sequence[Tensor], count: int) -> Tensor:
    """See `reference.signs.majority`."""
    voters = np.zeros((len(packed), count // 64 + 2), np.uint64)
    for row, voter in zip(voters.view(np.uint8), packed, strict=True):
        row[: voter.shape[0]] = voter.numpy()
    stream = bit_buffer(count)
    words = words_of(stream)
    in_chunks(count, lambda start, stop: vote(voters, start // 64, (stop + 63) // 64, words))
    made = stream[: (count + 7) // 8]
    if count % 8:
        made[-1] &= (1 << count % 8) - 1  # whatever voters have there
    return made


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Tensor:
    """See `reference.signs.momentum_signs`."""
    new, old = _own(gradient), _array(momentum)
    if not is_split(new.size):
        stream = bit_buffer(new.size)
        momentum_pack(new, old, mu, 1 - mu, words_of(stream))
        return stream[: (new.size + 7) // 8]

    def write(start: int, stop: int, words: Words) -> int:
        return momentum_pack(new[start:stop], old[start:stop], mu, 1 - mu, words)

    return joined(len(new), write)[0]


def error_feedback_step(
    tensors: Sequence[Tensor],
    momentum: Tensor,
    residual: Tensor,
    new_momentum: Tensor,
    new_residual: Tensor,
    *,
    mu: float,
    decay: float,
    c: float,
    offset: int,
    key: int,
    threshold: int,
) -> tuple[Tensor, int, Tensor | None, bool]:
    """See `reference.signs.error_feedback_step`."""
    spans = spans_of(tensors, new_residual)
    if spans is None:
        gathered = torch.empty_like(new_residual)
        reference_flatten.gather(tensors, gathered)
        tensors = [gathered]
    old, before, moved, after = _array(momentum), _array(residual), _own(new_momentum), _own(new_residual)
    draw, past = _draw(offset, key, threshold), _past(new_momentum, new_residual)
    sampled, fine = _SampledMask(len(after)), []

    def write(start: int, stop: int, words: Words) -> int:
        within = spans
        if within is None or stop - start < len(after):
            within = spans_of(slice_tensors(tensors, start, stop), new_residual)
        assert within is not None, "parts of contiguous tensors are contiguous"
        mask_words = sampled.buffer(start, stop)
        n, is_finite = cpu_error_feedback.error_feedback_step(
            *within, old[start:stop], before[start:stop], moved[start:stop], after[start:stop], mu,
            decay, c,
            draw_from(draw, start), past, words, mask_words,
        )  # fmt: skip
        sampled.put(start, stop, mask_words)
        fine.append(is_finite)
        return n

    packed, n_selected = joined(len(after), write)
    return packed, n_selected, sampled.stream, all(fine)


def error_feedback_total(
    total: Tensor,
    residual: Tensor,
    new_residual: Tensor,
    *,
    divisor: int,
    scale: float,
    decay: float,
    c: float,
    offset: int,
    key: int,
    threshold: int,
) -> tuple[Tensor, int, Tensor | None]:
    """See `reference.signs.error_feedback_total`."""
    votes, before, after = _array(total), _array(residual), _own(new_residual)
    draw, past = _draw(offset, key, threshold), _past(new_residual)
    sampled = _SampledMask(len(after))

    def write(start: int, stop: int, words: Words) -> int:
        return cpu_error_feedback.error_feedback_total(
            votes[start:stop], before[start:stop], after[start:stop], float(divisor), scale, decay, c,
            draw_from(draw, start), past, words, sampled.words[start // 64 :],
        )  # fmt: skip

    packed, n_selected = joined(len(votes), write)
    return packed, n_selected, sampled.stream


class _SampledMask:
    """The mask as bits, written range by range."""

    def __init__(self, count: int) -> None:
        buffer = bit_buffer(count)
        self.words = words_of(buffer)
        self.stream = trimmed(buffer, count)
        self._count = count

    def buffer(self, start: int, stop: int) -> Words:
        """Return a buffer to which `append` may write a range's bits, and the word behind them."""
        return self.words if stop - start == self._count else words_of(bit_buffer(stop - start))

    def put(self, start: int, stop: int, words: Words) -> None:
        """Copy a range's bits to where they belong. `start` is a multiple of 64."""
        if words is not self.words:
            self.words[start // 64 : (stop + 63) // 64] = words[: (stop - start + 63) // 64]


@lru_cache(maxsize=16)
def _draw(offset: int, key: int, threshold: int) -> Draw:
    """Return the first coordinate, the two halves of the mixed key, and the threshold."""
    low, high = key_words(key)
    return offset, low, high, threshold


def _array(values: Tensor) -> Array:
    """Return an array to read from."""
    values = values.detach() if values.requires_grad else values
    return (values if values.is_contiguous() else values.contiguous()).numpy()


def _own(values: Tensor) -> Array:
    """Return an array to write to, of a contiguous vector."""
    return (values.detach() if values.requires_grad else values).numpy()


def _past(*vectors: Tensor) -> int | None:
    """Return 1 if vectors are to be stored past the caches, otherwise None."""
    return 1 if all(is_long(vector) and vector.data_ptr() % 64 == 0 for vector in vectors) else None
