"""`laconic bench`: what things cost on this machine."""

import typer

from laconic.cli.lazy import LazyCommand, LazyGroup


class _Benches(LazyGroup):
    lazy_commands = (
        LazyCommand(
            "kernels", "laconic.cli.bench.kernels", "bench_kernels",
            "Time every kernel as multiples of one memory copy, beside plain torch and peers; one thread.",
        ),
        LazyCommand(
            "step", "laconic.cli.bench.step", "bench_step",
            "Time whole steps, gradients given, against one all-reduce and DistributedDataParallel; processes on "
            "loopback.",
        ),
        LazyCommand(
            "wire", "laconic.cli.bench.wire", "bench_wire",
            "Time making, encoding and decoding each kind of packet, and show its bytes beside what entropy allows.",
        ),
        LazyCommand(
            "simulate", "laconic.cli.bench.simulate", "bench_simulate",
            "Time simulated rounds against a bare loop over the same gradients, and messages of a large schedule.",
        ),
        LazyCommand(
            "scale", "laconic.cli.bench.scale", "bench_scale",
            "Fit exponents of a simulated round's cost, gradients given, over workers and over parameters.",
        ),
        LazyCommand(
            "compare", "laconic.cli.bench.compare", "bench_compare",
            "Compare two files of one bench: the ratio of medians, and a verdict where the quartile ranges do not "
            "overlap.", needs_torch=False,
        ),
    )  # fmt: skip


bench = typer.Typer(name="bench", cls=_Benches, help="Measure what things cost on this machine.", no_args_is_help=True)


@bench.callback()
def options() -> None:
    """Measure what things cost on this machine."""
