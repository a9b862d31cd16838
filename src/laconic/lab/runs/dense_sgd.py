"""What dense SGD sends in a run with the same options: the base of every ratio, whatever else is compared."""

from dataclasses import dataclass
from math import ceil

from laconic.contract import ModelSpec
from laconic.errors import OptionError
from laconic.lab.algorithms import make_algorithm
from laconic.protocol.dense_round import dense_round_bytes
from laconic.protocol.layout import Layout, choose_layout, n_nodes_for
from laconic.telemetry.traffic import Traffic


@dataclass(frozen=True, kw_only=True)
class DenseSGD:
    """The traffic of `sgd`, added up over the workers, without faults or aborted rounds: computed, not measured."""

    layout: str
    """The layout of the run, or sgd's own where it does not admit that."""
    rounds: int
    up_wire_bytes: int
    down_wire_bytes: int

    @classmethod
    def of(cls, *, spec: ModelSpec, workers: int, layout: str, steps: int, local_steps: int) -> "DenseSGD":
        """Compute it for a model, a number of workers, the option `layout`, and steps of which some are local."""
        chosen = _layout(layout, spec, workers)
        rounds = ceil(steps / local_steps)
        n_bytes = rounds * dense_round_bytes(chosen, spec.d)
        return cls(layout=chosen.name, rounds=rounds, up_wire_bytes=n_bytes, down_wire_bytes=n_bytes)

    def over(self, traffic: Traffic) -> dict[str, float | None]:
        """Return this traffic's wire bytes over a method's: "up", "down" and "total"; None where the method sends none.

        Args:
            traffic: The sum over all workers.
        """
        up, down = traffic.up.wire_bytes, traffic.down.wire_bytes
        both = {
            "up": (self.up_wire_bytes, up), "down": (self.down_wire_bytes, down),
            "total": (self.up_wire_bytes + self.down_wire_bytes, up + down),
        }  # fmt: skip
        return {name: dense / own if own else None for name, (dense, own) in both.items()}


def _layout(name: str, spec: ModelSpec, workers: int) -> Layout:
    algorithm = make_algorithm("sgd", {})
    try:
        return choose_layout(name, algorithm, spec, n_nodes_for(name, algorithm, workers))
    except OptionError:
        return choose_layout("auto", algorithm, spec, workers)
