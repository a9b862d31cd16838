"""The page's own model of a round against `laconic plan`, for recorded runs of all patterns of exchange."""

from dataclasses import asdict

import pytest

from laconic.lab.runs.files import write_record
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.network import Link
from laconic.planning.dry_run import PlannedJob, sent_in_rounds
from laconic.planning.recorded import read_recorded
from laconic.planning.shapes import timing_of
from support.page_scripts import needs_node, run_by_node

pytestmark = pytest.mark.slow

RUNS = {
    "sgd, all-reduce": ("sgd", {}), "sgd, sharded": ("sgd", {"layout": "sharded"}),
    "sgd, local steps": ("sgd", {"local_steps": 2, "layout": "rank0"}),
    "signsgd-mv, all-gather": ("signsgd-mv", {"layout": "allgather"}),
    "ssgd-mv, two exchanges": ("ssgd-mv", {"layout": "dedicated"}),
    "ssgd-mv, one adds": ("ssgd-mv", {"layout": "allreduce"}),
    "compskip, skips": ("compskip", {}), "dsgd, graph": ("dsgd", {}), "csgd-ring, many": ("csgd-ring", {}),
    "sasg, two gradients": ("sasg", {}), "asgd, arrivals": ("asgd", {}),
    "asgd, bounded": ("asgd", {"set": {"max_staleness": "2"}}), 
    "asgd, drops": ("asgd", {"set": {"max_staleness": "1", "staleness": "drop"}}),
}  # fmt: skip
LINKS = [
    Link(bytes_per_s=125e3, latency_s=2e-3), Link(bytes_per_s=125e6), Link(bytes_per_s=12.5e6, latency_s=0.3),
    Link(bytes_per_s=1e5, down_bytes_per_s=2e6, latency_s=1e-3), Link(bytes_per_s=5e6, down_bytes_per_s=3e4),
]  # fmt: skip
COMPUTE_S = 0.013


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recorded run of each kind, by name."""
    runs = {}
    for number, (name, (algorithm, options)) in enumerate(RUNS.items()):
        settings = RunSettings(algorithm=algorithm, epochs=1, batch_size=90, model="linear", workers=5, **options)
        folder = tmp_path_factory.mktemp(f"run{number}")
        write_record(folder, run_simulated(settings, lambda progress: None))
        (runs[name],) = read_recorded(folder)
    return runs


def network_of(link):
    return {"up": link.bytes_per_s, "down": link.receiving.bytes_per_s, "latency": link.latency_s}


@needs_node
def test_a_round_takes_in_the_page_as_long_as_plan_says_of_the_recorded_run(recorded):
    expected, given = {}, {"timings": {}, "networks": [network_of(link) for link in LINKS], "compute": COMPUTE_S}
    for name, run in recorded.items():
        given["timings"][name] = timing_of(run).as_data()
        queries = [run.query(link, COMPUTE_S) for link in LINKS]
        expected[name] = [
            run.candidate(query, measure=False).step_s(query.link) * run.settings.local_steps for query in queries
        ]
    found = run_by_node(
        """Object.fromEntries(Object.entries(given.timings).map(([name, {own, shapes, up, down}]) => [name,
        given.networks.map(network => Clock.roundSeconds(
          shapes[own], shapes[own].exchanges, up, down, network, given.compute))]))""",
        given,
    )
    wrong = {
        name: (found[name], times) for name, times in expected.items() if found[name] != pytest.approx(times, rel=1e-6)
    }
    assert not wrong
    assert len({round(time, 6) for times in expected.values() for time in times}) > 40


def test_on_another_layout_frames_are_as_long_as_in_a_dry_run_there(recorded):
    compared, wrong = 0, []
    for name, run in recorded.items():
        timing = timing_of(run)
        if run.settings.algorithm in ("compskip", "sasg", "asgd"):  # in a run they send less than in a dry run
            continue
        for layout, shape in timing.shapes.items():
            planned = PlannedJob(
                algorithm=run.settings.method, layout_name=layout, spec=run.spec, n_workers=run.settings.workers
            )
            for sent, exchange in zip(sent_in_rounds(planned)[0], shape.exchanges, strict=True):
                frames = [(sent.up[0][0], exchange.up * timing.up)]
                frames += [(sent.down[0], exchange.down * timing.down)] if sent.down else []
                compared += len(frames)
                wrong += [
                    (name, layout, *pair) for pair in frames if pair[1] != pytest.approx(pair[0], rel=0.03, abs=8)
                ]
    assert not wrong
    assert compared > 30


def test_layouts_that_a_method_does_not_admit_or_whose_answers_are_not_known_are_not_offered(recorded):
    offered = {name: list(timing_of(run).shapes) for name, run in recorded.items()}
    assert offered["sgd, all-reduce"] == ["allreduce", "rank0", "dedicated", "sharded"]
    assert offered["signsgd-mv, all-gather"] == ["allgather"]  # a server's answer was never sent
    assert offered["dsgd, graph"] == ["peers"]
    assert offered["asgd, arrivals"] == ["dedicated"]


def test_dense_rounds_have_an_exchange_of_their_own(tmp_path):
    settings = RunSettings(algorithm="ssgd-topk", dense_epochs=0.25, epochs=1, batch_size=90, model="linear")
    write_record(tmp_path, run_simulated(settings, lambda progress: None))
    (run,) = read_recorded(tmp_path)
    shape = timing_of(run).shapes[run.layout_name]
    (dense,) = shape.dense
    traffic = run.traffic.up_by_exchange["dense"].wire_bytes / run.dense_rounds
    assert dense.up * traffic == pytest.approx(4 * run.spec.d, rel=0.05)
    assert asdict(shape)["exchanges"][0]["name"] != "dense"
