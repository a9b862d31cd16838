"""Where a round reads its vector from: any slice, divided or with something added, equals the vector made at once."""

import pytest
import torch

from laconic.kernels.api import CheckedTensors, quantize_tensors, ranges_of_tensors
from laconic.training.vector_sources import ChangeOfStep, ChangeSince, Unscaled, VectorCopy
from support.inputs import over_inputs

SHAPES = ((3, 4), (), (5,), (2, 2, 2), (0,))
D = 26
SLICES = ((0, D), (0, 7), (7, 13), (13, 13), (12, D))


def tensors(dtype, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES]


def joined(parts):
    return torch.cat([part.reshape(-1) for part in parts])


def sources(dtype):
    """Each source over the same tensors, with the vector that it stands for."""
    given = tensors(dtype)
    vector, start = joined(given), torch.linspace(-1, 1, D).to(dtype)
    divisors = torch.linspace(0.5, 2, D).to(dtype)
    factors = [-0.1, 0.2, 0.3, -0.4, 0.5]
    half, scale = torch.tensor(-0.5, dtype=dtype), torch.tensor(8.0, dtype=dtype)
    return {
        "copy": (VectorCopy(given), vector),
        "unscaled": (Unscaled(given, scale), vector / 8),
        "change": (ChangeSince(given, start, None), vector - start),
        "change, divided": (ChangeSince(given, start, half), (vector - start) / -0.5),
        "change, by element": (ChangeSince(given, start, divisors), (vector - start) / divisors),
        "step": (
            ChangeOfStep(given, factors),
            joined([factor * tensor for factor, tensor in zip(factors, given, strict=True)]),
        ),
    }


@pytest.mark.parametrize("name", sources(torch.float32))
@over_inputs("dtype", (torch.float32, torch.float64))
@over_inputs("divisor", (1, 3))
@over_inputs("adds", ("nothing", "a vector", "tensors"))
def test_any_slice_is_that_of_the_vector(name, dtype, divisor, adds):
    source, vector = sources(dtype)[name]
    more = tensors(dtype, seed=2)
    plus = {"nothing": None, "a vector": joined(more), "tensors": more}[adds]
    expected = (vector + (0 if plus is None else joined(more))) / divisor
    for start, stop in SLICES:
        out = torch.full((D,), 7.0, dtype=dtype)
        assert source.into(out, start, stop, divisor=divisor, plus=plus)
        torch.testing.assert_close(out[start:stop], expected[start:stop])
        assert (out[:start] == 7).all()
        assert (out[stop:] == 7).all(), "nothing else is written"


@pytest.mark.parametrize("name", sources(torch.float32))
@over_inputs("divisor", (1, 3))
@over_inputs("bad", (torch.inf, torch.nan))
def test_a_value_that_is_not_finite_is_found_in_its_own_slice_alone(name, divisor, bad):
    source, _ = sources(torch.float32)[name]
    source.reads[2][1] = bad  # element 14 of the vector
    out = torch.empty(D)
    found = [not source.into(out, start, stop, divisor=divisor) for start, stop in SLICES]
    assert found == [start <= 14 < stop for start, stop in SLICES]


@pytest.mark.parametrize("name", sources(torch.float32))
def test_a_sum_that_is_not_finite_is_found(name):
    source, _ = sources(torch.float32)[name]
    plus = torch.zeros(D)
    plus[20] = torch.inf
    for divisor in (1, 3):
        assert not source.into(torch.empty(D), 0, D, divisor=divisor, plus=plus)
        assert source.into(torch.empty(D), 0, 20, divisor=divisor, plus=plus)


def test_what_is_a_vector_already_can_be_read_as_tensors_without_a_copy():
    given = tensors(torch.float32)
    assert all(one is other for one, other in zip(VectorCopy(given).tensors(), given, strict=True))
    assert not any(source.tensors() for name, (source, _) in sources(torch.float32).items() if name != "copy")


def test_a_source_lists_the_tensors_whose_memory_it_reads():
    views = [torch.zeros(4), torch.ones(3)]
    for source in (VectorCopy(views), Unscaled(views, torch.tensor(2.0)), ChangeSince(views, torch.ones(7), None)):
        assert all(one is other for one, other in zip(source.reads, views, strict=True))


@pytest.mark.parametrize("divisor", [1, 2, 3, 4])
@pytest.mark.parametrize("scaled", [False, True], ids=["as they are", "unscaled"])
def test_a_share_of_a_mean_is_added_to_what_others_have_written_with_the_bits_of_two_passes(divisor, scaled):
    parts = tensors(torch.float32)
    parts[0].reshape(-1)[:4] = torch.tensor([-0.0, 1e-44, 3e38, torch.nan])
    source = Unscaled(parts, torch.tensor(3.0)) if scaled else VectorCopy(parts)
    d = joined(parts).numel()
    plus, separate, out = torch.randn(d), torch.empty(d), torch.empty(d)
    plus[0] = -0.0
    source.into(separate, 0, d, divisor=divisor)
    source.share_plus(out, divisor, plus)
    assert torch.equal(out.view(torch.int32), (separate + plus).view(torch.int32))


def test_kernels_that_read_one_gradient_look_at_its_tensors_once(monkeypatch):
    looks = []
    look = CheckedTensors.look
    monkeypatch.setattr(CheckedTensors, "look", lambda self: looks.append(self) or look(self))
    source = VectorCopy(tensors(torch.float32))
    read = source.tensors()
    lows, highs = ranges_of_tensors(read, (D,))
    quantize_tensors(read, lows, highs, (D,), 8, 0, 1)
    assert len(looks) == 1
    assert source.reads is read
