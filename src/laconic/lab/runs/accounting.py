"""What a run sends beside its later rounds: at set-up, in round 0, in a warm-up, and to test the model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

from laconic.contract import is_of_warm_up
from laconic.drivers.distributed.channel import Channel
from laconic.lab.runs.dense_sgd import DenseSGD
from laconic.telemetry.meter import Count
from laconic.telemetry.traffic import Traffic
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.simulation import Simulation


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """Bytes that no other count shows apart, of one process or of all."""

    round_0_up: int = 0
    """Wire bytes of the workers in the very first round."""
    round_0_down: int = 0
    set_up_control: int = 0
    """Control bytes until the first step, at the first start of a run."""
    evaluation_control: int = 0
    """Control bytes to test the model and to add up the counts at the end of each epoch."""

    def __add__(self, other: "Accounting") -> "Accounting":
        mine, others = asdict(self), asdict(other)
        return Accounting(**{name: mine[name] + others[name] for name in mine})


ACCOUNTING = dict.fromkeys((field.name for field in fields(Accounting)), range(1 << 62))
"""What the data of an `Accounting` from elsewhere must fit."""


class Accounts:
    """Counts on one process."""

    def __init__(self, saved: Mapping[str, int] | None) -> None:
        """Begin at 0, or go on."""
        self._counts = asdict(Accounting()) if saved is None else dict(saved)
        self._goes_on = saved is not None
        self._has_round_0 = saved is not None

    def begin(self, trained: Simulation | DistributedOptimizer) -> None:
        """Count the control bytes of set-up, before the first step."""
        if not self._goes_on:
            self._counts["set_up_control"] = trained.traffic.control_bytes

    def after_step(self, trained: Simulation | DistributedOptimizer) -> None:
        """Count round 0, once it is over."""
        if not self._has_round_0 and trained.driver.rounds:
            traffic = trained.traffic
            self._counts |= {"round_0_up": traffic.up.wire_bytes, "round_0_down": traffic.down.wire_bytes}
            self._has_round_0 = True

    @contextmanager
    def evaluation(self, channel: Channel) -> Iterator[None]:
        """Count the control bytes of the block as those of an evaluation."""
        before = channel.control_bytes
        yield
        self._counts["evaluation_control"] += channel.control_bytes - before

    def of_process(self) -> Accounting:
        """Return the counts of this process."""
        return Accounting(**self._counts)

    def gathered(self, channel: Channel) -> list[dict[str, int]]:
        """Return the counts of every rank, on every rank. Collective."""
        found: list[dict[str, int]] = channel.gather(self._counts, "for its accounts", ACCOUNTING, max_bytes=400)
        return found


def sum_of(counts: Sequence[Mapping[str, int]]) -> Accounting:
    """Return the sum over ranks."""
    return sum((Accounting(**each) for each in counts), Accounting())


def parts_of(
    traffic: Traffic, warm_up_rounds: int, dense_sgd: DenseSGD | None, accounting: Accounting | None
) -> dict[str, Any]:
    """Return the parts of a run's traffic, in wire bytes of all workers, for `summary.json`.

    The ratios are those of dense SGD over as many rounds; `bound_on_ratio` is what the ratio of the whole run would be
    if nothing were sent after the warm-up.
    """
    counted = accounting or Accounting()
    up, down = (_of_warm_up(by_name) for by_name in (traffic.up_by_exchange, traffic.down_by_exchange))
    later = (traffic.up.wire_bytes - up, traffic.down.wire_bytes - down)
    n_later = traffic.rounds - warm_up_rounds
    checks = traffic.control_bytes - counted.set_up_control - counted.evaluation_control
    return {
        "set_up": {"wire_bytes": traffic.setup.wire_bytes, "control_bytes": counted.set_up_control},
        "round_0": {"up_wire_bytes": counted.round_0_up, "down_wire_bytes": counted.round_0_down},
        "warm_up": {
            "rounds": warm_up_rounds, "up_wire_bytes": up, "down_wire_bytes": down,
            "bound_on_ratio": _ratios(dense_sgd, dense_sgd.rounds if dense_sgd else 0, up, down),
        },
        "after_warm_up": {
            "rounds": n_later, "up_wire_bytes": later[0], "down_wire_bytes": later[1],
            "dense_sgd_wire_bytes_over_own": _ratios(dense_sgd, n_later, *later),
        },
        "evaluation": {"control_bytes": counted.evaluation_control},
        "checks": {"control_bytes": max(0, checks)},
    }  # fmt: skip


def read_accounting(parts: Mapping[str, Any]) -> Accounting:
    """Return what `parts_of` was given. Raises KeyError or TypeError for something else."""
    return Accounting(
        round_0_up=int(parts["round_0"]["up_wire_bytes"]), round_0_down=int(parts["round_0"]["down_wire_bytes"]),
        set_up_control=int(parts["set_up"]["control_bytes"]),
        evaluation_control=int(parts["evaluation"]["control_bytes"]),
    )  # fmt: skip


def _of_warm_up(by_exchange: Mapping[str, Count]) -> int:
    return sum(count.wire_bytes for name, count in by_exchange.items() if is_of_warm_up(name))


def _ratios(dense_sgd: DenseSGD | None, rounds: int, up: int, down: int) -> dict[str, float | None]:
    """Return the wire bytes of dense SGD in so many rounds over these; None where these are 0."""
    if dense_sgd is None or not dense_sgd.rounds:
        return dict.fromkeys(("up", "down", "total"))
    share = rounds / dense_sgd.rounds
    dense_up, dense_down = share * dense_sgd.up_wire_bytes, share * dense_sgd.down_wire_bytes
    pairs = {"up": (dense_up, up), "down": (dense_down, down), "total": (dense_up + dense_down, up + down)}
    return {name: dense / own if own else None for name, (dense, own) in pairs.items()}
