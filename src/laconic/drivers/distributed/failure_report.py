"""Who is missing: what ranks that give up tell each other, since the engine's errors name nobody."""

import contextlib
import json
import time
from collections.abc import Sequence

from laconic.torch_compat import default_store

_GRACE_S = 5.0  # how long a rank whose connection closed may take to say that it gave up, and did not die
_POLL_S = 0.02  # the store can be waited on for all of some keys, not for the first of them


class FailureReport:
    """What ranks that give up tell each other, in the store where the process group met.

    A rank that gives up says whose connections it found closed. Who is found closed and says nothing has died: a
    rank that lives speaks before it hangs up. A store that is gone has died with its host, global rank 0.
    """

    def __init__(self, ranks: Sequence[int], me: int) -> None:
        """ranks: global ones; they may make several channels, all in the same order."""
        self._store = default_store()
        self._name = f"laconic/{'-'.join(map(str, ranks))}"
        self._me = me
        self._others = [rank for rank in range(len(ranks)) if rank != me]
        self._hosts_store = ranks[me] == 0
        self._host = [place for place, rank in enumerate(ranks) if rank == 0 and place != me]
        self._number = self._store.add(f"{self._name}/channels-of-{me}", 1)

    def absent(self) -> list[int]:
        """The ranks that have not made this channel yet."""
        try:
            made = {rank: self._store.add(f"{self._name}/channels-of-{rank}", 0) for rank in self._others}
        except RuntimeError:
            return self._host
        return [rank for rank in self._others if made[rank] < self._number]

    def give_up(self, closed: Sequence[int]) -> None:
        """Say that this rank gives up, and to whom it found its connection closed."""
        with contextlib.suppress(RuntimeError):
            self._write("gave-up", closed)

    def missing(self, patience_s: float) -> tuple[list[int], list[int]]:
        """Who has died, and who has neither given up nor died within `patience_s`.

        Once somebody has died the others need not say anything. This rank itself is named when the others have
        waited for it in vain.
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
            if self._hosts_store:  # which goes when this process ends, and the others still read
                while len(self._read("named")) < len(notes) and time.monotonic() - start < patience_s:
                    time.sleep(_POLL_S)
        return dead, late or silent

    def _write(self, topic: str, named: Sequence[int]) -> None:
        self._store.set(self._key(topic, self._me), json.dumps(list(named)))

    def _read(self, topic: str) -> dict[int, list[int]]:
        """What each rank has written, of those that have."""
        keys = {rank: self._key(topic, rank) for rank in sorted([self._me, *self._others])}
        return {rank: json.loads(self._store.get(key)) for rank, key in keys.items() if self._store.check([key])}

    def _key(self, topic: str, rank: int) -> str:
        return f"{self._name}/{self._number}/{topic}-{rank}"
