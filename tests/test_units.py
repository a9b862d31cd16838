"""Bandwidths, durations and sizes as users type and read them."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.units import bandwidth, bytes_text, duration, seconds_text, size
from support.inputs import over_inputs


def test_a_bandwidth_is_read_in_bytes_per_second():
    for text, bytes_per_s in [
        ("8bit", 1.0),
        ("8 Kbit", 1e3),
        ("100Mbit", 12.5e6),
        ("1Gbit", 125e6),
        ("1 Gbit/s", 125e6),
        ("1.5 Tbit/s", 187.5e9),
        ("7B", 7.0),
        ("7 KB", 7e3),
        ("12.5MB/s", 12.5e6),
        ("12.5 GB", 12.5e9),
        ("3 bytes/s", 3.0),
        ("16 Kbits/sec", 2e3),
        (".5MB", 5e5),
        ("1e3 B", 1e3),
        ("  1 Gbit/s ", 125e6),
    ]:
        assert bandwidth(text) == bytes_per_s, text


def test_a_lone_small_b_is_a_bit_and_all_other_case_is_free():
    for text in ["100mbit", "100MBIT", "100Mbit/S", "100Mbps", "100mbps", "100Mb/s", "100mb"]:
        assert bandwidth(text) == 12.5e6, text


def test_a_lone_large_b_is_a_byte():
    for text in ["100MB", "100mB/s", "100MBps", "100Mbytes", "100MBYTES/s"]:
        assert bandwidth(text) == 100e6, text


def test_a_duration_is_read_in_seconds():
    for text, seconds in [
        ("1ns", 1e-9),
        ("250us", 250e-6),
        ("250 \u00b5s", 250e-6),
        ("250 \u03bcs", 250e-6),
        ("10ms", 0.01),
        ("10 MS", 0.01),
        ("1.5s", 1.5),
        ("2min", 120.0),
        ("0.5 h", 1800.0),
    ]:
        assert duration(text) == seconds, text


@given(st.integers(1, 10**9))
def test_a_duration_is_the_float_of_its_decimal_number(n):
    # 3 * 0.001 is not 0.003, and the last bit matters to a link.
    assert duration(f"{n}ms") == float(f"{n}e-3")
    assert duration(f"{n}us") == float(f"{n}e-6")


@over_inputs("text", ["", "fast", "100", "100M", "100 Mbit/min", "Mbit", "1 Mibit", "1,5MB", "inf B", "10ms"])
def test_a_text_that_is_no_bandwidth_is_refused_with_units_and_examples(text):
    with pytest.raises(ValueError, match=rf"bandwidth '{text}' must be .*Kbit.*GB .*examples: .*100Mbit"):
        bandwidth(text)


@over_inputs("text", ["", "soon", "10", "10m", "1 day", "ms", "1..5s", "nan s", "1_0s", "1 m\u017f", "1s\n2"])
def test_a_text_that_is_no_duration_is_refused_with_units_and_examples(text):
    with pytest.raises(ValueError, match=r"duration '.*' must be .*ns, us, ms, s, min or h .*examples: .*10ms"):
        duration(text)


@over_inputs("number", ["0", "-1", "0.0", "-1e-9", "0e9"])
def test_zero_and_less_are_refused_with_the_bound(number):
    with pytest.raises(ValueError, match=f"bandwidth '{number} Mbit' must be above 0"):
        bandwidth(f"{number} Mbit")
    with pytest.raises(ValueError, match=f"duration '{number}ms' must be above 0"):
        duration(f"{number}ms")


@over_inputs("number", ["1e999999999", "9" * 400, "1e-999", "0." + "0" * 400 + "1"])
def test_a_hostile_number_is_refused_and_costs_no_time(number):
    with pytest.raises(ValueError, match="must be a number and a unit"):
        bandwidth(f"{number} Mbit")
    with pytest.raises(ValueError, match="must be a number and a unit"):
        duration(f"{number}s")


@given(
    st.one_of(
        st.text(max_size=12),
        st.from_regex(r"[0-9.eE+-]{1,6} ?[kKMGT]?(b|B|bits?|[num\u00b5]?s|min|h)(/s|ps)?"),
    )
)
def test_any_text_is_a_positive_number_or_a_value_error(text):
    for parse in (bandwidth, duration):
        try:
            value = parse(text)
        except ValueError:
            continue
        assert 0 < value < math.inf


def test_bytes_are_printed_to_three_digits():
    for n_bytes, text in [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (12.5, "12.5 B"),
        (1000, "1.00 KB"),
        (1_234_567, "1.23 MB"),
        (12_345_678, "12.3 MB"),
        (123_456_789, "123 MB"),
        (25_557_032 * 4, "102 MB"),
        (999_999, "1.00 MB"),
        (999.9, "1.00 KB"),
        (9_996_000, "10.0 MB"),
        (3 * 10**12, "3.00 TB"),
        (4 * 10**15, "4.00 PB"),
    ]:
        assert bytes_text(n_bytes) == text, n_bytes


def test_seconds_are_printed_to_three_digits():
    for seconds, text in [
        (0, "0 s"),
        (5e-9, "5.00 ns"),
        (250e-6, "250 us"),
        (0.0015, "1.50 ms"),
        (0.9996, "1.00 s"),
        (12.34, "12.3 s"),
        (59.94, "59.9 s"),
        (59.99, "1.00 min"),
        (90, "1.50 min"),
        (5400, "1.50 h"),
        (1e6, "278 h"),
    ]:
        assert seconds_text(seconds) == text, seconds


@given(st.floats(1e-9, 1e7))
def test_what_seconds_text_prints_duration_reads(seconds):
    assert duration(seconds_text(seconds)) == pytest.approx(seconds, rel=6e-3)


@given(st.integers(1, 10**18))
def test_what_bytes_text_prints_has_three_digits_right(n_bytes):
    number, unit = bytes_text(n_bytes).split()
    power = ["B", "KB", "MB", "GB", "TB", "PB"].index(unit)
    assert float(number) * 1000**power == pytest.approx(n_bytes, rel=6e-3)
    assert float(number) < 1000 or unit == "PB"


@over_inputs("value", [-1, math.inf, math.nan])
def test_what_cannot_be_printed_is_refused_by_name(value):
    with pytest.raises(ValueError, match=rf"bytes_text: n_bytes={value} must be at least 0 and finite"):
        bytes_text(value)
    with pytest.raises(ValueError, match=rf"seconds_text: seconds={value} must be at least 0 and finite"):
        seconds_text(value)


def test_a_size_is_read_in_bytes():
    for text, n_bytes in {
        "45MB": 45_000_000, " 1.5 kB ": 1500, "100 bytes": 100, "1 byte": 1, "0.001KB": 1, "2GB": 2 * 10**9,
    }.items():  # fmt: skip
        assert size(text) == n_bytes, text


@over_inputs("text", ["", "45", "MB", "45MiB", "1Mbit", "1Mb", "1MB/s", "-1MB", "0B", "0.5 B", "nanB"])
def test_a_text_that_is_no_size_is_refused_with_the_text(text):
    with pytest.raises(ValueError, match=f"^size {re.escape(repr(text))} must be "):
        size(text)
