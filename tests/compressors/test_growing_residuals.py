"""Compressors that let a residual grow: what is claimed to grow does grow, and who is given one is warned, once."""

import warnings

import pytest
import torch

import laconic
from laconic.algorithms.dsgd import DSGD
from laconic.algorithms.ec_sgd import ECSGD
from laconic.compressors import COMPRESSORS, QSGD, Quantized, ScaledSign, Sparsified, TopK
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.random_keys import make_key
from support import small_model

GRADIENTS = ["normal", "heavy-tailed", "nine in ten zero", "always the same"]
# The finest settings that are said to let a residual grow, each with a length that holds several blocks.
AT_THE_EDGE = [
    (Sparsified(keep=0.5), 400),
    (Quantized(bits=1, blocks="16"), 160),
    (Quantized(bits=2, scaling="l2", blocks="9"), 900),
    (QSGD(levels=1, blocks="9"), 900),
    (QSGD(levels=3, blocks="81"), 810),
    (QSGD(levels=7, blocks="441"), 1764),
]


def sampled(kind, d, generator):
    values = torch.randn(d, generator=generator, dtype=torch.float64)
    if kind == "heavy-tailed":
        return values**3
    return values * (torch.rand(d, generator=generator) < 0.1) if kind == "nine in ten zero" else values


def residuals(compressor, d, kind, rounds):
    """The root mean square of the residual after each round."""
    generator = torch.Generator().manual_seed(1)
    constant, residual = sampled(kind, d, generator), torch.zeros(d, dtype=torch.float64)
    found = []
    for t in range(rounds):
        corrected = residual + (constant if kind == "always the same" else sampled(kind, d, generator))
        residual = corrected - compressor(corrected, key=make_key(0, "worker", 0, t, "debt")).dense()
        found.append(float(residual.square().mean().sqrt()))
    return found


@pytest.mark.parametrize("kind", GRADIENTS)
@pytest.mark.parametrize(("compressor", "d"), AT_THE_EDGE, ids=lambda value: getattr(value, "name", None))
@pytest.mark.slow
def test_a_residual_that_is_reported_to_grow_does(compressor, d, kind):
    assert compressor.outgrows_residual(ModelSpec.of_sizes(d))
    found = residuals(compressor, d, kind, 300)
    usual = 1.0 if kind != "heavy-tailed" else 4.0
    assert found[-1] > 3 * usual
    assert found[-1] > (1.3 if isinstance(compressor, Sparsified) else 100) * found[75]


@pytest.mark.parametrize("name", COMPRESSORS)
def test_under_every_other_compressor_of_our_own_settings_it_stays(name):
    compressor = COMPRESSORS[name]()
    if compressor.outgrows_residual(ModelSpec.of_sizes(600)):
        assert name == "qsgd", "blocks of 512 with 7 levels"
        return
    found = residuals(compressor, 600, "normal", 300)
    assert found[-1] < 2 * max(found[75:150], default=0.0) + 1e-6


ONE_FINER = [
    Sparsified(keep=0.51),
    Quantized(bits=2),
    QSGD(levels=8),
    Quantized(bits=1, blocks="15"),
    TopK(),
    ScaledSign(),
]


def driver_of(algorithm, d=600):
    return Simulated(algorithm, spec=ModelSpec.of_sizes(d), n_workers=4, dtype=torch.float64)


@pytest.mark.parametrize("compressor", ONE_FINER, ids=lambda compressor: compressor.name)
def test_finer_settings_are_not_warned_of(compressor):
    driver_of(ECSGD(compressor=compressor, server_compressor=compressor))
    driver_of(DSGD(mixing="choco", compressor=compressor))


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        (ECSGD(compressor=Sparsified(keep=0.3)), "ec-sgd: what compressor=sparsified leaves out"),
        (ECSGD(server_compressor=Quantized(bits=1)), "ec-sgd: what server_compressor=quantized leaves out"),
        (DSGD(mixing="choco", compressor=QSGD()), "dsgd: what compressor=qsgd leaves out"),
    ],
)
def test_a_residual_that_would_grow_is_warned_of_where_the_job_is_made(algorithm, message):
    with pytest.warns(UserWarning, match=message) as caught:
        driver_of(algorithm)
    assert len(caught) == 1
    assert "scaled-sign" in str(caught[0].message)


def test_no_warning_where_there_is_no_residual_or_blocks_are_short():
    coarse = QSGD(levels=1)
    driver_of(laconic.CSGD(compressor=coarse, server_compressor=coarse))
    driver_of(DSGD(mixing="difference", compressor=coarse))
    driver_of(ECSGD(compressor=coarse, server_compressor=coarse), d=8)


def test_the_warning_points_at_the_line_that_made_the_simulation():
    net = small_model.net()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        laconic.Simulation(
            net, torch.optim.SGD(net.parameters(), lr=0.1), ECSGD(compressor=Sparsified(keep=0.2)), workers=2
        )
    assert [warning.filename for warning in caught] == [__file__]
