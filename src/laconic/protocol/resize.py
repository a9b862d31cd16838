"""The saved state of a job's sessions, for another number of workers. The workers of the leading ranks stay."""

from collections.abc import Mapping, Sequence
from typing import Any

from laconic.contract import by_parameter, read_saved, resized_server, resized_workers
from laconic.protocol.job import Job
from laconic.telemetry.meter import sum_of_saved


def resized(
    workers: Sequence[Mapping[str, Any]], servers: Sequence[Mapping[str, Any]], job: Job
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Return the states of the workers and of the servers for the number of workers of `job`.

    Memories follow the rules of the method's slots. What leaving workers have counted is added to worker 0's counts.

    Args:
        workers: by rank, what `WorkerSession.saved` returned.
        servers: what `ServerSession.saved` returned.
        job: the new job.

    Raises:
        ValueError: a memory is not declared by the method, or not complete.
    """
    n, slots = job.layout.n_workers, job.worker_slots
    if len(workers) == n:
        return list(workers), list(servers)
    memories = [read_saved([worker["memory"]], slots) for worker in workers]
    new: list[dict[str, Any]] = [
        {"memory": by_parameter(memory, slots), "meter": None, "link_bytes_per_s": None}
        for memory in resized_workers(memories, slots.table, n)
    ]
    for state, old in zip(new, workers, strict=False):
        state |= {"meter": old["meter"], "link_bytes_per_s": old["link_bytes_per_s"]}
    new[0]["meter"] = sum_of_saved([new[0]["meter"], *(worker["meter"] for worker in workers[n:])])
    table = job.algorithm.server_slots
    return [*new], [{**server, "memory": resized_server(server["memory"], table, n)} for server in servers]
