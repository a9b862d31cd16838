"""Applies a fault plan in the simulator: which workers are down, what happens to each packet, and the counts."""

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import Tensor

from laconic.faults.plan import Fate, FaultPlan
from laconic.network import Link
from laconic.protocol.participation import Participation
from laconic.protocol.worker import WorkerSession
from laconic.telemetry.meter import FrameSizes
from laconic.wire import Encoded, Packet


class FaultInjector:
    """One job's faults, round by round. Without a plan, there are none."""

    def __init__(self, plan: FaultPlan | None, n_workers: int, participation: Participation | None = None) -> None:
        """Start at round 0. The plan must have been checked for the job.

        Args:
            plan: the faults; None for none.
            n_workers: the number of workers.
            participation: which of them take part in a round; None for all.
        """
        self._participation = participation
        self.plan = plan or FaultPlan()
        self.expected = plan is not None
        self.counts: list[Counter[str]] = [Counter() for _ in range(n_workers)]
        self._fates: dict[int, Fate] = {}  # of this exchange's packets, by worker; empty if all are delivered

    def down_in(self, round_: int) -> frozenset[int]:
        """Return the ranks of the workers that miss this round: they have crashed, or are not chosen."""
        crashed = self._crashed_in(round_)
        return crashed if self._participation is None else crashed | self._participation.absent_in(round_)

    def _crashed_in(self, round_: int) -> frozenset[int]:
        if not self.plan.may_crash:
            return frozenset()
        return frozenset(rank for rank in range(len(self.counts)) if self.plan.is_down(rank, round_))

    def taking_part(self, workers: list[WorkerSession], round_: int) -> list[WorkerSession]:
        """Return the workers that take part. The parameters are sent to one that missed the round before."""
        down, before = self.down_in(round_), self.down_in(round_ - 1) if round_ else frozenset()
        if not down and not before:
            return workers
        crashed = self._crashed_in(round_)
        for worker in workers:
            if worker.rank in down:
                self.counts[worker.rank]["crashed"] += worker.rank in crashed
            elif worker.rank in before:
                worker.count_parameters()
        return [worker for worker in workers if worker.rank not in down]

    def send(self, worker: WorkerSession, round_: int, exchange: int) -> dict[int, Encoded]:
        """Return one worker's frames in this exchange, by server: counted, tampered with, not yet damaged."""
        fate = self._fate_of(worker, round_, exchange)
        frames, _ = worker.outgoing()
        if fate == "duplicated":
            worker.count_copies({shard: frame.numel() for shard, frame in frames.items()})
        return frames

    def send_unsplit(self, worker: WorkerSession, round_: int, exchange: int) -> tuple[Packet | None, FrameSizes]:
        """Return the packet, None for a control frame, with the sizes of the frames of `send`."""
        fate = self._fate_of(worker, round_, exchange)
        packet, sizes = worker.outgoing_unsplit()
        if fate == "duplicated":
            worker.count_copies(dict(enumerate(sizes.n_bytes)))
        return packet, sizes

    def _fate_of(self, worker: WorkerSession, round_: int, exchange: int) -> Fate:
        """Tamper with a worker's packet, and return and count what happens to it. Control frames that abort arrive."""
        rank, packet = worker.rank, worker.packet
        if worker.aborted:
            self._fates[rank] = "delivered"
            return "delivered"
        factor = self.plan.tampering_factor(rank, len(self.counts), round_, exchange)
        if packet is not None and factor != 1:
            worker.packet = packet.scaled(factor)
        fate = self._fates[rank] = self.plan.fate(rank, round_, exchange)
        if fate != "delivered":
            self.counts[rank][fate] += 1
        return fate

    def arriving(
        self, outgoing: Mapping[int, Mapping[int, Encoded]], index: int, round_: int, exchange: int
    ) -> dict[int, Encoded]:
        """Return the frames that server `index` receives before it answers, by worker."""
        frames: dict[int, Encoded] = {}
        for rank, parts in outgoing.items():
            if self._fates[rank] in ("lost", "late"):
                continue
            frames[rank] = parts[index]
            if self._fates[rank] == "corrupted":
                bit = self.plan.damaged_bit(rank, round_, exchange, 8 * parts[index].numel())
                original = parts[index]
                assert isinstance(original, Tensor), "within one process no frame is split"
                damaged = frames[rank] = original.clone()
                damaged[bit // 8] ^= 1 << bit % 8
        return frames

    def saved(self) -> list[dict[str, int]]:
        """Return each worker's counts, as data that JSON can hold."""
        return [dict(counts) for counts in self.counts]

    def restore(self, saved: Sequence[Mapping[str, int]]) -> None:
        """Continue from saved counts. With fewer workers, those of the leaving ones are added to worker 0's."""
        self.counts = [Counter(saved[rank]) if rank < len(saved) else Counter() for rank in range(len(self.counts))]
        for counts in saved[len(self.counts) :]:
            self.counts[0].update(counts)

    def is_awaited(self, rank: int) -> bool:
        """Return whether the server waits for this worker's packet before it answers."""
        return self._fates.get(rank) not in ("lost", "late")

    def is_late(self, rank: int) -> bool:
        """Return whether this worker's packet is sent only after the answers have arrived."""
        return self._fates.get(rank) == "late"

    def n_copies(self, rank: int) -> int:
        """Return how often this worker's packet is sent before the answers."""
        return {"duplicated": 2, "late": 0}.get(self._fates.get(rank, "delivered"), 1)


def slowed(
    plan: FaultPlan, link: Link, links: Mapping[int, Link] | None, worker_nodes: tuple[int, ...]
) -> dict[int, Link]:
    """Return the nodes' own links, with the bandwidths of the plan's slow links reduced.

    Raises:
        ValueError: for a slow link whose bandwidth is unlimited.
    """
    own = dict(links or {})
    for worker, factor in plan.slow_links.items():
        node = worker_nodes[worker]
        usual = own.get(node, link)
        if usual.bytes_per_s == float("inf"):
            raise ValueError(
                f"faults: slow_links names worker {worker}, whose link has an unlimited bandwidth; give links a "
                "bandwidth, such as 100Mbit"
            )
        own[node] = usual.scaled(factor)
    return own
