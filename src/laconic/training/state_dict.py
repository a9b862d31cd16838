"""Saved state, composed of what each part saves: sessions and driver, local steps, the server's model.

A part checks a state before any part changes, so that a state that does not fit leaves all of them as they were. The
method's state stands under "laconic" in what an optimizer saves, and once more in its first parameter group: there it
survives a plain optimizer that loads it, and torch's checkpoint functions.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.errors import LaconicError
from laconic.protocol.job import Job

VERSION = 5  # of the saved names
KEY = "laconic"
_UNREADABLE = (
    KeyError, TypeError, AttributeError, IndexError, RuntimeError, ArithmeticError, AssertionError, RecursionError,
)  # fmt: skip


class Part(Protocol):
    """What has state between two steps."""

    def saved(self) -> Any:  # noqa: ANN401
        """Return the state, as tensors and data that JSON can hold."""

    def check(self, saved: Any, /) -> None:  # noqa: ANN401
        """Raise ValueError if this part cannot continue from a state."""

    def restore(self, saved: Any, /) -> None:  # noqa: ANN401
        """Continue from a state that was checked."""


class Local(Protocol):
    """How many steps are taken for each exchange."""

    @property
    def many(self) -> int:
        """Their number."""

    @property
    def are_taken(self) -> bool:
        """Whether the inner optimizer takes steps between two exchanges."""


class Training(Part, Protocol):
    """The steps that are saved with a driver: a `TrainingStep`, or rounds in backward passes."""

    n_taken: int
    """Number of local steps since the last exchange."""

    @property
    def local(self) -> Local:
        """How many steps are taken for each exchange."""

    def begun_again(self, state: Mapping[str, Any], values: Tensor | None) -> dict[str, Any]:
        """Return the state of a rank that begins at an exchange; see `TrainingStep`."""


def identity_of(job: Job, *, local_steps: int, rank: int | None) -> dict[str, Any]:
    """Return what must be equal when a state is loaded. `rank`: None for all ranks in one state."""
    return {
        "version": VERSION, "algorithm": job.algorithm.name, "rank": rank, "layout": job.layout.name,
        "local_steps": local_steps, "seed": job.seed, "dtype": str(job.dtype),
        "parameters": dict(zip(job.spec.names, job.spec.sizes, strict=True)),
    }  # fmt: skip


def is_same(saved: Any, value: Any) -> bool:  # noqa: ANN401
    """Return whether a saved entry equals a value; not so what cannot be compared to it, such as several numbers."""
    try:
        return bool(saved == value)
    except (RuntimeError, ValueError, TypeError):  # of a tensor or an array
        return False


def check_identity(state: Mapping[str, Any], identity: Mapping[str, Any], remedy: str) -> None:
    """Raise ValueError for the first entry of `identity` that a saved state has otherwise."""
    for key, value in identity.items():
        if not is_same(state.get(key), value):
            raise ValueError(
                f"state_dict: {key} is {state.get(key)!r:.200} in the saved state and {value!r:.200} here; {remedy}"
            )
    saved = list(state["parameters"]) if "parameters" in identity else []
    if saved != list(identity.get("parameters", ())):
        raise ValueError("state_dict: the saved state has the same parameters in another order; keep the order")


def composed(inner: Optimizer, part: Any, *, packed: bool = False) -> dict[str, Any]:  # noqa: ANN401
    """Return what an optimizer saves: the inner one's state and the method's part.

    Args:
        inner: the user's optimizer.
        part: the method's state.
        packed: whether it is saved as bytes, in the first parameter group alone.
    """
    state = inner.state_dict()
    for group in state["param_groups"]:
        group.pop(KEY, None)
    state["param_groups"][0][KEY] = to_bytes(part) if packed else part
    return state if packed else state | {KEY: part}


def split(state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the inner optimizer's state and the method's part of a saved state; None if it has none.

    Raises:
        ValueError: it is no state of an optimizer, or its packed part cannot be read.
    """
    if not _is_of_optimizer(state_dict):
        hint = f"; a handle's state goes in beside one: {{**inner.state_dict(), {KEY!r}: state}}"
        raise ValueError(
            f"state_dict: {type(state_dict).__name__} without 'state' and 'param_groups' of an optimizer"
            f"{hint if _is_part(state_dict) else ''}"
        )
    inner = {key: value for key, value in state_dict.items() if key != KEY}
    groups = inner["param_groups"]
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise ValueError("state_dict: 'param_groups' must be a list of parameter groups")
    inner["param_groups"] = [{key: value for key, value in group.items() if key != KEY} for group in groups]
    parts = [group[KEY] for group in groups if group.get(KEY) is not None]
    return inner, read_part(state_dict.get(KEY, parts[0] if parts else None))


def take_part(inner: Optimizer) -> Any:  # noqa: ANN401
    """Return the method's part that a plain optimizer has loaded, and take it out of its groups; None if there is none.

    Raises:
        ValueError: it cannot be read.
    """
    parts = [group.pop(KEY, None) for group in inner.param_groups]
    return next((read_part(part) for part in parts if part is not None), None)


def held_part(inner: Optimizer) -> Any:  # noqa: ANN401
    """Return the method's part that a plain optimizer has loaded, and leave it there; None if there is none.

    Raises:
        ValueError: it cannot be read.
    """
    return next((read_part(group[KEY]) for group in inner.param_groups if group.get(KEY) is not None), None)


