"""Right calls of every kernel that takes tensors, and many ways to make one wrong.

Each tensor lies between guards: bytes that no call may change.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.kernels import api as kernels

GUARD, GUARD_BYTE = 256, 0xA5
KEY, OFFSET, THRESHOLD = 0x4806654E26238EC1, 1000, round(0.3 * 2**32)
HUGE = (-(2**63), -1, 0, 2**33, 2**63, 2**64)
D = 333
Arguments = dict[str, Any]


def guarded(values: Tensor) -> Tensor:
    """Return a contiguous copy in the middle of a buffer of guard bytes; it starts at no multiple of 64 bytes."""
    n_bytes, size = values.numel() * values.element_size(), values.element_size()
    buffer = torch.full((2 * GUARD + 64 + n_bytes,), GUARD_BYTE, dtype=torch.uint8)
    place = GUARD + 3 * size
    made = buffer[place : place + n_bytes].view(values.dtype).view(values.shape)
    return made.copy_(values)


def guards_hold(tensor: Tensor) -> bool:
    """Return whether the bytes around a guarded tensor are as they were."""
    buffer = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    start = tensor.storage_offset() * tensor.element_size()
    stop = start + tensor.numel() * tensor.element_size()
    return bool((buffer[:start] == GUARD_BYTE).all() and (buffer[stop:] == GUARD_BYTE).all())


@dataclass(frozen=True, kw_only=True)
class Call:
    """A kernel, the file of it in each backend, and right arguments."""

    name: str
    family: str
    arguments: Callable[[], Arguments]

    def made(self) -> Arguments:
        return self.arguments()

    def face(self, arguments: Arguments) -> object:
        return getattr(kernels, self.name)(**arguments)

    def reference(self, arguments: Arguments) -> object:
        return getattr(kernels.reference(self.family), self.name)(**arguments)


def _floats(n: int = D, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return guarded(torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=dtype))


def _indices(n: int = D) -> Tensor:
    return guarded(torch.arange(1, n, 5))


def _tensors(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [guarded(torch.randn(shape, dtype=dtype)) for shape in [(3, 5), (), (0,), (300,), (17,)]]


def _calls() -> list[Call]:
    made: list[Call] = []

    def add(name: str, family: str, **given: Callable[[], Any] | Any) -> None:
        def arguments() -> Arguments:
            torch.default_generator.manual_seed(0)  # torch.manual_seed keeps a stack trace of each call, for GPUs
            return {key: value() if callable(value) else value for key, value in given.items()}

        made.append(Call(name=name, family=family, arguments=arguments))

    lengths = (100, 100, 100, 33)
    ends = {"lows": lambda: guarded(-3 * torch.ones(4)), "highs": lambda: guarded(3 * torch.ones(4))}
    keyed = {"offset": OFFSET, "key": KEY}
    masked = {**keyed, "threshold": THRESHOLD}
    signs = kernels.pack_signs(torch.randn(D), OFFSET, KEY, THRESHOLD)[0]
    mask = kernels.selected_bits(OFFSET, D, KEY, THRESHOLD)[0]
    chosen = kernels.take_selected(torch.randn(D), 0.3, OFFSET, KEY, THRESHOLD)
    codes, means = kernels.fractional_codes(torch.randn(D), 4)
    for dtype in (torch.float32, torch.float64):
        add("gather", "flatten", tensors=lambda d=dtype: _tensors(d), out=lambda d=dtype: _floats(D, d), divisor=3)
        add("scatter", "flatten", vector=lambda d=dtype: _floats(D, d), tensors=lambda d=dtype: _tensors(d))
    add("gather_change", "flatten", tensors=_tensors, start=_floats, out=_floats, plus=_floats)
    add("gather_scaled", "flatten", tensors=_tensors, factors=(1.0, 2.0, 3.0, 4.0, 5.0), out=_floats, plus=_floats)
    add("gather_distance", "distances", tensors=_tensors, other=_floats, out=_floats)
    add("squared_distance", "distances", tensors=_tensors, others=lambda: [_floats()])
    add("gather_top_k", "gathered_top_k", tensors=_tensors, factors=(1.0, 2.0, 3.0, 4.0, 5.0), out=_floats,
        plus=_floats, blocks=((100, 3), (233, 50)), guesses=kernels.Guesses)  # fmt: skip
    add("add_into", "flatten", tensors=_tensors, indices=_indices, values=lambda: _floats(67))
    add("take_at", "indexing", vector=_floats, indices=_indices)
    add("add_at", "indexing", vector=_floats, indices=_indices, values=lambda: _floats(67))
    add("clear_at", "indexing", vector=_floats, indices=_indices)
    add("elements_of", "indexing", vector=_floats, limit=D)
    add("put_at", "indexing", vector=_floats, indices=_indices, values=lambda: _floats(67))
    add("step_at", "indexing", tensors=_tensors, indices=_indices, values=lambda: _floats(67), factor=-0.5)
    add("divide", "finite", vector=_floats, n=3)
    add("add_up", "sums", vectors=lambda: [_floats(), _floats(seed=1), _floats(seed=2)], out=_floats, divisor=3)
    add("step_along_mean", "steps", values=_floats, divisor=3, lr=0.1,
        vectors=lambda: [_floats(seed=seed) for seed in range(1, 6)])  # fmt: skip
    add("gather_mean_step", "steps", tensors=_tensors, factors=(1.0, 2.0, 3.0, 4.0, 5.0), out=_floats, divisor=3,
        vectors=lambda: [_floats(seed=seed) for seed in range(1, 6)])  # fmt: skip
    add("descend", "descents", tensors=_tensors, gradients=_tensors, factor=-0.5)
    add("gather_step", "steps", tensors=_tensors, gradients=_tensors, factors=(1.0, 2.0, 3.0, 4.0, 5.0), out=_floats,
        adds=True)  # fmt: skip
    add("step_difference", "steps", tensors=_tensors, gradients=_tensors, factors=(1.0, 2.0, 3.0, 4.0, 5.0),
        published=lambda: _floats(seed=1), copies=lambda: [_floats(seed=2), _floats()], weights=(0.25, 0.75),
        out=lambda: _floats(seed=3))  # fmt: skip
    add("gather_with_checksum", "checksums", tensors=_tensors, out=_floats)
    add("add_up_with_checksum", "checked_sums", vectors=lambda: [_floats(), _floats(seed=1), _floats(seed=2)],
        out=lambda: _floats(seed=3), divisor=3)  # fmt: skip
    add("largest_and_checksum", "checksums", vector=_floats, found=7)
    add("mixed_difference", "sums", updated=_floats, published=lambda: _floats(seed=1),
        copies=lambda: [_floats(seed=2), _floats()], weights=(0.25, 0.75), out=lambda: _floats(seed=3))  # fmt: skip
    add("all_finite", "finite", vector=_floats)
    add("top_k", "top_k", vector=_floats, k=30)
    add("top_k_by_chunk", "chunks", vector=_floats, size=100, k=7, last_k=3)
    add("correct_top_k_by_chunk", "chunks", vector=_floats, residual=_floats, size=100, k=7, last_k=3, divisor=3)
    add("gather_top_k_by_chunk", "chunks", tensors=_tensors, factors=(1.0, 2.0, 3.0, 4.0, 5.0), out=_floats,
        residual=_floats, size=100, k=7, last_k=3, decay=0.5)  # fmt: skip
    add("ascending", "position_streams", positions=_indices, count=D)
    add("put_numbers", "position_streams", numbers=_indices, width=9)
    add("take_numbers", "position_streams", k=67, width=9,
        data=lambda: guarded(kernels.put_numbers(torch.arange(1, D, 5), 9)))  # fmt: skip
    for from_last, step in ((True, 4), (False, 3)):
        runs = {"width": 2, "step": step, "from_last": from_last}
        stream = kernels.put_runs(torch.arange(1, D, 5), 2, step, from_last, 400)[0]
        add("put_runs", "position_streams", positions=_indices, n_bits=400, **runs)
        add("take_runs", "position_streams", data=lambda s=stream: guarded(s), n_bits=400, k=67, count=D, **runs)
    add("vote_counts", "votes", lists=lambda: [_indices(), _indices(200), guarded(torch.arange(9))])
    add("list_difference", "votes", positions=_indices, others=lambda: _indices(200))
    add("revised_list", "votes", positions=_indices, dropped=lambda: guarded(torch.arange(0, 60, 7)),
        added=lambda: guarded(torch.arange(2, D, 30)))  # fmt: skip
    add("union_sum", "votes", lists=lambda: [_indices(), _indices(200)], dtype=torch.float32,
        values=lambda: [_floats(67), _floats(40, seed=1)])  # fmt: skip
    add("top_voted", "votes", k=30, votes=lambda: guarded(torch.randint(0, 5, (67,))),
        order=lambda: guarded(torch.randperm(67).int()))  # fmt: skip
    add("hash_at", "votes", positions=_indices, key=KEY)
    add("fractional_codes", "fractional", values=_floats, bits=4)
    unpacked = {"packed": lambda: guarded(codes), "means": lambda: guarded(means), "count": D, "bits": 4}
    add("fractional_dense", "fractional", **unpacked)
    add("add_fractional", "fractional", total=_floats, **unpacked)
    add("put_fractional", "fractional", out=_floats, **unpacked)
    for bits in (4, 5, 11):
        add("pack_codes", "fractional", codes=lambda: guarded(torch.randint(0, 16, (D,)).int()), bits=bits)
        add("unpack_codes", "fractional", k=D, bits=bits,
            packed=lambda b=bits: guarded(torch.randint(0, 256, ((D * b + 7) // 8,)).byte()))  # fmt: skip
    for bits in (3, 8):
        packed = kernels.quantize(torch.randn(D), -torch.ones(4), torch.ones(4), lengths, bits, 0, 1)
        coded = {"packed": lambda p=packed: guarded(p), "lengths": lengths, "bits": bits, **ends}
        add("put_codes", "late_codes", values=_floats, lows=lambda: guarded(-3 * torch.ones(1)), bits=bits,
            highs=lambda: guarded(3 * torch.ones(1)), packed=lambda p=packed: guarded(torch.zeros_like(p)),
            replaces=True, **keyed)  # fmt: skip
        add("quantize", "stochastic_rounding", values=_floats, lengths=lengths, bits=bits, **ends, **keyed)
        add("quantize_tensors", "gathered_codes", tensors=_tensors, lengths=lengths, bits=bits, **ends, **keyed)
        add("dequantize", "stochastic_rounding", **coded)
        add("add_dequantized", "stochastic_rounding", total=_floats, **coded)
        add("put_moved", "quantized_sums", base=_floats, out=lambda: _floats(seed=1), **coded)
        add("sum_dequantized", "quantized_sums", out=_floats, lengths=lengths, bits=bits, divisor=3,
            packed=lambda p=packed: [guarded(p), guarded(p)],
            **{name: lambda e=end: [e(), e()] for name, end in ends.items()})  # fmt: skip
    scales = {"scales": lambda: guarded(4 * torch.ones(4)), "lengths": lengths, "steps": 5}
    levels = kernels.quantize_levels(torch.randn(D), 4 * torch.ones(4), lengths, 5, 0, 1)
    add("quantize_levels", "stochastic_rounding", values=_floats, **scales, **keyed)
    add("levels_dense", "stochastic_rounding", packed=lambda: guarded(levels), **scales)
    add("add_levels", "stochastic_rounding", packed=lambda: guarded(levels), total=_floats, **scales)
    add("sum_levels", "quantized_sums", packed=lambda: [guarded(levels)], out=_floats, lengths=lengths, steps=5,
        scales=lambda: [guarded(4 * torch.ones(4))])  # fmt: skip
    add("levels_allowed", "stochastic_rounding", packed=lambda: guarded(levels), count=D, steps=5)
    for name in ("ranges", "absolute_maxima", "norms"):
        add(name, "stochastic_rounding", values=lambda: _floats(D, torch.float64), lengths=lengths)
    for blocks in (lengths, (D,)):
        add("ranges_of_tensors", "gathered_codes", tensors=_tensors, lengths=blocks)
    add("count_selected", "signs", count=D, **masked)
    add("selected_bits", "signs", count=D, **masked)
    add("count_ones", "popcount", packed=lambda: guarded(mask), bounds=(0, 5, 70, 70, 328))
    add("pack_signs", "signs", values=_floats, **masked)
    for sampled in (None, lambda: guarded(mask)):
        add("put_signs", "signs", packed=lambda: guarded(signs), out=_floats, sampled=sampled, **masked)
        add("add_signs", "signs", packed=lambda: guarded(signs), total=_floats, sampled=sampled, **masked)
        add("put_selected", "selected_values", selected=lambda: guarded(chosen), out=_floats, sampled=sampled, **masked)
        add("add_selected", "selected_values", selected=lambda: guarded(chosen), total=_floats, sampled=sampled,
            **masked)  # fmt: skip
    add("take_selected", "selected_values", values=_floats, share=0.3, **masked)
    add("slice_bits", "signs", packed=lambda: guarded(mask), low=3, high=200)
    long_mask = mask.repeat(1 + (1 << 13) // len(mask))
    add("slice_bits", "signs", packed=lambda: guarded(long_mask), low=3, high=8 * len(long_mask) - 5)
    voter = kernels.pack_signs(torch.randn(D), 0, 0, kernels.ALL_SELECTED)[0]
    add("majority", "signs", packed=lambda: [guarded(packed) for packed in (voter, voter ^ 1, voter)], count=D)
    add("momentum_signs", "signs", gradient=_floats, momentum=_floats, mu=0.9)
    add("error_feedback_step", "signs", tensors=_tensors, momentum=_floats, residual=_floats, new_momentum=_floats,
        new_residual=_floats, mu=0.9, decay=0.9, c=0.5, **masked)  # fmt: skip
    add("error_feedback_total", "signs", total=_floats, residual=_floats, new_residual=_floats, divisor=3, scale=0.5,
        decay=0.9, c=0.5, **masked)  # fmt: skip
    add("correct", "residuals", vector=_floats, residual=_floats, divisor=3, decay=0.5)
    add("mean_signs", "residuals", values=_floats, lengths=lengths)
    add("correct_signs", "residuals", vector=_floats, residual=_floats, lengths=lengths, divisor=3, decay=0.5)
    add("momentum_correct_signs", "residuals", gradient=_floats, momentum=_floats, residual=_floats,
        new_momentum=_floats, lengths=lengths, mu=0.9, decay=0.5)  # fmt: skip
    for name, out in (("put_scaled_signs", "out"), ("add_scaled_signs", "total")):
        add(name, "residuals", packed=lambda: guarded(voter), scales=lambda: guarded(4 * torch.ones(4)),
            lengths=lengths, **{out: _floats})  # fmt: skip
    add("answer_scaled_signs", "scaled_answers", packed=lambda: [guarded(voter), guarded(voter ^ 1)],
        scales=lambda: [guarded(4 * torch.ones(4)) for _ in range(2)], residual=_floats, new_residual=_floats,
        lengths=lengths, divisor=2, decay=0.5)  # fmt: skip
    add("power_codes", "powers_of_two", values=_floats, **keyed)
    powers = kernels.power_codes(torch.randn(D), 0, 1)[0]
    add("put_powers", "powers_of_two", packed=lambda: guarded(powers), out=_floats)
    add("add_powers", "powers_of_two", packed=lambda: guarded(powers), total=_floats)
    add("short_codes", "powers_of_two", values=_floats, mantissa_bits=7)
    exponents, tails, _ = kernels.short_codes(torch.randn(D), 7)
    short = {"packed": lambda: guarded(exponents), "tails": lambda: guarded(tails), "mantissa_bits": 7}
    add("put_powers", "powers_of_two", out=_floats, **short)
    add("add_powers", "powers_of_two", total=_floats, **short)
    add("are_ranges", "finite", lows=lambda: guarded(-torch.ones(9)), highs=lambda: guarded(torch.ones(9)))
    add("are_sizes", "finite", scales=lambda: guarded(torch.ones(9)))
    add("powers_finite", "powers_of_two", packed=lambda: guarded(powers), count=D, dtype=torch.float32)
    starts = np.linspace(0, 2**14, 9).astype(np.int64)
    symbols = np.arange(90, dtype=np.int32) % 8
    words, top = kernels.ans_encode_symbols(symbols, starts)
    add("ans_encode_symbols", "ans_symbols", symbols=symbols.copy, starts=starts.copy)
    add("ans_decode_symbols", "ans_symbols", words=words.copy, top=top, k=90, starts=starts.copy)
    gaps = np.minimum(np.arange(129) * 200, 2**14)
    words, top = kernels.ans_encode_gaps(np.arange(1, D, 5), gaps)
    add("ans_encode_gaps", "ans_gaps", positions=np.arange(1, D, 5).copy, starts=gaps.copy)
    add("ans_decode_gaps", "ans_gaps", words=words.copy, top=top, k=67, starts=gaps.copy, count=D)
    return made


CALLS = _calls()


class Wrapped(Tensor):
    """A tensor that holds another one and has no memory of its own."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Wrapped":
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, strides=inner.stride())

    @classmethod
    def __torch_dispatch__(cls, function: object, types: object, args: object = (), kwargs: object = None) -> object:
        raise AssertionError(f"{function} reached a wrapper")


