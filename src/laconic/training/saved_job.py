"""A job as ranks have saved it, and what one rank of another job takes from it.

The other job may have more or fewer ranks, another layout, or only the file of one rank. Memories then follow the rules
of their slots (`protocol/resize.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from laconic.contract import Algorithm, Rule, check_vector
from laconic.drivers.saved_data import NUMBER, check_counts, check_data, check_server, check_worker
from laconic.protocol.async_server import resized_arrivals
from laconic.protocol.job import Job
from laconic.protocol.resize import are_complete, distinct, resized

Saved = Mapping[str, Any]
OTHERS = "others"
"""Name of the entry with the parts of other ranks, by rank."""


def keeps_nothing(algorithm: Algorithm) -> bool:
    """Return whether a method has no state beside the inner optimizer's, which all ranks have alike."""
    slots = algorithm.worker_slots or algorithm.server_slots
    return not (slots or algorithm.server_steps or algorithm.is_asynchronous or not algorithm.replicas_equal)


def own_names(algorithm: Algorithm) -> list[str]:
    """Return the names of what differs from worker to worker and is lost with one."""
    slots = algorithm.worker_slots
    names = [name for name, slot in slots.items() if slot.rule in (Rule.SUM, Rule.MEAN)]
    if not algorithm.replicas_equal:
        return [*names, "model"]
    return names or [name for name, slot in slots.items() if slot.rule is not Rule.SAME]


def parts_in(part: Saved) -> dict[int, Saved]:
    """Return all ranks' parts in a saved one, by rank."""
    own = {key: value for key, value in part.items() if key != OTHERS}
    parts = {part["rank"]: own, **part.get(OTHERS, {})}
    for rank, each in parts.items():
        check_counts({"rank": rank, **each}, {"rank": NUMBER, "n_workers": range(1, 1 << 16)})
        check_counts(each["training"], {"steps_taken": NUMBER})
        check_data("the nodes of the ranks", each.get("nodes", [0] * (rank + 1)), [NUMBER])
        check_counts(each["driver"], {"rounds": NUMBER, "aborted_rounds": NUMBER, "control_bytes": NUMBER})
        if not isinstance(each["layout"], str):
            raise ValueError(f"state_dict: layout is {each['layout']!r:.60}; it must be a text")
        if rank != each["rank"]:
            raise ValueError(f"state_dict: the part of rank {rank} says that it is rank {each['rank']}'s")
    return dict(sorted(parts.items()))


