"""Joining the process group that torchrun prepared."""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from laconic.errors import LaunchError
from laconic.lab.processes.launcher import origin
from laconic.lab.processes.ranks import loopback_interface


@dataclass(frozen=True, kw_only=True)
class Place:
    """This process among those that torchrun started."""

    rank: int
    size: int
    address: str
    port: int

    @property
    def store(self) -> str:
        """Where the ranks meet."""
        return f"{self.address}:{self.port}"


def place_under_torchrun() -> Place:
    """Return what the environment variables say.

    Raises:
        LaunchError: One of them is no number, or out of its range.
    """
    numbers = {}
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"):
        text = os.environ[name]
        if not text.strip().isdecimal():
            raise LaunchError(f"the environment variable {name}={text!r} must be a whole number; {origin()} sets it")
        numbers[name] = int(text)
    rank, size, port = numbers.values()
    if size < 1:
        raise LaunchError(f"the environment variable WORLD_SIZE={size} must be at least 1; {origin()} sets it")
    if rank >= size:
        raise LaunchError(
            f"the environment variable RANK={rank} must be below WORLD_SIZE={size}: ranks are 0 .. {max(0, size - 1)}"
        )
    if not 0 < port < 1 << 16:
        raise LaunchError(f"the environment variable MASTER_PORT={port} must be a port, 1 to 65535")
    return Place(rank=rank, size=size, address=os.environ["MASTER_ADDR"], port=port)


def join_torchrun(timeout_s: float) -> int:
    """Join the process group over gloo, and return the number of processes.

    Raises:
        LaunchError: The ranks do not meet. It says where they were to, and what to look at.
    """
    place = place_under_torchrun()
    if place.address == "localhost" or place.address.startswith("127."):
        # Else the engine listens where this machine's name leads, which may be nowhere.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback_interface())
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        raise why_not_joined(place, timeout_s, error) from error
    return dist.get_world_size()


def why_not_joined(place: Place, timeout_s: float, error: Exception) -> LaunchError:
    """Return the error in one line, with what to look at."""
    where = f"rank {place.rank} of {place.size} could not join the others at {place.store}"
    text = " ".join(str(error).split("\nException raised")[0].split())
    interface = os.environ.get("GLOO_SOCKET_IFNAME")
    try:
        socket.getaddrinfo(place.address, place.port)
    except OSError as unknown:
        return LaunchError(f"{where}: MASTER_ADDR={place.address} is no address that this machine knows ({unknown})")
    if "EADDRINUSE" in text or "address already in use" in text.lower():
        return LaunchError(f"{where}: the port is in use on this machine; give all ranks another MASTER_PORT")
    if interface and ("interface" in text.lower() or "address for" in text.lower()):
        known = ", ".join(name for _, name in socket.if_nameindex())
        return LaunchError(f"{where}: GLOO_SOCKET_IFNAME={interface} is no usable interface here; there are {known}")
    if "timed out" in text.lower() or "timeout" in text.lower():
        return LaunchError(
            f"{where} within timeout_s={timeout_s:g}: were all {place.size} ranks that {origin()} speaks of started, "
            f"and can each reach that address? `laconic check`, started in the same way, says more ({text:.200})"
        )
    return LaunchError(f"{where}: {text:.300}. `laconic check`, started in the same way, says more")
