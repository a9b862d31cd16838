"""Frames whose payloads are sent apart from their headers, and sums by a second group, as on GPUs with NCCL.

Here the device is the CPU and the second group's engine is gloo; all else is as on GPUs. The last test is for a
machine that has GPUs.
"""

import contextlib
import os

import pytest
import torch
import torch.distributed as dist

import laconic
from laconic.drivers.distributed.channel import Channel
from laconic.drivers.distributed.device_channel import are_distinct, gpu_of
from laconic.errors import WireError
from laconic.wire import HEADER_BYTES, Control, Dense, Frame, Header, decode, encode, encode_split
from support import optimizers, small_model
from support.deadlines import DEATH_TIMEOUT_S, HANG_TIMEOUT_S, PATIENCE_S
from support.frame_bytes import HEADER, resealed, with_promise
from support.ranks import Launch, announce, run_ranks, wait_for

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share

N = 3
ROUNDS = 8
CPU = torch.device("cpu")
CASES = [("sgd", "allreduce"), ("dropsign", "rank0"), ("compskip", "sharded"), ("compskip", "rank0"),
         ("ec-sgd", "dedicated"), ("ssgd-mv", "allreduce"), ("dsgd", "peers"),
         ("csgd-ring", "peers")]  # fmt: skip


@contextlib.contextmanager
def payloads_sent():
    """Counts the bytes that this process passes to torch.distributed in batches."""
    count = {"bytes": 0}
    batch = dist.batch_isend_irecv

    def counting(messages):
        count["bytes"] += sum(message.tensor.numel() for message in messages if message.op is dist.isend)
        return batch(messages)

    dist.batch_isend_irecv = counting
    try:
        yield count
    finally:
        dist.batch_isend_irecv = batch


def trained(rank, name, layout, *, split, bad_round=None, group=None):
    """Train some rounds; in `bad_round` the loss of rank 1 is inf. Returns values, traffic and bytes sent split."""
    net = small_model.net()
    opt = optimizers.wrapped(net, name, layout, group=group)
    if split:
        opt.driver.send_from(CPU, "gloo")
    with payloads_sent() as count:
        for round_ in range(ROUNDS):
            optimizers.one_step(opt, net, rank, round_, torch.inf if (rank, round_) == (1, bad_round) else 1.0)
    traffic = opt.traffic.as_data()
    del traffic["seconds"]
    return {"values": small_model.values(net), "traffic": traffic, "split_bytes": count["bytes"]}


def split_and_unsplit(rank, *case, group=None, **settings):
    # The first optimizer of a machine says when its kernels are compiled, in control bytes that no later one needs.
    optimizers.wrapped(small_model.net(), *case, group=group).close()
    settings["group"] = group
    return trained(rank, *case, split=False, **settings), trained(rank, *case, split=True, **settings)


def alone_with_a_server(rank):
    """An asynchronous worker and its server; the third rank takes no part."""
    group = dist.new_group([0, 1])
    return split_and_unsplit(rank, "asgd", "auto", group=group) if rank < 2 else None


def frame_of(values):
    return encode_split(Frame(header=HEADER, packet=Dense(values=values)), CPU)


def hostile_headers():
    """Headers that no split frame may begin with, by the error that they cause."""
    header = bytes(frame_of(torch.ones(5)).header.numpy())
    return {
        "promises 1099511627776 payload bytes": with_promise(header, payload_bytes=1 << 40),
        "split flag 1, kind 3, 0 payload bytes": with_promise(header, payload_bytes=0),
        "flags 0x0048": resealed(header[:2] + b"\x48" + header[3:]),
        "flags 0xff08": resealed(header[:3] + b"\xff" + header[4:]),
        "checksum": header[:20] + b"\1" + header[21:],
    }


def messages_of_hostile_headers(rank):
    """Rank 1 sends hostile headers, then a valid frame. Returns rank 0's errors, and the values it reads at last."""
    channel = Channel(None, PATIENCE_S, 5)
    honest = frame_of(torch.arange(5.0))

    def message_of(header):
        if rank == 1:
            dist.isend(torch.frombuffer(bytearray(header), dtype=torch.uint8), 0, channel.group).wait()
        if rank == 0:
            with pytest.raises(WireError) as refused:
                list(channel.swap({}, [1], "its packet"))
            return str(refused.value)
        return None

    before = message_of(bytes(honest.header.numpy()))
    channel.open_device_channel(CPU, "gloo")
    reports = {reason: message_of(header) for reason, header in hostile_headers().items()}
    frames = dict(channel.swap({0: honest} if rank == 1 else {}, [1] if rank == 0 else [], "its packet"))
    return (before, reports, decode(frames[1], 5).packet.dense()) if rank == 0 else None


