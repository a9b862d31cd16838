"""The face of the kernels: arithmetic on flat vectors, run by the fastest backend for the tensor's device.

`reference` defines each function, in torch, for any device; its docstrings are the full documentation. `cpu` has the
same names and signatures compiled by numba, `gpu` in Triton. All give the same bits, except where a docstring in
`reference` states a tolerance. `dispatch` chooses. `checks` refuses arguments that do not fit together, with TypeError
or ValueError, before anything is written; only whether a stream on a mask has one bit or value for each selected
element is known later.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels import checks
from laconic.kernels.checked_tensors import CheckedTensors
from laconic.kernels.checks import ALL_FLOATS, FLOATS
from laconic.kernels.dispatch import CPU, fastest
from laconic.kernels.reference.powers_of_two import EXPONENT_BITS

_SIGNED = (*ALL_FLOATS, torch.int8)  # what has signs to pack
_MAX_MANTISSA_BITS = 22
_SUMS = (*FLOATS, torch.bfloat16, torch.int8)  # what signs are added to


def fractional_codes(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return packed codes in levels of equal ratio, and the levels' means; see `reference/fractional.py`, as below.

    Args:
        values: (K,) float32 or float64, K >= 1.
        bits: 1 .. 16.
    """
    checks.number("fractional_codes", "bits", bits, 1, 16)
    checks.vector("fractional_codes", "values", values, FLOATS)
    checks.number("fractional_codes", "number of values", values.numel(), 1, checks.MAX_COUNT)
    made: tuple[Tensor, Tensor] = fastest("fractional", values.device).fractional_codes(values, bits)
    return made


def fractional_dense(packed: Tensor, means: Tensor, count: int, bits: int) -> Tensor:
    """Return what such packed codes stand for."""
    _check_fractional("fractional_dense", packed, means, count, bits)
    made: Tensor = fastest("fractional", packed.device).fractional_dense(packed, means, count, bits)
    return made


def put_fractional(packed: Tensor, means: Tensor, count: int, bits: int, out: Tensor) -> None:
    """Write the same to `out`."""
    _check_fractional("put_fractional", packed, means, count, bits)
    checks.output("put_fractional", "out", out, ALL_FLOATS, count, packed.device, strided=True)
    fastest("fractional", packed.device).put_fractional(packed, means, count, bits, out)


def add_fractional(packed: Tensor, means: Tensor, count: int, bits: int, total: Tensor) -> None:
    """Add what such packed codes stand for to `total`."""
    _check_fractional("add_fractional", packed, means, count, bits)
    checks.output("add_fractional", "total", total, ALL_FLOATS, count, packed.device, strided=True)
    fastest("fractional", packed.device).add_fractional(packed, means, count, bits, total)


