"""The list of golden runs: every method on every layout that it admits, and one further condition at a time."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import laconic
from laconic.compressors import COMPRESSORS
from laconic.contract import ModelSpec
from support.command_line import laconic as command
from support.golden_jobs import LAYOUTS, LR, SHAPES, Job

GOLDEN = Path(__file__).parents[1] / "golden"
REWRITE = "LACONIC_REWRITE_GOLDEN"
REWRITING = os.environ.get(REWRITE) == "1"

SHORT = 20  # rounds of further conditions; the runs on each layout have 50
_USUAL = ("server at rank 0", "dedicated server", "graph")  # the layout of a condition, the first that is admitted

# Compressors whose results are held; one that is added later may join them.
HELD = (
    "identity", "dense", "sign", "scaled-sign", "fractional", "top-k", "quantized", "qsgd", "ternary", "natural",
    "clipped", "sparsified",
)  # fmt: skip

# Further settings, by method. Words on the left are the runs' own; settings are the library's.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "asgd": {
        "bound 1, hold": {"max_staleness": 1},
        "bound 1, drop": {"max_staleness": 1, "staleness": "drop"},
        "inverse rate": {"lr_scaling": "inverse"},
        "top-k": {"compressor": laconic.TopK(density=0.25)},
    },
    "compskip": {
        "all signs, plain": {"keep": 1.0, "server_keep": 1.0, "c": 1.0, "decay": 0.5, "cprime": "plain"},
        "no skips": {"skip": laconic.Never(), "server_skip": laconic.Never()},
        "slow link": {"skip": laconic.SlowLink(deadline_s=2e-5), "server_skip": laconic.SlowLink(deadline_s=2e-5)},
    },
    "csgd": {name: {"compressor": COMPRESSORS[name](), "server_compressor": COMPRESSORS[name]()} for name in HELD}
    | {
        "fractional, 5 bits": {
            "compressor": laconic.Fractional(bits=5),
            "server_compressor": laconic.Fractional(bits=6),
        }
    },
    "csgd-ring": {
        "quantized": {"compressor": laconic.Quantized()},
        "unpartitioned": {"compressor": laconic.Quantized(scaling="l2"), "partitioned": False},
    },
    "dist-ef": {"vector": {"blocks": "vector"}, "64 entries": {"blocks": "64"}},
    "dropsign": {"all signs": {"keep": 1.0, "server_keep": 1.0, "momentum": 0.9}},
    "dsgd": {
        "ring": {"graph": "ring"},
        "exponential": {"graph": "exponential"},
        "full": {"graph": "full"},
        "star": {"graph": "star"},
        "torus": {"graph": "torus"},
        "pairs": {"graph": "shift-one"},
        "difference": {"graph": "full", "mixing": "difference", "compressor": laconic.Quantized()},
        "choco": {
            "graph": "full",
            "mixing": "choco",
            "compressor": laconic.TopK(density=0.25),
            "consensus_step_size": 0.5,
        },
    },
    "ec-sgd": {
        "top-k": {"compressor": laconic.TopK(density=0.1), "server_compressor": laconic.TopK(density=0.2)},
        "natural": {"compressor": laconic.Natural(), "server_compressor": laconic.Natural()},
        "signs": {"compressor": laconic.Sign(keep=0.5), "server_compressor": laconic.Sign()},
        "bfloat16": {
            "compressor": laconic.DenseValues(value_type="bfloat16"),
            "server_compressor": laconic.DenseValues(value_type="bfloat16"),
        },
        "clipped": {"compressor": laconic.Clipped(mantissa_bits=2), "server_compressor": laconic.Clipped()},
        "fractional, 5 bits": {
            "compressor": laconic.Fractional(bits=5),
            "server_compressor": laconic.Fractional(bits=5),
        },
        "entropy": {
            "compressor": laconic.Quantized(bits=4, entropy=True),
            "server_compressor": laconic.QSGD(blocks="64", entropy=True),
        },
        "blocks": {
            "compressor": laconic.ScaledSign(blocks="vector"),
            "server_compressor": laconic.ScaledSign(blocks="32"),
        },
    },
    "lag": {"sum": {"lr_convention": "sum", "alpha": 0.25}, "fewer skips": {"alpha": 0.04, "warm_up_rounds": 3}},
    "lasg": {
        "wk1": {"rule": "wk1", "alpha": 0.1},
        "ps": {"rule": "ps", "alpha": 0.5},
        "pse": {"rule": "pse", "alpha": 0.05},
    },
    "sasg": {"corrected": {"skip_error": "corrected", "alpha": 0.2, "warm_up_rounds": 1, "max_delay": 4}},
    "signsgd-mv": {"no momentum": {"momentum": 0.0}},
    "sparse": {
        "list": {"blocks": "vector", "code": "list"},
        "rice": {"k": 9, "code": "rice"},
        "entropy": {"k": 40, "blocks": "vector", "code": "entropy"},
    },
    "ssgd-topk": {"3 bits": {"bits": 3}},
    "ssgd-mv": {"4 bits": {"bits": 4}, "ties by index": {"ties": "index", "code": "rice"}},
    "ssgd-mv-ad": {"2 bits": {"bits": 2, "code": "list"}},
}
WARM_UP = {name: {"dense_rounds": 5} for name in ("ssgd-topk", "ssgd-mv", "ssgd-mv-ad", "ssgd-mv-rs")}
ABSENCES = {
    "lost packets": {"lost": 0.2},
    "late packets": {"late": 0.2},
    "damaged packets": {"corrupted": 0.2},
    "crashes": {"crashed": 0.1, "crash_rounds": 3},
}
RANDOM_LINK = laconic.Link(bytes_per_s=1e6, latency_s=1e-4, jitter_s=5e-5, loss=0.05)

# A ring whose weights are powers of two: those of "ring" and "star" are not, see `_held`.
USUAL = {"dsgd": {"graph": "0-1:0.25 1-2:0.25 2-3:0.25 3-0:0.25"}}


def algorithm(method: str, **settings: Any) -> laconic.Algorithm:
    """The method with the settings of the common tests and these."""
    cls = laconic.ALGORITHMS[method]
    return cls(**{**cls.test_settings, **USUAL.get(method, {}), **settings})


SHARED = "sharded servers"


def layouts_of(method: laconic.Algorithm) -> list[str]:
    """The layouts that a method admits, but for servers that share its layers; `_jobs_of` has a run for these."""
    found = []
    for layout in LAYOUTS if method.separable else [layout for layout in LAYOUTS if layout != SHARED]:
        try:
            Job(algorithm=method, layout=layout).simulation()
        except ValueError:
            continue
        found.append(layout)
    assert found, f"{method.name} admits no layout"
    return found


def methods() -> list[str]:
    """The methods whose figures are held: those with a file, and every public one. All, while files are written."""
    ours = (name for name, cls in laconic.ALGORITHMS.items() if cls.__module__.startswith("laconic."))
    return sorted(name for name in ours if REWRITING or file_of(name).is_file() or is_public(name))


def is_public(method: str) -> bool:
    """Whether `laconic` names the method's class."""
    return laconic.ALGORITHMS[method].__name__ in laconic.__all__


