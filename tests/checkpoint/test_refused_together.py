"""A wrong argument of one rank alone ends `save` and `load` on all ranks at once, and leaves them usable."""

import pytest
import torch

import laconic
from support import small_model
from support.ranks import run_ranks

WRONG = {
    "keep": {"keep": 0},
    "step": {"step": "a"},
    "model": {"model": 3},
    "objects": {"objects": {"scheduler": 3}},
    "objects as a list": {"objects": [3]},
    "extra": {"extra": 3},
    "folder": {"folder": 3},
}


def refused(rank, folder):
    net = small_model.net()
    found = {}
    with laconic.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), laconic.ECSGD(), model=net) as opt:
        opt.accept_equal_gradients()
        for name, wrong in WRONG.items():
            given = {"folder": folder, "step": 1, **(wrong if rank else {})}
            with pytest.raises((ValueError, TypeError)) as caught:
                laconic.checkpoint.save(given.pop("folder"), opt, **given)
            found[name] = caught.type.__name__, str(caught.value)
            if name in ("model", "objects", "folder"):
                given = {"folder": folder, **(wrong if rank else {})}
                with pytest.raises((ValueError, TypeError)) as caught:
                    laconic.checkpoint.load(given.pop("folder"), opt, **given)
                found[f"{name}, to load"] = caught.type.__name__, str(caught.value)
        found["empty"] = laconic.checkpoint.load(folder, opt) is None
        laconic.checkpoint.save(folder, opt, step=2)
        found["goes on"] = laconic.checkpoint.load(folder, opt).step
    return found


@pytest.mark.slow
def test_the_other_ranks_end_at_once_with_a_wrong_argument_and_whose_it_is(tmp_path):
    right, wrong = run_ranks(refused, 2, str(tmp_path))
    for found in (right, wrong):
        assert found.pop("empty")
        assert found.pop("goes on") == 2
    assert len(right) == len(WRONG) + 3
    for name, (kind, text) in right.items():
        own_kind, own_text = wrong[name]
        verb = "load" if name.endswith("to load") else "save"
        assert kind == "SetupError", name
        assert text.startswith(f"rank 1 refused its own arguments (to {verb} a checkpoint), so this rank stops too: ")
        assert text.endswith(f"{own_kind}: {own_text}"), name
        assert name.split(" ")[0].strip(",") in own_text or name.startswith("folder"), name
