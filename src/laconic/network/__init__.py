"""Simulated networks: links, nodes and message schedules, from bytes to nanoseconds. No tensors."""

from laconic.network.clock import Clock
from laconic.network.compute_time import ComputeTime
from laconic.network.link import Link
from laconic.network.message_schedule import Computation, Message, MessageSchedule, Operation, TimedOperation
from laconic.network.monograph import example_1_3_1, example_1_3_4
from laconic.network.network import Network
from laconic.network.patterns import (
    PATTERNS,
    Pattern,
    closed_form_s,
    gossip_ring,
    one_at_a_time,
    partition_bytes,
    ring,
    ring_unpartitioned,
    rounds,
    sharded,
    single_server,
)
from laconic.network.schedule_file import read_message_schedule
from laconic.network.simulate import OperationTimes, by_callbacks, by_machine_code, makespan_ns, simulate
from laconic.network.sites import Sites

__all__ = [
    "PATTERNS",
    "Clock",
    "Computation",
    "ComputeTime",
    "Link",
    "Message",
    "MessageSchedule",
    "Network",
    "Operation",
    "OperationTimes",
    "Pattern",
    "Sites",
    "TimedOperation",
    "by_callbacks",
    "by_machine_code",
    "closed_form_s",
    "example_1_3_1",
    "example_1_3_4",
    "gossip_ring",
    "makespan_ns",
    "one_at_a_time",
    "partition_bytes",
    "read_message_schedule",
    "ring",
    "ring_unpartitioned",
    "rounds",
    "sharded",
    "simulate",
    "single_server",
]
