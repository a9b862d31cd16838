"""Vectors as long as the model: how many a method holds, and that no step allocates one after the second step."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import laconic
from laconic.buffer_pool import LONG_BYTES
from laconic.compressors import TopK
from support.inputs import over_inputs

SIZES = (300, 200, 500)
D = sum(SIZES)


class Allocations(TorchDispatchMode):
    """Counts the results of operations that are as long as the model and have memory of their own."""

    def __init__(self, d: int = D) -> None:
        super().__init__()
        self.d = d
        self.seen: list[torch.Tensor] = []  # held, so that no address is used twice

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = {place(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(made):
            if not isinstance(tensor, torch.Tensor) or place(tensor) in given:
                continue
            if tensor.untyped_storage().nbytes() >= self.d * tensor.element_size():
                self.seen.append(tensor)
        return made


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class SimulatedJob:
    """Three workers whose gradients are the parameters and some noise."""

    def __init__(self, algorithm: laconic.Algorithm, *, workers: int = 3, times: int = 1) -> None:
        torch.manual_seed(1)
        self.model = torch.nn.ParameterList(torch.nn.Parameter(torch.randn(times * size)) for size in SIZES)
        inner = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.simulation = laconic.Simulation(self.model, inner, algorithm, workers=workers)

    def step(self) -> None:
        self.simulation.step(lambda rank: sum((p * (p + rank)).sum() for p in self.model))


METHODS = [laconic.DropSign(), laconic.CompSkip(), laconic.SignSGDMajorityVote()]
TOP_K = TopK(density=0.05)
GRADIENTS = [laconic.SparseSGD(density=0.05), laconic.ECSGD(compressor=TOP_K, server_compressor=TOP_K)]
SPARSE = [laconic.SSGDMV(), laconic.SSGDTopK(), laconic.SSGDMVAD(), laconic.SSGDMVRS()]


@pytest.mark.parametrize("algorithm", METHODS + GRADIENTS + SPARSE, ids=lambda algorithm: algorithm.name)
def test_a_simulated_step_allocates_no_long_vector_after_the_second(algorithm):
    run = SimulatedJob(algorithm)
    run.step()
    run.step()
    with Allocations() as allocations:
        for _ in range(6):
            run.step()
    assert [tuple(tensor.shape) for tensor in allocations.seen] == []


LAZY = [
    laconic.LAG(warm_up_rounds=1),
    *(laconic.LASG(warm_up_rounds=1, rule=rule) for rule in ("wk1", "wk2", "ps", "pse")),
    laconic.SASG(warm_up_rounds=1, density=0.05),
    laconic.SASG(warm_up_rounds=1, density=0.05, alpha=5.0, skip_error="corrected"),
]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", LAZY, ids=str)
def test_a_lazy_method_allocates_no_long_vector_once_each_worker_has_skipped_and_sent(algorithm):
    # Parameters that workers share are in the pool of long vectors; short ones are left to the C library.
    times = LONG_BYTES // (4 * D) + 1
    run = SimulatedJob(algorithm, times=times)
    for _ in range(3 * algorithm.max_delay):  # until the pool has as many as are ever held at once
        run.step()
    skips = run.simulation.traffic.up.skips
    with Allocations(times * D) as allocations:
        for _ in range(algorithm.max_delay):
            run.step()
    assert run.simulation.traffic.up.skips > skips
    assert [tuple(tensor.shape) for tensor in allocations.seen] == []


@pytest.mark.parametrize(
    ("algorithm", "at_the_worker", "at_the_server", "once"),
    [
        # two of momentum and two of residual, old and new (the new momentum's buffer has the gradient), a direction;
        # two of residual, and the votes; the zeros that unwritten memories read as
        (laconic.DropSign(), 5, 3, 3),
        (laconic.CompSkip(), 5, 3, 3),
        # old and new momentum, a direction; nothing but packed votes; zeros
        (laconic.SignSGDMajorityVote(), 3, 0, 1),
    ],
    ids=lambda given: getattr(given, "name", given),
)
def test_the_number_of_long_vectors_that_a_method_holds(algorithm, at_the_worker, at_the_server, once):
    run = SimulatedJob(algorithm, workers=1)
    with Allocations() as allocations:
        for _ in range(5):
            run.step()
    assert len([t for t in allocations.seen if t.dtype == torch.int8]) == bool(at_the_server)
    assert len(allocations.seen) == at_the_worker + at_the_server + once


class Alone:
    """A `DistributedOptimizer` over one process."""

    def __init__(self, algorithm: laconic.Algorithm, momentum: float = 0.0) -> None:
        self.parameters = [torch.nn.Parameter(torch.randn(size)) for size in SIZES]
        inner = torch.optim.SGD(self.parameters, lr=0.01, momentum=momentum)
        model = torch.nn.ParameterList(self.parameters)
        self.opt = laconic.DistributedOptimizer(inner, algorithm, model=model, check_every=0)

    def step(self, set_to_none: bool = True) -> None:
        def closure() -> torch.Tensor:
            self.opt.zero_grad(set_to_none)
            loss = sum((p * p).sum() for p in self.parameters)
            loss.backward()
            return loss

        self.opt.step(closure)


@pytest.mark.parametrize("algorithm", LAZY, ids=str)
def test_a_lazy_step_of_the_optimizer_allocates_no_long_vector_once_it_has_skipped_and_sent(group_of_one, algorithm):
    run = Alone(algorithm)
    for _ in range(algorithm.max_delay + 2):
        run.step()
    with Allocations() as allocations:
        for _ in range(algorithm.max_delay):
            run.step()
    assert [tuple(tensor.shape) for tensor in allocations.seen] == []


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", METHODS + GRADIENTS + SPARSE, ids=lambda algorithm: algorithm.name)
@over_inputs("momentum", (0.0, 0.9))
@over_inputs("set_to_none", (True, False))
def test_a_step_of_the_optimizer_allocates_no_long_vector_after_the_second(
    group_of_one, algorithm, momentum, set_to_none
):
    run = Alone(algorithm, momentum)
    run.step(set_to_none)
    run.step(set_to_none)
    with Allocations() as allocations:
        for _ in range(6):
            run.step(set_to_none)
    assert [tuple(tensor.shape) for tensor in allocations.seen] == []


@pytest.mark.parametrize("algorithm", SPARSE, ids=lambda algorithm: algorithm.name)
@over_inputs("momentum", (0.0, 0.9))
def test_a_sparse_method_holds_two_long_vectors_and_the_parameters_before_a_step_that_is_taken(
    group_of_one, algorithm, momentum
):
    run = Alone(algorithm, momentum)
    with Allocations() as allocations:
        for _ in range(5):
            run.step()
    # the residual, old and new (the change is in the buffer of the new one); the start
    assert len(allocations.seen) == (3 if momentum else 2)
