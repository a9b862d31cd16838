"""Every algorithm that has a server, with settings for the common tests, and some with other settings."""

import pytest

from laconic import ALGORITHMS
from laconic.algorithms.compskip import CompSkip
from laconic.algorithms.csgd import CSGD
from laconic.algorithms.ec_sgd import ECSGD
from laconic.algorithms.sasg import SASG
from laconic.algorithms.sparse import SparseSGD
from laconic.algorithms.ssgd_mv import SSGDMV
from laconic.algorithms.ssgd_topk import SSGDTopK
from laconic.compressors import QSGD, Clipped, DenseValues, Natural, Sign, Sparsified, Ternary
from small import layouts_of

LAYERS = (20, 1, 16)  # of 37
SAMPLES = {name: cls(**cls.toy) for name, cls in sorted(ALGORITHMS.items()) if cls.schedule == "rounds"} | {
    "ec-sgd, signs": ECSGD(compressor=Sign(keep=0.4), server_compressor=Sign()),
    "ec-sgd, bfloat16": ECSGD(
        compressor=DenseValues(value_type="bfloat16"), server_compressor=DenseValues(value_type="bfloat16")
    ),
    "ec-sgd, clipped": ECSGD(compressor=Clipped(mantissa_bits=2), server_compressor=Clipped()),
    "csgd, separable": CSGD(compressor=Natural(), server_compressor=Sparsified()),
    "csgd, levels": CSGD(compressor=Ternary(), server_compressor=QSGD(blocks="8")),
    "compskip, all kept": CompSkip(c=1.0, server_c=1.0, keep=1.0, server_keep=1.0, decay=0.8),
    "sparse, list": SparseSGD(density=0.5, blocks="vector", code="list"),
    "sasg, skipping": SASG(density=0.25, alpha=0.2, always_first=1, max_delay=4),
    "ssgd-topk, 3 bits": SSGDTopK(density=0.25, bits=3),
    "ssgd-mv, 4 bits": SSGDMV(density=0.25, bits=4, dense_rounds=2),
}


CASES = [(name, server) for name, sample in SAMPLES.items() for server in layouts_of(sample, 4)]
each_sample = pytest.mark.parametrize("name", SAMPLES)
each_case = pytest.mark.parametrize(("name", "server"), CASES)
