"""The scripts of docs/one-process-to-many.md run and end where they should; the page shows their differences."""

import contextlib
import difflib
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from laconic.torch_compat import open_store
from support.deadlines import DEADLINE_S
from support.programs import Program

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs/examples"
PAGE = (ROOT / "docs/one-process-to-many.md").read_text(encoding="utf-8")
DIFF = re.compile(r"<!-- diff (\S+) (\S+) -->\n```diff\n(.*?)```", re.DOTALL)


def test_the_page_shows_how_its_scripts_differ():
    shown = DIFF.findall(PAGE)
    assert len(shown) == 2
    for before, after, text in shown:
        one, other = ((ROOT / path).read_text(encoding="utf-8").splitlines() for path in (before, after))
        differences = list(difflib.unified_diff(one, other, lineterm="", n=2))[2:]
        assert text.splitlines() == differences, f"{before} to {after}: write it into the page anew"


def fresh(scripts: dict[str, str], folder: Path, n_ranks: int) -> None:
    """Run each script under torchrun, or alone."""
    for name, script in scripts.items():
        start = [sys.executable]
        if n_ranks > 1:
            start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_ranks)]
        (folder / name).mkdir()
        (folder / name / "script.py").write_text(script, encoding="utf-8")
        done = subprocess.run(
            [*start, "script.py"], cwd=folder / name, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 0, done.stderr
        (folder / name / "printed").write_text(done.stdout)


def forked(scripts: dict[str, str], folder: Path, n_ranks: int) -> None:
    """Run them one after the other in one process a rank, with the variables that torchrun sets."""
    stores = [open_store("127.0.0.1", 0, DEADLINE_S) for _ in scripts]  # as the agents of torchrun do
    there = {
        "WORLD_SIZE": str(n_ranks), "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }  # fmt: skip
    ports = [store.port for store in stores]
    for name, script in scripts.items():
        (folder / name).mkdir()
        (folder / name / "script.py").write_text(script, encoding="utf-8")
    ranks = [
        Program(folder, f"{n_ranks}-{rank}", run_scripts, folder, list(scripts), ports, RANK=str(rank), **there)
        for rank in range(n_ranks)
    ]
    written = [rank.communicate(timeout=DEADLINE_S) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * n_ranks, written


# What scripts leave. Where torch 2.13 frees a DistributedDataParallel it waits, with Python's lock, for gloo's thread,
# which may wait for that lock to drop the last sum of a backward pass.
LEFT: list[dict[str, Any]] = []


def run_scripts(folder: Path, names: list[str], ports: list[int]) -> None:
    for name, port in zip(names, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        os.chdir(folder / name)
        with open("printed", "a") as printed, contextlib.redirect_stdout(printed):
            LEFT.append(runpy.run_path("script.py", run_name="__main__"))


def result(folder: Path) -> tuple[float, dict[str, torch.Tensor]]:
    """The accuracy that a script has printed, once, and the model that it has saved."""
    text = (folder / "printed").read_text()
    printed = re.fullmatch(r"accuracy (0\.\d+)\n", text)
    assert printed, text
    return float(printed[1]), torch.load(folder / "digits.pt")["model"]


@pytest.mark.slow
@pytest.mark.parametrize("run", [forked, pytest.param(fresh, marks=pytest.mark.nightly)])
def test_its_scripts_run_and_with_sgd_the_one_over_many_ends_where_ddp_ends(run, tmp_path):
    plain = (EXAMPLES / "one_process.py").read_text(encoding="utf-8")
    ddp = (EXAMPLES / "ddp.py").read_text(encoding="utf-8")
    many = (EXAMPLES / "many_processes.py").read_text(encoding="utf-8")
    assert many.count("laconic.ECSGD()") == 1
    run({"plain": plain}, tmp_path, 1)
    run({"many": many, "ddp": ddp, "sgd": many.replace("laconic.ECSGD()", "laconic.SGD()")}, tmp_path, 2)
    assert result(tmp_path / "plain")[0] > 0.9
    assert result(tmp_path / "many")[0] > 0.9
    expected, found = result(tmp_path / "ddp")[1], result(tmp_path / "sgd")[1]
    trained = [name for name in expected if "running" not in name and "num_batches" not in name]
    assert len(trained) == 6
    for name in trained:
        assert torch.equal(found[name], expected[name]), name
