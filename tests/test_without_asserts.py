"""Python that drops asserts refuses as much, and for the same reasons."""

import os
import subprocess
import sys

import pytest

from support.deadlines import DEADLINE_S
from support.hostile_outcomes import digest
from support.methods import IN_STEP
from support.wrong_frames import ARRIVALS


@pytest.mark.slow
def test_python_that_drops_asserts_refuses_as_much_and_for_the_same_reasons():
    """Of wrong frames among sessions, and of damaged ones at a reader; in one process, whose start is the dearest."""
    command = [sys.executable, "-O", "-m", "support.without_asserts"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    frames, outcomes = ended.stdout.splitlines()
    assert f"of {len(IN_STEP) + len(ARRIVALS)} methods were refused" in frames
    assert outcomes == digest()
