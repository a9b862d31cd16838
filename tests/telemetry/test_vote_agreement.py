"""How far votes agree: the definition, the same over processes as simulated, and counted only when asked for."""

from dataclasses import replace

import pytest
import torch

import laconic
from laconic.compressors import signs
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.kernels.api import top_k
from laconic.lab.runs.run import run_as_rank, run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.policies.skip_policies import Never
from laconic.protocol.round_inputs import Inputs
from support.inputs import over_inputs
from support.ranks import run_ranks

D, N, K = 60, 3, 15
SETTINGS = {
    "signsgd-mv": {}, "dropsign": {"keep": 0.4}, "compskip": {"keep": 0.4, "skip": Never()},
    "ssgd-mv": {"density": K / D},
    "ssgd-mv-rs": {"density": K / D}, "ssgd-mv-ad": {"density": K / D, "swap_density": 0.05},
}  # fmt: skip


def driver_of(name, **options):
    return Simulated(
        laconic.ALGORITHMS[name](**SETTINGS[name]), spec=ModelSpec.of_sizes(D), n_workers=N, seed=2,
        **{"layout": "rank0", **options},
    )  # fmt: skip


def vectors(seed):
    """One for each worker; they have something in common."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(D, generator=generator)
    return [common + torch.randn(D, generator=generator) for _ in range(N)]


def play(driver, rounds=3):
    for round_ in range(rounds):
        given = vectors(round_)
        driver.round(
            lambda rank: Inputs(vector=given[rank].clone(), parameters=torch.zeros(D)), 0.1  # noqa: B023
        )  # fmt: skip


def observed(driver, rounds=3, **observing):
    """The share of each round and the votes that were cast in it, as the definition has it; None where none was."""
    stats = []
    driver.recorder.observe(stats.append, vote_agreement=True, **observing)
    play(driver, rounds)
    return [each.votes for each in stats]


@over_inputs("name", ["signsgd-mv", "dropsign", "compskip"])
def test_signs_agree_as_far_as_opposite_ones_do_not_cancel(name):
    driver, keep = driver_of(name), SETTINGS[name].get("keep", 1.0)
    votes = observed(driver, 1)[0]
    sent = torch.stack([
        signs(vector, keep=keep, key=worker.me.key("mask")).dense()
        for vector, worker in zip(vectors(0), driver.workers, strict=True)
        if not worker.meter.counts["up"].skips
    ])  # fmt: skip
    several = sent[:, sent.count_nonzero(0) > 1]  # a single vote says nothing of agreement
    assert votes.possible == several.count_nonzero() > 0
    assert votes.alike == several.sum(0).abs().sum()
    assert 0 < votes.agreement < 1


def test_a_single_packet_of_signs_is_no_vote():
    driver = Simulated(laconic.SignSGDMajorityVote(), spec=ModelSpec.of_sizes(D), n_workers=1)
    assert observed(driver) == [None] * 3


@over_inputs("name", ["ssgd-mv", "ssgd-mv-rs", "ssgd-mv-ad"])
def test_votes_for_positions_agree_as_far_as_workers_vote_for_the_same(name):
    votes = observed(driver_of(name), 1)[0]
    lists = [set(top_k(vector, K).tolist()) for vector in vectors(0)]
    voted = set.union(*lists)
    shares = [sum(position in listed for listed in lists) / N for position in voted]
    assert 1 / N < votes.agreement < 1
    assert votes.agreement == pytest.approx(sum(shares) / len(voted))


def test_votes_by_changes_to_a_list_are_those_of_the_list():
    driver = driver_of("ssgd-mv-ad")
    votes = observed(driver, 4)[-1]
    lists = [set(driver.servers[0].view.memory[f"votes.{rank}"].tolist()) for rank in range(N)]
    assert votes.possible == N * len(set.union(*lists))
    assert votes.alike == N * K


def test_equal_votes_agree_fully_and_a_dense_round_has_none():
    driver = Simulated(
        laconic.SSGDMV(density=K / D, dense_rounds=1), spec=ModelSpec.of_sizes(D), n_workers=N, layout="rank0"
    )
    stats = []
    driver.recorder.observe(stats.append, vote_agreement=True)
    for _ in range(2):
        driver.round(lambda rank: Inputs(vector=vectors(0)[0], parameters=torch.zeros(D)), 0.1)
    assert stats[0].votes is None
    assert "round/vote_agreement" not in stats[0].values()
    assert stats[1].values()["round/vote_agreement"] == 1.0


@over_inputs(("name", "options"), [
    ("signsgd-mv", {"layout": "sharded"}), ("signsgd-mv", {"layout": "sharded", "frames": "encoded"}),
    ("signsgd-mv", {"layout": "allgather"}), ("dropsign", {"layout": "sharded", "frames": "encoded"}),
    ("ssgd-mv", {"layout": "allgather"}),
])  # fmt: skip
def test_no_layout_changes_what_is_counted(name, options):
    assert observed(driver_of(name, **options)) == observed(driver_of(name))


def test_votes_are_counted_only_where_and_when_it_is_asked_for():
    driver = driver_of("signsgd-mv")
    stats = []
    driver.recorder.observe(stats.append)
    play(driver)
    assert [each.votes for each in stats] == [None] * 3
    assert driver.servers[0].vote_counter is None
    assert [votes is not None for votes in observed(driver_of("signsgd-mv"), 5, every=2)] == [True, False] * 2 + [True]
    assert observed(driver_of("dropsign"), every=1) == observed(driver_of("dropsign"))


def test_an_aborted_round_has_no_votes():
    driver, stats = driver_of("signsgd-mv"), []
    driver.recorder.observe(stats.append, vote_agreement=True)
    for factor in (1.0, torch.inf, 1.0):
        driver.round(lambda rank: Inputs(vector=vectors(0)[rank] * factor, parameters=torch.zeros(D)), 0.1)  # noqa: B023
    assert [each.votes is None for each in stats] == [False, True, False]
    assert stats[0].votes.possible == stats[2].votes.possible == N * D


@over_inputs("name", SETTINGS)
def test_counting_changes_no_bit(name):
    ends = []
    for asked in (False, True):
        driver = driver_of(name)
        driver.recorder.observe(lambda stats: None, vote_agreement=asked)
        play(driver)
        given = vectors(9)
        ends.append(driver.round(lambda rank: Inputs(vector=given[rank], parameters=torch.zeros(D)), 0.1).of(0))  # noqa: B023
    dense = [end if isinstance(end, torch.Tensor) else end.dense() for end in ends]
    assert torch.equal(*dense)


RUN = RunSettings(algorithm="signsgd-mv", model="linear", epochs=1, batch_size=100, workers=3, lr=0.01)
RUNS = [
    replace(RUN, layout="sharded"), replace(RUN, layout="allgather"),
    replace(RUN, algorithm="ssgd-mv", layout="dedicated", workers=2),
]  # fmt: skip


def votes_of(run, settings):
    """The two columns of `rounds.csv`, by round."""
    rounds = []
    run(settings, lambda progress: rounds.extend(progress.rounds))
    return [(row.round, row.vote_agreement, row.votes) for row in rounds]


def votes_over_processes(rank):
    return [votes_of(run_as_rank, replace(settings, driver="processes")) for settings in RUNS]


@pytest.mark.slow
def test_processes_write_the_votes_of_the_simulator():
    for_all_ranks = run_ranks(votes_over_processes, 3)
    for settings, found in zip(RUNS, for_all_ranks[0], strict=True):
        expected = votes_of(run_simulated, settings)
        assert len(expected) > 2
        assert all(agreement is not None for _, agreement, _ in expected), settings
        assert found == expected, settings
