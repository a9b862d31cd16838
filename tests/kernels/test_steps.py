"""Steps of plain SGD: the compiled kernels against the reference and torch's own optimizer, bit for bit."""

from zlib import crc32

import pytest
import torch

from laconic.kernels import api
from laconic.kernels.cpu import descents as cpu_descents
from laconic.kernels.cpu import steps as cpu_steps
from laconic.kernels.cpu.flatten import PAST_CACHES_BYTES
from laconic.kernels.reference import descents as reference_descents
from laconic.kernels.reference import steps as reference_steps
from support.inputs import over_inputs

SHAPES = [(3, 5), (), (0,), (5000,), (17,)]
D = 5033


def tensors_of(dtype, seed):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=dtype) for shape in SHAPES]


def as_vector(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def stepped_by_torch(tensors, gradients, lr):
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in tensors]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    torch.optim.SGD(parameters, lr=lr).step()
    return as_vector([parameter.detach() for parameter in parameters])


@pytest.mark.parametrize("kernels", [reference_descents, cpu_descents], ids=["plain", "cpu"])
@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("lr", [0.1, 0.03, 0.0, 1e30])
def test_a_step_of_many_tensors_has_the_bits_of_torch(kernels, lr, dtype):
    tensors, gradients = tensors_of(dtype, 0), tensors_of(dtype, 1)
    gradients[3][:200] = -0.0
    gradients[3][-1] = torch.inf
    expected = stepped_by_torch(tensors, gradients, lr)
    kernels.descend(tensors, gradients, factor=-lr)
    assert torch.equal(as_vector(tensors).nan_to_num(7.0), expected.nan_to_num(7.0))
    assert torch.equal(as_vector(tensors).signbit(), expected.signbit())


def test_a_step_of_tensors_in_strides_or_of_two_types_is_the_reference_s_and_is_seen_by_autograd():
    tensors = [torch.randn(4, 6).t(), torch.randn(5).double()]
    gradients = [torch.randn(6, 4), torch.randn(5).double()]
    expected, versions = stepped_by_torch(tensors, gradients, 0.1), [tensor._version for tensor in tensors]
    api.descend(tensors, gradients, factor=-0.1)
    assert torch.equal(as_vector(tensors), expected)
    assert all(tensor._version > version for tensor, version in zip(tensors, versions, strict=True))
    with pytest.raises(ValueError, match=r"^descend: gradients must have as many elements"):
        api.descend(tensors, gradients[::-1], factor=-0.1)


@pytest.mark.parametrize("kernels", [reference_steps, cpu_steps], ids=["plain", "cpu"])
@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("n", [1, 2, 3, 4, 7])
def test_a_step_along_the_mean_has_the_bits_of_a_mean_and_a_step_of_torch(kernels, n, dtype):
    vectors = [as_vector(tensors_of(dtype, seed)) for seed in range(1, n + 1)]
    for vector in vectors:
        vector[:100] = -0.0
    values = tensors_of(dtype, 0)
    values[3][:200] = -0.0
    mean = torch.zeros(D, dtype=dtype)
    for vector in vectors:
        mean = mean + vector
    gradients = [part.view(shape) for part, shape in zip((mean / n).split([15, 1, 0, 5000, 17]), SHAPES, strict=True)]
    made, expected = as_vector(values), stepped_by_torch(values, gradients, 0.1)
    kernels.step_along_mean(made, vectors, divisor=n, lr=0.1)
    assert torch.equal(made, expected)
    assert torch.equal(made.signbit(), expected.signbit())
    out = torch.full((D,), torch.nan, dtype=dtype)
    measured = kernels.gather_mean_step(values, [-0.1] * 5, vectors, out, divisor=n)
    assert torch.equal(out, expected)
    assert torch.equal(out.signbit(), expected.signbit())
    assert measured == (float(expected.abs().max()), crc32(expected.numpy().tobytes()))


@pytest.mark.parametrize("kernels", [reference_steps, cpu_steps], ids=["plain", "cpu"])
@over_inputs("dtype", [torch.float32, torch.float64])
def test_the_change_of_a_step_is_what_torch_s_step_changes(kernels, dtype):
    tensors, gradients = tensors_of(dtype, 0), tensors_of(dtype, 1)
    start = as_vector(tensors)
    change = stepped_by_torch(tensors, gradients, 0.1) - start
    for adds, expected in ((False, change), (True, change + start)):
        out = torch.full((D,), torch.nan, dtype=dtype)
        measured = kernels.gather_step(tensors, gradients, [-0.1] * 5, out, adds=adds)
        assert torch.equal(out, expected)
        assert measured == (float(expected.abs().max()), crc32(expected.numpy().tobytes()))
    assert torch.equal(as_vector(tensors), start)


