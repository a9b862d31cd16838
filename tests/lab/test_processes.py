"""Child processes end with their parent, are named when they die, and when stopped leave what is finished on disk."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from laconic.errors import LaunchError
from laconic.lab.processes import child
from laconic.lab.processes.pool import PoolTask, run_tasks
from laconic.lab.processes.ranks import Host, Ranks
from laconic.lab.processes.supervise import Answer, Child, Report, end_all
from laconic.statements import LaconicWarning
from support.child_processes import children_of, has_ended, started, state_of, until
from support.deadlines import DEADLINE_S
from support.process_samples import Parent, Rank, Sample, figures_of, killed

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


# --- children end with their parent -----------------------------------------------------------------


def test_a_fresh_child_whose_parent_is_killed_right_after_its_start_ends():
    with started(Parent) as parent:
        [pid] = parent.call("start_fresh")
        os.kill(parent.pid, signal.SIGKILL)
        until(lambda: has_ended(pid), "its end")


def test_children_end_with_their_parent_but_not_with_the_thread_that_started_them(tmp_path):
    with started(Parent) as parent:
        pids = parent.call("start_each_kind", folder=str(tmp_path))
        until(lambda: len(list(tmp_path.iterdir())) == len(pids), "the children's signs")
        assert not any(map(has_ended, pids))
        pids += children_of(parent.pid)  # the template too
        os.kill(parent.pid, signal.SIGKILL)
        until(lambda: all(map(has_ended, pids)), "their end")


def test_a_child_that_finds_another_parent_than_the_one_that_started_it_ends_at_once():
    ours, peer = multiprocessing.Pipe()
    arguments = ["1", str(peer.fileno()), "1"]  # the first process, which inherits those whose parent has ended
    orphan = subprocess.Popen(
        [sys.executable, "-P", child.__file__, *arguments], stdin=subprocess.PIPE, pass_fds=[peer.fileno()]
    )
    try:
        assert orphan.wait(DEADLINE_S) == 1
        assert not ours.poll(), "it ended before it did anything"
    finally:
        orphan.kill()
        orphan.communicate()
        ours.close()
        peer.close()


@pytest.mark.parametrize(
    "n_there",
    [
        pytest.param(1, id="while_the_template_imports"),
        pytest.param(4, id="while_they_start", marks=pytest.mark.nightly),
    ],
)
def test_ranks_end_when_their_command_is_killed(n_there, tmp_path):
    with command(tmp_path, "run", "-a", "sgd", "--driver", "processes", "--workers", "3") as run:
        until(lambda: len(children_of(run.pid)) == n_there, "the template, and three ranks")
        processes = children_of(run.pid)
        run.kill()
        until(lambda: all(map(has_ended, processes)), "their end")


def test_when_one_rank_cannot_be_started_those_before_it_are_ended():
    with started(Sample):
        pass
    before = children_of(os.getpid())  # the template
    hosts = [Host(), Host(), Host(prefix=("/no/such/command",))]
    with pytest.raises(LaunchError, match=r"rank 2: its process could not be started: .*/no/such/command"):
        Ranks(3, Rank, hosts=hosts)
    assert children_of(os.getpid()) == before


def test_children_that_ignore_sigterm_or_are_suspended_are_ended_too():
    deaf, suspended = Child("deaf", Sample), Child("suspended", Sample)
    deaf.call("ignore_sigterm")
    suspended.request("stop_itself", {})
    until(lambda: state_of(suspended.pid)[0] == "T", "its suspension")
    end_all([deaf, suspended])
    assert has_ended(deaf.pid)
    assert has_ended(suspended.pid)


# --- requests and answers ---------------------------------------------------------------------------


def test_children_ignore_ctrl_c_from_the_start():
    with started(Sample) as process:
        os.kill(process.pid, signal.SIGINT)
        assert process.call("pid") == process.pid
        os.kill(process.pid, signal.SIGINT)
        assert process.call("pid") == process.pid


def test_reports_come_before_the_result():
    with started(Sample) as process:
        process.request("report_numbers", {}, reports=True)
        came = [process.receive() for _ in range(4)]
    assert came == [Report(0), Report(1), Report(2), Answer("done")]


def test_a_failure_is_named_with_its_error_and_after_it_the_process_is_gone():
    with started(Sample) as process:
        with pytest.raises(
            LaunchError, match=r"^sample: ArithmeticError: nothing adds up \(.*process_samples\.py, line \d+, in fail: "
        ):
            process.call("fail")
        with pytest.raises(LaunchError, match=r"^sample: its process ended with exit code 1$"):
            process.call("pid")
    with started(Sample, "one", "too many") as process, pytest.raises(LaunchError, match=r"sample: TypeError: .*given"):
        process.call("pid")


def test_a_job_whose_process_is_killed_is_named_with_the_signal():
    with pytest.raises(LaunchError, match=r"^third: its process was ended by SIGKILL$"):
        run_tasks([PoolTask(label="third", work=killed)], 1, print)


def test_figures_are_passed_on_as_soon_as_a_job_is_finished():
    finished = []
    jobs = [PoolTask(label="good", work=figures_of), PoolTask(label="bad", work=killed)]
    with pytest.raises(LaunchError, match="bad"):
        run_tasks(jobs, 1, print, lambda job, figures: finished.append((job.label, figures)))
    assert finished == [("good", {"figure": 1.5})]


def test_the_ranks_that_broke_are_named_and_not_those_that_waited_for_them():
    with Ranks(4, Rank, timeout_s=DEADLINE_S) as ranks:
        totals = ranks.call("meet")
        assert all(torch.equal(total, torch.tensor([4.0])) for total in totals)
        with pytest.raises(LaunchError) as failed:
            ranks.call("meet", failing=[1, 2], ending=[3])
    ranks_1_2, rank_3 = str(failed.value).split("\n")
    assert ranks_1_2.startswith("ranks 1, 2: ArithmeticError: nothing adds up (")
    assert "process_samples.py, line " in ranks_1_2
    assert rank_3 == "rank 3: ended with exit code 7"


def test_a_rank_that_ends_when_the_decisive_result_is_there_costs_no_result_and_is_named_in_a_warning():
    with Ranks(3, Rank, timeout_s=DEADLINE_S) as ranks:
        with pytest.warns(LaconicWarning, match="rank 2: its process was ended by SIGABRT at the end of a run"):
            totals = ranks.call("meet_and_abort", decisive=0, aborting=[2])
        assert [total is None for total in totals] == [False, False, True]
        with pytest.raises(LaunchError, match=r"^rank 2: was ended by SIGABRT$"):
            ranks.call("meet", decisive=0)
    with Ranks(2, Rank, timeout_s=DEADLINE_S) as ranks, pytest.raises(LaunchError, match=r"^rank 0: was ended by SIG"):
        ranks.call("meet_and_abort", decisive=0, aborting=[0])


def test_ranks_that_do_not_answer_in_time_are_named():
    with Ranks(1, Rank, limit_s=0.0) as ranks, pytest.raises(LaunchError, match=r"^rank 0: did not .* 0 s \(meet\)$"):
        ranks.call("meet")


# --- stopped commands -------------------------------------------------------------------------------


@contextlib.contextmanager
def command(folder, *arguments, **environment):
    """The command, running, in a session of its own; what it says goes to files."""
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        run = subprocess.Popen(
            [str(BIN / "laconic"), *arguments], stdout=out, stderr=err, env=os.environ | environment,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield run
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)  # the group that this test made
        run.wait()


def lines_printed_in(folder):
    """Lines on standard error so far."""
    return (folder / "err").read_text().splitlines()


def assert_is_stopped(run, folder, number=signal.SIGTERM, line="stopped by SIGTERM", send=os.kill):
    """It and its ranks end after the signal, with one line."""
    ranks = children_of(run.pid)
    send(run.pid, number)
    with contextlib.suppress(ProcessLookupError):
        send(run.pid, number)  # again: it changes nothing
    assert run.wait(DEADLINE_S) == 128 + number
    until(lambda: all(map(has_ended, ranks)), "the ranks' end")
    assert lines_printed_in(folder)[-1].split("; not finished: ")[0] == line
    printed = (folder / "err").read_text()
    assert "Traceback" not in printed + (folder / "out").read_text()
    assert printed.count("stopped") == 1


@pytest.mark.parametrize(
    ("number", "line", "send"),
    [
        pytest.param(signal.SIGTERM, "stopped by SIGTERM", os.kill, id="terminated"),
        # It goes to the group, as in a test of `reproduce` by day.
        pytest.param(signal.SIGINT, "stopped", os.killpg, id="by a terminal's ctrl-c", marks=pytest.mark.nightly),
    ],
)
def test_a_run_over_processes_is_stopped_with_its_ranks(number, line, send, tmp_path):
    with command(tmp_path, "run", "-a", "sgd", "--driver", "processes", "--workers", "2", "--epochs", "5000") as run:
        until(lambda: any("epoch" in line for line in lines_printed_in(tmp_path)), "its first epoch")
        assert lines_printed_in(tmp_path)[0] == "starting 2 processes"
        assert len(children_of(run.pid)) == 3, "two ranks and their template"
        assert_is_stopped(run, tmp_path, number, line, send)


@pytest.mark.parametrize(
    "arguments", [("step", "--workers", "2"), pytest.param(("kernels",), marks=pytest.mark.nightly)], ids=" ".join
)
def test_a_bench_is_stopped_with_its_processes(arguments, tmp_path):
    with command(tmp_path, "bench", *arguments) as run:
        until(lambda: children_of(run.pid), "its processes")
        assert_is_stopped(run, tmp_path)


def test_a_command_whose_main_thread_waits_in_c_is_stopped(tmp_path):
    """As a rank under torchrun, waiting for one that never comes. The store that rank 0 opens is the sign."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rank = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def is_open():
        with socket.socket() as there:
            return there.connect_ex(("127.0.0.1", port)) == 0

    with command(tmp_path, "run", "-a", "sgd", **rank) as run:
        until(is_open, "its store")
        assert_is_stopped(run, tmp_path)


