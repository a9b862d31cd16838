"""How a rank of a channel gives up: it finds out which ranks are missing, and lets no other rank wait for it.

A rank is waited for until `timeout_s` have passed. Finding out who is missing comes after that, and is bounded.
"""

import contextlib
import datetime
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.drivers.distributed.device_channel import DeviceChannel
from laconic.drivers.distributed.door import door
from laconic.drivers.distributed.engine_errors import is_of_the_network, is_timeout
from laconic.drivers.distributed.failure_report import FailureReport, How, Note
from laconic.drivers.distributed.verdict import lost_error, names_of, text_of
from laconic.errors import ClosedError, PayloadsLostError, PeerLostError
from laconic.torch_compat import default_store, new_named_group, wait_until
from laconic.wire import Encoded

_LONGEST_SEARCH_S = 15.0  # for those who are missing, and
_SHORTEST_SEARCH_S = 2.0
_LONGEST_DETOUR_S = 10.0  # of an answer whose server had to wait for another rank just before the timeout, and
_SHORTEST_DETOUR_S = 1.0
_ENGINE_MARGIN_S = 2.0  # between our deadline and the engine's own
_PROBE_TAG = 1  # frames travel under tag 0
_FAREWELL_S = 10.0  # for a server that takes a worker's last frame
_CLOSING_S = 0.5  # between the ends of a dead rank's connections in two groups
_CLOSING_POLL_S = 0.02
_CALL = re.compile(r"\w+\(\)")  # with which a purpose outside of step() begins


def is_call(purpose: str) -> bool:
    """Return whether a purpose is of a call outside of `step()`."""
    return _CALL.match(purpose) is not None


