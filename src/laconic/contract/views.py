"""What a worker and a server can read and call in a round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic.contract.arriving import Arriving, ArrivingChanges, Take
from laconic.contract.memory import Memory, Scratch
from laconic.contract.messages import Inbox
from laconic.contract.model_spec import ModelSpec
from laconic.errors import ContractError, NonFiniteError
from laconic.random_keys import Role, make_key, shared_key, uniform
from laconic.wire import LONG_BYTES, Dense, Ends


@dataclass(kw_only=True)
class Side:
    """What a worker and a server have in common."""

    role: ClassVar[Role]
    rank: int
    n_workers: int
    spec: ModelSpec
    """The parameter tensors of this side: those of the model, or of a slice of its vector."""
    seed: int
    memory: Memory
    """State from round to round, as the method's slots declare it."""
    scratch: Scratch
    """`scratch()` borrows a vector (count,) for this round, with arbitrary content."""
    round: int = 0
    lr: float = 0.0
    """The inner optimizer's learning rate in this round, at least 0; of parameter groups with own rates, the first's.

    At 0 nothing that a round returns is applied, and where workers share one model nothing that it writes to a memory
    is kept, so a method only has to avoid dividing by it.
    """
    link_bytes_per_s: float | None = None
    """Measured in earlier rounds; None before the first measurement."""

    @cached_property
    def count(self) -> int:
        """Number of coordinates of this side: d, or those of a slice."""
        return self.spec.d

    @cached_property
    def offset(self) -> int:
        """Index of this side's first coordinate in the vector of the full model."""
        return self.spec.offset

    def key(self, stream: str) -> int:
        """Return the key of this side's draws in this round for one purpose. The peer can compute it too."""
        return make_key(self.seed, self.role, 0 if self.role == "server" else self.rank, self.round, stream)

    def shared_key(self, stream: str) -> int:
        """Return a key for draws that all workers and servers make alike in this round, for one purpose."""
        return shared_key(self.seed, self.round, stream)

    def uniform(self, stream: str) -> float:
        """Return one uniform number in [0, 1), the same in every call within a round."""
        return uniform(self.key(stream))


