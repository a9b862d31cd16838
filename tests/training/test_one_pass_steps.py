"""A server's step along a mean in one pass over the packets: the bits of the mean and a step, or no such step."""

import math
import sys

import pytest
import torch

from laconic.algorithms.sgd_server import GlobalReplica
from laconic.errors import NonFiniteError
from laconic.training.active_parameters import ActiveParameters
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.replaced_tensors import HeldModel
from laconic.training.server_model import ServerModel

SHAPES = [(20, 30), (), (700,)]
D = 1301


def model_of(options, *, lr="kept", clipping=None, active=(True, True, True)):
    random = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]
    groups = [{"params": parameters[:2], "lr": 0.1}, {"params": parameters[2:], "lr": 0.03}]
    inner = torch.optim.SGD(groups, **{"lr": 0.1, **options})
    chosen = ActiveParameters(FlatParameters(inner).sizes)
    chosen.select(active)
    model = ServerModel(inner, chosen, LearningRates(inner, GlobalReplica(), lr), clipping, lends=True)
    model.user = inner
    return model


def started(options, **others):
    """Return a model whose steps may begin before all packets are there, and the user's parameters."""
    model = model_of(options, **others)
    user = FlatParameters(model.user)
    held = HeldModel(user, model, equal=model.own_vector)
    model.step_for([], held)
    return model, user, held


def gradients(n, scale=1.0):
    random = torch.Generator().manual_seed(n)
    return [scale * torch.randn(D, generator=random) for _ in range(n)]


def largest_of(vectors):
    return max(float(vector.abs().max()) for vector in vectors)


def test_a_step_in_one_pass_has_the_bits_of_a_mean_and_a_step_and_a_bound_on_the_model():
    for n in (1, 2, 3, 5):
        one, other = model_of({}), model_of({})
        for _ in range(3):
            vectors = gradients(n)
            values, largest = one.one_pass.along_mean(vectors, largest_of(vectors))
            total = torch.zeros(D)
            for vector in vectors:
                total = total + vector
            expected = other.descend(total / n)
            assert torch.equal(values, expected), n
            assert float(expected.abs().max()) <= largest < 10
        assert [group["lr"] for group in one.saved()["optimizer"]["param_groups"]] == [0.1, 0.03]


def test_weights_that_are_taken_count_in_the_bound():
    model = model_of({})
    vectors = gradients(2)
    model.one_pass.along_mean(vectors, largest_of(vectors))
    model.take(torch.full((D,), 1000.0))
    values, largest = model.one_pass.along_mean(vectors, largest_of(vectors))
    assert 999 < float(values.abs().max()) <= largest < 1001


def test_other_steps_than_those_of_plain_sgd_with_numbers_of_usual_size_are_taken_as_before():
    for name, model in {
        "momentum": model_of({"momentum": 0.9}),
        "decay": model_of({"weight_decay": 0.1}),
        "fused": model_of({"fused": True}),
        "inactive": model_of({}, active=(True, False, True)),
    }.items():
        assert not model.one_pass.are_taken(), name
        assert model.one_pass.along_mean(gradients(2), 5.0) is None, name
    large = model_of({})
    before = large.own_vector().clone()
    for largest in (1e30, math.inf, math.nan):
        assert large.one_pass.along_mean(gradients(2), largest) is None, largest
    assert torch.equal(large.own_vector(), before)
    large.take(torch.full((D,), 1e30))
    assert large.one_pass.along_mean(gradients(2), 5.0) is None


def test_a_step_of_chunks_from_the_user_s_parameters_has_the_same_bits():
    for n in (1, 2, 3, 4, 6):
        one, user, _ = started({})
        other = model_of({})
        with torch.no_grad():
            user.parameters[0][3, 4] = 7.0  # a weight that the user has loaded
        other.take(user.values())
        vectors = gradients(n)
        values, write = one.one_pass.begin()
        largest = max(write([vector[start:stop] for vector in vectors], start, stop)[0]
                      for start, stop in ((0, 256), (256, 700), (700, D)))  # fmt: skip
        one.one_pass.end(largest)
        expected = other.descend(sum(vectors[1:], vectors[0] + 0.0) / n)
        assert torch.equal(values, expected), n
        assert largest == float(expected.abs().max())


