"""A plan on the terminal: one row per method and layout, and a recommendation."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from laconic.planning.plan import Choice, Plan
from laconic.units import bytes_text, seconds_text

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"))


def plan_table(plan: Plan) -> Table:
    """Return a table of the choices and plain all-reduce, fastest first, within 80 columns."""
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in ("method", "layout"):
        table.add_column(column, no_wrap=True)
    for column in ("step", "up", "down", "coding", "speed-up", "beats plain"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = sorted([*plan.choices, plan.baseline], key=lambda choice: choice.step_s)
    for choice in rows:
        bound = "<" if choice.is_maximum else ""
        candidate, baseline = choice.candidate, choice is plan.baseline
        table.add_row(
            choice.method,
            choice.layout_name,
            seconds_text(choice.step_s),
            bound + bytes_text(candidate.up_bytes),
            bound + bytes_text(candidate.down_bytes),
            seconds_text(candidate.coding_s) if plan.measured else "-",
            "plain" if baseline else f"{choice.speed_up:.3g}",
            "" if baseline else where_text(choice),
            style="bold" if choice is plan.recommended else "reverse" if baseline else None,
        )
    return table


def plan_title(plan: Plan) -> str:
    """Return the query in one line."""
    query = plan.query
    latency = f", latency {seconds_text(query.link.latency_s)}" if query.link.latency_s else ""
    return (
        f"{query.n_parameters:,} parameters, {query.n_workers} workers, {bandwidth_text(query.link.bytes_per_s)}"
        f"{latency}, gradient {seconds_text(query.compute_s)}"
    )


def plan_notes(plan: Plan) -> list[str]:
    """Return the recommendation, then how to read the table."""
    notes = [recommendation(plan), "", "up, down: bytes per worker and step that cross a link; < at most."]
    if plan.measured:
        notes.append("coding: encoding, serving, decoding; extrapolated from a sample on one thread.")
    else:
        notes.append("coding: not measured; encoding and decoding count as no time.")
    notes.append("beats plain: bandwidths at which it is faster than all-reduce of dense gradients.")
    twice = ", ".join(sorted({choice.method for choice in plan.choices if choice.candidate.algorithm.second_gradient}))
    if twice and plan.query.compute_s:
        notes.append(f"{twice}: two gradients per step, twice the compute time.")
    if plan.query.local_steps > 1:
        single = {choice.method for choice in plan.choices if choice.candidate.local_steps == 1}
        alone = f", except {', '.join(sorted(single))}" if single else ""
        notes.append(f"{plan.query.local_steps} local steps per exchange{alone}.")
    notes.append("Methods may need different numbers of steps: laconic compare trains with them.")
    return notes


def recommendation(plan: Plan) -> str:
    """Return which method to use, and up to which bandwidth."""
    best, baseline = plan.recommended, plan.baseline
    if best is baseline:
        rival = min(plan.choices, key=lambda choice: choice.step_s, default=baseline)
        if rival.step_s >= baseline.step_s:
            return f"Plain all-reduce wins: {seconds_text(baseline.step_s)} a step, and no other is faster."
        return (
            f"Plain all-reduce wins: {seconds_text(baseline.step_s)} a step; the fastest other, {rival.method} on "
            f"{rival.layout_name}, is {rival.speed_up - 1:.1%} faster, which is within the error of the network model."
        )
    limit = best.break_even_bytes_per_s
    beyond = f" Above {bandwidth_text(limit)} plain all-reduce wins over it." if limit else ""
    return (
        f"Take {best.method} on {best.layout_name}: {seconds_text(best.step_s)} a step, {best.speed_up:.3g} times as "
        f"fast "
        f"as plain all-reduce ({seconds_text(baseline.step_s)}).{beyond}"
    )


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
