"""The check of all ranks: versions, processors, addresses, links; what is wrong, and what to mend.

The ranks meet through the store alone, so that what keeps gloo from connecting them can still be said.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, field
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from laconic.drivers.distributed.agreement import environment, versions
from laconic.drivers.distributed.meeting import Meeting
from laconic.lab.check.addresses import Listener, address_towards, gloo_address, is_loopback, reached
from laconic.lab.check.links import MeasuredLink, answer, measure
from laconic.lab.runs.torchrun import Place, place_under_torchrun, why_not_joined
from laconic.torch_compat import PrefixStore, Store, TCPStore, open_store

_PURPOSE = "to be checked"
_MAX_BYTES = 1 << 16
_MAX_CLOCKS_APART_S = 1.0
_MEASURED_S = 5.0  # for the link of one rank, at most, on links of a few kilobytes a second and faster

Shown = Mapping[str, str]
"""What a rank shows the others about itself."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the check has found."""

    shown: Sequence[Shown]
    """By rank."""
    links: Mapping[int, MeasuredLink] = field(default_factory=dict)
    """Of rank 0 with each other rank, where it could be measured."""
    problems: Sequence[tuple[int, str]] = ()
    """What is wrong, with the rank to mend."""
    remarks: Sequence[str] = ()
    """What is unlike and may be so."""

    def as_data(self) -> dict[str, Any]:
        """Return what was found, for JSON: by rank what it has shown and its link with rank 0, and what is wrong."""
        ranks = [
            {"rank": rank, "shown": dict(shown),
             "link": asdict(self.links[rank]) if rank in self.links else None}
            for rank, shown in enumerate(self.shown)
        ]  # fmt: skip
        problems = [{"rank": rank, "problem": problem} for rank, problem in self.problems]
        return {"ranks": ranks, "problems": problems, "remarks": list(self.remarks), "agree": not self.problems}

    @property
    def lines(self) -> list[str]:
        """One line a rank, in columns."""
        rows = [self._row(rank, shown) for rank, shown in enumerate(self.shown)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]

    def _row(self, rank: int, shown: Shown) -> list[str]:
        link = self.links.get(rank)
        measured = ["", "", ""]
        if link is not None:
            measured = [
                f"to rank 0 {_bits(link.from_bytes_per_s)}", f"from rank 0 {_bits(link.to_bytes_per_s)}",
                f"latency {1e3 * link.latency_s:.3g} ms",
            ]  # fmt: skip
        elif rank > 0:
            measured = ["not connected", "", ""]
        return [
            f"rank {rank}", shown["host"], f"laconic {shown['laconic']}", f"torch {shown['torch']}",
            f"python {shown['python']}", f"{shown['processor']} {shown['capability']}",
            f"{shown['interface'] or 'no interface'} {shown['address'] or '-'}", *measured,
        ]  # fmt: skip


def check_ranks(timeout_s: float, show: Callable[[Findings], None]) -> Findings:
    """Check all ranks that torchrun started. Collective; every rank gets the same findings.

    Args:
        timeout_s: how long to wait for another rank, in seconds.
        show: gets rank 0's findings, before any rank goes on.

    Raises:
        LaunchError: this rank cannot reach the store at which the ranks meet.
        PeerLostError: naming the ranks that did not come.
    """
    place = place_under_torchrun()
    store = _open_store(place, timeout_s)
    meeting = Meeting(store, range(place.size), place.rank, "check")
    with ExitStack() as until_reached:
        mine = _shown_by_this_rank(place, until_reached)
        gathered = meeting.gather(mine, _PURPOSE, {str: str}, _MAX_BYTES, timeout_s)
        shown = [dict.fromkeys(mine, "") | one for one in gathered]  # another version may show other things
        listeners = [(one["address"], int(one["port"] or 0), one["word"]) for one in shown]
        answers: list[Any] = meeting.gather(reached(listeners), _PURPOSE, [bool], _MAX_BYTES, timeout_s)
    problems = [*_of_versions(shown), *_of_addresses(shown, answers)]
    links, failed = _measured(store, place, timeout_s) if all(map(all, answers)) else ([], "")
    ended: list[Any] = meeting.gather(
        {"links": links, "failed": failed}, _PURPOSE, {"links": [(int, float, float, float, float)], "failed": str},
        _MAX_BYTES, timeout_s + _MEASURED_S * place.size,
    )  # fmt: skip
    problems += [(rank, f"rank {rank}: {one['failed']}") for rank, one in enumerate(ended) if one["failed"]]
    by_rank = {int(rank): MeasuredLink(*figures) for rank, *figures in ended[0]["links"]}
    found = Findings(shown=shown, links=by_rank, problems=problems, remarks=_remarks(shown, by_rank))
    if place.rank == 0:
        show(found)
    meeting.gather("", _PURPOSE, str, _MAX_BYTES, timeout_s)  # a launcher ends all ranks when one has failed
    meeting.linger()
    return found