def _freed(tensor: Tensor) -> Tensor:
    tensor.untyped_storage().resize_(0)
    return tensor


def _shortened(tensor: Tensor) -> Tensor:
    clone = tensor.clone()
    clone.untyped_storage().resize_(max(0, clone.untyped_storage().nbytes() - 1))
    return clone


WITHOUT_MEMORY: dict[str, Callable[[Tensor], Tensor]] = {
    "freed": _freed,
    "shortened": _shortened,
    "meta": lambda tensor: tensor.to("meta"),
    "wrapper": Wrapped,
    "sparse": lambda tensor: tensor.to_sparse(),
    "functional": lambda tensor: (
        torch._to_functional_tensor(tensor) if tensor.numel() else tensor
    ),  # else nothing is read
}

WRONG_TENSORS: dict[str, Callable[[Tensor], Tensor]] = {
    **WITHOUT_MEMORY,
    "shorter": lambda tensor: guarded(tensor.reshape(-1)[:-1]),
    "longer": lambda tensor: guarded(torch.cat([tensor.reshape(-1), tensor.reshape(-1)[:1]])),
    "much longer": lambda tensor: guarded(tensor.reshape(-1).repeat(9)),
    "empty": lambda tensor: guarded(tensor.reshape(-1)[:0]),
    "strided": lambda tensor: tensor.repeat_interleave(2).as_strided(tensor.shape, _doubled(tensor)),
    "expanded": lambda tensor: tensor.reshape(-1)[:1].expand(tensor.numel()),
    "two rows": lambda tensor: guarded(torch.stack([tensor.reshape(-1)] * 2)),
    "a matrix": lambda tensor: tensor.reshape(1, -1),
    "a number": lambda tensor: guarded(tensor.reshape(-1)[0]) if tensor.numel() else tensor,
    "negated": torch._neg_view,
    "double": lambda tensor: guarded(tensor.double()),
    "float": lambda tensor: guarded(tensor.float()),
    "half": lambda tensor: guarded(tensor.half()),
    "brain": lambda tensor: guarded(tensor.bfloat16()),
    "long": lambda tensor: guarded(tensor.long()),
    "int": lambda tensor: guarded(tensor.int()),
    "bytes": lambda tensor: guarded(tensor.byte()),
    "bool": lambda tensor: guarded(tensor.bool()),
    "descending": lambda tensor: guarded(tensor.reshape(-1).flip(0)),
    "behind": lambda tensor: guarded(_with(tensor, -1, D)),
    "far behind": lambda tensor: guarded(_with(tensor, -1, 2**40)),
    "negative": lambda tensor: guarded(_with(tensor, 0, -1)),
    "most negative": lambda tensor: guarded(_with(tensor, 0, -(2**63))),
    "twice": lambda tensor: guarded(_with(tensor, 1, 0)),
    "all equal": lambda tensor: guarded(torch.zeros_like(tensor)),
}


