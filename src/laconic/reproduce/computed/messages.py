"""Bits of real messages: majority voting, signs; and the draws of a quantizer."""

import torch

from laconic.compressors import Quantized
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.lab.algorithms import make_algorithm
from laconic.lab.processes.pool import Reporter
from laconic.protocol.round_inputs import Inputs
from laconic.random_keys import make_key
from laconic.reproduce.ssgdmv_bits import KINDS, ROWS, SsgdMvBits, message_bits


def majority_vote_ratios(report: Reporter) -> dict[str, float]:
    """Return the compression ratios of measured messages by row and direction, of payload and of full frames.

    Ozfatura, Ozfatura, Gunduz: Distributed Sparse SGD with Majority Voting, 2020, Table 1.
    """
    d = SsgdMvBits().parameters
    kinds = {}
    for number, kind in enumerate(KINDS):
        report(number, len(KINDS), kind.key)
        kinds[kind.key] = message_bits(lambda done, total, note: None, kind, d)
    found = {
        f"{row.name} {direction}{counted}": 32 * d * row.steps / kinds[row.kind][direction]["block"][meter]
        for row in ROWS
        for direction in ("up", "down")
        for counted, meter in (("", "payload"), (", full frames", "wire"))
    }
    report(len(KINDS), len(KINDS), "")
    return found


_FLEXIBLE = {
    "compressor": "selected-sign", "compressor.keep": "0.3", "server_compressor": "scaled-sign",
    "server_compressor.blocks": "vector",
}  # fmt: skip


def sign_costs(report: Reporter) -> dict[str, float]:
    """Return the bits that one worker sends and receives in a round, over the number of parameters.

    Phong, Phuong: DropSignSGD, IEEE Access 2020, Table 1; the 32 bits of a scale are taken off.
    """
    d, workers = 1_000_000, 2
    methods: dict[str, tuple[str, dict[str, str], int]] = {
        "SGD": ("sgd", {}, 0),
        "Zheng [4]": ("dist-ef", {}, 32),
        "Phuong-Phong [10]": ("ec-sgd", _FLEXIBLE, 32),
        "signSGD-MV": ("signsgd-mv", {}, 0),
        **{f"DropSign 0.3 / {keep}": ("dropsign", {"server_keep": keep}, 0) for keep in ("0.3", "0.5", "0.7")},
    }
    found: dict[str, float] = {}
    for number, (name, (algorithm, settings, scale_bits)) in enumerate(methods.items()):
        report(number, len(methods), name)
        simulated = Simulated(
            make_algorithm(algorithm, settings), spec=ModelSpec.of_sizes(d), n_workers=workers, layout="rank0"
        )
        generator = torch.Generator().manual_seed(make_key(0, "data", 0, number, "gradient") >> 1)
        gradient, start = torch.randn(d, generator=generator), torch.zeros(d)
        simulated.round(lambda rank, vector=gradient, x=start: Inputs(vector=vector, parameters=x), lr=0.1)  # type: ignore[misc]
        for direction in ("up", "down"):
            bits = sum(worker.meter.counts[direction].paper_bits for worker in simulated.workers) / workers
            found[f"{name}, {direction}"] = (bits - scale_bits) / d
    report(len(methods), len(methods), "")
    return found


def quantized_draws(report: Reporter) -> dict[str, float]:
    """Return the shares of 20,000 draws of 0.3 between -0.5 and 1.3 with two bits, and their mean.

    Liu, Zhang: Distributed Learning Systems with First-Order Methods, 2020, Figure 3.1.
    """
    report(0, 1, "")
    values = torch.full((20_002,), 0.3)
    values[0], values[1] = -0.5, 1.3
    sent = Quantized(bits=2)(values, spec=ModelSpec.of_sizes(len(values)), key=make_key(0, "worker", 0, 0, "compress"))
    draws = sent.dense()[2:]
    report(1, 1, "")
    return {
        "share of 0.1": float((draws - 0.1).abs().lt(1e-3).double().mean()),
        "share of 0.7": float((draws - 0.7).abs().lt(1e-3).double().mean()),
        "mean": float(draws.double().mean()),
    }
