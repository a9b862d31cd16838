"""PowerSGD against a reference, against the mean, and against torch's own hook."""

import json
from collections import defaultdict
from itertools import accumulate, pairwise

import pytest
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook

import laconic
from laconic.algorithms.powersgd import PowerSGD
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.lab.models import build, spec_of
from laconic.protocol.round_inputs import Inputs
from laconic.random_keys import make_key
from laconic.random_keys.streams import normals
from support import small_model
from support.command_line import laconic as command
from support.deadlines import PATIENCE_S
from support.inputs import over_inputs
from support.ranks import run_ranks
from support.simulated_run import assert_same, normal

N, ROUNDS, SEED = 3, 6, 4
SHAPES = ((9, 7), (9,), (5, 2, 3, 2), (0,), (5,), (2, 2), (8, 6))
SPEC = ModelSpec(names=tuple(f"tensor{i}" for i in range(len(SHAPES))), shapes=SHAPES)
RANKS = (1, 2, 3)  # r: the matrix of 2 x 2 is always sent dense, the one of 5 x 12 from r = 4 on


def gradients_of(round_):
    """The gradients of N workers, (N, d) float64, with a part that stays from round to round."""
    return normal(N, SPEC.d, key=7) + normal(N, SPEC.d, key=100 + round_)


def results_of(algorithm, spec=SPEC, start=0, *, layout="allreduce", dtype=torch.float64, gradients=gradients_of):
    """The directions of ROUNDS rounds over `spec`, which begins at `start`, (ROUNDS, spec.d); and the simulation."""
    driver = Simulated(algorithm, spec=spec, n_workers=N, dtype=dtype, layout=layout, seed=SEED)
    found = []
    for round_ in range(ROUNDS):
        vectors = gradients(round_)[:, start : start + spec.d].to(dtype)
        outcome = driver.round(
            lambda rank, vectors=vectors: Inputs(vector=vectors[rank].clone(), parameters=vectors[0].clone), lr=0.1
        )
        found.append(outcome.of(0).clone())
    return torch.stack(found), driver


def initial_q(tensor, r, dtype=torch.float64):
    """What the method draws for one matrix in round 0, (columns, r)."""
    key = make_key(SEED, "shared", 0, 0, "q")
    return torch.from_numpy(normals(key, tensor.columns * r, tensor.offset * r)).view(-1, r).to(dtype)


def reference(r):
    """Algorithms 1 and 2 of the paper, for one matrix after the other: the mean updates, (ROUNDS, d)."""
    found = torch.stack([gradients_of(round_).mean(0) for round_ in range(ROUNDS)])
    for tensor in SPEC.matrices:
        if (tensor.rows + tensor.columns) * r >= tensor.size:
            continue
        q = initial_q(tensor, r)
        errors = torch.zeros(N, tensor.rows, tensor.columns, dtype=torch.float64)
        for round_ in range(ROUNDS):
            deltas = torch.stack([tensor.of(gradient) for gradient in gradients_of(round_)]) + errors
            p = torch.stack([delta @ q for delta in deltas]).mean(0)
            p_hat, _ = torch.linalg.qr(p)
            own = torch.stack([delta.T @ p_hat for delta in deltas])
            q = own.mean(0)
            errors = torch.stack([delta - p_hat @ each.T for delta, each in zip(deltas, own, strict=True)])
            tensor.of(found[round_]).copy_(p_hat @ q.T)
    return found


@over_inputs("r", RANKS)
@over_inputs("layout", ("allreduce", "rank0", "dedicated"))
def test_it_is_the_papers_algorithm_round_by_round(r, layout):
    found, _ = results_of(PowerSGD(rank=r), layout=layout)
    assert_same(found, reference(r), to=1e-9)


def test_in_float32_it_is_the_same_to_float32s_rounding():
    found, _ = results_of(PowerSGD(rank=2), dtype=torch.float32)
    assert found.dtype == torch.float32
    assert_same(found.double(), reference(2), to=1e-4)


