"""What a rank may send in an exchange: kinds of packets, with the settings that the method fixes."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, fields, is_dataclass

from laconic.hyperparameters import near_misses
from laconic.wire import Dense, Packet


@dataclass(frozen=True, init=False)
class Accept:
    """One kind of packet that may be sent, and what is fixed about it. The protocol refuses every other packet.

    `Accept(Signs, threshold=1 << 31, stream="mask")` accepts signs on the sender's own mask of this round.
    """

    kind: type[Packet]
    """The class of the packet."""
    settings: tuple[tuple[str, object], ...]
    """Attributes of the packet, and what they must be: a value, a range that holds it, or for a nested packet an
    `Accept`. What is not named is free, but for slice and value type, which are the exchange's and the job's.
    """
    stream: str | None
    """Name of the stream of random keys that the packet's `key` must come from; None to leave the key free."""
    key_rank: int | None
    """Rank whose key it is, where packets are forwarded; None for the sender's."""

    def __init__(
        self, kind: type[Packet], *, stream: str | None = None, key_rank: int | None = None, **settings: object
    ) -> None:
        """Accept packets of `kind`; `settings` are attributes of the packet.

        Raises:
            ValueError: A setting, or a key for `stream`, is no attribute of this kind.
        """
        known = {field.name for field in fields(kind)} if is_dataclass(kind) else set[str]()
        for name in (*settings, *(() if stream is None else ("key",))):
            if name not in known and not hasattr(kind, name):
                raise ValueError(f"Accept: a packet of {kind.name} has no {name!r}{near_misses(name, sorted(known))}")
        for name, value in (
            ("kind", kind), ("settings", tuple(settings.items())), ("stream", stream), ("key_rank", key_rank),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def about(self, offset: int, count: int) -> "Accept":
        """Return the same for a packet about these coordinates, where they are not the exchange's."""
        return self._with(settings=(*self.settings, ("offset", offset), ("count", count)))

    @property
    def coordinates(self) -> tuple[int, int] | None:
        """The initial coordinate and the one after the last, where a packet is `about` some; else None."""
        settings = dict(self.settings)
        offset, count = settings.get("offset"), settings.get("count")
        return (offset, offset + count) if isinstance(offset, int) and isinstance(count, int) else None

    def with_any(self, name: str) -> "Accept":
        """Return the same with one attribute left free."""
        return self._with(settings=tuple((other, value) for other, value in self.settings if other != name))

    def forwarded(self, key_rank: int) -> "Accept":
        """Return the same for a packet that the sender got from another rank, whose key it has."""
        return self._with(key_rank=key_rank)

    def _with(self, **changes: object) -> "Accept":
        made = copy(self)
        for name, value in changes.items():
            object.__setattr__(made, name, value)
        return made

    def __str__(self) -> str:
        named = dict(self.settings) | ({} if self.stream is None else {"key": f"the sender's of {self.stream!r}"})
        return ", ".join([self.kind.name, *(f"{name}={_text(value):.60}" for name, value in named.items())])


def _text(value: object) -> str:
    return f"{value.start} .. {value.stop - 1}" if isinstance(value, range) else str(value)


DENSE = Accept(Dense)
"""What an exchange accepts whose method says nothing."""

Accepted = Accept | None | tuple[Accept | None, ...]
"""What may be sent: a packet, nothing but a skip (None), or one of several of these."""

AcceptedBy = Accepted | Callable[[int], Accepted]
"""The same for every sender, or a function of its rank."""
