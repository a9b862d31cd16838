"""What the author of a method uses: the algorithm, the views of a round, messages, memories."""

from laconic.contract.algorithm import ALGORITHMS, Algorithm, Exchange, Result, Slices, Step, algorithm
from laconic.contract.bounded_staleness import Late, StalenessBound, UpdateOutcome
from laconic.contract.memory import Memory
from laconic.contract.messages import Inbox, Reply
from laconic.contract.model_spec import ModelSpec, TensorSpec
from laconic.contract.plugins import load_plugins
from laconic.contract.views import Server, Side, Worker

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Exchange",
    "Inbox",
    "Late",
    "Memory",
    "ModelSpec",
    "Reply",
    "Result",
    "Server",
    "Side",
    "Slices",
    "StalenessBound",
    "Step",
    "TensorSpec",
    "UpdateOutcome",
    "Worker",
    "algorithm",
    "load_plugins",
]
