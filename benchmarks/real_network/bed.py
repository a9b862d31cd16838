"""A test bed on one machine: network namespaces around a bridge, each behind a link of a given bandwidth.

It needs root and iproute2. `close` removes everything, whatever happened before.
"""

import json
import os
import re
import shutil
import subprocess
from types import TracebackType
from typing import Self

INTERFACE = "eth0"
UNDO_S = 60.0  # maximum time to remove the bed after a signal
_SUBNET = "10.83.0"
# Above the 64 KB that the kernel sends at once; smaller bursts lose packets and do not reach the bandwidth.
_BURST = "128kb"
_QUANTUM_BYTES = 60_000  # sent per turn; without it the kernel warns that it uses a guess


class BedError(RuntimeError):
    """A command failed."""


def why_not() -> str:
    """Return why no bed can be made here, or an empty text."""
    if os.geteuid() != 0:
        return "network namespaces need root; run it as root (sudo)"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"{tool} is missing; install iproute2"
    try:
        with Bed(1):
            return ""
    except BedError as error:
        return f"this kernel does not let us: {error}"


class Bed:
    """`n` namespaces with one interface each, at the addresses 10.83.0.1 and up. A context manager."""

    def __init__(self, n: int) -> None:
        """Make the namespaces.

        Raises:
            BedError: A command failed. Everything made before is removed.
        """
        self.names = [f"laconic-{os.getpid()}-{number}" for number in range(n)]
        self._bridge = f"lc{os.getpid()}"
        try:
            _run("ip", "link", "add", self._bridge, "type", "bridge")
            _run("ip", "link", "set", self._bridge, "up")
            for number, name in enumerate(self.names):
                _run("ip", "netns", "add", name)
                outer = self._port(number)
                _run("ip", "link", "add", outer, "type", "veth", "peer", "name", INTERFACE, "netns", name)
                _run("ip", "link", "set", outer, "master", self._bridge, "up")
                _run("ip", "-n", name, "addr", "add", f"{self.address(number)}/24", "dev", INTERFACE)
                _run("ip", "-n", name, "link", "set", INTERFACE, "up")
                _run("ip", "-n", name, "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def address(self, number: int) -> str:
        """Return the address of one namespace."""
        return f"{_SUBNET}.{number + 1}"

    def shape(self, bits_per_s: tuple[float, float] | None) -> None:
        """Limit what every link sends and what it receives to these bandwidths; None removes the limits."""
        for number, name in enumerate(self.names):
            for place, (where, device) in enumerate(((("-n", name), INTERFACE), ((), self._port(number)))):
                _run("tc", *where, "qdisc", "del", "dev", device, "root", check=False)
                if bits_per_s is None:
                    continue
                bandwidth_text = f"{bits_per_s[place]:.0f}bit"
                _run("tc", *where, "qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "1")
                _run(
                    "tc", *where, "class", "add", "dev", device, "parent", "1:", "classid", "1:1", "htb",
                    "rate", bandwidth_text, "ceil", bandwidth_text, "burst", _BURST, "cburst", _BURST, "quantum",
                    str(_QUANTUM_BYTES),
                )  # fmt: skip

    def sent_bytes(self) -> list[int]:
        """Return the bytes that each interface has sent, with the headers of all layers."""
        return self._sent("bytes")

    def sent_packets(self) -> list[int]:
        """Return the packets that each interface has sent; one of them may be as large as 64 KB."""
        return self._sent("packets")

    def sent_again(self) -> list[int]:
        """Return the segments that each namespace's connections have sent once more."""
        counted = []
        for name in self.names:
            names, values = (
                line.split()[1:]
                for line in _run("ip", "netns", "exec", name, "cat", "/proc/net/snmp").splitlines()
                if line.startswith("Tcp:")
            )
            counted.append(int(dict(zip(names, values, strict=True))["RetransSegs"]))
        return counted

    def sent_by_tcp(self) -> tuple[int, int]:
        """Return the bytes that open connections between namespaces have sent, without any header, and those again."""
        totals = []
        for name in ("bytes_sent", "bytes_retrans"):
            shown = [_run("ip", "netns", "exec", each, "ss", "-tinH", "dst", f"{_SUBNET}.0/24") for each in self.names]
            totals.append(sum(int(found) for text in shown for found in re.findall(rf"\b{name}:(\d+)", text)))
        return totals[0], totals[1]

    def keep_order(self) -> None:
        """Let one processor carry all packets, in order, and TCP wait long for an answer: nothing is sent twice.

        Else a sender that goes on on another processor overtakes its own packets, and TCP takes those for lost.
        """
        for number, name in enumerate(self.names):
            for where, device in (((), self._port(number)), (("ip", "netns", "exec", name), INTERFACE)):
                _run(*where, "sh", "-c", f"echo 1 > /sys/class/net/{device}/queues/rx-0/rps_cpus")
            _run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.tcp_early_retrans=0")  # no probes
            _run("ip", "-n", name, "route", "change", f"{_SUBNET}.0/24", "dev", INTERFACE, "rto_min", "5s")

    def _sent(self, what: str) -> list[int]:
        counted = []
        for name in self.names:
            (details,) = json.loads(_run("ip", "-n", name, "-s", "-j", "link", "show", "dev", INTERFACE))
            counted.append(int(details["stats64"]["tx"][what]))
        return counted

    def close(self) -> None:
        """Remove everything that exists."""
        for number, name in enumerate(self.names):
            # This also removes the interface inside. A namespace remains without a name until its connections end.
            _run("ip", "link", "del", self._port(number), check=False)
            _run("ip", "netns", "del", name, check=False)
        _run("ip", "link", "del", self._bridge, check=False)

    def _port(self, number: int) -> str:
        return f"{self._bridge}p{number}"


def _run(*command: str, check: bool = True) -> str:
    """Run a command and return its output. Ctrl-C does not reach it, so that removal is never interrupted."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    if check and ended.returncode != 0:
        raise BedError(f"`{' '.join(command)}`: {ended.stderr.strip()}")
    return ended.stdout
