"""What is saved of training whose rounds run in backward passes: see `TrainingStep`, which has more."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from laconic.training.active_parameters import ActiveParameters
from laconic.training.learning_rates import LearningRates


@dataclass(frozen=True)
class NoLocalSteps:
    """One step for each exchange."""

    many: int = 1
    are_taken: bool = False


class BackwardTraining:
    """The state between two steps, beside that of the sessions: which parameters take part."""

    n_taken = 0
    """Number of local steps since the last exchange."""
    local = NoLocalSteps()

    def __init__(self, active: ActiveParameters, learning_rates: LearningRates) -> None:
        self._active, self._learning_rates = active, learning_rates

    def saved(self) -> dict[str, Any]:
        """Return the state, as data that JSON can hold, in the form of `TrainingStep.saved`."""
        initial = list(self._learning_rates.initial)
        return {
            "active": self._active.saved(), "initial_lrs": initial, "lrs_since_exchange": [0.0] * len(initial),
            "steps_taken": 0, "start": None, "values": None, "non_finite": [],
        }  # fmt: skip

    def begun_again(self, state: Mapping[str, Any], values: Tensor | None) -> dict[str, Any]:
        """Return the state of a rank that begins at an exchange, with what all ranks had alike in a saved one."""
        return {**self.saved(), "active": self._active.unsettled()}

    def check(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError if saved parameters are not those of this model, or local steps have to be gone on with."""
        self._active.check(state["active"])
        if state["steps_taken"]:
            raise ValueError(f"state_dict: {state['steps_taken']} local steps have followed the last exchange")

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `saved` has returned."""
        self._active.restore(state["active"])
