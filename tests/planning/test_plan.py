"""What a plan says of networks whose times are known, and that it says what the simulator would."""

import json
import math
from dataclasses import replace

import pytest
import torch

from laconic import ALGORITHMS
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.network import Link, Sites
from laconic.planning.break_even import ladder, where_faster
from laconic.planning.candidate import Candidate, CodingSeconds
from laconic.planning.plan import Query, candidates_of, judge, layouts_of
from laconic.protocol.round_inputs import Inputs
from laconic.wire import HEADER_BYTES, Frame, Header, encode
from support.inputs import over_inputs

DENSE_FIELDS = 8  # first and count, beside the values


def query(n_workers=4, d=48_000, latency_s=0.0, bytes_per_s=1e6, **others):
    return Query(
        spec=ModelSpec.of_sizes(d),
        n_workers=n_workers,
        link=Link(bytes_per_s=bytes_per_s, latency_s=latency_s),
        **others,
    )


def planned(asked, *names, **settings):
    methods = {name: ALGORITHMS[name](**settings) for name in names}
    return list(candidates_of(methods, asked, measure=False))


def on(layout_name, candidates):
    (found,) = [candidate for candidate in candidates if candidate.layout.name == layout_name]
    return found


@over_inputs("n", (2, 4, 8, 16))
@over_inputs(("latency_s", "transfer_s"), ((1.5, 5), (1, 0.1), (0.1, 8)))
def test_sgd_takes_the_closed_forms_of_the_book_on_every_layout(n, latency_s, transfer_s):
    d = 48_000
    asked = query(n, d, latency_s, 4 * d / transfer_s)
    frame_s = transfer_s * (1 + (HEADER_BYTES + DENSE_FIELDS) / (4 * d))
    header_s = frame_s - transfer_s
    candidates = planned(asked, "sgd")
    expected = {
        "allreduce": 2 * (n - 1) * (latency_s + transfer_s / n),
        "rank0": 2 * (n - 1) * (latency_s + frame_s),  # the server's own packet crosses no link
        "dedicated": 2 * n * (latency_s + frame_s),
        "sharded": 2 * (n - 1) * (latency_s + transfer_s / n + header_s),
    }
    assert {candidate.layout.name for candidate in candidates} == set(expected)
    for layout_name, seconds in expected.items():
        assert on(layout_name, candidates).step_s(asked.link) == pytest.approx(seconds, rel=1e-4), layout_name


def test_gossip_on_a_ring_takes_two_messages_whatever_the_number_of_workers():
    for n in (3, 8):
        asked = query(n, latency_s=1.5, bytes_per_s=4 * 48_000 / 5)
        (candidate,) = planned(asked, "dsgd")
        assert candidate.step_s(asked.link) == pytest.approx(2 * (1.5 + 5), rel=1e-3)


def test_an_asynchronous_server_gives_the_periods_of_the_book():
    d, n = 48_000, 3
    asked = query(n, d, latency_s=1, bytes_per_s=4 * d / 2, compute_s=4.0)
    (candidate,) = planned(asked, "asgd")
    assert candidate.step_s(asked.link) == pytest.approx(max(4 + 2 * 3, n * 3), rel=1e-3)
    many = query(8, d, latency_s=1, bytes_per_s=4 * d / 2, compute_s=4.0)
    (candidate,) = planned(many, "asgd")
    assert candidate.step_s(many.link) == pytest.approx(8 * 3, rel=1e-3)  # the server's port is always busy


SYNCHRONOUS = sorted(name for name, cls in ALGORITHMS.items() if cls.mode != "arrivals")


def simulated_rounds(algorithm, layout_name, link, d, n, n_rounds, sites=None):
    """Seconds and bytes (up, down) of the rounds after the first, each as a mean over rounds and workers."""
    simulated = Simulated(
        algorithm,
        spec=ModelSpec.of_sizes(d),
        n_workers=n,
        layout=layout_name,
        link=link,
        sites=sites,
        descend=lambda direction, _=None: -0.1 * direction,
    )
    random = torch.Generator().manual_seed(0)
    vectors = [torch.randn(d, generator=random) for _ in range(n + 1)]

    def round_(number):
        def inputs_of(rank):
            place = (rank + number) % (n + 1)
            return Inputs(
                vector=vectors[place].clone(), parameters=vectors[-1],
                gradient_at=lambda parameters: vectors[place - 1],
            )  # fmt: skip

        simulated.round(inputs_of, 0.1)
        counts = [worker.meter.counts for worker in simulated.workers]
        sums = [sum(count[which].wire_bytes for count in counts) for which in ("up", "down")]
        return [simulated.clock.now_ns / 1e9, *sums]

    one = round_(0)
    last = [round_(number) for number in range(1, n_rounds + 1)][-1]
    seconds, up, down = (end - begin for begin, end in zip(one, last, strict=True))
    return seconds / n_rounds, up / n_rounds / n, down / n_rounds / n