def _open_store(place: Place, timeout_s: float) -> Store:
    opens = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        if opens:
            return open_store(place.address, place.port, timeout_s)
        return TCPStore(
            place.address, place.port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=timeout_s)
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise why_not_joined(place, timeout_s, error) from error


def _shown_by_this_rank(place: Place, until_reached: ExitStack) -> Shown:
    """Return what this rank shows. Where it has an address, it listens there for as long as the stack is open."""
    here, route = gloo_address(), address_towards(place.address, place.port)
    port = word = ""
    problem = here.problem
    if here.address:
        try:
            listener = until_reached.enter_context(Listener(here.address))
            port, word = str(listener.port), listener.word
        except OSError as error:
            problem = f"{here.interface} ({here.address}): this machine cannot listen there: {error}"
    return versions() | environment() | {
        "host": socket.gethostname(), "interface": here.interface, "address": here.address, "problem": problem,
        "port": port, "word": word, "route interface": route.interface, "route address": route.address,
    }  # fmt: skip


def _of_versions(shown: Sequence[Shown]) -> list[tuple[int, str]]:
    problems = []
    for rank, one in enumerate(shown):
        for name in (*versions(), "torch"):
            of_rank_0, other = (each[name].partition("+")[0] for each in (shown[0], one))  # 2.6.0+cpu is 2.6.0
            if of_rank_0 != other:
                problems.append(
                    (rank, f"rank {rank} has {name} {other}, rank 0 has {of_rank_0}: install the same version on both")
                )
                break
    return problems


def _of_addresses(shown: Sequence[Shown], answers: Sequence[Sequence[bool]]) -> list[tuple[int, str]]:
    """Return which ranks have no address that others reach, and what each has to set."""
    problems = []
    for rank, one in enumerate(shown):
        mend = "set GLOO_SOCKET_IFNAME there to an interface that the others reach"
        if one["route address"]:
            route = f"{one['route interface']} there ({one['route address']})"
            mend = f"set GLOO_SOCKET_IFNAME={route}, which leads to the others"
        if one["problem"]:
            problems.append((rank, f"rank {rank}: {one['problem']}; {mend}"))
            continue
        outside = [other for other, reaches in enumerate(answers) if not reaches[rank]]
        if not outside:
            continue
        if one["address"] == one["route address"] and not is_loopback(one["address"]):
            mend = "let no firewall close the ports between the two, or see which interface the other one should use"
        only = ", which only its own machine reaches" if is_loopback(one["address"]) else ""
        problems.append(
            (
                rank,
                f"rank {rank} listens at {one['address']} ({one['interface']}){only}; "
                f"{' and '.join(f'rank {other}' for other in outside)} cannot connect to it: {mend}",
            )
        )
    return problems


def _measured(store: Store, place: Place, timeout_s: float) -> tuple[list[Any], str]:
    """Connect the ranks by gloo, and measure. Returns rank 0's figures, and what went wrong on this rank."""
    try:
        dist.init_process_group(
            "gloo", store=PrefixStore("gloo", store), rank=place.rank, world_size=place.size,
            timeout=timedelta(seconds=timeout_s),
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        return [], str(why_not_joined(place, timeout_s, error))
    links = []
    try:
        if place.rank > 0:
            answer()
        for peer in range(1, place.size) if place.rank == 0 else ():
            links.append([peer, *astuple(measure(peer))])
    except RuntimeError as error:
        return links, f"the connection by gloo was lost: {error!s:.200}"
    dist.destroy_process_group()
    return links, ""


def _remarks(shown: Sequence[Shown], links: Mapping[int, MeasuredLink]) -> list[str]:
    remarks = []
    for name in environment():
        unlike = [rank for rank, one in enumerate(shown) if one[name] != shown[0][name]]
        if unlike:
            remarks.append(
                f"{name} is {shown[0][name]} on rank 0 and {shown[unlike[0]][name]} on rank {unlike[0]}: they may "
                "round differently, which is put right during training"
            )
    for rank, link in links.items():
        if abs(link.clock_ahead_s) > _MAX_CLOCKS_APART_S:
            remarks.append(
                f"rank {rank}'s clock is {link.clock_ahead_s:+.0f} s from rank 0's: logs will not fit; set it by NTP"
            )
    return remarks


def _bits(bytes_per_s: float) -> str:
    bits = 8 * bytes_per_s
    for size, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s")):
        if bits >= size:
            return f"{bits / size:.3g} {unit}"
    return f"{bits / 1e3:.3g} kbit/s"
