"""The warm-up of a run: first epochs that are dense, or in which the density falls to the method's own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from laconic.errors import Named, OptionError
from laconic.lab.algorithms import has_dense_rounds

if TYPE_CHECKING:
    from laconic.contract import Algorithm


class WarmUpOptions(Protocol):
    """The options of a run that a warm-up depends on."""

    @property
    def algorithm(self) -> str: ...

    @property
    def set(self) -> Mapping[str, str]: ...

    @property
    def epochs(self) -> int: ...

    @property
    def local_steps(self) -> int: ...

    @property
    def dense_epochs(self) -> float | None: ...

    @property
    def warm_up_density(self) -> float | None: ...

    @property
    def method(self) -> "Algorithm": ...


def check_warm_up(settings: WarmUpOptions) -> None:
    """Refuse a warm-up for a method that has none, or beside the hyper-parameters that say the same.

    Raises:
        OptionError: The options do not go together.
        ValueError: The density does not fall.
    """
    if settings.dense_epochs is None:
        if settings.warm_up_density is not None:
            raise OptionError(
                Named("warm_up_density", settings.warm_up_density), " needs ", Named("dense_epochs"),
                ", the number of epochs in which the density falls",
            )  # fmt: skip
        return
    asked = Named("dense_epochs", settings.dense_epochs)
    if settings.dense_epochs > settings.epochs:
        raise OptionError(asked, " must be at most ", Named("epochs", settings.epochs))
    if not has_dense_rounds(settings.algorithm):
        from laconic.contract import ALGORITHMS

        able = ", ".join(name for name in sorted(ALGORITHMS) if has_dense_rounds(name))
        raise OptionError(asked, f": {settings.algorithm} has no dense rounds; leave it out, or take one of {able}")
    if "dense_rounds" in settings.set:
        raise OptionError(
            asked, " and ", Named("set"), f" dense_rounds={settings.set['dense_rounds']} say the same in epochs and in "
            "rounds; give one of them",
        )  # fmt: skip
    with_warm_up(settings, steps_per_epoch=1)


def with_warm_up(settings: WarmUpOptions, steps_per_epoch: int) -> "Algorithm":
    """Return the method of a run with its warm-up in rounds: of one step each if they are dense.

    Raises:
        ValueError: The density does not fall.
    """
    if settings.dense_epochs is None:
        return settings.method
    steps = round(settings.dense_epochs * steps_per_epoch)
    if settings.warm_up_density is None:
        return with_warm_up_rounds(settings, steps)
    return with_warm_up_rounds(settings, max(1, round(steps / settings.local_steps)))


def with_warm_up_rounds(settings: WarmUpOptions, rounds: int) -> "Algorithm":
    """Return the method of a run with a warm-up of so many rounds. Raises as `with_warm_up`."""
    options: dict[str, Any] = {}
    if settings.dense_epochs is not None:
        options["dense_rounds"] = rounds
    if settings.warm_up_density is not None:
        options["warm_up_density"] = settings.warm_up_density
    return replace(settings.method, **options) if options else settings.method