def _check_fractional(call: str, packed: Tensor, means: Tensor, count: int, bits: int) -> None:
    checks.number(call, "bits", bits, 1, 16)
    checks.number(call, "count", count, 0, checks.MAX_COUNT)
    checks.packed(call, "packed", packed, bits * count)
    checks.vector(call, "means", means, ALL_FLOATS, 1 << (bits - 1), packed.device)


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack (K,) int32 in 0 .. 2**bits - 1 into (ceil(bits K / 8),) uint8, `bits` bits a code, lowest bits first."""
    checks.number("pack_codes", "bits", bits, 1, 32)
    checks.vector("pack_codes", "codes", codes, (torch.int32,))
    if len(codes) and bits < 32:
        for end in codes.aminmax():
            checks.number("pack_codes", "code", int(end), 0, (1 << bits) - 1)
    made: Tensor = fastest("fractional", codes.device).pack_codes(codes, bits)
    return made


def unpack_codes(packed: Tensor, k: int, bits: int) -> Tensor:
    """Invert `pack_codes`: (ceil(bits k / 8),) uint8 -> (k,) int32."""
    checks.number("unpack_codes", "bits", bits, 1, 32)
    checks.number("unpack_codes", "k", k, 0, checks.MAX_COUNT)
    checks.packed("unpack_codes", "packed", packed, bits * k)
    made: Tensor = fastest("fractional", packed.device).unpack_codes(packed, k, bits)
    return made


def count_selected(offset: int, count: int, key: int, threshold: int, device: torch.device = CPU) -> int:
    """Return how many coordinates a keyed mask selects; see `reference/signs.py`, as for all of signs below."""
    checks.mask("count_selected", offset, count, key, threshold)
    made: int = fastest("signs", device).count_selected(offset, count, key, threshold, device)
    return made


def selected_bits(offset: int, count: int, key: int, threshold: int, device: torch.device = CPU) -> tuple[Tensor, int]:
    """Return which coordinates the mask selects, as bits, and how many."""
    checks.mask("selected_bits", offset, count, key, threshold)
    made: tuple[Tensor, int] = fastest("signs", device).selected_bits(offset, count, key, threshold, device)
    return made


def count_ones(packed: Tensor, bounds: Sequence[int]) -> list[int]:
    """Return how many bits of a packed stream are set between neighboring bounds; see `reference/popcount.py`."""
    checks.vector("count_ones", "packed", packed, checks.BYTES, None, CPU)
    ascending = sorted(bounds)  # a simulated worker has a thousand slices, and none is out of order
    if ascending != list(bounds) or (ascending and not 0 <= ascending[0] <= ascending[-1] <= 8 * packed.numel()):
        _refuse_bounds(bounds, 8 * packed.numel())
    made: list[int] = fastest("popcount").count_ones(packed, bounds)
    return made


def _refuse_bounds(bounds: Sequence[int], n_bits: int) -> None:
    last = 0
    for bound in bounds:
        checks.number("count_ones", "bound", bound, last, n_bits)
        last = bound


def pack_signs(values: Tensor, offset: int, key: int, threshold: int) -> tuple[Tensor, int]:
    """Return the packed signs of the selected elements, and how many are selected."""
    checks.vector("pack_signs", "values", values, _SIGNED)
    checks.mask("pack_signs", offset, values.numel(), key, threshold)
    made: tuple[Tensor, int] = fastest("signs", values.device).pack_signs(values, offset, key, threshold)
    return made


def put_signs(
    packed: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None = None
) -> None:
    """Write -1 or +1 at the selected elements of `out`, and 0 elsewhere."""
    _check_stream("put_signs", packed, checks.BYTES, offset, key, threshold, "out", out, sampled)
    fastest("signs", out.device).put_signs(packed, offset, key, threshold, out, sampled)


def add_signs(
    packed: Tensor, offset: int, key: int, threshold: int, total: Tensor, sampled: Tensor | None = None
) -> None:
    """Add -1 or +1 at the selected elements of `total`, which may be int8."""
    _check_stream("add_signs", packed, checks.BYTES, offset, key, threshold, "total", total, sampled)
    fastest("signs", total.device).add_signs(packed, offset, key, threshold, total, sampled)


def _check_stream(
    call: str, stream: Tensor, dtypes: tuple[torch.dtype, ...], offset: int, key: int, threshold: int, name: str,
    out: Tensor, sampled: Tensor | None,
) -> None:  # fmt: skip
    """Check a stream of bits or values on a mask, and where they go to."""
    checks.vector(call, name, out, _SUMS, written=True)
    count, is_bits = out.shape[0], dtypes is checks.BYTES
    if not (0 <= offset <= offset + count <= checks.MAX_COUNT and 0 <= key < 1 << 64 and 1 <= threshold <= 1 << 32):
        checks.mask(call, offset, count, key, threshold, 0 if is_bits else 1)
    device = out.device if out.is_cpu else None  # a GPU takes what is in the host's memory
    checks.vector(call, "packed" if is_bits else "selected", stream, dtypes, None, device)
    if stream.shape[0] > ((count + 7) // 8 if is_bits else count):
        checks.number(call, "length of the stream", stream.shape[0], 0, (count + 7) // 8 if is_bits else count)
    if sampled is not None:
        checks.packed(call, "sampled", sampled, count, device)


def slice_bits(packed: Tensor, low: int, high: int) -> Tensor:
    """Return the bits low .. high-1 of a packed stream as a stream of their own."""
    checks.vector("slice_bits", "packed", packed, checks.BYTES)
    n_bits = 8 * packed.shape[0]
    if not 0 <= low <= high <= n_bits:
        checks.number("slice_bits", "low", low, 0, n_bits)
        checks.number("slice_bits", "high", high, low, n_bits)
    return checks.note_place(fastest("signs", packed.device).slice_bits(packed, low, high))


def majority(packed: Sequence[Tensor], count: int) -> Tensor:
    """Return the majority of several voters' packed signs; +1 for a tie."""
    if not packed or not 0 <= count <= checks.MAX_COUNT:
        checks.number("majority", "number of voters", len(packed), 1, checks.MAX_COUNT)
        checks.number("majority", "count", count, 0, checks.MAX_COUNT)
    device, n_bytes = packed[0].device, (count + 7) // 8
    for number, voter in enumerate(packed):
        checks.vector("majority", f"voter {number}", voter, checks.BYTES, n_bytes, device)
    return checks.note_place(fastest("signs", device).majority(packed, count))


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Tensor:
    """Average momentum and gradient over `gradient`, and return its packed signs."""
    checks.vector("momentum_signs", "gradient", gradient, FLOATS, written=True)
    device = gradient.device
    checks.vector("momentum_signs", "momentum", momentum, (gradient.dtype,), gradient.shape[0], device)
    return checks.note_place(fastest("signs", device).momentum_signs(gradient, momentum, mu=mu))


