"""The bench on real links: what it says where it cannot run, and of wrong arguments. What it measures, no test says."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "real_network"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(FOLDER))  # as for any script that is started
    try:
        spec = importlib.util.spec_from_file_location("real_network_run", FOLDER / "run.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["real_network_run"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))


def test_where_root_or_a_tool_is_missing_it_says_so_and_ends_well(bench, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert bench.main([]) == 0
    message = capsys.readouterr().out
    assert message.startswith("skipped: ")
    assert "root" in message or "install iproute2" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "1"], "1 must be a whole number in 2 .. 32"),
        (["--workers", "many"], "many must be a whole number in 2 .. 32"),
        (["--bandwidths", "0Mbit"], "bandwidth '0Mbit' must be above 0"),
        (["--methods", "spars"], "invalid choice: 'spars'"),
        (["--rounds-factor", "0"], "0 must be a whole number, at least 1"),
        (["--json", "/no/such/folder/x.json"], "there is no folder /no/such/folder"),
    ],
)
def test_a_wrong_argument_is_named_with_its_bound(bench, arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
