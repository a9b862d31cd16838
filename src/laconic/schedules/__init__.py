"""Schedules: who sends what to whom and after what, as data; what a network makes of them; and closed forms."""

from laconic.schedules.patterns import PATTERNS as PATTERNS
from laconic.schedules.patterns import Pattern as Pattern
from laconic.schedules.patterns import closed_form_s as closed_form_s
from laconic.schedules.patterns import gossip_ring as gossip_ring
from laconic.schedules.patterns import one_at_a_time as one_at_a_time
from laconic.schedules.patterns import partition_bytes as partition_bytes
from laconic.schedules.patterns import ring as ring
from laconic.schedules.patterns import ring_unpartitioned as ring_unpartitioned
from laconic.schedules.patterns import rounds as rounds
from laconic.schedules.patterns import sharded as sharded
from laconic.schedules.patterns import single_server as single_server
from laconic.schedules.schedule import Computation as Computation
from laconic.schedules.schedule import Message as Message
from laconic.schedules.schedule import Schedule as Schedule
from laconic.schedules.schedule import Step as Step
from laconic.schedules.schedule import TimedStep as TimedStep
from laconic.schedules.simulate import Times as Times
from laconic.schedules.simulate import makespan_ns as makespan_ns
from laconic.schedules.simulate import simulate as simulate
