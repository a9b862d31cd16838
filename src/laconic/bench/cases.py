"""The kernels as data: the inputs of each, the call of laconic's kernel, and the same in plain torch.

To add a kernel, add one `KernelCase` to one of the lists below.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool
from laconic.compressors import block_lengths, n_selected_in
from laconic.kernels import api as kernels
from laconic.kernels.api import reference
from laconic.wire import POSITION_CODES, decode_positions, encode_positions

VOTERS = 8
ALL_SELECTED = 1 << 32
_KEEP_30_PERCENT = int(0.3 * ALL_SELECTED)  # of a mask that selects 30 % of the signs
_KEEP_75_PERCENT = int(0.75 * ALL_SELECTED)  # of a mask that selects 75 % of the values
_KEY = 12345
_LEVELS = 7

Calls = Mapping[str, Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class KernelCase:
    """One kernel."""

    name: str
    prepare: Callable[[Tensor], Calls]
    """Makes the calls for a float32 vector (d,), by "laconic", "torch" and other libraries."""
    bar: float | None = None
    """Maximum time in copies of the vector; None for no bound."""
    beats_torch: bool = True
    """Whether it must be five times faster than plain torch."""


def cases(densities: Sequence[float]) -> dict[str, KernelCase]:
    """Return all kernels by name; those of sparse methods once per density."""
    sparse = [case for make in (_top_k, _encoders, _decoders) for density in densities for case in make(density)]
    return {case.name: case for case in [*_SIGNS, *_quantizers(), *sparse, *_NORMS]}


# Signs


def _by_both(plainly: ModuleType, call: Callable[[Any], object]) -> Calls:
    """Return the same call on the kernels and on `plainly`, a reference module with the same signatures."""
    return {"laconic": lambda: call(kernels), "torch": lambda: call(plainly)}


def _own(*values: Tensor) -> list[Tensor]:
    """Return copies of vectors in memory as a method's own vectors have it."""
    pool = VectorPool(values[0].numel(), values[0].dtype)
    return [pool.take().copy_(value) for value in values]


def _error_feedback_step(vector: Tensor) -> Calls:
    """The worker's step of DropSign and CompSkip: momentum, residual, packed signs on a keyed mask, new residual."""
    momentum, residual, *new = _own(vector.flip(0), 0.1 * vector.roll(1), vector, vector)
    settings: dict[str, Any] = {
        "mu": 0.9,
        "decay": 0.9,
        "c": 0.01,
        "offset": 0,
        "key": _KEY,
        "threshold": _KEEP_30_PERCENT,
    }
    return _by_both(
        reference("signs"), lambda by: by.error_feedback_step([vector], momentum, residual, *new, **settings)
    )


def _error_feedback_total(vector: Tensor) -> Calls:
    """The server's step of DropSign and CompSkip, from votes."""
    votes, (residual, new_residual) = vector.sign().to(torch.int8), _own(0.1 * vector.roll(1), vector)
    settings: dict[str, Any] = {
        "divisor": VOTERS, "scale": 0.01, "decay": 0.9, "c": 0.01, "offset": 0, "key": _KEY,
        "threshold": _KEEP_30_PERCENT,
    }  # fmt: skip
    return _by_both(reference("signs"), lambda by: by.error_feedback_total(votes, residual, new_residual, **settings))


def _momentum_signs(vector: Tensor) -> Calls:
    gradient, momentum = _own(vector, vector.flip(0))
    return _by_both(reference("signs"), lambda by: by.momentum_signs(gradient, momentum, mu=0.9))


def _scaled_sign_step(vector: Tensor) -> Calls:
    """The worker's pass of EC-SGD: residual added, signs packed, scale of each block; then the new residual.

    The residual is zero, and is left as it is; the gradient is written over.
    """
    gradient, residual = _own(vector, torch.zeros_like(vector))

    def step(by: Any) -> None:  # noqa: ANN401 - kernels, or their reference
        packed, scales = by.correct_signs(gradient, residual, (vector.numel(),))
        by.add_scaled_signs(packed, -scales, (vector.numel(),), gradient)

    return _by_both(reference("residuals"), step)


