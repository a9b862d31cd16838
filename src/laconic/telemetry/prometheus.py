"""`PrometheusEndpoint`: the rounds of a job as counters that a Prometheus server reads over HTTP."""

from collections import deque
from collections.abc import Iterator
from threading import Lock
from types import TracebackType
from typing import Any, Self

from laconic.errors import Named, OptionError
from laconic.hyperparameters import plain_number
from laconic.telemetry.meter import Count
from laconic.telemetry.observing import Observed, error_text, observe
from laconic.telemetry.recorder import RoundStats

_EXTRA = "pip install prometheus-client"
_MAX_PORT = 65_535
_MAX_WAITING = 64  # rounds that no scrape has taken up
_LEG, _PHASE = ("direction", "exchange"), ("phase",)
_METRICS: dict[str, tuple[str, str, tuple[str, ...]]] = {  # name: kind, help, labels
    "rounds": ("Counter", "rounds that have ended, aborted ones included", ()),
    "aborted_rounds": ("Counter", "rounds without effect, since a rank met inf or NaN", ()),
    "wire_bytes": ("Counter", "bytes that crossed a link, headers included", _LEG),
    "payload_bits": ("Counter", "bits of packets, without headers", _LEG),
    "skips": ("Counter", "packets that were left out", _LEG),
    "inside_wire_bytes": ("Counter", "bytes that this rank sent to others of its node", ()),
    "phase_seconds": ("Counter", "seconds by phase of a step", _PHASE),
    "residual_norm": ("Gauge", "norm of the residuals of this process's workers", ()),
    "vote_agreement": ("Gauge", "how far the workers' votes agree", ()),
}


class PrometheusEndpoint:
    """Serves `/metrics` in a thread of this process. Each rank is a target of its own. A context manager."""

    def __init__(self, port: int = 0, *, host: str = "127.0.0.1", labels: dict[str, str] | None = None) -> None:
        """Begin to listen.

        Args:
            port: Where to listen; 0 takes a free port. Ranks of one machine need one each.
            host: The address to listen at. What it shows is not protected: choose another than this machine's own only
                in a network that you trust.
            labels: Labels of every sample, such as `{"run": "a", "rank": "0"}`.

        Raises:
            OptionError: The package prometheus-client is missing, the port is out of range or taken, or a label is no
                name.
            TypeError: The port is no whole number.
        """
        if not 0 <= (port := plain_number(port, "port", int)) <= _MAX_PORT:
            raise OptionError(Named("port", port), f" must be from 0 to {_MAX_PORT}")
        try:
            import prometheus_client
        except ImportError:
            raise OptionError(Named("port", port), f" needs a package that is not installed: {_EXTRA}") from None
        self._labels = dict(labels or {})
        if taken := sorted(self._labels.keys() & {*_LEG, *_PHASE}):
            raise OptionError(
                Named("labels", labels), f" must not have {', '.join(taken)}, which samples have themselves"
            )
        registry = prometheus_client.CollectorRegistry()
        self._waiting: deque[RoundStats] = deque()  # rounds that are not in the metrics yet
        self._taking_up = Lock()
        try:
            self._metrics = {
                name: getattr(prometheus_client, kind)(f"laconic_{name}", about, (*self._labels, *names), registry=None)
                for name, (kind, about, names) in _METRICS.items()
            }
        except ValueError as error:
            raise OptionError(Named("labels", labels), f": {error_text(error)}") from error
        registry.register(self)
        try:
            self._server, self._thread = prometheus_client.start_http_server(port, host, registry=registry)
        except OSError as error:
            raise OptionError(
                Named("port", port), f" cannot be listened at on {host}: {error_text(error)}; 0 takes a free one"
            ) from error
        self.port: int = self._server.server_port
        """Where it listens."""

    def observe(self, job: Observed, *, residual_norm: bool = False, vote_agreement: bool = False) -> None:
        """Count every round of a `DistributedOptimizer` or a `Simulation` from now on.

        Args:
            job: What is observed.
            residual_norm: Whether the norm of the residuals is shown, which takes a pass over them in each round.
            vote_agreement: Whether the agreement of votes is shown: two passes over each packet of votes.
        """
        observe(job, self.count, residual_norm=residual_norm, vote_agreement=vote_agreement)

    def count(self, stats: RoundStats) -> None:
        """Count one round. A scrape takes it up, or a later round, so that a step of training waits for little."""
        self._waiting.append(stats)
        if len(self._waiting) >= _MAX_WAITING:
            self._take_up()

    def collect(self) -> Iterator[Any]:
        """Yield the metrics of prometheus_client, of all rounds until now. A scrape asks for them."""
        self._take_up()
        for metric in self._metrics.values():
            yield from metric.collect()

    def _take_up(self) -> None:
        """Bring the metrics up to date. A scrape has a thread of its own."""
        with self._taking_up:
            while self._waiting:
                self._add(self._waiting.popleft())

    def _add(self, stats: RoundStats) -> None:
        self._of("rounds").inc()
        self._of("aborted_rounds").inc(int(stats.aborted))
        for direction, counts in (("up", stats.up), ("down", stats.down)):
            for exchange, count in counts.items():
                self._count_one(direction, exchange, count)
        self._of("inside_wire_bytes").inc(stats.inside.wire_bytes)
        for phase, start_s, end_s in stats.phases:
            self._of("phase_seconds", phase).inc(max(0.0, end_s - start_s))
        if stats.residual_norm is not None:
            self._of("residual_norm").set(stats.residual_norm)
        if stats.votes is not None:
            self._of("vote_agreement").set(stats.votes.agreement)

    def _count_one(self, direction: str, exchange: str, count: Count) -> None:
        self._of("wire_bytes", direction, exchange).inc(count.wire_bytes)
        self._of("payload_bits", direction, exchange).inc(count.payload_bits)
        self._of("skips", direction, exchange).inc(count.skips)

    def _of(self, *key: str) -> Any:  # noqa: ANN401
        """Return what counts one metric, by its name and the values of its own labels."""
        metric, every = self._metrics[key[0]], (*self._labels.values(), *key[1:])
        return metric.labels(*every) if every else metric

    def close(self) -> None:
        """Stop listening. Later calls do nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
