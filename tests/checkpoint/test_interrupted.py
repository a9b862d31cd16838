"""`save` and `load` that are interrupted, or meet what a user's own objects raise, leave all as it was."""

import os

import pytest
import safetensors.torch
import torch

import laconic
from support import optimizers, small_model
from support.ranks import run_ranks

FAULTS = [KeyError("x"), AssertionError("wrong"), NotImplementedError(), ValueError()]


class Fragile(torch.nn.Sequential):
    """A model that raises when it has loaded a state, once."""

    error: BaseException | None = None

    def load_state_dict(self, state, *arguments, **options):
        result = super().load_state_dict(state, *arguments, **options)
        error, self.error = self.error, None
        if error is not None:
            raise error
        return result


class Counter:
    """An object with a state, and an error to raise where it is asked for."""

    error: BaseException | None = None

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        if self.error is not None:
            raise self.error
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def job():
    net = Fragile(*small_model.net())
    return net, optimizers.wrapped(net, "ec-sgd", "auto", torch.optim.Adam(net.parameters(), lr=0.01))


def everything_of(net, opt, counter):
    return small_model.values(net).clone(), optimizers.state_of(opt), torch.get_rng_state(), counter.value


def met_by_one(rank, folder):
    """What both ranks raise where an object of rank 1 fails, and whether training can be saved and loaded after it."""
    net, opt = job()
    opt.accept_equal_gradients()
    counter, found = Counter(rank), []
    for error in FAULTS:
        counter.error = error if rank == 1 else None
        with pytest.raises(Exception) as caught:  # noqa: PT011 - it is looked at below
            laconic.checkpoint.save(folder, opt, step=1, objects={"counter": counter})
        left = os.listdir(folder) if rank == 0 else []  # it removes what all have begun
        found.append((caught.type.__name__, str(caught.value), left))
    counter.error = None
    laconic.checkpoint.save(folder, opt, step=1, objects={"counter": counter})
    for error in FAULTS:
        optimizers.one_step(opt, net, rank, 0)
        counter.value = 7
        before = everything_of(net, opt, counter)
        net.error = error if rank == 1 else None
        with pytest.raises(Exception) as caught:  # noqa: PT011
            laconic.checkpoint.load(folder, opt, objects={"counter": counter})
        torch.testing.assert_close(everything_of(net, opt, counter), before, rtol=0, atol=0)
        found.append((caught.type.__name__, str(caught.value), None))
    assert laconic.checkpoint.load(folder, opt, objects={"counter": counter}).step == 1
    opt.close()
    return found, counter.value


@pytest.mark.slow
def test_what_an_object_of_one_rank_raises_ends_all_ranks_with_its_name_and_changes_nothing(tmp_path):
    by_rank = run_ranks(met_by_one, 2, str(tmp_path))
    for rank, (found, value) in enumerate(by_rank):
        assert value == rank
        for error, (kind, text, left) in zip(FAULTS, found[: len(FAULTS)], strict=True):
            assert kind == ("ValueError" if isinstance(error, ValueError) else "RuntimeError")
            assert text == f"checkpoint: rank 1: {error!r}"
            assert left == []
        for error, (kind, text, _) in zip(FAULTS, found[len(FAULTS) :], strict=True):
            assert kind == "CheckpointError"
            assert text.endswith(f"rank 1: {error!r}")


def test_an_interrupted_save_leaves_nothing_and_an_interrupted_load_no_part(tmp_path, monkeypatch, group_of_one):
    net, opt = job()
    counter = Counter(1)
    optimizers.one_step(opt, net, 0, 0)
    laconic.checkpoint.save(tmp_path, opt, step=1, objects={"counter": counter})

    def interrupted(*arguments):
        written(*arguments)
        raise KeyboardInterrupt

    written = safetensors.torch.save_file
    monkeypatch.setattr(safetensors.torch, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        laconic.checkpoint.save(tmp_path, opt, step=2, objects={"counter": counter})
    assert os.listdir(tmp_path) == ["000001-step-1"]
    optimizers.one_step(opt, net, 0, 1)
    counter.value, net.error = 2, KeyboardInterrupt()
    before = everything_of(net, opt, counter)
    with pytest.raises(KeyboardInterrupt):
        laconic.checkpoint.load(tmp_path, opt, objects={"counter": counter})
    torch.testing.assert_close(everything_of(net, opt, counter), before, rtol=0, atol=0)
    opt.close()


def test_of_a_checkpoint_that_was_moved_and_linked_the_link_alone_is_removed(tmp_path, group_of_one):
    _, opt = job()
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    saved = laconic.checkpoint.save(run, opt, step=1)
    saved.rename(elsewhere)
    saved.symlink_to(elsewhere)
    (run / ".000001-step-9.unfinished").write_text("no folder")
    for step in (2, 3, 4):
        assert laconic.checkpoint.save(run, opt, step=step, keep=1).name == f"{step:06}-step-{step}"
    assert os.listdir(run) == ["000004-step-4"]
    laconic.checkpoint.check(elsewhere)
    opt.close()


@pytest.mark.parametrize("name", ["manifest.json", "rank0.safetensors"])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused_and_not_waited_for(name, make, tmp_path, group_of_one):
    _, opt = job()
    saved = laconic.checkpoint.save(tmp_path, opt, step=1)
    (saved / name).unlink()
    make(saved / name)
    with pytest.raises(laconic.CheckpointError, match=f"{name}: it is no file"):
        laconic.checkpoint.load(tmp_path, opt)
    opt.close()
