"""Which models and optimizers `DistributedOptimizer` and `Simulation` take, and the way out where they do not."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import laconic
from laconic.training.parameter_checks import overlaps
from support import optimizers, small_model
from support.inputs import over_inputs

pytestmark = pytest.mark.usefixtures("group_of_one")


def inner_sgd(net):
    return torch.optim.SGD(net.parameters(), lr=0.1)


def make(net, inner=None, algorithm=None, **settings):
    return optimizers.wrapped(net, "sgd", "auto", inner or inner_sgd(net), **settings)


def simulate(net, inner=None, algorithm=None, **settings):
    return laconic.Simulation(net, inner or inner_sgd(net), algorithm or laconic.SGD(), workers=2, **settings)


both = over_inputs("maker", (make, simulate))


class OneParameter(nn.Module):
    def __init__(self, parameter):
        super().__init__()
        self.w = parameter


class Marked(nn.Parameter):
    """Parameters with a class of their own, as some packages make them."""


class Opaque(torch.Tensor):
    """A tensor whose memory only its own class understands."""

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        assert func is torch.ops.aten.detach.default, func
        return cls.of(args[0].numel())

    @classmethod
    def of(cls, n):
        return torch.Tensor._make_wrapper_subclass(cls, (n,))


def freed():
    parameter = nn.Parameter(torch.zeros(3))
    parameter.untyped_storage().resize_(0)
    return parameter


PARAMETERS = {
    "complex": (lambda: nn.Parameter(torch.zeros(3, dtype=torch.cfloat)), r"torch.complex64.*torch\.view_as_real"),
    "8 bits": (lambda: nn.Parameter(torch.zeros(3).to(torch.float8_e5m2)), "float8_e5m2; only float64, float32,"),
    "meta": (lambda: nn.Parameter(torch.zeros(3, device="meta")), "device meta.*to_empty"),
    "lazy": (nn.UninitializedParameter, "has no shape yet; run the model once"),
    "expanded": (lambda: nn.Parameter(torch.zeros(1).expand(3)), r"share memory.*\.clone\(\)"),
    "sparse": (lambda: nn.Parameter(torch.eye(3).to_sparse()), r"layout torch.sparse_coo.*to_dense\(\)"),
    "freed": (freed, "freed memory"),
    "of a class": (
        lambda: nn.Parameter(Opaque.of(3)),
        "is a Opaque, whose memory",
    ),
}


@both
@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_parameter_that_is_no_plain_tensor_is_refused_by_its_name(maker, kind):
    parameter, message = PARAMETERS[kind]
    net = OneParameter(parameter())
    inner = inner_sgd(small_model.net())
    inner.add_param_group({"params": [net.w]})
    with pytest.raises(ValueError, match=rf"inner: parameter 'w' .*{message}"):
        maker(net, inner)


@pytest.mark.parametrize("kind", ["meta", "sparse", "of a class"])
def test_a_frozen_parameter_or_a_buffer_without_plain_memory_is_refused_by_its_name(kind):
    parameter, message = PARAMETERS[kind]
    net = small_model.net()
    inner = inner_sgd(net)
    net.frozen = parameter().requires_grad_(False)
    with pytest.raises(ValueError, match=rf"model: 'frozen' .*{message}"):
        make(net, inner)
    del net.frozen
    net.register_buffer("sparse", torch.eye(3).to_sparse())
    with pytest.raises(ValueError, match="model: 'sparse' has the layout"):
        make(net)


def test_strides_show_elements_that_share_memory():
    matrix = torch.zeros(4, 6)
    plain = [matrix, matrix.t(), matrix[:, ::2], matrix[1:3, 1:3], torch.zeros(2, 3, 4, 4).to(
        memory_format=torch.channels_last), torch.zeros(()), torch.zeros(0, 3), matrix.expand(1, 4, 6)]  # fmt: skip
    shared = [torch.zeros(1).expand(2), torch.zeros(3, 1).expand(3, 2), torch.zeros(9).as_strided((4, 4), (1, 1))]
    assert not any(map(overlaps, plain))
    assert all(map(overlaps, shared))


@both
def test_a_parameter_that_is_listed_twice_is_refused(maker):
    net = small_model.net()
    with pytest.warns(UserWarning, match="duplicate parameters"):
        inner = torch.optim.SGD([net[0].weight, net[0].weight], lr=0.1)
    with pytest.raises(ValueError, match=r"'0.weight' is listed twice"):
        maker(net, inner)


@both
def test_a_model_without_the_optimizers_parameters_is_refused(maker):
    with pytest.raises(ValueError, match=r"model: it has none of the parameters of `inner`"):
        maker(small_model.net(), inner_sgd(small_model.net()))


def test_something_else_than_a_model_is_refused():
    with pytest.raises(TypeError, match=r"model=\[Parameter(.|\n)* must be the torch.nn.Module"):
        make(small_model.net(), model=list(small_model.net().parameters()))


class OfDDP:
    """The places in which a module in DistributedDataParallel may be met."""

    @staticmethod
    def itself(net):
        ddp = DistributedDataParallel(net)
        return ddp, ddp

    @staticmethod
    def module(net):
        return net, DistributedDataParallel(net)

    @staticmethod
    def unknown(net):
        return None, DistributedDataParallel(net)

    @staticmethod
    def deep_inside(net):
        ddp = DistributedDataParallel(net)
        return nn.ModuleList([nn.Identity(), ddp]), ddp

    @staticmethod
    def compiled(net):
        ddp = DistributedDataParallel(net)
        return torch.compile(ddp, backend="eager"), ddp

    @staticmethod
    def without_sync(net):
        ddp = DistributedDataParallel(net)
        ddp.require_backward_grad_sync = False
        return ddp, ddp


@pytest.mark.slow
@pytest.mark.parametrize("place", [name for name in vars(OfDDP) if not name.startswith("_")])
def test_a_module_in_ddp_is_refused_wherever_it_is_found(place):
    net = small_model.net()
    model, ddp = getattr(OfDDP, place)(net)
    with pytest.raises(ValueError, match=r"DistributedDataParallel, which averages all gradients itself.*`\.module`"):
        optimizers.wrapped(net, "sgd", "auto", inner_sgd(ddp), model=model)
    if model is not None:
        with pytest.raises(ValueError, match="DistributedDataParallel, which averages"):
            simulate(model, inner_sgd(ddp))
    assert torch.equal(small_model.values(net), small_model.values(small_model.net()))


@pytest.mark.slow
def test_ddp_that_takes_the_module_afterwards_is_refused_where_it_is_made():
    net = small_model.net()
    opt = make(net)
    with pytest.raises(
        RuntimeError, match=r"a DistributedOptimizer trains this module.*DistributedDataParallel, which"
    ):
        DistributedDataParallel(net)
    optimizers.one_step(opt, net, 0, 0)
    assert opt.traffic.rounds == 1


def test_ddp_and_optimizers_that_nobody_holds_any_more_do_not_matter():
    net = small_model.net()
    for _ in range(2):
        DistributedDataParallel(net)
        optimizers.one_step(make(net), net, 0, 0)


def test_a_module_that_is_compiled_or_in_data_parallel_keeps_its_names():
    names = [name for name, _ in small_model.net().named_parameters()]
    for around in (lambda net: torch.compile(net, backend="eager"), nn.DataParallel):
        net = small_model.net()
        opt = make(net, model=around(net))
        assert list(opt.state_dict()["laconic"]["parameters"]) == names
    net = small_model.net()
    net[0] = torch.compile(net[0], backend="eager")
    assert list(make(net).state_dict()["laconic"]["parameters"]) == names


# As optimizers that climb, and step from there.
Twice = type("Twice", (torch.optim.SGD,), {"first_step": lambda self: None, "second_step": lambda self: None})


class WithAnArgument(torch.optim.SGD):
    def step(self, closure):
        raise AssertionError


class Averaging(torch.optim.SGD):
    """As schedulefree's: the parameters are not what is evaluated."""

    def train(self):
        self.mode = "train"

    def eval(self):
        self.mode = "eval"


