"""What ranks do in the tests of checkpoints: save, load on other ranks, and train on."""

import io
import logging

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)

import laconic
from support import methods, optimizers, small_model
from support.ranks import announce, wait_for

N = 3
SAVED = 4  # rounds before a save
NAMES = ("sgd", "signsgd-mv", "compskip", "ssgd-mv", "ssgd-mv-ad", "ec-sgd", "sasg", "sgd-server", "dist-ef", "dsgd")
STATEMENTS: list[str] = []


class Noted(logging.Handler):
    """Keeps what this rank was told."""

    def emit(self, record):
        STATEMENTS.append(record.getMessage())


def made(net, name, group=None, layout="auto", adam=False, **options):
    algorithm = methods.with_test_settings(name)
    inner = (torch.optim.Adam if adam else torch.optim.SGD)(net.parameters(), lr=algorithm.test_lr)
    return optimizers.wrapped(net, name, layout, inner, group=group, **options)


def train(opt, net, rank, rounds):
    for round_ in rounds:
        optimizers.one_step(opt, net, rank, round_)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def from_rank(root, *states):
    """What rank `root` has saved, on every rank; the others pass what they like."""
    held = [states]
    dist.broadcast_object_list(held, root)
    return through_a_file(held[0])


def residuals(opt):
    worker = opt.driver.worker
    memory = {} if worker is None else worker.me.memory.saved()
    return memory.get("residual", torch.zeros(small_model.N_PARAMETERS))


def sum_over_ranks(vector, group=None):
    total = vector.clone()
    dist.all_reduce(total, group=group)
    return total


def apart(net, group=None, n=N):
    """How far the ranks' parameters are from each other."""
    gathered = [torch.zeros(small_model.N_PARAMETERS) for _ in range(n)]
    dist.all_gather(gathered, small_model.values(net), group=group)
    return max(float((other - gathered[0]).abs().max()) for other in gathered)


def rank_0_saves(rank, name):
    """Rank 0 alone saves, the others wait; all load, and go on. What each was told, how far they are apart."""
    net = small_model.net()
    opt = made(net, name)
    train(opt, net, rank, range(SAVED))
    STATEMENTS.clear()
    states = ()
    if rank == 0:  # nobody helps
        states = (net.state_dict(), opt.state_dict())
        announce(f"saved {name}")
    else:
        wait_for(f"saved {name}")
    model_state, state = from_rank(0, *states)
    on_saving, net = list(STATEMENTS), small_model.net()
    opt = made(net, name)
    net.load_state_dict(model_state)
    STATEMENTS.clear()
    opt.load_state_dict(state)
    on_loading, begins_at = list(STATEMENTS), opt.traffic.rounds
    train(opt, net, rank, range(SAVED, SAVED + 2))
    return {"saving": on_saving, "loading": on_loading, "round": begins_at, "apart": apart(net)}


def gathered(rank, name, **options):
    """Parameters of a straight run, and of one that all ranks continued from the state that was gathered on rank 0."""
    net = small_model.net()
    opt = made(net, name, **options)
    train(opt, net, rank, range(2 * SAVED))
    straight, net = small_model.values(net), small_model.net()
    opt = made(net, name, **options)
    train(opt, net, rank, range(SAVED))
    STATEMENTS.clear()
    opt.gather_state(rank=0)
    own_model = small_model.values(net)
    (state,) = from_rank(0, opt.state_dict())
    silent, net = not STATEMENTS, small_model.net()
    opt = made(net, name, **options)
    opt.flat.set_values(own_model)
    opt.load_state_dict(state)
    train(opt, net, rank, range(SAVED, 2 * SAVED))
    return straight, small_model.values(net), silent


def on_fewer(rank, name, n, group):
    """The sum of residuals before and after a whole state of three ranks was loaded by the first n."""
    net = small_model.net()
    opt = made(net, name)
    train(opt, net, rank, range(SAVED))
    before = sum_over_ranks(residuals(opt))
    state, model_state = through_a_file((opt.gather_state(), net.state_dict()))
    if rank >= n:
        return None
    net = small_model.net()
    opt = made(net, name, group)
    net.load_state_dict(model_state)
    opt.load_state_dict(state)
    after = sum_over_ranks(residuals(opt), group)
    train(opt, net, rank, range(SAVED, SAVED + 2))
    return {"before": before, "after": after, "apart": apart(net, group, n), "round": opt.traffic.rounds}


