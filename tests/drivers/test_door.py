"""Messages name the function that a user has called, also where it calls others."""

from laconic.drivers.distributed.door import ATTACH, CHOOSE, OPTIMIZER, door, entered


def test_what_is_made_within_has_the_words_of_the_outermost_call():
    assert door() is OPTIMIZER
    with entered(ATTACH):
        with entered(CHOOSE):
            assert door() is ATTACH
        assert door() is ATTACH
    assert door() is OPTIMIZER
    assert ATTACH.closed.startswith("this attached method is closed")
