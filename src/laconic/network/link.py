"""A link: bandwidth, latency, jitter and loss between one node and the switch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache

from laconic.hyperparameters import line_of, make_plain
from laconic.random_keys import uniform

_MAY_BE_NONE = ("down_bytes_per_s", "retransmit_s")


@dataclass(frozen=True, kw_only=True)
class Link:
    """The connection of one node to the switch. The default takes no time at all."""

    bytes_per_s: float = math.inf
    """Bandwidth in each direction, in bytes per second; 1 Gbit/s is 125e6."""
    down_bytes_per_s: float | None = None
    """Bandwidth of what the node receives, if it differs: `bytes_per_s` is then that of what it sends."""
    latency_s: float = 0.0
    """Seconds from the first bit sent to the first bit received."""
    jitter_s: float = 0.0
    """The latency of each message grows by a uniform draw from [0, jitter_s), in seconds."""
    loss: float = 0.0
    """Share of the messages that are lost and sent again, in [0, 1)."""
    retransmit_s: float | None = None
    """Seconds until a lost message is sent again; None for twice the latency, at least 1 ms."""

    def __post_init__(self) -> None:
        for name in ("bytes_per_s", "latency_s", "jitter_s", "loss", *_MAY_BE_NONE):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(
                    f"Link: {name}={value!r:.80} must be a number; laconic.units.bandwidth('100Mbit') and "
                    "laconic.units.duration('10ms') make one of a text"
                )
            if value is not None or name not in _MAY_BE_NONE:
                make_plain(self, [name], "Link")
        for name in ("bytes_per_s", "down_bytes_per_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"Link: {name}={value} must be above 0 (1 Gbit/s is 125e6)")
        if self.down_bytes_per_s == self.bytes_per_s:
            object.__setattr__(self, "down_bytes_per_s", None)
        for name in ("latency_s", "jitter_s", "retransmit_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"Link: {name}={value} must be at least 0 and finite (10 ms is 0.01)")
        if not 0 <= self.loss < 1:
            raise ValueError(f"Link: loss={self.loss} must be in [0, 1) (one message in a hundred is 0.01)")

    def __repr__(self) -> str:
        return line_of(self)

    @property
    def is_random(self) -> bool:
        """Whether two equal messages may take different times."""
        return self.jitter_s > 0 or self.loss > 0

    @property
    def receiving(self) -> Link:
        """The same link with the bandwidth of what the node receives in both directions."""
        down = self.down_bytes_per_s
        return self if down is None else replace(self, bytes_per_s=down, down_bytes_per_s=None)

    @property
    def slower_bytes_per_s(self) -> float:
        """The lower of its two bandwidths, in bytes per second."""
        return min(self.bytes_per_s, self.bytes_per_s if self.down_bytes_per_s is None else self.down_bytes_per_s)

    def scaled(self, factor: float) -> Link:
        """Return the link with `factor` times the bandwidth in both directions."""
        down = self.down_bytes_per_s
        return replace(
            self, bytes_per_s=self.bytes_per_s * factor, down_bytes_per_s=None if down is None else down * factor
        )

    def duration_ns(self, n_bytes: int) -> int:
        """Return how long a message of `n_bytes` occupies the port that sends it, without jitter and losses.

        The arithmetic is in whole numbers, so the result is exact.

        Returns:
            Nanoseconds, rounded up.

        Raises:
            ValueError: `n_bytes` is negative.
        """
        if n_bytes < 0:
            raise ValueError(f"Link.duration_ns: n_bytes={n_bytes} must be at least 0")
        fixed, per_byte = self.rational_ns
        return -(-(fixed[0] * per_byte[1] + n_bytes * per_byte[0] * fixed[1]) // (fixed[1] * per_byte[1]))

    def sampled_ns(self, n_bytes: int, key_of: Callable[[str], int]) -> int:
        """Return how long a message occupies its ports, with jitter and losses.

        Args:
            n_bytes: Bytes of the message.
            key_of: Returns the 64-bit key of a draw, given its purpose: "jitter" or "loss".

        Returns:
            Nanoseconds.
        """
        once_ns = self.duration_ns(n_bytes)
        if self.jitter_s:
            once_ns += int(uniform(key_of("jitter")) * self.jitter_s * 1e9)
        if not self.loss:
            return once_ns
        # One uniform number gives how many were lost in a row: k or more where it is at most loss**k.
        n_lost = int(math.log(1.0 - uniform(key_of("loss"))) / math.log(self.loss))
        return once_ns + n_lost * (once_ns + self._retransmit_ns)

    @property
    def _retransmit_ns(self) -> int:
        seconds = max(2 * self.latency_s, 0.001) if self.retransmit_s is None else self.retransmit_s
        return math.ceil(_as_written(seconds) * 1_000_000_000)

    @cached_property
    def rational_ns(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Nanoseconds of the latency and of one byte, each as (numerator, denominator)."""
        fixed = _as_written(self.latency_s) * 1_000_000_000
        unlimited = self.bytes_per_s == math.inf
        per_byte = Fraction(0) if unlimited else Fraction(1_000_000_000) / _as_written(self.bytes_per_s)
        return fixed.as_integer_ratio(), per_byte.as_integer_ratio()


UNLIMITED = Link()


@lru_cache(maxsize=4096)
def _joined(sender: Link, receiver: Link) -> Link:
    one, other = sender, receiver.receiving
    return Link(
        bytes_per_s=min(one.bytes_per_s, other.bytes_per_s),
        latency_s=max(one.latency_s, other.latency_s),
        jitter_s=max(one.jitter_s, other.jitter_s),
        loss=max(one.loss, other.loss),
        retransmit_s=_longer(one.retransmit_s, other.retransmit_s),
    )


@lru_cache(maxsize=4096)
def _through(sender: Link, receiver: Link) -> tuple[Link, Link]:
    """Return what a message occupies at either end: each one's own bandwidth, and the larger latency."""
    latency_s = max(sender.latency_s, receiver.latency_s)
    return (
        Link(bytes_per_s=sender.bytes_per_s, latency_s=latency_s),
        Link(bytes_per_s=receiver.receiving.bytes_per_s, latency_s=latency_s),
    )


def _longer(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


def _as_written(value: float) -> Fraction:
    # The float nearest to 0.1 is a little above it: with its exact value, 0.1 s would become 100,000,001 ns.
    # The shortest decimal that names the float is the one in the user's program.
    return Fraction(repr(float(value)))
