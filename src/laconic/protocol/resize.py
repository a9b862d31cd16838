"""The saved state of a job's sessions, for other workers and servers. The workers of the leading ranks stay."""

from collections.abc import Mapping, Sequence
from typing import Any

from laconic.contract import by_parameter, read_saved, resized_server, resized_workers
from laconic.protocol.job import Job
from laconic.protocol.layout import Shard
from laconic.telemetry.meter import sum_of_saved

Saved = Mapping[str, Any]


def distinct(servers: Sequence[Saved]) -> list[Saved]:
    """Return saved servers without those whose slice another one has: in a layout without servers, all have all."""
    return [*{tuple(server["slice"]): server for server in reversed(servers)}.values()]


def are_complete(servers: Sequence[Saved], job: Job) -> bool:
    """Return whether saved servers have all that servers of this job keep."""
    end = job.spec.offset
    for start, stop in sorted(tuple(server["slice"]) for server in servers):
        end = max(end, stop) if start <= end else end
    return end >= job.spec.stop or not job.algorithm.server_slots


def resized(
    workers: Mapping[int, Saved], n_saved: int, servers: Sequence[Saved], job: Job
) -> tuple[list[Any], list[Any]]:
    """Return the states of the workers and of the servers of `job`.

    Memories follow the rules of the method's slots. What leaving workers have counted is added to worker 0's counts.
    Where a slice of the servers is not known, their memories start from zero there, and what workers and servers know
    of each other alone is left out on both sides.

    Args:
        workers: by rank, what `WorkerSession.saved` returned; of some workers there may be nothing.
        n_saved: the number of workers of the job that was saved.
        servers: what `ServerSession.saved` returned, each slice once.
        job: the new job.

    Raises:
        ValueError: a memory is not declared by the method, or not complete.
    """
    n, slots, is_complete = job.layout.n_workers, job.worker_slots, are_complete(servers, job)
    if is_complete and n == n_saved == len(workers):
        return [workers[rank] for rank in range(n)], list(servers)
    memories = {rank: read_saved([worker["memory"]], slots) for rank, worker in workers.items()}
    for memory in memories.values():
        known = {name: value for name, value in memory.items() if slots.find(name) is not None}
        slots.check_saved(known)
    new: list[dict[str, Any]] = [
        {"memory": by_parameter(memory, slots), "meter": None, "link_bytes_per_s": None}
        for memory in resized_workers(memories, slots.table, n, per_worker=is_complete)
    ]
    for rank, old in workers.items():
        if rank < n:
            new[rank] |= {"meter": old["meter"], "link_bytes_per_s": old["link_bytes_per_s"]}
    meters = [workers[rank]["meter"] for rank in sorted(workers) if rank == 0 or rank >= n]
    meters = [meter for meter in meters if meter is not None]
    new[0]["meter"] = sum_of_saved(meters) if meters else None
    table = job.algorithm.server_slots
    remaining = [
        resized_server(server["memory"], table, n, workers.keys(), per_worker=is_complete) for server in servers
    ]
    if is_complete:
        return [*new], [{**server, "memory": memory} for server, memory in zip(servers, remaining, strict=True)]
    everything = Shard(0, job.spec.offset, job.spec.stop)
    all_slots = job.server_slots(everything)
    memory = by_parameter(read_saved(remaining, all_slots, missing_as_zero=True), all_slots)
    return [*new], [{"memory": memory, "link_bytes_per_s": None, "slice": [everything.offset, everything.stop]}]
