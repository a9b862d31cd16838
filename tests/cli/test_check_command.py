"""`laconic check`, and what `laconic run` says where ranks do not meet or were called with other options."""

import ctypes
import importlib.util
import json
import os
import socket
from pathlib import Path

import pytest
import torch

import laconic as laconic_package
from laconic.errors import LaunchError
from laconic.lab.check import addresses
from laconic.lab.check.links import MeasuredLink
from laconic.lab.check.ranks_check import Findings
from laconic.lab.json_text import json_text
from laconic.lab.runs.torchrun import join_torchrun
from support.command_line import laconic
from support.deadlines import DEADLINE_S, PATIENCE_S
from support.programs import Program, command

BED = Path(__file__).parents[2] / "benchmarks" / "real_network" / "bed.py"
CLONE_NEWNET = 0x40000000
PATIENCE = ("--timeout-s", str(PATIENCE_S))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def started(rank, size, port, arguments, folder, *, address="127.0.0.1", call=command, **variables):
    """A process of `laconic` as a launcher would start it."""
    variables |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": address, "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return Program(folder, f"rank {rank}", call, arguments, **variables)


def command_over_namespaces(arguments):
    """The command in the network namespace that a variable names, with the version of laconic that another one says."""
    with open(f"/run/netns/{os.environ['OF_NAMESPACE']}") as namespace:
        assert ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET) == 0
    laconic_package.__version__ = os.environ.get("OF_VERSION", laconic_package.__version__)
    command(arguments)


def ended(processes):
    """Exit code, output and errors of each process."""
    found = []
    for process in processes:
        out, err = process.communicate(timeout=DEADLINE_S)
        found.append((process.returncode, out, err))
    return found


