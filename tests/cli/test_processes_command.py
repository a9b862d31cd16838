"""`laconic` with real processes: spawned, under torchrun, interrupted, with a dying rank, with a file of one's own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from laconic import ALGORITHMS
from support.child_processes import children_of
from support.command_line import laconic
from support.deadlines import DEADLINE_S, PATIENCE_S
from support.programs import Program, command

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
PATIENCE = ("--timeout-s", str(PATIENCE_S))

MINE = '''
"""Halved gradients, for a test.

Paper -> here: none.
"""

from dataclasses import dataclass
from typing import ClassVar

from laconic.compressors import dense
from laconic import Algorithm, algorithm
from laconic.hyperparameters import hyperparameter


@algorithm("halved")
@dataclass(frozen=True, kw_only=True)
class Halved(Algorithm):
    """Every worker sends a fraction of its gradient."""

    source: ClassVar[str] = "a test"
    share: float = hyperparameter(0.5, "the fraction of each element that is sent", within="(0, 1]")

    def work(self, me):
        reply = yield dense(self.share * me.gradient)
        return reply.dense()

    def serve(self, server, inbox):
        return dense(inbox.mean())

    def paper_bits(self, spec, n_workers=10):
        return 32.0 * spec.d, 32.0 * spec.d
'''

DYING = MINE.replace("halved", "dying").replace(
    "        reply = yield",
    "        if me.rank == 2 and me.round == 5:\n            import os; os._exit(7)\n        reply = yield",
)


def test_spawned_processes_and_the_simulator_report_the_same_accuracy_and_bytes(tmp_path):
    found = {}
    for driver in ("processes", "simulated"):
        out = tmp_path / driver
        ended = laconic(
            "run", "-a", "compskip", "--driver", driver, "--workers", "3", "--epochs", "1", "--out", str(out), *PATIENCE
        )
        assert ended.code == 0, ended.err
        summary = json.loads((out / "summary.json").read_text())
        found[driver] = (summary["test_accuracy"], summary["traffic"]["up"], summary["traffic"]["down"])
    assert found["processes"] == found["simulated"]


@pytest.fixture
def mine(tmp_path):
    """A file with an algorithm of one's own, which leaves the registry with the test."""
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    yield file
    ALGORITHMS.pop("halved", None)


def test_an_algorithm_in_ones_own_file_runs_in_both_drivers_and_is_listed(tmp_path, mine):
    assert "halved" in laconic("--load", str(mine), "list").out
    for driver in ("simulated", "processes"):
        ended = laconic(
            "--load", str(mine), "run", "-a", "halved", "--set", "share=0.25", "--driver", driver, "--workers", "2",
            "--epochs", "1", *PATIENCE,
        )  # fmt: skip
        assert ended.code == 0, ended.err
        assert "halved" in ended.out
    name_taken = tmp_path / "taken.py"
    name_taken.write_text(MINE.replace('@algorithm("halved")', '@algorithm("sgd")'))
    ended = laconic("--load", str(name_taken), "list")
    assert ended.code == 2
    assert "'sgd' is already laconic.algorithms.sgd.SGD" in ended.err


def run_pytest_here(arguments):
    os.chdir(ROOT)
    sys.exit(pytest.main(arguments))


def test_the_contract_tests_run_over_an_algorithm_in_ones_own_file(tmp_path, mine):
    line = ["-q", "-p", "no:cacheprovider", "-W", "ignore:Module already imported", "tests/contract/test_contract.py",
            "--load", str(mine), "-k", "halved"]  # fmt: skip
    tests = Program(tmp_path, "tests", run_pytest_here, line)
    out, err = tests.communicate(timeout=DEADLINE_S)
    assert tests.returncode == 0, out + err
    assert " passed" in out
    assert "failed" not in out


def test_a_rank_that_dies_is_named_and_leaves_nobody_behind(tmp_path, capfd):
    dying = tmp_path / "dying.py"
    dying.write_text(DYING)
    laconic("run", "-a", "sgd", "--driver", "processes", "--workers", "1", "--epochs", "1", "--model", "linear")
    before = children_of(os.getpid())  # the template
    try:
        ended = laconic(
            "--load", str(dying), "run", "-a", "dying", "--driver", "processes", "--workers", "3", *PATIENCE
        )
    finally:
        ALGORITHMS.pop("dying", None)
    assert ended.code == 2
    assert "rank 2" in ended.err
    assert "exit code 7" in ended.err
    assert "Traceback" not in ended.err + capfd.readouterr().err
    assert children_of(os.getpid()) == before


def test_a_port_in_use_is_refused_by_name():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = laconic("run", "-a", "sgd", "--driver", "processes", "--port", str(port))
    assert ended.code == 2
    assert f"--port {port} is in use" in ended.err
    assert "leave it out" in ended.err


def assert_rank_0_alone_reports(printed, out):
    rows = [line for line in printed.splitlines() if line.startswith("signsgd-mv ")]
    assert len(rows) == 1, "rank 0 alone reports"
    assert json.loads((out / "summary.json").read_text())["settings"]["workers"] == 2


def test_with_the_variables_of_torchrun_the_command_joins_the_processes_that_are_there(tmp_path):
    out = tmp_path / "out"
    line = ["run", "-a", "signsgd-mv", "--epochs", "1", "--out", str(out), *PATIENCE]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        there = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [Program(tmp_path, f"rank {rank}", command, line, RANK=str(rank), **there) for rank in range(2)]
    printed = [rank.communicate(timeout=DEADLINE_S) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    assert_rank_0_alone_reports("".join(of_rank for of_rank, _ in printed), out)


@pytest.mark.nightly
def test_under_torchrun_the_command_joins_the_processes_that_are_there(tmp_path):
    out = tmp_path / "out"
    ended = subprocess.run(
        [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2", "--no-python", str(BIN / "laconic"), "run",
         "-a", "signsgd-mv", "--epochs", "1", "--out", str(out), *PATIENCE],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert_rank_0_alone_reports(ended.stdout, out)
