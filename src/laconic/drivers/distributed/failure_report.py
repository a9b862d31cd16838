"""Finding out which ranks are missing, because the engine's errors do not name them."""

import contextlib
import json
import time
from collections.abc import Sequence

from laconic.torch_compat import default_store

_GRACE_S = 5.0  # how long a rank whose connection closed may take to report that it gave up and has not died
_POLL_S = 0.02  # the store can wait for all of several keys, but not for any one of them


class FailureReport:
    """Reports between ranks that give up, in the store that the process group was made with.

    A rank that gives up reports which connections it found closed. A rank whose connections are closed and that reports
    nothing has died: a living rank reports before it closes them. If the store is gone, its host has died: global
    rank 0.
    """

    def __init__(self, ranks: Sequence[int], me: int) -> None:
        """Register rank `me` of the group. `ranks` are global; they may make several channels, all in one order."""
        self._store = default_store()
        self._name = f"laconic/{'-'.join(map(str, ranks))}"
        self._me = me
        self._others = [rank for rank in range(len(ranks)) if rank != me]
        self._hosts_store = ranks[me] == 0
        self._host = [place for place, rank in enumerate(ranks) if rank == 0 and place != me]
        self._number = self._store.add(f"{self._name}/channels-of-{me}", 1)

    def absent(self) -> list[int]:
        """Return the ranks that have not made this channel yet."""
        try:
            made = {rank: self._store.add(f"{self._name}/channels-of-{rank}", 0) for rank in self._others}
        except RuntimeError:
            return self._host
        return [rank for rank in self._others if made[rank] < self._number]

    def give_up(self, closed: Sequence[int]) -> None:
        """Report that this rank gives up, and the ranks to which it found its connection closed."""
        with contextlib.suppress(RuntimeError):
            self._write("gave-up", closed)

    def missing(self, patience_s: float) -> tuple[list[int], list[int]]:
        """Return the ranks that have died, and those that have neither given up nor died within `patience_s`.

        Once a rank has died, the others need not report anything. The second list is this rank itself if the others
        have given up waiting for it.
        """
        start = time.monotonic()
        dead: list[int] = []
        while True:
            waited_s = time.monotonic() - start
            try:
                notes = self._read("gave-up")
            except RuntimeError:
                return dead or self._host, []
            closed = {rank for note in notes.values() for rank in note}
            silent = [rank for rank in self._others if rank not in notes]
            dead = [rank for rank in silent if rank in closed]
            if not silent or waited_s >= (min(patience_s / 2, _GRACE_S) if dead else patience_s):
                break
            time.sleep(_POLL_S)
        late: list[int] = []
        with contextlib.suppress(RuntimeError):
            late = [self._me] if any(self._me in named for named in self._read("named").values()) else []
            self._write("named", dead or silent)
            if self._hosts_store:  # the store ends with this process, and the others still read it
                while len(self._read("named")) < len(notes) and time.monotonic() - start < patience_s:
                    time.sleep(_POLL_S)
        return dead, late or silent

    def _write(self, topic: str, named: Sequence[int]) -> None:
        self._store.set(self._key(topic, self._me), json.dumps(list(named)))

    def _read(self, topic: str) -> dict[int, list[int]]:
        """Return the report of each rank that has written one."""
        keys = {rank: self._key(topic, rank) for rank in sorted([self._me, *self._others])}
        return {rank: json.loads(self._store.get(key)) for rank, key in keys.items() if self._store.check([key])}

    def _key(self, topic: str, rank: int) -> str:
        return f"{self._name}/{self._number}/{topic}-{rank}"
