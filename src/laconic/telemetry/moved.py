"""What a channel has moved, message by message, where somebody wants to know: to time the engine alone, for one."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What one call of a channel has moved."""

    sent: Mapping[int, int] = field(default_factory=dict)
    """Bytes by receiver, headers included."""
    received: Mapping[int, int] = field(default_factory=dict)
    """Bytes by sender."""
    summed: int = 0
    """Bytes of the vector of an all-reduce."""
