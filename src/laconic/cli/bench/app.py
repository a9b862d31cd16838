"""`laconic bench`: measure the cost of kernels, steps, packets and simulation on this machine."""

from laconic.cli.invocation import group_of_commands
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


bench = group_of_commands("bench", _Benches, "Measure the cost of kernels, steps, packets and simulation here.")