def read_part(part: Any) -> Any:  # noqa: ANN401
    """Return a method's part, which may be packed as bytes, or be in the state of an optimizer.

    Raises:
        ValueError: it is none.
    """
    part = from_bytes(part) if isinstance(part, bytes) else part
    part = split(part)[1] if _is_of_optimizer(part) else part
    if part is not None and not _is_part(part):
        raise ValueError(
            f"state_dict: {KEY!r} is {part!r:.60}; it must be a method's state, as state_dict() returns it"
        )
    return part


def _is_of_optimizer(state: object) -> bool:
    return isinstance(state, Mapping) and {"state", "param_groups"} <= state.keys()


def _is_part(state: object) -> bool:
    return isinstance(state, Mapping) and {"algorithm", "parameters", "driver"} <= state.keys()


def to_bytes(part: Any) -> bytes:  # noqa: ANN401
    """Return saved state as `torch.save` writes it."""
    file = io.BytesIO()
    torch.save(part, file)
    return file.getvalue()


def from_bytes(data: bytes) -> Any:  # noqa: ANN401
    """Return saved state from `to_bytes`; no code in it is run. Raises ValueError for other bytes."""
    try:
        return torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise ValueError(f"state_dict: the packed part {KEY!r} cannot be read: {error!s:.200}") from error


def canonical(name: str) -> str:
    """Return a parameter's name without what a compiled or a wrapped model adds to it."""
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def with_names(part: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return a saved part with the parameters' names of this model, if they are the same but for their prefixes."""
    saved = list(part["parameters"])
    if saved == list(names) or [canonical(name) for name in saved] != [canonical(name) for name in names]:
        return part
    new: dict[str, str] = dict(zip(saved, names, strict=True))

    def renamed(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, Mapping):
            return {new.get(key, key) if isinstance(key, str) else key: renamed(each) for key, each in value.items()}
        return [renamed(each) for each in value] if isinstance(value, list) else value

    found = {key: value if key == "inner" else renamed(value) for key, value in part.items()}
    assert isinstance(found, dict)
    return found


def checked(check: Callable[[], None], what: str) -> None:
    """Run a check of saved state.

    Raises:
        ValueError: it does not fit, or is not complete.
    """
    try:
        check()
    except (*_UNREADABLE, LaconicError) as error:
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"state_dict: {what} is not complete: {error!r:.200}") from error


def check_parts(state: Mapping[str, Any], parts: Mapping[str, Part], *, may_lack: bool = False) -> None:
    """Raise ValueError if one of the parts cannot continue from a state.

    Args:
        state: the saved state of each part.
        parts: those that are to continue.
        may_lack: whether a part that is None in the state keeps what it has.
    """
    for name, part in parts.items():
        if may_lack and name in state and state[name] is None:
            continue
        checked(lambda name=name, part=part: part.check(state[name]), f"the part {name!r}")  # type: ignore[misc]


class InnerLoad:
    """Loads the inner optimizer's state, and can take it back."""

    def __init__(self, inner: Optimizer) -> None:
        """Note how `inner` is now."""
        self._inner = inner
        self._before = dict(vars(inner))

    def load(self, state: dict[str, Any]) -> None:
        """Load a state.

        Raises:
            ValueError: it does not fit. Nothing has changed then.
        """
        try:
            check_inner_state(self._inner, state)
            self._inner.load_state_dict(state)
            check_options(self._inner, self._before["param_groups"])
        except Exception as error:  # each optimizer has its own
            self.undo()
            if isinstance(error, ValueError):
                raise
            raise ValueError(f"state_dict: the inner optimizer cannot load it: {error!r:.200}") from error

    def undo(self) -> None:
        """Take back what `load` has done."""
        vars(self._inner).clear()
        vars(self._inner).update(self._before)


def check_inner_state(inner: Optimizer, state: Mapping[str, Any]) -> None:
    """Raise ValueError for values of torch's own optimizers that do not have their parameter's shape."""
    parameters = [parameter for group in inner.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    kind = type(inner)
    if not kind.__module__.startswith("torch.optim") or kind.__name__ == "Adafactor" or len(numbers) != len(parameters):
        return  # torch itself refuses another number of parameters
    for number, parameter in zip(numbers, parameters, strict=True):
        for name, value in state["state"].get(number, {}).items():
            if isinstance(value, Tensor) and value.numel() != 1 and value.shape != parameter.shape:
                raise ValueError(
                    f"state_dict: {name!r} of parameter {number} has the shape {tuple(value.shape)}, and the parameter "
                    f"{tuple(parameter.shape)}; is it the state of another model?"
                )


def check_options(inner: Optimizer, before: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError for a parameter group that has lost an option which it had `before`, or a number in it."""
    for number, (group, new) in enumerate(zip(before, inner.param_groups, strict=True)):
        for name in inner.defaults.keys() & group.keys():
            value = group[name]
            if name not in new:
                raise ValueError(f"state_dict: {name!r} of parameter group {number} is missing")
            if type(value) not in (int, float) or not math.isfinite(value):
                continue
            possible = isinstance(new[name], (int, float, Tensor)) and math.isfinite(new[name])
            if not possible or (name == "lr" and new[name] < 0):
                raise ValueError(f"state_dict: {name}={new[name]!r:.60} of parameter group {number} cannot be")