def _doubled(tensor: Tensor) -> tuple[int, ...]:
    return tuple(2 * step for step in tensor.stride())


def _with(tensor: Tensor, place: int, value: object) -> Tensor:
    flat = tensor.reshape(-1).clone()
    if flat.dtype == torch.int64 and flat.numel() > 1:
        flat[place] = value
    return flat


def _wrong_arrays(array: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    return {
        "shorter": lambda: array[:-1].copy(), "longer": lambda: np.append(array, array[:1]), "empty": lambda: array[:0],
        "strided": lambda: np.repeat(array, 2)[::2], "descending": lambda: array[::-1].copy(),
        "a matrix": lambda: array[None], "wide": lambda: array.astype(np.int64) + 2**40,
        "negative": lambda: (array.astype(np.int64) - 2).astype(array.dtype), "float": lambda: array.astype(np.float32),
        "zeros": lambda: np.zeros_like(array),
    }  # fmt: skip


def _change_of(value: object, draw: random.Random) -> tuple[str, Callable[[object], object]] | None:
    """Return the name of a way to make an argument wrong, and that way; None where there is none."""
    if isinstance(value, Tensor):
        name = draw.choice(list(WRONG_TENSORS))
        return name, WRONG_TENSORS[name]
    if isinstance(value, np.ndarray):
        name = draw.choice(list(_wrong_arrays(value)))
        return name, lambda array: _wrong_arrays(array)[name]()
    if isinstance(value, list):
        place, kind = draw.randrange(len(value)), draw.choice(["drop", "none", "one"])
        if kind != "one":
            return kind, lambda given: [] if kind == "none" else given[:place] + given[place + 1 :]
        inner = _change_of(value[place], draw)
        assert inner is not None
        return f"{place}: {inner[0]}", lambda given: [*given[:place], inner[1](given[place]), *given[place + 1 :]]
    if isinstance(value, tuple):
        wrong = draw.choice([value[:-1], (*value, 1), (), (-1, *value[1:]), (*value[:-1], 2**40), (0, *value[1:])])
        return str(wrong), lambda _: wrong
    if isinstance(value, int) and not isinstance(value, bool):
        wrong = draw.choice([*HUGE, value - 1, value + 1])
        return str(wrong), lambda _: wrong
    return None


def wrong_arguments(call: Call, draw: random.Random, n: int = 1) -> tuple[dict[str, str], Callable[[], Arguments]]:
    """Return `n` changes of a call's arguments, by name, and a function that makes these arguments anew each time."""
    example = call.made()
    names = [name for name, value in example.items() if _change_of(value, random.Random(0)) is not None]
    changes = {name: _change_of(example[name], draw) for name in draw.sample(names, min(n, len(names)))}

    def made() -> Arguments:
        arguments = call.made()
        for name, change in changes.items():
            assert change is not None
            arguments[name] = change[1](arguments[name])
        return arguments

    return {name: change[0] for name, change in changes.items() if change is not None}, made
