"""Saved state, composed of what each part saves: sessions and driver, local steps, the server's model.

A part checks a state before any part changes, so that a state that does not fit leaves all of them as they were.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from torch.optim import Optimizer

from laconic.protocol.job import Job

VERSION = 4  # of the saved names


class Part(Protocol):
    """What has state between two steps."""

    def saved(self) -> Any:  # noqa: ANN401
        """Return the state, as tensors and data that JSON can hold."""

    def check(self, saved: Any, /) -> None:  # noqa: ANN401
        """Raise ValueError if this part cannot continue from a state."""

    def restore(self, saved: Any, /) -> None:  # noqa: ANN401
        """Continue from a state that was checked."""


def identity_of(job: Job, *, local_steps: int, rank: int | None) -> dict[str, Any]:
    """Return what must be equal when a state is loaded. `rank`: None for all ranks in one state."""
    return {
        "version": VERSION, "algorithm": job.algorithm.name, "rank": rank, "layout": job.layout.name,
        "local_steps": local_steps, "seed": job.seed, "dtype": str(job.dtype),
        "parameters": dict(zip(job.spec.names, job.spec.sizes, strict=True)),
    }  # fmt: skip


def compose(inner: Optimizer, identity: Mapping[str, Any], parts: Mapping[str, Part]) -> dict[str, Any]:
    """Return the inner optimizer's state and, under "laconic", the identity and what each part saves."""
    return inner.state_dict() | {"laconic": {**identity, **{name: part.saved() for name, part in parts.items()}}}


def load(
    state_dict: Mapping[str, Any], inner: Optimizer, identity: Mapping[str, Any], parts: Mapping[str, Part]
) -> None:
    """Load a state that `compose` has made.

    Raises:
        ValueError: it does not fit. Nothing has changed then.
    """
    if "laconic" not in state_dict:
        raise ValueError(
            "state_dict: no 'laconic' part: this is the state of an optimizer alone; load it into `inner` to start "
            "from it"
        )
    state = state_dict["laconic"]
    for key, value in identity.items():
        if state.get(key) != value:
            raise ValueError(
                f"state_dict: {key} is {state.get(key)!r:.200} in the saved state and {value!r:.200} here; each rank "
                "must load the state that the same rank of the same job saved"
            )
    for name, part in parts.items():
        try:
            part.check(state[name])
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"state_dict: the part {name!r} is not complete: {error!r:.200}") from error
    inner.load_state_dict({key: value for key, value in state_dict.items() if key != "laconic"})
    for name, part in parts.items():
        part.restore(state[name])