def on_more(rank, pair):
    """Two ranks save a file each; three load, the last one the second file."""
    states = [None, None]
    if rank < 2:
        net = small_model.net()
        opt = made(net, "ec-sgd", pair)
        train(opt, net, rank, range(SAVED))
        states[rank] = through_a_file(opt.state_dict())
    states = [from_rank(root, states[root])[0] for root in range(2)]
    before = [state["laconic"]["driver"]["worker"]["memory"]["residual"]["0.weight"][0] for state in states]
    net = small_model.net()
    opt = made(net, "ec-sgd")
    opt.load_state_dict(states[min(rank, 1)])
    after = residuals(opt)[: before[0].numel()]
    train(opt, net, rank, range(2))
    return torch.equal(after, before[rank]) if rank < 2 else not after.any(), apart(net)


def older_file_on_one_rank(rank, name):
    """What each rank is told where rank 1 has a file of one round before, and whether it changed anything."""
    net = small_model.net()
    opt = made(net, name, adam=name == "sgd")
    train(opt, net, rank, range(2))
    older = through_a_file(opt.state_dict())
    train(opt, net, rank, range(2, 3))
    newer = through_a_file(opt.state_dict())
    net = small_model.net()
    opt = made(net, name, adam=name == "sgd")
    train(opt, net, rank, range(1))
    before = optimizers.state_of(opt), opt.traffic.rounds
    try:
        opt.load_state_dict(older if rank == 1 else newer)
        message = "nothing"
    except ValueError as error:
        message = str(error)
    torch.testing.assert_close(before[0], optimizers.state_of(opt), rtol=0, atol=0)
    train(opt, net, rank, range(1, 2))
    return message, before[1] == opt.traffic.rounds - 1


def with_torchs_functions(rank, name, **options):
    """Rounds of a new optimizer that torch has looked at, the rounds and the residuals after a load."""
    net = small_model.net()
    opt = made(net, name, adam=True)
    train(opt, net, rank, range(SAVED))
    if options.get("full_state_dict"):
        opt.gather_state()
    before = residuals(opt)
    states = through_a_file(get_state_dict(net, opt, options=StateDictOptions(**options)))
    net = small_model.net()
    opt = made(net, name, adam=True)
    get_state_dict(net, opt, options=StateDictOptions(**options))
    hidden = opt.traffic.rounds
    set_state_dict(
        net, opt, model_state_dict=states[0], optim_state_dict=states[1], options=StateDictOptions(**options)
    )
    after, rounds = residuals(opt), opt.traffic.rounds
    train(opt, net, rank, range(SAVED, SAVED + 2))
    return {"hidden": hidden, "rounds": rounds, "came back": torch.equal(before, after), "apart": apart(net)}


def loaded_before_wrapping(rank, name):
    net = small_model.net()
    opt = made(net, name)
    train(opt, net, rank, range(SAVED))
    before, state = residuals(opt), through_a_file(opt.state_dict())
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    inner.load_state_dict(state)
    opt = optimizers.wrapped(net, name, "auto", inner)
    is_clean = "laconic" not in inner.param_groups[0]
    after, rounds = residuals(opt), opt.traffic.rounds
    train(opt, net, rank, range(SAVED, SAVED + 1))
    return torch.equal(before, after), rounds, is_clean


def weights_on_one_rank(rank, name):
    net = small_model.net()
    opt = made(net, name)
    if rank == 1:
        net.load_state_dict({key: value + 1 for key, value in net.state_dict().items()})
    try:
        train(opt, net, rank, range(1))
    except laconic.ReplicaError as error:
        return str(error)
    return "nothing"


def weights_on_all_ranks(rank, name, layout):
    """Parameters after two steps from weights loaded after wrapping, and from those loaded before."""
    ends = []
    for is_late in (False, True):
        net = small_model.net()
        weights = {key: value + 1 for key, value in net.state_dict().items()}
        if not is_late:
            net.load_state_dict(weights)
        opt = made(net, name, layout=layout)
        if is_late:
            net.load_state_dict(weights)
        train(opt, net, rank, range(2))
        ends.append(small_model.values(net))
    return ends


