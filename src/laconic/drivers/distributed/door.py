"""What a user has called, as messages name it: several functions make the same parts."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Door:
    """The words of one function."""

    call: str
    """The call, which begins what is said of a purpose."""
    purpose: str
    """Why ranks meet in it."""
    each: str
    """What every rank has to do."""
    made: str
    """What it makes."""
    anew: str
    """How to make another one."""
    held: str
    """What users call the object that they hold."""
    optimizer: str
    """Its argument that is the user's optimizer."""
    parameters: str
    """Its argument that the parameters come from."""
    or_dense: str = ""
    """What else than dense layers it admits."""

    @property
    def closed(self) -> str:
        """What is said to who goes on after the end."""
        return f"this {self.made} is closed and takes part in no more rounds; {self.anew} on every rank"


OPTIMIZER = Door(
    call="DistributedOptimizer()", purpose="to make its DistributedOptimizer", each="make one",
    made="DistributedOptimizer", anew="make a new DistributedOptimizer", held="opt",
    optimizer="inner", parameters="inner", or_dense=", or pass sparse_gradients='dense'",
)  # fmt: skip
ATTACH = Door(
    call="attach()", purpose="to attach its method", each="attach one", made="attached method",
    anew="attach the method anew", held="handle", optimizer="optimizer", parameters="model",
)  # fmt: skip
CHOOSE = Door(
    call="choose()", purpose="to choose a method", each="choose one", made="trial of a method",
    anew="choose again", held="opt", optimizer="inner", parameters="inner",
)  # fmt: skip

_ENTERED: ContextVar[Door | None] = ContextVar("laconic door", default=None)


@contextmanager
def entered(door: Door) -> Iterator[None]:
    """Name `door` in what is made within, unless a user came through another one before."""
    token = None if _ENTERED.get() else _ENTERED.set(door)
    try:
        yield
    finally:
        if token is not None:
            _ENTERED.reset(token)


def door() -> Door:
    """Return what the user has called; where nothing says so, `DistributedOptimizer`."""
    return _ENTERED.get() or OPTIMIZER
