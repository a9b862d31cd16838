"""A checkpoint loaded by another door than the one that saved it: the optimizer keeps its state and its options."""

import copy

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

import laconic
from support import small_model

pytestmark = pytest.mark.usefixtures("group_of_one")
DOORS = ("optimizer", "attached", "attached with its optimizer", "simulation")


HANDLES: list[laconic.ddp.Handle] = []  # of a test


@pytest.fixture(autouse=True)
def detached():
    """A handle watches the steps of all optimizers, which other tests would see."""
    yield
    while HANDLES:
        HANDLES.pop().detach()


class Trained:
    """The small model behind a door, and the optimizer that the user has made."""

    def __init__(self, door: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.net = small_model.net()
        self.inner = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)
        self._call, self._steps = self.net, self.inner
        method = laconic.ECSGD()
        if door == "optimizer":
            self.job = self._steps = laconic.DistributedOptimizer(self.inner, method, model=self.net)
        elif door == "simulation":
            self.job = laconic.Simulation(self.net, self.inner, method, workers=1)
        else:
            self._call = DistributedDataParallel(self.net)
            given = {} if door == "attached" else {"optimizer": self.inner}
            self.job = laconic.ddp.attach(self._call, method, **given)
            HANDLES.append(self.job)
        self.objects = {"optimizer": self.inner} if door == "attached" else {}

    def train(self, *steps: int) -> None:
        for step in steps:
            if isinstance(self.job, laconic.Simulation):
                self.job.step(lambda rank, step=step: small_model.loss(self.net, rank, step))
                continue
            self._steps.zero_grad()
            small_model.loss(self._call, 0, step).backward()
            self._steps.step()

    def options(self) -> dict:
        return {name: value for name, value in self.inner.param_groups[0].items() if name != "params"}


@pytest.mark.parametrize("loads", DOORS)
@pytest.mark.parametrize("saves", DOORS)
def test_training_goes_on_with_the_users_own_options_whichever_door_has_saved(saves, loads, tmp_path):
    straight = Trained(saves, 0)
    straight.train(0, 1, 2)
    laconic.checkpoint.save(tmp_path, straight.job, step=3, objects=straight.objects)
    other = Trained(loads, 1)
    options = other.options()
    # A handle without the optimizer has nothing to put into it: a script gives the optimizer as an object of its own.
    objects = {"optimizer": other.inner} if straight.objects else {}
    before = copy.deepcopy((other.net.state_dict(), other.inner.state_dict()))
    if loads == "attached" and saves != "attached":
        with pytest.raises(laconic.CheckpointError, match="the state of an optimizer, and the handle has none"):
            laconic.checkpoint.load(tmp_path, other.job, objects=objects)
        assert str((other.net.state_dict(), other.inner.state_dict())) == str(before)
        return
    laconic.checkpoint.load(tmp_path, other.job, objects=objects)
    straight.train(3, 4)
    other.train(3, 4)
    assert other.options() == options
    assert torch.equal(small_model.values(other.net), small_model.values(straight.net))


def test_a_handle_takes_the_methods_part_of_an_optimizers_state():
    saved = Trained("optimizer", 0)
    saved.train(0, 1, 2)
    state = saved.job.state_dict()
    other = Trained("attached", 0)
    other.job.load_state_dict(state)
    assert other.job.traffic.rounds == 3
    assert str(other.job.state_dict()["driver"]["worker"]) == str(state["laconic"]["driver"]["worker"])
    with pytest.raises(ValueError, match=r"a handle's state goes in beside one: \{\*\*inner.state_dict\(\), 'laconic'"):
        saved.job.load_state_dict(other.job.state_dict())
    saved.job.load_state_dict({**saved.inner.state_dict(), "laconic": other.job.state_dict()})


def test_a_handle_refuses_in_words_what_is_no_state():
    attached = Trained("attached", 0)
    for wrong in (None, {}, [], 3, attached.net.state_dict(), {"state": {}, "param_groups": []}):
        with pytest.raises(ValueError, match=r"^state_dict: (no )?'laconic'"):
            attached.job.load_state_dict(wrong)
