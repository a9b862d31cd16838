"""Steps of plain SGD along directions that are mostly zero: torch's bits, without a pass over all parameters."""

import pytest
import torch

import laconic
from laconic.training.flat_parameters import FlatParameters
from support import small_model
from support.ranks import run_ranks


class AnyOptimizer(torch.optim.SGD):
    """The same arithmetic, of which nothing is known."""


def _trained(rank, optimizer, method, options):
    net = small_model.net()
    inner = optimizer(net.parameters(), lr=0.1)
    calls = []
    FlatParameters.descend_at = _counted(FlatParameters.descend_at, calls)
    opt = laconic.DistributedOptimizer(inner, method, model=net, lr="kept", **options)
    decay = torch.optim.lr_scheduler.ExponentialLR(inner, 0.9)
    for step in range(12):

        def closure(step=step):
            opt.zero_grad()
            loss = small_model.loss(net, rank, step)
            loss.backward()
            return loss

        opt.step(closure)
        decay.step()
    gradients = torch.cat([parameter.grad.reshape(-1) for parameter in net.parameters()])
    return small_model.values(net).tolist(), gradients.tolist(), len(calls)


def _counted(function, calls):
    def counting(*arguments):
        calls.append(None)
        return function(*arguments)

    return counting


@pytest.mark.slow
def test_an_answer_of_few_elements_moves_the_parameters_to_the_bits_of_torchs_step_and_stays_in_grad():
    for method in (
        laconic.SparseSGD(density=0.3, answer="sparse"), laconic.SASG(density=0.3, answer="sparse", alpha=0.05),
        laconic.SparseSGD(k=1, blocks="vector"),  # a dense answer of few elements
    ):  # fmt: skip
        for options in ({}, {"clip_norm": 1.0}):
            sparse = run_ranks(_trained, 2, torch.optim.SGD, method, options)
            full = run_ranks(_trained, 2, AnyOptimizer, method, options)
            assert [ending[:2] for ending in sparse] == [ending[:2] for ending in full]
            assert [ending[2] for ending in (*sparse, *full)] == [0 if options else 12] * 2 + [0] * 2


def test_a_step_at_indices_has_the_bits_of_torchs_step():
    random = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        tensors = [torch.nn.Parameter(torch.randn(n, generator=random).to(dtype)) for n in (1, 70, 1000)]
        direction = torch.randn(1071, generator=random).to(dtype) * (torch.rand(1071, generator=random) < 0.2)
        inner = torch.optim.SGD(tensors, lr=0.0123)
        before = [tensor.detach().clone() for tensor in tensors]
        indices = direction.nonzero().flatten()
        FlatParameters(inner).descend_at(indices, direction[indices], 0.0123)
        found = [tensor.detach().clone() for tensor in tensors]
        for tensor, old, part in zip(tensors, before, direction.split([1, 70, 1000]), strict=True):
            tensor.data.copy_(old)
            tensor.grad = part
        inner.step()
        assert all(torch.equal(tensor, after) for tensor, after in zip(tensors, found, strict=True))
        assert not torch.equal(before[2], found[2])
