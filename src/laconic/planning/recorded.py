"""Runs that `laconic run --out` recorded, timed on another network from their measured bytes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from laconic.contract import Exchange, ModelSpec
from laconic.errors import Named, OptionError
from laconic.lab.runs.config_file import read_group
from laconic.lab.runs.settings import RunSettings
from laconic.lab.runs.times import FILE as TIMES
from laconic.lab.runs.times import compute_s_of, read_phases
from laconic.network import Link
from laconic.planning.candidate import Candidate, CodingSeconds, Sent
from laconic.planning.dry_run import PlannedJob, coding_seconds
from laconic.planning.plan import Query
from laconic.protocol.legs import Answering, answering_of
from laconic.random_keys import shared_key
from laconic.telemetry.traffic import Traffic

_FILES = ("config.toml", "summary.json")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The settings and the traffic of one run."""

    settings: RunSettings
    spec: ModelSpec
    """The run's parameters."""
    layout_name: str
    traffic: Traffic
    dense_rounds: int
    computed_s: float = 0.0
    """Measured compute seconds of one step; 0 if the run did not record its times."""

    def query(self, link: Link, compute_s: float | None) -> Query:
        """Return the query of the run's model and number of workers on another link.

        Args:
            link: The link of every node.
            compute_s: Seconds of one gradient. None takes the run's own: the median of a recorded run, or the setting
                of a simulated one.
        """
        own_s = self.computed_s or self.settings.compute_s()
        return Query(
            spec=self.spec, n_workers=self.settings.workers, link=link,
            compute_s=own_s if compute_s is None else compute_s,
            local_steps=self.settings.local_steps,
        )  # fmt: skip

    def candidate(self, query: Query, *, measure: bool) -> Candidate:
        """Return the run's method on its layout. Messages have the run's mean length, with skips counted as 0 bytes."""
        planned = PlannedJob(
            algorithm=self.settings.method, layout_name=self.layout_name, spec=query.spec,
            n_workers=query.n_workers,
        )  # fmt: skip
        exchanges = planned.algorithm.exchanges(planned.spec, planned.n_workers)
        bare = Candidate(
            algorithm=planned.algorithm, layout=planned.layout, rounds=(),
            coding=tuple(CodingSeconds() for _ in exchanges),
            compute_s=query.compute_s, local_steps=query.local_steps,
        )  # fmt: skip
        sent = tuple(self._sent(bare, exchange, number) for number, exchange in enumerate(exchanges))
        coding = coding_seconds(planned) if measure else bare.coding
        return replace(bare, rounds=(sent,), coding=coding)

    def _sent(self, bare: Candidate, exchange: Exchange, number: int) -> Sent:
        """Return what one exchange sends: the mean over the rounds that were not dense."""
        algorithm, layout = bare.algorithm, bare.layout
        n, n_rounds = layout.n_workers, self.traffic.rounds - self.dense_rounds
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

    Raises:
        OptionError: The folder has no finished runs.
        ValueError: A file is not as `laconic run` writes it.
    """
    folders = (
        [folder] if (folder / _FILES[0]).is_file() else sorted(path.parent for path in folder.glob(f"*/{_FILES[0]}"))
    )
    if not folders:
        raise OptionError(
            Named("trace", folder),
            f": there is no {_FILES[0]} in it; give a folder that `laconic run --out FOLDER` wrote",
        )
    return [_read(one) for one in folders]


def _spec_of(tensors: Mapping[str, Sequence[int]]) -> ModelSpec:
    """Return the parameters that the shapes by name are of."""
    shapes = tuple(tuple(int(length) for length in shape) for shape in tensors.values())
    return ModelSpec(names=tuple(tensors), shapes=shapes)


def _read(folder: Path) -> Recorded:
    config, summary = (folder / name for name in _FILES)
    if not summary.is_file():
        raise OptionError(Named("trace", folder), f": {_FILES[1]} is missing; the run was not finished")
    settings = read_group(RunSettings, config)
    try:
        run_data: dict[str, Any] = json.loads(summary.read_text())
        recorded = Recorded(
            settings=settings,
            computed_s=compute_s_of(read_phases(folder)) / settings.local_steps if (folder / TIMES).is_file() else 0.0,
            spec=_spec_of(run_data["tensors"]),
            layout_name=str(run_data["layout"]),
            traffic=Traffic.from_data(run_data["traffic"]),
            dense_rounds=int(run_data.get("dense_rounds", 0)),
        )
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{summary}: is not what `laconic run` writes ({error!r})") from None
    if recorded.traffic.rounds <= recorded.dense_rounds:
        raise OptionError(
            Named("trace", folder),
            f": all {recorded.dense_rounds} rounds of the run were dense; there is nothing to time",
        )
    return recorded
