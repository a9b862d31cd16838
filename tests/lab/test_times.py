"""Recorded times of real runs: clocks that agree, phases without gaps, files read back, and pictures of them."""

import itertools
import json
from dataclasses import replace

import pytest

from laconic.drivers.distributed.channel import Channel
from laconic.lab.runs.files import write_record
from laconic.lab.runs.launch import run_in_processes
from laconic.lab.runs.settings import RunSettings
from laconic.lab.runs.times import FILE, Phase, PhaseTimes, aligned_zero, bounds_of, compute_s_of, read_phases
from laconic.network import Link
from laconic.planning.recorded import read_recorded
from laconic.report.timeline.bars import MAX_STEPS, BarKind, in_letters
from laconic.report.timeline.page import timeline_page
from laconic.report.timeline.picture import draw_timeline
from laconic.report.timeline.recorded import draw_run
from support.command_line import laconic
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

SMALL = RunSettings(
    algorithm="sgd", model="linear", workers=2, batch_size=100, epochs=2, driver="processes", record_times=True,
    timeout_s=PATIENCE_S,
)  # fmt: skip

# Two ranks, two rounds; rank 1's first computation is twice as long.
PHASES = (
    Phase(0, 0, "compute", 0.0, 0.1), Phase(0, 0, "encode", 0.1, 0.12), Phase(0, 0, "wait", 0.12, 0.3),
    Phase(0, 0, "decode", 0.3, 0.31), Phase(0, 1, "compute", 0.31, 0.41), Phase(0, 1, "wait", 0.41, 0.5),
    Phase(1, 0, "compute", 0.0, 0.2), Phase(1, 0, "wait", 0.2, 0.3), Phase(1, 1, "compute", 0.3, 0.4),
    Phase(1, 1, "wait", 0.4, 0.5), Phase(1, 1, "evaluate", 0.5, 0.6),
)  # fmt: skip


def written(folder, phases=PHASES, **config):
    """A folder as a run leaves it."""
    PhaseTimes(phases=phases, accuracy_s=0.0002).write(folder)
    message = {"algorithm": '"sgd"', "workers": "2"} | config
    (folder / "config.toml").write_text("".join(f"{key} = {value}\n" for key, value in message.items()))
    (folder / "summary.json").write_text(json.dumps({"layout": "rank0", "clocks_apart_s": 0.0002}))
    return folder


def test_times_are_read_as_they_were_written(tmp_path):
    assert tuple(read_phases(written(tmp_path))) == PHASES


@pytest.mark.parametrize(
    "line", ["0,0,compute,1", "x,0,compute,1,2", "0,0,sleep,1,2", "0,0,wait,2,1", "-1,0,wait,1,2", "0,0,wait,nan,2"]
)
def test_a_line_that_is_none_of_ours_is_named(tmp_path, line):
    written(tmp_path)
    with (tmp_path / FILE).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"times.csv, line 13: .* must be a rank, a round, one of compute"):
        read_phases(tmp_path)


def test_an_empty_file_of_times_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no phases"):
        read_phases(written(tmp_path, phases=()))


def test_the_compute_time_is_the_median_over_ranks_and_rounds():
    assert compute_s_of(PHASES) == pytest.approx(0.1)
    assert compute_s_of([Phase(0, 0, "wait", 0.0, 1.0)]) == 0.0


def test_bounds_on_a_clock_hold_whoever_comes_late():
    """Rank 1's clock is 100 ahead: it enters at 3 and leaves at 8 of rank 0's time, then the other way round."""
    entered, left = [103.0, 110.0], [108.0, 121.0]
    entered_of_rank_0, left_of_rank_0 = [1.0, 19.0], [5.0, 20.0]
    assert bounds_of(entered, left, entered_of_rank_0, left_of_rank_0) == (98.0, 102.0)


# Pictures.


def test_a_run_is_plotted_with_a_lane_a_rank_and_each_phase_a_bar(tmp_path):
    timeline = draw_run(written(tmp_path))
    assert timeline.lanes == ("rank 0", "rank 1")
    assert len(timeline.bars) == len(PHASES)
    bar = timeline.bars[0]
    assert (bar.kind, bar.start_ns, bar.end_ns, timeline.label(bar)) == (BarKind.COMPUTE, 0, 10**8, "round 0")
    assert "rounds 0 to 1 of 0 to 1" in timeline.title
    assert any("200 us apart" in note for note in timeline.notes)
    letters = in_letters(timeline, 80).plain
    assert "rank 1" in letters
    assert "encoding" in letters
    page = timeline_page(timeline)
    assert '"node":"rank 0","doing":"encoding","round":0' in page
    assert "wall time since the start of the run" in page
    assert len(draw_timeline(timeline, ".png")) > 5000