def act(rank):
    seen = {case: split_and_unsplit(rank, *case) for case in CASES}
    seen["bad"] = split_and_unsplit(rank, "ec-sgd", "rank0", bad_round=3)
    seen["arrivals"] = alone_with_a_server(rank)
    seen["hostile"] = messages_of_hostile_headers(rank)
    return seen


@pytest.fixture(scope="module")
def seen(doomed):
    """What each rank returned: seen[rank][case]. Meanwhile the others wait."""
    return run_ranks(act, N)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, "bad"], ids=str)
def test_split_frames_change_no_bit_and_no_count(case, seen):
    for rank in range(N):
        full, split = seen[rank][case]
        assert torch.equal(full["values"], split["values"]), f"rank {rank}"
        assert full["traffic"] == split["traffic"], f"rank {rank}"
        assert full["split_bytes"] == 0
    sent = [seen[rank][case][1]["split_bytes"] for rank in range(N)]
    assert any(sent) == (case != ("sgd", "allreduce")), sent


@pytest.mark.slow
@pytest.mark.parametrize("case", [("dropsign", "rank0"), ("compskip", "rank0"), "bad"], ids=str)
def test_what_is_counted_is_what_was_sent_in_headers_and_payloads(case, seen):
    for rank in (1, 2):
        split = seen[rank][case][1]
        assert split["traffic"]["up"]["wire_bytes"] == ROUNDS * HEADER_BYTES + split["split_bytes"]


@pytest.mark.slow
def test_control_frames_have_no_payload_to_split_off(seen):
    for rank in (1, 2):
        assert seen[rank]["compskip", "rank0"][1]["traffic"]["up"]["skips"] > 0
        assert seen[rank]["bad"][1]["traffic"]["aborted_rounds"] == 1


@pytest.mark.slow
def test_an_asynchronous_server_accepts_split_frames(seen):
    full, split = seen[0]["arrivals"]
    assert torch.equal(full["values"], split["values"])
    assert full["traffic"] == split["traffic"]
    assert split["split_bytes"] > 0


@pytest.mark.slow
def test_a_split_frame_is_refused_without_a_device_channel(seen):
    before, _, _ = seen[0]["hostile"]
    assert before.startswith("rank 1, its packet: a split frame, whose payload travels apart from its header")


@pytest.mark.slow
def test_hostile_headers_are_refused_before_a_buffer_is_allocated_and_the_next_frame_is_read(seen):
    _, reports, values = seen[0]["hostile"]
    for reason, message in reports.items():
        assert message.startswith("rank 1, its packet: "), message
        assert reason in message
    assert torch.equal(values, torch.arange(5.0))


def test_payloads_are_sent_from_gpus_only_if_each_rank_has_its_own():
    assert gpu_of(CPU, None) is None
    assert are_distinct(["a", "b", "c"])
    assert not are_distinct(["a", "b", "a"])
    assert not are_distinct(["a", None])
    assert not are_distinct([None])


# Ranks that hang or die. Each death leaves one rank fewer; the others continue with the next case.

N_DOOMED = 4


def act_out(rank, folder, stories):
    for story, n, timeout_s in stories:
        group = dist.new_group(list(range(n)), use_local_synchronization=True)
        channel = Channel(group, timeout_s, 1000)
        channel.open_device_channel(CPU, "gloo")
        try:
            story(rank, channel)
            reports = "nothing"
        except laconic.PeerLostError as error:
            reports = str(error)
        (folder / f"{story.__name__} {rank}").write_text(reports)
        announce(f"{rank} gave up")
    os._exit(0)  # some of the ranks are gone, so nothing can be taken down in order


def hang_in_a_sum(rank, channel):
    """Rank 1 takes part only when the others have given up."""
    if rank == 1:
        wait_for("0 gave up", "2 gave up", "3 gave up")
    channel.all_reduce(torch.ones(1000), "for a sum")
    channel.gather(
        rank, "for what comes next", int, max_bytes=8
    )  # gloo's sum may have ended without those that gave up


