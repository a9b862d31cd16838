"""The bytes of a round in which every worker sends a dense vector, computed: the base of ratios."""

import torch

from laconic.protocol.layout import Layout
from laconic.protocol.ring_allreduce import ring_bytes
from laconic.wire import HEADER_BYTES, Dense

_VALUE_BYTES = 4


def dense_round_bytes(layout: Layout, d: int) -> int:
    """Return the wire bytes that all workers together send up in a round of d float32; as many come down."""
    if layout.uses_all_reduce:
        return layout.n_workers * ring_bytes(d, layout.n_workers, _VALUE_BYTES)
    overhead = HEADER_BYTES + Dense(values=torch.empty(0)).size.encoded_bytes
    counts = [shard.count for shard in layout.shards for node in layout.worker_nodes if node != shard.node]
    return sum(overhead + _VALUE_BYTES * count for count in counts)
