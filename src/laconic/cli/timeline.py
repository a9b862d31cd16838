"""`laconic timeline`: draw when each machine sends, receives and computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from laconic.hyperparameters import near_misses
from laconic.units import bandwidth, duration, size

if TYPE_CHECKING:
    from laconic.report.timeline.bars import Timeline
    from laconic.report.timeline.named import Settings

_ENDINGS = (".png", ".svg", ".html")
T = TypeVar("T")


def timeline(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FOLDER]",
            help="A timeline that --list names, or the folder of a run with --record-times. Without it, lists all.",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="The number of workers, without the server.")] = None,
    latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="The latency of each message; 0 for none.")
    ] = None,
    transfer: Annotated[
        str | None, typer.Option(metavar="TIME", help="The transfer time of the full vector, without latency.")
    ] = None,
    size_: Annotated[
        str | None, typer.Option("--size", metavar="BYTES", help="The size of the vector, such as 45MB.")
    ] = None,
    bandwidth_: Annotated[
        str | None,
        typer.Option("--bandwidth", metavar="BANDWIDTH", help="The bandwidth of each link, such as 100Mbit."),
    ] = None,
    compute: Annotated[
        str | None,
        typer.Option(
            metavar="TIMES", help="The time of a gradient, such as 50ms, or one time per worker, such as 4s,4s,20s."
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="The number of training rounds to draw, planned or of a recorded run.")
    ] = None,
    from_round: Annotated[
        int | None, typer.Option(help="The first round of a recorded run to draw.", show_default="in its middle")
    ] = None,
    message_schedule: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the messages of this JSON file instead of a named timeline."),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="The .png, .svg or .html file to write. Can be given several times."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the timelines and exit.")] = False,
) -> None:
    """Draw when each machine sends, receives and computes, on links that you describe or in a recorded run."""
    if list_ or (name is None and message_schedule is None):
        _list()
        return
    _check_files(out or ())
    asked = {
        "--workers": workers, "--latency": latency, "--transfer": transfer, "--size": size_,
        "--bandwidth": bandwidth_, "--compute": compute, "--rounds": rounds, "--from-round": from_round,
    }  # fmt: skip
    timeline = _timeline(name, message_schedule, {key: value for key, value in asked.items() if value is not None})
    for path in out or ():
        _write(timeline, path)
        Console().print(f"wrote {path}", highlight=False, soft_wrap=True)
    if not out:
        from laconic.report.timeline.bars import in_letters

        console = Console()
        console.print(in_letters(timeline, console.width), highlight=False)


def _timeline(name: str | None, message_schedule: Path | None, asked: dict[str, str | int]) -> Timeline:
    from laconic.report.timeline.named import NAMED, draw_named

    if message_schedule is not None:
        if name is not None:
            raise ValueError(f"give a name ({name}) or --message-schedule {message_schedule}, not both")
        return _of_file(message_schedule, asked)
    assert name is not None
    if name not in NAMED and Path(name).is_dir():
        return _of_run(Path(name), asked)
    if "--from-round" in asked:
        raise ValueError(f"--from-round {asked['--from-round']} is for the folder of a recorded run; leave it out")
    return draw_named(name, _settings(name, asked))


def _of_run(folder: Path, asked: dict[str, str | int]) -> Timeline:
    from laconic.report.timeline.recorded import ROUNDS_SHOWN, draw_run

    for option in asked:
        if option not in ("--rounds", "--from-round"):
            raise ValueError(f"{option}: the recorded run in {folder} sets this; leave it out")
    n_rounds, begin = int(asked.get("--rounds", ROUNDS_SHOWN)), asked.get("--from-round")
    if n_rounds < 1:
        raise ValueError(f"--rounds {n_rounds} must be at least 1")
    return draw_run(folder, from_round=None if begin is None else int(begin), n_rounds=n_rounds)


def _list() -> None:
    from laconic.report.timeline.named import NAMED

    listing = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("timeline", "what it shows", "source"):
        listing.add_column(column, no_wrap=column == "timeline")
    for name, named in NAMED.items():
        listing.add_row(name, named.about, named.source)
    console = Console()
    console.print(listing)
    console.print(
        "Sources are sections and figures of Liu and Zhang, 2020. --message-schedule FILE draws your own messages."
    )


def _settings(name: str, asked: dict[str, str | int]) -> Settings:
    from laconic.report.timeline.named import NAMED

    if name not in NAMED:
        raise ValueError(
            f"timeline {name!r} is not known{near_misses(name, list(NAMED))}; --list names them all (and there is "
            "no folder of that name with a recorded run)"
        )
    named = NAMED[name]
    settings = named.settings
    if named.fixed:
        for option in ("--workers", "--compute", "--rounds"):
            if option in asked:
                raise ValueError(f"{option}: {name} is one example with {settings.workers} machines; leave it out")
    if "--transfer" in asked and "--bandwidth" in asked:
        raise ValueError("--transfer and --bandwidth exclude each other; give one of them")
    workers = int(asked.get("--workers", settings.workers))
    n_rounds = int(asked.get("--rounds", settings.rounds))
    for option, number in (("--workers", workers), ("--rounds", n_rounds)):
        if number < 1:
            raise ValueError(f"{option} {number} must be at least 1")
    n_bytes = _read("--size", asked, size, settings.n_bytes)
    bytes_per_s = _read("--bandwidth", asked, bandwidth, settings.bytes_per_s)
    if "--transfer" in asked:
        bytes_per_s = n_bytes / _read("--transfer", asked, duration, 1.0)
    elif "--bandwidth" not in asked and "--size" in asked:
        raise ValueError("--size needs --bandwidth BANDWIDTH or --transfer TIME too")
    return replace(
        settings,
        workers=workers,
        rounds=n_rounds,
        n_bytes=n_bytes,
        bytes_per_s=bytes_per_s,
        latency_s=_read("--latency", asked, _time, settings.latency_s),
        compute_s=_compute(asked, settings, workers),
    )


def _compute(asked: dict[str, str | int], settings: Settings, workers: int) -> tuple[float, ...]:
    times = _read("--compute", asked, lambda text: tuple(_time(one) for one in text.split(",")), settings.compute_s)
    if len(times) > 1 and len(times) != workers:
        if "--compute" not in asked:
            raise ValueError(
                f"--workers {workers}: this timeline has compute times for {len(times)} workers; give --compute too"
            )
        raise ValueError(f"--compute has {len(times)} times; give one for all {workers} workers, or one for each")
    return times


def _of_file(path: Path, asked: dict[str, str | int]) -> Timeline:
    from laconic.network import Link, read_message_schedule
    from laconic.report.timeline.named import draw_message_schedule

    for option in asked:
        if option not in ("--latency", "--bandwidth"):
            raise ValueError(f"{option}: the message schedule of the file sets this; leave it out")
    if "--bandwidth" not in asked:
        raise ValueError("--message-schedule needs --bandwidth BANDWIDTH, such as 1Gbit")
    bytes_per_s, latency_s = _read("--bandwidth", asked, bandwidth, 1.0), _read("--latency", asked, _time, 0.0)
    return draw_message_schedule(
        str(path), read_message_schedule(path), Link(bytes_per_s=bytes_per_s, latency_s=latency_s)
    )


def _read(option: str, asked: dict[str, str | int], read: Callable[[str], T], default: T) -> T:
    if option not in asked:
        return default
    try:
        return read(str(asked[option]))
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _time(text: str) -> float:
    return 0.0 if text.strip() in ("0", "0s", "0ms") else duration(text)


def _check_files(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.suffix not in _ENDINGS:
            raise ValueError(f"--out {path}: the ending must be one of {', '.join(_ENDINGS)}")
        if not path.parent.is_dir():
            raise ValueError(f"--out {path}: there is no folder {path.parent}; make it, or write elsewhere")


def _write(timeline: Timeline, path: Path) -> None:
    if path.suffix == ".html":
        from laconic.report.timeline.page import timeline_page

        path.write_text(timeline_page(timeline), encoding="utf-8")
        return
    from laconic.report.timeline.picture import draw_timeline  # here, since matplotlib takes a second and a half

    draw_timeline(timeline, path)
