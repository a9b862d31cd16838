"""Frames that are well formed and wrong, given to the sessions of every pattern: each must be refused.

Nothing here is an `assert`, so that `support.without_asserts` checks as much.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

import laconic
from laconic.algorithms.csgd_ring import CSGDRing
from laconic.algorithms.dsgd import DSGD
from laconic.compressors import QSGD, Sparsified, TopK
from laconic.contract import ALGORITHMS, ModelSpec
from laconic.errors import ContractError, WireError
from laconic.kernels.reference import hashing as reference_hashing
from laconic.protocol.async_rank import ServingRank, request_admission
from laconic.protocol.exchanges import RankSessions, Sum, Swap, run_rank
from laconic.protocol.job import Job
from laconic.protocol.layout import choose_layout
from laconic.protocol.ring_allreduce import ring_sum
from laconic.protocol.round_inputs import Inputs
from laconic.wire import (
    Control,
    Dense,
    Encoded,
    Frame,
    Packet,
    Positions,
    SelectedValues,
    Signs,
    Sparse,
    VoteChange,
    decode,
    encode,
)
from support import methods
from support.packets import BY_KIND
from support.packets.signs import signs_of

N = 3
SPEC = ModelSpec.of_sizes(12, 1, 10)
LR = 0.125
SAMPLES = (
    {name: methods.with_test_settings(name) for name in methods.IN_STEP}
    | methods.SAMPLES
    | {
        "dsgd, difference": DSGD(mixing="difference", compressor=Sparsified(), graph="full"),
        "csgd-ring, top-k": CSGDRing(compressor=TopK(density=0.25)),
        "csgd-ring, one slice": CSGDRing(compressor=Sparsified(), partitioned=False),
        "ec-sgd, levels by count": laconic.ECSGD(compressor=QSGD(blocks="8", entropy=True)),
        "ssgd-mv-ad, swaps": ALGORITHMS["ssgd-mv-ad"](density=0.25, swap_density=0.2),
    }
)
ARRIVALS = (laconic.ASGD(), laconic.ASGD(max_staleness=1), laconic.ASGD(compressor=TopK(density=0.25)))
CASES = [
    (name, layout)
    for name, sample in SAMPLES.items()
    for layout in methods.layouts_of(sample, N)
    if layout != "allreduce" or not all(exchange.adds for exchange in sample.exchanges(SPEC, N))  # then it has frames
]


class NotRefusedError(Exception):
    """A wrong frame was accepted, or was refused in a wrong way."""


def _job_of(algorithm: laconic.Algorithm, layout: str) -> Job:
    chosen = choose_layout(layout, algorithm, SPEC, N)
    return Job(algorithm=algorithm, seed=5, spec=SPEC, dtype=torch.float32, layout=chosen)


def refuse_all(name: str, layout: str, rounds: int = 3) -> int:
    """Run a few rounds of a method; give every session wrong frames before true ones. Returns their number.

    In the initial round they come in the name of every sender, in later ones of one sender for each receiver.
    """
    job = _job_of(SAMPLES[name], layout)
    ranks = [RankSessions(job, node, lambda direction, largest=None: -LR * direction) for node in range(N)]
    n_refused = 0
    for round_ in range(rounds):
        steps = [run_rank(rank, round_, _inputs(rank, round_), LR, lambda phase: None) for rank in ranks]
        requests = [next(step) for step in steps]
        while requests:
            if isinstance(requests[0], Sum):
                _add_up(requests)
            else:
                for rank, request in zip(ranks, requests, strict=True):
                    turn = (round_ + rank.node) % len(request.expected) if request.expected else 0
                    for place, sender in enumerate(request.expected):
                        data = requests[sender].outgoing[rank.node]
                        if round_ == 0 or place == turn:
                            n_refused += refuse_in_place_of(data, job, sender, rank, request.take)
                        request.take(sender, data)
            requests = [request for request in map(_next_of, steps) if request is not None]
    return n_refused


def _inputs(rank: RankSessions, round_: int) -> Inputs | None:
    if rank.worker is None:
        return None
    vector = torch.randn(SPEC.d, generator=torch.Generator().manual_seed(100 * round_ + rank.node))
    other = vector.clone()
    return Inputs(vector=vector, parameters=torch.zeros(SPEC.d), gradient_at=lambda parameters: other)


def _next_of(step) -> Swap | Sum | None:
    try:
        return step.send(None)
    except StopIteration:
        return None


def _add_up(requests: list[Sum]) -> None:
    for request in requests:
        if request.write is not None:
            request.write(0, request.vector.numel())
    total = ring_sum([request.vector for request in requests])
    for request in requests:
        request.vector.copy_(total)


def refuse_in_place_of(
    data: Encoded, job: Job, sender: int, rank: RankSessions, take: Callable[[int, Encoded], object]
) -> int:
    """Give `take` every wrong frame that `sender` might send in place of this one. Returns their number."""
    n, before = 0, {name: value.clone() for name, value in _state_of(rank).items()}
    for what, wrong in (*_wrong_bytes(data), *_wrong_frames(decode(data, SPEC.d), job)):
        _refuse(what, sender, rank, take, wrong if isinstance(wrong, torch.Tensor) else encode(wrong), before)
        n += 1
    return n


def _refuse(
    what: str,
    sender: int,
    rank: RankSessions,
    take: Callable[[int, Encoded], object],
    data: Encoded,
    before: dict[str, torch.Tensor],
) -> None:
    try:
        take(sender, data)
    except (ContractError, WireError) as error:
        if f"rank {sender} (" not in str(error) and f"worker {sender} " not in str(error):
            raise NotRefusedError(f"{what}: the sender, rank {sender}, is not named: {error}") from error
    else:
        raise NotRefusedError(f"{what} in place of a frame of rank {sender} was accepted")
    after = _state_of(rank)
    if before.keys() != after.keys() or not all(torch.equal(before[key], after[key]) for key in before):
        raise NotRefusedError(f"{what} of rank {sender} was refused, but has changed a memory or the worker")


def _state_of(rank: RankSessions) -> dict[str, torch.Tensor]:
    """What a wrong frame must not change: all values of the memories, and where the worker's generator is."""
    worker, memories = rank.worker, [server.view.memory for server in rank.servers]
    state = {}
    if worker is not None:
        memories.append(worker.me.memory)
        state["generator"] = torch.tensor([worker.exchange, worker.aborted, id(worker.packet) % 2**31])
    return state | {f"{i} {name}": memory[name] for i, memory in enumerate(memories) for name in list(memory)}