@dataclass(kw_only=True)
class Worker(Side):
    """One worker's view of a round. Vectors are flat, (d,), float32 (float64 if the model is).

    They are valid until the end of the round, or while the memory holds them; so are those of `gradient_at`.
    """

    role: ClassVar[Role] = "worker"
    gradient: Tensor = field(default_factory=lambda: torch.empty(0))
    """The gradient of this worker's mini-batch, (d,)."""
    largest_gradient: float | None = None
    """The largest magnitude in `gradient` as it was read; None where that is not known."""
    gradient_parts: Mapping[tuple[int, int], tuple[float, int]] = field(default_factory=dict)
    """Of parts (start, stop) of `gradient` as it was read, where that is known: the largest magnitude, and the CRC-32
    of the bytes."""
    largest_updated: float | None = None
    """The largest magnitude in `updated` as it was read; None where that is not known."""
    updated_checksum: int | None = None
    """The CRC-32 of the bytes of `updated` as it was read; None where that is not known."""
    gradient_tensors: Sequence[Tensor] = ()
    """The gradient as one tensor for each parameter tensor, if the algorithm `takes_gradient_tensors`."""
    read_change: Callable[[Tensor | None], Tensor] = field(default=lambda plus: torch.empty(0))
    read_change_and_largest: Callable[[Tensor, int], tuple[Tensor, Tensor]] = field(
        default=lambda plus, k: (torch.empty(0), torch.empty(0))
    )
    read_scaled_change: Callable[[], tuple[Sequence[Tensor], Sequence[float]] | None] = field(default=lambda: None)
    """Returns `change` as consecutive tensors and a factor of each, which counts as reading it and is not checked for
    inf; None where it has to be read as a vector."""
    read_parameters: Callable[[], Tensor] = field(default=lambda: torch.empty(0))
    read_parameters_from: Callable[[Tensor], tuple[Tensor, float]] = field(default=lambda other: (torch.empty(0), 0.0))
    read_updated: Callable[[], Tensor] = field(default=lambda: torch.empty(0))
    read_difference: Callable[[Tensor, Sequence[Tensor], Sequence[float]], tuple[Tensor, Ends | None]] = field(
        default=lambda published, copies, weights: (torch.empty(0), None)
    )
    gradient_at: Callable[[Tensor], Tensor] = field(default=lambda parameters: _no_second_gradient())
    """Returns the gradient (d,) of this round's mini-batch at other parameters (d,)."""
    gradient_tensors_at: Callable[[Tensor], Sequence[Tensor]] = field(
        default=lambda parameters: [_no_second_gradient()]
    )
    """Returns the same as tensors of d elements in all, which need not be copied."""
    support: tuple[Tensor, Tensor] | None = None
    """Set by a method that knows it: indices (k,) int64, ascending, outside which the result of its round is zero, and
    its elements there, (k,)."""
    arriving: Arriving | ArrivingChanges | None = None
    """What sees the packets of the next exchange while they come; see `see_arriving`."""
    guesses: dict[str, Any] = field(default_factory=dict)
    """By name, what makes a round fast and changes no result, such as where a selection begins; it is not saved."""

    @property
    def parameters(self) -> Tensor:
        """The parameters at the start of the round, (d,)."""
        return self.read_parameters()

    def parameters_and_distance(self, other: Tensor) -> tuple[Tensor, float]:
        """Return `parameters`, and their squared distance from `other` (d,), in one pass where possible."""
        return self.read_parameters_from(other)

    @property
    def change(self) -> Tensor:
        """The change that the local steps made to the parameters, (d,). Read it once per round."""
        return self.read_change(None)

    def change_plus(self, other: Tensor) -> Tensor:
        """Return `change` plus another vector (d,), in one pass where possible. Call it once per round.

        A sum that is not finite aborts the round.
        """
        return self.read_change(other)

    @property
    def updated(self) -> Tensor:
        """The parameters after the local steps, (d,): `change` plus `parameters`, in one pass. Read it once per round.

        A sum that is not finite aborts the round.
        """
        return self.read_updated()

    def updated_difference(
        self, published: Tensor, copies: Sequence[Tensor], weights: Sequence[float]
    ) -> tuple[Tensor, Ends | None]:
        """Return `updated` less a published model, plus a weighted sum of models, less that model again.

        Read it once per round, in place of `updated`, which need not be written. One not finite aborts the round.

        Args:
            published: (d,).
            copies: (d,) each, at least one.
            weights: one for each copy.

        Returns:
            (d,), which may be overwritten; and its minimum and maximum, (1,) each, where they are known.
        """
        return self.read_difference(published, copies, weights)

    def dense_gradient(self) -> Dense:
        """Return a packet of `gradient` as it was read. Where its largest magnitude is known, it is not looked for."""
        packet = Dense(values=self.gradient, offset=self.offset)
        if self.largest_gradient is not None:
            packet.measured(self.largest_gradient).with_parts(self.gradient_parts)
        return packet

    def dense_updated(self) -> Dense:
        """Return a packet of `updated`, which this reads, as `dense_gradient` does of `gradient`."""
        packet = Dense(values=self.updated, offset=self.offset)
        return packet if self.largest_updated is None else packet.measured(self.largest_updated, self.updated_checksum)

    def change_plus_and_largest(self, other: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return `change_plus`, and the indices (k,) of its largest magnitudes, in one pass where possible."""
        return self.read_change_and_largest(other, k)

    def see_arriving(self, take: Take, count: int) -> Arriving:
        """Let `take` see dense values of the neighbors' packets of the next exchange, `count` each, while they come.

        It may not be called at all: the result says for which packets it was.
        """
        arriving = Arriving(take, count, self.memory.dtype)
        self.arriving = arriving if count * self.memory.dtype.itemsize >= LONG_BYTES else None
        return arriving

    def see_changes(
        self, moved: Mapping[int, tuple[Tensor, Tensor]], meanwhile: Callable[[], object]
    ) -> ArrivingChanges:
        """Let neighbors' packets of the next exchange be added to vectors while codes come, as `see_arriving`.

        Args:
            moved: by the sender's rank, a vector (d,) to add its packet to, and where to write the sum, (d,).
            meanwhile: is called once when a part of a packet has come, while the rest is under way.
        """
        arriving = ArrivingChanges(moved, self.offset + self.count, meanwhile)
        self.arriving = arriving if moved and self.count * self.memory.dtype.itemsize >= LONG_BYTES else None
        return arriving

    def require(self, is_finite: bool) -> None:
        """Abort the round unless the result computed from `gradient_tensors` is finite; they are not checked before."""
        if not is_finite:
            raise NonFiniteError


@dataclass(kw_only=True)
class Server(Side):
    """The server's view of a round, or of its slice of the vector if several ranks serve.

    Keys do not depend on the rank that serves, so that a separable method draws the same masks and skips however the
    vector is split.
    """

    role: ClassVar[Role] = "server"
    exchange: int = 0
    """Index of the exchange within the round."""
    staleness: int = 0
    """In mode "arrivals": number of updates since the sender took its model."""
    descend: Callable[[Tensor], Tensor] = field(default=lambda direction: _no_server_model())
    """Steps the server's optimizer along a direction (d,) and returns the new parameters (d,)."""
    descend_in_one_pass: Callable[[Inbox], Dense | None] = field(default=lambda inbox: None)

    def descend_mean(self, inbox: Inbox) -> Dense:
        """Step the server's optimizer along `inbox.mean()`, which need not be written; return the new parameters."""
        made = self.descend_in_one_pass(inbox)
        return Dense(values=self.descend(inbox.mean()), offset=self.offset) if made is None else made


def _no_second_gradient() -> Tensor:
    raise ContractError("gradient_at needs a closure, and an algorithm whose `second_gradient` is True")


def _no_server_model() -> Tensor:
    raise ContractError("server.descend needs an algorithm with `server_steps = True`")
