"""What a page needs to time rounds on any network: who sends to whom, and each frame's share of a round's bytes.

The page has the model of `laconic plan` in its script. A frame of the run's own layout is that of `planning.recorded`,
as a share of the mean round, so that rounds of other sizes have frames in proportion. For another layout the frames are
split or joined: one packet has one header however many servers share it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from laconic.contract import Algorithm, Exchange
from laconic.errors import OptionError
from laconic.network import Link
from laconic.planning.candidate import Sent
from laconic.planning.recorded import Recorded
from laconic.protocol.layout import LAYOUTS, Layout, choose_layout, n_nodes_for
from laconic.protocol.legs import Answering, answering_of
from laconic.wire import HEADER_BYTES

_NAMES = {
    Answering.SERVERS: "servers", Answering.EVERY_WORKER: "workers", Answering.ENGINE: "engine",
    Answering.NOBODY: "nobody",
}  # fmt: skip
_VALUE_BYTES = 4  # of a dense round's vector
_DENSE = Exchange(count=1, name="dense", adds=True)


@dataclass(frozen=True, kw_only=True)
class ExchangeShape:
    """One exchange of a round."""

    name: str
    answering: str
    up: float
    """A worker's frame to one receiver, over the bytes that all workers send in a round."""
    down: float
    """A server's frame to one worker, over the bytes that all workers receive in a round."""
    servers: tuple[int, ...] = ()
    """The nodes that serve."""
    peers: tuple[tuple[int, ...], ...] = ()
    """By worker, those that get its frame, if nobody answers."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How the rounds of a run travel on one layout."""

    workers: int
    nodes: int
    gradients: int
    """Gradients of one local step: methods that evaluate at two points need two."""
    localSteps: int  # noqa: N815 - the page's own name
    exchanges: tuple[ExchangeShape, ...]
    dense: tuple[ExchangeShape, ...]
    """The exchange of a dense round."""
    bound: dict[str, Any] | None
    """Of an asynchronous method, what staleness it admits and what happens to later gradients."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The layouts on which a run can be timed, its own first."""

    own: str
    shapes: dict[str, Shape]
    up: float
    """Mean bytes that all workers send in a round, dense rounds apart."""
    down: float
    compute_s: float | None
    """Seconds of one gradient as the run has recorded or assumed them."""

    def as_data(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def timing_of(recorded: Recorded) -> Timing:
    """Return how a recorded run can be timed.

    Raises:
        ValueError: It has a single worker, which sends nothing.
    """
    return _Frames(recorded).timing()


class _Frames:
    """The frames of one recorded run, brought to other layouts."""

    def __init__(self, recorded: Recorded) -> None:
        query = recorded.query(Link(), None)
        candidate = recorded.candidate(query, measure=False)
        self._recorded, self._layout = recorded, candidate.layout
        self._algorithm: Algorithm = candidate.algorithm
        self._exchanges = candidate.algorithm.exchanges(recorded.spec, candidate.layout.n_workers)
        self._sent: Sequence[Sent] = candidate.rounds[0]
        self._gradients = 2 if candidate.algorithm.second_gradient else 1
        names = {exchange.name for exchange in self._exchanges}
        n_rounds = recorded.traffic.rounds - recorded.warm_up_rounds
        by_exchange = recorded.traffic.up_by_exchange, recorded.traffic.down_by_exchange
        self._up, self._down = (
            sum(count.wire_bytes for name, count in of.items() if name in names) / n_rounds for of in by_exchange
        )

    def timing(self) -> Timing:
        own = self._layout.name
        shapes = {own: self._shape(self._layout)}
        for name in LAYOUTS:
            layout = self._other(name)
            if layout is not None:
                shapes[name] = self._shape(layout)
        return Timing(own=own, shapes=shapes, up=self._up, down=self._down, compute_s=self._recorded.computed_s)

    def _other(self, name: str) -> Layout | None:
        """Return a layout that the method admits beside its own; None if its frames there are not known."""
        if name in ("auto", self._layout.name):
            return None
        try:
            n_nodes = n_nodes_for(name, self._algorithm, self._layout.n_workers)
            layout = choose_layout(name, self._algorithm, self._recorded.spec, n_nodes)
        except OptionError:
            return None
        answers = {answering_of(self._layout, exchange) for exchange in self._exchanges}
        no_answers = Answering.EVERY_WORKER in answers and layout.has_server  # what a server would answer is not known
        return None if no_answers else layout

    def _shape(self, layout: Layout) -> Shape:
        bound = self._algorithm.staleness_bound() if self._algorithm.is_asynchronous else None
        return Shape(
            workers=layout.n_workers, nodes=layout.n_nodes, gradients=self._gradients,
            localSteps=self._recorded.settings.local_steps,
            exchanges=tuple(self._exchange(layout, *pair) for pair in zip(self._exchanges, self._sent, strict=True)),
            dense=(self._dense(layout),) if self._recorded.dense_rounds else (),
            bound=None if bound is None else {"maximum": bound.max_staleness, "late": bound.late},
        )  # fmt: skip

    def _exchange(self, layout: Layout, exchange: Exchange, sent: Sent) -> ExchangeShape:
        answering = answering_of(layout, exchange)
        up = sent.up[0][0] if sent.up[0] else 0
        down = sent.down[0] if sent.down else 0
        if layout is not self._layout:
            up, down = (_on_layout(_packet(n, sent), answering, layout) for n in (up, down or up))
        return ExchangeShape(
            name=exchange.name, answering=_NAMES[answering],
            up=up / self._up if self._up else 0.0, down=down / self._down if self._down else 0.0,
            servers=_servers(layout, answering), peers=sent.peers if answering is Answering.NOBODY else (),
        )  # fmt: skip

    def _dense(self, layout: Layout) -> ExchangeShape:
        """Return the exchange of a dense round, whose frames hold the vector."""
        recorded = self._recorded
        answering = answering_of(layout, _DENSE)
        packet = HEADER_BYTES + _VALUE_BYTES * recorded.spec.d
        n_bytes = _on_layout(packet, answering, layout)
        up, down = (
            of[_DENSE.name].wire_bytes / recorded.dense_rounds
            for of in (recorded.traffic.up_by_exchange, recorded.traffic.down_by_exchange)
        )
        return ExchangeShape(
            name=_DENSE.name, answering=_NAMES[answering], up=n_bytes / up, down=n_bytes / down,
            servers=_servers(layout, answering),
        )  # fmt: skip


def _servers(layout: Layout, answering: Answering) -> tuple[int, ...]:
    return tuple(shard.node for shard in layout.shards) if answering is Answering.SERVERS else ()


def _packet(frame: int, sent: Sent) -> int:
    """Return the bytes of a packet in one frame, from those of a frame of one slice."""
    if sent.answering is Answering.ENGINE:
        return frame + HEADER_BYTES  # an engine's vector has none
    n_frames = len(sent.up[0]) if sent.answering is Answering.SERVERS else 1
    return n_frames * frame - (n_frames - 1) * min(frame, HEADER_BYTES)


def _on_layout(packet: int, answering: Answering, layout: Layout) -> int:
    """Return the bytes of one frame of a packet on a layout."""
    if answering is Answering.ENGINE:
        return max(0, packet - HEADER_BYTES)
    if answering is not Answering.SERVERS:
        return packet
    header = min(packet, HEADER_BYTES)
    return round((packet - header) / len(layout.shards)) + header
