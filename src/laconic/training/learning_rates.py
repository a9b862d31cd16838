"""The learning rate that an algorithm reads from the inner optimizer."""

from torch.optim import Optimizer

from laconic.contract import Algorithm


class LearningRates:
    """Reads the learning rate each round, and checks it for methods that divide by it."""

    def __init__(self, inner: Optimizer, algorithm: Algorithm) -> None:
        self._inner = inner
        self._algorithm = algorithm
        self.initial = self.by_group()

    def by_group(self) -> list[float]:
        """Return every parameter group's current learning rate."""
        return [float(group.get("lr", 0.0)) for group in self._inner.param_groups]

    def now(self) -> float:
        """Return the current learning rate of parameter group 0.

        Raises:
            ValueError: if the method reads it and it is 0, or the groups' learning rates changed their proportions.
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
                    f"{self._algorithm.name} scales its residual with the learning rate, so the parameter groups' "
                    f"learning rates must keep their proportions; they were {self.initial} and are {learning_rates}"
                )
        return learning_rates[0]
