"""What an algorithm is: a worker's generator and a server's function, neither of which touches a network.

The worker's half yields packets and wakes with replies; the server's half turns an inbox into one packet.
A driver owns everything else: processes, bytes, clock, faults, counting. Letters: d parameters, N workers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from laconic.keys import Role, make_key, uniform
from laconic.knobs import as_settings, check_knobs
from laconic.memory import Memory
from laconic.staleness import StalenessBound
from laconic.wire import Dense, Packet, Signs, Sparse


class ContractError(RuntimeError):
    """An algorithm that broke the rules of a round."""


class SpoiledError(Exception):
    """Inf or NaN in what a worker brings, seen when an algorithm wanted to read it. Calls the round off."""


@dataclass(kw_only=True)
class Side:
    """What a worker and a server have in common. `first` is the number of the side's first coordinate."""

    role: ClassVar[Role]
    rank: int
    n_workers: int
    count: int
    seed: int
    memory: Memory
    layers: tuple[int, ...] = ()
    first: int = 0
    round: int = 0
    lr: float = 0.0  # the inner optimizer's learning rate in this round
    link_bytes_per_s: float | None = None  # measured on earlier rounds; None before the first measurement

    @property
    def _key_rank(self) -> int:
        return self.rank

    def key(self, stream: str) -> int:
        """The key of this side's draw in this round, for one purpose. The other end of the link can work it out."""
        return make_key(self.seed, self.role, self._key_rank, self.round, stream)

    def coin(self, stream: str) -> float:
        """One uniform number in [0, 1), the same whenever it is asked for within a round."""
        return uniform(self.key(stream))


@dataclass(kw_only=True)
class Worker(Side):
    """One worker's view of a round. Vectors are flat, (d,), float32 (float64 where the model is).

    They live until the end of the round, or while the memory holds them: so do gradients of `gradient_at`.
    """

    role: ClassVar[Role] = "worker"
    gradient: Tensor = field(default_factory=lambda: torch.empty(0))  # of this worker's mini-batch
    pieces: Sequence[Tensor] = ()  # the gradient in the tensors that it came in, where the algorithm `takes_pieces`
    read_change: Callable[[Tensor | None], Tensor] = field(default=lambda plus: torch.empty(0))
    read_parameters: Callable[[], Tensor] = field(default=lambda: torch.empty(0))
    gradient_at: Callable[[Tensor], Tensor] = field(default=lambda parameters: _no_second_gradient())  # for this round

    @property
    def parameters(self) -> Tensor:
        """The parameters at the start of the round, (d,)."""
        return self.read_parameters()

    @property
    def change(self) -> Tensor:
        """What the local steps did to the parameters, (d,); once a round."""
        return self.read_change(None)

    def change_plus(self, other: Tensor) -> Tensor:
        """The same plus another vector (d,), in one pass where that can be; once a round.

        A sum that is not finite calls the round off.
        """
        return self.read_change(other)

    def require(self, is_finite: bool) -> None:
        """Call the round off unless what was made of `pieces` is finite: nobody has looked through them before."""
        if not is_finite:
            raise SpoiledError


@dataclass(kw_only=True)
class Server(Side):
    """The server's view of a round, or of its slice of the vector where several ranks share the serving.

    Keys do not depend on which rank serves, so that a separable method draws the same masks and coins
    however the vector is cut.
    """

    role: ClassVar[Role] = "server"
    exchange: int = 0  # counts the exchanges of one round
    staleness: int = 0  # in a schedule of arrivals: updates since the sender's model was taken
    descend: Callable[[Tensor], Tensor] = field(default=lambda direction: _no_server_model())

    @property
    def _key_rank(self) -> int:
        return 0


def _no_second_gradient() -> Tensor:
    raise ContractError("gradient_at needs a closure and `second_gradient` among the algorithm's claims")


def _no_server_model() -> Tensor:
    raise ContractError("hub.descend needs `server_steps = True` among the algorithm's claims")


