"""What carries a method where one worker is alone, with no DistributedDataParallel: nothing."""

from collections.abc import Mapping
from typing import Any

from laconic.contract import Algorithm
from laconic.telemetry.meter import Meter
from laconic.telemetry.phases import Seconds
from laconic.telemetry.recorder import Recorder
from laconic.telemetry.traffic import Traffic


class IdleDriver:
    """Moves nothing."""

    def __init__(self) -> None:
        self.recorder = Recorder([])

    @property
    def traffic(self) -> Traffic:
        """Counts of 0."""
        return Traffic.of(Meter(), 0, 0, Seconds().sums())

    def total_traffic(self, mine: Traffic) -> Traffic:
        """Return `mine`: there is no other worker."""
        return mine


class IdleCarrier:
    """Does nothing, so that a script for many workers runs with one."""

    overlap = False
    n_slices = 0
    aborted = False

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.driver = IdleDriver()

    def saved(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take nothing of a state."""

    def close(self) -> None:
        """Do nothing."""