@pytest.mark.slow
@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_without_computing_a_plan_is_what_the_simulator_says(name):
    algorithm = ALGORITHMS[name](**ALGORITHMS[name].test_settings)
    n, d, link = 4, 240, Link(bytes_per_s=1e5, latency_s=1e-3)
    asked = Query(spec=ModelSpec.of_sizes(d), n_workers=n, link=link)
    for candidate in candidates_of({name: algorithm}, asked, measure=False):
        layout_name = candidate.layout.name
        found = simulated_rounds(algorithm, layout_name, link, d, n, len(candidate.rounds))
        step_s, *crossed = candidate.step_s(link), candidate.up_bytes, candidate.down_bytes
        assert found[1:] == pytest.approx(tuple(crossed), rel=1e-6), layout_name
        if layout_name == "peers":  # the plan's slots are the book's; the simulator's order may leave ports idle
            assert step_s <= found[0] * (1 + 1e-6)
        else:
            assert step_s == pytest.approx(found[0], rel=1e-6), layout_name


@pytest.mark.parametrize("sites", [None, Sites(sizes=(2, 2), line=Link(bytes_per_s=3e4, latency_s=5e-3))])
@pytest.mark.parametrize("name", ["sgd", "ec-sgd", "csgd-ring"])
def test_on_unlike_directions_and_between_sites_a_plan_is_what_the_simulator_says(name, sites):
    algorithm = ALGORITHMS[name](**ALGORITHMS[name].test_settings)
    n, d, link = 4, 240, Link(bytes_per_s=1e5, down_bytes_per_s=3e5, latency_s=1e-3)
    asked = Query(spec=ModelSpec.of_sizes(d), n_workers=n, link=link, sites=sites)
    for candidate in candidates_of({name: algorithm}, asked, measure=False):
        found = simulated_rounds(algorithm, candidate.layout.name, link, d, n, len(candidate.rounds), sites)
        assert asked.step_s(candidate) == pytest.approx(found[0], rel=1e-6), candidate.layout.name


