"""`laconic bench`: measure the cost of kernels, steps, packets and simulation on this machine."""

from typing import Annotated

import typer

from laconic.cli.invocation import LOAD, QUIET, invocation_of
from laconic.cli.lazy import LazyCommand, LazyGroup


class _Benches(LazyGroup):
    lazy_commands = (
        LazyCommand(
            "kernels", "laconic.cli.bench.kernels", "bench_kernels",
            "Time every kernel on one thread, in multiples of one memory copy, beside torch and other libraries.",
        ),
        LazyCommand(
            "step", "laconic.cli.bench.step", "bench_step",
            "Time full steps with given gradients, in processes on loopback, against one all-reduce and DDP.",
        ),
        LazyCommand(
            "wire", "laconic.cli.bench.wire", "bench_wire",
            "Time making, encoding and decoding each kind of packet, and show its bytes beside the entropy bound.",
        ),
        LazyCommand(
            "simulate", "laconic.cli.bench.simulate", "bench_simulate",
            "Time simulated rounds against a bare loop over the same gradients, and the messages of a large schedule.",
        ),
        LazyCommand(
            "scale", "laconic.cli.bench.scale", "bench_scale",
            "Fit how the cost of a simulated round with given gradients grows with workers and parameters.",
        ),
        LazyCommand(
            "compare", "laconic.cli.bench.compare", "bench_compare",
            "Compare two result files of one bench: the ratio of medians, and a verdict if the quartiles do not "
            "overlap.",
        ),
    )  # fmt: skip


bench = typer.Typer(
    name="bench",
    cls=_Benches,
    help="Measure the cost of kernels, steps, packets and simulation here.",
    no_args_is_help=True,
)


@bench.callback()
def options(
    context: typer.Context,
    load: Annotated[list[str] | None, typer.Option("--load", metavar="FILE", help=LOAD)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", metavar="", help=QUIET)] = False,
) -> None:
    """Measure the cost of kernels, steps, packets and simulation here."""
    invocation_of(context).add(load or [], quiet=quiet)