@dataclass(frozen=True, kw_only=True)
class SavedJob:
    """The parts that are at hand, by rank; none is missing that any rank of the new job has."""

    parts: Mapping[int, Saved]

    @property
    def leading(self) -> Saved:
        """The part of the lowest rank."""
        return next(iter(self.parts.values()))

    @property
    def n_workers(self) -> int:
        """The number of workers that the job had."""
        return int(self.leading["n_workers"])

    @property
    def workers(self) -> dict[int, Saved]:
        """What the workers saved, by worker. Where ranks share a node, their worker has its number."""
        of_worker = {rank: part for rank, part in self.parts.items() if part["driver"]["worker"] is not None}
        number_of = {rank: part["nodes"][rank] if "nodes" in part else rank for rank, part in of_worker.items()}
        return {number_of[rank]: part["driver"]["worker"] for rank, part in of_worker.items()}

    @property
    def servers(self) -> list[Saved]:
        """What the servers saved, each slice once."""
        found = [server for part in self.parts.values() for server in part["driver"]["servers"]]
        for server in found:
            check_server(server)
        return distinct(found)

    def anywhere(self, name: str, *, driver: bool = False) -> Any:  # noqa: ANN401
        """Return what the lowest rank that has it has saved as `name`; None if none has."""
        sides = (part["driver"] if driver else part for part in self.parts.values())
        return next((side[name] for side in sides if side.get(name) is not None), None)

    def fitted(
        self,
        job: Job,
        node: int,
        own: Saved | None,
        begun_again: Callable[[Saved, Tensor | None], Saved],
        like: Tensor,
    ) -> dict[str, Any]:
        """Return the part from which one rank of a job goes on.

        Args:
            job: the job.
            node: the rank's node of the layout; -1 if another rank exchanges for it.
            own: what this rank has saved, if it has.
            begun_again: see `TrainingStep`.
            like: the model's parameters (d,).

        Raises:
            ValueError: what was saved does not fit the job.
        """
        leading, workers = self.leading, self.workers
        for worker in workers.values():
            check_worker(worker)
        new_workers, new_servers = resized(workers, self.n_workers, self.servers, job)
        rank = job.layout.rank_at.get(node)
        driver: dict[str, Any] = {
            "rounds": leading["driver"]["rounds"], "aborted_rounds": leading["driver"]["aborted_rounds"],
            "control_bytes": 0 if own is None else own["driver"]["control_bytes"],
            "worker": None if rank is None else new_workers[rank], "servers": new_servers,
        }  # fmt: skip
        values = self._values(job.algorithm, like)
        serves = any(shard.node == node for shard in job.layout.shards)
        if job.algorithm.is_asynchronous and serves:
            driver |= self._serving(job, values, driver["rounds"])
        training = begun_again(leading["training"], values)
        new = {"driver": driver, "training": training}
        server_model = self.anywhere("server_model")
        if server_model is None and job.algorithm.is_asynchronous:
            server_model = {"values": values, "optimizer": None}
        return new | {"server_model": server_model if serves else None}

    def _values(self, algorithm: Algorithm, like: Tensor) -> Tensor | None:
        """Return the parameters (d,) that all ranks go on from; None for those that the model has."""
        trainings = [part["training"] for part in self.parts.values() if part["driver"]["worker"] is not None]
        starts = [training["start"] for training in trainings if training["start"] is not None]
        values = starts or [training["values"] for training in trainings if training["values"] is not None]
        arrivals = self.anywhere("arrivals", driver=True)
        if algorithm.is_asynchronous and arrivals is not None:
            values = [arrivals["latest"]]
        for vector in values:
            check_vector("the parameters", vector, like)
        if not values:
            return None
        alike = algorithm.replicas_equal or algorithm.is_asynchronous
        return values[0].clone() if alike else torch.stack([value.to(like) for value in values]).mean(0)

    def _serving(self, job: Job, values: Tensor | None, rounds: int) -> dict[str, Any]:
        """Return the state of an asynchronous server whose workers all begin with its latest model."""
        n, arrivals = job.layout.n_workers, self.anywhere("arrivals", driver=True)
        if arrivals is None:
            counts = {"staleness": {}, "dropped": 0, "held": 0, "aborted": 0, "n_finished": 0}
            arrivals = {"latest": values, "updates": 0, "update_counts": [counts] * n, "used": {}, "frames": {}}
        arrivals = resized_arrivals(arrivals, n, rounds)
        version = arrivals["updates"]
        bases = {} if job.algorithm.staleness_bound().may_wait else {str(rank): version for rank in range(n)}
        bound = {"version": version, "bases": bases, "requesting": [], "held": []}
        return {"bound": bound, "arrivals": arrivals | {"used": {}}, "seen": [version] * n}

    def summary(self, job: Job) -> str:
        """Return in one sentence what the new job takes from the old one; empty if it takes everything as it was."""
        algorithm, n, workers = job.algorithm, job.layout.n_workers, self.workers
        if keeps_nothing(algorithm):
            return ""
        names = own_names(algorithm)
        what = " and the ".join(names)
        rounds = self.leading["driver"]["rounds"]
        sentences = [f"{algorithm.name} goes on at round {rounds} on {n} workers, from {self.n_workers}"]
        missing = sorted({*range(self.n_workers)} - {*workers})
        if missing and what:
            sentences.append(
                f"the state has no {what} of {named_ranks(missing)}, which start from zero or with what all have"
            )
        leaving = [rank for rank in workers if rank >= n]
        if leaving and "residual" in names:
            sentences.append(f"the residual of {named_ranks(leaving)} is added to rank 0's")
        new = [rank for rank in range(n) if rank not in workers]
        if new and what and n > self.n_workers:
            sentences.append(f"{named_ranks([rank for rank in new if rank >= self.n_workers])} did not exist before")
        if not are_complete(self.servers, job):
            sentences.append("what other ranks kept as servers is not in the state, and starts from zero")
        if algorithm.server_steps and self.anywhere("server_model") is None:
            sentences.append("the server's optimizer is not in the state, and starts anew")
        if any(part["training"]["steps_taken"] for part in self.parts.values()):
            sentences.append("the local steps since the last exchange are undone")
        return "; ".join(sentences) if len(sentences) > 1 or n != self.n_workers else ""


def named_ranks(ranks: Sequence[int]) -> str:
    """Return some ranks in words."""
    shown = ", ".join(map(str, ranks[:8])) + (" ..." if len(ranks) > 8 else "")
    return f"rank{'s' * (len(ranks) > 1)} {shown}"