def _scaled_sign_momentum(vector: Tensor) -> Calls:
    """The worker's pass of dist-EF: the same, with momentum."""
    gradient, momentum, residual, new_momentum = _own(vector, vector.flip(0), torch.zeros_like(vector), vector)

    def step(by: Any) -> None:  # noqa: ANN401
        packed, scales = by.momentum_correct_signs(
            gradient, momentum, residual, new_momentum, (vector.numel(),), mu=0.9, decay=0.5
        )
        by.add_scaled_signs(packed, -scales, (vector.numel(),), gradient)

    return _by_both(reference("residuals"), step)


def _scaled_sign_answer(voters: int) -> Callable[[Tensor], Calls]:
    """The server's pass of EC-SGD: packets added up, residual, signs and scale of the answer, new residual."""

    def prepare(vector: Tensor) -> Calls:
        lengths, (residual, new_residual) = (vector.numel(),), _own(0.1 * vector.roll(1), vector)
        made = [kernels.mean_signs(vector.roll(worker), lengths) for worker in range(voters)]
        packed, scales = [signs for signs, _ in made], [scale for _, scale in made]
        return _by_both(
            reference("scaled_answers"),
            lambda by: by.answer_scaled_signs(
                packed, scales, residual, new_residual, lengths, divisor=voters, decay=1.0
            ),
        )

    return prepare


def _add_scaled_signs(blocks: str) -> Callable[[Tensor], Calls]:
    def prepare(vector: Tensor) -> Calls:
        lengths, total = block_lengths(blocks, vector.numel()), torch.zeros_like(vector)
        packed, scales = kernels.mean_signs(vector, lengths)
        return _by_both(reference("residuals"), lambda by: by.add_scaled_signs(packed, scales, lengths, total))

    return prepare


def _mean_signs(blocks: str) -> Callable[[Tensor], Calls]:
    def prepare(vector: Tensor) -> Calls:
        lengths = block_lengths(blocks, vector.numel())
        return _by_both(reference("residuals"), lambda by: by.mean_signs(vector, lengths))

    return prepare


def _sign_pack(threshold: int) -> Callable[[Tensor], Calls]:
    def prepare(vector: Tensor) -> Calls:
        calls = dict(_by_both(reference("signs"), lambda by: by.pack_signs(vector, 0, _KEY, threshold)))
        if threshold == ALL_SELECTED:
            calls["numpy"] = lambda: np.packbits(np.signbit(vector.numpy()), bitorder="little")
        return calls

    return prepare


def _add_signs(dtype: torch.dtype, threshold: int = ALL_SELECTED) -> Callable[[Tensor], Calls]:
    def prepare(vector: Tensor) -> Calls:
        packed, _ = kernels.pack_signs(vector, 0, _KEY, threshold)
        total = torch.zeros(vector.numel(), dtype=dtype)
        return _by_both(reference("signs"), lambda by: by.add_signs(packed, 0, _KEY, threshold, total))

    return prepare


def _majority(vector: Tensor) -> Calls:
    votes = [kernels.pack_signs(vector.roll(worker), 0, 0, ALL_SELECTED)[0] for worker in range(VOTERS)]
    return _by_both(reference("signs"), lambda by: by.majority(votes, vector.numel()))


