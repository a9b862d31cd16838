"""Timelines: the bars are the event times, and the three ways of drawing them hold what the data hold."""

import html
import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from laconic.network import (
    Computation,
    Link,
    Message,
    MessageSchedule,
    Network,
    example_1_3_1,
    example_1_3_4,
    makespan_ns,
    simulate,
)
from laconic.report.timeline.bars import _LETTERS as LETTERS
from laconic.report.timeline.bars import MAX_NODES, MAX_STEPS, BarKind, in_letters, timeline_of
from laconic.report.timeline.named import NAMED, draw_message_schedule, draw_named
from laconic.report.timeline.page import timeline_page
from laconic.report.timeline.picture import draw_timeline
from laconic.report.visible import visible
from support.html_elements import Elements

S = 1_000_000_000
SLOW = Link(bytes_per_s=200_000.0, latency_s=1.5)


def bars_of(timeline):
    """(lane, kind, start, end) in seconds."""
    return {(timeline.lanes[bar.lane], bar.kind, bar.start_ns / S, bar.end_ns / S) for bar in timeline.bars}


def test_example_1_3_1_shows_latency_transfer_and_the_message_that_waits():
    assert bars_of(draw_named("example-1.3.1", NAMED["example-1.3.1"].settings)) == {
        ("M1 send", BarKind.LATENCY, 5, 6.5),
        ("M1 send", BarKind.SEND, 6.5, 11.5),
        ("M2 receive", BarKind.LATENCY, 5, 6.5),
        ("M2 receive", BarKind.RECEIVE, 6.5, 11.5),
        ("M2 send", BarKind.LATENCY, 6, 7.5),
        ("M2 send", BarKind.SEND, 7.5, 12.5),
        ("M1 receive", BarKind.LATENCY, 6, 7.5),
        ("M1 receive", BarKind.RECEIVE, 7.5, 12.5),
        ("M3 send", BarKind.WAIT, 6, 12.5),
        ("M3 send", BarKind.LATENCY, 12.5, 14),
        ("M3 send", BarKind.SEND, 14, 19),
        ("M1 receive", BarKind.LATENCY, 12.5, 14),
        ("M1 receive", BarKind.RECEIVE, 14, 19),
    }


@pytest.mark.parametrize(
    ("third", "n_bytes", "starts", "ends"),
    [
        (0, 1_000_000, [5, 6, 12.5], [11.5, 12.5, 19]),  # the prose: 14 units from t = 5
        (0, 500_000, [5, 6, 10], [9, 10, 14]),  # half the bytes: 9
        (1, 1_000_000, [5, 6, 11.5], [11.5, 12.5, 18]),  # the table: 13
        (1, 500_000, [5, 6, 9], [9, 10, 13]),  # 8
    ],
)
def test_example_1_3_1_is_met_in_all_its_readings(third, n_bytes, starts, ends):
    times = simulate(example_1_3_1(n_bytes, third), Network(3, SLOW))
    assert [time / S for time in times.start_ns.tolist()] == starts
    assert [time / S for time in times.end_ns.tolist()] == ends


def test_example_1_3_4_is_free_of_conflicts_in_all_six_slots():
    steps = example_1_3_4(1_000_000)
    assert makespan_ns(steps, Network(4, SLOW)) == 6 * (1.5 + 5 / 4) * S
    starts = simulate(steps, Network(4, SLOW)).start_ns.tolist()
    for slot in range(6):
        of_slot = steps[4 * slot : 4 * slot + 4]
        assert sorted(step.sender for step in of_slot) == sorted(step.receiver for step in of_slot) == [0, 1, 2, 3]
        assert set(starts[4 * slot : 4 * slot + 4]) == {slot * 2.75 * S}


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("example-1.3.1", 14), ("example-1.3.1-table", 13), ("example-1.3.2", 9), ("example-1.3.4", 16.5),
        ("single-server", 39), ("ring", 16.5), ("ring-unpartitioned", 39), ("sharded", 16.5),
        ("training-ring", 2 * (5 + 16.5)), ("compressed-ring", 2 * (5 + 6 * (1.5 + 2.5 / 4))),
        ("compressed-sharded", 6 * (1.5 + 2.5 / 4)), ("gossip-ring", 2 * (5 + 13)), ("sync-server", 2 * 38),
        ("async-server", 59),
    ],
)  # fmt: skip
def test_every_named_timeline_takes_the_time_of_its_figure(name, seconds):
    timeline = draw_named(name, NAMED[name].settings)
    assert (timeline.last_ns - timeline.begin_ns) / S == pytest.approx(seconds, rel=1e-12)


