"""`laconic plan`: which method and layout a network favors, and when plain all-reduce is best."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from laconic.cli.train import pairs
from laconic.hyperparameters import from_text, near_misses
from laconic.units import bandwidth, duration

if TYPE_CHECKING:
    from laconic.contract import Algorithm
    from laconic.network import Link
    from laconic.planning.plan import Plan, Query

_COUNT = re.compile(r"(\d{1,15}(?:\.\d{0,15})?)\s*([kKmMgGbB]?)", re.ASCII)
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_ONE_RUN = (
    "--params",
    "--model",
    "--input-shape",
    "--workers",
    "--set",
    "--local-steps",
)  # a recorded run has its own values of these


def plan(
    methods: Annotated[
        list[str] | None, typer.Argument(help="Methods: names that `laconic list` prints.", show_default="all of them")
    ] = None,
    params: Annotated[
        str | None, typer.Option(metavar="COUNT", help="The number of parameters of the model, such as 25.6M.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model in place of --params: linear, mlp or cnn.")] = None,
    input_shape: Annotated[
        str | None, typer.Option(metavar="SHAPE", help="The shape of one input of --model, such as 1x28x28.")
    ] = None,
    classes: Annotated[int, typer.Option(help="The number of classes of --model.")] = 10,
    workers: Annotated[int | None, typer.Option(help="The number of workers, without a dedicated server.")] = None,
    bandwidth_: Annotated[
        str | None, typer.Option("--bandwidth", metavar="BANDWIDTH", help="The bandwidth of each link, such as 1Gbit.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="The latency of each message, such as 20ms.")
    ] = None,
    compute: Annotated[str | None, typer.Option(metavar="TIME", help="The time of one gradient, such as 0.2s.")] = None,
    local_steps: Annotated[
        int | None,
        typer.Option(
            metavar="H", help="The number of local steps per exchange, for methods that take changes.", show_default="1"
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME.KEY=VALUE", help="Set one hyper-parameter of one method. Can be given several times."
        ),
    ] = None,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Do not measure encoding and decoding; count them as no time.")
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Time a run that `laconic run --out FOLDER` recorded, instead of a planned one."
        ),
    ] = None,
    json_: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="The file to write all figures to, as JSON; - prints them."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The .png file to draw step times over bandwidth to.")
    ] = None,
) -> None:
    """Predict step times on a network: which method and layout is fastest, and when plain all-reduce is."""
    import torch

    from laconic.network import Link
    from laconic.planning.plan import candidates_of, judge

    _check_files(json_, plot)
    if bandwidth_ is None:
        raise ValueError("--bandwidth is missing: give the bandwidth of each link, such as 1Gbit")
    link = Link(bytes_per_s=_read("--bandwidth", bandwidth, bandwidth_), latency_s=_time("--latency", latency))
    asked = dict(zip(_ONE_RUN, (params, model, input_shape, workers, set_ or None, local_steps), strict=True))
    torch.set_num_threads(1)
    console = Console(stderr=True)
    with console.status("measuring") as status:
        if trace is not None:
            answer = _of_runs(trace, link, compute, asked, methods or (), measure=not no_measure)
        else:
            algorithms = _algorithms(methods or (), pairs(set_))
            query = _query(asked, classes, link, compute, 1 if local_steps is None else local_steps)

            def listen(what: str) -> None:
                status.update(f"measuring {what}")

            measured = not no_measure
            candidates = list(candidates_of(algorithms, query, measure=measured, listen=listen))
            status.update("timing")
            answer = judge(candidates, query, measured=measured)
    _show(answer, json_, plot)


def _query(asked: dict[str, Any], classes: int, link: Link, compute: str | None, local_steps: int) -> Query:
    from laconic.contract import ModelSpec
    from laconic.lab.models import build, spec_of
    from laconic.planning.plan import Query

    params, model, shape, workers = (asked[option] for option in _ONE_RUN[:4])
    if (params is None) == (model is None):
        raise ValueError("give --params COUNT, such as 25.6M, or --model NAME with --input-shape, and not both")
    if workers is None:
        raise ValueError("--workers is missing: give the number of workers")
    if model is not None:
        spec = spec_of(build(model, _shape(shape), classes, 0))
    elif shape is not None:
        raise ValueError("--input-shape is for --model; --params is the size already")
    else:
        spec = ModelSpec.of_sizes(_count(params))
    return Query(
        spec=spec, n_workers=workers, link=link, compute_s=_time("--compute", compute), local_steps=local_steps,
    )  # fmt: skip


def _of_runs(
    folder: Path, link: Link, compute: str | None, asked: dict[str, Any], methods: Sequence[str], *, measure: bool
) -> Plan:
    from laconic.planning.plan import judge
    from laconic.planning.recorded import read_recorded

    for option, value in asked.items():
        if value is not None:
            raise ValueError(f"{option}: the recorded run in --trace {folder} sets this; leave it out")
    if methods:
        raise ValueError(f"{methods[0]}: the recorded run in --trace {folder} sets the method; leave it out")
    runs = read_recorded(folder)
    compute_s = None if compute is None else _time("--compute", compute)
    queries = [run.query(link, compute_s) for run in runs]
    for run, query in zip(runs, queries, strict=True):
        if query != queries[0]:
            raise ValueError(
                f"--trace {folder}: {runs[0].settings.algorithm} and {run.settings.algorithm} ran with another model, "
                "number of workers or compute time; give the folder of one of them"
            )
    candidates = [run.candidate(query, measure=measure) for run, query in zip(runs, queries, strict=True)]
    return judge(candidates, queries[0], measured=measure)


def _algorithms(names: Sequence[str], settings: dict[str, str]) -> dict[str, Algorithm]:
    """Return the named methods with their settings, or all methods if none is named."""
    from laconic.contract import ALGORITHMS

    known = sorted(ALGORITHMS)
    chosen = list(dict.fromkeys(names)) or known
    for name in chosen:
        if name not in known:
            raise ValueError(f"unknown algorithm {name!r}; known: {', '.join(known)}{near_misses(name, known)}")
    by_name: dict[str, dict[str, str]] = {name: {} for name in chosen}
    for key, value in settings.items():
        name, _, rest = key.partition(".")
        if name not in by_name:
            raise ValueError(
                f"--set {name}: not among the methods planned; keys start with the name, such as "
                f"{chosen[0]}.KEY=VALUE{near_misses(name, chosen)}"
            )
        by_name[name][rest] = value
    return {name: from_text(ALGORITHMS[name], of_method, name) for name, of_method in by_name.items()}


def _show(answer: Plan, file: Path | None, plot: Path | None) -> None:
    from laconic.planning.break_even import ladder
    from laconic.report.plan import plan_notes, plan_table, plan_title

    if plot is not None:
        from laconic.report.plan_picture import draw_plan  # here, since matplotlib takes a second and a half to load

        here = answer.query.link.bytes_per_s
        draw_plan(answer, [bandwidth for bandwidth in ladder() if here / 1000 <= bandwidth <= 1000 * here], plot)
    console = Console()
    text = json.dumps(answer.as_data(), indent=2)
    if file == Path("-"):
        typer.echo(text)
        return
    console.print(plan_title(answer), style="italic", highlight=False)
    console.print(plan_table(answer), highlight=False)
    for note in plan_notes(answer):
        console.print(note, highlight=False, markup=False)
    if file is not None:
        file.write_text(text + "\n")
    for path in (file, plot):
        if path is not None:
            console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)


def _check_files(file: Path | None, plot: Path | None) -> None:
    if plot is not None and plot.suffix != ".png":
        raise ValueError(f"--plot {plot}: the file must end in .png")
    for option, path in (("--json", file), ("--plot", plot)):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"{option} {path}: there is no folder {path.parent}; make it, or write elsewhere")


def _read(option: str, read: Any, text: str) -> Any:  # noqa: ANN401
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _time(option: str, text: str | None) -> float:
    """Return a time in seconds: 0.0 if none or 0 is given."""
    if text is None or text.strip() in ("0", "0s", "0ms"):
        return 0.0
    return float(_read(option, duration, text))


def _count(text: str) -> int:
    """Parse a number of parameters, such as 25600000, 25.6M or 7B."""
    match = _COUNT.fullmatch(text.strip())
    count = Fraction(match[1]) * _THOUSANDS[match[2].lower()] if match else Fraction(0)
    if count < 1 or count.denominator != 1:
        raise ValueError(f"--params {text!r} must be a whole number above 0, such as 25.6M or 25557032")
    return int(count)


def _shape(text: str | None) -> tuple[int, ...]:
    if text is None:
        raise ValueError("--model needs --input-shape SHAPE, such as 1x28x28 or 784")
    try:
        shape = tuple(int(word) for word in re.split("[x,]", text))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or math.prod(shape) > 2**32:
        raise ValueError(f"--input-shape {text!r} must be sizes above 0 with x between them, such as 1x28x28")
    return shape
