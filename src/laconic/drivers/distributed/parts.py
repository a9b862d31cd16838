"""What rounds over processes need of others: compiled kernels, and parts with state of their own."""

from collections.abc import Mapping
from typing import Any, Protocol

from laconic.protocol.layout import Layout


class Kernels(Protocol):
    """The compiled kernels that this rank is going to use."""

    def is_done(self, layout: Layout) -> bool:
        """Return whether this machine has them."""

    def run(self, layout: Layout) -> None:
        """Compile them, or wait until another process of this machine has. It may take minutes."""


class Part(Protocol):
    """What has state between two rounds."""

    def saved(self) -> dict[str, Any]:
        """Return it."""

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError for a state that does not fit."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from a state that was checked."""
