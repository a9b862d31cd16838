"""Whether a run diverged: its figures are then those of a model that guesses, or of one that stands still.

| sign | where |
|---|---|
| no round took effect | the last epochs: of 10 rounds or more, at least two rounds |
| most rounds were aborted, and the loss is not finite | likewise, at least two |
| the loss is not finite | one aborted round excuses it, unless the accuracy has fallen to that of a guess |
| the accuracy is that of a guess, and the loss no better than a guess's | after two or more aborted rounds |
| the same, with a loss of 1.5 times a guess's | also without aborted rounds |
| a loss of 10 times a guess's, and under half of what can be won over a guess | also without aborted rounds |

One aborted round is no divergence: it had no effect, and the next one is another batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_STILL_ROUNDS = 10
_AT_GUESS = 0.1  # of what can be won over a guess
_WORSE, _FAR = 1.5, 10.0  # times the loss of a guess
_NO_BETTER = 0.9


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a model reaches that gives the same answer to everything."""

    accuracy: float
    """The share of the most frequent label among the test examples."""
    loss: float
    """The cross entropy of equal probabilities: the logarithm of the number of classes."""

    def share_won(self, accuracy: float) -> float:
        """Return how much of the way from a guess to no error this accuracy is; below 0 if it is worse."""
        return (accuracy - self.accuracy) / (1 - self.accuracy) if self.accuracy < 1 else 0.0


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """A run after an epoch."""

    rounds: int
    """Rounds since the start; single gradients if the method is asynchronous."""
    aborted: int
    """How many of them were aborted."""
    loss: float
    """Mean over the epoch."""
    accuracy: float


def why_diverged(epochs: Sequence[EpochEnd], guess: Guess | None) -> str | None:
    """Return in words why this run diverged; None if it did not.

    Args:
        epochs: All epochs, in order.
        guess: None where it is not known; then only what needs none is looked at.
    """
    last, start = epochs[-1], EpochEnd(rounds=0, aborted=0, loss=0.0, accuracy=0.0)
    before = next((epoch for epoch in reversed(epochs[:-1]) if last.rounds - epoch.rounds >= _STILL_ROUNDS), start)
    rounds, aborted = last.rounds - before.rounds, last.aborted - before.aborted
    if aborted >= 2 and aborted == rounds:
        return "none of its last rounds took effect"
    if aborted >= 2 and 2 * aborted > rounds and not math.isfinite(last.loss):
        return "most of its last rounds were aborted"
    if not math.isfinite(last.loss) and _is_unexcused(epochs, guess):
        return "its loss is not finite"
    return None if guess is None or not math.isfinite(last.loss) else _worse_than(guess, last)


def _is_unexcused(epochs: Sequence[EpochEnd], guess: Guess | None) -> bool:
    """Return whether a loss that is not finite is more than the loss of one aborted round."""
    last = epochs[-1]
    before = [0, *(epoch.aborted for epoch in epochs)]
    in_last_epoch = [end - begin for begin, end in pairwise(before)][-1]
    if in_last_epoch == 0:
        return True
    if guess is None:
        return False
    has_fallen = any(guess.share_won(epoch.accuracy) > 2 * _AT_GUESS for epoch in epochs[:-1])
    return guess.share_won(last.accuracy) < _AT_GUESS and (last.aborted > 1 or has_fallen)


def _worse_than(guess: Guess, last: EpochEnd) -> str | None:
    won = guess.share_won(last.accuracy)
    losses = f"its loss, {last.loss:.3g}, is far above {guess.loss:.3g}, that of a guess"
    if won < 0.5 and last.loss > _FAR * guess.loss:
        return losses
    if won < _AT_GUESS and last.loss > _WORSE * guess.loss:
        return f"its accuracy is that of a guess, and {losses}"
    if won < _AT_GUESS and last.aborted > 1 and last.loss > _NO_BETTER * guess.loss:
        return "its accuracy is that of a guess"
    return None