class Inbox(Mapping[int, Packet]):
    """The packets that reached the server, by worker, in rank order whatever order they came in."""

    def __init__(
        self,
        packets: Mapping[int, Packet],
        n_workers: int,
        zeros: Callable[[], Tensor],
        skipped: frozenset[int] = frozenset(),
        room_for_votes: Callable[[], Tensor] | None = None,
    ) -> None:
        """`zeros` makes a zero vector of the server's slice that lives for this round, `room_for_votes` one of int8
        that is still to be written.

        `skipped`: the workers that sent a skip notice.

        Who is in neither was not heard at all.
        """
        self._packets = dict(sorted(packets.items()))
        self.n_workers = n_workers
        self.skipped = skipped
        self._zeros = zeros
        self._room_for_votes = room_for_votes

    def __getitem__(self, rank: int) -> Packet:
        return self._packets[rank]

    def __iter__(self) -> Any:  # noqa: ANN401 - Mapping's own signature
        return iter(self._packets)

    def __len__(self) -> int:
        return len(self._packets)

    def sum(self) -> Tensor:
        """The sum of the dense forms, added in rank order: (d,). Zero when nobody sent.

        A vector of its own, which may be overwritten. It lives until the end of the round, or while a memory holds it.
        """
        total = self._zeros()
        for packet in self._packets.values():
            packet.add_to(total)
        return total

    def votes(self) -> Tensor:
        """The same numbers as `sum`, as int8 (d,) where packets of signs are so few that it holds their sums.

        It lives until the end of the round: no memory may keep it.
        """
        few_signs = len(self) <= torch.iinfo(torch.int8).max and all(isinstance(p, Signs) for p in self.values())
        if self._room_for_votes is None or not few_signs:
            return self.sum()
        total = self._room_for_votes()
        packets = list(self._packets.values())
        if not packets:
            return total.zero_()
        packets[0].put_into(total)
        for packet in packets[1:]:
            packet.add_to(total)
        return total

    def mean(self) -> Tensor:
        """The mean over those who sent: (d,), as `sum`. Zero when nobody did."""
        return self.sum().div_(max(1, len(self)))


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a worker wakes with. `heard` is False when its own packet was lost, late or refused."""

    heard: bool
    parts: tuple[Packet, ...]  # in order of coordinates; what is missing counts as zero
    count: int
    empty: Callable[[], Tensor]  # a vector (count,) with anything in it
    packets: Mapping[int, Packet] = field(default_factory=dict)  # without a server: the neighbours', in rank order

    @property
    def packet(self) -> Packet:
        """The answer of a single server, as it was sent."""
        (packet,) = self.parts
        return packet

    def dense(self) -> Tensor:
        """The server's answer as a vector (d,); zeros where it sent nothing."""
        whole = self.empty()
        if len(self.parts) == 1 and self.parts[0].count == self.count:
            (part,) = self.parts
            if isinstance(part, Dense):  # it has its vector at hand
                return part.dense().to(whole)  # its device, and float64 for short values to a float64 model
            part.put_into(whole)
            return whole
        if sum(part.count for part in self.parts) < self.count:
            whole.zero_()
        for part in self.parts:
            part.put_into(whole[part.first : part.first + part.count])
        return whole


