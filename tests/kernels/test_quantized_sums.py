"""Sums of quantized vectors in one pass: the reference's bits, and those of adding one packet after another."""

import pytest
import torch

from laconic.compressors import QSGD, Quantized, Ternary
from laconic.contract import Inbox
from laconic.kernels import api as kernels
from laconic.kernels.cpu.flatten import PAST_CACHES_BYTES
from laconic.kernels.reference import quantized_sums as reference
from laconic.kernels.reference import stochastic_rounding as reference_rounding
from support.inputs import over_inputs

D = 3000
LENGTHS = [(D,), (700, 700, 700, 700, 200), (1, 1999, 1000), (3,) * (D // 3)]


def vectors(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(D, generator=generator, dtype=dtype) * scale for scale in (1, 1e-3, 50)]


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("lengths", LENGTHS)
def test_compiled_sums_are_the_references(lengths, dtype):
    given = vectors(dtype)
    for bits in (1, 3, 8):
        ends = [kernels.ranges(vector, lengths) for vector in given]
        codes = [kernels.quantize(vector, *each, lengths, bits, 5, 9) for vector, each in zip(given, ends, strict=True)]
        lows, highs = zip(*ends, strict=True)
        for n, divisor in ((1, 1), (1, 4), (2, 2), (3, 1), (3, 7)):
            made, expected = torch.full((D,), 9.0, dtype=dtype), torch.empty(D, dtype=dtype)
            found, wanted = (
                sum_(codes[:n], lows[:n], highs[:n], lengths, bits, out, divisor=divisor)
                for sum_, out in ((kernels.sum_dequantized, made), (reference.sum_dequantized, expected))
            )
            assert torch.equal(made, expected), (bits, n, divisor)
            assert found == wanted == (expected.min(), expected.max()), (bits, n, divisor)
        for put_moved, out in ((kernels.put_moved, made), (reference.put_moved, expected)):
            put_moved(given[2], codes[0], lows[0], highs[0], lengths, bits, out)
        assert torch.equal(made, expected), (bits, "moved")
    for steps in (1, 5, 255):
        scales = [kernels.norms(vector, lengths) for vector in given]
        codes = [
            kernels.quantize_levels(vector, each, lengths, steps, 5, 9)
            for vector, each in zip(given, scales, strict=True)
        ]
        made, expected = torch.full((D,), 9.0, dtype=dtype), torch.empty(D, dtype=dtype)
        for sum_, out in ((kernels.sum_levels, made), (reference.sum_levels, expected)):
            sum_(codes, scales, lengths, steps, out, divisor=3)
        assert torch.equal(made, expected), steps


@over_inputs(
    "compressors",
    [
        (Quantized(), Quantized()), (Quantized(bits=4, blocks="500"),) * 3, (QSGD(),) * 2, (Ternary(blocks="64"),) * 2,
        (Quantized(), Quantized(bits=4)), (QSGD(), Quantized()),
    ],
)  # fmt: skip
def test_a_mean_is_that_of_packets_added_one_after_another_also_where_they_differ(compressors):
    packets = {
        rank: compressor(vector, key=rank)
        for rank, (compressor, vector) in enumerate(zip(compressors, vectors(torch.float32), strict=False))
    }
    expected = torch.zeros(D)
    for packet in packets.values():
        packet.add_to(expected)
    made = Inbox(packets, len(packets), lambda: torch.full((D,), 9.0)).mean()
    assert torch.equal(made, expected / len(packets))
    assert not made[made == 0].signbit().any()


def test_sums_of_vectors_that_do_not_fit_are_refused():
    lows, highs = torch.zeros(1), torch.ones(1)
    codes = torch.zeros(8, dtype=torch.uint8)
    for message, arguments in (
        ("number of vectors=0", ([], [], [], (8,), 8, torch.empty(8))),
        ("number of ends of blocks=1", ([codes, codes], [lows], [highs], (8,), 8, torch.empty(8))),
        ("out has 9 elements", ([codes], [lows], [highs], (8,), 8, torch.empty(9))),
        ("packed has 8 elements", ([codes], [lows], [highs], (9,), 8, torch.empty(9))),
    ):
        with pytest.raises(ValueError, match=f"^sum_dequantized: {message}"):
            kernels.sum_dequantized(*arguments)


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("span", [1e-40, 1.0, 3e38])
def test_long_vectors_which_are_stored_past_the_caches_get_the_same_bits(dtype, span):
    """Also where a grid needs a factor, since its ends are so close or so far from each other."""
    count, bits = PAST_CACHES_BYTES // dtype.itemsize + 37, 8
    random = torch.Generator().manual_seed(7)
    given = [(torch.rand(count, generator=random, dtype=dtype) - 0.5) * 2 * span for _ in range(2)]
    memory = torch.empty(count + 16, dtype=dtype)
    aligned = -memory.data_ptr() % 64 // dtype.itemsize
    for lengths in ([count], [count - 5000, 5000]):
        ends = [kernels.ranges(vector, lengths) for vector in given]
        codes = [kernels.quantize(vector, *each, lengths, bits, 0, 9) for vector, each in zip(given, ends, strict=True)]
        lows, highs = zip(*ends, strict=True)
        expected = torch.empty(count, dtype=dtype)
        for out in (memory[aligned:][:count], memory[aligned + 1 :][: count - 1]):  # the second one is not aligned
            if len(out) == count:
                reference.sum_dequantized(codes, lows, highs, lengths, bits, expected, divisor=2)
                kernels.sum_dequantized(codes, lows, highs, lengths, bits, out, divisor=2)
                assert torch.equal(out, expected)
                reference.put_moved(given[1], codes[0], lows[0], highs[0], lengths, bits, expected)
                kernels.put_moved(given[1], codes[0], lows[0], highs[0], lengths, bits, out)
                assert torch.equal(out, expected)
            shorter = [len(out)] if len(lengths) == 1 else [len(out) - 5000, 5000]
            kernels.put_dequantized(codes[0][: len(out)], lows[0], highs[0], shorter, bits, out)
            assert torch.equal(
                out, reference_rounding.dequantize(codes[0][: len(out)], lows[0], highs[0], shorter, bits)
            )
