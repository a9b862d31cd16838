"""What a kernel is given is checked once, at its entry: nothing reads or writes outside the memory of its arguments."""

import math
import random
import sys

import numpy as np
import pytest
import torch

from laconic.kernels import api as kernels
from laconic.kernels import checks
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.reference import scaled_answers as reference
from support.inputs import failing_at
from support.kernel_calls import CALLS, WITHOUT_MEMORY, Wrapped, guards_hold, wrong_arguments

pytestmark = pytest.mark.skipif(not compiled.numba_available(), reason="needs numba")

REFUSALS = (TypeError, ValueError, IndexError)
each_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)


def _tensors_in(value):
    if isinstance(value, torch.Tensor):
        return [value] if type(value) is torch.Tensor and value.device.type == "cpu" else []
    return [tensor for part in value for tensor in _tensors_in(part)] if isinstance(value, list | tuple) else []


def _assert_same(one, other, tolerance=0.0):
    assert type(one) is type(other)
    if isinstance(one, list | tuple):
        for left, right in zip(one, other, strict=True):
            _assert_same(left, right, tolerance)
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=0.0, equal_nan=True)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    elif tolerance and isinstance(one, float):
        assert math.isclose(one, other, rel_tol=tolerance) or (math.isnan(one) and math.isnan(other))
    else:
        assert one == other


def _try(call, made):
    """Make the call: it is refused by name, or does what the reference does; nothing around its arguments changes."""
    arguments, again = made(), made()
    before = [tensor for value in arguments.values() for tensor in _tensors_in(value) if _is_guarded(tensor)]
    try:
        result = call.face(arguments)
    except REFUSALS as refusal:
        result, named = None, call.name in str(refusal)
    else:
        if call.name in ("vote_counts", "union_sum") and not arguments["lists"]:
            return result  # the face answers this itself
        named, expected = True, call.reference(again)
        means = dict.fromkeys(("mean_signs", "correct_signs", "momentum_correct_signs", "answer_scaled_signs"), 2**-22)
        tolerance = {
            "norms": 2**-40,
            "squared_distance": 2**-40,
            "gather_distance": 2**-40,
            "fractional_codes": kernels.MEAN_TOLERANCE[torch.float32],
            **means,
        }.get(call.name, 0.0)
        if call.name == "put_numbers":  # the face refuses what does not ascend
            expected = expected[0]
        if call.name in ("error_feedback_step", "error_feedback_total"):  # may write the mask down, or not
            result, expected = result[:2], expected[:2]
        if not (call.name == "take_runs" and result[1] == -1):  # the positions mean nothing then
            _assert_same(result, expected, tolerance)
            _assert_same(_tensors_in(list(arguments.values())), _tensors_in(list(again.values())))
    assert named
    for tensor in before:
        assert guards_hold(tensor)
    return result


def _is_guarded(tensor):
    if not checks.has_memory(tensor):
        return False
    storage = tensor.untyped_storage()
    return tensor.is_contiguous() and storage.nbytes() > 500 and tensor.storage_offset() > 0


def _fuzz(call, seeds, n):
    outcomes = []
    for seed in seeds:
        changes, made = wrong_arguments(call, random.Random(f"{call.name} {seed}"), n)
        with failing_at(call=call.name, changes=changes):
            outcomes.append(_try(call, made))
    return outcomes


@pytest.mark.slow
@each_call
def test_a_right_call_does_what_the_reference_does(call):
    assert _try(call, call.made) is not None or call.face(call.made()) is None


@pytest.mark.slow
@each_call
def test_a_wrong_argument_is_refused_by_name_or_means_what_the_reference_says(call):
    assert None in _fuzz(call, range(20), 1)


@pytest.mark.nightly
@each_call
def test_several_wrong_arguments_are_refused_by_name_or_mean_what_the_reference_says(call):
    for n in (1, 2, 3):
        _fuzz(call, range(100, 1600), n)


@pytest.mark.slow
@pytest.mark.parametrize("kind", WITHOUT_MEMORY)
def test_a_tensor_without_memory_of_its_own_is_refused_by_every_kernel(kind):
    n = 0
    for call in CALLS:
        for name, value in call.made().items():
            if kind == "sparse" and name == "packed":
                continue
            inner = value[0] if isinstance(value, list) else value
            if isinstance(inner, torch.Tensor):
                arguments = call.made()
                wrong = WITHOUT_MEMORY[kind](arguments[name][0] if isinstance(value, list) else arguments[name])
                arguments[name] = [wrong, *arguments[name][1:]] if isinstance(value, list) else wrong
                with failing_at(call=call.name, name=name), pytest.raises((TypeError, ValueError), match=call.name):
                    call.face(arguments)
                n += 1
    assert n > 60


