"""Rounds with one process per worker, over torch.distributed. Every rank runs this same code, in step."""

import multiprocessing.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import NoneType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.buffer_pool import VectorPool
from laconic.contract import Algorithm, Leaves, ModelSpec, Result
from laconic.drivers.distributed.agreement import Scalar, Settings, agree
from laconic.drivers.distributed.channel import Channel
from laconic.drivers.distributed.device_channel import are_distinct, gpu_of
from laconic.drivers.distributed.door import door
from laconic.drivers.distributed.meeting import Meeting, refusals_shown
from laconic.drivers.distributed.nodes import Node, Nodes, check_nodes, node_ranks
from laconic.drivers.distributed.parts import Kernels, Part
from laconic.drivers.distributed.shards import Shards
from laconic.drivers.gathered import Either
from laconic.drivers.saved_data import COUNTS, NUMBER, check_counts, check_meter, check_server, check_worker
from laconic.drivers.transport import carry_out
from laconic.protocol.abort import Abort
from laconic.protocol.async_server import UpdateCounts
from laconic.protocol.exchanges import RankSessions, abandon_round, run_rank
from laconic.protocol.job import Job
from laconic.protocol.layout import choose_layout
from laconic.protocol.magnitudes import residual_norm
from laconic.protocol.own_model import Descend
from laconic.protocol.participation import Participation
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import Leaving, RoundResult
from laconic.protocol.server import ServerSession
from laconic.telemetry.phases import Seconds
from laconic.telemetry.recorder import Recorder
from laconic.telemetry.traffic import TRAFFIC_SCHEMA, Traffic
from laconic.torch_compat import timeout_s_of

TOPIC = "optimizer"
"""Of the meeting at which the ranks agree, and to which a rank that refuses its arguments does not come."""
_MAX_TRAFFIC_BYTES, _MAX_READY_BYTES = 1 << 20, 64
_AT_EXIT_PRIORITY = 100  # before Python's own


