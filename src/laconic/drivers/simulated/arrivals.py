"""Asynchronous workers and a dedicated server in this process, on a virtual clock.

`async_timing.AsyncServer` decides when each event happens; this module moves the packets. A worker's gradient is
computed when its virtual computation ends, at the parameters that the server sent to it; the answer is the model that
the worker computes with next. Encoding and decoding cost no virtual time.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from laconic.contract import Algorithm, UpdateOutcome, check_vector
from laconic.drivers.saved_data import (
    NUMBER,
    check_arrivals,
    check_bound,
    check_counts,
    check_data,
    check_ranks,
)
from laconic.drivers.simulated.rounds import Simulated
from laconic.protocol.abort import Abort
from laconic.protocol.async_server import ArrivalServer, UpdateCounts, resized_arrivals
from laconic.protocol.async_timing import AsyncServer
from laconic.protocol.frames import Answer
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import RoundResult
from laconic.wire import HEADER_BYTES, Encoded, decode, encode

T = TypeVar("T")


class SimulatedArrivals(Simulated):
    """The simulator for mode "arrivals": a round ends when the server has finished one more gradient of each worker."""

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        parameters: Tensor,
        active: Active | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Start from the initial `parameters` (d,); the other arguments are those of `Simulated`.

        Raises:
            ValueError: as `Simulated` does, and if some workers take no virtual time and others do.
        """
        super().__init__(algorithm, active=active, **options)
        n = len(self.workers)
        self.arrivals = ArrivalServer(self.servers[0], parameters, active)
        self._active = active
        self.pulled = [parameters.clone() for _ in range(n)]
        self.engine = AsyncServer(
            self.network, n, compute_ns=self._compute_time_ns, bound=self.job.algorithm.staleness_bound(),
            download_bytes=self._request, pulled=self._take, got_model=self._receive_answer,
            upload_bytes=self._upload, arrived=self._receive, on_outcome=self._commit,
        )  # fmt: skip
        self._inputs_of: Callable[[int], Inputs] | None = None
        self._round_lr = 0.0
        self._lr = 0.0  # of the last gradient that was computed
        self._answers: dict[int, Tensor] = {}  # answers being sent, or requested, by worker
        self._sent: dict[int, Encoded] = {}  # gradients being sent, by worker
        self._asked_at: dict[int, int] = {}  # number of updates at the worker's request, by worker
        self._begun: dict[int, Tensor] = {}  # headers of the gradients that are not yet answered, by worker
        self._check_times(parameters)

    def _check_times(self, parameters: Tensor) -> None:
        """Refuse a worker that takes no virtual time if others take some: it would run forever before them."""
        n_bytes = HEADER_BYTES + parameters.numel() * parameters.element_size()
        server = self.engine.server
        took = [
            self._compute_time_ns(worker, 0) + self.network.link_between(server, worker).duration_ns(n_bytes)
            for worker in range(server)
        ]
        if not min(took) and max(took):
            raise ValueError(
                f"compute_s: worker {took.index(0)} takes no virtual time and worker {took.index(max(took))} does, so "
                "that the former would run forever before the latter is done; give each a time, or a link that has one"
            )

    def _compute_time_ns(self, worker: int, step: int) -> int:
        return self.compute_time.ns(worker, step, seed=self.job.seed)

    def round(self, inputs_of: Callable[[int], Inputs], lr: float) -> RoundResult:
        """Run until the server has finished one more gradient of every worker, and has sent the models it may.

        Args:
            inputs_of: called with a rank for each of its gradients, to be evaluated at `pulled[rank]`: several times
                for a fast worker, never for one that is ahead.
            lr: learning rate of the gradients that are computed in this round.

        Returns:
            The result; each worker's is the model that it pulled last.
        """
        self._inputs_of, self._round_lr = inputs_of, lr
        while not all(self._is_done(worker.rank) for worker in self.workers):
            self.engine.run_next()
        self._inputs_of = None
        if self.recorder.observers:
            self.recorder.round_ended(self.rounds, aborted=False)
        self.rounds += 1
        self.aborted_rounds = sum(counts.aborted for counts in self.arrivals.update_counts)
        return RoundResult(aborted=Abort.NO, results=dict(enumerate(self.pulled)))

    def updates_of(self, rank: int) -> UpdateCounts | None:
        """See `Simulated`."""
        return self.arrivals.update_counts[rank]

    def _is_done(self, rank: int) -> bool:
        n_finished = self.arrivals.update_counts[rank].n_finished
        return n_finished > self.rounds + 1 or (n_finished == self.rounds + 1 and rank not in self._answers)

    def _step_of(self, rank: int) -> int:
        """Return the number of the worker's last gradient; 0 before there is one."""
        return max(0, self.arrivals.update_counts[rank].n_finished - 1)

    def _request(self, rank: int) -> int:
        self._answers[rank] = encode(self.arrivals.answer(self._step_of(rank)))
        self._asked_at[rank] = self.arrivals.n_updates
        return self._answers[rank].numel()

    def _take(self, rank: int) -> None:
        """Encode the model again: it may have been updated while the answer waited for the send port."""
        if self._asked_at[rank] != self.arrivals.n_updates:
            n_bytes = self._answers[rank].numel()
            self._answers[rank] = encode(self.arrivals.answer(self._step_of(rank)))
            assert self._answers[rank].numel() == n_bytes, "a model's packet keeps its length"

    def _receive_answer(self, rank: int) -> None:
        worker, data = self.workers[rank], self._answers.pop(rank)
        answer = Answer.read(data, self.job, 0, self._step_of(rank), 0)
        if self._begun.pop(rank, None) is not None:  # the initial parameters are no answer
            worker.receive({0: answer})
        packet = answer.frame.packet
        assert packet is not None
        result = packet.dense() if worker.result is None else worker.result
        assert isinstance(result, Tensor)
        self.pulled[rank] = result
        if self._active is not None:
            self._active.select(self.arrivals.used.get(rank, ()))
        worker.close()

    def _upload(self, rank: int) -> int:
        worker = self.workers[rank]
        assert self._inputs_of is not None
        inputs = self._inputs_of(rank)
        self.arrivals.used[rank] = inputs.used
        self._lr = self._round_lr
        worker.begin(self.arrivals.update_counts[rank].n_finished, inputs, self._lr)
        self._sent[rank] = worker.outgoing()[0][0]
        self._begun[rank] = _header_of(self._sent[rank])
        n_bytes = self._sent[rank].numel()
        self._measured(worker.me, worker.node, [(self.engine.server, n_bytes)])
        return n_bytes

    def _receive(self, rank: int) -> bool:
        frame = self.arrivals.read(rank, self._sent.pop(rank))
        self.arrivals.receive(rank, frame)
        return not frame.aborted

    def _commit(self, update: UpdateOutcome) -> None:
        self.arrivals.commit(update, self._lr)

    def take(self, values: Tensor) -> None:
        """Let the server answer, and every worker compute, with these parameters (d,) from now on."""
        self.arrivals.take(values)
        self.pulled = [values.clone() for _ in self.pulled]

    def saved(self) -> dict[str, Any]:
        """Return the state between two rounds, with the gradients and models that are on their way.

        Raises:
            RuntimeError: if gradients are on their way and the method does not take them as vectors.
        """
        if self._begun and self.job.algorithm.takes_gradient_tensors:
            raise RuntimeError(
                f"state_dict: {self.job.algorithm.name} takes its gradients in place, so those of workers "
                f"{sorted(self._begun)}, which are on their way, cannot be saved"
            )
        sides = {rank: self.workers[rank].me for rank in self._begun}
        return super().saved() | {
            "arrivals": self.arrivals.saved(), "events": self.engine.saved(), "lr": self._lr,
            "pulled": [model.clone() for model in self.pulled], "asked_at": _by_text(self._asked_at),
            "answers": _by_text({rank: answer.clone() for rank, answer in self._answers.items()}),
            "sent": sorted(self._sent), "headers": _by_text(self._begun),
            "gradients": {str(rank): [me.gradient.clone(), me.round, me.lr] for rank, me in sides.items()},
        }  # fmt: skip

    def check(self, saved: Mapping[str, Any]) -> None:
        super().check(saved)
        n = len(saved["workers"])
        check_arrivals(saved["arrivals"], n, len(self.job.spec.shapes))
        self.arrivals.check(saved["arrivals"])
        check_bound(saved["events"]["bound"], n)
        check_data("the events", {key: saved["events"][key] for key in ("started", "n_steps", "events")}, {
            "started": bool, "n_steps": (NUMBER,) * n,
            "events": [(range(saved["network"]["now_ns"], NUMBER.stop), str, range(n))],
        })  # fmt: skip
        unknown = {name for _, name, _ in saved["events"]["events"]} - self.engine.event_names
        if unknown or len(saved["pulled"]) != n:
            raise ValueError(f"state_dict: events {sorted(unknown)} that do not exist, or a worker without a model")
        check_counts(saved, {"lr": float, "asked_at": {int: NUMBER}, "sent": [range(n)]})
        for ranks in (saved["asked_at"], saved["answers"], saved["headers"], saved["gradients"]):
            check_ranks("the workers", [int(rank) for rank in ranks], n)
        for model in saved["pulled"]:
            check_vector("a worker's model", model, self.pulled[0])
        for gradient, round_, lr in saved["gradients"].values():
            check_vector("a gradient on its way", gradient, self.pulled[0], is_finite=False)
            check_data("a gradient on its way", [round_, lr], (NUMBER, float))
        for data in (*saved["arrivals"]["frames"].values(), *saved["answers"].values()):
            decode(data, self.job.spec.stop)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from a saved state, before the first round.

        With another number of workers, gradients and models on their way are lost, and all workers take the latest
        model.
        """
        super().restore(saved)
        n = len(self.workers)
        if len(saved["workers"]) != n:
            self.arrivals.restore(resized_arrivals(saved["arrivals"], n, self.rounds))
            self.engine.bound.version = saved["events"]["bound"]["version"]
            self.pulled = [self.arrivals.latest.dense().clone() for _ in range(n)]
            return
        self.arrivals.restore(saved["arrivals"])
        self.engine.restore(saved["events"])
        self._lr, self.pulled = saved["lr"], [model.clone() for model in saved["pulled"]]
        self._asked_at, self._begun = _by_rank(saved["asked_at"]), _by_rank(saved["headers"])
        self._answers = {rank: answer.clone() for rank, answer in _by_rank(saved["answers"]).items()}
        for rank, (gradient, round_, lr) in _by_rank(saved["gradients"]).items():
            frame = self._begun_again(rank, gradient.clone(), round_, lr)
            if rank in saved["sent"]:
                self._sent[rank] = frame
        for worker, state in zip(self.workers, saved["workers"], strict=True):
            worker.meter.restore(state["meter"])  # which has counted those gradients
        self.recorder.restart()

    def _begun_again(self, rank: int, gradient: Tensor, round_: int, lr: float) -> Encoded:
        """Bring a worker to where it waits for its answer. Returns the frame that it has sent.

        Raises:
            RuntimeError: if the method had overwritten its gradient when that was saved.
        """
        worker = self.workers[rank]
        worker.begin(round_, Inputs(vector=gradient, parameters=self.pulled[rank]), lr)
        frame = worker.outgoing()[0][0]
        if not torch.equal(_header_of(frame), self._begun[rank]):
            raise RuntimeError(
                f"state_dict: {self.job.algorithm.name} overwrites its gradients, so worker {rank} cannot send again "
                "the one that was on its way; save after another step"
            )
        return frame


def _header_of(frame: Encoded) -> Tensor:
    assert isinstance(frame, Tensor), "within one process no frame is split"
    return frame[:HEADER_BYTES].clone()


def _by_text(values: Mapping[int, T]) -> dict[str, T]:
    return {str(rank): value for rank, value in values.items()}


def _by_rank(values: Mapping[str, T]) -> dict[int, T]:
    return {int(rank): value for rank, value in values.items()}
