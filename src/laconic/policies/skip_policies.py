"""When to send nothing: policies for methods whose workers or server may skip a round.

Phuong, Phong and Fukushima, IEEE Access 2023, section II: at random, or by measurements of a node's own link.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from laconic.contract import Rule, Side, Slot
from laconic.hyperparameters import check_hyperparameters, hyperparameter


@dataclass(frozen=True, kw_only=True)
class SkipPolicy(ABC):
    """Decides once per round, on one side of the link. Its state is in the memory of that side."""

    name: ClassVar[str]
    separable: ClassVar[bool] = False
    """Whether several servers, each with a slice, make the same decision."""
    slots: ClassVar[Mapping[str, Slot]] = {}
    """The memories that `skips` writes."""

    def __post_init__(self) -> None:
        check_hyperparameters(self, self.name)

    @property
    @abstractmethod
    def probability(self) -> float:
        """The expected share of rounds that are skipped; 0 if it is not known before the run."""

    @abstractmethod
    def skips(self, side: Side, n_bytes: float) -> bool:
        """Return whether to skip this round. `n_bytes`: size of the packet that would be sent."""


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
    """Skip with a fixed probability, by an independent keyed draw each round."""

    name: ClassVar[str] = "random"
    separable: ClassVar[bool] = True

    probability: float = hyperparameter(0.3, "probability of skipping a round", within="[0, 1)")

    def skips(self, side: Side, n_bytes: float) -> bool:
        return side.uniform("skip") < self.probability


@dataclass(frozen=True, kw_only=True)
class SlowLink(SkipPolicy):
    """Skip while the packet would take longer than `deadline_s` on the measured link, but not too often in a row.

    The driver measures the speed in earlier rounds; before the first measurement the policy sends. After
    `max_in_a_row` skips it sends, which measures the link again, so that a recovered link is noticed. With this policy,
    runs over real links cannot be repeated exactly; runs in the simulator can.
    """

    name: ClassVar[str] = "slow-link"
    slots: ClassVar[Mapping[str, Slot]] = {"skips in a row": Slot.number(Rule.PER_WORKER, lowest=0)}

    deadline_s: float = hyperparameter(1.0, "longest time that a packet may take", within="(0, inf)", unit="seconds")
    max_in_a_row: int = hyperparameter(
        3, "number of skips in a row after which the packet is sent all the same", within="[1, inf)", unit="rounds"
    )

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
