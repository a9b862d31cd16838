"""Error feedback with scaled signs: the correction, its signs and means, and what is added of them."""

import torch

from support.gpu_inputs import over_dtypes, over_kinds, vector_of
from support.inputs import over_inputs

LENGTHS = [(1030,), (500, 500, 30), (1, 700, 2, 327)]


def close(found, expected, dtype):
    """The same signs; means that were added in another order."""
    (packed, means), (expected_packed, expected_means) = found, expected
    assert torch.equal(packed, expected_packed)
    torch.testing.assert_close(
        means, expected_means, rtol=2.0**-22 if dtype == torch.float32 else 2.0**-40, atol=0, equal_nan=True
    )


@over_kinds
@over_dtypes
def test_corrections_and_their_signs_are_alike(twins, kind, dtype):
    family = twins("residuals")
    vector, residual = vector_of(kind, 1030, dtype), 3 * vector_of("normal", 1030, dtype)
    for lengths in LENGTHS:
        scalars = {"divisor": 3, "decay": 0.7}
        family.alike("correct", vector, residual, **scalars)
        (expected, mine), (found, peer) = family.both("correct_signs", vector, residual, lengths, **scalars)
        close(found, expected, dtype)
        assert torch.equal(mine[0], peer[0])
        (expected, _), (found, _) = family.both("mean_signs", vector, lengths)
        close(found, expected, dtype)


@over_kinds
@over_dtypes
def test_steps_with_momentum_are_alike(twins, kind, dtype):
    vector, momentum, residual = (vector_of(each, 1030, dtype) for each in (kind, "normal", "heavy-tailed"))
    (expected, mine), (found, peer) = twins("residuals").both(
        "momentum_correct_signs", vector, momentum, residual, torch.zeros_like(vector), (500, 500, 30), mu=0.9,
        decay=0.7,
    )  # fmt: skip
    close(found, expected, dtype)
    assert torch.equal(mine[0], peer[0])
    assert torch.equal(mine[3], peer[3])


@over_inputs("lengths", LENGTHS)
@over_dtypes
def test_scaled_signs_are_written_and_added_alike(twins, dtype, lengths):
    family = twins("residuals")
    packed, scales = family.reference.mean_signs(vector_of("normal", 1030, dtype), lengths)
    for name in ("put_scaled_signs", "add_scaled_signs"):
        family.alike(name, packed, scales, lengths, vector_of("heavy-tailed", 1030, dtype))
