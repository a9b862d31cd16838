"""The base class of algorithms: a generator for the worker and a function for the server, both without a network.

The worker's generator yields packets and is resumed with replies. The server's function turns an inbox into one packet.
A driver does everything else: processes, bytes, clock, faults, counting. Letters: d parameters, N workers.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, ClassVar, Literal, TypeVar

from torch import Tensor

from laconic.contract.accept import DENSE, AcceptedBy
from laconic.contract.bounded_staleness import StalenessBound
from laconic.contract.messages import Inbox, InParts, Reply
from laconic.contract.model_spec import ModelSpec
from laconic.contract.slots import Slot
from laconic.contract.views import Server, Worker
from laconic.errors import ContractError
from laconic.hyperparameters import MAX_NAME, as_settings, check_hyperparameters, is_plain_name
from laconic.wire import Packet, Sparse

PLUGIN = "laconic_plugin_"
"""How the names of modules begin that are files of users."""

_DENSE = "dense"  # the name of the exchange of dense rounds
_WARM_UP = "warm-up "  # how the names of exchanges begin in rounds of another warm-up

Result = Tensor | Sparse | InParts  # a vector (d,): dense, as a sparse packet, or in the packets of an answer
Step = Generator[Packet | None, Reply, Result]

Slices = Literal["exact", "layers", "blocks", "refused"]
"""The same as a round over the full vector ("exact"); if no slice ends within a tensor ("layers"). The same but
for blocks, selections and partitions, which end where a slice does ("blocks"). Or something else, since a rule looks at
the full vector ("refused").
"""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One upload and one download. A round has one exchange or several, and bytes are counted by exchange."""

    count: int
    """Number of coordinates of its packets: d, or fewer that both sides know."""
    offset: int = 0
    """Number of the first coordinate of its packets: `spec.offset` if they are about the parameters."""
    up: AcceptedBy = DENSE
    """What workers may send; a packet of dense values if the method says nothing."""
    down: AcceptedBy = DENSE
    """What servers may answer."""
    name: str = "update"
    adds: bool = False
    """Whether packets are dense and the answer is their mean, so that an all-reduce may replace the server. It works in
    place: what was yielded must not be used again.
    """
    as_given: bool = False
    """Whether the packet is `me.gradient` or `me.updated` unchanged, so that an all-reduce may begin before it is
    complete.
    """

    def __post_init__(self) -> None:
        """Refuse a name that moves the cursor or hides: tables and pages of traffic show it."""
        if not self.name.isprintable():
            raise ValueError(f"Exchange: name={self.name!r} must be printable, in one line")


def is_of_warm_up(exchange: str) -> bool:
    """Return whether an exchange of this name belongs to a round of a warm-up."""
    return exchange == _DENSE or exchange.startswith(_WARM_UP)


