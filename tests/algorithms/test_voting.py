"""Majority voting: which methods are equal, invariants of lists, and errors that name the sender."""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise, permutations

import pytest
import torch

import laconic
from laconic.algorithms.ssgd_mv import SSGDMV
from laconic.algorithms.ssgd_mv_ad import SSGDMVAD
from laconic.algorithms.ssgd_mv_rs import SSGDMVRS, exponentials
from laconic.algorithms.ssgd_topk import SSGDTopK
from laconic.buffer_pool import VectorPool
from laconic.contract import ModelSpec, Scratch, Server
from laconic.drivers.simulated.rounds import Simulated
from laconic.errors import ContractError
from laconic.protocol.round_inputs import Inputs
from laconic.wire import Positions, VoteChange
from support.inputs import failing_at, over_inputs
from support.memories import memory_of
from support.simulated_run import LossyRun, Problem, Run, linear, normal, quadratic, wavy

D, K = 37, 9  # number of parameters of `quadratic`, and how many are selected at density 0.25


def same_bits(one, other, rounds):
    """Whether two runs agree in every bit of the model and of the workers' residuals."""
    for a, b in zip(one.states(rounds), other.states(rounds), strict=True):
        assert torch.equal(a.x, b.x), a.t
        assert torch.equal(a.residuals, b.residuals), a.t
    assert one.state().residuals.any()


# Methods that contain each other.


@pytest.mark.parametrize("cls", [SSGDMV, SSGDMVAD, SSGDMVRS], ids=lambda cls: cls.name)
@over_inputs("bits", (32, 4))
def test_the_vote_of_a_single_worker_wins(cls, bits):
    """N = 1 is top-K, with add-drop too if the full list may change."""
    full = {"swap_density": 1.0} if cls is SSGDMVAD else {}
    voting, alone = cls(density=0.25, bits=bits, **full), SSGDTopK(density=0.25, bits=bits)
    runs = [Run(algorithm, quadratic(n_workers=1), lr=wavy) for algorithm in (voting, alone)]
    same_bits(*runs, rounds=15)


@pytest.mark.parametrize("ties", ["random", "index"])
@pytest.mark.parametrize("swap_density", [0.25, 1.0])
@over_inputs("bits", (32, 4))
def test_add_drop_that_may_change_the_full_list_is_majority_voting_bit_for_bit(swap_density, ties, bits):
    add_drop = SSGDMVAD(density=0.25, swap_density=swap_density, ties=ties, bits=bits)
    vote = SSGDMV(density=0.25, ties=ties, bits=bits)
    same_bits(*(Run(algorithm, quadratic(), lr=wavy) for algorithm in (add_drop, vote)), rounds=15)


def test_add_drop_that_may_change_less_is_another_method():
    few, vote = SSGDMVAD(density=0.25, swap_density=0.05), SSGDMV(density=0.25)
    assert not torch.equal(Run(few, quadratic(), lr=wavy).path(5), Run(vote, quadratic(), lr=wavy).path(5))


def test_random_selection_from_a_unanimous_vote_is_the_vote():
    base = quadratic(n_workers=1)
    agreed = replace(base, n_workers=4, gradient=lambda rank, t, x: base.gradient(0, t, x))
    for bits in (32, 4):
        with failing_at(bits=bits):
            runs = [Run(cls(density=0.25, bits=bits), agreed, lr=wavy) for cls in (SSGDMVRS, SSGDMV)]
            same_bits(*runs, rounds=15)


def test_random_selection_from_a_divided_vote_is_not():
    runs = [Run(cls(density=0.25), quadratic(), lr=wavy) for cls in (SSGDMVRS, SSGDMV)]
    assert not torch.equal(runs[0].path(3), runs[1].path(3))


# The vote.


def server(round_=0, count=6, seed=0):
    spec, scratch = ModelSpec.of_sizes(count), Scratch(VectorPool(count, torch.float64))
    return Server(
        rank=0, n_workers=4, spec=spec, seed=seed, memory=memory_of(count), scratch=scratch, round=round_
    )  # fmt: skip


def mask_of(algorithm, here, counts):
    """The mask from lists in which coordinate i occurs counts[i] times."""
    counts = torch.as_tensor(counts)
    lists = [(counts > minimum).nonzero().flatten() for minimum in range(int(counts.max()))]
    return algorithm.mask(here, *algorithm.votes_for(here, lists))