def test_what_is_sent_is_two_thin_matrices_for_each_that_pays_and_the_rest_as_it_is():
    p, q = PowerSGD(rank=2).exchanges(SPEC)
    thin, rest = ((9, 7), (5, 12), (8, 6)), 9 + 5 + 4
    assert (p.count, q.count) == (2 * sum(n for n, _ in thin) + rest, 2 * sum(m for _, m in thin))
    assert [exchange.count for exchange in PowerSGD(rank=5).exchanges(SPEC)] == [SPEC.d]
    assert PowerSGD(rank=2).paper_bits(SPEC) == (32.0 * (p.count + q.count),) * 2
    _, driver = results_of(PowerSGD(rank=2), layout="rank0", dtype=torch.float32)
    assert driver.workers[1].meter.counts["up"].payload_bits == ROUNDS * 32 * (p.count + q.count)


class AllFactored(PowerSGD):
    """Factors even where they are longer than the matrix, with as many columns as its rank."""

    def pays(self, rows, columns):
        return min(rows, columns) == self.rank


SQUARE = ModelSpec(names=("weight", "bias", "other"), shapes=((3, 8), (3,), (6, 3)))


@over_inputs("layout", ("allreduce", "rank0"))
@over_inputs(("dtype", "to"), ((torch.float32, 1e-6), (torch.float64, 1e-13)))
def test_at_full_rank_it_is_the_mean(layout, dtype, to):
    means = torch.stack([gradients_of(round_)[:, : SQUARE.d].mean(0) for round_ in range(ROUNDS)])
    for algorithm in (AllFactored(rank=3), PowerSGD(rank=3)):
        found, driver = results_of(algorithm, SQUARE, layout=layout, dtype=dtype)
        assert_same(found.double(), means, to=to)
        residuals = torch.stack([worker.me.memory["residual"] for worker in driver.workers])
        assert float(residuals.mean(0).abs().max()) < 10 * to


def test_what_is_not_sent_stays_residual_so_that_nothing_is_lost():
    found, driver = results_of(PowerSGD(rank=1))
    means = torch.stack([gradients_of(round_).mean(0) for round_ in range(ROUNDS)])
    residuals = torch.stack([worker.me.memory["residual"] for worker in driver.workers])
    assert_same(found.sum(0) + residuals.mean(0), means.sum(0), to=1e-13)
    for tensor in SPEC.vectors:
        assert not tensor.of(residuals[0]).any()


def test_a_matrix_without_gradient_in_one_round_is_not_lost_for_the_next_ones():
    def gradients(round_):
        return gradients_of(round_) * (round_ != 2)

    clean, driver = results_of(PowerSGD(rank=2), gradients=gradients)
    means = torch.stack([gradients(round_).mean(0) for round_ in range(ROUNDS)])
    residuals = torch.stack([worker.me.memory["residual"] for worker in driver.workers])
    assert_same(clean.sum(0) + residuals.mean(0), means.sum(0), to=1e-13)

    def only_late(round_):
        return gradients_of(round_) * (round_ > 2)

    found, _ = results_of(PowerSGD(rank=2), gradients=only_late)
    for tensor in SPEC.matrices:
        assert not tensor.of(found[2]).any()
        assert tensor.of(found[3]).any()


@over_inputs("r", RANKS)
def test_over_slices_that_hold_full_matrices_it_is_the_same(r):
    full, _ = results_of(PowerSGD(rank=r))
    bounds = (0, *accumulate(SPEC.sizes))
    for slices in (bounds[:3] + bounds[-1:], bounds[:1] + bounds[5:]):
        parts = [results_of(PowerSGD(rank=r), SPEC.part(a, b - a), a)[0] for a, b in pairwise(slices)]
        assert_same(torch.cat(parts, 1), full)


@pytest.mark.slow
def test_a_plan_needs_the_shapes_of_a_model():
    link = ("--workers", "4", "--bandwidth", "10Mbit", "--no-measure", "--json", "-")
    refused = command("plan", "powersgd", "--params", "1M", *link)
    assert refused.code == 2
    assert "powersgd: what it sends depends on the shapes" in " ".join(refused.err.split())
    ended = command("plan", "powersgd", "--model", "cnn", "--input-shape", "1x28x28", *link)
    rows = {row["layout"]: row for row in json.loads(ended.out)["choices"]}
    assert set(rows) == {"allreduce", "rank0", "dedicated"}
    spec = spec_of(build("cnn", (1, 28, 28), 10, 0))
    sent = sum(exchange.count for exchange in PowerSGD().exchanges(spec))
    assert 8 * sent < spec.d
    assert rows["allreduce"]["up_bytes"] == pytest.approx(3 / 4 * 4 * sent, rel=1e-3)
    assert rows["dedicated"]["up_bytes"] == pytest.approx(4 * sent, rel=0.02)


