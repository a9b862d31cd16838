"""Quantized packets added up, or written, while their codes land: it counts where it is what came, else not."""

import torch

from laconic.compressors import Quantized
from laconic.contract import ArrivingChanges, Inbox
from laconic.kernels.api import ranges
from laconic.protocol.landing_codes import AnswerOfCodes, MeanOfCodes
from laconic.wire import HEADER_BYTES, Frame, Header, decode, encode

D, CHUNK = 5000, 1500


def packet_of(rank, bits=8, **settings):
    vector = torch.randn(D, generator=torch.Generator().manual_seed(rank)) * (rank + 1)
    return Quantized(bits=bits, **settings)(vector, key=rank)


def payload_of(packet):
    """The payload as it is received, and the packet that is read from it once all has come."""
    data = encode(Frame(header=Header(role="worker", rank=1, round=0, exchange=0), packet=packet))
    return data[HEADER_BYTES:], decode(data, D).packet


def land(landing, node, payload, *, step=CHUNK, until=None):
    for landed in [*range(8, until or payload.numel(), step), until or payload.numel()]:
        landing.chunk(node, payload, landed)


def test_the_mean_and_its_ends_are_those_of_the_inbox_whatever_lands_when():
    for bits in (8, 3, 1):
        own = packet_of(0, bits)
        received = {rank: payload_of(packet_of(rank, bits)) for rank in (1, 2)}
        packets = {0: own, **{rank: packet for rank, (_, packet) in received.items()}}
        expected = Inbox(packets, 3, lambda: torch.empty(D)).mean()
        out = torch.full((D,), torch.nan)
        landing = MeanOfCodes({0: own}, {11: 1, 12: 2}, out, D)
        land(landing, 12, received[2][0])
        land(landing, 11, received[1][0], step=700)
        made = landing.mean_of(packets)
        assert made is not None, bits
        assert torch.equal(made[0], expected), bits
        assert made[2] == ranges(expected, [D]), bits


def test_no_mean_counts_before_all_has_landed_or_where_a_packet_is_another_one():
    own, (payload, packet) = packet_of(0), payload_of(packet_of(1))
    again = payload_of(packet_of(1))[1]
    landing = MeanOfCodes({0: own}, {11: 1}, torch.empty(D), D)
    land(landing, 11, payload, until=payload.numel() - 1)
    assert landing.mean_of({0: own, 1: packet}) is None
    land(landing, 11, payload)
    for name, packets in (
        ("elsewhere", {0: own, 1: again}),
        ("one is missing", {1: packet}),
        ("own", {0: packet, 1: packet}),
    ):
        assert landing.mean_of(packets) is None, name
    assert landing.mean_of({0: own, 1: packet}) is not None


def test_what_no_mean_can_be_made_of_is_read_when_it_is_complete():
    own = packet_of(0)
    others = {
        "blocks": packet_of(1, blocks="1000"),
        "entropy code": packet_of(1, entropy=True),
        "shorter": Quantized()(torch.randn(D - 1)),
    }
    for name, other in others.items():
        payload, packet = payload_of(other)
        landing = MeanOfCodes({0: own}, {11: 1}, torch.empty(D), D)
        land(landing, 11, payload)
        assert landing.mean_of({0: own, 1: packet}) is None, name
    broken = payload_of(packet_of(1))[0].clone()
    broken[8] = 77  # bits of a code
    land(landing, 11, broken)
    landing.chunk(11, torch.ones(D), 0)  # a dense frame
    assert landing.mean_of({0: own, 1: packet}) is None


def test_models_move_by_what_comes_while_it_comes():
    for bits in (8, 3):
        (payload, packet), (other_payload, other) = payload_of(packet_of(1, bits)), payload_of(packet_of(2, bits))
        base, steps = torch.randn(D, generator=torch.Generator().manual_seed(9)), []
        moved = {rank: (base, torch.full((D,), torch.nan)) for rank in (1, 2)}
        arriving = ArrivingChanges(moved, D, lambda steps=steps: steps.append("own"))
        assert not arriving.saw(1, packet)
        land(arriving, 1, payload)
        land(arriving, 2, other_payload, until=other_payload.numel() - 1)
        assert arriving.saw(1, packet)
        assert not arriving.saw(1, payload_of(packet_of(1, bits))[1]), "of another frame"
        assert not arriving.saw(2, other), "a byte is missing"
        arriving.chunk(2, torch.ones(3), 0)  # of a dense frame
        assert steps == ["own"]
        expected = torch.empty(D)
        packet.put_moved(base, expected)
        assert torch.equal(moved[1][1], expected)


def test_an_answer_is_written_while_it_lands_and_taken_once():
    for bits in (8, 3):
        payload, packet = payload_of(packet_of(4, bits))
        answer = AnswerOfCodes(lambda: torch.full((D,), torch.nan), D)
        land(answer, 0, payload)
        made = answer.take(packet)
        assert torch.equal(made, packet.dense()), bits
        assert answer.take(packet) is None, bits
    early = AnswerOfCodes(lambda: torch.full((D,), torch.nan), D)
    land(early, 0, payload, until=payload.numel() - 1)
    assert early.take(packet) is None
