"""Every wrong frame is refused with its sender's rank, before a memory changes or a generator goes on."""

import pytest

from support.wrong_frames import ARRIVALS, CASES, refuse_all, refuse_all_arrivals


@pytest.mark.parametrize(("name", "layout"), CASES)
@pytest.mark.slow
def test_no_session_of_any_pattern_takes_a_wrong_frame(name, layout):
    assert refuse_all(name, layout) > 100


@pytest.mark.parametrize("algorithm", ARRIVALS, ids=str)
def test_no_asynchronous_worker_or_server_takes_a_wrong_frame(algorithm):
    assert refuse_all_arrivals(algorithm) > 50
