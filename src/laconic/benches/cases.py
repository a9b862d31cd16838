"""The kernels, as data: what each is given, what laconic runs for it, and what plain torch does for the same.

Adding a kernel is adding one `Case` to one of the lists below.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from laconic import kernels
from laconic.compressors import signs, vector_entries
from laconic.kernels import plain, plain_fractional, plain_quantized
from laconic.wire import POSITION_CODES
from laconic.wire.position_codes import decode_positions, encode_positions

KEEP = 0.3  # share of entries whose sign is sent
VOTERS = 8
_KEY = 12345

Calls = Mapping[str, Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kernel. prepare: from a vector (d,) to what is called, by whom: "laconic", "torch", and peers.

    bar: copies that it may take at most; None where no figure is demanded. beats_torch: whether it must be five times
    faster than plain torch.
    """

    name: str
    prepare: Callable[[Tensor], Calls]
    bar: float | None = None
    beats_torch: bool = True


def cases(densities: Sequence[float]) -> dict[str, Case]:
    """All kernels by name; those of sparse methods once for each density."""
    sparse = [case for make in (_top_k, _encoders, _decoders) for density in densities for case in make(density)]
    return {case.name: case for case in [*_SIGNS, *_quantizers(), *sparse, *_NORMS]}


# Signs


def _sign_step(vector: Tensor) -> Calls:
    """CompSkip's worker: momentum, debt, the signs on a keyed mask, packed, and the new debt."""
    momentum, debt = vector.flip(0), 0.1 * vector.roll(1)

    def torch_step() -> object:
        new = 0.9 * momentum + vector
        wish = 0.9 * new + vector + 0.9 * debt
        mask = plain.keep_mask(0, vector.numel(), _KEY, int(KEEP * 2**32))
        negative = wish[mask] < 0
        packed = plain.pack_bits(negative)
        wish -= 0.01 * plain.scatter_signs(negative, mask, wish.dtype)
        return new, wish, packed

    def step() -> object:
        new = 0.9 * momentum + vector
        wish = 0.9 * new + vector + 0.9 * debt
        sent = signs(wish, keep=KEEP, key=_KEY)
        return new, wish - 0.01 * sent.dense(), sent.body()

    return {"laconic": step, "torch": torch_step}


def _sign_pack(vector: Tensor) -> Calls:
    return {
        "laconic": lambda: signs(vector).body(),
        "torch": lambda: plain.pack_bits(vector < 0),
        "numpy": lambda: np.packbits(np.signbit(vector.numpy()), bitorder="little"),
    }


def _unpack_add(dtype: torch.dtype) -> Callable[[Tensor], Calls]:
    def prepare(vector: Tensor) -> Calls:
        d = vector.numel()
        packed, total = plain.pack_bits(vector < 0), torch.zeros(d, dtype=dtype)

        def add() -> object:
            return total.add_(plain.scatter_signs(plain.unpack_bits(packed, d), None, dtype))

        return {"laconic": add, "torch": add}

    return prepare


def _majority(vector: Tensor) -> Calls:
    d = vector.numel()
    votes = [plain.pack_bits(vector.roll(worker) < 0) for worker in range(VOTERS)]

    def majority() -> object:
        total = torch.zeros(d, dtype=torch.int8)
        for packed in votes:
            total += plain.scatter_signs(plain.unpack_bits(packed, d), None, torch.int8)
        return plain.pack_bits(total < 0)

    return {"laconic": majority, "torch": majority}


_SIGNS = [
    Case(name="sign step: mask, debt", prepare=_sign_step, bar=2.0),
    Case(name="sign + pack", prepare=_sign_pack, bar=1.2, beats_torch=False),
    Case(name="unpack + add float32", prepare=_unpack_add(torch.float32), bar=1.0),
    Case(name="unpack + add int8", prepare=_unpack_add(torch.int8), bar=0.4),
    Case(name=f"majority of {VOTERS}", prepare=_majority),
]


# Quantizers


def _quantize(bits: int) -> Callable[[Tensor], Calls]:
    def prepare(vector: Tensor) -> Calls:
        lengths, (low, high) = (vector.numel(),), vector.aminmax()
        lows, highs = low.reshape(1), high.reshape(1)

        def ours() -> object:
            codes = kernels.quantize(vector, lows, highs, lengths, bits, 0, _KEY)
            return codes if bits == 8 else kernels.pack_codes(codes.int(), bits)

        def by_torch() -> object:
            codes = plain_quantized.quantize(vector, lows, highs, lengths, bits, 0, _KEY)
            return codes if bits == 8 else plain_fractional.pack_codes(codes.int(), bits)

        return {"laconic": ours, "torch": by_torch}

    return prepare


