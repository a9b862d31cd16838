"""Skipping: how often, its cost, what a skipping worker receives, residuals, and the policy for slow links."""

from itertools import pairwise

import pytest
import torch

from laconic.algorithms.compskip import CompSkip
from laconic.algorithms.dist_ef import DistEFBlockwise
from laconic.algorithms.dropsign import DropSign
from laconic.algorithms.ec_sgd import ECSGD
from laconic.contract import Inbox, ModelSpec
from laconic.network import Link, Network
from laconic.policies.skip_policies import Never, RandomSkips, SlowLink
from laconic.wire import HEADER_BYTES
from support.simulated_run import LossyRun, Run, assert_same, quadratic

pytestmark = pytest.mark.xdist_group(__name__)  # one process computes the run that these tests share

ONE = {"c": 1.0, "server_c": 1.0}
N, D, ROUNDS = 4, 40, 300


def counts_of(run):
    """What each worker's meter has counted so far: [(upload, download)]."""
    return [(worker.meter.counts["up"], worker.meter.counts["down"]) for worker in run.sim.workers]


@pytest.fixture(scope="module", params=["rank0", "dedicated"])
def history(request):
    """A run with the default skip policies, and for each round (state, counts, applied, every worker's result)."""
    run = Run(CompSkip(**ONE), quadratic(d=D, n_workers=N), lr=0.02, layout=request.param)
    rounds = [(run.x, counts_of(run), None, None)]
    for _ in range(ROUNDS):
        applied = run.step()
        rounds.append((run.x, counts_of(run), applied, [worker.result.clone() for worker in run.sim.workers]))
    return run, rounds


def worker_skips(before, after, rank):
    return after[rank][0].skips > before[rank][0].skips


def server_skips(before, after):
    return after[0][1].skips > before[0][1].skips


def share_within_4_sigma(count, p, tries):
    assert count / tries == pytest.approx(p, abs=4 * (p * (1 - p) / tries) ** 0.5)


def test_workers_and_server_skip_as_often_as_their_probabilities_say(history):
    counts = counts_of(history[0])
    share_within_4_sigma(sum(up.skips for up, _ in counts), 0.3, N * ROUNDS)
    share_within_4_sigma(counts[0][1].skips, 0.1, ROUNDS)
    assert len({up.skips for up, _ in counts}) > 1  # each worker draws for itself
    assert len({down.skips for _, down in counts}) == 1  # the server draws once for all workers


def test_a_skipping_worker_still_receives_and_applies_the_answer(history):
    _, rounds = history
    delivered = 0
    for (_, before, _, _), (_, after, applied, results) in pairwise(rounds):
        for rank in range(N):
            assert after[rank][1].messages == before[rank][1].messages + 1
            if worker_skips(before, after, rank) and not server_skips(before, after):
                assert torch.equal(results[rank], applied)
                delivered += bool(applied.any())
    assert delivered > 0.8 * 0.3 * 0.9 * N * ROUNDS


def test_a_server_skip_moves_no_worker(history):
    _, rounds = history
    skipped = 0
    for (x, before, _, _), (x_after, after, applied, _) in pairwise(rounds):
        if server_skips(before, after):
            assert not applied.any()
            assert torch.equal(x_after, x)
            skipped += 1
    assert skipped > 0


def test_a_skip_is_one_bit_of_payload_nothing_in_the_paper_and_one_header_on_the_wire(history):
    _, rounds = history
    seen = {"up": 0, "down": 0}
    for (_, before, _, _), (_, after, _, _) in pairwise(rounds):
        for rank in range(N):
            for which, direction in enumerate(("up", "down")):
                old, new = before[rank][which], after[rank][which]
                n_bytes = new.wire_bytes + new.local_bytes - old.wire_bytes - old.local_bytes
                if new.skips > old.skips:
                    seen[direction] += 1
                    assert new.payload_bits - old.payload_bits == 1
                    assert new.paper_bits == old.paper_bits
                    assert n_bytes == HEADER_BYTES
                else:
                    assert new.payload_bits - old.payload_bits > 1
                    assert n_bytes > HEADER_BYTES
    assert min(seen.values()) > 0


