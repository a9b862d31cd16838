"""Whether a round is aborted, and why: it then takes effect on no rank, and changes no parameter and no memory."""

import math
from enum import IntEnum

from laconic.wire import Frame


class Abort(IntEnum):
    """The reasons. If ranks have several, the largest counts."""

    NO = 0
    """The round goes on."""
    SET_DIFFERS = 1
    """A rank used other parameters than at the last agreement; the ranks agree anew, and repeat the round."""
    NON_FINITE = 2
    """A rank met inf or NaN."""
    ABSENCE = 3
    """No worker was up, in a simulation with faults."""

    @classmethod
    def unless(cls, finite: bool) -> "Abort":
        """Return the reason to abort a round in which a rank has values that are not finite, or NO if they are."""
        return cls.NO if finite else cls.NON_FINITE

    @property
    def mark(self) -> float:
        """The number that says this in a sum over all ranks: whoever adds it to finite numbers aborts the round."""
        return {Abort.NO: 0.0, Abort.SET_DIFFERS: math.inf}.get(self, math.nan)

    @classmethod
    def of_sum(cls, total: float) -> "Abort":
        """Return the reason that counts, given a sum over all ranks' marks and finite numbers."""
        if math.isfinite(total):
            return cls.NO
        return cls.SET_DIFFERS if math.isinf(total) else cls.NON_FINITE

    @classmethod
    def of(cls, frame: Frame) -> "Abort":
        """Return the reason that another rank's frame gives."""
        if not frame.aborted:
            return cls.NO
        return cls.SET_DIFFERS if frame.header.set_differs else cls.NON_FINITE
