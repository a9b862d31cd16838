"""What ranks show each other before they are connected: through the store that their process group was made with.

A rank that refuses its own arguments shows that too, so that no other one waits for it.
"""

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec

import torch.distributed as dist

from laconic.drivers.distributed.verdict import names_of
from laconic.drivers.gathered import Either, Schema, read_gathered
from laconic.errors import PeerLostError, SetupError, WireError
from laconic.torch_compat import Store, default_store

_MIN_POLL_S, _MAX_POLL_S = 0.001, 0.05
_PULSE_S = 0.5
_GRACE_S = 5.0  # how long the process with the store stays for others that have not read why it ends
_MAX_REFUSAL = 1000  # characters of an error that the others are shown
_MAX_ENDING_BYTES = 1 << 13  # of such an error, or of the ranks that another one waited for
_ABSENT = b'{"gave up": []}'  # read in place of what a rank has not shown, where another one has refused


class Meeting:
    """Gathers of the ranks of one group about one topic. All ranks come to them equally often, in one order."""

    def __init__(self, store: Store, ranks: Sequence[int], rank: int, topic: str) -> None:
        """Set up this rank's part. Not collective.

        Args:
            store: the store that all ranks reach.
            ranks: the global ranks of the group.
            rank: number of this rank in the group.
            topic: what the gathers are about, in the keys of the store.
        """
        self._store = store
        self._global_ranks = ranks
        self._keys = f"laconic/{topic}/{'-'.join(map(str, ranks))}"
        self._count = f"{self._keys}/meetings of {rank}"
        self.rank = rank
        self.size = len(ranks)
        self.control_bytes = 0
        """Sent by this rank."""

    @classmethod
    def of_group(cls, group: dist.ProcessGroup | None, topic: str) -> "Meeting":
        """Return the meeting of the ranks of a process group; None for all."""
        ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
        return cls(default_store(), ranks, ranks.index(dist.get_rank()), topic)

    def n_attended(self) -> int:
        """Return how many gathers this rank has come to or refused; -1 if the store is lost."""
        try:
            return self._store.add(self._count, 0)
        except RuntimeError:
            return -1

    def gather(
        self,
        value: Any,  # noqa: ANN401 - JSON
        purpose: str,
        schema: Schema,
        max_bytes: int,
        timeout_s: float,
    ) -> list[Any]:
        """Return the `value` of all ranks, by rank. Collective.

        Args:
            value: anything that JSON can hold.
            purpose: for errors, such as "to make its DistributedOptimizer".
            schema: what every rank's value must fit; see `drivers/gathered.py`.
            max_bytes: upper bound on the JSON of each.
            timeout_s: how long to wait for the others, in seconds.

        Raises:
            SetupError: at once, if a rank refuses its own arguments; it has the rank's error.
            PeerLostError: naming the ranks that did not come in time.
            WireError: naming the rank whose value is too long, no JSON, or does not fit.
        """
        number = 0
        try:
            number = self._store.add(self._count, 1)
            self._show(number, {"value": value})
            texts = self._wait_for_all(number, purpose, timeout_s)
            if number > 1:  # all ranks have read the last one's
                self._store.delete_key(self._key(number - 1, self.rank))
        except RuntimeError as error:
            if isinstance(error, PeerLostError):
                raise
            raise PeerLostError(
                f"the store at which the ranks meet was lost ({purpose}): {error!s:.200}. Rank 0, or the launcher that "
                "holds it, has ended: look at its own output"
            ) from error
        try:
            return self._read(texts, purpose, schema, max_bytes)
        except (SetupError, PeerLostError, WireError):
            self.linger()
            raise

    @contextlib.contextmanager
    def not_hurried(self) -> Iterator[None]:
        """Let the others wait at a gather until this rank comes to it, within this context, however long that takes.

        A thread shows that this rank is alive. If its process ends, they wait for `timeout_s` more.
        """
        key, over = self._pulse_key(self.rank), threading.Event()

        def beat() -> None:
            with contextlib.suppress(RuntimeError):
                while not over.wait(_PULSE_S):
                    self._store.add(key, 1)

        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            with contextlib.suppress(RuntimeError):
                self._store.delete_key(key)

    def refuse(self, error: Exception) -> None:
        """Show the others, in place of a gather, that this rank stays away, and why. Returns almost at once."""
        with contextlib.suppress(RuntimeError):
            number = self._store.add(self._count, 1)
            self._show(number, {"refused": f"{type(error).__name__}: {error!s:.{_MAX_REFUSAL}}"})
            self._store.set(self._end_key(number), "")
            self.linger()

    def linger(self) -> None:
        """Before this rank raises: note that it knows why. If the store ends with this process, wait for the others."""
        with contextlib.suppress(RuntimeError):
            number = self._store.add(self._count, 0)
            self._store.set(self._key(number, self.rank, "seen"), "")
            if self._global_ranks[self.rank] == 0 and "TORCHELASTIC_USE_AGENT_STORE" not in os.environ:
                seen = [self._key(number, rank, "seen") for rank in range(self.size)]
                deadline = time.monotonic() + _GRACE_S
                while not self._store.check(seen) and time.monotonic() < deadline:
                    time.sleep(_MAX_POLL_S)

    def _show(self, number: int, content: dict[str, Any]) -> None:
        text = json.dumps(content)
        self._store.set(self._key(number, self.rank), text)
        self.control_bytes += len(text)

    def _wait_for_all(self, number: int, purpose: str, timeout_s: float) -> list[bytes]:
        """Return what each rank shows, empty for a rank that is not there while another one has refused."""
        keys = [self._key(number, rank) for rank in range(self.size)]
        deadline = time.monotonic() + timeout_s
        poll_s = _MIN_POLL_S
        pulses: list[int] = []
        while not self._store.check(keys):
            if self._store.check([self._end_key(number)]):
                return [self._store.get(key) if self._store.check([key]) else b"" for key in keys]
            if time.monotonic() > deadline:
                absent = [rank for rank, key in enumerate(keys) if not self._store.check([key])]
                before, pulses = pulses, [self._store.add(self._pulse_key(rank), 0) for rank in range(self.size)]
                if absent and all(pulses[rank] > (before or [0] * self.size)[rank] for rank in absent):
                    deadline = time.monotonic() + timeout_s
                    continue
                self._show(number, {"gave up": absent})  # for those who come later
                raise PeerLostError(
                    f"{self._named(absent)} was waited for ({purpose}), but did not come within "
                    f"timeout_s={timeout_s:g}; every rank must come, so look at that rank's own output"
                )
            time.sleep(poll_s)
            poll_s = min(2 * poll_s, _MAX_POLL_S)
        return list(self._store.multi_get(keys))

    def _read(self, texts: Sequence[bytes], purpose: str, schema: Schema, max_bytes: int) -> list[Any]:
        for rank, text in enumerate(texts):
            if len(text) > max(max_bytes, _MAX_ENDING_BYTES):
                raise WireError(
                    f"rank {rank}, {purpose}: it shows {len(text)} bytes; at most {max_bytes} can belong to this"
                )
        endings = Either({"refused": str}, {"gave up": [range(self.size)]})
        shown = read_gathered([text or _ABSENT for text in texts], Either(endings, {"value": schema}), purpose)
        for rank, content in enumerate(shown):
            if "refused" in content:
                raise refused_by(self._named([rank]), purpose, content["refused"])
        for rank, content in enumerate(shown):
            if "gave up" in content:
                raise PeerLostError(
                    f"{self._named([self.rank])}, this one, came too late ({purpose}): {self._named([rank])} gave up "
                    f"waiting for {self._named(content['gave up'])}; a slow rank needs a larger timeout_s"
                )
        return [content["value"] for content in shown]

    def _named(self, ranks: Sequence[int]) -> str:
        return names_of(ranks, self._global_ranks) or "a rank that was too late"

    def _key(self, number: int, rank: int, what: str = "shown") -> str:
        return f"{self._keys}/{number}/{what}-{rank}"

    def _pulse_key(self, rank: int) -> str:
        return f"{self._keys}/pulse-{rank}"

    def _end_key(self, number: int) -> str:
        return f"{self._keys}/{number}/refused"


