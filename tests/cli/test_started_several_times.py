"""Commands that are one process refuse to be started several times, by whichever launcher."""

import pytest

from support.command_line import laconic

LAUNCHERS = {
    "torchrun": {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"},
    "srun (SLURM_PROCID)": {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"},
    "mpirun (Open MPI) (OMPI_COMM_WORLD_RANK)": {
        "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    },
}  # fmt: skip
ALONE = (
    "bench kernels", "bench step", "bench wire", "bench simulate", "bench scale", "bench compare a.json b.json",
    "plan --params 1K --workers 2 --bandwidth 1Mbit", "timeline ring --out ring.png", "reproduce sasg-table2-mnist",
)  # fmt: skip


def started_by(monkeypatch, launcher):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # what the command sets itself goes again after the test
        monkeypatch.delenv(name)
    for name, value in LAUNCHERS[launcher].items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("line", ALONE)
def test_a_command_for_one_process_is_refused_in_one_line(monkeypatch, tmp_path, line):
    monkeypatch.chdir(tmp_path)
    started_by(monkeypatch, "torchrun")
    ended = laconic(*line.split())
    command = " ".join(line.split()[: 2 if line.startswith("bench") else 1])
    assert ended.err == (
        f"error: laconic {command} is one process, and torchrun has started it several times; start it alone\n"
    )
    assert (ended.code, ended.out) == (2, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_launcher_is_named(monkeypatch, launcher):
    started_by(monkeypatch, launcher)
    assert f"{launcher} has started it several times" in laconic("bench", "wire").err


def test_what_only_shows_a_text_may_be_started_several_times(monkeypatch):
    started_by(monkeypatch, "torchrun")
    assert laconic("list").code == 0
