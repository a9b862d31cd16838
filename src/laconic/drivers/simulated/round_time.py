"""The virtual time of rounds on one network: when workers have their gradients, and when they have the answers."""

from collections.abc import Callable, Sequence

from laconic.drivers.simulated.lock_step import Exchanged
from laconic.faults.injector import FaultInjector
from laconic.network import Clock, ComputeTime, Link, Network, Operation, makespan_ns
from laconic.protocol.legs import operations
from laconic.protocol.worker import WorkerSession


class RoundTime:
    """One clock, and the network whose time it shows. Rounds that are trained once can be timed by several."""

    def __init__(self, network: Network, compute_time: ComputeTime, seed: int) -> None:
        """Begin where the network's clock stands.

        Args:
            network: The network, with its clock.
            compute_time: The time of one gradient.
            seed: The seed of the run.
        """
        self.network, self._compute_time, self._seed = network, compute_time, seed
        self._ready_ns: dict[int, int] = {}  # by worker, how much longer than the fastest it computes; empty for 0

    @classmethod
    def on(cls, n_nodes: int, link: Link, compute_s: float, seed: int) -> "RoundTime":
        """Return the time on a network whose nodes all have this link, from 0 on."""
        return cls(Network(n_nodes, link, Clock()), ComputeTime(seconds=compute_s), seed)

    @property
    def clock(self) -> Clock:
        """The clock."""
        return self.network.clock

    def compute(self, ranks: Sequence[int], round_: int, factor_of: Callable[[int, int], float] | None) -> None:
        """Run the clock until the fastest worker has its gradient, and record how much longer the others take.

        Args:
            ranks: The workers that are up.
            round_: The number of the round.
            factor_of: Returns how many times as long as usual a worker computes in a round; None for 1.
        """
        if factor_of is None and self._compute_time.is_equal:
            self._ready_ns = {}
            self.clock.run(self.clock.now_ns + self._compute_time.ns(0, round_, seed=self._seed))
            return
        usual_ns = {rank: self._compute_time.ns(rank, round_, seed=self._seed) for rank in ranks}
        times_ns = {rank: round(usual_ns[rank] * (factor_of(rank, round_) if factor_of else 1.0)) for rank in ranks}
        fastest_ns = min(times_ns.values(), default=self._compute_time.ns(0, round_, seed=self._seed))
        self._ready_ns = {rank: time_ns - fastest_ns for rank, time_ns in times_ns.items()}
        self.clock.run(self.clock.now_ns + fastest_ns)

    def carry_out(self, listed: Sequence[Operation]) -> None:
        """Run the clock until these messages and computations are over. A recording keeps when each was."""
        makespan_ns(listed, self.network)

    def exchange(self, exchanged: Exchanged, present: Sequence[WorkerSession], injector: FaultInjector) -> None:
        """Run the clock until all workers have the answers; then send the late packets."""
        pattern = exchanged.pattern
        ready_ns = {worker.node: self._ready_ns[worker.rank] for worker in present} if self._ready_ns else {}
        self._ready_ns = {}  # the next exchange starts on all workers at once
        all_ready_ns = self.clock.now_ns + max(ready_ns.values(), default=0)
        if pattern.starts_together:
            self.clock.run(all_ready_ns)
            ready_ns = {}
        if not self.network.is_instant:
            nodes = {worker.node: worker.rank for worker in present}
            copies = {node: n for node, rank in nodes.items() if (n := injector.n_copies(rank)) != 1}
            lost = [node for node, rank in nodes.items() if not injector.is_awaited(rank)]
            listed = operations(
                pattern, exchanged.up, exchanged.down, ready_ns=ready_ns, n_copies=copies, not_awaited=lost
            )
            self.carry_out(listed)
        self.clock.run(max(all_ready_ns, self.clock.now_ns))
        late = {worker.node for worker in present if injector.is_late(worker.rank)} if injector.expected else set()
        for leg in pattern.uploads if late else ():
            if leg.sender in late:
                self.network.send(leg.sender, leg.receiver, exchanged.up[leg.sender][leg.shard], lambda: None)
