"""Packets of every kind, sampled by Hypothesis or fixed, and their frames. The kinds are in `packets/`."""

import functools

from hypothesis import strategies as st

from laconic.wire import Control, Header
from support.frame_bytes import bytes_of, control_bytes_of
from support.packets import BY_KIND

packets = st.one_of(*(found.packets for found in BY_KIND.values()))
headers = st.builds(
    Header,
    role=st.sampled_from(("worker", "server")),
    rank=st.integers(0, 2**16 - 1),
    round=st.integers(0, 2**32 - 1),
    exchange=st.integers(0, 2**16 - 1),
    weight=st.integers(1, 2**32 - 1),
    delivered=st.booleans(),
    set_differs=st.booleans(),
)
USED = (True, False, False, True, True, False, True, True, False, True)


@functools.cache
def samples() -> dict[str, bytes]:
    """One small frame of each shape of payload, of vectors with at most 50 elements, and the control frames."""
    return {name: data for of_kind in samples_by_kind().values() for name, data in of_kind.items()}


@functools.cache
def samples_by_kind() -> dict[str, dict[str, bytes]]:
    """The samples of every kind of packet, and as "control" the frames that carry none."""
    return {
        "control": {
            control.name: control_bytes_of(control, used=USED if control is Control.USED else ()) for control in Control
        },
        **{
            name: {sample: bytes_of(packet) for sample, packet in found.samples.items()}
            for name, found in BY_KIND.items()
        },
    }
