"""Processes that a command starts listen at the address that it prints, and at no other."""

import os
import re
from pathlib import Path

import pytest

from laconic.lab.processes.ranks import Ranks

pytestmark = pytest.mark.slow


def listening_at(pid: int) -> set[str]:
    """The addresses, in the kernel's hexadecimal digits, at which a process listens."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor)) if descriptor.is_symlink() else None
        sockets |= {found[1]} if found else set()
    addresses = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and parts[9] in sockets:
                addresses.add(parts[1].split(":")[0])
    return addresses


class Listening:
    """A rank that says where its process listens."""

    def addresses(self):
        return listening_at(os.getpid())


def test_the_store_and_the_ranks_listen_on_this_machine_alone():
    loopback = {"0100007F", "00000000000000000000000001000000"}
    with Ranks(2, Listening) as ranks:
        of_ranks = ranks.call("addresses")
        here = listening_at(os.getpid())
    assert here <= loopback
    assert here
    for addresses in of_ranks:
        assert addresses <= loopback
        assert addresses
