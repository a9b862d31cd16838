"""Times the simulator against a bare loop with the same gradients, and the schedule engine."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from laconic.bench.measure import Measurement, in_turns, over, seconds_of
from laconic.lab.algorithms import make_algorithm
from laconic.lab.models import build
from laconic.network import Clock, Link, Network, ring, simulate
from laconic.training.simulation import Simulation

LIMIT_S = 60.0  # of one method's rounds
_INPUT_SHAPE, _CLASSES = (1, 28, 28), 10  # MNIST's; with them the mlp has 407,050 parameters
_LR = 0.01
_BARS = {10: 1.6, 32: 1.3}  # by batch size, of the methods below
_WITH_BAR = ("compskip", "ssgd-mv")
_RING_BYTES = 44_695_848  # ResNet-18's gradient


def measure_simulation(
    methods: Sequence[str],
    workers: int,
    batches: Sequence[int],
    repeats: int,
    *,
    settings: Mapping[str, Mapping[str, str]],
    side_by_side: int = 1,
    listen: Callable[[str], None] = lambda what: None,
) -> Iterator[Measurement]:
    """Time rounds of each method in turns with a bare loop on one thread, on random images of MNIST's shape.

    Args:
        methods: The methods.
        workers: The number of workers.
        batches: Batch sizes per worker. The cost beyond the gradients does not depend on them.
        repeats: The number of turns.
        settings: Hyper-parameters by method.
        side_by_side: The number of threads for the gradients of a simulation.
        listen: Gets the name of each case before it is measured.

    Yields:
        For each method and batch size, the times over the bare loop's.

    Raises:
        ValueError: A method refuses its hyper-parameters, the number of workers, or gradients side by side.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for method, batch in product(methods, batches):
            listen(f"{method}, batches of {batch}")
            yield _row_of(method, dict(settings.get(method, {})), workers, batch, repeats, side_by_side)
    finally:
        torch.set_num_threads(before)


def _row_of(
    method: str, settings: Mapping[str, str], workers: int, batch: int, repeats: int, side_by_side: int
) -> Measurement:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(workers, batch, *_INPUT_SHAPE, generator=random)
    labels = torch.randint(_CLASSES, (workers, batch), generator=random)
    bare, model = (build("mlp", _INPUT_SHAPE, _CLASSES, seed=0) for _ in range(2))
    inner = torch.optim.SGD(model.parameters(), lr=_LR)
    simulation = Simulation(
        model, inner, make_algorithm(method, settings), workers=workers, lr="kept", side_by_side=side_by_side
    )

    def loss_of(model: torch.nn.Module, rank: int) -> Tensor:
        return cross_entropy(model(inputs[rank]), labels[rank])

    def gradients() -> None:
        for rank in range(workers):
            bare.zero_grad()
            loss_of(bare, rank).backward()  # type: ignore[no-untyped-call]

    calls = {"bare": gradients, "simulation": lambda: simulation.step(lambda rank: loss_of(model, rank))}
    seconds = in_turns(calls, repeats, limit_s=LIMIT_S)
    bare_s = statistics.median(seconds["bare"])
    return Measurement(
        name={"simulation": method, "workers": workers, "batch": batch}, unit="times",
        samples=over(seconds["simulation"], bare_s),
        details={
            "bare_s": bare_s, "seconds": list(seconds["simulation"]), "bare_seconds": list(seconds["bare"]),
            "rounds_per_s": 1 / statistics.median(seconds["simulation"]), "bare_rounds_per_s": 1 / bare_s,
            "parameters": simulation.flat.d, "bar": _BARS.get(batch) if method in _WITH_BAR else None,
        },
    )  # fmt: skip


def measure_events(
    workers: int, repeats: int, *, listen: Callable[[str], None] = lambda what: None
) -> Iterator[Measurement]:
    """Time the schedule engine on the messages of a ring all-reduce.

    Yields:
        A row for the first call, which also loads or compiles the machine code, and a row for later calls.
    """
    listen(f"a ring of {workers:,}")
    message_schedule = ring(workers, _RING_BYTES)

    def run() -> None:
        simulate(message_schedule, Network(workers, Link(bytes_per_s=125e6, latency_s=1e-4), Clock()))

    cold = (seconds_of(run),)
    for name, taken in (("ring, first call", cold), ("ring, warm", in_turns({"": run}, repeats)[""])):
        yield Measurement(
            name={"simulation": name, "workers": workers, "batch": 0}, unit="s", samples=taken,
            details={"messages": len(message_schedule),
                "events_per_s": len(message_schedule) / statistics.median(taken)},
        )  # fmt: skip