def refused_by(named: str, purpose: str, text: str) -> SetupError:
    """Return the error of a rank that stops because another one has refused its own arguments."""
    return SetupError(f"{named} refused its own arguments ({purpose}), so this rank stops too: {text:.{_MAX_REFUSAL}}")


@contextlib.contextmanager
def refusals_shown(group: dist.ProcessGroup | None, topic: str) -> Iterator[None]:
    """Show an exception to the ranks that wait for this one, if it is raised before this rank meets them.

    Args:
        group: the ranks that meet; None for all. Without a process group, nobody waits.
        topic: that of the `Meeting`.
    """
    is_group = group is None or isinstance(group, dist.ProcessGroup)  # else it is refused within
    if not dist.is_available() or not dist.is_initialized() or not is_group or dist.get_rank(group) < 0:
        yield
        return
    meeting = Meeting.of_group(group, topic)
    before = meeting.n_attended()
    try:
        yield
    except Exception as error:
        if meeting.n_attended() == before:
            meeting.refuse(error)
        raise


P = ParamSpec("P")


def shows_refusals(topic: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Return a decorator of `__init__`, which shows what it raises; the argument `group` says to whom."""

    def decorate(init: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(init)
        def with_refusals_shown(*arguments: P.args, **options: P.kwargs) -> None:
            with refusals_shown(options.get("group"), topic):  # type: ignore[arg-type]  # a process group or None
                init(*arguments, **options)

        return with_refusals_shown

    return decorate
