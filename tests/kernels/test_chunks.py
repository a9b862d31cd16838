"""The largest magnitudes of each chunk: compiled code and the reference choose the same ones."""

import pytest
import torch

from laconic.kernels import api as kernels
from laconic.kernels.reference import chunks as reference_chunks
from laconic.kernels.reference import top_k as reference_top_k
from support.inputs import over_inputs

SHAPES = [(777, 7, 2), (777, 64, 64), (777, 500, 3), (777, 1, 1), (9000, 4096, 64), (9000, 4096, 4095), (8192, 4096, 1)]


def vectors(d: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(d)
    normal = torch.randn(d, generator=generator, dtype=dtype)
    ties = torch.randint(-2, 3, (d,), generator=generator).to(dtype)
    lone = torch.zeros(d, dtype=dtype)
    lone[d // 2] = -1e-40
    all_bits = torch.full((d,), -1, dtype=torch.int32 if dtype == torch.float32 else torch.int64).view(dtype)
    return {
        "normal": normal, "few values": ties, "zeros": torch.zeros(d, dtype=dtype), "one that is not zero": lone,
        "widest range": torch.exp2(40 * normal).clamp(max=3e38), "chunks unlike each other": normal.cumsum(0) ** 3,
        "inf and NaN": torch.where(ties == 2, torch.nan, torch.where(ties == 1, -torch.inf, normal)),
        "the largest NaN": all_bits,
    }  # fmt: skip


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs(("d", "size", "k"), SHAPES)
def test_compiled_code_chooses_what_the_reference_chooses(d, size, k, dtype):
    rest = (d - 1) % size + 1
    for name, vector in vectors(d, dtype).items():
        for last_k in {1, min(k, rest)}:
            expected = reference_chunks.top_k_by_chunk(vector, size, k, last_k)
            assert torch.equal(kernels.top_k_by_chunk(vector, size, k, last_k), expected), name


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs(("divisor", "decay"), [(1, 1.0), (1, 0.95), (3, 0.5), (4, 0.0)])
def test_compiled_code_corrects_as_the_reference_does_and_chooses_of_the_result(divisor, decay, dtype):
    residual = torch.randn(9000, generator=torch.Generator().manual_seed(3), dtype=dtype)
    for name, vector in vectors(9000, dtype).items():
        for chunks in ((4096, 64, 9), (500, 500, 500), (33, 1, 1)):
            given, expected = vector.clone(), vector.clone()
            options = {"divisor": divisor, "decay": decay}
            found = kernels.correct_top_k_by_chunk(given, residual, *chunks, **options)
            assert torch.equal(found, reference_chunks.correct_top_k_by_chunk(expected, residual, *chunks, **options))
            assert torch.equal(given.nan_to_num(nan=5.0), expected.nan_to_num(nan=5.0)), name


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("decay", [1.0, 0.95, 0.0])
def test_chunks_of_tensors_are_those_of_the_vector_that_they_make(decay, dtype):
    residual = torch.randn(9000, generator=torch.Generator().manual_seed(3), dtype=dtype)
    sizes, factors = [5000, 0, 1, 3000, 999], [0.5, 1.0, 2.0, -1.0, 3.0]
    for name, vector in vectors(9000, dtype).items():
        for chunks in ((4096, 64, 9), (500, 500, 500), (33, 1, 1)):
            corrected, expected = torch.empty(9000, dtype=dtype), torch.empty(9000, dtype=dtype)
            given = (vector.split(sizes), factors)
            is_finite, found = kernels.gather_top_k_by_chunk(*given, corrected, residual, *chunks, decay=decay)
            assert kernels.gather_scaled(*given, expected) is is_finite, name
            assert torch.equal(found, kernels.correct_top_k_by_chunk(expected, residual, *chunks, decay=decay)), name
            assert torch.equal(corrected.nan_to_num(nan=5.0), expected.nan_to_num(nan=5.0)), name


def test_the_reference_chooses_chunk_by_chunk_what_the_exact_top_k_does():
    for vector in vectors(777, torch.float32).values():
        chunks = [*[(64, 3)] * 12, (9, 2)]
        expected = reference_top_k.top_k_by_block(vector, chunks)
        assert torch.equal(reference_chunks.top_k_by_chunk(vector, 64, 3, 2), expected)


@over_inputs(
    ("numbers", "message"), [((0, 1, 1), "size=0"), ((4, 5, 1), "k=5"), ((4, 0, 1), "k=0"), ((4, 1, 3), "last_k=3")]
)
def test_numbers_that_do_not_fit_are_refused(numbers, message):
    with pytest.raises(ValueError, match=rf"^top_k_by_chunk: {message} must be in 1 \.\. "):
        kernels.top_k_by_chunk(torch.ones(10), *numbers)
