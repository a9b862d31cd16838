"""`laconic plan`: which method and layout a network favors, and when plain all-reduce is best."""

import json
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from laconic.cli.flags import with_flags
from laconic.errors import Named, OptionError
from laconic.lab.algorithms import algorithm_names, make_algorithm, settings_by_name
from laconic.lab.atomic import write_bytes
from laconic.lab.defaults import MAX_PLANNED_WORKERS, MAX_VECTOR, MODEL_NAMES, PICTURE_ENDINGS
from laconic.lab.options import (
    OptionGroup,
    file_to_write,
    hyperparameters_by_name,
    listed,
    option,
)
from laconic.report.terminal import terminal
from laconic.units import bandwidth, duration_or_zero

if TYPE_CHECKING:
    from laconic.contract import Algorithm
    from laconic.network import Link
    from laconic.planning.plan import Plan, Query

_COUNT = re.compile(r"(\d{1,15}(?:\.\d{0,15})?)\s*([kKmMgGbB]?)", re.ASCII)
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_OF_ONE_RUN = (
    "params",
    "model",
    "input_shape",
    "workers",
    "set",
    "local_steps",
    "methods",
)  # a recorded run has its own


def _count(text: str) -> int:
    """Parse a number of parameters, such as 25600000, 25.6M or 7B."""
    match = _COUNT.fullmatch(text.strip())
    count = Fraction(match[1]) * _THOUSANDS[match[2].lower()] if match else Fraction(0)
    if count < 1 or count.denominator != 1:
        raise ValueError("must be a whole number above 0, such as 25.6M or 25557032")
    if count > MAX_VECTOR:
        raise ValueError(f"must be in 1 .. {MAX_VECTOR}, the range of one frame")
    return int(count)


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(word) for word in re.split("[x,]", text))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or math.prod(shape) > MAX_VECTOR:
        raise ValueError("must be sizes above 0 with x between them, such as 1x28x28")
    return shape


