"""Figures that need no data: from formulas, message schedules, real messages and runs on quadratics.

Each function reports its progress and returns its figures by name.
"""

from collections.abc import Callable, Mapping

from laconic.lab.processes.pool import Reporter
from laconic.reproduce.computed import exponents, messages, storage, timings, traffic

Values = Mapping[str, float | Mapping[int, float]]
"""A figure, or one for each seed, by name."""

COMPUTED: dict[str, Callable[[Reporter], Values]] = {
    "compskip-cost": traffic.compskip_cost,
    "compskip-saved": traffic.compskip_saved,
    "uploads-of-methods": traffic.uploads_of_methods,
    "bits-of-printed-rounds": traffic.bits_of_printed_rounds,
    "memory-and-seconds": storage.memory_and_seconds,
    "majority-vote-ratios": messages.majority_vote_ratios,
    "sign-costs": messages.sign_costs,
    "quantized-draws": messages.quantized_draws,
    "example-1.3.1": timings.three_messages,
    "example-1.3.2": timings.three_compressed_messages,
    "single-server": timings.single_server,
    "ring": timings.ring,
    "ring-unpartitioned": timings.ring_unpartitioned,
    "example-1.3.4": timings.sharded,
    "three-implementations": timings.three_implementations,
    "resnet152-on-16-gpus": timings.resnet152,
    "compressed-ring": timings.compressed_ring,
    "servers-with-and-without-rounds": timings.servers_with_and_without_rounds,
    "ring-and-gossip": timings.ring_and_gossip,
    **{f"fit-{name}": exponents.fit(name) for name in exponents.FITTED},
    **{f"fit-{name}-in-full": exponents.fit(name, exponents.STEPS_IN_FULL) for name in exponents.FITTED},
    "fit-asgd": exponents.fit_asgd(),
    "fit-asgd-in-full": exponents.fit_asgd(exponents.STEPS_IN_FULL),
    "fit-rings": exponents.fit_rings,
    "fit-smoothness": exponents.fit_smoothness,
    "speed-up": exponents.speed_up,
    "communication-costs": timings.communication_costs,
}
