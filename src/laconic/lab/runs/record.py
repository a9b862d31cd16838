"""The record of a run: its settings, a row per epoch, and its figures. `laconic.lab.runs.files` writes and reads it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from laconic.contract import ModelSpec
from laconic.lab.partitions import Share
from laconic.lab.provenance import machine, versions
from laconic.lab.runs.accounting import Accounting, parts_of
from laconic.lab.runs.accuracy import Accuracy
from laconic.lab.runs.dense_sgd import DenseSGD
from laconic.lab.runs.device import described_device
from laconic.lab.runs.divergence import EpochEnd, Guess, why_diverged
from laconic.lab.runs.settings import RunSettings
from laconic.lab.runs.times import PhaseTimes
from laconic.lab.runs.warm_up import with_warm_up_rounds
from laconic.telemetry.traffic import Traffic


@dataclass(frozen=True, kw_only=True)
class Row:
    """The state of a run after an epoch. Bytes and bits are totals over all workers since the start."""

    epoch: int
    round: int
    train_loss: float
    """Mean over the epoch and the workers."""
    test_accuracy: float | None
    """Accuracy of the model, or of the mean model if each worker has its own; None where nothing is classified."""
    own_accuracy_lowest: float | None
    """Minimum over the workers' own models; None if they are equal."""
    own_accuracy_mean: float | None
    own_accuracy_highest: float | None
    consensus_distance: float | None
    """sqrt(1/N sum_n ||x_n - xbar||^2); None if the workers' models are equal."""
    up_wire_bytes: int
    down_wire_bytes: int
    up_payload_bits: int
    up_paper_bits: float
    skips_up: int
    skips_down: int
    aborted_rounds: int
    seconds: float | None
    """Seconds since the start, as `Record.clock` says; None where nothing takes simulated time."""
    gap: float | None = None
    """f(x) - f* of the same model, where the task's minimum is known."""
    mean_squared_gradient: float | None = None
    """Mean over the epoch of ||f'(x)||^2 at the model before each step, where the task measures it."""
    metric: float | None = None
    """The figure of a user's own task."""

    @classmethod
    def of(
        cls,
        *,
        epoch: int,
        loss: float,
        accuracy: Accuracy,
        traffic: Traffic,
        seconds: float | None,
        mean_squared_gradient: float | None = None,
    ) -> "Row":
        """Make a row from the traffic counters."""
        own = accuracy.own
        return cls(
            epoch=epoch, round=traffic.rounds, train_loss=loss, test_accuracy=accuracy.test,
            own_accuracy_lowest=min(own, default=None), own_accuracy_mean=sum(own) / len(own) if own else None,
            own_accuracy_highest=max(own, default=None), consensus_distance=accuracy.consensus_distance,
            up_wire_bytes=traffic.up.wire_bytes, down_wire_bytes=traffic.down.wire_bytes,
            up_payload_bits=traffic.up.payload_bits, up_paper_bits=traffic.up.paper_bits,
            skips_up=traffic.up.skips, skips_down=traffic.down.skips, aborted_rounds=traffic.aborted_rounds,
            seconds=seconds, gap=accuracy.gap, mean_squared_gradient=mean_squared_gradient, metric=accuracy.metric,
        )  # fmt: skip


_FAR = 10.0  # times the gap of the start: a run that has diverged
OF_TASKS = ("gap", "mean_squared_gradient", "metric")
"""The columns that only some tasks fill: `metrics.csv` has those of its own task."""


