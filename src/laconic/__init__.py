"""laconic: train PyTorch models over slow, lossy and unreliable networks, with every byte counted.

A name is imported at its first use: torch takes seconds to load, and much of laconic does not need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic.algorithms.asgd import ASGD
    from laconic.algorithms.compskip import CompSkip
    from laconic.algorithms.csgd import CSGD
    from laconic.algorithms.csgd_ring import CSGDRing
    from laconic.algorithms.diloco import DiLoCo
    from laconic.algorithms.dist_ef import DistEFBlockwise
    from laconic.algorithms.dropsign import DropSign
    from laconic.algorithms.dsgd import DSGD
    from laconic.algorithms.ec_sgd import ECSGD
    from laconic.algorithms.lag import LAG
    from laconic.algorithms.lasg import LASG
    from laconic.algorithms.powersgd import PowerSGD
    from laconic.algorithms.sasg import SASG
    from laconic.algorithms.sgd import SGD
    from laconic.algorithms.sgd_model import ModelAveraging
    from laconic.algorithms.sgd_server import GlobalReplica
    from laconic.algorithms.signsgd_mv import SignSGDMajorityVote
    from laconic.algorithms.sparse import SparseSGD
    from laconic.algorithms.sparseloco import SparseLoCo
    from laconic.algorithms.ssgd_mv import SSGDMV
    from laconic.algorithms.ssgd_mv_ad import SSGDMVAD
    from laconic.algorithms.ssgd_mv_rs import SSGDMVRS
    from laconic.algorithms.ssgd_topk import SSGDTopK
    from laconic.compressors import (
        QSGD,
        Clipped,
        DenseValues,
        Fractional,
        Identity,
        Natural,
        Quantized,
        ScaledSign,
        SelectedSign,
        Sign,
        Sparsified,
        Ternary,
        TopK,
    )
    from laconic.contract import ALGORITHMS, Algorithm, Inbox, Reply, Server, Step, Worker, algorithm
    from laconic.errors import (
        CheckpointError,
        ContractError,
        LaconicError,
        PeerLostError,
        ReplicaError,
        SetupError,
        WireError,
    )
    from laconic.faults.events import Event
    from laconic.faults.plan import FaultPlan
    from laconic.gossip.mixing import Mixing
    from laconic.kernels.api import kernel_threads, set_kernel_threads
    from laconic.network import ComputeTime, Link
    from laconic.policies.skip_policies import Never, RandomSkips, SlowLink
    from laconic.statements import LaconicWarning
    from laconic.telemetry.logs.run_log import RunLog
    from laconic.telemetry.meter import Count
    from laconic.telemetry.observing import observe
    from laconic.telemetry.prometheus import PrometheusEndpoint
    from laconic.telemetry.recorder import RoundStats
    from laconic.telemetry.traffic import Traffic
    from laconic.training.consensus import mean_parameters
    from laconic.training.distributed_optimizer import DistributedOptimizer
    from laconic.training.simulation import Simulation

__version__ = "0.1.0"

__all__ = [
    "ALGORITHMS",
    "ASGD",
    "CSGD",
    "DSGD",
    "ECSGD",
    "LAG",
    "LASG",
    "QSGD",
    "SASG",
    "SGD",
    "SSGDMV",
    "SSGDMVAD",
    "SSGDMVRS",
    "Algorithm",
    "CSGDRing",
    "CheckpointError",
    "Clipped",
    "CompSkip",
    "ComputeTime",
    "ContractError",
    "Count",
    "DenseValues",
    "DiLoCo",
    "DistEFBlockwise",
    "DistributedOptimizer",
    "DropSign",
    "Event",
    "FaultPlan",
    "Fractional",
    "GlobalReplica",
    "Identity",
    "Inbox",
    "LaconicError",
    "LaconicWarning",
    "Link",
    "Mixing",
    "ModelAveraging",
    "Natural",
    "Never",
    "PeerLostError",
    "PowerSGD",
    "PrometheusEndpoint",
    "Quantized",
    "RandomSkips",
    "ReplicaError",
    "Reply",
    "RoundStats",
    "RunLog",
    "SSGDTopK",
    "ScaledSign",
    "SelectedSign",
    "Server",
    "SetupError",
    "Sign",
    "SignSGDMajorityVote",
    "Simulation",
    "SlowLink",
    "SparseLoCo",
    "SparseSGD",
    "Sparsified",
    "Step",
    "Ternary",
    "TopK",
    "Traffic",
    "WireError",
    "Worker",
    "algorithm",
    "kernel_threads",
    "mean_parameters",
    "observe",
    "set_kernel_threads",
]

_MODULES = {  # the module of each name; editors and type checkers read the imports above
    "ALGORITHMS": "laconic.contract",
    "ASGD": "laconic.algorithms.asgd",
    "CSGD": "laconic.algorithms.csgd",
    "DSGD": "laconic.algorithms.dsgd",
    "ECSGD": "laconic.algorithms.ec_sgd",
    "LAG": "laconic.algorithms.lag",
    "LASG": "laconic.algorithms.lasg",
    "QSGD": "laconic.compressors",
    "SASG": "laconic.algorithms.sasg",
    "SGD": "laconic.algorithms.sgd",
    "SSGDMV": "laconic.algorithms.ssgd_mv",
    "SSGDMVAD": "laconic.algorithms.ssgd_mv_ad",
    "SSGDMVRS": "laconic.algorithms.ssgd_mv_rs",
    "Algorithm": "laconic.contract",
    "CSGDRing": "laconic.algorithms.csgd_ring",
    "CheckpointError": "laconic.errors",
    "Clipped": "laconic.compressors",
    "CompSkip": "laconic.algorithms.compskip",
    "ComputeTime": "laconic.network",
    "ContractError": "laconic.errors",
    "Count": "laconic.telemetry.meter",
    "DenseValues": "laconic.compressors",
    "DiLoCo": "laconic.algorithms.diloco",
    "DistEFBlockwise": "laconic.algorithms.dist_ef",
    "DistributedOptimizer": "laconic.training.distributed_optimizer",
    "DropSign": "laconic.algorithms.dropsign",
    "Event": "laconic.faults.events",
    "FaultPlan": "laconic.faults.plan",
    "Fractional": "laconic.compressors",
    "GlobalReplica": "laconic.algorithms.sgd_server",
    "Identity": "laconic.compressors",
    "Inbox": "laconic.contract",
    "LaconicError": "laconic.errors",
    "LaconicWarning": "laconic.statements",
    "Link": "laconic.network",
    "Mixing": "laconic.gossip.mixing",
    "ModelAveraging": "laconic.algorithms.sgd_model",
    "Natural": "laconic.compressors",
    "Never": "laconic.policies.skip_policies",
    "PeerLostError": "laconic.errors",
    "PowerSGD": "laconic.algorithms.powersgd",
    "PrometheusEndpoint": "laconic.telemetry.prometheus",
    "Quantized": "laconic.compressors",
    "RandomSkips": "laconic.policies.skip_policies",
    "ReplicaError": "laconic.errors",
    "Reply": "laconic.contract",
    "RoundStats": "laconic.telemetry.recorder",
    "RunLog": "laconic.telemetry.logs.run_log",
    "SSGDTopK": "laconic.algorithms.ssgd_topk",
    "ScaledSign": "laconic.compressors",
    "SelectedSign": "laconic.compressors",
    "Server": "laconic.contract",
    "SetupError": "laconic.errors",
    "Sign": "laconic.compressors",
    "SignSGDMajorityVote": "laconic.algorithms.signsgd_mv",
    "Simulation": "laconic.training.simulation",
    "SlowLink": "laconic.policies.skip_policies",
    "SparseLoCo": "laconic.algorithms.sparseloco",
    "SparseSGD": "laconic.algorithms.sparse",
    "Sparsified": "laconic.compressors",
    "Step": "laconic.contract",
    "Ternary": "laconic.compressors",
    "TopK": "laconic.compressors",
    "Traffic": "laconic.telemetry.traffic",
    "WireError": "laconic.errors",
    "Worker": "laconic.contract",
    "algorithm": "laconic.contract",
    "kernel_threads": "laconic.kernels.api",
    "mean_parameters": "laconic.training.consensus",
    "observe": "laconic.telemetry.observing",
    "set_kernel_threads": "laconic.kernels.api",
}
_FACES = (  # packages and modules whose names are public too
    "checkpoint",
    "compressors",
    "contract",
    "ddp",
    "fsdp",
    "kernels",
    "network",
    "planning",
    "traffic",
    "wire",
)


def _load(name: str) -> Any:  # noqa: ANN401 - an object of any type
    """Import the object `laconic.NAME`. Raises AttributeError with near misses for an unknown name."""
    if name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    elif name in _FACES:
        value = import_module(f"laconic.{name}")
    else:
        from laconic.hyperparameters import near_misses  # here, since few programs need it

        hint = "" if name.startswith("_") else near_misses(name, [*__all__, *_FACES])
        raise AttributeError(f"module 'laconic' has no attribute {name!r}{hint}")
    globals()[name] = value  # later uses do not call this function
    return value


def __dir__() -> list[str]:
    return sorted([name for name in globals() if name.startswith("__")] + __all__ + list(_FACES))


if not TYPE_CHECKING:  # with it, a type checker would accept misspelled names
    __getattr__ = _load
