"""Which parameters take part in a round."""

import pytest

from laconic.errors import ContractError
from laconic.protocol.abort import Abort
from laconic.training.active_parameters import ActiveParameters


class Ranks:
    """What the other ranks report, and how often they were asked."""

    def __init__(self, *others):
        self.others = list(others)
        self.asked = 0

    def gather(self, own):
        self.asked += 1
        return [own, *self.others]


def used(active, *indices):
    active.note([place in indices for place in range(3)])


def test_within_one_process_all_that_its_workers_used_in_this_round_takes_part():
    active = ActiveParameters((4, 2, 3))
    used(active, 0)
    used(active, 2)
    assert active.now == [True, False, True]
    assert (active.is_agreed, active.abort) == (True, Abort.NO)
    active.end_round()
    used(active, 1)
    assert active.now == [False, True, False]
    assert active.inactive() == [(0, 4), (6, 9)]


def test_ranks_agree_on_the_union_of_what_they_used():
    ranks = Ranks([2])
    active = ActiveParameters((4, 2, 3), ranks.gather)
    used(active, 0)
    assert not active.is_agreed
    active.agree()
    assert active.now == [True, False, True]
    assert active.inactive() == [(4, 6)]


def test_a_set_that_stays_aborts_no_round_and_asks_nobody():
    ranks = Ranks([2])
    active = ActiveParameters((4, 2, 3), ranks.gather)
    for round_ in range(4):
        used(active, 0)
        if round_ == 0:
            active.agree()
        assert active.abort is Abort.NO
        active.end_round()
    assert ranks.asked == 1


@pytest.mark.parametrize("then", [(0, 1), (), (1,)])
def test_a_set_that_grew_shrank_or_moved_aborts_the_round_until_the_ranks_agree(then):
    active = ActiveParameters((4, 2, 3), Ranks([2]).gather)
    used(active, 0)
    active.agree()
    active.end_round()
    used(active, *then)
    assert active.abort is Abort.SET_DIFFERS
    active.agree()
    assert active.abort is Abort.NO
    assert active.now == [place in (*then, 2) for place in range(3)]


def test_several_steps_between_two_exchanges_use_what_any_of_them_used():
    active = ActiveParameters((4, 2, 3), Ranks().gather)
    used(active, 0)
    used(active, 1)
    active.agree()
    assert active.now == [True, True, False]


@pytest.mark.parametrize("wrong", [[3], [-1], ["0"], [True], [0.0], "abc", 7, None])
def test_a_list_that_no_rank_of_this_job_can_send_is_refused_with_its_rank(wrong):
    active = ActiveParameters((4, 2, 3), Ranks([2], wrong).gather)
    used(active, 0)
    with pytest.raises(ContractError, match="rank 2"):
        active.agree()
    assert active.now == [False] * 3


def test_the_state_is_restored_without_a_new_agreement():
    ranks = Ranks([2])
    active, resumed = (ActiveParameters((4, 2, 3), ranks.gather) for _ in range(2))
    used(active, 0)
    active.agree()
    resumed.restore(active.saved())
    assert (resumed.now, resumed.used) == (active.now, active.used)
    assert (resumed.is_agreed, resumed.abort) == (True, Abort.NO)
