"""Rounds that end badly over real processes: who is waited for, who is named, and what state the others are left in.

What waits for seconds is launched apart, at the same time as the rest.
"""

import gc
import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import laconic
from laconic.drivers.distributed import giving_up
from laconic.drivers.distributed.incoming import SHORT_BYTES
from laconic.errors import LaconicError, WireError
from laconic.wire import HEADER_BYTES, encode
from support import small_model
from support.deadlines import DEATH_TIMEOUT_S, HANG_TIMEOUT_S
from support.frame_bytes import with_promise
from support.ranks import Launch, announce, wait_for

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share

N = 3
ODD_RANK = 1
SHORT_S = 4.0  # a timeout that some of these tests wait for
METHODS = {
    "ec-sgd": (laconic.ECSGD(), "rank0"),
    "compskip": (laconic.CompSkip(keep=0.5, skip=laconic.Never(), server_skip=laconic.Never()), "sharded"),
    "csgd-ring": (laconic.CSGDRing(), "peers"),
}


def optimizer(net, algorithm=None, layout="auto", **settings):
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    settings = {"timeout_s": HANG_TIMEOUT_S, "check_every": 0} | settings
    return laconic.DistributedOptimizer(inner, algorithm or laconic.SGD(), layout=layout, **settings)


def take_steps(opt, net, rank, start, stop):
    for round_ in range(start, stop):
        if not opt.serves_only:
            opt.zero_grad()
            small_model.loss(net, rank, round_).backward()
        opt.step()


class Odd:
    """A channel with another `swap`."""

    def __init__(self, channel, swap):
        self._channel, self.swap = channel, swap

    def __getattr__(self, name):
        return getattr(self._channel, name)


