"""What a worker and a server see of a round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from laconic.contract.memory import Memory
from laconic.errors import ContractError, NonFiniteError
from laconic.random_keys import Role, make_key, uniform


@dataclass(kw_only=True)
class Side:
    """What a worker and a server have in common. `offset` is the number of the side's first coordinate."""

    role: ClassVar[Role]
    rank: int
    n_workers: int
    count: int
    seed: int
    memory: Memory
    layers: tuple[int, ...] = ()
    offset: int = 0
    round: int = 0
    lr: float = 0.0  # the inner optimizer's learning rate in this round
    link_bytes_per_s: float | None = None  # measured on earlier rounds; None before the first measurement

    @property
    def _key_rank(self) -> int:
        return self.rank

    def key(self, stream: str) -> int:
        """The key of this side's draw in this round, for one purpose. The other end of the link can work it out."""
        return make_key(self.seed, self.role, self._key_rank, self.round, stream)

    def uniform(self, stream: str) -> float:
        """One uniform number in [0, 1), the same whenever it is asked for within a round."""
        return uniform(self.key(stream))


@dataclass(kw_only=True)
class Worker(Side):
    """One worker's view of a round. Vectors are flat, (d,), float32 (float64 where the model is).

    They live until the end of the round, or while the memory holds them: so do gradients of `gradient_at`.
    """

    role: ClassVar[Role] = "worker"
    gradient: Tensor = field(default_factory=lambda: torch.empty(0))  # of this worker's mini-batch
    gradient_tensors: Sequence[
        Tensor
    ] = ()  # the gradient in the tensors that it came in, where the algorithm `takes_gradient_tensors`
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
        """Call the round off unless what was made of `gradient_tensors` is finite: nobody has looked through them
        before.
        """
        if not is_finite:
            raise NonFiniteError


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
    raise ContractError("server.descend needs `server_steps = True` among the algorithm's claims")
