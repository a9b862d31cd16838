"""Cells as tasks of Ray: the files that they leave on one machine, and a lost worker loses its own cell alone."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from support.command_line import laconic
from support.deadlines import DEADLINE_S

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'laconic[ray]'")
TINY = ("--model", "linear", "--workers", "2", "--batch-size", "140", "--epochs", "2", "--bandwidth", "1Mbit")
DYING = '''
import os
from dataclasses import dataclass
from pathlib import Path
import laconic

@laconic.algorithm("dying-once")
@dataclass(frozen=True, kw_only=True)
class DyingOnce(laconic.ECSGD):
    """Ends its process once, in its eighth round."""

    def work(self, me):
        journal = Path(__file__).with_suffix(".txt")
        if me.round == 7 and not journal.exists():
            journal.write_text("dead")
            os.kill(os.getpid(), 9)
        return (yield from super().work(me))
'''


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("cells/**/*") if path.is_file()}


def test_without_ray_the_extra_is_named_and_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("laconic.lab.comparison.on_ray.find_spec", lambda name: None)
    ended = laconic("compare", "sgd", "--seeds", "0", "--on", "ray", *TINY, "--out", str(tmp_path / "out"))
    assert ended.code == 2
    assert ended.err == (
        "error: --on ray: Ray is not installed here; `pip install 'laconic[ray]'` installs it, or leave --on out to "
        "train on this machine\n"
    )
    assert not (tmp_path / "out").exists()


def test_memory_of_this_machine_is_no_bound_for_a_cluster(tmp_path):
    ended = laconic("compare", "sgd", "--on", "ray", "--memory", "1GB", *TINY, "--out", str(tmp_path / "out"))
    assert ended.code == 2
    assert "--memory 1GB is of this machine, and --on ray watches the memory of each node itself" in ended.err


def compared(out, *words):
    """The command in a process of its own, since Ray stays in the one that has connected."""
    return subprocess.run(
        [sys.executable, "-m", "laconic", *words, "--out", str(out)], capture_output=True, text=True, check=False,
        timeout=DEADLINE_S,
    )  # fmt: skip


@needs_ray
@pytest.mark.nightly
def test_a_comparison_over_a_cluster_leaves_the_same_files_and_a_lost_worker_fails_its_cell_alone(tmp_path):
    (tmp_path / "dying.py").write_text(DYING)
    words = ("--load", str(tmp_path / "dying.py"), "compare", "sgd", "dying-once", "--seeds", "0,1", *TINY)
    over = compared(tmp_path / "ray", *words, "--on", "ray", "--jobs", "1")
    assert over.returncode == 2, over.stderr
    noted = json.loads((tmp_path / "ray" / "comparison.json").read_text())["cells"]
    assert [cell["state"] for cell in noted] == ["finished", "finished", "failed", "finished"], over.stderr
    assert "dying-once, resample, seed 0: its process was lost: " in over.stderr
    assert "the other cells are whole" in over.stderr
    again = compared(tmp_path / "ray", *words, "--on", "ray", "--resume")
    assert again.returncode == 0, again.stderr
    assert "3 of 4 cells are finished" in again.stderr
    here = compared(tmp_path / "here", *words)
    assert here.returncode == 0, here.stderr
    assert files_in(tmp_path / "ray") == files_in(tmp_path / "here")