class GivingUp:
    """The group of a channel, and what becomes of it when a rank is lost."""

    device_channel: DeviceChannel | None
    control_bytes: int

    def __init__(self, group: dist.ProcessGroup | Sequence[int] | None, timeout_s: float) -> None:
        """Make the group; see `Channel`."""
        ranks = list(group) if isinstance(group, Sequence) else dist.get_process_group_ranks(group or dist.group.WORLD)
        self._global_ranks = ranks
        self.timeout_s = timeout_s
        self.patience_s = timeout_s + min(_LONGEST_DETOUR_S, max(_SHORTEST_DETOUR_S, timeout_s / 8))
        """How long a message is waited for, seconds: its sender may itself have waited for a rank that was late."""
        self.rank = ranks.index(dist.get_rank())
        self.size = len(ranks)
        self.rounds = 0
        """Number of rounds that this rank has ended, for messages."""
        self.unit = "step"
        """What a round is called in messages: "round" where it has several steps."""
        self._began_s = time.monotonic()  # when this rank began to wait
        self._unsent: RuntimeError | None = None  # why a frame could not be sent, if the round could go on without
        self._gave_up = ""  # where, if it did
        self.goodbye: tuple[int, Callable[[int], Encoded]] | None = None
        """The server to say goodbye to, and what makes the frame of a number of rounds; None without such a server."""
        self.door = door()
        """What the user called to make this."""
        making = f"{self.door.call}: for all ranks to {self.door.each}"
        try:
            self._failure_report = FailureReport(default_store(), ranks, self.rank)
        except RuntimeError as error:
            raise PeerLostError(
                f"the store that the process group was made with is gone, and with it the process that hosts it: "
                f"global rank 0, or the launcher ({making}): {error!s:.200}"
            ) from error
        try:
            timeout = datetime.timedelta(seconds=self.patience_s + _ENGINE_MARGIN_S)
            self.group = new_named_group(ranks, "gloo", self._failure_report.channel_name, timeout)
        except RuntimeError as error:
            raise self._unmade(making, error) from error

    def _unmade(self, making: str, error: RuntimeError) -> Exception:
        """Return the error to raise where the group could not be made."""
        if not is_of_the_network(error) and not self._store_is_gone():
            return error
        note = Note(how="timeout", where=self.door.call.removesuffix("()"), purpose=making, awaited=self._others())
        self._failure_report.write(note)
        found = self._failure_report.collect(note, self._search_s)
        lost = list(found.host) or list(found.silent)
        with contextlib.suppress(RuntimeError):
            absent = self._failure_report.absent()
            if absent:
                return PeerLostError(
                    f"{self._named(absent)} was waited for ({self.door.purpose}), but did not come within "
                    f"timeout_s={self.timeout_s:g}; every rank of the group must {self.door.each}"
                )
        if not lost:
            return PeerLostError(
                f"no rank is missing, but the ranks did not reach each other ({making}): {error!s:.300}"
            )
        return PeerLostError(
            f"{self._named(lost)} was waited for ({making}), but has died or hangs since it began to {self.door.each}. "
            "Look at that rank's own output"
        )

    def _store_is_gone(self) -> bool:
        try:
            self._failure_report.absent()
        except RuntimeError:
            return True
        return False

    @property
    def _search_s(self) -> float:
        return min(_LONGEST_SEARCH_S, max(_SHORTEST_SEARCH_S, self.timeout_s / 4))

    def _look(self, peers: Iterable[int]) -> None:
        """Raise RuntimeError if the connection to one of the peers has closed."""
        for peer in peers:
            self._probe(peer)

    def _probe(self, peer: int) -> dist.Work | None:
        """Post a receive that no message answers. Raises RuntimeError if the connection has closed."""
        return dist.irecv(torch.empty(1), self._global_ranks[peer], self.group, tag=_PROBE_TAG)

    def _note_unsent(self, peer: int, error: RuntimeError) -> None:
        """Keep the error of a frame that could not be sent to a lost rank; raise any other error."""
        if not is_of_the_network(error):
            raise error
        self._unsent = self._unsent or error

    def give_up(self, error: BaseException, purpose: str) -> None:
        """Tell the others that this rank ends a round with an error, and let none of them wait for it."""
        if not self._gave_up:
            self._hang_up("raised", purpose, (), cause=text_of(error))
            self._abandon()

    def _give_up(self, purpose: str, error: RuntimeError, awaited: Sequence[int]) -> NoReturn:
        """Find out which ranks are missing, and let no rank wait for this one.

        Args:
            purpose: for the error.
            error: what the engine raised.
            awaited: the ranks that this one waited for.

        Raises:
            PeerLostError: if a rank is lost.
            RuntimeError: the given one, if it says nothing of other ranks.
        """
        if self._gave_up:
            raise PeerLostError(f"this rank has given up before, {self._gave_up}") from error
        if not is_of_the_network(error) and not self._probe_all()[0]:
            self.give_up(error, purpose)
            raise error
        how: How = "timeout" if is_timeout(error) else "closed"
        of_device = isinstance(error, PayloadsLostError)
        mine = self._hang_up(
            how, purpose, awaited, _CLOSING_S if of_device else 0.0, is_open=of_device or how == "closed"
        )
        self._abandon()
        found = self._failure_report.collect(mine, self._search_s)
        raise lost_error(found, self._named, self.timeout_s) from error

    def _give_up_elsewhere(self, purpose: str) -> NoReturn:
        """Give up since other ranks are in another call."""
        mine = self._hang_up("elsewhere", purpose, self._others())
        self._abandon()
        raise lost_error(self._failure_report.collect(mine, self._search_s), self._named, self.timeout_s)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - only for what is missing: the group that was left
        if name == "group":
            raise ClosedError(self.door.closed)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def end(self) -> None:
        """End this rank's part in order, unless an error ends this process. Not collective."""
        is_interactive = hasattr(sys, "ps1")  # there, an earlier error does not end it
        ending = None if is_interactive else getattr(sys, "last_value", None)
        self.sign_off(ending)
        if ending is None:  # else there may be work that nobody ends any more
            self.destroy_groups()

    def destroy_groups(self) -> None:
        """Destroy the groups of this channel, with their threads and descriptors. Not collective."""
        groups = [vars(self).pop("group", None), self.device_channel and self.device_channel.group]
        self.device_channel = None
        while groups:
            group = groups.pop()
            if group is not None:
                with contextlib.suppress(ValueError, RuntimeError, AssertionError):  # the user has destroyed all
                    dist.destroy_process_group(group)

    def sign_off(self, ending: BaseException | None) -> None:
        """Tell the others that this rank takes no further part, and the error that ends it, if one does."""
        if not self._gave_up:
            if ending is None:
                self.say_goodbye()
            cause = "" if ending is None else text_of(ending)
            self._gave_up = f"after {self._count()}"
            self._failure_report.write(Note(how="ended", where=self._gave_up, cause=cause, rounds=self.rounds))

    def say_goodbye(self) -> None:
        """Tell an asynchronous server that this worker takes no further step, so that it waits for none.

        The server may have ended, too, and is not waited for longer than some seconds. Other methods say nothing.
        """
        if self.goodbye is not None and not self._gave_up:
            (server, frame_after), self.goodbye = self.goodbye, None
            data = frame_after(self.rounds)
            assert isinstance(data, Tensor), "a control frame is not split"
            self.control_bytes += data.numel()
            with contextlib.suppress(RuntimeError, ValueError):  # the user may have taken down all groups
                wait_until(dist.isend(data, self._global_ranks[server], self.group), time.monotonic() + _FAREWELL_S)

    def _count(self) -> str:
        return f"{self.rounds} {self.unit}{'' if self.rounds == 1 else 's'}"

    def _where(self, purpose: str) -> str:
        call = _CALL.match(purpose)
        return f"in {call[0]}" if call else f"in {self.unit} {self.rounds + 1}"

    def _hang_up(
        self,
        how: How,
        purpose: str,
        awaited: Sequence[int],
        patience_s: float = 0.0,
        *,
        cause: str = "",
        is_open: bool = True,
    ) -> Note:
        """Write this rank's note, then close its connections, so that ranks waiting for it learn it at once.

        Args:
            how: as in the note.
            purpose: as in the note.
            awaited: as in the note.
            patience_s: how long to wait, in seconds, for a connection that is expected to close.
            cause: as in the note.
            is_open: whether the connections are still open; after a timeout the engine has closed them itself.

        Returns:
            The note.
        """
        self._gave_up = self._where(purpose)
        waited_s = time.monotonic() - self._began_s
        closed, probes = self._probe_all() if is_open else ([], [])
        expected_until = time.monotonic() + patience_s
        while is_open and not closed and time.monotonic() < expected_until:
            time.sleep(_CLOSING_POLL_S)
            closed, probes = self._probe_all()
        note = Note(
            how=how, where=self._gave_up, purpose=purpose, cause=cause, waited_s=waited_s, rounds=self.rounds,
            awaited=awaited, closed=closed,
        )  # fmt: skip
        self._failure_report.write(note)
        if probes:
            with contextlib.suppress(RuntimeError):  # on a timeout, the engine closes every connection
                wait_until(probes[0], time.monotonic())
        return note

    def _abandon(self) -> None:
        if self.device_channel is not None:
            self.device_channel.abandon()

    def _probe_all(self) -> tuple[list[int], list[dist.Work | None]]:
        """Return the ranks whose connections have closed, and the posted receives of the others."""
        closed, probes = [], []
        for peer in self._others():
            try:
                probes.append(self._probe(peer))
            except RuntimeError:
                closed.append(peer)
        return closed, probes

    def _others(self) -> list[int]:
        return [peer for peer in range(self.size) if peer != self.rank]

    def _named(self, ranks: Sequence[int]) -> str:
        return names_of(ranks, self._global_ranks)
