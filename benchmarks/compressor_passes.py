"""What each compressor takes, in copies of the vector; and frames of blocks of few elements beside frames of one block.

    python benchmarks/compressor_passes.py [--d 11173962] [--repeats 9] [--only TEXT]
    python benchmarks/compressor_passes.py --blocks 1,2,8 [--d 1048576] [--repeats 15]

The first form: compressing (csgd), compressing with the residual and making the new one (ec-sgd), and adding up what
arrives. The second: compressing and encoding a frame, and decoding a frame and adding it up; both in times of those of
one block. Every call stands between two copies, and shapes alternate. Medians and quartiles.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from laconic.compressors import COMPRESSORS
from laconic.wire import Frame, Header, decode, encode

KEY = 12345
HEADER = Header(role="worker", rank=0, round=0)
OF_BLOCKS: Mapping[str, Callable[[str], Any]] = {
    "scaled-sign": lambda blocks: COMPRESSORS["scaled-sign"](blocks=blocks),
    **{f"quantized, {bits} bits": lambda blocks, bits=bits: COMPRESSORS["quantized"](bits=bits, blocks=blocks)
       for bits in (2, 4, 8)},
    "quantized by the norm": lambda blocks: COMPRESSORS["quantized"](bits=4, scaling="l2", blocks=blocks),
    "qsgd": lambda blocks: COMPRESSORS["qsgd"](blocks=blocks),
    "ternary": lambda blocks: COMPRESSORS["ternary"](blocks=blocks),
}  # fmt: skip


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def spread_of(numbers: list[float]) -> str:
    """Return the median and the quartiles."""
    ordered, n = sorted(numbers), len(numbers)
    return f"{ordered[n // 2]:.2f} ({ordered[n // 4]:.2f} .. {ordered[3 * n // 4]:.2f})"


def passes_of(vector: torch.Tensor, repeats: int, only: str) -> None:
    """Print a row for each compressor."""
    given, residual, total = vector.clone(), 0.1 * vector.roll(1), torch.zeros_like(vector)
    out = torch.empty_like(vector)
    for name, kind in COMPRESSORS.items():
        if only not in name:
            continue
        compressor = kind()
        packet = compressor(vector, key=KEY)

        def feed_back(compressor: Any = compressor) -> None:  # noqa: ANN401
            compressor.with_residual(given, residual, key=KEY).unsent_of(given)

        calls = {
            "compress": lambda compressor=compressor: compressor(vector, key=KEY),
            "with residual": feed_back,
            "add": lambda packet=packet: packet.add_to(total),
        }
        times: dict[str, list[float]] = {what: [] for what in calls}
        for turn in range(repeats + 1):
            for what, call in calls.items():
                given.copy_(vector)
                before = seconds_of(lambda: out.copy_(vector))
                took = seconds_of(call)
                copied = before + seconds_of(lambda: out.copy_(vector))
                if turn:  # the first turn compiles
                    times[what].append(2 * took / copied)
        sys.stdout.write(f"| {name} | {' | '.join(spread_of(each) for each in times.values())} |\n")
        sys.stdout.flush()


def frames_of(vector: torch.Tensor, sizes: list[str], repeats: int, only: str) -> None:
    """Print a row for each compressor and size of blocks."""
    total = torch.zeros_like(vector)
    for name, make in OF_BLOCKS.items():
        for size in sizes if only in name else ():
            shapes = [make("vector"), make(size)]
            frames = [encode(Frame(header=HEADER, packet=shape(vector, key=KEY))) for shape in shapes]
            ratios: tuple[list[float], list[float]] = [], []
            for turn in range(repeats + 1):
                encoded = [
                    seconds_of(lambda shape=shape: encode(Frame(header=HEADER, packet=shape(vector, key=KEY))))
                    for shape in shapes
                ]
                decoded = [
                    seconds_of(lambda frame=frame: decode(frame, vector.numel()).packet.add_to(total))
                    for frame in frames
                ]
                if turn:
                    ratios[0].append(encoded[1] / encoded[0])
                    ratios[1].append(decoded[1] / decoded[0])
            bytes_ = frames[1].numel() / frames[0].numel()
            sys.stdout.write(f"| {name} | {size} | {bytes_:.1f} | {' | '.join(spread_of(each) for each in ratios)} |\n")
            sys.stdout.flush()


def main() -> None:
    """Read the options and print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", default="", help="sizes of blocks, separated by commas")
    parser.add_argument("--d", type=int, default=0, help="elements of the vector")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", default="", help="compressors with this text in their name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    d = options.d or (1 << 20 if options.blocks else 11_173_962)
    vector = torch.randn(d, generator=torch.Generator().manual_seed(0))
    if options.blocks:
        frames_of(vector, options.blocks.split(","), options.repeats, options.only)
    else:
        passes_of(vector, options.repeats, options.only)


if __name__ == "__main__":
    main()
