"""Times of message schedules, simulated and by their closed forms.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, 2020, chapters 1, 3, 4 and 5. l is the latency, t the
time of the full vector; a unit of time is a second. "Differences" are those of a simulation from the closed form, the
largest over 2 to 16 workers.
"""

from laconic.lab.processes.pool import Reporter
from laconic.network import (
    PATTERNS,
    Link,
    Message,
    MessageSchedule,
    Network,
    closed_form_s,
    example_1_3_1,
    example_1_3_4,
    makespan_ns,
    simulate,
)
from laconic.network import sharded as sharded_messages
from laconic.protocol.async_timing import AsyncServer, sync_iteration_s

_MB = 1_000_000
_L, _T = 1.5, 5.0
_SLOW = Link(bytes_per_s=_MB / _T, latency_s=_L)
_N_BYTES = 720_720  # which 2 to 16 divide
_S = 1e9


def three_messages(report: Reporter) -> dict[str, float]:
    """Return the units of Example 1.3.1, in both of its readings."""
    return {
        "third message to M1": _units(example_1_3_1(_MB, 0), 3) - 5,
        "third message to M2": _units(example_1_3_1(_MB, 1), 3) - 5,
    }


def three_compressed_messages(report: Reporter) -> dict[str, float]:
    """Return the units of Example 1.3.2, half the bytes, and the speed-up."""
    before, after = (_units(example_1_3_1(n_bytes, 0), 3) - 5 for n_bytes in (_MB, _MB // 2))
    return {"units": after, "speed-up": before / after}


def single_server(report: Reporter) -> dict[str, float]:
    """Return the rounds of one server: Figure 1.6."""
    return {
        "three workers, over l + t": closed_form_s("single-server", 3, _L, _T) / (_L + _T),
        "differences": _largest_difference("single-server"),
    }


def ring(report: Reporter) -> dict[str, float]:
    """Return the ring all-reduce: Example 1.3.3 and Figure 1.7, a ring of four."""
    return {**_coefficients("ring"), "steps": makespan_ns(_of("ring", 4), Network(4, _SLOW)) / _S / (_L + _T / 4)}


def ring_unpartitioned(report: Reporter) -> dict[str, float]:
    """Return the ring without partitions, four machines."""
    return {
        "over l + t": closed_form_s("ring-unpartitioned", 4, _L, _T) / (_L + _T),
        "differences": _largest_difference("ring-unpartitioned"),
    }


def sharded(report: Reporter) -> dict[str, float]:
    """Return Example 1.3.4: four machines that each serve a partition, as published."""
    return {**_coefficients("sharded"), "slots": _units(example_1_3_4(_MB), 4) / (_L + _T / 4)}


def three_implementations(report: Reporter) -> dict[str, float]:
    """Return section 2.1.2: gradients up or models, four machines that each serve a partition. t_m = 2 t_g."""
    gradient, model, n = _N_BYTES, 2 * _N_BYTES, 4
    sent = {"gradients": (gradient, gradient), "models": (model, model), "global replica": (gradient, model)}
    found: dict[str, float] = {}
    for name, (up, down) in sent.items():
        spans = [
            makespan_ns(sharded_messages(n, up, n_bytes_down=down), Network(n, link)) / _S
            for link in (Link(latency_s=_L), Link(bytes_per_s=gradient / _T))
        ]
        found[f"{name}, l"] = spans[0] / _L
        found[f"{name}, t_g"] = spans[1] / _T / ((n - 1) / n)
    return found


def resnet152(report: Reporter) -> dict[str, float]:
    """Return the opening of chapter 3: ResNet-152 on 16 GPUs of 10 TFLOPS, 256 images, 40 Gbit/s."""
    link = 40e9
    return {
        "seconds of computing": 256 * 3 * 11e9 / (16 * 10e12),
        "seconds of communication": 2 * 230e6 * 8 / link,
        "gain with 8 bits": 32 / 8,
    }


def compressed_ring(report: Reporter) -> dict[str, float]:
    """Return Figures 3.4 and 3.5: what halving the bytes saves of the time of the vector on a ring of four."""
    spans = [makespan_ns(_of("ring", 4, n_bytes), Network(4, _SLOW)) / _S for n_bytes in (_MB, _MB // 2)]
    return {"saved, over t (1 - 1/K) (n-1)/n": (spans[0] - spans[1]) / (_T * (1 - 1 / 2) * 3 / 4)}


_UPDATES = (
    (10, 0, 0), (13, 1, 1), (20, 0, 1), (23, 1, 1), (30, 0, 1), (33, 2, 5), (36, 1, 2), (40, 0, 2), (46, 1, 1),
    (50, 0, 1), (56, 1, 1), (59, 2, 5),
)  # fmt: skip
"""(time, worker, staleness) by hand, for l = 1, t = 2 and gradients of 4, 4 and 20 units."""


def servers_with_and_without_rounds(report: Reporter) -> dict[str, float]:
    """Return Figures 4.1 and 4.2: a slow worker with rounds, and the updates and their staleness without."""
    compute_s = (4, 4, 20)
    network = Network(4, Link(bytes_per_s=_MB / 2, latency_s=1.0))
    server = AsyncServer(
        network, 3, compute_ns=lambda worker, step: compute_s[worker] * 10**9,
        download_bytes=lambda worker: _MB, upload_bytes=lambda worker: _MB,
    )  # fmt: skip
    updates = [(one.time_ns / _S, one.worker, one.staleness) for one in server.run(len(_UPDATES))]
    return {
        "units of a round": sync_iteration_s(3, 1.0, 2.0, 20.0),
        "updates as by hand": sum(one == other for one, other in zip(updates, _UPDATES, strict=True)),
        "highest staleness": max(staleness for _, _, staleness in updates),
    }


def ring_and_gossip(report: Reporter) -> dict[str, float]:
    """Return Figures 5.2 and 5.3: ring all-reduce and gossip with two neighbors."""
    gossip = [closed_form_s("gossip-ring", n, _L, _T) / (_L + _T) for n in (4, 16)]
    return {
        "all-reduce, differences": _largest_difference("ring"),
        "gossip, differences": _largest_difference("gossip-ring"),
        "gossip of 4, over l + t": gossip[0],
        "gossip of 16, over l + t": gossip[1],
    }


def communication_costs(report: Reporter) -> dict[str, float]:
    """Return the costs of Table 1.1, counted: what a worker's port carries, for 2 to 64 workers."""
    found = dict.fromkeys(("messages of a worker, differences from 2(N-1)", "vectors, differences from 2(N-1)/N"), 0.0)
    messages, vectors = found
    for n in range(2, 65):
        messages_of_all = _of("ring", n, n * 1000)
        own = [step for step in messages_of_all if isinstance(step, Message) and step.sender == 0]
        found[messages] = max(found[messages], abs(len(own) - 2 * (n - 1)))
        found[vectors] = max(found[vectors], abs(sum(step.n_bytes for step in own) / (n * 1000) - 2 * (n - 1) / n))
    return found


def _of(pattern: str, n_workers: int, n_bytes: int = _MB) -> MessageSchedule:
    return PATTERNS[pattern].message_schedule(n_workers, n_bytes)


def _units(messages: MessageSchedule, n_nodes: int) -> float:
    """Return when the last message ends, in units."""
    return float(simulate(messages, Network(n_nodes, _SLOW)).end_ns.max()) / _S


def _coefficients(pattern: str) -> dict[str, float]:
    """Return the factors of l and of t (n-1)/n in the simulated time of four machines."""
    spans = [
        makespan_ns(_of(pattern, 4, _N_BYTES), Network(4, link)) / _S
        for link in (Link(latency_s=_L), Link(bytes_per_s=_N_BYTES / _T))
    ]
    return {"factor of l": spans[0] / _L, "factor of t (n-1)/n": spans[1] / _T / (3 / 4)}


def _largest_difference(pattern: str) -> float:
    """Return the largest difference of a simulation from the closed form, in units, for 2 to 16 workers."""
    link = Link(bytes_per_s=_N_BYTES / _T, latency_s=_L)
    return max(
        abs(
            makespan_ns(_of(pattern, n, _N_BYTES), Network(n + PATTERNS[pattern].has_server, link)) / _S
            - closed_form_s(pattern, n, _L, _T)
        )
        for n in range(2, 17)
    )