def file_of(name: str) -> Path:
    """The file of a method's figures, or of a plan's."""
    return GOLDEN / f"{name}.json"


def jobs_of(method: str) -> dict[str, Job]:
    """All golden runs of one method, by their keys."""
    return {" | ".join([method, *words]): _held(method, words, job) for words, job in _jobs_of(method)}


def _held(method: str, words: tuple[str, ...], job: Job) -> Job:
    """The job with less than all bits of its parameters held, where those depend on the processor.

    Weights of 1/3 and 3/4 round once or twice, as the processor multiplies and adds in one or two steps. Levels of up
    to four bits are averaged in float32, in as many chains as the processor has lanes. Mean magnitudes are summed by
    torch in float64, in an order of its own; float32 models see nothing of that. So are matrix products, and with
    PowerSGD small differences grow from round to round.
    """
    if method == "powersgd":
        return replace(job, parameters="about", steps=min(job.steps, 10))
    if words[0] in ("ring", "star", "fractional"):
        return replace(job, parameters="about")
    if method in ("ec-sgd", "dist-ef") and job.dtype == torch.float64:
        return replace(job, parameters="float32")
    return job


def _jobs_of(method: str) -> Iterator[tuple[tuple[str, ...], Job]]:
    usual = algorithm(method)
    admitted = layouts_of(usual)
    layout = next(layout for layout in _USUAL if layout in admitted)
    for each in admitted:
        yield (each,), Job(algorithm=usual, layout=each)
    if not usual.separable and usual.server_bounds(ModelSpec.of_shapes(*SHAPES)):
        yield (SHARED,), Job(algorithm=usual, layout=SHARED)
    precise = Job(
        algorithm=usual, layout=admitted[-1], workers=4 if "graph" in admitted else 3, steps=SHORT,
        dtype=torch.float64, learning_rates=(LR, 2 * LR), halved_at=10,
    )  # fmt: skip
    yield ("float64", precise.layout), precise
    if usual.takes_changes:
        yield ("3 local steps", admitted[0]), Job(algorithm=usual, layout=admitted[0], steps=31, local_steps=3)
    yield ("an infinite gradient", layout), Job(algorithm=usual, layout=layout, steps=10, infinite_at=(1, 6))
    yield ("unused parameters", layout), Job(algorithm=usual, layout=layout, steps=10, unused=(1, 4))
    if method != "dsgd":  # its graph has four nodes
        yield ("one worker", layout), Job(algorithm=usual, layout=layout, steps=10, workers=1)
    if usual.mode == "arrivals":
        yield ("random computing times", layout), Job(algorithm=usual, layout=layout, steps=SHORT, tail_s=0.002)
    for words, settings in SETTINGS.get(method, {}).items():
        other = algorithm(method, **settings)
        further = layouts_of(other)
        for each in [layout] + [each for each in further if each not in admitted]:
            yield (words, each), Job(algorithm=other, layout=each, steps=SHORT, workers=8 if words == "torus" else 4)
    if method in WARM_UP:
        warm = algorithm(method, **WARM_UP[method])
        yield ("dense warm-up", layout), Job(algorithm=warm, layout=layout, steps=SHORT, local_steps=2)
    for words, faults in _faults_of(usual):
        yield (words, layout), Job(algorithm=usual, layout=layout, steps=SHORT, faults=faults, link=RANDOM_LINK)


