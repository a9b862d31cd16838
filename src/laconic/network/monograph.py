"""The messages of two examples of the monograph, as published.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, examples 1.3.1 and 1.3.4. The examples count
machines from 1 and time in units; here M1 is node 0 and a unit is a second.
"""

from laconic.network.message_schedule import Message, MessageSchedule
from laconic.network.patterns import one_at_a_time


def example_1_3_1(n_bytes: int, third_receiver: int = 0) -> MessageSchedule:
    """Return the messages of Example 1.3.1. The text and the figure send the third to M1, the table to M2."""
    second = 1_000_000_000
    return MessageSchedule.of(
        [
            Message(0, 1, n_bytes, at_ns=5 * second),
            Message(1, 0, n_bytes, at_ns=6 * second),
            Message(2, third_receiver, n_bytes, at_ns=6 * second),
        ]
    )


# Example 1.3.4: (sender, receiver) by slot. A partition's owner receives in the first three slots, then answers.
_SLOTS_1_3_4 = (
    ((1, 0), (0, 1), (3, 2), (2, 3)),
    ((2, 0), (3, 1), (0, 2), (1, 3)),
    ((3, 0), (2, 1), (1, 2), (0, 3)),
    ((0, 1), (1, 2), (2, 3), (3, 0)),
    ((0, 2), (1, 3), (2, 0), (3, 1)),
    ((0, 3), (1, 0), (2, 1), (3, 2)),
)


def example_1_3_4(n_bytes: int) -> MessageSchedule:
    """Return the messages of Example 1.3.4 as published, by slot. `n_bytes` is the size of the full vector."""
    pairs = [pair for slot in _SLOTS_1_3_4 for pair in slot]
    needs = [tuple(place for place in range(12) if pairs[place][1] == owner) for owner in range(4)]
    return MessageSchedule.of(
        one_at_a_time(
            [
                Message(sender, receiver, n_bytes // 4, needs[sender] if place >= 12 else ())
                for place, (sender, receiver) in enumerate(pairs)
            ]
        )
    )
