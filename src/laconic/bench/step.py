"""Times full steps of methods in processes of this machine, against one flat all-reduce and the optimizer's step."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from laconic.bench.ddp import PEERS
from laconic.bench.measure import Measurement, over, quartiles
from laconic.bench.step_rank import BenchRank
from laconic.lab.processes.ranks import Ranks

BASE, GATHERED, DDP = "all-reduce", "gathered", "ddp"
LIMIT_S = 20.0  # of the turns of one contender
_CALL_LIMIT_S = 300.0  # of one call of the ranks
_MIN_REPEATS = 3
_COUNTED_STEPS = 12  # whole turns of the gradients, so that lazy methods skip as often as they do
_FEW_BITS = (
    "compskip", "csgd", "dist-ef", "dropsign", "ec-sgd", "signsgd-mv", "sparseloco", "ssgd-mv", "ssgd-mv-ad",
    "ssgd-mv-rs", "ssgd-topk",
)  # fmt: skip
_FEW_BITS_IF_SPARSE = ("sasg", "sparse")  # with answer="sparse"
_MORE_BITS = ("csgd-ring", "lasg", "sasg", "sgd-model", "sparse")
_SMALL_D, _LARGE_D = 407_050, (11_173_962, 25_557_032)

Seconds = dict[str, list[float]]  # by contender; the slowest rank's, by turn


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
    """Time full steps on `n` processes.

    Args:
        sizes: Numbers of parameters.
        n: The number of processes.
        methods: The methods.
        repeats: The number of turns.
        settings: Hyper-parameters by method.
        momentum: The momentum of the inner SGD of all contenders.
        listen: Gets the name of each case before it is measured.

    Yields:
        For each size, rows of the baseline, of DistributedDataParallel, and of each method.

    Raises:
        LaunchError: A process fails.
        ValueError: A method refuses its hyper-parameters.
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


def count_calls(
    sizes: Sequence[int],
    n: int,
    methods: Sequence[str],
    *,
    settings: Mapping[str, Mapping[str, str]],
    momentum: float = 0.0,
    listen: Callable[[str], None] = lambda what: None,
) -> Iterator[Measurement]:
    """Count the calls of one step on `n` processes; arguments and exceptions as for `measure_steps`, without turns.

    Yields:
        For each size a row of the baseline and of each method: the calls of each rank.
    """
    with Ranks(n, BenchRank, limit_s=_CALL_LIMIT_S) as ranks:
        for d in sizes:
            ranks.call("set_up", d=d, momentum=momentum)
            for name in (BASE, *methods):
                listen(f"{n} processes, {d:,} parameters: {name}")
                layout = "allreduce"
                if name != BASE:
                    layout = ranks.call("add", name=name, settings=dict(settings.get(name, {})))[0]
                calls = ranks.call("count_calls", name=name, steps=_COUNTED_STEPS)
                if name != BASE:
                    ranks.call("remove", name=name)
                yield Measurement(
                    name={"workers": n, "parameters": d, "step": name}, unit="calls", samples=tuple(calls),
                    details={"layout": layout, "mean": statistics.fmean(calls)},
                )  # fmt: skip


def in_turns(
    ranks: Ranks, names: Sequence[str], repeats: int, *, limit_s: float = LIMIT_S
) -> tuple[Seconds, list[dict[str, dict[str, float]]]]:
    """Time contenders in turns.

    Args:
        ranks: The processes.
        names: The contenders.
        repeats: The maximum number of turns.
        limit_s: Maximum seconds of all turns; there are at least three turns.

    Returns:
        The seconds of each contender, and each rank's sums of phases over all turns.
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
    """Return the seconds of DDP's exchange and update: its step less the forward and backward of the same turn."""
    return [total_s - alone for total_s, alone in zip(seconds[hook], seconds[f"{hook} no_sync"], strict=True)]


def _bar(method: str, place: Mapping[str, str | int | float], settings: Mapping[str, str]) -> float | None:
    """Return what a step may take at most, in times of a flat all-reduce plus step."""
    answers_few = method in _FEW_BITS_IF_SPARSE and settings.get("answer") == "sparse"
    has_few = method in _FEW_BITS or answers_few
    if place["parameters"] in _LARGE_D:
        return 1.0 if has_few else 1.3 if method in _MORE_BITS else None
    return 1.5 if (place["parameters"], place["workers"]) == (_SMALL_D, 2) and has_few else None


def _dense_rows(ranks: Ranks, place: Mapping[str, str | int | float], repeats: int) -> Iterator[Measurement]:
    hooks = tuple(PEERS)
    for hook in hooks:
        ranks.call("add", name=hook)
    seconds, _ = in_turns(
        ranks, [BASE, GATHERED, *(name for hook in hooks for name in (hook, f"{hook} no_sync"))], repeats
    )
    for name in (GATHERED, *hooks):
        if name != DDP:  # which every method is measured beside
            ranks.call("remove", name=name)
    base_s = statistics.median(seconds[BASE])
    for hook in hooks:
        seconds[f"{hook} - no_sync"] = without_computing(seconds, hook)
    for name, taken in seconds.items():
        details = {"seconds": taken, "base_s": base_s, "layout": "allreduce", "bar": None, "phases": None}
        yield Measurement(name={**place, "step": name}, unit="times", samples=over(taken, base_s), details=details)


def _row_of(
    ranks: Ranks, place: Mapping[str, str | int | float], method: str, settings: Mapping[str, str], repeats: int
) -> Measurement:
    floor = f"{method} floor"
    layout = ranks.call("add", name=method, settings=dict(settings), floor=floor)[0]
    seconds, phases = in_turns(ranks, [BASE, DDP, f"{DDP} no_sync", method, floor], repeats)
    ranks.call("remove", name=method, floor=floor)
    base_s, turns = statistics.median(seconds[BASE]), len(seconds[method])
    sums = [rank[method] for rank in phases]
    moved = [(sum_of["bytes_up"] + sum_of["bytes_down"]) / turns for sum_of in sums]
    over_floor = [ours / alone_s for ours, alone_s in zip(seconds[method], seconds[floor], strict=True)]
    details = {
        "bytes": statistics.fmean(moved), "floor_seconds": seconds[floor],
        "ddp_seconds": without_computing(seconds, DDP),
        "times_floor": statistics.median(over_floor), "times_floor_quartiles": list(quartiles(over_floor)),
        "seconds": seconds[method], "base_s": base_s, "layout": layout,
        "bar": _bar(method, place, settings),
        # Of one step: the mean over ranks and turns.
        "phases": {key: statistics.fmean(rank[key] for rank in sums) / turns for key in sums[0]},
    }  # fmt: skip
    return Measurement(
        name={**place, "step": method}, unit="times", samples=over(seconds[method], base_s), details=details
    )