def _dequantize_add(bits: int) -> Callable[[Tensor], Calls]:
    def prepare(vector: Tensor) -> Calls:
        d = vector.numel()
        lows, highs, lengths = vector.min().reshape(1), vector.max().reshape(1), (d,)
        codes = plain_quantized.quantize(vector, lows, highs, lengths, bits, 0, _KEY)
        packed = codes if bits == 8 else kernels.pack_codes(codes.int(), bits)
        total = torch.zeros(d)

        def ours() -> object:
            codes = packed if bits == 8 else kernels.unpack_codes(packed, d, bits)
            return total.add_(kernels.dequantize(codes, lows, highs, lengths, bits))

        def by_torch() -> object:
            codes = packed if bits == 8 else plain_fractional.unpack_codes(packed, d, bits)
            return total.add_(plain_quantized.dequantize(codes, lows, highs, lengths, bits))

        return {"laconic": ours, "torch": by_torch}

    return prepare


def _fractional(vector: Tensor) -> Calls:
    return {
        "laconic": lambda: kernels.fractional_levels(vector, 4),
        "torch": lambda: plain_fractional.fractional_levels(vector, 4),
    }


def _quantizers() -> list[Case]:
    bars = {2: 1.0, 4: 1.0, 8: 2.0}
    quantize = [Case(name=f"quantize + pack, {bits} bits", prepare=_quantize(bits), bar=bars[bits]) for bits in bars]
    add = [Case(name=f"dequantize + add, {bits} bits", prepare=_dequantize_add(bits), bar=1.0) for bits in bars]
    return [*quantize, *add, Case(name="fractional, 4 bits", prepare=_fractional, bar=2.0)]


# Positions


def _top_k(density: float) -> list[Case]:
    def prepare(vector: Tensor) -> Calls:
        k = vector_entries(vector.numel(), density=density)
        return {"laconic": lambda: kernels.top_k(vector, k), "torch": lambda: vector.abs().topk(k).indices}

    return [Case(name=f"top-k, {density:.4g}", prepare=prepare, bar={0.01: 4.3, 0.001: 1.6}.get(density))]


def _encoders(density: float) -> list[Case]:
    def encoder(code: str) -> Callable[[Tensor], Calls]:
        def prepare(vector: Tensor) -> Calls:
            d = vector.numel()
            positions = kernels.top_k(vector, vector_entries(d, density=density))
            return {"laconic": lambda: encode_positions(positions, d, code), **_torch_list(code, positions, d)}

        return prepare

    return [Case(name=f"{code} code, encode {density:.4g}", prepare=encoder(code), bar=0.5) for code in POSITION_CODES]


def _decoders(density: float) -> list[Case]:
    def decoder(code: str) -> Callable[[Tensor], Calls]:
        def prepare(vector: Tensor) -> Calls:
            d = vector.numel()
            k = vector_entries(d, density=density)
            data, n_bits = encode_positions(kernels.top_k(vector, k), d, code)
            return {"laconic": lambda: decode_positions(data, n_bits, k, d, code)}

        return prepare

    return [Case(name=f"{code} code, decode {density:.4g}", prepare=decoder(code), bar=0.5) for code in POSITION_CODES]


def _torch_list(code: str, positions: Tensor, d: int) -> Calls:
    """Numbers of one width are all that plain torch can make of positions in few calls."""
    if code != "list":
        return {}
    width = max(1, (d - 1).bit_length())
    return {"torch": lambda: plain_fractional.pack_codes(positions.int(), width)}


# Norms


def _norm(vector: Tensor) -> Calls:
    return {"laconic": lambda: plain.squared_norm(vector), "torch": lambda: vector.norm()}


def _finite(vector: Tensor) -> Calls:
    return {"laconic": lambda: plain.all_finite(vector), "torch": lambda: vector.isfinite().all()}


_NORMS = [
    Case(name="squared norm", prepare=_norm, beats_torch=False),
    Case(name="all finite", prepare=_finite, beats_torch=False),
]
