"""Times making, encoding, decoding and adding packets of every compressor, and compares bytes with the entropy."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from laconic.bench.measure import Measurement, in_copies, vector_of
from laconic.compressors import (
    QSGD,
    Clipped,
    Compressor,
    DenseValues,
    Fractional,
    Identity,
    Natural,
    Quantized,
    ScaledSign,
    Sign,
    Sparsified,
    Ternary,
    TopK,
    n_selected_in,
)
from laconic.kernels.api import top_k
from laconic.wire import (
    POSITION_CODES,
    Frame,
    Header,
    Packet,
    Positions,
    decode,
    encode,
)

_KEY = 12345
_HEADER = Header(role="worker", rank=0, round=0, exchange=0)


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """A kind of packet that is measured."""

    name: str
    pack: Callable[[Tensor], Packet]
    """Makes the packet of a float32 vector (d,)."""


def shipments(density: float) -> list[Shipment]:
    """Return every kind of packet with many parameters. `density` is the share that sparse packets send."""
    compressors: dict[str, Compressor] = {
        "identity": Identity(), "dense": DenseValues(), "sign": Sign(), "sign, keep 0.3": Sign(keep=0.3),
        "scaled sign": ScaledSign(), "quantized, 2 bits": Quantized(bits=2), "quantized, 4 bits": Quantized(bits=4),
        "quantized, 8 bits": Quantized(bits=8), "quantized, 4, entropy": Quantized(bits=4, entropy=True),
        "qsgd": QSGD(), "qsgd, entropy": QSGD(entropy=True), "ternary": Ternary(),
        "ternary, entropy": Ternary(entropy=True), "fractional, 4 bits": Fractional(bits=4), "natural": Natural(),
        "clipped": Clipped(), "sparsified": Sparsified(),
    }  # fmt: skip
    compressors |= {f"top-k, {code}": TopK(density=density, blocks="vector", code=code) for code in POSITION_CODES}
    made = [Shipment(name=name, pack=_packing(compressor)) for name, compressor in compressors.items()]
    return made + [Shipment(name=f"positions, {code}", pack=_positions(density, code)) for code in POSITION_CODES]


def _packing(compressor: Compressor) -> Callable[[Tensor], Packet]:
    return lambda vector: compressor(vector, key=_KEY)


def _positions(density: float, code: str) -> Callable[[Tensor], Packet]:
    def pack(vector: Tensor) -> Packet:
        d = vector.numel()
        return Positions(indices=top_k(vector, n_selected_in(d, density=density)), count=d, code=code)

    return pack


def measure_wire(
    d: int, density: float, repeats: int, *, listen: Callable[[str], None] = lambda name: None
) -> Iterator[Measurement]:
    """Measure each kind of packet on normal numbers (d,), on one thread.

    Yields:
        Four rows per packet: compress, encode, decode, and decode with adding.

    Raises:
        ValueError: The density selects no parameter.
    """
    n_selected_in(d, density=density)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        vector = vector_of(d)
        for shipment in shipments(density):
            listen(shipment.name)
            yield from _rows_of(shipment, vector, repeats)
    finally:
        torch.set_num_threads(before)


def _rows_of(shipment: Shipment, vector: Tensor, repeats: int) -> Iterator[Measurement]:
    d = vector.numel()
    packet = shipment.pack(vector)
    data = encode(Frame(header=_HEADER, packet=packet))
    total = torch.zeros(d)

    def encoded() -> Tensor:
        # From a packet without cached streams.
        return encode(Frame(header=_HEADER, packet=_forgetful(packet)))

    def added() -> None:
        read = decode(data, d).packet
        assert read is not None
        read.add_to(total)

    calls: Mapping[str, Callable[[], object]] = {
        "compress": lambda: shipment.pack(vector), "encode": encoded, "decode": lambda: decode(data, d),
        "decode, add": added,
    }  # fmt: skip
    copies, copy_s = in_copies(calls, vector, repeats)
    min_bits = packet.minimum_bits
    details = {
        "copy_s": copy_s, "bytes": data.numel(), "bits_per_parameter": 8 * data.numel() / d,
        "min_bits_per_parameter": None if min_bits is None else min_bits / d,
        "over_min": None if not min_bits else 8 * data.numel() / min_bits,
    }  # fmt: skip
    for what, taken in copies.items():
        median_s = statistics.median(taken) * copy_s
        yield Measurement(
            name={"packet": shipment.name, "what": what}, unit="copies", samples=taken,
            details={**details, "seconds": median_s},
        )  # fmt: skip


def _forgetful(packet: Packet) -> Packet:
    """Return a copy of the packet without its cached properties."""
    fresh = copy(packet)
    for name in vars(packet):
        if isinstance(getattr(type(packet), name, None), cached_property) and name != "mask":
            del vars(fresh)[name]  # a sender has the mask, since it selected the signs with it
    return fresh
