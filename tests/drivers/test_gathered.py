"""What a rank shows all others as JSON: data of another form are refused, with the rank."""

import json
from dataclasses import asdict

import pytest

from laconic.drivers.gathered import Either, check_sizes, read_gathered
from laconic.errors import WireError
from laconic.telemetry.meter import Meter
from laconic.telemetry.phases import Seconds
from laconic.telemetry.traffic import TRAFFIC_SCHEMA, Traffic
from support.inputs import over_inputs

TRAFFIC = Traffic.of(Meter(), 3, 0, Seconds().sums())

FITS = [
    (int, 3), (float | None, None), (float | int, 0.5), (bool, True), (range(4), 3), ([range(4)], []), ([int], [1, 2]),
    (([float], float), [[0.5], 0.25]), ({str: int}, {"any": 1}), ({int: int}, {"12": 1}), ({"a": int}, {"a": 1}),
    (Either([int], None | str), "text"), (TRAFFIC_SCHEMA, TRAFFIC.as_data()),
]  # fmt: skip
MISFITS = [
    (int, True, "it is True; expected was int"), (int, 1.5, "it is 1.5"), (range(4), 4, "expected was 0 .. 3"),
    (range(4), -1, "expected was 0 .. 3"), (range(4), 1.0, "expected was 0 .. 3"), ([int], 7, "expected was a list"),
    ([int], [1, "2"], r"it\[1\] is '2'"), ((int, int), [1], "has 1 elements; expected were 2"),
    ({str: int}, [], "expected was an object"), ({str: int}, {"a": None}, "it.a is None"),
    ({int: int}, {"x": 1}, "has the keys x; expected were"), ({"a": int}, {}, "has the keys ; expected were a"),
    ({"a": int}, {"a": 1, "b": 2}, "has the keys a, b"), (Either(int, str), [], r"it is \[\]"),
    (TRAFFIC_SCHEMA, asdict(TRAFFIC) | {"up": {}}, "it.up has the keys"),
    (TRAFFIC_SCHEMA, asdict(TRAFFIC) | {"seconds": {"compute": 0.0}}, "it.seconds has the keys compute"),
]  # fmt: skip
NO_JSON = [b"", b"{", b"\xff", b"nonsense", b"[" * 100_000, b"1" * 5000]


@over_inputs(("schema", "value"), FITS)
def test_data_that_fit_are_read_as_they_were_shown(schema, value):
    assert read_gathered([json.dumps(value).encode()] * 2, schema, "for a test") == [value, value]


@over_inputs(("schema", "value", "problem"), MISFITS)
def test_data_of_another_form_are_refused_with_the_rank_and_what_was_expected(schema, value, problem):
    with pytest.raises(WireError, match=f"rank 0, for a test: .*{problem}"):
        read_gathered([json.dumps(value).encode()], schema, "for a test")


@pytest.mark.parametrize("text", NO_JSON, ids=range(len(NO_JSON)))
def test_what_is_no_json_is_refused_with_the_rank(text):
    with pytest.raises(WireError, match="rank 1, for a test: it is no JSON"):
        read_gathered([b"7", text], int, "for a test")


@pytest.mark.parametrize("size", [-1, 9, 2**62])
def test_a_rank_that_promises_more_than_can_belong_to_the_purpose_is_refused(size):
    with pytest.raises(WireError, match=f"rank 1, for a test: it promises {size} bytes; at most 8"):
        check_sizes([8, size], 8, "for a test")
