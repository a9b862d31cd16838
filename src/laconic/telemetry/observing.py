"""`observe`: a user's function is called after every round of a job, and cannot end its training."""

from typing import Any, Protocol

from laconic.statements import state_once
from laconic.telemetry.recorder import Observer, Recorder, RoundStats


class Observed(Protocol):
    """A `DistributedOptimizer` or a `Simulation`."""

    driver: Any
    """What moves its packets, with a `Recorder`."""


def observe(job: Observed, observer: Observer, *, residual_norm: bool = False, vote_agreement: bool = False) -> None:
    """Call `observer` with the `RoundStats` of every round of a job from now on.

    The stats are of this process's workers: of all in a simulation, of this rank's over processes. Observers are called
    in the order in which they came. One that raises an Exception is named once, by the logger "laconic", and not called
    again; the training goes on.

    Args:
        job: a `DistributedOptimizer` or a `Simulation`.
        observer: gets a `RoundStats`, and should be quick, since the next round waits for it.
        residual_norm: whether the stats have the norm of the residuals, which takes a pass over them.
        vote_agreement: whether the stats have the agreement of votes, which takes two passes over each packet of votes.

    Raises:
        TypeError: if the observer cannot be called, or `job` is something else.
    """
    if not callable(observer):
        raise TypeError(f"observer={observer!r:.80} must be a function that takes a laconic.RoundStats")
    recorder = getattr(getattr(job, "driver", None), "recorder", None)
    if not isinstance(recorder, Recorder):
        raise TypeError(f"job={job!r:.80} must be a laconic.DistributedOptimizer or a laconic.Simulation")
    recorder.observe(_Guarded(observer), residual_norm=residual_norm, vote_agreement=vote_agreement)


class _Guarded:
    """Calls an observer until it raises."""

    def __init__(self, observer: Observer) -> None:
        self._observer: Observer | None = observer

    def __call__(self, stats: RoundStats) -> None:
        if self._observer is None:
            return
        try:
            self._observer(stats)
        except Exception as error:
            name = getattr(self._observer, "__qualname__", type(self._observer).__name__)
            self._observer = None
            state_once(
                f"observer {name} raised {error_text(error)} in round {stats.round}; training goes on without it"
            )


def error_text(error: Exception) -> str:
    """Return the class and the text of an error, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text:.300}" if text else type(error).__name__