@dataclass(kw_only=True)
class Record:
    """A finished run."""

    settings: RunSettings
    spec: ModelSpec
    layout: str
    traffic: Traffic
    rows: list[Row] = field(default_factory=list)
    """One row per epoch."""
    dense_rounds: int = 0
    """Rounds of the dense warm-up."""
    shares: Sequence[Share] = ()
    """What each worker has of the train examples, by rank; empty where all share all, or with many workers."""
    warm_up_rounds: int = 0
    """Rounds of the warm-up, dense or not."""
    accounting: Accounting | None = None
    """What was sent beside the later rounds."""
    times: PhaseTimes | None = None
    """The recorded phases of a run over processes, if requested."""
    guess: Guess | None = None
    """What a model reaches on these data that learns nothing."""
    dense_sgd: DenseSGD | None = None
    """What dense SGD would have sent in this run."""
    learning_rate: float | None = None
    """The learning rate that a theorem gave; None where it is that of the settings."""
    start_gap: float | None = None
    """f(x) - f* before the first step, where the minimum is known."""

    @property
    def last(self) -> Row:
        """The row of the last epoch."""
        return self.rows[-1]

    @property
    def clock(self) -> Literal["simulated", "wall"]:
        """Whether seconds are those of simulated links and gradients, or of this machine."""
        return "simulated" if self.settings.driver == "simulated" else "wall"

    @property
    def why_diverged(self) -> str | None:
        """Why this run diverged, in words; None if it did not."""
        per_round = self.settings.workers if self.settings.method.is_asynchronous else 1  # it aborts single gradients
        epochs = [
            EpochEnd(
                rounds=row.round * per_round,
                aborted=row.aborted_rounds,
                loss=row.train_loss,
                accuracy=row.test_accuracy or 0.0,
            )
            for row in self.rows
        ]
        return why_diverged(epochs, self.guess) or self._grown_gap()

    def _grown_gap(self) -> str | None:
        """Return in words that the objective is far above where it began; None if it is not."""
        gap, start = self.last.gap, self.start_gap
        if gap is None or start is None or gap <= _FAR * start:
            return None
        return f"its gap, {gap:.3g}, is more than {_FAR:g} times that of the start, {start:.3g}"

    @property
    def label(self) -> str:
        """The name of the method for a picture or a line, with a word if the run diverged."""
        return f"{self.settings.algorithm} (diverged)" if self.why_diverged else self.settings.algorithm

    def summary(self) -> dict[str, Any]:
        """Return the run's figures, without its settings, and the versions and the machine that made them."""
        traffic, settings = self.traffic, self.settings
        worker_rounds = settings.takes_part * traffic.rounds
        answers = worker_rounds if settings.driver == "simulated" else settings.workers * traffic.rounds
        paper_up, paper_down = self._expected_bits()
        return {
            "parameters": self.spec.d,
            "tensors": dict(zip(self.spec.names, self.spec.shapes, strict=True)),
            "layout": self.layout,
            "diverged": self.why_diverged is not None,
            "diverged_because": self.why_diverged,
            "test_accuracy": self.last.test_accuracy,
            **self._own_models(),
            "best_test_accuracy": max(
                (row.test_accuracy for row in self.rows if row.test_accuracy is not None), default=None
            ),
            **self._of_task(),
            **({"shares": [asdict(share) for share in self.shares]} if self.shares else {}),
            "train_loss": self.last.train_loss,
            "dense_rounds": self.dense_rounds,
            "warm_up_rounds": self.warm_up_rounds,
            "traffic": self._traffic_data(),
            "bits_per_worker_and_round": {
                "expected_paper_up": paper_up,
                "expected_paper_down": paper_down,
                "paper_up": traffic.up.paper_bits / worker_rounds,
                "payload_up": traffic.up.payload_bits / worker_rounds,
                "wire_up": 8 * (traffic.up.wire_bytes + traffic.up.local_bytes) / worker_rounds,
                "paper_down": None if paper_down is None else traffic.down.paper_bits / answers,
                "payload_down": traffic.down.payload_bits / answers,
                "wire_down": 8 * (traffic.down.wire_bytes + traffic.down.local_bytes) / answers,
            },
            "guess": None if self.guess is None else asdict(self.guess),
            "dense_sgd": None if self.dense_sgd is None else asdict(self.dense_sgd),
            "dense_sgd_wire_bytes_over_own": None if self.dense_sgd is None else self.dense_sgd.over(traffic),
            "parts": self.parts(),
            "clock": self.clock,
            "seconds": self.last.seconds,
            **({} if self.times is None else {"clocks_apart_s": self.times.accuracy_s}),
            "versions": versions(),
            "machine": self.machine_of(self.settings),
        }

    def parts(self) -> dict[str, Any]:
        """Return the parts of the run's traffic; see `parts_of`."""
        return parts_of(self.traffic, self.warm_up_rounds, self.dense_sgd, self.accounting)

    @staticmethod
    def machine_of(settings: RunSettings) -> dict[str, Any]:
        """Return the machine that a run has used, with its GPU if it used one."""
        return machine() | described_device(settings.device)

    def _traffic_data(self) -> dict[str, Any]:
        data = self.traffic.as_data()
        return data if self.last.seconds is not None else data | {"seconds": dict.fromkeys(data["seconds"])}

    def _of_task(self) -> dict[str, float]:
        """Return the figures that only some tasks have; the squared gradient is the mean over the whole run."""
        found = {name: getattr(self.last, name) for name in OF_TASKS if getattr(self.last, name) is not None}
        if "mean_squared_gradient" in found:
            squares = [row.mean_squared_gradient for row in self.rows if row.mean_squared_gradient is not None]
            found["mean_squared_gradient"] = sum(squares) / len(squares)
        if self.learning_rate is not None:
            found["learning_rate"] = self.learning_rate
        if self.start_gap is not None:
            found["start_gap"] = self.start_gap
        return found

    def _own_models(self) -> dict[str, float]:
        """Return the last figures of the workers' own models; nothing if they are equal."""
        names = ("own_accuracy_lowest", "own_accuracy_mean", "own_accuracy_highest", "consensus_distance")
        return {name: getattr(self.last, name) for name in names if getattr(self.last, name) is not None}

    def _expected_bits(self) -> tuple[float, float | None]:
        """Return the bits of the paper's formula per worker and round, (up, down), with the warm-up included.

        The second is None if the paper does not count what comes down.
        """
        method = with_warm_up_rounds(self.settings, self.warm_up_rounds)
        bits = [
            (32.0 * self.spec.d,) * 2 if method.dense_in(round_) else method.in_round(round_).paper_bits(self.spec)
            for round_ in range(self.warm_up_rounds)
        ]
        own, n_later = method.paper_bits(self.spec), self.traffic.rounds - self.warm_up_rounds
        up, down = (
            (sum(each[direction] for each in bits) + n_later * own[direction]) / self.traffic.rounds
            for direction in (0, 1)
        )
        return up, down if own[1] else None
