"""`DistributedOptimizer` in a group of one: the training loop does not change."""

import copy
import weakref

import pytest
import torch

import laconic
from support import methods, optimizers, small_model
from support.inputs import over_inputs

pytestmark = pytest.mark.usefixtures("group_of_one")


@pytest.mark.parametrize("inner", optimizers.INNER)
@pytest.mark.parametrize("layout", ["allreduce", "rank0"])
@over_inputs("set_to_none", (True, False))
def test_one_rank_of_sgd_is_the_inner_optimizer_itself(layout, inner, set_to_none):
    net, twin = small_model.net(), small_model.net()
    opt = optimizers.wrapped(net, "sgd", layout, optimizers.INNER[inner](net.parameters()))
    reference = optimizers.INNER[inner](twin.parameters())
    for round_ in range(6):
        for optimizer, model in ((opt, net), (reference, twin)):
            optimizer.zero_grad(set_to_none=set_to_none)
            small_model.loss(model, 0, round_).backward()
            optimizer.step()
    assert torch.equal(small_model.values(net), small_model.values(twin))


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.IN_STEP)
def test_two_backward_calls_before_a_step_are_one_on_the_joint_batch(name):
    ends = []
    for joint in (True, False):
        net = small_model.net().double()
        opt = optimizers.wrapped(net, name, "auto")
        for round_ in range(4):

            def closure(net=net, opt=opt, joint=joint, round_=round_):
                opt.zero_grad()
                losses = [small_model.loss(net, rank, round_) / 2 for rank in (0, 1)]
                for loss in [sum(losses)] if joint else losses:
                    loss.backward()
                return sum(losses).detach()

            if opt.algorithm.second_gradient:
                opt.step(closure)
            else:
                closure()
                opt.step()
        ends.append(small_model.values(net))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["compskip", "sgd-model", "sgd-server"])
def test_a_step_with_a_closure_returns_its_loss_and_does_what_a_step_without_does(name):
    net, twin = small_model.net(), small_model.net()
    opt, other = optimizers.wrapped(net, name, "auto"), optimizers.wrapped(twin, name, "auto")
    for round_ in range(4):

        def closure(round_=round_):
            opt.zero_grad()
            loss = small_model.loss(net, 0, round_)
            loss.backward()
            return loss

        expected = small_model.loss(net, 0, round_)
        assert torch.equal(opt.step(closure), expected)
        optimizers.one_step(other, twin, 0, round_)
    assert torch.equal(small_model.values(net), small_model.values(twin))