def test_the_top_voted_coordinates_win_whatever_the_key():
    counts = torch.tensor([4.0, 0.0, 3.0, 0.0, 1.0, 4.0])
    for round_ in range(20):
        for cls in (SSGDMV, SSGDMVAD):
            assert mask_of(cls(k=3), server(round_), counts).tolist() == [0, 2, 5]


def test_ties_go_to_the_lowest_index_or_to_each_in_turn():
    counts = torch.tensor([1.0, 2.0, 1.0, 1.0, 0.0, 1.0])
    by_index = SSGDMV(k=3, ties="index")
    assert mask_of(by_index, server(), counts).tolist() == [0, 1, 2]
    seen = Counter(tuple(mask_of(SSGDMV(k=3), server(round_), counts).tolist()) for round_ in range(600))
    assert set(seen) == {tuple(sorted((1, a, b))) for a, b in permutations((0, 2, 3, 5), 2)}
    assert min(seen.values()) > 100 - 4.5 * (600 * 5 / 36) ** 0.5


@pytest.mark.parametrize("cls", [SSGDMV, SSGDMVRS], ids=lambda cls: cls.name)
def test_where_votes_were_lost_the_mask_is_filled_up_with_coordinates_without_votes(cls):
    counts = torch.tensor([0.0, 0.0, 2.0, 0.0, 1.0, 0.0])
    for round_ in range(20):
        mask = mask_of(cls(k=3), server(round_), counts)
        assert mask.unique().numel() == 3
        assert {2, 4} < set(mask.tolist())


def inclusion(counts, k):
    """Probability that each coordinate is one of k, sampled without replacement in proportion to their counts."""
    total, shares = sum(counts), [0.0] * len(counts)
    for order in permutations(range(len(counts)), k):
        chance, left = 1.0, total
        for sampled in order:
            chance *= counts[sampled] / left
            left -= counts[sampled]
        for sampled in order:
            shares[sampled] += chance
    return shares


@pytest.mark.slow
@pytest.mark.parametrize("draws", [3000, pytest.param(60_000, marks=pytest.mark.nightly)])
@pytest.mark.parametrize(("counts", "k"), [((4, 1, 2, 0, 3), 2), ((1, 1, 5, 2, 3, 4), 3)])
def test_random_selection_includes_each_coordinate_as_often_as_sampling_one_by_one_does(counts, k, draws):
    algorithm = SSGDMVRS(k=k)
    here = server(count=len(counts), seed=5)
    seen = torch.zeros(len(counts), dtype=torch.float64)
    for round_ in range(draws):
        here.round = round_
        seen[mask_of(algorithm, here, counts)] += 1
    assert int(seen.sum()) == draws * k
    for found, share in zip((seen / draws).tolist(), inclusion(counts, k), strict=True):
        assert found == pytest.approx(share, abs=4.5 * (share * (1 - share) / draws) ** 0.5 + 1e-12)


def test_the_clocks_of_random_selection_are_exponential():
    clocks = exponentials(torch.arange(200_000), key=7)
    assert float(clocks.min()) > 0
    standard_error = 200_000**-0.5
    assert float(clocks.mean()) == pytest.approx(1, abs=4.5 * standard_error)
    assert float((clocks > 1).double().mean()) == pytest.approx(0.36788, abs=4.5 * standard_error / 2)
    assert not torch.equal(exponentials(torch.arange(9), key=8), clocks[:9])


# Lists of add-drop.


def lists_of(run):
    """The workers' own lists and the server's copies of them."""
    memory = run.sim.servers[0].view.memory
    n = run.problem.n_workers
    own = [worker.me.memory["votes"] for worker in run.sim.workers]
    return own, [memory[f"votes.{rank}"] for rank in range(n)]


def assert_residuals_account_for_all(run):
    own, of_server = lists_of(run)
    for mine, other in zip(own, of_server, strict=True):
        assert torch.equal(mine, other)
        assert mine.numel() == K
        assert bool((mine.diff() > 0).all())
        assert 0 <= int(mine[0]) <= int(mine[-1]) < D


@pytest.mark.parametrize("layout", ["rank0", "dedicated", "allreduce"])
@over_inputs("swap_density", (0.0, 0.03, 0.06, 0.25))
def test_lists_are_k_ascending_coordinates_that_the_server_knows_in_every_round(layout, swap_density):
    algorithm = SSGDMVAD(density=0.25, swap_density=swap_density)
    run = Run(algorithm, quadratic(), lr=wavy, layout=layout)
    before = None
    for _ in range(15):
        run.step()
        assert_residuals_account_for_all(run)
        own = lists_of(run)[0]
        for old, new in zip(before or own, own, strict=True):
            assert K - torch.isin(new, old).sum() <= algorithm.swaps(D)
        before = own