def die_with_its_payload(rank, channel):
    """Rank 0 has the header of rank 3's frame, and waits for the payload. The others wait for rank 0's answer."""
    frame = frame_of(torch.ones(1000))
    if rank == 3:
        dist.isend(frame.header, 0, channel.group).wait()
        os._exit(1)
    list(channel.swap({0: frame} if rank else {}, [] if rank else [1, 2, 3], "its packet"))
    answer = encode(Frame(header=Header(role="server", rank=0, round=0), control=Control.SKIP))
    list(channel.swap({} if rank else {1: answer, 2: answer}, [0] if rank else [], "its answer"))


def die_in_a_sum(rank, channel):
    if rank == 2:
        os._exit(1)
    channel.all_reduce(torch.ones(1000), "for a sum")


@pytest.fixture(scope="module")
def doomed(tmp_path_factory):
    """The launches of ranks that hang or die, which mostly wait: at the same time. And the folder they write to."""
    folder = tmp_path_factory.mktemp("reported")
    deaths = [(die_with_its_payload, 4, DEATH_TIMEOUT_S), (die_in_a_sum, 3, DEATH_TIMEOUT_S)]
    each = ([(hang_in_a_sum, 4, HANG_TIMEOUT_S)], deaths)
    return [Launch(act_out, N_DOOMED, folder, stories) for stories in each], folder


@pytest.fixture(scope="module")
def reports(doomed):
    """The error that each rank got in each case."""
    launches, folder = doomed
    errors = [end.error for launch in launches for end in launch.ends() if end.error]
    assert not errors, "\n".join(errors)
    return lambda story, rank: (folder / f"{story.__name__} {rank}").read_text()


@pytest.mark.slow
def test_a_rank_that_hangs_in_a_sum_of_the_second_group_is_named_by_all_and_by_itself(reports):
    for rank in (0, 2, 3):
        message = reports(hang_in_a_sum, rank)
        assert message.startswith("rank 1 was waited for (for a sum), but nothing came within"), message
    message = reports(hang_in_a_sum, 1)
    assert message.startswith("rank 1, this one, came too late"), message


@pytest.mark.slow
def test_a_rank_that_dies_between_its_header_and_its_payload_is_named_by_all(reports):
    for rank in (0, 1, 2):
        message = reports(die_with_its_payload, rank)
        assert message.startswith("rank 3 was waited for"), message
        assert "its connection closed" in message


@pytest.mark.slow
def test_a_rank_that_dies_in_a_sum_of_the_second_group_is_named_by_all(reports):
    for rank in (0, 1):
        message = reports(die_in_a_sum, rank)
        assert message.startswith("rank 2 was waited for (for a sum), but its connection closed"), message


# On GPUs.


def on_a_gpu(rank, name, layout, *, nccl):
    """Train some rounds on this rank's GPU. Without NCCL, all data goes through the host."""
    torch.cuda.set_device(rank)
    net = small_model.net().cuda()
    is_available = dist.is_nccl_available
    dist.is_nccl_available = lambda: nccl
    try:
        opt = optimizers.wrapped(net, name, layout)
    finally:
        dist.is_nccl_available = is_available
    assert (opt.driver.channel.device_channel is not None) == nccl
    for round_ in range(ROUNDS):
        optimizers.one_step(opt, net, rank, round_)
    traffic = opt.traffic.as_data()
    del traffic["seconds"], traffic["control_bytes"]
    return small_model.values(net).cpu(), traffic


def split_and_unsplit_on_a_gpu(rank, cases):
    return [[on_a_gpu(rank, *case, nccl=nccl) for nccl in (False, True)] for case in cases]


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and dist.is_nccl_available()), reason="needs a GPU and NCCL")
def test_frames_and_sums_over_nccl_give_what_they_give_through_the_host():
    cases = [("dropsign", "rank0"), ("ec-sgd", "rank0"), ("dsgd", "peers"), ("sgd", "allreduce")]
    for by_case in run_ranks(split_and_unsplit_on_a_gpu, torch.cuda.device_count(), cases):
        for (name, layout), ((full, counted), (split, counted_split)) in zip(cases, by_case, strict=True):
            assert counted == counted_split
            if layout == "allreduce":  # NCCL adds in another order
                torch.testing.assert_close(split, full)
            else:
                assert torch.equal(split, full), name