def _wrong_bytes(data: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    flipped = data.clone()
    flipped[-1] ^= 1
    yield "a flipped bit", flipped
    yield "a byte too few", data[:-1].clone()


def _wrong_frames(true: Frame, job: Job) -> Iterator[tuple[str, Frame]]:
    """Well-formed frames that the sender of `true` may not send in its place, and what is wrong with each."""
    header, packet = true.header, true.packet
    others = {
        "an earlier round": {"round": header.round - 1 if header.round else 2**32 - 1},
        "a later round": {"round": header.round + 1},
        "another exchange": {"exchange": header.exchange + 1},
        "another rank": {"rank": header.rank + 1},
        "another role": {"role": "server" if header.role == "worker" else "worker"},
    }
    for what, changes in others.items():
        yield what, replace(true, header=replace(header, **changes))
    controls = {Control.ADMIT} | (set() if job.algorithm.skips else {Control.SKIP})
    if not job.algorithm.is_asynchronous or header.role == "server":
        controls |= {Control.BYE}
    n_used = len(SPEC.shapes)
    if job.algorithm.is_asynchronous:
        controls |= {Control.ABORT} if header.role == "server" else set()
        n_used += header.role == "worker"  # with one bit too many
    for control in controls:
        yield control.name, Frame(header=header, control=control)
    yield "USED", Frame(header=header, control=Control.USED, used=(True,) * n_used)
    for what, other in _wrong_packets(packet, job) if packet is not None else ():
        yield what, Frame(header=header, packet=other)


def _wrong_packets(packet: Packet, job: Job) -> Iterator[tuple[str, Packet]]:
    offset, count = packet.offset, packet.count
    swaps = job.algorithm.name == "ssgd-mv-ad" and type(packet) in (Positions, VoteChange)  # either is accepted
    for name, samples in BY_KIND.items():
        if samples.kind is not type(packet) and not (swaps and samples.kind in (Positions, VoteChange)):
            yield name, _about(name, offset, count)
        if count > 1:
            yield f"{name}, one coordinate fewer", _about(name, offset, count - 1)
        if offset + count < SPEC.d:
            yield f"{name}, one coordinate more", _about(name, offset, count + 1)
            yield f"{name}, the next coordinates", _about(name, offset + 1, count)
    yield from _other_settings(packet, job)


def _other_settings(packet: Packet, job: Job) -> Iterator[tuple[str, Packet]]:
    """The packet with another setting or key, for those kinds that have some."""
    offset, count = packet.offset, packet.count
    match packet:
        case Dense():
            yield "dense float64", replace(packet, values=packet.values.double())
            rounded = torch.bfloat16 if packet.values.dtype == torch.float32 else torch.float32
            yield f"dense {rounded}", replace(packet, values=packet.values.to(rounded))
        case Signs():
            yield "signs of another key", _signs(packet, packet.key ^ 1, packet.threshold)
            yield "signs of another mask", _signs(packet, packet.key, packet.threshold // 2)
        case SelectedValues():
            mask = reference_hashing.keep_mask(offset, count, packet.key ^ 1, packet.threshold)
            values = torch.ones(int(mask.sum()))
            yield "values of another key", replace(packet, values=values, key=packet.key ^ 1, sampled=None)
        case Sparse():
            yield "another code", replace(packet, code="list" if packet.code == "block" else "block")
            yield "float64 values", replace(packet, values=Dense(values=torch.ones(packet.values.count).double()))
        case _:
            yield "other settings", _about(packet.name, offset, count)


@functools.cache
def _about(name: str, offset: int, count: int) -> Packet:
    """A packet of this kind. Nobody changes it: it is sent as a frame."""
    return BY_KIND[name].about(offset, count)


def _signs(packet: Signs, key: int, threshold: int) -> Signs:
    return signs_of(torch.ones(packet.count) < 0, offset=packet.offset, key=key, threshold=threshold)


def refuse_all_arrivals(algorithm: laconic.Algorithm) -> int:
    """The same for an asynchronous method: all messages between one worker and the server."""
    job = _job_of(algorithm, "dedicated")
    ranks = [RankSessions(job, node, lambda direction, largest=None: -LR * direction) for node in range(N)]
    worker, server = ranks[0].worker, ServingRank(ranks[-1], torch.zeros(SPEC.d))
    n, serving = 0, server.serve(0, LR, lambda phase: None)
    receiving = next(serving)
    step = run_rank(ranks[0], 0, _inputs(ranks[0], 0), LR, lambda phase: None)
    gradient = next(step).outgoing[N - 1]
    if server.bound.may_wait:
        _refuse("a gradient without admission", 0, ranks[-1], receiving.take, gradient, _state_of(ranks[-1]))
        admission = request_admission(worker, 0)
        receiving.take(0, next(admission).outgoing[N - 1])
        answering = serving.send(None)
        receiving, awaiting = serving.send(None), admission.send(None)
        awaiting.take(N - 1, answering.outgoing[0])
        _next_of(admission)
    n += refuse_in_place_of(gradient, job, 0, ranks[-1], receiving.take)
    receiving.take(0, gradient)
    answering, awaiting = serving.send(None), step.send(None)
    answer = answering.outgoing[0]
    n += refuse_in_place_of(answer, job, N - 1, ranks[0], awaiting.take)
    awaiting.take(N - 1, answer)
    return n


def refuse_all_once() -> str:
    """Check one layout of each method. Returns the number of wrong frames, as a sentence."""
    cases = {name: layout for name, layout in reversed(CASES) if name in methods.IN_STEP}
    n = sum(refuse_all(*case, rounds=1) for case in cases.items())
    n += sum(map(refuse_all_arrivals, ARRIVALS))
    return f"{n} wrong frames of {len(cases) + len(ARRIVALS)} methods were refused"
