"""Batch-norm statistics and other buffers: local, averaged, or rank 0's, at intervals and on request."""

import logging
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import laconic
from laconic.training.simulated_workers import mean_buffer
from support import optimizers, small_model
from support.ranks import run_ranks

pytestmark = [pytest.mark.xdist_group(__name__)]

N = 3


class Normed(nn.Module):
    """The small model behind a batch norm, with buffers of every kind; `odd` changes with each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.core = nn.BatchNorm1d(6), small_model.net()
        self.register_buffer("short", torch.zeros(3, dtype=torch.float16))
        self.register_buffer("brain", torch.zeros(2, dtype=torch.bfloat16), persistent=False)
        self.register_buffer("exact", torch.zeros((), dtype=torch.float64))
        self.register_buffer("paired", torch.zeros(2, 2, dtype=torch.complex64))
        self.register_buffer("seen", torch.zeros(4, dtype=torch.bool))
        self.register_buffer("constant", torch.ones(1000))

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs + dist.get_rank()
        with torch.no_grad():
            for buffer in (self.short, self.brain, self.exact, self.paired):
                buffer.add_(inputs.mean().to(buffer.real.dtype))
            self.seen[dist.get_rank()] = True
        return self.core(self.norm(inputs))


def buffers_of(net: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in net.named_buffers()}


def train(rank: int, how: str | None, every: int, rounds: int, name: str = "sgd", layout: str = "rank0"):
    """The buffers after training, those after `share_buffers`, and the control bytes that this took."""
    net = Normed()
    opt = optimizers.wrapped(net, name, layout, buffers=how, buffers_every=every)
    for round_ in range(rounds):
        optimizers.one_step(opt, net, rank, round_)
    before, sent = buffers_of(net), opt.traffic.control_bytes
    opt.share_buffers()
    return before, buffers_of(net), opt.traffic.control_bytes - sent


def train_in_all_cases(rank: int) -> dict[str, object]:
    found: dict[str, object] = {how: train(rank, how, 0, 3) for how in ("local", "average", "rank0")}
    found["default"] = train(rank, None, 2, 4)
    found["dedicated"] = train(rank, "average", 3, 3, layout="dedicated")
    net = Normed()
    opt = optimizers.wrapped(net, "sgd", "rank0", buffers="average")
    optimizers.one_step(opt, net, rank, 0)
    if rank == 1:
        net.norm.running_mean[0] = torch.nan
        net.short = torch.zeros(5)  # another shape than at the start
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opt.share_buffers()
    found["warned"] = [str(warning.message) for warning in caught]
    found["bad"] = buffers_of(net)
    return found


@pytest.fixture(scope="module")
def found():
    return run_ranks(train_in_all_cases, N)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["local", "average", "rank0"])
def test_shared_buffers_are_equal_on_all_ranks_and_local_until_then(how, found):
    ended = [of_rank[how] for of_rank in found]
    before, after = [buffers for buffers, _, _ in ended], [buffers for _, buffers, _ in ended]
    assert not equal(before[0], before[1])
    for rank in range(1, N):
        assert equal(after[0], after[rank]), rank
    for name, buffer in after[0].items():
        if how != "average":
            expected = before[0][name]
        elif buffer.is_complex():
            expected = torch.stack([of_rank[name] for of_rank in before]).mean(0)
        else:
            expected = mean_buffer([of_rank[name] for of_rank in before])
        assert torch.allclose(buffer, expected, rtol=2e-3 if buffer.element_size() == 2 else 1e-6), name


@pytest.mark.slow
def test_buffers_that_did_not_change_do_not_travel_and_the_others_are_counted(found):
    constant = 4 * 1000
    for of_rank in found:
        _, _, n_bytes = of_rank["average"]
        assert 0 < n_bytes < constant
    assert found[0]["rank0"][2] > found[1]["rank0"][2]  # rank 0 alone sends them


@pytest.mark.slow
def test_by_default_all_ranks_have_rank_0s_buffers_at_intervals_as_with_ddp(found):
    (own, _, _), (taken, _, _) = found[0]["default"], found[1]["default"]
    assert equal(own, taken)
    assert int(taken["norm.num_batches_tracked"]) == 4
    assert taken["seen"].tolist() == [True, False, False, False]


@pytest.mark.slow
def test_a_dedicated_server_has_no_say_in_the_mean_and_gets_it(found):
    one, other, server = (of_rank["dedicated"][0] for of_rank in found)
    assert equal(one, other)
    assert equal(one, server)
    assert float(one["exact"]) != 0


@pytest.mark.slow
def test_a_buffer_that_is_not_finite_or_has_another_shape_on_some_rank_stays_each_ranks_own(found):
    buffers = [of_rank["bad"] for of_rank in found]
    assert not buffers[0]["norm.running_mean"].isnan().any()
    assert ["norm.running_mean" in str(of_rank["warned"]) for of_rank in found] == [True, False, True]
    assert not torch.equal(buffers[0]["norm.running_mean"], buffers[2]["norm.running_mean"])
    assert [len(of_rank["short"]) for of_rank in buffers] == [3, 5, 3]
    assert torch.equal(buffers[0]["norm.running_var"], buffers[2]["norm.running_var"])


def with_ddp(rank: int) -> list[Tensor]:
    """The statistics of batch norm on this rank after training with DDP, and with ours and its defaults."""
    found = []
    for ours in (True, False):
        net = nn.Sequential(nn.BatchNorm1d(6), small_model.net())
        trained = net if ours else nn.parallel.DistributedDataParallel(net)
        inner = torch.optim.SGD(net.parameters(), lr=0.1)
        opt = laconic.DistributedOptimizer(inner, laconic.SGD(), model=net) if ours else inner
        for round_ in range(5):
            opt.zero_grad()
            small_model.loss(trained, rank, round_).backward()
            opt.step()
        if ours:
            opt.share_buffers()
        trained.eval()(torch.zeros(2, 6))  # DDP shares its buffers here
        found.append(torch.cat([buffer.reshape(-1).double() for buffer in net.buffers()]))
    return found


@pytest.mark.slow
def test_shared_buffers_are_those_of_distributed_data_parallel_bit_for_bit():
    for ours, ddps in run_ranks(with_ddp, 2):
        assert torch.equal(ours, ddps)


def state_of_buffers(rank: int, how: str | None) -> list[str]:
    """What this rank states in three rounds."""
    stated: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: stated.append(record.getMessage())
    logging.getLogger("laconic").addHandler(handler)
    train(rank, how, 100, 3)
    return stated


@pytest.mark.slow
def test_rank_0_states_once_whose_statistics_ranks_evaluate_with():
    (stated, silent) = run_ranks(state_of_buffers, 2, None)
    assert len([text for text in stated if "share_buffers()" in text]) == 1
    assert not [text for text in silent if "share_buffers()" in text]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"buffers": "mean"}, "buffers='mean' must be one of local, average, rank0"),
        ({"buffers": "average", "model": None}, "pass model=model"),
        ({"buffers_every": -1}, "buffers_every=-1 must be at least 0"),
        ({"buffers_every": "100"}, "buffers_every='100' must be a whole number"),
    ],
)
def test_wrong_choices_of_buffers_are_refused(settings, why, group_of_one):
    net = small_model.net()
    settings = {"model": net} | settings
    with pytest.raises((TypeError, ValueError), match=why):
        laconic.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), laconic.SGD(), **settings)


def test_without_a_model_there_is_nothing_to_share(group_of_one):
    net = small_model.net()
    opt = laconic.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), laconic.SGD())
    with pytest.raises(ValueError, match="make the optimizer with model=model"):
        opt.share_buffers()