def test_a_list_takes_in_the_largest_that_it_lacks_and_drops_its_smallest_that_are_none_of_the_best():
    """One worker, constant slopes: lists the top 3 of 6 at once; a new slope reverses the order."""
    slopes = torch.tensor([[6.0, 5, 4, 3, 2, 1], [1, 2, 30, 400, 500, 600]], dtype=torch.float64)
    problem = Problem(
        start=torch.zeros(6, dtype=torch.float64), n_workers=1, gradient=lambda rank, t, x: slopes[min(t, 1)], gap=float
    )
    run = Run(SSGDMVAD(k=3, swap_density=0.17), problem, lr=1.0)
    lists = []
    for _ in range(3):
        run.step()
        lists.append(lists_of(run)[0][0].tolist())
    assert lists == [[0, 1, 2], [1, 2, 5], [2, 4, 5]]


def test_without_swaps_the_initial_votes_count_for_ever_and_the_mask_is_frozen():
    run = Run(SSGDMVAD(density=0.25, swap_density=0.0, ties="index"), quadratic(), lr=wavy)
    masks = {tuple(run.step().nonzero().flatten().tolist()) for _ in range(20)}
    assert len(masks) == 1
    assert len(masks.pop()) == K
    frozen = torch.stack(lists_of(run)[1])
    run.path(5)
    assert torch.equal(torch.stack(lists_of(run)[1]), frozen)


@pytest.mark.parametrize("lost", [lambda t: {1} if t % 3 == 0 else set(), lambda t: {t % 4, (t + 1) % 4}])
def test_lists_at_both_ends_stay_equal_when_packets_get_lost(lost):
    run = LossyRun(SSGDMVAD(density=0.25, swap_density=0.06), quadratic(), lost, lr=wavy)
    run.path(3)
    for _ in range(20):
        run.step()
        assert_residuals_account_for_all(run)


# A round that is aborted in its second exchange.


@pytest.mark.parametrize("layout", ["rank0", "allreduce"])
@pytest.mark.parametrize("cls", [SSGDMV, SSGDMVAD, SSGDMVRS], ids=lambda cls: cls.name)
def test_inf_that_appears_only_in_the_values_leaves_no_trace_of_the_votes(cls, layout):
    """Both workers send the lowest finite float; the sum of two is not finite."""
    base = quadratic()

    def gradient(rank, t, x):
        if t == 1:
            return torch.full((D,), torch.finfo(torch.float64).max, dtype=torch.float64)
        return base.gradient(rank, t, x)

    run = Run(cls(density=0.25), replace(base, gradient=gradient, n_workers=2), lr=1.0, layout=layout)
    run.step()

    def snapshot():
        views = [worker.me.memory for worker in run.sim.workers] + [session.view.memory for session in run.sim.servers]
        return [memory.saved() for memory in views]

    before, x = snapshot(), run.x
    counts = [dict(worker.meter.by_exchange["up"]) for worker in run.sim.workers]
    outcome = run.sim.round(lambda rank: inputs_of(run, rank), lr=1.0)
    assert outcome.aborted
    assert run.sim.aborted_rounds == 1
    after = snapshot()
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)
    for worker, count in zip(run.sim.workers, counts, strict=True):
        now = worker.meter.by_exchange["up"]
        assert now["positions"].messages == count["positions"].messages + 1  # the votes were sent
        assert now["values"].messages == count["values"].messages  # a worker finds the inf before it sends them
    assert torch.equal(run.x, x)
    run.t = 2
    run.step()
    if cls is SSGDMVAD:
        assert_residuals_account_for_all(run)


def inputs_of(run, rank):
    return Inputs(vector=-run.problem.gradient(rank, 1, run.x), parameters=run.x.clone())


# Peers that send what does not fit.


@dataclass(frozen=True, kw_only=True)
class Fewer(SSGDMV):
    """Worker 1 votes for one coordinate fewer."""

    def corrected_and_largest(self, me):
        corrected, votes = super().corrected_and_largest(me)
        return corrected, votes[: -1 if me.rank == 1 else None]


@dataclass(frozen=True, kw_only=True)
class ValuesForVotes(SSGDMV):
    """Worker 2 sends values where votes are expected."""

    def work(self, me):
        if me.rank != 2:
            return (yield from super().work(me))
        yield self.quantized(me.change)
        raise AssertionError("not reached")


