"""A real rank that sends a wrong frame is named by those that get it; the others then lose those that have left."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

import laconic
from laconic.algorithms.sgd import SGD
from laconic.compressors import signs
from laconic.wire import Control, Frame, decode, encode
from support import small_model
from support.deadlines import HANG_TIMEOUT_S
from support.packets import BY_KIND
from support.ranks import announce, run_ranks, wait_for

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share

N = 3
WRONG_RANK = 1
TRUE_ROUNDS = 2
METHODS = {  # algorithm, layout, and the ranks that get the wrong frame
    "ec-sgd": (laconic.ECSGD(), "rank0", {0}),
    "compskip": (laconic.CompSkip(keep=0.5, skip=laconic.Never(), server_skip=laconic.Never()), "sharded", {0, 2}),
    "csgd-ring": (laconic.CSGDRing(), "peers", {2}),
}


def with_header(**changes: Callable[[int], object]) -> Callable[[Frame], Frame]:
    def wrong(frame):
        header = frame.header
        return replace(
            frame, header=replace(header, **{name: to(getattr(header, name)) for name, to in changes.items()})
        )

    return wrong


def another_kind(frame):
    kind = "positions" if frame.packet.name != "positions" else "dense"
    return replace(frame, packet=BY_KIND[kind].about(frame.packet.offset, frame.packet.count))


def one_coordinate_fewer(frame):
    return replace(frame, packet=BY_KIND[frame.packet.name].about(frame.packet.offset, frame.packet.count - 1))


def another_setting(frame):
    packet = frame.packet
    if packet.name == "dense":
        return replace(frame, packet=replace(packet, values=packet.values.double()))
    return replace(frame, packet=BY_KIND[packet.name].about(packet.offset, packet.count))  # another mask, or one block


WRONG = {
    "another kind": another_kind,
    "one coordinate fewer": one_coordinate_fewer,
    "another setting": another_setting,
    "a later round": with_header(round=lambda round_: round_ + 1),
    "another rank": with_header(rank=lambda rank: rank + 1),
    "another role": with_header(role=lambda _: "server"),
    "a control frame": lambda frame: Frame(header=frame.header, control=Control.BYE),
}


class Forging:
    """A channel that sends wrong frames in place of its worker's."""

    def __init__(self, channel, wrong):
        self._channel, self._wrong = channel, wrong

    def __getattr__(self, name):
        return getattr(self._channel, name)

    def swap(self, outgoing, expected, purpose):
        return self._channel.swap({peer: self._forged(data) for peer, data in outgoing.items()}, expected, purpose)

    def _forged(self, data):
        frame = decode(data, small_model.N_PARAMETERS)
        return encode(self._wrong(frame)) if frame.header.role == "worker" else data


@dataclass(frozen=True, kw_only=True)
class SignsInTheSum(SGD):
    """Rank WRONG_RANK sends signs into an all-reduce of gradients."""

    def work(self, me):
        if me.rank == WRONG_RANK and me.round == TRUE_ROUNDS:
            yield signs(me.gradient)
        return (yield from super().work(me))


@dataclass(frozen=True, kw_only=True)
class ShortSum(SGD):
    """Rank WRONG_RANK leaves out the last value."""

    def work(self, me):
        if me.rank == WRONG_RANK and me.round == TRUE_ROUNDS:
            yield laconic.compressors.dense(me.gradient[:-1])
        return (yield from super().work(me))


def errors_of(rank: int) -> dict[tuple[str, str], str]:
    """This rank's error in each case."""
    cases = {(name, what): (*METHODS[name][:2], wrong) for name in METHODS for what, wrong in WRONG.items()}
    cases |= {("sgd", each.__name__): (each(), "allreduce", None) for each in (SignsInTheSum, ShortSum)}
    errors = {}
    for case, given in cases.items():
        errors[case] = error_in(rank, *given)
        gc.collect()  # closes the connections of a rank that gave up, as the end of its process would
        announce(f"{case} {rank}")
        wait_for(*(f"{case} {other}" for other in range(N)))
    return errors


def error_in(rank, algorithm, layout, wrong) -> str:
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    opt = laconic.DistributedOptimizer(inner, algorithm, layout=layout, timeout_s=HANG_TIMEOUT_S, check_every=0)
    channel = opt.driver.channel
    try:
        for round_ in range(TRUE_ROUNDS + 1):
            if round_ == TRUE_ROUNDS and rank == WRONG_RANK and wrong is not None:
                opt.driver.channel = Forging(channel, wrong)
            opt.zero_grad()
            small_model.loss(net, rank, round_).backward()
            opt.step()
    except laconic.errors.LaconicError as error:
        channel.close()
        return f"{type(error).__name__}: {error}"
    return "nothing"


@pytest.fixture(scope="module")
def errors():
    """Of each rank, its error in each case."""
    return run_ranks(errors_of, N)


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("name", METHODS)
def test_a_wrong_frame_is_refused_with_its_senders_rank(name, what, errors):
    _, _, receivers = METHODS[name]
    for rank in range(N):
        error = errors[rank][name, what]
        if rank in receivers:
            assert error.startswith(f"ContractError: rank {WRONG_RANK} (worker) sent"), f"rank {rank}: {error}"
        else:
            assert error.startswith("PeerLostError: rank "), f"rank {rank}: {error}"
            assert any(f"rank {receiver}" in error for receiver in receivers), f"rank {rank}: {error}"


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [SignsInTheSum, ShortSum])
def test_in_an_all_reduce_the_sender_of_a_wrong_packet_raises_and_the_others_lose_it(algorithm, errors):
    for rank in range(N):
        error = errors[rank]["sgd", algorithm.__name__]
        if rank == WRONG_RANK:
            assert error.startswith(f"ContractError: sgd: worker {WRONG_RANK} yielded"), error
        else:
            ended = f"PeerLostError: rank {WRONG_RANK} has ended after {TRUE_ROUNDS} steps with ContractError: sgd"
            assert error.startswith(ended), f"rank {rank}: {error}"
