"""Names that a method gives: its own, and those of its exchanges."""

import pytest

from laconic.algorithms.sgd import SGD
from laconic.contract import ALGORITHMS, Exchange, algorithm


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a b", "a.b", "a/b", "..", "[bold]", "a[/]", "$x$", "a\nb", "\x1b[1m", "\u202ea", "a" * 65, "<b>"],
)
def test_a_name_that_could_not_be_typed_or_name_a_folder_is_refused(name):
    with pytest.raises(ValueError, match="letters, digits, - and _"):
        algorithm(name)
    assert name not in ALGORITHMS


@pytest.mark.parametrize("name", ["mine", "top-k_2", "2d", "méthode", "方法"])
def test_letters_of_any_script_are_admitted(name):
    assert algorithm(name)(type("Named", (SGD,), {})).name == name
    del ALGORITHMS[name]


def test_the_name_of_an_exchange_is_one_line_that_can_be_seen():
    assert Exchange(count=1, name="second step").name == "second step"
    for name in ("a\nb", "\x1b[2J", "\u202e"):
        with pytest.raises(ValueError, match="must be printable"):
            Exchange(count=1, name=name)
