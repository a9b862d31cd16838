"""`choose`: the method and layout for running ranks, by measured links, measured coding and a short trial."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from laconic.algorithms.csgd import CSGD
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.sgd import SGD
from laconic.contract import Algorithm, ModelSpec
from laconic.drivers.distributed.agreement import Scalar, agree
from laconic.drivers.distributed.channel import Channel
from laconic.drivers.distributed.door import CHOOSE, entered
from laconic.drivers.distributed.meeting import Meeting, refusals_shown
from laconic.errors import Named, OptionError
from laconic.hyperparameters import plain_number
from laconic.planning.candidate import Candidate
from laconic.planning.measure import measure_network
from laconic.planning.plan import WORTH_WHILE, candidates_of
from laconic.planning.query import Query
from laconic.protocol.layout import LAYOUTS, has_dedicated_server
from laconic.statements import state_once
from laconic.telemetry.watching import watch
from laconic.training.automatic import Chosen, recorded_choice
from laconic.training.distributed_optimizer import DistributedOptimizer
from laconic.training.optimizer_arguments import check_timeout
from laconic.units import seconds_text

_REST_S, _LARGE_S = 0.02, 0.2  # of each measurement of the links
_PURPOSE = "to choose a method"
_TOPIC = "choice of a method"
_TRIED = 5  # candidates, beside plain all-reduce
_NEAR = 3.0  # times the fastest by the model, up to which a candidate is tried
LAYOUTS_OF_ALL = tuple(
    name for name in LAYOUTS[1:] if not has_dedicated_server(name, by_arrival=False)
)  # where all ranks train
_TURNS, _TURN_S, _STEPS = 2, 0.25, 20  # of a trial: turns, about how long each takes, and its maximum of steps
_FEWEST_STEPS, _LONG_STEP_S = 3, 1.0  # links that have rested are slower at first, so of short steps a few are taken
_LONG_TURN_S = 2.0  # with what it takes to begin
_WARM_UP = 2  # steps that touch new memory
_LR = 1e-3  # a rate of 0 bounds no number, so that methods would look through their vectors once more
_TRIED_D = 1 << 24  # elements; longer vectors take time in proportion, and memory that training may need
_MAX_BYTES = 1 << 20
_PATIENCE_S = 120.0
ALLOWED = (SGD(), CSGD(), ECSGD())
"""The methods that may be taken where none are named: those that train at plain SGD's rate, whatever the model."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The ranks that train together."""

    group: dist.ProcessGroup | None = None
    """None for all."""
    timeout_s: float = _PATIENCE_S
    """How long another rank is waited for, seconds."""
    dtype: torch.dtype = torch.float32
    """Of the parameters."""
    device: torch.device = torch.device("cpu")
    speaks: bool = True
    """Whether the lowest one says what was chosen, and why."""


def choose(
    model: nn.Module,
    allowed: Sequence[Algorithm] = ALLOWED,
    *,
    layouts: Sequence[str] = LAYOUTS_OF_ALL,
    saved: Mapping[str, Any] | None = None,
    timeout_s: float = _PATIENCE_S,
) -> Chosen:
    """Choose a method and layout for the ranks of the default process group. Collective; it takes some seconds.

    The links between the ranks and the coding of every method are measured, the network model times each method on each
    layout, and those that are near the fastest are tried on vectors as long as the model. Plain all-reduce is taken
    where nothing is at least 5 % faster. Rank 0 states why in one line. All ranks get the same.

    The time of a step is compared, not how many steps a method needs; so allow what you would train with. The default
    are methods that train at plain SGD's rate.

    Args:
        model: The model; its parameters are not changed.
        allowed: The methods that may be taken. Plain all-reduce of gradients always may.
        layouts: The layouts that may be taken.
        saved: A state of `DistributedOptimizer` to go on from: its method and layout are taken, nothing is measured.
        timeout_s: How long to wait for another rank, seconds.

    Raises:
        OptionError: `allowed` is empty, has a method twice, one that is no method or one with two gradients, a layout
            is unknown, nothing is trained, or `saved` is of a method that is not allowed.
        TypeError, ValueError: an argument is of another type or out of range.
        SetupError: ranks differ in what they give, or another one refuses its own.
        PeerLostError: A rank is lost.
    """
    with refusals_shown(None, _TOPIC):
        _check(model, timeout_s)
        check_allowed(allowed, layouts)
        recorded = None if saved is None else _recorded(allowed, saved)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    spec = _spec_of(model)
    ranks = Ranks(timeout_s=timeout_s, dtype=parameters[0].dtype, device=parameters[0].device)
    if recorded is None:
        return choose_for(spec, allowed, layouts, ranks)
    _agree(spec, allowed, layouts, recorded, ranks)
    return recorded


