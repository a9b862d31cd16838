"""The query of a plan and its result: step times, bytes, break-even bandwidths and a recommendation."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from laconic.algorithms.sgd import SGD
from laconic.contract import Algorithm, ModelSpec
from laconic.lab.defaults import MAX_PLANNED_WORKERS, MAX_VECTOR
from laconic.network import Link
from laconic.planning.break_even import Interval, break_even, where_faster
from laconic.planning.candidate import Candidate, CodingSeconds, Sent
from laconic.planning.dry_run import PlannedJob, coding_seconds, sent_in_rounds
from laconic.protocol.layout import LAYOUTS
from laconic.protocol.legs import frames_of

WORTH_WHILE = 1.05  # smaller speed-ups are within the error of the network model


@dataclass(frozen=True, kw_only=True)
class Query:
    """A model, a number of workers, and the link of every node.

    Raises:
        ValueError: A number is out of range.
    """

    spec: ModelSpec
    """The model's parameters: their shapes if they are known, otherwise one vector."""
    n_workers: int
    link: Link
    compute_s: float = 0.0
    """Seconds of one gradient."""
    local_steps: int = 1
    """Local steps per exchange, for methods that take changes."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_parameters <= MAX_VECTOR:
            raise ValueError(f"n_parameters={self.n_parameters} must be in 1 .. {MAX_VECTOR}, the range of one frame")
        if not 2 <= self.n_workers <= MAX_PLANNED_WORKERS:
            raise ValueError(f"n_workers={self.n_workers} must be in 2 .. {MAX_PLANNED_WORKERS}")
        if self.local_steps < 1:
            raise ValueError(f"local_steps={self.local_steps} must be at least 1; 1 exchanges after every step")

    @property
    def n_parameters(self) -> int:
        """The number of parameters."""
        return self.spec.d


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One method on one layout, compared with plain all-reduce."""

    candidate: Candidate
    step_s: float
    """Seconds of one step."""
    speed_up: float
    """Speed-up over plain all-reduce."""
    faster_within: tuple[Interval, ...]
    """Bandwidths, in bytes per second, at which it beats plain all-reduce."""
    at: Callable[[float], float] = field(repr=False, compare=False)
    """Returns the seconds of one step at another bandwidth, in bytes per second."""

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

    @property
    def recommended(self) -> Choice:
        """The fastest choice, or plain all-reduce if no choice is at least `WORTH_WHILE` times as fast."""
        fastest = min(self.choices, key=lambda choice: choice.step_s, default=self.baseline)
        return fastest if fastest.speed_up >= WORTH_WHILE else self.baseline

    def as_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        query = self.query
        return {
            "parameters": query.n_parameters,
            "workers": query.n_workers,
            "bytes_per_s": query.link.bytes_per_s,
            "latency_s": query.link.latency_s,
            "compute_s": query.compute_s,
            "local_steps": query.local_steps,
            "codec_measured": self.measured,
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
                coding[frames] = coding_seconds(planned) if measure else silent
            yield Candidate(
                algorithm=algorithm, layout=planned.layout, rounds=sent[frames], coding=coding[frames],
                compute_s=query.compute_s, local_steps=query.local_steps if algorithm.takes_changes else 1,
            )  # fmt: skip


def judge(candidates: Iterable[Candidate], query: Query, *, measured: bool) -> Plan:
    """Time the candidates on the query's link, find where each beats plain all-reduce, and sort them by time."""
    (reference,) = candidates_of({"sgd": SGD()}, replace(query, local_steps=1), measure=measured, only="allreduce")
    baseline_s = _remembered(reference, query.link)
    at_link_s = baseline_s(query.link.bytes_per_s)
    baseline = Choice(candidate=reference, step_s=at_link_s, speed_up=1.0, faster_within=(), at=baseline_s)
    choices = []
    for candidate in candidates:
        same = (candidate.algorithm.name, candidate.layout) == (reference.algorithm.name, reference.layout)
        if same and candidate.local_steps == reference.local_steps:
            continue
        step_s = _remembered(candidate, query.link)
        here_s = step_s(query.link.bytes_per_s)
        speed_up = at_link_s / here_s if here_s else 1.0
        within = where_faster(step_s, baseline_s)
        choices.append(Choice(candidate=candidate, step_s=here_s, speed_up=speed_up, faster_within=within, at=step_s))
    choices.sort(key=lambda choice: choice.step_s)
    return Plan(query=query, baseline=baseline, choices=tuple(choices), measured=measured)


def _remembered(candidate: Candidate, link: Link) -> Callable[[float], float]:
    """Return a cached function from bandwidth, in bytes per second, to step time, in seconds."""
    known: dict[float, float] = {}

    def step_s(bytes_per_s: float) -> float:
        if bytes_per_s not in known:
            known[bytes_per_s] = candidate.step_s(replace(link, bytes_per_s=bytes_per_s))
        return known[bytes_per_s]

    return step_s


def _planned(algorithm: Algorithm, layout_name: str, query: Query) -> PlannedJob:
    return PlannedJob(
        algorithm=algorithm, layout_name=layout_name, spec=query.spec, n_workers=query.n_workers,
        bytes_per_s=query.link.bytes_per_s,
    )  # fmt: skip
