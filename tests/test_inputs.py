"""A test over many inputs runs over all of them, and its failure names the input."""

import pytest

from support.inputs import failing_at, over_inputs


def test_all_combinations_run_and_those_that_fail_are_named():
    seen = []

    @over_inputs("a", (number for number in (1, 2)))
    @over_inputs(("b", "c"), [("x", 3), ("y", 4)])
    def check(a, b, c, d):
        seen.append((a, b, c, d))
        assert a != 2

    with pytest.raises(AssertionError) as failed:
        check(d=5)
    assert seen == [(1, "x", 3, 5), (1, "y", 4, 5), (2, "x", 3, 5), (2, "y", 4, 5)]
    assert failed.value.__notes__ == ["at b='x', c=3", "and at b='y', c=4: AssertionError", "at a=2"]


def test_an_input_that_does_not_raise_as_it_should_is_named_too():
    @over_inputs("text", ["one", "2"])
    def check(text):
        with failing_at(length=len(text)), pytest.raises(ValueError, match="invalid literal"):
            int(text)

    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE") as failed:
        check()
    assert failed.value.__notes__ == ["at length=1", "at text='2'"]


def test_a_loop_over_no_input_is_an_error():
    with pytest.raises(AssertionError):
        over_inputs("a", [])