def choose_for(spec: ModelSpec, allowed: Sequence[Algorithm], layouts: Sequence[str], ranks: Ranks) -> Chosen:
    """Measure, plan, try and choose, as `choose` does, for a model of these parameters. Collective.

    `check_allowed` must have admitted `allowed` and `layouts`. Raises SetupError, PeerLostError.
    """
    _agree(spec, allowed, layouts, None, ranks)
    if not dist.is_initialized() or dist.get_world_size(ranks.group) == 1:
        return Chosen(algorithm=SGD(), layout="allreduce", reason="one worker: nothing is exchanged", step_s={})
    with watch() as watched, entered(CHOOSE):
        channel = Channel(ranks.group, ranks.timeout_s, 1)
        try:
            chosen = _measured(spec, allowed, layouts, ranks, channel)
        finally:
            channel.close()
    return replace(chosen, sent_bytes=round(watched.sent_bytes))


def _measured(
    spec: ModelSpec, allowed: Sequence[Algorithm], layouts: Sequence[str], ranks: Ranks, channel: Channel
) -> Chosen:
    found = measure_network(ranks.timeout_s, ranks.group, rest_s=_REST_S, large_s=_LARGE_S, largest=spec.d)
    query = Query(
        spec=spec, n_workers=channel.size, link=found.link, compute_s=0.0, measured=found.links,
        ranks_per_core=found.ranks_per_core,
    )  # fmt: skip
    candidates = _candidates(allowed, layouts, query)
    own_s = [query.step_s(candidate) for candidate in candidates]
    planned_s = [max(times) for times in zip(*channel.gather(own_s, _PURPOSE, [float], _MAX_BYTES), strict=True)]
    tried_s = _tried_s(candidates, _near(planned_s), spec, channel, ranks)
    return _fastest(candidates, planned_s, tried_s, speaks=ranks.speaks and channel.rank == 0)


def _check(model: nn.Module, timeout_s: float) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={model!r:.80} must be a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise OptionError(Named("model"), ": none of its parameters is trained (requires_grad)")
    check_timeout(plain_number(timeout_s, "timeout_s"))


def check_allowed(allowed: Sequence[Algorithm], layouts: Sequence[str]) -> None:
    """Raise OptionError for what is no list of methods and layouts that may be chosen among."""
    is_list = isinstance(allowed, Sequence) and not isinstance(allowed, str)
    if not is_list or not allowed or not all(isinstance(one, Algorithm) for one in allowed):
        raise OptionError(Named("allowed", allowed), " must be a list of methods such as laconic.ECSGD(), one or more")
    names = [one.name for one in allowed]
    if len(set(names)) < len(names):
        raise OptionError(Named("allowed", names), ": each method may be there once")
    if twice := [one.name for one in allowed if one.second_gradient]:
        raise OptionError(
            Named("allowed", names), f": {twice[0]} evaluates each mini-batch at two points, and a trial has no data; "
            "leave it out, and plan it with laconic plan",
        )  # fmt: skip
    if isinstance(layouts, str) or not layouts or set(layouts) - set(LAYOUTS_OF_ALL):
        raise OptionError(Named("layouts", layouts), f" must be a list of {', '.join(LAYOUTS_OF_ALL)}")


def _agree(
    spec: ModelSpec, allowed: Sequence[Algorithm], layouts: Sequence[str], recorded: Chosen | None, ranks: Ranks
) -> None:
    """Raise SetupError, before anything is measured, if ranks choose among other things, or for other models."""
    if not dist.is_initialized():
        return
    settings: dict[str, Scalar] = {"allowed": ", ".join(one.name for one in allowed), "layouts": ", ".join(layouts)}
    settings["saved"] = None if recorded is None else recorded.reason
    for one in allowed:
        settings |= {f"{one.name}/{key}": value for key, value in one.settings().items()}
    settings |= {f"parameter {name!r}": str(shape) for name, shape in zip(spec.names, spec.shapes, strict=True)}
    agree(Meeting.of_group(ranks.group, _TOPIC), settings, _PURPOSE, ranks.timeout_s)


def _recorded(allowed: Sequence[Algorithm], saved: Mapping[str, Any]) -> Chosen:
    """Return the method that a state was saved with."""
    if not isinstance(saved, Mapping) or not isinstance(saved.get("laconic", saved), Mapping):
        raise TypeError(f"saved={saved!r:.80} must be a state_dict() of DistributedOptimizer, or None")
    return recorded_choice((*allowed, SGD()), saved.get("laconic", saved), LAYOUTS_OF_ALL)


def _spec_of(model: nn.Module) -> ModelSpec:
    trained = [(name, tuple(each.shape)) for name, each in model.named_parameters() if each.requires_grad]
    return ModelSpec(names=tuple(name for name, _ in trained), shapes=tuple(shape for _, shape in trained))


def _candidates(allowed: Sequence[Algorithm], layouts: Sequence[str], query: Query) -> list[Candidate]:
    """Return plain all-reduce, and then every allowed method on every allowed layout that it admits."""
    found = list(candidates_of({"sgd": SGD()}, query, measure=True, only="allreduce"))
    for algorithm in allowed:
        for candidate in candidates_of({algorithm.name: algorithm}, query, measure=True):
            is_plain = (algorithm.name, candidate.layout.name) == (found[0].algorithm.name, found[0].layout.name)
            if candidate.layout.name in layouts and not is_plain:
                found.append(candidate)
    return found