def test_a_dedicated_server_has_a_lane_of_that_name(tmp_path):
    assert draw_run(written(tmp_path, workers="1")).lanes == ("rank 0", "server")


def test_some_rounds_of_a_run_are_plotted_those_in_the_middle_unless_others_are_asked_for(tmp_path):
    phases = [Phase(0, k, "compute", k / 10, k / 10 + 0.1) for k in range(11)]
    written(tmp_path, phases=tuple(phases))
    assert {timeline.round for timeline in draw_run(tmp_path, n_rounds=3).steps} == {4, 5, 6}
    assert {timeline.round for timeline in draw_run(tmp_path, from_round=9).steps} == {9, 10}


def test_the_command_draws_a_run_and_names_what_does_not_go_with_it(tmp_path):
    written(tmp_path)
    ended = laconic("timeline", str(tmp_path), "--rounds", "1", "--from-round", "1")
    assert ended.code == 0
    assert "rounds 1 to 1 of 0 to 1" in ended.out
    file = tmp_path / "run.html"
    assert laconic("timeline", str(tmp_path), "--out", str(file)).code == 0
    assert file.read_text().startswith("<!DOCTYPE")
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, message in {
        (str(tmp_path), "--from-round", "5"): "--from-round 5 must be between 0 and 1",
        (str(tmp_path), "--rounds", "0"): "--rounds 0 must be at least 1",
        (str(tmp_path), "--latency", "1ms"): "--latency: the recorded run in",
        (str(empty),): "there is no times.csv in it; run again with --driver processes --record-times",
        ("ring", "--from-round", "1"): "--from-round 1 is for the folder of a recorded run",
        (
            "--message-schedule",
            "x.json",
            "--from-round",
            "1",
        ): "--from-round: the message schedule of the file sets this",
    }.items():
        ended = laconic("timeline", *arguments)
        assert ended.code == 2, arguments
        assert message in ended.err.replace("\n", " ")


def test_a_run_with_more_phases_than_can_be_seen_is_refused(tmp_path):
    phases = tuple(Phase(0, k, "compute", k / 10, k / 10 + 0.1) for k in range(MAX_STEPS + 1))
    written(tmp_path, phases=phases)
    with pytest.raises(ValueError, match="so take fewer workers or rounds"):
        draw_run(tmp_path, n_rounds=10**6)
    assert len(draw_run(tmp_path).steps) == 4


# Real runs.


def test_times_are_recorded_only_over_processes_and_into_a_folder():
    with pytest.raises(ValueError, match="record_times=True is for driver='processes'"):
        replace(SMALL, driver="simulated")
    ended = laconic("run", "-a", "sgd", "--driver", "processes", "--record-times")
    assert ended.code == 2
    assert "needs --out FOLDER" in ended.err


def clocks(rank):
    return [aligned_zero(Channel(None, PATIENCE_S, 1)) for _ in range(3)]


@pytest.mark.slow
def test_processes_of_one_machine_find_that_they_have_one_clock():
    """All processes of a machine read one clock, so the zeros must agree within the bounds that were found."""
    by_rank = run_ranks(clocks, 3)
    for (zero_s, accuracy_s), *others in zip(*by_rank, strict=True):
        assert accuracy_s == 0.0
        for other_s, within_s in others:
            assert 0 < within_s < 60
            assert abs(other_s - zero_s) <= within_s


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "options"), [("sgd", {"layout": "rank0"}), ("dsgd", {"local_steps": 2})])
def test_a_recorded_run_has_no_gaps_is_plotted_and_is_planned_from(tmp_path, algorithm, options):
    (record,) = run_in_processes([replace(SMALL, algorithm=algorithm, **options)], lambda progress: None)
    write_record(tmp_path, record)
    phases = read_phases(tmp_path)
    assert {phase.round for phase in phases} == set(range(record.traffic.rounds))
    for rank in range(2):
        mine = [phase for phase in phases if phase.rank == rank]
        *before_last, _ = gaps = [other.start_s - one.end_s for one, other in itertools.pairwise(mine)]
        assert max(map(abs, before_last)) < 2e-6
        assert gaps[-1] > -2e-6, "the last evaluation begins after the last round"
        assert [phase.round for phase in mine] == sorted(phase.round for phase in mine)
        assert {phase.what for phase in mine} == {"compute", "encode", "wait", "decode", "evaluate"}
    assert draw_run(tmp_path).lanes == ("rank 0", "rank 1")
    (run,) = read_recorded(tmp_path)
    asked = run.query(Link(), None)
    assert asked.compute_s == pytest.approx(compute_s_of(phases) / record.settings.local_steps)
    assert run.candidate(asked, measure=False).step_s(Link()) == pytest.approx(asked.compute_s)
    assert run.query(Link(), 0.0).compute_s == 0.0