def _faults_of(method: laconic.Algorithm) -> Iterator[tuple[str, laconic.FaultPlan]]:
    """Lost, late and damaged packets if the method tolerates them; other faults if it has a server."""
    if method.mode != "rounds":
        return
    if method.tolerates_absence:
        for words, chances in ABSENCES.items():
            yield words, laconic.FaultPlan(seed=5, **chances)
    yield (
        "other faults",
        laconic.FaultPlan(
            seed=5, duplicated=0.1, straggle=0.2, slow_links={2: 0.25}, rescale=(0.5, 0.5), inverted_links=1
        ),
    )


# The options of `laconic plan`. Encoding and decoding are not measured, and count as 0.
NETWORKS = {
    "datacenter": (
        "--params", "20K", "--workers", "4", "--bandwidth", "10Gbit", "--latency", "20us", "--compute", "1ms",
    ),
    "office": (
        "--model", "mlp", "--input-shape", "30", "--workers", "5", "--bandwidth", "100Mbit", "--latency", "1ms",
        "--local-steps", "4", "--compute", "5ms",
    ),
    "overseas": ("--params", "20K", "--workers", "3", "--bandwidth", "1Mbit", "--latency", "50ms"),
}  # fmt: skip


def plan_on(network: str) -> dict[str, dict[str, Any]]:
    """What `laconic plan --json` says of all methods that it can plan, by network, method and layout."""
    options = NETWORKS[network]
    planned = [name for name in methods() if "--model" in options or not laconic.ALGORITHMS[name].needs_shapes]
    ended = command("plan", *options, *planned, "--no-measure", "--json", "-")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    rows = {f"{network} | {row['method']} | {_layout(row)}": _of_choice(row) for row in answer["choices"]}
    best = answer["recommended"]
    return rows | {
        f"{network} | plain all-reduce": _of_choice(answer["all_reduce"]),
        f"{network} | recommended": {
            "parameters": answer["parameters"],
            "method": best["method"],
            "layout": _layout(best),
            "is plain all-reduce": answer["all_reduce_wins"],
        },
    }


def _layout(row: dict[str, Any]) -> str:
    """This module's name for the layout of a row."""
    return {value: words for words, value in LAYOUTS.items()}[row["layout"]]


def _of_choice(row: dict[str, Any]) -> dict[str, Any]:
    """The figures of one method on one layout. Bandwidths come out of a search that ends at a thousandth."""
    return {
        "local steps": row["local_steps"],
        "step ns": round(row["step_s"] * 1e9, 3),
        "bytes up": row["up_bytes"],
        "bytes down": row["down_bytes"],
        "bytes are a maximum": row["bytes_are_maxima"],
        "speed-up": _digits(row["speed_up"]),
        "faster within bytes/s": [[_digits(end) for end in interval] for interval in row["faster_within_bytes_per_s"]],
        "break-even bytes/s": _digits(row["break_even_bytes_per_s"]),
    }


def _digits(number: float | None) -> float | None:
    """Six of them."""
    return None if number is None else float(f"{number:.6g}")