def test_a_step_leaves_the_direction_in_the_gradients_and_zero_grad_clears_them():
    net = small_model.net()
    opt = optimizers.wrapped(net, "signsgd-mv", "auto")
    small_model.loss(net, 0, 0).backward()
    signs = torch.cat([(p.grad >= 0).reshape(-1) for p in net.parameters()])
    opt.step()
    assert torch.equal(torch.cat([p.grad.reshape(-1) for p in net.parameters()]), torch.where(signs, 1.0, -1.0))
    opt.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())
    opt.zero_grad()
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("name", ["sgd", "sgd-server", "sgd-model", "dist-ef"])
@over_inputs("attached_to", ("wrapper", "inner"))
def test_a_scheduler_on_either_optimizer_sets_the_learning_rate_of_both_without_a_warning(name, attached_to):
    ends = []
    for by_hand in (False, True):
        net = small_model.net()
        opt = optimizers.wrapped(net, name, "auto", torch.optim.SGD(net.parameters(), lr=0.1))
        scheduler = torch.optim.lr_scheduler.StepLR(opt if attached_to == "wrapper" else opt.inner, step_size=2)
        for round_ in range(5):
            if by_hand:
                opt.inner.param_groups[0]["lr"] = 0.1 * 0.1 ** (round_ // 2)
            optimizers.one_step(opt, net, 0, round_)
            if not by_hand:
                scheduler.step()
        ends.append(small_model.values(net))
    torch.testing.assert_close(*ends)


def test_a_state_loaded_into_the_inner_optimizer_leaves_it_and_the_wrapper_with_the_same_groups():
    net = small_model.net()
    before = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    small_model.loss(net, 0, 0).backward()
    before.step()
    opt = optimizers.wrapped(net, "sgd", "auto", torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9))
    opt.inner.load_state_dict(before.state_dict())
    assert opt.param_groups[0]["lr"] == 0.3
    opt.param_groups[0]["lr"] = 0.0
    start = small_model.values(net)
    optimizers.one_step(opt, net, 0, 1)
    assert torch.equal(small_model.values(net), start)
    assert len(opt.state) == len(list(net.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.IN_STEP)
@over_inputs("dtype", (torch.float64, torch.bfloat16))
def test_models_of_other_types_keep_their_type_and_move(name, dtype):
    net = small_model.net().to(dtype)
    start = small_model.values(net)
    opt = optimizers.wrapped(net, name, "auto")
    for round_ in range(5):
        optimizers.one_step(opt, net, 0, round_)
    assert {p.dtype for p in net.parameters()} == {p.grad.dtype for p in net.parameters()} == {dtype}
    assert torch.isfinite(small_model.values(net)).all()
    assert not torch.equal(small_model.values(net), start)


def test_names_come_from_the_model_and_without_one_from_groups_and_indices():
    net = small_model.net()
    by_model = laconic.DistributedOptimizer(torch.optim.SGD(net.parameters()), laconic.SGD(), model=net)
    assert list(by_model.state_dict()["laconic"]["parameters"]) == [name for name, _ in net.named_parameters()]
    by_place = laconic.DistributedOptimizer(torch.optim.SGD(net.parameters()), laconic.SGD())
    assert list(by_place.state_dict()["laconic"]["parameters"]) == ["group0.0", "group0.1", "group0.2", "group0.3"]


def test_nan_in_one_local_step_aborts_the_full_cycle_and_the_next_one_goes_on():
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    opt = laconic.DistributedOptimizer(inner, laconic.ModelAveraging(), local_steps=3)
    start = small_model.values(net)
    for step in range(3):
        optimizers.one_step(opt, net, 0, step, torch.nan if step == 1 else 1.0)
    assert torch.equal(small_model.values(net), start)
    assert (opt.traffic.rounds, opt.traffic.aborted_rounds) == (1, 1)
    for step in range(3):
        optimizers.one_step(opt, net, 0, step)
    assert not torch.equal(small_model.values(net), start)
    assert (opt.traffic.rounds, opt.traffic.aborted_rounds) == (2, 1)


CHANGES = [laconic.SSGDMV(), laconic.SSGDTopK(), laconic.SSGDMVAD(), laconic.ModelAveraging(), laconic.SGD()]


@pytest.mark.parametrize("algorithm", CHANGES, ids=lambda algorithm: algorithm.name)
def test_local_steps_whose_change_overflows_abort_the_round(algorithm):
    """Each gradient is finite, and so are the parameters before and after; their difference is not."""
    maximum = torch.finfo(torch.float32).max
    weight = torch.nn.Parameter(torch.full((200,), -0.75 * maximum))
    opt = laconic.DistributedOptimizer(torch.optim.SGD([weight], lr=0.75), algorithm, local_steps=2)
    for _ in range(2):
        weight.grad = torch.full((200,), -maximum)
        opt.step()
    assert opt.traffic.aborted_rounds == 1
    assert (weight == -0.75 * maximum).all()
    for _ in range(2):
        weight.grad = torch.full((200,), maximum / 8)
        opt.step()
    assert (opt.traffic.rounds, opt.traffic.aborted_rounds) == (2, 1)
    assert (weight < -0.75 * maximum).any()


@over_inputs("factor", (1.0, torch.nan))
def test_nothing_of_a_step_holds_its_gradients_afterwards(factor):
    """They would take as much memory as the model during the next forward and backward."""
    net = small_model.net()
    opt = optimizers.wrapped(net, "sgd", "allreduce")
    (small_model.loss(net, 0, 0) * factor).backward()
    gradient = next(net.parameters()).grad.numpy()
    storage = weakref.ref(gradient)
    next(net.parameters()).grad = torch.from_numpy(gradient)
    del gradient
    opt.step()
    opt.zero_grad()
    assert storage() is None


def nan_in(part):
    part["worker"]["memory"]["residual"]["0.bias"][0][3] = float("nan")


def short_slice(part):
    part["servers"][0]["memory"]["residual"]["2.weight"] = {0: torch.zeros(32)}


def without_a_parameter(part):
    del part["worker"]["memory"]["residual"]["0.weight"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (nan_in, "'residual' has inf or NaN"),
        (short_slice, "'residual' has nothing for coordinate 109"),
        (without_a_parameter, "'residual' has nothing for coordinate 0"),
    ],
)
def test_a_damaged_memory_is_refused_before_anything_is_loaded(group_of_one, damage, message):
    opts = []
    for rounds in (3, 2):
        net = small_model.net()
        opts.append(optimizers.wrapped(net, "ec-sgd", "rank0"))
        for round_ in range(rounds):
            optimizers.one_step(opts[-1], net, 0, round_)
    state = copy.deepcopy(opts[0].state_dict())
    damage(state["laconic"]["driver"])
    before = copy.deepcopy(optimizers.state_of(opts[1]))
    with pytest.raises(ValueError, match=r"^state_dict: the memory ") as caught:
        opts[1].load_state_dict(state)
    assert message in str(caught.value)
    torch.testing.assert_close(optimizers.state_of(opts[1]), before, rtol=0, atol=0)
    assert opts[1].traffic.rounds == 2


def test_a_mean_of_what_is_no_replica_is_refused_before_anything_is_sent():
    net = small_model.net()
    opt = optimizers.wrapped(net, "sgd", "auto")
    with pytest.raises(TypeError, match=r"opt=Sequential must be a laconic\.DistributedOptimizer"):
        laconic.mean_parameters(net)
    for parameters, message in (
        (torch.zeros(3), r"shape \(3,\), torch.float32 must have shape \(\d+,\), torch.float32"),
        (opt.flat.values().double(), r"torch.float64 must have"),
    ):
        with pytest.raises(ValueError, match=message):
            laconic.mean_parameters(opt, parameters)
    with pytest.raises(TypeError, match="parameters=list must be a tensor"):
        laconic.mean_parameters(opt, [1.0])
    assert torch.equal(laconic.mean_parameters(opt), opt.flat.values())