def served_alone(rank):
    """A server that only serves shows its model, and a state that rank 0 alone saved goes on with `asgd`."""
    net = small_model.net()
    opt = made(net, "asgd")
    train(opt, net, rank, range(SAVED))
    dist.barrier()
    shows = not opt.serves_only or torch.equal(small_model.values(net), opt.server_model.flat.values())
    model_state, state = from_rank(0, net.state_dict(), opt.state_dict())
    net = small_model.net()
    opt = made(net, "asgd")
    opt.load_state_dict(state)
    net.load_state_dict(model_state)
    train(opt, net, rank, range(2))
    return shows, opt.traffic.rounds, bool(small_model.values(net).isfinite().all())


def prefixed(rank):
    """The state of a compiled model in a wrapper, loaded by the model itself."""
    inside = small_model.net()
    outside = torch.nn.Module()
    outside.module = torch.nn.Module()
    outside.module._orig_mod = inside
    opt = optimizers.wrapped(outside, "ec-sgd", "auto", torch.optim.SGD(inside.parameters(), lr=0.1))
    train(opt, inside, rank, range(SAVED))
    before, state = residuals(opt), through_a_file(opt.state_dict())
    net = small_model.net()
    opt = made(net, "ec-sgd")
    opt.load_state_dict(state)
    return next(iter(state["laconic"]["parameters"])), torch.equal(before, residuals(opt))


def from_a_simulation(rank):
    """Residuals that ranks load from a simulation, and a simulation from ranks, as sums of squares."""
    net = small_model.net()
    simulation = laconic.Simulation(
        net, torch.optim.SGD(net.parameters(), lr=0.1), laconic.ECSGD(), workers=N, seed=5, layout="rank0"
    )
    for round_ in range(SAVED):
        simulation.step(lambda worker, round_=round_: small_model.loss(net, worker, round_))
    expected = simulation.driver.workers[rank].me.memory.saved()["residual"]
    opt = made(net, "ec-sgd", layout="rank0")
    opt.load_state_dict(through_a_file(simulation.state_dict()))
    came = torch.equal(expected, residuals(opt)), opt.traffic.rounds
    train(opt, net, rank, range(SAVED, SAVED + 2))
    own, state = residuals(opt), through_a_file(opt.gather_state())
    back = laconic.Simulation(
        net, torch.optim.SGD(net.parameters(), lr=0.1), laconic.ECSGD(), workers=N, seed=5, layout="rank0"
    )
    back.load_state_dict(state)
    went = torch.equal(own, back.driver.workers[rank].me.memory.saved()["residual"]), back.traffic.rounds
    for round_ in range(2):
        back.step(lambda worker, round_=round_: small_model.loss(net, worker, round_))
    return came, went


LOCAL = {"local_steps": 3, "adam": True}


def act(rank):
    logging.getLogger("laconic").addHandler(Noted())
    pair, alone = dist.new_group([0, 1]), dist.new_group([0])
    torchs = {"own": {}, "whole": {"full_state_dict": True}}
    return {
        "rank 0": {name: rank_0_saves(rank, name) for name in NAMES},
        "gathered": {name: gathered(rank, name) for name in (*NAMES, "asgd") if name != "asgd"}
        | {"local steps": gathered(rank, "ssgd-mv", **LOCAL), "sharded": gathered(rank, "ec-sgd", layout="rank0")},
        "more": on_more(rank, pair),
        "fewer": {n: on_fewer(rank, "ec-sgd", n, group) for n, group in ((2, pair), (1, alone))},
        "older": {name: older_file_on_one_rank(rank, name) for name in ("sgd", "ec-sgd")},
        "torch": {(name, how): with_torchs_functions(rank, name, **torchs[how])
                  for name in ("sgd", "ec-sgd", "sasg") for how in (torchs if name != "sasg" else ("own",))},
        "before wrapping": {name: loaded_before_wrapping(rank, name) for name in ("sgd", "ec-sgd")},
        "on all": {each: weights_on_all_ranks(rank, *each) for each in
                   (("sgd", "auto"), ("sgd-server", "rank0"), ("sgd-server", "dedicated"), ("asgd", "dedicated"))},
        "asgd": served_alone(rank), "prefixed": prefixed(rank), "simulation": from_a_simulation(rank),
        "one": {name: weights_on_one_rank(rank, name) for name in ("sgd", "sgd-server")},
    }  # fmt: skip
