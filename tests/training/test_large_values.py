"""Nothing that is kept or applied is ever inf or NaN: a round that would overflow is aborted."""

import warnings

import pytest
import torch

import laconic
from laconic.compressors import COMPRESSORS
from support.inputs import over_inputs
from support.methods import SAMPLES, WITH_ALL_MEMORIES, layouts_of
from support.slopes import Slopes, changed, not_finite, simulated, slope_with, state_of

LARGEST = torch.finfo(torch.float32).max
MAGNITUDES = (1e38, -LARGEST, 3e38, -3e38, LARGEST)
BAD = {(1, 2): 7, (1, 3): 7, (0, 3): 7, (0, 4): 30}  # what two ranks send at once, and what is sent on a residual

COMPRESSED = {
    f"{method}, {name}": make(kind(**kind.test_settings))
    for name, kind in COMPRESSORS.items()
    for method, make in {
        "ec-sgd": lambda c: laconic.ECSGD(compressor=c, server_compressor=c),
        "csgd": lambda c: laconic.CSGD(compressor=c, server_compressor=c),
        "csgd-ring": lambda c: laconic.CSGDRing(compressor=c),
        "dsgd": lambda c: laconic.DSGD(mixing="choco", compressor=c, consensus_step_size=0.4),
        "asgd": lambda c: laconic.ASGD(compressor=c),
    }.items()
}  # fmt: skip
ALGORITHMS = {**SAMPLES, **WITH_ALL_MEMORIES, **COMPRESSED}


def alike(rank: int, value: float) -> torch.Tensor:
    """A slope of almost the same value everywhere, another one for each rank."""
    return torch.full((43,), value * (1 - rank / 16))


def steps(model: Slopes, simulation: laconic.Simulation, bad: float) -> list[bool]:
    """Whether each of 7 rounds was aborted, some with a bad value. All that is kept and applied stays finite."""
    aborted = []
    for step in range(7):
        before, n_aborted = state_of(simulation), simulation.traffic.aborted_rounds
        simulation.step(lambda rank, step=step: model.loss(slope_with(rank, step, bad, BAD)))
        after = state_of(simulation)
        assert not not_finite(after), f"{bad:g}, step {step}: {not_finite(after)}"
        aborted.append(simulation.traffic.aborted_rounds > n_aborted)
        if aborted[-1] and not simulation.algorithm.is_asynchronous:
            assert not changed(before, after), f"{bad:g}, step {step}: {changed(before, after)}"
    return aborted


def layouts_by_day(name: str) -> list[str]:
    """Every layout; with each of the compressors, the next one that the method admits."""
    layouts = layouts_of(ALGORITHMS[name], 3)
    return [layouts[[*ALGORITHMS].index(name) % len(layouts)]] if name in COMPRESSED else layouts


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_memory_and_no_parameter_becomes_inf(name):
    none_becomes_inf(name, layouts_by_day(name))


@pytest.mark.nightly
@pytest.mark.parametrize("name", COMPRESSED)
def test_no_memory_and_no_parameter_becomes_inf_with_any_compressor_in_any_layout(name):
    none_becomes_inf(name, layouts_of(ALGORITHMS[name], 3))


def none_becomes_inf(name: str, layouts: list[str]) -> None:
    algorithm = ALGORITHMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of residuals that grow: here they shall
        for number, layout in enumerate(layouts):
            workers = 3 - (layout == "dedicated")
            model, simulation = simulated(algorithm, lr=0.1, workers=workers, layout=layout)
            steps(model, simulation, MAGNITUDES[(len(name) + number) % len(MAGNITUDES)])
            assert simulation.traffic.rounds == 7


@over_inputs("lr", [1e-30, 1e-3, 1e3])
@over_inputs(
    "name", ["sparse", "sasg", "lag", "lasg", "dist-ef", "ec-sgd, scaled-sign", "diloco", "sgd-server", "asgd"]
)
def test_a_quotient_or_product_with_the_learning_rate_that_overflows_aborts_the_round(name, lr):
    model, simulation = simulated(ALGORITHMS[name], lr=lr)
    steps(model, simulation, 3e35)


@pytest.mark.slow
@over_inputs("name", sorted(WITH_ALL_MEMORIES))
def test_in_float64_too(name):
    model, simulation = simulated(WITH_ALL_MEMORIES[name], lr=0.1, dtype=torch.float64)
    steps(model, simulation, torch.finfo(torch.float64).max)


@pytest.mark.parametrize("name", ["ec-sgd", "sparse", "sasg, corrected", "signsgd-mv", "dsgd", "powersgd", "compskip"])
def test_training_goes_on_after_large_values(name):
    model, simulation = simulated(WITH_ALL_MEMORIES[name], lr=0.1)
    steps(model, simulation, 3e38)
    done = simulation.traffic.aborted_rounds
    for step in range(7, 40):
        simulation.step(lambda rank, step=step: model.loss(slope_with(rank, step, 0.0, {})))
    assert simulation.traffic.aborted_rounds == done


