"""The kernels one by one, on a vector of normal numbers, one thread."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from laconic import kernels
from laconic.benches.measure import Measured, measure
from laconic.compressors import vector_entries
from laconic.wire import POSITION_CODES
from laconic.wire.position_codes import decode_positions, encode_positions, entropy_bound_bits

QUANTIZER_BITS = 4


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One kernel's cost. `density` and what follows are None where they do not apply."""

    kernel: str
    by: str  # whose: "laconic", or "torch" for what ordinary torch offers
    measured: Measured
    density: float | None = None
    bits_per_position: float | None = None
    least_bits_per_position: float | None = None  # log2 C(d, k) / k

    def figures(self) -> dict[str, object]:
        """All of it, for JSON."""
        lower, upper = self.measured.quartiles
        return {
            "kernel": self.kernel,
            "by": self.by,
            "density": self.density,
            "median_s": self.measured.median_s,
            "copies": self.measured.copies,
            "copies_quartiles": [lower, upper],
            "seconds": list(self.measured.seconds),
            "copy_seconds": list(self.measured.copy_seconds),
            "bits_per_position": self.bits_per_position,
            "least_bits_per_position": self.least_bits_per_position,
        }


def measure_kernels(d: int, densities: tuple[float, ...], repeats: int) -> Iterator[Bench]:
    """Every kernel on the same float32 vector (d,), one after another, on one thread.

    Raises ValueError for a density that leaves no entry of d.
    """
    entries = {density: vector_entries(d, density=density) for density in densities}
    vector = torch.randn(d, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for density, k in entries.items():
            yield from _top_k(vector, density, k, repeats)
        for density, k in entries.items():
            yield from _position_codes(vector, density, k, repeats)
        yield Bench(
            kernel=f"fractional, {QUANTIZER_BITS} bits", by="laconic",
            measured=measure(lambda: kernels.fractional_codes(vector, QUANTIZER_BITS), vector, repeats),
        )  # fmt: skip
    finally:
        torch.set_num_threads(before)


def _top_k(vector: Tensor, density: float, k: int, repeats: int) -> Iterator[Bench]:
    found: dict[str, Callable[[], Tensor]] = {
        "laconic": lambda: kernels.top_k(vector, k),
        "torch": lambda: vector.abs().topk(k).indices,
    }
    for by, function in found.items():
        yield Bench(kernel="top-k", by=by, density=density, measured=measure(function, vector, repeats))


def _position_codes(vector: Tensor, density: float, k: int, repeats: int) -> Iterator[Bench]:
    d = vector.numel()
    positions = kernels.top_k(vector, k)
    for code in POSITION_CODES:
        data, n_bits = encode_positions(positions, d, code)

        def encoded(code: str = code) -> tuple[Tensor, int]:
            return encode_positions(positions, d, code)

        def decoded(code: str = code, data: Tensor = data, n_bits: int = n_bits) -> Tensor:
            return decode_positions(data, n_bits, k, d, code)

        def both(code: str = code) -> Tensor:
            data, n_bits = encode_positions(positions, d, code)
            return decode_positions(data, n_bits, k, d, code)

        for what, function in (("encode", encoded), ("decode", decoded), ("both", both)):
            yield Bench(
                kernel=f"{code} code, {what}", by="laconic", density=density,
                measured=measure(function, vector, repeats),
                bits_per_position=n_bits / k, least_bits_per_position=entropy_bound_bits(d, k) / k,
            )  # fmt: skip