@dataclass(frozen=True, kw_only=True)
class Algorithm(ABC):
    """Hyper-parameters, claims and the two functions of a method.

    All state is in the memories. The claims below are data, which drivers and the common tests read.
    """

    name: ClassVar[str] = ""
    """The name that users type; set by `@algorithm`."""
    source: ClassVar[str] = ""
    """Paper and equation."""

    consumes: ClassVar[Literal["gradient", "change"]] = "gradient"
    """What `work` reads: the gradient, or the change that local steps made."""
    returns: ClassVar[Literal["direction", "change", "parameters"]] = "direction"
    """What `work` returns: a direction for the inner optimizer, a change to add, or new parameters."""
    mode: ClassVar[Literal["rounds", "decentralized", "arrivals"]] = "rounds"
    """Whether a server waits for all workers, there is no server, or a server takes each gradient as it arrives."""
    replicas_equal: ClassVar[bool] = True
    """Whether all workers hold the same parameters after each round."""
    skips: ClassVar[bool] = False
    """Whether a worker or the server may send nothing; every message then carries one flag bit."""
    adaptive: ClassVar[bool] = False
    """Whether the size of a message depends on the data; `paper_bits` is then the maximum."""
    tolerates_absence: ClassVar[bool] = False
    """Whether a packet that is not delivered becomes residual, so that nothing is lost."""
    unbiased: ClassVar[bool] = False
    """Whether the mean of the direction is the mean gradient."""
    same_data: ClassVar[bool] = False
    """Whether the proof needs all workers to sample from one distribution."""
    counts_zeros: ClassVar[bool] = False
    """Whether a worker's gradient of zeros still moves the result, as a vote does."""
    reads_lr: ClassVar[bool] = False
    """Whether `work` or `serve` reads the learning rate."""
    takes_gradient_tensors: ClassVar[bool] = False
    """Whether `work` reads `me.gradient_tensors`, once and before the first yield, in place of `me.gradient`."""
    needs_shapes: ClassVar[bool] = False
    """Whether what it sends depends on the shapes of the parameter tensors, and not on their sizes alone."""
    takes_changes: ClassVar[bool] = True
    """Whether the change of several local steps may stand in for a gradient."""
    server_steps: ClassVar[bool] = False
    """Whether the server holds the model and an optimizer."""
    delay: ClassVar[int] = 0
    """Number of rounds after which a result is applied. Only 0 is possible today."""
    test_settings: ClassVar[Mapping[str, Any]] = {}
    """Settings for the common tests; the defaults stay those of the paper."""
    test_lr: ClassVar[float] = 0.1
    """Learning rate for the common tests."""

    def __post_init__(self) -> None:
        check_hyperparameters(self, self.name)

    @property
    def worker_slots(self) -> Mapping[str, Slot]:
        """The memories that `work` writes, by name; see `slots.py`. Constant tables are class variables."""
        return {}

    @property
    def server_slots(self) -> Mapping[str, Slot]:
        """The memories that `serve` writes."""
        return {}

    @property
    def is_asynchronous(self) -> bool:
        """Whether a server takes each gradient as it arrives, and no worker waits for another one."""
        return self.mode == "arrivals"

    @property
    def is_decentralized(self) -> bool:
        """Whether there is no server, but a graph of neighbors."""
        return self.mode == "decentralized"

    @property
    def serves_mean(self) -> bool:
        """Whether `serve` reads nothing but the mean of packets, so that it can be made while long ones come.

        Also where it reads the sum of one packet: as in mode "arrivals".
        """
        return False

    def sum_divisor(self, n_workers: int) -> int | None:
        """Return what `serve` divides the sum of all workers' dense packets by, from the first one on; else None.

        Where all are there and answered so: then `inbox.made_sum` may have it, made while long ones came.
        """
        return None

    @property
    def separable(self) -> bool:
        """Whether splitting the vector over several servers changes no bit of the result."""
        return False

    def server_bounds(self, spec: ModelSpec) -> Sequence[int]:
        """Return where the vector may be split over several servers without changing a bit of the result.

        Anywhere for a separable method. By default nowhere for others; where blocks end, if a block alone matters.

        Args:
            spec: the parameters.

        Returns:
            The numbers of elements that a server's slice may begin with, above 0 and below d; they ascend.
        """
        return range(1, spec.d) if self.separable else ()

    @property
    def over_slices(self) -> Slices:
        """What rounds over slices of the vector give, each a round of its own with its own frames and memories."""
        return "refused"

    @property
    def lr_factor(self) -> float:
        """The learning rate of this method as a multiple of SGD's.

        `laconic run` uses it without --lr, and `lr="scaled"` multiplies a user's rates by it.
        """
        return 1.0

    @property
    def second_gradient(self) -> bool:
        """Whether `work` calls `me.gradient_at`, for which the optimizer needs a closure."""
        return False

    def check_size(self, spec: ModelSpec, n_workers: int) -> None:  # noqa: B027 - most have nothing to check
        """Check that the hyper-parameters fit the model, before anything is sent. Raises ValueError otherwise."""

    def dense_in(self, round_: int) -> bool:
        """Whether this round belongs to a dense warm-up: one exchange of the full vector, one local step."""
        return False

    def in_round(self, round_: int) -> "Algorithm":
        """Return the method with the hyper-parameters of this round, which a warm-up may change.

        It is the same object in rounds that are alike, and works with the memories of this one.
        """
        return self

    def warms_up_in(self, round_: int) -> bool:
        """Whether this round belongs to a warm-up, dense or not."""
        return self.dense_in(round_) or self.in_round(round_) is not self

    def exchanges(self, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        """Return the exchanges of one round, one for each yield of `work`."""
        return (Exchange(count=spec.d, offset=spec.offset),)

    def exchanges_in(self, round_: int, spec: ModelSpec, n_workers: int = 1) -> tuple[Exchange, ...]:
        """Return the exchanges of this round, which may belong to a warm-up: then they have names of their own."""
        if self.dense_in(round_):
            return (Exchange(count=spec.d, offset=spec.offset, name=_DENSE, adds=True),)
        now = self.in_round(round_)
        exchanges = now.exchanges(spec, n_workers)
        return exchanges if now is self else tuple(replace(each, name=_WARM_UP + each.name) for each in exchanges)

    def peers(self, rank: int, n_workers: int, round_: int, exchange: int, key: int) -> tuple[int, ...]:
        """Return the ranks that this worker sends its packet to, in mode "decentralized".

        Args:
            rank: the worker's.
            n_workers: N.
            round_: number of the round.
            exchange: number of the exchange in the round.
            key: `shared_key("graph")` of the round, from which all ranks may draw the same graph.
        """
        raise ContractError(f"{self.name} has no graph: its mode is {self.mode!r}")

    def staleness_bound(self) -> StalenessBound:
        """Return a new bound on staleness for one job, in mode "arrivals"."""
        return StalenessBound()

    def settings(self) -> dict[str, str]:
        """Return the hyper-parameters as the texts that `--set` takes."""
        return as_settings(self)

    @classmethod
    def accounting(cls) -> list[tuple[str, str, str]]:
        """Return the paper's traffic figures as rows (what, by our formula, as printed); empty where it has none."""
        return []

    @abstractmethod
    def work(self, me: Worker) -> Step:
        """Run one round of one worker: yield packets, or None to skip, and return what `returns` names.

        The result is a vector (d,). A method that consumes changes may return it as a sparse packet.
        """

    def serve(self, server: Server, inbox: Inbox) -> Packet | None:
        """Run one exchange at the server: return the answer to all workers, or None to skip.

        In mode "arrivals" the inbox holds one worker's gradient. The answer must be valid for every worker, since the
        next one to take the model gets it.
        """
        raise ContractError(f"{self.name} has no server: its mode is {self.mode!r}")

    def vote_agreement(self, server: Server, inbox: Inbox) -> tuple[int, int] | None:
        """Return how far the votes of an exchange agree; None where nothing is voted on. For telemetry, after `serve`.

        The sum of |sum of a coordinate's votes| over the coordinates, and what it would be if all votes for each were
        alike. By default the votes are the signs that workers sent.
        """
        return inbox.sign_agreement()

    def paper_bits_of(self, direction: Literal["up", "down"], packet: Packet) -> float:
        """Return the bits of one packet by the paper's formula."""
        return packet.paper_bits

    @abstractmethod
    def paper_bits(self, spec: ModelSpec, n_workers: int = 10) -> tuple[float, float]:
        """Return (upload, download) bits per worker and round by the paper's formula; the maximum if adaptive."""


class Registry(MutableMapping[str, type[Algorithm]]):
    """Algorithms by name. The first access imports those of the package `laconic.algorithms`."""

    def __init__(self) -> None:
        self._entered: dict[str, type[Algorithm]] = {}

    def _all(self) -> dict[str, type[Algorithm]]:
        import_module("laconic.algorithms")  # not at the top of the file: its modules import this one
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
    """Register an algorithm under the name that users type, which is also that of its folder and its curve.

    Raises:
        ValueError: The name has other characters than letters, digits, - and _, or another class has it.
    """
    if not isinstance(name, str):
        raise TypeError(
            "@laconic.algorithm needs the name that users type: "
            f'@laconic.algorithm("{getattr(name, "__name__", "name").lower()}")'
        )
    if not is_plain_name(name):
        raise ValueError(
            f"algorithm {name!r}: a name must be 1 to {MAX_NAME} letters, digits, - and _, and not begin with -, "
            "since it is typed, and names files"
        )

    def enter(cls: A) -> A:
        if not isinstance(cls, type) or not issubclass(cls, Algorithm):
            raise TypeError(f"@laconic.algorithm({name!r}) is for a class that derives from laconic.Algorithm")
        taken = ALGORITHMS.get(name)
        # A notebook's cell may define its class again; a file is loaded once.
        if taken is not None and (_full_name(taken) != _full_name(cls) or cls.__module__.startswith(PLUGIN)):
            raise ValueError(f"algorithm {name!r} is already {_full_name(taken)}; give {_full_name(cls)} another name")
        cls.name = name
        ALGORITHMS[name] = cls
        return cls

    return enter


def _full_name(cls: type) -> str:
    if cls.__module__.startswith(PLUGIN):
        return f"{cls.__qualname__} in {getattr(sys.modules.get(cls.__module__), '__file__', cls.__module__)}"
    return f"{cls.__module__}.{cls.__qualname__}"
