"""The table that compares several runs."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from laconic.gossip.mixing import Mixing
from laconic.lab.runs.record import Record
from laconic.units import bytes_text


def comparison(records: Sequence[Record]) -> Table:
    """Return a table of test accuracy, bytes up and down, rounds, skips and seconds of each run.

    Bytes are wire bytes of all workers. Behind either column of bytes stands the ratio of the first run's over this
    run's. Skips are those of the workers / of the server. `note_on` explains all this.
    """
    settings = records[0].settings
    table = Table(
        title=f"{settings.dataset}, {settings.model} of {records[0].spec.d:,} parameters, {settings.workers} "
        f"workers, "
        f"{settings.driver}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    for column in ("algorithm", "layout"):
        table.add_column(column, no_wrap=True)
    for column in ("accuracy", "up", "ratio", "down", "ratio", "rounds", "skips", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    for record in records:
        traffic = record.traffic
        bytes_and_ratios = []
        for direction in ("up", "down"):
            of_reference, sent = (getattr(each.traffic, direction).wire_bytes for each in (records[0], record))
            bytes_and_ratios += [bytes_text(sent), f"{of_reference / sent:.1f}" if sent else "-"]
        table.add_row(
            record.settings.algorithm,
            record.layout,
            f"{record.last.test_accuracy:.2%}",
            *bytes_and_ratios,
            str(traffic.rounds),
            f"{traffic.up.skips}/{traffic.down.skips // record.settings.workers}",
            f"{record.last.seconds:.1f}",
        )
    return table


def note_on(records: Sequence[Record]) -> str:
    """Return one line on what the columns of bytes count, and whose bytes the ratios are over."""
    reference = records[0].settings.algorithm
    local = sum(record.traffic.up.local_bytes + record.traffic.down.local_bytes for record in records)
    own = "; a worker that also serves sends itself nothing over a link" if local else ""
    return (
        f"up, down: bytes that crossed links, of all workers{own}; ratio: those of {reference}, the first method, over "
        "the method's"
    )


def own_models(record: Record) -> str:
    """Return one line on the workers' own models: their final accuracies and consensus distance."""
    last, algorithm = record.last, record.settings.method
    graph = getattr(algorithm, "graph", None)
    gap = f", spectral gap {Mixing.over_cycle(graph, record.settings.workers).spectral_gap:.3g}" if graph else ""
    return (
        f"{record.settings.algorithm}: accuracy is of the mean model; workers' own: {last.own_accuracy_lowest:.2%} to "
        f"{last.own_accuracy_highest:.2%}, mean {last.own_accuracy_mean:.2%}; consensus distance "
        f"{last.consensus_distance:.3g}{gap}"
    )