def error_feedback_step(
    tensors: Sequence[Tensor], momentum: Tensor, residual: Tensor, new_momentum: Tensor, new_residual: Tensor,
    *, mu: float, decay: float, c: float, offset: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None, bool]:  # fmt: skip
    """Take a worker's step with momentum, error feedback and signs on a keyed mask, in one pass."""
    call, d = "error_feedback_step", new_residual.numel()
    like = (new_residual.dtype,), d, new_residual.device
    checks.output(call, "new_residual", new_residual, FLOATS)
    checks.output(call, "new_momentum", new_momentum, *like)
    checks.vector(call, "momentum", momentum, *like)
    checks.vector(call, "residual", residual, *like)
    tensors = CheckedTensors.of(tensors)
    checks.tensors(call, tensors, d)
    checks.mask(call, offset, d, key, threshold)
    made: tuple[Tensor, int, Tensor | None, bool] = fastest("signs", new_residual.device).error_feedback_step(
        tensors, momentum, residual, new_momentum, new_residual,
        mu=mu, decay=decay, c=c, offset=offset, key=key, threshold=threshold,
    )  # fmt: skip
    return made


def error_feedback_total(
    total: Tensor, residual: Tensor, new_residual: Tensor,
    *, divisor: int, scale: float, decay: float, c: float, offset: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None]:  # fmt: skip
    """Take the server's step of the same methods."""
    call, d = "error_feedback_total", new_residual.numel()
    checks.output(call, "new_residual", new_residual, FLOATS)
    checks.vector(call, "residual", residual, (new_residual.dtype,), d, new_residual.device)
    checks.vector(call, "total", total, (new_residual.dtype, torch.int8), d, new_residual.device)
    checks.number(call, "divisor", divisor, 1, checks.MAX_COUNT)
    checks.mask(call, offset, d, key, threshold)
    made: tuple[Tensor, int, Tensor | None] = fastest("signs", total.device).error_feedback_total(
        total,
        residual,
        new_residual,
        divisor=divisor,
        scale=scale,
        decay=decay,
        c=c,
        offset=offset,
        key=key,
        threshold=threshold,
    )
    return made


def power_codes(values: Tensor, offset: int, key: int) -> tuple[Tensor, bool]:
    """Return packed codes of powers of two, and whether all are finite; see `reference/powers_of_two.py`."""
    checks.vector("power_codes", "values", values, FLOATS)
    checks.coordinates("power_codes", offset, values.numel(), key)
    made: tuple[Tensor, bool] = fastest("powers_of_two", values.device).power_codes(values, offset, key)
    return made


