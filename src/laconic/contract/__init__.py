"""What the author of a method uses: the algorithm, the views of a round, messages, memories."""

from laconic.contract.accept import DENSE, Accept, Accepted, AcceptedBy
from laconic.contract.algorithm import ALGORITHMS, Algorithm, Exchange, Result, Slices, Step, algorithm, is_of_warm_up
from laconic.contract.arriving import Arriving, ArrivingChanges
from laconic.contract.bounded_staleness import Late, StalenessBound, UpdateOutcome
from laconic.contract.memory import Memory, Scratch, storage_of
from laconic.contract.messages import Inbox, InParts, Leaves, Reply
from laconic.contract.model_spec import ModelSpec, TensorSpec
from laconic.contract.plugins import load_plugins
from laconic.contract.saved_memory import Saved, by_parameter, check_vector, read_saved, resized_server, resized_workers
from laconic.contract.slots import Rule, Slot, Slots
from laconic.contract.views import Server, Side, Worker

__all__ = [
    "ALGORITHMS",
    "DENSE",
    "Accept",
    "Accepted",
    "AcceptedBy",
    "Algorithm",
    "Arriving",
    "ArrivingChanges",
    "Exchange",
    "InParts",
    "Inbox",
    "Late",
    "Leaves",
    "Memory",
    "ModelSpec",
    "Reply",
    "Result",
    "Rule",
    "Saved",
    "Scratch",
    "Server",
    "Side",
    "Slices",
    "Slot",
    "Slots",
    "StalenessBound",
    "Step",
    "TensorSpec",
    "UpdateOutcome",
    "Worker",
    "algorithm",
    "by_parameter",
    "check_vector",
    "is_of_warm_up",
    "load_plugins",
    "read_saved",
    "resized_server",
    "resized_workers",
    "storage_of",
]
