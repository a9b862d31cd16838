"""A model that is not in the host's memory trains in the simulator as one that is; a stand-in for a GPU holds it."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from laconic.contract import ALGORITHMS
from laconic.training import parameter_checks
from laconic.training.simulation import Simulation
from support.elsewhere import Elsewhere, Noted, stand_in_for_a_gpu

pytestmark = pytest.mark.slow


def trained(name, *, elsewhere):
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(8, 20, generator=generator), torch.randint(3, (8,), generator=generator)
    model = nn.Sequential(nn.Linear(20, 10), nn.Tanh(), nn.Linear(10, 3))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    with Noted() if elsewhere else nullcontext():
        if elsewhere:
            inputs, labels = Elsewhere(inputs), Elsewhere(labels)
            for layer in model:
                for key, parameter in list(layer.named_parameters()):
                    setattr(layer, key, nn.Parameter(Elsewhere(parameter.detach().clone())))
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        simulation = Simulation(model, inner, ALGORITHMS[name](), workers=3, lr="kept")
        for _ in range(3):
            simulation.step(lambda rank: nn.functional.cross_entropy(model(inputs * (1 + rank)), labels))
        mean = simulation.parameters_of(0).cpu()
    return mean, simulation.traffic.as_data()


@pytest.mark.filterwarnings("ignore:.*may evaluate its mini-batch twice")
@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_model_elsewhere_trains_as_one_in_the_hosts_memory(monkeypatch, name):
    here = trained(name, elsewhere=False)
    stand_in_for_a_gpu(monkeypatch)
    plain = parameter_checks._not_plain
    monkeypatch.setattr(parameter_checks, "_not_plain", lambda one: "" if isinstance(one, Elsewhere) else plain(one))
    there = trained(name, elsewhere=True)
    assert torch.allclose(there[0], here[0], rtol=1e-5, atol=1e-6)
    assert there[1] == here[1]
