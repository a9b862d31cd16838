"""The interface and address at which gloo listens on this machine, found as gloo finds them, and who reaches them."""

import os
import secrets
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

_REACH_S = 3.0  # to open one connection
_AT_ONCE = 16  # connections
_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where gloo listens on this machine."""

    interface: str = ""
    address: str = ""
    problem: str = ""
    """Why there is none, and what to do about it; empty if there is one."""


def interfaces() -> dict[str, str]:
    """Return this machine's interfaces that have an address, with it: IPv4 where there is one."""
    import fcntl  # not on every system that imports this file for its help

    found = {}
    with suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            digits, _, _, scope, _, name = line.split()
            if scope == "00":  # global
                found[name] = str(ip_address(bytes.fromhex(digits)))
    for _, name in socket.if_nameindex():
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def gloo_address() -> Address:
    """Return where gloo listens: at GLOO_SOCKET_IFNAME, else where this machine's name leads, else at the loopback."""
    known = interfaces()
    wanted = os.environ.get("GLOO_SOCKET_IFNAME", "")
    if wanted:
        for name in wanted.split(","):
            if name not in known:
                has = "has no address" if name in [name for _, name in socket.if_nameindex()] else "is not there"
                there = ", ".join(f"{name} ({address})" for name, address in known.items())
                return Address(interface=name, problem=f"GLOO_SOCKET_IFNAME={wanted}: {name} {has}; there are {there}")
        name = wanted.split(",", maxsplit=1)[0]
        return Address(interface=name, address=known[name])
    usable = _usable_address_of(socket.gethostname()) or _LOOPBACK
    return Address(interface=_interface_with(usable, known), address=usable)


def address_towards(host: str, port: int) -> Address:
    """Return the interface and address from which this machine reaches a host; nothing sent. Empty if there is none."""
    with suppress(OSError):
        for family, kind, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind) as asking:
                asking.connect(place)
                address = asking.getsockname()[0]
                return Address(interface=_interface_with(address, interfaces()), address=address)
    return Address()


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an address."""
    return bool(address) and ip_address(address.partition("%")[0]).is_loopback


def _usable_address_of(name: str) -> str:
    """Return the first address of a name at which this machine can listen."""
    with suppress(OSError):
        for family, kind, _, _, place in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM):
            with suppress(OSError), socket.socket(family, kind) as trying:
                trying.bind(place)
                return str(place[0])
    return ""


def _interface_with(address: str, known: Mapping[str, str]) -> str:
    if is_loopback(address):
        return "lo"
    return next((name for name, other in known.items() if other == address), "?")


class Listener:
    """Answers everyone who connects with a word that no other program has. A context manager."""

    def __init__(self, address: str) -> None:
        """Listen at an address of this machine, at any free port. Raises OSError."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, 0), family=family)
        self.port: int = self._socket.getsockname()[1]
        self.word = secrets.token_hex(16)
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        with suppress(OSError):  # the end of the listener
            while True:
                caller, _ = self._socket.accept()
                with suppress(OSError), caller:
                    caller.settimeout(_REACH_S)
                    caller.sendall(self.word.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # ends `accept`
        self._socket.close()


def reached(listeners: Sequence[tuple[str, int, str]]) -> list[bool]:
    """Return which listeners answer. Each is an address, a port and the word to expect; those without one do not."""
    with ThreadPoolExecutor(_AT_ONCE) as calling:
        return list(calling.map(_reaches, listeners))


def _reaches(listener: tuple[str, int, str]) -> bool:
    address, port, word = listener
    if not word:
        return False
    try:
        with socket.create_connection((address, port), _REACH_S) as connection:
            answer = b""
            while len(answer) < len(word) and (part := connection.recv(len(word))):
                answer += part
            return answer == word.encode()
    except OSError:
        return False
