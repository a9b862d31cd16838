"""`laconic bench`: what things cost on this machine."""

import typer

from laconic.cli.bench.compare import bench_compare
from laconic.cli.bench.kernels import bench_kernels
from laconic.cli.bench.scale import bench_scale
from laconic.cli.bench.simulate import bench_simulate
from laconic.cli.bench.step import bench_step
from laconic.cli.bench.wire import bench_wire

bench = typer.Typer(name="bench", help="Measure what things cost on this machine.", no_args_is_help=True)


@bench.callback()
def options() -> None:
    """Measure what things cost on this machine."""


bench.command("kernels")(bench_kernels)
bench.command("step")(bench_step)
bench.command("wire")(bench_wire)
bench.command("simulate")(bench_simulate)
bench.command("scale")(bench_scale)
bench.command("compare")(bench_compare)
