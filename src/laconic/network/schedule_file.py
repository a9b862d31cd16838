"""Message schedules in JSON files, as lists of messages and computations."""

import json
from pathlib import Path
from typing import Any

from laconic.network.message_schedule import Computation, Message, MessageSchedule, Operation

_MESSAGE = {"sender", "receiver", "n_bytes"}
_COMPUTATION = {"node", "compute_s"}
_MAY = {"after", "at_s"}


def read_message_schedule(path: Path) -> MessageSchedule:
    """Read a message schedule: a JSON list in which nodes and steps count from 0.

    A message is {"sender": 0, "receiver": 1, "n_bytes": 1000}, a computation {"node": 0, "compute_s": 0.2}. Each may
    have "after", a list of the steps that it waits for, and "at_s", the seconds before which it does not begin.

    Args:
        path: The file, in UTF-8.

    Raises:
        ValueError: The file does not hold a schedule. The message names the file and the step.
        OSError: The file cannot be read.
    """
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not text in UTF-8; a schedule is a JSON list") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({error}); a schedule is a JSON list") from None
    if not isinstance(items, list) or not items:
        raise ValueError(
            f'{path}: a schedule is a JSON list with a step or more, such as [{{"sender": 0, "receiver": 1, '
            '"n_bytes": 1000}]'
        )
    steps = [_step(f"{path}, step {place}", item) for place, item in enumerate(items)]
    try:
        return MessageSchedule.of(steps)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _step(where: str, item: Any) -> Operation:  # noqa: ANN401 - whatever JSON holds
    keys = set(item) if isinstance(item, dict) else set()
    if keys - _MAY not in (_MESSAGE, _COMPUTATION):
        raise ValueError(
            f"{where}: has {', '.join(sorted(keys)) or 'no fields'}; a message has sender, receiver and n_bytes, a "
            "computation node and compute_s, and each may have after and at_s"
        )
    after = item.get("after", [])
    if not isinstance(after, list) or not all(_is_integer(place) for place in after):
        raise ValueError(f"{where}: after={json.dumps(after)} must be a list of steps, such as [0, 1]")
    at_ns = _nanoseconds(where, "at_s", item.get("at_s", 0))
    if "node" in item:
        (node,) = _integers(where, item, "node")
        return Computation(node, _nanoseconds(where, "compute_s", item["compute_s"]), tuple(after), at_ns)
    sender, receiver, n_bytes = _integers(where, item, "sender", "receiver", "n_bytes")
    return Message(sender, receiver, n_bytes, tuple(after), at_ns)


def _is_integer(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, int) and not isinstance(value, bool)


def _integers(where: str, item: dict[str, Any], *names: str) -> list[int]:
    for name in names:
        if not _is_integer(item[name]) or item[name] < 0:
            raise ValueError(f"{where}: {name}={json.dumps(item[name])} must be a whole number of at least 0")
    return [item[name] for name in names]


def _nanoseconds(where: str, name: str, value: Any) -> int:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError(f"{where}: {name}={json.dumps(value)} must be seconds, at least 0 and below 1e9")
    return round(value * 1e9)