def _near(planned_s: Sequence[float]) -> list[int]:
    """Return the places of those to try: the first, plain all-reduce, if it may win, and the fastest others.

    Of steps that are short anyway, coding is a large part, whose times are not sure enough to leave any out.
    """
    limit = max(_NEAR * min(planned_s), _TURN_S)
    others = sorted(range(1, len(planned_s)), key=lambda place: planned_s[place])[:_TRIED]
    return [place for place in (0, *others) if planned_s[place] <= limit]


def _tried_s(
    candidates: Sequence[Candidate], numbers: Sequence[int], spec: ModelSpec, channel: Channel, ranks: Ranks
) -> dict[int, float]:
    """Return the seconds of a step with given gradients, of the slowest rank, by a candidate's place.

    They are tried in turns, so that a machine that is busy for a while hinders no one alone; where a turn is long, as
    on a slow link that the parameters are sent over, one is enough.
    """
    tried = _shortened(spec, _TRIED_D)
    seconds: dict[int, list[float]] = {place: [] for place in numbers}
    longest_s = 0.0
    for turn in range(_TURNS):
        for place in numbers if not turn or longest_s < _LONG_TURN_S else ():
            full_s, *steps_s = _turn_s(candidates[place], tried, channel, ranks)
            longest_s = max(longest_s, full_s)
            seconds[place] += steps_s
    return {place: statistics.median(taken) * spec.d / tried.d for place, taken in seconds.items()}


def _turn_s(candidate: Candidate, spec: ModelSpec, channel: Channel, ranks: Ranks) -> list[float]:
    """Return the seconds of it all, and of a few steps but the earliest ones; each of the slowest rank."""
    start = time.perf_counter()
    random = torch.Generator().manual_seed(channel.rank)
    parameters = [nn.Parameter(torch.zeros(shape, dtype=ranks.dtype, device=ranks.device)) for shape in spec.shapes]
    gradients = [torch.randn(parameter.shape, generator=random).to(parameter) for parameter in parameters]
    inner, layout = torch.optim.SGD(parameters, lr=_LR), candidate.layout.name
    with DistributedOptimizer(
        inner, candidate.algorithm, layout=layout, check_every=0, timeout_s=ranks.timeout_s, group=ranks.group,
    ) as opt:  # fmt: skip
        opt.accept_equal_gradients()

        def step_s() -> float:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient  # as after a backward: the direction before it is not held
            dist.barrier(channel.group)
            begun = time.perf_counter()
            opt.step()
            return time.perf_counter() - begun

        longest_s = max(channel.gather([step_s()], _PURPOSE, [float], _MAX_BYTES))[0]
        fewest = _FEWEST_STEPS if longest_s < _LONG_STEP_S else 1
        n_steps = max(fewest, min(_STEPS, round(_TURN_S / longest_s)))
        steps_s = [step_s() for _ in range(n_steps + min(n_steps - 1, _WARM_UP))][-n_steps:]
        own_s = [time.perf_counter() - start, *steps_s]
        by_rank: list[list[float]] = channel.gather(own_s, _PURPOSE, [float], _MAX_BYTES)
    return [max(each) for each in zip(*by_rank, strict=True)]


def _shortened(spec: ModelSpec, d: int) -> ModelSpec:
    """Return a model of at most about so many parameters: itself, or with smaller tensors."""
    share = min(1.0, d / spec.d)
    shapes = tuple((max(1, round(shape[0] * share)), *shape[1:]) if shape else () for shape in spec.shapes)
    return spec if share == 1.0 else ModelSpec(names=spec.names, shapes=shapes)


def _fastest(
    candidates: Sequence[Candidate], planned_s: Sequence[float], tried_s: Mapping[int, float], *, speaks: bool
) -> Chosen:
    step_s = [tried_s.get(place, planned) for place, planned in enumerate(planned_s)]
    best = min(tried_s, key=lambda place: tried_s[place])
    plain_wins = step_s[0] <= WORTH_WHILE * step_s[best]
    algorithm, layout = candidates[best].algorithm, candidates[best].layout.name
    if plain_wins:
        rivals = [place for place in tried_s if place]
        rival = min(rivals, key=lambda place: tried_s[place], default=None)
        beside = "" if rival is None else f"; {_named(candidates[rival])} takes {seconds_text(step_s[rival])}"
        reason = f"plain all-reduce: {seconds_text(step_s[0])} a step{beside}"
        algorithm, layout = SGD(), "allreduce"
    else:
        reason = (
            f"{_named(candidates[best])}: {seconds_text(step_s[best])} a step, {step_s[0] / step_s[best]:.3g} times as "
            f"fast as plain all-reduce, {seconds_text(step_s[0])}"
        )
    if speaks:
        state_once(f"chosen: {reason} (exchange and coding, without the gradient)")
    names = [(one.algorithm.name, one.layout.name) for one in candidates]
    return Chosen(algorithm=algorithm, layout=layout, reason=reason, step_s=dict(zip(names, step_s, strict=True)))


def _named(candidate: Candidate) -> str:
    return f"{candidate.algorithm.name} on {candidate.layout.name}"
