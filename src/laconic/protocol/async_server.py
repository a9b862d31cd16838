"""The server of an asynchronous method: it applies one gradient at a time and answers with the newest model.

Both drivers run this. A gradient with inf or NaN affects only its own worker, which drops what it staged and continues
with the newest model. (In rounds, one such gradient aborts the round for all workers.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor

from laconic.compressors import dense
from laconic.contract import UpdateOutcome, check_vector
from laconic.errors import ContractError
from laconic.protocol.frames import read_frame
from laconic.protocol.round_inputs import Active
from laconic.protocol.server import ServerSession
from laconic.wire import Control, Encoded, Frame, Header, Packet, decode, encode


@dataclass(kw_only=True)
class UpdateCounts:
    """What became of one worker's gradients."""

    staleness: dict[int, int] = field(default_factory=dict)
    """Number of applied gradients, by their staleness."""
    dropped: int = 0
    """Number of gradients that were too old."""
    held: int = 0
    """Number of gradients applied later than they arrived, because older ones had to be applied before them."""
    aborted: int = 0
    """Number of gradients with inf or NaN."""
    n_finished: int = 0
    """Number of the worker's steps that the server has finished: its gradient was applied, dropped or aborted."""

    def count(self, update: UpdateOutcome) -> None:
        """Count one gradient."""
        if update.outcome == "applied":
            self.staleness[update.staleness] = self.staleness.get(update.staleness, 0) + 1
        self.dropped += update.outcome == "dropped"
        self.aborted += update.outcome == "aborted"
        self.held += update.waited
        self.n_finished += 1

    @property
    def updates(self) -> dict[str, int]:
        """Counts of the gradients that were not applied at their arrival, without those that are zero."""
        return {name: n for name in ("dropped", "held", "aborted") if (n := getattr(self, name))}

    def __add__(self, other: "UpdateCounts") -> "UpdateCounts":
        ages = sorted({*self.staleness, *other.staleness})
        return UpdateCounts(
            staleness={age: self.staleness.get(age, 0) + other.staleness.get(age, 0) for age in ages},
            dropped=self.dropped + other.dropped, held=self.held + other.held, aborted=self.aborted + other.aborted,
            n_finished=self.n_finished + other.n_finished,
        )  # fmt: skip

    def saved(self) -> dict[str, Any]:
        """Return the counts as data that JSON can hold."""
        return asdict(self) | {"staleness": {str(age): n for age, n in self.staleness.items()}}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "UpdateCounts":
        """The inverse of `saved`."""
        return cls(**{**data, "staleness": {int(age): n for age, n in data["staleness"].items()}})


class ArrivalServer:
    """Steps the server's model once for each gradient. The driver decides which worker computes next."""

    def __init__(self, session: ServerSession, parameters: Tensor, active: Active | None = None) -> None:
        """Start from the initial `parameters` (d,). `active` is given what each gradient used before it is applied."""
        self.session = session
        self.latest: Packet = dense(parameters)
        self.n_updates = 0
        self.update_counts = [UpdateCounts() for _ in range(session.job.layout.n_workers)]
        self.used: dict[int, Sequence[bool]] = {}
        """By worker, the parameters behind its last gradient."""
        self.landing = session.each_while_landing()
        """What a transport may tell of chunks."""
        self._active = active
        self._frames: dict[int, Frame] = {}  # received, but not yet applied or dropped; by worker

    @property
    def total(self) -> UpdateCounts:
        """All workers' counts added up."""
        return sum(self.update_counts, UpdateCounts())

    def read(self, worker: int, data: Encoded) -> Frame:
        """Decode the worker's next message: its next gradient, or a control frame ADMIT, USED or BYE before it.

        Raises:
            WireError: if it cannot be decoded.
            ContractError: if it is not the expected frame.
        """
        step, session = self.update_counts[worker].n_finished, self.session
        controls = (Control.ADMIT, Control.USED, Control.BYE)
        return read_frame(data, session.job, "worker", worker, step, 0, session.shard, controls=controls)

    def receive(self, worker: int, frame: Frame) -> None:
        """Receive the frame of the worker's gradient."""
        self._frames[worker] = frame

    def commit(self, update: UpdateOutcome, lr: float) -> None:
        """Apply or drop a received gradient, as `update` says."""
        session, frame = self.session, self._frames.pop(update.worker)
        landed = None if self.landing is None else self.landing.sums.pop(update.worker, None)
        if update.outcome == "applied":
            session.view.staleness = update.staleness
            self._select(update.worker)
            session.open(self.n_updates, 0, lr)
            session.take_landed(landed)
            packet = session.serve({update.worker: frame})
            self.n_updates += 1
            session.close(not session.aborted)
            if packet is not None:
                self.latest = packet
            else:  # the server's step would have overflowed
                update = replace(update, outcome="aborted")
        self.update_counts[update.worker].count(update)

    def _select(self, worker: int) -> None:
        if self._active is None:
            return
        if worker not in self.used:
            raise ContractError(f"worker {worker} sent a gradient before it reported which parameters it uses")
        self._active.select(self.used[worker])

    def answer(self, step: int) -> Frame:
        """Return the newest model as an answer to a worker that has sent its gradient number `step`."""
        return Frame(header=Header(role="server", rank=0, round=step), packet=self.latest)

    def take(self, values: Tensor) -> None:
        """Answer with these parameters (d,) from now on."""
        self.latest = dense(values.clone())

    def saved(self) -> dict[str, Any]:
        """Return the state between two updates. Gradients that wait are saved as their frames."""
        return {
            "latest": self.latest.dense().clone(), "updates": self.n_updates,
            "update_counts": [counts.saved() for counts in self.update_counts],
            "used": {str(worker): list(used) for worker, used in self.used.items()},
            "frames": {str(worker): encode(frame) for worker, frame in self._frames.items()},
        }  # fmt: skip

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError if a saved model is not one of this server's."""
        check_vector("the server's latest model", saved["latest"], self.latest.dense())

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from what `saved` returned."""
        self.latest = dense(saved["latest"].clone())
        self.n_updates = saved["updates"]
        self.update_counts = [UpdateCounts.from_data(counts) for counts in saved["update_counts"]]
        self.used = {int(worker): list(used) for worker, used in saved["used"].items()}
        stop = self.session.job.spec.stop
        self._frames = {int(worker): decode(frame, stop) for worker, frame in saved["frames"].items()}


def resized_arrivals(saved: Mapping[str, Any], n_workers: int, round_: int) -> dict[str, Any]:
    """Return the state of a server after `round_` rounds, for another number of workers.

    Gradients that wait are lost. What became of leaving workers' gradients is added to worker 0's counts.
    """
    counts = [UpdateCounts.from_data(one) for one in saved["update_counts"]]
    new = [*counts[:n_workers], *(UpdateCounts() for _ in range(n_workers - len(counts)))]
    new[0] = sum(counts[n_workers:], new[0])
    used = {rank: list(used) for rank, used in saved["used"].items() if int(rank) < n_workers}
    update_counts = [replace(one, n_finished=round_).saved() for one in new]
    return {**saved, "update_counts": update_counts, "used": used, "frames": {}}