@dataclass(frozen=True, kw_only=True)
class PlanOptions(OptionGroup):
    """The options of `laconic plan`."""

    methods: tuple[str, ...] = option(
        (), "Methods: names that `laconic list` prints.", positional=True, shown="all of them", names="methods"
    )
    params: str | None = option(
        None, "The number of parameters of the model, such as 25.6M.", metavar="COUNT", reads=_count
    )
    model: str | None = option(None, f"A model in place of --params: {listed(MODEL_NAMES)}.", choices=MODEL_NAMES)
    input_shape: str | None = option(
        None, "The shape of one input of --model, such as 1x28x28.", metavar="SHAPE", reads=_shape
    )
    classes: int = option(10, "The number of classes of --model.", within="[2, inf)", unit="classes")
    workers: int | None = option(
        None, "The number of workers, without a dedicated server.", within=f"[2, {MAX_PLANNED_WORKERS}]",
        unit="workers",
    )  # fmt: skip
    bandwidth: str | None = option(
        None, "The bandwidth of each link, such as 1Gbit.", metavar="BANDWIDTH", reads=bandwidth
    )
    latency: str | None = option(
        None, "The latency of each message, such as 20ms.", metavar="TIME", reads=duration_or_zero
    )
    compute: str | None = option(
        None, "The time of one gradient, such as 0.2s.", metavar="TIME", reads=duration_or_zero
    )
    local_steps: int | None = option(
        None, "The number of local steps per exchange, for methods that take changes.", within="[1, inf)",
        unit="steps", metavar="H", shown="1", hint="1 exchanges after every step",
    )  # fmt: skip
    set: dict[str, str] = hyperparameters_by_name()
    no_measure: bool = option(False, "Do not measure encoding and decoding; count them as no time.")
    trace: Path | None = option(
        None, "Time a run that `laconic run --out FOLDER` recorded, instead of a planned one.", metavar="FOLDER"
    )
    json: Path | None = option(
        None, "The file to write all figures to, as JSON; - prints them.", metavar="FILE", reads=file_to_write()
    )
    plot: Path | None = option(
        None, "The .png, .svg or .pdf file to draw step times over bandwidth to.", metavar="FILE",
        reads=file_to_write(*PICTURE_ENDINGS),
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the options, and that they fit each other.

        Raises:
            OptionError: They do not.
        """
        super().__post_init__()
        if self.bandwidth is None:
            raise OptionError(Named("bandwidth"), " is missing: give the bandwidth of each link, such as 1Gbit")
        if self.trace is not None:
            for name in _OF_ONE_RUN:
                if getattr(self, name):
                    named = self.methods[0] if name == "methods" else Named(name)
                    raise OptionError(
                        named, ": the recorded run in ", Named("trace", self.trace), " sets this; leave it out"
                    )
            return
        if (self.params is None) == (self.model is None):
            raise OptionError(
                "give ", Named("params"), " COUNT, such as 25.6M, or ", Named("model"), " NAME with ",
                Named("input_shape"), ", and not both",
            )  # fmt: skip
        if self.workers is None:
            raise OptionError(Named("workers"), " is missing: give the number of workers")
        if self.model is not None and self.input_shape is None:
            raise OptionError(Named("model"), " needs ", Named("input_shape"), " SHAPE, such as 1x28x28 or 784")
        if self.model is None and self.input_shape is not None:
            raise OptionError(
                Named("input_shape"), " is for ", Named("model"), "; ", Named("params"), " is the size already"
            )

    @property
    def compute_s(self) -> float | None:
        """Seconds of one gradient; None if not given."""
        return None if self.compute is None else duration_or_zero(self.compute)

    @property
    def link(self) -> "Link":
        """The link of every node."""
        from laconic.network import Link

        assert self.bandwidth is not None
        return Link(bytes_per_s=bandwidth(self.bandwidth), latency_s=duration_or_zero(self.latency or "0"))


@with_flags(PlanOptions)
def plan(context: typer.Context, options: PlanOptions) -> None:
    """Predict step times on a network: which method and layout is fastest, and when plain all-reduce is."""
    import torch

    from laconic.planning.plan import candidates_of, judge

    torch.set_num_threads(1)
    console = terminal(stderr=True)
    measured = not options.no_measure
    with console.status("measuring") as status:
        if options.trace is not None:
            answer = _of_runs(options, options.trace)
        else:
            names = algorithm_names(options.methods)
            settings = settings_by_name(names, options.set)
            algorithms = {name: make_algorithm(name, settings[name]) for name in names}
            left_out = _without_shapes(algorithms, options)
            query = _query(options)

            def listen(what: str) -> None:
                status.update(Text(f"measuring {what}"))

            candidates = list(candidates_of(algorithms, query, measure=measured, listen=listen))
            status.update("timing")
            answer = judge(candidates, query, measured=measured)
            if left_out:
                console.print(f"left out, since --params says no shapes and --model does: {', '.join(left_out)}")
    _show(answer, options.json, options.plot)


def _without_shapes(algorithms: "dict[str, Algorithm]", options: PlanOptions) -> list[str]:
    """Remove the methods that need the shapes of parameters where only their number is known, and return their names.

    Raises:
        OptionError: Such a method was named.
    """
    needing = [name for name, algorithm in algorithms.items() if algorithm.needs_shapes and options.model is None]
    for name in needing:
        if name in options.methods:
            raise OptionError(
                f"{name}: what it sends depends on the shapes of the parameters, and ", Named("params"),
                " is only their number; give ", Named("model"), " NAME with ", Named("input_shape"), ", or ",
                Named("trace"), " FOLDER of a run",
            )  # fmt: skip
        del algorithms[name]
    return needing


def _query(options: PlanOptions) -> "Query":
    from laconic.contract import ModelSpec
    from laconic.lab.models import build, spec_of
    from laconic.planning.plan import Query

    if options.model is not None:
        spec = spec_of(build(options.model, _shape(options.input_shape or ""), options.classes, 0))
    else:
        spec = ModelSpec.of_sizes(_count(options.params or ""))
    return Query(
        spec=spec, n_workers=options.workers or 0, link=options.link, compute_s=options.compute_s or 0.0,
        local_steps=options.local_steps or 1,
    )  # fmt: skip


def _of_runs(options: PlanOptions, folder: Path) -> "Plan":
    from laconic.planning.plan import judge
    from laconic.planning.recorded import read_recorded

    runs = read_recorded(folder)
    queries = [run.query(options.link, options.compute_s) for run in runs]
    for run, query in zip(runs, queries, strict=True):
        if query != queries[0]:
            raise OptionError(
                Named("trace", folder),
                f": {runs[0].settings.algorithm} and {run.settings.algorithm} ran with another model, number of "
                "workers or compute time; give the folder of one of them",
            )
    measure = not options.no_measure
    candidates = [run.candidate(query, measure=measure) for run, query in zip(runs, queries, strict=True)]
    return judge(candidates, queries[0], measured=measure)


def _show(answer: "Plan", file: Path | None, plot: Path | None) -> None:
    from laconic.planning.break_even import ladder
    from laconic.report.plan import plan_notes, plan_table, plan_title

    if plot is not None:
        from laconic.report.plan_picture import draw_plan  # here, since matplotlib takes a second and a half to load

        here = answer.query.link.bytes_per_s
        bandwidths = [bandwidth for bandwidth in ladder() if here / 1000 <= bandwidth <= 1000 * here]
        write_bytes(plot, draw_plan(answer, bandwidths, plot.suffix))
    console = terminal()
    text = json.dumps(answer.as_data(), indent=2)
    if file == Path("-"):
        typer.echo(text)
        return
    console.print(plan_title(answer), style="italic")
    console.print(plan_table(answer))
    for note in plan_notes(answer):
        console.print(note)
    if file is not None:
        file.write_text(text + "\n")
    for path in (file, plot):
        if path is not None:
            console.print(f"wrote {path}", soft_wrap=True)
