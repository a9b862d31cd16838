"""Runs that `laconic run --out` recorded, timed on another network from their measured bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from laconic.contract import Exchange, ModelSpec
from laconic.errors import Named, OptionError
from laconic.lab.comparison.results import noted_cells
from laconic.lab.options import options_of
from laconic.lab.own_results import COMPARISON, is_comparison
from laconic.lab.runs.config_file import group_of, read_values
from laconic.lab.runs.files import CONFIG, FAULTS, spec_of
from laconic.lab.runs.settings import RunSettings
from laconic.lab.runs.store import FILE as SUMMARY
from laconic.lab.runs.times import FILE as TIMES
from laconic.lab.runs.times import compute_s_of, read_phases
from laconic.network import Link, Sites
from laconic.planning.candidate import Candidate, CodingSeconds, Sent
from laconic.planning.dry_run import PlannedJob, coding_seconds
from laconic.planning.query import Query
from laconic.protocol.legs import Answering, answering_of
from laconic.random_keys import shared_key
from laconic.telemetry.traffic import Traffic

_SINGLE_SERVER = ("rank0", "dedicated")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The settings and the traffic of one run."""

    settings: RunSettings
    spec: ModelSpec
    """The run's parameters."""
    layout_name: str
    traffic: Traffic
    dense_rounds: int
    warm_up_rounds: int
    """The dense ones, or those in which the density fell."""
    computed_s: float | None = None
    """Seconds of one step's gradient: the median of a run that recorded its times, or the setting of a simulated one;
    None for a run that has neither.
    """

    def query(
        self, link: Link, compute_s: float | None, *, sites: Sites | None = None, latency_given: bool = True
    ) -> Query:
        """Return the query of the run's model and number of workers on another network.

        Args:
            link: The link of every node.
            compute_s: Seconds of one gradient; None takes the run's own, if it has one.
            sites: Where the workers are; None for one place.
            latency_given: Whether the latency of `link` is known.
        """
        return Query(
            spec=self.spec, n_workers=self.n_workers, link=link, sites=sites, latency_given=latency_given,
            compute_s=self.computed_s if compute_s is None else compute_s,
            local_steps=self.settings.local_steps,
        )  # fmt: skip

    def candidate(self, query: Query, *, measure: bool) -> Candidate:
        """Return the run's method on its layout. Messages have the run's mean length, with skips counted as 0 bytes."""
        planned = PlannedJob(
            algorithm=self.settings.method, layout_name=self._planned_layout, spec=query.spec,
            n_workers=query.n_workers,
        )  # fmt: skip
        exchanges = planned.algorithm.exchanges(planned.spec, planned.n_workers)
        bare = Candidate(
            algorithm=planned.algorithm, layout=planned.layout, rounds=(),
            coding=tuple(CodingSeconds() for _ in exchanges),
            compute_s=query.compute_s or 0.0, local_steps=query.local_steps,
        )  # fmt: skip
        sent = tuple(self._sent(bare, exchange, number) for number, exchange in enumerate(exchanges))
        coding = coding_seconds(planned) if measure else bare.coding
        return replace(bare, rounds=(sent,), coding=coding)

    @property
    def n_workers(self) -> int:
        """The number of workers that send in a round; over processes all are in it, and get the answers."""
        is_part = self.layout_name in _SINGLE_SERVER and self.settings.driver == "simulated"
        return self.settings.takes_part if is_part else self.settings.workers

    @property
    def _planned_layout(self) -> str:
        """The layout; where only some workers take part in a round, rank 0 mostly serves alone."""
        return "dedicated" if self.n_workers < self.settings.workers else self.layout_name

    def _sent(self, bare: Candidate, exchange: Exchange, number: int) -> Sent:
        """Return what one exchange sends: the mean over the rounds after a warm-up."""
        algorithm, layout = bare.algorithm, bare.layout
        n, n_rounds = layout.n_workers, self.traffic.rounds - self.warm_up_rounds
        exchanges = algorithm.exchanges(self.spec, n)
        answering = answering_of(layout, exchange)
        same_name = [place for place, other in enumerate(exchanges) if other.name == exchange.name]
        up = self.traffic.up_by_exchange[exchange.name].wire_bytes / n_rounds
        down = self.traffic.down_by_exchange[exchange.name].wire_bytes / n_rounds
        if answering is Answering.ENGINE:  # each worker sends (n-1)/n of the vector in one direction
            return Sent(answering=answering, up=((round(up / (n - 1)),),) * n)
        if answering is Answering.EVERY_WORKER:
            return Sent(answering=answering, up=((round(up / n / (n - 1)),),) * n)
        if answering is Answering.NOBODY:
            key = shared_key(self.settings.seed, 0, "graph")
            edges = [len(algorithm.peers(rank, n, 0, place, key)) for place in same_name for rank in range(n)]
            peers = tuple(algorithm.peers(rank, n, 0, number, key) for rank in range(n))
            return Sent(answering=answering, up=((round(up / max(1, sum(edges))),),) * n, peers=peers)
        n_links = sum(node != shard.node for node in layout.worker_nodes for shard in layout.shards)
        up_frame, down_frame = (round(total / len(same_name) / n_links) for total in (up, down))
        n_shards = len(layout.shards)
        return Sent(answering=answering, up=((up_frame,) * n_shards,) * n, down=(down_frame,) * n_shards)


