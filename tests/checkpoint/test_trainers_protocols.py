"""What trainers ask of an object that they save: each door's state, and the trainers that are installed with it.

CI has none of these packages: there the plain part runs alone, and `tests/test_examples.py` skips too.
"""

import copy
import io
import pickle
from functools import partial

import pytest
import torch
from torch.distributed.checkpoint.stateful import Stateful

import laconic
import laconic.ddp
from support import ddp_models, small_model
from support.deadlines import PATIENCE_S
from support.extras import needs
from support.methods import with_test_settings
from support.ranks import run_ranks

NAMES = ["ec-sgd", "powersgd", "lag", "diloco"]
PLAIN = (type(None), bool, int, float, str, bytes, torch.Tensor)


def from_file(state):
    """A state as a trainer reads it, which trusts no file."""
    file = io.BytesIO()
    torch.save({"epoch": 3, "laconic": state}, file)
    return torch.load(io.BytesIO(file.getvalue()), map_location="cpu", weights_only=True)["laconic"]


def same(one, other):
    """Whether two states have the same values, to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def what_is_not_plain(value, place=()):
    """The places within a state of anything that files of tensors and plain values cannot hold."""
    if type(value) is dict:
        odd = [(*place, key) for key in value if type(key) not in (str, int)]
        return odd + [found for key, each in value.items() for found in what_is_not_plain(each, (*place, key))]
    if type(value) in (list, tuple):
        return [found for number, each in enumerate(value) for found in what_is_not_plain(each, (*place, number))]
    return [] if type(value) in PLAIN else [place]


def checked(held, train, model_of, again):
    """Train, save as trainers do, train on; go on from what was saved in an object made anew. Returns what failed."""
    train(held, range(3))
    state, weights = held.gather_state() if hasattr(held, "gather_state") else held.state_dict(), model_of(held)
    saved = copy.deepcopy(state)
    train(held, range(3, 5))  # a trainer may write what it was given only now
    other = again(weights)
    loaded = from_file(saved)
    answer = other.load_state_dict(loaded)
    train(other, range(3, 5))
    return {
        "is no Stateful of torch": not isinstance(held, Stateful),
        "the state changes with the training": not same(saved, state),
        "a state is changed by loading": not same(loaded, saved),
        "loading returns something": answer is not None,
        "not plain": what_is_not_plain(saved),
        "pickled": not same(pickle.loads(pickle.dumps(saved)), saved),
        "other bits": not same(model_of(held), model_of(other)),
    }


def of_ranks(rank):
    found = {}
    for name in NAMES:
        found[name, "optimizer"] = checked(*optimizer_door(name, rank))
        found[name, "attached"] = checked(*attached_door(name, rank))
    return found


def optimizer_door(name, rank):
    nets = {}

    def made(weights=None):
        net = small_model.net()
        net.load_state_dict(weights or net.state_dict())
        inner = torch.optim.SGD(net.parameters(), lr=0.05)
        opt = laconic.DistributedOptimizer(inner, with_test_settings(name), model=net, timeout_s=PATIENCE_S)
        nets[opt] = net
        return opt

    def train(opt, rounds):
        for round_ in rounds:
            opt.zero_grad()
            small_model.loss(nets[opt], rank, round_).backward()
            opt.step()

    return made(), train, lambda opt: copy.deepcopy(nets[opt].state_dict()), made


def attached_door(name, rank):
    with_handle = {}

    def made(weights=None):
        ddp = ddp_models.model()
        ddp.module.load_state_dict(weights or ddp.module.state_dict())
        optimizer = torch.optim.SGD(ddp.parameters(), lr=0.05)
        handle = laconic.ddp.attach(ddp, with_test_settings(name), optimizer=optimizer, timeout_s=PATIENCE_S)
        with_handle[handle] = ddp, optimizer
        return handle

    def train(handle, rounds):
        ddp, optimizer = with_handle[handle]
        for round_ in rounds:
            optimizer.zero_grad()
            small_model.loss(ddp, rank, round_).backward()
            optimizer.step()

    return made(), train, lambda handle: copy.deepcopy(handle.model.state_dict()), made


def simulated_door(name):
    nets = {}

    def made(weights=None):
        net = small_model.net()
        net.load_state_dict(weights or net.state_dict())
        inner = torch.optim.SGD(net.parameters(), lr=0.05)
        simulation = laconic.Simulation(net, inner, with_test_settings(name), workers=2)
        nets[simulation] = net
        return simulation

    def train(simulation, rounds):
        for round_ in rounds:
            simulation.step(partial(small_model.loss, nets[simulation], round_=round_))

    return made(), train, lambda simulation: copy.deepcopy(nets[simulation].state_dict()), made


@pytest.mark.slow
def test_what_ranks_hold_is_saved_and_loaded_as_trainers_do():
    for rank, found in enumerate(run_ranks(of_ranks, 2)):
        failed = {(rank, *door): what for door, seen in found.items() for what, wrong in seen.items() if wrong}
        assert not failed, failed


@pytest.mark.parametrize("name", NAMES)
def test_a_simulation_is_saved_and_loaded_as_trainers_do(name):
    assert not {what: wrong for what, wrong in checked(*simulated_door(name)).items() if wrong}


def test_accelerate_saves_and_loads_what_is_registered(tmp_path):
    needs("accelerate")
    from accelerate import Accelerator

    simulation, train, model_of, made = simulated_door("ec-sgd")
    accelerator = Accelerator(cpu=True)
    accelerator.register_for_checkpointing(simulation)
    train(simulation, range(3))
    weights = model_of(simulation)
    accelerator.save_state(str(tmp_path))
    train(simulation, range(3, 5))
    straight = model_of(simulation)
    other = made(weights)
    accelerator = Accelerator(cpu=True)
    accelerator.register_for_checkpointing(other)
    accelerator.load_state(str(tmp_path))
    train(other, range(3, 5))
    assert same(straight, model_of(other))


def test_fabric_saves_and_loads_what_holds_state(tmp_path):
    needs("lightning")
    from lightning.fabric import Fabric

    simulation, train, model_of, made = simulated_door("ec-sgd")
    train(simulation, range(3))
    weights = model_of(simulation)
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.save(tmp_path / "all.ckpt", {"laconic": simulation, "step": 3})
    train(simulation, range(3, 5))
    other = made(weights)
    rest = fabric.load(tmp_path / "all.ckpt", {"laconic": other})
    train(other, range(3, 5))
    assert rest == {"step": 3}
    assert same(model_of(simulation), model_of(other))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # Lightning's own, of torch's trees
def test_lightning_keeps_what_a_callback_holds(tmp_path):
    needs("lightning")
    import lightning
    from lightning.pytorch.demos.boring_classes import BoringModel

    class Holds(lightning.Callback):
        def __init__(self, simulation):
            self.simulation = simulation

        def state_dict(self):
            return self.simulation.state_dict()

        def load_state_dict(self, state_dict):
            self.simulation.load_state_dict(state_dict)

    simulation, train, model_of, made = simulated_door("ec-sgd")
    train(simulation, range(3))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    settings = {**quiet, "enable_checkpointing": False, "default_root_dir": tmp_path, "devices": 1}
    trainer = lightning.Trainer(max_steps=1, limit_val_batches=0, callbacks=[Holds(simulation)], **settings)
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "all.ckpt")
    other = made(model_of(simulation))
    trainer = lightning.Trainer(max_steps=1, limit_val_batches=0, callbacks=[Holds(other)], **settings)
    trainer.fit(BoringModel(), ckpt_path=tmp_path / "all.ckpt")
    for each in (simulation, other):
        train(each, range(3, 5))
    assert same(model_of(simulation), model_of(other))


def test_ray_carries_a_state_from_process_to_process_and_in_its_checkpoint(tmp_path):
    needs("ray.train")
    import ray
    from ray.train import Checkpoint

    simulation, train, *_ = simulated_door("ec-sgd")
    train(simulation, range(3))
    state = simulation.state_dict()
    assert same(ray.cloudpickle.loads(ray.cloudpickle.dumps(state)), state)
    torch.save(state, tmp_path / "state.pt")
    with Checkpoint.from_directory(tmp_path).as_directory() as folder:
        assert same(torch.load(f"{folder}/state.pt", weights_only=True), state)


def test_the_trainer_of_transformers_hands_callbacks_what_our_example_needs():
    needs("transformers")
    from transformers import TrainerCallback, TrainerState, TrainingArguments
    from transformers.trainer_callback import CallbackHandler, TrainerControl

    simulation, train, model_of, made = simulated_door("ec-sgd")
    seen = {}

    class Saves(TrainerCallback):
        def on_save(self, args, state, control, **_):
            seen[state.global_step] = copy.deepcopy((simulation.state_dict(), model_of(simulation)))

    handler = CallbackHandler([Saves()], simulation, None, None, None)
    train(simulation, range(3))
    handler.on_save(TrainingArguments(report_to="none", use_cpu=True), TrainerState(global_step=3), TrainerControl())
    train(simulation, range(3, 5))
    state, weights = seen[3]
    other = made(weights)
    other.load_state_dict(from_file(state))
    train(other, range(3, 5))
    assert same(model_of(simulation), model_of(other))
