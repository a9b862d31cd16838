"""The query of a plan and its result: step times, bytes, break-even bandwidths and a recommendation."""

import statistics
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from laconic.algorithms.sgd import SGD
from laconic.contract import Algorithm
from laconic.lab.algorithms import python_line
from laconic.planning.break_even import Interval, break_even, where_faster
from laconic.planning.candidate import Candidate, CodingSeconds, Sent
from laconic.planning.dry_run import PlannedJob, coding_seconds, sent_in_rounds
from laconic.planning.query import Query
from laconic.planning.today import Today, today
from laconic.protocol.layout import LAYOUTS
from laconic.protocol.legs import frames_of

WORTH_WHILE = 1.05  # smaller speed-ups are within the error of the network model


SECONDS_A_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class BytesADay:
    """The bytes that links carry in a day of steps, sent and received. None for what does not exist."""

    worker: float
    """The link of a worker: the median."""
    busiest: float
    """The link that carries most, such as a server's."""
    total: float
    """All links together."""
    between_sites: float | None = None
    """The lines between sites, both directions."""

    @classmethod
    def of(cls, candidate: Candidate, query: Query, step_s: float) -> "BytesADay":
        """Return what a method's links carry at this step time. It must be above 0."""
        steps, carried = SECONDS_A_DAY / step_s, candidate.node_bytes
        of_workers = [carried[node] for node in candidate.layout.worker_nodes]
        between = None if query.sites is None else steps * candidate.between_bytes(query.sites)
        return cls(
            worker=steps * statistics.median(of_workers), busiest=steps * max(carried), total=steps * sum(carried),
            between_sites=between,
        )  # fmt: skip

    def as_data(self) -> dict[str, float | None]:
        """Return plain data for JSON."""
        return {
            "worker_bytes_per_day": self.worker,
            "busiest_link_bytes_per_day": self.busiest,
            "all_links_bytes_per_day": self.total,
            "between_sites_bytes_per_day": self.between_sites,
        }


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One method on one layout, compared with plain all-reduce."""

    candidate: Candidate
    step_s: float
    """Seconds of one step."""
    speed_up: float
    """Speed-up over plain all-reduce."""
    speed_up_bound: float
    """Its upper bound over what is not known; equal to it if latency and gradient time are given."""
    a_day: BytesADay | None
    """The bytes that links carry in a day; None if a step takes no time."""
    faster_within: tuple[Interval, ...]
    """Bandwidths, in bytes per second, at which it beats plain all-reduce."""
    at: Callable[[float], float] = field(repr=False, compare=False)
    """Returns the seconds of one step at another bandwidth, in bytes per second; see `Query.at`."""

    @property
    def python(self) -> str:
        """The line that sets it up."""
        steps = self.candidate.local_steps
        local = f", local_steps={steps}" if steps > 1 else ""
        method = python_line(self.candidate.algorithm)
        return f'laconic.DistributedOptimizer(optimizer, {method}, model=model, layout="{self.layout_name}"{local})'

    @property
    def lr_factor(self) -> float:
        """The learning rate to start from, as a multiple of plain SGD's."""
        return self.candidate.algorithm.lr_factor

    @property
    def method(self) -> str:
        """The name of the method."""
        return self.candidate.algorithm.name

    @property
    def layout_name(self) -> str:
        """The name of the layout."""
        return self.candidate.layout.name

    @property
    def is_maximum(self) -> bool:
        """Whether the bytes are a maximum: the method can send less, depending on the data."""
        return self.candidate.algorithm.adaptive

    @property
    def break_even_bytes_per_s(self) -> float | None:
        """The bandwidth, in bytes per second, above which plain all-reduce wins; None if there is none."""
        return break_even(self.faster_within)

    def as_data(self) -> dict[str, Any]:
        """Return plain data for JSON. Bandwidths are bytes per second; the ends of the search range are null.

        Bytes are those that cross a link, per worker and step.
        """
        candidate = self.candidate
        return {
            "method": self.method,
            "layout": self.layout_name,
            "settings": candidate.algorithm.settings(),
            "local_steps": candidate.local_steps,
            "step_s": self.step_s,
            "up_bytes": candidate.up_bytes,
            "down_bytes": candidate.down_bytes,
            "coding_s": candidate.coding_s,
            "bytes_are_maxima": self.is_maximum,
            "speed_up": self.speed_up,
            "speed_up_upper_bound": self.speed_up_bound,
            "python": self.python,
            "lr_factor": self.lr_factor,
            **(dict.fromkeys(BytesADay(worker=0, busiest=0, total=0).as_data()) if self.a_day is None else {}),
            **({} if self.a_day is None else self.a_day.as_data()),
            "faster_within_bytes_per_s": [list(interval) for interval in self.faster_within],
            "break_even_bytes_per_s": self.break_even_bytes_per_s,
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The choices, fastest first, beside plain all-reduce with one step per exchange."""

    query: Query
    baseline: Choice
    choices: tuple[Choice, ...]
    measured: bool
    """Whether encoding and decoding were measured; otherwise they count as no time."""
    today: tuple[Today, ...] = ()
    """What people use today, modelled."""

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not known and counts as no time, so that speed-ups are upper bounds."""
        query = self.query
        missing = ("latency", not query.latency_given), ("gradient time", query.compute_s is None)
        return tuple(name for name, absent in (*missing, ("coding time", not self.measured)) if absent)

    @property
    def best_today(self) -> Today | None:
        """The fastest of what people use today."""
        return min(self.today, key=lambda row: row.step_s, default=None)

    @property
    def recommended(self) -> Choice:
        """The fastest choice, or plain all-reduce if no choice is at least `WORTH_WHILE` times as fast."""
        fastest = min(self.choices, key=lambda choice: choice.step_s, default=self.baseline)
        return fastest if fastest.speed_up >= WORTH_WHILE else self.baseline

    def as_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        query = self.query
        link, sites = query.link, query.sites
        best = self.best_today
        return {
            "parameters": query.n_parameters,
            "workers": query.n_workers,
            "bytes_per_s": link.bytes_per_s,
            "down_bytes_per_s": link.receiving.bytes_per_s,
            "latency_s": link.latency_s if query.latency_given else None,
            "sites": None if sites is None else list(sites.sizes),
            "between_sites_bytes_per_s": None if sites is None else sites.line.bytes_per_s,
            "between_sites_latency_s": None if sites is None else sites.line.latency_s,
            "measured_links": None if query.measured is None else query.measured.as_data(),
            "ranks_per_core": query.ranks_per_core if query.measured is not None else None,
            "compute_s": query.compute_s,
            "local_steps": query.local_steps,
            "codec_measured": self.measured,
            "times_are_of": "a step, not to an accuracy",
            "not_given": list(self.missing),
            "speed_ups_are_upper_bounds": bool(self.missing),
            "break_even_is_of": "the line between sites" if sites else "each link",
            "today": [row.as_data() for row in self.today],
            "fastest_today": None if best is None else best.name,
            "all_reduce": self.baseline.as_data(),
            "choices": [choice.as_data() for choice in self.choices],
            "recommended": {"method": self.recommended.method, "layout": self.recommended.layout_name},
            "all_reduce_wins": self.recommended is self.baseline,
        }


def layouts_of(algorithm: Algorithm, query: Query) -> list[str]:
    """Return the names of the layouts that a method admits.

    Raises:
        ValueError: The method refuses the model or the number of workers.
    """
    algorithm.check_size(query.spec, query.n_workers)
    admitted = []
    for layout_name in LAYOUTS[1:]:
        try:
            _ = _planned(algorithm, layout_name, query).layout
        except ValueError:
            continue
        admitted.append(layout_name)
    return admitted


def candidates_of(
    algorithms: Mapping[str, Algorithm],
    query: Query,
    *,
    measure: bool,
    only: str | None = None,
    listen: Callable[[str], None] = lambda what: None,
) -> Iterator[Candidate]:
    """Yield every method on every layout that it admits.

    Args:
        algorithms: The methods by name.
        query: The model, workers and link.
        measure: Whether to measure encoding and decoding.
        only: The only layout to try; None tries all.
        listen: Gets the name of what is being measured.

    Raises:
        ValueError: A method refuses the model or the number of workers.
    """
    for algorithm in algorithms.values():
        sent: dict[Hashable, tuple[tuple[Sent, ...], ...]] = {}
        coding: dict[Hashable, tuple[CodingSeconds, ...]] = {}
        for layout_name in layouts_of(algorithm, query):
            if only not in (None, layout_name):
                continue
            listen(f"{algorithm.name}, {layout_name}")
            planned = _planned(algorithm, layout_name, query)
            frames = frames_of(planned.layout, algorithm.exchanges(query.spec, query.n_workers))
            if frames not in sent:
                sent[frames] = sent_in_rounds(planned)
                silent = tuple(CodingSeconds() for _ in sent[frames][0])
                coding[frames] = _in_turns(coding_seconds(planned), query, planned) if measure else silent
            yield Candidate(
                algorithm=algorithm, layout=planned.layout, rounds=sent[frames], coding=coding[frames],
                compute_s=query.compute_s or 0.0, local_steps=query.local_steps if algorithm.takes_changes else 1,
            )  # fmt: skip


def _in_turns(coding: tuple[CodingSeconds, ...], query: Query, planned: PlannedJob) -> tuple[CodingSeconds, ...]:
    """Return coding times where several ranks share a processor core: all encode and decode at once, one serves."""
    turns = max(1.0, query.ranks_per_core)
    serving = turns if len(planned.layout.shards) != 1 else 1.0
    return tuple(
        CodingSeconds(encode=turns * part.encode, serve=serving * part.serve, decode=turns * part.decode)
        for part in coding
    )


def judge(candidates: Iterable[Candidate], query: Query, *, measured: bool) -> Plan:
    """Time the candidates on the query's network, find where each beats plain all-reduce, and sort them by time."""
    (reference,) = candidates_of({"sgd": SGD()}, replace(query, local_steps=1), measure=measured, only="allreduce")
    possible = query.at_possible_latencies()
    plain_s = [at.step_s(reference) for at in possible]
    baseline_s = _remembered(reference, query)

    def choice(candidate: Candidate) -> Choice:
        step_s = _remembered(candidate, query)
        here_s = step_s(query.bytes_per_s)
        speed_up = plain_s[0] / here_s if here_s else 1.0
        upper_bound = max(
            [speed_up, *(plain / at.step_s(candidate) for plain, at in zip(plain_s[1:], possible[1:], strict=True))]
        )
        if query.compute_s is None:
            upper_bound = max(upper_bound, 1.0 / (2 if candidate.algorithm.second_gradient else 1))
        within = () if candidate is reference else where_faster(step_s, baseline_s)
        return Choice(
            candidate=candidate, step_s=here_s, speed_up=speed_up, speed_up_bound=upper_bound,
            a_day=BytesADay.of(candidate, query, here_s) if here_s else None, faster_within=within, at=step_s,
        )  # fmt: skip

    choices = []
    for candidate in candidates:
        same = (candidate.algorithm.name, candidate.layout) == (reference.algorithm.name, reference.layout)
        if not (same and candidate.local_steps == reference.local_steps):
            choices.append(choice(candidate))
    choices.sort(key=lambda one: one.step_s)
    rows = today(query, lambda at: at.step_s(reference), measure=measured)
    return Plan(query=query, baseline=choice(reference), choices=tuple(choices), measured=measured, today=tuple(rows))


def _remembered(candidate: Candidate, query: Query) -> Callable[[float], float]:
    """Return a cached function from bandwidth, in bytes per second, to step time, in seconds."""
    return cache(lambda bytes_per_s: query.at(bytes_per_s).step_s(candidate))


def _planned(algorithm: Algorithm, layout_name: str, query: Query) -> PlannedJob:
    return PlannedJob(
        algorithm=algorithm, layout_name=layout_name, spec=query.spec, n_workers=query.n_workers,
        bytes_per_s=query.slowest_bytes_per_s,
    )  # fmt: skip
