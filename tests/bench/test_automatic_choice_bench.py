"""The bench of what "auto" chooses: where it cannot run, of wrong arguments, and its verdict."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS = ("arguments", "bed", "ranks", "choice_rank", "automatic_choice_run")


@pytest.fixture(scope="module")
def bench():
    before = list(sys.path)
    folder = BENCHMARKS / "automatic_choice"
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("automatic_choice_run", folder / "run.py")
    module = importlib.util.module_from_spec(spec)
    try:
        sys.modules["automatic_choice_run"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = before
        for name in OURS:
            sys.modules.pop(name, None)


def test_where_root_or_a_tool_is_missing_it_says_so_and_ends_well(bench, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert bench.main([]) == 0
    assert capsys.readouterr().out.startswith("skipped: ")


def test_a_wrong_argument_is_named_with_its_bound(bench, capsys):
    for arguments, message in (
        (["--workers", "1"], "1 must be a whole number in 2 .. 32"),
        (["--links", "0Mbit"], "bandwidth '0Mbit' must be above 0"),
        (["--methods", "compskp"], "invalid choice: 'compskp'"),
    ):
        with pytest.raises(SystemExit):
            bench.main(arguments)
        assert message in capsys.readouterr().err


def test_a_choice_that_takes_more_than_a_tenth_longer_than_the_best_is_called_missed(bench):
    for ours, verdict in ((1.05, "reached"), (1.2, "missed")):
        seconds = {"sgd on allreduce": [3.0, 3.0], "csgd on rank0": [1.0, 1.0], "auto": [ours, ours]}
        found = {
            "chosen": "csgd on rank0", "choosing_s": 2.0, "sent_bytes": 10, "step_s": {"csgd on rank0": 1.5},
            "once": {**seconds, "ec-sgd on rank0": [9.0]}, "seconds": seconds,
        }  # fmt: skip
        line, *others = bench.lines_of("1Gbit", found)
        assert f"{ours:.2f} times that of csgd on rank0" in line
        assert line.endswith(f"at most 1.1: {verdict})")
        assert "ec-sgd on rank0: 9.0 times" in others[-1]
        assert "csgd on rank0: 1.00 times csgd on rank0; when it was chosen, 1.50" in others[1]