def test_every_timeline_is_one_of_those_with_a_known_time():
    assert len(NAMED) == 14


@pytest.mark.parametrize("name", NAMED)
def test_bars_are_within_their_steps_and_no_two_on_a_lane_overlap(name):
    timeline = draw_named(name, NAMED[name].settings)
    lanes = {}
    for bar in timeline.bars:
        step = timeline.steps[bar.step]
        assert step.requested_ns <= bar.start_ns < bar.end_ns <= step.end_ns
        assert bar.kind is BarKind.WAIT or bar.start_ns >= step.start_ns
        lanes.setdefault(bar.lane, []).append((bar.start_ns, bar.end_ns))
    for spans in lanes.values():
        spans.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_the_asynchronous_server_reports_each_update_and_its_staleness():
    timeline = draw_named("async-server", NAMED["async-server"].settings)
    assert "10 s M1 (0), 13 s M2 (1), 20 s M1 (1), 23 s M2 (1), 30 s M1 (1), 33 s M3 (5)" in timeline.notes[0]


def test_a_computation_has_a_lane_only_on_machines_that_compute():
    steps = MessageSchedule.of([Computation(1, 5 * S), Message(0, 1, 200_000)])
    timeline = draw_message_schedule("two", steps, SLOW)
    assert timeline.lanes == ("M1 send", "M1 receive", "M2 send", "M2 receive", "M2 compute")
    assert ("M2 compute", BarKind.COMPUTE, 0, 5) in bars_of(timeline)


def test_letters_show_each_lane_in_the_width_given():
    text = in_letters(draw_named("example-1.3.1", NAMED["example-1.3.1"].settings), 60).plain
    lines = {line.split("  ")[0][:10].strip(): line for line in text.splitlines()}
    assert max(map(len, text.splitlines()[1:8])) <= 60
    assert re.fullmatch(r"M1 send    ░+█+to M2█+ *", lines["M1 send"])
    assert re.fullmatch(r"M3 send     +·+░+█*to M1█* *", lines["M3 send"])
    assert re.fullmatch(r"M1 receive +░+▓+from M2▓+░+▓+from M3▓+", lines["M1 receive"])
    assert re.search(r"5\.00 s +simulated time +19\.0 s\n", text)
    assert "14 s from the first request to the end" in text


def test_each_letter_has_one_meaning_and_a_terminal_without_blocks_gets_ascii():
    for ascii_only in (False, True):
        assert len({letters[ascii_only] for letters in LETTERS.values()}) == len(BarKind)
    text = in_letters(draw_named("sync-server", NAMED["sync-server"].settings), 80, ascii_only=True).plain
    assert text.isascii()
    assert "# sending   % receiving   : latency   . waiting for the receiver   + computing" in text


