"""laconic: train PyTorch models over slow, lossy and unreliable networks, with every byte counted."""

from laconic import algorithms as _algorithms  # enters every algorithm of the folder
from laconic.algorithms.asgd import ASGD
from laconic.algorithms.compskip import CompSkip
from laconic.algorithms.csgd import CSGD
from laconic.algorithms.csgd_ring import CSGDRing
from laconic.algorithms.dist_ef import DistEFBlockwise
from laconic.algorithms.dropsign import DropSign
from laconic.algorithms.dsgd import DSGD
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.lag import LAG
from laconic.algorithms.lasg import LASG
from laconic.algorithms.sasg import SASG
from laconic.algorithms.sgd import SGD
from laconic.algorithms.sgd_model import ModelAveraging
from laconic.algorithms.sgd_server import GlobalReplica
from laconic.algorithms.signsgd_mv import SignSGDMajorityVote
from laconic.algorithms.sparse import SparseSGD
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
    Sign,
    Sparsified,
    Ternary,
    TopK,
)
from laconic.contract import ALGORITHMS, Algorithm, Inbox, Reply, Server, Step, Worker, algorithm
from laconic.errors import ContractError, PeerLostError, ReplicaError, SetupError, WireError
from laconic.faults.plan import FaultPlan
from laconic.gossip.mixing import Mixing
from laconic.kernels.api import kernel_threads, set_kernel_threads
from laconic.network import Link
from laconic.policies.skip_policies import Coins, Never, SlowLink
from laconic.telemetry.meter import Count
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
    "Clipped",
    "Coins",
    "CompSkip",
    "ContractError",
    "Count",
    "DenseValues",
    "DistEFBlockwise",
    "DistributedOptimizer",
    "DropSign",
    "FaultPlan",
    "Fractional",
    "GlobalReplica",
    "Identity",
    "Inbox",
    "Link",
    "Mixing",
    "ModelAveraging",
    "Natural",
    "Never",
    "PeerLostError",
    "Quantized",
    "ReplicaError",
    "Reply",
    "SSGDTopK",
    "ScaledSign",
    "Server",
    "SetupError",
    "Sign",
    "SignSGDMajorityVote",
    "Simulation",
    "SlowLink",
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
    "set_kernel_threads",
]
del _algorithms