_SIGNS = [
    KernelCase(name="sign step: mask, residual", prepare=_error_feedback_step, bar=2.0),
    KernelCase(name="server's step: mask, residual", prepare=_error_feedback_total),
    KernelCase(name="scaled signs: worker's pass", prepare=_scaled_sign_step, bar=2.5),
    KernelCase(name="scaled signs: with momentum", prepare=_scaled_sign_momentum),
    KernelCase(name="scaled signs: server's pass, 2", prepare=_scaled_sign_answer(2), bar=1.6),
    KernelCase(name=f"scaled signs: server's pass, {VOTERS}", prepare=_scaled_sign_answer(VOTERS)),
    KernelCase(name="scaled signs", prepare=_mean_signs("vector")),
    KernelCase(name="scaled signs of blocks of 1", prepare=_mean_signs("1")),
    KernelCase(name="scaled signs, add", prepare=_add_scaled_signs("vector"), bar=1.0),
    KernelCase(name="scaled signs, add, blocks of 1", prepare=_add_scaled_signs("1")),
    KernelCase(name="momentum, sign + pack", prepare=_momentum_signs),
    KernelCase(name="sign + pack", prepare=_sign_pack(ALL_SELECTED), bar=1.2, beats_torch=False),
    KernelCase(name="sign + pack, masked", prepare=_sign_pack(_KEEP_30_PERCENT)),
    KernelCase(name="unpack + add float32", prepare=_add_signs(torch.float32), bar=1.0),
    KernelCase(name="unpack + add int8", prepare=_add_signs(torch.int8), bar=0.4),
    KernelCase(name="unpack + add int8, masked", prepare=_add_signs(torch.int8, _KEEP_30_PERCENT)),
    KernelCase(name=f"majority of {VOTERS}", prepare=_majority),
]


# Quantizers


def _quantize(bits: int) -> Callable[[Tensor], Calls]:
    def prepare(vector: Tensor) -> Calls:
        lengths = (vector.numel(),)
        lows, highs = kernels.ranges(vector, lengths)
        return _by_both(
            reference("stochastic_rounding"), lambda by: by.quantize(vector, lows, highs, lengths, bits, 0, _KEY)
        )

    return prepare


def _add_dequantized(bits: int) -> Callable[[Tensor], Calls]:
    def prepare(vector: Tensor) -> Calls:
        lengths, total = (vector.numel(),), torch.zeros_like(vector)
        lows, highs = kernels.ranges(vector, lengths)
        packed = kernels.quantize(vector, lows, highs, lengths, bits, 0, _KEY)
        return _by_both(
            reference("stochastic_rounding"), lambda by: by.add_dequantized(packed, lows, highs, lengths, bits, total)
        )

    return prepare


def _quantize_levels(vector: Tensor) -> Calls:
    lengths = block_lengths("512", vector.numel())
    scales = kernels.norms(vector, lengths)
    return _by_both(
        reference("stochastic_rounding"), lambda by: by.quantize_levels(vector, scales, lengths, _LEVELS, 0, _KEY)
    )


def _add_levels(vector: Tensor) -> Calls:
    lengths, total = block_lengths("512", vector.numel()), torch.zeros_like(vector)
    scales = kernels.norms(vector, lengths)
    packed = kernels.quantize_levels(vector, scales, lengths, _LEVELS, 0, _KEY)
    return _by_both(reference("stochastic_rounding"), lambda by: by.add_levels(packed, scales, lengths, _LEVELS, total))


def _fractional(vector: Tensor) -> Calls:
    return _by_both(reference("fractional"), lambda by: by.fractional_codes(vector, 4))


def _add_fractional(vector: Tensor) -> Calls:
    packed, means = kernels.fractional_codes(vector, 4)
    total = torch.zeros_like(vector)
    return _by_both(reference("fractional"), lambda by: by.add_fractional(packed, means, vector.numel(), 4, total))


def _powers(vector: Tensor) -> Calls:
    return _by_both(reference("powers_of_two"), lambda by: by.power_codes(vector, 0, _KEY))


def _add_powers(vector: Tensor) -> Calls:
    packed, total = kernels.power_codes(vector, 0, _KEY)[0], torch.zeros_like(vector)
    return _by_both(reference("powers_of_two"), lambda by: by.add_powers(packed, total))


def _take_selected(vector: Tensor) -> Calls:
    return _by_both(reference("selected_values"), lambda by: by.take_selected(vector, 0.75, 0, _KEY, _KEEP_75_PERCENT))


def _add_selected(vector: Tensor) -> Calls:
    selected, total = kernels.take_selected(vector, 0.75, 0, _KEY, _KEEP_75_PERCENT), torch.zeros_like(vector)
    return _by_both(
        reference("selected_values"), lambda by: by.add_selected(selected, 0, _KEY, _KEEP_75_PERCENT, total)
    )