def test_a_page_holds_every_step_and_refers_to_nothing_outside():
    timeline = draw_named("async-server", NAMED["async-server"].settings)
    page = timeline_page(timeline)
    assert not re.search(r"https?:|//[a-z]|\ssrc=|href=|@import|url\((?!#)", page)
    assert not re.search("@[A-Z]+@", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert len(data["bars"]) == len(timeline.bars)
    for shown, timed in zip(data["steps"], timeline.steps, strict=True):
        assert (shown["requested"], shown["start"], shown["end"]) == (timed.requested_ns, timed.start_ns, timed.end_ns)
        if isinstance(timed.step, Message):
            assert shown["bytes"] == timed.step.n_bytes
            assert (shown["sender"], shown["receiver"]) == (
                timeline.nodes[timed.step.sender],
                timeline.nodes[timed.step.receiver],
            )
    table = re.search(r"<tbody>(.*)</tbody>", page, re.S)[1]
    assert table.count("<tr>") == len(timeline.steps)
    assert len(page) - len(json.dumps(data)) - len(table) < 20_000


HOSTILE = [
    "</script><b>@DATA@", "@TABLE@", "<!--<script>", '" onload="alert(1)', "' autofocus onfocus='x", "&lt;b&gt;",
    "$x_{$", "\\1 \\g<0>", "a\x1b[2J", "\u202egnp.exe", "two\nlines", "]]>", "_hidden", "\udcff",
]  # fmt: skip


def named(name):
    """A timeline with this name wherever one can come from outside."""
    timeline = draw_message_schedule("t", MessageSchedule.of([Message(0, 1, 10)]), SLOW)
    return replace(timeline, title=name, notes=(name,), nodes=(name, name), lanes=(name,) * len(timeline.lanes))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_more_than_text_in_a_page(name):
    page, plain = timeline_page(named(name)), Elements(timeline_page(named("plain")))
    read = Elements(page)
    assert (read.tags, read.attributes) == (plain.tags, plain.attributes)
    assert read.texts.count(visible(name)) == plain.texts.count("plain") >= 4
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert data["lanes"] == [visible(name)] * len(data["lanes"])
    assert all(line.isprintable() for line in page.split("\n"))


def test_a_notebook_shows_the_page_in_a_frame_of_its_own():
    timeline = named('"><script>alert(1)</script>')
    frame = timeline._repr_html_()
    assert Elements(frame).tags == ["iframe"]
    assert html.escape(timeline_page(timeline)) in frame
    assert len(repr(timeline)) < 200


def test_a_page_has_a_table_that_says_the_same_as_the_chart():
    page = timeline_page(draw_named("async-server", NAMED["async-server"].settings))
    head = "".join(f"<th scope=col{mark}>{name}</th>" for name, mark in TABLE_HEAD)
    assert f"<thead><tr>{head}</tr></thead>" in page
    assert "<tr><td>M1</td><td>sending</td><td>server</td><td class=number>1,000,000</td>" in page
    assert "<tr><td>M3</td><td>computing</td><td></td>" in page


TABLE_HEAD = [("machine", ""), ("what", ""), ("to", "")] + [
    (name, " class=number") for name in ("bytes", "requested (s)", "start (s)", "end (s)")
]


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_pictures_are_the_same_each_time_and_name_no_day(ending, begins):
    timeline = draw_message_schedule("few", MessageSchedule.of([Message(0, 1, 10)]), SLOW)
    picture = draw_timeline(timeline, ending)
    assert picture.startswith(begins)
    assert picture == draw_timeline(timeline, ending)
    assert not re.search(rb"CreationDate|dc:date|20[2-9]\d-\d\d", picture)


@pytest.mark.parametrize("name", ["$x_{$ and $", "_hidden", "a\x1b$\\frac$", "two\nlines"])
def test_no_name_is_a_formula_in_a_picture(name):
    assert f"<!-- {visible(name)} -->".encode() in draw_timeline(named(name), ".svg").replace(b"<!--  ", b"<!-- ")


def test_a_message_schedule_without_time_is_still_plotted():
    timeline = draw_message_schedule("nothing", MessageSchedule.of([Message(0, 1, 10)]), Link())
    assert timeline.bars == ()
    assert draw_timeline(timeline, ".png")
    assert "0 s from the first request" in in_letters(timeline, 80).plain
    assert timeline_page(timeline)


def test_more_than_can_be_read_is_refused():
    with pytest.raises(ValueError, match=f"at most {MAX_STEPS} steps and {MAX_NODES} machines are drawn"):
        timeline_of("many", [], Network(MAX_NODES + 1), nodes=["M"] * (MAX_NODES + 1))
    with pytest.raises(ValueError, match=f"machines are too many for a picture; .* {MAX_NODES}"):
        draw_message_schedule("far", MessageSchedule.of([Message(0, 10**9, 10)]), SLOW)
