"""The learning rate that an algorithm sees: the inner optimizer's, when that is one number."""

from torch.optim import Optimizer

from laconic.contract import Algorithm


class LearningRates:
    """Reads the rate each round, and watches what methods that divide by it need."""

    def __init__(self, inner: Optimizer, algorithm: Algorithm) -> None:
        self._inner = inner
        self._algorithm = algorithm
        self.initial = self.by_group()

    def by_group(self) -> list[float]:
        """Every parameter group's rate now."""
        return [float(group.get("lr", 0.0)) for group in self._inner.param_groups]

    def now(self) -> float:
        """The first group's rate.

        Raises ValueError where the method reads the rate and it is 0, or the groups' rates left their proportions.
        """
        learning_rates = self.by_group()
        if self._algorithm.reads_lr:
            if min(learning_rates) <= 0 or min(self.initial) <= 0:
                raise ValueError(
                    f"{self._algorithm.name} divides by the learning rate: lr={min(learning_rates)} must be above 0"
                )
            common = [
                learning_rate / initial for learning_rate, initial in zip(learning_rates, self.initial, strict=True)
            ]
            if max(common) > min(common) * (1 + 1e-9):
                raise ValueError(
                    f"{self._algorithm.name} carries its debt along with the learning rate, so the parameter groups' "
                    f"rates must keep their proportions; they were {self.initial} and are {learning_rates}"
                )
        return learning_rates[0]
