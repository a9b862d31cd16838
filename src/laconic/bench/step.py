"""Whole steps of all methods on processes of this machine, against one flat all-reduce and the optimizer's step."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from laconic.bench.contender import BenchRank
from laconic.bench.measure import Measurement, over
from laconic.lab.processes.ranks import Ranks

BASE = "all-reduce"
LIMIT_S = 20.0  # of one contender's turns
_CALL_LIMIT_S = 300.0  # of all that ranks are asked to do at once
_MIN_REPEATS = 3
_BARS = {"compskip": 1.0, "dropsign": 1.0, "ssgd-mv": 1.0, "sgd": 1.05}  # at 11.17 million parameters
_BARS_D = 11_173_962

Seconds = dict[str, list[float]]  # by contender, the slowest rank's, turn by turn


def measure_steps(
    sizes: Sequence[int],
    n: int,
    methods: Sequence[str],
    repeats: int,
    *,
    settings: Mapping[str, Mapping[str, str]],
    momentum: float = 0.0,
    listen: Callable[[str], None] = lambda what: None,
) -> Iterator[Measurement]:
    """Rows of each size, on `n` processes: the baseline, DistributedDataParallel's, and each method's.

    sizes: parameters. settings: hyper-parameters by method. momentum: of the SGD inside all of them.
    Raises LaunchError where a process fails, and ValueError for what a method refuses.
    """
    with Ranks(n, BenchRank, limit_s=_CALL_LIMIT_S) as ranks:
        for d in sizes:
            ranks.call("set_up", d=d, momentum=momentum)
            place: dict[str, str | int | float] = {"workers": n, "parameters": d}
            listen(f"{n} processes, {d:,} parameters: DistributedDataParallel")
            yield from _dense_rows(ranks, place, repeats)
            for method in methods:
                listen(f"{n} processes, {d:,} parameters: {method}")
                yield _row_of(ranks, place, method, settings.get(method, {}), repeats)


def in_turns(
    ranks: Ranks, names: Sequence[str], repeats: int, *, limit_s: float = LIMIT_S
) -> tuple[Seconds, list[dict[str, dict[str, float]]]]:
    """Seconds of each contender, and each rank's sums of phases over all turns.

    Fewer turns than `repeats`, but three at least, where they would take longer than `limit_s`.
    """
    took_s = max(ranks.call("warm_up", names=list(names)))
    turns = min(repeats, max(_MIN_REPEATS, int(limit_s / took_s)))
    answers = ranks.call("measure", repeats=turns, names=list(names))
    seconds = {
        name: [max(times) for times in zip(*(answer["seconds"][name] for answer in answers), strict=True)]
        for name in names
    }
    return seconds, [answer["phases"] for answer in answers]


def without_computing(seconds: Seconds, hook: str) -> list[float]:
    """DDP's exchange and update: in one turn both computed the same forward and backward."""
    return [total_s - alone for total_s, alone in zip(seconds[hook], seconds[f"{hook} no_sync"], strict=True)]


def _dense_rows(ranks: Ranks, place: Mapping[str, str | int | float], repeats: int) -> Iterator[Measurement]:
    hooks = ("ddp", "ddp-fp16")
    for hook in hooks:
        ranks.call("add", name=hook)
    seconds, _ = in_turns(
        ranks, [BASE, "gathered", *(name for hook in hooks for name in (hook, f"{hook} no_sync"))], repeats
    )
    for hook in hooks:
        ranks.call("remove", name=hook)
    base_s = statistics.median(seconds[BASE])
    for hook in hooks:
        seconds[f"{hook} - no_sync"] = without_computing(seconds, hook)
    for name, taken in seconds.items():
        details = {"seconds": taken, "base_s": base_s, "layout": "allreduce", "bar": None, "phases": None}
        yield Measurement(name={**place, "step": name}, unit="times", samples=over(taken, base_s), details=details)


def _row_of(
    ranks: Ranks, place: Mapping[str, str | int | float], method: str, settings: Mapping[str, str], repeats: int
) -> Measurement:
    layout = ranks.call("add", name=method, settings=dict(settings))[0]
    seconds, phases = in_turns(ranks, [BASE, method], repeats)
    ranks.call("remove", name=method)
    base_s, turns = statistics.median(seconds[BASE]), len(seconds[method])
    sums = [rank[method] for rank in phases]
    details = {
        "seconds": seconds[method], "base_s": base_s, "layout": layout,
        "bar": _BARS.get(method) if place["parameters"] == _BARS_D else None,
        # Of one step, a mean over ranks and turns: where the time goes, apart from the waiting for each other.
        "phases": {key: statistics.fmean(rank[key] for rank in sums) / turns for key in sums[0]},
    }  # fmt: skip
    return Measurement(
        name={**place, "step": method}, unit="times", samples=over(seconds[method], base_s), details=details
    )
