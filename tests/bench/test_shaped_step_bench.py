"""The bench of steps on shaped links: what it says where it cannot run, and of wrong arguments."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS = ("arguments", "bed", "ranks", "shaped_step_run")


@pytest.fixture(scope="module")
def bench():
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("shaped_step_run", BENCHMARKS / "shaped_step" / "run.py")
    module = importlib.util.module_from_spec(spec)
    try:
        sys.modules["shaped_step_run"] = module
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "1"], "workers: 1 must be a whole number in 2 .. 32"),
        (["--parameters", "many"], "parameters: many must be a whole number in 1000 .. 1000000000"),
        (["--bandwidths", "0Mbit"], "bandwidth '0Mbit' must be above 0"),
        (["--methods", "compskp"], "unknown method 'compskp'"),
        (["--json", "/no/such/folder/x.json"], "there is no folder /no/such/folder"),
    ],
)
def test_a_wrong_argument_is_named_with_its_bound(bench, arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