def test_refusals_say_what_to_pass_instead():
    out = torch.empty(8)
    for wrong, message in (
        (
            Wrapped(torch.ones(8)),
            r"gather: tensor 0 of 1 is a Wrapped, which wraps other tensors; .* to_local|\.to_local",
        ),
        (torch.empty(8, device="meta"), r"tensor 0 of 1 is on the meta device.*\.to_empty\(\)"),
        (WITHOUT_MEMORY["freed"](torch.ones(8)), r"tensor 0 of 1 has no memory for its values: its storage was freed"),
        (torch.ones(8).to_sparse(), r"tensor 0 of 1 has the layout torch.sparse_coo; pass its \.to_dense\(\)"),
    ):
        with pytest.raises(TypeError, match=message):
            kernels.gather([wrong], out)
    with pytest.raises(TypeError, match=r"take_at: vector is lazily negated; pass its \.resolve_neg\(\)"):
        kernels.take_at(torch._neg_view(out), torch.tensor([1]))
    with pytest.raises(IndexError, match=r"take_at: indices has 8, which is outside 0 \.\. 7"):
        kernels.take_at(out, torch.tensor([1, 8]))
    with pytest.raises(ValueError, match=r"add_at: indices must ascend, each once"):
        kernels.add_at(out, torch.tensor([2, 1]), torch.ones(2))
    with pytest.raises(ValueError, match=r"put_signs: 1 bytes of bits for 16 selected elements, which take 2"):
        kernels.put_signs(torch.zeros(1, dtype=torch.uint8), 0, 0, kernels.ALL_SELECTED, torch.empty(16))


def test_within_a_transform_of_torch_a_tensor_has_no_memory():
    with pytest.raises(TypeError, match="gather: tensor 0 of 1 has no memory"):
        torch.vmap(lambda row: kernels.gather([row], torch.empty(8)))(torch.ones(2, 8))


def test_tensors_lazily_negated_or_of_a_subclass_come_as_torch_reads_them():
    class Named(torch.Tensor):
        """A subclass with memory of its own."""

    given, out = torch.randn(1000), torch.empty(1000)
    for tensor, values in ((torch._neg_view(given), -given), (given.as_subclass(Named), given)):
        assert kernels.gather([tensor], out)
        assert torch.equal(out, values)
        assert kernels.all_finite(tensor)
    target = torch._neg_view(torch.zeros(1000))
    kernels.scatter(given, [target])
    assert torch.equal(target.resolve_neg(), given)
    kernels.add_into([target], torch.tensor([3]), torch.tensor([5.0]))
    assert target[3] == given[3] + 5


def test_a_tensor_whose_elements_share_memory_is_not_written_to():
    for shared in (torch.zeros(1).expand(8), torch.zeros(8).as_strided((2, 4), (2, 1))):
        with pytest.raises(ValueError, match=r"share memory, as after expand\(\)"):
            kernels.scatter(torch.ones(8), [shared])
        with pytest.raises(ValueError, match="share memory"):
            kernels.add_into([shared], torch.tensor([3]), torch.ones(1))
    with pytest.raises(ValueError, match=r"clear_at: vector has the stride 0 and is written to; pass its \.clone\(\)"):
        kernels.clear_at(torch.zeros(1).expand(8), torch.tensor([3]))
    transposed = torch.zeros(4, 2).t()
    kernels.scatter(torch.arange(8.0), [transposed])
    assert transposed.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_an_answer_to_no_packet_is_made_of_the_residual_alone():
    residual, left, expected = torch.arange(-40.0, 41.0), torch.empty(81), torch.empty(81)
    found = kernels.answer_scaled_signs([], [], residual, left, (50, 31), divisor=2, decay=0.5)
    _assert_same(
        found, reference.answer_scaled_signs([], [], residual, expected, (50, 31), divisor=2, decay=0.5), 2**-22
    )
    _assert_same(left, expected, 2**-22)


@pytest.mark.parametrize(
    "call",
    [
        lambda given, out: kernels.gather_with_checksum(given, out),
        lambda given, out: kernels.gather_mean_step(given, [-0.1] * len(given), [out.clone()], out, divisor=1),
        lambda given, out: kernels.gather_step(given, given, [-0.1] * len(given), out, adds=True),
        lambda given, out: kernels.descend(kernels.CheckedTensors(given), [each.clone() for each in given], factor=0.1),
    ],
    ids=["gather_with_checksum", "gather_mean_step", "gather_step", "descend"],
)
def test_many_tensors_are_looked_at_in_no_more_calls_of_python_than_few(call):
    n_calls = []
    for n in (1, 2, 200):
        given, out = [torch.randn(4, 5) for _ in range(n)], torch.zeros(20 * n)
        call(given, out)  # after which lengths of what is read are known
        events = []
        sys.setprofile(lambda frame, event, argument, events=events: events.append(event))
        call(given, out)
        sys.setprofile(None)
        n_calls.append(events.count("call"))
    assert n_calls[1] == n_calls[2]