def _quantizers() -> list[KernelCase]:
    bars = {2: 1.0, 4: 1.0, 8: 2.0}
    quantize = [
        KernelCase(name=f"quantize + pack, {bits} bits", prepare=_quantize(bits), bar=bars[bits]) for bits in bars
    ]
    add = [KernelCase(name=f"dequantize + add, {bits} bits", prepare=_add_dequantized(bits), bar=1.0) for bits in bars]
    return [
        *quantize, *add,
        KernelCase(name="levels of blocks of 512", prepare=_quantize_levels),
        KernelCase(name="levels of blocks, add", prepare=_add_levels),
        KernelCase(name="fractional, 4 bits", prepare=_fractional, bar=2.0),
        KernelCase(name="fractional + add, 4 bits", prepare=_add_fractional),
        KernelCase(name="powers of two", prepare=_powers, bar=3.0),
        KernelCase(name="powers of two, add", prepare=_add_powers, bar=1.5),
        KernelCase(name="kept values", prepare=_take_selected, bar=2.0),
        KernelCase(name="kept values, add", prepare=_add_selected),
    ]  # fmt: skip


# Positions


def _top_k(density: float) -> list[KernelCase]:
    def prepare(vector: Tensor) -> Calls:
        k = n_selected_in(vector.numel(), density=density)
        return {"laconic": lambda: kernels.top_k(vector, k), "torch": lambda: vector.abs().topk(k).indices}

    return [KernelCase(name=f"top-k, {density:.4g}", prepare=prepare, bar={0.01: 4.3, 0.001: 1.6}.get(density))]


def _encoders(density: float) -> list[KernelCase]:
    def encoder(code: str) -> Callable[[Tensor], Calls]:
        def prepare(vector: Tensor) -> Calls:
            d = vector.numel()
            positions = kernels.top_k(vector, n_selected_in(d, density=density))
            return {"laconic": lambda: encode_positions(positions, d, code), **_torch_list(code, positions, d)}

        return prepare

    return [
        KernelCase(name=f"{code} code, encode {density:.4g}", prepare=encoder(code), bar=0.5) for code in POSITION_CODES
    ]


def _decoders(density: float) -> list[KernelCase]:
    def decoder(code: str) -> Callable[[Tensor], Calls]:
        def prepare(vector: Tensor) -> Calls:
            d = vector.numel()
            k = n_selected_in(d, density=density)
            data, n_bits = encode_positions(kernels.top_k(vector, k), d, code)
            return {"laconic": lambda: decode_positions(data, n_bits, k, d, code)}

        return prepare

    return [
        KernelCase(name=f"{code} code, decode {density:.4g}", prepare=decoder(code), bar=0.5) for code in POSITION_CODES
    ]


def _torch_list(code: str, positions: Tensor, d: int) -> Calls:
    """Return the torch call for the list code, the only code that plain torch can write in few calls."""
    if code != "list":
        return {}
    width = max(1, (d - 1).bit_length())
    return {"torch": lambda: reference("fractional").pack_codes(positions.int(), width)}


# Norms


def _range(vector: Tensor) -> Calls:
    return {"laconic": lambda: kernels.ranges(vector, (vector.numel(),)), "torch": lambda: vector.aminmax()}


def _absolute_maximum(vector: Tensor) -> Calls:
    return {"laconic": lambda: kernels.absolute_maxima(vector, (vector.numel(),)), "torch": lambda: vector.abs().max()}


def _norm(vector: Tensor) -> Calls:
    return {"laconic": lambda: kernels.norms(vector, (vector.numel(),)), "torch": lambda: vector.norm()}


def _finite(vector: Tensor) -> Calls:
    return {"laconic": lambda: kernels.all_finite(vector), "torch": lambda: vector.isfinite().all()}


_NORMS = [
    KernelCase(name="least and largest", prepare=_range, beats_torch=False),
    KernelCase(name="largest magnitude", prepare=_absolute_maximum, beats_torch=False),
    KernelCase(name="norm", prepare=_norm, beats_torch=False),
    KernelCase(name="all finite", prepare=_finite, beats_torch=False),
]
