"""What all ranks must have in common is compared before they train: one hash, and the first difference by name.

Versions of laconic and of the format must be equal. Other versions, processors and devices may differ; then results may
round differently, which is stated once.
"""

import hashlib
import json
import math
import platform
import sys
from collections.abc import Mapping
from types import MappingProxyType, NoneType

import torch

from laconic.drivers.distributed.meeting import Meeting
from laconic.errors import SetupError
from laconic.kernels.api import numba_available
from laconic.statements import state_once
from laconic.wire import FORMAT_VERSION

Scalar = str | int | float | bool | None
Settings = Mapping[str, Scalar]
"""By name. A name such as "parameter group 0/lr" has a place before the slash, which messages put behind the value."""

_SCHEMA = {str: str | int | float | bool | NoneType}
_MAX_HASH_BYTES = 4096
_MAX_SETTINGS_BYTES = 1 << 22  # torch's store takes values of eight megabytes
_ROUNDING = 1e-6  # relative; learning rates are made by functions that unlike machines round differently


def versions() -> dict[str, str]:
    """Return the versions that must be equal on all ranks."""
    return {"laconic": sys.modules["laconic"].__version__, "wire format": str(FORMAT_VERSION)}


def environment() -> dict[str, str]:
    """Return what may differ from rank to rank, and with it the last bits of results."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "kernels": "numba" if numba_available() else "torch",
    }


def agree(
    meeting: Meeting,
    settings: Settings,
    purpose: str,
    timeout_s: float,
    own: Mapping[str, str] = MappingProxyType({"device": "cpu"}),
) -> list[dict[str, str]]:
    """Compare the settings of all ranks. Collective.

    Args:
        meeting: where the ranks meet.
        settings: what must be equal.
        purpose: for errors, such as "to make its DistributedOptimizer".
        timeout_s: how long to wait for the others, in seconds.
        own: what else to show all ranks: the type of the "device" that this rank computes on, and more.

    Returns:
        What each rank shows.

    Raises:
        SetupError: naming the first difference and both ranks; or a rank that refused its own arguments, at once.
        PeerLostError: naming the ranks that did not come in time.
        WireError: naming the rank that shows something else.
    """
    mine = versions() | environment() | {**own, "settings": _hash_of(settings)}
    shown = meeting.gather(mine, purpose, {str: str}, _MAX_HASH_BYTES, timeout_s)
    for rank, other in enumerate(shown):
        if any(other.get(name) != shown[0].get(name) for name in versions()):
            meeting.linger()
            raise SetupError(
                f"rank 0 runs {_versions_in(shown[0])}, rank {rank} runs {_versions_in(other)}; install the same "
                "version of laconic on both"
            )
    if any(other.get("settings") != shown[0].get("settings") for other in shown):
        _find_difference(meeting, settings, [other.get("settings", "") for other in shown], purpose, timeout_s)
    if meeting.rank == 0:
        _state_unlike(shown)
    return shown


def difference(one: Settings, other: Settings) -> tuple[str, str] | None:
    """Return the first setting in which two ranks differ, as what each has; None if there is none."""
    for name in {**one, **other}:
        if name not in one or name not in other or not is_equal(one[name], other[name]):
            place, _, last = name.rpartition("/")
            has = [f"{last}={settings[name]}" if name in settings else f"no {last}" for settings in (one, other)]
            return has[0], has[1] + (f" ({place})" if place else "")
    return None


def is_equal(one: Scalar, other: Scalar) -> bool:
    """Return whether two values are equal; of numbers that are not whole, whether they differ by rounding at most."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_ROUNDING) or (math.isnan(one) and math.isnan(other))
    return one == other


def _versions_in(shown: Mapping[str, str]) -> str:
    return f"laconic {shown.get('laconic', 'of an unknown version')} (wire format {shown.get('wire format', '?')})"


def _find_difference(meeting: Meeting, settings: Settings, hashes: list[str], purpose: str, timeout_s: float) -> None:
    """Raise SetupError with the first difference between rank 0 and the first other rank that has one."""
    odd = [rank for rank, found in enumerate(hashes) if found != hashes[0]]
    mine = _beginning(settings) if meeting.rank == 0 or meeting.rank in odd else {}
    shown = meeting.gather(mine, purpose, _SCHEMA, _MAX_SETTINGS_BYTES, timeout_s)
    for rank in odd:
        found = difference(shown[0], shown[rank])
        if found is not None:
            meeting.linger()
            raise SetupError(
                f"rank 0 and rank {rank} were set up differently: rank 0 has {found[0]:.300}, rank {rank} has "
                f"{found[1]:.300}"
            )


def _beginning(settings: Settings) -> dict[str, Scalar]:
    """Return as many settings, from the first one on, as can be shown; of a model of 40,000 tensors it is all."""
    found: dict[str, Scalar] = {}
    n_bytes = 0
    for name, value in settings.items():
        n_bytes += len(json.dumps({name: value}))
        if n_bytes > _MAX_SETTINGS_BYTES - (1 << 12):
            return found | {"number of settings that are compared by name": len(found), "hash": _hash_of(settings)}
        found[name] = value
    return found


def _hash_of(settings: Settings) -> str:
    return hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()


def _state_unlike(shown: list[dict[str, str]]) -> None:
    """State in which respects ranks are unlike."""
    unlike = []
    for name in [*environment(), "device"]:
        of_rank_0 = shown[0].get(name)
        other = next((rank for rank, one in enumerate(shown) if one.get(name) != of_rank_0), None)
        if other is not None:
            unlike.append(f"{name} {of_rank_0} on rank 0, {shown[other].get(name)} on rank {other}")
    if unlike:
        state_once(
            f"the ranks are unlike: {'; '.join(unlike)}. They may round differently; replicas that differ by no more "
            "are put right at each check, unless replicas=stop"
        )
