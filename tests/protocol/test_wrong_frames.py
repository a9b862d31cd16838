"""Every wrong frame is refused with its sender's rank, before a memory changes or a generator goes on."""

import os
import subprocess
import sys

import pytest

from support.deadlines import DEADLINE_S
from support.methods import IN_STEP
from support.wrong_frames import ARRIVALS, CASES, refuse_all, refuse_all_arrivals


@pytest.mark.parametrize(("name", "layout"), CASES)
@pytest.mark.slow
def test_no_session_of_any_pattern_takes_a_wrong_frame(name, layout):
    assert refuse_all(name, layout) > 100


@pytest.mark.parametrize("algorithm", ARRIVALS, ids=str)
def test_no_asynchronous_worker_or_server_takes_a_wrong_frame(algorithm):
    assert refuse_all_arrivals(algorithm) > 50


@pytest.mark.slow
def test_python_that_drops_asserts_refuses_as_much():
    command = [sys.executable, "-O", "-m", "support.wrong_frames"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"of {len(IN_STEP) + len(ARRIVALS)} methods were refused" in ended.stdout
