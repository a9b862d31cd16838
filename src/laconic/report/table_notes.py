"""The lines under a table of runs: which runs diverged, what each column counts, and what else there is to know."""

from collections.abc import Sequence

from laconic.gossip.mixing import Mixing
from laconic.lab.runs.measure import measure_of
from laconic.lab.runs.record import Record
from laconic.lab.runs.settings import RunSettings
from laconic.report.table import base_of, seconds_label
from laconic.report.visible import visible
from laconic.units import bytes_text

_TIMED = ("bandwidth", "latency", "compute")


def notes_on(records: Sequence[Record], *, lr_by_method: bool) -> list[str]:
    """Return the notes, those on runs that diverged first.

    Args:
        records: The rows of the table.
        lr_by_method: Whether the command takes a learning rate for each method, as `laconic compare` does.
    """
    notes = [divergence_note(record, lr_by_method=lr_by_method) for record in records if record.why_diverged]
    notes += [_aborted_note(record) for record in records if record.last.aborted_rounds and not record.why_diverged]
    notes += [_lr_note(record) for record in records if not record.why_diverged and _far_above_own(record.settings)]
    notes += [_bytes_note(records), _ratio_note(records)]
    notes += [_warm_up_note(record) for record in records if record.warm_up_rounds]
    if any(record.traffic.up.skips or record.traffic.down.skips for record in records):
        notes.append("skips: packets that the workers / the server did not send, on purpose.")
    notes.append(_seconds_note(records[0]))
    notes += [own_models(record) for record in records if record.last.consensus_distance is not None]
    for record in records:
        if record.traffic.faults:
            counted = ", ".join(f"{count} {kind}" for kind, count in sorted(record.traffic.faults.items()))
            notes.append(f"{visible(record.settings.algorithm)}: faults: {counted}")
    return notes


def divergence_note(record: Record, *, lr_by_method: bool) -> str:
    """Return why a run diverged, and what to do."""
    settings, name = record.settings, visible(record.settings.algorithm)
    aborted = f" {_aborted_share(record)} had no effect, because numbers were inf or NaN." if _aborted(record) else ""
    flag = f"--lr-of {name}=RATE" if lr_by_method else "--lr"
    own, was = settings.default_learning_rate, _learning_rate(record)
    lower = f"; the method's own is {own:g}" if was > own else ""
    return (
        f"{name} diverged: {record.why_diverged}.{aborted} Its figures are not those of a trained model. Give a lower "
        f"{flag} (it was {was:g}{lower})."
    )


def _learning_rate(record: Record) -> float:
    return record.settings.learning_rate if record.learning_rate is None else record.learning_rate


def _far_above_own(settings: RunSettings) -> bool:
    """Return whether the learning rate is probably another method's, such as plain SGD's for a method of signs."""
    return settings.lr != "theory" and settings.learning_rate >= 10 * settings.default_learning_rate


def _lr_note(record: Record) -> str:
    settings, name = record.settings, visible(record.settings.algorithm)
    return (
        f"{name}: the learning rate {settings.learning_rate:g} is far above its usual "
        f"{settings.default_learning_rate:g} (laconic show {name})."
    )


def _aborted_note(record: Record) -> str:
    were = "was" if _aborted(record) == 1 else "were"
    return (
        f"{visible(record.settings.algorithm)}: {_aborted_share(record)} {were} aborted, because a number was inf or "
        "NaN, and had no effect."
    )


def _aborted(record: Record) -> int:
    return record.last.aborted_rounds


def _aborted_share(record: Record) -> str:
    """Return how many rounds were aborted. With an asynchronous method they are gradients."""
    if record.settings.method.is_asynchronous:
        return f"{_aborted(record)} of {record.last.round * record.settings.workers} gradients"
    return f"{_aborted(record)} of {record.last.round} round{'s' * (record.last.round != 1)}"


def _bytes_note(records: Sequence[Record]) -> str:
    local = any(record.traffic.up.local_bytes or record.traffic.down.local_bytes for record in records)
    own = "; a worker that also serves sends itself nothing over a link" if local else ""
    return (
        f"up, down, total: wire bytes (frames that crossed a link, with headers) of all workers, in the whole run{own}."
    )


def _ratio_note(records: Sequence[Record]) -> str:
    bases = dict.fromkeys(base for record in records if (base := base_of(records, record)) is not None)
    if not bases:
        return "ratio: not known, since nothing says what sgd would have sent."
    how = " and ".join(f"{base.rounds} round{'s' * (base.rounds != 1)}, layout {base.layout}" for base in bases)
    local_steps = records[0].settings.local_steps
    both = f" Both take {local_steps} local steps to a round." if local_steps > 1 else ""
    return f"ratio: wire bytes of sgd over the method's, in the whole run; sgd sends dense gradients ({how}).{both}"


def _warm_up_note(record: Record) -> str:
    """Return what a warm-up sent, and how it bounds the ratio of the whole run."""
    parts, rounds = record.parts(), record.traffic.rounds
    sent, later = (
        parts[name]["up_wire_bytes"] + parts[name]["down_wire_bytes"] for name in ("warm_up", "after_warm_up")
    )
    what = "dense warm-up" if record.dense_rounds else "warm-up"
    note = (
        f"{visible(record.settings.algorithm)}: its {what}, {record.warm_up_rounds} of {rounds} rounds, sent "
        f"{bytes_text(sent)} of {bytes_text(sent + later)}."
    )
    ratio = parts["after_warm_up"]["dense_sgd_wire_bytes_over_own"]["total"]
    bound = parts["warm_up"]["bound_on_ratio"]["total"]
    if record.why_diverged or ratio is None or bound is None:
        return note
    return (
        f"{note} The total ratio of the rounds after it is {ratio:.1f}; that of the whole run stays below {bound:.1f}, "
        "however little they send."
    )


def _seconds_note(record: Record) -> str:
    label = seconds_label(record)
    if record.clock == "wall":
        return f"{label}: seconds on this machine, with the tests of the model."
    missing = [f"--{name}" for name in _TIMED if getattr(record.settings, name) is None]
    if record.last.seconds is None:
        return f"{label}: none, since no --bandwidth, --latency or --compute is given."
    none = f"; nothing is counted for {' and '.join(missing)}, not given" if missing else ""
    return f"{label}: seconds of the simulated links and gradients, not of this machine{none}."


def own_models(record: Record) -> str:
    """Return one line on the workers' own models: their final accuracies and consensus distance."""
    last, algorithm = record.last, record.settings.method
    graph = getattr(algorithm, "graph", None)
    gap = f", spectral gap {Mixing.over_cycle(graph, record.settings.workers).spectral_gap:.3g}" if graph else ""
    own = (
        ""
        if last.own_accuracy_lowest is None
        else (
            f"workers' own: {last.own_accuracy_lowest:.2%} to {last.own_accuracy_highest:.2%}, mean "
            f"{last.own_accuracy_mean:.2%}; "
        )
    )
    return (
        f"{visible(record.settings.algorithm)}: {measure_of(record.settings).short} is of the mean model; {own}"
        f"consensus distance {last.consensus_distance:.3g}{gap}"
    )
