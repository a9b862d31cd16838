"""`save`: one checkpoint of a job, written by all of its ranks."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from laconic.checkpoint.folders import Writing, path_of, remove_older
from laconic.checkpoint.jobs import Job, agreed_arguments, job_of
from laconic.checkpoint.parts import Part, file_of
from laconic.checkpoint.random_states import random_states
from laconic.ddp import Handle
from laconic.drivers.gathered import Schema
from laconic.errors import Named, OptionError
from laconic.hyperparameters import plain_number
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.simulation import Simulation
from laconic.training.state_dict import canonical

_NUMBER = range(1 << 62)
_KINDS = (OSError, TypeError, ValueError, RuntimeError)
_REPORT = {"error": str, "kind": range(len(_KINDS))}
_BEGUN = {"step": int, "save": _NUMBER, "bytes": _NUMBER}
_WRITTEN = {"bytes": _NUMBER, "checksum": str}


def save(
    folder: str | Path,
    opt: DistributedOptimizer | Simulation | Handle,
    *,
    step: int,
    model: nn.Module | None = None,
    objects: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    keep: int = 3,
    random_state: bool = True,
) -> Path:
    """Save a checkpoint of all ranks. Collective: every rank calls it, with a folder that all of them see.

    It is complete or not there: files are written under another name, brought to disk and renamed. What all ranks have
    alike, such as the parameters, is written once.

    Args:
        folder: the folder of the run; the checkpoint becomes a folder in it, such as `000012-step-1200`.
        opt: what trains. Its state, the inner optimizer's and the method's, is saved on each rank.
        step: how far the script is; `load` returns it.
        model: its parameters and buffers are saved; by default the one that `opt` was made with.
        objects: what else has `state_dict` and `load_state_dict`, by name: schedulers, a GradScaler, samplers.
        extra: tensors and plain data to save beside, by name; `load` returns them.
        keep: how many checkpoints stay in the folder; older ones are removed once this one is complete.
        random_state: whether to save how the random generators of torch, Python and numpy are.

    Returns:
        the folder of the checkpoint.

    Raises:
        TypeError: something in the state is neither a tensor nor plain data, or an argument is of another type.
        ValueError: for `keep` or `step`, or ranks save at different steps. A rank whose arguments are right raises
            SetupError, at once, if those of another one are not.
        RuntimeError: a rank cannot be saved now, or one of `objects` raises another error.
        OSError: a rank cannot write, such as on a full disk. All ranks raise it. What was saved before is as it was.
        PeerLostError: a rank is missing.
    """
    job = job_of(opt)

    def checked() -> tuple[Path, nn.Module]:
        if plain_number(step, "step", int) < 0 or plain_number(keep, "keep", int) < 1:
            raise OptionError(
                Named("step", step), ", ", Named("keep", keep), ": a step is 0 or more, and 1 or more are kept"
            )
        check_objects(objects)
        check_extra(extra)
        return path_of(folder), model_of(job, model)

    path, found = agreed_arguments(job, "to save a checkpoint", checked)

    def state() -> dict[str, Any]:
        return {
            **job.own(),
            "model": {canonical(name): value for name, value in found.state_dict().items()},
            "objects": {name: each.state_dict() for name, each in (objects or {}).items()},
            "extra": dict(extra or {}), "random": random_states() if random_state else None,
        }  # fmt: skip

    return _Save(job, path, int(step), int(keep)).run(state)


class _Save:
    """The steps of one save; after each of them the ranks tell each other whether it went well."""

    def __init__(self, job: Job, folder: Path, step: int, keep: int) -> None:
        self._job, self._folder, self._step, self._keep = job, folder, step, keep
        self._writing: Writing | None = None
        self._error: Exception | None = None

    def run(self, state: Callable[[], Mapping[str, Any]]) -> Path:
        """Save what `state` returns. What was begun is removed where it fails, or is interrupted."""
        try:
            return self._run(state)
        except BaseException:
            if self._writing is not None:
                self._writing.give_up()
            raise

    def _run(self, state: Callable[[], Mapping[str, Any]]) -> Path:
        job, parts = self._job, []
        self._attempt(lambda: parts.append(Part.of(state(), job.rank)))
        if job.rank == 0 and self._error is None:
            self._attempt(lambda: setattr(self, "_writing", Writing.begin(self._folder, self._step)))
        digests = json.dumps(parts[0].digests).encode() if parts else b""
        number = 0 if self._writing is None else self._writing.save
        begun = self._agree({"step": self._step, "save": number, "bytes": len(digests)}, _BEGUN)
        if any(each["step"] != begun[0]["step"] for each in begun):
            raise ValueError(f"checkpoint: the ranks save at the steps {[each['step'] for each in begun]}")
        writing = Writing(folder=self._folder, save=begun[0]["save"], step=self._step)
        leading = json.loads(job.show(digests if job.rank == 0 else None, begun[0]["bytes"]))
        written = {"bytes": 0, "checksum": ""}

        def write() -> None:
            shared = leading if job.rank else {}
            path = writing.unfinished / file_of(job.rank)
            checksum = parts[0].write(path, shared, ranks=job.size, step=self._step, save=writing.save)
            written.update(bytes=path.stat().st_size, checksum=checksum)

        self._attempt(write)
        reports = self._agree(written, _WRITTEN)
        if job.rank == 0:
            listed = [{"bytes": each["bytes"], "checksum": each["checksum"]} for each in reports]
            self._attempt(lambda: writing.finish(listed))
            if self._error is None:
                self._writing = None  # nothing to take back
                self._attempt(lambda: remove_older(self._folder, self._keep))
        self._agree({}, {})
        return writing.path

    def _attempt(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:  # a user's objects have their own
            self._error = error

    def _agree(self, value: Mapping[str, Any], schema: Mapping[str, Schema]) -> list[Any]:
        """Return what all ranks report. Raises on all of them if one has failed."""
        kind = next((number for number, each in enumerate(_KINDS) if isinstance(self._error, each)), len(_KINDS) - 1)
        error = shown(self._error, _KINDS)
        reports = self._job.gather({"error": error, "kind": kind, **value}, {**_REPORT, **schema})
        errors = [f"rank {rank}: {each['error']}" for rank, each in enumerate(reports) if each["error"]]
        if errors:
            raise next(_KINDS[each["kind"]] for each in reports if each["error"])(
                f"checkpoint: {'; '.join(errors)}"
            ) from self._error
        return reports


def shown(error: Exception | None, kinds: type[Exception] | tuple[type[Exception], ...]) -> str:
    """Return what the other ranks are told of an error, empty for none: with its kind, unless it is one of these."""
    if error is None:
        return ""
    return str(error)[:2000] if str(error) and isinstance(error, kinds) else f"{error!r:.2000}"


def model_of(job: Job, model: nn.Module | None) -> nn.Module:
    """Return the model to save or to load. Raises OptionError if there is none, TypeError for another object."""
    found = job.model if model is None else model
    if found is None:
        raise OptionError(Named("model"), " is not known: give it here, or to the DistributedOptimizer")
    if not isinstance(found, nn.Module):
        raise TypeError(f"checkpoint: model is a {type(found).__name__}; it must be a torch.nn.Module")
    return found


def check_extra(extra: Mapping[str, Any] | None) -> None:
    """Raise TypeError for what has no names."""
    if not isinstance(extra or {}, Mapping):
        raise TypeError(f"checkpoint: extra is a {type(extra).__name__}; it must be a dictionary, by name")


def check_objects(objects: Mapping[str, Any] | None) -> None:
    """Raise TypeError for an object that cannot save and load a state of its own."""
    if not isinstance(objects or {}, Mapping):
        raise TypeError(f"checkpoint: objects is a {type(objects).__name__}; it must be a dictionary, by name")
    for name, each in (objects or {}).items():
        if not (callable(getattr(each, "state_dict", None)) and callable(getattr(each, "load_state_dict", None))):
            raise TypeError(
                f"checkpoint: objects[{name!r}] is a {type(each).__name__} without state_dict and load_state_dict; "
                "plain data belong to extra"
            )
