"""Saving and loading a `DistributedOptimizer`, on one rank or on all of them.

Saving never waits. Loading is collective: first every rank reads and checks what it was given, and loads the inner
optimizer; then all tell each other whether it fits, and load the rest or take everything back.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakMethod

from torch.optim import Optimizer

from laconic.drivers.distributed.rounds import Processes
from laconic.drivers.distributed.state_exchange import show
from laconic.statements import state_once
from laconic.torch_compat import caller_named
from laconic.training.flat_parameters import FlatParameters
from laconic.training.replaced_tensors import HeldModel
from laconic.training.saved_job import OTHERS, SavedJob, keeps_nothing, named_ranks, own_names, parts_in
from laconic.training.server_model import ServerModel
from laconic.training.simulated_state import as_ranks
from laconic.training.state_dict import (
    KEY,
    VERSION,
    InnerLoad,
    Part,
    Training,
    check_identity,
    check_parts,
    checked,
    composed,
    from_bytes,
    identity_of,
    is_same,
    split,
    take_part,
    to_bytes,
    with_names,
)

_MAX_BYTES = 1 << 21
_NUMBER = range(1 << 62)
_GATHERED = {"bytes": _NUMBER, "error": str}
_READ = {
    "error": str, "has_part": bool, "rounds": {str: (_NUMBER, _NUMBER)}, "n_workers": int, "layout": str,
    "is_exact": bool,
}  # fmt: skip
# The slots' rules say what then happens.
_MAY_DIFFER = {"layout", "local_steps", "rank", "n_workers", "slices", "nodes"}
_REMEDY = "make the optimizer as it was made when the state was saved"


class Checkpoints:
    """The saved state of one rank."""

    def __init__(
        self,
        inner: Optimizer,
        driver: Processes,
        training: Training,
        flat: FlatParameters,
        server_model: ServerModel | None,
        slices: Sequence[int] = (0,),
    ) -> None:
        """Save and load these parts of a `DistributedOptimizer`.

        Args:
            inner: the user's optimizer.
            driver: its rounds.
            training: its steps.
            flat: the model's parameters.
            server_model: the server's model, if a server has one.
            slices: where the slices of the vector begin that have rounds of their own.
        """
        self._slices = list(slices)
        self._inner, self._driver, self._training, self._flat = inner, driver, training, flat
        self.held: HeldModel | None = None
        """What takes a user's weights up into the model that this rank serves."""
        self._parts: dict[str, Part] = {"driver": driver, "training": training}
        if server_model is not None and driver.servers:
            self._parts["server_model"] = server_model
            self.held = HeldModel(flat, server_model, driver, equal=server_model.own_vector)
            server_model.step_for(driver.servers, None if driver.job.algorithm.is_asynchronous else self.held)
            self.held.shows = None if driver.worker is not None else server_model
            if not driver.job.algorithm.is_asynchronous:
                driver.sessions.meanwhile = partial(_call, WeakMethod(self.held.take_up))  # it holds the driver
        self.others: dict[int, Any] | None = None
        """The other ranks' parts, if nothing has changed since they were gathered."""

    def identity(self) -> dict[str, Any]:
        """Return what must be equal when the state is loaded."""
        job, node, shards = self._driver.job, self._driver.node, self._driver.shards
        own = {"n_workers": job.layout.n_workers} | ({} if node is None else {"nodes": list(node.ranks.node_of)})
        shard = {} if shards is None else {"shard": [shards.number, shards.count]}
        identity = identity_of(job, local_steps=self._training.local.many, rank=self._driver.channel.rank)
        return shard | identity | own | ({} if self._slices == [0] else {"slices": self._slices})

    def _part(self) -> dict[str, Any]:
        return {**self.identity(), **{name: part.saved() for name, part in self._parts.items()}}

    def own(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the inner optimizer's state of this rank, and its part. Not collective.

        Raises:
            RuntimeError: it cannot be saved now.
        """
        return split(self._inner.state_dict())[0], self._part()

    def saved(self) -> dict[str, Any]:
        """Return the state of this rank, with that of the others if it was gathered. Not collective."""
        calling = caller_named("_get_optim_state_dict")
        flattens = calling is not None and getattr(calling.f_locals.get("info"), "flatten_optimizer_state_dict", False)
        if flattens and self._driver.rounds and not keeps_nothing(self._driver.job.algorithm):
            raise RuntimeError(
                "state_dict: flatten_optimizer_state_dict=True drops what the method keeps when it is loaded; leave it "
                "False, or save opt.state_dict() itself"
            )
        return composed(self._inner, self.part(), packed=calling is not None)

    def part(self) -> dict[str, Any]:
        """Return the method's part of the state of this rank, with those of the others if they were gathered."""
        if self.others is not None:
            return {**self._part(), OTHERS: dict(self.others)}
        self._say_what_is_missing()
        return self._part()

    def load_part(self, part: Mapping[str, Any]) -> None:
        """Go on from what `part` or `saved` returned; the inner optimizer stays as it is. Collective; see `load`."""
        self.load(split(self._inner.state_dict())[0] | {KEY: {} if part is None else part})

    def _say_what_is_missing(self) -> None:
        driver = self._driver
        job, channel = driver.job, driver.channel
        if job.layout.n_nodes == 1 or channel.rank or driver.shards or not (driver.rounds or self._training.n_taken):
            return
        exchanging = range(channel.size) if driver.node is None else driver.node.ranks.leading
        algorithm, others = job.algorithm, named_ranks(exchanging[1:])
        names = own_names(algorithm)
        missing = [f"the {' and the '.join(names)} of {others}"] if names else []
        if algorithm.server_slots and any(shard.node for shard in job.layout.shards):
            missing.append("what other ranks keep as servers")
        if algorithm.server_steps and self.held is None:
            missing.append("the server's model and its optimizer")
        if self._training.local.are_taken and self._inner.state:
            missing.append(f"the inner optimizer's state of {others}")
        if missing:
            state_once(
                f"state_dict() returns what rank 0 has of {algorithm.name}; {' and '.join(missing)} is not in it. To "
                f"save a whole state, call {channel.door.held}.gather_state() on every rank before it"
            )

    def gather(self, rank: int | None) -> None:
        """Gather the other ranks' parts, on `rank` or on all. Collective.

        Raises:
            ValueError: there is no such rank.
            RuntimeError: a rank cannot be saved now.
            PeerLostError: a rank is missing.
        """
        channel = self._driver.channel
        if rank is not None and (type(rank) is not int or not 0 <= rank < channel.size):
            raise ValueError(
                f"gather_state: rank={rank!r} must be within 0 .. {channel.size - 1}, or None for every rank"
            )
        if channel.size == 1:
            self.others = {}
            return
        data, error = b"", ""
        try:
            differs = self._training.local.are_taken  # then each rank's inner optimizer has steps of its own
            data = to_bytes(self._part() | ({"inner": split(self._inner.state_dict())[0]} if differs else {}))
        except RuntimeError as failed:
            error = str(failed)
        reports = channel.gather({"bytes": len(data), "error": error[:2000]}, "for its state", _GATHERED, _MAX_BYTES)
        errors = [f"rank {other}: {each['error']}" for other, each in enumerate(reports) if each["error"]]
        if errors:
            raise RuntimeError(f"gather_state: {'; '.join(errors)}")
        wanted = rank is None or rank == channel.rank
        others: dict[int, Any] = {}
        for root, each in enumerate(reports):
            shown = show(channel, data if root == channel.rank else None, root, each["bytes"], "for its state")
            if wanted and root != channel.rank:
                others[root] = from_bytes(shown)
        self.others = others if wanted else None

    def load(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a saved state. Collective.

        Raises:
            ValueError: it does not fit this rank or another one. Nothing has changed then, on any rank.
            PeerLostError: a rank is missing.
        """
        inner = InnerLoad(self._inner)
        parts: dict[int, Any] = {}
        error, has_part = "", False
        try:
            inner_state, part = split(state_dict)
            has_part = part is not None
            if has_part:
                checked(lambda: parts.update(self._read(part, inner_state)), "the part 'laconic'")
            elif not keeps_nothing(self._driver.job.algorithm):
                raise ValueError(
                    "state_dict: no 'laconic' part: this is the state of an optimizer alone; load it into the inner "
                    "optimizer before it is wrapped, and the method starts without memories"
                )
            own = parts.get(self._driver.channel.rank, {})
            inner.load(own.get("inner", inner_state))
        except ValueError as failed:
            error = str(failed)
        self._agree(parts, error, inner, has_part=has_part)

    def take_up(self, part: Mapping[str, Any]) -> None:
        """Go on from the part that the inner optimizer had loaded before it was wrapped. Collective; see `load`."""
        method = self._driver.job.algorithm
        if part.get("algorithm") != method.name and not keeps_nothing(method):
            state_once(
                f"the inner optimizer has loaded a state of {part.get('algorithm')!r:.40}; {method.name} starts anew"
            )
            return
        inner = InnerLoad(self._inner)
        parts: dict[int, Any] = {}
        error = ""
        try:
            checked(lambda: parts.update(self._read(part, self._inner.state_dict())), "the part 'laconic'")
            own = parts.get(self._driver.channel.rank, {})
            if "inner" in own:
                inner.load(own["inner"])
        except ValueError as failed:
            error = str(failed)
        self._agree(parts, error, inner, has_part=True)

    def _read(self, part: Mapping[str, Any], inner_state: Mapping[str, Any]) -> dict[int, Any]:
        """Return all ranks' parts in a saved one, by rank; none if the method keeps nothing and the part is foreign."""
        job = self._driver.job
        renamed = with_names(part, job.spec.names)
        fixed = {key: value for key, value in self.identity().items() if key not in _MAY_DIFFER}
        if keeps_nothing(job.algorithm) and not all(is_same(renamed.get(key), value) for key, value in fixed.items()):
            if list(part["parameters"].values()) != list(job.spec.sizes):
                check_identity(renamed, {"parameters": fixed["parameters"]}, "is it another model?")
            rounds = part["driver"]["rounds"]
            return {self._driver.channel.rank: self._bare(rounds)}
        check_identity(renamed, fixed, _REMEDY)
        if "n_workers" not in renamed:  # a simulation's
            own_steps = self._training.local.are_taken
            parts = as_ranks(renamed, inner_state, has_own_steps=own_steps)
            renamed = {**parts[0], OTHERS: {rank: each for rank, each in parts.items() if rank}}
        parts = parts_in(renamed)
        for each in parts.values():
            check_identity(each, {"version": VERSION, "algorithm": job.algorithm.name}, _REMEDY)
        return parts

    def _bare(self, rounds: int) -> dict[str, Any]:
        """Return the part of a rank that keeps nothing but its number of rounds."""
        part = self._part()
        driver = part["driver"] | {"rounds": rounds, "aborted_rounds": 0, "control_bytes": 0}
        return part | {"driver": driver, "layout": "another"}

    def _agree(self, parts: dict[int, Any], error: str, inner: InnerLoad, *, has_part: bool) -> None:
        """Load what every rank has read, or refuse it on all of them."""
        try:
            new, summary = self._agreed(parts, error, has_part=has_part)
        except BaseException:
            inner.undo()
            raise
        for name, part in self._parts.items():
            if new.get(name) is not None:
                part.restore(new[name])
        if self.held is not None and new.get("server_model") is not None:
            self.held.forget()
        self.others = None
        if summary and self._driver.channel.rank == 0:
            state_once(f"load_state_dict: {summary}")

    def _agreed(self, parts: dict[int, Any], error: str, *, has_part: bool) -> tuple[dict[str, Any], str]:
        """Return the checked part that this rank goes on from, and what that means where it is not all as it was."""
        channel, name = self._driver.channel, self._driver.job.algorithm.name
        own = parts.get(channel.rank)
        leading = next(iter(parts.values()), {"n_workers": 0, "layout": ""})
        read = {
            "error": error[:2000], "has_part": has_part, "n_workers": leading["n_workers"],
            "layout": str(leading["layout"])[:80],
            "is_exact": own is not None and self._is_own(own),
            "rounds": {str(rank): _time_of(part) for rank, part in parts.items()},
        }  # fmt: skip
        reports = channel.gather(read, "to load a state", _READ, _MAX_BYTES)
        error = error or disagreement(reports)
        new: dict[str, Any] = {}
        summary = f"no 'laconic' part; {name} goes on at round {self._driver.rounds}"
        if not error and has_part:
            is_exact = all(each["is_exact"] for each in reports)
            everywhere = parts if is_exact else self._shared(parts, reports)
            try:
                checked(lambda: new.update(self._fitted(everywhere, is_exact=is_exact)), "the part 'laconic'")
                check_parts(new, self._parts, may_lack=True)
                summary = "" if is_exact else SavedJob(parts=everywhere).summary(self._driver.job)
            except ValueError as failed:
                error = str(failed)
        fits = channel.gather(error[:2000], "to load a state", str, _MAX_BYTES)
        error = error or next((f"rank {rank}: {each}" for rank, each in enumerate(fits) if each), "")
        if (shards := self._driver.shards) is not None:  # those of a replica go on together, and from one time
            times = {str(shards.number): _time_of(part) for part in parts.values()}
            reports = shards.channel.gather(
                {**read, "rounds": times, "error": error[:2000]}, "to load a state", _READ, _MAX_BYTES
            )
            error = error or disagreement(reports, "shard")
        if error:
            raise ValueError(error)
        return new, summary

    def _is_own(self, part: Mapping[str, Any]) -> bool:
        """Return whether a part is of this job as it is, so that a rank goes on from its own alone."""
        usual: dict[str, Any] = {"slices": [0], "nodes": None}
        return all(is_same({**usual, **part}.get(key), value) for key, value in (usual | self.identity()).items())

    def _fitted(self, parts: dict[int, Any], *, is_exact: bool) -> Mapping[str, Any]:
        channel, job = self._driver.channel, self._driver.job
        if is_exact:
            own: Mapping[str, Any] = parts[channel.rank]
            return own
        saved = SavedJob(parts={rank: with_names(part, job.spec.names) for rank, part in parts.items()})
        begun_again, values = self._training.begun_again, self._flat.values()
        return saved.fitted(job, self._driver.place, parts.get(channel.rank), begun_again, values)

    def _shared(self, parts: dict[int, Any], reports: list[Any]) -> dict[int, Any]:
        """Return all parts that any rank has, by the rank that saved them."""
        channel = self._driver.channel
        holders: dict[int, list[int]] = {}
        for rank, each in enumerate(reports):
            for saved in map(int, each["rounds"]):
                holders.setdefault(saved, []).append(rank)
        shown: dict[int, bytes] = {}
        for saved, having in sorted(holders.items()):
            if len(having) == channel.size:
                continue
            data = b""  # of a part that cannot be saved again, which every rank then refuses
            if channel.rank == having[0]:
                with contextlib.suppress(Exception):
                    data = to_bytes(parts[saved])
            sizes = channel.gather(len(data), "to load a state", _NUMBER, 64)
            shown[saved] = show(channel, data or None, having[0], sizes[having[0]], "to load a state")
        return {saved: parts[saved] if saved in parts else _read_shown(shown[saved]) for saved in sorted(holders)}


def _read_shown(data: bytes) -> Any:  # noqa: ANN401
    """Return a part that another rank has shown; an empty one, which is refused, if it cannot be read."""
    with contextlib.suppress(ValueError):
        return from_bytes(data)
    return {}


def say_if_loaded(inner: Optimizer) -> None:
    """A hook: state that a wrapped optimizer has loaded what was saved by what wraps it."""
    if take_part(inner) is not None:
        state_once(
            "the inner optimizer has loaded its own part of a DistributedOptimizer's state; to go on with the method's "
            "memories and rounds, load it by DistributedOptimizer.load_state_dict() on every rank"
        )


def _time_of(part: Mapping[str, Any]) -> list[int]:
    """Return how many rounds a part's rank had taken, and how many local steps since."""
    return [part["driver"]["rounds"], part["training"]["steps_taken"]]


def disagreement(reports: list[Any], kind: str = "rank") -> str:
    """Return why ranks, or shards, cannot go on from what each of them has read; empty if they can."""
    errors = [f"{kind} {rank}: {each['error']}" for rank, each in enumerate(reports) if each["error"]]
    if errors:
        return "; ".join(errors)
    for what, phrase in (
        ("has_part", "a state {} the method's part"), ("n_workers", "the state of {} workers"),
        ("layout", "a state of the layout {}"),
    ):  # fmt: skip
        values = [each[what] for each in reports]
        other = next((rank for rank, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            shown = [{True: "with", False: "without"}.get(value, value) for value in (values[0], values[other])]
            return f"state_dict: {kind} 0 loads {phrase.format(shown[0])} and {kind} {other} {phrase.format(shown[1])}"
    times = [(rank, *time) for rank, each in enumerate(reports) for time in each["rounds"].values()]
    for rank, *time in times:
        if time != list(times[0][1:]):
            rounds = [
                f"round {each[0]}" + (f" and {each[1]} local steps" if each[1] else "") for each in (times[0][1:], time)
            ]
            return (
                f"state_dict: {kind} {times[0][0]} loads the state of {rounds[0]} and {kind} {rank} that of "
                f"{rounds[1]}; all {kind}s must load what was saved at one time"
            )
    return ""


def _call(method: "WeakMethod[Callable[[], object]]") -> None:
    """Call a method of an object that may be gone; then do nothing."""
    bound = method()
    if bound is not None:
        bound()
