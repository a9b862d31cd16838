"""`load`: go on from the newest complete checkpoint, or refuse it with nothing changed on any rank."""

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from laconic.checkpoint.folders import MANIFEST, Manifest, path_of, saved_in
from laconic.checkpoint.jobs import Job, agreed_arguments, job_of
from laconic.checkpoint.random_states import random_states, set_random_states
from laconic.checkpoint.saving import check_objects, model_of, shown
from laconic.ddp import Handle
from laconic.errors import CheckpointError, CheckpointFormatError
from laconic.statements import warn
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.simulation import Simulation
from laconic.training.state_dict import canonical

_LISTED = {"names": [str], "error": str}
_READ = {"error": str, "is_other_format": bool}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a job goes on from."""

    path: Path
    """The folder of the checkpoint."""
    step: int
    """The step that the script gave when it saved."""
    extra: Mapping[str, Any]
    """What the script had given to save beside; of the rank that saved as this one, or of a lower one."""
    n_ranks: int
    """How many ranks have saved."""


def load(
    folder: str | Path,
    opt: DistributedOptimizer | Simulation | Handle,
    *,
    model: nn.Module | None = None,
    objects: Mapping[str, Any] | None = None,
    random_state: bool = True,
) -> Loaded | None:
    """Go on from a checkpoint. Collective: every rank calls it.

    As many ranks as have saved go on bit for bit. For other numbers of ranks the rules of the method's memories say
    what becomes of each: what leaving ranks hold as residual is added to rank 0's, and new ranks begin without one.

    Args:
        folder: the folder of the run, of which the newest complete checkpoint is taken; or that of one checkpoint.
        opt: what trains.
        model: where parameters and buffers go; by default the model that `opt` was made with.
        objects: what else was saved, by the same names.
        random_state: whether to set the random generators of torch, Python and numpy as they were. A rank that did not
            exist before keeps its own.

    Returns:
        where it goes on; None if the folder has no checkpoint, as at the start of a run.

    Raises:
        CheckpointError: no checkpoint in the folder is complete, or it is of another model, method or version of
            laconic, or has other objects. Nothing has changed then, on any rank.
        TypeError: an argument is of another type. The ranks whose arguments are right raise SetupError, at once.
        PeerLostError: a rank is missing.
    """
    job = job_of(opt)

    def checked() -> tuple[Path, nn.Module]:
        check_objects(objects)
        return path_of(folder), model_of(job, model)

    path, found = agreed_arguments(job, "to load a checkpoint", checked)
    read = _newest_read(job, path)
    if read is None:
        return None
    _Load(job, found, objects or {}, read, random_state=random_state).run()
    return Loaded(
        path=read.path, step=read.step, extra=read.leading["extra"], n_ranks=read.n_ranks
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Read:
    path: Path
    step: int
    n_ranks: int
    states: Mapping[int, Mapping[str, Any]]
    """Of the ranks that this one wants to know of, by rank."""

    @property
    def leading(self) -> Mapping[str, Any]:
        """That of the rank in whose place this one is."""
        return next(iter(self.states.values()))


def _newest_read(job: Job, folder: Path) -> _Read | None:
    """Return what this rank has read of the newest checkpoint that is complete; None if there is none at all."""
    paths: list[Path] = []
    unreadable = ""
    try:
        paths = [folder] if (folder / MANIFEST).is_file() else saved_in(folder)
    except OSError as failed:
        unreadable = str(failed)[:2000]
    listed = job.gather({"names": [path.name for path in paths][:1000], "error": unreadable}, _LISTED)
    if errors := [f"rank {rank}: {each['error']}" for rank, each in enumerate(listed) if each["error"]]:
        raise CheckpointError("; ".join(errors))
    if any(each != listed[0] for each in listed):
        raise CheckpointError(f"{folder}: the ranks see other checkpoints there; all ranks must see one folder")
    problems: list[str] = []
    for path in paths:
        read, error = None, None
        try:
            read = _read(job, path)
        except CheckpointError as failed:
            error = failed
        reports = job.gather(
            {"error": "" if error is None else str(error)[:2000], "is_other_format": _is_other_format(error)}, _READ
        )
        found = [f"rank {rank}: {each['error']}" for rank, each in enumerate(reports) if each["error"]]
        if not found:
            if problems and job.rank == 0:
                warn(f"checkpoint: {problems[0]}; training goes on from {path.name}, which is complete")
            return read
        if any(each["is_other_format"] for each in reports):
            raise CheckpointFormatError(found[0])
        problems.append("; ".join(found))
    if problems:
        raise CheckpointError("\n".join(problems))
    return None


def _is_other_format(error: CheckpointError | None) -> bool:
    return isinstance(error, CheckpointFormatError)


def _read(job: Job, path: Path) -> _Read:
    """Read and check what this rank needs of a checkpoint. Raises CheckpointError."""
    manifest = Manifest.read(path)
    leading = manifest.part(0)
    states = {}
    for rank in job.wanted(manifest.n_ranks):
        part = leading if rank == 0 else manifest.part(rank)
        state = part.state(leading)
        if (
            not isinstance(state, dict)
            or not {"inner", "laconic", "model", "objects", "extra", "random"} <= state.keys()
        ):
            raise CheckpointError(f"{path}: the file of rank {rank} has no state of a job")
        states[rank] = state
    return _Read(path=path, step=manifest.content["step"], n_ranks=manifest.n_ranks, states=states)


class _Load:
    """Loads everything or takes all of it back."""

    def __init__(
        self, job: Job, model: nn.Module, objects: Mapping[str, Any], read: _Read, *, random_state: bool
    ) -> None:
        self._job, self._model, self._objects, self._read = job, model, objects, read
        self._sets_random = random_state and job.rank in read.states
        self._undo = ExitStack()

    def run(self) -> None:
        """Load what was read. Raises CheckpointError. Then, and where it is interrupted, all is as it was."""
        try:
            with self._undo:
                self._agree(self._load_own())
                self._job.load(self._read.states)
                self._undo.pop_all()
        except ValueError as failed:
            raise CheckpointError(f"{self._read.path}: {failed}") from failed

    def _load_own(self) -> str:
        """Load what is no matter of other ranks; return what went wrong, empty for nothing."""
        try:
            check_model(self._model, self._read.leading["model"])
            self._job.check(self._read.states)
            self._load_objects(self._read.leading["objects"])
            self._load_model(self._read.leading["model"])
            if self._sets_random and self._read.leading["random"] is not None:
                self._undo.callback(set_random_states, random_states())
                set_random_states(self._read.leading["random"])
        except Exception as failed:  # a user's model has its own
            return shown(failed, ValueError)
        return ""

    def _agree(self, error: str) -> None:
        reports = self._job.gather(error, str)
        if errors := [f"rank {rank}: {each}" for rank, each in enumerate(reports) if each]:
            raise ValueError("; ".join(errors))

    def _load_model(self, state: Mapping[str, Any]) -> None:
        before = {
            name: value.clone() if isinstance(value, Tensor) else value
            for name, value in self._model.state_dict().items()
        }
        self._undo.callback(self._model.load_state_dict, before)
        self._model.load_state_dict({name: state[canonical(name)] for name in before})

    def _load_objects(self, states: Mapping[str, Any]) -> None:
        if states.keys() != self._objects.keys():
            raise CheckpointError(
                f"it has the objects {sorted(states)}, and here are {sorted(self._objects)}; give the same as when it "
                "was saved"
            )
        for name, each in self._objects.items():
            self._undo.callback(each.load_state_dict, copy.deepcopy(each.state_dict()))
            try:
                each.load_state_dict(states[name])
            except Exception as error:  # each object has its own
                raise CheckpointError(f"objects[{name!r}] cannot load its state: {error!r:.200}") from error


def check_model(model: nn.Module, saved: Mapping[str, Any]) -> None:
    """Raise CheckpointError if a saved state is not of this model: other names, shapes or types."""
    own = {canonical(name): value for name, value in model.state_dict().items()}
    for what, names in (("lacks", own.keys() - saved.keys()), ("has, beside the model's,", saved.keys() - own.keys())):
        if names:
            raise CheckpointError(f"is it another model? The checkpoint {what} {', '.join(sorted(names)):.200}")
    for name, value in own.items():
        if isinstance(value, Tensor):
            other = saved[name]
            if not isinstance(other, Tensor) or (other.shape, other.dtype) != (value.shape, value.dtype):
                shown = f"{other.dtype} {tuple(other.shape)}" if isinstance(other, Tensor) else repr(other)
                raise CheckpointError(
                    f"{name!r} is {shown:.80} in the checkpoint and {value.dtype} {tuple(value.shape)} in the model"
                )
