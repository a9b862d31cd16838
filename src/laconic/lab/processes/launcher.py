"""Which launcher has started this process as one of several: torchrun, or srun or mpirun, whose variables are taken up.

Nothing here imports torch. A process that is one of N never runs alone: N runs would write the same files.
"""

import os
import re
import zlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from laconic.errors import LaunchError
from laconic.lab.defaults import LAUNCHER_VARIABLES

_LOOPBACK = "127.0.0.1"
_LOWEST_PORT, _N_PORTS = 20000, 20000  # below those that systems give to connections


@dataclass(frozen=True, kw_only=True)
class _Launcher:
    """The variables of one launcher."""

    name: str
    rank: str
    sizes: tuple[str, ...]
    """The first that is set holds the number of processes."""
    local_rank: str
    local_size: str
    """Processes on this machine; if it is that of all, there is one machine."""
    job: tuple[str, ...]
    """What is the same in all processes of one job, and different in another one."""
    passes: str
    """How the launcher passes on a variable of the environment."""
    is_in_batch_scripts: bool = False
    """Whether a script that runs once has a rank too."""


# A launcher's processes may have the variables of the job in which it runs: it comes before srun.
_LAUNCHERS = (
    _Launcher(
        name="mpirun (Open MPI)", rank="OMPI_COMM_WORLD_RANK", sizes=("OMPI_COMM_WORLD_SIZE",),
        local_rank="OMPI_COMM_WORLD_LOCAL_RANK", local_size="OMPI_COMM_WORLD_LOCAL_SIZE",
        job=("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"), passes="mpirun -x MASTER_ADDR=HOST",
    ),
    _Launcher(
        name="mpirun (MVAPICH)", rank="MV2_COMM_WORLD_RANK", sizes=("MV2_COMM_WORLD_SIZE",),
        local_rank="MV2_COMM_WORLD_LOCAL_RANK", local_size="MV2_COMM_WORLD_LOCAL_SIZE",
        job=("PMI_ID", "MPIRUN_ID"), passes="mpirun -genv MASTER_ADDR HOST",
    ),
    _Launcher(
        name="mpirun", rank="PMI_RANK", sizes=("PMI_SIZE",), local_rank="MPI_LOCALRANKID",
        local_size="MPI_LOCALNRANKS", job=("PMI_PORT",),
        passes="mpirun -genv MASTER_ADDR HOST",
    ),
    _Launcher(
        name="srun", rank="SLURM_PROCID", sizes=("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"),
        local_rank="SLURM_LOCALID", local_size="", job=("SLURM_JOB_ID", "SLURM_STEP_ID"),
        passes="MASTER_ADDR=HOST srun", is_in_batch_scripts=True,
    ),
)  # fmt: skip


def started_as_rank(environment: MutableMapping[str, str] | None = None) -> bool:
    """Return whether a launcher has started this process as one of several.

    Afterwards the variables of torchrun are set, whichever launcher it was.

    Raises:
        LaunchError: Some of the variables are missing or wrong, or nothing says where the processes are to meet.
    """
    environment = os.environ if environment is None else environment
    given = [name for name in LAUNCHER_VARIABLES if environment.get(name)]
    if len(given) == len(LAUNCHER_VARIABLES):
        return True
    if "RANK" in given or environment.get("WORLD_SIZE", "1").strip() not in ("", "1"):
        raise _half_set(environment, given)
    launcher = next((one for one in _LAUNCHERS if _value(environment, one.rank)), None)
    if launcher is None:
        return False
    size_name = next((name for name in launcher.sizes if _value(environment, name)), "")
    if not size_name and launcher.is_in_batch_scripts:
        return False
    size_name = size_name or launcher.sizes[0]
    rank, size = _number(environment, launcher.rank, launcher), _number(environment, size_name, launcher)
    if size == 1:
        return False
    if rank >= size:
        raise LaunchError(f"{launcher.name} has set {launcher.rank}={rank}, which must be below {size_name}={size}")
    address = environment.get("MASTER_ADDR") or _address(environment, launcher, size)
    port = environment.get("MASTER_PORT") or str(_port(environment, launcher))
    environment.update({"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": address, "MASTER_PORT": port})
    if local_rank := _value(environment, launcher.local_rank):
        environment["LOCAL_RANK"] = local_rank
    return True


def origin(environment: Mapping[str, str] | None = None) -> str:
    """Return what set a process's rank, for messages: "torchrun", or another launcher with its variables."""
    environment = os.environ if environment is None else environment
    for one in _LAUNCHERS:
        if environment.get(one.rank) and environment.get(one.rank) == environment.get("RANK"):
            return f"{one.name} ({one.rank})"
    return "torchrun"


def leading_host(nodes: str) -> str:
    """Return the first host of a list of SLURM's, such as "gpu[07-09,12],login"; empty if it cannot be read."""
    name = re.match(r"[^,\[\]\s]+", nodes.strip())
    if name is None:
        return ""
    host, rest = name.group(), nodes.strip()[name.end() :]
    while group := re.match(r"\[(\d+)[^\[\]]*\]([^,\[\]\s]*)", rest):  # several for racks: rack[1-2]node[3-4]
        host += group.group(1) + group.group(2)
        rest = rest[group.end() :]
    return host if not rest or rest.startswith(",") else ""


def _half_set(environment: Mapping[str, str], given: list[str]) -> LaunchError:
    missing = [name for name in LAUNCHER_VARIABLES if name not in given]
    has = ", ".join(f"{name}={environment[name]}" for name in given)
    to_unset = " and ".join(name for name in given if name in ("RANK", "WORLD_SIZE"))
    return LaunchError(
        f"the environment has {has}, but not {', '.join(missing)}: torchrun sets all four; set what is missing, or "
        f"unset {to_unset} to run alone"
    )


def _address(environment: Mapping[str, str], launcher: _Launcher, size: int) -> str:
    """Return the address of rank 0's machine.

    Raises:
        LaunchError: It is not known.
    """
    if _value(environment, launcher.local_size) == str(size):
        return _LOOPBACK
    for count, names in (("SLURM_STEP_NUM_NODES", "SLURM_STEP_NODELIST"), ("SLURM_NNODES", "SLURM_NODELIST"),
                         ("SLURM_JOB_NUM_NODES", "SLURM_JOB_NODELIST")):  # fmt: skip
        if environment.get(count) == "1":
            return _LOOPBACK
        if host := leading_host(environment.get(names, "")):
            return host
    raise LaunchError(
        f"{launcher.name} has started this process as one of {size} ({launcher.rank}={environment[launcher.rank]}), "
        f"and nothing says on which machine rank 0 is: start all with `{launcher.passes} ...`, HOST being the first "
        "machine (127.0.0.1 if there is one), or use torchrun"
    )


def _port(environment: Mapping[str, str], launcher: _Launcher) -> int:
    """Return a port that all processes of one job find, and another job hardly does."""
    job = [environment.get(name, "") for name in launcher.job]
    return _LOWEST_PORT + zlib.crc32(" ".join(job).encode("utf-8", "replace")) % _N_PORTS


def _value(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip()


def _number(environment: Mapping[str, str], name: str, launcher: _Launcher) -> int:
    text = _value(environment, name)
    if not text.isdecimal():
        raise LaunchError(
            f"{launcher.name} has set {launcher.rank}={environment[launcher.rank]}, so this process is one of several, "
            f"but {name}={text!r} must be a whole number; unset {launcher.rank} to run alone"
        )
    return int(text)
