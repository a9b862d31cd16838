"""What ranks tell one another when they give up, because the engine's errors do not name the rank that is missing."""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from laconic.drivers.gathered import misfit
from laconic.torch_compat import Store

GRACE_S = 5.0  # how long a rank whose connection closed may take to report that it gave up and has not died
_POLL_S = 0.02  # the store can wait for all of several keys, but not for any one of them
_MAX_TEXT = 400  # characters of each text in a note
_MAX_NOTE_BYTES = 1 << 14  # of notes about few ranks
_MAX_BYTES_A_RANK = 24  # that a note adds for each rank

How = Literal["timeout", "closed", "elsewhere", "raised", "ended"]
_HOW = ("timeout", "closed", "elsewhere", "raised", "ended")
_SCHEMA = {
    "how": str, "where": str, "purpose": str, "cause": str, "waited_s": float, "rounds": int, "awaited": [int],
    "closed": [int],
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a rank reports when it takes no further part."""

    how: How
    """It waited too long, found a connection closed, met others in another call, raised an error, or has ended."""
    where: str
    """The call that it is in, such as "in step 8"."""
    purpose: str = ""
    """What it waited for, such as "for its packet of round 7"."""
    cause: str = ""
    """The error that it raised, if it did."""
    waited_s: float = 0.0
    """How long it waited, seconds."""
    rounds: int = 0
    """Number of rounds that it has ended."""
    awaited: Sequence[int] = ()
    """The ranks that it waited for."""
    closed: Sequence[int] = ()
    """The ranks to which it found its connection closed."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a rank that gives up has found out."""

    me: int
    notes: Mapping[int, Note]
    """Of the ranks that have written one, this one included."""
    silent: Sequence[int] = ()
    """The ranks that have written none."""
    late: Sequence[int] = ()
    """The ranks that came after others had given up waiting for them."""
    host: Sequence[int] = ()
    """The rank that the store was lost with, if it was lost."""

    @property
    def dead(self) -> list[int]:
        """The ranks that have died: others found their connections closed, and they wrote nothing before."""
        closed = {rank for note in self.notes.values() for rank in note.closed}
        return [rank for rank in self.silent if rank in closed] or list(self.host)

    def having(self, how: How) -> list[int]:
        """Return the other ranks whose note says `how`."""
        return [rank for rank, note in self.notes.items() if note.how == how and rank != self.me]

    @property
    def missed(self) -> list[int]:
        """The silent ranks that this one waits for, or that those wait for that it waits for, and so on."""
        reached, new = set[int](), {*self.notes[self.me].awaited}
        while new:
            reached |= new
            new = {rank for one in new if one in self.notes for rank in self.notes[one].awaited} - reached
        return [rank for rank in self.silent if rank in reached]


@dataclass
class _Readings:
    """The notes of one reading after the other."""

    notes: dict[int, Note] = field(default_factory=dict)
    began_s: dict[int, float] = field(default_factory=dict)
    """When each rank began to wait, on this rank's clock."""


class FailureReport:
    """Notes of the ranks that give up, in the store that the process group was made with.

    A rank whose connections are closed and that has written nothing has died: a living rank writes before it closes
    them. If the store is gone, its host has died: global rank 0.
    """

    def __init__(self, store: Store, ranks: Sequence[int], me: int) -> None:
        """Register rank `me` of the group. `ranks` are global; they may make several channels, all in one order.

        Raises RuntimeError if the store is gone.
        """
        self._store = store
        self._name = f"laconic/{'-'.join(map(str, ranks))}"
        self._me = me
        self._others = [rank for rank in range(len(ranks)) if rank != me]
        self._hosts_store = ranks[me] == 0
        self._host = [place for place, rank in enumerate(ranks) if rank == 0 and place != me]
        self._number = self._store.add(f"{self._name}/channels-of-{me}", 1)

    def absent(self) -> list[int]:
        """Return the ranks that have not begun to make this channel yet; raises RuntimeError if the store is gone."""
        made = {rank: self._store.add(f"{self._name}/channels-of-{rank}", 0) for rank in self._others}
        return [rank for rank in self._others if made[rank] < self._number]

    @property
    def channel_name(self) -> str:
        """A name that no earlier channel had, the same on all of its ranks."""
        return f"{self._name}/{self._number}"

    def show(self, topic: str, text: str) -> None:
        """Keep a text for other ranks to read."""
        with contextlib.suppress(RuntimeError):
            self._store.set(self._key(topic, self._me), text)

    def shown(self, topic: str, ranks: Sequence[int]) -> dict[int, str] | None:
        """Return what these ranks have shown, by rank; None while one of them has not, or if the store is gone."""
        keys = [self._key(topic, rank) for rank in ranks]
        with contextlib.suppress(RuntimeError):
            if self._store.check(keys):
                return {rank: self._store.get(key).decode() for rank, key in zip(ranks, keys, strict=True)}
        return None

    def write(self, note: Note) -> None:
        """Write this rank's note, for all others to read."""
        texts = {name: getattr(note, name)[:_MAX_TEXT] for name in ("where", "purpose", "cause")}
        lists = {name: list(getattr(note, name)) for name in ("awaited", "closed")}
        with contextlib.suppress(RuntimeError):
            self._store.set(
                self._key("note", self._me),
                json.dumps(asdict(note) | texts | lists | {"waited_s": float(note.waited_s)}),
            )

    def collect(self, mine: Note, patience_s: float) -> Findings:
        """Read the others' notes, for at most `patience_s` and a grace. Call it after `write`.

        Once a rank has died, ended or raised an error, the others need not report anything.
        """
        start, readings = time.monotonic(), _Readings()
        while True:
            waited_s = time.monotonic() - start
            try:
                self._read_notes(readings)
            except RuntimeError:
                return Findings(me=self._me, notes=readings.notes | {self._me: mine}, host=self._host)
            readings.notes[self._me] = mine
            silent = [rank for rank in self._others if rank not in readings.notes]
            found = Findings(me=self._me, notes=readings.notes, silent=silent)
            is_known = bool(found.dead or found.having("raised") or found.having("ended"))
            if not silent or waited_s >= (min(patience_s / 2, GRACE_S) if is_known else patience_s):
                break
            time.sleep(_POLL_S)
        late = [] if is_known or found.missed else self._late(mine, readings, start, patience_s)
        with contextlib.suppress(RuntimeError):
            self._store.set(self._key("named", self._me), json.dumps(found.dead or found.missed or late))
            if self._hosts_store:  # the store may end with this process, and the others still read it
                readers = [rank for rank, note in readings.notes.items() if note.how not in ("raised", "ended")]
                while len(self._named_by(readers)) < len(readers) and time.monotonic() - start < patience_s:
                    time.sleep(_POLL_S)
        return Findings(me=self._me, notes=readings.notes, silent=silent, late=late)

    def _late(self, mine: Note, readings: _Readings, start: float, patience_s: float) -> list[int]:
        """Return the ranks that began to wait after this one had given up, or those that others say came too late."""
        if mine.how == "timeout":
            return [rank for rank, began_s in readings.began_s.items() if began_s > start and rank != self._me]
        judges = [rank for rank, note in readings.notes.items() if note.how == "timeout"]
        with contextlib.suppress(RuntimeError):
            while judges:
                named = self._named_by(judges)
                if len(named) == len(judges) or time.monotonic() - start > patience_s:
                    return sorted({rank for ranks in named.values() for rank in ranks})
                time.sleep(_POLL_S)
        return []

    def _read_notes(self, readings: _Readings) -> None:
        for rank in self._others:
            if rank in readings.notes:
                continue
            data = self._read("note", rank)
            if data is not None:
                note = self._note_in(data, rank)
                readings.notes[rank] = note
                readings.began_s[rank] = time.monotonic() - note.waited_s

    def _named_by(self, ranks: Sequence[int]) -> dict[int, list[int]]:
        """Return the ranks that each of `ranks` names, of those that have named any or none."""
        read = {rank: self._read("named", rank) for rank in ranks}
        return {rank: self._ranks_in(data) for rank, data in read.items() if data is not None}

    def _read(self, topic: str, rank: int) -> bytes | None:
        key = self._key(topic, rank)
        return self._store.get(key) if self._store.check([key]) else None

    def _key(self, topic: str, rank: int) -> str:
        return f"{self._name}/{self._number}/{topic}-{rank}"

    def _note_in(self, data: bytes, rank: int) -> Note:
        """Return the note that a rank wrote; for any other data, a note that refuses it."""
        value, problem = self._json_in(data, _SCHEMA)
        if not problem and value["how"] not in _HOW:
            problem = f"it.how is {value['how']!r:.60}"
        if not problem and not {*value["awaited"], *value["closed"]} <= {self._me, *self._others}:
            problem = "it names ranks that are not of this group"
        if problem:
            return Note(how="raised", where="", cause=f"WireError: rank {rank}, its note of why it gave up: {problem}")
        return Note(**value)

    def _ranks_in(self, data: bytes) -> list[int]:
        value, problem = self._json_in(data, [range(len(self._others) + 1)])
        return [] if problem else value

    def _json_in(self, data: bytes, schema: Any) -> tuple[Any, str]:  # noqa: ANN401 - JSON
        """Return the data in JSON, and what is wrong with them."""
        limit = _MAX_NOTE_BYTES + _MAX_BYTES_A_RANK * len(self._others)
        if len(data) > limit:
            return None, f"it has {len(data)} bytes; at most {limit} can belong to it"
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            return None, f"it is no JSON: {error!s:.100}"
        return value, misfit(value, schema)
