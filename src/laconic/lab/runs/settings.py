"""The settings of one run, checked before anything starts."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from laconic.contract import ALGORITHMS, Algorithm, ModelSpec
from laconic.faults.plan import FaultPlan
from laconic.hyperparameters import from_text, hyperparameters_of, near_misses
from laconic.kernels.api import MAX_KERNEL_THREADS
from laconic.lab.datasets import DATASETS
from laconic.lab.defaults import DECAY_AT, WARM_UP_FROM
from laconic.lab.models import MODELS
from laconic.network import Link
from laconic.protocol.layout import choose_layout, n_nodes_for
from laconic.training.local_steps import check_local_steps
from laconic.units import bandwidth, duration

DRIVERS = ("simulated", "processes")
PARTITIONS = ("resample", "fixed")
LR_SCHEDULES = ("constant", "cosine", "step")
BASE_LR = 0.1  # of plain SGD; a method's default is this times its lr_factor


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The options of `laconic run`. Field names are the names of the options."""

    algorithm: str
    set: dict[str, str] = field(default_factory=dict)
    workers: int = 4
    driver: str = "simulated"
    layout: str = "auto"
    dataset: str = "digits"
    data: str | None = None
    model: str = "mlp"
    epochs: int = 10
    batch_size: int = 32
    """Examples per worker and step."""
    local_steps: int = 1
    """Local steps per exchange."""
    dense_epochs: float | None = None
    """First epochs that send dense vectors, one step per exchange."""
    lr: float | None = None
    """The learning rate; None for the method's default."""
    lr_schedule: str = "constant"
    decay_at: str | None = None
    """Shares of the run at which the schedule "step" decays, separated by commas."""
    warm_up_epochs: float | None = None
    warm_up_from: float | None = None
    """Share of the learning rate at which the warm-up starts."""
    weight_decay: float = 0.0
    seed: int = 0
    partition: str = "resample"
    bandwidth: str | None = None
    latency: str | None = None
    compute: str | None = None
    faults: str | None = None
    """Path of a fault plan."""
    threads: int = 1
    """Torch threads per process."""
    kernel_threads: int = 1
    """Threads per process within a compiled kernel."""
    timeout_s: float = 60.0
    """Seconds that a rank waits for another."""
    record_times: bool = False
    """Whether to record when each rank computes, encodes, waits and decodes."""

    def __post_init__(self) -> None:
        """Check all options.

        Raises:
            ValueError: An option is wrong. The message names the option, its value, its bound and the way out.
        """
        self._one_of("algorithm", sorted(ALGORITHMS))
        self._one_of("driver", DRIVERS)
        self._one_of("dataset", sorted(DATASETS))
        self._one_of("model", sorted(MODELS))
        self._one_of("partition", PARTITIONS)
        self._one_of("lr_schedule", LR_SCHEDULES)
        for name in ("workers", "epochs", "batch_size", "threads", "kernel_threads"):
            self._check_minimum(name, 1)
        if self.kernel_threads > MAX_KERNEL_THREADS:
            raise ValueError(
                f"--kernel-threads {self.kernel_threads} must be at most {MAX_KERNEL_THREADS}, this machine's cores"
            )
        self._check_minimum("seed", 0)
        self._check_minimum("weight_decay", 0)
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ValueError(f"--lr {self.lr} must be above 0 and finite; leave it out for the method's own default")
        if self.timeout_s <= 0:
            raise ValueError(f"--timeout-s {self.timeout_s} must be above 0 seconds")
        if self.driver == "processes":
            for name in ("bandwidth", "latency", "compute", "faults"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"--{name} {getattr(self, name)} is for --driver simulated; processes use real links"
                    )
        elif self.record_times:
            raise ValueError(
                "--record-times is for --driver processes; a simulated run's times follow from its links: see "
                "`laconic timeline`"
            )
        self._check_learning_rate()
        self._check_dense_epochs()
        check_local_steps(self.build(), self.local_steps)
        self.link()
        self.compute_s()
        layout = choose_layout(  # data are not read yet
            self.layout, self.build(), ModelSpec.of_sizes(10**6), n_nodes=self.n_processes
        )
        if self.fault_plan is not None:
            self.fault_plan.check(self.build(), layout.name, self.workers)

    def _one_of(self, name: str, known: Any) -> None:  # noqa: ANN401 - any sequence of names
        value = getattr(self, name)
        if value not in known:
            raise ValueError(
                f"--{name.replace('_', '-')} {value!r} must be one of "
                f"{', '.join(known)}{near_misses(value, list(known))}"
            )

    def _check_minimum(self, name: str, bound: int) -> None:
        value = getattr(self, name)
        if not value >= bound:
            raise ValueError(f"--{name.replace('_', '-')} {value} must be at least {bound}")

    def _check_maximum(self, name: str, bound: float) -> None:
        value = getattr(self, name)
        if value is not None and not 0 < value <= bound:
            raise ValueError(f"--{name.replace('_', '-')} {value:g} must be above 0 and at most {bound}")

    def _check_learning_rate(self) -> None:
        """Refuse a warm-up or decays that do not fit the other options."""
        self._check_maximum("warm_up_epochs", self.epochs)
        self._check_maximum("warm_up_from", 1)
        if self.warm_up_from is not None and self.warm_up_epochs is None:
            raise ValueError(
                f"--warm-up-from {self.warm_up_from} needs --warm-up-epochs, over which the learning rate rises"
            )
        if self.decay_at is not None and self.lr_schedule != "step":
            raise ValueError(f"--decay-at {self.decay_at} is for --lr-schedule step, not {self.lr_schedule}")
        self.decay_shares()

    def _check_dense_epochs(self) -> None:
        """Refuse dense epochs for a method without dense rounds, or beside the hyper-parameter `dense_rounds`."""
        if self.dense_epochs is None:
            return
        self._check_maximum("dense_epochs", self.epochs)
        if not has_dense_rounds(self.algorithm):
            able = ", ".join(name for name in sorted(ALGORITHMS) if has_dense_rounds(name))
            raise ValueError(
                f"--dense-epochs {self.dense_epochs:g}: {self.algorithm} has no dense rounds; leave it out, or take "
                f"one of {able}"
            )
        if "dense_rounds" in self.set:
            raise ValueError(
                f"--dense-epochs {self.dense_epochs:g} and --set dense_rounds={self.set['dense_rounds']} say the same "
                "in epochs and in rounds; give one of them"
            )

    @property
    def warm_up_start(self) -> float:
        """The share of the learning rate at which the warm-up starts."""
        return WARM_UP_FROM if self.warm_up_from is None else self.warm_up_from

    def decay_shares(self) -> tuple[float, ...]:
        """Return the shares of the run at which the schedule "step" divides the learning rate by 10.

        Raises:
            ValueError: --decay-at is not a list of rising shares.
        """
        text = DECAY_AT if self.decay_at is None else self.decay_at
        try:
            shares = tuple(float(word) for word in text.split(","))
        except ValueError:
            shares = ()
        if not shares or list(shares) != sorted(set(shares)) or not (shares[0] > 0 and shares[-1] < 1):
            raise ValueError(
                f"--decay-at {text!r} must be rising shares of the run between 0 and 1, such as {DECAY_AT}"
            )
        return shares

    @property
    def n_processes(self) -> int:
        """The number of workers, plus 1 for a dedicated server."""
        return n_nodes_for(self.layout, self.build(), self.workers)

    @property
    def learning_rate(self) -> float:
        """The given learning rate, or plain SGD's times the method's factor."""
        return BASE_LR * self.build().lr_factor if self.lr is None else self.lr

    def build(self) -> Algorithm:
        """Make the algorithm with its hyper-parameters."""
        return from_text(ALGORITHMS[self.algorithm], self.set, self.algorithm)

    def link(self) -> Link:
        """Return the simulated link of every node."""
        bandwidth_argument = (
            {} if self.bandwidth is None else {"bytes_per_s": _read("--bandwidth", bandwidth, self.bandwidth)}
        )
        delay = {} if self.latency is None else {"latency_s": _read("--latency", duration, self.latency)}
        return Link(**bandwidth_argument, **delay)

    @cached_property
    def fault_plan(self) -> FaultPlan | None:
        """The fault plan, read once; None without --faults.

        Raises:
            ValueError: The file is not a valid fault plan.
            OSError: The file cannot be read.
        """
        if self.faults is None:
            return None
        try:
            return FaultPlan.from_toml(Path(self.faults).read_text(encoding="utf-8"))
        except ValueError as error:  # also raised for text that is not UTF-8
            raise ValueError(f"--faults {self.faults}: {error}") from None

    def compute_s(self) -> float:
        """Return the simulated time of one gradient, in seconds."""
        return 0.0 if self.compute is None else _read("--compute", duration, self.compute)

    def as_data(self) -> dict[str, Any]:
        """Return the content of `config.toml`: all options that are set, the learning rate and all hyper-parameters."""
        hyperparameters = self.build().settings()
        if self.dense_epochs is not None:
            del hyperparameters["dense_rounds"]  # follows from the epochs and the data
        data = dataclasses.asdict(self) | {"lr": self.learning_rate, "set": hyperparameters}
        if self.lr_schedule == "step":
            data["decay_at"] = self.decay_at or DECAY_AT
        if self.warm_up_epochs is not None:
            data["warm_up_from"] = self.warm_up_start
        if self.data is not None:
            data["data"] = str(Path(self.data))
        return {key: value for key, value in data.items() if value is not None}


def _read(option: str, read: Callable[[str], float], text: str) -> float:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def has_dense_rounds(name: str) -> bool:
    """Return whether the algorithm of this name can begin with dense rounds."""
    return any(field_.name == "dense_rounds" for field_, _ in hyperparameters_of(ALGORITHMS[name]))
