"""Steps of plain SGD that a server takes while long frames land, or in one pass over them, and changes that are read
without a step: the bits of the mean and a step, of aborted rounds, of loaded weights and of saved state."""

import pytest
import torch

import laconic
from laconic.algorithms.asgd import ASGD
from laconic.algorithms.dsgd import DSGD
from laconic.algorithms.sgd_server import GlobalReplica
from laconic.wire import LONG_BYTES
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

D, ROUNDS, NON_FINITE, LOADED = 300_001, 4, 1, 2
CASES = {
    3: [(GlobalReplica(), "rank0"), (GlobalReplica(), "dedicated"), (DSGD(), "auto")],
    2: [(ASGD(), "dedicated"), (ASGD(lr_scaling="inverse"), "dedicated")],  # whose steps depend on who comes earlier
}


def gradient(rank, round_, non_finite):
    made = torch.randn(D, generator=torch.Generator().manual_seed(10 * rank + round_))
    if (rank, round_) == (non_finite, NON_FINITE):
        made[-1] = torch.nan
    return made


def optimizer_of(parameters):
    sizes = [{"params": parameters[:1], "lr": 0.1}, {"params": parameters[1:], "lr": 0.03}]
    return torch.optim.SGD(sizes, lr=0.1)


def parameters_of():
    return [torch.nn.Parameter(torch.zeros(D - 50_000)), torch.nn.Parameter(torch.zeros(50_000))]


def train(rank, n, *, in_one_pass):
    """What each case ends with, the server's model after the aborted round, and how often it stepped in one pass."""
    ended = []
    for algorithm, layout in CASES[n]:
        parameters = parameters_of()
        opt = laconic.DistributedOptimizer(
            optimizer_of(parameters), algorithm, layout=layout, seed=5, timeout_s=PATIENCE_S, check_every=0
        )
        taken = []
        if opt.server_model is not None and opt.driver.servers:
            count_steps(opt.server_model.one_pass, taken)
            if not in_one_pass:
                opt.server_model.step_for(opt.driver.servers)
                opt.driver.servers[0].steps = None
        opt.training.local.owns_model = in_one_pass
        between = []
        for round_ in range(ROUNDS):
            parts = [None, None] if opt.serves_only else gradient(rank, round_, n - 2).split([D - 50_000, 50_000])
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.grad = part
            if round_ == LOADED and rank == 0 and not algorithm.is_asynchronous:
                with torch.no_grad():
                    parameters[0][7] = 3.0
            opt.step()
            if round_ == NON_FINITE and opt.server_model is not None and opt.driver.servers:
                between = [opt.server_model.saved()["values"]]
        values = torch.cat([parameter.detach() for parameter in parameters])
        ended.append((values, *between, torch.tensor(opt.driver.aborted_rounds), torch.tensor(len(taken))))
    return ended


def count_steps(steps, taken):
    """Note the steps that are taken in one pass."""
    end, along_mean = steps.end, steps.along_mean

    def ended(largest):
        end(largest)
        taken.append("while landing")

    def stepped(vectors, largest):
        made = along_mean(vectors, largest)
        taken.extend([] if made is None else ["at once"])
        return made

    steps.end, steps.along_mean = ended, stepped


def train_twice(rank, n):
    return train(rank, n, in_one_pass=True), train(rank, n, in_one_pass=False)


@pytest.mark.slow
def test_steps_in_one_pass_have_the_bits_of_others_in_aborted_rounds_and_with_loaded_weights_too():
    assert 4 * D >= LONG_BYTES
    for n, cases in CASES.items():
        for rank, (ours, others) in enumerate(run_ranks(train_twice, n, n)):
            for (algorithm, layout), one, other in zip(cases, ours, others, strict=True):
                where = f"{algorithm.name}, {layout}, rank {rank} of {n}"
                assert all(map(torch.equal, one[:-1], other[:-1])), where
                assert torch.isfinite(one[0]).all(), where
                serves = algorithm.name != "dsgd" and rank == (0 if layout == "rank0" else n - 1)
                assert bool(one[-1]) == serves, where
                assert not other[-1], where