def error_of(task, *args) -> str:
    try:
        task(*args)
    except (LaconicError, RuntimeError, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def meet(case, rank):
    """Let all ranks end a case before any begins the next one."""
    gc.collect()
    announce(f"{case} {rank}")
    wait_for(*(f"{case} {other}" for other in range(N)))


def steps_with_a_late_rank(rank):
    """Rank 1 is late by nine tenths of the timeout."""
    net = small_model.net()
    opt = optimizer(net, laconic.ECSGD(), "rank0", timeout_s=SHORT_S)
    take_steps(opt, net, rank, 0, 1)
    if rank == ODD_RANK:
        time.sleep(0.9 * SHORT_S)
    take_steps(opt, net, rank, 1, 3)


def damaged(data):
    copy = data.clone()
    copy[-1] ^= 1
    return copy


def longer(n_bytes):
    def wrong(data):
        raw = bytes(data.numpy())
        return torch.frombuffer(
            bytearray(with_promise(raw + bytes(n_bytes), payload_bytes=len(raw) - HEADER_BYTES)), dtype=torch.uint8
        )

    return wrong


WRONG = {"a damaged body": damaged, "8 bytes more": longer(8), "more than any room": longer(1_000_000)}


def with_a_wrong_frame(rank, name, wrong):
    """Rank 1 sends a wrong frame in its third step."""
    net = small_model.net()
    opt = optimizer(net, *METHODS[name])
    channel = opt.driver.channel
    take_steps(opt, net, rank, 0, 2)
    before = small_model.values(net)
    if rank == ODD_RANK:
        opt.driver.channel = Odd(
            channel,
            lambda out, *rest: channel.swap(
                {peer: wrong(data) if len(data) > HEADER_BYTES else data for peer, data in out.items()}, *rest
            ),
        )
    error = error_of(take_steps, opt, net, rank, 2, 3)
    opt.state_dict()
    channel.close()
    return error, torch.equal(before, small_model.values(net))


def raw_messages(rank):
    """Rank 1 sends more than its headers say, below our own check. Returns rank 0's errors, and what follows."""
    opt = optimizer(small_model.net(), laconic.ECSGD(), "rank0")
    channel = opt.driver.channel
    more, errors = torch.ones(1000, dtype=torch.uint8), []
    short, in_two = (
        encode(laconic.wire.Frame(
            header=laconic.wire.Header(role="worker", rank=1, round=0),
            packet=laconic.wire.Dense(values=torch.ones(count)),
        )) for count in (5, SHORT_BYTES // 4)
    )  # fmt: skip
    for messages in ([torch.cat([short, more])], [in_two[:HEADER_BYTES], torch.cat([in_two[HEADER_BYTES:], more])]):
        if rank == ODD_RANK:
            for message in messages:
                dist.isend(message, 0, channel.group).wait()
        if rank == 0:
            channel._max_encoded_bytes = in_two.nbytes  # of a larger model than this one
            with pytest.raises(WireError) as refused:
                list(channel.swap({}, [ODD_RANK], "its packet"))
            errors.append(str(refused.value))
    got = dict(channel.swap({0: short} if rank == ODD_RANK else {}, [] if rank else [ODD_RANK], "its packet"))
    return errors, rank != 0 or torch.equal(got[ODD_RANK], short)


def elsewhere(rank):
    """Rank 1 is in `total_traffic()`, the others are in their third step."""
    net = small_model.net()
    opt = optimizer(net, timeout_s=SHORT_S)
    take_steps(opt, net, rank, 0, 2)
    return error_of(opt.total_traffic) if rank == ODD_RANK else error_of(take_steps, opt, net, rank, 2, 3)


def in_another_gather(rank):
    """Rank 1 is in `total_traffic()`, the others compare their parameters."""
    net = small_model.net()
    opt = optimizer(net, check_every=1)
    opt.replica_check.every = 0 if rank == ODD_RANK else 1
    opt.replica_check.is_start = False
    return error_of(lambda: (take_steps(opt, net, rank, 0, 1), opt.total_traffic()))


def in_another_sum(rank):
    """Rank 1 asks for the mean of all models, the others are in their second step."""
    net = small_model.net()
    opt = optimizer(net, timeout_s=SHORT_S)
    take_steps(opt, net, rank, 0, 1)
    if rank == ODD_RANK:
        return error_of(laconic.mean_parameters, opt)
    return error_of(take_steps, opt, net, rank, 1, 2)


def an_error_of_the_engine(rank):
    """Rank 1 gives the engine values that it does not add up."""
    net = small_model.net()
    opt = optimizer(net)
    take_steps(opt, net, rank, 0, 1)
    if rank == ODD_RANK:
        return error_of(opt.driver.channel.all_reduce, torch.ones(3, dtype=torch.int16), "for a test")
    return error_of(take_steps, opt, net, rank, 1, 2)


def uneven(rank):
    """Rank 1 takes fewer steps than the others, and ends."""
    net = small_model.net()
    opt = optimizer(net, laconic.ECSGD(), "rank0")
    take_steps(opt, net, rank, 0, 2)
    if rank == ODD_RANK:
        opt.driver.channel.close()
        return "nothing"
    return error_of(take_steps, opt, net, rank, 2, 3)


def interrupted(rank):
    """Ctrl-C arrives at rank 1 in the exchange after three local steps. Returns the errors and what is undone."""
    net = small_model.net()
    opt = optimizer(net, laconic.SSGDMV(density=0.5, bits=4), "rank0", local_steps=3)
    channel = opt.driver.channel
    take_steps(opt, net, rank, 0, 3)
    before = small_model.values(net)
    take_steps(opt, net, rank, 3, 5)
    moved = not torch.equal(before, small_model.values(net))
    if rank == ODD_RANK:

        def interrupt(out, expected, purpose):
            raise KeyboardInterrupt

        opt.driver.channel = Odd(channel, interrupt)
    error = error_of(take_steps, opt, net, rank, 5, 6)
    undone = torch.equal(before, small_model.values(net)) and opt.training.n_taken == 0
    state = opt.state_dict()["laconic"]
    return error, moved, undone, state["training"]["steps_taken"], state["driver"]["rounds"]


def late_by_less(rank):
    return error_of(steps_with_a_late_rank, rank)


WAITING = (late_by_less, elsewhere, in_another_sum)  # each for seconds


def act(rank):
    seen = {}
    for name in METHODS:
        for wrong in WRONG:
            seen[name, wrong] = with_a_wrong_frame(rank, name, WRONG[wrong])
            meet((name, wrong), rank)
    for case in (raw_messages, in_another_gather, an_error_of_the_engine, uneven, interrupted):
        seen[case.__name__] = case(rank)
        meet(case.__name__, rank)
    return seen


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    """Of the cases in which nobody dies, and of the others with the folder that they write to. All run at once."""
    folder = tmp_path_factory.mktemp("left")
    waiting = {case.__name__: Launch(case, N) for case in WAITING}
    deaths = [Launch(die_while_making, N, folder), Launch(act_deaths, 5, folder)]
    return waiting, Launch(act, N), deaths, folder


@pytest.fixture(scope="module")
def seen(launches):
    """What each rank saw in each case."""
    waiting, launch, *_ = launches
    apart = {case: waited.results() for case, waited in waiting.items()}
    return [of_rank | {case: apart[case][rank] for case in apart} for rank, of_rank in enumerate(launch.results())]


@pytest.mark.slow
def test_a_rank_that_is_late_by_less_than_the_timeout_is_waited_for(seen):
    assert [of_rank["late_by_less"] for of_rank in seen] == ["nothing"] * N


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", METHODS)
def test_a_damaged_or_longer_body_is_refused_with_its_senders_rank_on_all_ranks(name, wrong, seen):
    for rank in range(N):
        error, unchanged = seen[rank][name, wrong]
        assert f"rank {ODD_RANK}" in error, f"rank {rank}: {error}"
        assert "WireError: " in error, f"rank {rank}: {error}"
        assert "its header promises" in error, f"rank {rank}: {error}"
        assert unchanged


@pytest.mark.slow
def test_a_message_that_is_longer_than_its_header_says_does_not_end_the_process_that_gets_it(seen):
    (short, in_two), comes_after = seen[0]["raw_messages"]
    assert short.startswith("rank 1, its packet: it sent more than the 28 payload bytes"), short
    assert in_two.startswith(f"rank 1, its packet: it sent more than the {SHORT_BYTES + 8} payload bytes"), in_two
    assert comes_after


@pytest.mark.slow
def test_ranks_that_wait_in_different_calls_learn_who_waits_for_what(seen):
    for rank in range(N):
        message = seen[rank]["elsewhere"]
        assert message.startswith("PeerLostError: the ranks wait for each other in different calls"), message
        assert "rank 0 and rank 2 in step 3 (for the all-reduce of round 2)" in message
        assert "rank 1 in total_traffic() (total_traffic() after round 2)" in message


@pytest.mark.slow
def test_ranks_that_gather_different_things_learn_it_without_waiting(seen):
    for rank in range(N):
        message = seen[rank]["in_another_gather"]
        assert "rank 1 in total_traffic()" in message, message
        assert "for its parameters' hash" in message


@pytest.mark.slow
def test_a_sum_of_another_call_is_not_added_to_that_of_a_step(seen):
    for rank in range(N):
        message = seen[rank]["in_another_sum"]
        assert "rank 1 in mean_parameters()" in message, message
        assert "rank 0 and rank 2 in step 2" in message


@pytest.mark.slow
def test_an_error_of_the_engine_that_is_no_lost_rank_is_passed_on_and_shown_to_the_others(seen):
    raised = seen[ODD_RANK]["an_error_of_the_engine"]
    assert not raised.startswith(("PeerLostError", "nothing")), raised
    for rank in (0, 2):
        assert seen[rank]["an_error_of_the_engine"].startswith(f"PeerLostError: rank {ODD_RANK} gave up in step 2: ")
        assert raised[:60] in seen[rank]["an_error_of_the_engine"]


@pytest.mark.slow
def test_a_rank_that_took_fewer_steps_is_named_with_both_numbers(seen):
    for rank in (0, 2):
        message = seen[rank]["uneven"]
        assert message.startswith(
            f"PeerLostError: rank {ODD_RANK} has ended after 2 steps; rank {rank}, this one, is in"
        )
        assert "in step 3 (" in message
        assert "Did every rank call step() equally often?" in message


@pytest.mark.slow
def test_an_interrupt_in_the_exchange_undoes_the_local_steps_on_every_rank(seen):
    for rank in range(N):
        error, moved, undone, steps_taken, rounds = seen[rank]["interrupted"]
        assert "KeyboardInterrupt" in error, error
        assert moved
        assert undone
        assert (steps_taken, rounds) == (0, 1)


# Ranks that die.


def dies_before_its_answer(rank, name, group):
    """Rank `size - 1` of the group dies when it has sent its packet of the fourth round. Returns what is left."""
    size = dist.get_world_size(group)
    net = small_model.net()
    algorithm, layout = {**METHODS, "dropsign": (laconic.DropSign(c=0.1, server_c=0.1), "sharded")}[name]
    opt = optimizer(net, algorithm, layout, timeout_s=DEATH_TIMEOUT_S, group=group)
    channel = opt.driver.channel
    take_steps(opt, net, rank, 0, 3)
    if rank == size - 1:

        def die_when_it_answers(out, expected, purpose):
            if "answer" in purpose:
                os._exit(1)
            return channel.swap(out, expected, purpose)

        opt.driver.channel = Odd(channel, die_when_it_answers)
    error = error_of(take_steps, opt, net, rank, 3, 8)
    state = opt.state_dict()["laconic"]["driver"]["rounds"]
    return f"{error}|{state}|{small_model.values(net).tolist()}"


def die_while_making(rank, folder: Path):
    if rank == N - 1:
        giving_up.new_named_group = lambda *args, **options: os._exit(1)
    (folder / f"making {rank}").write_text(error_of(lambda: optimizer(small_model.net(), timeout_s=SHORT_S)))
    os._exit(0)  # a rank is gone, so nothing can be taken down in order


def act_deaths(rank, folder: Path):
    for name, size in (("ec-sgd", 5), ("dropsign", 4)):
        group = None if size == 5 else dist.new_group(list(range(size)), use_local_synchronization=True)
        (folder / f"{name} {rank}").write_text(dies_before_its_answer(rank, name, group))
        announce(f"{name} {rank}")
        wait_for(*(f"{name} {other}" for other in range(size - 1)))
    os._exit(0)  # some of the ranks are gone, so nothing can be taken down in order


@pytest.fixture(scope="module")
def left(launches):
    """What each rank that is left wrote in each case."""
    *_, deaths, folder = launches
    errors = [end.error for launch in deaths for end in launch.ends() if end.error]
    assert not errors, "\n".join(errors)
    return lambda case, rank: (folder / f"{case} {rank}").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "rounds"), [("ec-sgd", 5, 4), ("dropsign", 4, 3)])
def test_when_a_rank_dies_before_its_answer_all_others_hold_the_same_round_and_can_save_it(name, size, rounds, left):
    ends = [left(name, rank).split("|") for rank in range(size - 1)]
    for error, state, parameters in ends:
        assert error.startswith(f"PeerLostError: rank {size - 1} was waited for"), error
        assert error.endswith(f"have ended {rounds} rounds, so what their state_dict() returns fits together"), error
        assert int(state) == rounds
        assert parameters == ends[0][2]


@pytest.mark.slow
def test_a_rank_that_dies_while_optimizers_are_made_is_named(left):
    for rank in (0, 1):
        message = left("making", rank)
        assert message.startswith("PeerLostError: rank 2 was waited for (DistributedOptimizer()"), message
        assert "has died or hangs" in message