@dataclass(frozen=True, kw_only=True)
class ShortMask(SSGDMV):
    """The server answers with one coordinate fewer."""

    def mask(self, server, voted, votes):
        return super().mask(server, voted, votes)[1:]


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (Fewer(density=0.25), "worker 1 yielded positions .*, n_selected=8; .* accepts positions, n_selected=9"),
        (ValuesForVotes(density=0.25), "worker 2 yielded dense .* accepts positions, n_selected=9"),
        (ShortMask(density=0.25), "server 0 answered positions .*, n_selected=8; .* accepts positions, n_selected=9"),
    ],
    ids=["fewer", "values", "short-mask"],
)
def test_a_list_of_another_length_is_refused_with_sender_number_found_and_number_expected(algorithm, message):
    with pytest.raises(ContractError, match=message):
        Run(algorithm, quadratic(), lr=0.1).step()


@dataclass(frozen=True, kw_only=True)
class Tampered(SSGDMVAD):
    """From round 2 on, worker 3's change of its list is replaced by `forged`."""

    forged: object

    def work(self, me):
        step = super().work(me)
        packet = next(step)
        if me.rank == 3 and me.round == 2:
            packet = self.forged(packet, me)
        while True:
            reply = yield packet
            try:
                packet = step.send(reply)
            except StopIteration as end:
                return end.value


def longer(packet, me):
    return replace(packet, listed=packet.listed + 1)


def already_in(packet, me):
    held = me.memory["votes"]
    return VoteChange(added=held[1:2], dropped=torch.tensor([0]), count=D, listed=K)


def wrong_kind(packet, me):
    return Positions(indices=torch.arange(K + 2), count=D)


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        (longer, "worker 3 yielded vote change .*, listed=10; .* vote change, listed=9"),
        (already_in, "worker 3 adds coordinates that are in its list already"),
        (wrong_kind, "worker 3 yielded positions .*, n_selected=11; .* accepts positions, n_selected=9"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_a_change_that_does_not_fit_the_servers_list_is_refused_with_the_worker_named(forged, message):
    run = Run(Tampered(density=0.25, swap_density=0.1, forged=forged), quadratic(), lr=0.1)
    run.path(2)
    with pytest.raises(ContractError, match=message):
        run.step()


def test_a_change_before_any_list_is_refused():
    def at_once(packet, me):
        return VoteChange(added=torch.tensor([1]), dropped=torch.tensor([0]), count=D, listed=K)

    @dataclass(frozen=True, kw_only=True)
    class Initial(SSGDMVAD):
        def positions(self, indices, d):
            return at_once(None, None)

    with pytest.raises(ContractError, match="worker 0 sent a change of a list of 9; its list here has 0"):
        Run(Initial(density=0.25, swap_density=0.1), quadratic(), lr=0.1).step()


# What voting gives the model.


@pytest.mark.parametrize("cls", [SSGDMV, SSGDMVAD, SSGDMVRS], ids=lambda cls: cls.name)
def test_a_round_moves_k_coordinates_and_no_other(cls):
    run = Run(cls(density=0.25), linear(normal(D, key=6), n_workers=3), lr=0.1)
    points = [run.x, *run.path(10)]
    assert [int((after != before).sum()) for before, after in pairwise(points)] == [K] * 10


@pytest.mark.parametrize("name", ["ssgd-mv", "ssgd-mv-ad", "ssgd-mv-rs"])
def test_a_residual_that_overflows_where_no_other_worker_votes_aborts_the_round(name):
    """Worker 0's first parameter grows beyond the largest float32, but the winners of the vote stay finite."""
    full = {"swap_density": 1.0} if name == "ssgd-mv-ad" else {}
    algorithm = laconic.ALGORITHMS[name](k=1, ties="index", **full)
    driver = Simulated(algorithm, spec=ModelSpec.of_sizes(4), n_workers=3, layout="rank0")
    pushes = {0: [3e38, 1.0, 0.0, 0.0], 1: [0.0, 0.0, 0.0, 1.0], 2: [0.0, 0.0, 0.0, 1.0]}
    for _ in range(6):
        driver.round(lambda rank: Inputs(vector=torch.tensor(pushes[rank]), parameters=torch.zeros(4)), lr=0.1)
    assert driver.aborted_rounds > 0
    for worker in driver.workers:
        assert torch.isfinite(worker.me.memory["residual"]).all()
