"""A plan on the terminal: one row per method and layout, a recommendation, and the Python to paste."""

from laconic.planning.plan import WORTH_WHILE, BytesADay, Choice, Plan
from laconic.planning.today import assumptions
from laconic.report.fitting import FittingTable
from laconic.units import bytes_text, seconds_text

SHOWN = 5
"""The number of rows of a plan that is not shown in full."""

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"))
_REMEDY = "a wider terminal or --json FILE shows them"
_OF_A_STEP = "These are times of a step, not to an accuracy: methods may need different numbers of steps, and"


def plan_table(plan: Plan, n_shown: int) -> FittingTable:
    """Return a table of the fastest choices, plain all-reduce and what people use today, fastest first."""
    table = FittingTable(remedy=_REMEDY)
    table.add_column("method")
    table.add_column("layout")
    table.add_column("step", justify="right")
    for name, importance in (("up", 5), ("down", 5), ("coding", 2)):
        table.add_column(name, justify="right", importance=importance)
    table.add_column("speed-up", justify="right")
    table.add_column("a day", justify="right", importance=1)
    table.add_column("beats plain", justify="right", importance=4)
    upper_bound = "<=" if plan.missing else ""
    rows: list[tuple[float, list[str], str | None]] = []
    for choice in (*plan.choices[:n_shown], plan.baseline):
        bound = "<" if choice.is_maximum else ""
        candidate, baseline = choice.candidate, choice is plan.baseline
        cells = [
            choice.method, choice.layout_name, seconds_text(choice.step_s), bound + bytes_text(candidate.up_bytes),
            bound + bytes_text(candidate.down_bytes), seconds_text(candidate.coding_s) if plan.measured else "-",
            "plain" if baseline else f"{upper_bound}{choice.speed_up_bound:.3g}",
            "-" if choice.a_day is None else upper_bound + bytes_text(choice.a_day.worker),
            "" if baseline else where_text(choice),
        ]  # fmt: skip
        rows.append((choice.step_s, cells, "bold" if choice is plan.recommended else "reverse" if baseline else None))
    for row in plan.today:
        cells = [
            row.name, "allreduce", seconds_text(row.step_s), bytes_text(row.up_bytes), bytes_text(row.up_bytes),
            "-" if row.coding_s is None else seconds_text(row.coding_s), f"{upper_bound}{row.speed_up_bound:.3g}",
            "-" if row.worker_bytes_a_day is None else upper_bound + bytes_text(row.worker_bytes_a_day), "",
        ]  # fmt: skip
        rows.append((row.step_s, cells, "italic"))
    for _, cells, style in sorted(rows, key=lambda row: row[0]):
        table.add_row(*cells, style=style)
    return table


def python_lines(plan: Plan, n_shown: int, lr: float | None) -> list[str]:
    """Return the Python of each row that is shown, after a line with its learning rate.

    Args:
        plan: The plan.
        n_shown: The number of choices.
        lr: The user's learning rate for plain SGD; None shows multiples of it.
    """

    def lr_text(factor: float) -> str:
        if lr is not None:
            return f"{factor * lr:g}"
        return "SGD's" if factor == 1 else f"{factor:g} x SGD's"

    lines = ["Python to paste, and the learning rate to start from:"]
    for choice in plan.choices[:n_shown]:
        lines.append(f"{choice.method}, {choice.layout_name}; learning rate {lr_text(choice.lr_factor)}")
        lines.append(f"  {choice.python}")
    for row in plan.today:
        lines.append(f"{row.name}; learning rate {lr_text(1.0)}")
        lines += [f"  {line}" for line in row.python.splitlines()]
    return lines


def plan_title(plan: Plan) -> str:
    """Return the query in one line."""
    query = plan.query
    link, sites = query.link, query.sites
    bandwidths = bandwidth_text(link.bytes_per_s)
    if link.down_bytes_per_s is not None:
        bandwidths = f"{bandwidths} up, {bandwidth_text(link.down_bytes_per_s)} down"
    latency = f"latency {seconds_text(link.latency_s)}" if query.latency_given else "latency not given"
    gradient = "gradient time not given" if query.compute_s is None else f"gradient {seconds_text(query.compute_s)}"
    joined = ""
    if sites is not None:
        line = f"{bandwidth_text(sites.line.bytes_per_s)}, latency {seconds_text(sites.line.latency_s)}"
        joined = f", at sites of {' + '.join(map(str, sites.sizes))} joined by {line}"
    measured = " (measured)" if query.measured is not None else ""
    return (
        f"{query.n_parameters:,} parameters, {query.n_workers} workers, {bandwidths}, {latency}{measured}{joined}, "
        f"{gradient}"
    )


