"""What an algorithm is: a worker's generator and a server's function, neither of which touches a network.

The worker's half yields packets and wakes with replies; the server's half turns an inbox into one packet.
A driver owns everything else: processes, bytes, clock, faults, counting. Letters: d parameters, N workers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Literal, TypeVar

from torch import Tensor

from laconic.contract.bounded_staleness import StalenessBound
from laconic.contract.messages import Inbox, Reply
from laconic.contract.views import Server, Worker
from laconic.errors import ContractError
from laconic.hyperparameters import as_settings, check_hyperparameters
from laconic.wire import Packet, Sparse

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
    mode: ClassVar[Literal["rounds", "decentralized", "arrivals"]] = "rounds"
    replicas_equal: ClassVar[bool] = True  # all workers hold the same parameters after each round
    skips: ClassVar[bool] = False  # a worker or the server may send nothing, so every message carries one flag bit
    adaptive: ClassVar[bool] = False  # how much it sends depends on the data; `paper_bits` is the most
    tolerates_absence: ClassVar[bool] = False  # a packet that was not heard is owed, not lost
    unbiased: ClassVar[bool] = False  # the direction's mean is the mean gradient
    same_data: ClassVar[bool] = False  # the proof needs all workers to draw from one distribution
    reads_lr: ClassVar[bool] = False
    takes_gradient_tensors: ClassVar[bool] = False  # of the gradient, before the first yield, in one pass of its own
    takes_changes: ClassVar[bool] = True  # what several local steps changed will do in place of a gradient
    server_steps: ClassVar[bool] = False  # the server holds the model and an optimizer
    test_settings: ClassVar[Mapping[str, Any]] = {}  # settings for the common tests; the defaults stay the paper's
    test_lr: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        check_hyperparameters(self, self.name)

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
        raise ContractError(f"{self.name} has no graph: its schedule is {self.mode!r}")

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

    def serve(self, server: Server, inbox: Inbox) -> Packet | None:
        """One exchange at the server: the answer to all workers, or None for a skip notice.

        In a schedule of arrivals: one worker's gradient. The answer must hold for every worker, since whoever takes the
        model next gets the newest one.
        """
        raise ContractError(f"{self.name} has no server: its schedule is {self.mode!r}")

    def paper_bits_of(self, direction: Literal["up", "down"], packet: Packet) -> float:
        """What the paper's formula charges for one packet: bits."""
        return packet.paper_bits

    @abstractmethod
    def paper_bits(self, d: int, layers: tuple[int, ...] = (), n_workers: int = 10) -> tuple[float, float]:
        """What the paper's formula charges per worker and round, (up, down), in expectation; the most if adaptive."""


class Registry(MutableMapping[str, type[Algorithm]]):
    """Algorithms by name. Those of the folder `algorithms` are there at the first look, whoever looks."""

    def __init__(self) -> None:
        self._entered: dict[str, type[Algorithm]] = {}

    def _all(self) -> dict[str, type[Algorithm]]:
        import_module("laconic.algorithms")  # by name and not before: its files import this one
        return self._entered

    def __getitem__(self, name: str) -> type[Algorithm]:
        return self._all()[name]

    def __setitem__(self, name: str, cls: type[Algorithm]) -> None:
        self._all()[name] = cls

    def __delitem__(self, name: str) -> None:
        del self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._all()})"


A = TypeVar("A", bound=type[Algorithm])
ALGORITHMS = Registry()


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
