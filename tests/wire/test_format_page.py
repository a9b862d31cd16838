"""FORMAT.md suffices to decode: a decoder written from the page reads what the library sends, to the same numbers."""

import ast
import inspect
import re
import sys
from importlib.resources import files

import numpy as np
import page_codes
import page_decoder
import pytest
from hypothesis import given, settings

from laconic.wire import Control, Header, VoteChange, decode, max_encoded_bytes
from laconic.wire.head import VALUE_TYPES
from laconic.wire.packets import KINDS
from support.frame_bytes import bytes_of, control_bytes_of
from support.inputs import failing_at
from support.packets import BY_KIND
from support.sample_packets import USED, headers, packets, samples_by_kind

HEADER = Header(role="server", rank=513, round=70_000, exchange=300, weight=64_000, delivered=False, set_differs=True)


def test_the_decoder_imports_nothing_but_numpy_and_the_standard_library():
    imported = set()
    for module in (page_decoder, page_codes):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    assert imported <= {"numpy", "page_codes", *sys.stdlib_module_names}


def reader_of(found):
    """The reader of a kind that brings its own."""

    def read(payload, value_type, readers):
        offset, dense, payload_bits = found.read_from_page(payload, value_type)
        return page_decoder.Packet(offset, np.array(dense), payload_bits)

    return read


READERS = page_decoder.READERS | {
    found.kind.kind: reader_of(found) for found in BY_KIND.values() if found.read_from_page is not None
}


def assert_read_from_the_page(data):
    """The page's decoder and the library agree on every field, on the dense form and on the bits."""
    ours, read = decode(data, 1 << 32), page_decoder.read_frame(data)
    header, packet = ours.header, ours.packet
    assert (read.role, read.rank, read.exchange, read.round) == (
        header.role,
        header.rank,
        header.exchange,
        header.round,
    )
    assert (read.weight, read.delivered, read.set_differs) == (header.weight, header.delivered, header.set_differs)
    if packet is None:
        assert (read.control, tuple(read.used or ())) == (ours.control.name, ours.used)
        return
    assert read.control is None
    assert VALUE_TYPES[read.value_type] == packet.value_type
    found = page_decoder.read_packet(read, READERS)
    assert (found.offset, found.payload_bits) == (packet.offset, read.payload_bits)
    assert np.array_equal(found.dense, packet.dense().double().numpy())
    if isinstance(packet, VoteChange):
        assert found.dropped == packet.dropped.tolist()


def test_the_bound_on_a_payload_is_the_one_in_the_page():
    text = files("laconic.wire").joinpath("FORMAT.md").read_text(encoding="utf-8")
    each, fixed = re.search(r"(\d+) `max_count` \+ (\d+) payload bytes", text).groups()
    for max_count in (1, 1000, 1 << 32):
        assert max_encoded_bytes(max_count) == int(each) * max_count + int(fixed)


def test_a_reader_from_the_page_knows_every_kind_and_every_control_frame():
    assert READERS.keys() == KINDS.keys()
    assert {number: KINDS[number].name for number in page_decoder.READERS} == page_decoder.PACKETS
    assert {control.value: control.name for control in Control} == page_decoder.CONTROLS


@pytest.mark.parametrize("kind", samples_by_kind())
def test_the_samples_of_every_kind_are_read_from_the_page(kind):
    for name, data in samples_by_kind()[kind].items():
        with failing_at(name=name):
            assert_read_from_the_page(data)


@pytest.mark.parametrize("control", Control)
def test_a_control_frame_with_all_flags_is_read_from_the_page(control):
    assert_read_from_the_page(control_bytes_of(control, HEADER, USED if control is Control.USED else ()))


@pytest.mark.slow
@settings(max_examples=300)
@given(packets, headers)
def test_any_packet_is_read_from_the_page(packet, header):
    assert_read_from_the_page(bytes_of(packet, header))
