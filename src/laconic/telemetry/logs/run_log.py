"""`RunLog`: init, log, finish, for one or several kinds of logs at once. It never ends a training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch.distributed as dist
from torch import Tensor

from laconic.errors import Named, OptionError
from laconic.statements import state_once
from laconic.telemetry.logs.jsonl import JsonLines
from laconic.telemetry.logs.kinds import check_kinds
from laconic.telemetry.logs.tensorboard import EventFiles
from laconic.telemetry.logs.trackers import Tracker
from laconic.telemetry.observing import Observed, error_text, observe
from laconic.telemetry.recorder import RoundStats


class _Log(Protocol):
    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


class RunLog:
    """Numbers by name and step, written to every log that was named. Over processes rank 0 alone writes."""

    def __init__(
        self,
        *kinds: str,
        folder: str | Path | None = None,
        name: str = "laconic",
        group: str | None = None,
        config: Mapping[str, Any] | None = None,
        start: int = 0,
        complain: Callable[[str], None] = state_once,
    ) -> None:
        """Begin every log.

        Args:
            *kinds: "jsonl", "tensorboard", "wandb" or "trackio". The last three are packages of these names.
            folder: Where files go: `log.jsonl`, the folder `tensorboard`, and wandb's own. It is made if it is missing.
            name: The run's name.
            group: What it is shown together with, in wandb.
            config: Its settings.
            start: The number of rounds that are done. A log in `folder` is continued after that step.
            complain: Gets one line about each log that fails after its start.

        Raises:
            OptionError: A kind is unknown, not installed or without a folder, or a log does not start. None is begun.
        """
        self._complain = complain
        self._logs: dict[str, _Log] = {}
        if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
            return
        where = None if folder is None else Path(folder)
        check_kinds(kinds, where, folder_option="folder")
        for kind in kinds:
            try:
                self._logs[kind] = _begun(kind, where, name=name, group=group, config=config or {}, start=start)
            except Exception as error:
                self.finish()
                raise OptionError(Named("log", kind), f" did not start: {error_text(error)}") from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers. A log that fails is named once, and left out from then on.

        Args:
            values: The numbers by name. Names with a slash are shown in groups: "round/up_wire_bytes".
            step: The number of rounds that are done; it must not fall.

        Raises:
            TypeError: A value is no number.
        """
        numbers = {name: _number(name, value) for name, value in values.items()}
        self._each(lambda log: log.log(numbers, step))

    def observe(self, job: Observed, *, residual_norm: bool = False, vote_agreement: bool = False) -> None:
        """Log every round of a `DistributedOptimizer` or `Simulation` from now on, as `RoundStats.values` names it."""
        if self._logs:
            observe(job, self.log_round, residual_norm=residual_norm, vote_agreement=vote_agreement)

    def log_round(self, stats: RoundStats) -> None:
        """Write one round. Its step is the number of rounds that are done then."""
        self.log(stats.values(), stats.round + 1)

    def finish(self) -> None:
        """End every log. Later calls do nothing."""
        self._each(lambda log: log.finish())
        self._logs = {}

    def _each(self, use: Callable[[_Log], None]) -> None:
        for kind, log in list(self._logs.items()):
            try:
                use(log)
            except Exception as error:
                del self._logs[kind]
                self._complain(f"log {kind}: {error_text(error)}; training goes on without it")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()


def _begun(
    kind: str, folder: Path | None, *, name: str, group: str | None, config: Mapping[str, Any], start: int
) -> _Log:
    if kind in ("wandb", "trackio"):
        return Tracker(kind, folder, name=name, group=group, config=config)
    assert folder is not None, "check_kinds has seen to it"
    in_folder = JsonLines if kind == "jsonl" else EventFiles
    return in_folder(folder, name=name, config=config, start=start)


def _number(name: str, value: Any) -> float:  # noqa: ANN401 - a number of Python, numpy or torch
    if type(value) in (int, float):
        return value  # type: ignore[no-any-return]
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"log: {name}={value!r:.80} must be a number") from None