def test_without_torchrun_it_says_how_to_start_it(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    found = laconic("check")
    assert found.code == 2
    assert "RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT" in found.err
    assert "torchrun --nnodes 2 --nproc-per-node 1 --node-rank 0" in found.err
    monkeypatch.setenv("RANK", "0")
    assert "but not WORLD_SIZE, MASTER_ADDR, MASTER_PORT: torchrun sets all four" in laconic("check").err


@pytest.mark.slow
def test_two_ranks_that_agree_are_a_line_each_with_the_link_between_them(tmp_path):
    port = free_port()
    (code, out, err), (other_code, other_out, _) = ended(
        [started(rank, 2, port, ["check", *PATIENCE], tmp_path) for rank in (0, 1)]
    )
    assert (code, other_code, other_out) == (0, 0, ""), out + err
    lines = out.splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["rank 0", "rank 1"]
    for line in lines[:2]:
        for part in (
            f"torch {torch.__version__}",
            "python 3.",
            torch.backends.cpu.get_cpu_capability(),
            "laconic 0.1.0",
        ):
            assert part in line
    assert "bit/s" in lines[1].split("to rank 0 ")[1]
    assert "bit/s" in lines[1].split("from rank 0 ")[1]
    assert "latency " in lines[1]
    assert lines[-1] == "all ranks agree and reach each other"


@pytest.fixture(scope="module")
def bed():
    spec = importlib.util.spec_from_file_location("real_network_bed", BED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if reason := module.why_not():
        pytest.skip(reason)
    with module.Bed(3) as made:
        yield made


@pytest.mark.slow
def test_over_namespaces_a_wrong_interface_and_another_version_are_each_named_with_what_to_set(bed, tmp_path):
    variables = [
        {"GLOO_SOCKET_IFNAME": "eth0"}, {"GLOO_SOCKET_IFNAME": "lo"},
        {"GLOO_SOCKET_IFNAME": "eth0", "OF_VERSION": "0.0.9"},
    ]  # fmt: skip
    ranks = [
        started(
            rank, 3, 29_577, ["check", *PATIENCE], tmp_path, address=bed.address(0), call=command_over_namespaces,
            OF_NAMESPACE=name, **variables[rank],
        )
        for rank, name in enumerate(bed.names)
    ]  # fmt: skip
    (code, out, _), (_, _, of_rank_1), (_, _, of_rank_2) = all_ended = ended(ranks)
    assert [each[0] for each in all_ended] == [1, 1, 1]
    wrong = (
        "mend: rank 1 listens at 127.0.0.1 (lo), which only its own machine reaches; rank 0 and rank 2 cannot connect "
        f"to it: set GLOO_SOCKET_IFNAME=eth0 there ({bed.address(1)}), which leads to the others"
    )
    other = "mend: rank 2 has laconic 0.0.9, rank 0 has 0.1.0: install the same version on both"
    assert wrong in out.splitlines()
    assert other in out.splitlines()
    assert [text.splitlines()[-1] for text in (of_rank_1, of_rank_2)] == [wrong, other]
    assert sum(line.startswith("rank ") for line in out.splitlines()) == 3
    assert code == 1


def test_an_interface_that_is_not_there_is_named_with_those_that_are(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth77")
    found = addresses.gloo_address()
    assert found.address == ""
    assert found.problem.startswith("GLOO_SOCKET_IFNAME=eth77: eth77 is not there; there are ")
    assert "lo (127.0.0.1)" in found.problem


def test_a_listener_is_reached_and_another_program_at_its_port_is_none():
    with addresses.Listener("127.0.0.1") as listener:
        there = ("127.0.0.1", listener.port, listener.word)
        assert addresses.reached([there, (*there[:2], "another word"), (*there[:2], "")]) == [True, False, False]
    assert addresses.reached([there]) == [False]


def test_clocks_apart_and_unlike_processors_are_remarks_and_links_have_units():
    one = {"host": "a", "laconic": "0.1.0", "torch": "2.9", "python": "3.12", "processor": "x86_64",
           "capability": "AVX2", "interface": "eth0", "address": "10.0.0.1"}  # fmt: skip
    link = MeasuredLink(0.0005, 1.25e6, 125e6, 40.0)
    (line, second) = Findings(shown=[one, one | {"host": "b"}], links={1: link}).lines
    assert second.endswith("to rank 0 1 Gbit/s  from rank 0 10 Mbit/s  latency 0.5 ms")
    assert line.split("  ")[:2] == ["rank 0", "a"]


def launched_with(monkeypatch, **variables):
    wanted = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())} | variables
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x"}, "the environment variable RANK='x' must be a whole number"),
        ({"RANK": "2"}, "RANK=2 must be below WORLD_SIZE=2"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT=99999 must be a port, 1 to 65535"),
        ({"RANK": "1", "MASTER_ADDR": "no-such-host.invalid"}, "MASTER_ADDR=no-such-host.invalid is no address that"),
        ({}, r"within timeout_s=1: were all 2 ranks that torchrun speaks of started.*`laconic check`"),
        (
            {"WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "eth77"},
            "GLOO_SOCKET_IFNAME=eth77 is no usable interface here; there",
        ),
    ],
)
def test_every_failure_to_meet_is_one_line_with_what_to_look_at(monkeypatch, variables, message):
    launched_with(monkeypatch, **variables)
    with pytest.raises(LaunchError, match=message) as refused:
        join_torchrun(1.0)
    assert "\n" not in str(refused.value)


def test_a_port_in_use_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        launched_with(monkeypatch, WORLD_SIZE="1", MASTER_PORT=str(port))
        with pytest.raises(LaunchError, match=f"at 127.0.0.1:{port}: the port is in use on this machine"):
            join_torchrun(1.0)


@pytest.mark.slow
def test_two_machines_with_other_options_learn_which_before_they_train(tmp_path):
    port = free_port()
    arguments = ["run", "-a", "sgd", "--epochs", "1", *PATIENCE]
    for code, _, err in ended(
        [started(rank, 2, port, [*arguments, "--lr", lr], tmp_path) for rank, lr in ((0, "0.1"), (1, "0.5"))]
    ):
        assert code == 2
        assert "error: rank 0 and rank 1 were set up differently: rank 0 has lr=0.1, rank 1 has lr=0.5 (sgd)" in err
        assert "Traceback" not in err


def test_what_was_found_is_json():
    link = MeasuredLink(latency_s=0.001, to_bytes_per_s=1e6, from_bytes_per_s=2e6, clock_ahead_s=0.0)
    found = Findings(shown=[{"host": "a"}, {"host": "b"}], links={1: link}, problems=[(1, "rank 1: other version")])
    data = json.loads(json_text(found.as_data()))
    assert [rank["shown"]["host"] for rank in data["ranks"]] == ["a", "b"]
    assert data["ranks"][0]["link"] is None
    assert data["ranks"][1]["link"]["latency_s"] == 0.001
    assert data["problems"] == [{"rank": 1, "problem": "rank 1: other version"}]
    assert data["agree"] is False


def test_a_check_whose_ranks_do_not_meet_prints_json_that_says_so(monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "0")):
        monkeypatch.setenv(name, value)
    ended = laconic("check", "--json", "-")
    assert ended.code == 1
    data = json.loads(ended.out)
    assert data["agree"] is False
    assert "MASTER_PORT=0 must be a port" in data["problems"][0]["problem"]
