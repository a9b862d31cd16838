"""A slice's directions are written as soon as it has run: what is left after the backward pass is the last one's."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import laconic
import laconic.ddp
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

WIDTH, N_LAYERS = 40, 4


def train(rank: int, settings: dict[str, bool]) -> dict[str, object]:
    """Three steps, then one with inf on rank 1 in the parameters whose slice is the last one, then one more."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(N_LAYERS)))
    ddp = DistributedDataParallel(net, bucket_cap_mb=0.01, gradient_as_bucket_view=True, **settings)
    handle = laconic.ddp.attach(ddp, laconic.SignSGDMajorityVote(), timeout_s=PATIENCE_S)
    driver, at_the_end = handle._carrier.driver, []
    end_round = driver.end_round

    def look_and_end() -> list[object]:
        at_the_end.append([bool((value.grad.abs() == 1).all()) for value in net.parameters() if value.grad is not None])
        return end_round()

    driver.end_round = look_and_end
    opt = torch.optim.SGD(ddp.parameters(), lr=0.01)
    random = torch.Generator().manual_seed(rank)
    aborted = []
    for step in range(5):
        opt.zero_grad()
        loss = ddp(torch.randn(8, WIDTH, generator=random)).square().mean()
        if step == 3 and rank == 1:
            loss = loss + net[0].bias.sum() * torch.inf
        before = driver.sliced.memory["momentum"].clone()
        loss.backward()
        aborted.append(handle.aborted)
        if handle.aborted:
            assert all(bool(value.grad.isnan().all()) for value in net.parameters())
            assert torch.equal(driver.sliced.memory["momentum"], before)
        else:
            opt.step()
    made = torch.cat([value.detach().flatten() for value in net.parameters()])
    handle.detach()
    return {"slices": handle.n_slices, "at the end": at_the_end, "aborted": aborted, "parameters": made}


def test_directions_are_there_before_the_round_ends_and_a_round_that_aborts_leaves_nan_for_all():
    one, other = run_ranks(train, 2, {})
    for found in (one, other):
        assert found["slices"] == 2
        assert found["aborted"] == [False, False, False, True, False]
        assert [all(written) for written in found["at the end"]] == [True, True, True, False, True]
    assert torch.equal(one["parameters"], other["parameters"])


def test_where_parameters_may_be_unused_gradients_stay_until_the_round_ends_and_bits_are_the_same():
    one, other = run_ranks(train, 2, {"find_unused_parameters": True})
    assert not any(all(written) for written in one["at the end"])
    assert torch.equal(one["parameters"], other["parameters"])
    assert torch.equal(one["parameters"], run_ranks(train, 2, {})[0]["parameters"])