def test_the_papers_bits_are_021_d_up_and_045_d_down(history):
    assert CompSkip().paper_bits(ModelSpec.of_sizes(25_557_032)) == (
        pytest.approx(5_366_977, abs=1),
        pytest.approx(0.45 * 25_557_032),
    )
    counts = counts_of(history[0])
    for which, (keep, p, tries) in enumerate([(0.3, 0.3, N * ROUNDS), (0.5, 0.1, ROUNDS)]):
        measured = sum(count[which].paper_bits for count in counts) / (N * ROUNDS * D)
        assert measured == pytest.approx((1 - p) * keep, abs=4 * keep * (p * (1 - p) / tries) ** 0.5)


@pytest.mark.slow
def test_when_no_worker_sends_the_servers_residual_only_decays():
    algorithm = CompSkip(**ONE, skip=Never(), server_skip=Never(), decay=0.9)
    run = Run(algorithm, quadratic(d=D), lr=0.02)
    run.path(5)
    server = run.sim.servers[0].view
    residual = server.memory["residual"].clone()
    answer = algorithm.serve(server, Inbox({}, n_workers=N, empty=lambda: torch.zeros_like(residual)))
    assert residual.any()
    assert_same(server.memory["residual"], 0.9 * residual - answer.dense())
    selected = answer.mask & (residual != 0)
    assert torch.equal(
        answer.dense()[selected], residual.sign()[selected]
    )  # the sent signs are those of the residual alone


def test_when_no_worker_sends_and_the_server_skips_too_the_model_stays_and_its_residual_decays_by_09():
    algorithm = CompSkip(**ONE, skip=RandomSkips(probability=0.8), server_skip=RandomSkips(probability=0.5))
    run = Run(algorithm, quadratic(d=D, n_workers=2), lr=0.02)
    silent = 0
    for _ in range(40):
        before, now = counts_of(run), run.state()
        run.step()
        after, then = counts_of(run), run.state()
        if all(worker_skips(before, after, rank) for rank in range(2)) and server_skips(before, after):
            assert torch.equal(then.server_residual, 0.9 * now.server_residual)
            assert torch.equal(then.x, now.x)
            silent += bool(now.server_residual.any())
    assert silent > 0


# The policy for slow links.

SLOW, FAST = Link(bytes_per_s=1e3), Link(bytes_per_s=1e6)  # 800 parameters x 0.3 are 30 bytes: 30 ms and 30 us


def skips_by_round(run, rounds, direction="up"):
    """For each worker, whether it skipped (or received a skip) in each of the next rounds."""
    seen = [[] for _ in run.sim.workers]
    for _ in range(rounds):
        before = [worker.meter.counts[direction].skips for worker in run.sim.workers]
        run.step()
        for rank, worker in enumerate(run.sim.workers):
            seen[rank].append(worker.meter.counts[direction].skips > before[rank])
    return seen


def watching(policy, **setup):
    algorithm = CompSkip(**ONE, skip=policy, server_skip=Never())
    return Run(algorithm, quadratic(d=800, n_workers=2), lr=0.02, layout="dedicated", **setup)