def test_a_signal_at_the_exit_of_python_ends_a_command_without_a_traceback(tmp_path):
    sign, plugin = tmp_path / "sign", tmp_path / "pauses.py"
    plugin.write_text(f"import atexit, pathlib, signal\natexit.register(signal.pause)\n"
                      f"atexit.register(pathlib.Path({str(sign)!r}).touch)\n")  # fmt: skip
    with command(tmp_path, "--load", str(plugin), "show", "sgd") as run:
        until(sign.exists, "its exit")
        assert_is_stopped(run, tmp_path, signal.SIGINT, "stopped")


STOPPER = '''
"""Sends SIGTERM to its command, for a test.

Paper -> here: none.
"""

import os
import signal
from dataclasses import dataclass

import torch.distributed as dist

from laconic import Algorithm, algorithm
from laconic.compressors import dense


@algorithm("stopper")
@dataclass(frozen=True, kw_only=True)
class Stopper(Algorithm):
    """Plain gradients, and a signal."""

    source = "a test"

    def work(self, me):
        if me.rank == 0:
            os.kill(os.getppid() if dist.is_initialized() else os.getpid(), signal.SIGTERM)
        reply = yield dense(me.gradient)
        return reply.dense()

    def serve(self, server, inbox):
        return dense(inbox.mean())

    def paper_bits(self, spec, n_workers=10):
        return 32.0 * spec.d, 32.0 * spec.d
'''


