"""What carries a method where one worker is alone, with no DistributedDataParallel: nothing."""

from laconic.contract import Algorithm
from laconic.telemetry.meter import Meter
from laconic.telemetry.phases import Seconds
from laconic.telemetry.recorder import Recorder
from laconic.telemetry.traffic import Traffic
from laconic.training.buffers import Buffers


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
    checkpoints = None
    replica_check = None

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.driver = IdleDriver()

    def share_buffers(self, how: Buffers | None = None) -> None:
        """Do nothing: there is no other worker."""

    def close(self) -> None:
        """Do nothing."""
