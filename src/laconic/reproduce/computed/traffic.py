"""What methods send, in bits: by the papers' formulas, and counted in short runs on the digits.

Phuong, Phong, Fukushima: CompSkipDSGD, IEEE Access 2023, Table 2 and the cost section; Deng, Li, Sun, Lu: SASG, Tables
I and II.
"""

import torch

from laconic.algorithms.sasg import SASG
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.lab.algorithms import make_algorithm
from laconic.lab.processes.pool import Reporter
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.protocol.round_inputs import Inputs
from laconic.reproduce.resnet18 import layer_sizes
from laconic.telemetry.traffic import Traffic

_RESNET50, _ROUNDS, _WORKERS = 25_557_032, 90 * 1359, 7
_KEEP, _WORKER_SKIPS = 0.3, 0.3
_BITS_OF_A_GB = 8e9
_MLP, _MLP_SELECTED = 407_050, 4071


def compskip_saved(report: Reporter) -> dict[str, float]:
    """Return the GB that skipping saves against DropSign, by the server's skip probability and its beta~."""
    report(0, 1, "")
    vector = _RESNET50 * _ROUNDS * _WORKERS / _BITS_OF_A_GB
    found = {
        f"GB, server {skips}, beta~ {keep}": vector * (skips * keep + _WORKER_SKIPS * _KEEP)
        for keep in (0.3, 0.5)
        for skips in (0.1, 0.2, 0.3, 0.4)
    }
    report(1, 1, "")
    return found


def compskip_cost(report: Reporter) -> dict[str, float]:
    """Return the figures of the cost section by its formulas, and what a short run sends of each vector."""
    server_bits = _ROUNDS * 0.1 * _KEEP * _WORKERS * _RESNET50
    worker_bits = _ROUNDS * _WORKER_SKIPS * _KEEP * _WORKERS * _RESNET50
    up, down = _measured_shares(report)
    return {
        "server, bits saved": server_bits,
        "server, GB saved": server_bits / _BITS_OF_A_GB,
        "workers, bits saved": worker_bits,
        "workers, GB saved": worker_bits / _BITS_OF_A_GB,
        "rounds times 0.03": _ROUNDS * 0.03,
        "share of d that a worker sends": (1 - _WORKER_SKIPS) * _KEEP,
        "share of d that the server sends": 0.9 * _KEEP,
        "measured share of d that a worker sends": up,
        "measured share of d that the server sends": down,
    }


_MEASURED_ROUNDS, _MEASURED_D = 10_000, 500


def _measured_shares(report: Reporter) -> tuple[float, float]:
    """Return the shares of d that a worker and the server send on average, in rounds with random gradients."""
    algorithm = make_algorithm("compskip", {"server_keep": "0.3"})
    simulated = Simulated(
        algorithm, spec=ModelSpec.of_sizes(_MEASURED_D), n_workers=_WORKERS, layout="rank0"
    )  # fmt: skip
    generator, start = torch.Generator().manual_seed(0), torch.zeros(_MEASURED_D)
    for done in range(_MEASURED_ROUNDS):
        report(done, _MEASURED_ROUNDS, "rounds of CompSkip")
        simulated.round(
            lambda rank: Inputs(vector=torch.randn(_MEASURED_D, generator=generator), parameters=start), lr=0.01
        )
    report(_MEASURED_ROUNDS, _MEASURED_ROUNDS, "")
    counts = [worker.meter.counts for worker in simulated.workers]
    vector = _MEASURED_D * _WORKERS * _MEASURED_ROUNDS
    up, down = (sum(one[side].paper_bits for one in counts) / vector for side in ("up", "down"))
    return up, down


def uploads_of_methods(report: Reporter) -> dict[str, float]:
    """Return, by method, the counted bits of short runs over those of Table I, and the uploads of a round."""
    found: dict[str, float] = {}
    lazy = {"alpha": "0.5", "warm_up_rounds": "2", "lr_convention": "sum"}
    sparse = {"density": "0.01", "blocks": "layer"}
    methods = {"sgd": {}, "sparse": sparse, "lasg": lazy, "sasg": lazy | sparse}
    for number, (name, settings) in enumerate(methods.items()):
        report(number, len(methods), name)
        traffic, parameters = _on_digits(name, settings, workers=10, epochs=3, lr=0.01 if "alpha" in settings else 0.1)
        each = parameters if name in ("sgd", "lasg") else SASG(density=0.01, blocks="layer").n_selected(_digits_spec())
        uploads = traffic.up.messages - traffic.up.skip_messages
        found[f"{name}, counted bits over the formula"] = traffic.up.paper_bits / (32 * each * uploads)
        found[f"{name}, uploads a round"] = uploads / traffic.rounds
    report(len(methods), len(methods), "")
    return found


def _digits_spec() -> ModelSpec:
    return ModelSpec.of_sizes(64 * 64, 64, 64 * 10, 10)


def bits_of_printed_rounds(report: Reporter) -> dict[str, float]:
    """Return the bits of Table II that follow from its rounds: 32 for each value of an upload."""
    report(0, 1, "")
    cifar10, cifar100 = ((sum(sizes), sum(max(1, size // 100) for size in sizes)) for sizes in _RESNETS)
    printed = {
        "MNIST": ((_MLP, _MLP_SELECTED), (60400, 67400, 33853, 22823)),
        "CIFAR-10": (cifar10, (111200, 109800, 107389, 90846)),
        "CIFAR-100": (cifar100, (152000, 152800, 145971, 137937)),
    }
    found = {
        f"{data}, {name}": 32.0 * rounds * (selected if name in ("Sparse", "SASG") else parameters)
        for data, ((parameters, selected), by_method) in printed.items()
        for name, rounds in zip(("SGD", "Sparse", "LASG", "SASG"), by_method, strict=True)
    }
    report(1, 1, "")
    return found


_RESNETS = (layer_sizes(10), layer_sizes(100))


def _on_digits(
    algorithm: str, settings: dict[str, str], *, workers: int, epochs: int, lr: float | None = None
) -> tuple[Traffic, int]:
    """Run a method on the digits; return what it has sent, and the number of parameters."""
    run = RunSettings(
        algorithm=algorithm, set=settings, workers=workers, layout="rank0", dataset="digits", model="mlp", width=64,
        batch_size=10, epochs=epochs, lr=lr,
    )  # fmt: skip
    record = run_simulated(run, lambda progress: None)
    return record.traffic, record.spec.d
