"""`laconic timeline`: draw when each machine sends, receives and computes."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from laconic.cli.flags import with_flags
from laconic.cli.invocation import is_quiet
from laconic.cli.json_output import JsonOutput, json_option, json_output
from laconic.errors import Named, OptionError, option_named
from laconic.hyperparameters import near_misses
from laconic.lab.defaults import PICTURE_ENDINGS
from laconic.lab.options import OptionGroup, file_of_kind, option
from laconic.lab.outputs import OutputFile, output_file
from laconic.report.terminal import drawing_width, terminal
from laconic.report.visible import visible
from laconic.units import bandwidth, duration, duration_or_zero, size

if TYPE_CHECKING:
    from laconic.report.timeline.bars import Timeline
    from laconic.report.timeline.named import Settings

_OF_A_RUN = ("rounds", "from_round")
_OF_A_FILE = ("latency", "bandwidth")


def _times(text: str) -> tuple[float, ...]:
    return tuple(duration_or_zero(word) for word in text.split(","))


@dataclass(frozen=True, kw_only=True)
class PictureOptions(OptionGroup):
    """What is drawn: the machines, their links and their rounds."""

    workers: int | None = option(None, "The number of workers, without the server.", within="[1, 2048]", unit="workers")
    latency: str | None = option(
        None, "The latency of each message, such as 10ms; 0 for none.", metavar="TIME", reads=duration_or_zero
    )
    transfer: str | None = option(
        None, "The transfer time of the full vector, without latency, such as 360ms.", metavar="TIME", reads=duration
    )
    size: str | None = option(None, "The size of the vector, such as 45MB.", metavar="BYTES", reads=size)
    bandwidth: str | None = option(
        None, "The bandwidth of each link, such as 100Mbit.", metavar="BANDWIDTH", reads=bandwidth
    )
    compute: str | None = option(
        None, "The time of a gradient, such as 50ms, or one time per worker, such as 4s,4s,20s.", metavar="TIMES",
        reads=_times,
    )  # fmt: skip
    rounds: int | None = option(
        None, "The number of training rounds to draw, planned or of a recorded run.", within="[1, inf)", unit="rounds"
    )
    from_round: int | None = option(
        None, "The first round of a recorded run to draw.", within="[0, inf)", unit="round", shown="in its middle"
    )

    def given(self) -> list[str]:
        """Return the names of the options that are given."""
        return [name for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True, kw_only=True)
class TimelineOptions(OptionGroup):
    """Which timeline is drawn, and where to."""

    name: str | None = option(
        None, "A timeline that --list names, or the folder of a run with --record-times. Without it, lists all.",
        metavar="NAME|FOLDER", positional=True,
    )  # fmt: skip
    message_schedule: Path | None = option(
        None, "Draw the messages of this JSON file instead of a named timeline.", metavar="FILE"
    )
    out: tuple[Path, ...] = option(
        (), "The .png, .svg, .pdf or .html file to write. Can be given several times.", metavar="FILE",
        reads=file_of_kind(*PICTURE_ENDINGS, ".html"),
    )  # fmt: skip
    json: Path | None = json_option()
    list: bool = option(False, "List the timelines and exit.")


@with_flags(PictureOptions, TimelineOptions, alone=True)
def timeline(context: typer.Context, picture: PictureOptions, options: TimelineOptions) -> None:
    """Draw when each machine sends, receives and computes, on links that you describe or in a recorded run."""
    if options.list or (options.name is None and options.message_schedule is None):
        with json_output(options.json) as figures:
            _list(figures, notes=not is_quiet(context))
        return
    with ExitStack() as stack:
        figures = stack.enter_context(json_output(options.json))
        files = [stack.enter_context(output_file(path, option="out")) for path in options.out]
        timeline = _timeline(options, picture)
        for file in files:
            _write(timeline, file)
            if not is_quiet(context):
                figures.console.print(f"wrote {visible(str(file.path))}", soft_wrap=True)
        written = figures.write(timeline.as_data())
        if written and not is_quiet(context):
            figures.console.print(written, soft_wrap=True)
    if not options.out and not figures.in_place_of_tables:
        from laconic.report.timeline.bars import in_letters

        console = terminal()
        console.print(in_letters(timeline, drawing_width(console), ascii_only=console.options.ascii_only))


def _timeline(options: TimelineOptions, picture: PictureOptions) -> "Timeline":
    from laconic.report.timeline.named import NAMED, draw_named

    name = options.name
    if options.message_schedule is not None:
        if name is not None:
            raise OptionError(
                f"give a name ({name}) or ", Named("message_schedule", options.message_schedule), ", not both"
            )
        return _of_file(options.message_schedule, picture)
    assert name is not None
    if name not in NAMED and Path(name).is_dir():
        return _of_run(Path(name), picture)
    if picture.from_round is not None:
        raise OptionError(Named("from_round", picture.from_round), " is for the folder of a recorded run; leave it out")
    return draw_named(name, _settings(name, picture))


def _of_run(folder: Path, picture: PictureOptions) -> "Timeline":
    from laconic.report.timeline.recorded import ROUNDS_SHOWN, draw_run

    for option_name in picture.given():
        if option_name not in _OF_A_RUN:
            raise OptionError(Named(option_name), f": the recorded run in {folder} sets this; leave it out")
    return draw_run(folder, from_round=picture.from_round, n_rounds=picture.rounds or ROUNDS_SHOWN)


def _list(figures: JsonOutput, *, notes: bool) -> None:
    from laconic.report.timeline.named import NAMED

    listing = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("timeline", "what it shows", "source"):
        listing.add_column(column, no_wrap=column == "timeline")
    for name, named in NAMED.items():
        listing.add_row(name, named.about, named.source)
    console = figures.console
    written = figures.write(
        [{"name": name, "about": named.about, "source": named.source} for name, named in NAMED.items()]
    )
    console.print(listing)
    if written and notes:
        console.print(written, soft_wrap=True)
    console.print(
        "Sources are sections and figures of Liu and Zhang, 2020. --message-schedule FILE draws your own messages."
    )


def _settings(name: str, picture: PictureOptions) -> "Settings":
    from laconic.report.timeline.named import NAMED

    if name not in NAMED:
        raise OptionError(
            f"there is no timeline {name!r}, and no folder of that name with a recorded run; ", Named("list", True),
            f" names the timelines{near_misses(name, list(NAMED))}",
        )  # fmt: skip
    named = NAMED[name]
    settings = named.settings
    if named.fixed:
        for fixed in ("workers", "compute", "rounds"):
            if getattr(picture, fixed) is not None:
                raise OptionError(
                    Named(fixed), f": {name} is one example with {settings.workers} machines; leave it out"
                )
    if picture.transfer is not None and picture.bandwidth is not None:
        raise OptionError(Named("transfer"), " and ", Named("bandwidth"), " exclude each other; give one of them")
    workers = picture.workers or settings.workers
    n_bytes = settings.n_bytes if picture.size is None else size(picture.size)
    bytes_per_s = settings.bytes_per_s if picture.bandwidth is None else bandwidth(picture.bandwidth)
    if picture.transfer is not None:
        bytes_per_s = n_bytes / duration(picture.transfer)
    elif picture.bandwidth is None and picture.size is not None:
        raise OptionError(
            Named("size"), " needs ", Named("bandwidth"), " BANDWIDTH or ", Named("transfer"), " TIME too"
        )
    return replace(
        settings,
        workers=workers,
        rounds=picture.rounds or settings.rounds,
        n_bytes=n_bytes,
        bytes_per_s=bytes_per_s,
        latency_s=settings.latency_s if picture.latency is None else duration_or_zero(picture.latency),
        compute_s=_compute(picture.compute, settings.compute_s, workers),
    )


def _compute(text: str | None, default: tuple[float, ...], workers: int) -> tuple[float, ...]:
    times = default if text is None else _times(text)
    if len(times) > 1 and len(times) != workers:
        if text is None:
            raise OptionError(
                Named("workers", workers), f": this timeline has compute times for {len(times)} workers; give ",
                Named("compute"), " too",
            )  # fmt: skip
        raise OptionError(
            Named("compute"), f" has {len(times)} times; give one for all {workers} workers, or one for each"
        )
    return times


def _of_file(path: Path, picture: PictureOptions) -> "Timeline":
    from laconic.network import Link, read_message_schedule
    from laconic.report.timeline.named import draw_message_schedule

    for option_name in picture.given():
        if option_name not in _OF_A_FILE:
            raise OptionError(Named(option_name), ": the message schedule of the file sets this; leave it out")
    if picture.bandwidth is None:
        raise OptionError(Named("message_schedule"), " needs ", Named("bandwidth"), " BANDWIDTH, such as 1Gbit")
    link = Link(bytes_per_s=bandwidth(picture.bandwidth), latency_s=duration_or_zero(picture.latency or "0"))
    with option_named("message_schedule", path):
        steps = read_message_schedule(path)
    return draw_message_schedule(str(path), steps, link)


def _write(timeline: "Timeline", file: OutputFile) -> None:
    ending = file.path.suffix.lower()
    if ending == ".html":
        from laconic.report.timeline.page import timeline_page

        file.write_text(timeline_page(timeline))
        return
    from laconic.report.timeline.picture import draw_timeline  # here, since matplotlib takes a second and a half

    file.write_bytes(draw_timeline(timeline, ending))
