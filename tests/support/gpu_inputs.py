"""Inputs of the tests of GPU kernels: vectors of every kind and dtype."""

import pytest
import torch
from torch import Tensor

from support.inputs import over_inputs

KINDS = ("normal", "heavy-tailed", "denormal", "zeros of both signs", "widest range", "constant")

# Of three inputs each pair is in both parts, and each triple in one. Kernels are interpreted with the second by night.
over_parts = pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.nightly)])
over_kinds = over_inputs("kind", KINDS)
over_dtypes = over_inputs("dtype", [torch.float32, torch.float64])


def is_in_part(part: int, *numbers: int) -> bool:
    """Whether inputs, each by its place among those of its kind, are in a part."""
    return sum(numbers) % 2 == part


def vector_of(kind: str, d: int, dtype: torch.dtype) -> Tensor:
    """A vector (d,) of one of KINDS."""
    generator = torch.Generator().manual_seed(d)
    sampled, other = torch.randn(2, d, generator=generator, dtype=torch.float64)
    made = {
        "normal": sampled,
        "heavy-tailed": sampled / other,
        "denormal": sampled * (1e-320 if dtype == torch.float64 else 1e-42),
        "zeros of both signs": 0 * sampled,
        "widest range": torch.exp2(45 * other).clamp(1e-45, 3e38) * sampled.sign(),
        "constant": torch.full_like(sampled, -0.3),
    }
    return made[kind].to(dtype)