@over_inputs("name", ["sgd", "ec-sgd", "sparse", "dsgd", "signsgd-mv", "diloco", "ssgd-mv", "asgd"])
def test_a_large_value_that_overflows_nothing_aborts_nothing(name):
    model, simulation = simulated(WITH_ALL_MEMORIES[name], lr=0.1)
    assert not any(steps(model, simulation, 1e30))


@pytest.mark.parametrize("inner", [torch.optim.SGD, torch.optim.Adam], ids=["sgd", "adam"])
@pytest.mark.parametrize("layout", ["rank0", "dedicated"])
def test_a_server_held_model_never_keeps_the_inf_of_an_aborted_round(layout, inner):
    model, simulation = simulated("sgd-server", lr=1e5, layout=layout, inner=inner)
    bad = 1e34 if inner is torch.optim.SGD else 1e30  # of the second, the square overflows
    aborted = []
    for step in range(12):
        before, done = state_of(simulation), simulation.traffic.aborted_rounds
        simulation.step(lambda rank, step=step: model.loss(alike(rank, bad if step == 3 else 1e-6)))
        aborted.append(simulation.traffic.aborted_rounds - done)
        assert not not_finite(state_of(simulation))
        assert not aborted[-1] or not changed(before, state_of(simulation))
    assert aborted == [0, 0, 0, 1, *[0] * 8]


def test_an_asynchronous_server_s_model_does_not_either_and_counts_the_gradient_as_aborted():
    model, simulation = simulated("asgd", lr=1e5)
    for step in range(6):
        simulation.step(lambda rank, step=step: model.loss(alike(rank, 1e35 if (rank, step) == (1, 3) else 1e-6)))
        assert not not_finite(state_of(simulation))
    assert simulation.traffic.updates["aborted"] == 1


def test_a_local_step_that_overflows_leaves_no_inf_in_the_inner_optimizer():
    model = Slopes()
    inner = torch.optim.SGD(model.parameters(), lr=1e5, momentum=0.9)
    simulation = laconic.Simulation(model, inner, laconic.DiLoCo(), workers=2, local_steps=2)
    for step in range(8):
        simulation.step(lambda rank, step=step: model.loss(alike(rank, 1e35 if (rank, step) == (1, 3) else 1e-6)))
    assert simulation.traffic.aborted_rounds == 1
    assert not not_finite(state_of(simulation))


@pytest.mark.parametrize(
    ("name", "slope"),
    [("sasg", 6e4), ("sgd-model", -6e4), ("ec-sgd, sharded", 6e4), ("diloco", -6e4)],
)
def test_an_update_that_overflows_the_parameters_own_type_aborts_the_round(name, slope):
    algorithm = {
        "sasg": laconic.SASG(density=0.5, lr_convention="sum"), "sgd-model": laconic.ModelAveraging(),
        "ec-sgd, sharded": laconic.ECSGD(
            compressor=laconic.compressors.Identity(), server_compressor=laconic.compressors.Sparsified(keep=0.6)
        ),
        "diloco": laconic.DiLoCo(outer_lr=1.0, outer_momentum=0.0),
    }[name]  # fmt: skip
    model, simulation = simulated(algorithm, lr=1.0, dtype=torch.float16)
    for step in range(4):
        before, done = state_of(simulation), simulation.traffic.aborted_rounds
        simulation.step(lambda rank, step=step: model.loss(alike(rank, slope if step in (1, 2) else 1e-3)))
        after = state_of(simulation)
        assert not not_finite(after)
        assert bool(torch.isfinite(torch.cat([each.grad.reshape(-1) for each in model.parameters()])).all())
        assert simulation.traffic.aborted_rounds == done or not changed(before, after)
    assert simulation.traffic.aborted_rounds > 0


def test_ten_aborted_rounds_in_a_row_warn_and_name_the_cause():
    model, simulation = simulated("ec-sgd", lr=0.1)

    def step(step: int, bad: float) -> None:
        simulation.step(lambda rank: model.loss(slope_with(rank, step, bad, {(1, step): 7})))

    for number in range(9):
        step(number, torch.nan)
    step(9, 0.0)  # they start again
    for number in range(10, 19):
        step(number, torch.nan)
    with pytest.warns(laconic.LaconicWarning, match="rounds 10 to 19: worker 1 met inf or NaN"):
        step(19, torch.nan)
    step(20, torch.nan)  # once


def test_the_warning_names_a_parameter_that_is_inf_itself():
    model, simulation = simulated("sgd", lr=0.1)
    with torch.no_grad():
        model.tensors[2].fill_(torch.inf)
    for _ in range(9):
        simulation.step(lambda rank: model.loss(alike(rank, torch.nan)))
    with pytest.warns(laconic.LaconicWarning, match=r"parameter 'tensors\.2' is inf or NaN itself"):
        simulation.step(lambda rank: model.loss(alike(rank, torch.nan)))