def test_a_chunk_looks_at_the_parameters_that_it_has_elements_of_and_at_no_others():
    shapes = [(), (0,), (3,), (0,), *((2, 5),) * 300, (0,)]
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    inner = torch.optim.SGD([{"params": parameters[:7], "lr": 0.1}, {"params": parameters[7:], "lr": 0.03}])
    flat = FlatParameters(inner)
    learning_rates, active = LearningRates(inner, GlobalReplica(), "kept"), ActiveParameters(flat.sizes)
    active.select([True] * len(shapes))
    model = ServerModel(inner, active, learning_rates, None, lends=True)
    (out, write), gradient = model.one_pass.begin(), torch.randn(flat.d)
    expected = torch.cat([(each - lr * gradient[at]).flatten() for each, lr, at in by_parameter(parameters)]).detach()
    n_calls = []
    for start, stop in ((0, 1), (1, 9), (9, 9 + 2000), (2009, flat.d)):
        events = []
        sys.setprofile(lambda frame, event, argument, events=events: events.append(event))
        write([gradient[start:stop]], start, stop)
        sys.setprofile(None)
        n_calls += [len(events)]
    torch.testing.assert_close(out, expected)
    assert n_calls[1] < n_calls[2] / 3


def by_parameter(parameters):
    """Each parameter, its learning rate, and where its elements are in the vector, in its shape."""
    at = 0
    for number, parameter in enumerate(parameters):
        yield parameter, 0.1 if number < 7 else 0.03, torch.arange(at, at + parameter.numel()).view(parameter.shape)
        at += parameter.numel()


def test_a_step_that_does_not_end_leaves_the_model_as_the_user_s_parameters_are():
    model, user, _ = started({})
    before = user.values()
    for use in (
        lambda: model.saved()["values"],
        lambda: model.one_pass.take_back(),
        lambda: model.descend(torch.full((D,), math.nan)),
        lambda: model.one_pass.along_mean(gradients(2), 1e30),
        lambda: model.one_pass.begin(),
    ):
        values, write = model.one_pass.begin()
        write([vector[:500] for vector in gradients(2)], 0, 500)
        assert not torch.equal(values, before)
        use()
        assert torch.equal(values, before)
    values, write = model.one_pass.begin()
    largest = write([torch.full((D,), math.inf)], 0, D)[0]
    with pytest.raises(NonFiniteError):
        model.one_pass.end(largest)
    model.one_pass.take_back()
    assert torch.equal(values, before)


def test_no_step_begins_where_the_model_may_be_other_than_the_user_s_parameters_or_steps_otherwise():
    model, _, held = started({})
    held.forget()
    assert model.one_pass.begin() is None
    held.end_step()
    assert model.one_pass.begin() is not None
    other = started({"momentum": 0.9})  # all of it lives as long as the optimizer that holds it
    assert other[0].one_pass.begin() is None
    assert model_of({"momentum": 0.9}).one_pass.begin() is None


def test_a_step_of_chunks_of_a_model_that_no_user_has_goes_to_another_vector_and_back():
    one, other = model_of({}), model_of({})
    seen = set()
    for n in (1, 2, 1, 3):
        vectors = gradients(n)
        before = one.own_vector()
        values, write = one.one_pass.begin()
        largest = max(write([vector[start:stop] for vector in vectors], start, stop)[0]
                      for start, stop in ((0, 700), (700, D)))  # fmt: skip
        assert one.own_vector() is before, "the model is what it was until the step ends"
        assert torch.equal(one.flat.values(), other.flat.values())
        one.one_pass.end(largest)
        assert one.own_vector() is values
        assert torch.equal(other.descend(sum(vectors[1:], vectors[0] + 0.0) / n), one.flat.values())
        seen.add(values.data_ptr())
    assert len(seen) == 2
    assert torch.equal(one.descend(vectors[0]), other.descend(vectors[0]))


def test_a_step_to_another_vector_is_begun_until_anything_that_it_depends_on_changes():
    model = model_of({})
    before = model.own_vector().clone()

    def lower_lr():
        model.user.param_groups[0]["lr"] = 0.05

    for change in (
        lambda: model.one_pass.take_back(), lambda: model.saved(), lambda: model.take(before), lower_lr,
        lambda: model.descend(torch.full((D,), math.nan)),
    ):  # fmt: skip
        _, write = model.one_pass.begin()
        write([torch.ones(D)], 0, D)
        assert model.one_pass.is_begun()
        change()
        assert not model.one_pass.is_begun()
        assert torch.equal(model.own_vector(), before)
    _, write = model.one_pass.begin()
    with pytest.raises(NonFiniteError):
        model.one_pass.end(write([torch.full((D,), math.inf)], 0, D)[0])
    assert torch.equal(model.own_vector(), before)
