"""What users are told beside errors."""

import pytest

import laconic
from laconic import statements


def test_a_statement_is_made_once_and_is_no_python_warning(stated):
    statements.state_once("the sky is above")
    statements.state_once("the sky is above")
    statements.state_once("the ground is below")
    assert stated.messages == ["the sky is above", "the ground is below"]


def test_a_warning_names_the_line_of_the_user_that_led_to_it():
    with pytest.warns(laconic.LaconicWarning, match="equal batches") as seen:
        statements.warn("equal batches")
    assert seen[0].filename == __file__