def read_recorded(folder: Path) -> list[Recorded]:
    """Read the run in `folder`, or the runs in its subfolders, as `laconic compare --out` writes them.

    Of a comparison over seeds these are the first finished cell of each variant with each partition: seeds and networks
    change what is sent by little or nothing.

    Raises:
        OptionError: The folder has no finished runs.
        ValueError: A file is not as `laconic run` writes it.
    """
    if is_comparison(folder):
        return [_read(one) for one in _cells_of(folder)]
    folders = [folder] if (folder / CONFIG).is_file() else sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    if not folders:
        raise OptionError(
            Named("trace", folder),
            f": there is no {CONFIG} in it; give a folder that `laconic run --out FOLDER` wrote",
        )
    return [_read(one) for one in folders]


def _cells_of(folder: Path) -> list[Path]:
    found: dict[tuple[str, str], Path] = {}
    for cell in noted_cells(folder / COMPARISON):
        if cell["state"] == "finished":
            found.setdefault((cell["label"], cell["partition"]), folder / cell["folder"])
    if not found:
        raise OptionError(Named("trace", folder), ": none of its cells is finished; run the comparison first")
    return list(found.values())


def _read(folder: Path) -> Recorded:
    summary = folder / SUMMARY
    if not summary.is_file():
        raise OptionError(Named("trace", folder), f": {SUMMARY} is missing; the run was not finished")
    settings = _settings(folder)
    try:
        run_data: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
        _check_one_run(folder, settings, run_data)
        recorded = Recorded(
            settings=settings,
            computed_s=_computed_s(folder, settings, int(run_data["traffic"]["rounds"])),
            spec=spec_of(run_data["tensors"]),
            layout_name=str(run_data["layout"]),
            traffic=Traffic.from_data(run_data["traffic"]),
            dense_rounds=int(run_data.get("dense_rounds", 0)),
            warm_up_rounds=int(run_data.get("warm_up_rounds", run_data.get("dense_rounds", 0))),
        )
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{summary}: is not what `laconic run` writes ({error!r})") from None
    if recorded.traffic.rounds <= recorded.warm_up_rounds:
        raise OptionError(
            Named("trace", folder),
            f": all {recorded.warm_up_rounds} rounds of the run were those of its warm-up; there is nothing to time",
        )
    return recorded


def _settings(folder: Path) -> RunSettings:
    """Return the settings in `config.toml`, with the folder's own copy of the fault plan and no other file."""
    config, faults = folder / CONFIG, folder / FAULTS
    values = read_values(config, options_of(RunSettings))
    if "faults" in values and not faults.is_file():
        raise _mixed(folder, f"{FAULTS} is missing, and {config.name} says that the run had faults")
    if "faults" not in values and faults.is_file():
        raise _mixed(folder, f"{FAULTS} is of another run: {config.name} has no faults")
    if "faults" in values:
        values["faults"] = str(faults)
    return group_of(RunSettings, config, values)


def _check_one_run(folder: Path, settings: RunSettings, run_data: Mapping[str, Any]) -> None:
    """Refuse a folder whose `summary.json` was written by another run than its `config.toml`."""
    of_config, of_summary = settings.as_data(), dict(run_data["settings"])
    for name in sorted((of_config.keys() | of_summary.keys()) - {"faults"}):
        one, other = (json.loads(json.dumps(each.get(name))) for each in (of_config, of_summary))
        if one != other:
            raise _mixed(
                folder,
                f"{SUMMARY} is of another run than {CONFIG}: {name} is {other!r:.40} there, {one!r:.40} here",
            )


def _computed_s(folder: Path, settings: RunSettings, n_rounds: int) -> float | None:
    """Return the seconds of one gradient, of the run's `times.csv` or its settings; None if there is neither."""
    times = folder / TIMES
    if not settings.record_times:
        if times.is_file():
            raise _mixed(folder, f"{TIMES} is of another run: {CONFIG} says that this one recorded no times")
        return None if settings.compute is None else settings.compute_s()
    if not times.is_file():
        raise _mixed(folder, f"{TIMES} is missing, and {CONFIG} says that the run recorded its times")
    phases = read_phases(folder)
    ranks, rounds = {phase.rank for phase in phases}, {phase.round for phase in phases}
    for what, found, expected in (("ranks", len(ranks), settings.workers), ("rounds", max(rounds) + 1, n_rounds)):
        if found != expected and not settings.method.is_asynchronous:  # whose server has no phases, nor rounds
            raise _mixed(folder, f"{TIMES} is of another run: it has {found} {what}, and the run {expected}")
    return compute_s_of(phases) / settings.local_steps


def _mixed(folder: Path, fault: str) -> OptionError:
    return OptionError(
        Named("trace", folder), f": {fault}; give a folder that one `laconic run --out FOLDER` wrote, and nothing else"
    )
