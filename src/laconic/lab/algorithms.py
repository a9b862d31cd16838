"""Algorithms by the names and `NAME.KEY=VALUE` texts that a user types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from laconic.errors import Named, OptionError
from laconic.hyperparameters import from_text, hyperparameters_of, near_misses

if TYPE_CHECKING:
    from laconic.contract import Algorithm

_AUTO = "auto"
_NO_AUTO = (
    ": a command runs and records one method, and auto chooses between ranks that run. `laconic plan METHOD... "
    "--bandwidth ...` says which one is fastest on a link; ranks choose by laconic.DistributedOptimizer(inner, "
    '"auto", model=model), by laconic.ddp.attach(ddp, "auto"), or by laconic.planning.choose(model)'
)


def algorithm_class(name: str, *, option: str = "") -> type[Algorithm]:
    """Return the class of the algorithm of this name.

    Args:
        name: The name.
        option: The option that gave it; empty for an argument without a flag.

    Raises:
        OptionError: No algorithm has this name, or it is "auto", which is no method.
    """
    from laconic.contract import ALGORITHMS

    if name == _AUTO:
        raise OptionError(Named(option, name, quoted=True) if option else repr(name), _NO_AUTO)
    if name not in ALGORITHMS:
        known = sorted(ALGORITHMS)
        words = f"{', '.join(known)}{near_misses(name, known)}"
        if option:
            raise OptionError(Named(option, name, quoted=True), f" must be one of {words}")
        raise OptionError(f"unknown algorithm {name!r}; known: {words}")
    return ALGORITHMS[name]


def algorithm_names(names: Sequence[str], *, option: str = "") -> tuple[str, ...]:
    """Return the names once each, or all algorithms if there is none.

    Raises:
        OptionError: A name is unknown.
    """
    from laconic.contract import ALGORITHMS

    for name in names:
        algorithm_class(name, option=option)
    return tuple(dict.fromkeys(names)) or tuple(sorted(ALGORITHMS))


def settings_by_name(names: Sequence[str], settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Group the hyper-parameters of the option `set`, `NAME.KEY` and value, by name.

    Raises:
        OptionError: A name is not among `names`.
    """
    by_name: dict[str, dict[str, str]] = {name: {} for name in names}
    for key, value in settings.items():
        name, _, rest = key.partition(".")
        check_name(name, names, option="set")
        by_name[name][rest] = value
    return by_name


def check_name(name: str, names: Sequence[str], *, option: str) -> None:
    """Refuse a setting of an algorithm that is not among `names`.

    Raises:
        OptionError: It is not.
    """
    if name not in names:
        raise OptionError(
            Named(option, name),
            f": not among the algorithms ({', '.join(names)}); keys start with the name, such as {names[0]}.KEY=VALUE"
            f"{near_misses(name, list(names))}",
        )


def make_algorithm(name: str, settings: Mapping[str, str], *, option: str = "") -> Algorithm:
    """Make the algorithm of this name with its hyper-parameters.

    Raises:
        OptionError: No algorithm has this name.
        ValueError: A hyper-parameter is unknown or wrong.
    """
    return from_text(algorithm_class(name, option=option), settings, name)


OF_WARM_UP = ("dense_epochs", "warm_up_density")
"""Options for the methods that can begin with dense rounds."""


def has_dense_rounds(name: str) -> bool:
    """Return whether the algorithm of this name can begin with dense rounds."""
    return any(field.name == "dense_rounds" for field, _ in hyperparameters_of(algorithm_class(name)))


def python_line(owner: Any) -> str:  # noqa: ANN401 - an algorithm, or an object in one of its fields
    """Return the Python that makes an equal algorithm, such as "laconic.SSGDMV(density=0.02)"."""
    given = []
    for field, spec in hyperparameters_of(type(owner)):
        value = getattr(owner, field.name)
        if value != field.default:
            given.append(f"{field.name}={python_line(value) if spec.kinds else repr(value)}")
    return f"laconic.{type(owner).__name__}({', '.join(given)})"
