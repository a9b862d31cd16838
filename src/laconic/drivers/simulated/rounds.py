"""Rounds with all workers in this process, on a virtual clock; every byte that real processes would send is counted.

`lock_step.py` runs the exchanges; frames are encoded, or only their sizes are computed, as the argument `frames` says.

Each round starts on every worker at the same virtual time, when the last worker has its answer (the papers' barrier).
A worker computes for `compute_s`, then its frames queue for its send port and for the servers' receive ports
(`network/network.py`). Encoding and decoding cost no virtual time.

With a fault plan, a server knows at once which packets will not arrive, and answers when it has the others: the time
includes no deadlines. Lost packets occupy ports like others. A late packet is sent when the answers have arrived, and
delays later messages. Parameters for a worker that returns are counted and take no time, like the initial ones.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool
from laconic.contract import Algorithm, ModelSpec, Result, Scratch, Side
from laconic.drivers.saved_data import NUMBER, check_counts, check_data, check_server, check_worker
from laconic.drivers.simulated.lock_step import Exchanged, LockStep
from laconic.drivers.simulated.round_time import RoundTime
from laconic.errors import ContractError
from laconic.faults.injector import FaultInjector, slowed
from laconic.faults.plan import FaultPlan
from laconic.network import Clock, ComputeTime, Link, Network, Sites
from laconic.protocol.abort import Abort
from laconic.protocol.async_server import UpdateCounts
from laconic.protocol.exchanges import abandon_round
from laconic.protocol.job import Job
from laconic.protocol.layout import choose_layout, n_nodes_for
from laconic.protocol.legs import Answering
from laconic.protocol.magnitudes import residual_norm
from laconic.protocol.own_model import Descend
from laconic.protocol.participation import Participation
from laconic.protocol.resize import distinct, resized
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import RoundResult, by_rank, same_result
from laconic.protocol.server import ServerSession
from laconic.protocol.worker import WorkerSession
from laconic.telemetry.recorder import Recorder
from laconic.wire import HEADER_BYTES

NETWORK = {"now_ns": NUMBER, "ports_ns": ([NUMBER], [NUMBER], [NUMBER]), "n_sent": [(NUMBER, NUMBER, NUMBER)]}
"""What the saved state of a network must fit."""
_CPU = torch.device("cpu")
Frames = Literal["auto", "sized", "encoded"]


class Simulated:
    """N workers and their servers. Deterministic: one seed gives the same bytes and the same nanoseconds."""

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        spec: ModelSpec,
        n_workers: int,
        dtype: torch.dtype = torch.float32,
        layout: str = "auto",
        seed: int = 0,
        device: torch.device | None = None,
        link: Link | None = None,
        links: Mapping[int, Link] | None = None,
        sites: Sites | None = None,
        compute_s: float | Mapping[int, float] | ComputeTime = 0.0,
        descend: Descend | None = None,
        active: Active | None = None,
        delivery_seed: int | None = None,
        faults: FaultPlan | None = None,
        frames: Frames = "auto",
        sparse_results: bool = False,
        clients_per_round: int | None = None,
    ) -> None:
        """Set up the workers and their servers for the parameters that `spec` describes.

        `device` is where the workers' vectors are, by default the CPU.
        `link` is that of every node, and `links` holds exceptions by node. `sites` says where the nodes are, by
        default all at one place. `compute_s` is the time of one gradient, in seconds: for all workers, by
        worker, or as a distribution. `descend` steps the server's own model. `active` says which parameters
        take part in a round; by default all do. With `sparse_results`, a result that the method returns as a
        sparse packet stays one. With `delivery_seed`, the server receives frames in a random order; no bit may
        depend on it. With `frames="encoded"`, frames are encoded and decoded as between processes; with "sized",
        only their sizes are computed, with the same result; "auto" does the latter where no fault and no order of
        delivery asks for the former. Frames that workers send to each other are encoded with any fault plan.
        With `clients_per_round`, so many workers take part in a round, chosen anew in each; the others do nothing.

        Raises:
            ValueError: for a wrong number of workers, layout, compute time or `frames`, or faults that the method does
                not tolerate.
        """
        if n_workers < 1:
            raise ValueError(f"workers={n_workers} must be at least 1")
        if isinstance(compute_s, (int, float)) and not 0 <= compute_s < float("inf"):
            raise ValueError(f"compute_s={compute_s} must be at least 0 and finite (200 ms is 0.2)")
        self.compute_time = compute_s if isinstance(compute_s, ComputeTime) else ComputeTime(seconds=compute_s)
        self.compute_time.check(n_workers)
        n_nodes = n_nodes_for(layout, algorithm, n_workers)
        algorithm.check_size(spec, n_workers)
        at_once = clients_per_round is None and faults is None
        self.layout = choose_layout(layout, algorithm, spec, n_nodes, at_once=at_once)
        if faults is not None:
            faults.check(algorithm, self.layout, n_workers, spec)
            links = slowed(faults, link or Link(), links, self.layout.worker_nodes)
            if faults.is_slowing and not compute_s:
                raise ValueError("faults: stragglers need a time of computing; give one, such as 50ms")
        participation = None
        if clients_per_round is not None:
            participation = Participation(workers=n_workers, per_round=clients_per_round, seed=seed)
            participation.check(algorithm, self.layout)
        self.job = Job(
            algorithm=algorithm, seed=seed, spec=spec, dtype=dtype, layout=self.layout, device=device or _CPU
        )
        self.pool = pool = VectorPool(spec.d, dtype, self.job.device)
        self.workers = [
            WorkerSession(self.job, rank, pool, active=active, sparse_results=sparse_results)
            for rank in range(n_workers)
        ]
        self.frames = _frames_of(frames, faults, delivery_seed)
        # Without servers, one computes what each worker would. Without slices, one serves all.
        n_servers = 1 if self.frames == "sized" else len(self.layout.shards) or 1
        self.servers = [
            ServerSession(self.job, index, descend, active=active, unsplit=n_servers == 1) for index in range(n_servers)
        ]
        self._scratch = Scratch(pool)  # for the dense answers that workers share
        self.clock = Clock()
        self.network = Network(n_nodes, link or Link(), self.clock, links, sites=sites)
        self.rounds = 0
        self.aborted_rounds = 0
        self.injector = FaultInjector(faults, n_workers, participation)
        if clients_per_round is not None:
            for each in self.servers:
                each.n_expected = clients_per_round
        self._took_part: list[WorkerSession] = []  # in the last round
        self._no_vector = self.job.zeros(0)
        self.times = [RoundTime(self.network, self.compute_time, seed)]
        """The time on this network, and on others that the same rounds are timed on."""
        self.pulled: list[Tensor] = []
        """By worker, the parameters (d,) that an asynchronous server has sent to it; empty with other methods."""
        self.recorder = Recorder(
            [each.meter for each in self.workers],
            residual_norm=partial(residual_norm, [worker.me.memory for worker in self.workers]),
            voting=() if algorithm.is_asynchronous else self.servers,
        )
        self.lock_step = LockStep(
            self.job, self.servers, self.injector, unsplit=self.frames == "sized", scratch=self._scratch,
            delivery=None if delivery_seed is None else Random(delivery_seed),
        )  # fmt: skip

    def time_on(self, link: Link, compute_s: float) -> Network:
        """Time the rounds on another network too, whose nodes all have this link, and return it, with its clock.

        No method may look at the network then: a policy that measures links would see that of this simulation. It is
        no part of what `saved` returns.
        """
        self.times.append(RoundTime.on(self.network.n_nodes, link, compute_s, self.job.seed))
        return self.times[-1].network

    def round(self, inputs_of: Callable[[int], Inputs], lr: float) -> RoundResult:
        """Run one round.

        Args:
            inputs_of: called once with the rank of each worker that is up, in rank order.
            lr: learning rate of this round.

        Returns:
            Each worker's result. If replicas stay equal, it is one object for all, also for workers that are down.
        """
        try:
            return self._round(inputs_of, lr)
        except BaseException:
            abandon_round(self.workers, self.servers)
            raise

    def _round(self, inputs_of: Callable[[int], Inputs], lr: float) -> RoundResult:
        present = self.injector.taking_part(self.workers, self.rounds)
        self._release(present)
        for worker in present:
            inputs = inputs_of(worker.rank)
            if not isinstance(inputs.vector, Tensor):
                self.reclaim(inputs.vector.reads)
            worker.begin(self.rounds, inputs, lr)
        plan = self.injector.plan
        for time in self.times:
            ranks = [worker.rank for worker in present]
            time.compute(ranks, self.rounds, plan.compute_factor if plan.is_slowing else None)
        results: list[Result] = []
        exchanges = self.job.exchanges_in(self.rounds) if present else ()
        agrees = self.layout.has_graph  # at the end of the round: until then an aborted one goes on
        for number in range(len(exchanges)):
            exchanged = self.lock_step.exchange(present, self.rounds, number, lr)
            for time in self.times:
                time.exchange(exchanged, present, self.injector)
            self._measure_links(exchanged, present)
            self._count_served(exchanged, exchanges[number].exchange.name)
            waits = agrees and any(worker.aborted or worker.magnitudes.are_large for worker in present)
            for worker in present:
                exchanged.receive(worker)
                if not waits and (worker.aborted or worker.result is not None):
                    self._close(worker, results)
            if present[0].aborted and not agrees:
                break
        aborted = max((worker.aborted for worker in present), default=Abort.ABSENCE)
        for worker in present:
            if not worker.is_closed:  # all agree; and a single worker on a ring has no peer
                worker.aborted = aborted
                self._close(worker, results)
        for server in self.servers:
            server.close(not aborted)
        held = [value for worker in self.workers for value in worker.scratch.foreign]
        self._scratch.end_round(held, [result for result in results if isinstance(result, Tensor)])
        if self.recorder.observers:
            self.recorder.round_ended(self.rounds, aborted=bool(aborted))
        self.rounds += 1
        self.aborted_rounds += aborted is Abort.NON_FINITE
        return RoundResult(aborted=aborted, results=by_rank(results, len(self.workers)))

    def _release(self, present: list[WorkerSession]) -> None:
        """Free the vectors of workers that took part in the last round and do not now; their memories stay."""
        if present is self._took_part:
            return
        ranks = {worker.rank for worker in present}
        resting = [worker for worker in self._took_part if worker.rank not in ranks]
        self._took_part = present
        for worker in resting:
            worker.result, worker.me.gradient = None, self._no_vector
            worker.scratch.reclaim()

    @property
    def causes(self) -> list[int]:
        """Ranks of the workers whose own numbers abort the last round."""
        return [worker.rank for worker in self.workers if worker.is_cause]

    def check_results(self, fits: Callable[[Result, Tensor], bool], largest: float) -> None:
        """Abort every round whose result does not fit the parameters, or whose answers have numbers above `largest`."""
        for worker in self.workers:
            worker.fits = fits
        for server in self.servers:
            server.magnitudes.largest = largest

    speaks = True
    """Whether this process is the one that tells users what concerns all ranks."""

    def updates_of(self, rank: int) -> UpdateCounts | None:
        """Return what became of worker `rank`'s gradients; None if the method is not asynchronous."""
        return None

    def reclaim(self, in_use: Sequence[Tensor] = ()) -> None:
        """Reuse the vectors of earlier results, except those that share memory with a tensor that is in use."""
        self._scratch.reclaim(in_use)

    def take(self, values: Tensor) -> None:
        """Go on from parameters (d,) that the server's model was given: a server in rounds answers with that model."""

    def saved(self) -> dict[str, Any]:
        """Return the state between two rounds: the sessions, the network's times and the counts."""
        return {
            "rounds": self.rounds, "aborted_rounds": self.aborted_rounds, "network": self.network.saved(),
            "faults": self.injector.saved(), "workers": [worker.saved() for worker in self.workers],
            "servers": [server.saved() for server in self.servers],
        }  # fmt: skip

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError if a saved state does not fit the method's slots."""
        check_counts(saved)
        check_data("the network", saved["network"], NETWORK)
        n_ports = {len(times_ns) for times_ns in saved["network"]["ports_ns"]}
        if len(n_ports) != 1 or 0 in n_ports:
            raise ValueError("state_dict: the network's ports are not those of one number of nodes")
        check_data("the faults", saved["faults"], [{str: NUMBER}])
        if len(saved["faults"]) != len(saved["workers"]):
            raise ValueError("state_dict: the faults are those of another number of workers")
        for worker_state in saved["workers"]:
            check_worker(worker_state)
        for server_state in saved["servers"]:
            check_server(server_state)
        workers, servers = self._fitted(saved)
        for worker, state in zip(self.workers, workers, strict=True):
            worker.check(state)
        for server in self.servers:
            server.check(servers)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from a saved state, before the first round. It may be of another number of workers or servers."""
        workers, servers = self._fitted(saved)
        self.network.restore(saved["network"])
        self.injector.restore(saved["faults"])
        for worker, state in zip(self.workers, workers, strict=True):
            worker.restore(state)
        for server in self.servers:
            server.restore(servers)
        self.rounds, self.aborted_rounds = saved["rounds"], saved["aborted_rounds"]
        self.recorder.restart()

    def _fitted(self, saved: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        workers = saved["workers"]
        return resized(dict(enumerate(workers)), len(workers), distinct(saved["servers"]), self.job)

    def _close(self, worker: WorkerSession, results: list[Result]) -> None:
        """End the round for one worker at once, so that N workers' temporaries never exist together."""
        if not worker.close():
            return
        result = worker.result
        assert result is not None
        if not results or not self.job.algorithm.replicas_equal:
            results.append(result)
        elif result is results[0]:
            return
        elif not same_result(result, results[0]):
            raise ContractError(
                f"{self.job.algorithm.name} claims equal replicas, but worker {worker.rank} returned other values "
                f"than worker 0 in round {self.rounds}"
            )
        elif isinstance(results[0], Tensor):
            own = worker.result = results[0]  # its own vector is reused
            worker.scratch.reclaim([own])

    def _count_served(self, exchanged: Exchanged, exchange: str) -> None:
        """Count what crosses a worker's link because a server is on its node, too."""
        for worker in self.workers:
            served = exchanged.served_by(worker.node)
            if served is not None:
                worker.meter.serve(*served, exchange)

    def _measure_links(self, exchanged: Exchanged, present: list[WorkerSession]) -> None:
        """Set the bandwidth that each side would measure: bytes over the time its frames were sent, without queues.

        If one server stands for several, it measures nothing: separable methods do not use the servers' links.
        """
        pattern, up, down = exchanged.pattern, exchanged.up, exchanged.down
        if self.network.is_instant or pattern.answering not in (Answering.SERVERS, Answering.EVERY_WORKER):
            return
        for worker in present:
            legs = pattern.ends[worker.node].uploads
            self._measured(worker.me, worker.node, [(leg.receiver, up[worker.node][leg.shard]) for leg in legs])
        if len(self.servers) != len(pattern.servers):
            return
        for server, node in zip(self.servers, pattern.servers, strict=True):
            legs = [leg for leg in pattern.ends[node].downloads if leg.receiver in up]
            self._measured(server.view, node, [(leg.receiver, down[leg.shard]) for leg in legs])

    def _measured(self, side: Side, sender: int, frames: list[tuple[int, int]]) -> None:
        """Set the bandwidth of the slowest of the `frames` (receiver, bytes) that one side sent; all wait for that."""
        bandwidths = []
        for receiver, n_bytes in frames:
            if n_bytes > HEADER_BYTES:  # a control frame is too short to measure
                duration_ns = self.network.link_between(sender, receiver).duration_ns(n_bytes)
                if duration_ns:
                    bandwidths.append(n_bytes * 1e9 / duration_ns)
        if bandwidths:
            side.link_bytes_per_s = min(bandwidths)


def _frames_of(frames: Frames, faults: FaultPlan | None, delivery_seed: int | None) -> Literal["sized", "encoded"]:
    if frames not in get_args(Frames):
        raise ValueError(f"frames={frames!r} must be one of {', '.join(get_args(Frames))}")
    needed = (faults is not None and faults.flips_bits) or delivery_seed is not None
    if frames == "sized" and needed:
        raise ValueError(
            "frames='sized': a fault plan that corrupts packets, or a delivery_seed, needs frames that are encoded; "
            "use frames='auto' or 'encoded'"
        )
    return "encoded" if needed or frames == "encoded" else "sized"
