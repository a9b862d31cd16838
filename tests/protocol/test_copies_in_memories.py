"""What two sessions of one rank hand each other stays the one's: the other's memory gets copies of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from laconic.compressors import dense
from laconic.contract import Algorithm, ModelSpec, Rule, Slot
from laconic.protocol.exchanges import RankSessions, end_round, run_exchanges
from laconic.protocol.job import Job
from laconic.protocol.layout import choose_layout
from laconic.protocol.round_inputs import Inputs
from laconic.wire import Dense, Frame, Header, encode

D = 8
LAST: Mapping[str, Slot] = {"last": Slot(rule=Rule.SAME, length=D // 2)}


class Sample(Algorithm):
    def paper_bits(self, spec, n_workers=10):
        return 32.0 * spec.d, 32.0 * spec.d


@dataclass(frozen=True, kw_only=True)
class Keeping(Sample):
    """Its worker keeps a part of the answer."""

    name: ClassVar[str] = "keeping"
    worker_slots: ClassVar[Mapping[str, Slot]] = LAST

    @property
    def separable(self):
        return True

    def work(self, me):
        reply = yield dense(me.gradient, offset=me.offset)
        me.memory["last"] = reply.parts[0].values
        return reply.dense()

    def serve(self, server, inbox):
        return dense(inbox.mean(), offset=server.offset)


@dataclass(frozen=True, kw_only=True)
class ModelKeeping(Sample):
    """Its server keeps the model that it has stepped."""

    name: ClassVar[str] = "model-keeping"
    server_steps: ClassVar[bool] = True
    returns: ClassVar[str] = "parameters"
    server_slots: ClassVar[Mapping[str, Slot]] = {"before": Slot(rule=Rule.SAME)}

    def work(self, me):
        return (yield dense(me.gradient, offset=me.offset)).dense()

    def serve(self, server, inbox):
        server.memory["before"] = server.descend(inbox.mean())
        return dense(server.memory["before"])


def rank_of(algorithm, layout, n, descend=None):
    spec = ModelSpec.of_sizes(D)
    job = Job(
        algorithm=algorithm, seed=1, spec=spec, dtype=torch.float32, layout=choose_layout(layout, algorithm, spec, n)
    )  # fmt: skip
    return RankSessions(job, 0, descend)


def played(rank, round_, answer=None):
    """One round of rank 0: the other worker sends ones, and as a server answers with `answer`."""
    count = rank.servers[0].shard.count
    inputs = Inputs(vector=torch.full((D,), 3.0), parameters=torch.zeros(D))
    requests = run_exchanges(rank, round_, inputs, 0.1, lambda phase: None)
    try:
        request = next(requests)
        while True:
            if request.expected:
                role, values = ("worker", torch.ones(count)) if "packet" in request.purpose else ("server", answer)
                offset = 0 if role == "worker" else D - len(values)
                header = Header(role=role, rank=1, round=round_)
                request.take(1, encode(Frame(header=header, packet=Dense(values=values, offset=offset))))
            request = requests.send(None)
    except StopIteration as stop:
        return end_round(rank, stop.value, lambda phase: None).of(0)


def test_a_workers_memory_of_its_own_servers_answer_outlives_the_servers_next_round():
    rank = rank_of(Keeping(), "sharded", 2)
    result = played(rank, 0, torch.full((D // 2,), 7.0))
    assert result.tolist() == [2.0] * 4 + [7.0] * 4
    stored = rank.worker.me.memory["last"]
    for _ in range(3):  # whatever the server borrows, it is another vector
        assert rank.servers[0].scratch().fill_(9.0).data_ptr() != stored.data_ptr()
    assert stored.tolist() == [2.0] * 4


def test_a_servers_memory_of_its_model_stays_where_the_next_step_changes_the_model():
    model = torch.zeros(D)
    rank = rank_of(ModelKeeping(), "rank0", 2, lambda direction, _=None: model.add_(direction))
    played(rank, 0)
    stored = rank.servers[0].view.memory["before"]
    assert stored.tolist() == [2.0] * D
    played(rank, 1)
    assert model.tolist() == [4.0] * D
    assert stored.tolist() == [2.0] * D
