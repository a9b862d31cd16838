"""Asynchronous workers and a dedicated server over torch.distributed: the last rank serves messages as they arrive."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from laconic.contract import Algorithm
from laconic.drivers.distributed.rounds import Processes
from laconic.drivers.saved_data import check_arrivals, check_bound, check_data
from laconic.drivers.transport import carry_out
from laconic.protocol.async_rank import ServingRank, goodbye, report_used, request_admission
from laconic.protocol.async_server import UpdateCounts
from laconic.protocol.round_inputs import Active, Inputs
from laconic.protocol.round_result import RoundResult


class ProcessArrivals(Processes):
    """This rank's part of the job: a worker, or the server."""

    def __init__(
        self,
        algorithm: Algorithm,
        *,
        parameters: Tensor,
        active: Active | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        """Set up this rank. Collective, like `Processes`, which documents the other arguments.

        Args:
            algorithm: an asynchronous method.
            parameters: the initial parameters (d,).
            active: which parameters take part in an update: those behind the gradient that is applied.
            options: arguments of `Processes`.
        """
        super().__init__(algorithm, parameters=parameters, active=active, **options)
        self.serving = ServingRank(self.sessions, parameters, active) if self.servers else None
        self._active = active
        self._reported: Sequence[bool] = ()  # by this worker: the parameters behind its last gradient
        self.may_wait = algorithm.staleness_bound().may_wait
        if self.worker is not None:
            (server,) = self.job.layout.shards
            self.channel.goodbye = (server.node, partial(goodbye, self.worker.rank))

    @property
    def updates(self) -> UpdateCounts | None:
        """See `Processes`."""
        return None if self.serving is None else self.serving.arrivals.total

    def request_admission(self) -> Tensor | None:
        """Wait until this worker may compute. Returns the parameters (d,) if they have changed, else None."""
        assert self.worker is not None
        self.seconds.phase("compute")
        parameters = carry_out(request_admission(self.worker, self.rounds), self.channel)
        self.seconds.phase("wait")
        return parameters

    def round(self, inputs_of: Callable[[int], Inputs], lr: float) -> RoundResult:
        """Send a worker's gradient and receive the answer; at the server, serve until every worker's is committed.

        A worker whose gradient has inf or NaN is also answered with the newest parameters: its round is aborted, but
        has a result.
        """
        if self.serving is None:
            return super().round(lambda rank: self._reported_inputs(inputs_of(rank)), lr)
        self.seconds.phase("compute")
        result = carry_out(self.serving.serve(self.rounds, lr, self.seconds.phase), self.channel)
        if self.recorder.observers:
            self.recorder.round_ended(self.rounds, aborted=False)
        self.rounds += 1
        self.aborted_rounds = self.serving.arrivals.total.aborted
        return result

    def _reported_inputs(self, inputs: Inputs) -> Inputs:
        """Report to the server which parameters are behind this worker's gradient, if they are others than before."""
        assert self.worker is not None
        if list(inputs.used) != list(self._reported):
            self._reported = inputs.used
            self.channel.control_bytes += carry_out(report_used(self.worker, self.rounds, inputs.used), self.channel)
        if self._active is not None:
            self._active.select(inputs.used)
        return inputs

    def take(self, values: Tensor) -> None:
        """Answer with these parameters (d,) from now on; the server's model was given them."""
        if self.serving is not None:
            self.serving.take(values)

    def saved(self) -> dict[str, Any]:
        """Return this rank's state between two rounds.

        Raises:
            RuntimeError: at the server, if a worker is ahead or waits; its message would be lost.
        """
        return super().saved() | ({} if self.serving is None else self.serving.saved(self.rounds))

    def check(self, saved: Mapping[str, Any]) -> None:
        super().check(saved)
        if self.serving is None:
            return
        check_arrivals(saved["arrivals"], self.job.layout.n_workers, len(self.job.spec.shapes))
        if saved["arrivals"]["frames"] or saved["bound"]["requesting"] or saved["bound"]["held"]:
            raise ValueError("state_dict: gradients wait at the server, which none does between two steps")
        if any(counts["n_finished"] != saved["rounds"] for counts in saved["arrivals"]["update_counts"]):
            raise ValueError("state_dict: the server has finished other steps than it has rounds")
        check_bound(saved["bound"], self.job.layout.n_workers)
        version = saved["bound"]["version"]
        check_data("the workers' models", saved["seen"], (range(-1, version + 1),) * self.job.layout.n_workers)
        self.serving.check(saved)

    def restore(self, saved: Mapping[str, Any]) -> None:
        super().restore(saved)
        self._reported = ()  # the server may have been told of others
        if self.serving is not None:
            self.serving.restore(saved)