def plan_notes(plan: Plan, n_shown: int) -> list[str]:
    """Return the recommendation, then how to read the table."""
    notes = [recommendation(plan), *_a_day_notes(plan), *_measured_notes(plan), ""]
    if n_shown < len(plan.choices):
        notes.append(f"The {n_shown} fastest of {len(plan.choices)} rows; --all shows the others.")
    notes.append("step: simulated time of a step. speed-up: that of plain all-reduce of dense gradients over it.")
    notes.append("up, down: wire bytes per worker and step, which cross a link; < at most.")
    if plan.measured:
        notes.append("coding: encoding, serving, decoding; extrapolated from a sample on one thread.")
    else:
        notes.append("coding: not measured; encoding and decoding count as no time.")
    bandwidths = "bandwidths of the line between sites" if plan.query.sites else "bandwidths"
    notes.append(f"beats plain: {bandwidths} at which it is faster than all-reduce of dense gradients.")
    notes.append("a day: bytes that the link of a worker sends and receives in a day of steps.")
    if plan.today:
        notes.append(assumptions(plan.query.spec))
    twice = ", ".join(sorted({choice.method for choice in plan.choices if choice.candidate.algorithm.second_gradient}))
    if twice and plan.query.compute_s != 0:
        notes.append(f"{twice}: two gradients per step, twice the compute time.")
    if plan.query.local_steps > 1:
        single = {choice.method for choice in plan.choices if choice.candidate.local_steps == 1}
        alone = f", except {', '.join(sorted(single))}" if single else ""
        notes.append(f"{plan.query.local_steps} local steps per exchange{alone}.")
    return notes


def recommendation(plan: Plan) -> str:
    """Return which method to use, up to which bandwidth, and what the times are of."""
    return f"{_advice(plan)} {_OF_A_STEP} laconic compare trains with them."


def _advice(plan: Plan) -> str:
    best, baseline, today = plan.recommended, plan.baseline, plan.best_today
    bound = f" An upper bound: {_listed(plan.missing)} as no time." if plan.missing else ""
    if best is baseline:
        rival = min(plan.choices, key=lambda choice: choice.step_s, default=baseline)
        if rival.step_s >= baseline.step_s:
            return (
                f"Plain all-reduce wins: {seconds_text(baseline.step_s)} a step, and no other is faster."
                f"{_instead(plan, baseline.step_s)}{bound}"
            )
        return (
            f"Plain all-reduce wins: {seconds_text(baseline.step_s)} a step; the fastest other, {rival.method} on "
            f"{rival.layout_name}, is {rival.speed_up - 1:.1%} faster, which is within the error of the network model."
            f"{_instead(plan, baseline.step_s)}{bound}"
        )
    limit = best.break_even_bytes_per_s
    beyond = f" Above {bandwidth_text(limit)} plain all-reduce wins over it." if limit else ""
    times = f"at most {best.speed_up_bound:.3g}" if plan.missing else f"{best.speed_up:.3g}"
    over = ""
    if today is not None and today.step_s > best.step_s:
        over = f" and {today.step_s / best.step_s:.3g} times as fast as {today.name} ({seconds_text(today.step_s)})"
    return (
        f"Take {best.method} on {best.layout_name}: {seconds_text(best.step_s)} a step, {times} times as fast "
        f"as plain all-reduce ({seconds_text(baseline.step_s)}){over}.{beyond}{_instead(plan, best.step_s)}{bound}"
    )


def _instead(plan: Plan, step_s: float) -> str:
    """Return that something people use today is as fast, if it is."""
    today = plan.best_today
    if today is None or today.step_s > step_s:
        return ""
    faster = "faster" if today.step_s < step_s / WORTH_WHILE else "as fast"
    return f" Of what people use today, {today.name} is {faster}: {seconds_text(today.step_s)} (modelled)."


def _a_day_notes(plan: Plan) -> list[str]:
    a_day: BytesADay | None = plan.recommended.a_day
    if a_day is None:
        return []
    upper_bound = "at most " if plan.missing or plan.recommended.is_maximum else ""
    busiest = ""
    if a_day.busiest > 1.01 * a_day.worker:
        busiest = f", {bytes_text(a_day.busiest)} on the busiest link, which serves"
    between = "" if a_day.between_sites is None else f", {bytes_text(a_day.between_sites)} between the sites"
    return [
        f"In a day of such steps, {upper_bound}{bytes_text(a_day.worker)} on the link of a worker, sent and received"
        f"{busiest}, {bytes_text(a_day.total)} on all links{between}."
    ]


def _measured_notes(plan: Plan) -> list[str]:
    links = plan.query.measured
    if links is None:
        return []
    server = links.server
    kinds = (
        ("a server receives", server.receiving), ("a server sends", server), ("all to all", links.all_to_all),
        ("all-reduce", links.ring),
    )  # fmt: skip
    each = [f"{name} {bandwidth_text(one.bytes_per_s)}, {seconds_text(one.latency_s)}" for name, one in kinds]
    return [f"Measured bandwidths, and times to start a message: {'; '.join(each)}."]


def _listed(names: tuple[str, ...]) -> str:
    *others, last = names
    if others:
        return f"{', '.join(others)} and {last} are not known and count"
    return f"{last} is not known and counts"


def where_text(choice: Choice) -> str:
    """Return the bandwidths at which it is faster, such as "< 2.5 Gbit/s", "always" or "never"."""
    if not choice.faster_within:
        return "never"
    low, high = choice.faster_within[0][0], choice.faster_within[-1][1]
    if low is None and high is None:
        return "always" if len(choice.faster_within) == 1 else "mostly"
    if low is None:
        return f"< {bandwidth_text(high or 0.0)}"
    return f"> {bandwidth_text(low)}" if high is None else f"{bandwidth_text(low)} .. {bandwidth_text(high)}"


def bandwidth_text(bytes_per_s: float) -> str:
    """Return a bandwidth as text, such as "100 Mbit/s"."""
    bits = float(f"{8 * bytes_per_s:.3g}")
    scale, prefix = next(((scale, prefix) for scale, prefix in _PREFIXES if bits >= scale), (1.0, ""))
    return f"{bits / scale:.4g} {prefix}bit/s"