@pytest.mark.parametrize("kernels", [reference_steps, cpu_steps], ids=["plain", "cpu"])
@over_inputs("dtype", [torch.float32, torch.float64])
def test_a_difference_from_a_step_is_that_from_the_model_which_it_leads_to(kernels, dtype):
    tensors, gradients = tensors_of(dtype, 0), tensors_of(dtype, 1)
    updated, random = torch.empty(D, dtype=dtype), torch.Generator().manual_seed(2)
    largest, _ = api.gather_step(tensors, gradients, [-0.1] * 5, updated, adds=True)
    published, *copies = (torch.randn(D, generator=random, dtype=dtype) for _ in range(4))
    for n in (1, 2, 3):
        expected, weights = torch.empty(D, dtype=dtype), [0.5, 0.3, 0.2][:n]
        api.mixed_difference(updated, published, copies[:n], weights, expected)
        for to in (torch.full((D,), torch.nan, dtype=dtype), torch.full((D + 1,), torch.nan, dtype=dtype)[1:]):
            found, ends = kernels.step_difference(tensors, gradients, [-0.1] * 5, published, copies[:n], weights, to)
            assert torch.equal(to, expected), n
            assert found == largest
            assert ends == api.ranges(expected, [D]), n


def test_a_long_difference_is_stored_past_the_caches_to_the_same_bits():
    count, random = PAST_CACHES_BYTES // 4 + 37, torch.Generator().manual_seed(3)
    sizes = [1, 70_001, 0, count - 70_009, 7, 0]
    tensors, gradients = ([torch.randn(size, generator=random) for size in sizes] for _ in range(2))
    published, copy = (torch.randn(count, generator=random) for _ in range(2))
    memory = torch.empty(count + 16)
    out, expected = memory[-memory.data_ptr() % 64 // 4 :][:count], torch.empty(count)
    made = api.step_difference(tensors, gradients, [-0.1] * 6, published, [published, copy], [0.5, 0.5], out)
    wanted = reference_steps.step_difference(
        tensors, gradients, [-0.1] * 6, published, [published, copy], [0.5, 0.5], expected
    )
    assert torch.equal(out, expected)
    assert made == wanted


@over_inputs("kernels", [reference_steps, cpu_steps])
def test_a_step_that_is_no_number_says_so(kernels):
    for value in (torch.inf, torch.nan):
        gradients = tensors_of(torch.float32, 1)
        gradients[3][4321] = value
        largest, _ = kernels.gather_step(tensors_of(torch.float32, 0), gradients, [-0.1] * 5, torch.empty(D), adds=True)
        assert not largest <= torch.finfo(torch.float32).max


def test_gradients_of_other_sizes_than_their_tensors_are_refused():
    tensors, gradients = [torch.ones(3), torch.ones(4)], [torch.ones(4), torch.ones(3)]
    with pytest.raises(ValueError, match=r"^gather_step: gradients must have"):
        api.gather_step(tensors, gradients, [1.0, 1.0], torch.empty(7), adds=True)


@over_inputs("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_factor_that_the_type_cannot_hold_is_refused_before_anything_is_written(dtype):
    largest = torch.finfo(dtype).max
    wrong = 2 * largest if dtype != torch.float64 else 10**400
    values, out = torch.ones(3, dtype=dtype), torch.full((3,), 7.0, dtype=dtype)
    for factor in (wrong, -wrong):
        for call, name in (
            (lambda by: api.gather_step([values], [values], [by], out, adds=True), "gather_step: the factor"),
            (lambda by: api.gather_mean_step([values], [by], [values], out, divisor=1), "gather_mean_step: the factor"),
            (lambda by: api.step_along_mean(out, [values], divisor=1, lr=by), "step_along_mean: the lr"),
            (lambda by: api.weighted_sum([values], [by], out), "weighted_sum: the weight"),
            (
                lambda by: api.mixed_difference(values, values, [values], [by], out),
                "mixed_difference: the weight",
            ),
        ):
            with pytest.raises(ValueError, match=f"^{name} .* must be in {dtype}'s"):
                call(factor)
    assert out.tolist() == [7.0] * 3
    api.gather_step([values], [values], [largest], out, adds=True)
    assert out.isfinite().all()
