"""When the updates of an asynchronous parameter server happen, and how stale they are. Times only, no tensors.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, section 4.1.
A worker pulls the model, computes, pushes its gradient, and pulls again when the gradient has been applied. The server
applies each gradient at its arrival, unless a bound on the staleness makes it, or a worker's pull, wait
(`bounded_staleness.py`). A pull takes the model at the instant when the server begins to send it. Staleness is the
number of updates between that instant and the update by the worker's own gradient.

With u = latency + transfer, c the time to compute and N equal workers, a worker's period is max(c + 2 u, N u).
Workers request their initial pulls in rank order. Events at the same instant happen in the order of their creation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from laconic.contract import StalenessBound, UpdateOutcome
from laconic.network import Computation, Message, Network, TimedOperation


@dataclass(frozen=True)
class Update:
    """One gradient applied at the server."""

    time_ns: int
    worker: int
    staleness: int
    """Number of updates since the worker's model was taken."""


class AsyncServer:
    """Workers 0 to n-1 and their server, node n, on a network's clock. Callbacks carry the packets."""

    def __init__(
        self,
        network: Network,
        n_workers: int,
        *,
        compute_ns: Callable[[int, int], int],
        download_bytes: Callable[[int], int],
        upload_bytes: Callable[[int], int],
        bound: StalenessBound | None = None,
        pulled: Callable[[int], None] = lambda worker: None,
        got_model: Callable[[int], None] = lambda worker: None,
        arrived: Callable[[int], bool] = lambda worker: True,
        on_outcome: Callable[[UpdateOutcome], None] = lambda on_outcome: None,
        timed: Callable[[TimedOperation], None] = lambda step: None,
    ) -> None:
        """Set up the workers and the server; nothing happens yet.

        Args:
            network: with a node for each worker and one for the server.
            n_workers: number of workers, at least 1.
            compute_ns: `compute_ns(worker, step)` is the duration of the worker's gradient number `step`, from 0.
            download_bytes: `download_bytes(worker)` is the size of the model, called when it is to be sent.
            upload_bytes: `upload_bytes(worker)` is the size of the gradient, called when it is to be sent.
            bound: the bound on the staleness; by default there is none.
            pulled: called when the server takes the model for a worker.
            got_model: called when the model has arrived at the worker.
            arrived: called when a worker's gradient has arrived; returns whether it can be applied.
            on_outcome: called with the outcome of that gradient, and of others that had to wait for it.
            timed: called with the times of each message and computation, when it is requested.

        Raises:
            ValueError: for fewer than 1 worker, or a network without a node for the server.
        """
        if n_workers < 1:
            raise ValueError(f"AsyncServer: n_workers={n_workers} must be at least 1")
        if network.n_nodes <= n_workers:
            raise ValueError(
                f"AsyncServer: the network has {network.n_nodes} nodes; {n_workers} workers and a server need "
                f"{n_workers + 1}"
            )
        self.network, self.server = network, n_workers
        self.updates: list[Update] = []
        self._compute_ns, self._download_bytes, self._upload_bytes = compute_ns, download_bytes, upload_bytes
        self.bound = StalenessBound() if bound is None else bound
        self._pulled, self._got_model, self._timed = pulled, got_model, timed
        self._arrived, self._on_outcome = arrived, on_outcome
        self._n_steps = [0] * n_workers
        self._started = False

    @property
    def event_names(self) -> frozenset[str]:
        """The names under which events are saved."""
        return frozenset(self._events)

    def run(self, n_updates: int) -> list[Update]:
        """Run until `n_updates` have happened since the beginning, and return those."""
        while len(self.updates) < n_updates:
            self.run_next()
        return self.updates[:n_updates]

    def run_next(self) -> None:
        """Run the next event: a model is taken, a message arrives, or a computation ends."""
        if not self._started:
            self._started = True
            for worker in range(self.server):
                self.bound.request(worker)
            self._let_pull()
        self.network.clock.run_next()

    def _let_pull(self) -> None:
        for worker in self.bound.admit():
            self._pull(worker)

    def _pull(self, worker: int) -> None:
        # Before the message, so that even one that takes no time arrives after the model is taken.
        self.network.clock.at(self.network.next_start_ns(self.server, worker), partial(self._take_model, worker))
        self._send(Message(self.server, worker, self._download_bytes(worker)), partial(self._receive_model, worker))

    def _take_model(self, worker: int) -> None:
        self.bound.take(worker)
        self._pulled(worker)

    def _receive_model(self, worker: int) -> None:
        self._got_model(worker)
        self._compute(worker)

    def _compute(self, worker: int) -> None:
        network, step = self.network, self._n_steps[worker]
        self._n_steps[worker] += 1
        duration_ns = self._compute_ns(worker, step)
        now_ns = network.clock.now_ns
        start_ns = max(now_ns, network.free_at(worker).compute_ns)
        network.compute(worker, duration_ns, partial(self._upload, worker))
        self._timed(TimedOperation(Computation(worker, duration_ns), now_ns, start_ns, start_ns + duration_ns))

    def _upload(self, worker: int) -> None:
        try:
            n_bytes = self._upload_bytes(worker)
        except BaseException:  # of the user's model: the next run evaluates it again
            self.network.clock.at(self.network.clock.now_ns, partial(self._upload, worker))
            raise
        self._send(Message(worker, self.server, n_bytes), partial(self._arrive, worker))

    def _arrive(self, worker: int) -> None:
        for update in self.bound.arrive(worker, aborted=not self._arrived(worker)):
            if update.outcome == "applied":
                self.updates.append(Update(self.network.clock.now_ns, update.worker, update.staleness))
            self._on_outcome(update)
            self.bound.request(update.worker)
        self._let_pull()

    @property
    def _events(self) -> dict[str, Callable[[int], None]]:
        """What happens to a worker at its events, by name."""
        return {
            "takes": self._take_model, "has the model": self._receive_model, "has computed": self._upload,
            "has sent": self._arrive,
        }  # fmt: skip

    def saved(self) -> dict[str, Any]:
        """Return the state between two events, as data that JSON can hold; without the network's and the clock's."""
        names = {event: name for name, event in self._events.items()}
        return {
            "started": self._started, "n_steps": list(self._n_steps), "bound": self.bound.saved(),
            "events": [
                [time_ns, names[callback.func], *callback.args]
                for time_ns, callback in self.network.clock.scheduled
                if isinstance(callback, partial)
            ],
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from what `saved` returned. Restore the network first."""
        self._started, self._n_steps = saved["started"], list(saved["n_steps"])
        self.bound.restore(saved["bound"])
        for time_ns, name, worker in saved["events"]:
            self.network.clock.at(time_ns, partial(self._events[name], worker))

    def _send(self, message: Message, arrived: Callable[[], None]) -> None:
        network, sender = self.network, message.sender
        start_ns = network.next_start_ns(sender, message.receiver)
        network.send(sender, message.receiver, message.n_bytes, arrived)
        self._timed(TimedOperation(message, network.clock.now_ns, start_ns, network.free_at(sender).send_ns))


def async_period_s(n_workers: int, latency_s: float, transfer_s: float, compute_s: float) -> float:
    """Return the seconds between two updates of one worker if all workers are equal: N updates in each period."""
    message_s = latency_s + transfer_s
    return max(compute_s + 2 * message_s, n_workers * message_s)


def sync_iteration_s(n_workers: int, latency_s: float, transfer_s: float, compute_s: float) -> float:
    """Return the seconds of a synchronous iteration with the same server; compute_s is that of the slowest worker."""
    return compute_s + 2 * n_workers * (latency_s + transfer_s)
