"""The scripts of docs/one-process-to-many.md run and end where they should; the page shows their differences."""

import difflib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.deadlines import DEADLINE_S

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


def run(script: str, folder: Path, n_ranks: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Run a script; returns the accuracy that it prints and the model that it saves."""
    (folder / "script.py").write_text(script, encoding="utf-8")
    start = [sys.executable]
    if n_ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_ranks)]
    done = subprocess.run(
        [*start, "script.py"], cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = re.fullmatch(r"accuracy (0\.\d+)\n", done.stdout)
    assert printed, done.stdout
    return float(printed[1]), torch.load(folder / "digits.pt")["model"]


@pytest.mark.slow
def test_its_scripts_run_and_with_sgd_the_one_over_many_ends_where_ddp_ends(tmp_path):
    plain = (EXAMPLES / "one_process.py").read_text(encoding="utf-8")
    ddp = (EXAMPLES / "ddp.py").read_text(encoding="utf-8")
    many = (EXAMPLES / "many_processes.py").read_text(encoding="utf-8")
    assert many.count("laconic.ECSGD()") == 1
    assert run(plain, tmp_path, 1)[0] > 0.9
    assert run(many, tmp_path, 2)[0] > 0.9
    expected = run(ddp, tmp_path, 2)[1]
    found = run(many.replace("laconic.ECSGD()", "laconic.SGD()"), tmp_path, 2)[1]
    trained = [name for name in expected if "running" not in name and "num_batches" not in name]
    assert len(trained) == 6
    for name in trained:
        assert torch.equal(found[name], expected[name]), name
