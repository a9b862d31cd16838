"""The floor of a step: the engine moves what a method has moved, from and into memory that is like a method's."""

from laconic.bench.floor import Floor
from laconic.telemetry.moved import Moved

MOVED = (
    Moved(sent={1: 5000}, received={1: 4096}),
    Moved(sent={1: 5000, 2: 100}),
    Moved(summed=4096),
)


def prepared(floor: Floor) -> list[int]:
    """Where each message of a step is, in order."""
    floor.prepare()
    vectors = []
    for summed, received, sent in floor.calls:
        vectors += [tensor for tensor, _ in (*received, *sent)] + ([] if summed is None else [summed])
    assert all(bool((vector != 0).any()) for vector in vectors), "its pages were written"
    return [vector.data_ptr() for vector in vectors]


def test_every_message_has_memory_of_its_own_that_is_used_again_in_the_next_step():
    floor = Floor(lambda: MOVED)
    at = prepared(floor)
    assert len(set(at)) == 5
    assert prepared(floor) == at


def test_the_messages_are_those_that_were_moved_in_their_order():
    floor = Floor(lambda: MOVED)
    floor.prepare()
    sizes = [
        ([(each.nbytes, peer) for each, peer in received], [(each.nbytes, peer) for each, peer in sent])
        for _, received, sent in floor.calls
    ]
    assert sizes == [([(4096, 1)], [(5000, 1)]), ([], [(5000, 1), (100, 2)]), ([], [])]
    assert floor.calls[2][0] is not None
    assert floor.calls[2][0].nbytes == 4096
