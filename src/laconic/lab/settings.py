"""One run's settings, checked before anything starts."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from laconic.contract import ALGORITHMS, Algorithm
from laconic.drivers.layout import choose_layout
from laconic.knobs import from_text, near_misses
from laconic.lab.datasets import DATASETS
from laconic.lab.models import MODELS
from laconic.network import Link
from laconic.quantities import bandwidth, duration

DRIVERS = ("simulated", "processes")
PARTITIONS = ("resample", "fixed")
SCHEDULES = ("constant", "cosine")
BASE_LR = 0.1  # plain SGD's; a method's own default is this times its lr_factor


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What `laconic run` was asked to do. Field names are the command line's options."""

    algorithm: str
    set: dict[str, str] = field(default_factory=dict)
    workers: int = 4
    driver: str = "simulated"
    server: str = "auto"
    dataset: str = "digits"
    data: str | None = None
    model: str = "mlp"
    epochs: int = 10
    batch_size: int = 32  # per worker
    lr: float | None = None
    schedule: str = "constant"
    weight_decay: float = 0.0
    seed: int = 0
    partition: str = "resample"
    bandwidth: str | None = None
    latency: str | None = None
    compute: str | None = None
    threads: int = 1  # of each process
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        """Raises ValueError naming the option, its value, its bound and the way out."""
        self._one_of("algorithm", sorted(ALGORITHMS))
        self._one_of("driver", DRIVERS)
        self._one_of("dataset", sorted(DATASETS))
        self._one_of("model", sorted(MODELS))
        self._one_of("partition", PARTITIONS)
        self._one_of("schedule", SCHEDULES)
        for name in ("workers", "epochs", "batch_size", "threads"):
            self._at_least(name, 1)
        self._at_least("seed", 0)
        self._at_least("weight_decay", 0)
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ValueError(f"--lr {self.lr} must be above 0 and finite; leave it out for the method's own default")
        if self.timeout_s <= 0:
            raise ValueError(f"--timeout-s {self.timeout_s} must be above 0 seconds")
        if self.driver == "processes":
            for name in ("bandwidth", "latency", "compute"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"--{name} {getattr(self, name)} is for --driver simulated; processes use real links"
                    )
        self.link()
        self.compute_s()
        choose_layout(self.server, self.build(), d=self.workers, n_nodes=self.n_processes)

    def _one_of(self, name: str, known: Any) -> None:  # noqa: ANN401 - any sequence of names
        value = getattr(self, name)
        if value not in known:
            raise ValueError(f"--{name} {value!r} must be one of {', '.join(known)}{near_misses(value, list(known))}")

    def _at_least(self, name: str, bound: int) -> None:
        value = getattr(self, name)
        if not value >= bound:
            raise ValueError(f"--{name.replace('_', '-')} {value} must be at least {bound}")

    @property
    def n_processes(self) -> int:
        """Workers, and a dedicated server."""
        return self.workers + (self.server == "dedicated")

    @property
    def rate(self) -> float:
        """The learning rate: what was asked for, or plain SGD's times the method's factor."""
        return BASE_LR * self.build().lr_factor if self.lr is None else self.lr

    def build(self) -> Algorithm:
        """The algorithm with its hyper-parameters."""
        return from_text(ALGORITHMS[self.algorithm], self.set, self.algorithm)

    def link(self) -> Link:
        """The simulated link of every node."""
        rate = {} if self.bandwidth is None else {"bytes_per_s": bandwidth(self.bandwidth)}
        delay = {} if self.latency is None else {"latency_s": duration(self.latency)}
        return Link(**rate, **delay)

    def compute_s(self) -> float:
        """The simulated time of one gradient."""
        return 0.0 if self.compute is None else duration(self.compute)

    def as_data(self) -> dict[str, Any]:
        """What a config file holds: every option that is set, the learning rate and hyper-parameters in full."""
        data = dataclasses.asdict(self) | {"lr": self.rate, "set": self.build().settings()}
        if self.data is not None:
            data["data"] = str(Path(self.data))
        return {key: value for key, value in data.items() if value is not None}
