"""What a frame may carry: made once from what an exchange accepts, then compared with every packet."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch

from laconic.contract import Accept, Accepted
from laconic.kernels.api import BlockLengths
from laconic.random_keys import Role, make_key
from laconic.wire import Packet, blocks_between

Span = tuple[int, int]  # offset and count
Origin = tuple[int, Role, int, int]  # whose keys a packet is made with: seed, role, rank (0 for a server) and round


class Expectation:
    """What one exchange accepts from one side."""

    def __init__(self, accepted: Accepted, dtype: torch.dtype, *, is_split: bool, offset: int = 0) -> None:
        """Prepare the comparison.

        Args:
            accepted: what the exchange accepts.
            dtype: type of the job's vectors.
            is_split: whether a frame carries only the slice of one of several servers.
            offset: number of the initial coordinate of an unsplit frame.
        """
        self.accepted = accepted
        options = accepted if isinstance(accepted, tuple) else (accepted,)
        self.may_skip = None in options
        self._kinds = tuple(_Kind(option, dtype, is_split, offset) for option in options if option is not None)

    def holds(self, packet: Packet | None, origin: Origin, span: Span) -> bool:
        """Return whether the packet is accepted.

        Args:
            packet: the packet; None for a skip.
            origin: whose keys it must be made with.
            span: the offset and count that it must have, unless the exchange names others for its sender.
        """
        if packet is None:
            return self.may_skip
        for kind in self._kinds:
            if (
                type(packet) is kind.type
                and kind.read(packet) == kind.values
                and (kind.has_own_span or (packet.offset, packet.count) == span)
                and (kind.is_fixed or not kind.other_differences(packet, origin))
            ):
                return True
        return False

    def text(self, span: Span) -> str:
        """Return what is accepted; `span` as for `holds`."""
        accepted = [
            str(kind.accept) if kind.has_own_span else f"{kind.accept}, {_coordinates(*span)}" for kind in self._kinds
        ]
        return " or ".join([*accepted, *(["nothing (SKIP)"] if self.may_skip else [])])

    def found(self, packet: Packet | None, origin: Origin) -> str:
        """Return what a refused packet is, with the attributes in which it differs."""
        if packet is None:
            return "nothing (SKIP)"
        differences = next((kind.differences(packet, origin) for kind in self._kinds if type(packet) is kind.type), [])
        return ", ".join([f"{packet.name} of {_coordinates(packet.offset, packet.count)}", *differences])


class _LengthsWithin:
    """The lengths of blocks in the slices of a packet."""

    def __init__(self, lengths: BlockLengths, offset: int) -> None:
        """Take the lengths in the unsplit packet, and the number of its initial coordinate."""
        self._lengths, self._offset = lengths, offset
        self._known: dict[Span, BlockLengths] = {}

    def of(self, packet: Packet) -> BlockLengths:
        """Return the lengths that this slice must have. Its offset and count are those of a server."""
        low = packet.offset - self._offset
        span = low, low + packet.count
        if span not in self._known:
            self._known[span] = blocks_between(self._lengths, *span)[1]
        return self._known[span]


class _Kind:
    """One kind of packet, as an `Accept` describes it."""

    def __init__(self, accept: Accept, dtype: torch.dtype, is_split: bool, offset: int) -> None:
        settings = dict(accept.settings)
        if is_split and isinstance(k := settings.get("n_selected"), int):
            settings["n_selected"] = range(k + 1)  # a slice has some of them
        free: dict[str, range | Accept | _LengthsWithin] = {
            name: value for name, value in settings.items() if isinstance(value, (range, Accept))
        }
        if is_split and isinstance(lengths := settings.get("lengths"), BlockLengths):
            free["lengths"] = _LengthsWithin(lengths, offset)
        self._exact = {name: value for name, value in settings.items() if name not in free}
        if accept.kind.has_values and not any(isinstance(value, Accept) for value in free.values()):
            name = "dtype" if accept.kind.value_type is Packet.value_type else "value_type"
            self._exact.setdefault(name, dtype)
        self.accept, self.type = accept, accept.kind
        self.has_own_span = "offset" in settings
        self.is_fixed = not free and accept.stream is None
        # With two names or more, `attrgetter` returns a tuple.
        self.read: Callable[[Packet], Any] = attrgetter("kind", "kind", *self._exact)
        self.values = (accept.kind.kind, accept.kind.kind, *self._exact.values())
        self._free = tuple(
            (name, _Kind(value, dtype, False, offset) if isinstance(value, Accept) else value)
            for name, value in free.items()
        )

    def differences(self, packet: Packet, origin: Origin) -> list[str]:
        """Return what is wrong with a packet of this kind: settings with its own values, and its key."""
        differs = [name for name, value in self._exact.items() if getattr(packet, name) != value]
        return [f"{name}={getattr(packet, name)!s:.60}" for name in differs] + self.other_differences(packet, origin)

    def other_differences(self, packet: Packet, origin: Origin) -> list[str]:
        """Return the same for the key, settings that are a range, and nested packets."""
        found = []
        if self.accept.stream is not None:
            seed, role, rank, round_ = origin
            key_rank = rank if self.accept.key_rank is None else self.accept.key_rank
            if packet.key != make_key(seed, role, key_rank, round_, self.accept.stream):  # type: ignore[attr-defined]
                found.append("another key")
        for name, free in self._free:
            value = getattr(packet, name)
            if isinstance(free, _LengthsWithin):
                found += [f"{name}={value!s:.60}"] if value != free.of(packet) else []
            elif isinstance(free, range):
                found += [f"{name}={value}"] if value not in free else []
            elif value.count and type(value) is not free.type:
                found.append(f"{name}: {value.name}")
            elif value.count:
                found += [f"{name}: {difference}" for difference in free.differences(value, origin)]
        return found


def _coordinates(offset: int, count: int) -> str:
    return f"coordinates {offset} .. {offset + count - 1}"