Result = Tensor | Sparse  # a vector (d,), or what stands for one
Step = Generator[Packet | None, Reply, Result]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One message up and one down. A round has one of them or more, and each is counted by its name."""

    count: int  # how many coordinates its packets are about: d, or fewer that both ends know of
    name: str = "update"
    adds: bool = False  # packets are dense and the answer is their mean: an engine's all-reduce can do it,
    # in place, so what was yielded is given away
    as_given: bool = False  # the packet is the gradient, unread: an engine may begin before all of it is gathered


@dataclass(frozen=True, kw_only=True)
class Algorithm(ABC):
    """Hyper-parameters and the two functions. All state is in the memories. Claims are data that common tests read."""

    name: ClassVar[str] = ""  # given by @algorithm
    source: ClassVar[str] = ""  # paper and equation

    consumes: ClassVar[Literal["gradient", "change"]] = "gradient"
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "direction"
    # A star whose server waits for all, a graph without a server, or a star whose server takes gradients as they come
    schedule: ClassVar[Literal["rounds", "neighbours", "arrivals"]] = "rounds"
    replicas_equal: ClassVar[bool] = True  # all workers hold the same parameters after each round
    skips: ClassVar[bool] = False  # a worker or the server may send nothing, so every message carries one flag bit
    adaptive: ClassVar[bool] = False  # how much it sends depends on the data; `paper_bits` is the most
    tolerates_absence: ClassVar[bool] = False  # a packet that was not heard is owed, not lost
    unbiased: ClassVar[bool] = False  # the direction's mean is the mean gradient
    same_data: ClassVar[bool] = False  # the proof needs all workers to draw from one distribution
    reads_lr: ClassVar[bool] = False
    takes_pieces: ClassVar[bool] = False  # of the gradient, before the first yield, in one pass of its own
    takes_changes: ClassVar[bool] = True  # what several local steps changed will do in place of a gradient
    server_steps: ClassVar[bool] = False  # the server holds the model and an optimizer
    toy: ClassVar[Mapping[str, Any]] = {}  # settings for the common tests; the defaults stay the paper's
    toy_lr: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        check_knobs(self, self.name)

    @property
    def separable(self) -> bool:
        """Cutting the vector among several servers changes no bit of the result."""
        return False

    @property
    def lr_factor(self) -> float:
        """This method's learning rate as a multiple of plain SGD's: what `laconic run` uses without --lr."""
        return 1.0

    @property
    def second_gradient(self) -> bool:
        """Whether it needs me.gradient_at, hence a closure."""
        return False

    def check_size(self, d: int, layers: tuple[int, ...], n_workers: int) -> None:  # noqa: B027 - most have nothing to check
        """Refuse a model for which the hyper-parameters make no sense. Raises ValueError, before anything is sent."""

    def dense_in(self, round_: int) -> bool:
        """Whether this round belongs to a dense warm-up: one exchange of the whole vector, one local step."""
        return False

    def exchanges(self, d: int, n_workers: int = 1) -> tuple[Exchange, ...]:
        """What one round sends: as often does `work` yield."""
        return (Exchange(count=d),)

    def exchanges_in(self, round_: int, d: int, n_workers: int = 1) -> tuple[Exchange, ...]:
        """The same for one round, which may be of a dense warm-up."""
        if self.dense_in(round_):
            return (Exchange(count=d, name="dense", adds=True),)
        return self.exchanges(d, n_workers)

    def peers(self, rank: int, n_workers: int, round_: int, exchange: int) -> tuple[int, ...]:
        """Whom this worker's packet goes to, in a schedule of neighbours. Their packets may be about slices."""
        raise ContractError(f"{self.name} has no graph: its schedule is {self.schedule!r}")

    def staleness_bound(self) -> StalenessBound:
        """In a schedule of arrivals: who may take the model and what may be applied, for one job."""
        return StalenessBound()

    def settings(self) -> dict[str, str]:
        """The hyper-parameters as the texts that `--set` takes."""
        return as_settings(self)

    @classmethod
    def accounting(cls) -> list[tuple[str, str, str]]:
        """The paper's own traffic figures: (what, by our formula, as printed); empty where it has none."""
        return []

    @abstractmethod
    def work(self, me: Worker) -> Step:
        """One round of one worker: yields packets (None sends a skip notice), returns what `returns` says.

        A method that consumes changes may return a sparse packet for the vector that it stands for.
        """

    def serve(self, hub: Server, inbox: Inbox) -> Packet | None:
        """One exchange at the server: the answer to all workers, or None for a skip notice.

        In a schedule of arrivals: one worker's gradient. The answer must hold for every worker, since whoever takes the
        model next gets the newest one.
        """
        raise ContractError(f"{self.name} has no server: its schedule is {self.schedule!r}")

    def charge(self, way: Literal["up", "down"], packet: Packet) -> float:
        """What the paper's formula charges for one packet: bits."""
        return packet.paper_bits

    @abstractmethod
    def paper_bits(self, d: int, layers: tuple[int, ...] = (), n_workers: int = 10) -> tuple[float, float]:
        """What the paper's formula charges per worker and round, (up, down), in expectation; the most if adaptive."""


A = TypeVar("A", bound=type[Algorithm])
ALGORITHMS: dict[str, type[Algorithm]] = {}


def algorithm(name: str) -> Callable[[A], A]:
    """Enter an algorithm under the name that users type. Refuses a name that another class has."""

    def enter(cls: A) -> A:
        taken = ALGORITHMS.get(name)
        if taken is not None and _full_name(taken) != _full_name(cls):
            raise ValueError(f"algorithm {name!r} is already {_full_name(taken)}; give {_full_name(cls)} another name")
        cls.name = name
        ALGORITHMS[name] = cls
        return cls

    return enter


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