@pytest.mark.parametrize("maximum", [1, 3])
def test_only_the_worker_with_the_slow_link_skips_and_sends_after_the_maximum_in_a_row(maximum):
    run = watching(SlowLink(deadline_s=0.02, max_in_a_row=maximum), link=FAST, links={1: SLOW})
    fast, slow = skips_by_round(run, 12)
    assert not any(fast)
    assert slow == ([False] + [True] * maximum) * (12 // (maximum + 1))  # the first round has no measurement yet


def test_a_link_that_is_fast_enough_is_never_skipped():
    run = watching(SlowLink(deadline_s=0.04), link=SLOW)
    assert not any(map(any, skips_by_round(run, 6)))


def test_a_link_that_takes_no_time_is_never_skipped():
    run = watching(SlowLink(deadline_s=1e-9))
    assert not any(map(any, skips_by_round(run, 6)))


def test_only_a_forced_send_measures_anew_so_a_link_that_recovers_is_noticed():
    run = watching(SlowLink(deadline_s=0.02, max_in_a_row=3), link=FAST, links={1: SLOW})
    assert skips_by_round(run, 2)[1] == [False, True]
    run.sim.network = Network(3, FAST, run.sim.clock)
    assert skips_by_round(run, 5)[1] == [True, True, False, False, False]  # a skip measures nothing
    run.sim.network = Network(3, FAST, run.sim.clock, {1: SLOW})
    assert skips_by_round(run, 4)[1] == [False, True, True, True]


def test_workers_that_send_to_each_other_measure_the_link_between_them():
    algorithm = CompSkip(**ONE, skip=SlowLink(deadline_s=0.02, max_in_a_row=2), server_skip=Never())
    run = Run(algorithm, quadratic(d=800, n_workers=2), layout="allgather", link=FAST, links={1: SLOW})
    assert skips_by_round(run, 6) == [[False, True, True] * 2] * 2


@pytest.mark.parametrize("slow", [0, 1, 2], ids=["first-worker", "last-worker", "server"])
def test_a_server_skips_when_the_slowest_link_to_a_worker_is_too_slow(slow):
    algorithm = CompSkip(**ONE, skip=Never(), server_skip=SlowLink(deadline_s=0.02, max_in_a_row=2))
    run = Run(algorithm, quadratic(d=800, n_workers=2), layout="dedicated", link=FAST, links={slow: SLOW})
    delivered = skips_by_round(run, 6, direction="down")
    assert delivered == [[False, True, True] * 2] * 2


def test_servers_that_would_decide_by_their_own_links_are_refused_as_shards():
    algorithm = CompSkip(**ONE, server_skip=SlowLink())
    with pytest.raises(ValueError, match="layout='sharded' does not go with compskip"):
        Run(algorithm, quadratic(), layout="sharded")


# What is not delivered becomes residual.


def corrected_with_momentum(now, then, algorithm, decay=1.0):
    return algorithm.momentum * then.momenta + now.gradients + decay * now.residuals


KEEPERS = {
    "compskip": (CompSkip(**ONE, skip=Never()), lambda now, then, a: corrected_with_momentum(now, then, a, a.decay)),
    "compskip, skipping": (
        CompSkip(**ONE, skip=RandomSkips(probability=0.9)),
        lambda now, then, a: corrected_with_momentum(now, then, a, a.decay),
    ),
    "dropsign": (DropSign(**ONE), corrected_with_momentum),
    "ec-sgd": (ECSGD(), lambda now, then, a: now.gradients + now.residuals),
    "dist-ef": (DistEFBlockwise(), corrected_with_momentum),
}


@pytest.mark.parametrize("name", KEEPERS)
def test_a_worker_whose_packet_was_not_delivered_keeps_its_full_corrected_gradient(name):
    algorithm, value_of = KEEPERS[name]
    run = LossyRun(algorithm, quadratic(n_workers=3), lambda t: {1} if t % 2 else set(), lr=0.02)
    for now, then in pairwise(run.states(6)):
        corrected_gradients = value_of(now, then, algorithm)
        assert corrected_gradients.any()
        if now.t % 2:
            assert_same(then.residuals[1], corrected_gradients[1])
        if now.t and name != "compskip, skipping":
            for delivered in {0, 1, 2} - run.lost(now.t):
                assert (then.residuals[delivered] - corrected_gradients[delivered]).abs().max() > 1e-2


@pytest.mark.parametrize("name", KEEPERS)
def test_a_worker_whose_packet_was_not_delivered_applies_the_answer_all_the_same(name):
    algorithm, _ = KEEPERS[name]
    run = LossyRun(algorithm, quadratic(n_workers=3), lambda t: {1}, lr=0.02)
    for _ in range(5):
        applied = run.step()
        assert all(torch.equal(worker.result, applied) for worker in run.sim.workers)