def test_frames_of_large_models_are_carried_on_from_small_ones():
    asked = query(4, 3_000_000)
    dense = on("rank0", planned(asked, "sgd"))
    assert dense.rounds[0][0].up[0][0] == HEADER_BYTES + DENSE_FIELDS + 4 * 3_000_000
    signs = on("rank0", planned(asked, "signsgd-mv"))
    assert signs.down_bytes == pytest.approx(0.75 * 3_000_000 / 8, rel=1e-3)
    fixed = on("rank0", planned(asked, "sparse", k=100))
    vector = torch.randn(3_000_000, generator=torch.Generator().manual_seed(0))
    packet = ALGORITHMS["sparse"](k=100).take(vector)
    frame = encode(Frame(header=Header(role="worker", rank=1, round=0), packet=packet)).numel()
    assert fixed.up_bytes == pytest.approx(0.75 * frame, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sparse", "sgd"])
def test_a_slice_of_many_servers_is_carried_on_as_the_full_vector_is(name):
    """Heads outweigh the few entries of a short slice, which must not pass for frames that do not grow."""
    candidates = planned(query(32, 25_600_000), name)
    full, sliced = on("rank0", candidates), on("sharded", candidates)
    assert sliced.up_bytes == pytest.approx(full.up_bytes, rel=0.1)


def test_computing_and_coding_time_are_on_the_path():
    asked = query(3, compute_s=2.0)
    bare = on("rank0", planned(replace(asked, compute_s=0.0), "sgd"))
    computed = on("rank0", planned(asked, "sgd"))
    assert computed.step_s(asked.link) == pytest.approx(bare.step_s(asked.link) + 2)
    coded = replace(computed, coding=(CodingSeconds(encode=0.25, serve=0.5, decode=0.125),))
    assert coded.step_s(asked.link) == pytest.approx(bare.step_s(asked.link) + 2 + 0.875)
    assert coded.coding_s == 0.875


def test_a_method_that_looks_at_two_points_computes_twice():
    asked = query(3, compute_s=2.0)
    sasg = on("rank0", planned(asked, "sasg"))
    none = on("rank0", planned(replace(asked, compute_s=0.0), "sasg"))
    assert sasg.step_s(asked.link) == pytest.approx(none.step_s(asked.link) + 4)


def test_local_steps_share_one_exchange():
    asked = query(3, compute_s=2.0)
    one, four = (on("rank0", planned(replace(asked, local_steps=steps), "sgd")) for steps in (1, 4))
    exchange_s = one.step_s(asked.link) - 2
    assert four.step_s(asked.link) == pytest.approx(2 + exchange_s / 4)
    assert four.up_bytes == one.up_bytes / 4
    refusing = on("rank0", planned(replace(asked, local_steps=4), "lag"))
    assert refusing.local_steps == 1


def test_measured_coding_times_are_there_and_in_proportion_to_the_model():
    asked = query(2, 200_000)
    (candidate,) = candidates_of({"sgd": ALGORITHMS["sgd"]()}, asked, measure=True, only="rank0")
    (coding,) = candidate.coding
    assert min(coding.encode, coding.serve, coding.decode) > 0


# Judging.


def judged(asked, *names, **settings):
    return judge(planned(asked, *names, **settings), asked, measured=False)


def test_at_the_break_even_bandwidth_both_take_equally_long_but_for_the_margin():
    asked = query(8, 1_000_000, latency_s=1e-3)
    plan = judged(asked, "ssgd-topk", "ssgd-mv")
    for choice in plan.choices:
        bandwidth = choice.break_even_bytes_per_s
        if bandwidth is None:  # with fewer messages in turn, it is faster at any bandwidth
            assert choice.candidate.layout.name == "allgather"
            assert choice.faster_within == ((None, None),)
            continue
        assert choice.at(bandwidth) == pytest.approx(0.99 * plan.baseline.at(bandwidth), rel=2e-3)
        assert choice.at(bandwidth / 2) < plan.baseline.at(bandwidth / 2)
        assert choice.at(bandwidth * 2) > plan.baseline.at(bandwidth * 2) * 0.99


def test_intervals_name_both_ends_where_there_are_two():
    rungs = ladder()
    assert where_faster(lambda bandwidth: 1.0, lambda bandwidth: 2.0) == ((None, None),)
    assert where_faster(lambda bandwidth: 2.0, lambda bandwidth: 1.0) == ()
    assert where_faster(lambda bandwidth: 1.0, lambda bandwidth: 1.0) == ()
    ((low, high),) = where_faster(lambda bandwidth: 1.0, lambda bandwidth: 2.0 if 1e5 < bandwidth < 1e7 else 0.5)
    assert low == pytest.approx(1e5, rel=2e-3)
    assert high == pytest.approx(1e7, rel=2e-3)
    assert rungs == sorted(rungs)


def test_the_recommendation_flips_between_a_slow_and_a_fast_network():
    names = ("ssgd-mv", "sgd")
    slow = judged(query(8, 1_000_000, latency_s=1e-4, bytes_per_s=1e6), *names)
    fast = judged(query(8, 1_000_000, latency_s=1e-2, bytes_per_s=1e11), *names)
    assert slow.recommended.method == "ssgd-mv"
    assert slow.recommended.speed_up > 5
    assert fast.recommended is fast.baseline
    assert fast.as_data()["all_reduce_wins"]


def test_a_speed_up_too_small_to_matter_has_the_all_reduce_baseline_recommended():
    plan = judged(query(4, 100_000, compute_s=100.0, bytes_per_s=1e6), "signsgd-mv")
    assert 1 < plan.choices[0].speed_up < 1.05
    assert plan.recommended is plan.baseline


def test_every_method_is_planned_on_each_layout_that_it_admits():
    asked = query()
    assert layouts_of(ALGORITHMS["sgd"](), asked) == ["allreduce", "rank0", "dedicated", "sharded"]
    assert layouts_of(ALGORITHMS["ec-sgd"](), asked) == ["rank0", "dedicated", "allgather"]
    assert layouts_of(ALGORITHMS["dsgd"](), asked) == ["peers"]
    assert layouts_of(ALGORITHMS["asgd"](), asked) == ["dedicated"]


def test_a_choice_as_data_has_every_figure():
    plan = judged(query(4, 1000, compute_s=0.5), "ssgd-topk")
    data = json.loads(json.dumps(plan.as_data()))
    assert data["parameters"] == 1000
    assert data["workers"] == 4
    assert data["codec_measured"] is False
    assert data["all_reduce"]["method"] == "sgd"
    for choice in data["choices"]:
        assert choice["bytes_are_maxima"]
        assert choice["step_s"] == pytest.approx(data["all_reduce"]["step_s"] / choice["speed_up"])
        assert set(choice) == set(data["all_reduce"])
        assert math.isfinite(choice["up_bytes"] + choice["down_bytes"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_workers": 1}, "n_workers=1 must be in 2 .. 512"),
        ({"n_workers": 513}, "n_workers=513 must be in 2 .. 512"),
        ({"d": 0}, "n_parameters=0 must be in 1 .. 4294967296"),
        ({"local_steps": 0}, "local_steps=0 must be at least 1"),
    ],
)
def test_a_query_out_of_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        query(**change)


def test_a_model_too_small_for_a_method_is_refused_by_name():
    with pytest.raises(ValueError, match=r"density=0\.01 of d=50"):
        planned(query(4, 50), "ssgd-topk")


def test_a_candidate_is_timed_alike_with_and_without_machine_code(monkeypatch):
    asked = query(4, 1000, latency_s=1e-3)
    candidates: list[Candidate] = planned(asked, "ssgd-mv", "csgd-ring")
    compiled = [candidate.step_s(asked.link) for candidate in candidates]
    monkeypatch.setattr("laconic.kernels.cpu.compile.numba_available", lambda: False)
    assert [candidate.step_s(asked.link) for candidate in candidates] == compiled
