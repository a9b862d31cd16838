"""The methods, with settings for the common tests and with others, and the layouts that they admit."""

from contextlib import suppress

import pytest
import torch

import laconic
from laconic import ALGORITHMS
from laconic.algorithms.compskip import CompSkip
from laconic.algorithms.csgd import CSGD
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.sasg import SASG
from laconic.algorithms.sparse import SparseSGD
from laconic.algorithms.ssgd_mv import SSGDMV
from laconic.algorithms.ssgd_topk import SSGDTopK
from laconic.compressors import QSGD, Clipped, DenseValues, Natural, Quantized, Sign, Sparsified, Ternary, TopK
from laconic.contract import ModelSpec
from laconic.policies.skip_policies import SlowLink
from laconic.protocol.layout import LAYOUTS, choose_layout
from support import small_model
from support.inputs import each_over

# The methods whose workers step together, in one process or more.
IN_STEP = sorted(name for name, cls in ALGORITHMS.items() if cls.mode != "arrivals")


def with_test_settings(name: str) -> laconic.Algorithm:
    """A method with its settings for the common tests."""
    cls = ALGORITHMS[name]
    return cls(**cls.test_settings)


def layouts_of(algorithm: laconic.Algorithm, n_nodes: int) -> list[str]:
    """The layouts that a method admits."""
    admitted = []
    for layout in LAYOUTS[1:]:
        with suppress(ValueError):
            choose_layout(layout, algorithm, ModelSpec.of_sizes(small_model.N_PARAMETERS), n_nodes=n_nodes)
            admitted.append(layout)
    return admitted


def in_step_with_layouts(n_nodes: int) -> list[tuple[str, str]]:
    """Every method of IN_STEP with every layout that it admits."""
    return [(name, layout) for name in IN_STEP for layout in layouts_of(with_test_settings(name), n_nodes)]


BY_LAYER = [(name, "sharded") for name in ("ec-sgd", "dist-ef")]
"""Methods whose vector several servers may share, but for a model of one tensor as `layouts_of` asks of."""


def use_methods(names: list[str]) -> None:
    """A few rounds of each, with frames as processes send them."""
    torch.set_num_threads(1)
    for name in names:
        net, algorithm = small_model.net(), with_test_settings(name)
        inner = torch.optim.SGD(net.parameters(), lr=algorithm.test_lr)
        layout = "rank0" if algorithm.mode == "rounds" else "auto"
        simulation = laconic.Simulation(net, inner, algorithm, workers=2, layout=layout, frames="encoded")
        for round_ in range(3):
            simulation.step(lambda rank, net=net, round_=round_: small_model.loss(net, rank, round_))


# Further settings, for the methods that have a server.
LAYERS = (20, 1, 16)  # of 37
SAMPLES = {
    **{name: with_test_settings(name) for name, cls in sorted(ALGORITHMS.items()) if cls.mode == "rounds"},
    "ec-sgd, signs": ECSGD(compressor=Sign(keep=0.4), server_compressor=Sign()),
    "ec-sgd, bfloat16": ECSGD(
        compressor=DenseValues(value_type="bfloat16"), server_compressor=DenseValues(value_type="bfloat16")
    ),
    "ec-sgd, clipped": ECSGD(compressor=Clipped(mantissa_bits=2), server_compressor=Clipped()),
    "csgd, separable": CSGD(compressor=Natural(), server_compressor=Sparsified()),
    "csgd, partitions": CSGD(partitions=True, compressor=Quantized(bits=4)),
    "csgd, levels": CSGD(compressor=Ternary(), server_compressor=QSGD(blocks="8")),
    "compskip, all kept": CompSkip(c=1.0, server_c=1.0, keep=1.0, server_keep=1.0, decay=0.8),
    "sparse, list": SparseSGD(density=0.5, blocks="vector", code="list"),
    "sasg, skipping": SASG(density=0.25, alpha=0.2, warm_up_rounds=1, max_delay=4),
    "ssgd-topk, 3 bits": SSGDTopK(density=0.25, bits=3),
    "ssgd-mv, 4 bits": SSGDMV(density=0.25, bits=4, dense_rounds=2),
    "ssgd-mv-ad, density that falls": laconic.SSGDMVAD(
        density=0.1, swap_density=0.1, dense_rounds=3, warm_up_density=0.7
    ),
}

CASES = [(name, layout) for name, sample in SAMPLES.items() for layout in layouts_of(sample, 4)]
each_sample = pytest.mark.parametrize("name", SAMPLES)
each_case = each_over(("name", "layout"), CASES)  # an item for each method

# All methods, so that each memory that a method may write is written by one of them.
_HALF = TopK(density=0.5)
_LAZY = {"warm_up_rounds": 1, "max_delay": 3}
_FURTHER = {
    "compskip, slow links": laconic.CompSkip(c=4.0, server_c=4.0, skip=SlowLink(), server_skip=SlowLink()),
    "lag, skipping": laconic.LAG(alpha=0.5, **_LAZY),
    **{f"lasg, {rule}": laconic.LASG(rule=rule, alpha=0.05, **_LAZY) for rule in ("wk1", "wk2", "ps", "pse")},
    "sasg, corrected": laconic.SASG(density=0.25, skip_error="corrected", **_LAZY),
    "lasg, alpha that follows": laconic.LASG(alpha=0.05, alpha_of="delayed", alpha_delay=2, **_LAZY),
    "dist-ef, weight decay": laconic.DistEFBlockwise(weight_decay=0.01),
    "ssgd-mv, residual at decay": laconic.SSGDMV(density=0.25, residual_at_decay=0.1),
    "dsgd, difference": laconic.DSGD(mixing="difference"),
    "dsgd, choco": laconic.DSGD(mixing="choco", compressor=_HALF, consensus_step_size=0.4),
}
WITH_ALL_MEMORIES = {name: with_test_settings(name) for name in sorted(laconic.ALGORITHMS)} | _FURTHER