@pytest.mark.parametrize("driver", [pytest.param("simulated", marks=pytest.mark.nightly), "processes"])
def test_what_a_stopped_comparison_has_finished_is_on_disk(driver, tmp_path):
    (tmp_path / "stopper.py").write_text(STOPPER)
    out = tmp_path / "runs"
    with command(
        tmp_path, "--load", str(tmp_path / "stopper.py"), "compare", "sgd", "stopper", "--driver", driver,
        "--workers", "2", "--epochs", "50", "--model", "linear", "--batch-size", "400", "--out", str(out),
    ) as run:  # fmt: skip
        assert run.wait(DEADLINE_S) == 128 + signal.SIGTERM
    assert lines_printed_in(tmp_path)[-1] == (
        f"stopped by SIGTERM; finished: sgd in {out / 'sgd'}; not finished: stopper; the same command with --resume "
        "goes on from there"
    )
    assert "Traceback" not in (tmp_path / "err").read_text()
    table = (tmp_path / "out").read_text().splitlines()
    rows = [line for line in table if ("allreduce" in line or "sharded" in line) and not line.startswith("ratio:")]
    assert [line.split()[0] for line in rows] == ["sgd"]
    assert sorted(path.name for path in out.rglob("*.*")) == [
        "config.toml",
        "metrics.csv",
        "rounds.csv",
        "summary.json",
    ]
    assert json.loads((out / "sgd" / "summary.json").read_text())["settings"]["algorithm"] == "sgd"
