"""The state of a simulation as ranks would have saved it, and the state of ranks as a simulation would have."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from laconic.training.saved_job import SavedJob, parts_in

Saved = Mapping[str, Any]


def as_ranks(part: Saved, inner_state: Saved, *, has_own_steps: bool) -> dict[int, Any]:
    """Return the parts of as many ranks as a simulation had workers.

    Args:
        part: what the simulation saved.
        inner_state: the inner optimizer's state beside it.
        has_own_steps: whether each worker's inner optimizer takes steps of its own.

    Raises:
        ValueError: it was saved between two exchanges.
    """
    driver, training, shown = part["driver"], part["training"], part["workers"]
    if training["steps_taken"]:
        raise ValueError("state_dict: the simulation was saved between two exchanges; call exchange_steps() before")
    n = len(driver["workers"])
    identity = {key: part[key] for key in ("version", "algorithm", "local_steps", "seed", "dtype", "parameters")}
    counts = {"rounds": driver["rounds"], "aborted_rounds": driver["aborted_rounds"], "control_bytes": 0}
    models = shown["replicas"] or driver.get("pulled", [])
    parts: dict[int, Any] = {}
    for rank, worker in enumerate(driver["workers"]):
        leading: dict[str, Any] = {"servers": driver["servers"] if rank == 0 else []}
        if rank == 0 and "arrivals" in driver:
            leading["arrivals"] = driver["arrivals"]
        parts[rank] = {
            **identity, "rank": rank, "n_workers": n, "layout": f"simulated {part['layout']}",
            "driver": counts | {"worker": worker} | leading,
            "training": {**training, "values": models[rank] if models else None},
        } | ({"server_model": part["server_model"]} if rank == 0 and "server_model" in part else {})  # fmt: skip
        if has_own_steps:
            inner = {"state": shown["optimizers"][rank], "param_groups": inner_state["param_groups"]}
            parts[rank] = {**parts[rank], "inner": inner}
    return parts


def as_simulation(
    part: Saved, inner_state: Saved, own: Saved, n_nodes: int, buffers: Sequence[Tensor]
) -> dict[str, Any]:
    """Return the part of a simulation of as many workers as the ranks that a whole state was gathered from.

    Args:
        part: what the ranks saved.
        inner_state: the inner optimizer's state beside it.
        own: the simulation's identity.
        n_nodes: its number of nodes; their ports are free, and its clock begins at 0.
        buffers: the model's, from which all workers go on.

    Raises:
        ValueError: a rank is missing, the method is asynchronous, or it was saved between two exchanges.
    """
    saved = SavedJob(parts=parts_in(part))
    n, workers, leading = saved.n_workers, saved.workers, saved.leading
    if len(workers) != n:
        raise ValueError(
            f"state_dict: it has the part of rank {', '.join(map(str, workers))} of {n} alone; call opt.gather_state() "
            "on every rank before state_dict()"
        )
    if any("bound" in each["driver"] for each in saved.parts.values()):
        raise ValueError("state_dict: a simulation cannot go on with the state of asynchronous processes")
    trainings = [saved.parts[rank]["training"] for rank in range(n)]
    if any(training["steps_taken"] for training in trainings):
        raise ValueError("state_dict: it was saved between two exchanges; call opt.exchange_steps() before")
    states = [saved.parts[rank].get("inner", inner_state)["state"] for rank in range(n)]
    new = {
        **{key: leading[key] for key in own if key in leading}, "rank": None,
        "driver": {
            "rounds": leading["driver"]["rounds"], "aborted_rounds": leading["driver"]["aborted_rounds"],
            "network": {"now_ns": 0, "ports_ns": [[0] * n_nodes for _ in range(3)], "n_sent": []},
            "faults": [{} for _ in range(n)], "workers": [workers[rank] for rank in range(n)], "servers": saved.servers,
        },
        "training": {**trainings[0], "values": None, "non_finite": []},
        "workers": {
            "buffers": [list(buffers) for _ in range(n)], "losses": [math.nan] * n, "optimizers": states, "local": {},
            "replicas": [training["values"] for training in trainings if training["values"] is not None],
        },
    }  # fmt: skip
    server_model = saved.anywhere("server_model")
    return new if server_model is None else new | {"server_model": server_model}
