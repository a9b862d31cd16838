"""What `DistributedOptimizer` refuses: at once, with a message that names the remedy, and before anything changes."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

import laconic
from laconic.training.flat_parameters import FlatParameters
from support import optimizer_tasks, small_model
from support.deadlines import PATIENCE_S


def inner_sgd(net):
    return torch.optim.SGD(net.parameters(), lr=0.1)


def wrapped(net, algorithm=None, **settings):
    return laconic.DistributedOptimizer(inner_sgd(net), algorithm or laconic.SGD(), timeout_s=PATIENCE_S, **settings)


in_group = pytest.mark.usefixtures("group_of_one")


def test_without_a_process_group_the_message_names_how_to_get_one():
    if dist.is_initialized():
        pytest.skip("another test of this module has made one")
    with pytest.raises(RuntimeError, match=r"init_process_group.*torchrun.*laconic\.Simulation"):
        wrapped(small_model.net())


def test_mixed_devices_are_named_with_their_parameters():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    with pytest.raises(ValueError, match=r"mixed devices: '0.weight' is cpu, '1.weight' is meta.*model\.to\(device\)"):
        FlatParameters(inner_sgd(net), net)


@in_group
def test_a_model_with_nothing_to_train_is_refused():
    net = small_model.net().requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        wrapped(net)


@in_group
@pytest.mark.parametrize("wrong", ["sgd", laconic.SGD, torch.optim.SGD], ids=["name", "class", "torch's class"])
def test_an_object_that_is_no_algorithm_is_refused(wrong):
    with pytest.raises(TypeError, match=r"algorithm=.* must be an algorithm such as laconic\.CompSkip\(\)"):
        wrapped(small_model.net(), wrong)


@in_group
def test_a_misspelled_layout_gets_the_near_miss():
    with pytest.raises(ValueError, match=r"layout='shraded' must be one of.*mean.*sharded"):
        wrapped(small_model.net(), layout="shraded")


@in_group
@pytest.mark.parametrize(
    ("algorithm", "layout", "remedy"),
    [
        (laconic.CompSkip(), "allreduce", "use rank0, dedicated or sharded"),
        (laconic.DistEFBlockwise(), "allreduce", "use rank0, dedicated or sharded$"),
        (laconic.DistEFBlockwise(blocks="vector"), "sharded", "use rank0 or dedicated"),
        (laconic.GlobalReplica(), "sharded", "use rank0 or dedicated"),
        (laconic.SGD(), "dedicated", "start at least 2, or use rank0"),
    ],
)
def test_a_layout_that_the_method_does_not_admit_is_refused(algorithm, layout, remedy):
    with pytest.raises(ValueError, match=f"layout='{layout}' does not go with {algorithm.name}: .*{remedy}"):
        wrapped(small_model.net(), algorithm, layout=layout)


@in_group
def test_a_negative_check_every_is_refused():
    with pytest.raises(ValueError, match="check_every=-1 must be at least 0"):
        wrapped(small_model.net(), check_every=-1)


@in_group
def test_a_misspelled_word_for_what_becomes_of_replicas_is_refused():
    with pytest.raises(ValueError, match="replicas='sink' must be one of sync, stop"):
        wrapped(small_model.net(), replicas="sink")


@in_group
@pytest.mark.parametrize("seconds", [0, -1.0])
def test_a_timeout_that_is_not_above_zero_is_refused(seconds):
    with pytest.raises(ValueError, match=f"timeout_s={seconds} must be above 0"):
        laconic.DistributedOptimizer(inner_sgd(small_model.net()), laconic.SGD(), timeout_s=seconds)


@in_group
def test_a_group_without_this_process_is_refused():
    with pytest.raises(ValueError, match="global rank 0, is not one of its ranks"):
        wrapped(small_model.net(), group=dist.GroupMember.NON_GROUP_MEMBER)


@in_group
@pytest.mark.parametrize("algorithm", [laconic.SGD(), laconic.ModelAveraging()], ids=lambda a: a.name)
def test_a_step_without_gradients_is_refused(algorithm):
    net = small_model.net()
    opt = wrapped(net, algorithm)
    with pytest.raises(RuntimeError, match=r"step\(\) without gradients.*loss\.backward\(\)"):
        opt.step()
    assert torch.equal(small_model.values(net), small_model.values(small_model.net()))
    assert opt.traffic.rounds == 0


@in_group
def test_sparse_gradients_are_refused():
    net = nn.Embedding(5, 3, sparse=True)
    with pytest.raises(
        ValueError, match=r"'weight' is of an Embedding with sparse gradients.*sparse_gradients='dense'"
    ):
        wrapped(net, model=net)
    opt = wrapped(net)
    net(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match=r"'group0.0' has a sparse gradient; make its layer with sparse=False, or pass"):
        opt.step()


@in_group
def test_parameters_cannot_be_added():
    opt = wrapped(small_model.net())
    with pytest.raises(RuntimeError, match=r"add_param_group.*make a new DistributedOptimizer"):
        opt.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert len(opt.param_groups) == 1


@in_group
def test_a_gradient_of_a_parameter_that_was_frozen_is_refused():
    """Each rank would apply its own gradient, and the replicas would differ without an error."""
    net = small_model.net()
    net[0].bias.requires_grad_(False)
    opt = wrapped(net, model=net)
    net[0].bias.requires_grad_(True)
    small_model.loss(net, 0, 0).backward()
    with pytest.raises(RuntimeError, match=r"'0.bias' was frozen.*make a new DistributedOptimizer"):
        opt.step()
    assert torch.equal(small_model.values(net), small_model.values(small_model.net()))


@in_group
def test_dist_ef_refuses_groups_whose_learning_rates_change_their_proportions():
    net = small_model.net()
    groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[2].parameters(), "lr": 0.2}]
    opt = laconic.DistributedOptimizer(torch.optim.SGD(groups), laconic.DistEFBlockwise())
    for group in opt.param_groups:
        group["lr"] /= 2
    small_model.loss(net, 0, 0).backward()
    opt.step()
    opt.param_groups[0]["lr"] /= 2
    with pytest.raises(ValueError, match=r"keep their proportions; they were \[0.1, 0.2\] and are \[0.025, 0.1\]"):
        opt.step()
    assert opt.traffic.rounds == 1


@pytest.fixture
def two_points():
    with optimizer_tasks.two_points() as algorithm:
        yield algorithm


@in_group
def test_a_method_with_two_points_names_the_closure_that_it_needs(two_points):
    net = small_model.net()
    opt = wrapped(net, two_points, model=net)
    small_model.loss(net, 0, 0).backward()
    with pytest.raises(RuntimeError, match=r"two-points evaluates.*needs a closure: def closure\(\): opt\.zero_grad"):
        opt.step()


@in_group
def test_the_second_gradient_is_that_of_the_same_batch_and_the_parameters_are_restored(two_points):
    net, other = small_model.net(), small_model.net()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    small_model.loss(other, 0, 0).backward()
    opt = wrapped(net, two_points, model=net)

    def closure():
        opt.zero_grad()
        loss = small_model.loss(net, 0, 0)
        loss.backward()
        return loss

    here = closure().detach()
    expected = [p.detach() - 0.1 * (p.grad - q.grad) for p, q in zip(net.parameters(), other.parameters(), strict=True)]
    assert torch.equal(opt.step(closure).detach(), here)
    for parameter, value in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value)