# torch's own hook.


def net_of():
    """A net with a convolution, two layers and biases, in float64, the same everywhere."""
    generator = torch.Generator().manual_seed(3)
    made = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(24, 9), nn.Tanh(), nn.Linear(9, 9), nn.Linear(9, 2)
    ).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4)
    return made


def loss_of(net, rank, round_):
    inputs, targets = (normal(5, *shape, key=make_key(1, "data", rank, round_, "x")) for shape in ((2, 4, 4), (2,)))
    return (net(inputs) - targets).square().mean()


def flat_gradient(net):
    return torch.cat([parameter.grad.reshape(-1) for parameter in net.parameters()])


DENSE_STEPS = 2  # the fewest after which torch's hook starts
EVEN_IF_IT_SAVES_LITTLE = {"min_compression_rate": 1}


def from_our_q(spec, net, r):
    """torch's hook, which starts from our Q."""
    tensors = dict(zip(net.parameters(), spec.tensors, strict=True))

    def hook(state, bucket):
        if state.iter == DENSE_STEPS and not state.q_memory_dict:
            by_shape = defaultdict(list)
            for parameter in bucket.parameters():
                tensor = tensors[parameter]
                if tensor in spec.matrices and PowerSGD(rank=r).pays(tensor.rows, tensor.columns):
                    by_shape[tensor.rows, tensor.columns].append(tensor)
            in_order = [tensor for alike in by_shape.values() for tensor in alike]
            state.q_memory_dict[bucket.index()] = torch.cat([initial_q(tensor, r).reshape(-1) for tensor in in_order])
            state.p_memory_dict[bucket.index()] = torch.empty(
                sum(tensor.rows for tensor in in_order) * r, dtype=torch.float64
            )
        return powerSGD_hook(state, bucket)

    return hook


def beside_torch(rank, r):
    """The directions of ROUNDS rounds by torch's hook and by ours, each (ROUNDS, d)."""
    net = net_of()
    inner = torch.optim.SGD(net.parameters(), lr=1e-300)  # too small to move a parameter; at 0 no residual is kept
    opt = laconic.DistributedOptimizer(inner, PowerSGD(rank=r), model=net, seed=SEED, timeout_s=PATIENCE_S)
    ours = []
    for round_ in range(DENSE_STEPS, DENSE_STEPS + ROUNDS):
        opt.zero_grad()
        loss_of(net, rank, round_).backward()
        opt.step()
        ours.append(flat_gradient(net))
    net = net_of()
    parallel = nn.parallel.DistributedDataParallel(net)
    state = PowerSGDState(None, r, start_powerSGD_iter=DENSE_STEPS, **EVEN_IF_IT_SAVES_LITTLE)
    parallel.register_comm_hook(state, from_our_q(opt.flat.spec, net, r))
    by_torch = []
    for round_ in range(DENSE_STEPS + ROUNDS):
        parallel.zero_grad()
        loss_of(parallel, rank, round_).backward()
        if round_ >= DENSE_STEPS:
            by_torch.append(flat_gradient(net))
    return torch.stack(ours), torch.stack(by_torch)


@pytest.mark.slow
@pytest.mark.parametrize("r", RANKS)
def test_it_gives_the_gradients_of_torchs_own_hook(r):
    for ours, by_torch in run_ranks(beside_torch, 2, r):
        assert_same(ours, by_torch, to=1e-9)


def full_rank_in_process(rank, layout):
    """The parameters at the end, by the method at full rank with factors and without, and by the mean."""
    ends = []
    for algorithm in (AllFactored(rank=3), PowerSGD(rank=6), laconic.SGD()):
        net = small_model.net()
        inner = torch.optim.SGD(net.parameters(), lr=0.1)
        opt = laconic.DistributedOptimizer(inner, algorithm, model=net, layout=layout, timeout_s=PATIENCE_S)
        for step in range(10):
            opt.zero_grad()
            small_model.loss(net, rank, step).backward()
            opt.step()
        ends.append(small_model.values(net))
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["allreduce", "rank0"])
def test_in_processes_it_is_the_mean_at_full_rank_too(layout):
    for factored, full_rank, mean in run_ranks(full_rank_in_process, 3, layout):
        assert_same(factored, mean, to=1e-6)
        assert_same(full_rank, mean, to=1e-6)
