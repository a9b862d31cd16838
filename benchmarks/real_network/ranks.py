"""One process per namespace of a bed, each with an object whose methods are called from here."""

from collections.abc import Callable
from typing import Any

from bed import INTERFACE, Bed

from laconic.lab.processes.ranks import Host, Ranks

TIMEOUT_S = 300.0
_PORT = 29_571


def ranks_in(bed: Bed, make: Callable[[], Any], *, each: int = 1) -> Ranks:
    """Start ranks, `each` of them in every namespace, with the object that `make()` returns: a context manager."""
    environment = {"GLOO_SOCKET_IFNAME": INTERFACE, "OMP_NUM_THREADS": "1"}
    hosts = [
        Host(prefix=("ip", "netns", "exec", name), environment=environment) for name in bed.names for _ in range(each)
    ]
    return Ranks(len(hosts), make, timeout_s=TIMEOUT_S, hosts=hosts, address=bed.address(0), port=_PORT)
