"""The server of a method without rounds: one gradient at a time, and the newest answer to whoever takes the model.

Both drivers run this. A gradient with inf or NaN is left out alone: its worker drops what it staged and goes on with
the newest model, and no other worker hears of it. (In rounds, one such gradient calls the round off for everybody.)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from laconic.compressors import dense
from laconic.contract import UpdateOutcome
from laconic.protocol.frames import check_frame
from laconic.protocol.server import ServerSession
from laconic.wire import Frame, Header, Packet, encode


@dataclass(kw_only=True)
class UpdateCounts:
    """What became of one worker's gradients. staleness: how many were applied, by their staleness."""

    staleness: dict[int, int] = field(default_factory=dict)
    dropped: int = 0  # too old
    held: int = 0  # applied later than they came, because older ones had to go first
    aborted: int = 0  # inf or NaN

    def count(self, update: UpdateOutcome) -> None:
        """Count one gradient."""
        if update.outcome == "applied":
            self.staleness[update.staleness] = self.staleness.get(update.staleness, 0) + 1
        self.dropped += update.outcome == "dropped"
        self.aborted += update.outcome == "aborted"
        self.held += update.waited

    @property
    def updates(self) -> dict[str, int]:
        """What did not go the straight way, as data; what never happened is not listed."""
        return {name: n for name in ("dropped", "held", "aborted") if (n := getattr(self, name))}

    @property
    def n_finished(self) -> int:
        """How many gradients of this worker the server is through with."""
        return sum(self.staleness.values()) + self.dropped + self.aborted

    def __add__(self, other: "UpdateCounts") -> "UpdateCounts":
        ages = sorted({*self.staleness, *other.staleness})
        return UpdateCounts(
            staleness={age: self.staleness.get(age, 0) + other.staleness.get(age, 0) for age in ages},
            dropped=self.dropped + other.dropped, held=self.held + other.held, aborted=self.aborted + other.aborted,
        )  # fmt: skip

    def saved(self) -> dict[str, Any]:
        """The counts as plain data."""
        staleness = {str(age): n for age, n in self.staleness.items()}
        return {"staleness": staleness, "dropped": self.dropped, "held": self.held, "aborted": self.aborted}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "UpdateCounts":
        """The inverse of `saved`."""
        return cls(**{**data, "staleness": {int(age): n for age, n in data["staleness"].items()}})


class ArrivalServer:
    """Steps the server's model once for each gradient. Who may compute, and in which order, is the driver's to ask."""

    def __init__(self, session: ServerSession, parameters: Tensor) -> None:
        """parameters: the first ones, (d,)."""
        self.session = session
        self.latest: Packet = dense(parameters)
        self.n_updates = 0
        self.update_counts = [UpdateCounts() for _ in range(session.job.layout.n_workers)]
        self._frames: dict[int, Frame] = {}  # gradients that came and are not settled, by worker

    @property
    def total(self) -> UpdateCounts:
        """All workers' counts added up."""
        return sum(self.update_counts, UpdateCounts())

    def receive(self, worker: int, step: int, frame: Frame) -> bool:
        """Take the worker's gradient number `step`. Returns whether it can be applied.

        Raises ContractError where it is not the one that is due.
        """
        check_frame(frame, "worker", worker, step, 0, self.session.shard)
        self._frames[worker] = frame
        return not frame.aborted

    def commit(self, update: UpdateOutcome, lr: float) -> None:
        """Apply a gradient that came, or forget it."""
        session, frame = self.session, self._frames.pop(update.worker)
        if update.outcome == "applied":
            session.view.staleness = update.staleness
            packet = session.serve(self.n_updates, 0, lr, {update.worker: frame})
            self.n_updates += 1
            session.close(not session.aborted)
            if packet is not None:
                self.latest = packet
        self.update_counts[update.worker].count(update)

    def answer(self, step: int) -> Tensor:
        """The newest model as a frame for a worker that has sent its gradient number `step`."""
        return encode(Frame(header=Header(role="server", rank=0, round=step), packet=self.latest))
