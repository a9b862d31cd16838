"""Models of other kinds, over real processes: what works gives the same bits as a simulation, the rest is refused."""

import pytest
import torch

from support import kinds_of_models as kinds
from support import methods, small_model
from support.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group(__name__)]  # one process makes what these tests share

N = 2
LOCAL = [("sgd", 2), ("compskip", 3), ("sgd-model", 2), ("diloco", 2)]
SOME = ("sgd", "compskip", "ec-sgd", "sgd-model")
MIXED = [("bfloat16", name, 1) for name in methods.IN_STEP] + [("bfloat16", *case) for case in LOCAL] + [
    (types, name, 1) for types in ("float16", "float64") for name in SOME]  # fmt: skip
SPARSE = [("sgd", 1), ("compskip", 1), ("lasg", 1), ("sgd-model", 1), ("sgd", 2), ("sgd-server", 1)]
SCALED = [(name, steps, clip) for name, steps in (("sgd", 1), ("compskip", 1), ("sgd-model", 1), ("sgd", 2))
          for clip in (False, True)]  # fmt: skip


def tasks(rank):
    seen = {}
    for types, name, steps in MIXED:
        resume_at = 2 if steps == 1 else -1
        net = kinds.Mixed(*kinds.TYPES[types])
        seen[types, name, steps] = kinds.trained(rank, net, name, local_steps=steps, resume_at=resume_at)
    for name, steps in SPARSE:
        for sparse in (True, False):
            settings = {"sparse_gradients": "dense"} if sparse else {}
            net = kinds.Words(sparse)
            seen["words", name, steps, sparse] = kinds.trained(rank, net, name, local_steps=steps, **settings)
    for case in SCALED:
        seen["scale", *case] = kinds.scales(rank, *case)
    seen["start"] = kinds.shared_at_the_start(rank)
    seen["two"] = kinds.of_two_optimizers(rank)
    seen["sharded"] = kinds.sharded(rank)
    return seen


@pytest.fixture(scope="module")
def seen():
    """What each rank returned: seen[rank][task]."""
    torch.set_num_threads(1)
    return run_ranks(tasks, N)


@pytest.mark.parametrize("case", MIXED, ids="{0[0]}-{0[1]}-{0[2]}".format)
def test_layers_of_one_type_and_norms_of_another_train_as_in_a_simulation(case, seen):
    types, name, steps = case
    expected = kinds.simulated(kinds.Mixed(*kinds.TYPES[types]), name, N, local_steps=steps)
    for rank in range(N):
        found, have_types, moved = seen[rank][case]
        assert found == expected[rank], f"rank {rank}"
        assert have_types
        assert moved > 0


def test_the_mean_of_gradients_of_several_types_is_taken_in_float32():
    net, twin = (kinds.Mixed(*kinds.TYPES["bfloat16"]) for _ in range(2))
    lr = methods.with_test_settings("sgd").test_lr
    inner = torch.optim.SGD(twin.parameters(), lr=lr)
    for round_ in range(4):
        by_rank = []
        for rank in range(N):
            inner.zero_grad()
            small_model.loss(twin, rank, round_).backward()
            by_rank.append([parameter.grad.float() / N for parameter in twin.parameters()])
        for parameter, *shares in zip(twin.parameters(), *by_rank, strict=True):
            parameter.grad = sum(shares).to(parameter.dtype)
        inner.step()
    assert kinds.simulated(net, "sgd", N)[0] == kinds.hash_of(kinds.values(twin))


@pytest.mark.parametrize("case", SPARSE, ids=str)
def test_sparse_gradients_that_are_made_dense_train_as_those_of_a_dense_layer(case, seen):
    name, steps = case
    expected = kinds.simulated(kinds.Words(True), name, N, local_steps=steps, sparse_gradients="dense")
    for rank in range(N):
        sparse, dense = (seen[rank]["words", name, steps, kind] for kind in (True, False))
        assert sparse == dense
        assert sparse[0] == expected[rank]
        assert sparse[2] > 0


@pytest.mark.parametrize("case", SCALED, ids=str)
def test_when_one_rank_overflows_the_loss_scale_stays_equal_on_all_ranks(case, seen):
    _, steps, _ = case
    one, other = (seen[rank]["scale", *case] for rank in range(N))
    exchanges = range(steps - 1, 8, steps)
    assert [one[round_] for round_ in exchanges] == [other[round_] for round_ in exchanges]
    assert [scale for scale, _, _ in one] == [scale for scale, _, _ in other]
    bad = max(kinds.BAD_ROUND, steps * (kinds.BAD_ROUND // steps) + steps - 1)
    assert [scale for scale, _, _ in one[bad - 1 : bad + 1]] == [1024.0, 512.0]
    before = one[bad - steps][2]
    assert one[bad][2] == before  # the round changed nothing
    assert one[bad + steps][2] != before


def test_what_is_not_trained_is_shared_whatever_its_type_and_strides(seen):
    for mine, other in zip(seen[0]["start"], seen[1]["start"], strict=True):
        assert torch.equal(mine, other)
    assert torch.equal(seen[1]["start"][0], torch.zeros(3))


def test_an_optimizer_leaves_the_parameters_of_another_one_alone(seen):
    assert seen[0]["two"] == seen[1]["two"]
    assert seen[0]["two"][1]


def test_each_rank_refuses_shards_and_names_a_parameter(seen):
    for by_rank in seen:
        errors = by_rank["sharded"]
        assert len(errors) == 8
        for kind, error in errors.items():
            assert "leaves each rank another part of a parameter" in error, kind
            assert "train the plain module" in error, kind
        for kind in ("fully_shard", "tensor parallel"):
            assert errors[f"{kind}, with model"].startswith("inner: parameter '0.weight' is a DTensor")


def test_ddp_within_each_machine_goes_with_an_exchange_between_machines():
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    for round_ in range(4):
        inner.zero_grad()
        (sum(small_model.loss(net, rank, round_) for rank in range(4)) / 4).backward()
        inner.step()
    for values, error in run_ranks(kinds.within_machines, 4):
        torch.testing.assert_close(values, small_model.values(net), rtol=1e-5, atol=1e-6)
        assert "DistributedDataParallel, which averages all gradients itself" in error
