"""The bench on real links: what it says where it cannot run, and of wrong arguments. What it measures, no test says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "real_network" / "run.py"


def bench(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


@pytest.mark.slow
def test_where_a_tool_is_missing_it_says_so_and_ends_well():
    ended = bench(PATH="/nowhere")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("skipped: ")
    assert "root" in ended.stdout or "install iproute2" in ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workers", "1"), "1 must be a whole number in 2 .. 32"),
        (("--workers", "many"), "many must be a whole number in 2 .. 32"),
        (("--rates", "0Mbit"), "bandwidth '0Mbit' must be above 0"),
        (("--rounds-factor", "0"), "0 must be a whole number, at least 1"),
        (("--json", "/no/such/folder/x.json"), "there is no folder /no/such/folder"),
    ],
)
def test_a_wrong_argument_is_named_with_its_bound(arguments, message):
    ended = bench(*arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