def short_codes(values: Tensor, mantissa_bits: int) -> tuple[Tensor, Tensor, bool]:
    """Return packed signs and exponents, packed first bits of mantissas, and whether all values are finite."""
    checks.vector("short_codes", "values", values, FLOATS)
    checks.number("short_codes", "mantissa_bits", mantissa_bits, 0, _MAX_MANTISSA_BITS)
    made: tuple[Tensor, Tensor, bool] = fastest("powers_of_two", values.device).short_codes(values, mantissa_bits)
    return made


def put_powers(packed: Tensor, out: Tensor, tails: Tensor | None = None, mantissa_bits: int = 0) -> None:
    """Write the powers of two, or with `tails` the values of short mantissas, that packed codes stand for to `out`."""
    checks.output("put_powers", "out", out, FLOATS)
    _check_powers("put_powers", packed, tails, mantissa_bits, out)
    fastest("powers_of_two", out.device).put_powers(packed, out, tails, mantissa_bits)


def add_powers(
    packed: Tensor, total: Tensor, tails: Tensor | None = None, mantissa_bits: int = 0, *, subtract: bool = False
) -> None:
    """Add the values that `put_powers` writes to `total`, of their type, or subtract them."""
    checks.output("add_powers", "total", total, FLOATS)
    _check_powers("add_powers", packed, tails, mantissa_bits, total)
    fastest("powers_of_two", total.device).add_powers(packed, total, tails, mantissa_bits, subtract=subtract)


def _check_powers(call: str, packed: Tensor, tails: Tensor | None, mantissa_bits: int, vector: Tensor) -> None:
    checks.packed(call, "packed", packed, EXPONENT_BITS[vector.dtype] * vector.numel(), vector.device)
    checks.number(call, "mantissa_bits", mantissa_bits, 0, _MAX_MANTISSA_BITS)
    if tails is not None:
        checks.packed(call, "tails", tails, mantissa_bits * vector.numel(), vector.device)


def powers_finite(packed: Tensor, count: int, dtype: torch.dtype) -> bool:
    """Return whether no packed code stands for inf or NaN."""
    if dtype not in EXPONENT_BITS:
        raise TypeError(f"powers_finite: dtype={dtype} must be float32 or float64")
    checks.number("powers_finite", "count", count, 0, checks.MAX_COUNT)
    checks.packed("powers_finite", "packed", packed, EXPONENT_BITS[dtype] * count)
    made: bool = fastest("powers_of_two", packed.device).powers_finite(packed, count, dtype)
    return made


def take_selected(values: Tensor, share: float, offset: int, key: int, threshold: int) -> Tensor:
    """Return the values of the selected elements, divided by `share`; see `reference/selected_values.py`, as below."""
    checks.vector("take_selected", "values", values, ALL_FLOATS)
    checks.mask("take_selected", offset, values.numel(), key, threshold, 1)
    made: Tensor = fastest("selected_values", values.device).take_selected(values, share, offset, key, threshold)
    return made


def put_selected(
    selected: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None = None
) -> None:
    """Write such values at the selected elements of `out`, and 0 elsewhere."""
    _check_stream("put_selected", selected, ALL_FLOATS, offset, key, threshold, "out", out, sampled)
    fastest("selected_values", out.device).put_selected(selected, offset, key, threshold, out, sampled)


def add_selected(
    selected: Tensor, offset: int, key: int, threshold: int, total: Tensor, sampled: Tensor | None = None,
    *, subtract: bool = False,
) -> None:  # fmt: skip
    """Add such values at the selected elements of `total`, or subtract them."""
    _check_stream("add_selected", selected, ALL_FLOATS, offset, key, threshold, "total", total, sampled)
    fastest("selected_values", total.device).add_selected(
        selected, offset, key, threshold, total, sampled, subtract=subtract
    )
