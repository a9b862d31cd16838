"""The change of a step of plain SGD that is not taken: the bits of taking it, also slice by slice and in a packet."""

from zlib import crc32

import torch

from laconic.algorithms.dsgd import DSGD
from laconic.kernels.api import mixed_difference, ranges
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.local_steps import LocalSteps

SHAPES = [(20, 30), (), (0,), (700,)]
D = 1301


def model_of(**options):
    random = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]
    for parameter in parameters[:3]:
        parameter.grad = torch.randn(parameter.shape, generator=random)
    groups = [{"params": parameters[:2], "lr": 0.1}, {"params": parameters[2:], "lr": 0.03}]
    inner = torch.optim.SGD(groups, **{"lr": 0.1, **options})
    flat = FlatParameters(inner)
    return LocalSteps(DSGD(), 1, flat, LearningRates(inner, DSGD()), inner), flat, inner


def test_the_change_is_that_of_the_optimizer_s_step_which_is_not_taken():
    local, flat, inner = model_of()
    source, start = local.change_of_step(), flat.values()
    out = torch.full((D,), torch.nan)
    measured = source.updated_into(out)
    made = {}
    for what, plus in (("change", None), ("sum", start)):
        made[what] = torch.full((D,), torch.nan)
        assert all(source.into(made[what], at, min(at + 333, D), plus=plus) for at in range(0, D, 333))
        full = torch.full((D,), torch.nan)
        assert source.into(full, 0, D, plus=plus)
        assert torch.equal(full, made[what]), what
    published, expected, difference = start.flip(0), torch.empty(D), torch.empty(D)
    mixed_difference(out, published, [published, start], [0.5, 0.5], expected)
    made_of = source.difference_into(difference, published, [published, start], [0.5, 0.5])
    assert torch.equal(difference, expected)
    assert made_of == (measured[0], ranges(expected, [D]))
    assert torch.equal(flat.values(), start)
    inner.step()
    change = flat.values() - start
    assert torch.equal(made["change"], change)
    assert torch.equal(made["sum"], change + start)
    assert torch.equal(out, change + start)
    assert measured == (float(out.abs().max()), crc32(out.numpy().tobytes()))


def test_a_gradient_that_is_no_number_is_found_in_the_change():
    for value in (torch.inf, torch.nan):
        local, flat, _ = model_of()
        flat.parameters[0].grad[3, 4] = value
        assert not local.change_of_step().into(torch.empty(D), 0, D)
        assert not local.change_of_step().updated_into(torch.empty(D))[0] < torch.inf


def test_such_a_change_is_read_where_the_model_is_one_worker_s_and_a_step_is_that_of_plain_sgd():
    for options, owns_model, is_known in (
        ({}, True, True), ({}, False, False), ({"momentum": 0.9}, True, False), ({"weight_decay": 0.1}, True, False),
        ({"fused": True}, True, False),
    ):  # fmt: skip
        local, _, _ = model_of(**options)
        local.owns_model = owns_model
        assert local.is_known_in(0) == is_known, (options, owns_model)
