"""Signs on a keyed mask, compiled: the same bits, by the same operations in the same order.

Reference: `reference/signs.py`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from laconic.buffer_pool import LONG_BYTES
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
_LIKE: dict[torch.dtype, Array] = {
    torch.float32: np.empty(0, np.float32),
    torch.float64: np.empty(0, np.float64),
}  # of their types
_FEW_BITS = 1 << 16  # of which calls cost more than copies


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
    return _joined(len(elements), lambda start, stop, words: pack(elements[start:stop], draw_from(draw, start), words))


def put_signs(
    packed: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None = None
) -> None:
    """See `reference.signs.put_signs`."""
    if out.dtype == torch.bfloat16:  # which numpy has not
        reference_signs.put_signs(packed, offset, key, threshold, out, sampled)
        return
    elements, draw = (out.detach() if out.requires_grad else out).numpy(), _draw(offset, key, threshold)
    signs, mask = padded(packed, elements.size), _NO_WORDS if sampled is None else padded(sampled, elements.size)
    if not is_split(elements.size):
        n_used = put(signs, 0, draw, mask, elements)
        if packed.shape[0] != (n_used + 7) // 8:
            check_stream("put_signs", packed, n_used)
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
    if 0 < n_bits <= _FEW_BITS:  # a short stream is one number
        number = int.from_bytes(packed.numpy()[start : (high + 7) // 8], "little") >> low - 8 * start
        number &= (1 << n_bits) - 1
        return torch.frombuffer(bytearray(number.to_bytes((n_bits + 7) // 8, "little")), dtype=torch.uint8)
    words, stream = padded(packed[start : (high + 7) // 8], high - 8 * start), bit_buffer(n_bits)
    shift_bits(words, low - 8 * start, n_bits, words_of(stream))
    return trimmed(stream, n_bits)


def majority(packed: Sequence[Tensor], count: int) -> Tensor:
    """See `reference.signs.majority`."""
    voters = np.zeros((len(packed), count // 64 + 2), np.uint64)
    for row, voter in zip(voters.view(np.uint8), packed, strict=True):
        row[: voter.shape[0]] = voter.numpy()
    words = _word_buffer(count)
    if is_split(count):
        in_chunks(count, lambda start, stop: vote(voters, start // 64, (stop + 63) // 64, words))
    else:
        vote(voters, 0, (count + 63) // 64, words)
    if count % 64:
        words[count // 64] &= np.uint64((1 << count % 64) - 1)  # whatever voters have there
    return torch.from_numpy(words.view(np.uint8)[: (count + 7) // 8])


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Tensor:
    """See `reference.signs.momentum_signs`."""
    new = (gradient.detach() if gradient.requires_grad else gradient).numpy()
    is_plain = momentum.is_contiguous() and not momentum.requires_grad
    old = momentum.numpy() if is_plain else _array(momentum)
    if not is_split(new.size):
        words = _word_buffer(new.size)
        momentum_pack(new, old, mu, 1 - mu, words)
        return torch.from_numpy(words.view(np.uint8)[: (new.size + 7) // 8])  # as `_stream_of`, in a call less

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
        tensors, spans = [gathered], spans_of([gathered], new_residual)
    assert spans is not None, "a gathered vector is contiguous"
    count, draw, past = new_residual.shape[0], _draw(offset, key, threshold), _past(new_momentum, new_residual)
    old = [each if each.is_contiguous() else each.contiguous() for each in (momentum, residual)]
    begins, size = list(map(Tensor.data_ptr, (*old, new_momentum, new_residual))), new_residual.itemsize
    sampled, fine = _word_buffer(count), []

    def write(start: int, stop: int, words: Words) -> int:
        is_all = stop - start == count
        within = spans if is_all else spans_of(slice_tensors(tensors, start, stop), new_residual)
        assert within is not None, "parts of contiguous tensors are contiguous"
        mask_words = sampled if is_all else _word_buffer(stop - start)  # `append` writes the word behind its own
        n, is_finite = cpu_error_feedback.error_feedback_step(
            *within, tuple([begin + start * size for begin in begins]), _LIKE[new_residual.dtype], mu, decay, c,
            draw_from(draw, start), past, words, mask_words,
        )  # fmt: skip
        if not is_all:
            sampled[start // 64 : (stop + 63) // 64] = mask_words[: (stop - start + 63) // 64]
        fine.append(is_finite)
        return n

    packed, n_selected = _joined(count, write)
    return packed, n_selected, _stream_of(sampled, count), all(fine)


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
    sampled = _word_buffer(len(after))

    def write(start: int, stop: int, words: Words) -> int:
        return cpu_error_feedback.error_feedback_total(
            votes[start:stop], before[start:stop], after[start:stop], float(divisor), scale, decay, c,
            draw_from(draw, start), past, words, sampled[start // 64 :],
        )  # fmt: skip

    packed, n_selected = _joined(len(votes), write)
    return packed, n_selected, _stream_of(sampled, len(after))


def _joined(count: int, write: Callable[[int, int, Words], int]) -> tuple[Tensor, int]:
    """Do what `joined` does, with fewer calls where one range is all."""
    if is_split(count):
        return joined(count, write)
    words = _word_buffer(count)
    n = int(write(0, count, words))
    return _stream_of(words, n), n


def _word_buffer(n_bits: int) -> Words:
    """Return words for a stream of so many bits, and one for what `append` writes behind it.

    A short one is numpy's: after a gradient, which leaves little of torch's code in the caches, a call of torch costs
    as much as a pass over thousands of elements.
    """
    n_words = (n_bits + 63) // 64 + 2
    return np.empty(n_words, np.uint64) if 8 * n_words < LONG_BYTES else words_of(bit_buffer(n_bits))


def _stream_of(words: Words, n_bits: int) -> Tensor:
    """Return the stream of so many bits that words hold."""
    return torch.from_numpy(words.view(np.uint8)[: (n_bits + 7) // 8])


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