class Lookahead(torch.optim.SGD):
    pass


class Sharded(torch.optim.SGD):
    __module__ = "torch.distributed.optim.zero_redundancy_optimizer"


class Prepared(torch.optim.SGD):
    __module__ = "accelerate.optimizer"


class Reducing(torch.optim.SGD):
    __module__ = "horovod.torch.optimizer"


INNER = [
    (
        torch.optim.LBFGS,
        ValueError,
        r"inner=LBFGS evaluates its closure several times a step.*Adam.*opt.step\(closure\)",
    ),
    (Twice, ValueError, "inner=Twice evaluates its closure several times a step"),
    (WithAnArgument, ValueError, "inner=WithAnArgument evaluates its closure"),
    (torch.optim.SparseAdam, ValueError, r"inner=SparseAdam takes sparse gradients alone.*torch.optim.Adam"),
    (Sharded, TypeError, "sends gradients or parameters itself; give the plain optimizer"),
    (Reducing, TypeError, "sends gradients or parameters itself; give the plain optimizer"),
    (Prepared, TypeError, r"accelerator.prepare\(laconic.DistributedOptimizer"),
    (lambda parameters, lr: parameters, TypeError, r"inner=.* must be a torch\.optim\.Optimizer"),
]


@both
@pytest.mark.parametrize(("kind", "error", "message"), INNER)
def test_an_optimizer_that_does_not_step_along_one_gradient_is_refused(maker, kind, error, message):
    net = small_model.net()
    with pytest.raises(error, match=message):
        maker(net, kind(net.parameters(), lr=0.1))


def test_a_wrapped_optimizer_is_not_wrapped_again():
    net = small_model.net()
    with pytest.raises(TypeError, match="it is a DistributedOptimizer already"):
        make(net, make(net))


@pytest.mark.parametrize("kind", [Averaging, torch.optim.ASGD, Lookahead])
def test_second_weights_go_with_directions_and_are_refused_where_parameters_or_changes_travel(kind):
    for algorithm, local_steps in (
        (laconic.ModelAveraging(), 1), (laconic.GlobalReplica(), 1), (laconic.DiLoCo(), 1), (laconic.SGD(), 2),
    ):  # fmt: skip
        net = small_model.net()
        for maker in (
            lambda net, inner, **settings: laconic.DistributedOptimizer(inner, algorithm, model=net, **settings),  # noqa: B023
            lambda net, inner, **settings: laconic.Simulation(net, inner, algorithm, workers=2, **settings),  # noqa: B023
        ):
            with pytest.raises(ValueError, match=f"inner={kind.__name__} keeps second weights.*returns a direction"):
                maker(net, kind(net.parameters(), lr=0.1), local_steps=local_steps)
    net = small_model.net()
    optimizers.one_step(make(net, kind(net.parameters(), lr=0.1)), net, 0, 0)
