"""Processes that torchrun, srun or mpirun has started several times are ranks of one run, or say why they cannot be."""

import pytest

from laconic.errors import LaunchError
from laconic.lab.processes.launcher import leading_host, origin, started_as_rank

SLURM = {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "77", "SLURM_LOCALID": "1"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
HYDRA = {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0"}
MVAPICH = {"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "3", "MV2_COMM_WORLD_LOCAL_SIZE": "3"}


def test_a_process_that_nothing_has_started_several_times_runs_alone():
    leftover = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "WORLD_SIZE": "1"}
    in_batch_script = {"SLURM_PROCID": "0", "SLURM_JOB_ID": "7", "SLURM_NNODES": "1"}
    in_allocation = {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}
    one_task = SLURM | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    for environment in ({}, leftover, in_batch_script, in_allocation, one_task, {"OMPI_COMM_WORLD_SIZE": "1"}):
        before = dict(environment)
        assert not started_as_rank(environment)
        assert environment == before


@pytest.mark.parametrize(
    ("environment", "rank", "size", "address"),
    [
        (SLURM | {"SLURM_NODELIST": "gpu[07-09,12],login", "SLURM_NNODES": "5"}, 1, 4, "gpu07"),
        (SLURM | {"SLURM_STEP_NODELIST": "b2", "SLURM_STEP_NUM_NODES": "2", "SLURM_NODELIST": "b1"}, 1, 4, "b2"),
        (SLURM | {"SLURM_JOB_NODELIST": "one", "SLURM_JOB_NUM_NODES": "1"}, 1, 4, "127.0.0.1"),
        (SLURM | {"MASTER_ADDR": "10.0.0.9"}, 1, 4, "10.0.0.9"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NNODES": "1"}, 1, 2, "127.0.0.1"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 1, 2, "127.0.0.1"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "MASTER_ADDR": "a"}, 1, 2, "a"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "SLURM_PROCID": "0", "SLURM_NODELIST": "n3,n4"}, 1, 2, "n3"),
        (HYDRA | {"MPI_LOCALNRANKS": "2"}, 0, 2, "127.0.0.1"),
        (MVAPICH, 0, 3, "127.0.0.1"),
    ],
)
def test_the_variables_of_a_launcher_make_a_process_one_rank_of_several(environment, rank, size, address):
    environment = dict(environment)
    assert started_as_rank(environment)
    found = {name: environment[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")}
    assert found == {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": address}
    assert 1024 < int(environment["MASTER_PORT"]) < 65536
    assert started_as_rank(environment)
    assert origin(environment) != "torchrun"


def test_all_ranks_of_a_job_find_one_port_and_another_job_another():
    ports = []
    for job, rank in (("77", "0"), ("77", "3"), ("78", "0")):
        environment = SLURM | {"SLURM_PROCID": rank, "SLURM_JOB_ID": job, "SLURM_NNODES": "1"}
        assert started_as_rank(environment)
        ports.append(environment["MASTER_PORT"])
    assert ports[0] == ports[1] != ports[2]
    environment = SLURM | {"MASTER_PORT": "29501", "SLURM_NNODES": "1"}
    assert started_as_rank(environment)
    assert environment["MASTER_PORT"] == "29501"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "0"}, "the environment has RANK=0, but not WORLD_SIZE, MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "but not WORLD_SIZE: torchrun sets all four; set what"),
        ({"WORLD_SIZE": "2"}, "but not RANK, MASTER_ADDR, MASTER_PORT"),
        ({"RANK": "", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "but not RANK"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, "mpirun -x MASTER_ADDR=HOST"),
        (HYDRA, "mpirun -genv MASTER_ADDR HOST"),
        (SLURM | {"SLURM_NODELIST": "[[", "SLURM_NNODES": "2"}, "MASTER_ADDR=HOST srun"),
        (SLURM | {"SLURM_PROCID": "x"}, "SLURM_PROCID='x' must be a whole number"),
        (SLURM | {"SLURM_NTASKS": "some"}, "SLURM_NTASKS='some' must be a whole number"),
        (SLURM | {"SLURM_PROCID": "4"}, "SLURM_PROCID=4, which must be below SLURM_NTASKS=4"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "OMPI_COMM_WORLD_SIZE='' must be a whole number"),
    ],
)
def test_what_is_missing_or_wrong_is_refused_in_one_line_and_nothing_runs_alone(environment, words):
    with pytest.raises(LaunchError) as refused:
        started_as_rank(dict(environment))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("n1", "n1"), ("n1,n2", "n1"), ("n[1-4]", "n1"), ("n[003,7-9]", "n003"), ("a-b[10-12]-ib,x", "a-b10-ib"),
        ("rack[1-2]n[05-06]", "rack1n05"), ("", ""), ("[1-2]", ""), ("n[a]", ""), ("n[1", ""), (" n1 ", "n1"),
    ],
)  # fmt: skip
def test_the_leading_host_of_a_list_is_read(nodes, host):
    assert leading_host(nodes) == host
