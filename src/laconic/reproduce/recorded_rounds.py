"""Rounds of short runs, recorded in the simulator for the papers' schematics: who computes, sends and skips when.

The runs train on the digits with a server of its own and links on which one message is seen beside a computation.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from laconic.drivers.simulated.round_time import RoundTime
from laconic.drivers.simulated.rounds import Simulated
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.settings import RunSettings
from laconic.network import Computation, MessageSchedule, Network, Operation, TimedOperation, simulate
from laconic.reproduce.items import fault_plan
from laconic.statements import mark_stated
from laconic.training.second_gradient import called_twice
from laconic.training.simulation import Simulation

_MAX_ROUNDS = 60
_LINK = {"bandwidth": "1Mbit", "compute": "20ms"}
_DATA = {"dataset": "digits", "model": "mlp", "width": 512, "batch_size": 10, "layout": "dedicated", "epochs": 5}


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round of a run."""

    number: int
    steps: Sequence[TimedOperation]
    skipping: Collection[int]
    """Ranks of the workers that skip it."""
    server_skips: bool
    inverted: Collection[int] = ()
    """Ranks of the workers whose signs a fault inverts."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Consecutive rounds, as a timeline needs them."""

    title: str
    network: Network
    workers: int
    rounds: Sequence[Round]
    slow: Mapping[int, float] = field(default_factory=dict)
    """By rank, the share of the usual bandwidth that a worker has."""

    @property
    def steps(self) -> list[TimedOperation]:
        """The messages and computations of all rounds, timed from the start of the earliest one."""
        steps = [step for one in self.rounds for step in one.steps]
        begin_ns = min(step.requested_ns for step in steps)
        return [
            TimedOperation(one.step, one.requested_ns - begin_ns, one.start_ns - begin_ns, one.end_ns - begin_ns)
            for one in steps
        ]

    @property
    def nodes(self) -> list[str]:
        """The names of the machines; the server is the last one."""
        slow = {rank: f", {factor:g} of the bandwidth" for rank, factor in self.slow.items()}
        return [*(f"M{rank + 1}{slow.get(rank, '')}" for rank in range(self.workers)), "server"]

    @property
    def notes(self) -> list[str]:
        """A line for each round: who skips, whose signs are inverted."""
        return [f"round {one.number}: {_events(one)}" for one in self.rounds]


def _events(one: Round) -> str:
    found = []
    if one.skipping:
        found.append(f"{_workers(one.skipping)} skip, and send 32 bytes that say so")
    if one.server_skips:
        found.append("the server skips its answer")
    if one.inverted:
        found.append(f"on the way of {_workers(one.inverted)} every sign is inverted")
    return "; ".join(found) or "all send"


def _workers(ranks: Collection[int]) -> str:
    return ", ".join(f"M{rank + 1}" for rank in sorted(ranks))


class _Recorder(RoundTime):
    """The clock of a run that keeps when each message and computation was."""

    def __init__(self, driver: Simulated, seed: int) -> None:
        super().__init__(driver.network, driver.compute_time, seed)
        self.steps: list[TimedOperation] = []
        self._nodes = driver.layout.worker_nodes

    def compute(self, ranks: Sequence[int], round_: int, factor_of: Callable[[int, int], float] | None) -> None:
        begin_ns = self.clock.now_ns
        super().compute(ranks, round_, factor_of)
        for rank in ranks:
            end_ns = self.clock.now_ns + self._ready_ns.get(rank, 0)
            step = Computation(self._nodes[rank], end_ns - begin_ns)
            self.steps.append(TimedOperation(step, begin_ns, begin_ns, end_ns))

    def carry_out(self, listed: Sequence[Operation]) -> None:
        message_schedule = MessageSchedule.of(listed)
        self.steps += simulate(message_schedule, self.network).of(message_schedule)


def _recorded(
    title: str, settings: Mapping[str, Any], wanted: Callable[[Sequence[Round]], bool], n_rounds: int
) -> Recording:
    """Train until the last rounds are the wanted ones, and return them.

    Args:
        title: The title.
        settings: Options of `laconic run`, beside those that all have.
        wanted: Whether these rounds show what the schematic shows.
        n_rounds: How many rounds.
    """
    run = RunSettings(**{**_DATA, **_LINK, **settings})
    experiment, faults = Experiment(run), run.fault_plan
    mark_stated(called_twice(experiment.algorithm))  # the loss has no state of its own
    simulation = Simulation(
        experiment.model, experiment.inner, experiment.algorithm, workers=run.workers, layout=run.layout,
        seed=run.seed, link=run.link(), compute_s=run.compute_s(), faults=faults, lr="kept",
    )  # fmt: skip
    driver = simulation.driver
    recorder = _Recorder(driver, run.seed)
    driver.times = [recorder]
    rounds: list[Round] = []
    for step in range(_MAX_ROUNDS):
        recorder.steps, before = [], _skips(driver)
        simulation.step(lambda rank, step=step: experiment.loss(rank, step))  # type: ignore[misc]
        up, down = (
            [now > was for now, was in zip(*pair, strict=True)] for pair in zip(_skips(driver), before, strict=True)
        )
        rounds = [*rounds, Round(
            number=step, steps=recorder.steps, skipping=[rank for rank, skips in enumerate(up) if skips],
            server_skips=any(down), inverted=sorted(faults.inverted(run.workers, step)) if faults else (),
        )][-n_rounds:]  # fmt: skip
        if len(rounds) == n_rounds and wanted(rounds):
            break
    return Recording(
        title=title,
        network=driver.network,
        workers=run.workers,
        rounds=rounds,
        slow=faults.slow_links if faults else {},
    )


def _skips(driver: Simulated) -> tuple[list[int], list[int]]:
    """Return how often each worker, and the server to each worker, has skipped so far."""
    counts = [worker.meter.counts for worker in driver.workers]
    return [one["up"].skips for one in counts], [one["down"].skips for one in counts]


def compskip_rounds() -> Recording:
    """Return two rounds of CompSkip: in one some workers skip, in the next the server does.

    Phuong, Phong, Fukushima: CompSkipDSGD, IEEE Access 2023, Figure 1.
    """
    return _recorded(
        "two rounds of CompSkip: 4 workers and a server", {"algorithm": "compskip", "workers": 4},
        lambda rounds: 0 < len(rounds[0].skipping) < 3 and not rounds[0].server_skips and rounds[1].server_skips, 2,
    )  # fmt: skip


def sasg_round() -> Recording:
    """Return a round of SASG in which some workers upload and others do not.

    Deng, Li, Sun, Lu: SASG, Figure 1.
    """
    return _recorded(
        "a round of SASG, a tenth of the parameters an upload: 5 workers and a server",
        {"algorithm": "sasg", "workers": 5, "set": {"density": "0.1"}, "bandwidth": "10Mbit"},
        lambda rounds: 2 <= len(rounds[0].skipping) <= 3, 1,
    )  # fmt: skip


def faulty_links() -> Recording:
    """Return a round of DropSign with one slow link, and one on which every sign is inverted.

    Phong, Phuong: DropSignSGD, IEEE Access 2020, Figure 1.
    """
    return _recorded(
        "a round of DropSign with a slow and a faulty link: 4 workers and a server",
        {"algorithm": "dropsign", "workers": 4, "faults": str(fault_plan("slow-and-inverted.toml"))},
        lambda rounds: 2 not in rounds[0].inverted, 1,
    )  # fmt: skip


RECORDED: dict[str, Callable[[], Recording]] = {
    "compskip-rounds": compskip_rounds, "sasg-round": sasg_round, "faulty-links": faulty_links,
}  # fmt: skip
