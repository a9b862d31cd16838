"""What ranks that give up write for each other, and the sentence that each makes of it."""

import json
from threading import Thread

import pytest
import torch.distributed as dist

from laconic.drivers.distributed.failure_report import FailureReport, Findings, Note
from laconic.drivers.distributed.verdict import lost_error, text_of, verdict
from support.deadlines import PATIENCE_S

RANKS = (0, 1, 2)
WAITING = Note(how="closed", where="in step 4", purpose="for its answer of round 3", rounds=3, awaited=(0,))


def named(ranks):
    return " and ".join(f"rank {rank}" for rank in ranks)


def sentence_of(notes, me=0, **found):
    return verdict(Findings(me=me, notes=notes, **found), named, 10.0)


def reports_of(store):
    return [FailureReport(store, RANKS, rank) for rank in RANKS]


BAD_NOTES = {
    "it is no JSON": b"{",
    "expected was an object": b"[1]",
    "has the keys how": b'{"how": "closed"}',
    "it has 1000000 bytes; at most 16432": b"x" * 1_000_000,
    "it.how is 'otherwise'": json.dumps(
        {"how": "otherwise", "where": "", "purpose": "", "cause": "", "waited_s": 0.0, "rounds": 0, "awaited": [],
         "closed": []}
    ).encode(),
    "ranks that are not of this group": json.dumps(
        {"how": "closed", "where": "", "purpose": "", "cause": "", "waited_s": 0.0, "rounds": 0, "awaited": [7],
         "closed": []}
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("problem", BAD_NOTES)
def test_a_note_of_another_form_is_refused_with_the_rank_that_wrote_it(problem):
    store = dist.HashStore()
    one, _, mine = reports_of(store)
    one.write(WAITING)
    store.set("laconic/0-1-2/1/note-1", BAD_NOTES[problem])
    mine.write(WAITING)
    found = mine.collect(WAITING, PATIENCE_S)
    message = verdict(found, named, 10.0)
    assert message.startswith("rank 1 gave up: WireError: rank 1, its note of why it gave up: "), message
    assert problem in message


def test_a_note_is_read_as_it_was_written_without_the_ends_of_long_texts():
    store = dist.HashStore()
    one, other, _ = reports_of(store)
    other.write(Note(how="raised", where="in step 2", cause="E" * 100_000, rounds=1, closed=(2,)))
    found = one.collect(WAITING, 0.0)
    assert found.notes[1].cause == "E" * 400
    assert (found.notes[1].rounds, found.dead) == (1, [2])


def test_whoever_comes_while_another_searches_for_it_is_named_by_both():
    store = dist.HashStore()
    one, other, third = reports_of(store)
    found = {}
    waited = Note(how="timeout", where="in step 4", purpose="for the all-reduce of round 3", waited_s=10.0)
    late = Note(how="closed", where="in step 4", purpose="for the all-reduce of round 3")
    for report in (one, third):
        report.write(waited)

    def search(rank, report):
        found[rank] = report.collect(waited, PATIENCE_S)

    searches = [Thread(target=search, args=(rank, report)) for rank, report in ((0, one), (2, third))]
    for thread in searches:
        thread.start()
    while not store.check(["laconic/0-1-2/1/note-0"]):
        pass
    other.write(late)
    found[1] = other.collect(late, PATIENCE_S)
    for thread in searches:
        thread.join()
    assert [list(found[rank].late) for rank in RANKS] == [[1], [1], [1]]
    assert verdict(found[1], named, 10.0).startswith("rank 1, this one, came too late")
    assert verdict(found[0], named, 10.0).startswith("rank 1 was waited for (for the all-reduce of round 3), but came")


def test_the_error_of_a_rank_is_the_cause_whatever_else_is_seen():
    raised = Note(how="raised", where="in step 4", cause="WireError: rank 1 (worker): checksum", rounds=3)
    message = sentence_of({0: WAITING, 2: raised}, silent=[1])
    assert message.startswith("rank 2 gave up in step 4: WireError: rank 1 (worker): checksum")


def test_a_rank_that_has_ended_is_named_with_its_steps_and_asked_about_the_others():
    ended = Note(how="ended", where="after 8 steps", rounds=8)
    here = Note(how="closed", where="in step 9", purpose="for the all-reduce of round 8", rounds=8, closed=(1,))
    message = sentence_of({0: here, 1: ended})
    assert message.startswith(
        "rank 1 has ended after 8 steps; rank 0, this one, is in step 9 (for the all-reduce of round 8). Did every "
        "rank call step() equally often?"
    )


def test_ranks_in_different_calls_all_learn_who_is_where():
    step = Note(how="timeout", where="in step 8", purpose="for the all-reduce of round 7", rounds=7, awaited=(1, 2))
    total = Note(how="closed", where="in total_traffic()", purpose="total_traffic() after round 7", rounds=7)
    message = sentence_of({0: step, 1: total, 2: total})
    assert "rank 0 in step 8 (for the all-reduce of round 7)" in message
    assert "rank 1 and rank 2 in total_traffic()" in message


def test_a_silent_rank_is_named_only_if_somebody_waits_for_it():
    server = Note(how="timeout", where="in step 4", purpose="for its packet of round 3", awaited=(2,), rounds=3)
    found = Findings(me=1, notes={0: server, 1: WAITING}, silent=[2, 3])
    assert found.missed == [2]
    assert verdict(found, named, 10.0).startswith("rank 2 was waited for (for its answer of round 3), but nothing came")


def test_the_rounds_of_all_ranks_that_are_left_are_named_and_whose_state_is_the_newest():
    ahead = Note(how="closed", where="in step 5", purpose="for its packet of round 4", rounds=4, closed=(1,))
    message = sentence_of({0: WAITING, 2: ahead}, silent=[1])
    assert message.endswith(
        "Rounds ended: rank 0 3, rank 2 4. Round 4 is whole on rank 2; to go on from it, load that rank's model and "
        "state on every rank"
    )
    assert sentence_of({0: ahead, 2: ahead}, silent=[1]).endswith(
        "All ranks that are left have ended 4 rounds, so what their state_dict() returns fits together"
    )


def test_a_loss_in_another_group_is_quoted_without_what_it_says_of_rounds():
    closed = Note(how="closed", where="in step 4", purpose="to end round 3", rounds=3, awaited=(1,), closed=(1,))
    error = lost_error(Findings(me=0, notes={0: closed}, silent=(1,)), named, 10.0)
    assert "All ranks that are left have ended 3 rounds" in str(error)
    raised = Note(how="raised", where="in step 4", cause=text_of(error), rounds=3)
    ahead = Note(how="closed", where="in step 5", purpose="for its packet of round 4", rounds=4, awaited=(1,))
    message = sentence_of({0: ahead, 1: raised})
    assert "rank 1 gave up in step 4: PeerLostError: rank 1 was waited for (to end round 3)" in message
    assert "All ranks that are left" not in message
    assert message.count("Rounds ended: rank 1 3, rank 0 4") == 1
    assert text_of(ValueError("it is so")) == "ValueError: it is so"
