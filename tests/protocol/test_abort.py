"""Why a round is aborted, as frames and sums tell it from rank to rank."""

import math
from itertools import product

import pytest
import torch

import laconic
from laconic.contract import ModelSpec
from laconic.protocol.abort import Abort
from laconic.protocol.frames import Answer
from laconic.protocol.job import Job
from laconic.protocol.layout import choose_layout
from laconic.protocol.round_inputs import Inputs
from laconic.protocol.server import ServerSession
from laconic.protocol.worker import WorkerSession
from laconic.wire import Control, Frame, Header, decode, encode

REPORTED = (Abort.NO, Abort.SET_DIFFERS, Abort.NON_FINITE)


def test_the_reason_that_counts_is_found_in_the_sum_of_all_ranks_marks():
    for reasons in product(REPORTED, repeat=3):
        assert Abort.of_sum(sum(reason.mark for reason in reasons)) is max(reasons)
        assert Abort.of_sum(1.5 + sum(reason.mark for reason in reasons)) is max(reasons)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mark_keeps_its_meaning_in_a_vector(dtype):
    for reason in REPORTED:
        assert Abort.of_sum(float(torch.full((3,), reason.mark, dtype=dtype).sum())) is reason


def test_a_frame_says_why_it_aborts_the_round():
    for reason in REPORTED:
        header = Header(role="worker", rank=0, round=3, set_differs=reason is Abort.SET_DIFFERS)
        control = Control.ABORT if reason else Control.SKIP
        assert Abort.of(decode(encode(Frame(header=header, control=control)), 10)) is reason


def test_a_flag_without_an_abort_aborts_nothing():
    header = Header(role="worker", rank=0, round=3, set_differs=True)
    assert Abort.of(Frame(header=header, control=Control.SKIP)) is Abort.NO


def test_values_that_are_not_finite_abort():
    assert Abort.unless(True) is Abort.NO
    assert Abort.unless(False) is Abort.NON_FINITE
    assert math.isnan(Abort.NON_FINITE.mark)


@pytest.mark.parametrize("name", ["compskip", "ec-sgd", "ssgd-topk", "lag"])
def test_one_worker_whose_set_differs_is_answered_by_an_abort_and_no_memory_changes(name):
    cls = laconic.ALGORITHMS[name]
    algorithm = cls(**cls.test_settings)
    spec = ModelSpec.of_sizes(12)
    job = Job(
        algorithm=algorithm, seed=1, spec=spec, dtype=torch.float32, layout=choose_layout("rank0", algorithm, spec, 3)
    )
    workers, server = [WorkerSession(job, rank) for rank in range(3)], ServerSession(job, 0)
    gradient = torch.linspace(-1, 1, 12)
    server.open(0, 0, 0.1)
    for worker in workers:
        abort = Abort.SET_DIFFERS if worker.rank == 1 else Abort.NO
        worker.begin(0, Inputs(vector=gradient.clone(), parameters=torch.zeros(12), abort=abort), 0.1)
        sent, _ = worker.outgoing()
        server.take(worker.rank, sent[0])
    answer = Answer.read(encode(server.answer()), job, 0, 0, 0)
    assert server.aborted is Abort.SET_DIFFERS
    server.close(not server.aborted)
    for worker in workers:
        worker.receive({0: answer})
        assert worker.aborted is Abort.SET_DIFFERS
        assert not worker.close()
        assert not list(worker.me.memory)
    assert not list(server.view.memory)
