"""When to send nothing: policies for methods whose workers or server may skip a round.

Phuong, Phong and Fukushima, IEEE Access 2023, section II: random coins, or what a node measures of its own link.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from laconic.contract import Side
from laconic.hyperparameters import check_hyperparameters, hyperparameter


@dataclass(frozen=True, kw_only=True)
class SkipPolicy(ABC):
    """Decides once a round, on one side of the link. State goes to the side's memory."""

    name: ClassVar[str]
    separable: ClassVar[bool] = False  # several servers, each with a slice, decide alike

    def __post_init__(self) -> None:
        check_hyperparameters(self, self.name)

    @property
    @abstractmethod
    def probability(self) -> float:
        """The expected share of rounds skipped; 0 where it is not known before the run."""

    @abstractmethod
    def skips(self, side: Side, n_bytes: float) -> bool:
        """Whether to skip this round. `n_bytes`: what sending would cost."""


@dataclass(frozen=True, kw_only=True)
class Never(SkipPolicy):
    """Always send."""

    name: ClassVar[str] = "never"
    separable: ClassVar[bool] = True

    @property
    def probability(self) -> float:
        return 0.0

    def skips(self, side: Side, n_bytes: float) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class RandomSkips(SkipPolicy):
    """An independent keyed coin each round."""

    name: ClassVar[str] = "random"
    separable: ClassVar[bool] = True

    probability: float = hyperparameter(0.3, "chance to skip a round", within="[0, 1)")

    def skips(self, side: Side, n_bytes: float) -> bool:
        return side.uniform("skip") < self.probability


@dataclass(frozen=True, kw_only=True)
class SlowLink(SkipPolicy):
    """Skip while the measured link would need longer than `deadline_s` for the packet, but not too often in a row.

    The speed is the driver's measurement of earlier rounds; with none yet it sends. A forced send measures anew,
    so a link that recovers is noticed. Real links make runs with this policy unrepeatable; the simulator's do not.
    """

    name: ClassVar[str] = "slow-link"

    deadline_s: float = hyperparameter(1.0, "longest time a packet may take", within="(0, inf)", unit="seconds")
    max_in_a_row: int = hyperparameter(3, "skips after which it sends all the same", within="[1, inf)", unit="rounds")

    @property
    def probability(self) -> float:
        return 0.0

    def skips(self, side: Side, n_bytes: float) -> bool:
        row = int(side.memory.number("skips in a row", 0))
        speed = side.link_bytes_per_s
        skip = speed is not None and n_bytes / speed > self.deadline_s and row < self.max_in_a_row
        side.memory.set_number("skips in a row", row + 1 if skip else 0)
        return skip


SKIP_POLICIES: dict[str, type[SkipPolicy]] = {"never": Never, "random": RandomSkips, "slow-link": SlowLink}