class Processes:
    """This rank's part of the job: a worker session, a server session, or both."""

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        parameters: Tensor,
        spec: ModelSpec,
        group: dist.ProcessGroup | None = None,
        layout: str = "auto",
        seed: int = 0,
        timeout_s: float | None = None,
        descend: Descend | None = None,
        active: Active | None = None,
        clients_per_round: int | None = None,
        nodes: Nodes = None,
        shards: Shards | None = None,
        agreed: Settings | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        """Set up this rank. Collective: every rank of the group must construct it.

        The `parameters` (d,) are overwritten by rank 0's; `spec` says what they are, and `active` which of them take
        part in a round; by default all. With `clients_per_round`, so many workers send something in a round, chosen
        anew in each; the others get the answers. With `nodes`, the ranks of a node are one worker. With `shards`, the
        vector is one of several shards of a model, and each has a group of its own. `agreed` holds other settings that
        must be equal on all ranks. `timeout_s` is how long a rank is waited for, by default as long as `group` waits;
        however long it compiles `kernels`.

        Raises:
            ValueError: for a layout that the method does not admit, or one of the two that needs every worker.
            SetupError: if ranks differ in their settings, or another one refuses its own.
            PeerLostError: if a rank is missing.
        """
        timeout_s = timeout_s_of(group) if timeout_s is None else timeout_s
        meeting = Meeting.of_group(group, TOPIC)
        with refusals_shown(group, TOPIC):
            check_nodes(nodes, algorithm, layout, clients_per_round, meeting.size)
        ranks = node_ranks(nodes, meeting, door().purpose, timeout_s)
        with refusals_shown(group, TOPIC):
            n_nodes, at_once = meeting.size if ranks is None else ranks.n_nodes, clients_per_round is None
            self.layout = choose_layout(layout, algorithm, spec, n_nodes, at_once=at_once)
            algorithm.check_size(spec, self.layout.n_workers)
            participation = None
            if clients_per_round is not None:
                participation = Participation(workers=self.layout.n_workers, per_round=clients_per_round, seed=seed)
                participation.check(algorithm, self.layout)
            self.job = Job(
                algorithm=algorithm, seed=seed, spec=spec, dtype=parameters.dtype, layout=self.layout,
                device=parameters.device,
            )  # fmt: skip
        settings: dict[str, Scalar] = {
            "nodes": nodes, "algorithm": algorithm.name,
            **{f"{algorithm.name}/{key}": value for key, value in algorithm.settings().items()},
            "seed": seed, "layout": self.layout.name, "dtype": str(parameters.dtype), **(agreed or {}),
            "number of parameters": spec.d, "clients_per_round": clients_per_round,
        }  # fmt: skip
        gpu = gpu_of(parameters.device, group) or ""
        is_ready = kernels is None or kernels.is_done(self.layout)
        shown = agree(meeting, settings, door().purpose, timeout_s, {
            "device": parameters.device.type, "gpu": gpu, "kernels are ready": str(is_ready),
        })  # fmt: skip
        if any(each.get("kernels are ready") != "True" for each in shown):
            with nullcontext() if is_ready else meeting.not_hurried():
                if kernels is not None and not is_ready:
                    kernels.run(self.layout)
                meeting.gather(None, "to compile its kernels", NoneType, _MAX_READY_BYTES, timeout_s)
        self.channel = Channel(group, timeout_s, spec.stop)
        self.channel.control_bytes += meeting.control_bytes
        try:
            self.channel.broadcast(parameters)
        except BaseException:
            self.channel.close()
            raise
        self.shards = shards
        """The ranks that hold the other shards of this replica; None if the vector is the full model."""
        self.node: Node | None = None
        """The ranks of this machine that are one worker of the method; None if each rank is one."""
        if ranks is not None:
            world = dist.get_process_group_ranks(group or dist.group.WORLD)
            self.node = Node(ranks, world, self.channel.rank, timeout_s, spec.stop)
        steps_once = settings.get("local_steps", 1) == 1
        for channel in () if steps_once else self._channels:
            channel.unit = "round"
        self.pool = VectorPool(spec.d, parameters.dtype, parameters.device)
        parts = self._make_sessions(descend, active, participation)
        self.sessions = parts[0]
        self.worker, self.servers = self.sessions.worker, [server for part in parts for server in part.servers]
        self.allow_parts(parts, "values" if steps_once and self.job.answers_values else "nothing")
        self.rounds = 0
        self.aborted_rounds = 0
        self.replica_syncs = 0
        """Number of checks in which replicas that differed by rounding were put right."""
        self.may_wait = False
        """Whether a worker has to request admission before it computes."""
        self.seconds = Seconds()
        self.recorder = Recorder(
            [] if self.worker is None else [self.worker.meter],
            self.seconds,
            partial(residual_norm, [part.worker.me.memory for part in parts if part.worker is not None]),
            voting=self._counting_votes(),
            **({} if self.node is None else {"inside": partial(getattr, self.node, "sent")}),
        )
        if are_distinct([each.get("gpu") or None for each in shown]):
            self.send_from(self.job.device, "nccl")
        for channel in self._channels:
            self.end_at_exit(channel)

    def allow_parts(self, parts: Sequence[RankSessions], kind: Leaves) -> None:
        """Let results be left in packets of a kind, or where ranks of a node get them, of what those decode."""
        for part in parts:
            if self.node is not None:
                kind = "packed" if self.node.takes_parts(part.job) else "nothing"
            if part.worker is not None and self.job.device.type == "cpu":
                lenders = [server.scratch for server in part.servers if kind in ("values", "all")]
                part.worker.leaving = Leaving(kind=kind, lenders=lenders)

    def end_at_exit(self, channel: Channel) -> None:
        """End a connection when this object or the process ends."""
        # In processes that multiprocessing starts, `atexit` runs nothing.
        multiprocessing.util.Finalize(self, channel.end, exitpriority=_AT_EXIT_PRIORITY)

    def _make_sessions(
        self, descend: Descend | None, active: Active | None, participation: Participation | None
    ) -> Sequence[RankSessions]:
        """Return this rank's sessions, for each slice of the vector that has rounds of its own."""
        return [RankSessions(self.job, self.place, descend, pool=self.pool, active=active, participation=participation)]

    @property
    def _channels(self) -> list[Channel]:
        """This rank's connections."""
        others = () if self.node is None else self.node.channels
        return [self.channel, *others, *(() if self.shards is None else (self.shards.channel,))]

    @property
    def between(self) -> Channel | None:
        """What carries the method's exchanges; None on a rank that gets the results from another one of its node."""
        return self.channel if self.node is None else self.node.between

    @property
    def place(self) -> int:
        """This rank's node of the layout; -1 if it has none."""
        between = self.between
        return -1 if between is None else between.rank

    @property
    def training_ranks(self) -> list[int]:
        """The ranks that train, all but a dedicated server."""
        return list(range(self.channel.size)) if self.node is not None else sorted(self.layout.rank_at)

    @property
    def own_worker_rank(self) -> int | None:
        """The worker that this rank computes for, alone or with others of its node; None if it only serves."""
        return self.node.number if self.node is not None else self.layout.rank_at.get(self.channel.rank)

    def _counting_votes(self) -> Sequence[ServerSession]:
        """Return the servers whose counts add up to those of all votes; of equal ones rank 0's alone."""
        counts = not self.job.algorithm.is_asynchronous and (self.layout.has_server or self.channel.rank == 0)
        return self.servers if counts else ()

    @property
    def _own_worker(self) -> Part:
        """What has the state of this rank's worker."""
        assert self.worker is not None
        return self.worker

    @property
    def causes(self) -> list[int]:
        """The rank of this process's worker, if its own numbers abort the last round."""
        return [self.worker.rank] if self.worker is not None and self.worker.is_cause else []

    def check_results(self, fits: Callable[[Result, Tensor], bool], largest: float) -> None:
        """Abort every round whose result does not fit the parameters, or whose answers have numbers above `largest`."""
        if self.worker is not None:
            self.worker.fits, self.worker.leaving = fits, Leaving()
        for server in self.servers:
            server.magnitudes.largest = largest

    @property
    def speaks(self) -> bool:
        """Whether this process is the one that tells users what concerns all ranks."""
        return self.channel.rank == 0 and (self.shards is None or self.shards.number == 0)

    @property
    def rests(self) -> bool:
        """Whether this rank's worker sends nothing in the next round: others are chosen."""
        participation, worker = self.sessions.participation, self.worker
        if participation is None or worker is None:
            return False
        return worker.rank in participation.absent_in(self.rounds)

    def request_admission(self) -> Tensor | None:
        """Wait until this worker may compute. Returns the parameters (d,) if they have changed, else None."""
        return None

    @property
    def updates(self) -> UpdateCounts | None:
        """What became of all workers' gradients, at the server of an asynchronous method; None elsewhere."""
        return None

    def take(self, values: Tensor) -> None:
        """Go on from parameters (d,) that the server's model was given: a server in rounds answers with that model."""

    def saved(self) -> dict[str, Any]:
        """Return this rank's state between two rounds."""
        return {
            "rounds": self.rounds, "aborted_rounds": self.aborted_rounds,
            "control_bytes": self.channel.control_bytes, "replica_syncs": self.replica_syncs,
            "worker": None if self.worker is None else self._own_worker.saved(),
            "servers": [session.saved() for session in self.servers],
            "served": self.sessions.meter.saved() if self.worker is None else None,
        }  # fmt: skip

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError if a saved state does not fit the method's slots."""
        check_counts(saved, COUNTS | {"control_bytes": NUMBER})
        if self.worker is not None:
            check_worker(saved["worker"])
            self._own_worker.check(saved["worker"])
        check_meter(saved.get("served"))
        for server in saved["servers"]:
            check_server(server)
        for session in self.servers:
            session.check(saved["servers"])

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from the state that this rank saved."""
        self.rounds, self.aborted_rounds = saved["rounds"], saved["aborted_rounds"]
        self.replica_syncs = saved.get("replica_syncs", 0)
        self.channel.rounds = self.rounds
        self.channel.control_bytes += saved["control_bytes"]  # the restart has sent some too
        if self.worker is not None:
            self._own_worker.restore(saved["worker"])
        elif saved.get("served") is not None:
            self.sessions.meter.restore(saved["served"])
        for session in self.servers:
            session.restore(saved["servers"])
        self.recorder.restart()

    def close(self) -> None:
        """Leave the groups, with their threads and descriptors. Not collective."""
        for channel in self._channels:
            channel.close()

    def send_from(self, device: torch.device, engine: str) -> None:
        """Send payloads and vectors to be summed directly from the memory of `device` from now on. Collective.

        Args:
            device: where they are.
            engine: name of the backend in torch.distributed that sends them.

        Raises:
            PeerLostError: if a rank is lost.
        """
        for channel in self._channels:
            channel.open_device_channel(device, engine)
        if self.worker is not None:
            self.worker.payload_device = device

    def round(self, inputs_of: Callable[[int], Inputs], lr: float) -> RoundResult:
        """Run one round. Collective.

        Args:
            inputs_of: called once with this worker's rank; not called on a rank that only serves, or rests.
            lr: learning rate of this round.

        Returns:
            This worker's result.

        Raises:
            PeerLostError: if a rank is missing. The round then has no effect on this rank, as after any other error.
        """
        between = self.channel if self.node is None else self.node.between
        if between is None:
            return self._follow(inputs_of)
        worker = self.worker
        is_idle = worker is None or (self.sessions.participation is not None and self.rests)
        inputs = None if worker is None or is_idle else inputs_of(worker.rank)
        self.seconds.phase("compute")
        if inputs is not None and inputs.gradient_at is not None:
            inputs.gradient_at = self.seconds.computing(inputs.gradient_at)
        try:
            verdict = None if self.shards is None else self.shards.verdict
            result = carry_out(run_rank(self.sessions, self.rounds, inputs, lr, self.seconds.phase, verdict), between)
            if self.node is not None:
                result = self.node.share([result], [self.job], self.rounds)[0].in_vectors()
        except BaseException as error:
            abandon_round([] if self.worker is None else [self.worker], self.servers)
            self.give_up(error)
            raise
        self._count_round(result.aborted)
        return result

    def _follow(self, inputs_of: Callable[[int], Inputs]) -> RoundResult:
        """Take part in a round in which another rank of this node exchanges for it. Returns that one's result."""
        assert self.node is not None, "each rank exchanges by itself"
        try:
            inputs_of(self.node.number)  # which may take a local step
            self.seconds.phase("compute")
            (result,) = self.node.share(None, [self.job], self.rounds)
            result = result.in_vectors()
        except BaseException as error:
            self.give_up(error)
            raise
        self.seconds.phase("wait")
        self._count_round(result.aborted)
        return result

    def give_up(self, error: BaseException) -> None:
        """Let no rank wait for this one on any connection, after an error on one of several."""
        if len(self._channels) > 1:
            for channel in self._channels:
                channel.give_up(error, f"in round {self.rounds}")

    def _count_round(self, aborted: Abort) -> None:
        if aborted is Abort.SET_DIFFERS:  # the ranks repeat that round
            return
        if self.recorder.observers:
            self.recorder.round_ended(self.rounds, aborted=bool(aborted))
        self.rounds += 1
        for channel in self._channels:
            channel.rounds = self.rounds
        self.aborted_rounds += bool(aborted)

    @property
    def traffic(self) -> Traffic:
        """This rank's counters."""
        control = self.channel.control_bytes + (0 if self.shards is None else self.shards.channel.control_bytes)
        traffic = Traffic.of(self.sessions.meter, self.rounds, self.aborted_rounds, self.seconds.sums(), control)
        if self.node is not None:
            traffic = replace(traffic, inside=self.node.sent)
        if self.replica_syncs:
            traffic = replace(traffic, replica_syncs=self.replica_syncs)
        updates = self.updates
        return traffic if updates is None else replace(traffic, staleness=updates.staleness, updates=updates.updates)

    def total_traffic(self, mine: Traffic | None) -> Traffic:
        """Return the sum of all ranks' counters; `mine` is None on a rank that counts nothing. Collective.

        Raises:
            PeerLostError: if a rank is missing.
            WireError: for counters of another form, naming the rank.
        """
        gathered = self.channel.gather(
            None if mine is None else mine.as_data(), f"total_traffic() after round {self.rounds}",
            Either(NoneType, TRAFFIC_SCHEMA), _MAX_TRAFFIC_BYTES,
        )  # fmt: skip
        one, *others = [Traffic.from_data(counters) for counters in gathered if counters is not None]
        total = sum(others, one)
        return total if self.shards is None else self.shards.total(total, self.rounds)
