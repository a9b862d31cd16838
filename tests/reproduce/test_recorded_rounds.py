"""Schematics drawn from recorded rounds: they show what the papers' figures show."""

import pytest

from laconic.network import Computation, Message
from laconic.report.item_timeline import timeline_of_item
from laconic.reproduce.items import items
from laconic.reproduce.recorded_rounds import RECORDED, compskip_rounds, faulty_links, sasg_round
from laconic.wire import HEADER_BYTES

pytestmark = pytest.mark.slow


def sent(one, sender):
    """The bytes of each message of a node in a round."""
    return [
        timed.step.n_bytes for timed in one.steps if isinstance(timed.step, Message) and timed.step.sender == sender
    ]


def test_a_worker_or_server_that_skips_sends_a_header_and_the_others_a_packet():
    recording = compskip_rounds()
    server = recording.workers
    for one in recording.rounds:
        for rank in range(recording.workers):
            (n_bytes,) = sent(one, rank)
            assert (n_bytes == HEADER_BYTES) == (rank in one.skipping), one.number
        assert {n_bytes == HEADER_BYTES for n_bytes in sent(one, server)} == {one.server_skips}
    assert [one.server_skips for one in recording.rounds] == [False, True]
    assert recording.rounds[0].skipping
    assert "the server skips its answer" in recording.notes[1]


def test_some_workers_of_sasg_upload_and_the_others_skip():
    recording = sasg_round()
    (one,) = recording.rounds
    skipping = {rank for rank in range(recording.workers) if sent(one, rank) == [HEADER_BYTES]}
    assert 0 < len(skipping) < recording.workers
    assert skipping == {*one.skipping}
    assert all(f"M{rank + 1}" in recording.notes[0] for rank in skipping)


def test_a_slow_link_takes_four_times_as_long_and_an_inverted_one_is_named():
    recording = faulty_links()
    (one,) = recording.rounds
    took = {
        timed.step.sender: timed.end_ns - timed.start_ns
        for timed in one.steps
        if isinstance(timed.step, Message) and timed.step.sender < recording.workers
    }
    assert took[2] == pytest.approx(4 * took[0], rel=0.05)
    assert recording.nodes[2] == "M3, 0.25 of the bandwidth"
    assert recording.notes == [f"round 0: on the way of M{one.inverted[0] + 1} every sign is inverted"]


def test_every_recording_is_of_an_item_whose_timeline_has_a_computation_of_each_worker():
    recorded = {one.records: one for one in items().values() if one.records}
    assert recorded.keys() == RECORDED.keys()
    timeline = timeline_of_item(recorded["faulty-links"])
    assert timeline.title.startswith("Paper 004, Figure 1: ")
    assert len({timed.step.node for timed in timeline.steps if isinstance(timed.step, Computation)}) == 4
    assert timeline == timeline_of_item(recorded["faulty-links"]), "equal runs give equal pictures"
